import RoCETransport
import RoCEWire
import Testing

@Suite("Memory windows, local invalidate and SEND with invalidate")
struct MemoryWindowTests {
    private func slice(_ probe: Probe, _ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: probe.memory[range])
    }

    private func write(_ probe: Probe, _ offset: Int = 0, key: UInt32, at address: UInt64, length: Int = 8) {
        probe.receiveWrite(
            .rcWriteOnly, offset, at: address, key: key, length: length, payload: pattern(length, seed: 1))
    }

    // MARK: - Access by the peer

    @Test("A bound window of type 2 gives the peer its range and its access, and no more", arguments: 0..<5)
    func access(scenario: Int) throws {
        let probe = try Probe()
        // pyverbs binds with IBV_ACCESS_LOCAL_WRITE, which has no effect.
        let key = try probe.host.bindWindow(
            on: probe.pair, to: slice(probe, 64..<128), access: [.remoteWrite, .localWrite])
        let start = probe.address + 64
        switch scenario {
        case 0:
            write(probe, key: key, at: start + 56)
            #expect(probe.sent().map(\.syndrome) == [0x1F])
            #expect(Array(probe.memory[120..<128]) == pattern(8, seed: 1))
            return
        case 1: write(probe, key: key, at: start + 57)
        case 2: write(probe, key: key, at: start - 1)
        case 3: write(probe, key: key &- 1, at: start)
        default: probe.receiveRead(at: start, key: key, length: 8)
        }
        #expect(probe.sent().map(\.syndrome) == [0x62], "NAK remote access error")
        #expect(probe.host.queuePairEvents() == [.accessError] && probe.pair.state == .error)
        #expect(probe.memory.allSatisfy { $0 == 0 })
    }

    @Test("The key of a window is no L_Key")
    func noLocalKey() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 0..<64))
        let request = SendWQE(id: 4, opcode: .send)
        probe.host.post(probe.pair, request, [SGE(address: probe.address, length: 8, lkey: key)])
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.localProtectionError])
    }

    @Test("A window of type 2 is valid for the queue pair that it was bound on alone (type 2B)")
    func otherQueuePair() throws {
        let probe = try Probe()
        let other = try probe.host.makeQueuePair(sqSigAll: true)
        try probe.host.connect(other, to: probe.peer, number: 5)
        let key = try probe.host.bindWindow(on: other, to: slice(probe, 0..<64))
        write(probe, key: key, at: probe.address)
        #expect(probe.sent().map(\.syndrome) == [0x62])
    }

    @Test("A window of type 1 is valid for all queue pairs of the domain; a new binding replaces the old one")
    func typeOne() throws {
        let probe = try Probe()
        let other = try probe.host.makeQueuePair(sqSigAll: true)
        try probe.host.connect(other, to: probe.peer, number: 5)
        let window = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .one)
        let first = probe.host.bindRequest(id: 1, window: window, to: slice(probe, 0..<64))
        probe.host.post(other, first)
        let second = probe.host.bindRequest(id: 2, window: first.rkey, to: slice(probe, 64..<128))
        probe.host.post(other, second)
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.success, .success])
        write(probe, key: second.rkey, at: probe.address + 64)
        #expect(probe.sent().map(\.syndrome) == [0x1F])
        write(probe, 1, key: first.rkey, at: probe.address)
        #expect(probe.sent().map(\.syndrome) == [0x62])
    }

    @Test("A binding of length 0 ends that of a window of type 1, and is refused for type 2")
    func lengthZero() throws {
        let probe = try Probe()
        let one = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .one)
        let bound = probe.host.bindRequest(id: 1, window: one, to: slice(probe, 0..<64))
        probe.host.post(probe.pair, bound)
        var end = probe.host.bindRequest(id: 2, window: bound.rkey, to: slice(probe, 0..<0))
        end.bind(key: end.rkey, lkey: 0, address: 0, length: 0, access: [])
        probe.host.post(probe.pair, end)
        #expect(probe.sent().isEmpty && probe.host.poll().map(\.status) == [.success, .success])
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 0)
        let two = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .two)
        probe.host.post(probe.pair, probe.host.bindRequest(id: 3, window: two, to: slice(probe, 0..<0)))
        #expect(probe.sent().isEmpty && probe.host.poll().map(\.status) == [.memoryWindowBindError])
    }

    @Test("The addresses of a zero-based window count from 0")
    func zeroBased() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(
            on: probe.pair, to: slice(probe, 64..<128), access: [.remoteWrite, .zeroBased])
        write(probe, key: key, at: 8)
        #expect(probe.sent().map(\.syndrome) == [0x1F])
        #expect(Array(probe.memory[72..<80]) == pattern(8, seed: 1))
        write(probe, 1, key: key, at: 57)
        #expect(probe.sent().map(\.syndrome) == [0x62])
    }

    // MARK: - Binding

    /// A binding that is refused: what it changes in a valid one.
    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let change: @Sendable (inout SendWQE, Probe) throws -> Void
    }

    static let refusals = [
        Refusal(testDescription: "a range that begins before the region") { request, probe in
            request.bind(
                key: request.rkey, lkey: probe.host.key, address: request.remoteAddress - 1 << 16, length: 64,
                access: .remoteRead)
        },
        Refusal(testDescription: "a range that ends after the region") { request, probe in
            request.bind(
                key: request.rkey, lkey: probe.host.key, address: request.remoteAddress, length: 1 << 17,
                access: .remoteRead)
        },
        Refusal(testDescription: "a length that wraps") { request, probe in
            request.bind(
                key: request.rkey, lkey: probe.host.key, address: request.remoteAddress, length: .max,
                access: .remoteRead)
        },
        Refusal(testDescription: "a key that is that of no region") { request, probe in
            request.bind(
                key: request.rkey, lkey: probe.host.key ^ 1, address: request.remoteAddress, length: 8,
                access: .remoteRead)
        },
        Refusal(testDescription: "a key that is that of no window") { request, _ in request.rkey ^= 0x1_0000 },
        Refusal(testDescription: "access flags that windows do not have") { request, probe in
            request.bind(
                key: request.rkey, lkey: probe.host.key, address: request.remoteAddress, length: 8,
                access: [.remoteRead, .memoryWindowBind])
        },
        Refusal(testDescription: "a region without IBV_ACCESS_MW_BIND") { request, probe in
            let lkey = try probe.host.engine.registerMemory(
                probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
                access: .localWrite)
            request.bind(key: request.rkey, lkey: lkey, address: probe.address, length: 8, access: .remoteRead)
        },
        Refusal(testDescription: "write access to a region without local write access") { request, probe in
            let lkey = try probe.host.engine.registerMemory(
                probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
                access: .memoryWindowBind)
            request.bind(key: request.rkey, lkey: lkey, address: probe.address, length: 8, access: .remoteWrite)
        },
        Refusal(testDescription: "a zero-based region") { request, probe in
            let lkey = try probe.host.engine.registerMemory(
                probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: 0,
                access: [.memoryWindowBind, .zeroBased])
            request.bind(key: request.rkey, lkey: lkey, address: 0, length: 8, access: .remoteRead)
        },
        Refusal(testDescription: "a region of another protection domain") { request, probe in
            let domain = try probe.host.engine.allocateProtectionDomain()
            let lkey = try probe.host.engine.registerMemory(
                domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
                access: .memoryWindowBind)
            request.bind(key: request.rkey, lkey: lkey, address: probe.address, length: 8, access: .remoteRead)
        },
        Refusal(testDescription: "a window of another protection domain") { request, probe in
            let domain = try probe.host.engine.allocateProtectionDomain()
            request.rkey = try probe.host.engine.allocateMemoryWindow(domain, .two)
        },
    ]

    @Test("A binding that is not allowed fails with IBV_WC_MW_BIND_ERR and ends the connection", arguments: refusals)
    func refusal(_ refusal: Refusal) throws {
        let probe = try Probe()
        let window = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .two)
        var request = probe.host.bindRequest(id: 1, window: window, to: slice(probe, 0..<64), access: .remoteRead)
        try refusal.change(&request, probe)
        probe.host.post(probe.pair, request)
        probe.post(.send, id: 2)
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.memoryWindowBindError, .flushed])
        #expect(probe.pair.state == .error && probe.host.engine.boundWindows(of: probe.host.key) == 0)
    }

    @Test("A bound window of type 2 is not bound again before it is invalidated")
    func boundTwice() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 0..<64))
        probe.host.post(probe.pair, probe.host.bindRequest(id: 1, window: key, to: slice(probe, 0..<64)))
        #expect(probe.sent().isEmpty && probe.host.poll().map(\.status) == [.memoryWindowBindError])
    }

    @Test("On UC windows are bound, used and invalidated; a failure there ends the send queue alone")
    func unreliable() throws {
        let probe = try Probe(.uc)
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 0..<64))
        probe.receiveWrite(.ucWriteOnly, at: probe.address, key: key, length: 8, payload: pattern(8, seed: 1))
        #expect(Array(probe.memory[..<8]) == pattern(8, seed: 1))
        for id: UInt64 in [1, 2] {
            var request = SendWQE(id: id, opcode: .localInvalidate, flags: .signaled)
            request.immediate = key
            probe.host.post(probe.pair, request)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.success, .localQPOperationError])
        #expect(probe.pair.state == .sendQueueError)
        #expect(probe.post(.sendWithInvalidate) == .invalid, "UC has no opcode for it")
    }

    // MARK: - Lifetime

    @Test("A region to which a window is bound is not deregistered: EBUSY; deallocating the window ends the binding")
    func busyRegion() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 0..<64))
        #expect(throws: Errno.busy) { try probe.host.engine.deregisterMemory(probe.host.key) }
        #expect(throws: Errno.invalid) { try probe.host.engine.deregisterMemory(key) }
        try probe.host.engine.deallocateMemoryWindow(key)
        #expect(throws: Errno.invalid) { try probe.host.engine.deallocateMemoryWindow(key) }
        #expect(throws: Errno.invalid) { try probe.host.engine.deallocateMemoryWindow(probe.host.key) }
        write(probe, key: key, at: probe.address)
        #expect(probe.sent().map(\.syndrome) == [0x62])
        try probe.host.engine.deregisterMemory(probe.host.key)
    }

    @Test("Destroying a queue pair ends the bindings of its windows of type 2")
    func destroyedQueuePair() throws {
        let probe = try Probe()
        let other = try probe.host.makeQueuePair(sqSigAll: true)
        try probe.host.connect(other, to: probe.peer, number: 5)
        _ = try probe.host.bindWindow(on: other, to: slice(probe, 0..<64))
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 1)
        probe.host.destroy(other)
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 0)
    }

    @Test("A protection domain with a window is not deallocated")
    func busyDomain() throws {
        let probe = try Probe()
        let domain = try probe.host.engine.allocateProtectionDomain()
        let window = try probe.host.engine.allocateMemoryWindow(domain, .one)
        #expect(throws: Errno.busy) { try probe.host.engine.deallocate(domain) }
        try probe.host.engine.deallocateMemoryWindow(window)
        try probe.host.engine.deallocate(domain)
    }

    // MARK: - Invalidating

    @Test("SEND with invalidate of the peer ends the binding; its receive completion has the key")
    func remoteInvalidate() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 4096..<4160))
        probe.postReceive(id: 7, bytes: 2000)
        probe.receive(.rcSendFirst, payload: pattern(1024))
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 1)
        probe.receive(.rcSendLastWithInvalidate, 1, payload: pattern(10)) { $0.ieth = IETH(rkey: key) }
        let completion = try #require(probe.host.poll().first)
        #expect(completion.id == 7 && completion.byteCount == 1034 && completion.status == .success)
        #expect(completion.flags == .withInvalidate && completion.immediate == key)
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 0)
        // A duplicate is acknowledged and not executed again.
        probe.receive(.rcSendLastWithInvalidate, 1, payload: pattern(10)) { $0.ieth = IETH(rkey: key) }
        #expect(probe.sent().map(\.syndrome) == [0x1F] && probe.pair.state == .readyToSend)
        write(probe, 2, key: key, at: probe.address + 4096)
        #expect(probe.sent().map(\.syndrome) == [0x62])
    }

    @Test("SEND with invalidate of a key that cannot be invalidated is acknowledged, and fails its receive")
    func remoteInvalidateFails() throws {
        for wrong in [0, 0x4242, nil] as [UInt32?] {
            let probe = try Probe()
            probe.postReceive(id: 7, bytes: 100)
            probe.postReceive(id: 8, bytes: 100)
            probe.receive(.rcSendOnlyWithInvalidate, payload: pattern(10)) {
                $0.ieth = IETH(rkey: wrong ?? probe.host.key)
            }
            #expect(probe.sent().map(\.syndrome) == [0x1F])
            #expect(probe.host.poll().map(\.status) == [.remoteInvalidRequestError, .flushed])
            #expect(probe.pair.state == .error)
        }
    }

    @Test("IBV_WR_SEND_WITH_INV sends Only or Last with IETH")
    func sendsInvalidate() throws {
        let probe = try Probe()
        probe.post(.sendWithInvalidate, bytes: 8) { $0.immediate = 0x1234_5678 }
        probe.post(.sendWithInvalidate, bytes: 1500, flags: .solicited) { $0.immediate = 0x9ABC_DEF0 }
        let sent = probe.sent()
        #expect(sent.map(\.opcode) == [.rcSendOnlyWithInvalidate, .rcSendFirst, .rcSendLastWithInvalidate])
        #expect(sent[0].headers.ieth.rkey == 0x1234_5678 && sent[0].payload.count == 8)
        #expect(sent[2].headers.ieth.rkey == 0x9ABC_DEF0 && sent[2].payload.count == 476)
        #expect(sent[2].headers.bth.solicited)
        probe.acknowledge(2)
        #expect(probe.host.poll().map(\.opcode) == [.send, .send])
    }

    @Test("A local invalidate of anything but a window that is bound on the queue pair fails")
    func localInvalidateFails() throws {
        let probe = try Probe()
        let window = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .two)
        for key in [0, probe.host.key, window] {
            let probe = try key == window ? probe : Probe()
            var request = SendWQE(id: 3, opcode: .localInvalidate)
            request.immediate = key
            probe.host.post(probe.pair, request)
            #expect(probe.sent().isEmpty)
            let completions = probe.host.poll()
            #expect(completions.map(\.status) == [.localQPOperationError])
            #expect(probe.pair.state == .error)
        }
    }

    // MARK: - Order

    @Test("Binds and local invalidates complete in the order of the send queue, and are executed once after a loss")
    func order() throws {
        let probe = try Probe()
        let window = try probe.host.engine.allocateMemoryWindow(probe.host.domain, .two)
        let bind = probe.host.bindRequest(id: 1, window: window, to: slice(probe, 0..<64))
        probe.post(.send, id: 0)
        probe.host.post(probe.pair, bind)
        probe.post(.send, id: 2)
        var end = SendWQE(id: 3, opcode: .localInvalidate)
        end.immediate = bind.rkey
        probe.host.post(probe.pair, end)
        probe.post(.send, id: 4)
        #expect(probe.sentOffsets() == [0, 1, 2] && probe.host.poll().isEmpty)
        // All three packets are lost, and then the second and third again.
        probe.advance(10_000_000)
        #expect(probe.sentOffsets() == [0, 1, 2] && probe.host.poll().isEmpty)
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.id) == [0, 1])
        probe.advance(10_000_000)
        #expect(probe.sent(limit: 1).map(\.psn) == [probe.connection.psn + 1])
        // The acknowledgement arrives before the engine comes to the local invalidate again.
        probe.acknowledge(1)
        #expect(probe.host.poll().map(\.id) == [2, 3])
        #expect(probe.sentOffsets() == [2])
        probe.acknowledge(2)
        let last = probe.host.poll()
        #expect(last.map(\.id) == [4] && last.map(\.status) == [.success])
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 0)
    }

    @Test("A local invalidate with a fence waits for the READs before it")
    func fence() throws {
        let probe = try Probe()
        let key = try probe.host.bindWindow(on: probe.pair, to: slice(probe, 4096..<4160))
        probe.post(.read, id: 1)
        var end = SendWQE(id: 2, opcode: .localInvalidate, flags: .fence)
        end.immediate = key
        probe.host.post(probe.pair, end)
        #expect(probe.sentOffsets() == [0])
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 1)
        probe.receive(.rcReadResponseOnly, payload: pattern(8)) { $0.aeth = AETH(syndrome: .ack, msn: 1) }
        #expect(probe.sent().isEmpty && probe.host.poll().map(\.id) == [1, 2])
        #expect(probe.host.engine.boundWindows(of: probe.host.key) == 0)
    }

    @Test("A failed bind completes after the requests before it, and flushes those after it")
    func failureInOrder() throws {
        let probe = try Probe()
        probe.post(.send, id: 0)
        var request = probe.host.bindRequest(id: 1, window: 0x7000_0000, to: slice(probe, 0..<64))
        request.rkey = 0x7000_0001
        probe.host.post(probe.pair, request)
        probe.post(.send, id: 2)
        #expect(probe.sentOffsets() == [0] && probe.host.poll().isEmpty)
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.status) == [.success, .memoryWindowBindError, .flushed])
    }
}
