import Glibc
import RoCETransport
import TestSupport

/// Random messages over UC: a message arrives completely or not at all, and a network without loss loses no message
/// with a posted receive work request. Messages of packets that the network duplicates or reorders can arrive twice or
/// late.
final class UnreliableScenario {
    private var random: SplitMix
    private let network: Network
    private let left: Host
    private let right: Host
    private let pair: QueuePair
    private let peer: QueuePair
    private let oracle = Arena(1 << 20)
    private var messages: [Message] = []
    private var buffers: [UnsafeMutableRawBufferPointer] = []
    private let window: UnsafeMutableRawBufferPointer
    private let initial: UnsafeMutableRawBufferPointer
    private var sent = 0
    private var postedReceives = 0
    private var arrived: [Int] = []

    private struct Message {
        var opcode: WorkRequestOpcode
        var source: UnsafeMutableRawBufferPointer
        var remoteOffset: Int
        var immediate: UInt32

        var isSend: Bool { opcode == .send || opcode == .sendWithImmediate }
        var hasImmediate: Bool { opcode == .sendWithImmediate || opcode == .writeWithImmediate }
    }

    init(seed: UInt64) throws {
        random = SplitMix(seed: seed)
        var profile = NetworkProfile()
        if !random.chance(25) {
            profile.loss = random.pick([0, 2, 15])
            profile.duplication = random.pick([0, 5])
            profile.corruption = random.pick([0, 3])
            profile.delay = random.pick([1_000...1_000, 500...10_000])
        }
        left = try Host(1, seed: seed, memory: 1 << 20)
        right = try Host(2, seed: seed, memory: 1 << 20)
        network = Network([left, right], seed: random.next(), profile: profile)
        pair = try left.makeQueuePair(.uc)
        peer = try right.makeQueuePair(.uc)
        var connection = Connection(mtu: random.pick([256, 1024]))
        connection.psn = random.chance(50) ? 0xFF_FFFF - UInt32(random.below(20)) : UInt32(random.below(1 << 24))
        try left.connect(pair, to: right.gid, number: peer.number, connection)
        try right.connect(peer, to: left.gid, number: pair.number, connection.reversed)
        window = right.take(4096)
        random.fill(window)
        initial = oracle.take(4096)
        initial.copyMemory(from: UnsafeRawBufferPointer(window))
        for _ in 0..<random.pick([3, 20, 40]) { messages.append(makeMessage(Int(connection.mtu))) }
    }

    private func makeMessage(_ mtu: Int) -> Message {
        let opcode = random.pick([WorkRequestOpcode.send, .sendWithImmediate, .write, .writeWithImmediate])
        let size = random.pick([0, 1, mtu - 1, mtu, mtu + 1, random.below(4 * mtu)])
        let source = left.take(size)
        random.fill(source)
        return Message(
            opcode: opcode, source: source, remoteOffset: random.below(4096 - size + 1),
            immediate: UInt32(truncatingIfNeeded: random.next()))
    }

    func run() throws {
        let plenty = random.chance(60)
        if plenty { postReceives(messages.count + 10) }
        while sent < messages.count {
            if !plenty && random.chance(50) { postReceives(random.below(4)) }
            try send(random.within(1...5))
            for _ in 0..<random.below(20) { _ = network.step() }
            try collect()
        }
        network.run()
        try collect()
        try require(pair.state == .readyToSend && peer.state == .readyToSend, "a queue pair left RTS")
        try checkWindow()
        if network.profile.isPerfect && plenty {
            let expected = messages.indices.filter { messages[$0].isSend || messages[$0].hasImmediate }
            try require(arrived == expected, "a network without loss lost or reordered messages")
        }
    }

    private func postReceives(_ count: Int) {
        for _ in 0..<min(count, 60 - (postedReceives - arrived.count)) {
            buffers.append(right.take(4096))
            right.postReceive(peer, id: UInt64(postedReceives), [right.sge(buffers[postedReceives])])
            postedReceives += 1
        }
    }

