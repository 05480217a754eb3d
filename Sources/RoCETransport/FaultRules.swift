import CIBVerbs

/// The kinds of faults that an engine and its caller can inject on request. The word in parentheses is the rule's, in
/// the language of `FaultPlan`.
@frozen
public enum FaultKind: UInt8, Sendable, CaseIterable {
    /// A packet is not delivered (`loss`).
    case loss
    /// A packet is delivered twice (`duplicate`).
    case duplicate
    /// A packet is overtaken by the next one (`reorder`).
    case reorder
    /// A bit of a packet is inverted (`corrupt`).
    case corrupt
    /// A packet is delivered later (`delay`).
    case delay
    /// Packets are delivered no faster than a link of this bandwidth could (`bandwidth`).
    case bandwidth
    /// A work request completes with an error (`completion`).
    case completion
    /// A request is answered with an RNR NAK although a receive work request is posted (`rnr`).
    case rnr
    /// A verb fails (`fail`).
    case fail
    /// An asynchronous event occurs, with its consequences (`event`).
    case event
    /// The device neither sends nor receives any more (`stop`).
    case stop
}

/// The operations to which a rule can be limited (`operation=`).
@frozen
public enum FaultOperation: UInt8, Sendable {
    /// SEND, with or without immediate data.
    case send
    /// RDMA WRITE, with or without immediate data.
    case write
    /// RDMA READ, its request and its response.
    case read
    /// Atomics, their requests and their responses.
    case atomic
    /// Acknowledgements, negative ones too.
    case ack
    /// Any other operation, which only a rule without `operation` selects.
    case other
}

/// The direction of a packet, or the queue of a work request (`direction=`).
@frozen
public enum FaultDirection: UInt8, Sendable {
    /// Packets that the device sends; work requests of send queues.
    case send = 1
    /// Packets that the device receives; receive work requests.
    case receive = 2
}

/// The verbs that a rule can make fail (`fail=`), named as the functions of verbs.h without `ibv_`. A rule for
/// `create_cq`, `create_srq` or `create_qp` also applies to the function with `_ex`.
@frozen
public enum FaultVerb: UInt8, Sendable, CaseIterable {
    /// `ibv_query_device_ex`.
    case queryDevice
    /// `ibv_query_port`.
    case queryPort
    /// `ibv_query_gid_ex` and `ibv_query_gid_table`.
    case queryGID
    /// `ibv_alloc_pd`.
    case allocPD
    /// `ibv_alloc_td`.
    case allocTD
    /// `ibv_alloc_parent_domain`.
    case allocParentDomain
    /// `ibv_reg_mr` and `ibv_reg_mr_iova`.
    case regMR
    /// `ibv_rereg_mr`.
    case reregMR
    /// `ibv_reg_dmabuf_mr`.
    case regDMABufMR
    /// `ibv_reg_dm_mr`.
    case regDMMR
    /// `ibv_alloc_null_mr`.
    case allocNullMR
    /// `ibv_advise_mr`.
    case adviseMR
    /// `ibv_alloc_dm`.
    case allocDM
    /// `ibv_alloc_mw`.
    case allocMW
    /// `ibv_bind_mw`.
    case bindMW
    /// `ibv_create_comp_channel`.
    case createCompChannel
    /// `ibv_create_cq` and `ibv_create_cq_ex`.
    case createCQ
    /// `ibv_resize_cq`.
    case resizeCQ
    /// `ibv_modify_cq`.
    case modifyCQ
    /// `ibv_create_srq` and `ibv_create_srq_ex`.
    case createSRQ
    /// `ibv_modify_srq`.
    case modifySRQ
    /// `ibv_query_srq`.
    case querySRQ
    /// `ibv_get_srq_num`.
    case getSRQNum
    /// `ibv_open_xrcd`.
    case openXRCD
    /// `ibv_create_qp` and `ibv_create_qp_ex`.
    case createQP
    /// `ibv_open_qp`.
    case openQP
    /// `ibv_modify_qp`.
    case modifyQP
    /// `ibv_query_qp`.
    case queryQP
    /// `ibv_create_ah`.
    case createAH
    /// `ibv_attach_mcast`.
    case attachMcast
    /// `ibv_post_send` and `ibv_wr_complete`.
    case postSend
    /// `ibv_post_recv`.
    case postRecv
    /// `ibv_post_srq_recv`.
    case postSRQRecv

