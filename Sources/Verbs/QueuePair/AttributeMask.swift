import CIBVerbs
import CProviderABI

extension QueuePair.Attributes {
    /// The attributes of a queue pair that are set (enum ibv_qp_attr_mask).
    @frozen public struct Mask: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// `QueuePair.Attributes.state` (`IBV_QP_STATE`).
        @inlinable public static var state: Self { Self(rawValue: IBV_QP_STATE.rawValue) }
        /// `QueuePair.Attributes.currentState` (`IBV_QP_CUR_STATE`).
        @inlinable public static var currentState: Self { Self(rawValue: IBV_QP_CUR_STATE.rawValue) }
        /// `QueuePair.Attributes.notifiesWhenDrained` (`IBV_QP_EN_SQD_ASYNC_NOTIFY`).
        @inlinable public static var notifiesWhenDrained: Self { Self(rawValue: IBV_QP_EN_SQD_ASYNC_NOTIFY.rawValue) }
        /// `QueuePair.Attributes.access` (`IBV_QP_ACCESS_FLAGS`).
        @inlinable public static var access: Self { Self(rawValue: IBV_QP_ACCESS_FLAGS.rawValue) }
        /// `QueuePair.Attributes.pkeyIndex` (`IBV_QP_PKEY_INDEX`).
        @inlinable public static var pkeyIndex: Self { Self(rawValue: IBV_QP_PKEY_INDEX.rawValue) }
        /// `QueuePair.Attributes.port` (`IBV_QP_PORT`).
        @inlinable public static var port: Self { Self(rawValue: IBV_QP_PORT.rawValue) }
        /// `QueuePair.Attributes.qkey` (`IBV_QP_QKEY`).
        @inlinable public static var qkey: Self { Self(rawValue: IBV_QP_QKEY.rawValue) }
        /// `QueuePair.Attributes.path` (`IBV_QP_AV`).
        @inlinable public static var path: Self { Self(rawValue: IBV_QP_AV.rawValue) }
        /// `QueuePair.Attributes.pathMTU` (`IBV_QP_PATH_MTU`).
        @inlinable public static var pathMTU: Self { Self(rawValue: IBV_QP_PATH_MTU.rawValue) }
        /// `QueuePair.Attributes.timeout` (`IBV_QP_TIMEOUT`).
        @inlinable public static var timeout: Self { Self(rawValue: IBV_QP_TIMEOUT.rawValue) }
        /// `QueuePair.Attributes.retryCount` (`IBV_QP_RETRY_CNT`).
        @inlinable public static var retryCount: Self { Self(rawValue: IBV_QP_RETRY_CNT.rawValue) }
        /// `QueuePair.Attributes.rnrRetry` (`IBV_QP_RNR_RETRY`).
        @inlinable public static var rnrRetry: Self { Self(rawValue: IBV_QP_RNR_RETRY.rawValue) }
        /// `QueuePair.Attributes.rqPSN` (`IBV_QP_RQ_PSN`).
        @inlinable public static var rqPSN: Self { Self(rawValue: IBV_QP_RQ_PSN.rawValue) }
        /// `QueuePair.Attributes.maxRdAtomic` (`IBV_QP_MAX_QP_RD_ATOMIC`).
        @inlinable public static var maxRdAtomic: Self { Self(rawValue: IBV_QP_MAX_QP_RD_ATOMIC.rawValue) }
        /// `QueuePair.Attributes.alternatePath` (`IBV_QP_ALT_PATH`).
        @inlinable public static var alternatePath: Self { Self(rawValue: IBV_QP_ALT_PATH.rawValue) }
        /// `QueuePair.Attributes.minRNRTimer` (`IBV_QP_MIN_RNR_TIMER`).
        @inlinable public static var minRNRTimer: Self { Self(rawValue: IBV_QP_MIN_RNR_TIMER.rawValue) }
        /// `QueuePair.Attributes.sqPSN` (`IBV_QP_SQ_PSN`).
        @inlinable public static var sqPSN: Self { Self(rawValue: IBV_QP_SQ_PSN.rawValue) }
        /// `QueuePair.Attributes.maxDestRdAtomic` (`IBV_QP_MAX_DEST_RD_ATOMIC`).
        @inlinable public static var maxDestRdAtomic: Self { Self(rawValue: IBV_QP_MAX_DEST_RD_ATOMIC.rawValue) }
        /// `QueuePair.Attributes.migrationState` (`IBV_QP_PATH_MIG_STATE`).
        @inlinable public static var migrationState: Self { Self(rawValue: IBV_QP_PATH_MIG_STATE.rawValue) }
        /// `QueuePair.Attributes.capabilities` (`IBV_QP_CAP`).
        @inlinable public static var capabilities: Self { Self(rawValue: IBV_QP_CAP.rawValue) }
        /// `QueuePair.Attributes.destinationQPNumber` (`IBV_QP_DEST_QPN`).
        @inlinable public static var destinationQPNumber: Self { Self(rawValue: IBV_QP_DEST_QPN.rawValue) }
        /// `QueuePair.Attributes.rateLimit` (`IBV_QP_RATE_LIMIT`).
        @inlinable public static var rateLimit: Self { Self(rawValue: IBV_QP_RATE_LIMIT.rawValue) }

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

        /// The mask of a query: all attributes but the rate limit, which some kernels do not support.
        static var allQueried: Self { Self(rawValue: (1 << 21) - 1) }
    }
}
