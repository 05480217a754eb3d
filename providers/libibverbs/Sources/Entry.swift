import CProviderABI
import ProviderKit

private let providerName: StaticString = "libibverbs"

/// The entry point of the built-in provider.
@c(rdma_provider_entry_libibverbs)
public func providerEntry(
    core: UnsafePointer<rdma_core>?, why: UnsafeMutablePointer<rdma_reason>?
) -> UnsafePointer<rdma_provider>? {
    enterProvider(providerName, core, why: why, description: provider)
}

private nonisolated(unsafe) let provider = describeProvider(providerName) {
    $0.probe_device = probeDevice
    $0.open_device = openDevice
}
