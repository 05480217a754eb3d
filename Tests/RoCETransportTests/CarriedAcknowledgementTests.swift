import RoCEWire
import TestSupport
import Testing

@testable import RoCETransport

@Suite("Acknowledgements that a request carries, between engines of one host")
struct CarriedAcknowledgementTests {
    /// Two engines of one host, and the packets of the right one.
    private final class Exchange {
        let pair: NeighborPair
        var left: Host { pair.left }
        var right: Host { pair.right }
        /// The opcodes of the right engine's packets, and the acknowledgements that they carry.
        var sent: [(opcode: Opcode, acknowledged: PSN?)] = []

        init(_ order: AcknowledgementOrder) throws {
            pair = try NeighborPair()
            pair.network.acknowledgements = order
            let gid = pair.right.gid
            pair.network.inspect = { [unowned self] packet, outgoing in
                if outgoing.path.source == gid { sent.append((packet.headers.bth.opcode, outgoing.acknowledged)) }
                return true
            }
        }

        /// Posts a message and its receive.
        func send(fromLeft: Bool, id: UInt64 = 1) {
            let (sender, receiver) = fromLeft ? (left, right) : (right, left)
            let (from, to) = fromLeft ? (pair.leftPair, pair.rightPair) : (pair.rightPair, pair.leftPair)
            receiver.postReceive(to, id: 100 + id, [receiver.sge(receiver.take(8))])
            sender.post(from, SendWQE(id: id, opcode: .send), [sender.sge(sender.take(8))])
        }

        /// Passes the packets of the left engine to the right one, without the network.
        func deliver() {
            while let packet = left.engine.transmit(into: left.packet, now: pair.network.now) {
                let bytes = UnsafeRawBufferPointer(rebasing: left.packet[..<packet.byteCount])
                right.engine.receive(bytes, from: source(left, right), now: pair.network.now)
            }
        }

        func source(_ from: Host, _ to: Host) -> PacketSource {
            PacketSource(
                source: from.gid, destination: to.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        }

        func transmit(_ order: AcknowledgementOrder) -> OutgoingPacket? {
            right.engine.transmit(into: right.packet, acknowledgements: order, now: pair.network.now)
        }

        /// Whether an acknowledgement of the right engine waits.
        var waits: Bool { right.engine.hasAcknowledgement }

        /// The opcode of the packet that the right engine wrote last.
        var opcode: Opcode { Opcode(rawValue: right.packet[0]) }
    }

    @Test("The answer to a message carries its acknowledgement, and is the only packet")
    func answer() throws {
        let test = try Exchange(.last)
        for id in 1...20 as ClosedRange<UInt64> {
            test.sent = []
            test.send(fromLeft: true, id: id)
            test.deliver()
            test.send(fromLeft: false, id: id)
            let packet = try #require(test.transmit(.last))
            #expect(packet.acknowledged == PSN(0xFF + UInt32(id)) && test.opcode == .rcSendOnly)
            #expect(test.transmit(.last) == nil && !test.waits)
            test.left.engine.receive(
                UnsafeRawBufferPointer(rebasing: test.right.packet[..<packet.byteCount]),
                from: test.source(test.right, test.left), acknowledged: packet.acknowledged, now: test.pair.network.now)
            // The acknowledgement came before the message.
            #expect(test.left.poll().map(\.id) == [id, 100 + id])
            test.pair.network.run()
            #expect(test.right.poll().map(\.id) == [100 + id, id])
        }
    }

    @Test("Without a request, acknowledgements are packets of their own")
    func alone() throws {
        for order in [.first, .last] as [AcknowledgementOrder] {
            let test = try Exchange(order)
            test.send(fromLeft: true)
            test.pair.network.run()
            #expect(test.left.poll().map(\.status) == [.success])
            #expect(test.sent.map(\.opcode) == [.rcAcknowledge] && test.sent[0].acknowledged == nil)
        }
    }

    @Test("Messages in both directions complete in order under every order of acknowledgements")
    func both() throws {
        for order in [.first, .last] as [AcknowledgementOrder] {
            let test = try Exchange(order)
            for id in 1...30 as ClosedRange<UInt64> {
                test.send(fromLeft: true, id: id)
                test.send(fromLeft: false, id: id)
                if id % 3 == 0 { test.pair.network.run() }
            }
            test.pair.network.run()
            for host in [test.left, test.right] {
                let found = host.poll()
                #expect(found.allSatisfy { $0.status == .success })
                #expect(found.filter { $0.opcode == .send }.map(\.id) == Array(1...30))
                #expect(found.filter { $0.opcode == .receive }.map(\.id) == Array(101...130))
            }
        }
    }

