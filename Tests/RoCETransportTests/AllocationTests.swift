import CAllocationCounter
import RoCETransport
import RoCEWire
import Testing

@Suite("The data path allocates no memory")
struct AllocationTests {
    @Test("The counter counts an allocation")
    func counter() {
        let before = allocation_count()
        let block = UnsafeMutableRawPointer.allocate(byteCount: 100, alignment: 16)
        let after = allocation_count()
        block.deallocate()
        #expect(after == before + 1 || allocation_count_is_blind())
    }

    /// Passes every packet of each engine to the other, without a network, until no engine has a packet to send.
    private func exchange(_ left: Host, _ right: Host, now: UInt64) {
        var isBusy = true
        while isBusy {
            isBusy = carry(left, right, now: now)
            isBusy = carry(right, left, now: now) || isBusy
        }
    }

    private func carry(_ from: Host, _ to: Host, now: UInt64) -> Bool {
        var carried = false
        let source = PacketSource(
            source: from.gid, destination: to.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        while let packet = from.engine.transmit(into: from.packet, now: now) {
            let bytes = UnsafeRawBufferPointer(start: from.packet.baseAddress, count: packet.byteCount)
            if packet.isReference {
                to.engine.receiveReference(bytes, from: source, now: now)
            } else {
                to.engine.receive(bytes, from: source, now: now)
            }
            carried = true
        }
        return carried
    }

    @Test("SENDs in runs allocate no memory")
    func runs() throws {
        let test = try NeighborPair(hasEvents: false)
        let source = test.left.sge(test.left.take(8))
        let target = test.right.sge(test.right.take(8))
        let completions = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: 16)
        let records = UnsafeMutableRawPointer.allocate(byteCount: 8 * RunRecord.byteCount, alignment: 64)
        defer {
            completions.deallocate()
            records.deallocate()
        }
        let addresses = PacketSource(
            source: test.left.gid, destination: test.right.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        var allocations: UInt64 = 0
        var received = 0
        withUnsafePointer(to: source) { source in
            withUnsafePointer(to: target) { target in
                for round in 0..<20 {
                    let before = allocation_count()
                    for _ in 0..<8 {
                        _ = test.rightPair.stageReceive(id: 1, sgList: target, count: 1)
                        _ = test.leftPair.stageSend(SendWQE(id: 1, opcode: .send), sgList: source, count: 1)
                    }
                    test.rightPair.commitReceives()
                    _ = test.leftPair.publishSends()
                    test.left.engine.serve(test.leftPair)
                    // The first packet, which establishes the connection, is not received in a run.
                    if round > 0, test.left.engine.beginRun() != nil {
                        let count = test.left.engine.writeRun(
                            to: records, first: (1 << 31, 0), header: (1 << 31, 0), limit: 8, now: UInt64(round))
                        received += test.right.engine.receiveRun(
                            records, first: records.load(as: UInt64.self), header: 1 << 31, limit: count,
                            from: addresses,
                            now: UInt64(round))
                    }
                    exchange(test.left, test.right, now: UInt64(round))
                    _ = test.left.completions.poll(into: completions, count: 16)
                    _ = test.right.completions.poll(into: completions, count: 16)
                    if round >= 3 { allocations += allocation_count() - before }
                }
            }
        }
        #expect(allocations == 0)
        #expect(received == 19 * 8)
    }

    @Test("SENDs that the receiver copies allocate no memory")
    func references() throws {
        let test = try NeighborPair()
        test.acquaint()
        let source = test.left.sge(test.left.take(20_000))
        let target = test.right.sge(test.right.take(20_000))
        let completions = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: 16)
        defer { completions.deallocate() }
        var allocations: UInt64 = 0
        withUnsafePointer(to: source) { source in
            withUnsafePointer(to: target) { target in
                for round in 0..<20 {
                    let before = allocation_count()
                    _ = test.rightPair.stageReceive(id: 1, sgList: target, count: 1)
                    test.rightPair.commitReceives()
                    _ = test.leftPair.stageSend(SendWQE(id: 1, opcode: .send), sgList: source, count: 1)
                    _ = test.leftPair.commitSends()
                    exchange(test.left, test.right, now: UInt64(round))
                    _ = test.left.completions.poll(into: completions, count: 16)
                    _ = test.right.completions.poll(into: completions, count: 16)
                    if round >= 3 { allocations += allocation_count() - before }
                }
            }
        }
        #expect(allocations == 0)
        #expect(test.right.engine.counters.directRequests == 20)
    }

