import CIBVerbs

/// The type of a device (enum ibv_node_type).
@frozen public struct NodeType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Not known (`IBV_NODE_UNKNOWN`).
    @inlinable public static var unknown: Self { Self(rawValue: -1) }
    /// A host channel adapter: InfiniBand or RoCE (`IBV_NODE_CA`).
    @inlinable public static var channelAdapter: Self { Self(rawValue: Int32(IBV_NODE_CA.rawValue)) }
    /// A switch (`IBV_NODE_SWITCH`).
    @inlinable public static var `switch`: Self { Self(rawValue: Int32(IBV_NODE_SWITCH.rawValue)) }
    /// A router (`IBV_NODE_ROUTER`).
    @inlinable public static var router: Self { Self(rawValue: Int32(IBV_NODE_ROUTER.rawValue)) }
    /// An iWARP adapter (`IBV_NODE_RNIC`).
    @inlinable public static var rnic: Self { Self(rawValue: Int32(IBV_NODE_RNIC.rawValue)) }
    /// A usNIC adapter (`IBV_NODE_USNIC`).
    @inlinable public static var usnic: Self { Self(rawValue: Int32(IBV_NODE_USNIC.rawValue)) }
    /// A usNIC adapter over UDP (`IBV_NODE_USNIC_UDP`).
    @inlinable public static var usnicUDP: Self { Self(rawValue: Int32(IBV_NODE_USNIC_UDP.rawValue)) }
    /// None of these (`IBV_NODE_UNSPECIFIED`).
    @inlinable public static var unspecified: Self { Self(rawValue: Int32(IBV_NODE_UNSPECIFIED.rawValue)) }

    /// The name; nil for a number that this package does not know. It is used where C uses `ibv_node_type_str`.
    public var name: String? {
        switch rawValue {
        case -1: "unknown"
        case 1: "CA"
        case 2: "switch"
        case 3: "router"
        case 4: "RNIC"
        case 5: "usNIC"
        case 6: "usNIC UDP"
        case 7: "unspecified"
        default: nil
        }
    }
}

/// The transport type of a device (enum ibv_transport_type).
@frozen public struct TransportType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Not known (`IBV_TRANSPORT_UNKNOWN`).
    @inlinable public static var unknown: Self { Self(rawValue: -1) }
    /// InfiniBand's transport, also over Ethernet as RoCE (`IBV_TRANSPORT_IB`).
    @inlinable public static var infiniBand: Self { Self(rawValue: Int32(IBV_TRANSPORT_IB.rawValue)) }
    /// iWARP over TCP (`IBV_TRANSPORT_IWARP`).
    @inlinable public static var iWARP: Self { Self(rawValue: Int32(IBV_TRANSPORT_IWARP.rawValue)) }
    /// usNIC (`IBV_TRANSPORT_USNIC`).
    @inlinable public static var usnic: Self { Self(rawValue: Int32(IBV_TRANSPORT_USNIC.rawValue)) }
    /// usNIC over UDP (`IBV_TRANSPORT_USNIC_UDP`).
    @inlinable public static var usnicUDP: Self { Self(rawValue: Int32(IBV_TRANSPORT_USNIC_UDP.rawValue)) }
    /// None of these (`IBV_TRANSPORT_UNSPECIFIED`).
    @inlinable public static var unspecified: Self { Self(rawValue: Int32(IBV_TRANSPORT_UNSPECIFIED.rawValue)) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case -1: "unknown"
        case 0: "InfiniBand"
        case 1: "iWARP"
        case 2: "usNIC"
        case 3: "usNIC UDP"
        case 4: "unspecified"
        default: nil
        }
    }
}
