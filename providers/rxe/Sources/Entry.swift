import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// Name of the provider, as in its driver file.
let providerName: StaticString = "rxe"

/// Versions of rdma_rxe's ABI that are served (RXE_UVERBS_ABI_VERSION of the kernel; the window in rxe.driver).
let kernelVersions: ClosedRange<UInt32> = 2...2

#if SWIFT_RDMA_MODULE
    /// The entry point of the loadable module, and its only exported symbol (rdma_provider.h).
    @c(rdma_provider_entry)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enter(core: core, why: why)
    }
#else
    /// The entry point where the provider is linked in: tests.
    @c(rdma_provider_entry_rxe)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enter(core: core, why: why)
    }
#endif

private func enter(
    core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
) -> UnsafePointer<rdma_provider>? {
    guard let core, core.pointee.abi_major == RDMA_PROVIDER_ABI_MAJOR else {
        var reason = Sentence("rxe needs a core of provider ABI ")
        reason.append(Int(RDMA_PROVIDER_ABI_MAJOR))
        reason.append(".x")
        reason.store(in: why)
        return nil
    }
    return UnsafePointer(provider)
}

/// Lives as long as the process, as the core expects.
private nonisolated(unsafe) let provider: UnsafeMutablePointer<rdma_provider> = {
    let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    provider.initialize(to: rdma_provider())
    provider.pointee.size = UInt32(MemoryLayout<rdma_provider>.size)
    provider.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
    provider.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
    provider.pointee.name = providerName.cString
    provider.pointee.version = ("0.1.0" as StaticString).cString
    provider.pointee.vendor = ("swift-rdma" as StaticString).cString
    provider.pointee.kernel_abi_min = kernelVersions.lowerBound
    provider.pointee.kernel_abi_max = kernelVersions.upperBound
    provider.pointee.probe_device = probeDevice
    provider.pointee.open_device = openDevice
    return provider
}()
