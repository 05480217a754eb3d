import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    createNativeQueuePair(
        context, attr, operations: { _ in 0 }, allocate: QueuePairPointer.allocate,
        make: { pair, attr throws(KernelError) in try pair.make(&attr.cap, signalsAll: attr.sq_sig_all != 0) },
        fillBuilders: { _, _ in })
}

extension QueuePairPointer {
    /// Creates the queue pair in the kernel, and maps its receive queue. `limits` becomes the limits that the kernel
    /// returned.
    fileprivate func make(_ limits: inout ibv_qp_cap, signalsAll: Bool) throws(KernelError) {
        var mmapOffset: UInt64 = 0
        let created = try DriverData.response(&mmapOffset) { driver throws(KernelError) in
            try context.pointee.kernel.createQueuePair(request(limits, signalsAll: signalsAll), driver: driver)
        }
        pointee.base.qp_base.handle = created.handle
        pointee.base.qp_base.qp_num = created.number
        do throws(KernelError) {
            var receive = ReceiveQueue()
            if pointee.base.qp_base.srq == nil {
                receive = try ReceiveQueue(
                    offset: mmapOffset, maxWR: created.limits.max_recv_wr,
                    maxSGE: created.limits.max_recv_sge, of: context)
            }
            attach(receive: receive, maxSendSGE: created.limits.max_send_sge)
        } catch {
            _ = try? context.pointee.kernel.destroyQueuePair(created.handle)
            throw error
        }
        limits = created.limits
    }
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    destroyNativeQueuePair(qp) { pair in
        pair.sends.pointee.free()
        pair.receives.pointee.mapping.unmap()
    }
}