    @Test("A held acknowledgement waits for the next call; a NAK does not")
    func held() throws {
        let test = try Exchange(.first)
        test.send(fromLeft: true)
        test.deliver()
        #expect(test.transmit(.held) == nil && test.waits)
        #expect(test.transmit(.first) != nil && test.opcode == .rcAcknowledge)
        // No receive is posted.
        test.left.post(test.pair.leftPair, SendWQE(id: 2, opcode: .send), [test.left.sge(test.left.take(8))])
        test.deliver()
        #expect(test.transmit(.held) != nil && test.opcode == .rcAcknowledge && !test.waits)
        #expect(test.right.engine.counters.rnrNAKsSent == 1)
    }

    @Test("A NAK comes before the requests, where ACKs come after them")
    func urgent() throws {
        let test = try Exchange(.first)
        // No receive is posted.
        test.left.post(test.pair.leftPair, SendWQE(id: 1, opcode: .send), [test.left.sge(test.left.take(8))])
        test.deliver()
        test.send(fromLeft: false)
        let packet = try #require(test.transmit(.last))
        #expect(test.opcode == .rcAcknowledge && packet.acknowledged == nil && !test.waits)
        #expect(test.right.engine.counters.rnrNAKsSent == 1)
        #expect(test.transmit(.last)?.acknowledged == nil && test.opcode == .rcSendOnly)
    }

    @Test("Acknowledgements only: no request is sent, and no doorbell is read")
    func only() throws {
        let test = try Exchange(.first)
        test.send(fromLeft: true)
        test.deliver()
        test.send(fromLeft: false)
        #expect(test.transmit(.only) != nil && test.opcode == .rcAcknowledge)
        let rings = test.right.engine.doorbellIsRung
        #expect(test.transmit(.only) == nil && rings)
        #expect(test.transmit(.first) != nil && test.opcode == .rcSendOnly)
    }

    @Test("A packet that cannot carry its acknowledgement leaves it as a packet of its own")
    func separate() throws {
        let test = try Exchange(.first)
        test.send(fromLeft: true)
        test.deliver()
        test.send(fromLeft: false)
        var packet = try #require(test.transmit(.last))
        #expect(packet.acknowledged != nil && !test.waits)
        // One of a PSN that was not received, as from before RESET, is forgotten.
        var old = packet
        old.acknowledged = PSN(0x101)
        test.right.engine.separateAcknowledgement(of: &old)
        #expect(old.acknowledged == nil && !test.waits)
        test.right.engine.separateAcknowledgement(of: &packet)
        #expect(packet.acknowledged == nil && test.waits)
        #expect(test.transmit(.first) != nil && test.opcode == .rcAcknowledge)
        test.pair.network.run()
        #expect(test.right.poll().allSatisfy { $0.status == .success })
    }

    @Test("Over UDP no request carries an acknowledgement, and none waits")
    func network() throws {
        let test = try Probe()
        #expect(test.host.postReceive(test.pair, id: 1, [test.sge(8)]) == .success)
        test.receive(.rcSendOnly, payload: [1, 2, 3, 4])
        test.post(.send)
        var found: [OutgoingPacket] = []
        while let packet = test.host.engine.transmit(into: test.host.packet, acknowledgements: .held, now: test.now) {
            found.append(packet)
        }
        #expect(found.count == 2 && found.allSatisfy { $0.acknowledged == nil })
        let waits = test.host.engine.hasAcknowledgement
        #expect(!waits)
    }

