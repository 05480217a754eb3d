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

extension CompletionQueuePointer {
    /// Creates the queue in the kernel, and maps it.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var mmapOffset: UInt64 = 0
        let created = try DriverData.response(&mmapOffset) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(
                request(entries: attr.cqe, vector: attr.comp_vector), driver: driver)
        }
        do throws(KernelError) {
            try map(mmapOffset, entries: created.entries)
        } catch {
            _ = try? context.pointee.kernel.destroyCompletionQueue(created.handle)
            throw error
        }
        pointee.base.handle = created.handle
    }

    private func map(_ mmapOffset: UInt64, entries: UInt32) throws(KernelError) {
        guard entries > 0, entries < UInt32(Int32.max) else { throw KernelError.unknownLayout() }
        let mapping = try Mapping(
            offset: mmapOffset, entryCount: Int(entries) + 1, entrySize: Int(RVT_COMPLETION_SIZE), of: context)
        completions.pointee = CompletionRing(mapping: mapping, entries: entries)
        pointee.base.cqe = Int32(bitPattern: entries)
    }

    /// Resizes the queue. The caller holds the lock.
    fileprivate func resize(_ entries: UInt32) throws(KernelError) {
        var mmapOffset: UInt64 = 0
        let capacity = try DriverData.response(&mmapOffset) { driver throws(KernelError) in
            try context.pointee.kernel.resizeCompletionQueue(pointee.base.handle, entries: entries, driver: driver)
        }
        // The kernel has moved the CQEs to the new queue, and writes further ones there.
        let old = completions.pointee.mapping
        completions.pointee = CompletionRing()
        old.unmap()
        try map(mmapOffset, entries: capacity)
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    resizeNativeCompletionQueue(cq, cqe) { queue, entries throws(KernelError) in try queue.resize(entries) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) { $0.completions.pointee.mapping.unmap() }
}
