import CIBVerbs

// Types for the enums of <infiniband/verbs.h> that the engine uses. Their raw values are those of verbs.h, so that a
// provider copies them. Every raw value is accepted here; the functions that use it refuse one that is not supported.

/// The low 24 bits of a word, which hold PSN, QPN and MSN (`BTH_PSN_MASK`, `BTH_QPN_MASK`, `AETH_MSN_MASK` of the
/// kernel's rxe).
@inline(__always) var mask24: UInt32 { 0xFF_FFFF }

/// The bytes of an atomic's operand, and of an ATOMIC WRITE: 8 (IBTA volume 1, 9.4.5; release 1.5, annex A19).
@inline(__always) var atomicByteCount: UInt32 { 8 }

/// The top bit of a Q_Key. With it in `ibv_send_wr.wr.ud.remote_qkey`, the Q_Key of the queue pair is sent (IBTA volume
/// 1, 3.5.3; `IB_QP_SET_QKEY` of the kernel).
@inline(__always) var controlledQKey: UInt32 { 1 << 31 }

/// Service type (transport service) of a queue pair: `enum ibv_qp_type` of verbs.h.
@frozen
public struct QueuePairType: RawRepresentable, Hashable, Sendable {
    /// The value of `enum ibv_qp_type`.
    public let rawValue: UInt32

    /// Creates an `enum ibv_qp_type` of any value; the engine supports RC, UC, UD and XRC.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_QPT_RC`: reliable connection.
    @inlinable public static var rc: QueuePairType { QueuePairType(rawValue: IBV_QPT_RC.rawValue) }
    /// `IBV_QPT_UC`: unreliable connection.
    @inlinable public static var uc: QueuePairType { QueuePairType(rawValue: IBV_QPT_UC.rawValue) }
    /// `IBV_QPT_UD`: unreliable datagram.
    @inlinable public static var ud: QueuePairType { QueuePairType(rawValue: IBV_QPT_UD.rawValue) }
    /// `IBV_QPT_XRC_SEND`: the requester of an extended reliable connection.
    @inlinable public static var xrcSend: QueuePairType { QueuePairType(rawValue: IBV_QPT_XRC_SEND.rawValue) }
    /// `IBV_QPT_XRC_RECV`: the responder of an extended reliable connection.
    @inlinable public static var xrcReceive: QueuePairType { QueuePairType(rawValue: IBV_QPT_XRC_RECV.rawValue) }

    /// XRC_SEND and XRC_RECV.
    @inline(__always) var isExtended: Bool { self == .xrcSend || self == .xrcReceive }
    /// Whether requests have responses: RC and XRC.
    @inline(__always) var isReliable: Bool { self != .uc && self != .ud }
}

/// State of a queue pair: `enum ibv_qp_state` of verbs.h (IBTA volume 1, 10.3.1).
@frozen
public enum QueuePairState: UInt8, Hashable, Sendable {
    /// `IBV_QPS_RESET`: as created; packets are dropped and posts refused.
    case reset = 0
    /// `IBV_QPS_INIT`: receives may be posted; packets are dropped.
    case initialized = 1
    /// `IBV_QPS_RTR`: packets are received.
    case readyToReceive = 2
    /// `IBV_QPS_RTS`: packets are received and sent.
    case readyToSend = 3
    /// `IBV_QPS_SQD`: work requests that were begun are completed, and no new ones are begun.
    case sendQueueDrained = 4
    /// `IBV_QPS_SQE`: UC and UD after a failed send; sends are flushed, and packets are received.
    case sendQueueError = 5
    /// `IBV_QPS_ERR`: everything posted is flushed.
    case error = 6
}

/// Operation of a work request: `enum ibv_wr_opcode` of verbs.h.
@frozen
public struct WorkRequestOpcode: RawRepresentable, Hashable, Sendable {
    /// The value of `enum ibv_wr_opcode`.
    public let rawValue: UInt32

