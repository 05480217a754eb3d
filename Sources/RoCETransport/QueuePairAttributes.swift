/// Which attributes a call of `Engine.modify` sets: `enum ibv_qp_attr_mask` of verbs.h.
@frozen
public struct AttributeMask: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_qp_attr_mask`.
    public let rawValue: UInt32

    /// Any bits; what a transition does not allow is refused.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_QP_STATE`.
    @inlinable public static var state: AttributeMask { AttributeMask(rawValue: 1 << 0) }
    /// `IBV_QP_CUR_STATE`.
    @inlinable public static var currentState: AttributeMask { AttributeMask(rawValue: 1 << 1) }
    /// `IBV_QP_EN_SQD_ASYNC_NOTIFY`.
    @inlinable public static var drainedNotification: AttributeMask { AttributeMask(rawValue: 1 << 2) }
    /// `IBV_QP_ACCESS_FLAGS`.
    @inlinable public static var access: AttributeMask { AttributeMask(rawValue: 1 << 3) }
    /// `IBV_QP_PKEY_INDEX`.
    @inlinable public static var partitionKeyIndex: AttributeMask { AttributeMask(rawValue: 1 << 4) }
    /// `IBV_QP_PORT`.
    @inlinable public static var port: AttributeMask { AttributeMask(rawValue: 1 << 5) }
    /// `IBV_QP_QKEY`.
    @inlinable public static var queueKey: AttributeMask { AttributeMask(rawValue: 1 << 6) }
    /// `IBV_QP_AV`.
    @inlinable public static var path: AttributeMask { AttributeMask(rawValue: 1 << 7) }
    /// `IBV_QP_PATH_MTU`.
    @inlinable public static var pathMTU: AttributeMask { AttributeMask(rawValue: 1 << 8) }
    /// `IBV_QP_TIMEOUT`.
    @inlinable public static var timeout: AttributeMask { AttributeMask(rawValue: 1 << 9) }
    /// `IBV_QP_RETRY_CNT`.
    @inlinable public static var retryCount: AttributeMask { AttributeMask(rawValue: 1 << 10) }
    /// `IBV_QP_RNR_RETRY`.
    @inlinable public static var rnrRetry: AttributeMask { AttributeMask(rawValue: 1 << 11) }
    /// `IBV_QP_RQ_PSN`.
    @inlinable public static var receivePSN: AttributeMask { AttributeMask(rawValue: 1 << 12) }
    /// `IBV_QP_MAX_QP_RD_ATOMIC`.
    @inlinable public static var maxReadAtomic: AttributeMask { AttributeMask(rawValue: 1 << 13) }
    /// `IBV_QP_ALT_PATH`: allowed in some transitions, and then answered with EOPNOTSUPP.
    @inlinable public static var alternatePath: AttributeMask { AttributeMask(rawValue: 1 << 14) }
    /// `IBV_QP_MIN_RNR_TIMER`.
    @inlinable public static var minRNRTimer: AttributeMask { AttributeMask(rawValue: 1 << 15) }
    /// `IBV_QP_SQ_PSN`.
    @inlinable public static var sendPSN: AttributeMask { AttributeMask(rawValue: 1 << 16) }
    /// `IBV_QP_MAX_DEST_RD_ATOMIC`.
    @inlinable public static var maxDestinationReadAtomic: AttributeMask { AttributeMask(rawValue: 1 << 17) }
    /// `IBV_QP_PATH_MIG_STATE`: allowed in some transitions, and then answered with EOPNOTSUPP.
    @inlinable public static var pathMigration: AttributeMask { AttributeMask(rawValue: 1 << 18) }
    /// `IBV_QP_DEST_QPN`.
    @inlinable public static var destinationQueuePair: AttributeMask { AttributeMask(rawValue: 1 << 20) }
}

/// The attributes of a queue pair: what `struct ibv_qp_attr` of verbs.h says, in the units of that struct.
@frozen
public struct QueuePairAttributes: Equatable, Sendable {
    /// `qp_state`: the state to go to.
    public var state: QueuePairState = .reset
    /// `cur_qp_state`: the state that the caller believes in; refused when it is another.
    public var currentState: QueuePairState = .reset
    /// `path_mtu` in bytes: 256, 512, 1024, 2048 or 4096. RC and UC.
    public var pathMTU: UInt32 = 0
    /// `qkey`. UD.
    public var queueKey: UInt32 = 0
    /// `rq_psn`: the PSN that the first packet received will have; 24 bits, more are dropped.
    public var receivePSN: UInt32 = 0
    /// `sq_psn`: the PSN of the first packet sent; 24 bits, more are dropped.
    public var sendPSN: UInt32 = 0
    /// `dest_qp_num`: 24 bits.
    public var destinationQueuePair: UInt32 = 0
    /// `qp_access_flags`: what the peer may do at all.
    public var access: AccessFlags = []
    /// `ah_attr`: the connection's path.
    public var path = Path(source: GID(), destination: GID())
    /// `pkey_index`: must be 0.
    public var partitionKeyIndex: UInt16 = 0
    /// `en_sqd_async_notify`: report `IBV_EVENT_SQ_DRAINED`.
    public var drainedNotification = false
    /// `max_rd_atomic`: READs and atomics that we keep outstanding, 0 to 16.
    public var maxReadAtomic: UInt8 = 0
    /// `max_dest_rd_atomic`: READs and atomics of the peer that we remember, 0 to 16.
    public var maxDestinationReadAtomic: UInt8 = 0
    /// `min_rnr_timer`: the code of the RNR NAKs that we send, 0 to 31.
    public var minRNRTimer: UInt8 = 0
    /// `port_num`: must be 1.
    public var port: UInt8 = 0
    /// `timeout`: we wait 4.096 us * 2^timeout for an acknowledgement; 0 to 31, 0 waits for ever.
    public var timeout: UInt8 = 0
    /// `retry_cnt`: 0 to 7.
    public var retryCount: UInt8 = 0
    /// `rnr_retry`: 0 to 7; 7 never gives up.
    public var rnrRetry: UInt8 = 0

    /// All zero, state RESET.
    @inlinable
    public init() {}
}

/// How large a queue pair is: `struct ibv_qp_cap` and the rest of `struct ibv_qp_init_attr` that are numbers. The
/// engine takes exactly what it is asked for, or refuses.
@frozen
public struct QueuePairCapabilities: Equatable, Sendable {
    /// `max_send_wr`: 0 to `Limits.workRequests`.
    public var sendWorkRequests: UInt32
    /// `max_recv_wr`: 0 to `Limits.workRequests`; not looked at with a shared receive queue.
    public var receiveWorkRequests: UInt32
    /// `max_send_sge`: 0 to `Limits.scatterGatherElements`.
    public var sendElements: UInt32
    /// `max_recv_sge`: 0 to `Limits.scatterGatherElements`; not looked at with a shared receive queue.
    public var receiveElements: UInt32
    /// `max_inline_data` in bytes: 0 to `Limits.inlineData`.
    public var inlineData: UInt32

    /// Capabilities of their five fields.
    @inlinable
    public init(
        sendWorkRequests: UInt32, receiveWorkRequests: UInt32, sendElements: UInt32 = 1, receiveElements: UInt32 = 1,
        inlineData: UInt32 = 0
    ) {
        self.sendWorkRequests = sendWorkRequests
        self.receiveWorkRequests = receiveWorkRequests
        self.sendElements = sendElements
        self.receiveElements = receiveElements
        self.inlineData = inlineData
    }
}
