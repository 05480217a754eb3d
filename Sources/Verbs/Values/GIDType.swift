import CIBVerbs
import CProviderABI

/// The type of a GID: InfiniBand or the RoCE version of its packets (enum ibv_gid_type).
@frozen public struct GIDType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// InfiniBand, or RoCE v1 where the kernel does not distinguish them (`IBV_GID_TYPE_IB`).
    @inlinable public static var infiniBand: Self { Self(rawValue: IBV_GID_TYPE_IB.rawValue) }
    /// RoCE v1: an Ethernet type of its own, not routable (`IBV_GID_TYPE_ROCE_V1`).
    @inlinable public static var roceV1: Self { Self(rawValue: IBV_GID_TYPE_ROCE_V1.rawValue) }
    /// RoCE v2: UDP port 4791, routable (`IBV_GID_TYPE_ROCE_V2`).
    @inlinable public static var roceV2: Self { Self(rawValue: IBV_GID_TYPE_ROCE_V2.rawValue) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "IB"
        case 1: "RoCE v1"
        case 2: "RoCE v2"
        default: nil
        }
    }
}
