import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

func modifyQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32
) -> Int32 {
    guard let qp, let attr else { return EINVAL }
    let pair = qp.soft
    let context = pair.context
    let given = AttributeMask(rawValue: UInt32(bitPattern: mask))
    let wanted = given.subtracting(ignoredAttributes(pair.pointee.pair.type))
    var attributes = QueuePairAttributes()
    guard attributes.take(attr.pointee, wanted) else {
        return refusal(
            EINVAL, "qp_state, cur_qp_state, path_mtu or path_mig_state is not a value that verbs.h defines")
    }
    let endsAccess = wanted.contains(.state) && (attributes.state == .reset || attributes.state == .error)
    defer { if endsAccess { context.awaitRequesters(of: qp.pointee.qp_num) } }
    // Only the transition to RESET removes entries from queues that other threads access. The others need not be fast.
    return pair.whileQuiet {
        if wanted.contains(.path) {
            guard let path = context.resolve(attr.pointee.ah_attr) else { return EINVAL }
            attributes.path = path
        }
        if wanted.contains(.alternatePath) {
            guard let path = context.resolve(attr.pointee.alt_ah_attr) else { return EINVAL }
            attributes.alternatePath = path
        }
        if wanted.isDisjoint(with: [.path, .alternatePath]) && wanted.contains(.pathMTU) {
            // `resolve` does the same.
            context.followInterface()
        }
        do throws(RoCETransport.Errno) {
            try context.pointee.engine.modify(pair.pointee.pair, attributes, wanted)
        } catch {
            let excess = context.pointee.engine.attributeOutOfRange(pair.pointee.pair, attributes, wanted)
            let activeMTU = context.pointee.engine.configuration.activeMTU
            return excess.isEmpty ? error.rawValue : explainRange(excess, attributes, activeMTU: activeMTU)
        }
        qp.pointee.state = pair.pointee.pair.state.verbs
        context.dispatchEvents()
        if attributes.path.tag == Route.sharedMemory,
            Int(attributes.destinationQPN >> 16) == context.pointee.slot.number
        {
            context.makeOwnNeighbor()
        }
        context.pointee.progressThread.wake()
        return 0
    }
}

/// The attributes of the side that an XRC queue pair does not have. Programs give them as for RC, and the kernel ignores
/// them in the call of ibv_modify_qp (`modify_qp_mask` of uverbs), not its drivers.
private func ignoredAttributes(_ type: QueuePairType) -> AttributeMask {
    switch type {
    case .xrcSend: [.maxDestinationReadAtomic, .minRNRTimer]
    case .xrcReceive: [.maxReadAtomic, .retryCount, .rnrRetry]
    default: []
    }
}

func queryQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32,
    initial: UnsafeMutablePointer<ibv_qp_init_attr>?
) -> Int32 {
    guard let qp, let attr, let initial else { return EINVAL }
    let pair = qp.soft
    let context = pair.context
    context.lockForControl()
    let attributes = context.pointee.engine.attributes(of: pair.pointee.pair)
    context.unlock()
    let cap = ibv_qp_cap(pair.pointee.pair.capabilities)
    attr.pointee = attributes.verbs
    attr.pointee.cap = cap
    qp.pointee.state = attr.pointee.qp_state
    initial.pointee = ibv_qp_init_attr(
        qp_context: qp.pointee.qp_context, send_cq: qp.pointee.send_cq, recv_cq: qp.pointee.recv_cq,
        srq: qp.pointee.srq, cap: cap, qp_type: qp.pointee.qp_type, sq_sig_all: pair.pointee.signalsAll ? 1 : 0)
    return 0
}

/// `ibv_modify_qp_rate_limit`. The rate is kept whatever the length of the packets, so `typical_pkt_sz` has no effect.
func modifyRateLimit(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_rate_limit_attr>?
) -> Int32 {
    guard let pair = qp?.soft, let attr else { return EINVAL }
    guard attr.pointee.comp_mask == 0 else { return refusal(EINVAL, "comp_mask: no bit is defined") }
    guard attr.pointee.rate_limit <= Limits.maxRateLimit else {
        return overLimit("rate_limit", attr.pointee.rate_limit, "qp_rate_limit_max", Int(Limits.maxRateLimit))
    }
    let context = pair.context
    context.lockForControl()
    defer { context.unlock() }
    do throws(RoCETransport.Errno) {
        try context.pointee.engine.limitRate(
            of: pair.pointee.pair, to: attr.pointee.rate_limit, burst: attr.pointee.max_burst_sz)
    } catch {
        return refusal(error.rawValue, "the queue pair must be in RTS or SQD")
    }
    context.pointee.progressThread.wake()
    return 0
}

