import CIBVerbs
import CKernelABI

// Memory commands that exist as ioctl methods only.

extension KernelDevice {
    /// Registers the memory of a dma-buf (`ibv_reg_dmabuf_mr`, UVERBS_METHOD_REG_DMABUF_MR).
    /// - Parameters:
    ///   - domain: The handle of the protection domain (`pd_handle`).
    ///   - descriptor: The descriptor of the dma-buf.
    ///   - offset: The offset of the first byte in the dma-buf.
    ///   - length: The length in bytes.
    ///   - virtualAddress: The address of the first byte in SGEs and for peers (`iova`).
    ///   - access: Access flags (`enum ibv_access_flags`).
    /// - Throws: EOPNOTSUPP from a kernel before 5.12, or if the driver does not support it.
    public func registerDMABuffer(
        domain: UInt32, descriptor: Int32, offset: UInt64, length: Int, virtualAddress: UInt64, access: UInt32,
        driver: DriverData = .none
    ) throws(KernelError) -> KernelMemoryRegion {
        var method = Method(UVERBS_OBJECT_MR, UVERBS_METHOD_REG_DMABUF_MR)
        let handle = method.newHandle(UVERBS_ATTR_REG_DMABUF_MR_HANDLE)
        method.handle(UVERBS_ATTR_REG_DMABUF_MR_PD_HANDLE, domain)
        method.input(UVERBS_ATTR_REG_DMABUF_MR_OFFSET, offset)
        method.input(UVERBS_ATTR_REG_DMABUF_MR_LENGTH, UInt64(length))
        method.input(UVERBS_ATTR_REG_DMABUF_MR_IOVA, virtualAddress)
        method.input(UVERBS_ATTR_REG_DMABUF_MR_FD, descriptor)
        method.input(UVERBS_ATTR_REG_DMABUF_MR_ACCESS_FLAGS, access)
        let lkey = method.output(UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY, UInt32.self)
        let rkey = method.output(UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY, UInt32.self)
        method.driver(driver)
        try call(&method)
        return KernelMemoryRegion(handle: method[handle], lkey: method[lkey], rkey: method[rkey])
    }

    /// Gives advice about registered memory (`ibv_advise_mr`, UVERBS_METHOD_ADVISE_MR).
    /// - Parameters:
    ///   - domain: The handle of the protection domain (`pd_handle`).
    ///   - advice: `enum ibv_advise_mr_advice`.
    ///   - flags: `enum ibv_advise_mr_flags`.
    ///   - list: The SGEs; at most 4095.
    /// - Throws: EINVAL for a longer list; EOPNOTSUPP from a kernel before 5.0, or if the driver does not support it.
    public func adviseMemory(
        domain: UInt32, advice: UInt32, flags: UInt32, list: UnsafeBufferPointer<ibv_sge>
    ) throws(KernelError) {
        let bytes = UnsafeRawBufferPointer(list)
        guard bytes.count <= Int(UInt16.max) else { throw .invalidArgument }
        var method = Method(UVERBS_OBJECT_MR, UVERBS_METHOD_ADVISE_MR)
        method.handle(UVERBS_ATTR_ADVISE_MR_PD_HANDLE, domain)
        method.constant(UVERBS_ATTR_ADVISE_MR_ADVICE, UInt64(advice))
        method.input(UVERBS_ATTR_ADVISE_MR_FLAGS, flags)
        method.input(UVERBS_ATTR_ADVISE_MR_SGE_LIST, from: bytes)
        try call(&method)
    }
}
