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
    /// Creates the queue in the kernel, and maps it. `limits` becomes the limits that the kernel returned.
    fileprivate func make(_ limits: inout ibv_srq_attr) throws(KernelError) {
        var response = rxe_create_srq_resp()
        let created = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: limits,
                asyncDescriptor: context.pointee.opened.asyncDescriptor, driver: driver)
        }
        do {
            try map(response.mi, sgeCount: created.maxSGE)
        } catch {
            _ = try? context.pointee.kernel.destroySharedReceiveQueue(created.handle)
            throw error
        }
        pointee.base.handle = created.handle
        limits.max_wr = created.maxWR
        limits.max_sge = created.maxSGE
    }

    private func map(_ mmapInfo: mminfo, sgeCount: UInt32) throws(KernelError) {
        let ring = try Ring(mapping: mmapInfo, of: context, entrySize: Int32(RXE_RECEIVE_DATA))
        guard attach(ring, maxSGE: sgeCount) else {
            ring.unmap()
            throw KernelError.unknownLayout()
        }
    }

    /// `ibv_modify_srq`. Maps the new queue after a resize (IBV_SRQ_MAX_WR). The caller holds the lock.
    fileprivate func modify(_ attributes: ibv_srq_attr, mask: UInt32) throws(KernelError) {
        var mmapInfo = mminfo()
        try withUnsafeMutablePointer(to: &mmapInfo) { mmapInfo throws(KernelError) in
            // The driver requires `rxe_modify_srq_cmd` also without IBV_SRQ_MAX_WR: it is the address to which the
            // kernel writes the `mminfo` of the new queue.
            var command = rxe_modify_srq_cmd(mmap_info_addr: UInt64(UInt(bitPattern: mmapInfo)))
            try withUnsafeMutablePointer(to: &command) { command throws(KernelError) in
                let bytes = UnsafeRawBufferPointer(start: command, count: MemoryLayout<rxe_modify_srq_cmd>.size)
                try context.pointee.kernel.modifySharedReceiveQueue(
                    pointee.base.handle, attributes, mask: mask, driver: DriverData(input: bytes))
            }
        }
        guard mask & IBV_SRQ_MAX_WR.rawValue != 0 else { return }
        let maxSGE = receives.pointee.maxSGE
        let old = receives.pointee.ring
        receives.pointee.ring = .absent
        old.unmap()
        try KernelError.explainingLoss { () throws(KernelError) in try map(mmapInfo, sgeCount: maxSGE) }
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
