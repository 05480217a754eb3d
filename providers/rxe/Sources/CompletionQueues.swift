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
    let attr = completionQueueAttributes(entries: cqe, context: cqContext, channel: channel, vector: vector)
    return createNativeCompletionQueue(
        context, attr, allocate: CompletionQueuePointer.allocate,
        make: { queue, attr throws(KernelError) in try queue.make(attr) })
}

func createExtendedCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    createNativeExtendedCompletionQueue(
        context, attr, fields: supportedCompletionFlags,
        allocate: CompletionQueuePointer.allocate,
        make: { queue, attr throws(KernelError) in try queue.make(attr) }, fillPolling: fillExtendedPolling)
}

extension CompletionQueuePointer {
    /// Creates the queue in the kernel, and maps it.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var response = rxe_create_cq_resp()
        let created = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(
                request(entries: attr.cqe, vector: attr.comp_vector), driver: driver)
        }
        do {
            attach(try Ring(mapping: response.mi, of: context, entrySize: Int32(RXE_COMPLETION_SIZE)))
        } catch {
            _ = try? context.pointee.kernel.destroyCompletionQueue(created.handle)
            throw error
        }
        pointee.base.handle = created.handle
        pointee.base.cqe = Int32(bitPattern: created.entries)
    }

    /// Resizes the queue. The caller holds the lock; a batch of extended polling may be open.
    fileprivate func resize(_ entries: UInt32) throws(KernelError) {
        let isInBatch = pointee.lock.hasBatch()
        if isInBatch { completions.prepareToMove() }
        var response = rxe_resize_cq_resp()
        let capacity = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.kernel.resizeCompletionQueue(pointee.base.handle, entries: entries, driver: driver)
        }
        // The kernel has moved the CQEs to the new queue, and writes further ones there.
        let old = completions.pointee.ring
        completions.pointee.ring = .absent
        // The read_ functions access the current CQE in the old ring until `move` finds it in the new one.
        if isInBatch { completions.pointee.replacedRing = old } else { old.unmap() }
        let new = try Ring(mapping: response.mi, of: context, entrySize: Int32(RXE_COMPLETION_SIZE))
        if isInBatch {
            completions.pointee.replacedRing = .absent
            old.unmap()
        }
        completions.move(to: new, isInBatch: isInBatch)
        pointee.base.cqe = Int32(bitPattern: capacity)
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    resizeNativeCompletionQueue(cq, cqe) { queue, entries throws(KernelError) in try queue.resize(entries) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) {
        $0.completions.pointee.ring.unmap()
        $0.completions.pointee.replacedRing.unmap()
    }
}
