import CIBVerbs
import CKernelABI

/// The kernel's response to creating a context (`struct ib_uverbs_get_context_resp`).
public struct KernelContext: Sendable {
    /// The descriptor of asynchronous events (`ibv_context.async_fd`). The provider closes it with the context.
    public let asyncDescriptor: Int32
    /// The number of completion vectors (`ibv_context.num_comp_vectors`).
    public let completionVectors: Int32
    /// Whether memory registration accepts the flags of IBV_ACCESS_OPTIONAL_RANGE
    /// (IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS). If not, the provider must clear them.
    public let takesOptionalAccess: Bool

    /// A response with these values.
    public init(asyncDescriptor: Int32, completionVectors: Int32, takesOptionalAccess: Bool) {
        self.asyncDescriptor = asyncDescriptor
        self.completionVectors = completionVectors
        self.takesOptionalAccess = takesOptionalAccess
    }
}

extension KernelDevice {
    /// Creates the context in the kernel (UVERBS_METHOD_GET_CONTEXT, or `struct ib_uverbs_get_context`). It is the
    /// first command on an open uverbs node. After an error, the caller may retry with other driver data, except after
    /// EMFILE and ENFILE: the context then exists, but has no descriptor for its asynchronous events and cannot be
    /// used.
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
        var response = ib_uverbs_get_context_resp()
        try call(.getContext, ib_uverbs_get_context(), &response, driver: driver)
        return KernelContext(
            asyncDescriptor: Int32(bitPattern: response.async_fd), completionVectors: Int32(response.num_comp_vectors),
            takesOptionalAccess: false)
    }

    /// Queries the context of an imported descriptor (`ibv_import_device`, UVERBS_METHOD_QUERY_CONTEXT), and makes a
    /// descriptor for its asynchronous events.
    /// - Throws: EOPNOTSUPP from a kernel before 5.9, or if the driver has no such query.
    public func queryContext(driver: DriverData = .none) throws(KernelError) -> KernelContext {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_CONTEXT)
        let vectors = method.output(UVERBS_ATTR_QUERY_CONTEXT_NUM_COMP_VECTORS, UInt32.self)
        let support = method.output(UVERBS_ATTR_QUERY_CONTEXT_CORE_SUPPORT, UInt64.self)
        method.driver(driver)
        try call(&method)
        let optional = method[support] & UInt64(IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS.rawValue) != 0
        return KernelContext(
            asyncDescriptor: try allocateAsyncDescriptor(), completionVectors: Int32(method[vectors]),
            takesOptionalAccess: optional)
    }

    private func allocateAsyncDescriptor() throws(KernelError) -> Int32 {
        var method = Method(UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC)
        let descriptor = method.newDescriptor(UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE)
        try call(&method)
        return method[descriptor]
    }

    /// Creates a completion channel (`struct ib_uverbs_create_comp_channel`).
    /// - Returns: The descriptor (`ibv_comp_channel.fd`), which the provider closes.
    public func createChannel() throws(KernelError) -> Int32 {
        var response = ib_uverbs_create_comp_channel_resp()
        try call(.createChannel, ib_uverbs_create_comp_channel(), &response)
        return Int32(bitPattern: response.fd)
    }

    /// Destroys an object with its ioctl method, or with the older write command, whose request is the handle. A
    /// removed device (EIO) is no error, because its objects are destroyed with it.
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
