import RoCETransport
import RoCEWire
import Testing

@Suite("RC requests that arrive before an earlier one")
struct HeldRequestTests {
    /// A responder that keeps so many of them, with receive work requests posted. It has executed the first request.
    private func responder(_ held: UInt32 = 8, receives: Int = 16) throws -> Probe {
        let probe = try Probe { $0.heldRequests = held }
        begin(probe)
        for id in 0..<receives { probe.postReceive(id: UInt64(id), bytes: 8) }
        return probe
    }

    /// The first request of a connection.
    private func begin(_ probe: Probe) {
        probe.postReceive(bytes: 8)
        receive(probe, -1)
        #expect(probe.sent().map(\.syndrome) == [0x1F] && probe.host.poll().count == 1)
    }

    /// Receives SENDs. Offsets count from the PSN of the second request.
    private func receive(_ probe: Probe, _ offsets: Int..., acknowledge: Bool = true) {
        for offset in offsets {
            probe.receive(
                .rcSendOnly, 1 + offset, payload: [UInt8(truncatingIfNeeded: offset)], acknowledge: acknowledge)
        }
    }

    private func offsets(_ sent: [Probe.Sent], _ probe: Probe) -> [Int] {
        sent.map { Int(PSN(probe.connection.peerPSN).distance(to: $0.headers.bth.psn)) - 1 }
    }

    @Test("A packet that is overtaken by the next one: no NAK, both are executed in order, and one ACK covers both")
    func overtaken() throws {
        let probe = try responder()
        receive(probe, 1)
        #expect(probe.sent().isEmpty && probe.host.poll().isEmpty && probe.host.engine.nextDeadline != nil)
        receive(probe, 0)
        let sent = probe.sent()
        #expect(sent.map(\.syndrome) == [0x1F] && offsets(sent, probe) == [1] && sent[0].headers.aeth.msn == 3)
        #expect(probe.host.poll().map(\.id) == [0, 1] && probe.memory[0] == 1)
        let counters = probe.host.engine.counters
        #expect(counters.naksSent == 0 && counters.heldRequests == 1 && counters.outOfSequence == 1)
        // What follows is in sequence, and nothing waits any more.
        receive(probe, 2)
        #expect(offsets(probe.sent(), probe) == [2])
        probe.advance(1_000_000)
        #expect(probe.sent().isEmpty && probe.host.engine.nextDeadline == nil)
    }

    @Test("Three packets behind a gap cause the NAK, once; the missing one alone ends it")
    func lost() throws {
        let probe = try responder()
        receive(probe, 1, 2)
        #expect(probe.sent().isEmpty)
        receive(probe, 3)
        let sent = probe.sent()
        #expect(sent.map(\.syndrome) == [0x60] && offsets(sent, probe) == [0])
        receive(probe, 4)
        #expect(probe.sent().isEmpty && probe.host.poll().isEmpty)
        receive(probe, 0)
        #expect(offsets(probe.sent(), probe) == [4])
        #expect(probe.host.poll().map(\.id) == [0, 1, 2, 3, 4] && probe.memory[0] == 4)
        // The copies that go-back-N sends are duplicates.
        receive(probe, 1, 2)
        #expect(offsets(probe.sent(), probe) == [4] && probe.host.poll().isEmpty)
    }

    @Test("With fewer packets behind the gap, the NAK comes after 200 us, and the packets are kept for 20 ms more")
    func patience() throws {
        let probe = try responder()
        receive(probe, 1)
        #expect(probe.host.engine.nextDeadline == probe.now + 200_000)
        probe.advance(199_999)
        #expect(probe.sent().isEmpty)
        probe.advance(1)
        #expect(probe.sent().map(\.syndrome) == [0x60])
        probe.advance(19_999_999)
        receive(probe, 0)
        #expect(probe.host.poll().count == 2 && offsets(probe.sent(), probe) == [1])
        receive(probe, 3)
        probe.advance(200_000)
        #expect(offsets(probe.sent(), probe) == [2])
        probe.advance(20_000_000)
        receive(probe, 2)
        #expect(probe.host.poll().count == 1 && offsets(probe.sent(), probe) == [2])
        #expect(probe.host.engine.nextDeadline == nil)
    }

    @Test("Two gaps: the packets between them are executed, and the second one has a NAK of its own")
    func twoGaps() throws {
        let probe = try responder()
        receive(probe, 3, 1, 1)
        receive(probe, 0)
        #expect(probe.host.poll().map(\.id) == [0, 1] && offsets(probe.sent(), probe) == [1])
        probe.advance(200_000)
        let sent = probe.sent()
        #expect(sent.map(\.syndrome) == [0x60] && offsets(sent, probe) == [2])
        receive(probe, 2)
        #expect(probe.host.poll().map(\.id) == [2, 3] && offsets(probe.sent(), probe) == [3])
    }

