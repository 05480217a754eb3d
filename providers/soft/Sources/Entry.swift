import CIBVerbs
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
    /// The entry point of the built-in provider.
    @c(rdma_provider_entry_soft)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enter(core: core, why: why)
    }
#endif

private func enter(
    core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
) -> UnsafePointer<rdma_provider>? {
    enterProvider(providerName, core, why: why, description: provider)
}

private nonisolated(unsafe) let provider = describeProvider(providerName) {
    $0.list_devices = listDevices
    $0.probe_device = probeDevice
    $0.open_device = openDevice
}
