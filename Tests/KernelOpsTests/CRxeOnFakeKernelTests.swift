import CIBVerbs
import CKernelABI
import CProviderABI
import CProviderCore
import Glibc
import KernelOps
import KernelTestSupport
import TestSupport
import Testing

/// The provider in C without a kernel: its bytes in the queues, its checks, and what it does when the kernel or the core
/// is not as it expects. Undefined behaviour in it ends the process.
@Suite("crxe, the provider in C, on a fake kernel", .serialized)
struct CRxeOnFakeKernelTests {
    private struct Objects {
        let device: CRxe
        let pd: UnsafeMutablePointer<ibv_pd>
        let cq: UnsafeMutablePointer<ibv_cq>
        let qp: UnsafeMutablePointer<ibv_qp>

        init(_ type: ibv_qp_type = IBV_QPT_RC, operations: UInt64? = nil, extended: Bool = false) throws {
            device = try CRxe()
            pd = try #require(device.ops.alloc_pd(device.context))
            if extended {
                var attr = ibv_cq_init_attr_ex()
                attr.cqe = 10
                attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS)
                let made = try #require(device.ops.create_cq_ex(device.context, &attr))
                cq = UnsafeMutableRawPointer(made).assumingMemoryBound(to: ibv_cq.self)
            } else {
                cq = try #require(device.ops.create_cq(device.context, 10, nil, nil, 0))
            }
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = type
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = pd
            attr.send_cq = cq
            attr.recv_cq = cq
            if let operations {
                attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
                attr.send_ops_flags = operations
            }
            qp = try #require(device.ops.create_qp_ex(device.context, &attr))
            #expect(attr.cap.max_inline_data == 64 && qp.pointee.qp_num == 17)
            var change = ibv_qp_attr()
            change.qp_state = IBV_QPS_RTS
            try #require(device.ops.modify_qp(qp, &change, Int32(IBV_QP_STATE.rawValue)) == 0)
        }

