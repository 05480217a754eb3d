import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createSharedReceiveQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_srq>? {
    if let context, !context.cxgb4.pointee.hasSharedReceiveQueues {
        return failure(EOPNOTSUPP, "this device has no shared receive queues: a T6 with the firmware for them has")
    }
    return createNativeSharedReceiveQueue(
        context, attr, allocate: SharedReceiveQueuePointer.allocate,
        make: { queue, limits throws(KernelError) in try queue.make(&limits) })
}

/// The memory of a shared receive queue, and its doorbell page.
struct SharedReceiveResources {
    let memory: Mapping
    let page: Mapping
}

extension SharedReceiveQueuePointer {
    /// Creates the shared receive queue in the kernel, and maps its memory. Writes the actual limits to `limits`.
    fileprivate func make(_ limits: inout ibv_srq_attr) throws(KernelError) {
        guard limits.max_wr > 0, limits.max_sge <= Limits.receiveSGE else { throw .invalidArgument }
        var response = c4iw_create_srq_resp()
        let made = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: limits,
                asyncDescriptor: context.pointee.native.opened.asyncDescriptor, driver: driver)
        }
        do throws(KernelError) {
            try map(response)
        } catch {
            _ = try? context.pointee.native.kernel.destroySharedReceiveQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
        limits.max_wr = response.srq_size - 1
        limits.max_sge = Limits.receiveSGE
        queue.pointee.limit = limits.srq_limit
    }

    private func map(_ response: c4iw_create_srq_resp) throws(KernelError) {
        guard response.srq_size >= 2, response.srq_size <= 1 << 16 else { throw KernelError.unknownLayout() }
        let requestSize = Int(Limits.receiveSlots) * Limits.slotSize
        let page = try Mapping(registersAt: response.srq_db_gts_key, context.pointee.native.kernel)
        let memory: Mapping
        do throws(KernelError) {
            memory = try Mapping(
                queueAt: response.srq_key, byteCount: response.srq_memsize,
                least: Int(response.srq_size) * requestSize + Limits.slotSize, context.pointee.native.kernel)
        } catch {
            page.unmap()
            throw error
        }
        resources.initialize(to: SharedReceiveResources(memory: memory, page: page))
        queue.initialize(
            to: SharedReceives(
                ring: WorkRing(
                    start: memory.start, requests: response.srq_size, slotsPerRequest: Limits.receiveSlots),
                entries: response.srq_size, firstIndex: response.rqt_abs_idx,
                doorbell: Doorbell(
                    page: page.start, queue: response.srqid, mask: response.qid_mask, isT4: context.pointee.isT4,
                    combines: context.pointee.combinesWrites),
                raisesLimitEvent: response.flags & UInt32(T4_SRQ_LIMIT_SUPPORT) != 0))
    }

    /// Has the kernel raise IBV_EVENT_SRQ_LIMIT_REACHED (MODIFY_SRQ without attributes), for an adapter that does not.
    func raiseLimitEvent() {
        _ = errno { () throws(KernelError) in
            try context.pointee.native.kernel.modifySharedReceiveQueue(pointee.base.handle, ibv_srq_attr(), mask: 0)
        }
    }
}

/// `modify_srq`. Only the limit (`IBV_SRQ_LIMIT`) can be changed.
func modifySharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?, mask: Int32
) -> Int32 {
    guard let srq, let attr else { return EINVAL }
    let mask = UInt32(bitPattern: mask)
    guard mask & IBV_SRQ_MAX_WR.rawValue == 0 else {
        return refusal(EOPNOTSUPP, "cxgb4 does not resize shared receive queues: make another one of the wanted size")
    }
    // To the kernel, a command without attributes is the event itself.
    guard mask & IBV_SRQ_LIMIT.rawValue != 0 else { return mask == 0 ? 0 : EOPNOTSUPP }
    let shared = srq.native
    let refusal = errno { () throws(KernelError) in
        try shared.context.pointee.native.kernel.modifySharedReceiveQueue(
            srq.pointee.handle, attr.pointee, mask: mask)
    }
    if refusal == 0 {
        shared.pointee.lock.lock()
        shared.queue.pointee.limit = attr.pointee.srq_limit
        shared.pointee.lock.unlock()
    }
    return refusal
}

func destroySharedReceiveQueue(srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    destroyNativeSharedReceiveQueue(srq) { shared in
        shared.queue.pointee.free()
        shared.resources.pointee.memory.unmap()
        shared.resources.pointee.page.unmap()
    }
}
