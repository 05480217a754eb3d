extension WorkCompletion {
    /// What a completion is the completion of (enum ibv_wc_opcode). Undefined unless the status is success.
    @frozen public struct Opcode: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// A send.
        @inlinable public static var send: Self { Self(rawValue: 0) }
        /// An RDMA write.
        @inlinable public static var write: Self { Self(rawValue: 1) }
        /// An RDMA read.
        @inlinable public static var read: Self { Self(rawValue: 2) }
        /// A compare and swap.
        @inlinable public static var compareAndSwap: Self { Self(rawValue: 3) }
        /// A fetch and add.
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: 4) }
        /// A bind of a memory window.
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: 5) }
        /// A local invalidation.
        @inlinable public static var localInvalidate: Self { Self(rawValue: 6) }
        /// A TCP segmentation offload.
        @inlinable public static var tso: Self { Self(rawValue: 7) }
        /// An atomic write.
        @inlinable public static var atomicWrite: Self { Self(rawValue: 9) }
        /// A receive, of a send.
        @inlinable public static var receive: Self { Self(rawValue: 128) }
        /// A receive, consumed by a write with immediate data.
        @inlinable public static var receiveWriteWithImmediate: Self { Self(rawValue: 129) }
        /// A tag was added.
        @inlinable public static var tagAdd: Self { Self(rawValue: 130) }
        /// A tag was deleted.
        @inlinable public static var tagDelete: Self { Self(rawValue: 131) }
        /// Tags were synchronised.
        @inlinable public static var tagSync: Self { Self(rawValue: 132) }
        /// A receive with a matching tag.
        @inlinable public static var tagReceive: Self { Self(rawValue: 133) }
        /// A receive without a matching tag.
        @inlinable public static var tagNone: Self { Self(rawValue: 134) }
        /// The provider's own, 1.
        @inlinable public static var driver1: Self { Self(rawValue: 135) }
        /// The provider's own, 2.
        @inlinable public static var driver2: Self { Self(rawValue: 136) }
        /// The provider's own, 3.
        @inlinable public static var driver3: Self { Self(rawValue: 137) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "SEND"
            case 1: "RDMA_WRITE"
            case 2: "RDMA_READ"
            case 3: "COMP_SWAP"
            case 4: "FETCH_ADD"
            case 5: "BIND_MW"
            case 6: "LOCAL_INV"
            case 7: "TSO"
            case 9: "ATOMIC_WRITE"
            case 128: "RECV"
            case 129: "RECV_RDMA_WITH_IMM"
            case 130: "TM_ADD"
            case 131: "TM_DEL"
            case 132: "TM_SYNC"
            case 133: "TM_RECV"
            case 134: "TM_NO_TAG"
            case 135: "DRIVER1"
            case 136: "DRIVER2"
            case 137: "DRIVER3"
            default: nil
            }
        }

        /// Whether it took a receive from a receive queue.
        @inlinable public var isReceive: Bool { rawValue & 128 != 0 }
    }
}

extension WorkCompletion {
    /// Which fields of a completion are valid (enum ibv_wc_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// UD: the first 40 bytes of the buffer hold a global route header.
        @inlinable public static var globalRoute: Self { Self(rawValue: 1 << 0) }
        /// There is immediate data.
        @inlinable public static var immediate: Self { Self(rawValue: 1 << 1) }
        /// The device found the IP, TCP and UDP checksums right.
        @inlinable public static var checksumValid: Self { Self(rawValue: 1 << 2) }
        /// The peer invalidated an rkey.
        @inlinable public static var invalidated: Self { Self(rawValue: 1 << 3) }
        /// Tag matching: software must synchronise.
        @inlinable public static var tagSyncRequested: Self { Self(rawValue: 1 << 4) }
        /// Tag matching: the tag matched.
        @inlinable public static var tagMatched: Self { Self(rawValue: 1 << 5) }
        /// Tag matching: the data is in the buffer.
        @inlinable public static var tagDataValid: Self { Self(rawValue: 1 << 6) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "GRH"),
                    (1, "WITH_IMM"),
                    (2, "IP_CSUM_OK"),
                    (3, "WITH_INV"),
                    (4, "TM_SYNC_REQ"),
                    (5, "TM_MATCH"),
                    (6, "TM_DATA_VALID"),
                ])
        }
    }
}
