import CIBVerbs
import CKernelABI

/// The attributes of a new completion queue (UVERBS_METHOD_CQ_CREATE, `struct ib_uverbs_ex_create_cq`).
public struct CompletionQueueRequest {
    /// The address of the `ibv_cq` (`user_handle`), which the kernel returns in events.
    public var userHandle: UnsafeRawPointer
    /// The minimum number of CQEs (`cqe`).
    public var entries: UInt32
    /// The descriptor of the completion channel (`comp_channel`).
    public var channel: Int32?
    /// The completion vector, from 0 (`comp_vector`).
    public var vector: UInt32
    /// Creation flags (`enum ib_uverbs_ex_create_cq_flags`).
    public var flags: UInt32
    /// The descriptor of the context's asynchronous events (`ibv_context.async_fd`).
    public var asyncDescriptor: Int32

    /// A completion queue without a channel and flags, on vector 0.
    public init(userHandle: UnsafeRawPointer, entries: UInt32, asyncDescriptor: Int32) {
        self.userHandle = userHandle
        self.entries = entries
        self.asyncDescriptor = asyncDescriptor
        vector = 0
        flags = 0
    }
}

/// The number of events of a completion queue that were read (`struct ib_uverbs_destroy_cq_resp`). `ibv_destroy_cq`
/// waits until all are acknowledged.
public struct CompletionQueueEvents {
    /// Completion events (`comp_events_reported`).
    public var completions: UInt32
    /// Asynchronous events (`async_events_reported`).
    public var asynchronous: UInt32
}

extension KernelDevice {
    /// Creates a completion queue (UVERBS_METHOD_CQ_CREATE, or `struct ib_uverbs_create_cq` or
    /// `struct ib_uverbs_ex_create_cq`).
    /// - Returns: The handle (`cq_handle`) and the actual number of CQEs (`cqe`).
    public func createCompletionQueue(
        _ request: CompletionQueueRequest, driver: DriverData = .none
    ) throws(KernelError) -> (handle: UInt32, entries: UInt32) {
        var method = Method(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE)
        let handle = method.newHandle(UVERBS_ATTR_CREATE_CQ_HANDLE)
        method.input(UVERBS_ATTR_CREATE_CQ_CQE, request.entries)
        method.input(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, UInt64(UInt(bitPattern: request.userHandle)))
        if let channel = request.channel { method.descriptor(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, channel) }
        method.input(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, request.vector)
        if request.flags != 0 { method.input(UVERBS_ATTR_CREATE_CQ_FLAGS, request.flags) }
        let entries = method.output(UVERBS_ATTR_CREATE_CQ_RESP_CQE, UInt32.self)
        method.descriptor(UVERBS_ATTR_CREATE_CQ_EVENT_FD, request.asyncDescriptor, mandatory: false)
        method.driver(driver)
        let older = request.flags == 0 ? WriteCommand.createCompletionQueue : .createCompletionQueueExtended
        if try call(&method, orElse: older) { return (method[handle], method[entries]) }
        return try request.flags == 0 ? createPlain(request, driver) : createExtended(request, driver)
    }

    private func createPlain(
        _ request: CompletionQueueRequest, _ driver: DriverData
    ) throws(KernelError) -> (handle: UInt32, entries: UInt32) {
        var command = ib_uverbs_create_cq()
        command.user_handle = UInt64(UInt(bitPattern: request.userHandle))
        command.cqe = request.entries
        command.comp_vector = request.vector
        command.comp_channel = request.channel ?? -1
        var response = ib_uverbs_create_cq_resp()
        try call(.createCompletionQueue, command, &response, driver: driver)
        return (response.cq_handle, response.cqe)
    }

    private func createExtended(
        _ request: CompletionQueueRequest, _ driver: DriverData
    ) throws(KernelError) -> (handle: UInt32, entries: UInt32) {
        var command = ib_uverbs_ex_create_cq()
        command.user_handle = UInt64(UInt(bitPattern: request.userHandle))
        command.cqe = request.entries
        command.comp_vector = request.vector
        command.comp_channel = request.channel ?? -1
        command.flags = request.flags
        var response = ib_uverbs_ex_create_cq_resp()
        try call(.createCompletionQueueExtended, command, &response, driver: driver)
        return (response.base.cq_handle, response.base.cqe)
    }

    /// Resizes a completion queue (`ibv_resize_cq`, `struct ib_uverbs_resize_cq`).
    /// - Returns: The actual number of CQEs (`cqe`).
    /// - Throws: EINVAL if the queue holds more completions than `entries`.
    public func resizeCompletionQueue(
        _ handle: UInt32, entries: UInt32, driver: DriverData = .none
    ) throws(KernelError) -> UInt32 {
        var request = ib_uverbs_resize_cq()
        request.cq_handle = handle
        request.cqe = entries
        var response = ib_uverbs_resize_cq_resp()
        try call(.resizeCompletionQueue, request, &response, driver: driver)
        return response.cqe
    }

    /// Requests an event for the next completion, or the next solicited one (`ibv_req_notify_cq`,
    /// `struct ib_uverbs_req_notify_cq`). For devices without a CQ doorbell. Allocates no memory.
    /// - Returns: 0, or a positive errno value.
    public func requestNotification(_ handle: UInt32, solicitedOnly: Bool) -> Int32 {
        do {
            try call(
                .requestNotification,
                ib_uverbs_req_notify_cq(cq_handle: handle, solicited_only: solicitedOnly ? 1 : 0))
            return 0
        } catch {
            return error.rawValue
        }
    }

    /// Destroys a completion queue (UVERBS_METHOD_CQ_DESTROY, or `struct ib_uverbs_destroy_cq`). Afterwards none of its
    /// events can be read.
    /// - Returns: The number of events that were read, or nil if the device is removed (EIO).
    /// - Throws: EBUSY while a queue pair uses the completion queue.
    public func destroyCompletionQueue(_ handle: UInt32) throws(KernelError) -> CompletionQueueEvents? {
        var method = Method(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_CQ_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_CQ_RESP, ib_uverbs_destroy_cq_resp.self)
        var response = ib_uverbs_destroy_cq_resp()
        do {
            if try call(&method, orElse: .destroyCompletionQueue) {
                response = method[output]
            } else {
                try call(
                    .destroyCompletionQueue, ib_uverbs_destroy_cq(response: 0, cq_handle: handle, reserved: 0),
                    &response)
            }
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
        return CompletionQueueEvents(
            completions: response.comp_events_reported, asynchronous: response.async_events_reported)
    }
}
