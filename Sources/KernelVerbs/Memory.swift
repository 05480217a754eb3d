import CIBVerbs
import CKernelABI

/// A memory region in the kernel (`struct ib_uverbs_reg_mr_resp`).
public struct KernelMemoryRegion {
    /// The kernel's handle (`mr_handle`).
    public var handle: UInt32
    /// The local key (`ibv_mr.lkey`), for SGEs.
    public var lkey: UInt32
    /// The remote key (`ibv_mr.rkey`), for RDMA and atomic operations of peers.
    public var rkey: UInt32

    /// A region with this handle and these keys.
    public init(handle: UInt32, lkey: UInt32, rkey: UInt32) {
        self.handle = handle
        self.lkey = lkey
        self.rkey = rkey
    }
}

extension KernelDevice {
    /// Allocates a protection domain (`struct ib_uverbs_alloc_pd`). Returns its handle (`pd_handle`).
    public func allocateDomain(driver: DriverData = .none) throws(KernelError) -> UInt32 {
        var response = ib_uverbs_alloc_pd_resp()
        try call(.allocateDomain, ib_uverbs_alloc_pd(), &response, driver: driver)
        return response.pd_handle
    }

    /// Deallocates a protection domain (UVERBS_METHOD_PD_DESTROY, or `struct ib_uverbs_dealloc_pd`).
    /// - Throws: EBUSY while objects use the protection domain.
    public func deallocateDomain(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, UVERBS_ATTR_DESTROY_PD_HANDLE,
            orElse: .deallocateDomain)
    }

    /// Registers memory (`struct ib_uverbs_reg_mr`).
    /// - Parameters:
    ///   - domain: The handle of the protection domain (`pd_handle`).
    ///   - address: The address of the first byte (`start`).
    ///   - length: The length in bytes.
    ///   - virtualAddress: The address of the first byte in SGEs and for peers (`hca_va`). Its offset within a page
    ///     equals that of `address`.
    ///   - access: Access flags (`enum ibv_access_flags`), without IBV_ACCESS_OPTIONAL_RANGE unless
    ///     `KernelContext.takesOptionalAccess`.
    public func registerMemory(
        domain: UInt32, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64, access: UInt32,
        driver: DriverData = .none
    ) throws(KernelError) -> KernelMemoryRegion {
        var request = ib_uverbs_reg_mr()
        request.start = UInt64(UInt(bitPattern: address))
        request.length = UInt64(length)
        request.hca_va = virtualAddress
        request.pd_handle = domain
        request.access_flags = access
        var response = ib_uverbs_reg_mr_resp()
        try call(.registerMemory, request, &response, driver: driver)
        return KernelMemoryRegion(handle: response.mr_handle, lkey: response.lkey, rkey: response.rkey)
    }

    /// Changes the attributes of a memory region that `flags` names (`ibv_rereg_mr`, `enum ibv_rereg_mr_flags`,
    /// `struct ib_uverbs_rereg_mr`). Writes the new keys to `region`.
    public func reregisterMemory(
        _ region: inout KernelMemoryRegion, flags: UInt32, domain: UInt32, address: UnsafeMutableRawPointer?,
        length: Int, virtualAddress: UInt64, access: UInt32, driver: DriverData = .none
    ) throws(KernelError) {
        var request = ib_uverbs_rereg_mr()
        request.mr_handle = region.handle
        request.flags = flags
        request.start = UInt64(UInt(bitPattern: address))
        request.length = UInt64(length)
        request.hca_va = virtualAddress
        request.pd_handle = domain
        request.access_flags = access
        var response = ib_uverbs_rereg_mr_resp()
        try call(.reregisterMemory, request, &response, driver: driver)
        region.lkey = response.lkey
        region.rkey = response.rkey
    }

    /// Deregisters a memory region (UVERBS_METHOD_MR_DESTROY, or `struct ib_uverbs_dereg_mr`).
    /// - Throws: EBUSY while a memory window is bound to it.
    public func deregisterMemory(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, UVERBS_ATTR_DESTROY_MR_HANDLE,
            orElse: .deregisterMemory)
    }

    /// Allocates a memory window (`struct ib_uverbs_alloc_mw`). Returns its handle (`mw_handle`) and rkey.
    public func allocateWindow(
        domain: UInt32, type: ibv_mw_type, driver: DriverData = .none
    ) throws(KernelError) -> (handle: UInt32, rkey: UInt32) {
        var request = ib_uverbs_alloc_mw()
        request.pd_handle = domain
        request.mw_type = UInt8(truncatingIfNeeded: type.rawValue)
        var response = ib_uverbs_alloc_mw_resp()
        try call(.allocateWindow, request, &response, driver: driver)
        return (response.mw_handle, response.rkey)
    }

    /// Deallocates a memory window (UVERBS_METHOD_MW_DESTROY, or `struct ib_uverbs_dealloc_mw`).
    public func deallocateWindow(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_MW, UVERBS_METHOD_MW_DESTROY, UVERBS_ATTR_DESTROY_MW_HANDLE,
            orElse: .deallocateWindow)
    }
}
