/// Who may do what with registered memory, or through a queue pair (enum ibv_access_flags).
/// The owner may always read. `remoteWrite` and `remoteAtomic` need `localWrite` as well (IBTA volume 1, 10.6.3.1).
@frozen public struct AccessFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The bits in verbs.h; unknown ones are kept.
    public let rawValue: UInt32
    /// The set with those bits.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The device may write on the owner's behalf: receives, and the results of reads and atomics.
    @inlinable public static var localWrite: Self { Self(rawValue: 1 << 0) }
    /// Peers may write.
    @inlinable public static var remoteWrite: Self { Self(rawValue: 1 << 1) }
    /// Peers may read.
    @inlinable public static var remoteRead: Self { Self(rawValue: 1 << 2) }
    /// Peers may do atomic operations.
    @inlinable public static var remoteAtomic: Self { Self(rawValue: 1 << 3) }
    /// Memory windows may be bound to it.
    @inlinable public static var memoryWindowBind: Self { Self(rawValue: 1 << 4) }
    /// Remote addresses count from 0 instead of from the virtual address.
    @inlinable public static var zeroBased: Self { Self(rawValue: 1 << 5) }
    /// Pages are not pinned; the device faults them in (on-demand paging).
    @inlinable public static var onDemand: Self { Self(rawValue: 1 << 6) }
    /// All pages are huge pages; only with `onDemand`.
    @inlinable public static var hugeTLB: Self { Self(rawValue: 1 << 7) }
    /// The bus may order writes freely. A hint: devices that cannot, ignore it.
    @inlinable public static var relaxedOrdering: Self { Self(rawValue: 1 << 20) }

    /// The names of the bits that are set.
    public var description: String {
        describeBits(
            rawValue,
            [
                (0, "LOCAL_WRITE"),
                (1, "REMOTE_WRITE"),
                (2, "REMOTE_READ"),
                (3, "REMOTE_ATOMIC"),
                (4, "MW_BIND"),
                (5, "ZERO_BASED"),
                (6, "ON_DEMAND"),
                (7, "HUGETLB"),
                (20, "RELAXED_ORDERING"),
            ])
    }
}
