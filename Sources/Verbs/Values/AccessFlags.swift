import CIBVerbs
import CProviderABI

/// The operations that are allowed on registered memory or through a queue pair (enum ibv_access_flags).
/// Local reads are always allowed. `remoteWrite` and `remoteAtomic` need `localWrite` as well (IBTA volume 1,
/// 10.6.3.1).
@frozen public struct AccessFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The bits in verbs.h; unknown ones are kept.
    public let rawValue: UInt32
    /// The set with those bits.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The device may write: receives, and the results of reads and atomics (`IBV_ACCESS_LOCAL_WRITE`).
    @inlinable public static var localWrite: Self { Self(rawValue: IBV_ACCESS_LOCAL_WRITE.rawValue) }
    /// Peers may write (`IBV_ACCESS_REMOTE_WRITE`).
    @inlinable public static var remoteWrite: Self { Self(rawValue: IBV_ACCESS_REMOTE_WRITE.rawValue) }
    /// Peers may read (`IBV_ACCESS_REMOTE_READ`).
    @inlinable public static var remoteRead: Self { Self(rawValue: IBV_ACCESS_REMOTE_READ.rawValue) }
    /// Peers may do atomic operations (`IBV_ACCESS_REMOTE_ATOMIC`).
    @inlinable public static var remoteAtomic: Self { Self(rawValue: IBV_ACCESS_REMOTE_ATOMIC.rawValue) }
    /// Memory windows may be bound to it (`IBV_ACCESS_MW_BIND`).
    @inlinable public static var memoryWindowBind: Self { Self(rawValue: IBV_ACCESS_MW_BIND.rawValue) }
    /// Remote addresses count from 0 instead of from the virtual address (`IBV_ACCESS_ZERO_BASED`).
    @inlinable public static var zeroBased: Self { Self(rawValue: IBV_ACCESS_ZERO_BASED.rawValue) }
    /// Pages are not pinned; the device faults them in (on-demand paging) (`IBV_ACCESS_ON_DEMAND`).
    @inlinable public static var onDemand: Self { Self(rawValue: IBV_ACCESS_ON_DEMAND.rawValue) }
    /// All pages are huge pages; only with `onDemand` (`IBV_ACCESS_HUGETLB`).
    @inlinable public static var hugeTLB: Self { Self(rawValue: IBV_ACCESS_HUGETLB.rawValue) }
    /// Peers may flush for global visibility (`IBV_ACCESS_FLUSH_GLOBAL` of later versions of verbs.h than that of
    /// rdma-core 44).
    @inlinable public static var flushGlobal: Self { Self(rawValue: 1 << 8) }
    /// Peers may flush for persistence (`IBV_ACCESS_FLUSH_PERSISTENT`, likewise).
    @inlinable public static var flushPersistent: Self { Self(rawValue: 1 << 9) }
    /// The PCI bus may reorder writes (`IBV_ACCESS_RELAXED_ORDERING`). The flag is optional
    /// (`IBV_ACCESS_OPTIONAL_RANGE`): a device without support ignores it.
    @inlinable public static var relaxedOrdering: Self { Self(rawValue: IBV_ACCESS_RELAXED_ORDERING.rawValue) }

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
                (8, "FLUSH_GLOBAL"),
                (9, "FLUSH_PERSISTENT"),
                (20, "RELAXED_ORDERING"),
            ])
    }
}
