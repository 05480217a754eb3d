extension QueuePair {
    /// The transport service of a queue pair (IBTA volume 1, 3.2.2; enum ibv_qp_type).
    @frozen public struct Kind: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Reliable connection: in order, exactly once; sends, writes, reads and atomics.
        @inlinable public static var reliableConnection: Self { Self(rawValue: 2) }
        /// Unreliable connection: sends and writes; what is lost is lost.
        @inlinable public static var unreliableConnection: Self { Self(rawValue: 3) }
        /// Unreliable datagram: sends of at most one MTU, to any peer.
        @inlinable public static var unreliableDatagram: Self { Self(rawValue: 4) }
        /// Raw Ethernet packets.
        @inlinable public static var rawPacket: Self { Self(rawValue: 8) }
        /// The sending side of an extended reliable connection.
        @inlinable public static var xrcSend: Self { Self(rawValue: 9) }
        /// The receiving side of an extended reliable connection.
        @inlinable public static var xrcReceive: Self { Self(rawValue: 10) }
        /// The provider's own.
        @inlinable public static var driver: Self { Self(rawValue: 255) }

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
}

extension QueuePair {
    /// State of automatic path migration (IBTA volume 1, 17.2.8; enum ibv_mig_state).
    @frozen public struct MigrationState: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// On its only path, or moved to the other one.
        @inlinable public static var migrated: Self { Self(rawValue: 0) }
        /// Asks the peer to be ready to move.
        @inlinable public static var rearm: Self { Self(rawValue: 1) }
        /// Both sides are ready to move.
        @inlinable public static var armed: Self { Self(rawValue: 2) }

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
