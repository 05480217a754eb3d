import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// A shared receive queue of two queue pairs with completion queues of their own: WRs are completed out of order when
/// these are polled in another order. A limit, which the library watches.
func iWARPSharedReceives() {
    let bench = Bench()
    var attributes = ibv_srq_init_attr()
    attributes.attr.max_wr = 15
    attributes.attr.max_sge = 2
    guard let shared = library.createShared(bench.domain, &attributes) else {
        // T4, and drivers with CQEs of 32 bytes.
        check(errno == EINVAL || errno == EOPNOTSUPP, "errno \(errno)")
        return bench.close()
    }
    equal(attributes.attr.max_wr, 15, "room")
    let other = have(library.createCompletions(bench.context, 64, nil, nil, 0), "a completion queue")
    let (first, second) = (Queue(bench, IBV_QPT_RC), Queue(bench, IBV_QPT_RC, shared: shared))
    let (third, fourth) = (Queue(bench, IBV_QPT_RC), Queue(bench, IBV_QPT_RC, shared: shared, receives: other))
    for (one, peer) in [(first, second), (second, first), (third, fourth), (fourth, third)] {
        one.connect(to: peer.number)
    }
    for round in 0..<30 {
        for index in 0..<10 {
            equal(postReceive(shared, [bench.sge(Bench.half, 100)], id: UInt64(10 * round + index)), 0, "receive")
        }
        if round == 7 {
            var limit = ibv_srq_attr()
            limit.srq_limit = 4
            equal(library.modifyShared(shared, &limit, Int32(IBV_SRQ_LIMIT.rawValue)), 0, "setting the limit")
        }
        for index in 0..<10 {
            let sender = index & 1 == 0 ? first : third
            equal(sender.post(IBV_WR_SEND, [bench.sge(0, index + 1)]), 0, "posting a send")
            bench.succeeds(IBV_WC_SEND)
        }
        // Every second WR first.
        let late = bench.poll(other, 5)
        if round & 1 == 0 {
            // Requests that the library must defer until the order is restored.
            equal(postReceive(shared, [bench.sge(Bench.half, 100)], id: 1_000_000), 0, "a deferred receive")
        }
        let early = bench.poll(bench.receives, 5)
        equal(late.map(\.byte_len), [2, 4, 6, 8, 10], "lengths")
        equal(early.map(\.byte_len), [1, 3, 5, 7, 9], "lengths")
        check(late.allSatisfy { $0.qp_num == fourth.number }, "queue pairs")
        let ids = (early + late).sorted { $0.byte_len < $1.byte_len }.map(\.wr_id)
        equal(ids, (0..<10).map { UInt64(10 * round + $0) }, "requests")
        if round & 1 == 0 {
            equal(first.post(IBV_WR_SEND, [bench.sge(0, 1)]), 0, "posting a send")
            bench.succeeds(IBV_WC_SEND)
            equal(bench.poll(bench.receives)[0].wr_id, 1_000_000, "the deferred request")
        }
        if round == 7 {
            let event = asynchronousEvent(bench)
            equal(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED, "event")
            equal(event.element.srq, shared, "the event's object")
        }
    }
    tooLongForShared(bench, shared, first, second)
    for queue in [first, second, third, fourth] { queue.destroy() }
    equal(library.destroyShared(shared), 0, "destroying the shared receive queue")
    equal(library.destroyCompletions(other), 0, "destroying a completion queue")
    bench.close()
}

/// A message longer than the receive WR: the library flushes the WR of the shared receive queue.
private func tooLongForShared(
    _ bench: Bench, _ shared: UnsafeMutablePointer<ibv_srq>, _ first: Queue, _ second: Queue
) {
    equal(postReceive(shared, [bench.sge(Bench.half, 10)], id: 77), 0, "posting a receive")
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 11)], id: 78), 0, "posting a send")
    equal(bench.poll(bench.sends)[0].status, IBV_WC_WR_FLUSH_ERR, "status")
    let flushed = bench.poll(bench.receives)[0]
    check(flushed.status == IBV_WC_WR_FLUSH_ERR && flushed.wr_id == 77, "\(flushed.status) \(flushed.wr_id)")
    equal(asynchronousEvent(bench).event_type, IBV_EVENT_QP_ACCESS_ERR, "event")
}

