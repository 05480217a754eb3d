import CIBVerbs
import Glibc
import PeerSupport

/// A shared receive queue of two queue pairs, IBV_EVENT_SRQ_LIMIT_REACHED and IBV_EVENT_QP_LAST_WQE_REACHED.
func sharedReceives() {
    let bench = Bench()
    var attributes = ibv_srq_init_attr()
    attributes.attr.max_wr = 15
    attributes.attr.max_sge = 2
    let shared = have(library.createShared(bench.domain, &attributes), "a shared receive queue")
    check(attributes.attr.max_wr >= 15, "room for \(attributes.attr.max_wr)")
    // ibv_create_qp(3): max_recv_wr and max_recv_sge are ignored with a shared receive queue. libmlx5 checks them.
    let isVendorMlx5 = !(library is NativeLibrary) && bench.isNamed("mlx5")
    for ignored in isVendorMlx5 ? [0, 4] : [0, 1 << 20, .max] as [UInt32] {
        Queue(bench, IBV_QPT_RC, shared: shared, ignored: ignored).destroy()
    }
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, shared: shared)
    for round in 0..<20 {
        for index in 0..<10 {
            equal(postReceive(shared, [bench.sge(Bench.half, 100)], id: UInt64(10 * round + index)), 0, "receive")
        }
        if round == 7 {
            var limit = ibv_srq_attr()
            limit.srq_limit = 4
            equal(library.modifyShared(shared, &limit, Int32(IBV_SRQ_LIMIT.rawValue)), 0, "setting the limit")
        }
        for index in 0..<10 {
            let sender = index & 1 == 0 ? first : second
            equal(sender.post(IBV_WR_SEND, [bench.sge(0, index + 1)]), 0, "posting a send")
            bench.succeeds(IBV_WC_SEND)
        }
        let arrivals = bench.poll(bench.receives, 10)
        equal(arrivals.map(\.byte_len), (1...10).map { UInt32($0) }, "lengths")
        equal(Set(arrivals.map(\.wr_id)), Set((0..<10).map { UInt64(10 * round + $0) }), "requests")
        equal(arrivals[0].qp_num, second.number, "the receiving QPN")
        if round == 7 {
            let event = asynchronousEvent(bench)
            equal(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED, "event")
            equal(event.element.srq, shared, "the event's object")
        }
    }
    equal(first.enter(IBV_QPS_ERR), 0, "to ERR")
    _ = sim?.pointee.step(0)
    let last = asynchronousEvent(bench)
    equal(last.event_type, IBV_EVENT_QP_LAST_WQE_REACHED, "event")
    equal(last.element.qp, first.pair, "the event's object")
    first.destroy()
    second.destroy()
    equal(library.destroyShared(shared), 0, "destroying the shared receive queue")
    bench.close()
}

/// Gets and acknowledges the next asynchronous event.
func asynchronousEvent(_ bench: Bench) -> ibv_async_event {
    var event = ibv_async_event()
    var waiting = pollfd(fd: bench.context.pointee.async_fd, events: Int16(POLLIN), revents: 0)
    equal(poll(&waiting, 1, 0), 1, "an asynchronous event waits")
    equal(library.getAsynchronousEvent(bench.context, &event), 0, "getting an event")
    ibv_ack_async_event(&event)
    return event
}

/// Completion events: none without arming, one for each arming, and with `solicited_only` for solicited completions
/// only.
func completionEvents() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    func isWaiting() -> Bool {
        _ = sim?.pointee.step(0)
        var waiting = pollfd(fd: bench.channel.pointee.fd, events: Int16(POLLIN), revents: 0)
        return poll(&waiting, 1, 0) == 1
    }
    func message(_ flags: [ibv_send_flags]) {
        equal(second.postReceive([bench.sge(Bench.half, 10)]), 0, "posting a receive")
        equal(first.post(IBV_WR_SEND, [bench.sge(0, 10)], flags: flags), 0, "posting a send")
    }
    func takeEvent() {
        var queue: UnsafeMutablePointer<ibv_cq>?
        equal(library.getCompletionEvent(bench.channel, &queue), 0, "getting an event")
        equal(queue, bench.receives, "the event's object")
    }
    message([])
    check(!isWaiting(), "an event without arming")
    _ = bench.poll(bench.receives)
    for _ in 0..<10 {
        equal(ibv_req_notify_cq(bench.receives, 0), 0, "asking for an event")
        check(!isWaiting(), "an event before a completion")
        message([])
        check(isWaiting(), "no event")
        message([])
        takeEvent()
        check(!isWaiting(), "a second event")
        _ = bench.poll(bench.receives, 2)
    }
    equal(ibv_req_notify_cq(bench.receives, 1), 0, "asking for a solicited event")
    message([])
    check(!isWaiting(), "an event that was not solicited")
    message([IBV_SEND_SOLICITED])
    check(isWaiting(), "no solicited event")
    takeEvent()
    _ = bench.poll(bench.receives, 2)
    ibv_ack_cq_events(bench.receives, 11)
    first.destroy()
    second.destroy()
    bench.close()
}

