import RoCETransport
import RoCEWire
import Testing

@Suite("Path migration")
struct PathMigrationTests {
    private let otherPeer = GID(ipv4: 0x0A01_00FE)
    private let otherSelf = GID(ipv4: 0x0A01_0001)

    /// A queue pair in REARM with an alternate path.
    private func rearmed() throws -> Probe {
        let probe = try Probe()
        try load(probe, .rearm)
        return probe
    }

    private func load(_ probe: Probe, _ state: PathMigrationState) throws {
        var attributes = QueuePairAttributes()
        attributes.alternatePath = Path(source: otherSelf, destination: otherPeer)
        attributes.alternatePort = 1
        attributes.alternateTimeout = 12
        attributes.migration = state
        try probe.host.engine.modify(probe.pair, attributes, [.alternatePath, .pathMigration])
    }

    private func state(_ probe: Probe) -> PathMigrationState { probe.host.engine.attributes(of: probe.pair).migration }

    /// A packet of a peer that is not MIGRATED leads to ARMED.
    private func arm(_ probe: Probe, at offset: Int = 0) {
        probe.receiveWrite(.rcWriteOnly, offset, length: 0, payload: [])
        #expect(state(probe) == .armed)
        _ = probe.sent()
    }

    @Test("BTH.M is set in MIGRATED, and clear in REARM and ARMED, in requests and responses")
    func migrationBit() throws {
        let probe = try Probe()
        probe.post(.send)
        #expect(probe.sent().map(\.headers.bth.migrated) == [true])
        try load(probe, .rearm)
        probe.post(.send)
        probe.receive(.rcWriteOnly) { $0.bth.migrated = true }
        #expect(state(probe) == .rearm)
        #expect(probe.sent().map(\.headers.bth.migrated) == [false, false])
        arm(probe, at: 1)
        probe.receiveRead(2, length: 8)
        #expect(probe.sent().map(\.headers.bth.migrated) == [false])
    }