/// Requests that the peer or the adapter refuses: an asynchronous event where the error was found, ERR on both sides,
/// and every work request is flushed.
func iWARPFailures() {
    refused("an rkey that does not exist", IBV_EVENT_QP_REQ_ERR, atPeer: true) { bench, first, _ in
        first.post(IBV_WR_RDMA_WRITE, [bench.sge(0, 8)], id: 1) {
            $0.wr.rdma.remote_addr = bench.address(Bench.half)
            $0.wr.rdma.rkey = bench.region.pointee.rkey ^ 0x5500
        }
    }
    refused("a READ beyond the region", IBV_EVENT_QP_ACCESS_ERR, atPeer: true) { bench, first, _ in
        first.post(IBV_WR_RDMA_READ, [bench.sge(0, 8)], id: 1) {
            $0.wr.rdma.remote_addr = bench.address(2 * Bench.half - 4)
            $0.wr.rdma.rkey = bench.region.pointee.rkey
        }
    }
    refused("a message longer than the receive WR", IBV_EVENT_QP_ACCESS_ERR, atPeer: true, size: 10) {
        bench, first, _ in
        first.post(IBV_WR_SEND, [bench.sge(0, 11)], id: 1)
    }
    refused("no receive WR", IBV_EVENT_QP_FATAL, atPeer: true, size: nil) { bench, first, _ in
        first.post(IBV_WR_SEND, [bench.sge(0, 11)], id: 1)
    }
    refused("an lkey that does not exist", IBV_EVENT_QP_ACCESS_ERR, atPeer: false) { bench, first, _ in
        var foreign = bench.sge(0, 8)
        foreign.lkey ^= 0x7700
        return first.post(IBV_WR_SEND, [foreign], id: 1)
    }
    refused("an STag to invalidate that does not exist", IBV_EVENT_QP_ACCESS_ERR, atPeer: true) { bench, first, _ in
        first.post(IBV_WR_SEND_WITH_INV, [bench.sge(0, 8)], id: 1) { $0.invalidate_rkey = 0x7777_7777 }
    }
}

private func refused(
    _ what: String, _ event: ibv_event_type, atPeer: Bool, size: Int? = 100,
    _ post: (Bench, Queue, Queue) -> Int32
) {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    if let size { equal(second.postReceive([bench.sge(Bench.half, size)], id: 5), 0, "posting a receive") }
    _ = sim?.pointee.hold(0, 1)
    equal(post(bench, first, second), 0, "posting: \(what)")
    for id in 2...3 { equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: UInt64(id)), 0, "posting a send") }
    _ = sim?.pointee.hold(0, 0)
    let completions = bench.poll(bench.sends, 3)
    check(completions.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR }, "\(what): \(completions.map(\.status))")
    equal(completions.map(\.wr_id), [1, 2, 3], "\(what): requests")
    if size != nil {
        let receive = bench.poll(bench.receives)[0]
        check(receive.status == IBV_WC_WR_FLUSH_ERR && receive.wr_id == 5, "\(what): \(receive.status)")
    }
    let found = asynchronousEvent(bench)
    equal(found.event_type, event, "\(what): event")
    equal(found.element.qp, atPeer ? second.pair : first.pair, "\(what): the event's object")
    check(first.state == IBV_QPS_ERR && second.state == IBV_QPS_ERR, "\(first.state) \(second.state)")
    check(first.post(IBV_WR_SEND, [bench.sge(0, 8)]) != 0, "a send in ERR")
    bench.expectNothing(bench.sends)
    bench.expectNothing(bench.receives)
    first.destroy()
    second.destroy()
    bench.close()
}

/// The end of a connection, from each side and in each way, flushes all work requests in order, once; on a completion
/// queue that several queue pairs share, those of this connection alone. It raises a completion event.
func iWARPFlush() {
    for end in [UVERBS_SIM_CLOSE, UVERBS_SIM_TERMINATE, UVERBS_SIM_ABORT] {
        for isPeers in [false, true] {
            flush(bench: Bench(), isPeers: isPeers) { first, second in
                equal(
                    have(sim, "a simulator").pointee.disconnect(
                        0, (isPeers ? second : first).number, Int32(end.rawValue)), 0,
                    "disconnecting")
            }
        }
    }
    flush(bench: Bench(), isPeers: false) { first, _ in equal(first.enter(IBV_QPS_ERR), 0, "to ERR") }
    flush(bench: Bench(), isPeers: false) { first, _ in equal(first.enter(IBV_QPS_SQD), 0, "to SQD") }
}

