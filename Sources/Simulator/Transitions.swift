import CSimulator

/// The attributes that a state transition of a queue pair requires and allows (IBTA 11.2.5.2, table 96; the kernel's
/// `qp_state_table`).
struct Transition {
    let required: UInt32
    let optional: UInt32

    /// Nil: there is no such transition.
    init?(type: UInt32, from: UInt32, to: UInt32) {
        let isRC = type == IBV_QPT_RC.rawValue
        let isUD = type == IBV_QPT_UD.rawValue
        let access = Mask.access
        /// The attributes that may change in RTS.
        let running =
            isUD
            ? Mask.currentState | Mask.qkey
            : Mask.currentState | access | Mask.alternatePath | Mask.migration | (isRC ? Mask.minRNRTimer : 0)
        let first = Mask.pkeyIndex | Mask.port | (isUD ? Mask.qkey : access)

        switch (ibv_qp_state(rawValue: from), ibv_qp_state(rawValue: to)) {
        case (_, IBV_QPS_RESET), (_, IBV_QPS_ERR): self.init(0, 0)
        case (IBV_QPS_RESET, IBV_QPS_INIT): self.init(first, 0)
        case (IBV_QPS_INIT, IBV_QPS_INIT): self.init(0, first)
        case (IBV_QPS_INIT, IBV_QPS_RTR):
            if isUD {
                self.init(0, Mask.pkeyIndex | Mask.qkey)
            } else {
                let common = Mask.address | Mask.pathMTU | Mask.destination | Mask.receivePSN
                self.init(
                    common | (isRC ? Mask.maxDestReadAtomic | Mask.minRNRTimer : 0),
                    Mask.alternatePath | access | Mask.pkeyIndex)
            }
        case (IBV_QPS_RTR, IBV_QPS_RTS):
            self.init(
                Mask.sendPSN | (isRC ? Mask.timeout | Mask.retries | Mask.rnrRetry | Mask.maxReadAtomic : 0), running)
        case (IBV_QPS_RTS, IBV_QPS_RTS), (IBV_QPS_SQD, IBV_QPS_RTS): self.init(0, running)
        case (IBV_QPS_SQE, IBV_QPS_RTS):
            if isRC { return nil }
            self.init(0, Mask.currentState | (isUD ? Mask.qkey : access))
        case (IBV_QPS_RTS, IBV_QPS_SQD): self.init(0, Mask.drainedEvent)
        case (IBV_QPS_SQD, IBV_QPS_SQD):
            if isUD {
                self.init(0, Mask.pkeyIndex | Mask.qkey)
            } else {
                let common = Mask.address | Mask.alternatePath | access | Mask.pkeyIndex | Mask.migration
                let reliable =
                    Mask.port | Mask.timeout | Mask.retries | Mask.rnrRetry | Mask.maxReadAtomic
                    | Mask.maxDestReadAtomic
                    | Mask.minRNRTimer
                self.init(0, common | (isRC ? reliable : 0))
            }
        default: return nil
        }
    }

    private init(_ required: UInt32, _ optional: UInt32) {
        self.required = required
        self.optional = optional
    }
}

/// `enum ibv_qp_attr_mask`.
enum Mask {
    static let state = IBV_QP_STATE.rawValue
    static let currentState = IBV_QP_CUR_STATE.rawValue
    static let drainedEvent = IBV_QP_EN_SQD_ASYNC_NOTIFY.rawValue
    static let access = IBV_QP_ACCESS_FLAGS.rawValue
    static let pkeyIndex = IBV_QP_PKEY_INDEX.rawValue
    static let port = IBV_QP_PORT.rawValue
    static let qkey = IBV_QP_QKEY.rawValue
    static let address = IBV_QP_AV.rawValue
    static let pathMTU = IBV_QP_PATH_MTU.rawValue
    static let timeout = IBV_QP_TIMEOUT.rawValue
    static let retries = IBV_QP_RETRY_CNT.rawValue
    static let rnrRetry = IBV_QP_RNR_RETRY.rawValue
    static let receivePSN = IBV_QP_RQ_PSN.rawValue
    static let maxReadAtomic = IBV_QP_MAX_QP_RD_ATOMIC.rawValue
    static let alternatePath = IBV_QP_ALT_PATH.rawValue
    static let minRNRTimer = IBV_QP_MIN_RNR_TIMER.rawValue
    static let sendPSN = IBV_QP_SQ_PSN.rawValue
    static let maxDestReadAtomic = IBV_QP_MAX_DEST_RD_ATOMIC.rawValue
    static let migration = IBV_QP_PATH_MIG_STATE.rawValue
    static let destination = IBV_QP_DEST_QPN.rawValue
    /// All bits of MODIFY_QP, as opposed to EX_MODIFY_QP.
    static let all: UInt32 = (1 << 21) - 1
}

