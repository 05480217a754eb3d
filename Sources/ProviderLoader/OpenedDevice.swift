import CIBVerbs
import CProviderABI

/// A device that a provider has opened (`struct rdma_context`). The caller closes it with `close()` after all objects of
/// the context are destroyed.
public struct OpenedDevice: @unchecked Sendable {
    // Unchecked: the pointers are the provider's, and the provider ABI allows calls from any thread.

    /// The description of the device.
    public let description: DeviceDescription
    /// The `struct rdma_device` that the provider received. It is never freed.
    public let device: UnsafePointer<rdma_device>
    /// The context, on which the inline functions of verbs.h work.
    public let context: UnsafeMutablePointer<ibv_context>
    /// The control table. It is never freed.
    public let ops: UnsafePointer<rdma_context_ops>
    /// `RDMA_CONTEXT_*` of rdma_provider.h.
    public let flags: UInt32
    let server: Provider
    /// The provider that serves the device.
    public let provider: ProviderDescription
    /// Warnings for the user although the device is open: a provider of a higher rank that failed, a second copy of a
    /// library in this process.
    public let warnings: [String]
    /// Every candidate with its verdict.
    public let candidates: [Candidate]

    /// Closes the context (`rdma_context_ops.close_context`), and releases the provider's state of the device with the last
    /// one. Returns 0, or an errno value, after which the context is open still.
    public func close() -> Int32 {
        let error = ops.pointee.close_context(context)
        if error == 0 { server.closed(description) }
        return error
    }

    /// Whether the context was made and filled by another library (`RDMA_CONTEXT_FOREIGN`), such as libibverbs.
    public var isForeign: Bool { flags & RDMA_CONTEXT_FOREIGN.rawValue != 0 }
}

/// A provider that serves a device, for display.
public struct ProviderDescription: Sendable, Hashable, Codable {
    /// Name, as in the `driver` line of its driver file.
    public var name: String
    /// Version (`rdma_provider.version`); empty where the provider gives none.
    public var version: String
    /// Vendor (`rdma_provider.vendor`); empty where the provider gives none.
    public var vendor: String
    /// Version of the provider ABI that it was built with (`rdma_provider.abi_major`, `abi_minor`).
    public var abi: ABIVersion
    /// Path of its driver file; nil for a built-in provider.
    public var driverFile: String?
    /// Path of its library; nil for a built-in provider.
    public var library: String?
    /// The kind of device that it was proved on, as its driver file states.
    public var proof: DriverFile.Proof?
}

extension ProviderDescription {
    init(_ provider: Provider, from source: ProviderSource) {
        name = provider.name
        version = provider.version
        vendor = provider.vendor
        abi = provider.abi
        driverFile = source.entry?.path
        library = provider.library?.path
        proof = source.entry?.file.proof
    }
}