    /// Creates an `enum ibv_wr_opcode` of any value; a post with one that the service type does not support fails with
    /// EINVAL.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WR_RDMA_WRITE`.
    @inlinable public static var write: WorkRequestOpcode { WorkRequestOpcode(rawValue: IBV_WR_RDMA_WRITE.rawValue) }
    /// `IBV_WR_RDMA_WRITE_WITH_IMM`.
    @inlinable public static var writeWithImmediate: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_RDMA_WRITE_WITH_IMM.rawValue)
    }
    /// `IBV_WR_SEND`.
    @inlinable public static var send: WorkRequestOpcode { WorkRequestOpcode(rawValue: IBV_WR_SEND.rawValue) }
    /// `IBV_WR_SEND_WITH_IMM`.
    @inlinable public static var sendWithImmediate: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_SEND_WITH_IMM.rawValue)
    }
    /// `IBV_WR_RDMA_READ`.
    @inlinable public static var read: WorkRequestOpcode { WorkRequestOpcode(rawValue: IBV_WR_RDMA_READ.rawValue) }
    /// `IBV_WR_ATOMIC_CMP_AND_SWP`.
    @inlinable public static var compareAndSwap: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_ATOMIC_CMP_AND_SWP.rawValue)
    }
    /// `IBV_WR_ATOMIC_FETCH_AND_ADD`.
    @inlinable public static var fetchAndAdd: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_ATOMIC_FETCH_AND_ADD.rawValue)
    }
    /// `IBV_WR_LOCAL_INV`: ends the binding of a window of type 2.
    @inlinable public static var localInvalidate: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_LOCAL_INV.rawValue)
    }
    /// `IBV_WR_BIND_MW`: binds a window.
    @inlinable public static var bindMemoryWindow: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_BIND_MW.rawValue)
    }
    /// `IBV_WR_SEND_WITH_INV`.
    @inlinable public static var sendWithInvalidate: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_SEND_WITH_INV.rawValue)
    }
    /// `IBV_WR_ATOMIC_WRITE`.
    @inlinable public static var atomicWrite: WorkRequestOpcode {
        WorkRequestOpcode(rawValue: IBV_WR_ATOMIC_WRITE.rawValue)
    }
    /// `IBV_WR_FLUSH` of later versions of verbs.h than that of rdma-core 44.
    @inlinable public static var flush: WorkRequestOpcode { WorkRequestOpcode(rawValue: 14) }
}

/// Flags of a send work request: `enum ibv_send_flags` of verbs.h.
@frozen
public struct SendFlags: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_send_flags`.
    public let rawValue: UInt32

    /// Creates `enum ibv_send_flags` of any bits; a post with bits that are not named here fails with EINVAL.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_SEND_FENCE`: the work request begins when all earlier READs and atomics are complete.
    @inlinable public static var fence: SendFlags { SendFlags(rawValue: IBV_SEND_FENCE.rawValue) }
    /// `IBV_SEND_SIGNALED`: the completion writes a CQE.
    @inlinable public static var signaled: SendFlags { SendFlags(rawValue: IBV_SEND_SIGNALED.rawValue) }
    /// `IBV_SEND_SOLICITED`: the receiver's completion raises a solicited event (BTH.SE).
    @inlinable public static var solicited: SendFlags { SendFlags(rawValue: IBV_SEND_SOLICITED.rawValue) }
    /// `IBV_SEND_INLINE`: the data is copied when posted; L_Keys are ignored.
    @inlinable public static var inline: SendFlags { SendFlags(rawValue: IBV_SEND_INLINE.rawValue) }

    /// All flags that the engine supports.
    static var supported: SendFlags { fence.union(signaled).union(solicited).union(inline) }
}

/// The accesses that a memory region, or a queue pair for its peer, allows: `enum ibv_access_flags` of verbs.h.
@frozen
public struct AccessFlags: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_access_flags`.
    public let rawValue: UInt32

    /// Creates `enum ibv_access_flags` of any bits; the engine ignores those that are not named here.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_ACCESS_LOCAL_WRITE`.
    @inlinable public static var localWrite: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_LOCAL_WRITE.rawValue) }
    /// `IBV_ACCESS_REMOTE_WRITE`; a memory region with it needs `localWrite` too.
    @inlinable public static var remoteWrite: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_REMOTE_WRITE.rawValue) }
    /// `IBV_ACCESS_REMOTE_READ`.
    @inlinable public static var remoteRead: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_REMOTE_READ.rawValue) }
    /// `IBV_ACCESS_REMOTE_ATOMIC`; a memory region with it needs `localWrite` too.
    @inlinable public static var remoteAtomic: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_REMOTE_ATOMIC.rawValue) }
    /// `IBV_ACCESS_MW_BIND`: windows can be bound to the memory region.
    @inlinable public static var memoryWindowBind: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_MW_BIND.rawValue) }
    /// `IBV_ACCESS_ZERO_BASED`: of a memory region, that windows cannot be bound to it; of a window, that its addresses
    /// count from 0.
    @inlinable public static var zeroBased: AccessFlags { AccessFlags(rawValue: IBV_ACCESS_ZERO_BASED.rawValue) }

    /// `IBV_ACCESS_FLUSH_GLOBAL` of later versions of verbs.h than that of rdma-core 44: FLUSH with the placement type
    /// global visibility.
    @inlinable public static var flushGlobal: AccessFlags { AccessFlags(rawValue: 1 << 8) }
    /// `IBV_ACCESS_FLUSH_PERSISTENT`: FLUSH with the placement type persistence.
    @inlinable public static var flushPersistent: AccessFlags { AccessFlags(rawValue: 1 << 9) }

    /// The access with an L_Key, which every memory region allows and no window. Without a counterpart in
    /// `enum ibv_access_flags`.
    static var local: AccessFlags { AccessFlags(rawValue: 1 << 31) }
    /// The accesses that `enum ibv_access_flags` defines for a peer.
    static var remote: AccessFlags {
        remoteWrite.union(remoteRead).union(remoteAtomic).union(flushGlobal).union(flushPersistent)
    }
    /// The flags of a memory region that the engine keeps.
    static var kept: AccessFlags { remote.union(localWrite).union(memoryWindowBind).union(zeroBased) }
}

