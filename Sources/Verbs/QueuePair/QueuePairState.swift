extension QueuePair {
    /// State of a queue pair (IBTA volume 1, 10.3.1; enum ibv_qp_state).
    @frozen public struct State: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Just made: nothing can be posted.
        @inlinable public static var reset: Self { Self(rawValue: 0) }
        /// Receives may be posted; nothing is processed.
        @inlinable public static var initialized: Self { Self(rawValue: 1) }
        /// Receives are processed.
        @inlinable public static var readyToReceive: Self { Self(rawValue: 2) }
        /// Sends and receives are processed.
        @inlinable public static var readyToSend: Self { Self(rawValue: 3) }
        /// Sends in progress finish; new ones wait.
        @inlinable public static var sendQueueDrained: Self { Self(rawValue: 4) }
        /// A send failed on an unreliable queue pair; receives go on.
        @inlinable public static var sendQueueError: Self { Self(rawValue: 5) }
        /// Everything posted completes as flushed.
        @inlinable public static var error: Self { Self(rawValue: 6) }
        /// Not known.
        @inlinable public static var unknown: Self { Self(rawValue: 7) }

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
