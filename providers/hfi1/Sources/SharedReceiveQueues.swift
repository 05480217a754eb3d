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
        var offer: UInt64 = 0
        let made = try DriverData.answer(&offer) { driver throws(KernelError) in
            try context.pointee.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: limits,
                asyncDescriptor: context.pointee.opened.asyncDescriptor, driver: driver)
        }
        do throws(KernelError) {
            receives.pointee = try ReceiveQueue(
                offer: offer, maximumRequests: made.maximumRequests, maximumElements: made.maximumElements, of: context)
        } catch {
            _ = try? context.pointee.kernel.destroySharedReceiveQueue(made.handle)
            throw error
        }
        pointee.base.handle = made.handle
        limits.max_wr = made.maximumRequests
        limits.max_sge = made.maximumElements
    }

    /// Changes what the mask names, to a queue of other size perhaps. Under the lock.
    fileprivate func modify(_ attributes: ibv_srq_attr, mask: UInt32) throws(KernelError) {
        // The kernel writes where the new queue is mapped to the address that it is told.
        var offer: UInt64 = 0
        try withUnsafeMutablePointer(to: &offer) { offer throws(KernelError) in
            var command = UInt64(UInt(bitPattern: offer))
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
        receives.pointee = try ReceiveQueue(
            offer: offer, maximumRequests: attributes.max_wr, maximumElements: old.maximumElements, of: context)
    }
}

extension ReceiveQueue {
    /// Maps a queue that the kernel offers.
    init(
        offer: UInt64, maximumRequests: UInt32, maximumElements: UInt32, of context: NativeContextPointer
    ) throws(KernelError) {
        guard maximumRequests < UInt32(Int32.max), maximumElements <= UInt32(UInt8.max) else {
            throw KernelError(rawValue: EPROTO)
        }
        let mapping = try Mapping(
            offer: offer, places: Int(maximumRequests) + 1, size: Self.entrySize(maximumElements), of: context)
        self.init(mapping: mapping, maximumRequests: maximumRequests, maximumElements: maximumElements)
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
