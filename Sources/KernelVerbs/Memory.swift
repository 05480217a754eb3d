import CIBVerbs
import CKernelABI

/// A memory region as the kernel knows it.
public struct KernelMemoryRegion {
    /// Handle of the object.
    public var handle: UInt32
    /// Key by which local work requests name it.
    public var localKey: UInt32
    /// Key by which peers name it.
    public var remoteKey: UInt32
}

extension KernelDevice {
    /// Allocates a protection domain: its handle.
    public func allocateDomain(driver: DriverData = .none) throws(KernelError) -> UInt32 {
        var answer = ib_uverbs_alloc_pd_resp()
        try call(.allocateDomain, ib_uverbs_alloc_pd(), &answer, driver: driver)
        return answer.pd_handle
    }

    /// Gives a protection domain back. EBUSY while something uses it.
    public func deallocateDomain(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, UVERBS_ATTR_DESTROY_PD_HANDLE,
            orElse: .deallocateDomain)
    }

    /// Registers memory.
    /// - Parameters:
    ///   - domain: handle of the protection domain.
    ///   - address: first byte.
    ///   - length: in bytes.
    ///   - virtualAddress: how work requests and peers name the first byte; within a page as `address`.
    ///   - access: `enum ibv_access_flags`, less the optional ones where the kernel does not take them.
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
        var answer = ib_uverbs_reg_mr_resp()
        try call(.registerMemory, request, &answer, driver: driver)
        return KernelMemoryRegion(handle: answer.mr_handle, localKey: answer.lkey, remoteKey: answer.rkey)
    }

    /// Changes a registration: what `flags` (`enum ibv_rereg_mr_flags`) names. The new keys are written to `region`.
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
        var answer = ib_uverbs_rereg_mr_resp()
        try call(.reregisterMemory, request, &answer, driver: driver)
        region.localKey = answer.lkey
        region.remoteKey = answer.rkey
    }

    /// Gives a registration back. EBUSY while a memory window is bound to it.
    public func deregisterMemory(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, UVERBS_ATTR_DESTROY_MR_HANDLE,
            orElse: .deregisterMemory)
    }

    /// Allocates a memory window: handle and key.
    public func allocateWindow(
        domain: UInt32, type: ibv_mw_type, driver: DriverData = .none
    ) throws(KernelError) -> (handle: UInt32, remoteKey: UInt32) {
        var request = ib_uverbs_alloc_mw()
        request.pd_handle = domain
        request.mw_type = UInt8(truncatingIfNeeded: type.rawValue)
        var answer = ib_uverbs_alloc_mw_resp()
        try call(.allocateWindow, request, &answer, driver: driver)
        return (answer.mw_handle, answer.rkey)
    }

    /// Gives a memory window back.
    public func deallocateWindow(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_MW, UVERBS_METHOD_MW_DESTROY, UVERBS_ATTR_DESTROY_MW_HANDLE,
            orElse: .deallocateWindow)
    }
}
