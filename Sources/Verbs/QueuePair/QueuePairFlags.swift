import CIBVerbs
import CProviderABI

extension QueuePair {
    /// Creation flags of a queue pair (enum ibv_qp_create_flags).
    @frozen public struct CreationFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The queue pair does not receive its own multicast packets (`IBV_QP_CREATE_BLOCK_SELF_MCAST_LB`).
        @inlinable public static var blockSelfMulticastLoopback: Self {
            Self(rawValue: IBV_QP_CREATE_BLOCK_SELF_MCAST_LB.rawValue)
        }
        /// The frame check sequence is delivered as well (`IBV_QP_CREATE_SCATTER_FCS`).
        @inlinable public static var scatterFCS: Self { Self(rawValue: IBV_QP_CREATE_SCATTER_FCS.rawValue) }
        /// VLAN tags are stripped (`IBV_QP_CREATE_CVLAN_STRIPPING`).
        @inlinable public static var vlanStripping: Self { Self(rawValue: IBV_QP_CREATE_CVLAN_STRIPPING.rawValue) }
        /// Packets carry `CreationOptions.sourceQPN` as source QPN (`IBV_QP_CREATE_SOURCE_QPN`).
        @inlinable public static var sourceQPN: Self { Self(rawValue: IBV_QP_CREATE_SOURCE_QPN.rawValue) }
        /// Writes to memory are padded to cache lines (`IBV_QP_CREATE_PCI_WRITE_END_PADDING`).
        @inlinable public static var pciWriteEndPadding: Self {
            Self(rawValue: IBV_QP_CREATE_PCI_WRITE_END_PADDING.rawValue)
        }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (1, "BLOCK_SELF_MCAST_LB"),
                    (8, "SCATTER_FCS"),
                    (9, "CVLAN_STRIPPING"),
                    (10, "SOURCE_QPN"),
                    (11, "PCI_WRITE_END_PADDING"),
                ])
        }
    }
}

extension QueuePair {
    /// Operations of the extended work-request interface that a queue pair is made for (enum
    /// ibv_qp_create_send_ops_flags).
    @frozen public struct ExtendedOperations: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// RDMA writes (`IBV_QP_EX_WITH_RDMA_WRITE`, `ibv_wr_rdma_write`).
        @inlinable public static var write: Self { Self(rawValue: 1 << 0) }
        /// RDMA writes with immediate data (`IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM`, `ibv_wr_rdma_write_imm`).
        @inlinable public static var writeWithImmediate: Self { Self(rawValue: 1 << 1) }
        /// Sends (`IBV_QP_EX_WITH_SEND`, `ibv_wr_send`).
        @inlinable public static var send: Self { Self(rawValue: 1 << 2) }
        /// Sends with immediate data (`IBV_QP_EX_WITH_SEND_WITH_IMM`, `ibv_wr_send_imm`).
        @inlinable public static var sendWithImmediate: Self { Self(rawValue: 1 << 3) }
        /// RDMA reads (`IBV_QP_EX_WITH_RDMA_READ`, `ibv_wr_rdma_read`).
        @inlinable public static var read: Self { Self(rawValue: 1 << 4) }
        /// Compare and swap (`IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP`, `ibv_wr_atomic_cmp_swp`).
        @inlinable public static var compareAndSwap: Self { Self(rawValue: 1 << 5) }
        /// Fetch and add (`IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD`, `ibv_wr_atomic_fetch_add`).
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: 1 << 6) }
        /// Local invalidation (`IBV_QP_EX_WITH_LOCAL_INV`, `ibv_wr_local_inv`).
        @inlinable public static var localInvalidate: Self { Self(rawValue: 1 << 7) }
        /// Binding of memory windows (`IBV_QP_EX_WITH_BIND_MW`, `ibv_wr_bind_mw`).
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: 1 << 8) }
        /// Sends that invalidate a key (`IBV_QP_EX_WITH_SEND_WITH_INV`, `ibv_wr_send_inv`).
        @inlinable public static var sendWithInvalidate: Self { Self(rawValue: 1 << 9) }
        /// TCP segmentation offload (`IBV_QP_EX_WITH_TSO`, `ibv_wr_send_tso`).
        @inlinable public static var tso: Self { Self(rawValue: 1 << 10) }
        /// Flushes (`IBV_QP_EX_WITH_FLUSH`, `ibv_wr_flush`).
        @inlinable public static var flush: Self { Self(rawValue: 1 << 11) }
        /// Atomic writes (`IBV_QP_EX_WITH_ATOMIC_WRITE`, `ibv_wr_atomic_write`).
        @inlinable public static var atomicWrite: Self { Self(rawValue: 1 << 12) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "RDMA_WRITE"),
                    (1, "RDMA_WRITE_WITH_IMM"),
                    (2, "SEND"),
                    (3, "SEND_WITH_IMM"),
                    (4, "RDMA_READ"),
                    (5, "ATOMIC_CMP_AND_SWP"),
                    (6, "ATOMIC_FETCH_AND_ADD"),
                    (7, "LOCAL_INV"),
                    (8, "BIND_MW"),
                    (9, "SEND_WITH_INV"),
                    (10, "TSO"),
                    (11, "FLUSH"),
                    (12, "ATOMIC_WRITE"),
                ])
        }
    }
}