    @Test(
        "Post, transmit, receive, timers and poll allocate no memory, for every operation",
        arguments: [
            WorkRequestOpcode.send, .sendWithImmediate, .write, .writeWithImmediate, .read, .compareAndSwap,
            .fetchAndAdd, .atomicWrite,
        ])
    func reliable(opcode: WorkRequestOpcode) throws {
        let left = try Host(1)
        let right = try Host(2)
        let pair = try left.makeQueuePair()
        let peer = try right.makeQueuePair()
        try left.connect(pair, to: right.gid, number: peer.number)
        try right.connect(peer, to: left.gid, number: pair.number, Connection().reversed)
        let sge = left.sge(left.take([.compareAndSwap, .fetchAndAdd, .atomicWrite].contains(opcode) ? 8 : 3000))
        let target = right.sge(right.take(3000))
        var request = SendWQE(id: 1, opcode: opcode, flags: .signaled)
        request.remoteAddress = target.address
        request.rkey = right.key
        let completions = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: 16)
        defer { completions.deallocate() }
        var allocations: UInt64 = 0
        var completed = 0
        withUnsafePointer(to: sge) { sge in
            withUnsafePointer(to: target) { target in
                // The first rounds are not counted: the Swift runtime allocates memory on first use.
                for round in 0..<20 {
                    let before = allocation_count()
                    _ = peer.stageReceive(id: 1, sgList: target, count: 1)
                    peer.commitReceives()
                    left.completions.arm(solicitedOnly: false)
                    for _ in 0..<4 { _ = pair.stageSend(request, sgList: sge, count: 1) }
                    _ = pair.commitSends()
                    exchange(left, right, now: UInt64(round) * 1_000_000)
                    left.engine.advance(to: UInt64(round) * 1_000_000 + 900_000)
                    for _ in 0..<3 {
                        _ = peer.stageReceive(id: 1, sgList: target, count: 1)
                        peer.commitReceives()
                    }
                    exchange(left, right, now: UInt64(round) * 1_000_000 + 900_000)
                    while left.engine.nextEvent() != nil {}
                    completed += left.completions.poll(into: completions, count: 16)
                    _ = right.completions.poll(into: completions, count: 16)
                    if round >= 3 { allocations += allocation_count() - before }
                }
            }
        }
        #expect(completed == 80)
        #expect(allocations == 0)
    }

    /// Calls `body` in rounds. Returns the allocations of those after the first three, in which the Swift runtime allocates
    /// memory on first use.
    private func countAllocations(_ body: (Int) -> Void) -> UInt64 {
        var allocations: UInt64 = 0
        for round in 0..<20 {
            let before = allocation_count()
            body(round)
            if round >= 3 { allocations += allocation_count() - before }
        }
        return allocations
    }

    @Test(
        "Direct requests allocate no memory, mapped or copied by the kernel",
        arguments: [WorkRequestOpcode.write, .read, .compareAndSwap, .fetchAndAdd, .atomicWrite, .flush],
        [true, false])
    func direct(opcode: WorkRequestOpcode, isMapped: Bool) throws {
        var connection = Connection()
        connection.access = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .flushGlobal]
        let copy: ForeignCopy = { _, parts, _, address, writes in
            let part = parts.assumingMemoryBound(to: MemoryPart.self).pointee
            let (here, there) = (part.address!, UnsafeMutableRawPointer(bitPattern: UInt(address))!)
            (writes ? there : here).copyMemory(from: writes ? here : there, byteCount: part.byteCount)
            return true
        }
        let test = try NeighborPair(connection, reach: isMapped ? .here : .process(1, copy))
        let target = test.right.take(64)
        let key = try test.right.engine.registerMemory(
            test.right.domain, address: target.baseAddress, length: 64,
            virtualAddress: UInt64(UInt(bitPattern: target.baseAddress)), access: connection.access)
        var request = test.request(opcode, at: target, key: key)
        if opcode == .flush { request.flush(length: 64, placement: 1, selectivity: 0) }
        let hasFewBytes = opcode != .write && opcode != .read
        let sge = test.left.sge(test.left.take(hasFewBytes ? 8 : 64))
        let completions = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: 16)
        defer { completions.deallocate() }
        var completed = 0
        let allocations = withUnsafePointer(to: sge) { sge in
            countAllocations { _ in
                for _ in 0..<4 {
                    _ = test.leftPair.stageSend(request, sgList: sge, count: opcode == .flush ? 0 : 1)
                }
                _ = test.leftPair.commitSends()
                // Atomics on memory that is not mapped are packets.
                exchange(test.left, test.right, now: 1)
                completed += test.left.completions.poll(into: completions, count: 16)
            }
        }
        #expect(completed == 80 && allocations == 0)
        let isDirect = isMapped || opcode == .write || opcode == .read || opcode == .flush
        #expect(test.left.engine.counters.directRequests == (isDirect ? 80 : 0))
    }

    @Test("XRC requests to shared receive queues by turns allocate no memory", arguments: [false, true])
    func extended(isWrite: Bool) throws {
        let (left, right) = (try Host(1), try Host(2))
        let sender = try left.makeQueuePair(.xrcSend, sqSigAll: true)
        let domain = try right.openXRCDomain()
        let receiver = try right.makeReceiver(domain)
        let queues = try (0..<2).map { _ in
            try right.makeSharedReceiveQueue(domain, domain: right.domain, completions: right.completions)
        }
        try left.connect(sender, to: right.gid, number: receiver.number)
        try right.connect(receiver, to: left.gid, number: sender.number, Connection().reversed)
        let (source, target) = (left.sge(left.take(3000)), right.sge(right.take(3000)))
        let numbers = queues.map { $0.number ?? 0 }
        let completions = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: 16)
        defer { completions.deallocate() }
        var completed = 0
        let allocations = withUnsafePointer(to: source) { source in
            withUnsafePointer(to: target) { target in
                countAllocations { round in
                    for index in 0..<2 {
                        _ = queues[index].stageReceive(id: 1, sgList: target, count: 1)
                        queues[index].commitReceives()
                        var request = SendWQE(id: 1, opcode: isWrite ? .writeWithImmediate : .send)
                        request.remoteSRQN = numbers[index]
                        request.remoteAddress = target.pointee.address
                        request.rkey = right.key
                        _ = sender.stageSend(request, sgList: source, count: 1)
                    }
                    _ = sender.commitSends()
                    exchange(left, right, now: UInt64(round) * 1_000_000)
                    completed += left.completions.poll(into: completions, count: 16)
                    completed += right.completions.poll(into: completions, count: 16)
                }
            }
        }
        #expect(completed == 80 && allocations == 0)
        right.destroy(receiver)
        for queue in queues { try right.destroy(queue) }
    }
}
