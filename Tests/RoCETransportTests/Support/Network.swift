import RoCETransport
import RoCEWire
import TestSupport

/// The faults of a network.
struct NetworkProfile {
    /// Percent of the packets.
    var loss = 0
    var duplication = 0
    var corruption = 0
    /// Percent of the packets that arrive 20 µs later than the others: some packets overtake them.
    var reordering = 0
    /// The delay of a packet in nanoseconds, drawn from this range; a wide range reorders packets.
    var delay: ClosedRange<Int> = 1_000...1_000
    /// The queue before each host; nil: packets do not wait for each other.
    var bottleneck: Bottleneck?

    /// A queue that drops the packets that it has no room for (drop-tail).
    struct Bottleneck {
        /// The packets that it holds.
        var packets: Int
        /// The time that each packet takes to leave it, in nanoseconds.
        var interval: Int
    }

    /// The time in which a host that has sent packets only receives, in nanoseconds: it then processes many packets before
    /// it sends the responses, as a device does that drains its socket.
    var pause = 0

    /// Whether all packets arrive once, unchanged and in order.
    var isPerfect: Bool {
        loss == 0 && duplication == 0 && corruption == 0 && reordering == 0 && delay.count == 1 && bottleneck == nil
    }
}

/// Hosts, the packets in flight between them, and the simulated time. The seed determines all events.
final class Network {
    var hosts: [Host]
    var profile: NetworkProfile
    private(set) var now: UInt64 = 1_000_000
    private var random: SplitMix
    private var travelling: [Travelling] = []
    private var order: UInt64 = 0
    private var actions: [(time: UInt64, order: UInt64, body: () -> Void)] = []
    /// The hosts that receive and send no packets any more.
    var dead: Set<Int> = []
    private(set) var corrupted = 0
    private(set) var rejected = 0
    /// When the engines write acknowledgements.
    var acknowledgements = AcknowledgementOrder.first
    /// References that arrived.
    private(set) var references = 0
    /// Packets that entered the queues of the bottlenecks, and packets that found them full.
    private(set) var queued = 0
    private(set) var overflowed = 0
    /// When the last packet leaves the queue before each host.
    private var emptyAt: [UInt64]
    /// When each host sends again.
    private var sendsAt: [UInt64]
    /// Called with each sent packet, before the faults of the network. The packet is lost if it returns false.
    var inspect: ((TransportPacket, OutgoingPacket) -> Bool)?

    /// A hash of each packet that was sent, without addresses of this process, and of each completion that was noted; nil:
    /// none is kept.
    var trace: [UInt64]?

    /// Whether packets are passed in runs where the engines allow it (`Engine.beginRun`, `receiveRun`), as soft does in shared
    /// memory.
    var usesRuns = false
    /// The packets that were written so, and those that were received together with others.
    private(set) var inRuns = (sent: 0, received: 0)
    private let records = UnsafeMutableRawPointer.allocate(
        byteCount: Network.longestRun * RunRecord.byteCount, alignment: RunRecord.byteCount)
    private static let longestRun = 8
    /// The first two words of the first record, and of the others, without the bytes of the packet.
    private static let recordHeader: (UInt64, UInt64) = (0x1234_5678_92BC_0000, 0xFEDC_BA98_7654_3210)
    private static let otherHeader: (UInt64, UInt64) = (0x1234_5678_92B0_0000, 0)

    private struct Travelling {
        let time: UInt64
        let order: UInt64
        let host: Int
        let source: GID
        let ip: IPv4Header
        let udp: UDPHeader
        let bytes: UnsafeMutableRawBufferPointer
        let isReference: Bool
        let acknowledged: PSN?

        func isBefore(_ other: Travelling) -> Bool {
            time < other.time || time == other.time && order < other.order
        }
    }

    init(_ hosts: [Host], seed: UInt64 = 0, profile: NetworkProfile = NetworkProfile()) {
        self.hosts = hosts
        self.profile = profile
        emptyAt = hosts.map { _ in 0 }
        sendsAt = hosts.map { _ in 0 }
        random = SplitMix(seed: seed)
    }

