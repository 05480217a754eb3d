import RoCEWire

/// A software RoCEv2 adapter (`struct rxe_dev` of the kernel's rxe) without its input and output: work requests,
/// packets and the time go in; packets, completions and events come out. It opens no socket, starts no thread and reads
/// no clock but that of completion timestamps: the same inputs lead to the same outputs.
///
/// One lock guards an engine: all calls of one engine must be made one after the other. Posting, polling and arming
/// (`QueuePair`, `SharedReceiveQueue`, `CompletionQueue`) do not need it, see there. Memory is allocated only when
/// objects are created and queue pairs are connected.
///
/// Times are nanoseconds of any monotonic clock.
public struct Engine: ~Copyable, @unchecked Sendable {
    /// One word, which a call passes in a register.
    private let parts: UnsafeMutablePointer<Parts>

    private struct Parts {
        let core: UnsafeMutablePointer<Core>
        /// The doorbells of the core, for threads that do not hold the lock.
        let doorbells: Doorbells
    }

    @inline(__always)
    var core: UnsafeMutablePointer<Core> { parts.pointee.core }
    @inline(__always)
    private var doorbells: Doorbells { parts.pointee.doorbells }

    /// Creates an engine without objects, as `ibv_open_device` returns a context without objects. A value of the
    /// configuration that is out of range becomes the nearest one in range.
    public init(_ configuration: Configuration) {
        let core = UnsafeMutablePointer<Core>.allocate(capacity: 1)
        core.initialize(to: Core(configuration.clamped))
        parts = .allocate(capacity: 1)
        parts.initialize(to: Parts(core: core, doorbells: core.pointee.doorbells))
    }

    /// Objects that were not destroyed leak their memory.
    deinit {
        core.pointee.deallocate()
        core.deinitialize(count: 1)
        core.deallocate()
        parts.deallocate()
    }

    /// The configuration, with all values in range, for `ibv_query_device` and `ibv_query_port`.
    public var configuration: Configuration { core.pointee.configuration }

    /// Sets the active MTU (`ibv_port_attr.active_mtu`): later `modify` calls refuse a larger path MTU, and later
    /// datagrams with a larger payload fail. Connected queue pairs keep their path MTU.
    /// - Parameter activeMTU: As `Configuration.activeMTU`; a value out of range becomes the nearest one in range.
    public borrowing func setActiveMTU(_ activeMTU: UInt32) {
        var changed = core.pointee.configuration
        changed.activeMTU = activeMTU
        core.pointee.configuration = changed.clamped
    }

    /// The counters of the engine (the kernel's hw_counters).
    public var counters: Counters { core.pointee.counters }

    /// The number of lost packets that a retransmission repaired: `Counters.repairs`, `Counters.repeatedReads` and the
    /// acknowledgements that were lost. It wraps. The engine's own: the caller decides by it whether GSO batches lose packets.
    public var repairCount: UInt64 {
        core.pointee.counters.repairs &+ core.pointee.counters.repeatedReads &+ core.pointee.lostAcknowledgements
    }
}

// MARK: - Packets and time

extension Engine {
    /// Receives a packet (`rxe_rcv` of the kernel's rxe).
    /// - Parameters:
    ///   - packet: The payload of UDP, from the BTH to the end of the ICRC. The caller has checked the ICRC.
    ///   - source: The addresses of the packet.
    ///   - acknowledged: `OutgoingPacket.acknowledged`, of a packet from shared memory.
    ///   - now: The time in nanoseconds.
    public borrowing func receive(
        _ packet: UnsafeRawBufferPointer, from source: PacketSource, acknowledged: PSN? = nil, now: UInt64
    ) {
        core.pointee.now = now
        if let acknowledged { core.pointee.receiveAcknowledgement(acknowledged, of: packet, from: source, now: now) }
        if core.pointee.receiveShort(packet, from: source) { return }
        core.pointee.receive(packet, from: source, now: now)
    }

