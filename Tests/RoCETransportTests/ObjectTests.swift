import RoCETransport
import RoCEWire
import Testing

@Suite("Memory regions, completion queues, shared receive queues and QPNs")
struct ObjectTests {
    // MARK: - Memory

    @Test("Keys are not 0, differ, are not used again at once, and are equal for equal seeds")
    func keys() throws {
        func make(_ seed: UInt64) throws -> [UInt32] {
            let host = try Host(1, seed: seed)
            var keys: [UInt32] = []
            for round in 0..<300 {
                let key = try host.engine.registerMemory(
                    host.domain, address: host.memory.baseAddress, length: 8, virtualAddress: 0, access: [])
                keys.append(key)
                if round % 3 != 0 { try host.engine.deregisterMemory(key) }
            }
            return keys
        }
        let keys = try make(1)
        #expect(Set(keys).count == 300 && !keys.contains(0))
        #expect(try make(1) == keys)
        #expect(try make(2) != keys)
    }

    @Test("Registration fails with EINVAL for invalid domain, range or access flags")
    func registration() throws {
        let host = try Host()
        func register(
            _ domain: ProtectionDomain? = nil, _ address: UnsafeMutableRawPointer?, _ length: UInt64,
            _ virtualAddress: UInt64 = 0, _ access: AccessFlags = []
        ) throws(Errno) -> UInt32 {
            try host.engine.registerMemory(
                domain ?? host.domain, address: address, length: length, virtualAddress: virtualAddress, access: access)
        }
        let base = host.memory.baseAddress
        #expect(throws: Errno.invalid) { try register(ProtectionDomain(rawValue: 77), base, 8) }
        #expect(throws: Errno.invalid) { try register(nil, nil, 8) }
        #expect(throws: Errno.invalid) { try register(nil, base, 8, .max - 3) }
        #expect(throws: Errno.invalid) { try register(nil, base, .max) }
        #expect(throws: Errno.invalid) { try register(nil, base, 8, 0, .remoteWrite) }
        #expect(throws: Errno.invalid) { try register(nil, base, 8, 0, .remoteAtomic) }
        _ = try register(nil, nil, 0)
        let key = try register(nil, base, 8)
        try host.engine.deregisterMemory(key)
        #expect(throws: Errno.invalid) { try host.engine.deregisterMemory(key) }
        #expect(throws: Errno.invalid) { try host.engine.deregisterMemory(0) }
    }

    @Test("A registration that replaces another one has its key or a new one, and its domain is then free")
    func replacement() throws {
        let host = try Host(memory: 64)
        let other = try host.engine.allocateProtectionDomain()
        func register(
            _ domain: ProtectionDomain, _ access: AccessFlags, _ registration: Registration
        ) throws(Errno) -> UInt32 {
            try host.engine.registerMemory(
                domain, address: host.memory.baseAddress, length: 64, virtualAddress: 0, access: access, registration)
        }
        let key = try register(other, [], .new)
        #expect(throws: Errno.busy) { try host.engine.deallocate(other) }
        // A refused one changes nothing.
        #expect(throws: Errno.invalid) { try register(host.domain, [.remoteWrite], .keeping(key)) }
        #expect(throws: Errno.invalid) { try register(host.domain, [], .keeping(key ^ 1)) }
        #expect(throws: Errno.busy) { try host.engine.deallocate(other) }
        #expect(try register(host.domain, [.localWrite], .keeping(key)) == key)
        try host.engine.deallocate(other)
        let new = try register(host.domain, [.localWrite], .replacing(key))
        #expect(new != key && new >> 16 == key >> 16)
        #expect(throws: Errno.invalid) { try host.engine.deregisterMemory(key) }
        try host.engine.deregisterMemory(new)
        #expect(throws: Errno.invalid) { try register(host.domain, [], .keeping(new)) }
    }

    @Test("An engine has 65,535 memory regions at most")
    func allKeys() throws {
        let host = try Host()
        var count = 1
        while (try? host.engine.registerMemory(
            host.domain, address: host.memory.baseAddress, length: 8, virtualAddress: 0, access: [])) != nil
        { count += 1 }
        #expect(count == Int(Limits.maxMR))
    }

