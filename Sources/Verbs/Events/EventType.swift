extension AsynchronousEvent {
    /// What an asynchronous event tells (IBTA volume 1, 11.6.3; enum ibv_event_type).
    @frozen public struct Kind: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// A completion queue overran or failed.
        @inlinable public static var completionQueueError: Self { Self(rawValue: 0) }
        /// A queue pair failed.
        @inlinable public static var queuePairFatal: Self { Self(rawValue: 1) }
        /// A queue pair got an invalid request.
        @inlinable public static var queuePairRequestError: Self { Self(rawValue: 2) }
        /// A queue pair got a request that violates protection.
        @inlinable public static var queuePairAccessError: Self { Self(rawValue: 3) }
        /// A first packet came to a queue pair in RTR.
        @inlinable public static var communicationEstablished: Self { Self(rawValue: 4) }
        /// The send queue of a queue pair in SQD is drained.
        @inlinable public static var sendQueueDrained: Self { Self(rawValue: 5) }
        /// A connection moved to its alternate path.
        @inlinable public static var pathMigrated: Self { Self(rawValue: 6) }
        /// A connection could not move to its alternate path.
        @inlinable public static var pathMigrationError: Self { Self(rawValue: 7) }
        /// The device has failed or was removed.
        @inlinable public static var deviceFatal: Self { Self(rawValue: 8) }
        /// A port became active.
        @inlinable public static var portActive: Self { Self(rawValue: 9) }
        /// A port went down.
        @inlinable public static var portError: Self { Self(rawValue: 10) }
        /// A port's LID changed.
        @inlinable public static var lidChange: Self { Self(rawValue: 11) }
        /// A port's P_Key table changed.
        @inlinable public static var pkeyChange: Self { Self(rawValue: 12) }
        /// A port's subnet manager changed.
        @inlinable public static var subnetManagerChange: Self { Self(rawValue: 13) }
        /// A shared receive queue failed.
        @inlinable public static var sharedReceiveQueueError: Self { Self(rawValue: 14) }
        /// A shared receive queue fell below its limit.
        @inlinable public static var sharedReceiveQueueLimitReached: Self { Self(rawValue: 15) }
        /// A queue pair on a shared receive queue took its last receive.
        @inlinable public static var lastWorkRequestReached: Self { Self(rawValue: 16) }
        /// The subnet manager wants registrations again.
        @inlinable public static var clientReregister: Self { Self(rawValue: 17) }
        /// A port's GID table changed.
        @inlinable public static var gidChange: Self { Self(rawValue: 18) }
        /// A work queue failed.
        @inlinable public static var workQueueFatal: Self { Self(rawValue: 19) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "CQ_ERR"
            case 1: "QP_FATAL"
            case 2: "QP_REQ_ERR"
            case 3: "QP_ACCESS_ERR"
            case 4: "COMM_EST"
            case 5: "SQ_DRAINED"
            case 6: "PATH_MIG"
            case 7: "PATH_MIG_ERR"
            case 8: "DEVICE_FATAL"
            case 9: "PORT_ACTIVE"
            case 10: "PORT_ERR"
            case 11: "LID_CHANGE"
            case 12: "PKEY_CHANGE"
            case 13: "SM_CHANGE"
            case 14: "SRQ_ERR"
            case 15: "SRQ_LIMIT_REACHED"
            case 16: "QP_LAST_WQE_REACHED"
            case 17: "CLIENT_REREGISTER"
            case 18: "GID_CHANGE"
            case 19: "WQ_FATAL"
            default: nil
            }
        }
    }
}
