import CProviderABI

/// The uverbs commands for providers in other languages (`struct rdma_kernel_ops` of rdma_kernel.h): C functions over
/// `KernelVerbs`.
public enum KernelOps {
    /// The table that the core hands over in `rdma_core.kernel`. It is never freed.
    public nonisolated(unsafe) static let table: UnsafePointer<rdma_kernel_ops> = {
        let table = UnsafeMutablePointer<rdma_kernel_ops>.allocate(capacity: 1)
        table.initialize(to: rdma_kernel_ops())
        table.pointee.size = UInt32(MemoryLayout<rdma_kernel_ops>.size)
        fillNode(&table.pointee)
        fillMemory(&table.pointee)
        fillQueues(&table.pointee)
        return UnsafePointer(table)
    }()

    private static func fillNode(_ table: inout rdma_kernel_ops) {
        table.open_node = openNode
        table.get_context = getContext
        table.close_node = closeNode
        table.execute_ioctl = executeIoctl
        table.execute_write = executeWrite
        table.map = mapNode
        table.unmap = unmapNode
        table.query_device_ex = queryDevice
        table.query_port = queryPort
        table.query_gid_ex = queryGID
        table.query_gid_table = queryGIDTable
        table.query_pkey = queryPartitionKey
    }

    private static func fillMemory(_ table: inout rdma_kernel_ops) {
        table.alloc_pd = allocateDomain
        table.dealloc_pd = deallocateDomain
        table.reg_mr = registerMemory
        table.reg_dmabuf_mr = registerDMABuffer
        table.rereg_mr = reregisterMemory
        table.dereg_mr = deregisterMemory
        table.advise_mr = adviseMemory
        table.alloc_mw = allocateWindow
        table.dealloc_mw = deallocateWindow
        table.create_ah = createAddressHandle
        table.destroy_ah = destroyAddressHandle
        table.attach_mcast = attachMulticast
        table.detach_mcast = detachMulticast
    }

    private static func fillQueues(_ table: inout rdma_kernel_ops) {
        table.create_comp_channel = createChannel
        table.destroy_comp_channel = destroyChannel
        table.create_cq = createCompletionQueue
        table.resize_cq = resizeCompletionQueue
        table.req_notify_cq = requestNotification
        table.destroy_cq = destroyCompletionQueue
        table.create_srq_ex = createSharedReceiveQueue
        table.modify_srq = modifySharedReceiveQueue
        table.query_srq = querySharedReceiveQueue
        table.destroy_srq = destroySharedReceiveQueue
        table.create_qp_ex = createQueuePair
        table.modify_qp = modifyQueuePair
        table.query_qp = queryQueuePair
        table.destroy_qp = destroyQueuePair
    }
}

/// `rdma_core_kernel_ops` of rdma_core.h, which the loader calls.
@c(rdma_core_kernel_ops)
public func kernelOps() -> UnsafePointer<rdma_kernel_ops>? { KernelOps.table }
