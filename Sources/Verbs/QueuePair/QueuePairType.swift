import CIBVerbs
import CProviderABI

/// The transport service of a queue pair (IBTA volume 1, 3.2.2; enum ibv_qp_type).
@frozen public struct QueuePairType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Reliable connection: in order, exactly once; sends, writes, reads and atomics (`IBV_QPT_RC`).
    @inlinable public static var reliableConnection: Self { Self(rawValue: IBV_QPT_RC.rawValue) }
    /// Unreliable connection: sends and writes; lost packets are not sent again (`IBV_QPT_UC`).
    @inlinable public static var unreliableConnection: Self { Self(rawValue: IBV_QPT_UC.rawValue) }
    /// Unreliable datagram: sends of at most one MTU, to any peer (`IBV_QPT_UD`).
    @inlinable public static var unreliableDatagram: Self { Self(rawValue: IBV_QPT_UD.rawValue) }
    /// Raw Ethernet packets (`IBV_QPT_RAW_PACKET`).
    @inlinable public static var rawPacket: Self { Self(rawValue: IBV_QPT_RAW_PACKET.rawValue) }
    /// The sending side of an extended reliable connection (`IBV_QPT_XRC_SEND`).
    @inlinable public static var xrcSend: Self { Self(rawValue: IBV_QPT_XRC_SEND.rawValue) }
    /// The receiving side of an extended reliable connection (`IBV_QPT_XRC_RECV`).
    @inlinable public static var xrcReceive: Self { Self(rawValue: IBV_QPT_XRC_RECV.rawValue) }
    /// A type that the provider defines (`IBV_QPT_DRIVER`).
    @inlinable public static var driver: Self { Self(rawValue: IBV_QPT_DRIVER.rawValue) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 2: "RC"
        case 3: "UC"
        case 4: "UD"
        case 8: "RAW_PACKET"
        case 9: "XRC_SEND"
        case 10: "XRC_RECV"
        case 255: "DRIVER"
        default: nil
        }
    }
}

extension QueuePair {
    /// State of automatic path migration (IBTA volume 1, 17.2.8; enum ibv_mig_state).
    @frozen public struct MigrationState: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// No alternate path is armed, or the connection has moved to it (`IBV_MIG_MIGRATED`).
        @inlinable public static var migrated: Self { Self(rawValue: IBV_MIG_MIGRATED.rawValue) }
        /// The peer is requested to arm its alternate path (`IBV_MIG_REARM`).
        @inlinable public static var rearm: Self { Self(rawValue: IBV_MIG_REARM.rawValue) }
        /// Both sides are ready to migrate (`IBV_MIG_ARMED`).
        @inlinable public static var armed: Self { Self(rawValue: IBV_MIG_ARMED.rawValue) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "MIGRATED"
            case 1: "REARM"
            case 2: "ARMED"
            default: nil
            }
        }
    }
}
