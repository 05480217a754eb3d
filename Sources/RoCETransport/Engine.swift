/// A software RoCEv2 adapter without its input and output: work requests, packets and the time go in; packets,
/// completions and events come out. It opens no socket, starts no thread, reads no clock, and does the same again when
/// it is given the same.
///
/// One lock guards an engine: all calls of one engine must be made one after the other. Posting, polling and arming
/// (`QueuePair`, `SharedReceiveQueue`, `CompletionQueue`) work beside it, see there. All memory is taken when objects
/// are created.
///
/// Times are nanoseconds of any clock that never goes back.
public struct Engine: ~Copyable, @unchecked Sendable {
    let core: UnsafeMutablePointer<Core>
    /// The core's; here for those who ask without the lock.
    private let doorbells: Doorbells

    /// An engine without objects. Values of the configuration that are out of range are moved to the nearest that is
    /// in range.
    public init(_ configuration: Configuration) {
        core = .allocate(capacity: 1)
        core.initialize(to: Core(configuration.clamped))
        doorbells = core.pointee.doorbells
    }

    /// Every object must have been destroyed, or is lost with its memory.
    deinit {
        core.pointee.deallocate()
        core.deinitialize(count: 1)
        core.deallocate()
    }

    /// What the engine was made with, after rounding.
    public var configuration: Configuration { core.pointee.configuration }

    /// What happened so far.
    public var counters: Counters { core.pointee.counters }

    /// How often packets of ours were lost that arrived when they were sent again: `Counters.repairs` and
    /// `Counters.repeatedReads` together. Wraps.
    public var repairCount: UInt64 { core.pointee.counters.repairs &+ core.pointee.counters.repeatedReads }
}

// MARK: - Packets and time

extension Engine {
    /// Takes in a packet.
    /// - Parameters:
    ///   - packet: what UDP carried, from the BTH to the end of the ICRC, which the caller has checked; its four bytes
    ///     must be there and are not looked at.
    ///   - source: where it came from.
    ///   - now: the time, nanoseconds.
    public borrowing func receive(
        _ packet: UnsafeRawBufferPointer, from source: PacketSource, now: UInt64
    ) {
        core.pointee.receive(packet, from: source, now: now)
    }

    /// Writes the next packet that is to be sent. Acknowledgements come first; then queue pairs take turns.
    /// - Parameters:
    ///   - buffer: room for `packetRoom` bytes.
    ///   - now: the time, nanoseconds.
    /// - Returns: what was written, or nil when there is nothing to send now.
    public borrowing func transmit(into buffer: UnsafeMutableRawBufferPointer, now: UInt64) -> OutgoingPacket? {
        precondition(buffer.count >= Engine.packetRoom, "transmit needs room for Engine.packetRoom bytes")
        return core.pointee.transmit(into: buffer, now: now)
    }

    /// Bytes that a packet can have at most: headers, 4096 bytes of payload, ICRC.
    public static var packetRoom: Int { 40 + 4096 + 4 }

    /// The earliest time at which `advance` may have something to do; nil when no timer runs. It can be too early,
    /// never too late.
    public var nextDeadline: UInt64? { core.pointee.timers.earliest }

    /// Does what is due at `now`: acknowledgements that did not come, RNR waits that are over.
    public borrowing func advance(to now: UInt64) { core.pointee.advance(to: now) }

    /// True when work was posted that `transmit` has not seen. Needs no lock.
    public var doorbellIsRung: Bool { doorbells.isRung }

    /// The next event to be told, or nil. Ask until it is nil after each call that can cause events: `receive`,
    /// `transmit`, `advance`, `modify`.
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
    /// Every value in range.
    var clamped: Configuration {
        var result = self
        result.maximumQueuePairs = min(max(maximumQueuePairs, 64), 1 << 16)
        result.queuePairPrefixBits = min(queuePairPrefixBits, 8)
        result.queuePairPrefix = queuePairPrefix & (1 << result.queuePairPrefixBits - 1)
        result.activeMTU = min(max(activeMTU, 256), 4096)
        while result.activeMTU & (result.activeMTU - 1) != 0 { result.activeMTU &= result.activeMTU - 1 }
        result.maximumWindow = min(max(maximumWindow, 1), 1 << 20)
        result.initialWindow = min(max(initialWindow, 1), result.maximumWindow)
        result.acknowledgeInterval = min(max(acknowledgeInterval, 1), result.maximumWindow)
        result.readPiece = min(max(readPiece, 1), 1 << 20)
        result.burst = max(burst, 1)
        return result
    }
}
