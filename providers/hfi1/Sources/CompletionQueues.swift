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
    /// Makes the queue in the kernel, and maps it.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var offer: UInt64 = 0
        let made = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(
                request(entries: attr.cqe, vector: attr.comp_vector), driver: driver)
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
    resizeNativeCompletionQueue(cq, cqe) { queue, entries throws(KernelError) in try queue.resize(entries) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) { $0.completions.pointee.mapping.unmap() }
}
