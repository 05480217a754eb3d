/// A provider in the ranking for one device, with its verdict.
public struct Candidate: Sendable, Hashable, Codable {
    /// The origin of a candidate. The order of the origins is the order of their ranks.
    public enum Origin: Sendable, Hashable, Codable, Comparable {
        /// A driver file in the directory at that position of `RDMA_DRIVER_PATH`, from 0.
        case environment(position: Int)
        /// A driver file in the override directory.
        case override
        /// A driver file in the main directory.
        case main
        /// Linked into the program.
        case builtIn
    }

    /// Name of the provider: the `driver` line of its driver file.
    public var provider: String
    /// The origin.
    public var origin: Origin
    /// Path of the driver file; nil for a built-in provider.
    public var driverFile: String?
    /// Absolute path of the library; nil for a built-in provider.
    public var library: String?
    /// Version, for display: of the driver file, or of the built-in provider (`rdma_provider.version`).
    public var version: String?
    /// Vendor, for display (`rdma_provider.vendor`).
    public var vendor: String?
    /// Whether the driver file forbids a fall-back (`critical yes`).
    public var isCritical: Bool
    /// The kind of device that the provider was proved on, as its driver file states.
    public var proof: DriverFile.Proof?
    /// The outcome of the selection for this candidate.
    public var verdict: Verdict
}

/// The outcome of the selection for one candidate, with its reason.
public struct Verdict: Sendable, Hashable, Codable {
    /// The outcome.
    public enum Outcome: String, Sendable, Hashable, Codable {
        /// The provider serves the device.
        case chosen
        /// The provider could serve the device, but another one ranks higher.
        case standsBy
        /// A rule excludes the provider.
        case rejected
        /// A mask hides the provider.
        case masked
        /// The library is missing.
        case absent
        /// The provider was tried, and refused or failed.
        case failed
    }

    /// The rule that decided.
    public enum Rule: String, Sendable, Hashable, Codable {
        /// The rank among the providers that fit.
        case rank
        /// The provider is not for this device.
        case match
        /// The ABI version of the kernel driver lies outside the provider's range.
        case kernelABI
        /// The provider needs another version of the provider ABI.
        case providerABI
        /// A file is owned by another user, or writable by others.
        case ownership
        /// `RDMA_PROVIDER` names another provider.
        case environment
        /// The library is also that of a candidate with a higher rank.
        case duplicate
        /// An empty file, or a link to /dev/null, has the provider's name.
        case mask
        /// The library is missing.
        case missing
        /// The library does not load (dlopen(3)), or exports no entry point of its own.
        case load
        /// The entry point refused, or returned a description that this core cannot use.
        case negotiation
        /// The library and its driver file give different names.
        case name
        /// `probe_device` of the provider refused the device.
        case probe
        /// `open_device` of the provider failed.
        case open
        /// `list_devices` of the provider is missing or failed.
        case list
    }

    /// The outcome.
    public var outcome: Outcome
    /// The rule that decided.
    public var rule: Rule
    /// The reason, as one sentence for display.
    public var message: String

    /// A verdict with its reason.
    public init(_ outcome: Outcome, _ rule: Rule, _ message: String) {
        self.outcome = outcome
        self.rule = rule
        self.message = message
    }
}