    deinit {
        for packet in travelling { packet.bytes.deallocate() }
        records.deallocate()
    }

    /// Calls `body` after `delay` nanoseconds.
    func schedule(after delay: Int, _ body: @escaping () -> Void) {
        order += 1
        let time = now + UInt64(delay)
        var place = actions.count
        // The next one is at the end.
        while place > 0, actions[place - 1].time <= time { place -= 1 }
        actions.insert((time, order, body), at: place)
    }

    // MARK: - Time

    /// Advances to the time of the next packet, timer or action, and executes it. Returns false when there is none at
    /// or before `limit`.
    func step(until limit: UInt64 = .max) -> Bool {
        flushAll()
        var next = UInt64.max
        if let first = travelling.first { next = first.time }
        if let last = actions.last { next = min(next, last.time) }
        for (index, host) in hosts.enumerated() where !dead.contains(index) {
            if let deadline = host.engine.nextDeadline { next = min(next, deadline) }
            if sendsAt[index] > now { next = min(next, sendsAt[index]) }
        }
        guard next <= limit, next != .max else { return false }
        now = max(now, next)
        deliver()
        for (index, host) in hosts.enumerated() where !dead.contains(index) { host.engine.advance(to: now) }
        while let last = actions.last, last.time <= now {
            actions.removeLast()
            last.body()
        }
        flushAll()
        return true
    }

    /// Advances the time until there are no more packets, timers and actions, or for `duration`.
    func run(for duration: UInt64 = 60_000_000_000) {
        let limit = now + duration
        while step(until: limit) {}
    }

    /// Sends all packets of the engines.
    func flushAll() {
        for index in hosts.indices where !dead.contains(index) && sendsAt[index] <= now {
            repeat {
                while true {
                    if usesRuns, sendRun(from: index) { continue }
                    guard
                        let packet = hosts[index].engine.transmit(
                            into: hosts[index].packet, acknowledgements: acknowledgements, now: now)
                    else { break }
                    send(packet, from: hosts[index])
                    sendsAt[index] = now + UInt64(profile.pause)
                }
            } while hosts[index].engine.hasDirectWork
        }
    }

    // MARK: - Packets

    private func send(_ packet: OutgoingPacket, from host: Host) {
        if let inspect {
            let bytes = UnsafeRawBufferPointer(rebasing: host.packet[..<packet.byteCount])
            if let parsed = try? TransportPacket(parsing: bytes), !inspect(parsed, packet) { return }
        }
        if trace != nil { note(packet, from: host) }
        if random.chance(profile.loss) { return }
        launch(packet, from: host)
        if random.chance(profile.duplication) { launch(packet, from: host) }
    }

