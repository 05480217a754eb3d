import CIBVerbs
import CProviderABI

/// The control table: one for the process, filled before the core sees the provider.
nonisolated(unsafe) let controlTable = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)

func fillControlTable() {
    controlTable.initialize(to: rdma_context_ops())
    controlTable.pointee.size = MemoryLayout<rdma_context_ops>.size
    controlTable.pointee.close_context = closeContext
    controlTable.pointee.query_device_ex = queryDevice
    controlTable.pointee.query_port = queryPort
    controlTable.pointee.query_gid_ex = queryGID
    controlTable.pointee.query_gid_table = queryGIDTable
    controlTable.pointee.query_pkey = queryPartitionKey

    controlTable.pointee.alloc_pd = allocateDomain
    controlTable.pointee.dealloc_pd = deallocateDomain
    controlTable.pointee.alloc_parent_domain = allocateParentDomain
    controlTable.pointee.alloc_td = allocateThreadDomain
    controlTable.pointee.dealloc_td = deallocateThreadDomain

    controlTable.pointee.reg_mr = registerMemory
    controlTable.pointee.rereg_mr = reregisterMemory
    controlTable.pointee.dereg_mr = deregisterMemory

    controlTable.pointee.create_comp_channel = createChannel
    controlTable.pointee.destroy_comp_channel = destroyChannel
    controlTable.pointee.get_cq_event = getCompletionEvent
    controlTable.pointee.get_async_event = getAsyncEvent

    controlTable.pointee.create_cq = createCompletionQueue
    controlTable.pointee.create_cq_ex = createExtendedCompletionQueue
    controlTable.pointee.resize_cq = resizeCompletionQueue
    controlTable.pointee.destroy_cq = destroyCompletionQueue

    controlTable.pointee.create_srq_ex = createSharedReceiveQueue
    controlTable.pointee.modify_srq = modifySharedReceiveQueue
    controlTable.pointee.query_srq = querySharedReceiveQueue
    controlTable.pointee.destroy_srq = destroySharedReceiveQueue

    controlTable.pointee.create_qp_ex = createQueuePair
    controlTable.pointee.qp_to_qp_ex = queuePairToExtended
    controlTable.pointee.modify_qp = modifyQueuePair
    controlTable.pointee.query_qp = queryQueuePair
    controlTable.pointee.query_qp_data_in_order = queryDataInOrder
    controlTable.pointee.destroy_qp = destroyQueuePair

    controlTable.pointee.create_ah = createAddressHandle
    controlTable.pointee.destroy_ah = destroyAddressHandle
}

/// The data path, which goes past the core.
func fillDataPath(_ ops: inout ibv_context_ops) {
    ops.poll_cq = pollCompletions
    ops.req_notify_cq = requestNotification
    ops.post_srq_recv = postSharedReceive
    ops.post_send = postSend
    ops.post_recv = postReceive
}
