import CIBVerbs
import CProviderABI

extension QueuePair {
    /// State of a queue pair (IBTA volume 1, 10.3.1; enum ibv_qp_state).
    @frozen public struct State: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The state of a new queue pair: nothing can be posted (`IBV_QPS_RESET`).
        @inlinable public static var reset: Self { Self(rawValue: IBV_QPS_RESET.rawValue) }
        /// Receives may be posted; nothing is processed (`IBV_QPS_INIT`).
        @inlinable public static var initialized: Self { Self(rawValue: IBV_QPS_INIT.rawValue) }
        /// Receives are processed (`IBV_QPS_RTR`).
        @inlinable public static var readyToReceive: Self { Self(rawValue: IBV_QPS_RTR.rawValue) }
        /// Sends and receives are processed (`IBV_QPS_RTS`).
        @inlinable public static var readyToSend: Self { Self(rawValue: IBV_QPS_RTS.rawValue) }
        /// Sends in progress complete; new ones are not started (`IBV_QPS_SQD`).
        @inlinable public static var sendQueueDrained: Self { Self(rawValue: IBV_QPS_SQD.rawValue) }
        /// A send failed on a UC or UD queue pair; receives are still processed (`IBV_QPS_SQE`).
        @inlinable public static var sendQueueError: Self { Self(rawValue: IBV_QPS_SQE.rawValue) }
        /// Everything posted completes as flushed (`IBV_QPS_ERR`).
        @inlinable public static var error: Self { Self(rawValue: IBV_QPS_ERR.rawValue) }
        /// Not known (`IBV_QPS_UNKNOWN`).
        @inlinable public static var unknown: Self { Self(rawValue: IBV_QPS_UNKNOWN.rawValue) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "RESET"
            case 1: "INIT"
            case 2: "RTR"
            case 3: "RTS"
            case 4: "SQD"
            case 5: "SQE"
            case 6: "ERR"
            case 7: "UNKNOWN"
            default: nil
            }
        }
    }
}
