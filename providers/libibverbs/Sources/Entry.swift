import CLinux
import CProviderABI
import ProviderKit

/// The entry point of the built-in provider (rdma_core.h).
// swift-format-ignore: AlwaysUseLowerCamelCase
@c @implementation
public func rdma_provider_entry_libibverbs(
    _ core: UnsafePointer<rdma_core>!, _ why: UnsafeMutablePointer<rdma_reason>!
) -> UnsafePointer<rdma_provider>! {
    guard core.pointee.abi_major == RDMA_PROVIDER_ABI_MAJOR else {
        Sentence("libibverbs: needs a core of its own provider ABI").store(in: why)
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
    provider.pointee.name = ("libibverbs" as StaticString).cString
    provider.pointee.version = ("0.1.0" as StaticString).cString
    provider.pointee.vendor = ("swift-rdma" as StaticString).cString
    provider.pointee.kernel_abi_min = 0
    provider.pointee.kernel_abi_max = UInt32.max
    provider.pointee.probe_device = probeDevice
    provider.pointee.open_device = openDevice
    return provider
}()
