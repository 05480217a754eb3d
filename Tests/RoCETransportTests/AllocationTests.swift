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
            .fetchAndAdd,
        ])
    func reliable(opcode: WorkRequestOpcode) throws {
        let left = try Host(1)
        let right = try Host(2)
        let pair = try left.makeQueuePair()
        let peer = try right.makeQueuePair()
        try left.connect(pair, to: right.gid, number: peer.number)
        try right.connect(peer, to: left.gid, number: pair.number, Connection().reversed)
        let sge = left.sge(left.take(opcode == .compareAndSwap || opcode == .fetchAndAdd ? 8 : 3000))
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
}
