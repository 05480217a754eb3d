import CIBVerbs
import Glibc
import PeerSupport

/// Memory windows of type 2: bound, written to, invalidated by the peer (IBV_WR_SEND_WITH_INV) and locally
/// (IBV_WR_LOCAL_INV).
func windows() {
    let bench = Bench()
    guard let window = ibv_alloc_mw(bench.domain, IBV_MW_TYPE_2) else {
        // hfi1 has no memory windows.
        check(errno == EOPNOTSUPP || errno == ENOSYS, "errno \(errno)")
        return bench.close()
    }
    let access =
        IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_MW_BIND.rawValue
    let region = have(library.register(bench.domain, bench.memory, 2 * Bench.half, Int32(access)), "a region")
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    var key = window.pointee.rkey

    func open() {
        key = ibv_inc_rkey(key)
        equal(
            second.post(IBV_WR_BIND_MW, []) {
                $0.bind_mw.mw = window
                $0.bind_mw.rkey = key
                $0.bind_mw.bind_info.mr = region
                $0.bind_mw.bind_info.addr = bench.address(Bench.half + 100)
                $0.bind_mw.bind_info.length = 50
                $0.bind_mw.bind_info.mw_access_flags = IBV_ACCESS_REMOTE_WRITE.rawValue
            }, 0, "opening the window")
        bench.succeeds(IBV_WC_BIND_MW)
    }
    func write(_ offset: Int, _ length: Int) -> ibv_wc_status {
        equal(
            first.post(IBV_WR_RDMA_WRITE, [bench.sge(0, length)]) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half + offset)
                $0.wr.rdma.rkey = key
            }, 0, "posting a write")
        return bench.poll(bench.sends)[0].status
    }
    func restart() {
        for queue in [first, second] { equal(queue.enter(IBV_QPS_RESET), 0, "to RESET") }
        first.connect(to: second.number)
        second.connect(to: first.number)
        equal(asynchronousEvent(bench).event_type, IBV_EVENT_QP_ACCESS_ERR, "event")
    }

    open()
    bench.fill(0, 50, seed: 3)
    equal(write(100, 50), IBV_WC_SUCCESS, "a write into the window")
    check(bench.isFilled(Bench.half + 100, 50, seed: 3), "50 bytes arrive as they were")
    // Invalidated by the peer.
    equal(second.postReceive([bench.sge(Bench.half, 8)]), 0, "posting a receive")
    equal(
        first.post(IBV_WR_SEND_WITH_INV, [bench.sge(0, 8)]) { $0.invalidate_rkey = key }, 0, "posting a send")
    bench.succeeds(IBV_WC_SEND)
    let arrival = bench.poll(bench.receives)[0]
    check(arrival.wc_flags & IBV_WC_WITH_INV.rawValue != 0, "flags \(arrival.wc_flags)")
    equal(arrival.invalidated_rkey, key, "the key that was closed")
    equal(write(100, 1), IBV_WC_REM_ACCESS_ERR, "a write into a closed window")
    restart()
    // A write beyond the window's end; local invalidation.
    open()
    equal(write(101, 50), IBV_WC_REM_ACCESS_ERR, "a write over the window's end")
    restart()
    equal(
        second.post(IBV_WR_LOCAL_INV, []) { $0.invalidate_rkey = key }, 0, "closing the window")
    bench.succeeds(IBV_WC_LOCAL_INV)
    equal(write(100, 1), IBV_WC_REM_ACCESS_ERR, "a write into a closed window")
    first.destroy()
    second.destroy()
    equal(ibv_dealloc_mw(window), 0, "freeing the window")
    equal(library.deregister(region), 0, "deregistering")
    bench.close()
}

/// Two connected queue pairs with `ibv_wr_…` builders (`struct ibv_qp_ex`), and an extended completion queue
/// (`struct ibv_cq_ex`).
struct ExtendedQueues {
    let completions: UnsafeMutablePointer<ibv_cq_ex>
    let first: Queue
    let second: Queue
    /// The builder of `first`.
    let builder: UnsafeMutablePointer<ibv_qp_ex>

