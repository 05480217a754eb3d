import CIBVerbs
import CKernelABI

/// A shared receive queue in the kernel (`struct ib_uverbs_create_srq_resp`).
public struct KernelSharedReceiveQueue {
    /// The kernel's handle (`srq_handle`).
    public var handle: UInt32
    /// The SRQN (`ibv_get_srq_num`); 0 if the kernel does not report it.
    public var number: UInt32
    /// The actual maximum number of work requests (`ibv_srq_attr.max_wr`).
    public var maxWR: UInt32
    /// The actual maximum number of SGEs of a work request (`ibv_srq_attr.max_sge`).
    public var maxSGE: UInt32
}

extension KernelDevice {
    /// Creates a shared receive queue of type IBV_SRQT_BASIC (UVERBS_METHOD_SRQ_CREATE, or `struct
    /// ib_uverbs_create_srq`).
    /// - Parameters:
    ///   - domain: The handle of the protection domain (`pd_handle`).
    ///   - userHandle: The address of the `ibv_srq` (`user_handle`), which the kernel returns in events.
    ///   - limits: The requested limits.
    ///   - asyncDescriptor: The descriptor of the context's asynchronous events (`ibv_context.async_fd`).
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
        let sges = method.output(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE, UInt32.self)
        let number = method.output(UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM, UInt32.self, mandatory: false)
        method.driver(driver)
        if try call(&method, orElse: .createSharedReceiveQueue) {
            return KernelSharedReceiveQueue(
                handle: method[handle], number: method[number], maxWR: method[requests],
                maxSGE: method[sges])
        }
        var request = ib_uverbs_create_srq()
        request.user_handle = UInt64(UInt(bitPattern: userHandle))
        request.pd_handle = domain
        request.max_wr = limits.max_wr
        request.max_sge = limits.max_sge
        request.srq_limit = limits.srq_limit
        var response = ib_uverbs_create_srq_resp()
        try call(.createSharedReceiveQueue, request, &response, driver: driver)
        return KernelSharedReceiveQueue(
            handle: response.srq_handle, number: response.srqn, maxWR: response.max_wr,
            maxSGE: response.max_sge)
    }

    /// Changes the attributes of a shared receive queue that `mask` names (`ibv_modify_srq`, `enum ibv_srq_attr_mask`,
    /// `struct ib_uverbs_modify_srq`).
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

    /// Queries the attributes of a shared receive queue (`ibv_query_srq`, `struct ib_uverbs_query_srq`).
    public func querySharedReceiveQueue(_ handle: UInt32) throws(KernelError) -> ibv_srq_attr {
        var request = ib_uverbs_query_srq()
        request.srq_handle = handle
        var response = ib_uverbs_query_srq_resp()
        try call(.querySharedReceiveQueue, request, &response)
        return ibv_srq_attr(max_wr: response.max_wr, max_sge: response.max_sge, srq_limit: response.srq_limit)
    }

    /// Destroys a shared receive queue (UVERBS_METHOD_SRQ_DESTROY, or `struct ib_uverbs_destroy_srq`). Afterwards none
    /// of its events can be read.
    /// - Returns: The number of events that were read (`events_reported`), or nil if the device is removed (EIO).
    /// - Throws: EBUSY while a queue pair uses the shared receive queue.
    public func destroySharedReceiveQueue(_ handle: UInt32) throws(KernelError) -> UInt32? {
        var method = Method(UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_SRQ_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_SRQ_RESP, ib_uverbs_destroy_srq_resp.self)
        var response = ib_uverbs_destroy_srq_resp()
        do {
            if try call(&method, orElse: .destroySharedReceiveQueue) { return method[output].events_reported }
            try call(
                .destroySharedReceiveQueue, ib_uverbs_destroy_srq(response: 0, srq_handle: handle, reserved: 0),
                &response)
            return response.events_reported
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
    }
}
