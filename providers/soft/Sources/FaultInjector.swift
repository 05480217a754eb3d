import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import RoCEWire
import Synchronization

/// The faults that an open device injects (RDMA_SOFT_FAULTS): the plan, and the packets that wait. Under the context's
/// lock.
struct FaultInjector: ~Copyable {
    /// At one address, since the engine has it too.
    let plan: UnsafeMutablePointer<FaultPlan>
    fileprivate var outgoing = PacketDelays<OutgoingPacket>()
    fileprivate var incoming = PacketDelays<PacketEnvelope>()
    /// The room for the packet that the engine writes.
    fileprivate let room = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 64)
    /// Whether the log has reported that the device has stopped.
    fileprivate var wasStopped = false
    /// The completion channels, which end when the device fails.
    fileprivate var channels = UnsafeMutablePointer<ChannelPointer>.allocate(capacity: 8)
    fileprivate var channelCount = 0
    fileprivate var channelCapacity = 8

    init(_ plan: consuming FaultPlan) {
        self.plan = .allocate(capacity: 1)
        self.plan.initialize(to: plan)
    }

    deinit {
        outgoing.deallocate()
        incoming.deallocate()
        room.deallocate()
        channels.deallocate()
        plan.deinitialize(count: 1)
        plan.deallocate()
    }

    /// When the next packet is due, or the next event.
    var nextDeadline: UInt64 {
        min(outgoing.nextDeadline, incoming.nextDeadline, plan.pointee.nextDeadline ?? .max)
    }
}

/// The time after which a reordered packet is sent although no other packet has overtaken it. Nanoseconds.
private let longestReordering: UInt64 = 10_000_000

/// Packets of one direction that wait for their time: a binary heap, whose first entry is due first. Packets that are due
/// at the same time keep their order.
private struct PacketDelays<Header> {
    struct Entry {
        var time: UInt64
        var number: UInt64
        var header: Header
        var bytes: UnsafeMutableRawBufferPointer
        var hasWrongICRC: Bool

        func precedes(_ other: Entry) -> Bool { (time, number) < (other.time, other.number) }
    }

    private var entries = UnsafeMutablePointer<Entry>.allocate(capacity: 64)
    private var capacity = 64
    private var count = 0
    private var nextNumber: UInt64 = 0
    /// The packet that the next one overtakes.
    private var overtaken: Entry?

    func deallocate() {
        for index in 0..<count { entries[index].bytes.deallocate() }
        overtaken?.bytes.deallocate()
        entries.deallocate()
    }

    /// When the next packet is due; `UInt64.max` without one.
    var nextDeadline: UInt64 { min(count == 0 ? .max : entries[0].time, overtaken?.time ?? .max) }

    /// Adds a copy of the packet.
    mutating func add(_ packet: UnsafeRawBufferPointer, _ header: Header, _ faults: PacketFaults) {
        var entry = Entry(
            time: faults.deliveredAt, number: 0, header: header, bytes: copy(packet), hasWrongICRC: faults.hasWrongICRC)
        if faults.isReordered && overtaken == nil {
            entry.time &+= longestReordering
            overtaken = entry
            return
        }
        push(entry)
        if faults.isDuplicated {
            entry.bytes = copy(packet)
            push(entry)
        }
        if var other = overtaken {
            overtaken = nil
            other.time = faults.deliveredAt
            push(other)
        }
    }

