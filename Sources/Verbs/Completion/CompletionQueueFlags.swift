extension CompletionQueue {
    /// Fields of a completion that extended polling reads (enum ibv_create_cq_wc_flags).
    @frozen public struct Fields: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Number of bytes.
        @inlinable public static var byteCount: Self { Self(rawValue: 1 << 0) }
        /// Immediate data or the invalidated key.
        @inlinable public static var immediate: Self { Self(rawValue: 1 << 1) }
        /// Number of the queue pair here.
        @inlinable public static var queuePairNumber: Self { Self(rawValue: 1 << 2) }
        /// UD: number of the queue pair that sent it.
        @inlinable public static var sourceQueuePair: Self { Self(rawValue: 1 << 3) }
        /// UD: the LID that it came from.
        @inlinable public static var sourceLID: Self { Self(rawValue: 1 << 4) }
        /// UD: its service level.
        @inlinable public static var serviceLevel: Self { Self(rawValue: 1 << 5) }
        /// UD: the path bits of the LID that it came to.
        @inlinable public static var pathBits: Self { Self(rawValue: 1 << 6) }
        /// The device's clock when it completed.
        @inlinable public static var timestamp: Self { Self(rawValue: 1 << 7) }
        /// VLAN tag.
        @inlinable public static var vlan: Self { Self(rawValue: 1 << 8) }
        /// Tag of the flow that took it.
        @inlinable public static var flowTag: Self { Self(rawValue: 1 << 9) }
        /// Tag and private data of tag matching.
        @inlinable public static var tagMatching: Self { Self(rawValue: 1 << 10) }
        /// Time of day when it completed.
        @inlinable public static var wallClock: Self { Self(rawValue: 1 << 11) }

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

        /// What `WorkCompletion` has.
        @inlinable public static var standard: Self { Self(rawValue: 0x7f) }
    }
}

extension CompletionQueue {
    /// Special treatment of a completion queue (enum ibv_create_cq_attr_flags).
    @frozen public struct CreationFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// One thread at a time polls, so the provider leaves its lock out: what this type promises anyway.
        @inlinable public static var singleThreaded: Self { Self(rawValue: 1 << 0) }
        /// An overrun is no error; the caller knows that none happens.
        @inlinable public static var ignoreOverrun: Self { Self(rawValue: 1 << 1) }

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
