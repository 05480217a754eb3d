import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// The control table (`rdma_context_ops`). It is initialised once and never changed.
nonisolated(unsafe) let controlTable = makeNativeControlTable { table in
    table.close_context = closeContext
    table.query_device_ex = queryDevice

    table.alloc_pd = allocateDomain

    table.async_event = hearEvent

    table.create_cq = createCompletionQueue
    table.create_cq_ex = createExtendedCompletionQueue
    table.resize_cq = resizeCompletionQueue
    table.destroy_cq = destroyCompletionQueue

    table.create_srq_ex = createSharedReceiveQueue
    table.modify_srq = modifySharedReceiveQueue
    table.destroy_srq = destroySharedReceiveQueue

    table.create_qp_ex = createQueuePair
    table.modify_qp = modifyQueuePair
    table.query_qp = queryQueuePair
    table.destroy_qp = destroyQueuePair

    table.create_ah = { _, _ in
        failure(EOPNOTSUPP, "iWARP has connections only: there are no address handles, which datagrams need")
    }
    table.attach_mcast = { _, _, _ in refusal(EOPNOTSUPP, noMulticast) }
    table.detach_mcast = { _, _, _ in refusal(EOPNOTSUPP, noMulticast) }
}

private let noMulticast: StaticString = "iWARP has connections only: there is no multicast, which datagrams need"

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

/// `alloc_pd`. The driver's response, the PDID, is not used.
private func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    do throws(KernelError) {
        var response = c4iw_alloc_pd_resp()
        let handle = try DriverData.response(&response) { driver throws(KernelError) in
            try context.native.pointee.kernel.allocateDomain(driver: driver)
        }
        return makeDomain(context: context, handle: handle)
    } catch {
        return failure(error.rawValue)
    }
}

/// `async_event`: an event of a queue pair in error requests its flush.
private func hearEvent(context: UnsafeMutablePointer<ibv_context>?, event: UnsafeMutablePointer<ibv_async_event>?) {
    hearNativeEvent(context: context, event: event)
    guard let event else { return }
    switch event.pointee.event_type {
    case IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR, IBV_EVENT_QP_ACCESS_ERR:
        event.pointee.element.qp?.native.requestFlushInError()
    default: break
    }
}
