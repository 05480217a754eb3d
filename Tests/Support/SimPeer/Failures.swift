import CIBVerbs
import Glibc
import PeerSupport

/// Errors: the completion status at requester and responder, and the work requests that are flushed afterwards.
func failures() {
    forbiddenWrite()
    tooLongMessage()
    notReady()
    localErrors()
    flush()
}

/// An unknown rkey: the requester gets IBV_WC_REM_ACCESS_ERR, the responder goes to ERR, and posted work requests are
/// flushed.
private func forbiddenWrite() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    equal(second.postReceive([bench.sge(Bench.half, 8)], id: 5), 0, "posting a receive")
    for id in 1...3 {
        equal(
            first.post(IBV_WR_RDMA_WRITE, [bench.sge(0, 8)], id: UInt64(id)) {
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

    // After RESET both queue pairs work again, and their queues are empty.
    for queue in [first, second] { equal(queue.enter(IBV_QPS_RESET), 0, "to RESET") }
    first.connect(to: second.number)
    second.connect(to: first.number)
    equal(second.postReceive([bench.sge(Bench.half, 8)], id: 6), 0, "posting a receive")
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 9), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].wr_id, 9, "request")
    equal(bench.poll(bench.receives)[0].wr_id, 6, "request")
    first.destroy()
    second.destroy()
    bench.close()
}

private func tooLongMessage() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    equal(second.postReceive([bench.sge(Bench.half, 100)], id: 5), 0, "posting a receive")
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 101)], id: 1), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_REM_INV_REQ_ERR, "status")
    equal(bench.poll(bench.receives)[0].status, IBV_WC_LOC_LEN_ERR, "status")
    first.destroy()
    second.destroy()
    // UC drops the message; the next message is received into the receive WQE, or ERR flushes it.
    let (third, fourth) = Queue.connected(bench, IBV_QPT_UC)
    for id in [6, 7] as [UInt64] {
        equal(fourth.postReceive([bench.sge(Bench.half, 100)], id: id), 0, "posting a receive")
    }
    for size in [101, 100, 101] {
        equal(third.post(IBV_WR_SEND, [bench.sge(0, size)], id: 2), 0, "posting a send")
        bench.succeeds(IBV_WC_SEND)
        if size == 101 { bench.expectNothing(bench.receives) } else { bench.succeeds(receive: 6) }
    }
    equal(fourth.enter(IBV_QPS_ERR), 0, "to ERR")
    let flushed = bench.poll(bench.receives)[0]
    check(flushed.status == IBV_WC_WR_FLUSH_ERR && flushed.wr_id == 7, "\(flushed.status) \(flushed.wr_id)")
    third.destroy()
    fourth.destroy()
    bench.close()
}

/// Without a posted receive the send fails after rnr_retry retries; with rnr_retry 7 it waits.
private func notReady() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, rnrRetry: 7)
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 1), 0, "posting a send")
    bench.expectNothing(bench.sends)
    equal(second.postReceive([bench.sge(Bench.half, 8)], id: 5), 0, "posting a receive")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_SUCCESS, "status")
    equal(bench.poll(bench.receives)[0].wr_id, 5, "request")
    first.destroy()
    second.destroy()
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC, rnrRetry: 1)
    equal(third.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 2), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_RNR_RETRY_EXC_ERR, "status")
    third.destroy()
    fourth.destroy()
    bench.close()
}

/// An SGE with an unknown lkey: hfi1's kernel refuses the request, mlx5 completes it with an error.
private func localErrors() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    var foreign = bench.sge(0, 8)
    foreign.lkey ^= 0x7700
    let posted = first.post(IBV_WR_SEND, [foreign], id: 1)
    if posted == 0 {
        equal(bench.poll(bench.sends)[0].status, IBV_WC_LOC_PROT_ERR, "status")
    } else {
        equal(posted, EINVAL, "posting with an unknown lkey")
    }
    check(first.post(IBV_WR_SEND, Array(repeating: bench.sge(0, 1), count: 64)) != 0, "64 SGEs")
    check(second.postReceive(Array(repeating: bench.sge(0, 1), count: 64)) != 0, "64 SGEs")
    // A receive into memory beyond the end of the lkey's region.
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC)
    var outside = bench.sge(2 * Bench.half - 4, 8)
    outside.length = 8
    equal(fourth.postReceive([outside], id: 3), 0, "posting a receive")
    equal(third.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 4), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_REM_OP_ERR, "status")
    equal(bench.poll(bench.receives)[0].status, IBV_WC_LOC_PROT_ERR, "status")
    for queue in [first, second, third, fourth] { queue.destroy() }
    bench.close()
}

/// A queue pair that the program moves to ERR flushes all work requests in order. A full queue refuses posts.
private func flush() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    var posted = 0
    while first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: UInt64(posted)) == 0 {
        posted += 1
        check(posted < 10_000, "a queue without end")
    }
    check(posted >= 15, "room for \(posted)")
    for id in 0..<10 { equal(first.postReceive([bench.sge(0, 8)], id: UInt64(id)), 0, "posting a receive") }
    equal(first.enter(IBV_QPS_ERR), 0, "to ERR")
    let flushed = bench.poll(bench.sends, posted)
    check(flushed.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR }, "statuses")
    equal(flushed.map(\.wr_id), (0..<posted).map { UInt64($0) }, "order")
    equal(bench.poll(bench.receives, 10).map(\.wr_id), (0..<10).map { UInt64($0) }, "order")
    first.destroy()
    second.destroy()
    bench.close()
}

/// The kernel refuses invalid state transitions.
func states() {
    let bench = Bench()
    let queue = Queue(bench, IBV_QPT_RC)
    check(queue.post(IBV_WR_SEND, [bench.sge(0, 8)]) != 0, "a send in RESET")
    equal(queue.send(), EINVAL, "RESET to RTS")
    equal(queue.receive(from: queue.number), EINVAL, "RESET to RTR")
    equal(queue.initialize(), 0, "to INIT")
    equal(queue.send(), EINVAL, "INIT to RTS")
    var attributes = ibv_qp_attr()
    attributes.qp_state = IBV_QPS_RTR
    equal(queue.modify(&attributes, [IBV_QP_STATE]), EINVAL, "RTR without its attributes")
    equal(queue.receive(from: queue.number), 0, "to RTR")
    check(queue.post(IBV_WR_SEND, [bench.sge(0, 8)]) != 0, "a send in RTR")
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

/// ibv_resize_cq(3) to larger and smaller sizes, with unpolled completions in the queue.
func resizing() {
    let bench = Bench(entries: 16)
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 200)
    var next: UInt64 = 0
    for size in [64, 300, 20, 1000, 11] as [Int32] {
        for _ in 0..<10 {
            equal(second.postReceive([bench.sge(Bench.half, 8)], id: next), 0, "posting a receive")
            equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: next, flags: []), 0, "posting a send")
            next += 1
        }
        _ = sim?.pointee.step(0)
        equal(library.resizeCompletions(bench.receives, size), 0, "resizing to \(size)")
        check(bench.receives.pointee.cqe >= size, "room for \(bench.receives.pointee.cqe)")
        equal(
            bench.poll(bench.receives, 10).map(\.wr_id), (next - 10..<next).map { UInt64($0) }, "completions after it")
        equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: next), 0, "posting a send")
        equal(second.postReceive([bench.sge(Bench.half, 8)], id: next), 0, "posting a receive")
        equal(bench.poll(bench.receives)[0].wr_id, next, "a completion in the new one")
        _ = bench.poll(bench.sends)
        next += 1
    }
    first.destroy()
    second.destroy()
    bench.close()
}
