import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// The generation of the adapter, from the device's part number: 4, 5 or 6.
private func generation(_ bench: Bench) -> UInt32 {
    var attributes = ibv_device_attr()
    equal(library.queryDevice(bench.context, &attributes), 0, "querying the device")
    return attributes.vendor_part_id >> 12 & 0xF
}

private func readStores() -> [uverbs_sim_store] {
    var stores = [uverbs_sim_store](repeating: uverbs_sim_store(), count: 64)
    let count = Int(sim?.pointee.stores(0, &stores, 64) ?? 0)
    return Array(stores[..<count])
}

/// The stores to doorbell pages: 4 bytes, or the 64 bytes of a WR of one slot to a write-combining doorbell.
func iWARPDoorbells() {
    let bench = Bench()
    let isT4 = generation(bench) == 4
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, inline: 280)
    _ = readStores()
    for (size, slots) in [(8, 1), (100, 3)] {
        equal(second.postReceive([bench.sge(Bench.half, 200)]), 0, "posting a receive")
        let receive = readStores()
        // Without traps there is no log.
        if receive.isEmpty { break }
        equal(
            first.post(IBV_WR_SEND, [bench.sge(0, size)], flags: [IBV_SEND_SIGNALED, IBV_SEND_INLINE]), 0, "a send")
        let send = readStores()
        let isCombined = send.reduce(0) { $0 + $1.size } == 64
        check(isCombined ? slots == 1 && !isT4 : send.count == 1 && send[0].size == 4, "\(send.map(\.size))")
        if isCombined {
            check(send[0].offset & 0x7F == 64 && send[0].value.0 == 0x15, "\(send[0].offset) \(send[0].value)")
        } else {
            equal(send[0].offset & 0x7F, isT4 ? 0 : 8, "offset of the doorbell")
            equal(send[0].value.0, UInt8(slots), "slots")
        }
        bench.succeeds(IBV_WC_SEND)
        bench.succeeds(receive: 2)
        _ = readStores()
        equal(ibv_req_notify_cq(bench.receives, 0), 0, "asking for an event")
        let arm = readStores()
        check(arm.count == 1 && arm[0].size == 4 && arm[0].offset == (isT4 ? 4 : 20), "\(arm.map(\.offset))")
        equal(arm[0].value.1 >> 5, 6, "timer")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// T4 drops doorbells: while `db_off` is set, the library rings them by MODIFY_QP.
func iWARPDroppedDoorbells() {
    let bench = Bench()
    guard let sim, generation(bench) == 4 else {
        equal(sim?.pointee.stop_doorbells(0, 1) ?? EOPNOTSUPP, EOPNOTSUPP, "T5 and T6")
        return bench.close()
    }
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    for round in 0..<20 {
        bench.fill(0, 32, seed: round)
        equal(sim.pointee.stop_doorbells(0, 1), 0, "stopping the doorbells")
        _ = readStores()
        for index in 0..<3 {
            equal(second.postReceive([bench.sge(Bench.half, 32)], id: UInt64(index)), 0, "posting a receive")
            equal(first.post(IBV_WR_SEND, [bench.sge(0, 32)], id: UInt64(10 + index)), 0, "posting a send")
        }
        check(readStores().isEmpty, "a doorbell while db_off is set")
        bench.expectNothing(bench.sends)
        equal(sim.pointee.stop_doorbells(0, 0), 0, "resuming the doorbells")
        equal(bench.poll(bench.sends, 3).map(\.wr_id), [10, 11, 12], "requests")
        equal(bench.poll(bench.receives, 3).map(\.wr_id), [0, 1, 2], "requests")
        equal(second.postReceive([bench.sge(Bench.half, 32)], id: 3), 0, "posting a receive")
        equal(first.post(IBV_WR_SEND, [bench.sge(0, 32)], id: 13), 0, "posting a send")
        bench.succeeds(IBV_WC_SEND)
        bench.succeeds(receive: 3)
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// More CQEs than a completion queue holds: polling fails.
func iWARPOverflow() {
    let bench = Bench(entries: 4)
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    let sim = have(sim, "a simulator")
    var wanted = uverbs_sim_completion()
    wanted.status = IBV_WC_SUCCESS.rawValue
    wanted.opcode = IBV_WC_RECV.rawValue
    equal(second.postReceive([bench.sge(Bench.half, 100)]), 0, "posting a receive")
    equal(sim.pointee.complete(0, second.number, &wanted), 0, "a completion")
    bench.succeeds(receive: 2)
    // The queue has 63 entries.
    for _ in 0..<70 { equal(sim.pointee.complete(0, second.number, &wanted), 0, "a completion") }
    var completion = ibv_wc()
    check(ibv_poll_cq(bench.receives, 1, &completion) < 0, "polling an overflowed queue")
    first.destroy()
    second.destroy()
    bench.close()
}

/// CQEs of every status code, for sends and receives.
func iWARPSynthetic() {
    let bench = Bench()
    let sim = have(sim, "a simulator")
    for code in 0..<32 as Range<UInt32> {
        let (first, second) = Queue.connected(bench, IBV_QPT_RC)
        equal(sim.pointee.hold(0, 1), 0, "holding the device")
        equal(second.postReceive([bench.sge(Bench.half, 100)], id: 7), 0, "posting a receive")
        equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: 8), 0, "posting a send")
        let status: ibv_wc_status =
            switch code {
            case 0: IBV_WC_SUCCESS
            case 1, 3, 4: IBV_WC_LOC_ACCESS_ERR
            case 2: IBV_WC_LOC_PROT_ERR
            case 5: IBV_WC_GENERAL_ERR
            case 6: IBV_WC_LOC_LEN_ERR
            case 7, 8: IBV_WC_MW_BIND_ERR
            case 0xC: IBV_WC_WR_FLUSH_ERR
            default: IBV_WC_FATAL_ERR
            }
        for opcode in [IBV_WC_RECV, IBV_WC_SEND] {
            var wanted = uverbs_sim_completion()
            wanted.opcode = opcode.rawValue
            wanted.vendor_error = code
            wanted.byte_length = 5
            equal(
                sim.pointee.complete(0, opcode == IBV_WC_RECV ? second.number : first.number, &wanted), 0,
                "a completion")
            // The CQE of the initiator's first READ is skipped.
            var completion = ibv_wc()
            let queue = opcode == IBV_WC_RECV ? bench.receives : bench.sends
            equal(ibv_poll_cq(queue, 1, &completion), 1, "completions of code \(code), \(opcode)")
            equal(completion.status, status, "status of code \(code)")
            equal(completion.vendor_err, code, "vendor_err")
            equal(completion.wr_id, opcode == IBV_WC_RECV ? 7 : 8, "request")
        }
        equal(sim.pointee.hold(0, 0), 0, "releasing the device")
        first.destroy()
        second.destroy()
        sim.pointee.forgive(0)
    }
    bench.close()
}