    /// The name in verbs.h without `ibv_`.
    public var name: StaticString {
        switch self {
        case .queryDevice: "query_device"
        case .queryPort: "query_port"
        case .queryGID: "query_gid"
        case .allocPD: "alloc_pd"
        case .allocTD: "alloc_td"
        case .allocParentDomain: "alloc_parent_domain"
        case .regMR: "reg_mr"
        case .reregMR: "rereg_mr"
        case .regDMABufMR: "reg_dmabuf_mr"
        case .regDMMR: "reg_dm_mr"
        case .allocNullMR: "alloc_null_mr"
        case .adviseMR: "advise_mr"
        case .allocDM: "alloc_dm"
        case .allocMW: "alloc_mw"
        case .bindMW: "bind_mw"
        case .createCompChannel: "create_comp_channel"
        case .createCQ: "create_cq"
        case .resizeCQ: "resize_cq"
        case .modifyCQ: "modify_cq"
        case .createSRQ: "create_srq"
        case .modifySRQ: "modify_srq"
        case .querySRQ: "query_srq"
        case .getSRQNum: "get_srq_num"
        case .openXRCD: "open_xrcd"
        case .createQP: "create_qp"
        case .openQP: "open_qp"
        case .modifyQP: "modify_qp"
        case .queryQP: "query_qp"
        case .createAH: "create_ah"
        case .attachMcast: "attach_mcast"
        case .postSend: "post_send"
        case .postRecv: "post_recv"
        case .postSRQRecv: "post_srq_recv"
        }
    }
}

/// The asynchronous events that a rule can cause (`event=`): `enum ibv_event_type`, without `IBV_EVENT_`.
@frozen
public enum FaultEvent: UInt8, Sendable, CaseIterable {
    /// `IBV_EVENT_PORT_ERR`: the port goes down.
    case portError
    /// `IBV_EVENT_PORT_ACTIVE`: the port that a rule has taken down is active again.
    case portActive
    /// `IBV_EVENT_GID_CHANGE`: the event alone; the GID table stays as the network interface has it.
    case gidChange
    /// `IBV_EVENT_QP_FATAL`: a queue pair goes to ERR.
    case queuePairFatal
    /// `IBV_EVENT_DEVICE_FATAL`: the device fails.
    case deviceFatal

    /// The name in verbs.h without `IBV_EVENT_`.
    public var name: StaticString {
        switch self {
        case .portError: "PORT_ERR"
        case .portActive: "PORT_ACTIVE"
        case .gidChange: "GID_CHANGE"
        case .queuePairFatal: "QP_FATAL"
        case .deviceFatal: "DEVICE_FATAL"
        }
    }
}

/// One rule, as it was parsed, and the state of its sequence of decisions.
struct FaultRule {
    /// When a rule begins (`after=`).
    enum Start: UInt8 {
        case immediately, time, packets, completions
    }

    var kind: FaultKind
    /// The number of the rule, from 1, and its place in the text.
    var number = 0
    var line = 1
    var column = 1

    /// The chance of each decision, in billionths (`probability=`).
    var chance: UInt32 = Self.certain
    /// Only decision number `nth`; 0: see `every`.
    var nth: UInt64 = 0
    /// Every decision whose number is a multiple; 0: `chance` decides.
    var every: UInt64 = 0
    /// The largest number of injections (`count=`).
    var limit: UInt64 = .max
    var start = Start.immediately
    /// Nanoseconds, packets or completions.
    var startValue: UInt64 = 0
    /// Bits of `FaultDirection`.
    var directions = FaultDirection.send.rawValue
    /// The service type (`qp_type=`); nil: any.
    var type: QueuePairType?
    var operation: FaultOperation?

    /// `delay`: nanoseconds; `bandwidth`: bits per second; `completion`: the status; `fail`: the verb; `event`: the event.
    var value: UInt64 = 0
    /// `delay`: the largest random addition in nanoseconds (`jitter=`).
    var jitter: UInt64 = 0
    /// `fail`: the errno value (`errno=`); 0: not given.
    var errno: Int32 = 0
    /// `corrupt`: the ICRC is computed after the corruption (`icrc=valid`).
    var keepsICRC = false

