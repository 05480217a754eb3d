// The numbers of <infiniband/verbs.h> that cross the engine's boundary, so that a provider copies them and translates
// nothing. The types are open: values from outside are carried, and refused where they are used.

/// Service type of a queue pair: `enum ibv_qp_type` of verbs.h.
@frozen
public struct QueuePairType: RawRepresentable, Hashable, Sendable {
    /// The value of `enum ibv_qp_type`.
    public let rawValue: UInt32

    /// Any value; the engine makes queue pairs of RC, UC and UD only.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_QPT_RC`: reliable connection.
    @inlinable public static var rc: QueuePairType { QueuePairType(rawValue: 2) }
    /// `IBV_QPT_UC`: unreliable connection.
    @inlinable public static var uc: QueuePairType { QueuePairType(rawValue: 3) }
    /// `IBV_QPT_UD`: unreliable datagram.
    @inlinable public static var ud: QueuePairType { QueuePairType(rawValue: 4) }
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
    /// `IBV_QPS_RTS`: and sent.
    case readyToSend = 3
    /// `IBV_QPS_SQD`: what was begun is finished, nothing new is begun.
    case sendQueueDrained = 4
    /// `IBV_QPS_SQE`: UC and UD after a failed send; sends are flushed, receives go on.
    case sendQueueError = 5
    /// `IBV_QPS_ERR`: everything posted is flushed.
    case error = 6
}

/// Operation of a work request: `enum ibv_wr_opcode` of verbs.h.
@frozen
public struct WorkRequestOpcode: RawRepresentable, Hashable, Sendable {
    /// The value of `enum ibv_wr_opcode`.
    public let rawValue: UInt32

    /// Any value; a post with one that the service type lacks is refused with EINVAL.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WR_RDMA_WRITE`.
    @inlinable public static var write: WorkRequestOpcode { WorkRequestOpcode(rawValue: 0) }
    /// `IBV_WR_RDMA_WRITE_WITH_IMM`.
    @inlinable public static var writeWithImmediate: WorkRequestOpcode { WorkRequestOpcode(rawValue: 1) }
    /// `IBV_WR_SEND`.
    @inlinable public static var send: WorkRequestOpcode { WorkRequestOpcode(rawValue: 2) }
    /// `IBV_WR_SEND_WITH_IMM`.
    @inlinable public static var sendWithImmediate: WorkRequestOpcode { WorkRequestOpcode(rawValue: 3) }
    /// `IBV_WR_RDMA_READ`.
    @inlinable public static var read: WorkRequestOpcode { WorkRequestOpcode(rawValue: 4) }
    /// `IBV_WR_ATOMIC_CMP_AND_SWP`.
    @inlinable public static var compareSwap: WorkRequestOpcode { WorkRequestOpcode(rawValue: 5) }
    /// `IBV_WR_ATOMIC_FETCH_AND_ADD`.
    @inlinable public static var fetchAdd: WorkRequestOpcode { WorkRequestOpcode(rawValue: 6) }
}

/// Flags of a send work request: `enum ibv_send_flags` of verbs.h.
@frozen
public struct SendFlags: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_send_flags`.
    public let rawValue: UInt32

    /// Any bits; those not named here are refused with EINVAL when posted.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_SEND_FENCE`: begin only when all earlier READs and atomics are complete.
    @inlinable public static var fence: SendFlags { SendFlags(rawValue: 1 << 0) }
    /// `IBV_SEND_SIGNALED`: complete with an entry in the completion queue.
    @inlinable public static var signaled: SendFlags { SendFlags(rawValue: 1 << 1) }
    /// `IBV_SEND_SOLICITED`: the receiver's completion raises a solicited event.
    @inlinable public static var solicited: SendFlags { SendFlags(rawValue: 1 << 2) }
    /// `IBV_SEND_INLINE`: the data is copied when posted; local keys are not looked at.
    @inlinable public static var inline: SendFlags { SendFlags(rawValue: 1 << 3) }
}

/// What a memory region, or a peer of a queue pair, may do: `enum ibv_access_flags` of verbs.h.
@frozen
public struct AccessFlags: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_access_flags`.
    public let rawValue: UInt32

    /// Any bits; the engine looks at those named here.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_ACCESS_LOCAL_WRITE`.
    @inlinable public static var localWrite: AccessFlags { AccessFlags(rawValue: 1 << 0) }
    /// `IBV_ACCESS_REMOTE_WRITE`; of a region it needs `localWrite` too.
    @inlinable public static var remoteWrite: AccessFlags { AccessFlags(rawValue: 1 << 1) }
    /// `IBV_ACCESS_REMOTE_READ`.
    @inlinable public static var remoteRead: AccessFlags { AccessFlags(rawValue: 1 << 2) }
    /// `IBV_ACCESS_REMOTE_ATOMIC`; of a region it needs `localWrite` too.
    @inlinable public static var remoteAtomic: AccessFlags { AccessFlags(rawValue: 1 << 3) }
}

