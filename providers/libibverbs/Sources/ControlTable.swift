import CIBVerbs
import CProviderABI

/// The control table. Each entry calls the function of libibverbs of the same verb. The hooks cq_event and async_event
/// are nil: ibv_get_cq_event and ibv_get_async_event call those of the C provider.
nonisolated(unsafe) let controlTable: UnsafeMutablePointer<rdma_context_ops> = {
    let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
    table.initialize(to: rdma_context_ops())
    table.pointee.size = UInt32(MemoryLayout<rdma_context_ops>.size)
    table.pointee.close_context = { context in status { ibv_close_device(context) } }
    addQueries(to: &table.pointee)
    addDomains(to: &table.pointee)
    addMemory(to: &table.pointee)
    addCompletion(to: &table.pointee)
    addSharedReceives(to: &table.pointee)
    addQueuePairs(to: &table.pointee)
    addAddressing(to: &table.pointee)
    addWorkQueues(to: &table.pointee)
    addFlows(to: &table.pointee)
    return table
}()