    private func copy(_ packet: UnsafeRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 8)
        bytes.copyMemory(from: packet)
        return bytes
    }

    /// The header of the first packet that is due at `now`.
    mutating func next(at now: UInt64) -> Header? {
        if let other = overtaken, other.time <= now {
            overtaken = nil
            push(other)
        }
        return count > 0 && entries[0].time <= now ? entries[0].header : nil
    }

    /// Removes the first packet that is due at `now`. The caller deallocates its bytes.
    mutating func take(at now: UInt64) -> Entry? {
        guard next(at: now) != nil else { return nil }
        let first = entries[0]
        count -= 1
        guard count > 0 else { return first }
        let last = entries[count]
        var position = 0
        while true {
            var child = 2 * position + 1
            guard child < count else { break }
            if child + 1 < count, entries[child + 1].precedes(entries[child]) { child += 1 }
            guard entries[child].precedes(last) else { break }
            entries[position] = entries[child]
            position = child
        }
        entries[position] = last
        return first
    }

    private mutating func push(_ entry: Entry) {
        if count == capacity { grow() }
        var entry = entry
        entry.number = nextNumber
        nextNumber &+= 1
        var position = count
        count += 1
        while position > 0, entry.precedes(entries[(position - 1) / 2]) {
            (entries + position).initialize(to: entries[(position - 1) / 2])
            position = (position - 1) / 2
        }
        (entries + position).initialize(to: entry)
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Entry>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: entries, count: count)
        entries.deallocate()
        entries = larger
        capacity *= 2
    }
}

extension ContextPointer {
    /// Whether rules are set. They do not change while the device is open.
    var hasFaultRules: Bool { guarded.pointee.faults != nil }

    private var faults: UnsafeMutablePointer<FaultInjector> { guarded.pointee.faults! }

    /// Begins to inject faults, before the device is used.
    func inject(_ injector: UnsafeMutablePointer<FaultInjector>) {
        guarded.pointee.faults = injector
        pointee.engine.setFaults(injector.pointee.plan)
    }

    // MARK: Packets

    /// Called once for each round of the engine.
    @inline(never)
    func beginFaultRound(now: UInt64) {
        faults.pointee.plan.pointee.now = now
        deliverDue(now: now)
    }

    /// Sends up to `burst` packets, with the faults that the rules give them.
    /// - Returns: Whether there may be more.
    @inline(never)
    func transmitWithFaults(now: UInt64, burst: Int) -> Bool {
        for _ in 0..<burst {
            guard sendDue(now: now) else { return false }
            guard let packet = pointee.engine.transmit(into: faults.pointee.room, now: now) else { return false }
            guarded.pointee.link.packetCount &+= 1
            let bytes = UnsafeMutableRawBufferPointer(rebasing: faults.pointee.room[..<packet.byteCount])
            let verdict = faults.pointee.plan.pointee.packet(bytes, .send, queuePair: packet.sourceQPN)
            log(verdict, "sent")
            if isSilent || verdict.isLost { continue }
            faults.pointee.outgoing.add(UnsafeRawBufferPointer(bytes), packet, verdict)
        }
        return sendDue(now: now)
    }

    /// Sends the packets that are due. One whose receiver has no room waits, and those behind it with it, until the receiver
    /// is late; then it is dropped.
    /// - Returns: False when the next one has to wait for room.
    private func sendDue(now: UInt64) -> Bool {
        while true {
            if let next = faults.pointee.outgoing.next(at: now), waitsForRoom(next) { return false }
            guard let entry = faults.pointee.outgoing.take(at: now) else { return true }
            defer { entry.bytes.deallocate() }
            if isSilent { continue }
            let isShared = entry.header.path.tag == Route.sharedMemory
            // A packet in shared memory has no ICRC. Its receiver drops it for its transport version instead.
            if entry.hasWrongICRC && isShared { entry.bytes[1] ^= 1 }
            // `PacketRingWriter.write` may read more bytes than the packet has.
            let bytes = guarded.pointee.link.packetBytes
            bytes.copyMemory(from: UnsafeRawBufferPointer(entry.bytes))
            if entry.hasWrongICRC && !isShared {
                // In no batch, and a FLUSH not with both ICRCs, of which only one would be wrong.
                if sendOneDatagram(entry.header, at: bytes.baseAddress!, isExpendable: false, now: now) {
                    guarded.pointee.sockets.spoilLast()
                }
            } else {
                withUnsafePointer(to: entry.header) { send($0, at: bytes.baseAddress!, now: now) }
            }
        }
    }