    /// Sends the packets of a run. Returns false when the next packet is none.
    private func sendRun(from index: Int) -> Bool {
        let host = hosts[index]
        guard let target = host.engine.beginRun(acknowledgements: acknowledgements) else { return false }
        var packet = OutgoingPacket(
            byteCount: 0, path: target.path, sourceQPN: 0, destinationQPN: target.queuePair,
            acknowledged: target.acknowledged)
        // The acknowledgement is in the first record.
        let count = host.engine.writeRun(
            to: records, first: Self.recordHeader, header: Self.otherHeader,
            limit: 1 + Int(order % UInt64(Self.longestRun)), now: now)
        inRuns.sent += count
        for number in 0..<count {
            let record = records + number * RunRecord.byteCount
            let word = record.load(as: UInt64.self)
            packet.byteCount = Int(word & RunRecord.countMask)
            let bytes = UnsafeRawBufferPointer(
                start: record + RunRecord.packetOffset, count: RunRecord.byteCount - RunRecord.packetOffset)
            let header = number == 0 ? Self.recordHeader : Self.otherHeader
            precondition(
                word & ~(RunRecord.countMask | RunRecord.continues) == header.0
                    && (word & RunRecord.continues != 0 || number + 1 == count)
                    && record.load(fromByteOffset: 8, as: UInt64.self) == header.1
                    && bytes[packet.byteCount...].allSatisfy { $0 == 0 }, "a record of a run has other bytes")
            host.packet.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<packet.byteCount]))
            send(packet, from: host)
            sendsAt[index] = now + UInt64(profile.pause)
            packet.acknowledged = nil
        }
        return count != 0
    }

    private func note(_ packet: OutgoingPacket, from host: Host) {
        var hasher = TraceHasher()
        hasher.add(now)
        hasher.add(UInt64(packet.byteCount) << 32 | UInt64(packet.destinationQPN))
        hasher.add(packet.acknowledged.map { UInt64($0.rawValue) } ?? .max)
        // The extended headers of other operations, and references, have addresses.
        let isSend = Opcode(rawValue: host.packet[0]).operation == .send && !packet.isReference
        // A run has no `isExpendable`: it stays on this host.
        hasher.add((packet.isReference ? 1 : 0) | (packet.isExpendable && !isSend ? 2 : 0))
        for byte in host.packet[..<(isSend ? packet.byteCount : BTH.byteCount)] { hasher.add(UInt64(byte)) }
        trace?.append(hasher.value)
    }

    /// Adds a completion to `trace`, if that is kept.
    func note(_ completion: WorkCompletion) {
        guard trace != nil else { return }
        var hasher = TraceHasher()
        hasher.add(completion.id)
        hasher.add(UInt64(completion.status.rawValue) << 32 | UInt64(completion.opcode.rawValue))
        hasher.add(UInt64(completion.vendorError) << 32 | UInt64(completion.byteCount))
        hasher.add(UInt64(completion.queuePairNumber) << 32 | UInt64(completion.immediate))
        hasher.add(UInt64(completion.flags.rawValue) << 8 | UInt64(completion.serviceLevel))
        trace?.append(hasher.value)
    }

    private func launch(_ packet: OutgoingPacket, from host: Host) {
        guard let target = hosts.firstIndex(where: { $0.gid == packet.path.destination }),
            let leaves = passBottleneck(before: target)
        else { return }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.byteCount, alignment: 8)
        bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: host.packet[..<packet.byteCount]))
        let ip = IPv4Header(
            source: UInt32(truncatingIfNeeded: packet.path.source.low),
            destination: UInt32(truncatingIfNeeded: packet.path.destination.low),
            packetByteCount: packet.byteCount)
        let udp = UDPHeader(sourcePort: 0xC000, packetByteCount: packet.byteCount)
        let covered = ICRC.covered(of: UnsafeRawBufferPointer(bytes))
        ICRC(ipv4: ip, udp: udp, packet: covered).store(at: bytes.baseAddress! + covered.count)
        if random.chance(profile.corruption) { corrupt(bytes) }
        order += 1
        var time = leaves + UInt64(random.within(profile.delay))
        if profile.reordering > 0 && random.chance(profile.reordering) { time += 20_000 }
        push(
            Travelling(
                time: time, order: order, host: target, source: packet.path.source, ip: ip, udp: udp, bytes: bytes,
                isReference: packet.isReference, acknowledged: packet.acknowledged))
    }

    /// The time at which a packet that is sent now has passed the queue before a host; nil: the queue is full.
    private func passBottleneck(before host: Int) -> UInt64? {
        guard let bottleneck = profile.bottleneck else { return now }
        let interval = UInt64(bottleneck.interval)
        let start = max(emptyAt[host], now)
        guard (start - now) / interval < UInt64(bottleneck.packets) else {
            overflowed += 1
            return nil
        }
        queued += 1
        emptyAt[host] = start + interval
        return start + interval
    }

    /// Changes one to four bits, except in the byte of the BTH that the ICRC does not cover.
    private func corrupt(_ bytes: UnsafeMutableRawBufferPointer) {
        corrupted += 1
        for _ in 0...random.below(4) {
            var place = random.below(bytes.count)
            if place == 4 { place = 5 }
            bytes[place] ^= 1 << UInt8(random.below(8))
        }
    }

    private func deliver() {
        while let first = travelling.first, first.time <= now {
            pop()
            defer { first.bytes.deallocate() }
            guard !dead.contains(first.host) else { continue }
            guard isWhole(first) else {
                rejected += 1
                continue
            }
            if usesRuns, mayBeInRun(first) {
                deliverRun(first)
            } else {
                receive(UnsafeRawBufferPointer(first.bytes), first)
            }
        }
    }

    private func isWhole(_ packet: Travelling) -> Bool {
        let bytes = UnsafeRawBufferPointer(packet.bytes)
        return ICRC(ipv4: packet.ip, udp: packet.udp, packet: ICRC.covered(of: bytes)).value == ICRC.trailer(of: bytes)
    }

    private func mayBeInRun(_ packet: Travelling) -> Bool {
        !packet.isReference && Opcode(rawValue: packet.bytes[0]) == .rcSendOnly
            && packet.bytes.count <= RunRecord.byteCount - RunRecord.packetOffset
    }

    /// Delivers a packet, and those that arrive together with it from the same host, in runs where the engine takes them so.
    private func deliverRun(_ first: Travelling) {
        var packets = [first]
        while packets.count < Self.longestRun, let next = travelling.first, next.time <= now, next.host == first.host,
            next.source == first.source, next.acknowledged == nil, mayBeInRun(next), isWhole(next)
        {
            pop()
            packets.append(next)
        }
        for (number, packet) in packets.enumerated() {
            let record = records + number * RunRecord.byteCount
            // After the last one, the reader looks in vain.
            let continues = number + 1 < packets.count || now & 1 != 0 ? RunRecord.continues : 0
            record.storeBytes(of: Self.otherHeader.0 | UInt64(packet.bytes.count) | continues, as: UInt64.self)
            (record + RunRecord.packetOffset).copyMemory(from: packet.bytes.baseAddress!, byteCount: packet.bytes.count)
        }
        let host = hosts[first.host]
        let source = PacketSource(
            source: first.source, destination: host.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        var done = 0
        while done < packets.count {
            let start = records + done * RunRecord.byteCount
            let count = host.engine.receiveRun(
                start, first: start.load(as: UInt64.self), header: Self.otherHeader.0, limit: packets.count - done,
                from: source, acknowledged: packets[done].acknowledged, now: now)
            if count > 1 { inRuns.received += count }
            done += count
        }
        // The caller frees the first one.
        for packet in packets.dropFirst() { packet.bytes.deallocate() }
    }

    private func receive(_ bytes: UnsafeRawBufferPointer, _ packet: Travelling) {
        let host = hosts[packet.host]
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 4) { header in
            // The buffer is long enough, so emit does not throw.
            try? packet.ip.emit(into: header)
            let source = PacketSource(
                source: packet.source, destination: host.gid, header: UnsafeRawBufferPointer(header))
            if packet.isReference {
                references += 1
                host.engine.receiveReference(bytes, from: source, acknowledged: packet.acknowledged, now: now)
            } else {
                host.engine.receive(bytes, from: source, acknowledged: packet.acknowledged, now: now)
            }
        }
    }

    // MARK: - A heap by time

    private func push(_ packet: Travelling) {
        travelling.append(packet)
        var place = travelling.count - 1
        while place > 0, travelling[place].isBefore(travelling[(place - 1) / 2]) {
            travelling.swapAt(place, (place - 1) / 2)
            place = (place - 1) / 2
        }
    }

    private func pop() {
        let last = travelling.removeLast()
        guard !travelling.isEmpty else { return }
        travelling[0] = last
        var place = 0
        while true {
            var child = 2 * place + 1
            guard child < travelling.count else { break }
            if child + 1 < travelling.count, travelling[child + 1].isBefore(travelling[child]) { child += 1 }
            guard travelling[child].isBefore(travelling[place]) else { break }
            travelling.swapAt(place, child)
            place = child
        }
    }
}

/// FNV-1a over words.
private struct TraceHasher {
    private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325
    mutating func add(_ word: UInt64) { value = (value ^ word) &* 0x100_0000_01B3 }
}
