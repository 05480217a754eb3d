/// What a device is (enum ibv_node_type).
@frozen public struct NodeType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Not known.
    @inlinable public static var unknown: Self { Self(rawValue: -1) }
    /// A host channel adapter: InfiniBand or RoCE.
    @inlinable public static var channelAdapter: Self { Self(rawValue: 1) }
    /// A switch.
    @inlinable public static var `switch`: Self { Self(rawValue: 2) }
    /// A router.
    @inlinable public static var router: Self { Self(rawValue: 3) }
    /// An iWARP adapter.
    @inlinable public static var rnic: Self { Self(rawValue: 4) }
    /// A usNIC adapter.
    @inlinable public static var usnic: Self { Self(rawValue: 5) }
    /// A usNIC adapter over UDP.
    @inlinable public static var usnicUDP: Self { Self(rawValue: 6) }
    /// None of these.
    @inlinable public static var unspecified: Self { Self(rawValue: 7) }

    /// The name in the specification's terms; nil for a number that this package does not know.
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

/// The transport that a device speaks (enum ibv_transport_type).
@frozen public struct TransportType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Not known.
    @inlinable public static var unknown: Self { Self(rawValue: -1) }
    /// InfiniBand's transport, also over Ethernet as RoCE.
    @inlinable public static var infiniBand: Self { Self(rawValue: 0) }
    /// iWARP over TCP.
    @inlinable public static var iWARP: Self { Self(rawValue: 1) }
    /// usNIC.
    @inlinable public static var usnic: Self { Self(rawValue: 2) }
    /// usNIC over UDP.
    @inlinable public static var usnicUDP: Self { Self(rawValue: 3) }
    /// None of these.
    @inlinable public static var unspecified: Self { Self(rawValue: 4) }

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
