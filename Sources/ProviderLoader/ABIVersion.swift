import CProviderABI

/// A version of the provider ABI, which `rdma_provider.h` defines (`rdma_provider.abi_major`, `abi_minor`).
public struct ABIVersion: Sendable, Hashable, Codable, Comparable, CustomStringConvertible {
    /// Versions with different majors do not work together.
    public var major: UInt16
    /// Within one major version, a higher minor version only adds to the ABI.
    public var minor: UInt16

    /// Version `major.minor`.
    public init(major: UInt16, minor: UInt16) {
        self.major = major
        self.minor = minor
    }

    /// The version that this core was built with (`RDMA_PROVIDER_ABI_MAJOR`, `RDMA_PROVIDER_ABI_MINOR`).
    public static let core = ABIVersion(
        major: UInt16(RDMA_PROVIDER_ABI_MAJOR), minor: UInt16(RDMA_PROVIDER_ABI_MINOR))

    /// The oldest version of a provider that this core still works with (`RDMA_PROVIDER_ABI_MINOR_OLDEST`).
    public static let oldest = ABIVersion(
        major: UInt16(RDMA_PROVIDER_ABI_MAJOR), minor: UInt16(RDMA_PROVIDER_ABI_MINOR_OLDEST))

    /// Whether a provider that needs at least this version works with a core of version `core`.
    public func isMet(by core: ABIVersion) -> Bool {
        major == core.major && minor <= core.minor
    }

    /// Compares the major versions first, then the minor ones.
    public static func < (left: ABIVersion, right: ABIVersion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }

    /// `MAJOR.MINOR`, as in a driver file.
    public var description: String { "\(major).\(minor)" }
}
