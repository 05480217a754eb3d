import CIBVerbs

/// The attributes that a call of `Engine.modify` sets: `enum ibv_qp_attr_mask` of verbs.h.
@frozen
public struct AttributeMask: OptionSet, Hashable, Sendable {
    /// The bits of `enum ibv_qp_attr_mask`.
    public let rawValue: UInt32

    /// Creates an `enum ibv_qp_attr_mask` of any bits; `modify` refuses those that a transition does not allow.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `IBV_QP_STATE`.
    @inlinable public static var state: AttributeMask { AttributeMask(rawValue: IBV_QP_STATE.rawValue) }
    /// `IBV_QP_CUR_STATE`.
    @inlinable public static var currentState: AttributeMask { AttributeMask(rawValue: IBV_QP_CUR_STATE.rawValue) }
    /// `IBV_QP_EN_SQD_ASYNC_NOTIFY`.
    @inlinable public static var sqdAsyncNotify: AttributeMask {
        AttributeMask(rawValue: IBV_QP_EN_SQD_ASYNC_NOTIFY.rawValue)
    }
    /// `IBV_QP_ACCESS_FLAGS`.
    @inlinable public static var access: AttributeMask { AttributeMask(rawValue: IBV_QP_ACCESS_FLAGS.rawValue) }
    /// `IBV_QP_PKEY_INDEX`.
    @inlinable public static var pkeyIndex: AttributeMask { AttributeMask(rawValue: IBV_QP_PKEY_INDEX.rawValue) }
    /// `IBV_QP_PORT`.
    @inlinable public static var port: AttributeMask { AttributeMask(rawValue: IBV_QP_PORT.rawValue) }
    /// `IBV_QP_QKEY`.
    @inlinable public static var qkey: AttributeMask { AttributeMask(rawValue: IBV_QP_QKEY.rawValue) }
    /// `IBV_QP_AV`.
    @inlinable public static var path: AttributeMask { AttributeMask(rawValue: IBV_QP_AV.rawValue) }
    /// `IBV_QP_PATH_MTU`.
    @inlinable public static var pathMTU: AttributeMask { AttributeMask(rawValue: IBV_QP_PATH_MTU.rawValue) }
    /// `IBV_QP_TIMEOUT`.
    @inlinable public static var timeout: AttributeMask { AttributeMask(rawValue: IBV_QP_TIMEOUT.rawValue) }
    /// `IBV_QP_RETRY_CNT`.
    @inlinable public static var retryCount: AttributeMask { AttributeMask(rawValue: IBV_QP_RETRY_CNT.rawValue) }
    /// `IBV_QP_RNR_RETRY`.
    @inlinable public static var rnrRetry: AttributeMask { AttributeMask(rawValue: IBV_QP_RNR_RETRY.rawValue) }
    /// `IBV_QP_RQ_PSN`.
    @inlinable public static var rqPSN: AttributeMask { AttributeMask(rawValue: IBV_QP_RQ_PSN.rawValue) }
    /// `IBV_QP_MAX_QP_RD_ATOMIC`.
    @inlinable public static var maxReadAtomic: AttributeMask {
        AttributeMask(rawValue: IBV_QP_MAX_QP_RD_ATOMIC.rawValue)
    }
    /// `IBV_QP_ALT_PATH`.
    @inlinable public static var alternatePath: AttributeMask { AttributeMask(rawValue: IBV_QP_ALT_PATH.rawValue) }
    /// `IBV_QP_MIN_RNR_TIMER`.
    @inlinable public static var minRNRTimer: AttributeMask { AttributeMask(rawValue: IBV_QP_MIN_RNR_TIMER.rawValue) }
    /// `IBV_QP_SQ_PSN`.
    @inlinable public static var sqPSN: AttributeMask { AttributeMask(rawValue: IBV_QP_SQ_PSN.rawValue) }
    /// `IBV_QP_MAX_DEST_RD_ATOMIC`.
    @inlinable public static var maxDestinationReadAtomic: AttributeMask {
        AttributeMask(rawValue: IBV_QP_MAX_DEST_RD_ATOMIC.rawValue)
    }
    /// `IBV_QP_PATH_MIG_STATE`.
    @inlinable public static var pathMigration: AttributeMask {
        AttributeMask(rawValue: IBV_QP_PATH_MIG_STATE.rawValue)
    }
    /// `IBV_QP_DEST_QPN`.
    @inlinable public static var destinationQPN: AttributeMask { AttributeMask(rawValue: IBV_QP_DEST_QPN.rawValue) }
    /// `IBV_QP_RATE_LIMIT`.
    @inlinable public static var rateLimit: AttributeMask { AttributeMask(rawValue: IBV_QP_RATE_LIMIT.rawValue) }
}