/// The status of a completion: `enum ibv_wc_status` of verbs.h (IBTA volume 1, 11.6.2).
@frozen
public struct CompletionStatus: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_wc_status`.
    public let rawValue: UInt32

    /// Creates an `enum ibv_wc_status` of any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_SUCCESS`.
    @inlinable public static var success: CompletionStatus { CompletionStatus(rawValue: IBV_WC_SUCCESS.rawValue) }
    /// `IBV_WC_LOC_LEN_ERR`: the message does not fit the buffers, the MTU of a datagram or the largest message.
    @inlinable public static var localLengthError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_LOC_LEN_ERR.rawValue)
    }
    /// `IBV_WC_LOC_QP_OP_ERR`: the queue pair cannot execute the request, for example a READ with `max_rd_atomic` 0.
    @inlinable public static var localQPOperationError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_LOC_QP_OP_ERR.rawValue)
    }
    /// `IBV_WC_LOC_PROT_ERR`: an L_Key is not valid for its buffer.
    @inlinable public static var localProtectionError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_LOC_PROT_ERR.rawValue)
    }
    /// `IBV_WC_WR_FLUSH_ERR`: the queue pair was in ERR, or went to ERR, before the request was executed.
    @inlinable public static var flushed: CompletionStatus { CompletionStatus(rawValue: IBV_WC_WR_FLUSH_ERR.rawValue) }
    /// `IBV_WC_BAD_RESP_ERR`: the peer's response is not allowed by the protocol.
    @inlinable public static var badResponseError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_BAD_RESP_ERR.rawValue)
    }
    /// `IBV_WC_MW_BIND_ERR`: the window, the region, the range or the access do not allow the binding.
    @inlinable public static var memoryWindowBindError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_MW_BIND_ERR.rawValue)
    }
    /// `IBV_WC_REM_INV_REQ_ERR`: the peer returned a NAK "Invalid Request".
    @inlinable public static var remoteInvalidRequestError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_REM_INV_REQ_ERR.rawValue)
    }
    /// `IBV_WC_REM_ACCESS_ERR`: the peer returned a NAK "Remote Access Error": R_Key, range or access is not valid.
    @inlinable public static var remoteAccessError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_REM_ACCESS_ERR.rawValue)
    }
    /// `IBV_WC_REM_OP_ERR`: the peer returned a NAK "Remote Operational Error".
    @inlinable public static var remoteOperationError: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_REM_OP_ERR.rawValue)
    }
    /// `IBV_WC_RETRY_EXC_ERR`: no response came within `retry_cnt` retries.
    @inlinable public static var retryExceeded: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_RETRY_EXC_ERR.rawValue)
    }
    /// `IBV_WC_RNR_RETRY_EXC_ERR`: the peer had no receive work request posted within `rnr_retry` retries.
    @inlinable public static var rnrRetryExceeded: CompletionStatus {
        CompletionStatus(rawValue: IBV_WC_RNR_RETRY_EXC_ERR.rawValue)
    }
}

