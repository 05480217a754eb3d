import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

extension SharedReceiveQueuePointer {
    var context: NativeContextPointer { pointee.base.context.native }
}

func createSharedReceiveQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_srq>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkBasicSharedReceiveQueue(attr.pointee, context)
    guard refusal == 0, let pd = attr.pointee.pd else { return failure(refusal) }
    let queue = SharedReceiveQueuePointer.allocate(isSingleThreaded: pd.domain.pointee.isSingleThreaded)
    rdma_init_srq(queue.verbs, context, attr)
    do {
        try queue.make(&attr.pointee.attr)
        pd.domain.retain()
        return queue.verbs
    } catch {
        rdma_fini_srq(queue.verbs)
        queue.free()
        return failure(error.rawValue)
    }
}

extension SharedReceiveQueuePointer {
    /// Makes the queue in the kernel, and maps it. The true limits are written back.
    fileprivate func make(_ limits: inout ibv_srq_attr) throws(KernelError) {
        var answer = rxe_create_srq_resp()
        let made = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: limits,
                asyncDescriptor: context.pointee.opened.asyncDescriptor, driver: driver)
        }
        do {
            try map(answer.mi, elements: made.maximumElements)
        } catch {
            _ = try? context.pointee.kernel.destroySharedReceiveQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
        limits.max_wr = made.maximumRequests
        limits.max_sge = made.maximumElements
    }

    private func map(_ offer: mminfo, elements: UInt32) throws(KernelError) {
        let ring = try Ring(mapping: offer, of: context, entrySize: Int32(RXE_RECEIVE_DATA))
        guard attach(ring, maximumElements: elements) else {
            ring.unmap()
            throw KernelError(rawValue: EPROTO)
        }
    }

    /// Changes what the mask names, to a queue of other size perhaps. Under the lock.
    fileprivate func modify(_ attributes: ibv_srq_attr, mask: UInt32) throws(KernelError) {
        var offer = mminfo()
        try withUnsafeMutablePointer(to: &offer) { offer throws(KernelError) in
            // The driver always wants its bytes: the address to which it writes where the new queue is mapped.
            var command = rxe_modify_srq_cmd(mmap_info_addr: UInt64(UInt(bitPattern: offer)))
            try withUnsafeMutablePointer(to: &command) { command throws(KernelError) in
                let bytes = UnsafeRawBufferPointer(start: command, count: MemoryLayout<rxe_modify_srq_cmd>.size)
                try context.pointee.kernel.modifySharedReceiveQueue(
                    pointee.base.handle, attributes, mask: mask, driver: DriverData(input: bytes))
            }
        }
        guard mask & IBV_SRQ_MAX_WR.rawValue != 0 else { return }
        let elements = receives.pointee.maximumElements
        let old = receives.pointee.ring
        receives.pointee.ring = .absent
        old.unmap()
        try map(offer, elements: elements)
    }
}

func modifySharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?, mask: Int32
) -> Int32 {
    guard let queue = srq?.rxe, let attr else { return EINVAL }
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    do {
        try queue.modify(attr.pointee, mask: UInt32(bitPattern: mask))
        return 0
    } catch {
        return error.rawValue
    }
}

func destroySharedReceiveQueue(srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    guard let srq else { return EINVAL }
    let queue = srq.rxe
    do {
        let events = try queue.context.pointee.kernel.destroySharedReceiveQueue(queue.pointee.base.handle)
        if let events { rdma_wait_srq_events(srq, events) }
    } catch {
        return error.rawValue
    }
    queue.receives.pointee.ring.unmap()
    srq.pointee.pd.domain.release()
    rdma_fini_srq(srq)
    queue.free()
    return 0
}
