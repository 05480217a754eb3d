import CIBVerbs
import Glibc
import PeerSupport

/// Message sizes, in bytes: around the limits of inline data (280) and of a slot.
private let sizes = [0, 1, 8, 24, 25, 100, 279, 280, 281, 1000, 20_000]

/// Whether the first device is iWARP.
func hasIWARPDevice() -> Bool {
    var count: Int32 = 0
    guard let devices = ibv_get_device_list(&count) else { return false }
    defer { ibv_free_device_list(devices) }
    return count > 0 && devices[0]?.pointee.transport_type == IBV_TRANSPORT_IWARP
}

/// SEND: two SGEs, inline data, solicited events; up to 17 SGEs.
func iWARPMessages() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, inline: 280)
    equal(first.inlineLimit, 280, "inline data")
    for (seed, size) in sizes.enumerated() {
        bench.fill(0, size, seed: seed)
        memset(bench.memory + Bench.half, 0, size)
        let cut = size / 2
        equal(
            second.postReceive([bench.sge(Bench.half, cut), bench.sge(Bench.half + cut, size - cut)], id: 70), 0,
            "posting a receive")
        var flags = [IBV_SEND_SIGNALED]
        if size <= first.inlineLimit && seed & 1 == 1 { flags.append(IBV_SEND_INLINE) }
        if seed & 2 == 2 { flags.append(IBV_SEND_SOLICITED) }
        let sges = size == 0 ? [] : [bench.sge(0, cut), bench.sge(cut, size - cut)]
        equal(first.post(IBV_WR_SEND, sges, id: 71, flags: flags), 0, "posting a send of \(size) bytes")
        bench.succeeds(IBV_WC_SEND)
        let arrival = bench.poll(bench.receives)[0]
        equal(arrival.status, IBV_WC_SUCCESS, "status of a receive")
        equal(arrival.opcode, IBV_WC_RECV, "opcode of a receive")
        equal(arrival.wr_id, 70, "request of a receive")
        equal(arrival.byte_len, UInt32(size), "length of a receive")
        equal(arrival.qp_num, second.number, "queue pair of a receive")
        equal(arrival.wc_flags, 0, "flags of a receive")
        check(bench.isFilled(Bench.half, size, seed: seed), "\(size) bytes arrive as they were")
    }
    for count in [4, 5, 16, 17] {
        bench.fill(0, count * 3, seed: count)
        equal(second.postReceive([bench.sge(Bench.half, 100)]), 0, "posting a receive")
        equal(first.post(IBV_WR_SEND, (0..<count).map { bench.sge($0 * 3, 3) }), 0, "\(count) SGEs")
        bench.succeeds(IBV_WC_SEND)
        bench.succeeds(receive: 2)
        check(bench.isFilled(Bench.half, count * 3, seed: count), "\(count) SGEs arrive as they were")
    }
    check(first.post(IBV_WR_SEND, (0..<18).map { bench.sge($0, 1) }) != 0, "18 SGEs")
    check(second.postReceive((0..<5).map { bench.sge($0, 1) }) != 0, "5 SGEs of a receive")
    check(first.post(IBV_WR_SEND_WITH_IMM, [bench.sge(0, 8)]) != 0, "SEND with immediate data")
    check(first.post(IBV_WR_ATOMIC_FETCH_AND_ADD, [bench.sge(0, 8)]) != 0, "an atomic operation")
    first.destroy()
    second.destroy()
    bench.close()
}

