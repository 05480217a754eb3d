import CIBVerbs
import CKernelABI

/// What a completion queue is to be.
public struct CompletionQueueRequest {
    /// Address of the queue's verbs.h struct, which the kernel gives back in events.
    public var userHandle: UnsafeRawPointer
    /// Room for so many completions.
    public var entries: UInt32
    /// Descriptor of its completion channel.
    public var channel: Int32?
    /// Completion vector, from 0.
    public var vector: UInt32
    /// `enum ib_uverbs_ex_create_cq_flags`.
    public var flags: UInt32
    /// Descriptor of the context's asynchronous events.
    public var asyncDescriptor: Int32

    /// A queue without channel and flags, on vector 0.
    public init(userHandle: UnsafeRawPointer, entries: UInt32, asyncDescriptor: Int32) {
        self.userHandle = userHandle
        self.entries = entries
        self.asyncDescriptor = asyncDescriptor
        vector = 0
        flags = 0
    }
}

/// How many events of a completion queue were read in all: destroying it waits for their acknowledgement.
public struct CompletionQueueEvents {
    /// Completion events.
    public var completions: UInt32
    /// Asynchronous events.
    public var asynchronous: UInt32
}

extension KernelDevice {
    /// Makes a completion queue: its handle, and how many completions it has room for.
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
        var answer = ib_uverbs_create_cq_resp()
        try call(.createCompletionQueue, command, &answer, driver: driver)
        return (answer.cq_handle, answer.cqe)
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
        var answer = ib_uverbs_ex_create_cq_resp()
        try call(.createCompletionQueueExtended, command, &answer, driver: driver)
        return (answer.base.cq_handle, answer.base.cqe)
    }

    /// Changes the room of a completion queue, and answers what it has now. EINVAL when more completions wait in it.
    public func resizeCompletionQueue(
        _ handle: UInt32, entries: UInt32, driver: DriverData = .none
    ) throws(KernelError) -> UInt32 {
        var request = ib_uverbs_resize_cq()
        request.cq_handle = handle
        request.cqe = entries
        var answer = ib_uverbs_resize_cq_resp()
        try call(.resizeCompletionQueue, request, &answer, driver: driver)
        return answer.cqe
    }

    /// Asks for an event at the next completion, or the next solicited one. For devices that have no doorbell for it.
    /// Allocates nothing. 0, or a positive errno value.
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

    /// Destroys a completion queue: from now on no event of it can be read. How many were; nil when its device is gone.
    /// EBUSY while a queue pair uses it.
    public func destroyCompletionQueue(_ handle: UInt32) throws(KernelError) -> CompletionQueueEvents? {
        var method = Method(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_CQ_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_CQ_RESP, ib_uverbs_destroy_cq_resp.self)
        var answer = ib_uverbs_destroy_cq_resp()
        do {
            if try call(&method, orElse: .destroyCompletionQueue) {
                answer = method[output]
            } else {
                try call(
                    .destroyCompletionQueue, ib_uverbs_destroy_cq(response: 0, cq_handle: handle, reserved: 0), &answer)
            }
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
        return CompletionQueueEvents(
            completions: answer.comp_events_reported, asynchronous: answer.async_events_reported)
    }
}