    @Test("An acknowledgement of a PSN that is not outstanding, or from another address, has no effect")
    func invalid() throws {
        let test = try Exchange(.first)
        test.send(fromLeft: false)
        let packet = try #require(test.transmit(.first))
        let bytes = UnsafeRawBufferPointer(rebasing: test.right.packet[..<packet.byteCount])
        test.left.post(test.pair.leftPair, SendWQE(id: 2, opcode: .send), [test.left.sge(test.left.take(8))])
        #expect(test.left.engine.transmit(into: test.left.packet, now: test.pair.network.now) != nil)
        let now = test.pair.network.now
        for psn in [0xFF, 0x101, 0x800100] as [UInt32] {
            test.left.engine.receive(
                bytes, from: test.source(test.right, test.left), acknowledged: PSN(psn), now: now)
        }
        #expect(test.left.engine.counters.strayResponses == 3)
        test.left.engine.receive(bytes, from: test.source(test.left, test.left), acknowledged: PSN(0x100), now: now)
        #expect(test.left.poll().map(\.opcode) == [.receive])
        test.left.engine.receive(bytes, from: test.source(test.right, test.left), acknowledged: PSN(0x100), now: now)
        #expect(test.left.poll().map(\.id) == [2])
        // A queue pair in ERR: the packet is counted once.
        var attributes = QueuePairAttributes()
        attributes.state = .error
        try test.left.engine.modify(test.pair.leftPair, attributes, .state)
        let before = test.left.engine.counters
        test.left.engine.receive(bytes, from: test.source(test.right, test.left), acknowledged: PSN(0x100), now: now)
        let after = test.left.engine.counters
        #expect(after.droppedState == before.droppedState + 1 && after.droppedMalformed == before.droppedMalformed)
    }

    @Test("A work request that fails behind messages without a completion fails at once")
    func failsBehindUnsignaled() throws {
        for count in [1, 5, 20] {
            let pair = try NeighborPair(sqSigAll: false)
            for id in 0..<20 as Range<UInt64> {
                pair.right.postReceive(pair.rightPair, id: id, [pair.right.sge(pair.right.take(8))])
            }
            for id in 0...count {
                var data = pair.left.sge(pair.left.take(8))
                if id == count { data.lkey ^= 0xFF }
                let request = SendWQE(id: UInt64(id), opcode: .send, flags: id == count ? .signaled : [])
                #expect(pair.leftPair.stageSend(request, sgList: [data], count: 1) == .success)
            }
            pair.leftPair.commitSends()
            let start = pair.network.now
            pair.network.run()
            let found = pair.left.poll()
            #expect(found.map(\.id) == [UInt64(count)] && found[0].status == .localProtectionError)
            // Not after a retransmission timeout.
            #expect(pair.network.now - start < RoundTripTime.shortestTimeout)
            #expect(pair.right.poll().count == count && pair.left.engine.counters.timeouts == 0)
        }
    }

    @Test("Of messages without a completion, the last one posted and every 32nd packet ask for an acknowledgement")
    func unsignaled() throws {
        let pair = try NeighborPair(sqSigAll: false)
        var asks: [Bool] = []
        pair.network.inspect = { packet, _ in
            if !packet.headers.bth.opcode.isResponse { asks.append(packet.headers.bth.acknowledgeRequest) }
            return true
        }
        for id in 0..<40 as Range<UInt64> {
            pair.right.postReceive(pair.rightPair, id: id, [pair.right.sge(pair.right.take(8))])
        }
        func post(_ flags: [SendFlags]) {
            for (index, flags) in flags.enumerated() {
                let data = pair.left.sge(pair.left.take(8))
                let request = SendWQE(id: UInt64(index), opcode: .send, flags: flags)
                #expect(
                    withUnsafePointer(to: data) {
                        pair.leftPair.stageSend(request, sgList: $0, count: 1)
                    } == .success)
            }
            pair.leftPair.commitSends()
            pair.network.run()
        }
        post([[], [], .signaled, [], []])
        #expect(asks == [false, false, true, false, true])
        #expect(pair.left.poll().map(\.id) == [2] && pair.left.engine.counters.probes == 0)
        asks = []
        post(Array(repeating: [], count: 35))
        #expect(asks == (1...35).map { $0 == 32 || $0 == 35 })
        #expect(pair.right.poll().count == 40)
        // Before a local operation, which completes after the messages before it.
        asks = []
        pair.right.postReceive(pair.rightPair, id: 40, [pair.right.sge(pair.right.take(8))])
        let data = pair.left.sge(pair.left.take(8))
        let isStaged = withUnsafePointer(to: data) {
            pair.leftPair.stageSend(SendWQE(id: 1, opcode: .send), sgList: $0, count: 1)
        }
        #expect(isStaged == .success)
        var local = SendWQE(id: 2, opcode: .localInvalidate, flags: .signaled)
        local.immediate = 1 << 16
        #expect(pair.leftPair.stageSend(local, sgList: nil, count: 0) == .success)
        pair.leftPair.commitSends()
        pair.network.run()
        #expect(asks == [true] && pair.left.engine.counters.probes == 0)
    }
}
