import CIBVerbs
import CProviderABI

/// A device that a provider has opened. Whoever opened it closes it, with `ops.close_context`, after all
/// objects under it are destroyed.
public struct OpenedDevice: @unchecked Sendable {
    // Unchecked: the pointers are the provider's, and the waist allows calls from any thread.

    /// The device.
    public let description: DeviceDescription
    /// The device as the provider sees it; lives as long as the process.
    public let device: UnsafePointer<rdma_device>
    /// The context, ready for the inline functions of verbs.h.
    public let context: UnsafeMutablePointer<ibv_context>
    /// The control table; lives as long as the process.
    public let ops: UnsafePointer<rdma_context_ops>
    /// `RDMA_CONTEXT_*` of rdma_provider.h.
    public let flags: UInt32
    /// Who serves the device.
    public let provider: ProviderDescription
    /// What a user should know although the device is open: a provider of higher rank that refused, a second
    /// copy of a library in this process.
    public let warnings: [String]
    /// Every candidate, with what became of it.
    public let candidates: [Candidate]

    /// The context is another library's (`RDMA_CONTEXT_FOREIGN`), which has filled all of it.
    public var isForeign: Bool { flags & RDMA_CONTEXT_FOREIGN.rawValue != 0 }
}

/// A provider that is loaded, to be shown.
public struct ProviderDescription: Sendable, Hashable, Codable {
    /// Name, as in the `driver` line of its driver file.
    public var name: String
    /// Version; empty where the provider states none.
    public var version: String
    /// Maker; empty where the provider states none.
    public var vendor: String
    /// Version of the provider ABI that it was built with.
    public var abi: ABIVersion
    /// Path of its driver file; nil for a built-in provider.
    public var driverFile: String?
    /// Path of its library; nil for a built-in provider.
    public var library: String?
    /// On what it was proved, as its driver file says.
    public var proof: DriverFile.Proof?
}
