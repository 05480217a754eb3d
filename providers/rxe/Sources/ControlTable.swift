import CIBVerbs
import CProviderABI
import KernelVerbs

/// The control table, shared by all contexts and constant. A verb that is not in it is not supported by the kernel's
/// rdma_rxe.
nonisolated(unsafe) let controlTable = makeNativeControlTable { table in
    table.close_context = closeNativeContext
    table.query_device_ex = queryNativeDevice

    table.create_cq = createCompletionQueue
    table.create_cq_ex = createExtendedCompletionQueue
    table.resize_cq = resizeCompletionQueue
    table.destroy_cq = destroyCompletionQueue

    table.create_srq_ex = createSharedReceiveQueue
    table.modify_srq = modifySharedReceiveQueue
    table.destroy_srq = destroySharedReceiveQueue

    table.create_qp_ex = createQueuePair
    table.modify_qp = modifyNativeQueuePair
    table.destroy_qp = destroyQueuePair

    table.create_ah = createAddressHandle
}

/// The data path, which verbs.h calls without the core; and memory windows.
func fillDataPath(_ ops: inout ibv_context_ops) {
    ops.poll_cq = pollCompletions
    ops.req_notify_cq = requestNativeNotification
    ops.post_srq_recv = postSharedReceive
    ops.post_send = postSend
    ops.post_recv = postReceive
    ops.alloc_mw = allocateNativeWindow
    ops.dealloc_mw = deallocateNativeWindow
    ops.bind_mw = bindWindow
}
