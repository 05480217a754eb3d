import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkQueuePair(attr.pointee, context, operations: { _ in 0 })
    guard refusal == 0 else { return failure(refusal) }
    let domain = attr.pointee.pd.domain
    let pair = QueuePairPointer.allocate(isSingleThreaded: domain.pointee.isSingleThreaded)
    rdma_init_qp(UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self), context, attr)
    do throws(KernelError) {
        try pair.make(&attr.pointee.cap, signalsAll: attr.pointee.sq_sig_all != 0)
        domain.retain()
        return pair.verbs
    } catch {
        rdma_fini_qp(pair.verbs)
        pair.free()
        return failure(error.rawValue)
    }
}

extension QueuePairPointer {
    /// Makes the queue pair in the kernel, and maps its receive queue. The true limits are written back.
    fileprivate func make(_ limits: inout ibv_qp_cap, signalsAll: Bool) throws(KernelError) {
        let base = pointee.base.qp_base
        var request = QueuePairRequest(
            userHandle: UnsafeRawPointer(self), type: base.qp_type, domain: base.pd.pointee.handle,
            sendCompletions: base.send_cq.pointee.handle, receiveCompletions: base.recv_cq.pointee.handle,
            limits: limits, signalsAll: signalsAll, asyncDescriptor: context.pointee.opened.asyncDescriptor)
        request.sharedReceiveQueue = base.srq?.pointee.handle
        var offer: UInt64 = 0
        let made = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.createQueuePair(request, driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do throws(KernelError) {
            var receive = ReceiveQueue()
            if base.srq == nil {
                receive = try ReceiveQueue(
                    offer: offer, maximumRequests: made.limits.max_recv_wr,
                    maximumElements: made.limits.max_recv_sge, of: context)
            }
            attach(receive: receive, maximumSendElements: made.limits.max_send_sge)
        } catch {
            _ = try? context.pointee.kernel.destroyQueuePair(made.handle)
            throw error
        }
        limits = made.limits
    }
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    guard let qp else { return EINVAL }
    let pair = qp.hfi1
    let refusal = errno { () throws(KernelError) in
        let events = try pair.context.pointee.kernel.destroyQueuePair(qp.pointee.handle)
        if let events { rdma_wait_qp_events(qp, events) }
    }
    if refusal != 0 { return refusal }
    pair.sends.pointee.free()
    pair.receives.pointee.mapping.unmap()
    qp.pointee.pd.domain.release()
    rdma_fini_qp(qp)
    pair.free()
    return 0
}