/// WRITE, and WRITE with immediate data where the device has it (T6).
func iWARPWrites() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, inline: 280)
    func write(_ opcode: ibv_wr_opcode, _ size: Int, isInline: Bool) -> Int32 {
        first.post(
            opcode, size == 0 ? [] : [bench.sge(0, 1), bench.sge(1, size - 1)],
            flags: isInline ? [IBV_SEND_SIGNALED, IBV_SEND_INLINE] : [IBV_SEND_SIGNALED]
        ) {
            $0.imm_data = UInt32(0xABCD_0000 + size).bigEndian
            $0.wr.rdma.remote_addr = bench.address(Bench.half + 3)
            $0.wr.rdma.rkey = bench.region.pointee.rkey
        }
    }
    for (seed, size) in sizes.enumerated() {
        bench.fill(0, size, seed: seed)
        equal(write(IBV_WR_RDMA_WRITE, size, isInline: size <= 280 && seed & 1 == 0), 0, "posting a write")
        bench.succeeds(IBV_WC_RDMA_WRITE)
        check(bench.isFilled(Bench.half + 3, size, seed: seed), "\(size) bytes arrive as they were")
        bench.expectNothing(bench.receives)
    }
    for (seed, size) in sizes.enumerated() {
        bench.fill(0, size, seed: 50 + seed)
        equal(second.postReceive([], id: 80), 0, "posting a receive")
        let error = write(IBV_WR_RDMA_WRITE_WITH_IMM, size, isInline: size <= 280 && seed & 1 == 0)
        if error != 0 {
            check(abs(error) == EINVAL || abs(error) == EOPNOTSUPP, "errno \(error)")
            break
        }
        bench.succeeds(IBV_WC_RDMA_WRITE)
        check(bench.isFilled(Bench.half + 3, size, seed: 50 + seed), "\(size) bytes arrive as they were")
        let arrival = bench.poll(bench.receives)[0]
        equal(arrival.opcode, IBV_WC_RECV_RDMA_WITH_IMM, "opcode")
        check(arrival.wc_flags & IBV_WC_WITH_IMM.rawValue != 0, "flags \(arrival.wc_flags)")
        equal(arrival.imm_data, UInt32(0xABCD_0000 + size).bigEndian, "immediate data")
        equal(arrival.byte_len, UInt32(size), "length")
        equal(arrival.wr_id, 80, "request")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// READ, signaled and not, between SENDs and WRITEs: the completions are in the order of the requests. The CQE of a READ
/// may come after those of later requests.
func iWARPReads() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    func read(_ id: UInt64, _ size: Int, isSignaled: Bool = true, at offset: Int = 0) {
        equal(
            first.post(
                IBV_WR_RDMA_READ, size == 0 ? [] : [bench.sge(offset, size)], id: id,
                flags: isSignaled ? [IBV_SEND_SIGNALED] : []
            ) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half)
                $0.wr.rdma.rkey = bench.region.pointee.rkey
            }, 0, "posting a read of \(size) bytes")
    }
    for (seed, size) in sizes.enumerated() {
        bench.fill(Bench.half, size, seed: seed)
        memset(bench.memory, 0, size)
        read(1, size)
        let completion = bench.poll(bench.sends)[0]
        equal(completion.opcode, IBV_WC_RDMA_READ, "opcode")
        equal(completion.status, IBV_WC_SUCCESS, "status")
        if size > 0 { equal(completion.byte_len, UInt32(size), "length") }
        check(bench.isFilled(0, size, seed: seed), "\(size) bytes come back as they are")
    }
    check(first.post(IBV_WR_RDMA_READ, [bench.sge(0, 1), bench.sge(1, 1)]) != 0, "a READ with two SGEs")
    // A READ that is not signaled, between requests that are.
    for round in 0..<30 {
        bench.fill(Bench.half, 40, seed: round)
        for _ in 0..<2 { equal(second.postReceive([bench.sge(Bench.half + 100, 16)]), 0, "posting a receive") }
        equal(first.post(IBV_WR_SEND, [bench.sge(500, 8)], id: 1), 0, "posting a send")
        read(2, 10, isSignaled: round & 1 == 0)
        read(3, 20, at: 100)
        equal(first.post(IBV_WR_SEND, [bench.sge(500, 8)], id: 4, flags: []), 0, "posting a send")
        equal(
            first.post(IBV_WR_RDMA_WRITE, [bench.sge(500, 8)], id: 5) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half + 200)
                $0.wr.rdma.rkey = bench.region.pointee.rkey
            }, 0, "posting a write")
        read(6, 40, isSignaled: round & 2 == 0, at: 200)
        equal(
            first.post(IBV_WR_RDMA_WRITE, [bench.sge(500, 8)], id: 7) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half + 200)
                $0.wr.rdma.rkey = bench.region.pointee.rkey
            }, 0, "posting a write")
        let wanted: [UInt64] = [1] + (round & 1 == 0 ? [2] : []) + [3, 5] + (round & 2 == 0 ? [6] : []) + [7]
        let found = bench.poll(bench.sends, wanted.count)
        equal(found.map(\.wr_id), wanted, "order of completions in round \(round)")
        check(found.allSatisfy { $0.status == IBV_WC_SUCCESS }, "statuses")
        check(bench.isFilled(200, 40, seed: round), "40 bytes come back as they are")
        _ = bench.poll(bench.receives, 2)
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// A chain of a WRITE and a SEND of 16 bytes, for which T5 and T6 have one WR.
func iWARPPairs() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16, inline: 280)
    for round in 0..<40 {
        bench.fill(0, 300, seed: round)
        equal(second.postReceive([bench.sge(Bench.half + 1000, 100)], id: 9), 0, "posting a receive")
        var writeSGEs = (0...round % 4).map { bench.sge($0 * 50, 50) }
        var sendSGE = bench.sge(200, 16)
        var (write, send) = (ibv_send_wr(), ibv_send_wr())
        var bad: UnsafeMutablePointer<ibv_send_wr>?
        let error = writeSGEs.withUnsafeMutableBufferPointer { list in
            withUnsafeMutablePointer(to: &sendSGE) { sge in
                withUnsafeMutablePointer(to: &send) { next in
                    write.wr_id = 1
                    write.opcode = IBV_WR_RDMA_WRITE
                    write.send_flags = round & 1 == 0 ? IBV_SEND_SIGNALED.rawValue : 0
                    write.wr.rdma.remote_addr = bench.address(Bench.half)
                    write.wr.rdma.rkey = bench.region.pointee.rkey
                    (write.sg_list, write.num_sge) = (list.baseAddress, Int32(list.count))
                    write.next = next
                    next.pointee.wr_id = 2
                    next.pointee.opcode = IBV_WR_SEND
                    next.pointee.send_flags =
                        IBV_SEND_SIGNALED.rawValue | (round & 2 == 0 ? IBV_SEND_INLINE.rawValue : 0)
                    (next.pointee.sg_list, next.pointee.num_sge) = (sge, 1)
                    return ibv_post_send(first.pair, &write, &bad)
                }
            }
        }
        equal(error, 0, "posting a pair")
        let wanted: [UInt64] = round & 1 == 0 ? [1, 2] : [2]
        equal(bench.poll(bench.sends, wanted.count).map(\.wr_id), wanted, "requests")
        let arrival = bench.poll(bench.receives)[0]
        check(arrival.status == IBV_WC_SUCCESS && arrival.byte_len == 16, "\(arrival.status) \(arrival.byte_len)")
        check(bench.isFilled(Bench.half, 50 * (1 + round % 4), seed: round), "the data written")
        equal(memcmp(bench.memory + Bench.half + 1000, bench.memory + 200, 16), 0, "the data sent")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// Two threads, each with two queue pairs and completion queues of its own, whose doorbell pages no other thread uses.
func iWARPThreads() {
    let benches = [Bench(), Bench()]
    let threads = benches.map { bench in
        Thread {
            let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16, inline: 280)
            for round in 0..<300 {
                let id = UInt64(round)
                equal(second.postReceive([bench.sge(Bench.half, 64)], id: id), 0, "posting a receive")
                equal(
                    first.post(
                        IBV_WR_SEND, [bench.sge(0, 1 + round % 64)], id: id,
                        flags: round & 1 == 0 ? [IBV_SEND_SIGNALED, IBV_SEND_INLINE] : [IBV_SEND_SIGNALED]), 0,
                    "posting a send")
                equal(bench.poll(bench.sends)[0].wr_id, id, "request")
                let arrival = bench.poll(bench.receives)[0]
                check(
                    arrival.wr_id == id && arrival.byte_len == UInt32(1 + round % 64),
                    "\(arrival.wr_id) \(arrival.byte_len)")
            }
            first.destroy()
            second.destroy()
        }
    }
    for thread in threads { thread.join() }
    for bench in benches { bench.close() }
}

