import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createSharedReceiveQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_srq>? {
    createNativeSharedReceiveQueue(
        context, attr, allocate: SharedReceiveQueuePointer.allocate,
        make: { queue, limits throws(KernelError) in try queue.make(&limits) })
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
    guard let queue = srq?.native, let attr else { return EINVAL }
    queue.pointee.lock.lock()
    defer { queue.pointee.lock.unlock() }
    return errno { () throws(KernelError) in try queue.modify(attr.pointee, mask: UInt32(bitPattern: mask)) }
}

func destroySharedReceiveQueue(srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    destroyNativeSharedReceiveQueue(srq) { $0.receives.pointee.ring.unmap() }
}