/// Destroying an object waits until its events that were read are acknowledged: the kernel counts them.
func acknowledgement() {
    let bench = Bench()
    let queue = have(library.createCompletions(bench.context, 4, nil, bench.channel, 0), "a completion queue")
    var attributes = ibv_qp_init_attr()
    attributes.send_cq = queue
    attributes.recv_cq = queue
    attributes.cap = ibv_qp_cap(
        max_send_wr: 4, max_recv_wr: 4, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0)
    attributes.qp_type = IBV_QPT_RC
    let pair = have(library.createPair(bench.domain, &attributes), "a queue pair")
    equal(library.destroyCompletions(queue), EBUSY, "destroying a completion queue that is used")
    if let sim {
        equal(sim.pointee.inject(0, Int32(IBV_EVENT_QP_FATAL.rawValue), pair.pointee.qp_num), 0, "an event")
        var event = ibv_async_event()
        equal(library.getAsynchronousEvent(bench.context, &event), 0, "getting an event")
        equal(event.event_type, IBV_EVENT_QP_FATAL, "event")
        equal(event.element.qp, pair, "the event's object")
        let start = Clock.now
        let acknowledger = Thread { [event] in
            usleep(20_000)
            var event = event
            ibv_ack_async_event(&event)
        }
        equal(library.destroyPair(pair), 0, "destroying a queue pair")
        acknowledger.join()
        check(Clock.now - start >= 20_000_000, "the queue pair went before its event was acknowledged")
        // An unread event is removed with its object.
        equal(sim.pointee.inject(0, Int32(IBV_EVENT_CQ_ERR.rawValue), queue.pointee.handle), 0, "an event")
    } else {
        equal(library.destroyPair(pair), 0, "destroying a queue pair")
    }
    equal(library.destroyCompletions(queue), 0, "destroying a completion queue")
    var waiting = pollfd(fd: bench.context.pointee.async_fd, events: Int16(POLLIN), revents: 0)
    equal(poll(&waiting, 1, 0), 0, "events of what is gone")
    bench.close()
}

/// The device fails: it raises IBV_EVENT_DEVICE_FATAL, and commands fail with EIO. With a provider of this package, the
/// data path fails with EIO too, after it has returned the completions from before.
func fatalError() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    let extended = ExtendedQueues(bench)
    guard let sim else { return }
    equal(first.post(IBV_WR_RDMA_WRITE, [bench.sge(0, 0)]) { $0.wr_id = 7 }, 0, "posting a write")
    _ = sim.pointee.step(0)
    equal(sim.pointee.fail(0), 0, "failing")
    equal(asynchronousEvent(bench).event_type, IBV_EVENT_DEVICE_FATAL, "event")
    check(library.allocateDomain(bench.context) == nil && errno == EIO, "errno \(errno)")
    check(library.createCompletions(bench.context, 4, nil, nil, 0) == nil && errno == EIO, "errno \(errno)")
    equal(first.enter(IBV_QPS_ERR), EIO, "to ERR")
    var completion = ibv_wc()
    equal(ibv_poll_cq(bench.sends, 1, &completion), 1, "completions from before")
    equal(completion.wr_id, 7, "completion")
    let isNative = library is NativeLibrary
    equal(ibv_poll_cq(bench.sends, 1, &completion), isNative ? -EIO : 0, "completions")
    guard isNative else { return }
    equal(ibv_poll_cq(bench.receives, 0, &completion), 0, "asking for no completions")
    equal(first.post(IBV_WR_SEND, [bench.sge(0, 1)]), EIO, "posting a send")
    equal(first.postReceive([bench.sge(0, 1)]), EIO, "posting a receive")
    equal(ibv_req_notify_cq(bench.sends, 0), EIO, "asking for an event")
    if let extended {
        ibv_wr_start(extended.builder)
        ibv_wr_rdma_write(extended.builder, 1, 0)
        equal(ibv_wr_complete(extended.builder), EIO, "completing a list of requests")
        // The lock is free again.
        ibv_wr_start(extended.builder)
        equal(ibv_wr_complete(extended.builder), EIO, "completing an empty list")
        var wanted = ibv_poll_cq_attr()
        equal(ibv_start_poll(extended.completions, &wanted), EIO, "starting to poll")
        extended.destroy()
    }
    first.destroy()
    second.destroy()
    bench.close()
}