    @Test("Deallocating a protection domain with a memory region fails with EBUSY")
    func domains() throws {
        let host = try Host()
        let domain = try host.engine.allocateProtectionDomain()
        let key = try host.engine.registerMemory(domain, address: nil, length: 0, virtualAddress: 0, access: [])
        #expect(throws: Errno.busy) { try host.engine.deallocate(domain) }
        try host.engine.deregisterMemory(key)
        try host.engine.deallocate(domain)
        #expect(throws: Errno.invalid) { try host.engine.deallocate(domain) }
        #expect(try host.engine.allocateProtectionDomain() == domain)
    }

    @Test("A READ of one byte outside a memory region is a remote access error")
    func bounds() throws {
        let probe = try Probe()
        let key = try probe.host.engine.registerMemory(
            probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: 0x1000,
            access: Host.everything)
        probe.receiveRead(0, at: 0x1000, key: key, length: 64)
        probe.receiveRead(1, at: 0x103F, key: key, length: 1)
        #expect(probe.sent().map(\.opcode) == [.rcReadResponseOnly, .rcReadResponseOnly])
        for (address, length) in [(0x1000, 65), (0x0FFF, 1), (0x1040, 1), (0x103F, 2)] {
            let other = try Probe()
            let key = try other.host.engine.registerMemory(
                other.host.domain, address: other.memory.baseAddress, length: 64, virtualAddress: 0x1000,
                access: Host.everything)
            other.receiveRead(0, at: UInt64(address), key: key, length: length)
            #expect(other.sent().map(\.syndrome) == [0x62])
        }
    }

    // MARK: - Completion queues

    @Test("An overrun reports CQ_ERR once and QP_FATAL, moves the queue pair to ERR, and keeps the CQEs")
    func overrun() throws {
        let probe = try Probe(completions: 2)
        for id in 0..<4 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(3)
        #expect(probe.host.completions.hasOverrun && probe.pair.state == .error)
        var queueEvents: [AsyncEventType] = []
        var pairEvents: [AsyncEventType] = []
        for event in probe.host.events() {
            switch event {
            case .completionQueue(_, let type): queueEvents.append(type)
            case .queuePair(_, let type): pairEvents.append(type)
            default: break
            }
        }
        #expect(queueEvents == [.completionQueueError] && pairEvents == [.queuePairFatal])
        #expect(probe.host.poll().map(\.id) == [0, 1])
        probe.post(.send, id: 9)
        #expect(probe.sent().isEmpty && probe.host.poll().isEmpty)
    }

    @Test("Each arming causes one event: at the next CQE, or at the next solicited CQE or error")
    func arming() throws {
        let probe = try Probe()
        for id in 0..<4 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(0)
        #expect(probe.host.events().isEmpty)
        probe.host.completions.arm(solicitedOnly: false)
        probe.host.completions.arm(solicitedOnly: true)
        probe.acknowledge(2)
        #expect(probe.host.events().count == 1)
        probe.host.completions.arm(solicitedOnly: true)
        probe.acknowledge(3, .nak(.remoteAccessError))
        let events = probe.host.events()
        #expect(events.count == 1)
        if case .completion(let queue) = events.first {
            #expect(queue == probe.host.completions)
        } else {
            Issue.record("no completion event")
        }
    }

    @Test("Arming a completion queue without a channel has no effect", arguments: [false, true])
    func armingWithoutEvents(hasEvents: Bool) throws {
        let host = try Host(1)
        let queue = try host.engine.createCompletionQueue(capacity: 4, hasEvents: hasEvents)
        let pair = try host.engine.createQueuePair(
            QueuePairInitAttributes(
                type: .rc, domain: host.domain, completions: queue,
                capabilities: QueuePairCapabilities(
                    maxSendWR: 1, maxReceiveWR: 1, maxSendSGE: 1, maxReceiveSGE: 1, maxInlineData: 0)))
        var attributes = QueuePairAttributes()
        attributes.state = .initialized
        attributes.port = 1
        try host.engine.modify(pair, attributes, Connection.toInit)
        #expect(pair.stageReceive(id: 1, sgList: nil, count: 0) == .success)
        pair.commitReceives()
        queue.arm(solicitedOnly: false)
        attributes.state = .error
        try host.engine.modify(pair, attributes, .state)
        #expect(host.events().count == (hasEvents ? 1 : 0))
        var completion = WorkCompletion()
        #expect(queue.poll(into: &completion, count: 1) == 1 && completion.status == .flushed)
        host.engine.destroy(pair)
        try host.engine.destroy(queue)
    }

