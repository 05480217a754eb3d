import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// With trapped doorbells, the log has each store to a UAR page: its offset, size and value, in order.
func doorbells() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, inline: 64)
    guard let sim, first.inlineLimit > 0 else { return }
    func readStores() -> [uverbs_sim_store] {
        var stores = [uverbs_sim_store](repeating: uverbs_sim_store(), count: 64)
        let count = Int(sim.pointee.stores(0, &stores, 64))
        return Array(stores[..<count])
    }
    _ = readStores()
    var offsets: [UInt32] = []
    for round in 0..<4 {
        equal(second.postReceive([bench.sge(Bench.half, 16)]), 0, "posting a receive")
        equal(
            first.post(IBV_WR_SEND, [bench.sge(0, 16)], flags: [IBV_SEND_SIGNALED, IBV_SEND_INLINE]), 0, "a send")
        let stores = readStores()
        // Without traps there is no log.
        if stores.isEmpty { break }
        if stores.count == 8 { offsets.append(stores[0].offset) }
        check(stores.allSatisfy { $0.size == 8 }, "sizes \(stores.map(\.size))")
        check(stores.count == 1 || stores.count == 8, "\(stores.count) stores")
        for (index, store) in stores.enumerated() {
            equal(store.offset, stores[0].offset + 8 * UInt32(index), "offset")
        }
        // Opcode SEND, the WQE index, the QPN, a size of three octowords.
        let value = stores[0].value
        check(value.3 == 0x0A && value.2 == UInt8(round) && value.7 == 3, "\(value)")
        equal(UInt32(value.4) << 16 | UInt32(value.5) << 8 | UInt32(value.6), first.number, "queue pair")
        bench.succeeds(IBV_WC_SEND)
        _ = bench.poll(bench.receives)
        equal(ibv_req_notify_cq(bench.receives, 0), 0, "asking for an event")
        let arm = readStores()
        check(arm.count == 1 && arm[0].offset == 0x20 && arm[0].size == 8, "stores \(arm.map(\.offset))")
    }
    // BlueFlame alternates between the two buffers of a bfreg.
    for index in offsets.indices.dropFirst() {
        equal(offsets[index], offsets[index - 1] ^ 0x100, "half of the register")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// Stores of every size to a UAR page, and a load: the log has the size of each.
func stores() {
    let bench = Bench()
    // Static UAR page 5, which only a kernel without UAR objects maps. The log has stores only with trapped doorbells.
    let map = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, bench.context.pointee.cmd_fd, 5 << 12)
    guard let sim, let page = map, page != MAP_FAILED else { return bench.close() }
    var log = [uverbs_sim_store](repeating: uverbs_sim_store(), count: 16)
    _ = sim.pointee.stores(0, &log, 16)
    (page + 0x801).assumingMemoryBound(to: UInt8.self).pointee = 0x55
    (page + 0x802).assumingMemoryBound(to: UInt16.self).pointee = 0xAAAA
    (page + 0x804).assumingMemoryBound(to: UInt32.self).pointee = 0x1234_5678
    (page + 0x808).assumingMemoryBound(to: UInt64.self).pointee = 0x5555_AAAA_0000_FFFF
    // The last two bytes of the page.
    (page + 0xFFE).assumingMemoryBound(to: UInt16.self).pointee = 0x0102
    let word = (page + 0x804).assumingMemoryBound(to: UInt32.self).pointee
    let count = Int(sim.pointee.stores(0, &log, 16))
    if count > 0 {
        equal(count, 6, "stores")
        equal(log[..<6].map(\.size), [1, 2, 4, 8, 2, 0], "sizes")
        equal(log[..<6].map(\.offset), [0x801, 0x802, 0x804, 0x808, 0xFFE, 0x804], "places")
        check(log[0].value.0 == 0x55 && log[1].value.1 == 0xAA && log[2].value.3 == 0x12, "values")
        check(log[3].value.0 == 0xFF && log[3].value.7 == 0x55 && log[4].value.0 == 2, "values")
        check(sim.pointee.refusals(0) >= 5, "refusals \(sim.pointee.refusals(0))")
    }
    // A load returns the stored value.
    equal(word, 0x1234_5678, "what was stored")
    munmap(page, 4096)
    sim.pointee.forgive(0)
    bench.close()
}

/// Completions of each status and each type of receive, as the device's codec writes them.
func synthetic() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    guard let sim else { return }
    // A CQE of hfi1 has the wr_id, a CQE of mlx5 the WQE's index.
    let hasWRID = first.inlineLimit == 0
    let statuses = [
        IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR,
        IBV_WC_LOC_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR, IBV_WC_RETRY_EXC_ERR,
        IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_REM_ABORT_ERR, IBV_WC_GENERAL_ERR,
    ]
    for (index, status) in statuses.enumerated() {
        let id = UInt64(1000 + index)
        equal(second.postReceive([bench.sge(Bench.half, 100)], id: id), 0, "posting a receive")
        var wanted = uverbs_sim_completion()
        wanted.tag = hasWRID ? id : UInt64(index)
        wanted.status = status.rawValue
        wanted.opcode = (index & 1 == 0 ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM).rawValue
        wanted.byte_length = UInt32(index * 3)
        wanted.immediate = UInt32(index).bigEndian
        wanted.source_queue_pair = 0xABCD
        wanted.source_lid = 77
        wanted.service_level = 5
        wanted.flags = IBV_WC_WITH_IMM.rawValue
        equal(sim.pointee.complete(0, second.number, &wanted), 0, "a completion")
        var completion = ibv_wc()
        equal(ibv_poll_cq(bench.receives, 1, &completion), 1, "completions")
        equal(completion.status, status, "status")
        equal(completion.wr_id, id, "request")
        equal(completion.qp_num, second.number, "queue pair")
        guard status == IBV_WC_SUCCESS else { continue }
        equal(completion.opcode.rawValue, wanted.opcode, "opcode")
        equal(completion.byte_len, wanted.byte_length, "length")
        equal(completion.imm_data, wanted.immediate, "immediate data")
        equal(completion.src_qp, 0xABCD, "sender")
        equal(completion.slid, 77, "LID of the sender")
        equal(completion.sl, 5, "service level")
    }
    equal(sim.pointee.complete(0, 0xFFFF, nil), ENOENT, "a completion of no queue pair")
    // For the device, these receive WQEs are still posted.
    first.destroy()
    second.destroy()
    bench.close()
}
