import RoCETransport
import RoCEWire
import Testing

/// An extended reliable connection: an XRC_SEND queue pair, an XRC_RECV queue pair, and two shared receive queues of the
/// receiver, which have a protection domain and a completion queue each.
private final class ExtendedPair {
    let left: Host
    let right: Host
    let sender: QueuePair
    let receiver: QueuePair
    let xrcDomain: XRCDomain
    let domains: [ProtectionDomain]
    let completions: [CompletionQueue]
    private(set) var queues: [SharedReceiveQueue]
    let numbers: [UInt32]
    /// Memory of the receiver, registered in both protection domains.
    let memory: UnsafeMutableRawBufferPointer
    let keys: [UInt32]
    let network: Network
    /// The packets that were sent: the headers and all bytes up to the ICRC.
    private(set) var sent: [PacketHeaders] = []

    init(_ connection: Connection = Connection(), configure: (inout Configuration) -> Void = { _ in }) throws {
        left = try Host(1, configure: configure)
        let right = try Host(2, configure: configure)
        self.right = right
        sender = try left.makeQueuePair(.xrcSend, sqSigAll: true)
        let xrcDomain = try right.openXRCDomain()
        self.xrcDomain = xrcDomain
        receiver = try right.makeReceiver(xrcDomain)
        let domains = [right.domain, try right.engine.allocateProtectionDomain()]
        let completions = [right.completions, try right.engine.createCompletionQueue(capacity: 64)]
        self.domains = domains
        self.completions = completions
        queues = try (0..<2).map {
            try right.makeSharedReceiveQueue(xrcDomain, domain: domains[$0], completions: completions[$0])
        }
        numbers = queues.map { $0.number ?? 0 }
        let memory = right.take(16384)
        self.memory = memory
        keys = try domains.map {
            try right.engine.registerMemory(
                $0, address: memory.baseAddress, length: 16384, virtualAddress: 0x10000, access: Host.everything)
        }
        try left.connect(sender, to: right.gid, number: receiver.number, connection)
        try right.connect(receiver, to: left.gid, number: sender.number, connection.reversed)
        network = Network([left, right])
        network.inspect = { [unowned self] packet, _ in
            sent.append(packet.headers)
            return true
        }
    }

    deinit {
        right.destroy(receiver)
        for queue in queues { try? right.destroy(queue) }
        for key in keys { try? right.engine.deregisterMemory(key) }
        try? right.engine.destroy(completions[1])
    }

    func postReceive(_ queue: Int, id: UInt64, at offset: Int = 0, bytes: Int) {
        let sge = SGE(address: 0x10000 + UInt64(offset), length: UInt32(bytes), lkey: keys[queue])
        withUnsafePointer(to: sge) { #expect(queues[queue].stageReceive(id: id, sgList: $0, count: 1) == .success) }
        queues[queue].commitReceives()
    }

    func post(
        _ opcode: WorkRequestOpcode, id: UInt64 = 0, to number: UInt32, key: UInt32 = 0, at address: UInt64 = 0x10000,
        _ buffer: UnsafeMutableRawBufferPointer, adjust: (inout SendWQE) -> Void = { _ in }
    ) {
        var request = SendWQE(id: id, opcode: opcode)
        request.remoteSRQN = number
        request.rkey = key
        request.remoteAddress = address
        adjust(&request)
        #expect(left.post(sender, request, [left.sge(buffer)]) == .success)
    }

    func buffer(_ count: Int, seed: Int = 0) -> UnsafeMutableRawBufferPointer {
        let buffer = left.take(count)
        for (index, byte) in pattern(count, seed: seed).enumerated() { buffer[index] = byte }
        return buffer
    }

    func received(_ queue: Int) -> [WorkCompletion] { right.poll(completions[queue]) }

    func destroyQueue(_ index: Int) throws {
        try right.destroy(queues[index])
        queues.remove(at: index)
    }
}

extension Host {
    fileprivate func transmit() -> OutgoingPacket? { engine.transmit(into: packet, now: 1) }

