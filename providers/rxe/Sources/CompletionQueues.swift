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
    /// Makes the queue in the kernel, and maps it.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var answer = rxe_create_cq_resp()
        let made = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.createCompletionQueue(
                request(entries: attr.cqe, vector: attr.comp_vector), driver: driver)
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
    resizeNativeCompletionQueue(cq, cqe) { queue, entries throws(KernelError) in try queue.resize(entries) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) { $0.completions.pointee.ring.unmap() }
}
