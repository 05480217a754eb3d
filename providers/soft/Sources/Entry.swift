import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

#if SWIFT_RDMA_MODULE
    /// The entry point of the loadable module, and its only exported symbol (rdma_provider.h).
    @c(rdma_provider_entry)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enter(core: core, why: why)
    }
#else
    /// The entry point of the built-in provider (rdma_core.h).
    @c @implementation
    public func rdma_provider_entry_soft(
        _ core: UnsafePointer<rdma_core>!, _ why: UnsafeMutablePointer<rdma_reason>!
    ) -> UnsafePointer<rdma_provider>! {
        enter(core: core, why: why)
    }
#endif

private func enter(
    core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
) -> UnsafePointer<rdma_provider>? {
    guard let core, core.pointee.abi_major == RDMA_PROVIDER_ABI_MAJOR else {
        var reason = Sentence()
        reason.append("soft needs a core of provider ABI \(RDMA_PROVIDER_ABI_MAJOR).x")
        reason.store(in: why)
        return nil
    }
    Log.adopt(core)
    return UnsafePointer(provider)
}

/// Lives as long as the process, as the core expects. A second core that enters must not change what the first uses.
private nonisolated(unsafe) let provider: UnsafeMutablePointer<rdma_provider> = {
    let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    provider.initialize(to: rdma_provider())
    provider.pointee.size = UInt32(MemoryLayout<rdma_provider>.size)
    provider.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
    provider.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
    provider.pointee.name = providerName.cString
    provider.pointee.version = ("0.1.0" as StaticString).cString
    provider.pointee.vendor = ("swift-rdma" as StaticString).cString
    provider.pointee.kernel_abi_min = 0
    provider.pointee.kernel_abi_max = UInt32.max
    provider.pointee.list_devices = listDevices
    provider.pointee.probe_device = probeDevice
    provider.pointee.open_device = openDevice
    return provider
}()