    fileprivate func queuePair(_ number: UInt32, of domain: XRCDomain) -> QueuePair? {
        engine.queuePair(number, of: domain)
    }
}

@Suite("XRC")
struct XRCTests {
    @Test("SENDs of one connection arrive in the shared receive queues that they name, and complete in their queues")
    func sends() throws {
        let test = try ExtendedPair(Connection(mtu: 256))
        test.postReceive(0, id: 10, bytes: 700)
        test.postReceive(1, id: 20, at: 1000, bytes: 700)
        test.postReceive(1, id: 21, at: 2000, bytes: 700)
        test.post(.send, id: 1, to: test.numbers[1], test.buffer(600))
        test.post(.sendWithImmediate, id: 2, to: test.numbers[0], test.buffer(3, seed: 5)) { $0.immediate = 0x1234 }
        test.post(.send, id: 3, to: test.numbers[1], test.buffer(0))
        test.network.run()
        #expect(test.left.poll().map(\.id) == [1, 2, 3])
        let first = test.received(0)
        #expect(first.map(\.id) == [10] && first[0].byteCount == 3 && first[0].immediate == 0x1234)
        let second = test.received(1)
        #expect(second.map(\.id) == [20, 21] && second.map(\.byteCount) == [600, 0])
        #expect((first + second).allSatisfy { $0.queuePairNumber == test.receiver.number && $0.status == .success })
        #expect(Array(test.memory[1000..<1600]) == pattern(600) && Array(test.memory[..<3]) == pattern(3, seed: 5))
    }

