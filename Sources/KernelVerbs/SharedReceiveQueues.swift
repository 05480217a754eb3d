import CIBVerbs
import CKernelABI

/// A shared receive queue as the kernel has made it.
public struct KernelSharedReceiveQueue {
    /// Handle of the object.
    public var handle: UInt32
    /// Its number; 0 from a kernel that does not tell.
    public var number: UInt32
    /// Work requests that it has room for.
    public var maximumRequests: UInt32
    /// Elements of a work request's list.
    public var maximumElements: UInt32
}

extension KernelDevice {
    /// Makes a shared receive queue of the basic kind.
    /// - Parameters:
    ///   - domain: handle of the protection domain.
    ///   - userHandle: address of the queue's verbs.h struct, which the kernel gives back in events.
    ///   - limits: what is asked for.
    ///   - asyncDescriptor: descriptor of the context's asynchronous events.
    public func createSharedReceiveQueue(
        domain: UInt32, userHandle: UnsafeRawPointer, limits: ibv_srq_attr, asyncDescriptor: Int32,
        driver: DriverData = .none
    ) throws(KernelError) -> KernelSharedReceiveQueue {
        var method = Method(UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_CREATE)
        let handle = method.newHandle(UVERBS_ATTR_CREATE_SRQ_HANDLE)
        method.handle(UVERBS_ATTR_CREATE_SRQ_PD_HANDLE, domain)
        method.input(UVERBS_ATTR_CREATE_SRQ_USER_HANDLE, UInt64(UInt(bitPattern: userHandle)))
        method.input(UVERBS_ATTR_CREATE_SRQ_MAX_WR, limits.max_wr)
        method.input(UVERBS_ATTR_CREATE_SRQ_MAX_SGE, limits.max_sge)
        method.input(UVERBS_ATTR_CREATE_SRQ_LIMIT, limits.srq_limit)
        method.constant(UVERBS_ATTR_CREATE_SRQ_TYPE, UInt64(IB_UVERBS_SRQT_BASIC.rawValue))
        method.descriptor(UVERBS_ATTR_CREATE_SRQ_EVENT_FD, asyncDescriptor, mandatory: false)
        let requests = method.output(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR, UInt32.self)
        let elements = method.output(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE, UInt32.self)
        let number = method.output(UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM, UInt32.self, mandatory: false)
        method.driver(driver)
        if try call(&method, orElse: .createSharedReceiveQueue) {
            return KernelSharedReceiveQueue(
                handle: method[handle], number: method[number], maximumRequests: method[requests],
                maximumElements: method[elements])
        }
        var request = ib_uverbs_create_srq()
        request.user_handle = UInt64(UInt(bitPattern: userHandle))
        request.pd_handle = domain
        request.max_wr = limits.max_wr
        request.max_sge = limits.max_sge
        request.srq_limit = limits.srq_limit
        var answer = ib_uverbs_create_srq_resp()
        try call(.createSharedReceiveQueue, request, &answer, driver: driver)
        return KernelSharedReceiveQueue(
            handle: answer.srq_handle, number: answer.srqn, maximumRequests: answer.max_wr,
            maximumElements: answer.max_sge)
    }

    /// Changes what `mask` (`enum ibv_srq_attr_mask`) names.
    public func modifySharedReceiveQueue(
        _ handle: UInt32, _ attributes: ibv_srq_attr, mask: UInt32, driver: DriverData = .none
    ) throws(KernelError) {
        var request = ib_uverbs_modify_srq()
        request.srq_handle = handle
        request.attr_mask = mask
        request.max_wr = attributes.max_wr
        request.srq_limit = attributes.srq_limit
        try call(.modifySharedReceiveQueue, request, driver: driver)
    }

    /// What the queue has.
    public func querySharedReceiveQueue(_ handle: UInt32) throws(KernelError) -> ibv_srq_attr {
        var request = ib_uverbs_query_srq()
        request.srq_handle = handle
        var answer = ib_uverbs_query_srq_resp()
        try call(.querySharedReceiveQueue, request, &answer)
        return ibv_srq_attr(max_wr: answer.max_wr, max_sge: answer.max_sge, srq_limit: answer.srq_limit)
    }

    /// Destroys a shared receive queue: from now on no event of it can be read. How many were; nil when its device is
    /// gone. EBUSY while a queue pair uses it.
    public func destroySharedReceiveQueue(_ handle: UInt32) throws(KernelError) -> UInt32? {
        var method = Method(UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_SRQ_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_SRQ_RESP, ib_uverbs_destroy_srq_resp.self)
        var answer = ib_uverbs_destroy_srq_resp()
        do {
            if try call(&method, orElse: .destroySharedReceiveQueue) { return method[output].events_reported }
            try call(
                .destroySharedReceiveQueue, ib_uverbs_destroy_srq(response: 0, srq_handle: handle, reserved: 0),
                &answer)
            return answer.events_reported
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
    }
}
