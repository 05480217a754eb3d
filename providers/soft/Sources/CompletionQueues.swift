import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A completion queue. The public struct is the extended one, whose beginning is the plain one.
struct SoftCompletionQueue: ~Copyable {
    var base = ibv_cq_ex()
    let queue: CompletionQueue
    let channel: ChannelPointer?
    let lock: Lock
    /// Between start_poll and end_poll: the entry at the front is the user's. In memory of its own, for the reason that
    /// `SoftContext.guarded` is.
    let showsEntry: UnsafeMutablePointer<Bool>
    let eventsRead = EventsRead()

    init(queue: CompletionQueue, channel: ChannelPointer?, isSingleThreaded: Bool) {
        self.queue = queue
        self.channel = channel
        lock = Lock(isSkipped: isSingleThreaded)
        showsEntry = .allocate(capacity: 1)
        showsEntry.initialize(to: false)
    }

    deinit {
        showsEntry.deallocate()
        eventsRead.deallocate()
    }
}

typealias CompletionQueuePointer = UnsafeMutablePointer<SoftCompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    @inline(__always)
    var soft: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftCompletionQueue.self)
    }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    @inline(__always)
    var soft: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftCompletionQueue.self)
    }
}

extension CompletionQueue {
    /// The public object of the engine's.
    var soft: CompletionQueuePointer? { userData?.assumingMemoryBound(to: SoftCompletionQueue.self) }
}

extension CompletionQueuePointer {
    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_cq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self)
    }

    @inline(__always)
    var context: ContextPointer { pointee.base.context.soft }
}

func createCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, cqe: Int32, cqContext: UnsafeMutableRawPointer?,
    channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> UnsafeMutablePointer<ibv_cq>? {
    guard let context, cqe >= 0 else { return failure(EINVAL) }
    var attr = ibv_cq_init_attr_ex()
    attr.cqe = UInt32(cqe)
    attr.cq_context = cqContext
    attr.channel = channel
    attr.comp_vector = UInt32(bitPattern: vector)
    return makeCompletionQueue(context, attr, isSingleThreaded: false)?.verbs
}

func createExtendedCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    guard let context, let attr else { return failure(EINVAL) }
    let mask = attr.pointee.comp_mask
    let hasFlags = mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0
    let hasDomain = mask & IBV_CQ_INIT_ATTR_MASK_PD.rawValue != 0
    let flags = hasFlags ? attr.pointee.flags : 0
    let single = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
    // A queue that overruns takes no more entries, whatever the user says: IGNORE_OVERRUN is not served.
    guard mask & ~(IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue | IBV_CQ_INIT_ATTR_MASK_PD.rawValue) == 0,
        flags & ~single == 0, attr.pointee.wc_flags & ~supportedCompletionFlags == 0
    else { return failure(EOPNOTSUPP) }
    if hasDomain && attr.pointee.parent_domain == nil { return failure(EINVAL) }
    let isSingleThreaded =
        flags & single != 0 || (hasDomain && attr.pointee.parent_domain.domain.pointee.isSingleThreaded)
    guard let queue = makeCompletionQueue(context, attr.pointee, isSingleThreaded: isSingleThreaded) else {
        return nil
    }
    let public_ = UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq_ex.self)
    fillExtendedPolling(public_)
    return public_
}

private func makeCompletionQueue(
    _ context: UnsafeMutablePointer<ibv_context>, _ attr: ibv_cq_init_attr_ex, isSingleThreaded: Bool
) -> CompletionQueuePointer? {
    guard attr.cqe >= 1, attr.cqe <= Limits.completions, attr.comp_vector < DeviceLimits.completionVectors else {
        return failure(EINVAL)
    }
    if let channel = attr.channel, channel.pointee.context != context { return failure(EINVAL) }
    let queue = CompletionQueuePointer.allocate(capacity: 1)
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let made = try soft.pointee.engine.createCompletionQueue(
            capacity: attr.cqe, userData: UnsafeMutableRawPointer(queue))
        queue.initialize(
            to: SoftCompletionQueue(queue: made, channel: attr.channel?.soft, isSingleThreaded: isSingleThreaded))
    } catch {
        queue.deallocate()
        return failure(error.rawValue)
    }
    rdma_init_cq(queue.verbs, context, attr.channel, attr.cq_context, Int32(attr.cqe))
    return queue
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    guard let queue = cq?.soft, cqe >= 1, cqe <= Limits.completions else { return EINVAL }
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    let context = queue.context
    context.lockForControl()
    defer { context.unlock() }
    do {
        try context.pointee.engine.resize(queue.pointee.queue, capacity: UInt32(cqe))
    } catch {
        return error.rawValue
    }
    queue.pointee.base.cqe = cqe
    return 0
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    guard let cq else { return EINVAL }
    let queue = cq.soft
    let context = queue.context
    context.lockForControl()
    do {
        try context.pointee.engine.destroy(queue.pointee.queue)
    } catch {
        context.unlock()
        return error.rawValue
    }
    context.unlock()

    let read = queue.pointee.eventsRead
    let completions = queue.pointee.channel.map { channel in
        channel.pointee.events.drop(read.completions) { $0.pointee.element.cq == cq }
    }
    let others = context.pointee.asyncEvents.drop(read.others) {
        $0.pointee.subject == .completionQueue && $0.pointee.element.cq == cq
    }
    rdma_wait_cq_events(cq, completions ?? 0, others)
    rdma_fini_cq(cq)
    queue.deinitialize(count: 1)
    queue.deallocate()
    return 0
}
