import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A queue pair: always `ibv_qp_ex`.
///
/// Its state is `pair.state`, the engine's, which errors change at any time. `ibv_qp.state` is a copy from the last
/// `ibv_modify_qp` or `ibv_query_qp`, as in libibverbs; soft never reads it.
struct SoftQueuePair: ~Copyable {
    var base = ibv_qp_ex()
    private let room = ObjectRoom()
    let pair: QueuePair
    let isExtended: Bool
    let signalsAll: Bool
    let sendLock: Lock
    let receiveLock: Lock
    /// The work request that the wr_ functions build; under `sendLock`. In separate memory, like `SoftContext.guarded`.
    let builder: UnsafeMutablePointer<WorkRequestBuilder>
    let eventsRead = EventsRead()
    /// The next handle of the same XRC_RECV queue pair (`ibv_open_qp`); under the device's lock. In separate memory, too.
    let next: UnsafeMutablePointer<QueuePairPointer?>

    init(pair: QueuePair, isExtended: Bool, signalsAll: Bool, isSingleThreaded: Bool) {
        self.pair = pair
        self.isExtended = isExtended
        self.signalsAll = signalsAll
        sendLock = Lock(isSkipped: isSingleThreaded)
        receiveLock = Lock(isSkipped: isSingleThreaded)
        builder = .allocate(capacity: 1)
        builder.initialize(to: WorkRequestBuilder(isExtended ? pair.capabilities : nil))
        next = .allocate(capacity: 1)
        next.initialize(to: nil)
    }

    deinit {
        builder.pointee.deallocate()
        builder.deallocate()
        eventsRead.deallocate()
        next.deallocate()
    }
}

typealias QueuePairPointer = UnsafeMutablePointer<SoftQueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    @inline(__always)
    var soft: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftQueuePair.self) }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    @inline(__always)
    var soft: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftQueuePair.self) }
}

extension QueuePair {
    /// The public object of a queue pair of the engine.
    var soft: QueuePairPointer? { userData?.assumingMemoryBound(to: SoftQueuePair.self) }
}

extension QueuePairPointer {
    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_qp> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self) }

    @inline(__always)
    var context: ContextPointer { pointee.base.qp_base.context.soft }

    /// Runs `body` while no other thread posts to the queue pair, polls its completion queues or runs the engine.
    func whileQuiet<Result>(_ body: () -> Result) -> Result {
        // An XRC_RECV queue pair has no queues, and its completions are in those of shared receive queues, where they stay.
        guard let send = pointee.base.qp_base.send_cq?.soft else {
            context.lockForControl()
            defer { context.unlock() }
            return body()
        }
        let receive = pointee.base.qp_base.recv_cq?.soft ?? send
        return whileNotPolled(send.pointee.lock, receive.pointee.lock, taking: tryLockPosting) {
            context.lockForControl()
            defer {
                context.unlock()
                pointee.receiveLock.unlock()
                pointee.sendLock.unlock()
            }
            return body()
        }
    }

    /// Takes the locks of the send and the receive queue, or neither.
    private func tryLockPosting() -> Bool {
        guard pointee.sendLock.tryLock() else { return false }
        if pointee.receiveLock.tryLock() { return true }
        pointee.sendLock.unlock()
        return false
    }
}

