import RoCEWire
import Testing

@testable import RoCETransport

@Suite("Receivers of this host without room")
struct FullReceiverTests {
    /// An engine with queue pairs that are connected to receivers of this host.
    private final class Sender {
        let host: Host
        var pairs: [QueuePair] = []
        var now: UInt64 = 1_000_000

        init(_ type: QueuePairType, receivers: [UInt32]) throws {
            host = try Host(1) { $0.qpnPrefixBits = 8 }
            var connection = Connection()
            connection.tag = Path.sameHost
            for receiver in receivers {
                let pair = try host.makeQueuePair(type, sqSigAll: true)
                try host.connect(pair, to: GID(ipv4: 0x0A00_0002), number: receiver << 16 | 5, connection)
                pairs.append(pair)
            }
        }

        func post(_ index: Int, id: UInt64 = 0) {
            host.post(pairs[index], SendWQE(id: id, opcode: .send), [host.sge(host.take(8))])
        }

        /// The queue pair of each packet that is sent now.
        func sent(limit: Int = .max) -> [Int] {
            var result: [Int] = []
            while result.count < limit, let packet = host.engine.transmit(into: host.packet, now: now) {
                result.append(pairs.firstIndex { $0.number == packet.sourceQPN } ?? -1)
            }
            return result
        }

        /// Lets the next timer expire, after which no packet is sent.
        func expire() throws {
            let deadline = host.engine.nextDeadline
            now = try #require(deadline)
            host.engine.advance(to: now)
            #expect(sent().isEmpty)
        }
    }

    @Test("The requests to one wait, and those to others do not", arguments: [QueuePairType.rc, .uc])
    func requests(type: QueuePairType) throws {
        let sender = try Sender(type, receivers: [7, 200, 7])
        sender.host.engine.suspend(receiver: 7)
        for index in 0..<3 { sender.post(index) }
        #expect(sender.sent() == [1])
        // What is posted meanwhile waits, too.
        sender.post(0)
        sender.post(1)
        #expect(sender.sent() == [1])
        sender.host.engine.suspend(receiver: 200)
        sender.host.engine.resume(receiver: 7)
        #expect(sender.sent().sorted() == [0, 0, 2])
        sender.post(1)
        #expect(sender.sent().isEmpty)
        sender.host.engine.resume(receiver: 200)
        #expect(sender.sent() == [1])
    }

    /// The only timer is that of the request that waits.
    @Test("A request of RC that waits for room ends with RETRY_EXC after its retries, also with none outstanding")
    func retries() throws {
        let sender = try Sender(.rc, receivers: [7])
        sender.host.engine.suspend(receiver: 7)
        sender.post(0, id: 1)
        #expect(sender.sent().isEmpty)
        // Room before the last retry: the retries begin again.
        for _ in 0..<3 { try sender.expire() }
        #expect(sender.now == 1_000_000 + 3 * 4096 << 10 && sender.host.poll().isEmpty)
        sender.host.engine.resume(receiver: 7)
        #expect(sender.sent() == [0])
        sender.host.engine.suspend(receiver: 7)
        sender.post(0, id: 2)
        #expect(sender.sent().isEmpty)
        while sender.host.poll().isEmpty { try sender.expire() }
        #expect(sender.host.engine.counters.timeouts == 3 + 4)

        // Without packets before it: once, and three retries.
        let other = try Sender(.rc, receivers: [7])
        other.host.engine.suspend(receiver: 7)
        other.post(0, id: 3)
        #expect(other.sent().isEmpty)
        for _ in 0..<4 {
            #expect(other.host.poll().isEmpty)
            try other.expire()
        }
        let completions = other.host.poll()
        #expect(completions.map(\.id) == [3] && completions[0].status == .retryExceeded)
        let deadline = other.host.engine.nextDeadline
        #expect(deadline == nil)
    }

    @Test("Queue pairs take turns at a receiver that has room for a few packets at a time")
    func turns() throws {
        let sender = try Sender(.uc, receivers: [7, 7, 7])
        for _ in 0..<10 { for index in 0..<3 { sender.post(index) } }
        var counts = [0, 0, 0]
        for _ in 0..<9 {
            for index in sender.sent(limit: 2) { counts[index] += 1 }
            sender.host.engine.suspend(receiver: 7)
            #expect(sender.sent().isEmpty)
            sender.host.engine.resume(receiver: 7)
        }
        #expect(counts == [6, 6, 6])
    }

    @Test("A queue pair that waits is reset, connected again and destroyed")
    func life() throws {
        let sender = try Sender(.uc, receivers: [7, 7, 9])
        sender.host.engine.suspend(receiver: 7)
        for index in 0..<3 { sender.post(index) }
        #expect(sender.sent() == [2])
        sender.host.destroy(sender.pairs[0])
        var attributes = QueuePairAttributes()
        attributes.state = .reset
        try sender.host.engine.modify(sender.pairs[1], attributes, .state)
        sender.host.engine.resume(receiver: 7)
        #expect(sender.sent().isEmpty && sender.host.poll().count == 1)
    }

    @Test("The acknowledgements to one wait, and the requests that access its memory directly do not")
    func responses() throws {
        let test = try NeighborPair()
        let (left, right) = (test.left, test.right)
        right.postReceive(test.rightPair, id: 1, [right.sge(right.take(8))])
        left.post(test.leftPair, SendWQE(id: 2, opcode: .send), [left.sge(left.take(8))])
        right.engine.suspend(receiver: 1)
        test.network.run(for: 20_000)
        #expect(right.poll().map(\.id) == [1] && left.poll().isEmpty)
        right.engine.resume(receiver: 1)
        test.network.run()
        #expect(left.poll().map(\.id) == [2])

        left.engine.suspend(receiver: 2)
        for id in 3...5 as ClosedRange<UInt64> {
            let target = right.take(8)
            let source = left.take(8)
            source.storeBytes(of: id, as: UInt64.self)
            left.post(test.leftPair, test.request(.write, id: id, at: target), [left.sge(source)])
            while left.engine.transmit(into: left.packet, now: test.network.now) != nil || left.engine.hasDirectWork {}
            #expect(left.poll().map(\.id) == [id] && target.load(as: UInt64.self) == id)
        }
    }

    @Test("Datagrams wait too, until the caller wants to drop them")
    func datagrams() throws {
        let host = try Host(1) { $0.qpnPrefixBits = 8 }
        let pair = try host.makeQueuePair(.ud, sqSigAll: true)
        try host.activate(pair, qkey: 1)
        var path = Path(source: host.gid, destination: GID(ipv4: 0x0A00_0002))
        path.tag = Path.sameHost
        func post(_ receiver: UInt32) {
            var request = SendWQE(id: 1, opcode: .send)
            request.remoteQPN = receiver << 16 | 5
            host.post(pair, request, [host.sge(host.take(8))], path: &path)
        }
        func sent() -> [UInt32] {
            var result: [UInt32] = []
            while let packet = host.engine.transmit(into: host.packet, now: 0) {
                result.append(packet.destinationQPN >> 16)
            }
            return result
        }
        host.engine.suspend(receiver: 7)
        for receiver in [8, 7, 8] as [UInt32] { post(receiver) }
        #expect(sent() == [8])
        host.engine.resumeDatagrams(receiver: 7)
        #expect(sent() == [7, 8])
        post(7)
        #expect(sent() == [7])
        // The next time they wait again.
        host.engine.resume(receiver: 7)
        host.engine.suspend(receiver: 7)
        post(7)
        #expect(sent().isEmpty)
    }
}
