import RoCETransport
import RoCEWire
import Testing

@Suite("Queue pair states")
struct LifeTests {
    static let states: [QueuePairState] = [
        .reset, .initialized, .readyToReceive, .readyToSend, .sendQueueDrained, .sendQueueError, .error,
    ]

    /// Moves a new queue pair to a state, through the states before it.
    private func bring(_ probe: Probe, to state: QueuePairState) throws {
        switch state {
        case .reset: try probe.host.move(probe.pair, to: .reset)
        case .sendQueueDrained, .error: try probe.host.move(probe.pair, to: state)
        case .sendQueueError:
            // A failed send moves a UD or UC queue pair to SQE.
            var sge = probe.sge(8)
            sge.lkey ^= 1
            probe.host.post(probe.pair, SendWQE(id: 0, opcode: .send), [sge])
            _ = probe.sent()
        default: break
        }
        #expect(probe.pair.state == state)
    }

    /// The states to which each state has a transition.
    private static func targets(_ state: QueuePairState, _ type: QueuePairType) -> Set<QueuePairState> {
        switch state {
        case .reset: [.reset, .initialized, .error]
        case .initialized: [.reset, .initialized, .readyToReceive, .error]
        case .readyToReceive: [.reset, .readyToSend, .error]
        case .readyToSend: [.reset, .readyToSend, .sendQueueDrained, .error]
        case .sendQueueDrained: [.reset, .readyToSend, .sendQueueDrained, .error]
        case .sendQueueError: [.reset, .readyToSend, .error]
        case .error: [.reset, .error]
        }
    }

    private func required(_ from: QueuePairState, _ to: QueuePairState, _ type: QueuePairType) -> AttributeMask {
        switch (from, to) {
        case (.reset, .initialized): Connection.toInit
        case (.initialized, .readyToReceive): Connection.toReceive(type)
        case (.readyToReceive, .readyToSend): Connection.toSend(type)
        default: .state
        }
    }

