/// Logical state of a port (IBTA volume 1, 14.2.5.6; enum ibv_port_state).
@frozen public struct PortState: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// No state change; not a state that a port is in (`IBV_PORT_NOP`).
    @inlinable public static var noChange: Self { Self(rawValue: 0) }
    /// No link (`IBV_PORT_DOWN`).
    @inlinable public static var down: Self { Self(rawValue: 1) }
    /// Link up, waiting for the subnet manager (`IBV_PORT_INIT`).
    @inlinable public static var initializing: Self { Self(rawValue: 2) }
    /// Configured, not yet active (`IBV_PORT_ARMED`).
    @inlinable public static var armed: Self { Self(rawValue: 3) }
    /// Carries data (`IBV_PORT_ACTIVE`).
    @inlinable public static var active: Self { Self(rawValue: 4) }
    /// Active, with the link in error recovery (`IBV_PORT_ACTIVE_DEFER`).
    @inlinable public static var activeDefer: Self { Self(rawValue: 5) }

    /// The name in verbs.h without `IBV_PORT_`; nil for a number that this package does not know. It is used where C
    /// uses `ibv_port_state_str`.
    public var name: String? {
        switch rawValue {
        case 0: "NOP"
        case 1: "DOWN"
        case 2: "INIT"
        case 3: "ARMED"
        case 4: "ACTIVE"
        case 5: "ACTIVE_DEFER"
        default: nil
        }
    }
}

/// Physical state of a port (`ibv_port_attr.phys_state`; IBTA volume 1, 14.2.5.6).
@frozen public struct PhysicalPortState: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt8
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Sleeping.
    @inlinable public static var sleep: Self { Self(rawValue: 1) }
    /// Polling: the port searches for a link partner.
    @inlinable public static var polling: Self { Self(rawValue: 2) }
    /// Switched off.
    @inlinable public static var disabled: Self { Self(rawValue: 3) }
    /// Training the link.
    @inlinable public static var training: Self { Self(rawValue: 4) }
    /// Link up.
    @inlinable public static var linkUp: Self { Self(rawValue: 5) }
    /// Recovering from link errors.
    @inlinable public static var linkErrorRecovery: Self { Self(rawValue: 6) }
    /// Under test.
    @inlinable public static var phyTest: Self { Self(rawValue: 7) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 1: "SLEEP"
        case 2: "POLLING"
        case 3: "DISABLED"
        case 4: "PORT_CONFIGURATION_TRAINING"
        case 5: "LINK_UP"
        case 6: "LINK_ERROR_RECOVERY"
        case 7: "PHY_TEST"
        default: nil
        }
    }
}

/// The link layer of a port (`ibv_port_attr.link_layer`).
@frozen public struct LinkLayer: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt8
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Not stated; InfiniBand on old devices (`IBV_LINK_LAYER_UNSPECIFIED`).
    @inlinable public static var unspecified: Self { Self(rawValue: 0) }
    /// InfiniBand: ports have LIDs (`IBV_LINK_LAYER_INFINIBAND`).
    @inlinable public static var infiniBand: Self { Self(rawValue: 1) }
    /// Ethernet: RoCE or iWARP; ports are identified by their GIDs (`IBV_LINK_LAYER_ETHERNET`).
    @inlinable public static var ethernet: Self { Self(rawValue: 2) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "unspecified"
        case 1: "InfiniBand"
        case 2: "Ethernet"
        default: nil
        }
    }
}
