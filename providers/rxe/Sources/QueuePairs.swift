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
        context, attr, operations: sendOperations, allocate: QueuePairPointer.allocate,
        make: { pair, attr throws(KernelError) in try pair.make(&attr.cap, signalsAll: attr.sq_sig_all != 0) },
        fillBuilders: fillBuilders)
}

extension QueuePairPointer {
    /// Creates the queue pair in the kernel, and maps its queues. `limits` becomes the limits that the kernel returned.
    fileprivate func make(_ limits: inout ibv_qp_cap, signalsAll: Bool) throws(KernelError) {
        var response = rxe_create_qp_resp()
        let created = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.kernel.createQueuePair(request(limits, signalsAll: signalsAll), driver: driver)
        }
        pointee.base.qp_base.handle = created.handle
        pointee.base.qp_base.qp_num = created.number
        do {
            try map(response, hasReceives: pointee.base.qp_base.srq == nil, limits: created.limits)
        } catch {
            _ = try? context.pointee.kernel.destroyQueuePair(created.handle)
            throw error
        }
        limits = created.limits
    }

    private func map(_ response: rxe_create_qp_resp, hasReceives: Bool, limits: ibv_qp_cap) throws(KernelError) {
        let send = try Ring(mapping: response.sq_mi, of: context, entrySize: Int32(RXE_SEND_DATA))
        var receive: Ring?
        if hasReceives {
            do {
                receive = try Ring(mapping: response.rq_mi, of: context, entrySize: Int32(RXE_RECEIVE_DATA))
            } catch {
                send.unmap()
                throw error
            }
        }
        let descriptor = context.pointee.kernel.descriptor
        guard attach(send: send, receive: receive, limits: limits, descriptor: descriptor) else {
            send.unmap()
            receive?.unmap()
            throw KernelError.unknownLayout()
        }
    }
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    destroyNativeQueuePair(qp) { pair in
        pair.sends.pointee.ring.unmap()
        pair.receives.pointee.ring.unmap()
    }
}
