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
    controlTable.pointee.query_rt_values = queryRealTimeValues

    controlTable.pointee.alloc_pd = allocateDomain
    controlTable.pointee.dealloc_pd = deallocateDomain
    controlTable.pointee.alloc_parent_domain = allocateParentDomain
    controlTable.pointee.alloc_td = allocateThreadDomain
    controlTable.pointee.dealloc_td = deallocateThreadDomain
}
