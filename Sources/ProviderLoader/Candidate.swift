/// A provider that stands for election for one device, with what became of it.
public struct Candidate: Sendable, Hashable, Codable {
    /// Where a candidate comes from, from the first rank to the last.
    public enum Origin: Sendable, Hashable, Codable, Comparable {
        /// A driver file in the directory of that position in `RDMA_DRIVER_PATH`, from 0.
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
    /// Where it comes from.
    public var origin: Origin
    /// Path of its driver file; nil for a built-in provider.
    public var driverFile: String?
    /// Absolute path of its library; nil for a built-in provider.
    public var library: String?
    /// Version, to be shown: from the driver file, or of the built-in provider.
    public var version: String?
    /// Maker, to be shown.
    public var vendor: String?
    /// Whether the driver file forbids that another provider takes its place (`critical yes`).
    public var isCritical: Bool
    /// On what it was proved, as its driver file says.
    public var proof: DriverFile.Proof?
    /// What became of it.
    public var verdict: Verdict
}

/// What became of a candidate, and why.
public struct Verdict: Sendable, Hashable, Codable {
    /// The outcome.
    public enum Outcome: String, Sendable, Hashable, Codable {
        /// It serves the device.
        case chosen
        /// It could serve the device; another one ranks higher.
        case standsBy
        /// A rule speaks against it.
        case rejected
        /// A mask hides it.
        case masked
        /// Its library is not there.
        case absent
        /// It was tried, and refused or broke.
        case failed
    }

    /// The rule that decided.
    public enum Rule: String, Sendable, Hashable, Codable {
        /// First in rank among those that fit.
        case rank
        /// The device is none of those that it is for.
        case match
        /// The kernel driver's ABI lies outside its window.
        case kernelABI
        /// It needs another version of the provider ABI.
        case providerABI
        /// A file is owned by somebody else or writable by others.
        case ownership
        /// `RDMA_PROVIDER` asks for another provider.
        case environment
        /// Its library already stands in a higher rank.
        case duplicate
        /// An empty file, or a link to /dev/null, of the provider's name.
        case mask
        /// There is no library at the path.
        case missing
        /// The library does not load, or has no entry point of its own.
        case load
        /// The entry point refused, or answered something that this core cannot use.
        case negotiation
        /// The library calls itself something else than its driver file does.
        case name
        /// The provider says that it cannot serve this device (`probe_device`).
        case probe
        /// The provider did not open the device (`open_device`).
        case open
    }

    /// The outcome.
    public var outcome: Outcome
    /// The rule that decided.
    public var rule: Rule
    /// Why, in one sentence for a person.
    public var sentence: String

    /// A verdict with its reason.
    public init(_ outcome: Outcome, _ rule: Rule, _ sentence: String) {
        self.outcome = outcome
        self.rule = rule
        self.sentence = sentence
    }
}