extension Device {
    /// MODIFY_QP.
    func modify(_ queuePair: QueuePair, _ request: ib_uverbs_modify_qp, _ driver: DriverData) throws(Refusal) {
        let mask = request.attr_mask
        try demand(mask & ~Mask.all == 0, EOPNOTSUPP, "attributes that a plain MODIFY_QP lacks", has: Int(mask))
        if options.isIWARP { return try modifyConnection(queuePair, request, driver) }
        let from = queuePair.state
        if mask & Mask.currentState != 0 {
            try demand(
                UInt32(request.cur_qp_state) == from, EINVAL,
                "the queue pair is not in the state cur_qp_state",
                has: Int(request.cur_qp_state), wants: Int(from))
        }
        let to = mask & Mask.state != 0 ? UInt32(request.qp_state) : from
        try demand(to <= IBV_QPS_ERR.rawValue, EINVAL, "there is no such state", has: Int(to))
        guard let transition = Transition(type: queuePair.type, from: from, to: to) else {
            throw Refusal(EINVAL, "the state machine has no such transition: to, from", has: Int(to), wants: Int(from))
        }
        try demand(
            mask & transition.required == transition.required, EINVAL,
            "required attributes are missing",
            has: Int(mask), wants: Int(transition.required))
        try demand(
            mask & ~(transition.required | transition.optional | Mask.state) == 0, EINVAL,
            "attributes that the transition does not allow", has: Int(mask),
            wants: Int(transition.required | transition.optional | Mask.state))
        try checkValues(request)
        try codec.modify(queuePair, driver)
        apply(request, queuePair)
        enter(to, queuePair, wantsDrained: mask & Mask.drainedEvent != 0 && request.en_sqd_async_notify != 0)
    }

    private func checkValues(_ request: ib_uverbs_modify_qp) throws(Refusal) {
        let mask = request.attr_mask
        func check(_ bit: UInt32, _ isRight: Bool, _ why: StaticString, _ value: Int) throws(Refusal) {
            if mask & bit != 0 { try demand(isRight, EINVAL, why, has: value) }
        }
        try check(Mask.port, request.port_num == 1, "there is no such port", Int(request.port_num))
        try check(Mask.pkeyIndex, request.pkey_index == 0, "there is no such P_Key index", Int(request.pkey_index))
        try check(Mask.pathMTU, (1...5).contains(request.path_mtu), "there is no such MTU", Int(request.path_mtu))
        try check(Mask.destination, request.dest_qp_num < 1 << 24, "a number of 24 bits", Int(request.dest_qp_num))
        try check(Mask.receivePSN, request.rq_psn < 1 << 24, "a receive PSN of 24 bits", Int(request.rq_psn))
        try check(Mask.sendPSN, request.sq_psn < 1 << 24, "a send PSN of 24 bits", Int(request.sq_psn))
        try check(Mask.minRNRTimer, request.min_rnr_timer < 32, "a timer of 5 bits", Int(request.min_rnr_timer))
        try check(Mask.timeout, request.timeout < 32, "a timeout of 5 bits", Int(request.timeout))
        try check(Mask.retries, request.retry_cnt < 8, "a retry count of 3 bits", Int(request.retry_cnt))
        try check(Mask.rnrRetry, request.rnr_retry < 8, "a retry count of 3 bits", Int(request.rnr_retry))
        let most = codec.identity.maxReadAtomic
        try check(
            Mask.maxReadAtomic, request.max_rd_atomic <= most, "more READs than the device has",
            Int(request.max_rd_atomic))
        try check(
            Mask.maxDestReadAtomic, request.max_dest_rd_atomic <= most, "more READs than the device has",
            Int(request.max_dest_rd_atomic))
        guard mask & Mask.address != 0 else { return }
        try checkAddress(
            port: request.dest.port_num, isGlobal: request.dest.is_global != 0, gidIndex: request.dest.sgid_index,
            lid: request.dest.dlid)
    }

