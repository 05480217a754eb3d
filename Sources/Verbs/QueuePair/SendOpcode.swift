import CIBVerbs
import CProviderABI

extension SendOperation {
    /// The opcode of a send work request (enum ibv_wr_opcode).
    @frozen public struct Opcode: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// An RDMA write (`IBV_WR_RDMA_WRITE`).
        @inlinable public static var write: Self { Self(rawValue: IBV_WR_RDMA_WRITE.rawValue) }
        /// An RDMA write with 32 bits of immediate data, which consumes one posted receive at the peer
        /// (`IBV_WR_RDMA_WRITE_WITH_IMM`).
        @inlinable public static var writeWithImmediate: Self { Self(rawValue: IBV_WR_RDMA_WRITE_WITH_IMM.rawValue) }
        /// A send (`IBV_WR_SEND`).
        @inlinable public static var send: Self { Self(rawValue: IBV_WR_SEND.rawValue) }
        /// A send with 32 bits of immediate data (`IBV_WR_SEND_WITH_IMM`).
        @inlinable public static var sendWithImmediate: Self { Self(rawValue: IBV_WR_SEND_WITH_IMM.rawValue) }
        /// An RDMA read (`IBV_WR_RDMA_READ`).
        @inlinable public static var read: Self { Self(rawValue: IBV_WR_RDMA_READ.rawValue) }
        /// A compare and swap of 64 bits (`IBV_WR_ATOMIC_CMP_AND_SWP`).
        @inlinable public static var compareAndSwap: Self { Self(rawValue: IBV_WR_ATOMIC_CMP_AND_SWP.rawValue) }
        /// A fetch and add of 64 bits (`IBV_WR_ATOMIC_FETCH_AND_ADD`).
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: IBV_WR_ATOMIC_FETCH_AND_ADD.rawValue) }
        /// Invalidates a local rkey (`IBV_WR_LOCAL_INV`).
        @inlinable public static var localInvalidate: Self { Self(rawValue: IBV_WR_LOCAL_INV.rawValue) }
        /// Binds a memory window of type 2 (`IBV_WR_BIND_MW`).
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: IBV_WR_BIND_MW.rawValue) }
        /// A send that invalidates an rkey of the peer (`IBV_WR_SEND_WITH_INV`).
        @inlinable public static var sendWithInvalidate: Self { Self(rawValue: IBV_WR_SEND_WITH_INV.rawValue) }
        /// TCP segmentation offload (`IBV_WR_TSO`).
        @inlinable public static var tso: Self { Self(rawValue: IBV_WR_TSO.rawValue) }
        /// An opcode that the provider defines (`IBV_WR_DRIVER1`).
        @inlinable public static var driver1: Self { Self(rawValue: IBV_WR_DRIVER1.rawValue) }
        /// A flush of memory of the peer (`IBV_WR_FLUSH` of later versions of verbs.h than that of rdma-core 44).
        @inlinable public static var flush: Self { Self(rawValue: 14) }
        /// An atomic write of 8 bytes (`IBV_WR_ATOMIC_WRITE`).
        @inlinable public static var atomicWrite: Self { Self(rawValue: IBV_WR_ATOMIC_WRITE.rawValue) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "RDMA_WRITE"
            case 1: "RDMA_WRITE_WITH_IMM"
            case 2: "SEND"
            case 3: "SEND_WITH_IMM"
            case 4: "RDMA_READ"
            case 5: "ATOMIC_CMP_AND_SWP"
            case 6: "ATOMIC_FETCH_AND_ADD"
            case 7: "LOCAL_INV"
            case 8: "BIND_MW"
            case 9: "SEND_WITH_INV"
            case 10: "TSO"
            case 11: "DRIVER1"
            case 14: "FLUSH"
            case 15: "ATOMIC_WRITE"
            default: nil
            }
        }
    }
}