/// The operation of a completed work request: `enum ibv_wc_opcode` of verbs.h.
@frozen
public struct CompletionOpcode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_wc_opcode`; bit 7 is set for receives.
    public let rawValue: UInt32

    /// Creates an `enum ibv_wc_opcode` of any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_SEND`.
    @inlinable public static var send: CompletionOpcode { CompletionOpcode(rawValue: IBV_WC_SEND.rawValue) }
    /// `IBV_WC_RDMA_WRITE`.
    @inlinable public static var write: CompletionOpcode { CompletionOpcode(rawValue: IBV_WC_RDMA_WRITE.rawValue) }
    /// `IBV_WC_RDMA_READ`.
    @inlinable public static var read: CompletionOpcode { CompletionOpcode(rawValue: IBV_WC_RDMA_READ.rawValue) }
    /// `IBV_WC_COMP_SWAP`.
    @inlinable public static var compareAndSwap: CompletionOpcode {
        CompletionOpcode(rawValue: IBV_WC_COMP_SWAP.rawValue)
    }
    /// `IBV_WC_FETCH_ADD`.
    @inlinable public static var fetchAndAdd: CompletionOpcode { CompletionOpcode(rawValue: IBV_WC_FETCH_ADD.rawValue) }
    /// `IBV_WC_BIND_MW`.
    @inlinable public static var bindMemoryWindow: CompletionOpcode {
        CompletionOpcode(rawValue: IBV_WC_BIND_MW.rawValue)
    }
    /// `IBV_WC_LOCAL_INV`.
    @inlinable public static var localInvalidate: CompletionOpcode {
        CompletionOpcode(rawValue: IBV_WC_LOCAL_INV.rawValue)
    }
    /// `IBV_WC_ATOMIC_WRITE`.
    @inlinable public static var atomicWrite: CompletionOpcode {
        CompletionOpcode(rawValue: IBV_WC_ATOMIC_WRITE.rawValue)
    }
    /// `IBV_WC_FLUSH` of later versions of verbs.h than that of rdma-core 44.
    @inlinable public static var flush: CompletionOpcode { CompletionOpcode(rawValue: 8) }
    /// `IBV_WC_RECV`.
    @inlinable public static var receive: CompletionOpcode { CompletionOpcode(rawValue: IBV_WC_RECV.rawValue) }
    /// `IBV_WC_RECV_RDMA_WITH_IMM`.
    @inlinable public static var receiveWriteWithImmediate: CompletionOpcode {
        CompletionOpcode(rawValue: IBV_WC_RECV_RDMA_WITH_IMM.rawValue)
    }
}

/// Flags of a completion: `enum ibv_wc_flags` of verbs.h.
@frozen
public struct CompletionFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
    /// The bits of `enum ibv_wc_flags`.
    public let rawValue: UInt32

    /// Creates `enum ibv_wc_flags` of any bits.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_GRH`: the first 40 bytes of the receive buffer hold the GRH area.
    @inlinable public static var grh: CompletionFlags { CompletionFlags(rawValue: IBV_WC_GRH.rawValue) }
    /// `IBV_WC_WITH_IMM`: `immediate` is valid.
    @inlinable public static var withImmediate: CompletionFlags { CompletionFlags(rawValue: IBV_WC_WITH_IMM.rawValue) }
    /// `IBV_WC_WITH_INV`: `immediate` is the R_Key that was invalidated.
    @inlinable public static var withInvalidate: CompletionFlags { CompletionFlags(rawValue: IBV_WC_WITH_INV.rawValue) }
}

/// An asynchronous event: `enum ibv_event_type` of verbs.h.
@frozen
public struct AsyncEventType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_event_type`.
    public let rawValue: UInt32

    /// Creates an `enum ibv_event_type` of any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_EVENT_CQ_ERR`: the completion queue overran; no more CQEs are written to it.
    @inlinable public static var completionQueueError: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_CQ_ERR.rawValue)
    }
    /// `IBV_EVENT_QP_FATAL`: the queue pair failed, and no completion reports the reason.
    @inlinable public static var queuePairFatal: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_QP_FATAL.rawValue)
    }
    /// `IBV_EVENT_QP_REQ_ERR`: the peer sent an invalid request.
    @inlinable public static var requestError: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_QP_REQ_ERR.rawValue)
    }
    /// `IBV_EVENT_QP_ACCESS_ERR`: the peer's request violates R_Key, range or access rights.
    @inlinable public static var accessError: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_QP_ACCESS_ERR.rawValue)
    }
    /// `IBV_EVENT_COMM_EST`: the first packet arrived in RTR.
    @inlinable public static var communicationEstablished: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_COMM_EST.rawValue)
    }
    /// `IBV_EVENT_PATH_MIG`: the queue pair continues on its alternate path.
    @inlinable public static var pathMigrated: AsyncEventType { AsyncEventType(rawValue: IBV_EVENT_PATH_MIG.rawValue) }
    /// `IBV_EVENT_PATH_MIG_ERR`: the peer asked to migrate to a path that is not the alternate path.
    @inlinable public static var pathMigrationError: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_PATH_MIG_ERR.rawValue)
    }
    /// `IBV_EVENT_SQ_DRAINED`: all work requests that were begun before SQD are complete.
    @inlinable public static var sendQueueDrained: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_SQ_DRAINED.rawValue)
    }
    /// `IBV_EVENT_SRQ_LIMIT_REACHED`: fewer receive work requests are left than the limit; the limit is disarmed.
    @inlinable public static var sharedReceiveQueueLimitReached: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_SRQ_LIMIT_REACHED.rawValue)
    }
    /// `IBV_EVENT_QP_LAST_WQE_REACHED`: the queue pair consumes no more receive work requests of its shared receive
    /// queue.
    @inlinable public static var lastWQEReached: AsyncEventType {
        AsyncEventType(rawValue: IBV_EVENT_QP_LAST_WQE_REACHED.rawValue)
    }
}