    @Test("Requests of all kinds are executed in the order of their PSNs, and a duplicate of a held one is not")
    func kinds() throws {
        let probe = try responder()
        probe.receiveRead(4, length: 8)
        probe.receiveWrite(.rcWriteOnly, 2, length: 4, payload: [1, 2, 3, 4])
        probe.receiveFetchAdd(3, add: 5)
        probe.receiveFetchAdd(3, add: 5)
        receive(probe, 0)
        let sent = probe.sent()
        #expect(sent.last?.payload == [6, 2, 3, 4, 0, 0, 0, 0])
        #expect(sent.contains { $0.opcode == .rcAtomicAcknowledge && $0.headers.atomicAckETH.original == 0x0403_0201 })
        #expect(probe.host.poll().count == 1)
    }

    @Test("Where no place is left, and with none at all, a packet behind a gap is dropped and the NAK comes at once")
    func full() throws {
        let probe = try responder(1)
        receive(probe, 1)
        #expect(probe.sent().isEmpty)
        receive(probe, 2)
        #expect(probe.sent().map(\.syndrome) == [0x60])
        receive(probe, 0)
        #expect(probe.host.poll().map(\.id) == [0, 1])
        let none = try responder(0)
        receive(none, 1)
        #expect(none.sent().map(\.syndrome) == [0x60] && none.host.engine.counters.heldRequests == 0)
        let far = try responder()
        receive(far, 257)
        #expect(far.sent().map(\.syndrome) == [0x60] && far.host.engine.counters.heldRequests == 0)
    }

    @Test("A held request that ends the connection is answered in its turn, and those behind it are dropped")
    func refused() throws {
        let probe = try responder(3)
        probe.receiveWrite(.rcWriteOnly, 2, key: 0x1, length: 4, payload: [1, 2, 3, 4])
        receive(probe, 2)
        #expect(probe.sent().isEmpty && probe.pair.state == .readyToSend)
        receive(probe, 0)
        let sent = probe.sent()
        #expect(sent.last?.syndrome == 0x62 && offsets(sent, probe).last == 1)
        #expect(probe.pair.state == .error && probe.host.engine.nextDeadline == nil)
        #expect(probe.host.poll().map(\.status) == [.success] + Array(repeating: .flushed, count: 15))
    }

    @Test("RESET and destroy give the places back, again and again")
    func places() throws {
        let probe = try responder(4, receives: 0)
        for round in 0..<8 {
            receive(probe, 1, 2, 3, 4)
            #expect(probe.host.engine.counters.heldRequests == UInt64(4 * (round + 1)))
            try probe.host.move(probe.pair, to: .reset)
            #expect(probe.host.engine.nextDeadline == nil)
            try probe.host.connect(probe.pair, to: probe.peer, number: probe.peerNumber, probe.connection)
            begin(probe)
        }
        // Destroyed with one that is held.
        receive(probe, 1)
    }

    @Test("Requests of an earlier connection, which arrive before the first one of the new connection, are not kept")
    func earlierConnection() throws {
        let probe = try responder()
        try probe.host.move(probe.pair, to: .reset)
        try probe.host.connect(probe.pair, to: probe.peer, number: probe.peerNumber, probe.connection)
        for offset in 5..<8 { probe.receive(.rcSendOnly, offset, payload: [0xEE]) }
        #expect(probe.sent().map(\.syndrome) == [0x60] && probe.host.engine.counters.heldRequests == 0)
        for offset in 0..<8 {
            probe.postReceive(id: UInt64(offset), bytes: 8)
            probe.receive(.rcSendOnly, offset, payload: [UInt8(offset)])
            #expect(probe.host.poll().map(\.id) == [UInt64(offset)] && probe.memory[0] == UInt8(offset))
        }
    }

    @Test("A copy of a held request that asks for an acknowledgement gets one, though the first one did not ask")
    func asksLater() throws {
        let probe = try responder()
        receive(probe, 1, acknowledge: false)
        receive(probe, 1)
        receive(probe, 0, acknowledge: false)
        #expect(offsets(probe.sent(), probe) == [1] && probe.host.poll().count == 2)
    }

    @Test("A receiver that is not ready: the packets behind the refused one are not kept")
    func notReady() throws {
        let probe = try responder(receives: 0)
        receive(probe, 0, 1)
        #expect(probe.sent().count == 1 && probe.host.engine.counters.heldRequests == 0)
        // One that is refused in its turn, and one behind it that was held before.
        let other = try responder(receives: 1)
        receive(other, 2, 1)
        receive(other, 0)
        let sent = other.sent()
        #expect(sent.map(\.syndrome) == [0x21] && offsets(sent, other) == [1] && other.host.engine.nextDeadline == nil)
        for id in 1..<3 { other.postReceive(id: UInt64(id), bytes: 8) }
        receive(other, 1, 2)
        #expect(offsets(other.sent(), other) == [2] && other.host.poll().map(\.id) == [0, 1, 2])
    }
}
