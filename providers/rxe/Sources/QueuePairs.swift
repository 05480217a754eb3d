import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

extension QueuePairPointer {
    var context: NativeContextPointer { pointee.base.qp_base.context.native }
}

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkQueuePair(attr.pointee, context, operations: sendOperations)
    guard refusal == 0 else { return failure(refusal) }
    let domain = attr.pointee.pd.domain
    let pair = QueuePairPointer.allocate(isSingleThreaded: domain.pointee.isSingleThreaded)
    let base = UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self)
    rdma_init_qp(base, context, attr)
    do {
        try pair.make(&attr.pointee.cap, signalsAll: attr.pointee.sq_sig_all != 0)
    } catch {
        rdma_fini_qp(pair.verbs)
        pair.free()
        return failure(error.rawValue)
    }
    if attr.pointee.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0 {
        fillBuilders(base, operations: attr.pointee.send_ops_flags)
    }
    domain.retain()
    return pair.verbs
}

extension QueuePairPointer {
    /// Makes the queue pair in the kernel, and maps its queues. The true limits are written back.
    fileprivate func make(_ limits: inout ibv_qp_cap, signalsAll: Bool) throws(KernelError) {
        let base = pointee.base.qp_base
        var request = QueuePairRequest(
            userHandle: UnsafeRawPointer(self), type: base.qp_type, domain: base.pd.pointee.handle,
            sendCompletions: base.send_cq.pointee.handle, receiveCompletions: base.recv_cq.pointee.handle,
            limits: limits, signalsAll: signalsAll, asyncDescriptor: context.pointee.opened.asyncDescriptor)
        request.sharedReceiveQueue = base.srq?.pointee.handle
        var answer = rxe_create_qp_resp()
        let made = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.createQueuePair(request, driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do {
            try map(answer, hasReceives: base.srq == nil, limits: made.limits)
        } catch {
            _ = try? context.pointee.kernel.destroyQueuePair(made.handle)
            throw error
        }
        limits = made.limits
    }

    private func map(_ offer: rxe_create_qp_resp, hasReceives: Bool, limits: ibv_qp_cap) throws(KernelError) {
        let send = try Ring(mapping: offer.sq_mi, of: context, entrySize: Int32(RXE_SEND_DATA))
        var receive: Ring?
        if hasReceives {
            do {
                receive = try Ring(mapping: offer.rq_mi, of: context, entrySize: Int32(RXE_RECEIVE_DATA))
            } catch {
                send.unmap()
                throw error
            }
        }
        let descriptor = context.pointee.kernel.descriptor
        guard attach(send: send, receive: receive, limits: limits, descriptor: descriptor) else {
            send.unmap()
            receive?.unmap()
            throw KernelError(rawValue: EPROTO)
        }
    }
}

func queuePairToExtended(qp: UnsafeMutablePointer<ibv_qp>?) -> UnsafeMutablePointer<ibv_qp_ex>? {
    guard let qp, qp.rxe.pointee.base.wr_start != nil else { return nil }
    return UnsafeMutableRawPointer(qp).assumingMemoryBound(to: ibv_qp_ex.self)
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    guard let qp else { return EINVAL }
    let pair = qp.rxe
    do {
        let events = try pair.context.pointee.kernel.destroyQueuePair(qp.pointee.handle)
        if let events { rdma_wait_qp_events(qp, events) }
    } catch {
        return error.rawValue
    }
    pair.sends.pointee.ring.unmap()
    pair.receives.pointee.ring.unmap()
    qp.pointee.pd.domain.release()
    rdma_fini_qp(qp)
    pair.free()
    return 0
}