    @Test("modify supports exactly the transitions of the specification", arguments: [QueuePairType.rc, .uc])
    func transitions(type: QueuePairType) throws {
        for from in Self.states where from != .sendQueueError || type == .uc {
            for to in Self.states {
                let upTo = min(from.rawValue, QueuePairState.readyToSend.rawValue)
                let probe = try Probe(type, upTo: QueuePairState(rawValue: upTo)!)
                try bring(probe, to: from)
                var attributes = probe.connection.attributes(
                    from: probe.host.gid, to: probe.peer, number: probe.peerNumber)
                attributes.state = to
                let mask = required(from, to, type)
                if Self.targets(from, type).contains(to) {
                    try probe.host.engine.modify(probe.pair, attributes, mask)
                    #expect(probe.pair.state == to, "\(from) -> \(to)")
                } else {
                    #expect(throws: Errno.invalid, "\(from) -> \(to)") {
                        try probe.host.engine.modify(probe.pair, attributes, mask)
                    }
                    #expect(probe.pair.state == from)
                }
            }
        }
    }

    @Test("A transition without a required attribute, or with one that is not allowed, fails and changes nothing")
    func masks() throws {
        for type in [QueuePairType.rc, .uc] {
            for (from, to) in [
                (QueuePairState.reset, QueuePairState.initialized), (.initialized, .readyToReceive),
                (.readyToReceive, .readyToSend),
            ] {
                let probe = try Probe(type, upTo: from == .reset ? .initialized : from)
                if from == .reset { try probe.host.move(probe.pair, to: .reset) }
                var attributes = probe.connection.attributes(
                    from: probe.host.gid, to: probe.peer, number: probe.peerNumber)
                attributes.state = to
                let mask = required(from, to, type)
                for bit in 1..<21 where mask.rawValue & 1 << UInt32(bit) != 0 {
                    #expect(throws: Errno.invalid) {
                        try probe.host.engine.modify(
                            probe.pair, attributes, AttributeMask(rawValue: mask.rawValue & ~(1 << UInt32(bit))))
                    }
                }
                #expect(throws: Errno.invalid) {
                    try probe.host.engine.modify(probe.pair, attributes, mask.union(.qkey))
                }
                #expect(probe.pair.state == from)
                try probe.host.engine.modify(probe.pair, attributes, mask)
            }
        }
    }

    @Test("Attribute values out of range fail with EINVAL")
    func ranges() throws {
        let wrong: [(AttributeMask, (inout QueuePairAttributes) -> Void)] = [
            (.pathMTU, { $0.pathMTU = 1000 }), (.pathMTU, { $0.pathMTU = 8192 }), (.pathMTU, { $0.pathMTU = 128 }),
            (.minRNRTimer, { $0.minRNRTimer = 32 }), (.maxDestinationReadAtomic, { $0.maxDestinationReadAtomic = 129 }),
            (.destinationQPN, { $0.destinationQPN = 1 << 24 }),
        ]
        let probe = try Probe(upTo: .initialized)
        for (_, change) in wrong {
            var attributes = probe.connection.attributes(from: probe.host.gid, to: probe.peer, number: 1)
            attributes.state = .readyToReceive
            change(&attributes)
            #expect(throws: Errno.invalid) {
                try probe.host.engine.modify(probe.pair, attributes, Connection.toReceive(.rc))
            }
        }
        let ready = try Probe(upTo: .readyToReceive)
        let wrongThen: [(inout QueuePairAttributes) -> Void] = [
            { $0.timeout = 32 }, { $0.retryCount = 8 }, { $0.rnrRetry = 8 }, { $0.maxReadAtomic = 129 },
        ]
        for change in wrongThen {
            var attributes = ready.connection.attributes(from: ready.host.gid, to: ready.peer, number: 1)
            attributes.state = .readyToSend
            change(&attributes)
            #expect(throws: Errno.invalid) {
                try ready.host.engine.modify(ready.pair, attributes, Connection.toSend(.rc))
            }
        }
        var attributes = QueuePairAttributes()
        attributes.state = .initialized
        attributes.port = 2
        let fresh = try probe.host.makeQueuePair()
        #expect(throws: Errno.invalid) { try probe.host.engine.modify(fresh, attributes, Connection.toInit) }
        attributes.port = 1
        attributes.pkeyIndex = 1
        #expect(throws: Errno.invalid) { try probe.host.engine.modify(fresh, attributes, Connection.toInit) }
    }

    @Test("A wrong cur_qp_state fails with EINVAL, as do an alternate port, P_Key index or timeout out of range")
    func currentState() throws {
        let probe = try Probe()
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.currentState = .initialized
        #expect(throws: Errno.invalid) {
            try probe.host.engine.modify(probe.pair, attributes, [.state, .currentState])
        }
        attributes.currentState = .readyToSend
        try probe.host.engine.modify(probe.pair, attributes, [.state, .currentState])
        attributes.state = .readyToSend
        for change in [
            { $0.alternatePort = 2 }, { $0.alternatePKeyIndex = 1 }, { $0.alternateTimeout = 32 },
        ] as [(inout QueuePairAttributes) -> Void] {
            var wrong = attributes
            wrong.alternatePort = 1
            change(&wrong)
            #expect(throws: Errno.invalid) {
                try probe.host.engine.modify(probe.pair, wrong, [.state, .alternatePath])
            }
        }
    }

    @Test("attributes(of:) returns the attributes, and qp_access_flags can change in RTS")
    func query() throws {
        let probe = try Probe()
        var attributes = probe.host.engine.attributes(of: probe.pair)
        #expect(attributes.state == .readyToSend && attributes.pathMTU == 1024)
        #expect(attributes.destinationQPN == probe.peerNumber && attributes.sqPSN == probe.connection.psn)
        #expect(attributes.path.destination == probe.peer)
        attributes.access = .remoteRead
        try probe.host.engine.modify(probe.pair, attributes, .access)
        probe.receiveWrite(.rcWriteOnly, length: 4, payload: pattern(4))
        #expect(probe.sent().map(\.syndrome) == [0x61])
    }

    // MARK: - Behavior of the states

    @Test("Sends can be posted from RTS on, receives from INIT on")
    func postStates() throws {
        let probe = try Probe(upTo: .initialized)
        let fresh = try probe.host.makeQueuePair()
        #expect(fresh.stageReceive(id: 0, sgList: nil, count: 0) == .invalid)
        #expect(probe.post(.send) == .invalid)
        #expect(probe.host.postReceive(probe.pair, id: 0) == .success)
        let receiving = try Probe(upTo: .readyToReceive)
        #expect(receiving.post(.send) == .invalid)
        let drained = try Probe()
        try drained.host.move(drained.pair, to: .sendQueueDrained)
        #expect(drained.post(.send) == .success)
        #expect(drained.sent().isEmpty)
    }

    @Test("ERR flushes sends and receives in order, also those posted later")
    func flush() throws {
        let probe = try Probe(sqSigAll: false)
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        for id in 10..<12 { probe.postReceive(id: UInt64(id), bytes: 8) }
        _ = probe.sent(limit: 1)
        try probe.host.move(probe.pair, to: .error)
        var completions = probe.host.poll()
        #expect(completions.map(\.id) == [0, 1, 2, 10, 11])
        #expect(completions.allSatisfy { $0.status == .flushed && $0.queuePairNumber == probe.pair.number })
        #expect(probe.post(.send, id: 5) == .success)
        #expect(probe.sent().isEmpty)
        probe.postReceive(id: 6, bytes: 8)
        #expect(probe.host.engine.doorbellIsRung == true)
        #expect(probe.sent().isEmpty)
        completions = probe.host.poll()
        #expect(completions.map(\.id) == [5, 6] && completions.allSatisfy { $0.status == .flushed })
    }

    @Test("The receive work request of an incomplete message is flushed first")
    func flushHeld() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        for id in 1...2 { probe.postReceive(id: UInt64(id), bytes: 1000) }
        probe.receive(.rcSendFirst, payload: pattern(256))
        try probe.host.move(probe.pair, to: .error)
        #expect(probe.host.poll().map(\.id) == [1, 2])
    }

    @Test("RESET removes work requests, CQEs, events and timers, and the queue pair can be connected again")
    func reset() throws {
        let probe = try Probe()
        probe.post(.send, id: 1)
        _ = probe.sent()
        probe.postReceive(id: 2, bytes: 8)
        probe.receive(.rcSendOnly, payload: [1])
        try probe.host.move(probe.pair, to: .reset)
        #expect(probe.host.poll().isEmpty && probe.host.events().isEmpty && probe.sent().isEmpty)
        probe.advance(1_000_000_000)
        #expect(probe.host.engine.nextDeadline == nil)
        try probe.host.connect(probe.pair, to: probe.peer, number: probe.peerNumber, probe.connection)
        probe.post(.send, id: 3)
        #expect(probe.sentOffsets() == [0])
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [3])
    }

    @Test("RESET removes only the CQEs of its queue pair")
    func cleaning() throws {
        let probe = try Probe()
        let other = try probe.host.makeQueuePair()
        try probe.host.connect(other, to: probe.peer, number: 1)
        for (id, pair) in [(1, probe.pair), (2, other), (3, probe.pair), (4, other)] {
            probe.host.post(pair, SendWQE(id: UInt64(id), opcode: .send, flags: .signaled))
        }
        try probe.host.move(probe.pair, to: .error)
        try probe.host.move(other, to: .error)
        try probe.host.move(probe.pair, to: .reset)
        #expect(probe.host.poll().map(\.id) == [2, 4])
    }

    @Test("SQD completes begun work requests and reports SQ_DRAINED; the others continue in RTS")
    func drain() throws {
        let probe = try Probe(.rc, Connection(mtu: 256)) { $0.burst = 1 }
        probe.post(.send, id: 0, bytes: 600)
        probe.post(.send, id: 1)
        #expect(probe.sent(limit: 1).count == 1)
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.sqdAsyncNotify = true
        try probe.host.engine.modify(probe.pair, attributes, [.state, .sqdAsyncNotify])
        #expect(probe.sentOffsets() == [1, 2])
        #expect(probe.host.queuePairEvents().isEmpty)
        probe.advance(4096 << 10)
        #expect(probe.sentOffsets() == [0, 1, 2])
        probe.acknowledge(2)
        #expect(probe.host.queuePairEvents() == [.sendQueueDrained])
        #expect(probe.host.poll().map(\.id) == [0] && probe.sent().isEmpty)
        attributes.state = .readyToSend
        try probe.host.engine.modify(probe.pair, attributes, .state)
        #expect(probe.sentOffsets() == [3])
    }

    @Test("SQD without outstanding work requests reports SQ_DRAINED at once")
    func drainIdle() throws {
        let probe = try Probe()
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.sqdAsyncNotify = true
        try probe.host.engine.modify(probe.pair, attributes, [.state, .sqdAsyncNotify])
        #expect(probe.host.queuePairEvents() == [.sendQueueDrained])
    }

    @Test("A failed UD send moves to SQE, flushes later sends, and receives continue; modify moves back to RTS")
    func sendQueueError() throws {
        let probe = try Probe(.ud)
        var path = Path(source: probe.host.gid, destination: probe.peer)
        var sge = probe.sge(8)
        sge.lkey ^= 1
        withUnsafePointer(to: &path) { path in
            var request = SendWQE(id: 1, opcode: .send)
            probe.host.post(probe.pair, request, [sge], path: path)
            request.id = 2
            probe.host.post(probe.pair, request, path: path)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.pair.state == .sendQueueError)
        #expect(probe.host.poll().map(\.status) == [.localProtectionError, .flushed])
        probe.postReceive(id: 3, bytes: 100)
        probe.receive(.udSendOnly, payload: [1]) { $0.deth = DETH(qkey: 0x1234, sourceQPN: 9) }
        #expect(probe.host.poll().map(\.status) == [.success])
        withUnsafePointer(to: &path) { path in
            #expect(probe.host.post(probe.pair, SendWQE(id: 4, opcode: .send), path: path) == .success)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.flushed])
        try probe.host.move(probe.pair, to: .readyToSend)
        withUnsafePointer(to: &path) { path in
            #expect(probe.host.post(probe.pair, SendWQE(id: 5, opcode: .send), path: path) == .success)
        }
        #expect(probe.sent().count == 1)
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    // MARK: - Posts that fail

    @Test("A queue holds exactly max_wr work requests; one more fails with ENOMEM", arguments: [1, 3, 64] as [UInt32])
    func full(size: UInt32) throws {
        let host = try Host()
        let pair = try host.makeQueuePair(sends: size, receives: size)
        try host.connect(pair, to: GID(ipv4: 1), number: 1)
        for _ in 0..<size {
            #expect(host.post(pair, SendWQE(id: 0, opcode: .send)) == .success)
            #expect(host.postReceive(pair, id: 0) == .success)
        }
        #expect(host.post(pair, SendWQE(id: 0, opcode: .send)) == .noMemory)
        #expect(host.postReceive(pair, id: 0) == .noMemory)
    }

    @Test("Too many SGEs, too much inline data, and unsupported flags and opcodes fail with EINVAL")
    func invalidPosts() throws {
        let probe = try Probe()
        let sge = probe.sge(8)
        #expect(
            probe.host.post(probe.pair, SendWQE(id: 0, opcode: .send), [sge, sge, sge, sge, sge])
                == .invalid)
        #expect(probe.host.postReceive(probe.pair, id: 0, [sge, sge, sge, sge, sge]) == .invalid)
        #expect(probe.post(.send, bytes: 65, flags: .inline) == .invalid)
        #expect(probe.post(.send, bytes: 64, flags: .inline) == .success)
        #expect(probe.post(.read, flags: .inline) == .invalid)
        #expect(probe.post(.send, flags: SendFlags(rawValue: 16)) == .invalid)
        for opcode in [10, 16, 1000] as [UInt32] {
            #expect(probe.post(WorkRequestOpcode(rawValue: opcode)) == .invalid)
        }
        let unreliable = try Probe(.uc)
        for opcode in [WorkRequestOpcode.read, .compareAndSwap, .fetchAndAdd, .sendWithInvalidate, .atomicWrite] {
            #expect(unreliable.post(opcode) == .invalid)
        }
        let datagram = try Probe(.ud)
        var path = Path(source: GID(), destination: GID())
        withUnsafePointer(to: &path) { path in
            for opcode in [WorkRequestOpcode.write, .writeWithImmediate, .read, .fetchAndAdd] {
                #expect(datagram.post(opcode, path: path) == .invalid)
            }
            #expect(datagram.post(.send, path: path) == .success)
        }
        #expect(datagram.post(.send) == .invalid)
    }

    @Test("A WQE that is discarded after staging is not executed")
    func discard() throws {
        let probe = try Probe()
        #expect(probe.pair.stageSend(SendWQE(id: 1, opcode: .send), sgList: nil, count: 0) == .success)
        probe.pair.discardSends()
        #expect(!probe.pair.commitSends())
        probe.post(.send, id: 2)
        #expect(probe.sentOffsets() == [0])
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [2])
    }

    @Test("Inline data is copied when it is posted")
    func inline() throws {
        let probe = try Probe()
        for index in 0..<20 { probe.memory[index] = UInt8(index) }
        probe.post(.send, bytes: 20, flags: .inline)
        probe.memory.initializeMemory(as: UInt8.self, repeating: 9)
        #expect(probe.sent().first?.payload == pattern(20))
    }
}