/// `ibv_query_ece`: no vendor, and so no options, of enhanced connection establishment.
func queryECE(qp: UnsafeMutablePointer<ibv_qp>?, ece: UnsafeMutablePointer<ibv_ece>?, size: Int) -> Int32 {
    guard qp != nil, let ece else { return EINVAL }
    UnsafeMutableRawPointer(ece).initializeMemory(as: UInt8.self, repeating: 0, count: size)
    return 0
}

/// `ibv_set_ece`: accepts none of the options, of whichever vendor, and returns that.
func setECE(qp: UnsafeMutablePointer<ibv_qp>?, ece: UnsafeMutablePointer<ibv_ece>?, size: Int) -> Int32 {
    guard qp != nil, let ece, size >= MemoryLayout<ibv_ece>.size else { return EINVAL }
    guard ece.pointee.comp_mask == 0 else { return refusal(EINVAL, "comp_mask: no bit is defined") }
    ece.pointee.options = 0
    return 0
}

/// `ibv_query_qp_data_in_order`: 0. The packets of a message are placed in order, but not the bytes of each packet.
func queryDataInOrder(qp: UnsafeMutablePointer<ibv_qp>?, opcode: ibv_wr_opcode, flags: UInt32) -> Int32 { 0 }

extension QueuePairAttributes {
    /// Copies the attributes of `mask`, except the path. Returns false when a value is undefined.
    mutating func take(_ attr: ibv_qp_attr, _ mask: AttributeMask) -> Bool {
        if mask.contains(.state) {
            guard let state = RoCETransport.QueuePairState(attr.qp_state) else { return false }
            self.state = state
        }
        if mask.contains(.currentState) {
            guard let state = RoCETransport.QueuePairState(attr.cur_qp_state) else { return false }
            currentState = state
        }
        if mask.contains(.pathMTU) {
            guard let mtu = attr.path_mtu.byteCount else { return false }
            pathMTU = mtu
        }
        if mask.contains(.pathMigration) {
            guard let state = PathMigrationState(rawValue: UInt8(clamping: attr.path_mig_state.rawValue)) else {
                return false
            }
            migration = state
        }
        alternatePKeyIndex = attr.alt_pkey_index
        alternatePort = attr.alt_port_num
        alternateTimeout = attr.alt_timeout
        rateLimit = attr.rate_limit
        qkey = attr.qkey
        rqPSN = attr.rq_psn
        sqPSN = attr.sq_psn
        destinationQPN = attr.dest_qp_num
        access = AccessFlags(rawValue: attr.qp_access_flags)
        pkeyIndex = attr.pkey_index
        sqdAsyncNotify = attr.en_sqd_async_notify != 0
        maxReadAtomic = attr.max_rd_atomic
        maxDestinationReadAtomic = attr.max_dest_rd_atomic
        minRNRTimer = attr.min_rnr_timer
        port = attr.port_num
        timeout = attr.timeout
        retryCount = attr.retry_cnt
        rnrRetry = attr.rnr_retry
        return true
    }

    /// The attributes as an `ibv_qp_attr`, without the capabilities.
    var verbs: ibv_qp_attr {
        var attr = ibv_qp_attr()
        attr.qp_state = state.verbs
        attr.cur_qp_state = state.verbs
        attr.path_mtu = ibv_mtu(byteCount: pathMTU)
        attr.path_mig_state = ibv_mig_state(UInt32(migration.rawValue))
        attr.sq_draining = sqDraining ? 1 : 0
        attr.rate_limit = rateLimit
        if let path = alternatePath {
            attr.alt_ah_attr = path.verbs
            attr.alt_pkey_index = alternatePKeyIndex
            attr.alt_port_num = alternatePort
            attr.alt_timeout = alternateTimeout
        }
        attr.qkey = qkey
        attr.rq_psn = rqPSN
        attr.sq_psn = sqPSN
        attr.dest_qp_num = destinationQPN
        attr.qp_access_flags = access.rawValue
        if path.destination != GID() { attr.ah_attr = path.verbs }
        attr.pkey_index = pkeyIndex
        attr.en_sqd_async_notify = sqdAsyncNotify ? 1 : 0
        attr.max_rd_atomic = maxReadAtomic
        attr.max_dest_rd_atomic = maxDestinationReadAtomic
        attr.min_rnr_timer = minRNRTimer
        attr.port_num = port
        attr.timeout = timeout
        attr.retry_cnt = retryCount
        attr.rnr_retry = rnrRetry
        return attr
    }
}

extension RoCETransport.QueuePairState {
    init?(_ state: ibv_qp_state) {
        guard state.rawValue < IBV_QPS_UNKNOWN.rawValue else { return nil }
        self.init(rawValue: UInt8(state.rawValue))
    }

    var verbs: ibv_qp_state { ibv_qp_state(UInt32(rawValue)) }
}