    /// Nil when the library does not support extended completion queues.
    init?(_ bench: Bench) {
        var wanted = ibv_cq_init_attr_ex()
        wanted.cqe = 64
        wanted.channel = bench.channel
        wanted.wc_flags =
            UInt64(IBV_WC_EX_WITH_BYTE_LEN.rawValue | IBV_WC_EX_WITH_IMM.rawValue)
            | UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
        guard let completions = library.createExtendedCompletions(bench.context, &wanted) else {
            check(errno == EOPNOTSUPP || errno == ENOSYS, "errno \(errno)")
            return nil
        }
        let plain = have(ibv_cq_ex_to_cq(completions), "its plain form")
        func make() -> UnsafeMutablePointer<ibv_qp> {
            var attributes = ibv_qp_init_attr_ex()
            attributes.send_cq = plain
            attributes.recv_cq = plain
            attributes.cap = ibv_qp_cap(
                max_send_wr: 16, max_recv_wr: 16, max_send_sge: 2, max_recv_sge: 2, max_inline_data: 64)
            attributes.qp_type = IBV_QPT_RC
            attributes.pd = bench.domain
            attributes.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attributes.send_ops_flags =
                UInt64(IBV_QP_EX_WITH_SEND_WITH_IMM.rawValue | IBV_QP_EX_WITH_RDMA_WRITE.rawValue)
            return have(library.createExtendedPair(bench.context, &attributes), "an extended queue pair")
        }
        self.completions = completions
        first = Queue(bench, adopting: make())
        second = Queue(bench, adopting: make())
        first.connect(to: second.number)
        second.connect(to: first.number)
        builder = have(library.builders(first.pair), "its builders")
    }

    func destroy() {
        first.destroy()
        second.destroy()
        equal(library.destroyCompletions(ibv_cq_ex_to_cq(completions)), 0, "destroying the completion queue")
    }
}

/// Posts with the `ibv_wr_…` builders, and polls with ibv_start_poll(3), with timestamps.
func builders() {
    let bench = Bench()
    guard let extended = ExtendedQueues(bench) else { return bench.close() }
    let (builder, queue, second) = (extended.builder, extended.completions, extended.second)
    bench.fill(0, 300, seed: 4)
    var lastTime: UInt64 = 0
    for round in 0..<40 {
        equal(second.postReceive([bench.sge(Bench.half, 100)], id: 8), 0, "posting a receive")
        ibv_wr_start(builder)
        builder.pointee.wr_id = 1
        builder.pointee.wr_flags = 0
        ibv_wr_rdma_write(builder, bench.region.pointee.rkey, bench.address(Bench.half + 1000))
        ibv_wr_set_sge(builder, bench.region.pointee.lkey, bench.address(0), 200)
        builder.pointee.wr_id = 2
        builder.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
        ibv_wr_send_imm(builder, UInt32(round).bigEndian)
        ibv_wr_set_inline_data(builder, bench.memory, 30)
        equal(ibv_wr_complete(builder), 0, "completing a list of requests")
        _ = sim?.pointee.step(0)
        var wanted = ibv_poll_cq_attr()
        equal(ibv_start_poll(queue, &wanted), 0, "starting to poll")
        var found: [UInt64] = []
        while true {
            found.append(queue.pointee.wr_id)
            equal(queue.pointee.status, IBV_WC_SUCCESS, "status")
            let time = ibv_wc_read_completion_ts(queue)
            check(time > lastTime, "the time of a completion")
            lastTime = time
            if queue.pointee.wr_id == 8 {
                equal(ibv_wc_read_byte_len(queue), 30, "length")
                equal(ibv_wc_read_imm_data(queue), UInt32(round).bigEndian, "immediate data")
            }
            if ibv_next_poll(queue) == ENOENT { break }
        }
        ibv_end_poll(queue)
        equal(Set(found), [2, 8], "completions")
        equal(found.count, 2, "completions")
        check(bench.isFilled(Bench.half + 1000, 200, seed: 4), "200 bytes arrive as they were")
        check(bench.isFilled(Bench.half, 30, seed: 4), "30 bytes arrive as they were")
    }
    extended.destroy()
    bench.close()
}
