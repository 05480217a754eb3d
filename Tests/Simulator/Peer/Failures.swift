import CIBVerbs
import Glibc
import PeerSupport

/// What goes wrong on the way: the status that each side gets, and what is flushed after it.
func failures() {
    forbiddenWrite()
    tooLongMessage()
    notReady()
    localErrors()
    flush()
}

/// A key that the peer does not have: the requester is told, the peer is finished, and what waits is flushed.
private func forbiddenWrite() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    equal(second.postReceive([bench.segment(Bench.half, 8)], id: 5), 0, "posting a receive")
    for id in 1...3 {
        equal(
            first.post(IBV_WR_RDMA_WRITE, [bench.segment(0, 8)], id: UInt64(id)) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half)
                $0.wr.rdma.rkey = bench.region.pointee.rkey ^ 0x5500
            }, 0, "posting a write")
    }
    let completions = bench.poll(bench.sends, 3)
    equal(
        completions.map(\.status), [IBV_WC_REM_ACCESS_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_WR_FLUSH_ERR], "statuses")
    equal(completions.map(\.wr_id), [1, 2, 3], "requests")
    let receive = bench.poll(bench.receives)[0]
    check(receive.status == IBV_WC_WR_FLUSH_ERR && receive.wr_id == 5, "\(receive.status)")
    equal(asynchronousEvent(bench).event_type, IBV_EVENT_QP_ACCESS_ERR, "event")
    check(first.state == IBV_QPS_ERR && second.state == IBV_QPS_ERR, "\(first.state) \(second.state)")

    // Back to life by way of RESET: nothing is left of before.
    for queue in [first, second] { equal(queue.enter(IBV_QPS_RESET), 0, "to RESET") }
    first.connect(to: second.number)
    second.connect(to: first.number)
    equal(second.postReceive([bench.segment(Bench.half, 8)], id: 6), 0, "posting a receive")
    equal(first.post(IBV_WR_SEND, [bench.segment(0, 8)], id: 9), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].wr_id, 9, "request")
    equal(bench.poll(bench.receives)[0].wr_id, 6, "request")
    first.destroy()
    second.destroy()
    bench.close()
}

private func tooLongMessage() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    equal(second.postReceive([bench.segment(Bench.half, 100)], id: 5), 0, "posting a receive")
    equal(first.post(IBV_WR_SEND, [bench.segment(0, 101)], id: 1), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_REM_INV_REQ_ERR, "status")
    equal(bench.poll(bench.receives)[0].status, IBV_WC_LOC_LEN_ERR, "status")
    first.destroy()
    second.destroy()
    bench.close()
}

/// No receive is posted: with a count of tries the send fails, without it waits.
private func notReady() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, notReadyRetries: 7)
    equal(first.post(IBV_WR_SEND, [bench.segment(0, 8)], id: 1), 0, "posting a send")
    bench.expectNothing(bench.sends)
    equal(second.postReceive([bench.segment(Bench.half, 8)], id: 5), 0, "posting a receive")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_SUCCESS, "status")
    equal(bench.poll(bench.receives)[0].wr_id, 5, "request")
    first.destroy()
    second.destroy()
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC, notReadyRetries: 1)
    equal(third.post(IBV_WR_SEND, [bench.segment(0, 8)], id: 2), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_RNR_RETRY_EXC_ERR, "status")
    third.destroy()
    fourth.destroy()
    bench.close()
}

/// A list whose key opens nothing: hfi1's kernel refuses the request, others complete it with an error.
private func localErrors() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    var foreign = bench.segment(0, 8)
    foreign.lkey ^= 0x7700
    let posted = first.post(IBV_WR_SEND, [foreign], id: 1)
    if posted == 0 {
        equal(bench.poll(bench.sends)[0].status, IBV_WC_LOC_PROT_ERR, "status")
    } else {
        equal(posted, EINVAL, "posting with a key of nobody")
    }
    check(first.post(IBV_WR_SEND, Array(repeating: bench.segment(0, 1), count: 64)) != 0, "a list of 64 elements")
    check(second.postReceive(Array(repeating: bench.segment(0, 1), count: 64)) != 0, "a list of 64 elements")
    // A receive into memory that the key does not open.
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC)
    var outside = bench.segment(2 * Bench.half - 4, 8)
    outside.length = 8
    equal(fourth.postReceive([outside], id: 3), 0, "posting a receive")
    equal(third.post(IBV_WR_SEND, [bench.segment(0, 8)], id: 4), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_REM_OP_ERR, "status")
    equal(bench.poll(bench.receives)[0].status, IBV_WC_LOC_PROT_ERR, "status")
    for queue in [first, second, third, fourth] { queue.destroy() }
    bench.close()
}