    @Test("When the retries are over, an armed queue pair sends again on the alternate path, and completes there")
    func retriesEnd() throws {
        let probe = try rearmed()
        arm(probe)
        probe.post(.send, id: 7)
        _ = probe.sent()
        for _ in 0..<3 {
            probe.advance(4096 << 10)
            #expect(probe.sent().map(\.path.destination) == [probe.peer])
        }
        #expect(probe.host.queuePairEvents() == [])
        probe.advance(4096 << 10)
        #expect(probe.host.queuePairEvents() == [.pathMigrated])
        let sent = probe.sent()
        #expect(sent.map(\.path.destination) == [otherPeer] && sent.map(\.path.source) == [otherSelf])
        #expect(sent.map(\.headers.bth.migrated) == [true])
        let attributes = probe.host.engine.attributes(of: probe.pair)
        #expect(attributes.timeout == 12 && attributes.migration == .migrated && attributes.alternatePath == nil)
        // The old path is not valid any more.
        probe.acknowledge(0)
        #expect(probe.host.poll().isEmpty)
        probe.receive(
            probe.packet(.rcAcknowledge) { $0.aeth = AETH(syndrome: .ack, msn: 0) }, from: otherPeer, to: otherSelf)
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [7] && completions.map(\.status) == [.success])
    }

    @Test("In REARM, and after a migration, the end of the retries is IBV_WC_RETRY_EXC_ERR", arguments: [false, true])
    func notArmed(migrates: Bool) throws {
        let probe = try rearmed()
        if migrates { arm(probe) }
        probe.post(.send)
        _ = probe.sent()
        for _ in 0..<20 {
            probe.advance(4096 << 13)
            _ = probe.sent()
        }
        #expect(probe.host.poll().map(\.status) == [.retryExceeded])
        #expect(probe.host.queuePairEvents() == (migrates ? [.pathMigrated] : []))
    }

    @Test("A queue pair follows its peer to the alternate path, and to no other")
    func follows() throws {
        let probe = try rearmed()
        arm(probe)
        let packet = probe.packet(.rcWriteOnly, 1) { $0.bth.migrated = true }
        probe.receive(packet, from: GID(ipv4: 99), to: otherSelf)
        #expect(probe.host.queuePairEvents() == [.pathMigrationError])
        #expect(state(probe) == .armed)
        // From the alternate path without BTH.M: the peer has not migrated.
        probe.receive(probe.packet(.rcWriteOnly, 1), from: otherPeer, to: otherSelf)
        #expect(state(probe) == .armed && probe.host.queuePairEvents() == [])
        #expect(probe.host.engine.counters.droppedAddress == 2)
        probe.receive(packet, from: otherPeer, to: otherSelf)
        #expect(probe.host.queuePairEvents() == [.pathMigrated])
        #expect(probe.sent().map(\.path.destination) == [otherPeer])
    }

    @Test("Messages in both directions survive a cut of the path, each received once and in order")
    func cut() throws {
        for seed in 1...30 as ClosedRange<UInt64> {
            let hosts = [try Host(1, seed: seed), try Host(2, seed: seed)]
            let pairs = [try hosts[0].makeQueuePair(sqSigAll: true), try hosts[1].makeQueuePair(sqSigAll: true)]
            let memory = [hosts[0].take(8192), hosts[1].take(8192)]
            let connection = Connection(mtu: 256, retryCount: 7)
            try hosts[0].connect(pairs[0], to: hosts[1].gid, number: pairs[1].number, connection)
            try hosts[1].connect(pairs[1], to: hosts[0].gid, number: pairs[0].number, connection.reversed)
            for side in 0...1 {
                var attributes = QueuePairAttributes()
                attributes.alternatePath = Path(
                    source: hosts[side].gid, destination: hosts[1 - side].gid, flowLabel: 1)
                attributes.alternatePort = 1
                attributes.alternateTimeout = 10
                attributes.migration = .rearm
                try hosts[side].engine.modify(pairs[side], attributes, [.alternatePath, .pathMigration])
            }
            let network = Network(
                hosts, seed: seed, profile: NetworkProfile(loss: Int(seed % 3), delay: 1_000...20_000))
            var isCut = false
            network.inspect = { _, packet in !(isCut && packet.path.flowLabel == 0) }
            let messages: UInt64 = 30
            for side in 0...1 {
                for id in 0..<messages {
                    hosts[side].postReceive(pairs[side], id: id, [hosts[side].sge(memory[side])])
                    let length = Int(id * 37 % 1500)
                    let source = UnsafeMutableRawBufferPointer(rebasing: memory[side][..<length])
                    hosts[side].post(pairs[side], SendWQE(id: 100 + id, opcode: .send), [hosts[side].sge(source)])
                }
            }
            network.schedule(after: Int(seed) * 6_000) { isCut = true }
            network.run()
            for side in 0...1 {
                let completions = hosts[side].poll()
                #expect(completions.allSatisfy { $0.status == .success }, "seed \(seed)")
                #expect(completions.filter { $0.opcode == .receive }.map(\.id) == Array(0..<messages), "seed \(seed)")
                #expect(completions.filter { $0.opcode == .send }.count == Int(messages), "seed \(seed)")
            }
        }
    }

    @Test("modify to MIGRATED migrates an armed queue pair, and ends REARM; ARMED and REARM without a path are EINVAL")
    func byModify() throws {
        let probe = try Probe()
        var attributes = QueuePairAttributes()
        attributes.migration = .rearm
        #expect(throws: Errno.invalid) { try probe.host.engine.modify(probe.pair, attributes, .pathMigration) }
        #expect(throws: Errno.invalid) { try load(probe, .armed) }
        try load(probe, .rearm)
        attributes.migration = .migrated
        try probe.host.engine.modify(probe.pair, attributes, .pathMigration)
        #expect(state(probe) == .migrated && probe.host.queuePairEvents() == [])
        try load(probe, .rearm)
        arm(probe)
        try probe.host.engine.modify(probe.pair, attributes, .pathMigration)
        #expect(probe.host.queuePairEvents() == [.pathMigrated])
        #expect(probe.host.engine.attributes(of: probe.pair).path.destination == otherPeer)
    }
}
