import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A completion queue. The public struct is `ibv_cq_ex`, which begins with the members of `ibv_cq`.
struct SoftCompletionQueue: ~Copyable {
    var base = ibv_cq_ex()
    private let room = ObjectRoom()
    let queue: CompletionQueue
    let channel: ChannelPointer?
    /// Guards polling, resizing, and the removal of a queue pair's completions.
    let lock: CompletionQueueLock
    let eventsRead = EventsRead()

    init(queue: CompletionQueue, channel: ChannelPointer?, isSingleThreaded: Bool) {
        self.queue = queue
        self.channel = channel
        lock = CompletionQueueLock(isSkipped: isSingleThreaded)
    }

    deinit { eventsRead.deallocate() }
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
    /// The public object of a completion queue of the engine.
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
    let attr = completionQueueAttributes(entries: cqe, context: cqContext, channel: channel, vector: vector)
    return makeCompletionQueue(context, attr, fields: 0)?.verbs
}

func createExtendedCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    guard let queue = makeCompletionQueue(context, attr?.pointee, fields: supportedCompletionFlags) else { return nil }
    let extended = UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq_ex.self)
    fillExtendedPolling(extended, attr?.pointee.wc_flags ?? 0)
    return extended
}

private func makeCompletionQueue(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: ibv_cq_init_attr_ex?, fields: UInt64
) -> CompletionQueuePointer? {
    guard let context, let attr else { return failure(EINVAL) }
    let (refusal, isSingleThreaded) = checkCompletionQueue(attr, context, fields: fields, ignoresOverrun: true)
    guard refusal == 0 else { return failure(refusal) }
    guard attr.cqe <= Limits.maxCQE else {
        return failure(overLimit("cqe", attr.cqe, "max_cqe", Int(Limits.maxCQE)))
    }
    let queue = CompletionQueuePointer.allocate(capacity: 1)
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let made = try soft.pointee.engine.createCompletionQueue(
            capacity: attr.cqe, userData: UnsafeMutableRawPointer(queue),
            clock: attr.wc_flags & timestampFlags != 0 ? linux_monotonic_ns : nil,
            ignoresOverrun: attr.ignoresOverrun, hasEvents: attr.channel != nil)
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
    guard let queue = cq?.soft else { return EINVAL }
    guard cqe >= 1 else { return refusal(EINVAL, "a completion queue has one entry at least") }
    guard cqe <= Limits.maxCQE else { return overLimit("cqe", cqe, "max_cqe", Int(Limits.maxCQE)) }
    let context = queue.context
    return whileNotPolled(queue.pointee.lock, queue.pointee.lock) {
        context.lockForControl()
        defer { context.unlock() }
        do throws(RoCETransport.Errno) {
            try context.pointee.engine.resize(queue.pointee.queue, capacity: UInt32(cqe))
        } catch {
            return refusal(error.rawValue, "more completions wait in the queue than would fit: poll them first")
        }
        queue.pointee.base.cqe = cqe
        return 0
    }
}

/// `ibv_modify_cq`: the moderation of completion events.
func modifyCompletionQueue(
    cq: UnsafeMutablePointer<ibv_cq>?, attr: UnsafeMutablePointer<ibv_modify_cq_attr>?
) -> Int32 {
    guard let queue = cq?.soft, let attr else { return EINVAL }
    guard attr.pointee.attr_mask & ~IBV_CQ_ATTR_MODERATE.rawValue == 0 else {
        return refusal(EINVAL, "attr_mask has bits that enum ibv_cq_attr_mask lacks")
    }
    if attr.pointee.attr_mask == 0 { return 0 }
    let moderation = attr.pointee.moderate
    let context = queue.context
    context.lockForControl()
    context.pointee.engine.moderate(
        queue.pointee.queue, count: moderation.cq_count, period: UInt64(moderation.cq_period) * 1000)
    context.dispatchEvents()
    context.unlock()
    return 0
}

extension ibv_cq_init_attr_ex {
    /// Whether `IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN` is set.
    fileprivate var ignoresOverrun: Bool {
        comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0 && flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue != 0
    }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    guard let cq else { return EINVAL }
    let queue = cq.soft
    guard !queue.pointee.lock.hasBatch() else { return EBUSY }
    let context = queue.context
    context.lockForControl()
    do {
        try context.pointee.engine.destroy(queue.pointee.queue)
    } catch {
        context.unlock()
        return refusal(
            error.rawValue, "queue pairs still complete there, or shared receive queues for XRC: destroy them first")
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
