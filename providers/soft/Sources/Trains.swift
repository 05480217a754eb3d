import CProviderABI
import ProviderKit

/// Whether packets go over the network in trains: many in one system call, which the kernel or the adapter cuts into
/// datagrams (UDP_SEGMENT).
///
/// On the wire a train is datagrams like others, but for two things: they have UDP checksums, and over IPv4 they are
/// numbered 0, 1, 2 and so on, which the ICRC must foresee. An adapter could number them otherwise, a peer could drop
/// what has a checksum. So only what is `isExpendable` goes in a train: what is lost goes alone when it is sent again,
/// and arrives. And where trains are lost again and again, there are none for a while.
///
/// "Again and again" is a matter of counting: each repair, that is, what went lost and came through when it was sent
/// again, weighs as much as 16 trains that were sent; 4 repairs more than trains make up for lead to a rest, and each
/// rest is twice as long as the one before. A dead peer makes no repairs.
struct Trains {
    /// Datagrams in one: Linux's UDP_MAX_SEGMENTS at first, which 6.9 has doubled.
    static let datagramLimit = 64
    /// Bytes in one: what an IPv4 packet can carry behind the header of UDP.
    static let byteLimit = 65_507

    /// False when the user or the kernel does not want any.
    private(set) var arePossible = true
    /// Whether packets go in trains now.
    private(set) var areOn = true
    /// How many were sent. Wraps.
    private(set) var sent: UInt64 = 0

    /// What `sent` and the engine's repairs were when they were last looked at.
    private var knownSent: UInt64 = 0
    private var knownRepairs: UInt64 = 0
    /// Repairs that no trains make up for, in trains.
    private var doubt: UInt64 = 0
    private var restEnd: UInt64 = 0
    /// Trains that were sent before the last rest: while there are no more, nothing can be said against them.
    private var sentBefore: UInt64 = 0
    private var restLength: UInt64 = 1_000_000_000

    private static let repairWeight: UInt64 = 16
    private static let doubtLimit: UInt64 = 4 * repairWeight
    /// An hour.
    private static let longestRest: UInt64 = 3_600_000_000_000

    /// No trains, for good.
    mutating func switchOff() {
        arePossible = false
        areOn = false
    }

    /// Another one is on its way.
    @inline(__always)
    mutating func noteSent() { sent &+= 1 }

    /// Works out whether packets may go in trains, when so many repairs were made in all.
    mutating func judge(repairs: UInt64, now: UInt64) {
        guard arePossible else { return }
        let newTrains = sent &- knownSent
        let newRepairs = repairs &- knownRepairs
        guard newTrains | newRepairs != 0 || !areOn else { return }
        knownSent = sent
        knownRepairs = repairs
        guard areOn else {
            areOn = now >= restEnd
            return
        }
        guard sent != sentBefore else { return }
        doubt = (doubt > newTrains ? doubt &- newTrains : 0) &+ newRepairs &* Self.repairWeight
        if doubt >= Self.doubtLimit { rest(from: now) }
    }

    private mutating func rest(from now: UInt64) {
        if restEnd == 0 {
            var warning = Sentence("packets that went to the network in trains were lost, and came through alone:")
            warning.append(" they go alone for a while; RDMA_SOFT_UDP_SEGMENTS=0 has them always do so")
            warning.log(RDMA_LOG_WARNING)
        }
        areOn = false
        doubt = 0
        sentBefore = sent
        restEnd = now &+ restLength
        restLength = min(2 &* restLength, Self.longestRest)
    }
}
