import CIBVerbs
import CProviderABI

extension WorkCompletion {
    /// The operation that a completion reports (enum ibv_wc_opcode). Undefined unless the status is `success`.
    @frozen public struct Opcode: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// A send (`IBV_WC_SEND`).
        @inlinable public static var send: Self { Self(rawValue: IBV_WC_SEND.rawValue) }
        /// An RDMA write (`IBV_WC_RDMA_WRITE`).
        @inlinable public static var write: Self { Self(rawValue: IBV_WC_RDMA_WRITE.rawValue) }
        /// An RDMA read (`IBV_WC_RDMA_READ`).
        @inlinable public static var read: Self { Self(rawValue: IBV_WC_RDMA_READ.rawValue) }
        /// A compare and swap (`IBV_WC_COMP_SWAP`).
        @inlinable public static var compareAndSwap: Self { Self(rawValue: IBV_WC_COMP_SWAP.rawValue) }
        /// A fetch and add (`IBV_WC_FETCH_ADD`).
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: IBV_WC_FETCH_ADD.rawValue) }
        /// A bind of a memory window (`IBV_WC_BIND_MW`).
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: IBV_WC_BIND_MW.rawValue) }
        /// A local invalidation (`IBV_WC_LOCAL_INV`).
        @inlinable public static var localInvalidate: Self { Self(rawValue: IBV_WC_LOCAL_INV.rawValue) }
        /// A TCP segmentation offload (`IBV_WC_TSO`).
        @inlinable public static var tso: Self { Self(rawValue: IBV_WC_TSO.rawValue) }
        /// A flush (`IBV_WC_FLUSH` of later versions of verbs.h than that of rdma-core 44).
        @inlinable public static var flush: Self { Self(rawValue: 8) }
        /// An atomic write (`IBV_WC_ATOMIC_WRITE`).
        @inlinable public static var atomicWrite: Self { Self(rawValue: IBV_WC_ATOMIC_WRITE.rawValue) }
        /// A receive, of a send (`IBV_WC_RECV`).
        @inlinable public static var receive: Self { Self(rawValue: IBV_WC_RECV.rawValue) }
        /// A receive, consumed by a write with immediate data (`IBV_WC_RECV_RDMA_WITH_IMM`).
        @inlinable public static var receiveWriteWithImmediate: Self {
            Self(rawValue: IBV_WC_RECV_RDMA_WITH_IMM.rawValue)
        }
        /// A tag was added (`IBV_WC_TM_ADD`).
        @inlinable public static var tagAdd: Self { Self(rawValue: IBV_WC_TM_ADD.rawValue) }
        /// A tag was deleted (`IBV_WC_TM_DEL`).
        @inlinable public static var tagDelete: Self { Self(rawValue: IBV_WC_TM_DEL.rawValue) }
        /// Tags were synchronised (`IBV_WC_TM_SYNC`).
        @inlinable public static var tagSync: Self { Self(rawValue: IBV_WC_TM_SYNC.rawValue) }
        /// A receive with a matching tag (`IBV_WC_TM_RECV`).
        @inlinable public static var tagReceive: Self { Self(rawValue: IBV_WC_TM_RECV.rawValue) }
        /// A receive without a matching tag (`IBV_WC_TM_NO_TAG`).
        @inlinable public static var tagNone: Self { Self(rawValue: IBV_WC_TM_NO_TAG.rawValue) }
        /// The provider's own, 1 (`IBV_WC_DRIVER1`).
        @inlinable public static var driver1: Self { Self(rawValue: IBV_WC_DRIVER1.rawValue) }
        /// The provider's own, 2 (`IBV_WC_DRIVER2`).
        @inlinable public static var driver2: Self { Self(rawValue: IBV_WC_DRIVER2.rawValue) }
        /// The provider's own, 3 (`IBV_WC_DRIVER3`).
        @inlinable public static var driver3: Self { Self(rawValue: IBV_WC_DRIVER3.rawValue) }

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
            case 8: "FLUSH"
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

        /// Whether the completion is of a receive work request (the bit `IBV_WC_RECV`).
        @inlinable public var isReceive: Bool { rawValue & 128 != 0 }
    }
}

extension WorkCompletion {
    /// Flags of a completion: the fields that are valid, and properties of the packet (enum ibv_wc_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// UD: the first 40 bytes of the buffer hold a global route header (`IBV_WC_GRH`, `struct ibv_grh`).
        @inlinable public static var globalRoute: Self { Self(rawValue: IBV_WC_GRH.rawValue) }
        /// There is immediate data (`IBV_WC_WITH_IMM`).
        @inlinable public static var immediate: Self { Self(rawValue: IBV_WC_WITH_IMM.rawValue) }
        /// The device found the IP, TCP and UDP checksums correct (`IBV_WC_IP_CSUM_OK`).
        @inlinable public static var checksumValid: Self { Self(rawValue: IBV_WC_IP_CSUM_OK.rawValue) }
        /// The peer invalidated an rkey (`IBV_WC_WITH_INV`).
        @inlinable public static var invalidated: Self { Self(rawValue: IBV_WC_WITH_INV.rawValue) }
        /// Tag matching: software must synchronise (`IBV_WC_TM_SYNC_REQ`).
        @inlinable public static var tagSyncRequested: Self { Self(rawValue: IBV_WC_TM_SYNC_REQ.rawValue) }
        /// Tag matching: the tag matched (`IBV_WC_TM_MATCH`).
        @inlinable public static var tagMatched: Self { Self(rawValue: IBV_WC_TM_MATCH.rawValue) }
        /// Tag matching: the data is in the buffer (`IBV_WC_TM_DATA_VALID`).
        @inlinable public static var tagDataValid: Self { Self(rawValue: IBV_WC_TM_DATA_VALID.rawValue) }

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
