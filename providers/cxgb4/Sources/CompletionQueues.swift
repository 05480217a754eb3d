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
        context, attr, fields: supportedCompletionFlags, allocate: CompletionQueuePointer.allocate,
        make: { queue, attr throws(KernelError) in try queue.make(attr) }, fillPolling: fillExtendedPolling)
}

extension CompletionQueuePointer {
    /// Creates the completion queue in the kernel, and maps its memory.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        var command = c4iw_create_cq()
        command.flags = UInt32(C4IW_64B_CQE)
        var response = c4iw_create_cq_resp()
        let made = try DriverData.exchange(command, &response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createCompletionQueue(
                request(entries: attr.cqe, vector: attr.comp_vector), driver: driver)
        }
        do throws(KernelError) {
            try map(response)
        } catch {
            _ = try? context.pointee.native.kernel.destroyCompletionQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
        pointee.base.cqe = Int32(bitPattern: made.entries)
    }

    private func map(_ response: c4iw_create_cq_resp) throws(KernelError) {
        // An older kernel does not set the flag.
        let hasLargeCQEs = response.flags & UInt32(C4IW_64B_CQE) != 0
        let cqeSize = hasLargeCQEs ? 64 : 32
        guard response.size >= 16, response.size < 1 << 16 else { throw KernelError.unknownLayout() }
        let memory = try Mapping(
            queueAt: response.key, byteCount: response.memsize, least: (Int(response.size) + 1) * cqeSize,
            context.pointee.native.kernel)
        let page: Mapping
        do throws(KernelError) {
            page = try Mapping(registersAt: response.gts_key, context.pointee.native.kernel)
        } catch {
            memory.unmap()
            throw error
        }
        ring.initialize(
            to: CompletionRing(
                memory: memory.start, byteCount: memory.byteCount, entries: response.size, hasLargeCQEs: hasLargeCQEs,
                registerPage: page.start, isT4: context.pointee.isT4, number: response.cqid & response.qid_mask,
                context: context))
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    refusal(EOPNOTSUPP, "cxgb4 does not resize completion queues: make another one of the wanted size")
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) { $0.ring.pointee.free() }
}
