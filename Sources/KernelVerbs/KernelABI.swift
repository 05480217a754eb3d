import CProviderABI
import ProviderKit

/// The ABI versions of uverbs and of kernel drivers, and the check that a provider supports them.
public enum KernelABI {
    /// The supported ABI versions of uverbs (`/sys/class/infiniband_verbs/abi_version`).
    public static var uverbs: ClosedRange<UInt32> { 6...6 }

    /// Whether the provider supports the kernel's uverbs ABI and driver ABI.
    /// - Parameters:
    ///   - device: The core's description of the device (`struct rdma_device`).
    ///   - provider: The name of the provider.
    ///   - supported: The provider's range of driver ABI versions.
    ///   - why: Receives the reason if the result is false: the supported range and a remedy.
    public static func isServed(
        _ device: UnsafePointer<rdma_device>, provider: StaticString, supported: ClosedRange<UInt32>,
        why: UnsafeMutablePointer<rdma_reason>?
    ) -> Bool {
        if !uverbs.contains(device.pointee.uverbs_abi) {
            refuse("uverbs", device.pointee.uverbs_abi, uverbs, provider, why)
            return false
        }
        if !supported.contains(device.pointee.kernel_abi) {
            refuse(provider, device.pointee.kernel_abi, supported, provider, why)
            return false
        }
        return true
    }

    private static func refuse(
        _ what: StaticString, _ version: UInt32, _ supported: ClosedRange<UInt32>, _ provider: StaticString,
        _ why: UnsafeMutablePointer<rdma_reason>?
    ) {
        var reason = MessageText("the kernel's ")
        reason.append(what)
        reason.append(" has ABI version ")
        reason.append(Int(version))
        reason.append("; provider ")
        reason.append(provider)
        reason.append(" serves ")
        reason.append(Int(supported.lowerBound))
        if supported.count > 1 {
            reason.append(" to ")
            reason.append(Int(supported.upperBound))
        }
        reason.append(version > supported.upperBound ? ": update the provider" : ": update the kernel")
        reason.append(", or use the distribution's library with RDMA_PROVIDER=libibverbs")
        reason.store(in: why)
    }
}