    private func waitsForRoom(_ packet: OutgoingPacket) -> Bool {
        guard guarded.pointee.peers.fullCount != 0, packet.path.tag == Route.sharedMemory else { return false }
        let slot = Int(packet.destinationQPN >> 16)
        return guarded.pointee.peers.isFull(slot) && !guarded.pointee.peers.isLate(slot)
    }

    @inline(never)
    func receiveWithFaults(_ packet: UnsafeRawBufferPointer, _ envelope: PacketEnvelope, now: UInt64) {
        let room = faults.pointee.room
        guard packet.count >= BTH.byteCount, packet.count <= room.count else { return }
        let bytes = UnsafeMutableRawBufferPointer(rebasing: room[..<packet.count])
        bytes.copyMemory(from: packet)
        let number = UInt32(packet[5]) << 16 | UInt32(packet[6]) << 8 | UInt32(packet[7])
        let verdict = faults.pointee.plan.pointee.packet(bytes, .receive, queuePair: number)
        log(verdict, "received")
        if isSilent || verdict.isLost { return }
        faults.pointee.incoming.add(UnsafeRawBufferPointer(bytes), envelope, verdict)
        deliverDue(now: now)
    }

    private func deliverDue(now: UInt64) {
        while let entry = faults.pointee.incoming.take(at: now) {
            if entry.hasWrongICRC {
                pointee.counters.pointee.badICRC &+= 1
            } else if !isSilent {
                deliver(UnsafeRawBufferPointer(entry.bytes), entry.header, now: now)
            }
            entry.bytes.deallocate()
        }
    }

    /// Whether packets are dropped: the device has stopped or failed, or a rule has taken the port down. Counts the packet.
    private var isSilent: Bool {
        let isStopped = faults.pointee.plan.pointee.isStopped()
        if isStopped && !faults.pointee.wasStopped {
            faults.pointee.wasStopped = true
            MessageText("fault: the device has stopped; it neither sends nor receives packets any more").log(
                RDMA_LOG_INFO)
        }
        guard isStopped || guarded.pointee.port.isForcedDown else { return false }
        faults.pointee.plan.pointee.suppressedPackets &+= 1
        return true
    }

    // MARK: Events

    /// Counts completions that the application has polled, and causes the events that wait for them.
    func noteCompletions(_ completions: UnsafePointer<ibv_wc>, count: Int) {
        lockForControl()
        for index in 0..<count { faults.pointee.plan.pointee.noteCompletion(queuePair: completions[index].qp_num) }
        causeFaultEvents()
        dispatchEvents()
        unlock()
    }

    /// Counts the current completion of extended polling.
    func noteCompletion(queuePair number: UInt32) {
        lockForControl()
        faults.pointee.plan.pointee.noteCompletion(queuePair: number)
        causeFaultEvents()
        dispatchEvents()
        unlock()
    }

    /// Causes the events that are due. Under the lock.
    @inline(never)
    func causeFaultEvents() {
        while let (event, number, rule) = faults.pointee.plan.pointee.nextEvent() {
            var text = prefix(rule)
            text.append("IBV_EVENT_")
            text.append(event.name)
            text.log(RDMA_LOG_INFO)
            switch event {
            case .portError: setForcedDown(true)
            case .portActive: setForcedDown(false)
            case .gidChange: report(IBV_EVENT_GID_CHANGE)
            case .queuePairFatal: pointee.engine.failQueuePair(number)
            case .deviceFatal: failDevice()
            }
            // What was flushed may wait for a moderated completion event, whose time the thread is to see.
            pointee.progressThread.wake()
        }
    }

    private func setForcedDown(_ isDown: Bool) {
        let wasActive = guarded.pointee.port.isActive
        guarded.pointee.port.isForcedDown = isDown
        let isActive = guarded.pointee.port.isActive
        if isActive != wasActive { report(isActive ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR) }
    }

