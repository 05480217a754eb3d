import RoCEWire
import Testing

@testable import RoCETransport

@Suite("RC requester: losses that no NAK reports, found by the round-trip time")
struct RoundTripTests {
    /// A connection whose round-trip time was measured as 100 us: the retransmission timeout is the shortest one.
    private func measured(_ connection: Connection = Connection(timeout: 18, retryCount: 1)) throws -> Probe {
        let probe = try Probe(.rc, connection)
        probe.post(.send, id: 0)
        #expect(probe.sentOffsets() == [0])
        probe.advance(100_000)
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [0])
        return probe
    }

    @Test("Packets that are lost before a round trip was measured are sent again after the initial timeout")
    func unknown() throws {
        let probe = try Probe(.rc, Connection(timeout: 18, retryCount: 0))
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        #expect(probe.sentOffsets() == [0, 1, 2])
        for interval in [1, 2, 4] as [UInt64] {
            probe.advance(interval * RoundTripTime.initialTimeout - 1)
            #expect(probe.sent().isEmpty)
            probe.advance(1)
            #expect(probe.sentOffsets() == [0, 1])
        }
        probe.acknowledge(1)
        #expect(probe.host.poll().map(\.id) == [0, 1] && probe.sentOffsets() == [2])
        #expect(probe.host.engine.counters.probes == 3 && probe.host.engine.counters.timeouts == 0)
    }

    @Test("A local ACK timeout that is shorter than the initial timeout decides")
    func shortLocalTimeout() throws {
        let probe = try Probe(.rc, Connection(timeout: 8))
        probe.post(.send)
        _ = probe.sent()
        probe.advance(4096 << 8)
        #expect(probe.sentOffsets() == [0])
        #expect(probe.host.engine.counters.probes == 0 && probe.host.engine.counters.timeouts == 1)
    }

    @Test("After the retransmission timeout two packets are sent again, at doubling intervals, and no retry is used")
    func probes() throws {
        let probe = try measured()
        for id in 1...5 { probe.post(.send, id: UInt64(id)) }
        #expect(probe.sentOffsets() == [1, 2, 3, 4, 5])
        for interval in [1, 2, 4, 8] as [UInt64] {
            probe.advance(interval * RoundTripTime.shortestTimeout - 1)
            #expect(probe.sent().isEmpty)
            probe.advance(1)
            #expect(probe.sentOffsets() == [1, 2])
        }
        #expect(probe.host.engine.counters.probes == 4 && probe.host.engine.counters.timeouts == 0)
        // The acknowledgement of the probe leads to the rest: packets 3 to 5 were lost.
        probe.acknowledge(2)
        #expect(probe.host.poll().map(\.id) == [1, 2])
        #expect(probe.sentOffsets() == [3, 4, 5])
        #expect(probe.host.engine.counters.needlessProbes == 0 && probe.host.engine.counters.repairs == 1)
    }

    @Test("An acknowledgement of packets that were not sent again shows that none was lost: nothing more is sent again")
    func needless() throws {
        let probe = try measured()
        for id in 1...5 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.advance(RoundTripTime.shortestTimeout)
        #expect(probe.sentOffsets() == [1, 2])
        probe.acknowledge(5)
        #expect(probe.host.poll().map(\.id) == [1, 2, 3, 4, 5] && probe.sent().isEmpty)
        #expect(probe.host.engine.counters.needlessProbes == 1 && probe.host.engine.counters.repairs == 0)
        // The window is as large as before.
        for id in 0..<30 { probe.post(.send, id: UInt64(id)) }
        #expect(probe.sent().count == 30)
    }

    @Test("Probes end with the local ACK timeout, whose retries end the connection")
    func gaveUp() throws {
        let probe = try measured()
        probe.post(.send, id: 1)
        _ = probe.sent()
        let end = probe.now + 2 * (4096 << 18)
        while let deadline = probe.host.engine.nextDeadline, deadline < end {
            probe.advance(deadline - probe.now)
            _ = probe.sent()
            #expect(probe.host.poll().isEmpty)
        }
        probe.advance(end - probe.now)
        #expect(probe.host.poll().map(\.status) == [.retryExceeded])
        #expect(probe.host.engine.counters.timeouts == 2 && probe.host.engine.nextDeadline == nil)
    }

    @Test("A READ whose last response is lost is requested again from the missing response on")
    func read() throws {
        let probe = try measured(Connection(mtu: 256, timeout: 18))
        probe.post(.read, id: 1, bytes: 600)
        #expect(probe.sentOffsets() == [1])
        probe.receive(.rcReadResponseFirst, 1, payload: pattern(256))
        probe.receive(.rcReadResponseMiddle, 2, payload: pattern(256))
        probe.advance(RoundTripTime.shortestTimeout)
        let again = probe.sent()
        #expect(again.map(\.opcode) == [.rcReadRequest] && again[0].headers.reth.dmaLength == 88)
        probe.receive(.rcReadResponseOnly, 3, payload: pattern(88))
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    @Test("With a rate limit that spaces packets further than the retransmission timeout, none is sent again")
    func paced() throws {
        let probe = try measured(Connection(mtu: 4096, timeout: 8))
        // 10 Mbit/s: a packet takes 3.3 ms; the local ACK timeout is 1 ms.
        try probe.host.engine.limitRate(of: probe.pair, to: 10_000)
        probe.post(.send, id: 1, bytes: 16384)
        var offset = 1
        while let deadline = probe.host.engine.nextDeadline, offset < 5 {
            if deadline > probe.now { probe.advance(deadline - probe.now) }
            for packet in probe.sent() {
                #expect(packet.psn == 0x100 + UInt32(offset) && packet.headers.bth.acknowledgeRequest)
                probe.advance(100_000)
                probe.acknowledge(offset)
                offset += 1
            }
        }
        #expect(probe.host.poll().map(\.status) == [.success])
        let counters = probe.host.engine.counters
        #expect(counters.probes == 0 && counters.timeouts == 0 && counters.retransmittedPackets == 0)
    }

    @Test("A round-trip time that has become longer than the retransmission timeout is learned")
    func longer() throws {
        let probe = try measured()
        for id in 1...4 as ClosedRange<UInt64> {
            probe.post(.send, id: id)
            _ = probe.sent()
            let end = probe.now + 10 * RoundTripTime.shortestTimeout
            while let deadline = probe.host.engine.nextDeadline, deadline < end {
                probe.advance(deadline - probe.now)
                _ = probe.sent()
            }
            probe.advance(end - probe.now)
            probe.acknowledge(Int(id))
            #expect(probe.host.poll().map(\.id) == [id])
        }
        // Probes at 1, 3 and 7 times the shortest timeout; then at most one, until the timeout is longer than the round trip.
        #expect(probe.host.engine.counters.probes <= 5)
    }

    /// One more queue pair that is connected to the peer.
    private func another(_ probe: Probe) throws -> QueuePair {
        let pair = try probe.host.makeQueuePair(sqSigAll: true)
        try probe.host.connect(pair, to: probe.peer, number: probe.peerNumber, probe.connection)
        return pair
    }

    private func acknowledge(_ probe: Probe, _ pair: QueuePair, _ offset: Int) {
        probe.receive(
            probe.packet(.rcAcknowledge, offset) {
                $0.bth.destinationQPN = pair.number
                $0.aeth = AETH(syndrome: .ack, msn: 0)
            })
    }

    @Test("Queue pairs that begin to probe together halve the window of the destination once")
    func together() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, timeout: 18)) { $0.initialPathWindow = 32 }
        let pairs = try (0..<8).map { _ in try another(probe) }
        for pair in pairs { probe.host.post(pair, SendWQE(id: 1, opcode: .send), [probe.sge(8)]) }
        #expect(probe.sent().count == 8)
        probe.advance(RoundTripTime.initialTimeout)
        #expect(probe.sent().count == 8 && probe.host.engine.counters.probes == 8)
        for pair in pairs {
            probe.advance(1000)
            acknowledge(probe, pair, 0)
        }
        #expect(probe.host.poll().count == 8)
        // A request asks for half of the window.
        probe.post(.read, bytes: 64 * 256)
        let lengths = probe.sent().map { Int($0.headers.reth.dmaLength) }
        #expect(lengths[0] == 8 * 256)
    }

    @Test("The second packet of a probe is sent only if the window of the destination has room")
    func secondPacket() throws {
        let probe = try Probe(.rc, Connection(timeout: 18)) { $0.initialPathWindow = 2 }
        let other = try another(probe)
        for id in 0..<2 { probe.post(.send, id: UInt64(id)) }
        #expect(probe.sent().count == 2)
        for id in 2..<4 { probe.host.post(other, SendWQE(id: UInt64(id), opcode: .send), [probe.sge(8)]) }
        #expect(probe.sent().isEmpty)
        probe.advance(RoundTripTime.initialTimeout)
        // The other one has the room.
        let sent = probe.sent()
        #expect(sent.count == 3 && sent.allSatisfy { $0.headers.bth.acknowledgeRequest })
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [0] && probe.sent().isEmpty)
        acknowledge(probe, other, 1)
        #expect(probe.host.poll().map(\.id) == [2, 3] && probe.sentOffsets() == [1])
        probe.acknowledge(1)
        #expect(probe.host.poll().map(\.id) == [1])
    }

    @Test("The retransmission timeout follows the round-trip time: RFC 6298, section 2")
    func estimate() {
        var time = RoundTripTime()
        #expect(time.timeout == RoundTripTime.initialTimeout)
        time.begin(PSN(1), at: 1000)
        time.begin(PSN(9), at: 2000)
        time.end(PSN(0), at: 5_000_000)
        #expect(time.timeout == RoundTripTime.initialTimeout)
        time.end(PSN(1), at: 8_001_000)
        #expect(time.smoothed == 8_000_000 && time.deviation == 4_000_000 && time.timeout == 24_000_000)
        time.begin(PSN(2), at: 10_000_000)
        time.end(PSN(3), at: 26_000_000)
        #expect(time.smoothed == 9_000_000 && time.deviation == 5_000_000)
        time.begin(PSN(4), at: 30_000_000)
        time.discard()
        time.end(PSN(4), at: 99_000_000)
        #expect(time.smoothed == 9_000_000)
        for _ in 0..<1000 {
            time.begin(PSN(5), at: 0)
            time.end(PSN(5), at: 10_000)
        }
        #expect(time.timeout == RoundTripTime.shortestTimeout)
    }
}