    @Test("A moderated queue raises its event at the given CQE, or when the period after the first one has passed")
    func moderation() throws {
        let probe = try Probe()
        let queue = probe.host.completions
        probe.host.engine.moderate(queue, count: 3, period: 1000)
        for id in 0..<8 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        // The queue pairs' own timers are stopped by the acknowledgements, so the deadline is that of the moderation.
        queue.arm(solicitedOnly: false)
        probe.acknowledge(1)
        #expect(probe.host.events().isEmpty)
        probe.acknowledge(2)
        #expect(probe.host.events().count == 1)
        // Not armed: no event, and none is counted.
        probe.acknowledge(3)
        queue.arm(solicitedOnly: false)
        probe.acknowledge(4)
        #expect(probe.host.events().isEmpty)
        let start = probe.now
        probe.host.engine.advance(to: start + 999)
        #expect(probe.host.events().isEmpty)
        probe.host.engine.advance(to: start + 1000)
        #expect(probe.host.events().count == 1)
        // The end of the moderation raises the event that waits.
        queue.arm(solicitedOnly: false)
        probe.acknowledge(5)
        #expect(probe.host.events().isEmpty)
        probe.host.engine.moderate(queue, count: 0, period: 0)
        #expect(probe.host.events().count == 1)
    }

    @Test("The period of a moderated queue begins at the time at which the caller last had nothing to send")
    func moderationOfIdleEngine() throws {
        let host = try Host()
        let pair = try host.makeQueuePair(.ud)
        try host.activate(pair, qkey: 1)
        host.engine.moderate(host.completions, count: 3, period: 1000)
        host.completions.arm(solicitedOnly: false)
        host.postReceive(pair, id: 1)
        let mayTransmit = host.engine.mayTransmit(now: 5_000_000)
        #expect(!mayTransmit)
        try host.move(pair, to: .error)
        #expect(host.engine.nextDeadline == 5_001_000)
    }

    @Test("A resized completion queue keeps its CQEs in order; a capacity below their number fails with EINVAL")
    func resize() throws {
        let probe = try Probe(completions: 4)
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(2)
        #expect(throws: Errno.invalid) { try probe.host.engine.resize(probe.host.completions, capacity: 2) }
        try probe.host.engine.resize(probe.host.completions, capacity: 100)
        #expect(probe.host.completions.capacity == 100)
        for id in 3..<20 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(19)
        #expect(probe.host.poll().map(\.id) == (0..<20).map { UInt64($0) })
        #expect(throws: Errno.invalid) { try probe.host.engine.resize(probe.host.completions, capacity: 0) }
    }

    @Test("show and poll return the same CQEs")
    func show() throws {
        let probe = try Probe()
        for id in 0..<2 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        #expect(probe.host.completions.show() == nil)
        probe.acknowledge(1)
        #expect(probe.host.completions.show()?.pointee.id == 0)
        probe.host.completions.release()
        #expect(probe.host.poll().map(\.id) == [1])
    }

    @Test("A CQE that show returned stays valid, with its slot, after RESET and destroy", arguments: [false, true])
    func shownWhileRemoved(isReset: Bool) throws {
        let probe = try Probe(completions: 4)
        for id in 0..<4 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(3)
        let completions = probe.host.completions
        #expect(completions.show()?.pointee.id == 0)
        if isReset {
            var attributes = QueuePairAttributes()
            attributes.state = .reset
            try probe.host.engine.modify(probe.pair, attributes, .state)
        } else {
            probe.host.destroy(probe.pair)
        }
        #expect(completions.shown.pointee.id == 0)
        #expect(completions.show() == nil)
        // Only the slot of that CQE is in use.
        try probe.host.engine.resize(completions, capacity: 1)
        #expect(completions.shown.pointee.id == 0 && completions.show() == nil)
        completions.release()
        #expect(completions.show() == nil && probe.host.poll().isEmpty)
    }

