import CIBVerbs
import CProviderABI
import KernelVerbs
import ProviderKit

#if SWIFT_RDMA_MODULE
    /// The entry point of the loadable module, and its only exported symbol (rdma_provider.h).
    @c(rdma_provider_entry)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enterProvider(cxgb4.name, core, why: why, description: provider)
    }
#else
    /// The entry point of a statically linked provider (tests).
    @c(rdma_provider_entry_cxgb4)
    public func providerEntry(
        core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
    ) -> UnsafePointer<rdma_provider>? {
        enterProvider(cxgb4.name, core, why: why, description: provider)
    }
#endif

private nonisolated(unsafe) let provider = describeProvider(cxgb4.name, kernelVersions: cxgb4.kernelVersions) {
    $0.probe_device = probeDevice
    $0.open_device = openDevice
}
