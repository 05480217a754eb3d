extension SendOperation {
    /// What a send work request does (enum ibv_wr_opcode).
    @frozen public struct Opcode: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// An RDMA write.
        @inlinable public static var write: Self { Self(rawValue: 0) }
        /// An RDMA write that takes a receive of the peer and hands it 32 bits.
        @inlinable public static var writeWithImmediate: Self { Self(rawValue: 1) }
        /// A send.
        @inlinable public static var send: Self { Self(rawValue: 2) }
        /// A send with 32 bits beside the data.
        @inlinable public static var sendWithImmediate: Self { Self(rawValue: 3) }
        /// An RDMA read.
        @inlinable public static var read: Self { Self(rawValue: 4) }
        /// A compare and swap of 64 bits.
        @inlinable public static var compareAndSwap: Self { Self(rawValue: 5) }
        /// A fetch and add of 64 bits.
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: 6) }
        /// Invalidates a local key.
        @inlinable public static var localInvalidate: Self { Self(rawValue: 7) }
        /// Binds a memory window of type 2.
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: 8) }
        /// A send that invalidates a key of the peer.
        @inlinable public static var sendWithInvalidate: Self { Self(rawValue: 9) }
        /// TCP segmentation offload.
        @inlinable public static var tso: Self { Self(rawValue: 10) }
        /// The provider's own.
        @inlinable public static var driver1: Self { Self(rawValue: 11) }
        /// An atomic write of 8 bytes.
        @inlinable public static var atomicWrite: Self { Self(rawValue: 15) }

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
            case 15: "ATOMIC_WRITE"
            default: nil
            }
        }
    }
}
