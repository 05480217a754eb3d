import CAllocationCounter
import CIBVerbs
import CMlx5DV
import Glibc
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: polling, with a fake device")
struct PollingTests {
    @Test(
        "Sends and receives complete in many rounds; the CQE of a send retires all earlier ones",
        arguments: [(true, 1), (true, 0), (false, 0)] as [(Bool, UInt8)])
    func rounds(isDynamic: Bool, version: UInt8) throws {
        let device = try FakeDevice(isDynamic: isDynamic, version: version)
        let queues = try TestQueues(device)
        var number: UInt32 = 0
        for round in 0..<100 as Range<UInt64> {
            queues.send([10 * round, 10 * round + 1, 10 * round + 2])
            queues.receive([1_000_000 + round])
            // Only the third send has a CQE.
            device.complete(number, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(3 * round + 2).bigEndian }
            device.complete(number + 1, MLX5_CQE_RESP_SEND) {
                $0.byte_cnt = UInt32(60).bigEndian
                $0.wqe_counter = UInt16(round).bigEndian
            }
            number += 2
            let found = queues.poll(round % 2 == 0 ? 16 : 1) + queues.poll(16)
            #expect(found.map(\.wr_id) == [10 * round + 2, 1_000_000 + round])
            #expect(
                found.map(\.opcode) == [IBV_WC_SEND, IBV_WC_RECV] && found.allSatisfy { $0.status == IBV_WC_SUCCESS })
            #expect(found.allSatisfy { $0.qp_num == 0x101 } && found[1].byte_len == 60 && found[0].vendor_err == 0)
            #expect(device.consumerIndex == number)
        }
        #expect(queues.poll().isEmpty)
        queues.destroy()
        device.close()
    }

    @Test("An error CQE yields the wr_id, status and vendor syndrome of a failed or flushed WQE")
    func errors() throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device)
        queues.send([1, 2])
        queues.receive([3])
        func fail(_ number: UInt32, _ opcode: Int, _ index: UInt16, _ syndrome: Int) {
            device.complete(number, opcode) {
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
        let found = queues.poll()
        #expect(found.map(\.wr_id) == [1, 2, 3] && found.allSatisfy { $0.vendor_err == 0x79 })
        #expect(found.map(\.status) == [IBV_WC_REM_ACCESS_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_WR_FLUSH_ERR])
        queues.destroy()
        device.close()
    }

    @Test("An invalid CQE is -EIO, after the completions before it; the CQEs after it are then polled")
    func impossible() throws {
        for version: UInt8 in [0, 1] {
            let device = try FakeDevice(version: version)
            let queues = try TestQueues(device)
            queues.send([1, 2])
            let invalid: [(Int, (inout mlx5_cqe64) -> Void)] = [
                (
                    MLX5_CQE_REQ,
                    {
                        $0.srqn_uidx = UInt32(0xABCDE).bigEndian; $0.sop_drop_qpn = UInt32(0x0A0B_CDEF).bigEndian
                    }
                ),
                (7, { _ in }), (MLX5_CQE_NO_PACKET, { _ in }), (MLX5_CQE_SIG_ERR, { _ in }),
            ]
            var number: UInt32 = 0
            for (opcode, change) in invalid {
                device.complete(number, MLX5_CQE_REQ) { _ in }
                device.complete(number + 1, opcode, change)
                device.complete(number + 2, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(1).bigEndian }
                #expect(queues.poll().map(\.wr_id) == [1])
                var wc = ibv_wc()
                #expect(ibv_poll_cq(queues.completions, 1, &wc) == -EIO)
                #expect(queues.poll().map(\.wr_id) == [2])
                number += 3
            }
            queues.destroy()
            device.close()
        }
    }

    @Test("ibv_req_notify_cq writes doorbell record and CQ doorbell; each event advances the arm sequence number")
    func arming() throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device)
        queues.send([1])
        device.complete(0, MLX5_CQE_REQ)
        _ = queues.poll()
        let doorbellRecord = UnsafeMutableRawPointer(bitPattern: UInt(device.cq.db_addr))! + 4
        for (event, solicited) in [(0, false), (1, true), (2, false), (3, true), (4, true)] {
            #expect(ibv_req_notify_cq(queues.completions, solicited ? 1 : 0) == 0)
            let word = UInt32(event & 3) << 28 | (solicited ? 1 << 24 : 0) | 1
            #expect(UInt32(bigEndian: doorbellRecord.load(as: UInt32.self)) == word)
            #expect(device.uarWord(0, 0x20) == UInt64(word) << 32 | 0x402)
            controlTable.pointee.cq_event(queues.completions)
        }
        queues.destroy()
        device.close()
    }

    @Test("WQEs of a shared receive queue are free again in the order of their CQEs; a full queue is ENOMEM")
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
            let queues = try TestQueues(device, srq: srq, domain: domain)
            #expect(device.qp.rq_wqe_count == 0 && queues.limits.max_recv_wr == 0)
            func post(_ id: UInt64) -> Int32 {
                var request = threeSGEs().receive(id: id)
                var bad: UnsafeMutablePointer<ibv_recv_wr>?
                return ibv_post_srq_recv(srq, &request, &bad)
            }
            for id in 0..<7 as Range<UInt64> { #expect(post(id) == 0) }
            #expect(post(7) == ENOMEM)
            let memory = UnsafeMutableRawPointer(bitPattern: UInt(device.srq.buf_addr))!
            let doorbellRecord = UnsafeMutableRawPointer(bitPattern: UInt(device.srq.db_addr))!
            func word(_ offset: Int) -> UInt32 {
                UInt32(bigEndian: memory.load(fromByteOffset: offset, as: UInt32.self))
            }
            #expect((0..<7).map { word(64 * $0) & 0xFFFF } == [1, 2, 3, 4, 5, 6, 7])
            #expect(word(16) == 10 && word(36) == 0x102 && doorbellRecord.load(as: UInt32.self) == UInt32(7).bigEndian)
            // Two WQEs complete out of order.
            for (number, index) in [(0, 4), (1, 2)] as [(UInt32, UInt16)] {
                device.complete(number, MLX5_CQE_RESP_SEND) {
                    $0.wqe_counter = index.bigEndian
                    if version == 0 { $0.srqn_uidx = UInt32(0x77).bigEndian }
                }
            }
            #expect(queues.poll().map(\.wr_id) == [4, 2])
            #expect(word(64 * 7) & 0xFFFF == 4 && word(64 * 4) & 0xFFFF == 2)
            #expect(post(8) == 0 && post(9) == 0 && post(10) == ENOMEM)
            // An index out of range.
            device.complete(2, MLX5_CQE_RESP_SEND) { $0.wqe_counter = UInt16(8).bigEndian }
            var wc = ibv_wc()
            #expect(ibv_poll_cq(queues.completions, 1, &wc) == -EIO)
            queues.destroy()
            #expect(table.destroy_srq(srq) == 0 && table.dealloc_pd(domain) == 0)
            device.close()
        }
    }

    @Test("The CQEs of a queue pair that is reset or destroyed are removed; those of others stay, in order")
    func cleaning() throws {
        for isReset in [true, false] {
            let device = try FakeDevice()
            let queues = try TestQueues(device)
            let table = controlTable.pointee
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = queues.domain
            attr.send_cq = queues.completions
            attr.recv_cq = queues.completions
            attr.qp_type = IBV_QPT_RC
            attr.cap = ibv_qp_cap(max_send_wr: 16, max_recv_wr: 1, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0)
            let first = device.qp.uidx
            let other = try #require(table.create_qp_ex(device.context, &attr))
            #expect(device.qp.uidx == first + 1)
            other.pointee.state = IBV_QPS_RTS
            var number: UInt32 = 0
            // Three rounds, so that the owner bits differ.
            for round in 0..<3 as Range<UInt64> {
                queues.send((0..<8).map { 100 + 8 * round + $0 })
                for index in 0..<4 as Range<UInt64> {
                    var request = SGEList([ibv_sge(addr: 1, length: 1, lkey: 1)]).send(
                        IBV_WR_SEND, id: 4 * round + index)
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
                    #expect(queues.poll().count == 12)
                    continue
                }
                if isReset {
                    var reset = ibv_qp_attr()
                    reset.qp_state = IBV_QPS_RESET
                    #expect(table.modify_qp(queues.pair, &reset, Int32(IBV_QP_STATE.rawValue)) == 0)
                    #expect(queues.pair.pointee.state == IBV_QPS_RESET)
                } else {
                    #expect(table.destroy_qp(queues.pair) == 0)
                }
                #expect(device.consumerIndex == 32)
                #expect(queues.poll().map(\.wr_id) == [8, 9, 10, 11])
            }
            // After the reset, the send queue starts with WQEBB 0.
            if isReset {
                queues.pair.pointee.state = IBV_QPS_RTS
                queues.send([5])
                device.complete(number, MLX5_CQE_REQ) { $0.srqn_uidx = first.bigEndian }
                #expect(queues.poll().map(\.wr_id) == [5])
                #expect(table.destroy_qp(queues.pair) == 0)
            }
            #expect(table.destroy_qp(other) == 0 && table.destroy_cq(queues.completions) == 0)
            #expect(table.dealloc_pd(queues.domain) == 0)
            device.close()
        }
    }

    @Test(
        "A resized completion queue, larger or smaller, keeps the unpolled CQEs and continues in the new ring",
        arguments: [(15, 60), (60, 15)] as [(Int32, Int32)])
    func resized(before: Int32, after: Int32) throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device, entries: before)
        var number: UInt32 = 0
        // More than one pass over the ring.
        for _ in 0..<5 {
            queues.send(Array(repeating: 0, count: 14))
            for index in 0..<14 as Range<UInt32> {
                device.complete(number + index, MLX5_CQE_REQ) {
                    $0.wqe_counter = UInt16(truncatingIfNeeded: number + index).bigEndian
                }
            }
            number += 14
            #expect(queues.poll().count == 14)
        }
        queues.send([1, 2, 3])
        for index in 0..<3 as Range<UInt32> {
            device.complete(number + index, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(number + index).bigEndian }
        }
        device.onResize = { device.complete(number + 3, MLX5_CQE_RESIZE_CQ) }
        #expect(controlTable.pointee.resize_cq(queues.completions, after) == 0)
        device.onResize = {}
        let entries = after == 60 ? 64 : 16 as UInt32
        #expect(device.resizeEntries == entries - 1 && device.resize.cqe_size == 64)
        #expect(queues.completions.pointee.cqe == Int32(entries - 1))
        let ring = (UnsafeMutableRawPointer(bitPattern: UInt(device.resize.buf_addr))!, entries)
        queues.send([4])
        device.complete(number + 4, MLX5_CQE_REQ, in: ring) { $0.wqe_counter = UInt16(number + 3).bigEndian }
        #expect(queues.poll().map(\.wr_id) == [1, 2, 3, 4])
        #expect(queues.poll().isEmpty && device.consumerIndex == number + 5)
        // The same size needs no command.
        let calls = device.kernel.calls.count
        #expect(controlTable.pointee.resize_cq(queues.completions, after) == 0 && device.kernel.calls.count == calls)
        queues.destroy()
        device.close()
    }

    @Test("ibv_cq_ex polling reads each field of a CQE, and the timestamp")
    func extended() throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 15
        attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS) | UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
        let table = controlTable.pointee
        let cq = try #require(table.create_cq_ex(device.context, &attr))
        let plain = UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq.self)
        var qpAttr = ibv_qp_init_attr_ex()
        qpAttr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        qpAttr.pd = queues.domain
        qpAttr.send_cq = plain
        qpAttr.recv_cq = plain
        qpAttr.qp_type = IBV_QPT_RC
        qpAttr.cap = queues.limits
        let pair = try #require(table.create_qp_ex(device.context, &qpAttr))
        pair.pointee.state = IBV_QPS_RTS
        var receive = threeSGEs().receive(id: 9)
        var badReceive: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(ibv_post_recv(pair, &receive, &badReceive) == 0)
        var invalidate = SGEList([]).send(IBV_WR_LOCAL_INV, id: 8)
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
        #expect(device.consumerIndex == 2)
        device.complete(2, MLX5_CQE_NO_PACKET)
        #expect(ibv_start_poll(cq, &poll) == EIO && ibv_start_poll(cq, &poll) == ENOENT)
        #expect(table.destroy_qp(pair) == 0 && table.destroy_cq(plain) == 0)
        queues.destroy()
        device.close()
    }

    /// An extended completion queue with two queue pairs, whose CQEs the test writes.
    private final class Batch {
        let device: FakeDevice
        let queues: TestQueues
        let cq: UnsafeMutablePointer<ibv_cq_ex>
        var pairs: [UnsafeMutablePointer<ibv_qp>] = []
        let userIndexes: [UInt32]
        var posted = [UInt16](repeating: 0, count: 2)
        var number: UInt32 = 0
        var attr = ibv_poll_cq_attr()
        let table = controlTable.pointee

        init(isSingleThreaded: Bool) throws {
            device = try FakeDevice()
            queues = try TestQueues(device)
            var attr = ibv_cq_init_attr_ex()
            attr.cqe = 15
            attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS)
            if isSingleThreaded {
                attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
                attr.flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
            }
            cq = try #require(table.create_cq_ex(device.context, &attr))
            var pairAttr = ibv_qp_init_attr_ex()
            pairAttr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            pairAttr.pd = queues.domain
            pairAttr.send_cq = UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq.self)
            pairAttr.recv_cq = pairAttr.send_cq
            pairAttr.qp_type = IBV_QPT_RC
            pairAttr.cap = queues.limits
            pairAttr.cap.max_send_wr = 16
            var userIndexes: [UInt32] = []
            for _ in 0..<2 {
                let pair = try #require(table.create_qp_ex(device.context, &pairAttr))
                userIndexes.append(device.qp.uidx)
                pair.pointee.state = IBV_QPS_RTS
                pairs.append(pair)
            }
            self.userIndexes = userIndexes
        }

        func end(destroying pairs: [Int]) {
            for pair in pairs { #expect(table.destroy_qp(self.pairs[pair]) == 0) }
            #expect(table.destroy_cq(plain) == 0)
            queues.destroy()
            device.close()
        }

        var plain: UnsafeMutablePointer<ibv_cq> { UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq.self) }

        /// Posts a send and writes its CQE. The `wr_id` is the number of the CQE. The vendor syndrome, which is unused
        /// in a successful CQE, shows whether the CQE is unchanged.
        func complete(_ pair: Int, in ring: (UnsafeMutableRawPointer, UInt32)? = nil) {
            var request = SGEList([]).send(IBV_WR_SEND, id: UInt64(number))
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            #expect(ibv_post_send(pairs[pair], &request, &bad) == 0)
            let change = { [self] (cqe: inout mlx5_cqe64) in
                cqe.srqn_uidx = userIndexes[pair].bigEndian
                cqe.wqe_counter = posted[pair].bigEndian
                withUnsafeMutableBytes(of: &cqe) { $0[54] = UInt8(truncatingIfNeeded: 0x40 + number) }
            }
            if let ring {
                device.complete(number, MLX5_CQE_REQ, in: ring, change)
            } else {
                device.complete(number, MLX5_CQE_REQ, change)
            }
            posted[pair] += 1
            number += 1
        }

        func hasCurrent(_ id: UInt64) -> Bool {
            cq.pointee.wr_id == id && ibv_wc_read_vendor_err(cq) == UInt32(0x40 + id) && ibv_wc_read_qp_num(cq) == 0x101
                && ibv_wc_read_opcode(cq) == IBV_WC_SEND
        }
    }

    @Test(
        "Resetting or destroying a queue pair inside a batch keeps the current completion valid until end_poll",
        arguments: [true, false], [true, false])
    func removedInBatch(isReset: Bool, isSingleThreaded: Bool) throws {
        for pattern in [[0], [0, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0, 0, 1]] {
            for (current, rotation) in pattern.indices.flatMap({ [($0, 0), ($0, 13)] }) {
                let batch = try Batch(isSingleThreaded: isSingleThreaded)
                defer { batch.end(destroying: isReset ? [0, 1] : [1]) }
                if rotation > 0 {
                    for _ in 0..<rotation { batch.complete(1) }
                    #expect(ibv_start_poll(batch.cq, &batch.attr) == 0)
                    while ibv_next_poll(batch.cq) == 0 {}
                    ibv_end_poll(batch.cq)
                }
                let first = UInt64(batch.number)
                for pair in pattern { batch.complete(pair) }
                #expect(ibv_start_poll(batch.cq, &batch.attr) == 0)
                for _ in 0..<current { #expect(ibv_next_poll(batch.cq) == 0) }
                #expect(batch.hasCurrent(first + UInt64(current)))
                if isReset {
                    var reset = ibv_qp_attr()
                    reset.qp_state = IBV_QPS_RESET
                    #expect(batch.table.modify_qp(batch.pairs[0], &reset, Int32(IBV_QP_STATE.rawValue)) == 0)
                } else {
                    #expect(batch.table.destroy_qp(batch.pairs[0]) == 0)
                }
                // The consumer index is not published before end_poll.
                #expect(batch.device.consumerIndex == UInt32(first) && batch.hasCurrent(first + UInt64(current)))
                for index in pattern.indices.dropFirst(current + 1) where pattern[index] == 1 {
                    #expect(ibv_next_poll(batch.cq) == 0 && batch.hasCurrent(first + UInt64(index)))
                }
                #expect(ibv_next_poll(batch.cq) == ENOENT)
                ibv_end_poll(batch.cq)
                #expect(batch.device.consumerIndex == batch.number)
                batch.complete(1)
                #expect(ibv_start_poll(batch.cq, &batch.attr) == 0 && batch.hasCurrent(UInt64(batch.number - 1)))
                ibv_end_poll(batch.cq)
            }
        }
    }

    @Test("A resize inside a batch keeps the current completion valid", arguments: [7, 60] as [Int32])
    func resizedInBatch(size: Int32) throws {
        for isSingleThreaded in [false, true] {
            let batch = try Batch(isSingleThreaded: isSingleThreaded)
            for _ in 0..<4 { batch.complete(0) }
            #expect(ibv_start_poll(batch.cq, &batch.attr) == 0 && ibv_next_poll(batch.cq) == 0 && batch.hasCurrent(1))
            batch.device.onResize = {
                batch.device.complete(batch.number, MLX5_CQE_RESIZE_CQ)
                batch.number += 1
            }
            #expect(batch.table.resize_cq(batch.plain, size) == 0)
            batch.device.onResize = {}
            #expect(batch.hasCurrent(1) && batch.device.consumerIndex == 0)
            let memory = UnsafeMutableRawPointer(bitPattern: UInt(batch.device.resize.buf_addr))!
            let ring = (memory, size == 7 ? 8 : 64 as UInt32)
            #expect(ibv_next_poll(batch.cq) == 0 && batch.hasCurrent(2))
            #expect(ibv_next_poll(batch.cq) == 0 && batch.hasCurrent(3))
            batch.complete(1, in: ring)
            #expect(ibv_next_poll(batch.cq) == 0 && batch.hasCurrent(5) && ibv_next_poll(batch.cq) == ENOENT)
            ibv_end_poll(batch.cq)
            #expect(batch.device.consumerIndex == batch.number)
            batch.end(destroying: [0, 1])
        }
    }

    @Test("Inside a batch, polling and destroying the same queue are EBUSY; outside a batch, next_poll is EINVAL")
    func refusals() throws {
        for isSingleThreaded in [false, true] {
            let batch = try Batch(isSingleThreaded: isSingleThreaded)
            for _ in 0..<3 { batch.complete(0) }
            var wc = ibv_wc()
            ibv_end_poll(batch.cq)
            #expect(ibv_next_poll(batch.cq) == EINVAL)
            #expect(ibv_start_poll(batch.cq, &batch.attr) == 0 && ibv_start_poll(batch.cq, &batch.attr) == EBUSY)
            #expect(ibv_poll_cq(batch.plain, 1, &wc) == -EBUSY && batch.table.destroy_cq(batch.plain) == EBUSY)
            #expect(ibv_req_notify_cq(batch.plain, 0) == 0 && batch.hasCurrent(0))
            ibv_end_poll(batch.cq)
            ibv_end_poll(batch.cq)
            #expect(ibv_next_poll(batch.cq) == EINVAL)
            #expect(ibv_poll_cq(batch.plain, 1, &wc) == 1 && wc.wr_id == 1)
            batch.end(destroying: [0, 1])
        }
    }

    @Test("A 128-byte CQE is decoded from its second half, which ends with the owner bit")
    func large() throws {
        let device = try FakeDevice()
        let memory = try #require(DeviceMemory(byteCount: 4 * 128))
        CompletionRing.prepare(memory, entries: 4, shift: 7)
        let words = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
        var ring = CompletionRing(
            memory: memory, mask: 3, shift: 7, doorbellRecord: words, armSequence: words, uarPage: words,
            context: device.context.mlx5)
        for number in 0..<20 as Range<UInt32> {
            #expect(ring.next() == nil)
            let cqe = memory.start + 128 * Int(number % 4) + 64
            cqe.storeBytes(of: number.bigEndian, toByteOffset: 44, as: UInt32.self)
            cqe.storeBytes(
                of: UInt8(MLX5_CQE_RESP_SEND << 4) | (number & 4 != 0 ? 1 : 0), toByteOffset: 63, as: UInt8.self)
            #expect(ring.next()?.length == number)
        }
        memory.free()
        words.deallocate()
        device.close()
    }

    @Test(
        "Polling allocates nothing",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
    func allocations() throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device)
        var request = threeSGEs().send(IBV_WR_SEND)
        var wc = ibv_wc()
        var counted: UInt64 = 0
        var failures: Int32 = 0
        for round in 0..<200 as Range<UInt32> {
            device.complete(round, MLX5_CQE_REQ) { $0.wqe_counter = UInt16(round).bigEndian }
            let before = allocation_count()
            failures += postSend(qp: queues.pair, first: &request, bad: nil)
            failures += pollCompletions(cq: queues.completions, count: 1, wc: &wc) == 1 ? 0 : 1
            failures += pollCompletions(cq: queues.completions, count: 1, wc: &wc)
            failures += requestNotification(cq: queues.completions, solicitedOnly: 0)
            if round >= 100 { counted += allocation_count() - before }
        }
        #expect(counted == 0 && failures == 0)
        queues.destroy()
        device.close()
    }
}