    /// Receives a packet that another engine of this host wrote as a reference (`OutgoingPacket.isReference`), in shared
    /// memory. The arguments are those of `receive`.
    public borrowing func receiveReference(
        _ packet: UnsafeRawBufferPointer, from source: PacketSource, acknowledged: PSN? = nil, now: UInt64
    ) {
        core.pointee.now = now
        if let acknowledged { core.pointee.receiveAcknowledgement(acknowledged, of: packet, from: source, now: now) }
        core.pointee.receiveReference(packet, from: source)
    }

    /// Writes the next packet to send (`rxe_requester` of the kernel's rxe). Acknowledgements come where
    /// `acknowledgements` says; queue pairs take turns.
    /// - Parameters:
    ///   - buffer: Room for `packetRoom` bytes.
    ///   - acknowledgements: When acknowledgements are written.
    ///   - now: The time in nanoseconds.
    /// - Returns: The packet, or nil when there is none to send now.
    public borrowing func transmit(
        into buffer: UnsafeMutableRawBufferPointer, acknowledgements: AcknowledgementOrder = .first, now: UInt64
    ) -> OutgoingPacket? {
        write(into: buffer, acknowledgements: acknowledgements, now: now)?.pointee
    }

    /// Writes the next packet to send, as `transmit` does, and leaves its description in the engine: the copy costs as much
    /// as a small packet.
    /// - Returns: The description, which is valid until the next call of `write` or `transmit`, or nil when there is none to
    ///   send now.
    public borrowing func write(
        into buffer: UnsafeMutableRawBufferPointer, acknowledgements: AcknowledgementOrder = .first, now: UInt64
    ) -> UnsafePointer<OutgoingPacket>? {
        precondition(buffer.count >= Engine.packetRoom, "transmit needs room for Engine.packetRoom bytes")
        core.pointee.now = now
        guard core.pointee.transmit(into: buffer, acknowledgements, now: now) else { return nil }
        return UnsafePointer(core.pointee.outgoing)
    }

    /// Notes that WQEs of a queue pair were published (`QueuePair.publishSends`), as its doorbell does.
    public borrowing func serve(_ pair: QueuePair) { core.pointee.serveDoorbell(pair.storage) }

    /// Whether there may be a packet for `transmit`, or a doorbell for it to read.
    /// - Parameter now: The time in nanoseconds. A timer that is started before the next call with a time starts then.
    public borrowing func mayTransmit(now: UInt64) -> Bool {
        core.pointee.now = now
        return core.pointee.requests.first != nil || core.pointee.acknowledgements.first != nil
            || core.pointee.readResponses.first != nil || doorbells.isRung
    }

    /// Whether all that waits for `transmit` is an acknowledgement that may wait longer: a single ACK, to an engine of this host.
    public var hasOnlyAcknowledgement: Bool { core.pointee.hasOnlyAcknowledgement }

    /// Whether an acknowledgement waits for `transmit`.
    public var hasAcknowledgement: Bool { core.pointee.acknowledgements.first != nil }

    /// Makes an ACK packet of its own of the acknowledgement that a packet carries, for the next `transmit`: the packet is
    /// not sent to a receiver in shared memory. It carries none from then on.
    public borrowing func separateAcknowledgement(of packet: inout OutgoingPacket) {
        guard let psn = packet.acknowledged else { return }
        packet.acknowledged = nil
        core.pointee.separateAcknowledgement(psn, queuePair: packet.sourceQPN)
    }

    /// The largest length of a packet in bytes, BTH to ICRC: longest headers, largest path MTU and ICRC.
    public static var packetRoom: Int { PacketHeaders.maximumPacketByteCount }

