import Glibc
import RoCETransport
import RoCEWire

/// A reliable connection that uses all 2^24 PSNs (one lap) and more, with RDMA reads and atomics that the responder
/// remembers at selected PSN distances, and with lost responses of every type.
///
/// At each distance from a remembered atomic and RDMA read, one response of each type in `Loss` is lost, and its work
/// request must complete successfully: data, atomics and receives are checked. The type `first` is lost at exactly that
/// distance from the atomic.
final class LapScenario {
    /// A response that is lost.
    enum Loss: CaseIterable {
        case atomicAcknowledge, readResponseOnly, readResponseFirst, readResponseMiddle, readResponseLast
        case acknowledge, sequenceNAK, rnrNAK
    }

    private let world: LapWorld
    private let first: Int
    /// The source of WRITEs and SENDs.
    private let source: UnsafeMutableRawBufferPointer
    /// The buffer for data of READs and atomics.
    private let target: UnsafeMutableRawBufferPointer
    /// The right side's memory: for WRITEs, for READs, for receives, and the word of the atomics.
    private let written: UnsafeMutableRawBufferPointer
    private let readable: UnsafeMutableRawBufferPointer
    private let received: UnsafeMutableRawBufferPointer
    private let word: UnsafeMutableRawBufferPointer
    /// The expected value of the word.
    private var sum: UInt64 = 0
    /// A number that is unique in this scenario.
    private var serial: UInt64 = 0

    /// The maximum number of packets in a WRITE between the checks.
    private static let longest = 4096
    private static let readPackets = 4

    /// - Parameters:
    ///   - first: The type of loss that comes first at each distance: an index of `Loss.allCases`.
    ///   - psn: PSN of the first packet.
    init(first: Int, psn: UInt32) throws {
        self.first = first
        world = try LapWorld(.rc, psn: psn)
        source = world.left.take(Self.longest * LapWorld.mtu)
        target = world.left.take(Self.readPackets * LapWorld.mtu)
        written = world.right.take(Self.longest * LapWorld.mtu)
        readable = world.right.take(1 << 20)
        received = world.right.take(LapWorld.mtu)
        word = world.right.take(8)
        for index in 0..<readable.count / 8 {
            readable.storeBytes(of: UInt64(index) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: index * 8, as: UInt64.self)
        }
    }

    /// Packets that both hosts sent.
    var packets: UInt64 { world.packets }

    func run(distances: [UInt32]) throws {
        for distance in distances {
            let start = world.nextPSN
            try add(losing: nil)
            try read(packets: Self.readPackets, losing: nil)
            let used = (world.nextPSN.rawValue &- start.rawValue) & 0xFF_FFFF
            try pass(Int(distance - used))
            try require(world.nextPSN == start &+ distance, "not at the distance \(distance)")
            for index in Loss.allCases.indices {
                let loss = Loss.allCases[(first + index) % Loss.allCases.count]
                do { try suffer(loss) } catch {
                    throw Violation("\(distance) PSNs after an atomic, with a lost \(loss) (\(index)): \(error)")
                }
            }
        }
    }

    private func suffer(_ loss: Loss) throws {
        switch loss {
        case .atomicAcknowledge: try add(losing: .rcAtomicAcknowledge)
        case .readResponseOnly: try read(packets: 1, losing: .rcReadResponseOnly)
        case .readResponseFirst: try read(packets: Self.readPackets, losing: .rcReadResponseFirst)
        case .readResponseMiddle: try read(packets: Self.readPackets, losing: .rcReadResponseMiddle)
        case .readResponseLast: try read(packets: Self.readPackets, losing: .rcReadResponseLast)
        case .acknowledge: try write(packets: 1, losing: [(.rcAcknowledge, .ack)])
        case .sequenceNAK: try write(packets: 4, losing: [(.rcWriteFirst, nil), (.rcAcknowledge, .nak)])
        case .rnrNAK: try send()
        }
    }

    // MARK: - Work requests

    /// WRITEs of `count` packets together.
    private func pass(_ count: Int) throws {
        var left = count
        while left > 0 {
            let part = min(left, Self.longest)
            try write(packets: part, losing: [])
            left -= part
        }
    }

    private func write(packets: Int, losing lost: [(Opcode, AETHSyndrome.Kind?)]) throws {
        let size = packets * LapWorld.mtu
        serial += 1
        mark(source, size)
        var request = SendWQE(id: serial, opcode: .write)
        request.remoteAddress = UInt64(UInt(bitPattern: written.baseAddress!))
        try perform(request, part(source, size), losing: lost)
        try require(isMarked(written, size), "a WRITE of \(packets) packets wrote wrong bytes")
    }

    /// A SEND that arrives before its receive is posted.
    private func send() throws {
        serial += 1
        mark(source, LapWorld.mtu)
        try perform(
            SendWQE(id: serial, opcode: .send), part(source, LapWorld.mtu),
            losing: [(.rcAcknowledge, .rnrNAK)]
        ) { [self] in
            world.right.postReceive(world.peer, id: serial, [world.right.sge(received)])
        }
        let completions = world.right.poll()
        try require(completions.map(\.id) == [serial], "the receives \(completions.map(\.id)) are complete")
        try require(isMarked(received, LapWorld.mtu), "a SEND delivered wrong bytes")
    }

    private func read(packets: Int, losing lost: Opcode?) throws {
        let size = packets * LapWorld.mtu
        serial += 1
        // Another address each time, so that the response to another READ is detected.
        let offset = Int(serial % UInt64((readable.count - size) / 8)) * 8
        memset(target.baseAddress!, 0, target.count)
        var request = SendWQE(id: serial, opcode: .read)
        request.remoteAddress = UInt64(UInt(bitPattern: readable.baseAddress!)) + UInt64(offset)
        try perform(request, part(target, size), losing: lost.map { [($0, nil)] } ?? [])
        try require(
            memcmp(target.baseAddress!, readable.baseAddress! + offset, size) == 0,
            "a READ of \(packets) packets returned wrong bytes")
    }

