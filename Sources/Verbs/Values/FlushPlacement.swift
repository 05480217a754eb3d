/// Placement types of a flush: what holds for the data when it completes (enum ibv_placement_type of later versions of
/// verbs.h than that of rdma-core 44; IBTA volume 1 release 1.5, annex A19).
@frozen public struct FlushPlacement: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The bits in verbs.h; unknown ones are kept.
    public let rawValue: UInt8
    /// The set with those bits.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Every processor and device of the peer's host sees the data (`IBV_FLUSH_GLOBAL`).
    @inlinable public static var globalVisibility: Self { Self(rawValue: 1 << 0) }
    /// The data survives a loss of power (`IBV_FLUSH_PERSISTENT`).
    @inlinable public static var persistence: Self { Self(rawValue: 1 << 1) }

    /// The names of the bits that are set.
    public var description: String { describeBits(rawValue, [(0, "GLOBAL"), (1, "PERSISTENT")]) }
}

/// The memory that a flush concerns: its selectivity level (enum ibv_selectivity_level).
@frozen public struct FlushSelectivity: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The range of the operation (`IBV_FLUSH_RANGE`).
    @inlinable public static var range: Self { Self(rawValue: 0) }
    /// The whole memory region with the rkey; address and length have no meaning (`IBV_FLUSH_MR`).
    @inlinable public static var memoryRegion: Self { Self(rawValue: 1) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "RANGE"
        case 1: "MR"
        default: nil
        }
    }
}