    // The state.

    /// Decisions made, and injections among them.
    var decisions: UInt64 = 0
    var injections: UInt64 = 0
    var random = KeyedRandom(seed: (0, 0))
    /// `bandwidth`: when the link is free, for packets sent and received.
    var freeAt: (UInt64, UInt64) = (0, 0)
    /// `event`: the queue pair of the packet or completion that the count ended with.
    var subject: UInt32 = 0

    /// The chance 100 %.
    static var certain: UInt32 { 1_000_000_000 }

    init(_ kind: FaultKind) { self.kind = kind }

    /// Makes the next decision of the rule's sequence.
    mutating func decide() -> Bool {
        decisions &+= 1
        let isHit: Bool
        if nth != 0 {
            isHit = decisions == nth
        } else if every != 0 {
            isHit = decisions % every == 0
        } else if chance == Self.certain {
            isHit = true
        } else {
            isHit = UInt32(random.next() >> 16 % UInt64(Self.certain)) < chance
        }
        guard isHit, injections < limit else { return false }
        injections &+= 1
        return true
    }
}

/// The name of a completion status in verbs.h without `IBV_WC_`; empty for a value without a name.
func faultStatusName(_ value: UInt32) -> StaticString {
    switch value {
    case IBV_WC_LOC_LEN_ERR.rawValue: "LOC_LEN_ERR"
    case IBV_WC_LOC_QP_OP_ERR.rawValue: "LOC_QP_OP_ERR"
    case IBV_WC_LOC_EEC_OP_ERR.rawValue: "LOC_EEC_OP_ERR"
    case IBV_WC_LOC_PROT_ERR.rawValue: "LOC_PROT_ERR"
    case IBV_WC_WR_FLUSH_ERR.rawValue: "WR_FLUSH_ERR"
    case IBV_WC_MW_BIND_ERR.rawValue: "MW_BIND_ERR"
    case IBV_WC_BAD_RESP_ERR.rawValue: "BAD_RESP_ERR"
    case IBV_WC_LOC_ACCESS_ERR.rawValue: "LOC_ACCESS_ERR"
    case IBV_WC_REM_INV_REQ_ERR.rawValue: "REM_INV_REQ_ERR"
    case IBV_WC_REM_ACCESS_ERR.rawValue: "REM_ACCESS_ERR"
    case IBV_WC_REM_OP_ERR.rawValue: "REM_OP_ERR"
    case IBV_WC_RETRY_EXC_ERR.rawValue: "RETRY_EXC_ERR"
    case IBV_WC_RNR_RETRY_EXC_ERR.rawValue: "RNR_RETRY_EXC_ERR"
    case IBV_WC_REM_ABORT_ERR.rawValue: "REM_ABORT_ERR"
    case IBV_WC_FATAL_ERR.rawValue: "FATAL_ERR"
    case IBV_WC_RESP_TIMEOUT_ERR.rawValue: "RESP_TIMEOUT_ERR"
    case IBV_WC_GENERAL_ERR.rawValue: "GENERAL_ERR"
    default: ""
    }
}

/// The errno values that `errno=` accepts, by number from 0; nil beyond the last.
func faultErrno(_ index: Int) -> (name: StaticString, value: Int32)? {
    switch index {
    case 0: ("EPERM", EPERM)
    case 1: ("EINTR", EINTR)
    case 2: ("EIO", EIO)
    case 3: ("ENXIO", ENXIO)
    case 4: ("EAGAIN", EAGAIN)
    case 5: ("ENOMEM", ENOMEM)
    case 6: ("EACCES", EACCES)
    case 7: ("EFAULT", EFAULT)
    case 8: ("EBUSY", EBUSY)
    case 9: ("ENODEV", ENODEV)
    case 10: ("EINVAL", EINVAL)
    case 11: ("EMFILE", EMFILE)
    case 12: ("ENFILE", ENFILE)
    case 13: ("ENOSPC", ENOSPC)
    case 14: ("ENOSYS", ENOSYS)
    case 15: ("EOPNOTSUPP", EOPNOTSUPP)
    case 16: ("ETIMEDOUT", ETIMEDOUT)
    default: nil
    }
}