/// How a work request ended: `enum ibv_wc_status` of verbs.h (IBTA volume 1, 10.10.3).
@frozen
public struct CompletionStatus: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_wc_status`.
    public let rawValue: UInt32

    /// Any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_SUCCESS`.
    @inlinable public static var success: CompletionStatus { CompletionStatus(rawValue: 0) }
    /// `IBV_WC_LOC_LEN_ERR`: the message does not fit the buffers, the MTU of a datagram or the largest message.
    @inlinable public static var localLengthError: CompletionStatus { CompletionStatus(rawValue: 1) }
    /// `IBV_WC_LOC_QP_OP_ERR`: the queue pair cannot do this, for example a READ with `maxReadAtomic` 0.
    @inlinable public static var localOperationError: CompletionStatus { CompletionStatus(rawValue: 2) }
    /// `IBV_WC_LOC_PROT_ERR`: a local key is not valid for its buffer.
    @inlinable public static var localProtectionError: CompletionStatus { CompletionStatus(rawValue: 4) }
    /// `IBV_WC_WR_FLUSH_ERR`: the queue pair was in error, or went there, before the request was carried out.
    @inlinable public static var flushed: CompletionStatus { CompletionStatus(rawValue: 5) }
    /// `IBV_WC_BAD_RESP_ERR`: the peer's answer breaks the protocol.
    @inlinable public static var badResponse: CompletionStatus { CompletionStatus(rawValue: 7) }
    /// `IBV_WC_REM_INV_REQ_ERR`: the peer found the request invalid.
    @inlinable public static var remoteInvalidRequest: CompletionStatus { CompletionStatus(rawValue: 9) }
    /// `IBV_WC_REM_ACCESS_ERR`: the peer's key, range or permission does not allow it.
    @inlinable public static var remoteAccessError: CompletionStatus { CompletionStatus(rawValue: 10) }
    /// `IBV_WC_REM_OP_ERR`: the peer could not complete the request.
    @inlinable public static var remoteOperationError: CompletionStatus { CompletionStatus(rawValue: 11) }
    /// `IBV_WC_RETRY_EXC_ERR`: the peer did not answer within all retries.
    @inlinable public static var retryExceeded: CompletionStatus { CompletionStatus(rawValue: 12) }
    /// `IBV_WC_RNR_RETRY_EXC_ERR`: the peer never had a receive posted within all retries.
    @inlinable public static var rnrRetryExceeded: CompletionStatus { CompletionStatus(rawValue: 13) }
}

/// What completed: `enum ibv_wc_opcode` of verbs.h.
@frozen
public struct CompletionOpcode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_wc_opcode`; bit 7 is set for receives.
    public let rawValue: UInt32

    /// Any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_SEND`.
    @inlinable public static var send: CompletionOpcode { CompletionOpcode(rawValue: 0) }
    /// `IBV_WC_RDMA_WRITE`.
    @inlinable public static var write: CompletionOpcode { CompletionOpcode(rawValue: 1) }
    /// `IBV_WC_RDMA_READ`.
    @inlinable public static var read: CompletionOpcode { CompletionOpcode(rawValue: 2) }
    /// `IBV_WC_COMP_SWAP`.
    @inlinable public static var compareSwap: CompletionOpcode { CompletionOpcode(rawValue: 3) }
    /// `IBV_WC_FETCH_ADD`.
    @inlinable public static var fetchAdd: CompletionOpcode { CompletionOpcode(rawValue: 4) }
    /// `IBV_WC_RECV`.
    @inlinable public static var receive: CompletionOpcode { CompletionOpcode(rawValue: 1 << 7) }
    /// `IBV_WC_RECV_RDMA_WITH_IMM`.
    @inlinable public static var receiveWriteImmediate: CompletionOpcode { CompletionOpcode(rawValue: 1 << 7 | 1) }
}

/// What else a completion says: `enum ibv_wc_flags` of verbs.h.
@frozen
public struct CompletionFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
    /// The bits of `enum ibv_wc_flags`.
    public let rawValue: UInt32

    /// Any bits.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_WC_GRH`: the first 40 bytes of the receive buffer hold the GRH area.
    @inlinable public static var grh: CompletionFlags { CompletionFlags(rawValue: 1 << 0) }
    /// `IBV_WC_WITH_IMM`: `immediate` counts.
    @inlinable public static var withImmediate: CompletionFlags { CompletionFlags(rawValue: 1 << 1) }
}

/// An asynchronous event: `enum ibv_event_type` of verbs.h.
@frozen
public struct AsyncEventType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The value of `enum ibv_event_type`.
    public let rawValue: UInt32

    /// Any value.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_EVENT_CQ_ERR`: the completion queue overran; it takes no more entries.
    @inlinable public static var completionQueueError: AsyncEventType { AsyncEventType(rawValue: 0) }
    /// `IBV_EVENT_QP_FATAL`: the queue pair failed for a reason that no completion tells.
    @inlinable public static var queuePairFatal: AsyncEventType { AsyncEventType(rawValue: 1) }
    /// `IBV_EVENT_QP_REQ_ERR`: the peer sent an invalid request.
    @inlinable public static var requestError: AsyncEventType { AsyncEventType(rawValue: 2) }
    /// `IBV_EVENT_QP_ACCESS_ERR`: the peer asked for memory that it may not touch.
    @inlinable public static var accessError: AsyncEventType { AsyncEventType(rawValue: 3) }
    /// `IBV_EVENT_COMM_EST`: the first packet arrived in RTR.
    @inlinable public static var communicationEstablished: AsyncEventType { AsyncEventType(rawValue: 4) }
    /// `IBV_EVENT_SQ_DRAINED`: everything begun before SQD is complete.
    @inlinable public static var sendQueueDrained: AsyncEventType { AsyncEventType(rawValue: 5) }
    /// `IBV_EVENT_SRQ_LIMIT_REACHED`: fewer receives are left than the limit; the limit is disarmed.
    @inlinable public static var sharedReceiveQueueLimit: AsyncEventType { AsyncEventType(rawValue: 15) }
    /// `IBV_EVENT_QP_LAST_WQE_REACHED`: the queue pair takes nothing more from its shared receive queue.
    @inlinable public static var lastWorkRequestReached: AsyncEventType { AsyncEventType(rawValue: 16) }
}