    private func send(_ count: Int) throws {
        for _ in 0..<count where sent < messages.count {
            let message = messages[sent]
            var request = SendWQE(id: UInt64(sent), opcode: message.opcode, flags: .signaled)
            request.immediate = message.immediate
            request.rkey = right.key
            request.remoteAddress = UInt64(UInt(bitPattern: window.baseAddress!)) + UInt64(message.remoteOffset)
            let result = left.post(pair, request, [left.sge(message.source)])
            try require(result == .success, "post refused with \(result.rawValue)")
            sent += 1
        }
        network.flushAll()
        // UC: a send completes when it is sent, in order.
        for completion in left.poll() {
            try require(completion.status == .success, "send ended with \(completion.status)")
        }
    }

    private func collect() throws {
        for completion in right.poll() {
            try require(completion.status == .success, "receive ended with \(completion.status)")
            let bytes = UnsafeRawBufferPointer(buffers[Int(completion.id)])
            guard let index = messages.indices.first(where: { fits(completion, bytes, messages[$0]) && $0 < sent })
            else {
                throw Violation("received \(completion.byteCount) bytes that were not sent")
            }
            // Equal messages (empty ones without immediate data) count as the next one that has not arrived.
            let due = messages.indices.first { fits(completion, bytes, messages[$0]) && !arrived.contains($0) }
            let isDoubled = due == nil && network.profile.duplication > 0
            try require(due != nil || isDoubled, "message \(index) arrived twice")
            arrived.append(due ?? index)
        }
    }

    private func fits(_ completion: WorkCompletion, _ bytes: UnsafeRawBufferPointer, _ message: Message) -> Bool {
        guard Int(completion.byteCount) == message.source.count,
            completion.flags.contains(.withImmediate) == message.hasImmediate,
            !message.hasImmediate || completion.immediate == message.immediate,
            message.isSend == (completion.opcode == .receive)
        else { return false }
        return !message.isSend || message.source.count == 0
            || memcmp(bytes.baseAddress!, message.source.baseAddress!, message.source.count) == 0
    }

    /// Each byte has its initial value or one that a WRITE wrote.
    private func checkWindow() throws {
        for offset in 0..<window.count where window[offset] != initial[offset] {
            let isExplained = messages.contains { message in
                !message.isSend && offset >= message.remoteOffset
                    && offset < message.remoteOffset + message.source.count
                    && message.source[offset - message.remoteOffset] == window[offset]
            }
            try require(isExplained, "byte \(offset) of the window has a value that no WRITE wrote")
        }
    }
}

/// Random datagrams among several queue pairs. Each arrives completely, with the correct GRH area and source QPN, or
/// not at all.
final class DatagramScenario {
    private var random: SplitMix
    private let network: Network
    private let hosts: [Host]
    private var ends: [(host: Host, pair: QueuePair, buffers: [UnsafeMutableRawBufferPointer], arrived: [Int])] = []
    private var sent: [(from: Int, to: Int, source: UnsafeMutableRawBufferPointer, immediate: UInt32?)] = []

    init(seed: UInt64) throws {
        random = SplitMix(seed: seed)
        var profile = NetworkProfile()
        if !random.chance(25) {
            profile.loss = random.pick([0, 10])
            profile.duplication = random.pick([0, 5])
            profile.corruption = random.pick([0, 3])
            profile.delay = random.pick([1_000...1_000, 500...10_000])
        }
        hosts = try (1...3).map { try Host(UInt32($0), seed: seed, memory: 1 << 20) { $0.activeMTU = 1024 } }
        network = Network(hosts, seed: random.next(), profile: profile)
        for host in hosts + [hosts[0]] {
            let pair = try host.makeQueuePair(.ud)
            try host.activate(pair, qkey: 0x1122_3344, psn: UInt32(random.below(1 << 24)))
            ends.append((host, pair, [], []))
        }
    }

    func run() throws {
        let plenty = random.chance(60)
        if plenty { for index in ends.indices { postReceives(index, 60) } }
        for _ in 0..<random.pick([5, 40]) {
            if !plenty { postReceives(random.below(ends.count), random.below(4)) }
            try send()
            for _ in 0..<random.below(5) { _ = network.step() }
            try collect()
        }
        network.run()
        try collect()
        guard network.profile.isPerfect && plenty else { return }
        for index in ends.indices {
            try require(
                ends[index].arrived == sent.indices.filter { sent[$0].to == index },
                "a network without loss lost datagrams")
        }
    }

