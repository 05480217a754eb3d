import CIBVerbs
import CProviderABI

// ATOMIC WRITE and FLUSH: some of their constants are in later versions of verbs.h than that of rdma-core 44, and their
// capabilities in the kernel's rdma/ib_user_verbs.h alone.

/// The bits of `ibv_device_attr_ex.device_cap_flags_ex`.
public enum PlacementCapability {
    /// `IB_UVERBS_DEVICE_FLUSH_GLOBAL`: FLUSH for global visibility.
    @inlinable public static var flushGlobal: UInt64 { 1 << 38 }
    /// `IB_UVERBS_DEVICE_FLUSH_PERSISTENT`: FLUSH for persistence.
    @inlinable public static var flushPersistent: UInt64 { 1 << 39 }
    /// `IB_UVERBS_DEVICE_ATOMIC_WRITE`.
    @inlinable public static var atomicWrite: UInt64 { 1 << 40 }
}

/// The bits of `ibv_qp_init_attr_ex.send_ops_flags`.
public enum PlacementOperations {
    /// `IBV_QP_EX_WITH_ATOMIC_WRITE`.
    @inlinable public static var atomicWrite: UInt64 { UInt64(IBV_QP_EX_WITH_ATOMIC_WRITE.rawValue) }
    /// `IBV_QP_EX_WITH_FLUSH` (RDMA_QP_EX_WITH_FLUSH of rdma_provider.h).
    @inlinable public static var flush: UInt64 { UInt64(RDMA_QP_EX_WITH_FLUSH) }
    /// Both.
    @inlinable public static var all: UInt64 { atomicWrite | flush }
}
