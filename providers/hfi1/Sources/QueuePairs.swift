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
    /// Makes the queue pair in the kernel, and maps its receive queue. The true limits are written back.
    fileprivate func make(_ limits: inout ibv_qp_cap, signalsAll: Bool) throws(KernelError) {
        var offer: UInt64 = 0
        let made = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.createQueuePair(request(limits, signalsAll: signalsAll), driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do throws(KernelError) {
            var receive = ReceiveQueue()
            if pointee.base.qp_base.srq == nil {
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
    destroyNativeQueuePair(qp) { pair in
        pair.sends.pointee.free()
        pair.receives.pointee.mapping.unmap()
    }
}
