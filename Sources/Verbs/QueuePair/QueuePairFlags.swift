extension QueuePair {
    /// Special treatment that a queue pair is made for (enum ibv_qp_create_flags).
    @frozen public struct CreationFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Multicasts from here do not come back.
        @inlinable public static var blockSelfMulticastLoopback: Self { Self(rawValue: 1 << 1) }
        /// The frame check sequence is delivered as well.
        @inlinable public static var scatterFCS: Self { Self(rawValue: 1 << 8) }
        /// VLAN tags are taken off.
        @inlinable public static var vlanStripping: Self { Self(rawValue: 1 << 9) }
        /// Sends with a queue pair number that the creator names.
        @inlinable public static var sourceQPN: Self { Self(rawValue: 1 << 10) }
        /// Writes to memory are padded to cache lines.
        @inlinable public static var pciWriteEndPadding: Self { Self(rawValue: 1 << 11) }

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

        /// RDMA writes.
        @inlinable public static var write: Self { Self(rawValue: 1 << 0) }
        /// RDMA writes with immediate data.
        @inlinable public static var writeWithImmediate: Self { Self(rawValue: 1 << 1) }
        /// Sends.
        @inlinable public static var send: Self { Self(rawValue: 1 << 2) }
        /// Sends with immediate data.
        @inlinable public static var sendWithImmediate: Self { Self(rawValue: 1 << 3) }
        /// RDMA reads.
        @inlinable public static var read: Self { Self(rawValue: 1 << 4) }
        /// Compare and swap.
        @inlinable public static var compareAndSwap: Self { Self(rawValue: 1 << 5) }
        /// Fetch and add.
        @inlinable public static var fetchAndAdd: Self { Self(rawValue: 1 << 6) }
        /// Local invalidation.
        @inlinable public static var localInvalidate: Self { Self(rawValue: 1 << 7) }
        /// Binding of memory windows.
        @inlinable public static var bindMemoryWindow: Self { Self(rawValue: 1 << 8) }
        /// Sends that invalidate a key.
        @inlinable public static var sendWithInvalidate: Self { Self(rawValue: 1 << 9) }
        /// TCP segmentation offload.
        @inlinable public static var tso: Self { Self(rawValue: 1 << 10) }
        /// Atomic writes.
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
                    (12, "ATOMIC_WRITE"),
                ])
        }
    }
}