    /// The time at which `advance` is to be called next, for local ACK timeouts and RNR timers (IBTA volume 1,
    /// 9.7.6.1.3), rate limits, moderated completion events and NAKs for gaps; nil when no timer runs. It may be earlier than the first
    /// expiration, and is never later.
    public var nextDeadline: UInt64? {
        let others = min(
            core.pointee.moderationDeadline, core.pointee.pacingDeadline, core.pointee.gapDeadline)
        let deadline = min(core.pointee.timers.earliest ?? .max, others)
        return deadline == .max ? nil : deadline
    }

    /// Whether `advance` is to be called at this time.
    @inline(__always)
    public func isDue(at now: UInt64) -> Bool { nextDeadline.map { $0 <= now } ?? false }

    /// Handles the timers that have expired at `now`: local ACK timeouts and RNR timers (`retrans_timer`,
    /// `rnr_nak_timer` of the kernel's rxe), the periods of moderated completion events, the waits of rate limits, and NAKs for gaps.
    public borrowing func advance(to now: UInt64) {
        core.pointee.now = now
        core.pointee.advance(to: now)
        if core.pointee.moderationDeadline <= now { core.pointee.raiseModerated() }
        if core.pointee.pacingDeadline <= now { core.pointee.resumePaced() }
        if core.pointee.gapDeadline <= now { core.pointee.checkGaps() }
    }

    /// Whether the last `transmit` left requests to neighbors for the next call, since it has copied its share.
    public var hasDirectWork: Bool { core.pointee.hasDirectWork }

    /// True when a doorbell was rung (`commitSends`, `ibv_post_send`) that `transmit` has not read. It needs no lock.
    public var doorbellIsRung: Bool { doorbells.isRung }

    /// Takes the next event (`ibv_get_async_event`, `ibv_get_cq_event`), or returns nil when there is none. The caller
    /// takes all events after each call that can cause them: `receive`, `transmit`, `advance`, `modify`.
    public borrowing func nextEvent() -> Event? {
        guard let (node, bit) = core.pointee.events.pop(), let object = node.pointee.object else { return nil }
        let type = AsyncEventType(rawValue: bit)
        switch node.pointee.owner {
        case .queuePair:
            return .queuePair(QueuePair(object.assumingMemoryBound(to: QueuePairStorage.self)), type)
        case .sharedReceiveQueue:
            return .sharedReceiveQueue(
                SharedReceiveQueue(object.assumingMemoryBound(to: SharedReceiveQueueStorage.self)), type)
        case .completionQueue:
            let queue = CompletionQueue(object.assumingMemoryBound(to: CompletionQueueStorage.self))
            return 1 << bit == EventNode.notification ? .completion(queue) : .completionQueue(queue, type)
        }
    }
}

extension Configuration {
    /// The configuration with every value in range.
    var clamped: Configuration {
        var result = self
        result.maximumQueuePairs = min(max(maximumQueuePairs, 64), 1 << 16)
        result.qpnPrefixBits = min(qpnPrefixBits, 8)
        result.qpnPrefix = qpnPrefix & (1 << result.qpnPrefixBits - 1)
        result.activeMTU = min(max(activeMTU, Limits.minPathMTU), Limits.maxPathMTU)
        while result.activeMTU & (result.activeMTU - 1) != 0 { result.activeMTU &= result.activeMTU - 1 }
        result.maximumWindow = min(max(maximumWindow, 1), 1 << 20)
        result.initialWindow = min(max(initialWindow, 1), result.maximumWindow)
        result.maximumPathWindow = min(max(maximumPathWindow, 2), 1 << 20)
        result.initialPathWindow = min(max(initialPathWindow, 2), result.maximumPathWindow)
        result.acknowledgeInterval = min(max(acknowledgeInterval, 1), result.maximumWindow)
        result.readSegment = min(max(readSegment, 1), 1 << 20)
        while result.readSegment & (result.readSegment - 1) != 0 { result.readSegment &= result.readSegment - 1 }
        result.burst = max(burst, 1)
        result.heldRequests = min(heldRequests, 1 << 16)
        return result
    }
}
