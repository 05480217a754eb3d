import CIBVerbs
import CKernelABI
import CProviderABI
import CLinux
import KernelVerbs
import ProviderKit

/// The control table (`rdma_context_ops`). It is initialised once and never changed.
nonisolated(unsafe) let controlTable = makeNativeControlTable { table in
    table.close_context = closeContext
    table.query_extension = queryExtension
    table.query_device_ex = queryDevice

    table.alloc_pd = allocateDomain
    table.reg_mr = registerMemory

    table.create_cq = createCompletionQueue
    table.create_cq_ex = createExtendedCompletionQueue
    table.resize_cq = resizeCompletionQueue
    table.destroy_cq = destroyCompletionQueue
    table.cq_event = completionEvent

    table.create_srq_ex = createSharedReceiveQueue
    table.modify_srq = modifySharedReceiveQueue
    table.destroy_srq = destroySharedReceiveQueue

    table.create_qp_ex = createQueuePair
    table.modify_qp = modifyQueuePair
    table.destroy_qp = destroyQueuePair

    table.create_ah = createAddressHandle
    table.destroy_ah = destroyAddressHandle
}

/// Sets the functions of `ibv_context_ops`, which verbs.h calls directly: the data path and memory windows.
func fillDataPath(_ ops: inout ibv_context_ops) {
    ops.poll_cq = pollCompletions
    ops.req_notify_cq = requestNotification
    ops.post_srq_recv = postSharedReceive
    ops.post_send = postSend
    ops.post_recv = postReceive
    ops.alloc_mw = allocateNativeWindow
    ops.dealloc_mw = deallocateNativeWindow
    ops.bind_mw = bindWindow
}

/// `alloc_pd`. The driver's response, the PDN, is not used.
private func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    do throws(KernelError) {
        var response = mlx5_ib_alloc_pd_resp()
        let handle = try DriverData.response(&response) { driver throws(KernelError) in
            try context.native.pointee.kernel.allocateDomain(driver: driver)
        }
        return makeDomain(context: context, handle: handle)
    } catch {
        return failure(error.rawValue)
    }
}

/// `reg_mr`. On-demand paging is refused, because the provider does not handle page faults of shared receive queues.
private func registerMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard access & IBV_ACCESS_ON_DEMAND.rawValue == 0 else {
        return failure(EOPNOTSUPP, "the provider does not support on-demand paging; RDMA_PROVIDER=libibverbs does")
    }
    return registerNativeMemory(
        pd: pd, address: address, length: length, virtualAddress: virtualAddress, access: access)
}
