import RoCETransport
import RoCEWire
import TestSupport
import Testing

@Suite("Validation of packets, and turns of queue pairs")
struct PacketTests {
    private func counted(_ change: (Probe) -> Void, type: QueuePairType = .rc, upTo: QueuePairState = .readyToSend)
        throws -> Counters
    {
        let probe = try Probe(type, upTo: upTo)
        probe.postReceive(bytes: 2000)
        change(probe)
        #expect(probe.sent().isEmpty && probe.host.poll().isEmpty && probe.host.events().isEmpty)
        return probe.host.engine.counters
    }

    @Test("Packets with the QPN of no queue pair are dropped")
    func number() throws {
        let counters = try counted { probe in
            probe.receive(.rcSendOnly) { $0.bth.destinationQPN ^= 0x10000 }
            probe.receive(.rcSendOnly) { $0.bth.destinationQPN ^= 1 }
            probe.receive(.rcSendOnly) { $0.bth.destinationQPN = 0 }
        }
        #expect(counters.droppedNoQueuePair == 3)
    }

    @Test("Packets with another source or destination address are dropped")
    func address() throws {
        let counters = try counted { probe in
            let packet = probe.packet(.rcSendOnly)
            probe.receive(packet, from: GID(ipv4: 1))
            probe.receive(packet, to: GID(ipv4: 1))
        }
        #expect(counters.droppedAddress == 2)
    }

    @Test("Packets with a P_Key of another partition are dropped; those of a limited member are not")
    func partition() throws {
        let counters = try counted { probe in probe.receive(.rcSendOnly) { $0.bth.pkey = 0x1234 } }
        #expect(counters.droppedPKey == 1)
        let probe = try Probe()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly) { $0.bth.pkey = 0x7FFF }
        #expect(probe.host.poll().count == 1)
    }

    @Test("Packets for a queue pair before RTR are dropped")
    func state() throws {
        let counters = try counted({ $0.receive(.rcSendOnly) }, upTo: .initialized)
        #expect(counters.droppedState == 1)
        let responses = try counted({ $0.acknowledge(0) }, upTo: .readyToReceive)
        #expect(responses.droppedState == 1)
    }

    @Test("Packets with an opcode of another transport service are dropped")
    func serviceType() throws {
        let counters = try counted { probe in
            probe.receive(.ucSendOnly)
            probe.receive(.udSendOnly)
        }
        #expect(counters.droppedServiceType == 2)
        let unreliable = try counted({ $0.receive(.rcSendOnly) }, type: .uc)
        #expect(unreliable.droppedServiceType == 1)
    }

    @Test("Truncated packets and packets with a wrong BTH.TVer are dropped")
    func malformed() throws {
        let counters = try counted { probe in
            let packet = probe.packet(.rcWriteOnly, payload: [1, 2, 3, 4])
            for count in 0..<packet.count - 4 { probe.receive(Array(packet[..<count])) }
            var version = packet
            version[1] |= 1
            probe.receive(version)
        }
        #expect(counters.droppedMalformed == counters.receivedPackets)
    }

    @Test("CNPs are counted and ignored")
    func congestion() throws {
        let counters = try counted { probe in
            var bytes = [UInt8](repeating: 0, count: 32)
            bytes[0] = 0x81
            probe.receive(bytes)
        }
        #expect(counters.congestionNotifications == 1)
    }

    @Test("BTH.M is ignored, as in rxe")
    func migration() throws {
        let probe = try Probe()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly) { $0.bth.migrated = true }
        #expect(probe.host.poll().count == 1)
    }

    // MARK: - Turns

    @Test("Queue pairs take turns after a burst")
    func turns() throws {
        let host = try Host { $0.burst = 2 }
        let peer = GID(ipv4: 77)
        var pairs: [QueuePair] = []
        let memory = host.take(4096)
        for number in 0..<3 {
            pairs.append(try host.makeQueuePair())
            try host.connect(pairs[number], to: peer, number: UInt32(number), Connection(mtu: 256))
            host.post(pairs[number], SendWQE(id: 0, opcode: .send), [host.sge(memory)])
        }
        var order: [UInt32] = []
        for _ in 0..<12 {
            if let packet = host.engine.transmit(into: host.packet, now: 0) {
                order.append(packet.destinationQPN)
            }
        }
        #expect(order.count == 12)
        for start in stride(from: 0, to: 12, by: 2) { #expect(order[start] == order[start + 1]) }
        #expect(Set(order[0..<6]).count == 3 && Array(order[0..<6]) == Array(order[6..<12]))
    }

    @Test("READ responses and requests alternate")
    func alternation() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.post(.send, bytes: 2000)
        probe.receiveRead(0, length: 2000)
        let opcodes = probe.sent(limit: 8).map(\.opcode.isResponse)
        #expect(opcodes.filter { $0 }.count == 4)
    }

    @Test("Each of 1000 local ACK timeouts expires at its own time")
    func timers() throws {
        // The first packets of all queue pairs have room in the window of the destination.
        let host = try Host(1, memory: 1 << 12) {
            $0.maximumQueuePairs = 1024
            $0.initialPathWindow = 1024
        }
        var expected: [(UInt64, UInt32)] = []
        var random = SplitMix(seed: 5)
        for number in 0..<1000 {
            let pair = try host.makeQueuePair(sends: 1, receives: 1, maxSGE: 1, maxInlineData: 0)
            var connection = Connection()
            connection.retryCount = 0
            connection.timeout = UInt8(random.within(1...20))
            try host.connect(pair, to: GID(ipv4: 5), number: UInt32(number), connection)
            let now = UInt64(random.below(1_000_000))
            host.post(pair, SendWQE(id: UInt64(number), opcode: .send))
            #expect(host.engine.transmit(into: host.packet, now: now) != nil)
            expected.append((now + 4096 << UInt64(connection.timeout), pair.number))
        }
        var now: UInt64 = 0
        while let deadline = host.engine.nextDeadline {
            #expect(deadline >= now)
            now = deadline
            host.engine.advance(to: now)
            for completion in host.poll() {
                let place = expected.firstIndex { $0.1 == completion.queuePairNumber }!
                #expect(expected[place].0 == now && completion.status == .retryExceeded)
                expected.remove(at: place)
            }
        }
        #expect(expected.isEmpty)
    }
}
