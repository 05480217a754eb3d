import CProviderABI

/// Describes a provider to the core: what its entry point answers (rdma_provider.h, chapter 1). It lives as long as the
/// process, as the core expects, and is made once: a second core that enters must not change what the first one uses.
/// - Parameters:
///   - name: as in the driver file.
///   - kernelVersions: of the kernel driver's ABI that are served; all of them for a provider without a kernel driver.
///   - fill: sets the functions.
public func describeProvider(
    _ name: StaticString, kernelVersions: ClosedRange<UInt32> = 0...UInt32.max, fill: (inout rdma_provider) -> Void
) -> UnsafePointer<rdma_provider> {
    let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    provider.initialize(to: rdma_provider())
    provider.pointee.size = UInt32(MemoryLayout<rdma_provider>.size)
    provider.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
    provider.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
    provider.pointee.name = name.cString
    provider.pointee.version = ("0.1.0" as StaticString).cString
    provider.pointee.vendor = ("swift-rdma" as StaticString).cString
    provider.pointee.kernel_abi_min = kernelVersions.lowerBound
    provider.pointee.kernel_abi_max = kernelVersions.upperBound
    fill(&provider.pointee)
    return UnsafePointer(provider)
}

/// What an entry point answers: the description, if a provider that was built here can work for this core; else nil, and
/// `why` says what it would need.
public func enterProvider(
    _ name: StaticString, _ core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?,
    description: UnsafePointer<rdma_provider>
) -> UnsafePointer<rdma_provider>? {
    if let core, core.pointee.abi_major == RDMA_PROVIDER_ABI_MAJOR { return description }
    var reason = Sentence(name)
    reason.append(" needs a core of provider ABI ")
    reason.append(Int(RDMA_PROVIDER_ABI_MAJOR))
    reason.append(".x")
    reason.store(in: why)
    return nil
}
