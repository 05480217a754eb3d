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
        var mmapOffset: UInt64 = 0
        let created = try DriverData.response(&mmapOffset) { driver throws(KernelError) in
            try context.pointee.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: limits,
                asyncDescriptor: context.pointee.opened.asyncDescriptor, driver: driver)
        }
        do throws(KernelError) {
            receives.pointee = try ReceiveQueue(
                offset: mmapOffset, maxWR: created.maxWR, maxSGE: created.maxSGE, of: context)
        } catch {
            _ = try? context.pointee.kernel.destroySharedReceiveQueue(created.handle)
            throw error
        }
        pointee.base.handle = created.handle
        limits.max_wr = created.maxWR
        limits.max_sge = created.maxSGE
    }

    /// `ibv_modify_srq`. Maps the new queue after a resize (IBV_SRQ_MAX_WR). The caller holds the lock.
    fileprivate func modify(_ attributes: ibv_srq_attr, mask: UInt32) throws(KernelError) {
        // The command's driver data is the address to which the kernel writes the mmap offset of the new queue.
        var mmapOffset: UInt64 = 0
        try withUnsafeMutablePointer(to: &mmapOffset) { mmapOffset throws(KernelError) in
            var command = UInt64(UInt(bitPattern: mmapOffset))
            try withUnsafeMutablePointer(to: &command) { command throws(KernelError) in
                let bytes = UnsafeRawBufferPointer(start: command, count: MemoryLayout<UInt64>.size)
                try context.pointee.kernel.modifySharedReceiveQueue(
                    pointee.base.handle, attributes, mask: mask, driver: DriverData(input: bytes))
            }
        }
        guard mask & IBV_SRQ_MAX_WR.rawValue != 0 else { return }
        let old = receives.pointee
        receives.pointee = ReceiveQueue()
        old.mapping.unmap()
        try KernelError.explainingLoss { () throws(KernelError) in
            receives.pointee = try ReceiveQueue(
                offset: mmapOffset, maxWR: attributes.max_wr, maxSGE: old.maxSGE, of: context)
        }
    }
}

extension ReceiveQueue {
    /// Maps a queue at an mmap offset from the kernel. Throws EPROTO for limits out of range.
    init(
        offset mmapOffset: UInt64, maxWR: UInt32, maxSGE: UInt32, of context: NativeContextPointer
    ) throws(KernelError) {
        guard maxWR < UInt32(Int32.max), maxSGE <= UInt32(UInt8.max) else {
            throw KernelError.unknownLayout()
        }
        let mapping = try Mapping(
            offset: mmapOffset, entryCount: Int(maxWR) + 1, entrySize: Self.entrySize(maxSGE), of: context)
        self.init(mapping: mapping, maxWR: maxWR, maxSGE: maxSGE)
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
    destroyNativeSharedReceiveQueue(srq) { $0.receives.pointee.mapping.unmap() }
}
