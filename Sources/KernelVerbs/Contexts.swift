import CIBVerbs
import CKernelABI

/// What the kernel answers when a context is made.
public struct KernelContext: Sendable {
    /// Where asynchronous events are read: `ibv_context.async_fd`. The provider closes it with the context.
    public let asyncDescriptor: Int32
    /// How many completion vectors there are.
    public let completionVectors: Int32
    /// Whether registration takes the access flags of IBV_ACCESS_OPTIONAL_RANGE; else they must be left out.
    public let takesOptionalAccess: Bool

    /// An answer of these values.
    public init(asyncDescriptor: Int32, completionVectors: Int32, takesOptionalAccess: Bool) {
        self.asyncDescriptor = asyncDescriptor
        self.completionVectors = completionVectors
        self.takesOptionalAccess = takesOptionalAccess
    }
}

extension KernelDevice {
    /// Makes the context in the kernel (GET_CONTEXT): the first command on an open node, and once. What the kernel refuses
    /// may be tried again with other data of the driver's; it is made, and of no use, where no descriptor is left for its
    /// events (EMFILE, ENFILE).
    public func getContext(driver: DriverData = .none) throws(KernelError) -> KernelContext {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_GET_CONTEXT)
        let vectors = method.output(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, UInt32.self)
        let support = method.output(UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, UInt64.self, mandatory: false)
        method.driver(driver)
        if try call(&method, orElse: .getContext) {
            let optional = method[support] & UInt64(IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS.rawValue) != 0
            return KernelContext(
                asyncDescriptor: try allocateAsyncDescriptor(), completionVectors: Int32(method[vectors]),
                takesOptionalAccess: optional)
        }
        var answer = ib_uverbs_get_context_resp()
        try call(.getContext, ib_uverbs_get_context(), &answer, driver: driver)
        return KernelContext(
            asyncDescriptor: Int32(bitPattern: answer.async_fd), completionVectors: Int32(answer.num_comp_vectors),
            takesOptionalAccess: false)
    }

    private func allocateAsyncDescriptor() throws(KernelError) -> Int32 {
        var method = Method(UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC)
        let descriptor = method.newDescriptor(UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE)
        try call(&method)
        return method[descriptor]
    }

    /// Makes a completion channel: its descriptor, which the provider closes.
    public func createChannel() throws(KernelError) -> Int32 {
        var answer = ib_uverbs_create_comp_channel_resp()
        try call(.createChannel, ib_uverbs_create_comp_channel(), &answer)
        return Int32(bitPattern: answer.fd)
    }

    /// Destroys an object by the method of its own, or by the older command, of which the handle is all. An object whose
    /// device is gone (EIO) is gone with it.
    func destroy(
        _ handle: UInt32, _ object: uverbs_default_objects, _ method: some RawRepresentable<UInt32>,
        _ attribute: some RawRepresentable<UInt32>, orElse older: WriteCommand
    ) throws(KernelError) {
        var method = Method(object, method)
        method.handle(attribute, handle)
        do {
            if try !call(&method, orElse: older) { try call(older, handle) }
        } catch {
            if error != .deviceGone { throw error }
        }
    }
}