        func destroy() {
            #expect(device.ops.destroy_qp(qp) == 0 && device.ops.destroy_cq(cq) == 0 && device.ops.dealloc_pd(pd) == 0)
            #expect(
                device.ended == [
                    UVERBS_OBJECT_QP.rawValue, UVERBS_OBJECT_CQ.rawValue, UVERBS_OBJECT_PD.rawValue,
                ])
        }

        func post(_ change: (inout ibv_send_wr) -> Void) -> Int32 {
            var data = (0x1122_3344_5566_7788 as UInt64, 0 as UInt64)
            return withUnsafeMutableBytes(of: &data) { bytes in
                var sge = ibv_sge(addr: UInt64(UInt(bitPattern: bytes.baseAddress!)), length: 8, lkey: 5)
                return withUnsafeMutablePointer(to: &sge) { sge in
                    var request = ibv_send_wr()
                    request.wr_id = 77
                    request.opcode = IBV_WR_SEND
                    request.send_flags = IBV_SEND_SIGNALED.rawValue
                    request.sg_list = sge
                    request.num_sge = 1
                    change(&request)
                    var bad: UnsafeMutablePointer<ibv_send_wr>?
                    return device.context.pointee.ops.post_send(qp, &request, &bad)
                }
            }
        }
    }

    @Test("a core without the uverbs commands, with fewer of them, or of an older ABI is refused with a reason")
    func cores() throws {
        // A copy of the library: a provider keeps the first core that it accepts.
        let entry = try CRxe.freshEntry()
        let fewer = zeroed(MemoryLayout<rdma_kernel_ops>.size).assumingMemoryBound(to: rdma_kernel_ops.self)
        fewer.pointee = KernelOps.table.pointee
        fewer.pointee.size = UInt32(MemoryLayout<rdma_kernel_ops>.offset(of: \.detach_mcast)!)
        for (change, wanted) in [
            ({ $0.kernel = nil }, "rdma_core.kernel"), ({ $0.size -= 8 }, "rdma_core.kernel"),
            ({ $0.kernel = UnsafePointer(fewer) }, "rdma_core.kernel"),
            ({ $0.abi_minor -= 1 }, "later version of the provider ABI"),
            ({ $0.abi_major += 1 }, "later version of the provider ABI"),
        ] as [((inout rdma_core) -> Void, String)] {
            let (provider, reason) = CRxe.enter(entry, change)
            #expect(provider == nil && reason.contains(wanted) && reason.contains("update the core"), "\(reason)")
        }
        #expect(CRxe.enter(entry).provider != nil)
    }

    @Test("work requests become WQEs, field by field, and one doorbell for each call")
    func sends() throws {
        let objects = try Objects()
        let device = objects.device
        let error = objects.post {
            $0.opcode = IBV_WR_RDMA_WRITE_WITH_IMM
            $0.imm_data = 0x0A0B_0C0D
            $0.wr.rdma.remote_addr = 0x9000
            $0.wr.rdma.rkey = 0x88
        }
        #expect(error == 0 && device.index(CRxe.sends, producer: true) == 1)
        let wqe = device.entry(CRxe.sends, 0)
        #expect(wqe.load(as: UInt64.self) == 77 && wqe.load(fromByteOffset: 12, as: UInt32.self) == 1)
        #expect(wqe.load(fromByteOffset: 16, as: UInt32.self) == IBV_SEND_SIGNALED.rawValue)
        #expect(wqe.load(fromByteOffset: 20, as: UInt32.self) == 0x0A0B_0C0D)
        #expect(wqe.load(fromByteOffset: 24, as: UInt64.self) == 0x9000)
        #expect(wqe.load(fromByteOffset: 32, as: UInt32.self) == 0x88)
        #expect(wqe.load(fromByteOffset: 152, as: UInt64.self) == 0x9000)
        // struct rxe_dma_info: length, resid, cur_sge, num_sge; then the SGE.
        #expect((0..<4).map { wqe.load(fromByteOffset: 184 + 4 * $0, as: UInt32.self) } == [8, 8, 0, 1])
        #expect([216, 220].map { wqe.load(fromByteOffset: $0, as: UInt32.self) } == [8, 5])
        // The doorbell: POST_SEND of 8 words with a response of one, for the handle 43, without requests.
        #expect(device.memory.load(as: UInt32.self) == IB_USER_VERBS_CMD_POST_SEND.rawValue)
        #expect(device.memory.load(fromByteOffset: 4, as: UInt32.self) == 1 << 16 | 8)
        #expect((0..<4).map { device.memory.load(fromByteOffset: 16 + 4 * $0, as: UInt32.self) } == [43, 0, 0, 128])

        #expect(objects.post { $0.send_flags = IBV_SEND_INLINE.rawValue } == 0)
        let second = device.entry(CRxe.sends, 1)
        #expect(second.load(fromByteOffset: 208, as: UInt64.self) == 0x1122_3344_5566_7788)
        #expect(second.load(fromByteOffset: 196, as: UInt32.self) == 0)
        #expect(device.memory.load(fromByteOffset: 32, as: UInt32.self) == IB_USER_VERBS_CMD_POST_SEND.rawValue)
        objects.destroy()
    }

    @Test("what cannot be posted is refused, with the request that was not posted; a full queue is ENOMEM")
    func refusedSends() throws {
        let objects = try Objects()
        let device = objects.device
        for (wanted, change) in [
            (EINVAL, { $0.opcode = ibv_wr_opcode(rawValue: 31) }),
            (EINVAL, { $0.opcode = ibv_wr_opcode(rawValue: 99) }),
            (EINVAL, { $0.num_sge = -1 }), (EINVAL, { $0.num_sge = 5 }), (EINVAL, { $0.sg_list = nil }),
            (EOPNOTSUPP, { $0.send_flags = 1 << 20 }),
            (
                EINVAL,
                {
                    $0.send_flags = IBV_SEND_INLINE.rawValue
                    $0.sg_list.pointee.length = 65
                }
            ),
            (
                EINVAL,
                {
                    $0.opcode = IBV_WR_RDMA_READ
                    $0.send_flags = IBV_SEND_INLINE.rawValue
                }
            ),
            (
                EINVAL,
                {
                    $0.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD
                    $0.wr.atomic.remote_addr = 3
                }
            ),
            (EINVAL, { $0.opcode = IBV_WR_BIND_MW }),
        ] as [(Int32, (inout ibv_send_wr) -> Void)] {
            #expect(objects.post(change) == wanted)
        }
        #expect(device.index(CRxe.sends, producer: true) == 0)
        for _ in 0..<15 { #expect(objects.post { _ in } == 0) }
        #expect(objects.post { _ in } == ENOMEM && device.index(CRxe.sends, producer: true) == 15)
        device.setIndex(CRxe.sends, producer: false, 4)
        #expect(objects.post { _ in } == 0 && device.index(CRxe.sends, producer: true) == 0)
        objects.destroy()
    }

    @Test("receives are written to the ring; completions are polled, with the flag of an invalidated rkey")
    func receives() throws {
        let objects = try Objects()
        let device = objects.device
        var sges = [ibv_sge(addr: 1, length: 2, lkey: 3), ibv_sge(addr: 4, length: 5, lkey: 6)]
        sges.withUnsafeMutableBufferPointer { list in
            var request = ibv_recv_wr(wr_id: 9, next: nil, sg_list: list.baseAddress, num_sge: 2)
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(device.context.pointee.ops.post_recv(objects.qp, &request, &bad) == 0)
            request.num_sge = 6
            #expect(device.context.pointee.ops.post_recv(objects.qp, &request, &bad) == EINVAL)
            withUnsafeMutablePointer(to: &request) { #expect(bad == $0) }
        }
        let wqe = device.entry(CRxe.receives, 0)
        #expect(wqe.load(as: UInt64.self) == 9 && wqe.load(fromByteOffset: 16, as: UInt32.self) == 7)
        #expect(wqe.load(fromByteOffset: 28, as: UInt32.self) == 2)
        #expect(wqe.load(fromByteOffset: 56, as: UInt64.self) == 4)

        var completions = [ibv_wc](repeating: ibv_wc(), count: 4)
        let poll = device.context.pointee.ops.poll_cq!
        #expect(poll(objects.cq, 4, &completions) == 0)
        for id in 0..<3 {
            var completion = ibv_wc()
            completion.wr_id = UInt64(100 + id)
            // IB_WC_WITH_INVALIDATE of the kernel.
            completion.wc_flags = id == 2 ? 4 : 0
            device.entry(CRxe.completions, id).storeBytes(of: completion, as: ibv_wc.self)
        }
        device.setIndex(CRxe.completions, producer: true, 3)
        #expect(poll(objects.cq, -1, &completions) == -EINVAL && poll(objects.cq, 0, &completions) == 0)
        #expect(poll(objects.cq, 2, &completions) == 2 && completions[1].wr_id == 101)
        #expect(device.index(CRxe.completions, producer: false) == 2)
        #expect(poll(objects.cq, 4, &completions) == 1 && completions[0].wr_id == 102)
        #expect(completions[0].wc_flags == IBV_WC_WITH_INV.rawValue)
        objects.destroy()
    }

    @Test("inside a batch: polling, resizing and destroying the same queue are refused, and the slot stays in use")
    func batches() throws {
        let objects = try Objects(extended: true)
        let (device, cq) = (objects.device, objects.cq)
        let extended = UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq_ex.self)
        var attr = ibv_poll_cq_attr()
        #expect(extended.pointee.start_poll(extended, &attr) == ENOENT)
        #expect(extended.pointee.next_poll(extended) == EINVAL)
        extended.pointee.end_poll(extended)
        for id in 0..<2 {
            var completion = ibv_wc()
            completion.wr_id = UInt64(50 + id)
            completion.byte_len = UInt32(1000 + id)
            device.entry(CRxe.completions, id).storeBytes(of: completion, as: ibv_wc.self)
        }
        device.setIndex(CRxe.completions, producer: true, 2)
        #expect(extended.pointee.start_poll(extended, &attr) == 0 && extended.pointee.wr_id == 50)
        var completion = ibv_wc()
        #expect(device.context.pointee.ops.poll_cq(cq, 1, &completion) == -EBUSY)
        #expect(extended.pointee.start_poll(extended, &attr) == EBUSY)
        #expect(device.ops.resize_cq(cq, 20) == EBUSY && device.ops.destroy_cq(cq) == EBUSY)
        #expect(extended.pointee.read_byte_len(extended) == 1000)
        #expect(device.index(CRxe.completions, producer: false) == 0)
        #expect(extended.pointee.next_poll(extended) == 0 && extended.pointee.read_byte_len(extended) == 1001)
        #expect(device.index(CRxe.completions, producer: false) == 1)
        #expect(extended.pointee.next_poll(extended) == ENOENT)
        extended.pointee.end_poll(extended)
        #expect(device.index(CRxe.completions, producer: false) == 2)
        objects.destroy()
    }

    @Test("the wr_ functions write WQEs that wr_complete posts at once, or not at all after an error")
    func builders() throws {
        let operations = UInt64(IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_RDMA_WRITE.rawValue)
        let objects = try Objects(operations: operations)
        let device = objects.device
        let qp = try #require(device.ops.qp_to_qp_ex(objects.qp))
        #expect(qp.pointee.wr_rdma_read == nil)
        qp.pointee.wr_start(qp)
        qp.pointee.wr_id = 1
        qp.pointee.wr_send(qp)
        var bytes: [UInt8] = [1, 2, 3]
        qp.pointee.wr_set_inline_data(qp, &bytes, 3)
        qp.pointee.wr_id = 2
        qp.pointee.wr_rdma_write(qp, 8, 0x700)
        qp.pointee.wr_set_sge(qp, 4, 0x4000, 16)
        #expect(device.index(CRxe.sends, producer: true) == 0)
        #expect(qp.pointee.wr_complete(qp) == 0 && device.index(CRxe.sends, producer: true) == 2)
        let first = device.entry(CRxe.sends, 0)
        #expect(first.load(fromByteOffset: 16, as: UInt32.self) == IBV_SEND_INLINE.rawValue)
        #expect(first.load(fromByteOffset: 208, as: UInt32.self) & 0xFF_FFFF == 0x03_0201)
        #expect(device.entry(CRxe.sends, 1).load(fromByteOffset: 24, as: UInt64.self) == 0x700)

        // A setter without a request, data that is too long, and an abort.
        qp.pointee.wr_start(qp)
        qp.pointee.wr_set_sge(qp, 4, 0x4000, 16)
        #expect(qp.pointee.wr_complete(qp) == EINVAL)
        qp.pointee.wr_start(qp)
        qp.pointee.wr_send(qp)
        qp.pointee.wr_set_inline_data(qp, zeroed(65), 65)
        #expect(qp.pointee.wr_complete(qp) == EINVAL)
        qp.pointee.wr_start(qp)
        qp.pointee.wr_send(qp)
        qp.pointee.wr_abort(qp)
        for _ in 0..<14 {
            qp.pointee.wr_start(qp)
            qp.pointee.wr_send(qp)
            qp.pointee.wr_set_sge(qp, 4, 0x4000, 16)
            if qp.pointee.wr_complete(qp) != 0 { break }
        }
        #expect(device.index(CRxe.sends, producer: true) == 15)
        qp.pointee.wr_start(qp)
        qp.pointee.wr_send(qp)
        #expect(qp.pointee.wr_complete(qp) == ENOMEM)
        objects.destroy()
    }

    @Test("a datagram has the number of its address handle; UD refuses what it does not have")
    func datagrams() throws {
        let objects = try Objects(IBV_QPT_UD)
        let device = objects.device
        var attr = ibv_ah_attr()
        attr.port_num = 1
        let ah = try #require(device.ops.create_ah(objects.pd, &attr))
        let error = objects.post {
            $0.wr.ud.ah = ah
            $0.wr.ud.remote_qpn = 3
            $0.wr.ud.remote_qkey = 4
        }
        let wqe = device.entry(CRxe.sends, 0)
        #expect(error == 0 && wqe.load(fromByteOffset: 24, as: UInt32.self) == 3)
        #expect([28, 36].map { wqe.load(fromByteOffset: $0, as: UInt32.self) } == [4, 0x77])
        #expect(objects.post { $0.wr.ud.ah = nil } == EINVAL)
        #expect(objects.post { $0.opcode = IBV_WR_RDMA_WRITE } == EINVAL)
        #expect(device.ops.dealloc_pd(objects.pd) == EBUSY)
        #expect(device.ops.destroy_ah(ah) == 0)
        #expect(device.ops.destroy_qp(objects.qp) == 0 && device.ops.destroy_cq(objects.cq) == 0)
        #expect(device.ops.dealloc_pd(objects.pd) == 0)
    }

    @Test("memory of another layout is EPROTO, and the object is destroyed in the kernel again")
    func layouts() throws {
        for mask in [16, UInt32.max, 1 << 20 - 1] as [UInt32] {
            let device = try CRxe()
            device.prepare(CRxe.completions, mask: mask)
            rdma_drop_explanation()
            #expect(device.ops.create_cq(device.context, 10, nil, nil, 0) == nil && errno == EPROTO)
            #expect(rdma_explanation(EPROTO).map { String(cString: $0) }?.contains("layout") == true)
            #expect(device.ended == [UVERBS_OBJECT_CQ.rawValue])
        }
    }

    @Test("after IBV_EVENT_DEVICE_FATAL completions can be polled, then everything is EIO; objects can be destroyed")
    func gone() throws {
        let objects = try Objects()
        let device = objects.device
        device.setIndex(CRxe.completions, producer: true, 1)
        var event = ibv_async_event()
        event.event_type = IBV_EVENT_DEVICE_FATAL
        device.ops.async_event(device.context, &event)
        var completion = ibv_wc()
        #expect(device.context.pointee.ops.poll_cq(objects.cq, 1, &completion) == 1)
        #expect(device.context.pointee.ops.poll_cq(objects.cq, 1, &completion) == -EIO)
        #expect(objects.post { _ in } == EIO && device.context.pointee.ops.req_notify_cq(objects.cq, 0) == EIO)
        var request = ibv_recv_wr()
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(device.context.pointee.ops.post_recv(objects.qp, &request, &bad) == EIO)
        device.kernel.onCall = { _ in EIO }
        #expect(device.ops.destroy_qp(objects.qp) == 0 && device.ops.destroy_cq(objects.cq) == 0)
        #expect(device.ops.dealloc_pd(objects.pd) == 0)
    }
}