    @Test("Requests have the opcodes 0xA0 to 0xB7 and the XRCETH, responses have no XRCETH")
    func packets() throws {
        let test = try ExtendedPair(Connection(mtu: 256))
        for id in 0..<3 { test.postReceive(0, id: UInt64(id), at: 8192, bytes: 1024) }
        let number = test.numbers[0]
        let data = test.buffer(520)
        test.post(.send, to: number, data)
        test.post(.write, to: number, key: test.keys[0], data)
        test.post(.writeWithImmediate, to: number, key: test.keys[0], data)
        test.post(.read, to: number, key: test.keys[0], data)
        test.post(.fetchAndAdd, to: number, key: test.keys[0], test.left.take(8)) { $0.compareAdd = 1 }
        test.post(.compareAndSwap, to: number, key: test.keys[0], test.left.take(8))
        test.network.run()
        #expect(test.left.poll().allSatisfy { $0.status == .success })
        let requests = test.sent.filter { $0.bth.opcode.isRequest }
        #expect(
            requests.map { $0.bth.opcode.rawValue } == [
                0xA0, 0xA1, 0xA2, 0xA6, 0xA7, 0xA8, 0xA6, 0xA7, 0xA9, 0xAC, 0xB4, 0xB3,
            ])
        #expect(requests.allSatisfy { $0.xrceth.sharedReceiveQueueNumber == number })
        let answers = Set(test.sent.filter { $0.bth.opcode.isResponse }.map { $0.bth.opcode.rawValue })
        #expect(
            answers.isSuperset(of: [0xAD, 0xAE, 0xAF, 0xB2]) && answers.isSubset(of: [0xAD, 0xAE, 0xAF, 0xB1, 0xB2]))
    }

    @Test("A request of one packet has the bytes of annex A14: BTH, reserved byte, number of the shared receive queue")
    func bytes() throws {
        let test = try ExtendedPair()
        test.post(.send, to: test.numbers[0], test.buffer(5))
        let packet = try #require(test.left.transmit())
        let bytes = Array(test.left.packet[..<packet.byteCount])
        let number = test.numbers[0]
        #expect(bytes.count == 12 + 4 + 8 + 4 && bytes[0] == 0xA4)
        #expect(bytes[12..<16].elementsEqual([0, UInt8(number >> 16), UInt8(number >> 8 & 255), UInt8(number & 255)]))
        #expect(bytes[16..<24].elementsEqual(pattern(5) + [0, 0, 0]))
    }

    @Test("RDMA and atomics access the memory of the protection domain of the shared receive queue that they name")
    func protection() throws {
        for queue in 0..<2 {
            let test = try ExtendedPair(Connection(mtu: 256))
            let number = test.numbers[queue]
            test.post(.write, id: 1, to: number, key: test.keys[queue], test.buffer(600))
            let target = test.left.take(600)
            test.post(.read, id: 2, to: number, key: test.keys[queue], target)
            let original = test.left.take(8)
            test.post(.fetchAndAdd, id: 3, to: number, key: test.keys[queue], original) {
                $0.compareAdd = 2
                $0.flags = .fence
            }
            test.network.run()
            #expect(test.left.poll().map(\.status) == [.success, .success, .success])
            #expect(Array(target) == pattern(600) && Array(original) == pattern(8))
            #expect(test.memory[0] == 2 && Array(test.memory[8..<600]) == pattern(592, seed: 8))
        }
        for opcode: WorkRequestOpcode in [.write, .read, .fetchAndAdd, .compareAndSwap] {
            let test = try ExtendedPair()
            test.post(opcode, to: test.numbers[0], key: test.keys[1], test.buffer(8, seed: 1))
            test.network.run()
            #expect(test.left.poll().map(\.status) == [.remoteAccessError])
            #expect(test.right.queuePairEvents().contains(.accessError) && test.receiver.state == .error)
            #expect(test.memory.allSatisfy { $0 == 0 })
        }
    }

    @Test("The responses of a READ come from its own protection domain when a later request names another queue")
    func readAndSend() throws {
        let test = try ExtendedPair(Connection(mtu: 256)) { $0.burst = 1 }
        for index in test.memory.indices { test.memory[index] = UInt8(truncatingIfNeeded: index) }
        test.postReceive(1, id: 7, at: 15000, bytes: 8)
        let target = test.left.take(8000)
        test.post(.read, id: 1, to: test.numbers[0], key: test.keys[0], target)
        test.post(.send, id: 2, to: test.numbers[1], test.buffer(8))
        // Both requests arrive before the first response leaves.
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success, .success])
        #expect(Array(target) == pattern(8000) && test.received(1).map(\.id) == [7])
    }

    @Test("A number without a queue, and one of another XRC domain, cause a NAK remote access error and an event")
    func wrongNumbers() throws {
        for scenario in 0..<3 {
            let test = try ExtendedPair()
            let other = try test.right.openXRCDomain()
            let foreign = try test.right.makeSharedReceiveQueue(other)
            var number = foreign.number ?? 0
            if scenario == 1 { number = test.numbers[0] ^ 0x10000 }
            if scenario == 2 {
                test.postReceive(0, id: 1, bytes: 8)
                test.post(.send, to: test.numbers[0], test.buffer(8))
                test.network.run()
                #expect(test.left.poll().map(\.status) == [.success])
                number = test.numbers[0]
                try test.destroyQueue(0)
            }
            _ = test.right.events()
            test.post(.send, to: number, test.buffer(8))
            test.network.run()
            let failed = test.left.poll()
            #expect(failed.map(\.status) == [.remoteAccessError] && failed[0].vendorError == 0x62)
            #expect(test.right.queuePairEvents().contains(.accessError))
            #expect(test.receiver.state == .error && test.sender.state == .error)
        }
    }

    @Test("The packets of one message name one queue: another one is an invalid request")
    func twoNumbers() throws {
        let test = try ExtendedPair(Connection(mtu: 256))
        test.postReceive(0, id: 1, bytes: 600)
        test.postReceive(1, id: 2, bytes: 600)
        test.post(.send, to: test.numbers[0], test.buffer(600))
        let source = PacketSource(
            source: test.left.gid, destination: test.right.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        let packet = test.left.packet
        for index in 0..<2 {
            let sent = try #require(test.left.transmit())
            if index == 1 {
                for place in 0..<3 {
                    packet[13 + place] = UInt8(truncatingIfNeeded: test.numbers[1] >> (16 - 8 * UInt32(place)))
                }
            }
            test.right.engine.receive(UnsafeRawBufferPointer(rebasing: packet[..<sent.byteCount]), from: source, now: 1)
        }
        #expect(test.receiver.state == .error && test.right.queuePairEvents().contains(.requestError))
        #expect(test.received(0).map(\.status) == [.flushed] && test.received(1).isEmpty)
    }

    @Test(
        "A shared receive queue that is destroyed in the middle of a message ends the connection, without a completion")
    func destroyedQueue() throws {
        let test = try ExtendedPair(Connection(mtu: 256))
        test.postReceive(1, id: 1, bytes: 600)
        let number = test.numbers[1]
        test.post(.send, to: number, test.buffer(600))
        var arrived = 0
        test.network.inspect = { [unowned test] packet, _ in
            if packet.headers.bth.opcode.isRequest { arrived += 1 }
            if arrived == 2, packet.headers.bth.opcode.isMiddle { try? test.destroyQueue(1) }
            return true
        }
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.remoteAccessError])
        #expect(test.received(1).isEmpty && test.right.queuePairEvents().contains(.accessError))
        try test.right.engine.deregisterMemory(test.keys[1])
        try test.right.engine.deallocate(test.domains[1])
    }

    @Test("Without a posted receive, the sender waits as on RC, and the limit of the queue raises its event")
    func receiverNotReady() throws {
        let test = try ExtendedPair(Connection(rnrRetry: 7))
        try test.right.engine.setLimit(of: test.queues[1], to: 1)
        test.post(.send, to: test.numbers[1], test.buffer(8))
        test.network.schedule(after: 5_000_000) { test.postReceive(1, id: 4, bytes: 8) }
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success] && test.received(1).map(\.id) == [4])
        #expect(test.left.engine.counters.rnrNAKsReceived > 0)
        let limits = test.right.events().filter {
            if case .sharedReceiveQueue(let queue, .sharedReceiveQueueLimitReached) = $0 {
                queue == test.queues[1]
            } else {
                false
            }
        }
        #expect(limits.count == 1)
    }

    @Test("After RESET a receiver serves a new connection, and the completions of the old one stay in their queue")
    func reset() throws {
        let test = try ExtendedPair()
        test.postReceive(1, id: 1, bytes: 8)
        test.postReceive(1, id: 2, bytes: 8)
        test.post(.send, to: test.numbers[1], test.buffer(8))
        test.network.run()
        #expect(test.left.poll().count == 1)
        try test.left.move(test.sender, to: .reset)
        try test.right.move(test.receiver, to: .reset)
        try test.left.connect(test.sender, to: test.right.gid, number: test.receiver.number)
        try test.right.connect(test.receiver, to: test.left.gid, number: test.sender.number, Connection().reversed)
        test.post(.send, to: test.numbers[1], test.buffer(8))
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success] && test.received(1).map(\.id) == [1, 2])
    }

    @Test("A SEND with invalidate arrives, and its key fails: no window is bound on an XRC_RECV queue pair")
    func invalidate() throws {
        let test = try ExtendedPair()
        test.postReceive(0, id: 1, bytes: 8)
        test.post(.sendWithInvalidate, to: test.numbers[0], test.buffer(8)) { $0.immediate = test.keys[0] }
        test.network.run()
        #expect(test.sent.first?.bth.opcode.rawValue == 0xB7 && test.sent.first?.ieth.rkey == test.keys[0])
        #expect(test.received(0).map(\.status) == [.remoteInvalidRequestError])
    }

    @Test("Objects in use are not destroyed")
    func busy() throws {
        let host = try Host()
        let domain = try host.engine.openXRCDomain()
        let queue = try host.engine.createSharedReceiveQueue(
            host.domain, xrcDomain: domain, completions: host.completions, maxWR: 4)
        let pair = try host.engine.createQueuePair(QueuePairInitAttributes(xrcDomain: domain))
        #expect(throws: Errno.busy) { try host.engine.close(domain) }
        #expect(throws: Errno.busy) { try host.engine.destroy(host.completions) }
        #expect(throws: Errno.busy) { try host.engine.deallocate(host.domain) }
        // A queue pair of the domain does not keep a shared receive queue.
        try host.engine.destroy(queue)
        #expect(throws: Errno.busy) { try host.engine.close(domain) }
        #expect(host.queuePair(pair.number, of: domain) == pair)
        let number = pair.number
        host.engine.destroy(pair)
        #expect(host.queuePair(number, of: domain) == nil)
        try host.engine.close(domain)
    }

    @Test("Only an XRC_RECV queue pair of the domain is found by its number")
    func open() throws {
        let test = try ExtendedPair()
        let other = try test.right.openXRCDomain()
        let reliable = try test.right.makeQueuePair()
        #expect(test.right.queuePair(test.receiver.number, of: test.xrcDomain) == test.receiver)
        #expect(test.right.queuePair(test.receiver.number, of: other) == nil)
        #expect(test.right.queuePair(reliable.number, of: test.xrcDomain) == nil)
    }

    @Test("Numbers of shared receive queues are different, not 0, and at most 24 bits; others have none")
    func numbers() throws {
        let host = try Host()
        let domain = try host.openXRCDomain()
        var queues = try (0..<100).map { _ in try host.makeSharedReceiveQueue(domain, maxWR: 1) }
        for queue in queues[..<50] { try host.destroy(queue) }
        queues.removeSubrange(..<50)
        queues += try (0..<300).map { _ in try host.makeSharedReceiveQueue(domain, maxWR: 1) }
        let numbers = queues.compactMap(\.number)
        #expect(numbers.count == 350 && Set(numbers).count == 350 && numbers.allSatisfy { $0 > 0 && $0 < 1 << 24 })
        #expect(try host.makeSharedReceiveQueue().number == nil)
    }

    @Test("The transitions of both types have the attributes of ibv_modify_qp(3)")
    func transitions() throws {
        let test = try ExtendedPair()
        try test.left.move(test.sender, to: .reset)
        try test.right.move(test.receiver, to: .reset)
        func fails(_ host: Host, _ pair: QueuePair, _ state: QueuePairState, _ mask: AttributeMask) -> Bool {
            var attributes = Connection().attributes(from: host.gid, to: host.gid, number: 1)
            attributes.state = state
            do { try host.engine.modify(pair, attributes, mask) } catch { return true }
            return false
        }
        let common: AttributeMask = [.state, .path, .pathMTU, .destinationQPN, .rqPSN]
        let responder: AttributeMask = [.maxDestinationReadAtomic, .minRNRTimer]
        let requester: AttributeMask = [.retryCount, .rnrRetry, .maxReadAtomic]
        let (send, receive) = (test.sender, test.receiver)
        #expect(!fails(test.left, send, .initialized, Connection.toInit))
        #expect(!fails(test.right, receive, .initialized, Connection.toInit))
        #expect(fails(test.left, send, .readyToReceive, common.union(responder)))
        #expect(fails(test.right, receive, .readyToReceive, common))
        #expect(!fails(test.left, send, .readyToReceive, common))
        #expect(!fails(test.right, receive, .readyToReceive, common.union(responder)))
        #expect(fails(test.left, send, .readyToSend, [.state, .sqPSN, .timeout]))
        #expect(fails(test.right, receive, .readyToSend, requester.union([.state, .sqPSN, .timeout])))
        #expect(!fails(test.left, send, .readyToSend, requester.union([.state, .sqPSN, .timeout])))
        #expect(!fails(test.right, receive, .readyToSend, [.state, .sqPSN, .timeout]))
        #expect(
            fails(test.left, send, .readyToSend, .minRNRTimer)
                && !fails(test.right, receive, .readyToSend, .minRNRTimer))
        #expect(
            !fails(test.left, send, .sendQueueDrained, .state) && !fails(test.right, receive, .sendQueueDrained, .state)
        )
        #expect(
            fails(test.left, send, .sendQueueDrained, responder)
                && !fails(test.left, send, .sendQueueDrained, requester))
        #expect(
            fails(test.right, receive, .sendQueueDrained, requester)
                && !fails(test.right, receive, .sendQueueDrained, responder))
    }

    @Test("An XRC_RECV queue pair sends nothing, neither type has receives, and XRC has no ATOMIC WRITE")
    func posting() throws {
        let test = try ExtendedPair()
        #expect(test.sender.stageReceive(id: 0, sgList: nil, count: 0) == .invalid)
        #expect(test.receiver.stageReceive(id: 0, sgList: nil, count: 0) == .invalid)
        #expect(test.receiver.reserveSend() == nil && test.receiver.capabilities.maxReceiveWR == 0)
        let value = test.left.sge(test.left.take(8))
        #expect(test.left.post(test.sender, SendWQE(id: 0, opcode: .atomicWrite), [value]) == .invalid)
    }

    @Test("Requests to an XRC_SEND queue pair and packets of RC are dropped")
    func wrongPackets() throws {
        let probe = try Probe(.xrcSend)
        probe.receive(Opcode.rcSendOnly.on(.extendedReliableConnection), payload: [1])
        probe.receive(.rcSendOnly, payload: [1])
        #expect(probe.sent().isEmpty && probe.host.events().isEmpty)
        #expect(probe.host.engine.counters.droppedServiceType == 2)
    }
}
