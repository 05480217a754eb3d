import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A shared receive queue (`ibv_srq`).
struct SoftSharedReceiveQueue: ~Copyable {
    var base = ibv_srq()
    private let room = ObjectRoom()
    let queue: SharedReceiveQueue
    let lock: Lock
    let eventsRead = EventsRead()

    init(queue: SharedReceiveQueue, isSingleThreaded: Bool) {
        self.queue = queue
        lock = Lock(isSkipped: isSingleThreaded)
    }

    deinit { eventsRead.deallocate() }
}

typealias SharedReceiveQueuePointer = UnsafeMutablePointer<SoftSharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    @inline(__always)
    var soft: SharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftSharedReceiveQueue.self)
    }
}

extension SharedReceiveQueuePointer {
    var verbs: UnsafeMutablePointer<ibv_srq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self)
    }

    var context: ContextPointer { pointee.base.context.soft }
}

extension SharedReceiveQueue {
    /// The public object of a shared receive queue of the engine.
    var soft: SharedReceiveQueuePointer? { userData?.assumingMemoryBound(to: SoftSharedReceiveQueue.self) }
}

func createSharedReceiveQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_srq>? {
    guard let context, let attr else { return failure(EINVAL) }
    let isExtended =
        attr.pointee.comp_mask & IBV_SRQ_INIT_ATTR_TYPE.rawValue != 0 && attr.pointee.srq_type == IBV_SRQT_XRC
    let refusal =
        isExtended
        ? checkExtendedSharedReceiveQueue(attr.pointee, context)
        : checkBasicSharedReceiveQueue(attr.pointee, context)
    guard refusal == 0, let pd = attr.pointee.pd else { return failure(refusal) }
    let excess = sizeRefusal(attr.pointee.attr)
    guard excess == 0 else { return failure(excess) }
    let queue = SharedReceiveQueuePointer.allocate(capacity: 1)
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let made = try soft.pointee.engine.create(
            pd.domain.engine, attr.pointee, isExtended: isExtended, userData: UnsafeMutableRawPointer(queue))
        queue.initialize(
            to: SoftSharedReceiveQueue(queue: made, isSingleThreaded: pd.domain.pointee.isSingleThreaded))
    } catch {
        queue.deallocate()
        guard error == .noMemory else { return failure(error.rawValue) }
        return failure(tooMany("shared receive queues", DeviceLimits.extendedReceiveQueues, "of type IBV_SRQT_XRC"))
    }
    rdma_init_srq(queue.verbs, context, attr)
    pd.domain.retain()
    return queue.verbs
}

extension Engine {
    fileprivate borrowing func create(
        _ domain: ProtectionDomain, _ attr: ibv_srq_init_attr_ex, isExtended: Bool, userData: UnsafeMutableRawPointer
    ) throws(RoCETransport.Errno) -> SharedReceiveQueue {
        guard isExtended else {
            return try createSharedReceiveQueue(
                domain, maxWR: attr.attr.max_wr, maxSGE: attr.attr.max_sge, userData: userData)
        }
        return try createSharedReceiveQueue(
            domain, xrcDomain: attr.xrcd.soft.pointee.domain, completions: attr.cq.soft.pointee.queue,
            maxWR: attr.attr.max_wr, maxSGE: attr.attr.max_sge, userData: userData)
    }
}

/// Checks the sizes. Returns 0, or EINVAL for one that is out of range.
private func sizeRefusal(_ attr: ibv_srq_attr) -> Int32 {
    if attr.max_wr < 1 { return refusal(EINVAL, "max_wr must be at least 1") }
    if attr.max_wr > Limits.maxWR {
        return overLimit("max_wr", attr.max_wr, "max_srq_wr", Int(Limits.maxWR))
    }
    if attr.max_sge > Limits.maxSGE {
        return overLimit("max_sge", attr.max_sge, "max_srq_sge", Int(Limits.maxSGE))
    }
    return 0
}

func modifySharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?, mask: Int32
) -> Int32 {
    guard let queue = srq?.soft, let attr else { return EINVAL }
    let wanted = UInt32(bitPattern: mask)
    guard wanted & ~(IBV_SRQ_LIMIT.rawValue | IBV_SRQ_MAX_WR.rawValue) == 0 else {
        return refusal(EINVAL, "the mask has bits that enum ibv_srq_attr_mask lacks")
    }
    if wanted == 0 { return 0 }
    let resizes = wanted & IBV_SRQ_MAX_WR.rawValue != 0
    let setsLimit = wanted & IBV_SRQ_LIMIT.rawValue != 0
    if resizes && attr.pointee.max_wr > Limits.maxWR {
        return overLimit("max_wr", attr.pointee.max_wr, "max_srq_wr", Int(Limits.maxWR))
    }
    // Posting threads take the lock of the queue.
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    let context = queue.context
    context.lockForControl()
    defer { context.unlock() }
    let capacity = resizes ? Int(attr.pointee.max_wr) : queue.pointee.queue.capacity
    if setsLimit && attr.pointee.srq_limit > UInt32(capacity) {
        return overLimit("srq_limit", attr.pointee.srq_limit, "max_wr", capacity)
    }
    return context.change(queue.pointee.queue, attr.pointee, resizes: resizes, setsLimit: setsLimit)
}

extension ContextPointer {
    /// Sets the size and the limit of a shared receive queue, both or neither. Under the lock.
    fileprivate func change(
        _ queue: SharedReceiveQueue, _ attr: ibv_srq_attr, resizes: Bool, setsLimit: Bool
    ) -> Int32 {
        let before = pointee.engine.limit(of: queue)
        do {
            if setsLimit { try pointee.engine.setLimit(of: queue, to: 0) }
            if resizes { try pointee.engine.resize(queue, maxWR: attr.max_wr) }
            if setsLimit { try pointee.engine.setLimit(of: queue, to: attr.srq_limit) }
            return 0
        } catch {
            // The old limit is within the old size.
            if setsLimit { try? pointee.engine.setLimit(of: queue, to: before) }
            return refusal(
                EINVAL, "max_wr must be 1 at least, and no less than the posted work requests and the srq_limit")
        }
    }
}

func querySharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?
) -> Int32 {
    guard let queue = srq?.soft, let attr else { return EINVAL }
    let context = queue.context
    context.lockForControl()
    defer { context.unlock() }
    attr.pointee.max_wr = UInt32(queue.pointee.queue.capacity)
    attr.pointee.max_sge = UInt32(queue.pointee.queue.maxSGE)
    attr.pointee.srq_limit = context.pointee.engine.limit(of: queue.pointee.queue)
    return 0
}

func destroySharedReceiveQueue(srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    guard let srq else { return EINVAL }
    let queue = srq.soft
    let context = queue.context
    context.lockForControl()
    do {
        try context.pointee.engine.destroy(queue.pointee.queue)
    } catch {
        context.unlock()
        return refusal(error.rawValue, "queue pairs still receive from it: destroy them first")
    }
    context.unlock()
    let read = context.pointee.asyncEvents.drop(queue.pointee.eventsRead.others) {
        $0.pointee.subject == .sharedReceiveQueue && $0.pointee.element.srq == srq
    }
    rdma_wait_srq_events(srq, read)
    srq.pointee.pd.domain.release()
    rdma_fini_srq(srq)
    queue.deinitialize(count: 1)
    queue.deallocate()
    return 0
}

// MARK: - Data path

func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    guard let queue = srq?.soft else { return EINVAL }
    if linux_is_forked_child() {
        bad?.pointee = first
        return EPERM
    }
    var request = first
    var error = RoCETransport.Errno.success
    queue.pointee.lock.lock()
    while let current = request {
        error = queue.pointee.queue.stageReceive(
            id: current.pointee.wr_id, sgList: current.pointee.sgList, count: Int(current.pointee.num_sge))
        if error != .success { break }
        request = current.pointee.next
    }
    queue.pointee.queue.commitReceives()
    queue.pointee.lock.unlock()
    if error != .success { bad?.pointee = request }
    return error.rawValue
}

extension ibv_recv_wr {
    /// The list of SGEs: `struct ibv_sge` has the engine's layout (a test compares them).
    @inline(__always)
    var sgList: UnsafePointer<SGE>? {
        UnsafeRawPointer(sg_list)?.assumingMemoryBound(to: SGE.self)
    }
}
