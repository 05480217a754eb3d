import RoCETransport
import RoCEWire
import Testing

@Suite("The states of a queue pair")
struct LifeTests {
    static let states: [QueuePairState] = [
        .reset, .initialized, .readyToReceive, .readyToSend, .sendQueueDrained, .sendQueueError, .error,
    ]

    /// Takes a fresh queue pair to a state, by the way that leads there.
    private func bring(_ probe: Probe, to state: QueuePairState) throws {
        switch state {
        case .reset: try probe.host.move(probe.pair, to: .reset)
        case .sendQueueDrained, .error: try probe.host.move(probe.pair, to: state)
        case .sendQueueError:
            // A UD or UC queue pair gets there by a send that fails.
            var element = probe.element(8)
            element.key ^= 1
            probe.host.post(probe.pair, SendWorkRequest(id: 0, opcode: .send), [element])
            _ = probe.sent()
        default: break
        }
        #expect(probe.pair.state == state)
    }

    /// From each state the states that can be gone to with all attributes that RC has.
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

    @Test("Exactly the transitions of the specification are possible", arguments: [QueuePairType.rc, .uc])
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

    @Test("A transition that lacks one required attribute, or has one too many, changes nothing")
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
                    try probe.host.engine.modify(probe.pair, attributes, mask.union(.queueKey))
                }
                #expect(probe.pair.state == from)
                try probe.host.engine.modify(probe.pair, attributes, mask)
            }
        }
    }

    @Test("Values out of range are refused")
    func ranges() throws {
        let wrong: [(AttributeMask, (inout QueuePairAttributes) -> Void)] = [
            (.pathMTU, { $0.pathMTU = 1000 }), (.pathMTU, { $0.pathMTU = 8192 }), (.pathMTU, { $0.pathMTU = 128 }),
            (.minRNRTimer, { $0.minRNRTimer = 32 }), (.maxDestinationReadAtomic, { $0.maxDestinationReadAtomic = 17 }),
            (.destinationQueuePair, { $0.destinationQueuePair = 1 << 24 }),
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
            { $0.timeout = 32 }, { $0.retryCount = 8 }, { $0.rnrRetry = 8 }, { $0.maxReadAtomic = 17 },
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
        attributes.partitionKeyIndex = 1
        #expect(throws: Errno.invalid) { try probe.host.engine.modify(fresh, attributes, Connection.toInit) }
    }

    @Test("cur_qp_state must be the state; an alternate path is not supported")
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
        #expect(throws: Errno.notSupported) {
            try probe.host.engine.modify(probe.pair, attributes, [.state, .alternatePath])
        }
    }

    @Test("The attributes can be asked for, and permissions changed in RTS")
    func query() throws {
        let probe = try Probe()
        var attributes = probe.host.engine.attributes(of: probe.pair)
        #expect(attributes.state == .readyToSend && attributes.pathMTU == 1024)
        #expect(attributes.destinationQueuePair == probe.peerNumber && attributes.sendPSN == probe.connection.psn)
        #expect(attributes.path.destination == probe.peer)
        attributes.access = .remoteRead
        try probe.host.engine.modify(probe.pair, attributes, .access)
        probe.receiveWrite(.rcWriteOnly, length: 4, payload: pattern(4))
        #expect(probe.sent().map(\.syndrome) == [0x61])
    }

    // MARK: - What states do

    @Test("Posting: sends from RTS on, receives from INIT on")
    func postStates() throws {
        let probe = try Probe(upTo: .initialized)
        let fresh = try probe.host.makeQueuePair()
        #expect(fresh.stageReceive(id: 0, elements: nil, count: 0) == .invalid)
        #expect(probe.post(.send) == .invalid)
        #expect(probe.host.postReceive(probe.pair, id: 0) == .success)
        let receiving = try Probe(upTo: .readyToReceive)
        #expect(receiving.post(.send) == .invalid)
        let drained = try Probe()
        try drained.host.move(drained.pair, to: .sendQueueDrained)
        #expect(drained.post(.send) == .success)
        #expect(drained.sent().isEmpty)
    }

    @Test("ERR flushes sends and receives in order; what is posted later is flushed too")
    func flush() throws {
        let probe = try Probe(signalAll: false)
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        for id in 10..<12 { probe.postReceive(id: UInt64(id), bytes: 8) }
        _ = probe.sent(limit: 1)
        try probe.host.move(probe.pair, to: .error)
        var completions = probe.host.poll()
        #expect(completions.map(\.id) == [0, 1, 2, 10, 11])
        #expect(completions.allSatisfy { $0.status == .flushed && $0.queuePair == probe.pair.number })
        #expect(probe.post(.send, id: 5) == .success)
        #expect(probe.sent().isEmpty)
        probe.postReceive(id: 6, bytes: 8)
        #expect(probe.host.engine.doorbellIsRung == true)
        #expect(probe.sent().isEmpty)
        completions = probe.host.poll()
        #expect(completions.map(\.id) == [5, 6] && completions.allSatisfy { $0.status == .flushed })
    }

    @Test("A receive that a message was being put into is flushed first")
    func flushHeld() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        for id in 1...2 { probe.postReceive(id: UInt64(id), bytes: 1000) }
        probe.receive(.rcSendFirst, payload: pattern(256))
        try probe.host.move(probe.pair, to: .error)
        #expect(probe.host.poll().map(\.id) == [1, 2])
    }

    @Test("RESET empties everything: queues, completions, events, timers; the queue pair can be connected again")
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

    @Test("RESET takes only its own entries out of a completion queue")
    func cleaning() throws {
        let probe = try Probe()
        let other = try probe.host.makeQueuePair()
        try probe.host.connect(other, to: probe.peer, number: 1)
        for (id, pair) in [(1, probe.pair), (2, other), (3, probe.pair), (4, other)] {
            probe.host.post(pair, SendWorkRequest(id: UInt64(id), opcode: .send, flags: .signaled))
        }
        try probe.host.move(probe.pair, to: .error)
        try probe.host.move(other, to: .error)
        try probe.host.move(probe.pair, to: .reset)
        #expect(probe.host.poll().map(\.id) == [2, 4])
    }

    @Test("SQD: what was begun is finished, then SQ_DRAINED; what waits goes on in RTS")
    func drain() throws {
        let probe = try Probe(.rc, Connection(mtu: 256)) { $0.burst = 1 }
        probe.post(.send, id: 0, bytes: 600)
        probe.post(.send, id: 1)
        #expect(probe.sent(limit: 1).count == 1)
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.drainedNotification = true
        try probe.host.engine.modify(probe.pair, attributes, [.state, .drainedNotification])
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

    @Test("SQD with nothing under way is drained at once")
    func drainIdle() throws {
        let probe = try Probe()
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.drainedNotification = true
        try probe.host.engine.modify(probe.pair, attributes, [.state, .drainedNotification])
        #expect(probe.host.queuePairEvents() == [.sendQueueDrained])
    }

    @Test("A failed UD send: SQE, later sends flushed, receives go on, and RTS again by modify")
    func sendQueueError() throws {
        let probe = try Probe(.ud)
        var path = Path(source: probe.host.gid, destination: probe.peer)
        var element = probe.element(8)
        element.key ^= 1
        withUnsafePointer(to: &path) { path in
            var request = SendWorkRequest(id: 1, opcode: .send)
            request.path = path
            probe.host.post(probe.pair, request, [element])
            request.id = 2
            probe.host.post(probe.pair, request)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.pair.state == .sendQueueError)
        #expect(probe.host.poll().map(\.status) == [.localProtectionError, .flushed])
        probe.postReceive(id: 3, bytes: 100)
        probe.receive(.udSendOnly, payload: [1]) { $0.deth = DETH(queueKey: 0x1234, sourceQP: 9) }
        #expect(probe.host.poll().map(\.status) == [.success])
        withUnsafePointer(to: &path) { path in
            var request = SendWorkRequest(id: 4, opcode: .send)
            request.path = path
            probe.host.post(probe.pair, request)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.flushed])
        try probe.host.move(probe.pair, to: .readyToSend)
        withUnsafePointer(to: &path) { path in
            var request = SendWorkRequest(id: 5, opcode: .send)
            request.path = path
            probe.host.post(probe.pair, request)
        }
        #expect(probe.sent().count == 1)
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    // MARK: - What is refused

    @Test("A full queue is ENOMEM, and takes exactly as many as it was made for", arguments: [1, 3, 64] as [UInt32])
    func full(size: UInt32) throws {
        let host = try Host()
        let pair = try host.makeQueuePair(sends: size, receives: size)
        try host.connect(pair, to: GID(ipv4: 1), number: 1)
        for _ in 0..<size {
            #expect(host.post(pair, SendWorkRequest(id: 0, opcode: .send)) == .success)
            #expect(host.postReceive(pair, id: 0) == .success)
        }
        #expect(host.post(pair, SendWorkRequest(id: 0, opcode: .send)) == .noMemory)
        #expect(host.postReceive(pair, id: 0) == .noMemory)
    }

    @Test("Too many pieces, too much inline data, unknown flags and opcodes that the type lacks are EINVAL")
    func invalidPosts() throws {
        let probe = try Probe()
        let piece = probe.element(8)
        #expect(
            probe.host.post(probe.pair, SendWorkRequest(id: 0, opcode: .send), [piece, piece, piece, piece, piece])
                == .invalid)
        #expect(probe.host.postReceive(probe.pair, id: 0, [piece, piece, piece, piece, piece]) == .invalid)
        #expect(probe.post(.send, bytes: 65, flags: .inline) == .invalid)
        #expect(probe.post(.send, bytes: 64, flags: .inline) == .success)
        #expect(probe.post(.read, flags: .inline) == .invalid)
        #expect(probe.post(.send, flags: SendFlags(rawValue: 16)) == .invalid)
        for opcode in [7, 8, 9, 10, 15, 1000] as [UInt32] {
            #expect(probe.post(WorkRequestOpcode(rawValue: opcode)) == .invalid)
        }
        let unreliable = try Probe(.uc)
        for opcode in [WorkRequestOpcode.read, .compareSwap, .fetchAdd] { #expect(unreliable.post(opcode) == .invalid) }
        let datagram = try Probe(.ud)
        var path = Path(source: GID(), destination: GID())
        withUnsafePointer(to: &path) { path in
            for opcode in [WorkRequestOpcode.write, .writeWithImmediate, .read, .fetchAdd] {
                #expect(datagram.post(opcode) { $0.path = path } == .invalid)
            }
            #expect(datagram.post(.send) { $0.path = path } == .success)
        }
        #expect(datagram.post(.send) == .invalid)
    }

    @Test("What was staged and discarded never happens")
    func discard() throws {
        let probe = try Probe()
        #expect(probe.pair.stageSend(SendWorkRequest(id: 1, opcode: .send), elements: nil, count: 0) == .success)
        probe.pair.discardSends()
        #expect(!probe.pair.commitSends())
        probe.post(.send, id: 2)
        #expect(probe.sentOffsets() == [0])
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [2])
    }

    @Test("Inline data is what it was when it was posted")
    func inline() throws {
        let probe = try Probe()
        for index in 0..<20 { probe.memory[index] = UInt8(index) }
        probe.post(.send, bytes: 20, flags: .inline)
        probe.memory.initializeMemory(as: UInt8.self, repeating: 9)
        #expect(probe.sent().first?.payload == pattern(20))
    }
}