/// Into ERR by the program: everything is flushed, in order; a queue that is full says so.
private func flush() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    var posted = 0
    while first.post(IBV_WR_SEND, [bench.segment(0, 8)], id: UInt64(posted)) == 0 {
        posted += 1
        check(posted < 10_000, "a queue without end")
    }
    check(posted >= 15, "room for \(posted)")
    for id in 0..<10 { equal(first.postReceive([bench.segment(0, 8)], id: UInt64(id)), 0, "posting a receive") }
    equal(first.enter(IBV_QPS_ERR), 0, "to ERR")
    let flushed = bench.poll(bench.sends, posted)
    check(flushed.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR }, "statuses")
    equal(flushed.map(\.wr_id), (0..<posted).map { UInt64($0) }, "order")
    equal(bench.poll(bench.receives, 10).map(\.wr_id), (0..<10).map { UInt64($0) }, "order")
    first.destroy()
    second.destroy()
    bench.close()
}

/// What the state machine does not allow is refused by the kernel, whatever the library thinks.
func states() {
    let bench = Bench()
    let queue = Queue(bench, IBV_QPT_RC)
    check(queue.post(IBV_WR_SEND, [bench.segment(0, 8)]) != 0, "a send in RESET")
    equal(queue.send(), EINVAL, "RESET to RTS")
    equal(queue.receive(from: queue.number), EINVAL, "RESET to RTR")
    equal(queue.initialize(), 0, "to INIT")
    equal(queue.send(), EINVAL, "INIT to RTS")
    var attributes = ibv_qp_attr()
    attributes.qp_state = IBV_QPS_RTR
    equal(queue.modify(&attributes, [IBV_QP_STATE]), EINVAL, "RTR without its attributes")
    equal(queue.receive(from: queue.number), 0, "to RTR")
    check(queue.post(IBV_WR_SEND, [bench.segment(0, 8)]) != 0, "a send in RTR")
    equal(queue.receive(from: queue.number), EINVAL, "RTR to RTR")
    equal(queue.send(), 0, "to RTS")
    equal(queue.enter(IBV_QPS_SQD), 0, "to SQD")
    equal(queue.enter(IBV_QPS_RTS), 0, "back to RTS")
    equal(queue.enter(IBV_QPS_ERR), 0, "to ERR")
    equal(queue.enter(IBV_QPS_RTS), EINVAL, "ERR to RTS")
    equal(queue.enter(IBV_QPS_RESET), 0, "to RESET")
    if let sim { check(sim.pointee.refusals(0) >= 5, "refusals: \(sim.pointee.refusals(0))") }
    queue.destroy()
    bench.close()
}

/// A completion queue gets longer and shorter with completions in it.
func resizing() {
    let bench = Bench(entries: 16)
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 200)
    var next: UInt64 = 0
    for size in [64, 300, 20, 1000, 11] as [Int32] {
        for _ in 0..<10 {
            equal(second.postReceive([bench.segment(Bench.half, 8)], id: next), 0, "posting a receive")
            equal(first.post(IBV_WR_SEND, [bench.segment(0, 8)], id: next, flags: []), 0, "posting a send")
            next += 1
        }
        _ = sim?.pointee.step(0)
        equal(library.resizeCompletions(bench.receives, size), 0, "resizing to \(size)")
        check(bench.receives.pointee.cqe >= size, "room for \(bench.receives.pointee.cqe)")
        equal(
            bench.poll(bench.receives, 10).map(\.wr_id), (next - 10..<next).map { UInt64($0) }, "completions after it")
        equal(first.post(IBV_WR_SEND, [bench.segment(0, 8)], id: next), 0, "posting a send")
        equal(second.postReceive([bench.segment(Bench.half, 8)], id: next), 0, "posting a receive")
        equal(bench.poll(bench.receives)[0].wr_id, next, "a completion in the new one")
        _ = bench.poll(bench.sends)
        next += 1
    }
    first.destroy()
    second.destroy()
    bench.close()
}