    @Test("A completion has the layout of struct ibv_wc")
    func layout() {
        #expect(MemoryLayout<WorkCompletion>.stride == 48)
        let offsets = [
            MemoryLayout<WorkCompletion>.offset(of: \.id), MemoryLayout<WorkCompletion>.offset(of: \.status),
            MemoryLayout<WorkCompletion>.offset(of: \.opcode), MemoryLayout<WorkCompletion>.offset(of: \.vendorError),
            MemoryLayout<WorkCompletion>.offset(of: \.byteCount), MemoryLayout<WorkCompletion>.offset(of: \.immediate),
            MemoryLayout<WorkCompletion>.offset(of: \.queuePairNumber),
            MemoryLayout<WorkCompletion>.offset(of: \.sourceQueuePairNumber),
            MemoryLayout<WorkCompletion>.offset(of: \.flags),
            MemoryLayout<WorkCompletion>.offset(of: \.pkeyIndex),
            MemoryLayout<WorkCompletion>.offset(of: \.sourceLID),
            MemoryLayout<WorkCompletion>.offset(of: \.serviceLevel),
            MemoryLayout<WorkCompletion>.offset(of: \.destinationPathBits),
        ]
        #expect(offsets == [0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 42, 44, 45])
        #expect(MemoryLayout<SGE>.stride == 16)
        #expect(MemoryLayout<SGE>.offset(of: \.length) == 8)
        #expect(MemoryLayout<SGE>.offset(of: \.lkey) == 12)
    }

    @Test("Destroying a queue that a queue pair uses fails with EBUSY")
    func busy() throws {
        let host = try Host()
        let shared = try host.makeSharedReceiveQueue()
        let pair = try host.makeQueuePair(shared: shared)
        #expect(throws: Errno.busy) { try host.engine.destroy(shared) }
        #expect(throws: Errno.busy) { try host.engine.destroy(host.completions) }
        host.destroy(pair)
    }

    // MARK: - Shared receive queues

