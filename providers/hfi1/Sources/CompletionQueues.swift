import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, cqe: Int32, cqContext: UnsafeMutableRawPointer?,
    channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> UnsafeMutablePointer<ibv_cq>? {
    guard let context, cqe > 0, vector >= 0, vector < context.pointee.num_comp_vectors,
        channel == nil || channel?.pointee.context == context
    else { return failure(EINVAL) }
    let queue = CompletionQueuePointer.allocate()
    rdma_init_cq(queue.verbs, context, channel, cqContext, cqe)
    do throws(KernelError) {
        try queue.make(entries: UInt32(cqe), vector: UInt32(vector))
        return queue.verbs
    } catch {
        rdma_fini_cq(queue.verbs)
        queue.free()
        return failure(error.rawValue)
    }
}

extension CompletionQueuePointer {
    /// Makes the queue in the kernel, and maps it.
    fileprivate func make(entries: UInt32, vector: UInt32) throws(KernelError) {
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(self), entries: entries,
            asyncDescriptor: context.pointee.opened.asyncDescriptor)
        request.channel = pointee.base.channel?.pointee.fd
        request.vector = vector
        var offer: UInt64 = 0
        let made = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(request, driver: driver)
        }
        do throws(KernelError) {
            try map(offer, entries: made.entries)
        } catch {
            _ = try? context.pointee.kernel.destroyCompletionQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
    }

    private func map(_ offer: UInt64, entries: UInt32) throws(KernelError) {
        guard entries > 0, entries < UInt32(Int32.max) else { throw KernelError(rawValue: EPROTO) }
        let mapping = try Mapping(
            offer: offer, places: Int(entries) + 1, size: Int(RVT_COMPLETION_SIZE), of: context)
        completions.pointee = CompletionRing(mapping: mapping, entries: entries)
        pointee.base.cqe = Int32(bitPattern: entries)
    }

    /// Under the lock.
    fileprivate func resize(_ entries: UInt32) throws(KernelError) {
        var offer: UInt64 = 0
        let room = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.resizeCompletionQueue(pointee.base.handle, entries: entries, driver: driver)
        }
        // From here on the kernel writes to the new queue, into which it has moved what was in the old one.
        let old = completions.pointee.mapping
        completions.pointee = CompletionRing()
        old.unmap()
        try map(offer, entries: room)
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    guard let queue = cq?.hfi1, cqe > 0 else { return EINVAL }
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    return errno { () throws(KernelError) in try queue.resize(UInt32(cqe)) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    guard let queue = cq?.hfi1 else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        let events = try queue.context.pointee.kernel.destroyCompletionQueue(queue.pointee.base.handle)
        if let events { rdma_wait_cq_events(cq, events.completions, events.asynchronous) }
    }
    if refusal != 0 { return refusal }
    queue.completions.pointee.mapping.unmap()
    rdma_fini_cq(cq)
    queue.free()
    return 0
}
