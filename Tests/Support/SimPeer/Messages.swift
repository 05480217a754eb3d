import CIBVerbs
import CProviderABI
import Glibc
import PeerSupport

/// Message sizes, in bytes.
private let sizes = [1, 8, 31, 32, 33, 64, 65, 1000, 4096, 20_000]

/// SEND over a connected transport: two SGEs, inline data, immediate data.
func sendMessages(_ type: ibv_qp_type) {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, type, inline: 64)
    for (seed, size) in sizes.enumerated() {
        bench.fill(0, size, seed: seed)
        memset(bench.memory + Bench.half, 0, size)
        // Two SGEs, of which the second has room for the rest.
        let cut = size / 2
        equal(
            second.postReceive([bench.sge(Bench.half, cut), bench.sge(Bench.half + cut, size)], id: 70), 0,
            "posting a receive")
        let hasImmediate = seed & 1 == 1
        let isInline = size <= first.inlineLimit && seed & 2 == 2
        equal(
            first.post(
                hasImmediate ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND,
                [bench.sge(0, cut), bench.sge(cut, size - cut)], id: 71,
                flags: isInline ? [IBV_SEND_SIGNALED, IBV_SEND_INLINE] : [IBV_SEND_SIGNALED]
            ) { $0.imm_data = UInt32(0xABCD_0000 + size).bigEndian }, 0, "posting a send")
        bench.succeeds(IBV_WC_SEND)
        let arrival = bench.poll(bench.receives)[0]
        equal(arrival.status, IBV_WC_SUCCESS, "status of a receive")
        equal(arrival.opcode, IBV_WC_RECV, "opcode of a receive")
        equal(arrival.wr_id, 70, "request of a receive")
        equal(arrival.byte_len, UInt32(size), "length of a receive")
        equal(arrival.qp_num, second.number, "queue pair of a receive")
        equal(arrival.wc_flags & IBV_WC_WITH_IMM.rawValue != 0, hasImmediate, "immediate data")
        if hasImmediate { equal(arrival.imm_data, UInt32(0xABCD_0000 + size).bigEndian, "immediate data") }
        check(bench.isFilled(Bench.half, size, seed: seed), "\(size) bytes arrive as they were")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// WRITE, with and without immediate data.
func writes(_ type: ibv_qp_type) {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, type, inline: 64)
    for (seed, size) in sizes.enumerated() {
        bench.fill(0, size, seed: seed)
        let hasImmediate = seed & 1 == 1
        if hasImmediate { equal(second.postReceive([], id: 80), 0, "posting a receive") }
        equal(
            first.post(
                hasImmediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE,
                [bench.sge(0, 1), bench.sge(1, size - 1)],
                flags: size <= first.inlineLimit ? [IBV_SEND_SIGNALED, IBV_SEND_INLINE] : [IBV_SEND_SIGNALED]
            ) {
                $0.imm_data = 5
                $0.wr.rdma.remote_addr = bench.address(Bench.half + 3)
                $0.wr.rdma.rkey = bench.region.pointee.rkey
            }, 0, "posting a write")
        bench.succeeds(IBV_WC_RDMA_WRITE)
        check(bench.isFilled(Bench.half + 3, size, seed: seed), "\(size) bytes arrive as they were")
        if hasImmediate {
            let arrival = bench.poll(bench.receives)[0]
            equal(arrival.opcode, IBV_WC_RECV_RDMA_WITH_IMM, "opcode")
            equal(arrival.byte_len, UInt32(size), "length")
            equal(arrival.imm_data, 5, "immediate data")
        }
        bench.expectNothing(bench.receives)
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// READ and the two atomic operations.
func reads() {
    let bench = Bench()
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    for (seed, size) in sizes.enumerated() {
        bench.fill(Bench.half, size, seed: seed)
        memset(bench.memory, 0, size)
        equal(
            first.post(IBV_WR_RDMA_READ, [bench.sge(0, size / 3), bench.sge(size / 3, size - size / 3)]) {
                $0.wr.rdma.remote_addr = bench.address(Bench.half)
                $0.wr.rdma.rkey = bench.region.pointee.rkey
            }, 0, "posting a read")
        bench.succeeds(IBV_WC_RDMA_READ)
        check(bench.isFilled(0, size, seed: seed), "\(size) bytes come back as they are")
    }
    let target = (bench.memory + Bench.half).assumingMemoryBound(to: UInt64.self)
    let result = bench.memory.assumingMemoryBound(to: UInt64.self)
    target.pointee = 40
    func atomic(_ opcode: ibv_wr_opcode, _ compareOrAdd: UInt64, _ swap: UInt64) {
        equal(
            first.post(opcode, [bench.sge(0, 8)]) {
                $0.wr.atomic.remote_addr = bench.address(Bench.half)
                $0.wr.atomic.rkey = bench.region.pointee.rkey
                $0.wr.atomic.compare_add = compareOrAdd
                $0.wr.atomic.swap = swap
            }, 0, "posting an atomic operation")
        bench.succeeds(opcode == IBV_WR_ATOMIC_FETCH_AND_ADD ? IBV_WC_FETCH_ADD : IBV_WC_COMP_SWAP)
    }
    atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 0)
    check(result.pointee == 40 && target.pointee == 42, "fetch and add")
    atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 7)
    check(result.pointee == 42 && target.pointee == 7, "compare and swap")
    atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 9)
    check(result.pointee == 7 && target.pointee == 7, "compare and no swap")
    first.destroy()
    second.destroy()
    bench.close()
}

