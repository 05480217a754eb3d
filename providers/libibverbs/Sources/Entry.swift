import CProviderABI
import ProviderKit

private let providerName: StaticString = "libibverbs"

/// The entry point of the built-in provider (rdma_core.h).
// swift-format-ignore: AlwaysUseLowerCamelCase
@c @implementation
public func rdma_provider_entry_libibverbs(
    _ core: UnsafePointer<rdma_core>!, _ why: UnsafeMutablePointer<rdma_reason>!
) -> UnsafePointer<rdma_provider>! {
    enterProvider(providerName, core, why: why, description: provider)
}

private nonisolated(unsafe) let provider = describeProvider(providerName) {
    $0.probe_device = probeDevice
    $0.open_device = openDevice
}
