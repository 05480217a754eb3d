import CProviderABI
import ProviderKit

/// The versions of the kernel's ABI, of uverbs and of a driver, and what is said about one that is not served.
public enum KernelABI {
    /// The version of uverbs itself (`infiniband_verbs/abi_version`) that this library speaks.
    public static var uverbs: ClosedRange<UInt32> { 6...6 }

    /// Whether the kernel speaks both versions.
    /// - Parameters:
    ///   - device: as the core describes it.
    ///   - provider: name of the provider that asks.
    ///   - supported: versions of the kernel driver's ABI that the provider serves.
    ///   - why: gets the sentence that names the range and what to try, when not.
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
        var reason = Sentence("the kernel's ")
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
