import CAllocationCounter
import CIBVerbs
import CMlx5DV
import Glibc
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: completion queues, with a test as the device")
struct PollingTests {
    @Test(
        "Sends and receives complete in rounds; unsignaled ones are retired by the next",
        arguments: [(true, 1), (true, 0), (false, 0)] as [(Bool, UInt8)])
    func rounds(isDynamic: Bool, version: UInt8) throws {
        let device = try FakeDevice(isDynamic: isDynamic, version: version)
        let made = try Made(device)
        var number: UInt32 = 0
        for round in 0..<100 as Range<UInt64> {
            made.send([10 * round, 10 * round + 1, 10 * round + 2])
            made.receive([1_000_000 + round])
            // The third alone completes, in its block.
            device.complete(number, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(3 * round + 2).bigEndian }
            device.complete(number + 1, MLX5_CQE_RESP_SEND) {
                $0.byte_cnt = UInt32(60).bigEndian
                $0.wqe_counter = UInt16(round).bigEndian
            }
            number += 2
            let found = made.poll(round % 2 == 0 ? 16 : 1) + made.poll(16)
            #expect(found.map(\.wr_id) == [10 * round + 2, 1_000_000 + round])
            #expect(
                found.map(\.opcode) == [IBV_WC_SEND, IBV_WC_RECV] && found.allSatisfy { $0.status == IBV_WC_SUCCESS })
            #expect(found.allSatisfy { $0.qp_num == 0x101 } && found[1].byte_len == 60 && found[0].vendor_err == 0)
            #expect(device.consumed == number)
        }
        #expect(made.poll().isEmpty)
        made.destroy()
        device.close()
    }

    @Test("Flushed requests, with their ids, and a syndrome")
    func errors() throws {
        let device = try FakeDevice()
        let made = try Made(device)
        made.send([1, 2])
        made.receive([3])
        func fail(_ number: UInt32, _ kind: Int, _ index: UInt16, _ syndrome: Int) {
            device.complete(number, kind) {
                $0.wqe_counter = index.bigEndian
                withUnsafeMutableBytes(of: &$0) { bytes in
                    bytes[54] = 0x79
                    bytes[55] = UInt8(syndrome)
                }
            }
        }
        fail(0, MLX5_CQE_REQ_ERR, 0, MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR)
        fail(1, MLX5_CQE_REQ_ERR, 1, MLX5_CQE_SYNDROME_WR_FLUSH_ERR)
        fail(2, MLX5_CQE_RESP_ERR, 0, MLX5_CQE_SYNDROME_WR_FLUSH_ERR)
        let found = made.poll()
        #expect(found.map(\.wr_id) == [1, 2, 3] && found.allSatisfy { $0.vendor_err == 0x79 })
        #expect(found.map(\.status) == [IBV_WC_REM_ACCESS_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_WR_FLUSH_ERR])
        made.destroy()
        device.close()
    }

    @Test("A completion that cannot be is -EIO, behind those that can, and those after it are still shown")
    func impossible() throws {
        for version: UInt8 in [0, 1] {
            let device = try FakeDevice(version: version)
            let made = try Made(device)
            made.send([1, 2])
            let strange: [(Int, (inout mlx5_cqe64) -> Void)] = [
                (
                    MLX5_CQE_REQ,
                    {
                        $0.srqn_uidx = UInt32(0xABCDE).bigEndian; $0.sop_drop_qpn = UInt32(0x0A0B_CDEF).bigEndian
                    }
                ),
                (7, { _ in }), (MLX5_CQE_NO_PACKET, { _ in }), (MLX5_CQE_SIG_ERR, { _ in }),
            ]
            var number: UInt32 = 0
            for (kind, change) in strange {
                device.complete(number, MLX5_CQE_REQ) { _ in }
                device.complete(number + 1, kind, change)
                device.complete(number + 2, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(1).bigEndian }
                #expect(made.poll().map(\.wr_id) == [1])
                var wc = ibv_wc()
                #expect(ibv_poll_cq(made.completions, 1, &wc) == -EIO)
                #expect(made.poll().map(\.wr_id) == [2])
                number += 3
            }
            made.destroy()
            device.close()
        }
    }

    @Test("Asking for an event: record and doorbell, solicited or not, with a new number after each event")
    func arming() throws {
        let device = try FakeDevice()
        let made = try Made(device)
        made.send([1])
        device.complete(0, MLX5_CQE_REQ)
        _ = made.poll()
        let record = UnsafeMutableRawPointer(bitPattern: UInt(device.cq.db_addr))! + 4
        for (event, solicited) in [(0, false), (1, true), (2, false), (3, true), (4, true)] {
            #expect(ibv_req_notify_cq(made.completions, solicited ? 1 : 0) == 0)
            let word = UInt32(event & 3) << 28 | (solicited ? 1 << 24 : 0) | 1
            #expect(UInt32(bigEndian: record.load(as: UInt32.self)) == word)
            #expect(device.register(0, 0x20) == UInt64(word) << 32 | 0x402)
            controlTable.pointee.cq_event(made.completions)
        }
        made.destroy()
        device.close()
    }

    @Test("A shared queue: requests come back in the order in which they complete, and full is full")
    func shared() throws {
        for version: UInt8 in [0, 1] {
            let device = try FakeDevice(version: version)
            let table = controlTable.pointee
            let domain = try #require(table.alloc_pd(device.context))
            var limits = ibv_srq_init_attr_ex()
            limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            limits.pd = domain
            limits.attr = ibv_srq_attr(max_wr: 6, max_sge: 2, srq_limit: 0)
            let srq = try #require(table.create_srq_ex(device.context, &limits))
            #expect(limits.attr.max_wr == 7 && limits.attr.max_sge == 3)
            let made = try Made(device, srq: srq, domain: domain)
            #expect(device.qp.rq_wqe_count == 0 && made.limits.max_recv_wr == 0)
            func post(_ id: UInt64) -> Int32 {
                var request = threePieces().receive(id: id)
                var bad: UnsafeMutablePointer<ibv_recv_wr>?
                return ibv_post_srq_recv(srq, &request, &bad)
            }
            for id in 0..<7 as Range<UInt64> { #expect(post(id) == 0) }
            #expect(post(7) == ENOMEM)
            let memory = UnsafeMutableRawPointer(bitPattern: UInt(device.srq.buf_addr))!
            let record = UnsafeMutableRawPointer(bitPattern: UInt(device.srq.db_addr))!
            func word(_ offset: Int) -> UInt32 {
                UInt32(bigEndian: memory.load(fromByteOffset: offset, as: UInt32.self))
            }
            #expect((0..<7).map { word(64 * $0) & 0xFFFF } == [1, 2, 3, 4, 5, 6, 7])
            #expect(word(16) == 10 && word(36) == 0x102 && record.load(as: UInt32.self) == UInt32(7).bigEndian)
            // Two of them, out of order.
            for (number, index) in [(0, 4), (1, 2)] as [(UInt32, UInt16)] {
                device.complete(number, MLX5_CQE_RESP_SEND) {
                    $0.wqe_counter = index.bigEndian
                    if version == 0 { $0.srqn_uidx = UInt32(0x77).bigEndian }
                }
            }
            #expect(made.poll().map(\.wr_id) == [4, 2])
            #expect(word(64 * 7) & 0xFFFF == 4 && word(64 * 4) & 0xFFFF == 2)
            #expect(post(8) == 0 && post(9) == 0 && post(10) == ENOMEM)
            // An index that no request has.
            device.complete(2, MLX5_CQE_RESP_SEND) { $0.wqe_counter = UInt16(8).bigEndian }
            var wc = ibv_wc()
            #expect(ibv_poll_cq(made.completions, 1, &wc) == -EIO)
            made.destroy()
            #expect(table.destroy_srq(srq) == 0 && table.dealloc_pd(domain) == 0)
            device.close()
        }
    }

    @Test("A queue pair that is reset or destroyed leaves nothing to be polled; the others' completions stay, in order")
    func cleaning() throws {
        for isReset in [true, false] {
            let device = try FakeDevice()
            let made = try Made(device)
            let table = controlTable.pointee
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = made.domain
            attr.send_cq = made.completions
            attr.recv_cq = made.completions
            attr.qp_type = IBV_QPT_RC
            attr.cap = ibv_qp_cap(max_send_wr: 16, max_recv_wr: 1, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0)
            let first = device.qp.uidx
            let other = try #require(table.create_qp_ex(device.context, &attr))
            #expect(device.qp.uidx == first + 1)
            other.pointee.state = IBV_QPS_RTS
            var number: UInt32 = 0
            // Three rounds, so that the owner bits differ.
            for round in 0..<3 as Range<UInt64> {
                made.send((0..<8).map { 100 + 8 * round + $0 })
                for index in 0..<4 as Range<UInt64> {
                    var request = List([ibv_sge(addr: 1, length: 1, lkey: 1)]).send(IBV_WR_SEND, id: 4 * round + index)
                    var bad: UnsafeMutablePointer<ibv_send_wr>?
                    #expect(ibv_post_send(other, &request, &bad) == 0)
                }
                for index in 0..<12 as Range<UInt64> {
                    let isFirst = index % 3 != 0
                    device.complete(number, MLX5_CQE_REQ) {
                        $0.srqn_uidx = (isFirst ? first : first + 1).bigEndian
                        let place = isFirst ? 8 * round + index / 3 * 2 + index % 3 - 1 : 4 * round + index / 3
                        $0.wqe_counter = UInt16(place).bigEndian
                    }
                    number += 1
                }
                if round < 2 {
                    #expect(made.poll().count == 12)
                    continue
                }
                if isReset {
                    var reset = ibv_qp_attr()
                    reset.qp_state = IBV_QPS_RESET
                    #expect(table.modify_qp(made.pair, &reset, Int32(IBV_QP_STATE.rawValue)) == 0)
                    #expect(made.pair.pointee.state == IBV_QPS_RESET)
                } else {
                    #expect(table.destroy_qp(made.pair) == 0)
                }
                #expect(device.consumed == 32)
                #expect(made.poll().map(\.wr_id) == [8, 9, 10, 11])
            }
            // From the beginning, after a reset.
            if isReset {
                made.pair.pointee.state = IBV_QPS_RTS
                made.send([5])
                device.complete(number, MLX5_CQE_REQ) { $0.srqn_uidx = first.bigEndian }
                #expect(made.poll().map(\.wr_id) == [5])
                #expect(table.destroy_qp(made.pair) == 0)
            }
            #expect(table.destroy_qp(other) == 0 && table.destroy_cq(made.completions) == 0)
            #expect(table.dealloc_pd(made.domain) == 0)
            device.close()
        }
    }

    @Test(
        "Resized, larger and smaller: what waits is kept, and the queue goes on in the new memory",
        arguments: [(15, 60), (60, 15)] as [(Int32, Int32)])
    func resized(before: Int32, after: Int32) throws {
        let device = try FakeDevice()
        let made = try Made(device, entries: before)
        var number: UInt32 = 0
        // Beyond the first round.
        for _ in 0..<5 {
            made.send(Array(repeating: 0, count: 14))
            for index in 0..<14 as Range<UInt32> {
                device.complete(number + index, MLX5_CQE_REQ) {
                    $0.wqe_counter = UInt16(truncatingIfNeeded: number + index).bigEndian
                }
            }
            number += 14
            #expect(made.poll().count == 14)
        }
        made.send([1, 2, 3])
        for index in 0..<3 as Range<UInt32> {
            device.complete(number + index, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(number + index).bigEndian }
        }
        device.onResize = { device.complete(number + 3, MLX5_CQE_RESIZE_CQ) }
        #expect(controlTable.pointee.resize_cq(made.completions, after) == 0)
        device.onResize = {}
        let entries = after == 60 ? 64 : 16 as UInt32
        #expect(device.resizeEntries == entries - 1 && device.resize.cqe_size == 64)
        #expect(made.completions.pointee.cqe == Int32(entries - 1))
        let ring = (UnsafeMutableRawPointer(bitPattern: UInt(device.resize.buf_addr))!, entries)
        made.send([4])
        device.complete(number + 4, MLX5_CQE_REQ, in: ring) { $0.wqe_counter = UInt16(number + 3).bigEndian }
        #expect(made.poll().map(\.wr_id) == [1, 2, 3, 4])
        #expect(made.poll().isEmpty && device.consumed == number + 5)
        // Nothing happens for the same size.
        let calls = device.kernel.calls.count
        #expect(controlTable.pointee.resize_cq(made.completions, after) == 0 && device.kernel.calls.count == calls)
        made.destroy()
        device.close()
    }

    @Test("Extended polling shows the same, field by field, and the time")
    func extended() throws {
        let device = try FakeDevice()
        let made = try Made(device)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 15
        attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS) | UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
        let table = controlTable.pointee
        let cq = try #require(table.create_cq_ex(device.context, &attr))
        let plain = UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq.self)
        var qpAttr = ibv_qp_init_attr_ex()
        qpAttr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        qpAttr.pd = made.domain
        qpAttr.send_cq = plain
        qpAttr.recv_cq = plain
        qpAttr.qp_type = IBV_QPT_RC
        qpAttr.cap = made.limits
        let pair = try #require(table.create_qp_ex(device.context, &qpAttr))
        pair.pointee.state = IBV_QPS_RTS
        var receive = threePieces().receive(id: 9)
        var badReceive: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(ibv_post_recv(pair, &receive, &badReceive) == 0)
        var invalidate = List([]).send(IBV_WR_LOCAL_INV, id: 8)
        var badSend: UnsafeMutablePointer<ibv_send_wr>?
        #expect(ibv_post_send(pair, &invalidate, &badSend) == 0)
        var poll = ibv_poll_cq_attr()
        #expect(ibv_start_poll(cq, &poll) == ENOENT)
        device.complete(0, MLX5_CQE_RESP_SEND_IMM) {
            $0.imm_inval_pkey = UInt32(0x42).bigEndian
            $0.byte_cnt = UInt32(33).bigEndian
            $0.timestamp = UInt64(0x1234_5678_9ABC).bigEndian
            $0.flags_rqpn = UInt32(0x0300_0055).bigEndian
        }
        device.complete(1, MLX5_CQE_REQ) { $0.sop_drop_qpn = UInt32(MLX5_OPCODE_UMR << 24 | 0x101).bigEndian }
        #expect(ibv_start_poll(cq, &poll) == 0 && cq.pointee.wr_id == 9 && cq.pointee.status == IBV_WC_SUCCESS)
        #expect(ibv_wc_read_opcode(cq) == IBV_WC_RECV && ibv_wc_read_byte_len(cq) == 33)
        #expect(
            ibv_wc_read_wc_flags(cq) == IBV_WC_WITH_IMM.rawValue && ibv_wc_read_imm_data(cq) == UInt32(0x42).bigEndian)
        #expect(ibv_wc_read_src_qp(cq) == 0x55 && ibv_wc_read_sl(cq) == 3 && ibv_wc_read_qp_num(cq) == 0x101)
        #expect(ibv_wc_read_completion_ts(cq) == 0x1234_5678_9ABC)
        #expect(ibv_next_poll(cq) == 0 && cq.pointee.wr_id == 8 && ibv_wc_read_opcode(cq) == IBV_WC_LOCAL_INV)
        #expect(ibv_next_poll(cq) == ENOENT)
        ibv_end_poll(cq)
        #expect(device.consumed == 2)
        device.complete(2, MLX5_CQE_NO_PACKET)
        #expect(ibv_start_poll(cq, &poll) == EIO && ibv_start_poll(cq, &poll) == ENOENT)
        #expect(table.destroy_qp(pair) == 0 && table.destroy_cq(plain) == 0)
        made.destroy()
        device.close()
    }

    @Test("Entries of 128 bytes: the completion is the second half, with the owner's bit at its end")
    func large() throws {
        let device = try FakeDevice()
        let memory = try #require(DeviceMemory(byteCount: 4 * 128))
        CompletionRing.prepare(memory, entries: 4, shift: 7)
        let record = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
        var ring = CompletionRing(
            memory: memory, mask: 3, shift: 7, record: record, armSequence: record, register: record,
            context: device.context.mlx5)
        for number in 0..<20 as Range<UInt32> {
            #expect(ring.next() == nil)
            let entry = memory.start + 128 * Int(number % 4) + 64
            entry.storeBytes(of: number.bigEndian, toByteOffset: 44, as: UInt32.self)
            entry.storeBytes(
                of: UInt8(MLX5_CQE_RESP_SEND << 4) | (number & 4 != 0 ? 1 : 0), toByteOffset: 63, as: UInt8.self)
            #expect(ring.next()?.length == number)
        }
        memory.free()
        record.deallocate()
        device.close()
    }

    @Test(
        "Polling allocates nothing",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer stands in front of malloc"))
    func allocations() throws {
        let device = try FakeDevice()
        let made = try Made(device)
        var request = threePieces().send(IBV_WR_SEND)
        var wc = ibv_wc()
        var counted: UInt64 = 0
        var failures: Int32 = 0
        for round in 0..<200 as Range<UInt32> {
            device.complete(round, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(round).bigEndian }
            let before = allocation_count()
            failures += postSend(qp: made.pair, first: &request, bad: nil)
            failures += pollCompletions(cq: made.completions, count: 1, wc: &wc) == 1 ? 0 : 1
            failures += pollCompletions(cq: made.completions, count: 1, wc: &wc)
            failures += requestNotification(cq: made.completions, solicitedOnly: 0)
            if round >= 100 { counted += allocation_count() - before }
        }
        #expect(counted == 0 && failures == 0)
        made.destroy()
        device.close()
    }
}