/// Datagrams, with the 40 bytes of the GRH.
func datagrams() {
    let bench = Bench()
    let first = Queue(bench, IBV_QPT_UD, inline: 64)
    let second = Queue(bench, IBV_QPT_UD)
    first.connect()
    second.connect()
    var address = first.address
    let handle = have(library.createAddress(bench.domain, &address), "an address handle")
    for (seed, size) in sizes.enumerated() where size <= 4096 {
        bench.fill(0, size, seed: seed)
        equal(second.postReceive([bench.sge(Bench.half, 40 + size)]), 0, "posting a receive")
        equal(
            first.post(
                seed & 1 == 1 ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND, [bench.sge(0, size)],
                flags: size <= first.inlineLimit ? [IBV_SEND_SIGNALED, IBV_SEND_INLINE] : [IBV_SEND_SIGNALED]
            ) {
                $0.imm_data = 9
                $0.wr.ud.ah = handle
                $0.wr.ud.remote_qpn = second.number
                $0.wr.ud.remote_qkey = Queue.qkey
            }, 0, "posting a datagram")
        bench.succeeds(IBV_WC_SEND)
        let arrival = bench.poll(bench.receives)[0]
        equal(arrival.status, IBV_WC_SUCCESS, "status")
        equal(arrival.byte_len, UInt32(40 + size), "length")
        equal(arrival.src_qp, first.number, "sender")
        equal(arrival.wc_flags & IBV_WC_GRH.rawValue != 0, bench.isEthernet, "a global route header")
        equal(arrival.wc_flags & IBV_WC_WITH_IMM.rawValue != 0, seed & 1 == 1, "immediate data")
        check(bench.isFilled(Bench.half + 40, size, seed: seed), "\(size) bytes arrive as they were")
    }
    // A datagram with another Q_Key is dropped, and the receive WQE stays.
    equal(second.postReceive([bench.sge(Bench.half, 100)]), 0, "posting a receive")
    equal(
        first.post(IBV_WR_SEND, [bench.sge(0, 8)]) {
            $0.wr.ud.ah = handle
            $0.wr.ud.remote_qpn = second.number
            $0.wr.ud.remote_qkey = Queue.qkey + 1
        }, 0, "posting a datagram")
    bench.succeeds(IBV_WC_SEND)
    bench.expectNothing(bench.receives)
    // With the 40 bytes of the GRH the first datagram is one byte longer than the receive WQE: it is dropped, and the
    // next one is received into the WQE.
    for size in [61, 60] {
        equal(
            first.post(IBV_WR_SEND, [bench.sge(0, size)]) {
                $0.wr.ud.ah = handle
                $0.wr.ud.remote_qpn = second.number
                $0.wr.ud.remote_qkey = Queue.qkey
            }, 0, "posting a datagram")
        bench.succeeds(IBV_WC_SEND)
        if size == 61 { bench.expectNothing(bench.receives) }
    }
    let arrival = bench.poll(bench.receives)[0]
    check(arrival.status == IBV_WC_SUCCESS && arrival.byte_len == 100, "\(arrival.status) \(arrival.byte_len)")
    equal(library.destroyAddress(handle), 0, "destroying the address handle")
    first.destroy()
    second.destroy()
    bench.close()
}

/// Many messages through short queues, 8 at a time: every index wraps, and one send of 8 is signaled.
func manyMessages(rounds: Int) {
    let bench = Bench(entries: 16)
    let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 16)
    for round in 0..<rounds {
        for index in 0..<8 {
            equal(second.postReceive([bench.sge(Bench.half, 64)], id: UInt64(round * 8 + index)), 0, "receive")
        }
        for index in 0..<8 {
            equal(
                first.post(
                    IBV_WR_SEND, [bench.sge(0, 1 + (round + index) % 64)], id: UInt64(round * 8 + index),
                    flags: index == 7 ? [IBV_SEND_SIGNALED] : []), 0, "send")
        }
        equal(bench.poll(bench.sends)[0].wr_id, UInt64(round * 8 + 7), "the request that was signaled")
        for (index, arrival) in bench.poll(bench.receives, 8).enumerated() {
            equal(arrival.wr_id, UInt64(round * 8 + index), "order of receives")
            equal(arrival.byte_len, UInt32(1 + (round + index) % 64), "length")
        }
    }
    first.destroy()
    second.destroy()
    bench.close()
}
