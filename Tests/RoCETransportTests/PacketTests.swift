import RoCETransport
import RoCEWire
import TestSupport
import Testing

@Suite("Which packets are taken, and which are dropped and counted")
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

    @Test("Another queue pair's number")
    func number() throws {
        let counters = try counted { probe in
            probe.receive(.rcSendOnly) { $0.bth.destinationQP ^= 0x10000 }
            probe.receive(.rcSendOnly) { $0.bth.destinationQP ^= 1 }
            probe.receive(.rcSendOnly) { $0.bth.destinationQP = 0 }
        }
        #expect(counters.droppedNoQueuePair == 3)
    }

    @Test("Another source or destination address")
    func address() throws {
        let counters = try counted { probe in
            let packet = probe.packet(.rcSendOnly)
            probe.receive(packet, from: GID(ipv4: 1))
            probe.receive(packet, to: GID(ipv4: 1))
        }
        #expect(counters.droppedAddress == 2)
    }

    @Test("Another partition is dropped, a limited member of ours is not")
    func partition() throws {
        let counters = try counted { probe in probe.receive(.rcSendOnly) { $0.bth.partitionKey = 0x1234 } }
        #expect(counters.droppedPartitionKey == 1)
        let probe = try Probe()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly) { $0.bth.partitionKey = 0x7FFF }
        #expect(probe.host.poll().count == 1)
    }

    @Test("A queue pair that is not in RTR yet")
    func state() throws {
        let counters = try counted({ $0.receive(.rcSendOnly) }, upTo: .initialized)
        #expect(counters.droppedState == 1)
        let responses = try counted({ $0.acknowledge(0) }, upTo: .readyToReceive)
        #expect(responses.droppedState == 1)
    }

    @Test("Opcodes of another service type")
    func serviceType() throws {
        let counters = try counted { probe in
            probe.receive(.ucSendOnly)
            probe.receive(.udSendOnly)
        }
        #expect(counters.droppedServiceType == 2)
        let unreliable = try counted({ $0.receive(.rcSendOnly) }, type: .uc)
        #expect(unreliable.droppedServiceType == 1)
    }

    @Test("Bytes that are no packet: every length from nothing to one byte too few, and a wrong version")
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

    @Test("Congestion notifications are counted and ignored")
    func congestion() throws {
        let counters = try counted { probe in
            var bytes = [UInt8](repeating: 0, count: 32)
            bytes[0] = 0x81
            probe.receive(bytes)
        }
        #expect(counters.congestionNotifications == 1)
    }

    @Test("The migration bit is not looked at, as rxe does not either")
    func migration() throws {
        let probe = try Probe()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly) { $0.bth.migrated = true }
        #expect(probe.host.poll().count == 1)
    }

    // MARK: - Turns

    @Test("Acknowledgements go first; queue pairs take turns after a burst")
    func turns() throws {
        let host = try Host { $0.burst = 2 }
        let peer = GID(ipv4: 77)
        var pairs: [QueuePair] = []
        let memory = host.take(4096)
        for number in 0..<3 {
            pairs.append(try host.makeQueuePair())
            try host.connect(pairs[number], to: peer, number: UInt32(number), Connection(mtu: 256))
            host.post(pairs[number], SendWorkRequest(id: 0, opcode: .send), [host.element(memory)])
        }
        var order: [UInt32] = []
        for _ in 0..<12 {
            if let packet = host.engine.transmit(into: host.packet, now: 0) {
                order.append(packet.destinationQueuePair)
            }
        }
        #expect(order.count == 12)
        for start in stride(from: 0, to: 12, by: 2) { #expect(order[start] == order[start + 1]) }
        #expect(Set(order[0..<6]).count == 3 && Array(order[0..<6]) == Array(order[6..<12]))
    }

    @Test("READ responses and requests alternate, so that neither starves the other")
    func alternation() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.post(.send, bytes: 2000)
        probe.receiveRead(0, length: 2000)
        let opcodes = probe.sent(limit: 8).map(\.opcode.isResponse)
        #expect(opcodes.filter { $0 }.count == 4)
    }

    @Test("Thousands of timers: each runs out at its own time")
    func timers() throws {
        let host = try Host(1, memory: 1 << 12) { $0.maximumQueuePairs = 1024 }
        var expected: [(UInt64, UInt32)] = []
        var random = SplitMix(seed: 5)
        for number in 0..<1000 {
            let pair = try host.makeQueuePair(sends: 1, receives: 1, elements: 1, inlineData: 0)
            var connection = Connection()
            connection.retryCount = 0
            connection.timeout = UInt8(random.within(1...20))
            try host.connect(pair, to: GID(ipv4: 5), number: UInt32(number), connection)
            let now = UInt64(random.below(1_000_000))
            host.post(pair, SendWorkRequest(id: UInt64(number), opcode: .send))
            #expect(host.engine.transmit(into: host.packet, now: now) != nil)
            expected.append((now + 4096 << UInt64(connection.timeout), pair.number))
        }
        var now: UInt64 = 0
        while let deadline = host.engine.nextDeadline {
            #expect(deadline >= now)
            now = deadline
            host.engine.advance(to: now)
            for completion in host.poll() {
                let place = expected.firstIndex { $0.1 == completion.queuePair }!
                #expect(expected[place].0 == now && completion.status == .retryExceeded)
                expected.remove(at: place)
            }
        }
        #expect(expected.isEmpty)
    }
}
