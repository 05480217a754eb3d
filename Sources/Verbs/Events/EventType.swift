import CIBVerbs
import CProviderABI

/// The type of an asynchronous event (IBTA volume 1, 11.6.3; enum ibv_event_type).
@frozen public struct EventType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A completion queue overran or failed (`IBV_EVENT_CQ_ERR`).
    @inlinable public static var completionQueueError: Self { Self(rawValue: IBV_EVENT_CQ_ERR.rawValue) }
    /// A queue pair failed (`IBV_EVENT_QP_FATAL`).
    @inlinable public static var queuePairFatal: Self { Self(rawValue: IBV_EVENT_QP_FATAL.rawValue) }
    /// A queue pair received an invalid request (`IBV_EVENT_QP_REQ_ERR`).
    @inlinable public static var queuePairRequestError: Self { Self(rawValue: IBV_EVENT_QP_REQ_ERR.rawValue) }
    /// A queue pair received a request that violates memory protection (`IBV_EVENT_QP_ACCESS_ERR`).
    @inlinable public static var queuePairAccessError: Self { Self(rawValue: IBV_EVENT_QP_ACCESS_ERR.rawValue) }
    /// A queue pair in RTR received its first packet (`IBV_EVENT_COMM_EST`).
    @inlinable public static var communicationEstablished: Self { Self(rawValue: IBV_EVENT_COMM_EST.rawValue) }
    /// The send queue of a queue pair in SQD is drained (`IBV_EVENT_SQ_DRAINED`).
    @inlinable public static var sendQueueDrained: Self { Self(rawValue: IBV_EVENT_SQ_DRAINED.rawValue) }
    /// A connection moved to its alternate path (`IBV_EVENT_PATH_MIG`).
    @inlinable public static var pathMigrated: Self { Self(rawValue: IBV_EVENT_PATH_MIG.rawValue) }
    /// A connection could not move to its alternate path (`IBV_EVENT_PATH_MIG_ERR`).
    @inlinable public static var pathMigrationError: Self { Self(rawValue: IBV_EVENT_PATH_MIG_ERR.rawValue) }
    /// The device has failed or was removed (`IBV_EVENT_DEVICE_FATAL`).
    @inlinable public static var deviceFatal: Self { Self(rawValue: IBV_EVENT_DEVICE_FATAL.rawValue) }
    /// A port became active (`IBV_EVENT_PORT_ACTIVE`).
    @inlinable public static var portActive: Self { Self(rawValue: IBV_EVENT_PORT_ACTIVE.rawValue) }
    /// A port went down (`IBV_EVENT_PORT_ERR`).
    @inlinable public static var portError: Self { Self(rawValue: IBV_EVENT_PORT_ERR.rawValue) }
    /// A port's LID changed (`IBV_EVENT_LID_CHANGE`).
    @inlinable public static var lidChange: Self { Self(rawValue: IBV_EVENT_LID_CHANGE.rawValue) }
    /// A port's P_Key table changed (`IBV_EVENT_PKEY_CHANGE`).
    @inlinable public static var pkeyChange: Self { Self(rawValue: IBV_EVENT_PKEY_CHANGE.rawValue) }
    /// A port's subnet manager changed (`IBV_EVENT_SM_CHANGE`).
    @inlinable public static var subnetManagerChange: Self { Self(rawValue: IBV_EVENT_SM_CHANGE.rawValue) }
    /// A shared receive queue failed (`IBV_EVENT_SRQ_ERR`).
    @inlinable public static var sharedReceiveQueueError: Self { Self(rawValue: IBV_EVENT_SRQ_ERR.rawValue) }
    /// A shared receive queue fell below its limit (`IBV_EVENT_SRQ_LIMIT_REACHED`).
    @inlinable public static var sharedReceiveQueueLimitReached: Self {
        Self(rawValue: IBV_EVENT_SRQ_LIMIT_REACHED.rawValue)
    }
    /// A queue pair with a shared receive queue is in the error state and consumes no more receives
    /// (`IBV_EVENT_QP_LAST_WQE_REACHED`).
    @inlinable public static var lastWorkRequestReached: Self { Self(rawValue: IBV_EVENT_QP_LAST_WQE_REACHED.rawValue) }
    /// The subnet manager requests that clients register again (`IBV_EVENT_CLIENT_REREGISTER`).
    @inlinable public static var clientReregister: Self { Self(rawValue: IBV_EVENT_CLIENT_REREGISTER.rawValue) }
    /// A port's GID table changed (`IBV_EVENT_GID_CHANGE`).
    @inlinable public static var gidChange: Self { Self(rawValue: IBV_EVENT_GID_CHANGE.rawValue) }
    /// A work queue failed (`IBV_EVENT_WQ_FATAL`).
    @inlinable public static var workQueueFatal: Self { Self(rawValue: IBV_EVENT_WQ_FATAL.rawValue) }

    /// The name in verbs.h without `IBV_EVENT_`; nil for a number that this package does not know. It is used where C
    /// uses `ibv_event_type_str`.
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