private func flush(bench: Bench, isPeers: Bool, _ end: (Queue, Queue) -> Void) {
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    _ = sim?.pointee.hold(0, 1)
    var posted = 0
    while first.post(
        IBV_WR_SEND, [bench.sge(0, 8)], id: UInt64(posted), flags: posted & 1 == 0 ? [IBV_SEND_SIGNALED] : [])
        == 0
    {
        posted += 1
        check(posted < 10_000, "a queue without end")
    }
    check(posted >= 15, "room for \(posted)")
    for id in 0..<10 { equal(first.postReceive([bench.sge(0, 8)], id: UInt64(id)), 0, "posting a receive") }
    func useOther() {
        equal(fourth.postReceive([bench.sge(Bench.half, 8)], id: 40), 0, "posting a receive")
        equal(third.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 41), 0, "posting a send")
    }
    // libcxgb4 44 loses CQEs of other queue pairs when it flushes one: see Queue.connect.
    let isNative = library is NativeLibrary
    if isNative { useOther() }
    end(first, second)
    _ = sim?.pointee.hold(0, 0)
    _ = sim?.pointee.step(0)
    var waiting = pollfd(fd: bench.channel.pointee.fd, events: Int16(POLLIN), revents: 0)
    equal(poll(&waiting, 1, 0), 1, "a completion event")
    var sends = bench.poll(bench.sends, isNative ? posted + 1 : posted)
    var receives = bench.poll(bench.receives, isNative ? 11 : 10)
    if !isNative {
        useOther()
        sends += bench.poll(bench.sends)
        receives += bench.poll(bench.receives)
    }
    let flushedSends = sends.filter { $0.qp_num == first.number }
    check(flushedSends.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR }, "statuses")
    equal(flushedSends.map(\.wr_id), (0..<posted).map { UInt64($0) }, "order of sends")
    let flushedReceives = receives.filter { $0.qp_num == first.number }
    equal(flushedReceives.map(\.wr_id), (0..<10).map { UInt64($0) }, "order of receives")
    // The other connection goes on.
    equal(sends.first { $0.qp_num == third.number }?.status, IBV_WC_SUCCESS, "the other connection's send")
    equal(receives.first { $0.qp_num == fourth.number }?.wr_id, 40, "the other connection's receive")
    bench.expectNothing(bench.sends)
    bench.expectNothing(bench.receives)
    for queue in [first, second, third, fourth] { queue.destroy() }
    // The events were not read: the channel forgets them with the queues.
    bench.close()
}

/// The kernel's states: a queue pair reaches RTS by its connection manager alone.
func iWARPStates() {
    let bench = Bench()
    let sim = have(sim, "a simulator")
    let (first, second) = (Queue(bench, IBV_QPT_RC), Queue(bench, IBV_QPT_RC))
    equal(first.state, IBV_QPS_INIT, "state of a new queue pair")
    equal(first.initialize(), 0, "to INIT")
    equal(first.enter(IBV_QPS_RTR), 0, "RTR, which is ignored")
    equal(first.enter(IBV_QPS_RTS), EINVAL, "to RTS by the program")
    first.connect(to: second.number)
    equal(first.state, IBV_QPS_RTS, "state of a connected queue pair")
    equal(sim.pointee.connect(0, first.number, 0, second.number, 1), EINVAL, "connecting twice")
    equal(first.initialize(), EIO, "access flags in RTS")
    // Requests wait until the peer is connected.
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)]), 0, "posting a send")
    bench.expectNothing(bench.sends)
    equal(second.postReceive([bench.sge(Bench.half, 8)]), 0, "posting a receive")
    second.connect(to: first.number)
    bench.succeeds(IBV_WC_SEND)
    bench.succeeds(receive: 2)
    equal(sim.pointee.disconnect(0, second.number, Int32(UVERBS_SIM_CLOSE.rawValue)), 0, "disconnecting")
    _ = sim.pointee.step(0)
    check(first.state == IBV_QPS_INIT && second.state == IBV_QPS_INIT, "\(first.state) \(second.state)")
    equal(sim.pointee.disconnect(0, second.number, Int32(UVERBS_SIM_CLOSE.rawValue)), ENOTCONN, "again")
    equal(sim.pointee.connect(0, first.number, 0, second.number, 1), EINVAL, "connecting again")
    equal(first.enter(IBV_QPS_ERR), 0, "to ERR")
    equal(first.enter(IBV_QPS_RTS), EINVAL, "ERR to RTS")
    equal(sim.pointee.connect(0, 1, 0, 2, 1), ENOENT, "connecting what is not there")
    first.destroy()
    // Destroying a connected queue pair resets its connection.
    let (third, fourth) = Queue.connected(bench, IBV_QPT_RC)
    third.destroy()
    _ = sim.pointee.step(0)
    equal(fourth.state, IBV_QPS_ERR, "state after the peer's destruction")
    fourth.destroy()
    second.destroy()
    // A connection without a peer ends at once.
    let lonely = Queue(bench, IBV_QPT_RC)
    lonely.connect(to: lonely.number + 100)
    equal(lonely.enter(IBV_QPS_SQD), 0, "to SQD")
    lonely.destroy()
    bench.close()
}