/// More queue pairs than share a doorbell page, on the same completion queues.
func iWARPConnections() {
    let bench = Bench()
    let pairs = (0..<40).map { _ in Queue.connected(bench, IBV_QPT_RC, requests: 4) }
    check(Set(pairs.flatMap { [$0.0.number, $0.1.number] }).count == 80, "numbers")
    for round in 0..<3 {
        for (index, (first, second)) in pairs.enumerated() {
            let id = UInt64(100 * round + index)
            equal(second.postReceive([bench.sge(Bench.half, 64)], id: id), 0, "posting a receive")
            equal(first.post(IBV_WR_SEND, [bench.sge(0, 8)], id: id), 0, "posting a send")
        }
        let wanted = (0..<40).map { UInt64(100 * round + $0) }
        let sends = bench.poll(bench.sends, 40)
        let receives = bench.poll(bench.receives, 40)
        check(Set(sends.map(\.wr_id)) == Set(wanted) && Set(receives.map(\.wr_id)) == Set(wanted), "requests")
        for completion in receives {
            equal(completion.qp_num, pairs[Int(completion.wr_id) - 100 * round].1.number, "queue pair")
        }
    }
    for (first, second) in pairs {
        first.destroy()
        second.destroy()
    }
    bench.close()
}

/// SEND with invalidate, solicited and not: the peer's region is inaccessible afterwards.
func iWARPInvalidation() {
    for isSolicited in [false, true] { invalidate(isSolicited: isSolicited) }
}