    /// Checks the address of a queue pair's path or of an address handle.
    func checkAddress(port: UInt8, isGlobal: Bool, gidIndex: UInt8, lid: UInt16) throws(Refusal) {
        try demand(port == 1, EINVAL, "the address's port: there is no such port", has: Int(port))
        try demand(!isGlobal || Int(gidIndex) < gidCount, EINVAL, "there is no such GID index", has: Int(gidIndex))
        if options.isRoCE {
            try demand(isGlobal, EINVAL, "on Ethernet an address needs a GRH")
        } else {
            try demand(lid != 0 || isGlobal, EINVAL, "the DLID is 0 and there is no GRH")
        }
    }

    private func apply(_ request: ib_uverbs_modify_qp, _ queuePair: QueuePair) {
        let mask = request.attr_mask
        var attributes = queuePair.attributes
        if mask & Mask.access != 0 { attributes.access = request.qp_access_flags }
        if mask & Mask.pkeyIndex != 0 { attributes.pkeyIndex = request.pkey_index }
        if mask & Mask.port != 0 { attributes.port = request.port_num }
        if mask & Mask.qkey != 0 { attributes.qkey = request.qkey }
        if mask & Mask.address != 0 { attributes.address = request.dest }
        if mask & Mask.pathMTU != 0 { attributes.pathMTU = request.path_mtu }
        if mask & Mask.timeout != 0 { attributes.timeout = request.timeout }
        if mask & Mask.retries != 0 { attributes.retries = request.retry_cnt }
        if mask & Mask.rnrRetry != 0 { attributes.rnrRetry = request.rnr_retry }
        if mask & Mask.receivePSN != 0 {
            attributes.receivePSN = request.rq_psn
            queuePair.expectedPSN = request.rq_psn
        }
        if mask & Mask.maxReadAtomic != 0 { attributes.maxReadAtomic = request.max_rd_atomic }
        if mask & Mask.alternatePath != 0 {
            attributes.alternateAddress = request.alt_dest
            attributes.alternatePkeyIndex = request.alt_pkey_index
            attributes.alternatePort = request.alt_port_num
            attributes.alternateTimeout = request.alt_timeout
        }
        if mask & Mask.minRNRTimer != 0 { attributes.minRNRTimer = request.min_rnr_timer }
        if mask & Mask.sendPSN != 0 {
            attributes.sendPSN = request.sq_psn
            queuePair.sendPSN = request.sq_psn
        }
        if mask & Mask.maxDestReadAtomic != 0 { attributes.maxDestReadAtomic = request.max_dest_rd_atomic }
        if mask & Mask.migration != 0 { attributes.migration = request.path_mig_state }
        if mask & Mask.destination != 0 { attributes.destination = request.dest_qp_num }
        queuePair.attributes = attributes
    }

    private func enter(_ state: UInt32, _ queuePair: QueuePair, wantsDrained: Bool) {
        queuePair.state = state
        if state != IBV_QPS_RTS.rawValue && state != IBV_QPS_SQD.rawValue { queuePair.outstanding = 0 }
        queuePair.wantsDrained = false
        if state == IBV_QPS_RESET.rawValue {
            queuePair.attributes = QueuePairAttributes()
            queuePair.isEstablished = false
            queuePair.raisedLastWQE = false
            queuePair.rnrNAKs = 0
            queuePair.retainedReceive = nil
            codec.reset(queuePair)
        }
        if state == IBV_QPS_SQD.rawValue && wantsDrained {
            // Between two calls, requests are outstanding on the wire only.
            queuePair.wantsDrained = queuePair.outstanding != 0
            if !queuePair.wantsDrained { raise(IBV_EVENT_SQ_DRAINED, queuePair) }
        }
        if codec.runsInCommands { run() }
    }
}
