import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import CProviderCore
import Glibc
import KernelOps
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@Suite("rdma_kernel_ops: objects with events")
struct QueueTests {
    static let probes = [ENOSPC, ENOTTY]

    /// Makes the kernel answer the creation of a queue, and its destruction with event counts.
    private func answerQueues(_ kernel: FakeKernel, events: UInt32 = 0) {
        kernel.onCall = { call in
            switch (call.object, call.method) {
            case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_CREATE.rawValue):
                call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(41)
                call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(127 as UInt32)
                call.attribute(UVERBS_ATTR_UHW_OUT)?.respond(0xC0FFEE as UInt64)
            case (UVERBS_OBJECT_SRQ.rawValue, UVERBS_METHOD_SRQ_CREATE.rawValue):
                call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)!.set(42)
                call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR.rawValue)!.respond(63 as UInt32)
                call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE.rawValue)!.respond(4 as UInt32)
                call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM.rawValue)!.respond(0x321 as UInt32)
            case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_CREATE.rawValue):
                call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(43)
                call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(0x17 as UInt32)
                var limits = ibv_qp_cap()
                limits.max_send_wr = 255
                call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(limits)
            case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_DESTROY.rawValue):
                call.attribute(UVERBS_ATTR_DESTROY_CQ_RESP.rawValue)!.respond(
                    ib_uverbs_destroy_cq_resp(comp_events_reported: events, async_events_reported: events))
            case (UVERBS_OBJECT_SRQ.rawValue, UVERBS_METHOD_SRQ_DESTROY.rawValue):
                call.attribute(UVERBS_ATTR_DESTROY_SRQ_RESP.rawValue)!.respond(
                    ib_uverbs_destroy_srq_resp(events_reported: events))
            case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_DESTROY.rawValue):
                call.attribute(UVERBS_ATTR_DESTROY_QP_RESP.rawValue)!.respond(
                    ib_uverbs_destroy_qp_resp(events_reported: events))
            default: break
            }
            return 0
        }
        kernel.onWrite = { command, response in
            guard let response else { return 0 }
            let words: [UInt32]
            switch command.load(0, as: UInt32.self) {
            case IB_USER_VERBS_CMD_CREATE_CQ.rawValue: words = [41, 127]
            case IB_USER_VERBS_CMD_CREATE_SRQ.rawValue: words = [42, 63, 4, 0x321]
            case IB_USER_VERBS_CMD_CREATE_QP.rawValue: words = [43, 0x17, 255]
            default: words = [events, events].prefix(Int(command.load(6, as: UInt16.self))).map { $0 }
            }
            for (index, word) in words.enumerated() {
                response.storeBytes(of: word, toByteOffset: 4 * index, as: UInt32.self)
            }
            return 0
        }
    }

    private func completionQueue(_ node: Node) throws -> UnsafeMutablePointer<ibv_cq> {
        let cq = node.object(ibv_cq_ex.self)
        let verbs = UnsafeMutableRawPointer(cq).assumingMemoryBound(to: ibv_cq.self)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 100
        try #require(node.ops.create_cq(node.handle, verbs, node.context, &attr, nil) == 0)
        return verbs
    }

    private func queuePair(
        _ node: Node, _ cq: UnsafeMutablePointer<ibv_cq>, change: (inout ibv_qp_init_attr_ex) -> Void = { _ in }
    ) -> (qp: UnsafeMutablePointer<ibv_qp>, error: Int32, attr: ibv_qp_init_attr_ex) {
        let qp = node.object(ibv_qp_ex.self)
        var attr = ibv_qp_init_attr_ex()
        attr.qp_type = IBV_QPT_RC
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = node.domain(5)
        attr.send_cq = cq
        attr.recv_cq = cq
        attr.cap.max_send_wr = 200
        change(&attr)
        let error = node.ops.create_qp_ex(node.handle, qp, node.context, &attr, nil)
        return (UnsafeMutableRawPointer(qp).assumingMemoryBound(to: ibv_qp.self), error, attr)
    }

    @Test("a completion channel is closed by destroy_comp_channel, which a queue refuses with EBUSY", arguments: probes)
    func channel(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        let memory = linux_memory_file("channel")
        node.kernel.answer([UInt32(bitPattern: memory)])
        let channel = node.object(ibv_comp_channel.self)
        #expect(node.ops.create_comp_channel(node.handle, channel, node.context) == 0)
        #expect(channel.pointee.fd == memory && channel.pointee.context == node.context)
        answerQueues(node.kernel)
        let cq = node.object(ibv_cq.self)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 1
        attr.channel = channel
        #expect(node.ops.create_cq(node.handle, cq, node.context, &attr, nil) == 0)
        #expect(node.ops.destroy_comp_channel(node.handle, channel) == EBUSY && fcntl(memory, F_GETFD) >= 0)
        #expect(node.ops.destroy_cq(node.handle, cq) == 0)
        #expect(node.ops.destroy_comp_channel(node.handle, channel) == 0 && fcntl(memory, F_GETFD) < 0)
    }

    @Test("create_cq sends the address of the ibv_cq and the flags, and sets handle and cqe", arguments: probes)
    func completionQueue(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        answerQueues(node.kernel)
        let cq = node.object(ibv_cq.self)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 100
        attr.comp_vector = 2
        attr.cq_context = UnsafeMutableRawPointer(bitPattern: 0x66)
        #expect(node.ops.create_cq(node.handle, cq, node.context, &attr, nil) == 0)
        #expect(cq.pointee.handle == 41 && cq.pointee.cqe == 127 && cq.pointee.context == node.context)
        #expect(UInt(bitPattern: cq.pointee.cq_context) == 0x66)
        let address = UInt64(UInt(bitPattern: cq))
        if probe == ENOSPC {
            let call = try #require(node.kernel.calls.last)
            #expect(call.attribute(UVERBS_ATTR_CREATE_CQ_USER_HANDLE.rawValue)?.data == address)
            #expect(call.attribute(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR.rawValue)?.data == 2)
            #expect(call.attribute(UVERBS_ATTR_CREATE_CQ_FLAGS.rawValue) == nil)
            let descriptor = UInt64(Node.asyncDescriptor)
            #expect(call.attribute(UVERBS_ATTR_CREATE_CQ_EVENT_FD.rawValue)?.data == descriptor)
            // Flags of verbs.h become those of the kernel.
            attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
            attr.flags = IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue | IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
            attr.wc_flags = UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
            let second = node.object(ibv_cq.self)
            let out = withUdata(1) { node.ops.create_cq(node.handle, second, node.context, &attr, $0) }
            #expect(out.error == 0 && out.output == 0xC0FFEE)
            let flags = node.kernel.calls.last?.attribute(UVERBS_ATTR_CREATE_CQ_FLAGS.rawValue)?.data
            #expect(flags == 3)
        } else {
            #expect(node.kernel.writes.last?.load(16, as: UInt64.self) == address)
        }
        node.kernel.answer([200])
        #expect(node.ops.resize_cq(node.handle, cq, 150, nil) == 0 && cq.pointee.cqe == 200)
        #expect(node.ops.req_notify_cq(node.handle, cq, 1) == 0)
        attr.cqe = UInt32(Int32.max) + 1
        #expect(node.ops.create_cq(node.handle, node.object(ibv_cq.self), node.context, &attr, nil) == EINVAL)
    }

    @Test("an object that the kernel refuses is not counted at its channel, and its memory can be freed")
    func refused() throws {
        let node = try Node()
        let channel = node.object(ibv_comp_channel.self)
        rdma_init_comp_channel(channel, node.context, -1)
        node.kernel.onCall = { _ in ENOMEM }
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 1
        attr.channel = channel
        let cq = node.object(ibv_cq.self)
        #expect(node.ops.create_cq(node.handle, cq, node.context, &attr, nil) == ENOMEM)
        #expect(rdma_comp_channel_busy(channel) == 0)
        #expect(queuePair(node, cq).error == ENOMEM)
    }

    @Test("shared receive queues: limits, number, handle; other types are EOPNOTSUPP", arguments: probes)
    func sharedReceiveQueue(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        answerQueues(node.kernel)
        let srq = node.object(ibv_srq.self)
        var attr = ibv_srq_init_attr_ex()
        attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        attr.pd = node.domain(5)
        attr.attr = ibv_srq_attr(max_wr: 50, max_sge: 2, srq_limit: 0)
        var number: UInt32 = 0
        #expect(node.ops.create_srq_ex(node.handle, srq, node.context, &attr, &number, nil) == 0)
        #expect(srq.pointee.handle == 42 && srq.pointee.pd == attr.pd && number == 0x321)
        #expect(attr.attr.max_wr == 63 && attr.attr.max_sge == 4)
        var limits = ibv_srq_attr(max_wr: 0, max_sge: 0, srq_limit: 7)
        #expect(node.ops.modify_srq(node.handle, srq, &limits, Int32(IBV_SRQ_LIMIT.rawValue), nil) == 0)
        node.kernel.answer([63, 4, 7])
        #expect(node.ops.query_srq(node.handle, srq, &limits) == 0 && limits.srq_limit == 7 && limits.max_wr == 63)
        attr.comp_mask |= IBV_SRQ_INIT_ATTR_TYPE.rawValue
        attr.srq_type = IBV_SRQT_XRC
        #expect(node.ops.create_srq_ex(node.handle, srq, node.context, &attr, nil, nil) == EOPNOTSUPP)
        attr.comp_mask = 0
        #expect(node.ops.create_srq_ex(node.handle, srq, node.context, &attr, nil, nil) == EINVAL)
    }

    @Test("queue pairs: created, modified, queried; ibv_qp.state follows", arguments: probes)
    func queuePairs(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        answerQueues(node.kernel)
        let cq = try completionQueue(node)
        let (qp, error, attr) = queuePair(node, cq)
        #expect(error == 0 && qp.pointee.handle == 43 && qp.pointee.qp_num == 0x17 && attr.cap.max_send_wr == 255)
        #expect(qp.pointee.state == IBV_QPS_RESET && qp.pointee.send_cq == cq && qp.pointee.qp_type == IBV_QPT_RC)
        let address = UInt64(UInt(bitPattern: qp))
        if probe == ENOSPC {
            #expect(node.kernel.calls.last?.attribute(UVERBS_ATTR_CREATE_QP_USER_HANDLE.rawValue)?.data == address)
        } else {
            #expect(node.kernel.writes.last?.load(16, as: UInt64.self) == address)
        }
        var change = ibv_qp_attr()
        change.qp_state = IBV_QPS_INIT
        #expect(node.ops.modify_qp(node.handle, qp, &change, Int32(IBV_QP_STATE.rawValue), nil) == 0)
        #expect(qp.pointee.state == IBV_QPS_INIT)
        node.kernel.onCall = { _ in EINVAL }
        node.kernel.onWrite = { _, _ in EINVAL }
        change.qp_state = IBV_QPS_RTS
        #expect(node.ops.modify_qp(node.handle, qp, &change, Int32(IBV_QP_STATE.rawValue), nil) == EINVAL)
        #expect(qp.pointee.state == IBV_QPS_INIT)

        var response = ib_uverbs_query_qp_resp()
        response.qp_state = UInt8(IBV_QPS_ERR.rawValue)
        response.max_send_wr = 255
        response.sq_sig_all = 1
        node.kernel.onCall = { call in
            FakeKernel.response(of: call)?.storeBytes(of: response, as: ib_uverbs_query_qp_resp.self)
            return 0
        }
        node.kernel.onWrite = { _, address in
            address!.storeBytes(of: response, as: ib_uverbs_query_qp_resp.self)
            return 0
        }
        var found = ibv_qp_attr()
        found.rate_limit = 0x5A5A
        var initial = ibv_qp_init_attr()
        #expect(node.ops.query_qp(node.handle, qp, &found, Int32(IBV_QP_STATE.rawValue), &initial) == 0)
        #expect(found.qp_state == IBV_QPS_ERR && qp.pointee.state == IBV_QPS_ERR && found.cap.max_send_wr == 255)
        #expect(initial.send_cq == cq && initial.sq_sig_all == 1 && initial.cap.max_send_wr == 255)
        // An application that was built with an older verbs.h has no such member.
        #expect(found.rate_limit == 0x5A5A)
        let rate = Int32(IBV_QP_RATE_LIMIT.rawValue)
        #expect(node.ops.query_qp(node.handle, qp, &found, rate, &initial) == 0 && found.rate_limit == 0)
    }

    @Test("queue pairs: creation flags go to the kernel; XRC and indirection tables are EOPNOTSUPP")
    func queuePairAttributes() throws {
        let node = try Node()
        answerQueues(node.kernel)
        let cq = try completionQueue(node)
        #expect(
            queuePair(node, cq) {
                $0.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue
                $0.create_flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB.rawValue
                $0.sq_sig_all = 1
            }.error == 0)
        let flags = node.kernel.calls.last?.attribute(UVERBS_ATTR_CREATE_QP_FLAGS.rawValue)?.data
        #expect(flags == UInt64(IB_UVERBS_QP_CREATE_SQ_SIG_ALL.rawValue | 2))
        for field in [IBV_QP_INIT_ATTR_XRCD, IBV_QP_INIT_ATTR_IND_TABLE] {
            #expect(queuePair(node, cq) { $0.comp_mask |= field.rawValue }.error == EOPNOTSUPP)
        }
        #expect(queuePair(node, cq) { $0.recv_cq = nil }.error == EINVAL)
        // A parent domain, or one of another shared receive queue: the handles of both.
        let srq = node.object(ibv_srq.self)
        srq.pointee.handle = 99
        #expect(queuePair(node, cq) { $0.srq = srq }.error == 0)
        #expect(node.kernel.calls.last?.attribute(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE.rawValue)?.data == 99)
    }

    @Test("destroying waits until the events that the kernel has counted are acknowledged", arguments: probes)
    func acknowledged(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        answerQueues(node.kernel, events: 1)
        let cq = try completionQueue(node)
        let qp = queuePair(node, cq).qp
        let srq = node.object(ibv_srq.self)
        var attr = ibv_srq_init_attr_ex()
        attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        attr.pd = node.domain(5)
        #expect(node.ops.create_srq_ex(node.handle, srq, node.context, &attr, nil, nil) == 0)

        // Each is destroyed on a thread of its own, which ends only after the acknowledgement.
        let (ops, handle) = (node.ops, node.handle)
        let qpEnds = Ending { ops.destroy_qp(handle, qp) }
        #expect(!qpEnds.ends(within: 50))
        var event = ibv_async_event()
        event.event_type = IBV_EVENT_QP_FATAL
        event.element.qp = qp
        rdma_ack_async_event(&event)
        #expect(qpEnds.ends(within: 20_000) && qpEnds.result == 0)

        let srqEnds = Ending { ops.destroy_srq(handle, srq) }
        #expect(!srqEnds.ends(within: 50))
        event.event_type = IBV_EVENT_SRQ_LIMIT_REACHED
        event.element.srq = srq
        rdma_ack_async_event(&event)
        #expect(srqEnds.ends(within: 20_000) && srqEnds.result == 0)

        let cqEnds = Ending { ops.destroy_cq(handle, cq) }
        rdma_ack_cq_events(cq, 1)
        #expect(!cqEnds.ends(within: 50))
        event.event_type = IBV_EVENT_CQ_ERR
        event.element.cq = cq
        rdma_ack_async_event(&event)
        #expect(cqEnds.ends(within: 20_000) && cqEnds.result == 0)
    }

    @Test("EBUSY leaves the object as it is; a device that is gone ends it without events", arguments: probes)
    func refusedAndGone(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        answerQueues(node.kernel)
        let cq = try completionQueue(node)
        let qp = queuePair(node, cq).qp
        for (result, wanted) in [(EBUSY, EBUSY), (EIO, 0)] {
            node.kernel.onCall = { _ in result }
            node.kernel.onWrite = { _, _ in result }
            #expect(node.ops.destroy_qp(node.handle, qp) == wanted)
            #expect(node.ops.destroy_cq(node.handle, cq) == wanted)
            #expect(cq.pointee.handle == 41 && qp.pointee.handle == 43)
        }
    }
}

/// A call on a thread of its own.
private final class Ending: @unchecked Sendable {
    // Unchecked: `result` is written before the semaphore is signalled, and read after it.
    private(set) var result: Int32 = -1
    private let body: () -> Int32
    private var semaphore = sem_t()
    private var thread = pthread_t()

    init(_ body: @escaping () -> Int32) {
        self.body = body
        sem_init(&semaphore, 0, 0)
        pthread_create(
            &thread, nil,
            { argument in
                let ending = Unmanaged<Ending>.fromOpaque(argument!).takeRetainedValue()
                ending.result = ending.body()
                sem_post(&ending.semaphore)
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        pthread_detach(thread)
    }

    /// Waits that many milliseconds at most. Returns whether the call has ended.
    func ends(within milliseconds: Int) -> Bool {
        for _ in 0..<milliseconds {
            if sem_trywait(&semaphore) == 0 {
                sem_post(&semaphore)
                return true
            }
            usleep(1000)
        }
        return false
    }
}