    private func postReceives(_ index: Int, _ count: Int) {
        let end = ends[index]
        for _ in 0..<min(count, 60 - (end.buffers.count - end.arrived.count)) {
            let buffer = end.host.take(40 + 1024)
            let cut = random.below(41)
            let sgList = [
                end.host.sge(UnsafeMutableRawBufferPointer(rebasing: buffer[..<cut])),
                end.host.sge(UnsafeMutableRawBufferPointer(rebasing: buffer[cut...])),
            ]
            end.host.postReceive(end.pair, id: UInt64(ends[index].buffers.count), sgList)
            ends[index].buffers.append(buffer)
        }
    }

    private func send() throws {
        let (from, to) = (random.below(ends.count), random.below(ends.count))
        let host = ends[from].host
        let source = host.take(random.pick([0, 1, 40, 1023, 1024, random.below(1025)]))
        random.fill(source)
        let immediate = random.chance(30) ? UInt32(truncatingIfNeeded: random.next()) : nil
        var path = Path(source: host.gid, destination: ends[to].host.gid)
        var request = SendWQE(
            id: UInt64(sent.count), opcode: immediate == nil ? .send : .sendWithImmediate, flags: .signaled)
        request.immediate = immediate ?? 0
        request.remoteQPN = ends[to].pair.number
        request.remoteQKey = random.chance(50) ? 0x1122_3344 : 0x8000_0000
        let sge = host.sge(source)
        let pair = ends[from].pair
        let result = withUnsafePointer(to: &path) { path in
            withUnsafePointer(to: sge) { pair.stageSend(request, path: path, sgList: $0, count: 1) }
        }
        try require(result == .success, "post refused with \(result.rawValue)")
        pair.commitSends()
        sent.append((from, to, source, immediate))
        network.flushAll()
    }

    private func collect() throws {
        for host in hosts {
            for completion in host.poll() {
                try require(completion.status == .success, "ended with \(completion.status)")
                guard completion.opcode == .receive else { continue }
                guard
                    let index = ends.firstIndex(where: {
                        $0.pair.number == completion.queuePairNumber && $0.host === host
                    })
                else { throw Violation("completion of an unknown queue pair") }
                try check(completion, index)
            }
        }
    }

    private func check(_ completion: WorkCompletion, _ index: Int) throws {
        let buffer = ends[index].buffers[Int(completion.id)]
        try require(completion.flags.contains(.grh) && completion.byteCount >= 40, "no GRH area")
        let matches = sent.indices.filter { fits(completion, buffer, sent[$0], to: index) }
        try require(!matches.isEmpty, "received \(completion.byteCount) bytes that were not sent")
        let due = matches.first { !ends[index].arrived.contains($0) }
        try require(due != nil || network.profile.duplication > 0, "a datagram arrived twice")
        ends[index].arrived.append(due ?? matches[0])
    }

    private func fits(
        _ completion: WorkCompletion, _ buffer: UnsafeMutableRawBufferPointer,
        _ datagram: (from: Int, to: Int, source: UnsafeMutableRawBufferPointer, immediate: UInt32?), to index: Int
    ) -> Bool {
        let size = datagram.source.count
        guard datagram.to == index, Int(completion.byteCount) == 40 + size,
            completion.sourceQueuePairNumber == ends[datagram.from].pair.number,
            completion.flags.contains(.withImmediate) == (datagram.immediate != nil),
            datagram.immediate == nil || completion.immediate == datagram.immediate
        else { return false }
        // IPv4: 20 zero bytes, then the header with the sender's address at byte 12.
        let address = UInt32(truncatingIfNeeded: ends[datagram.from].host.gid.low).bigEndian
        guard (0..<20).allSatisfy({ buffer[$0] == 0 }), buffer[20] == 0x45,
            buffer.loadUnaligned(fromByteOffset: 32, as: UInt32.self) == address
        else { return false }
        return size == 0 || memcmp(buffer.baseAddress! + 40, datagram.source.baseAddress!, size) == 0
    }
}