    @Test("SRQ_LIMIT_REACHED is reported once, when fewer receive work requests than the limit are left")
    func limit() throws {
        let host = try Host()
        let shared = try host.makeSharedReceiveQueue(maxWR: 8)
        let pair = try host.makeQueuePair(shared: shared)
        #expect(pair.stageReceive(id: 0, sgList: nil, count: 0) == .invalid)
        let probe = try SharedProbe(host, pair)
        for id in 0..<8 { #expect(shared.stageReceive(id: UInt64(id), sgList: nil, count: 0) == .success) }
        #expect(shared.stageReceive(id: 8, sgList: nil, count: 0) == .noMemory)
        shared.commitReceives()
        try host.engine.setLimit(of: shared, to: 7)
        probe.send(0)
        #expect(host.events().isEmpty && host.engine.limit(of: shared) == 7)
        probe.send(1)
        let events = host.events()
        #expect(events.count == 1 && host.engine.limit(of: shared) == 0)
        if case .sharedReceiveQueue(let queue, .sharedReceiveQueueLimitReached) = events.first {
            #expect(queue == shared)
        } else {
            Issue.record("no limit event")
        }
        probe.send(2)
        #expect(host.events().isEmpty)
        #expect(host.poll().map(\.id) == [0, 1, 2])
        #expect(throws: Errno.invalid) { try host.engine.setLimit(of: shared, to: 9) }
    }

    @Test("ERR keeps the receive work requests of a shared receive queue and reports LAST_WQE_REACHED")
    func lastReached() throws {
        let host = try Host()
        let shared = try host.makeSharedReceiveQueue()
        let pair = try host.makeQueuePair(shared: shared)
        _ = try SharedProbe(host, pair)
        _ = shared.stageReceive(id: 1, sgList: nil, count: 0)
        shared.commitReceives()
        try host.move(pair, to: .error)
        #expect(host.queuePairEvents() == [.lastWQEReached])
        #expect(host.poll().isEmpty)
    }

    /// Sends empty messages to a queue pair of a host.
    struct SharedProbe {
        let host: Host
        let pair: QueuePair
        let peer = GID(ipv4: 99)

        init(_ host: Host, _ pair: QueuePair) throws {
            self.host = host
            self.pair = pair
            try host.connect(pair, to: peer, number: 5)
        }

        func send(_ offset: UInt32) {
            let headers = PacketHeaders(
                BTH(opcode: .rcSendOnly, destinationQPN: pair.number, psn: PSN(Connection().peerPSN + offset)))
            var bytes = [UInt8](repeating: 0, count: headers.packetByteCount(payloadByteCount: 0))
            bytes.withUnsafeMutableBytes { room in
                _ = try? headers.emit(into: room, payloadByteCount: 0)
                host.engine.receive(
                    UnsafeRawBufferPointer(room),
                    from: PacketSource(
                        source: peer, destination: host.gid, header: UnsafeRawBufferPointer(start: nil, count: 0)),
                    now: 0)
            }
        }
    }

    // MARK: - Queue pair numbers

    @Test("QPNs have the prefix, differ, are not reserved ones, and change when an index is used again")
    func numbers() throws {
        let host = try Host(1) { configuration in
            configuration.qpnPrefix = 0xA5
            configuration.qpnPrefixBits = 8
        }
        var numbers: [UInt32] = []
        for _ in 0..<61 { numbers.append(try host.makeQueuePair().number) }
        #expect(throws: Errno.noMemory) { try host.makeQueuePair() }
        #expect(Set(numbers.map { $0 & 63 }).count == 61)
        #expect(numbers.allSatisfy { $0 >> 16 == 0xA5 })
        var seen: Set<UInt32> = []
        let other = try Host(2)
        for _ in 0..<200 {
            let pair = try other.makeQueuePair()
            #expect(seen.insert(pair.number).inserted && pair.number > 1 && pair.number < 0xFF_FFFF)
            other.destroy(pair)
        }
    }

    @Test("Sizes out of range and unsupported service types are errors")
    func specification() throws {
        let host = try Host()
        for change in [
            { $0.maxSendWR = Limits.maxWR + 1 }, { $0.maxReceiveWR = Limits.maxWR + 1 },
            { $0.maxSendSGE = 33 }, { $0.maxReceiveSGE = 33 }, { $0.maxInlineData = 1025 },
        ] as [(inout QueuePairCapabilities) -> Void] {
            var sizes = QueuePairCapabilities(maxSendWR: 1, maxReceiveWR: 1)
            change(&sizes)
            let specification = QueuePairInitAttributes(
                type: .rc, domain: host.domain, completions: host.completions, capabilities: sizes)
            #expect(throws: Errno.invalid) { try host.engine.createQueuePair(specification) }
        }
        #expect(throws: Errno.notSupported) { try host.makeQueuePair(QueuePairType(rawValue: 8)) }
        #expect(throws: Errno.invalid) { try host.engine.createCompletionQueue(capacity: 0) }
        #expect(throws: Errno.invalid) { try host.engine.createSharedReceiveQueue(host.domain, maxWR: 0) }
    }

    @Test("With a shared receive queue, the sizes of the receive queue are ignored and become 0", arguments: [0, .max])
    func ignoredReceiveSizes(size: UInt32) throws {
        let host = try Host()
        let pair = try host.makeQueuePair(
            receives: size, maxSGE: 3, maxReceiveSGE: size, shared: try host.makeSharedReceiveQueue())
        #expect(pair.capabilities.maxReceiveWR == 0 && pair.capabilities.maxReceiveSGE == 0)
        #expect(pair.capabilities.maxSendWR == 64 && pair.capabilities.maxSendSGE == 3)
    }

    @Test(
        "max_inline_data is at least what the SGEs have room for, 16 bytes each",
        arguments: [(0, 48), (47, 48), (100, 100)] as [(UInt32, UInt32)])
    func inlineRoom(wanted: UInt32, room: UInt32) throws {
        let host = try Host(1)
        let pair = try host.makeQueuePair(maxSGE: 3, maxInlineData: wanted)
        #expect(pair.capabilities.maxInlineData == room)
        try host.connect(pair, to: GID(ipv4: 9), number: 7)
        let bytes = host.take(Int(room) + 1)
        for index in bytes.indices { bytes[index] = UInt8(index) }
        let wqe = SendWQE(id: 1, opcode: .send, flags: .inline)
        #expect(host.post(pair, wqe, [host.sge(bytes)]) == .invalid)
        #expect(host.post(pair, wqe, [host.sge(UnsafeMutableRawBufferPointer(rebasing: bytes.dropLast()))]) == .success)
        bytes.initializeMemory(as: UInt8.self, repeating: 0xFF)
        let transmitted = host.engine.transmit(into: host.packet, now: 1)
        let packet = try #require(transmitted)
        let parsed = try TransportPacket(parsing: UnsafeRawBufferPointer(rebasing: host.packet[..<packet.byteCount]))
        #expect(Array(host.packet[parsed.payload]) == (0..<Int(room)).map { UInt8($0) })
    }
}