private func invalidate(isSolicited: Bool) {
    let bench = Bench()
    let access = IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue
    let region = have(library.register(bench.domain, bench.memory, 2 * Bench.half, Int32(access)), "a region")
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    func write() -> Int32 {
        first.post(IBV_WR_RDMA_WRITE, [bench.sge(0, 8)], id: 3) {
            $0.wr.rdma.remote_addr = bench.address(Bench.half)
            $0.wr.rdma.rkey = region.pointee.rkey
        }
    }
    equal(write(), 0, "posting a write")
    bench.succeeds(IBV_WC_RDMA_WRITE)
    equal(second.postReceive([bench.sge(Bench.half, 8)], id: 4), 0, "posting a receive")
    equal(
        first.post(
            IBV_WR_SEND_WITH_INV, [bench.sge(0, 8)],
            flags: isSolicited ? [IBV_SEND_SIGNALED, IBV_SEND_SOLICITED] : [IBV_SEND_SIGNALED]
        ) { $0.invalidate_rkey = region.pointee.rkey }, 0, "posting a send")
    bench.succeeds(IBV_WC_SEND)
    let arrival = bench.poll(bench.receives)[0]
    check(arrival.wc_flags & IBV_WC_WITH_INV.rawValue != 0, "flags \(arrival.wc_flags)")
    equal(arrival.opcode, IBV_WC_RECV, "opcode of a receive")
    equal(arrival.invalidated_rkey, region.pointee.rkey, "the key that was invalidated")
    // The peer refuses the WRITE: an event there, and the connection ends.
    equal(write(), 0, "posting a write")
    let completion = bench.poll(bench.sends)[0]
    check(completion.status == IBV_WC_WR_FLUSH_ERR && completion.wr_id == 3, "\(completion.status)")
    let event = asynchronousEvent(bench)
    check(event.event_type == IBV_EVENT_QP_REQ_ERR && event.element.qp == second.pair, "\(event.event_type)")
    check(first.state == IBV_QPS_ERR && second.state == IBV_QPS_ERR, "\(first.state) \(second.state)")
    first.destroy()
    second.destroy()
    equal(library.deregister(region), 0, "deregistering")
    bench.close()
}