/// The `send_ops_flags` that a service type supports.
private func sendOperations(_ type: ibv_qp_type) -> UInt64 {
    let sends = UInt64(IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_SEND_WITH_IMM.rawValue)
    let writes = UInt64(IBV_QP_EX_WITH_RDMA_WRITE.rawValue | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM.rawValue)
    let windows = UInt64(IBV_QP_EX_WITH_BIND_MW.rawValue | IBV_QP_EX_WITH_LOCAL_INV.rawValue)
    switch type {
    case IBV_QPT_RC:
        let others =
            IBV_QP_EX_WITH_SEND_WITH_INV.rawValue | IBV_QP_EX_WITH_RDMA_READ.rawValue
            | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP.rawValue
            | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD.rawValue
        return sends | writes | windows | UInt64(others) | PlacementOperations.all
    case IBV_QPT_XRC_SEND: return sendOperations(IBV_QPT_RC) & ~PlacementOperations.all
    case IBV_QPT_XRC_RECV: return 0
    case IBV_QPT_UC: return sends | writes | windows
    default: return sends
    }
}

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkQueuePair(attr.pointee, context, operations: sendOperations, supportsXRC: true)
    guard refusal == 0 else { return failure(refusal) }
    let isReceiver = attr.pointee.qp_type == IBV_QPT_XRC_RECV
    let domain = isReceiver ? nil : attr.pointee.pd?.domain
    var specification =
        isReceiver
        ? QueuePairInitAttributes(xrcDomain: attr.pointee.xrcd.soft.pointee.domain)
        : QueuePairInitAttributes(attr.pointee)
    let hasReceiveQueue = attr.pointee.srq == nil && attr.pointee.qp_type != IBV_QPT_XRC_SEND
    let excess = specification.capabilities.refusal(hasReceiveQueue: hasReceiveQueue)
    guard excess == 0 else { return failure(excess) }

    let pair = QueuePairPointer.allocate(capacity: 1)
    specification.userData = UnsafeMutableRawPointer(pair)
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let made = try soft.pointee.engine.createQueuePair(specification)
        pair.initialize(
            to: SoftQueuePair(
                pair: made, isExtended: attr.pointee.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0,
                signalsAll: specification.sqSigAll, isSingleThreaded: domain?.pointee.isSingleThreaded ?? false))
    } catch {
        pair.deallocate()
        guard error == .noMemory else { return failure(error.rawValue) }
        return failure(tooMany("queue pairs", DeviceLimits.queuePairs, "max_qp, maxQueuePairs"))
    }
    pair.begin(context, attr)
    if pair.pointee.isExtended {
        let base = UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self)
        fillBuilders(base, operations: attr.pointee.send_ops_flags)
    }
    attr.pointee.cap = ibv_qp_cap(pair.pointee.pair.capabilities)
    domain?.retain()
    return pair.verbs
}

extension QueuePairInitAttributes {
    /// The attributes of a queue pair with a send queue.
    fileprivate init(_ attr: ibv_qp_init_attr_ex) {
        self.init(
            type: QueuePairType(rawValue: attr.qp_type.rawValue), domain: attr.pd.domain.engine,
            completions: attr.send_cq.soft.pointee.queue, capabilities: QueuePairCapabilities(attr.cap))
        if let queue = attr.recv_cq { receiveCQ = queue.soft.pointee.queue }
        sharedReceiveQueue = attr.srq?.soft.pointee.queue
        sqSigAll = attr.sq_sig_all != 0
    }
}

func queuePairToExtended(qp: UnsafeMutablePointer<ibv_qp>?) -> UnsafeMutablePointer<ibv_qp_ex>? {
    guard let qp, qp.soft.pointee.isExtended else { return nil }
    return UnsafeMutableRawPointer(qp).assumingMemoryBound(to: ibv_qp_ex.self)
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    guard let qp else { return EINVAL }
    let pair = qp.soft
    let context = pair.context
    let number = qp.pointee.qp_num
    let isAttached = pair.whileQuiet {
        if context.pointee.engine.isAttached(pair.pointee.pair) { return true }
        if !pair.leave() { context.pointee.engine.destroy(pair.pointee.pair) }
        return false
    }
    if isAttached { return refusal(EBUSY, "the queue pair is attached to a multicast group: detach it first") }
    context.awaitRequesters(of: number)
    let read = context.pointee.asyncEvents.drop(pair.pointee.eventsRead.others) {
        $0.pointee.subject == .queuePair && $0.pointee.element.qp == qp
    }
    rdma_wait_qp_events(qp, read)
    if qp.pointee.qp_type != IBV_QPT_XRC_RECV { qp.pointee.pd.domain.release() }
    rdma_fini_qp(qp)
    pair.deinitialize(count: 1)
    pair.deallocate()
    return 0
}

extension QueuePairCapabilities {
    init(_ cap: ibv_qp_cap) {
        self.init(
            maxSendWR: cap.max_send_wr, maxReceiveWR: cap.max_recv_wr, maxSendSGE: cap.max_send_sge,
            maxReceiveSGE: cap.max_recv_sge, maxInlineData: cap.max_inline_data)
    }
}

extension ibv_qp_cap {
    init(_ capabilities: QueuePairCapabilities) {
        self.init(
            max_send_wr: capabilities.maxSendWR, max_recv_wr: capabilities.maxReceiveWR,
            max_send_sge: capabilities.maxSendSGE, max_recv_sge: capabilities.maxReceiveSGE,
            max_inline_data: capabilities.maxInlineData)
    }
}
