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
    /// Allocates the ring and creates the shared receive queue in the kernel. Writes the granted limits to `limits`.
    fileprivate func make(_ limits: inout ibv_srq_attr) throws(KernelError) {
        let size = try SharedReceiveSize(limits, device: context.pointee.limits)
        guard let memory = DeviceMemory(byteCount: Int(size.entries) << Int(size.shift)) else {
            throw KernelError(rawValue: linux_errno())
        }
        guard let doorbellRecord = context.pointee.doorbellRecords.allocate() else {
            let error = linux_errno()
            memory.free()
            throw KernelError(rawValue: error)
        }
        queue.initialize(
            to: SharedReceives(
                memory: memory, size: size, posted: .allocate(capacity: Int(size.entries)),
                doorbellRecord: doorbellRecord))
        do throws(KernelError) {
            try create(limits, size)
        } catch {
            releaseMemory()
            throw error
        }
        limits.max_wr = size.entries - 1
        limits.max_sge = size.maxSGE
    }

    private func create(_ limits: ibv_srq_attr, _ size: SharedReceiveSize) throws(KernelError) {
        var requested = limits
        requested.max_wr = size.entries - 1
        requested.max_sge = size.maxSGE
        var command = mlx5_ib_create_srq()
        command.buf_addr = UInt64(UInt(bitPattern: queue.pointee.memory.start))
        command.db_addr = UInt64(UInt(bitPattern: queue.pointee.doorbellRecord))
        var response = mlx5_ib_create_srq_resp()
        let made = try DriverData.exchange(command, &response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createSharedReceiveQueue(
                domain: pointee.base.pd.pointee.handle, userHandle: UnsafeRawPointer(self), limits: requested,
                asyncDescriptor: context.pointee.native.opened.asyncDescriptor, driver: driver)
        }
        pointee.base.handle = made.handle
    }

    fileprivate func releaseMemory() {
        context.pointee.doorbellRecords.free(queue.pointee.doorbellRecord)
        queue.pointee.memory.free()
        queue.pointee.posted.deallocate()
    }
}

/// `modify_srq`. Only the limit (`IBV_SRQ_LIMIT`) can be changed.
func modifySharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?, mask: Int32
) -> Int32 {
    guard let srq, let attr else { return EINVAL }
    guard UInt32(bitPattern: mask) & IBV_SRQ_MAX_WR.rawValue == 0 else {
        return refusal(EOPNOTSUPP, "mlx5 does not resize shared receive queues: make another one of the wanted size")
    }
    return errno { () throws(KernelError) in
        try srq.native.context.pointee.native.kernel.modifySharedReceiveQueue(
            srq.pointee.handle, attr.pointee, mask: UInt32(bitPattern: mask))
    }
}

func destroySharedReceiveQueue(srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    destroyNativeSharedReceiveQueue(srq) { $0.releaseMemory() }
}
