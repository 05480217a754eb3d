extension QueuePair.Attributes {
    /// Which attributes of a queue pair are set (enum ibv_qp_attr_mask).
    @frozen public struct Mask: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// `QueuePair.Attributes.state`.
        @inlinable public static var state: Self { Self(rawValue: 1 << 0) }
        /// `QueuePair.Attributes.currentState`.
        @inlinable public static var currentState: Self { Self(rawValue: 1 << 1) }
        /// `QueuePair.Attributes.notifiesWhenDrained`.
        @inlinable public static var notifiesWhenDrained: Self { Self(rawValue: 1 << 2) }
        /// `QueuePair.Attributes.access`.
        @inlinable public static var access: Self { Self(rawValue: 1 << 3) }
        /// `QueuePair.Attributes.pkeyIndex`.
        @inlinable public static var pkeyIndex: Self { Self(rawValue: 1 << 4) }
        /// `QueuePair.Attributes.port`.
        @inlinable public static var port: Self { Self(rawValue: 1 << 5) }
        /// `QueuePair.Attributes.queueKey`.
        @inlinable public static var queueKey: Self { Self(rawValue: 1 << 6) }
        /// `QueuePair.Attributes.path`.
        @inlinable public static var path: Self { Self(rawValue: 1 << 7) }
        /// `QueuePair.Attributes.pathMTU`.
        @inlinable public static var pathMTU: Self { Self(rawValue: 1 << 8) }
        /// `QueuePair.Attributes.timeout`.
        @inlinable public static var timeout: Self { Self(rawValue: 1 << 9) }
        /// `QueuePair.Attributes.retryCount`.
        @inlinable public static var retryCount: Self { Self(rawValue: 1 << 10) }
        /// `QueuePair.Attributes.rnrRetry`.
        @inlinable public static var rnrRetry: Self { Self(rawValue: 1 << 11) }
        /// `QueuePair.Attributes.receivePSN`.
        @inlinable public static var receivePSN: Self { Self(rawValue: 1 << 12) }
        /// `QueuePair.Attributes.initiatorDepth`.
        @inlinable public static var initiatorDepth: Self { Self(rawValue: 1 << 13) }
        /// `QueuePair.Attributes.alternatePath`.
        @inlinable public static var alternatePath: Self { Self(rawValue: 1 << 14) }
        /// `QueuePair.Attributes.minRNRTimer`.
        @inlinable public static var minRNRTimer: Self { Self(rawValue: 1 << 15) }
        /// `QueuePair.Attributes.sendPSN`.
        @inlinable public static var sendPSN: Self { Self(rawValue: 1 << 16) }
        /// `QueuePair.Attributes.responderDepth`.
        @inlinable public static var responderDepth: Self { Self(rawValue: 1 << 17) }
        /// `QueuePair.Attributes.migrationState`.
        @inlinable public static var migrationState: Self { Self(rawValue: 1 << 18) }
        /// `QueuePair.Attributes.capabilities`.
        @inlinable public static var capabilities: Self { Self(rawValue: 1 << 19) }
        /// `QueuePair.Attributes.destinationNumber`.
        @inlinable public static var destinationNumber: Self { Self(rawValue: 1 << 20) }
        /// `QueuePair.Attributes.rateLimit`.
        @inlinable public static var rateLimit: Self { Self(rawValue: 1 << 25) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "STATE"),
                    (1, "CUR_STATE"),
                    (2, "EN_SQD_ASYNC_NOTIFY"),
                    (3, "ACCESS_FLAGS"),
                    (4, "PKEY_INDEX"),
                    (5, "PORT"),
                    (6, "QKEY"),
                    (7, "AV"),
                    (8, "PATH_MTU"),
                    (9, "TIMEOUT"),
                    (10, "RETRY_CNT"),
                    (11, "RNR_RETRY"),
                    (12, "RQ_PSN"),
                    (13, "MAX_QP_RD_ATOMIC"),
                    (14, "ALT_PATH"),
                    (15, "MIN_RNR_TIMER"),
                    (16, "SQ_PSN"),
                    (17, "MAX_DEST_RD_ATOMIC"),
                    (18, "PATH_MIG_STATE"),
                    (19, "CAP"),
                    (20, "DEST_QPN"),
                    (25, "RATE_LIMIT"),
                ])
        }

        /// What a query asks for: all but the rate limit, which not every kernel knows.
        static var allQueried: Self { Self(rawValue: (1 << 21) - 1) }
    }
}
