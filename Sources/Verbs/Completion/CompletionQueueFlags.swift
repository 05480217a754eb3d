import CIBVerbs
import CProviderABI

extension CompletionQueue {
    /// Fields of a completion that extended polling reads (enum ibv_create_cq_wc_flags).
    @frozen public struct Fields: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Number of bytes (`IBV_WC_EX_WITH_BYTE_LEN`).
        @inlinable public static var byteCount: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_BYTE_LEN.rawValue)) }
        /// Immediate data or the invalidated key (`IBV_WC_EX_WITH_IMM`).
        @inlinable public static var immediate: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_IMM.rawValue)) }
        /// The QPN of the local queue pair (`IBV_WC_EX_WITH_QP_NUM`).
        @inlinable public static var queuePairNumber: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_QP_NUM.rawValue)) }
        /// UD: the QPN of the sender (`IBV_WC_EX_WITH_SRC_QP`).
        @inlinable public static var sourceQueuePair: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_SRC_QP.rawValue)) }
        /// UD: the LID of the sender (`IBV_WC_EX_WITH_SLID`).
        @inlinable public static var sourceLID: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_SLID.rawValue)) }
        /// UD: the service level of the packet (`IBV_WC_EX_WITH_SL`).
        @inlinable public static var serviceLevel: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_SL.rawValue)) }
        /// UD: the path bits of the destination LID (`IBV_WC_EX_WITH_DLID_PATH_BITS`).
        @inlinable public static var pathBits: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_DLID_PATH_BITS.rawValue)) }
        /// The device's clock at the completion (`IBV_WC_EX_WITH_COMPLETION_TIMESTAMP`).
        @inlinable public static var timestamp: Self {
            Self(rawValue: UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue))
        }
        /// VLAN tag (`IBV_WC_EX_WITH_CVLAN`).
        @inlinable public static var vlan: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_CVLAN.rawValue)) }
        /// Tag of the flow rule that matched (`IBV_WC_EX_WITH_FLOW_TAG`).
        @inlinable public static var flowTag: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_FLOW_TAG.rawValue)) }
        /// Tag and private data of tag matching (`IBV_WC_EX_WITH_TM_INFO`). `ExtendedCompletion` does not read them
        /// (`ibv_wc_read_tm_info`).
        @inlinable public static var tagMatching: Self { Self(rawValue: UInt64(IBV_WC_EX_WITH_TM_INFO.rawValue)) }
        /// The time of day at the completion (`IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK`).
        @inlinable public static var wallClock: Self {
            Self(rawValue: UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue))
        }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "BYTE_LEN"),
                    (1, "IMM"),
                    (2, "QP_NUM"),
                    (3, "SRC_QP"),
                    (4, "SLID"),
                    (5, "SL"),
                    (6, "DLID_PATH_BITS"),
                    (7, "COMPLETION_TIMESTAMP"),
                    (8, "CVLAN"),
                    (9, "FLOW_TAG"),
                    (10, "TM_INFO"),
                    (11, "COMPLETION_TIMESTAMP_WALLCLOCK"),
                ])
        }

        /// The fields of `WorkCompletion` (`IBV_WC_STANDARD_FLAGS`).
        @inlinable public static var standard: Self { Self(rawValue: UInt64(IBV_WC_STANDARD_FLAGS)) }
    }
}

extension CompletionQueue {
    /// Creation flags of a completion queue (enum ibv_create_cq_attr_flags).
    @frozen public struct CreationFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// One thread at a time uses the queue, so the provider leaves its lock out
        /// (`IBV_CREATE_CQ_ATTR_SINGLE_THREADED`). `CompletionQueue` already ensures that one thread at a time polls.
        /// The caller must also ensure that no other thread modifies or destroys a queue pair of the queue during a
        /// poll.
        @inlinable public static var singleThreaded: Self {
            Self(rawValue: IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue)
        }
        /// The device does not check for an overrun; the caller ensures that none happens
        /// (`IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN`).
        @inlinable public static var ignoreOverrun: Self { Self(rawValue: IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "SINGLE_THREADED"),
                    (1, "IGNORE_OVERRUN"),
                ])
        }
    }
}
