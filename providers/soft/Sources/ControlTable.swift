import CIBVerbs
import CProviderABI
import ProviderKit

/// The control table: one for the process, initialised before its first use, and never changed.
nonisolated(unsafe) let controlTable: UnsafeMutablePointer<rdma_context_ops> = {
    let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
    table.initialize(to: rdma_context_ops())
    table.pointee.size = UInt32(MemoryLayout<rdma_context_ops>.size)
    table.pointee.close_context = closeContext
    table.pointee.query_extension = queryContextExtension
    table.pointee.query_device_ex = queryDevice
    table.pointee.query_port = queryPort
    table.pointee.query_gid_ex = queryGID
    table.pointee.query_gid_table = queryGIDTable
    table.pointee.query_pkey = queryPartitionKey
    table.pointee.query_rt_values = queryRealTimeValues

    table.pointee.alloc_pd = allocateDomain
    table.pointee.dealloc_pd = deallocateDomain
    table.pointee.alloc_parent_domain = allocateParentDomain
    table.pointee.alloc_td = allocateThreadDomain
    table.pointee.dealloc_td = deallocateThreadDomain

    table.pointee.reg_mr = registerMemory
    table.pointee.rereg_mr = reregisterMemory
    table.pointee.dereg_mr = deregisterMemory
    table.pointee.reg_dmabuf_mr = registerDMABuf
    table.pointee.alloc_null_mr = allocateNullRegion
    table.pointee.advise_mr = adviseMemory
    table.pointee.alloc_dm = allocateDeviceMemory
    table.pointee.free_dm = freeDeviceMemory
    table.pointee.reg_dm_mr = registerDeviceMemory

    table.pointee.create_comp_channel = createChannel
    table.pointee.destroy_comp_channel = destroyChannel
    table.pointee.get_cq_event = getCompletionEvent
    table.pointee.get_async_event = getAsyncEvent

    table.pointee.create_cq = createCompletionQueue
    table.pointee.create_cq_ex = createExtendedCompletionQueue
    table.pointee.resize_cq = resizeCompletionQueue
    table.pointee.modify_cq = modifyCompletionQueue
    table.pointee.destroy_cq = destroyCompletionQueue

    table.pointee.create_srq_ex = createSharedReceiveQueue
    table.pointee.modify_srq = modifySharedReceiveQueue
    table.pointee.query_srq = querySharedReceiveQueue
    table.pointee.get_srq_num = getSharedReceiveQueueNumber
    table.pointee.destroy_srq = destroySharedReceiveQueue

    table.pointee.open_xrcd = openXRCDomain
    table.pointee.close_xrcd = closeXRCDomain
    table.pointee.open_qp = openQueuePair

    table.pointee.create_qp_ex = createQueuePair
    table.pointee.qp_to_qp_ex = queuePairToExtended
    table.pointee.modify_qp = modifyQueuePair
    table.pointee.query_qp = queryQueuePair
    table.pointee.modify_qp_rate_limit = modifyRateLimit
    table.pointee.query_qp_data_in_order = queryDataInOrder
    table.pointee.query_ece = queryECE
    table.pointee.set_ece = setECE
    table.pointee.destroy_qp = destroyQueuePair

    table.pointee.create_ah = createAddressHandle
    table.pointee.destroy_ah = destroyAddressHandle
    table.pointee.attach_mcast = attachMulticast
    table.pointee.detach_mcast = detachMulticast
    return table
}()

/// Sets the functions of the data path, which the application calls without the core.
func fillDataPath(_ ops: inout ibv_context_ops) {
    ops.poll_cq = pollCompletions
    ops.req_notify_cq = requestNotification
    ops.post_srq_recv = postSharedReceive
    ops.post_send = postSend
    ops.post_recv = postReceive
    ops.alloc_mw = allocateMemoryWindow
    ops.dealloc_mw = deallocateMemoryWindow
    ops.bind_mw = bindMemoryWindow
}