    private func add(losing lost: Opcode?) throws {
        serial += 1
        var request = SendWQE(id: serial, opcode: .fetchAndAdd)
        request.remoteAddress = UInt64(UInt(bitPattern: word.baseAddress!))
        request.compareAdd = serial
        try perform(request, part(target, 8), losing: lost.map { [($0, nil)] } ?? [])
        let original = target.load(as: UInt64.self)
        try require(original == sum, "an atomic returned \(original), not \(sum)")
        sum &+= serial
        let now = word.load(as: UInt64.self)
        try require(now == sum, "after an atomic, the word is \(now), not \(sum)")
    }

    /// Posts a work request and lets it complete.
    /// - Parameters:
    ///   - lost: Packets to lose, one of each opcode and syndrome, in this order.
    ///   - afterLoss: Called once, after all of them are lost.
    private func perform(
        _ wanted: SendWQE, _ memory: UnsafeMutableRawBufferPointer,
        losing lost: [(Opcode, AETHSyndrome.Kind?)], afterLoss: () -> Void = {}
    ) throws {
        var request = wanted
        request.rkey = world.right.key
        var left = lost[...]
        if !left.isEmpty {
            world.loses = { packet in
                guard let (opcode, kind) = left.first, packet.headers.bth.opcode == opcode,
                    kind == nil || packet.headers.aeth.syndrome.kind == kind
                else { return false }
                left.removeFirst()
                return true
            }
        }
        defer { world.loses = nil }
        let result = world.left.post(world.pair, request, [world.left.sge(memory)])
        try require(result == .success, "a post failed with \(result.rawValue)")
        world.exchange()
        try require(left.isEmpty, "a packet that must be lost was not sent")
        afterLoss()
        var completions = world.left.poll()
        while completions.isEmpty {
            try world.waitForTimer()
            world.exchange()
            completions = world.left.poll()
        }
        try require(
            completions.map(\.id) == [request.id] && completions[0].status == .success,
            "a work request with opcode \(request.opcode.rawValue) ended with status \(completions[0].status.rawValue)")
    }

    // MARK: - Bytes

    private func part(_ bytes: UnsafeMutableRawBufferPointer, _ size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: bytes[..<size])
    }

    /// Writes the serial number into each packet of a message.
    private func mark(_ bytes: UnsafeMutableRawBufferPointer, _ size: Int) {
        var offset = 0
        while offset < size {
            bytes.storeBytes(of: serial &+ UInt64(offset) << 32, toByteOffset: offset, as: UInt64.self)
            offset += LapWorld.mtu
        }
    }

    private func isMarked(_ bytes: UnsafeMutableRawBufferPointer, _ size: Int) -> Bool {
        var offset = 0
        while offset < size {
            if bytes.load(fromByteOffset: offset, as: UInt64.self) != serial &+ UInt64(offset) << 32 { return false }
            offset += LapWorld.mtu
        }
        return true
    }
}

/// An unreliable connection that uses all PSNs and more, with lost packets: each message arrives completely, in order,
/// or not at all.
final class UnreliableLapScenario {
    private let world: LapWorld
    private let source: UnsafeMutableRawBufferPointer
    private let received: UnsafeMutableRawBufferPointer
    private static let messagePackets = 4

    init(psn: UInt32) throws {
        world = try LapWorld(.uc, psn: psn)
        source = world.left.take(Self.messagePackets * LapWorld.mtu)
        received = world.right.take(Self.messagePackets * LapWorld.mtu)
    }

    /// Packets that both hosts sent.
    var packets: UInt64 { world.packets }

    /// - Parameter lossInterval: Every Nth packet is lost; coprime to the number of packets in a message, so that each
    ///   packet of a message is lost at some time.
    func run(messages: Int, lossInterval: Int) throws {
        var sent = 0
        var lostMessages = 0
        var hasReceive = false
        for serial in 1...UInt64(messages) {
            let from = sent
            sent += Self.messagePackets
            let isLost = sent / lossInterval != from / lossInterval
            if isLost {
                var next = from
                world.loses = { _ in
                    next += 1
                    return next % lossInterval == 0
                }
            }
            if !hasReceive { world.right.postReceive(world.peer, id: serial, [world.right.sge(received)]) }
            for packet in 0..<Self.messagePackets {
                source.storeBytes(of: serial, toByteOffset: packet * LapWorld.mtu, as: UInt64.self)
            }
            world.left.post(
                world.pair, SendWQE(id: serial, opcode: .send), [world.left.sge(source)])
            world.exchange()
            world.loses = nil
            var completion = WorkCompletion()
            try require(
                world.left.completions.poll(into: &completion, count: 1) == 1 && completion.status == .success,
                "SEND \(serial) did not complete")
            let arrived = world.right.completions.poll(into: &completion, count: 1) == 1
            try require(arrived != isLost, "message \(serial) arrived: \(arrived), and lost a packet: \(isLost)")
            hasReceive = !arrived
            if isLost { lostMessages += 1 }
            for packet in 0..<(arrived ? Self.messagePackets : 0) {
                let found = received.load(fromByteOffset: packet * LapWorld.mtu, as: UInt64.self)
                try require(found == serial, "packet \(packet) of message \(serial) is one of message \(found)")
            }
        }
        try require(lostMessages > 0, "no message was lost")
    }
}