/// The attributes of a queue pair: `struct ibv_qp_attr` of verbs.h, in the units of that struct.
@frozen
public struct QueuePairAttributes: Equatable, Sendable {
    /// `qp_state`: the next state.
    public var state: QueuePairState = .reset
    /// `cur_qp_state`: the state that the caller assumes; `modify` fails if the queue pair is in another state.
    public var currentState: QueuePairState = .reset
    /// `path_mtu` in bytes: 256, 512, 1024, 2048 or 4096. RC and UC.
    public var pathMTU: UInt32 = 0
    /// `qkey`: the Q_Key. UD.
    public var qkey: UInt32 = 0
    /// `rq_psn`: the PSN of the first packet received; 24 bits, higher bits are dropped.
    public var rqPSN: UInt32 = 0
    /// `sq_psn`: the PSN of the first packet sent; 24 bits, higher bits are dropped.
    public var sqPSN: UInt32 = 0
    /// `dest_qp_num`: 24 bits.
    public var destinationQPN: UInt32 = 0
    /// `qp_access_flags`: the accesses that the peer may make.
    public var access: AccessFlags = []
    /// `ah_attr`: the path of the connection.
    public var path = Path(source: GID(), destination: GID())
    /// `pkey_index`: must be 0.
    public var pkeyIndex: UInt16 = 0
    /// `en_sqd_async_notify`: report `IBV_EVENT_SQ_DRAINED`.
    public var sqdAsyncNotify = false
    /// `sq_draining`: in SQD, whether work requests that were begun before are not complete. `modify` ignores it.
    public var sqDraining = false
    /// `alt_ah_attr`: the alternate path of the connection; nil for none.
    public var alternatePath: Path?
    /// `alt_pkey_index`: must be 0.
    public var alternatePKeyIndex: UInt16 = 0
    /// `alt_port_num`: must be 1.
    public var alternatePort: UInt8 = 0
    /// `alt_timeout`: the local ACK timeout on the alternate path, as `timeout`.
    public var alternateTimeout: UInt8 = 0
    /// `path_mig_state`. `modify` sets `.rearm`, which needs an alternate path, or `.migrated`, which migrates an armed
    /// queue pair.
    public var migration = PathMigrationState.migrated
    /// `rate_limit` in kbit/s, up to `Limits.maxRateLimit`; 0 for none.
    public var rateLimit: UInt32 = 0
    /// `max_rd_atomic`: the initiator depth, that is, the largest number of outstanding READs and atomics of this queue
    /// pair, 0 to 16.
    public var maxReadAtomic: UInt8 = 0
    /// `max_dest_rd_atomic`: the responder resources, that is, the largest number of outstanding READs and atomics of
    /// the peer, 0 to 16.
    public var maxDestinationReadAtomic: UInt8 = 0
    /// `min_rnr_timer`: the timer code of the RNR NAKs that this queue pair sends, 0 to 31.
    public var minRNRTimer: UInt8 = 0
    /// `port_num`: must be 1.
    public var port: UInt8 = 0
    /// `timeout`: the local ACK timeout, 4.096 us * 2^timeout; 0 to 31, where 0 is no timeout (IBTA volume 1,
    /// 9.7.6.1.3).
    public var timeout: UInt8 = 0
    /// `retry_cnt`: 0 to 7.
    public var retryCount: UInt8 = 0
    /// `rnr_retry`: 0 to 7; 7 means any number of retries.
    public var rnrRetry: UInt8 = 0

    /// Creates a `struct ibv_qp_attr` of zeros, with the state RESET.
    @inlinable
    public init() {}
}

/// The sizes of a queue pair: `struct ibv_qp_cap` of verbs.h. The engine does not round them up.
@frozen
public struct QueuePairCapabilities: Equatable, Sendable {
    /// `max_send_wr`: 0 to `Limits.maxWR`.
    public var maxSendWR: UInt32
    /// `max_recv_wr`: 0 to `Limits.maxWR`; ignored, and 0 afterwards, with a shared receive queue.
    public var maxReceiveWR: UInt32
    /// `max_send_sge`: 0 to `Limits.maxSGE`.
    public var maxSendSGE: UInt32
    /// `max_recv_sge`: 0 to `Limits.maxSGE`; ignored, and 0 afterwards, with a shared receive queue.
    public var maxReceiveSGE: UInt32
    /// `max_inline_data` in bytes: 0 to `Limits.maxInlineData`; of a queue pair at least 16 for each of `maxSendSGE`.
    public var maxInlineData: UInt32

    /// Creates capabilities (`struct ibv_qp_cap`).
    @inlinable
    public init(
        maxSendWR: UInt32, maxReceiveWR: UInt32, maxSendSGE: UInt32 = 1, maxReceiveSGE: UInt32 = 1,
        maxInlineData: UInt32 = 0
    ) {
        self.maxSendWR = maxSendWR
        self.maxReceiveWR = maxReceiveWR
        self.maxSendSGE = maxSendSGE
        self.maxReceiveSGE = maxReceiveSGE
        self.maxInlineData = maxInlineData
    }
}