    /// Ends the device, as rdma_provider.h describes in chapter 6. Under the lock.
    private func failDevice() {
        guard !pointee.hasFailed.load(ordering: .relaxed) else { return }
        guarded.pointee.port.isForcedDown = true
        pointee.engine.failDevice()
        dispatchEvents()
        var event = ibv_async_event()
        event.event_type = IBV_EVENT_DEVICE_FATAL
        pointee.asyncEvents.append(event)
        pointee.asyncEvents.end()
        pointee.hasFailed.store(true, ordering: .releasing)
        for index in 0..<faults.pointee.channelCount { faults.pointee.channels[index].pointee.events.end() }
    }

    // MARK: Channels

    func addChannel(_ channel: ChannelPointer) {
        lockForControl()
        defer { unlock() }
        if faults.pointee.channelCount == faults.pointee.channelCapacity {
            let capacity = faults.pointee.channelCapacity * 2
            let larger = UnsafeMutablePointer<ChannelPointer>.allocate(capacity: capacity)
            larger.moveInitialize(from: faults.pointee.channels, count: faults.pointee.channelCount)
            faults.pointee.channels.deallocate()
            faults.pointee.channels = larger
            faults.pointee.channelCapacity = capacity
        }
        (faults.pointee.channels + faults.pointee.channelCount).initialize(to: channel)
        faults.pointee.channelCount += 1
        if pointee.hasFailed.load(ordering: .relaxed) { channel.pointee.events.end() }
    }

    func removeChannel(_ channel: ChannelPointer) {
        lockForControl()
        defer { unlock() }
        for index in 0..<faults.pointee.channelCount where faults.pointee.channels[index] == channel {
            faults.pointee.channelCount -= 1
            faults.pointee.channels[index] = faults.pointee.channels[faults.pointee.channelCount]
            return
        }
    }

    // MARK: Verbs

    /// The errno value with which a verb fails, explained: EIO when the device has failed, or that of a rule. 0 when it
    /// does not fail.
    func injectedError(_ verb: FaultVerb?) -> Int32 {
        if pointee.hasFailed.load(ordering: .acquiring) { return EIO }
        guard let verb, !linux_is_forked_child() else { return 0 }
        lockForControl()
        faults.pointee.plan.pointee.now = linux_monotonic_ns()
        let found = faults.pointee.plan.pointee.failure(of: verb)
        unlock()
        guard let (error, rule) = found else { return 0 }
        var text = prefix(rule)
        text.append("ibv_")
        text.append(verb.name)
        text.append(" fails with ")
        text.append(linux_error_name(error))
        text.append(" on request (RDMA_SOFT_FAULTS)")
        text.log(RDMA_LOG_INFO)
        return text.refusal(error)
    }

    // MARK: The log

    /// "fault: rule 2 (loss) at line 1, column 9: "
    private func prefix(_ index: Int) -> MessageText {
        let rule = faults.pointee.plan.pointee.rule(index)
        var text = MessageText("fault: rule ")
        text.append(index + 1)
        text.append(" (")
        text.append(rule.kind.name)
        text.append(") at line ")
        text.append(rule.line)
        text.append(", column ")
        text.append(rule.column)
        text.append(": ")
        return text
    }

    private func log(_ verdict: PacketFaults, _ what: StaticString) {
        guard verdict.rules != 0 else { return }
        for index in 0..<faults.pointee.plan.pointee.count where verdict.rules & 1 << UInt64(index) != 0 {
            var text = prefix(index)
            text.append("packet ")
            text.append(Int(truncatingIfNeeded: faults.pointee.plan.pointee.packets))
            text.append(", ")
            text.append(what)
            text.log(RDMA_LOG_DEBUG)
        }
    }

    /// Logs how many faults each rule has injected, when the device is closed.
    func logFaultSummary() {
        lockForControl()
        defer { unlock() }
        for index in 0..<faults.pointee.plan.pointee.count {
            let rule = faults.pointee.plan.pointee.rule(index)
            var text = prefix(index)
            text.append(Int(truncatingIfNeeded: rule.injections))
            text.append(" injected on ")
            text.append(Int(truncatingIfNeeded: rule.decisions))
            text.append(" occasions")
            text.log(RDMA_LOG_INFO)
        }
    }
}
