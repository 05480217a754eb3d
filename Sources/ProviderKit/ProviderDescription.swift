import CPackage
import CProviderABI

/// Creates the description of a provider (`struct rdma_provider`), which its entry point returns (rdma_provider.h,
/// chapter 1). The description is never freed. A provider creates it once, because a second core that enters must not
/// change the description in use.
/// - Parameters:
///   - name: The provider's name, as in the driver file.
///   - kernelVersions: The supported ABI versions of the kernel driver (`kernel_abi_min`, `kernel_abi_max`). The
///     default, all versions, is for a provider without a kernel driver.
///   - fill: Sets the functions.
public func describeProvider(
    _ name: StaticString, kernelVersions: ClosedRange<UInt32> = 0...UInt32.max, fill: (inout rdma_provider) -> Void
) -> UnsafePointer<rdma_provider> {
    let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    provider.initialize(to: rdma_provider())
    provider.pointee.size = UInt32(MemoryLayout<rdma_provider>.size)
    provider.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
    provider.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
    provider.pointee.name = name.cString
    provider.pointee.version = rdma_package_version()
    provider.pointee.vendor = rdma_package_vendor()
    provider.pointee.kernel_abi_min = kernelVersions.lowerBound
    provider.pointee.kernel_abi_max = kernelVersions.upperBound
    fill(&provider.pointee)
    return UnsafePointer(provider)
}

/// The body of a provider's entry point. Returns `description` if the core (`rdma_core`) has the provider ABI major
/// version of this build and at least `RDMA_PROVIDER_ABI_MINOR_OLDEST`; otherwise returns nil and stores the reason in
/// `why`.
public func enterProvider(
    _ name: StaticString, _ core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?,
    description: UnsafePointer<rdma_provider>
) -> UnsafePointer<rdma_provider>? {
    let oldest = RDMA_PROVIDER_ABI_MINOR_OLDEST
    if let core, core.pointee.abi_major == RDMA_PROVIDER_ABI_MAJOR, core.pointee.abi_minor >= oldest {
        ProviderCore.adopt(core)
        return description
    }
    var reason = MessageText(name)
    reason.append(" needs a core of provider ABI ")
    reason.append(Int(RDMA_PROVIDER_ABI_MAJOR))
    reason.append(".")
    reason.append(Int(oldest))
    reason.append(" or a later minor version")
    reason.store(in: why)
    return nil
}

/// Whether `open_device` is asked to import a context (`rdma_open_attr.cmd_fd`), which the provider does not support.
/// Stores the reason in `why`; the result of `open_device` is then EOPNOTSUPP.
public func refusesImport(_ attr: UnsafePointer<rdma_open_attr>?, why: UnsafeMutablePointer<rdma_reason>?) -> Bool {
    guard let attr, attr.pointee.cmd_fd != -1 else { return false }
    MessageText("this provider does not import a device from another process (ibv_import_device)").store(in: why)
    return true
}
