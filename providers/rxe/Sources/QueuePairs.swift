import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    // The kernel is asked only for the operations that not every kernel has.
    var placements: UInt64 = 0
    if let context, let attr, attr.pointee.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0,
        attr.pointee.send_ops_flags & PlacementOperations.all != 0
    {
        var attributes = ibv_device_attr_ex()
        do throws(KernelError) {
            _ = try context.native.pointee.kernel.queryDevice(&attributes)
        } catch {
            return failure(error.rawValue)
        }
        placements = placementOperations(attributes.device_cap_flags_ex)
    }
    return createNativeQueuePair(
        context, attr, operations: { sendOperations($0) | ($0 == IBV_QPT_RC ? placements : 0) },
        allocate: QueuePairPointer.allocate,
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
