import CProviderABI
import ProviderKit

/// Decides whether packets to the network are sent in GSO batches (UDP_SEGMENT): one system call passes many packets to
/// the kernel, and the kernel or the adapter splits them into datagrams.
///
/// On the wire the datagrams of a batch differ from others in two ways: they have UDP checksums, and over IPv4 their
/// identifications are 0, 1, 2 etc., which the ICRC must cover in advance. An adapter may number them differently, and a
/// peer may drop datagrams with a checksum. So only packets that are `isExpendable` are sent in a batch: a packet that
/// is lost is sent again as a single datagram, which arrives. While batches keep being lost, none are sent.
///
/// Each repair (a packet that was lost and arrived when it was sent again) weighs as much as 16 batches that were sent.
/// When the repairs outweigh the batches by the weight of 4 repairs, segmentation pauses; each pause is twice as long
/// as the one before. Packets to a peer that is dead cause no repairs.
struct UDPSegmentation {
    /// Datagrams in one batch: UDP_MAX_SEGMENTS of Linux before 6.9, which doubled it.
    static let maxSegments = 64
    /// Bytes in one batch: the payload of the largest IPv4 packet after the UDP header.
    static let maxBytes = 65_507

    /// False when `RDMA_SOFT_UDP_SEGMENTS=0` is set, or when the kernel does not support it.
    private(set) var isSupported = true
    /// Whether packets are sent in batches now.
    private(set) var isOn = true
    /// The number of sent batches. Wraps.
    private(set) var sentBatches: UInt64 = 0

    /// The values of `sentBatches` and of the engine's repairs at the last `evaluate`.
    private var knownBatches: UInt64 = 0
    private var knownRepairs: UInt64 = 0
    /// The weight of the repairs that no batches outweigh, in batches.
    private var lossWeight: UInt64 = 0
    private var pauseEnd: UInt64 = 0
    /// The value of `sentBatches` at the last pause. While `sentBatches` is equal to it, losses are not attributed to
    /// GSO.
    private var batchesAtPause: UInt64 = 0
    private var pauseLength: UInt64 = 1_000_000_000

    private static let repairWeight: UInt64 = 16
    private static let lossLimit: UInt64 = 4 * repairWeight
    /// One hour, in nanoseconds.
    private static let longestPause: UInt64 = 3_600_000_000_000

    /// Switches segmentation off permanently.
    mutating func disable() {
        isSupported = false
        isOn = false
    }

    /// Counts a batch that is sent.
    @inline(__always)
    mutating func countBatch() {
        assert(isOn, "a GSO batch is begun only while segmentation is on")
        sentBatches &+= 1
    }

    /// Sets `isOn` from the repairs that the engine has counted so far (`Engine.repairCount`), at the time `now` in
    /// nanoseconds.
    mutating func evaluate(repairs: UInt64, now: UInt64) {
        guard isSupported else { return }
        let newBatches = sentBatches &- knownBatches
        let newRepairs = repairs &- knownRepairs
        guard newBatches | newRepairs != 0 || !isOn else { return }
        knownBatches = sentBatches
        knownRepairs = repairs
        guard isOn else {
            isOn = now >= pauseEnd
            return
        }
        guard sentBatches != batchesAtPause else { return }
        lossWeight = (lossWeight > newBatches ? lossWeight &- newBatches : 0) &+ newRepairs &* Self.repairWeight
        if lossWeight >= Self.lossLimit { pause(from: now) }
    }

    private mutating func pause(from now: UInt64) {
        if pauseEnd == 0 {
            var warning = MessageText(
                "packets that were sent to the network in GSO batches were lost, and arrived when")
            warning.append(" sent alone: GSO pauses for a while; RDMA_SOFT_UDP_SEGMENTS=0 switches it off")
            warning.log(RDMA_LOG_WARNING)
        }
        isOn = false
        lossWeight = 0
        batchesAtPause = sentBatches
        pauseEnd = now &+ pauseLength
        pauseLength = min(2 &* pauseLength, Self.longestPause)
    }
}
