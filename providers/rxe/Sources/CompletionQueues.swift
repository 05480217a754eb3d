import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

extension CompletionQueuePointer {
    var context: NativeContextPointer { pointee.base.context.native }
}

func createCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, cqe: Int32, cqContext: UnsafeMutableRawPointer?,
    channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> UnsafeMutablePointer<ibv_cq>? {
    guard let context, cqe > 0, vector >= 0 else { return failure(EINVAL) }
    var attr = ibv_cq_init_attr_ex()
    attr.cqe = UInt32(cqe)
    attr.cq_context = cqContext
    attr.channel = channel
    attr.comp_vector = UInt32(vector)
    return makeCompletionQueue(context, attr, isSingleThreaded: false)?.verbs
}

func createExtendedCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    guard let context, let attr else { return failure(EINVAL) }
    let mask = attr.pointee.comp_mask
    let hasDomain = mask & IBV_CQ_INIT_ATTR_MASK_PD.rawValue != 0
    let flags = mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0 ? attr.pointee.flags : 0
    let single = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
    guard mask & ~(IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue | IBV_CQ_INIT_ATTR_MASK_PD.rawValue) == 0,
        flags & ~single == 0, attr.pointee.wc_flags & ~supportedCompletionFlags == 0
    else { return failure(EOPNOTSUPP) }
    if hasDomain && attr.pointee.parent_domain == nil { return failure(EINVAL) }
    let isSingleThreaded =
        flags & single != 0 || (hasDomain && attr.pointee.parent_domain.domain.pointee.isSingleThreaded)
    guard let queue = makeCompletionQueue(context, attr.pointee, isSingleThreaded: isSingleThreaded) else {
        return nil
    }
    let extended = UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq_ex.self)
    fillExtendedPolling(extended)
    return extended
}

private func makeCompletionQueue(
    _ context: UnsafeMutablePointer<ibv_context>, _ attr: ibv_cq_init_attr_ex, isSingleThreaded: Bool
) -> CompletionQueuePointer? {
    guard attr.cqe > 0, attr.cqe <= UInt32(Int32.max),
        attr.comp_vector < UInt32(context.pointee.num_comp_vectors),
        attr.channel == nil || attr.channel.pointee.context == context
    else { return failure(EINVAL) }
    let queue = CompletionQueuePointer.allocate(isSingleThreaded: isSingleThreaded)
    rdma_init_cq(queue.verbs, context, attr.channel, attr.cq_context, Int32(attr.cqe))
    do {
        try queue.make(attr)
        return queue
    } catch {
        rdma_fini_cq(queue.verbs)
        queue.free()
        return failure(error.rawValue)
    }
}

extension CompletionQueuePointer {
    /// Makes the queue in the kernel, and maps it.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(self), entries: attr.cqe,
            asyncDescriptor: context.pointee.opened.asyncDescriptor)
        request.channel = attr.channel?.pointee.fd
        request.vector = attr.comp_vector
        var answer = rxe_create_cq_resp()
        let made = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(request, driver: driver)
        }
        do {
            attach(try Ring(mapping: answer.mi, of: context, entrySize: Int32(RXE_COMPLETION_SIZE)))
        } catch {
            _ = try? context.pointee.kernel.destroyCompletionQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
        pointee.base.cqe = Int32(bitPattern: made.entries)
    }

    /// Under the lock.
    fileprivate func resize(_ entries: UInt32) throws(KernelError) {
        var answer = rxe_resize_cq_resp()
        let room = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.resizeCompletionQueue(pointee.base.handle, entries: entries, driver: driver)
        }
        // From here on the kernel writes to the new queue, into which it has moved what was in the old one.
        let old = completions.pointee.ring
        completions.pointee.ring = .absent
        old.unmap()
        attach(try Ring(mapping: answer.mi, of: context, entrySize: Int32(RXE_COMPLETION_SIZE)))
        pointee.base.cqe = Int32(bitPattern: room)
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    guard let queue = cq?.rxe, cqe > 0 else { return EINVAL }
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    do {
        try queue.resize(UInt32(cqe))
        return 0
    } catch {
        return error.rawValue
    }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    guard let queue = cq?.rxe else { return EINVAL }
    do {
        let events = try queue.context.pointee.kernel.destroyCompletionQueue(queue.pointee.base.handle)
        if let events { rdma_wait_cq_events(cq, events.completions, events.asynchronous) }
    } catch {
        return error.rawValue
    }
    queue.completions.pointee.ring.unmap()
    rdma_fini_cq(cq)
    queue.free()
    return 0
}
