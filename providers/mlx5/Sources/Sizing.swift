import CIBVerbs
import CLinux
import KernelVerbs

/// The limits of a device (`struct mlx5_ib_alloc_ucontext_resp`).
struct DeviceLimits {
    /// The maximum sizes of a send and of a receive WQE in bytes (`max_sq_desc_sz`, `max_rq_desc_sz`).
    var sendDescriptor: UInt32
    var receiveDescriptor: UInt32
    /// The maximum number of WQEBBs of a send queue (`max_send_wqebb`).
    var sendWQEBBs: UInt32
    /// The maximum numbers of WQEs of a receive queue and of a shared receive queue (`max_recv_wr`, `max_srq_recv_wr`).
    var receives: UInt32
    var sharedReceives: UInt32
}

/// The smallest power of two that is not less than `value`.
func powerOfTwo(atLeast value: UInt64) -> UInt64 {
    var power: UInt64 = 1
    while power < value { power <<= 1 }
    return power
}

private func rounded(_ value: UInt64, to unit: UInt64) -> UInt64 { (value + unit - 1) / unit * unit }

/// The sizes of the queues of a queue pair. The rules are those of libmlx5; the kernel driver applies them too.
struct QueuePairSize {
    /// The number of WQEBBs of the send queue, a power of two; 0 for no send queue.
    var sendWQEBBs: UInt32 = 0
    /// The number of receive WQEs, a power of two, and the logarithm of the WQE size in bytes; 0 for no receive queue.
    var receives: UInt32 = 0
    var receiveShift: UInt32 = 0
    /// The granted limits.
    var limits: ibv_qp_cap

    var receiveByteCount: Int { Int(receives) << Int(receiveShift) }

    /// The receive queue is first in memory, followed by the send queue.
    var byteCount: Int { receiveByteCount + SendRing.wqebbSize * Int(sendWQEBBs) }

    /// - Parameters:
    ///   - requested: The requested limits.
    ///   - operations: The operations that will be posted (`send_ops_flags`); nil for all of the queue pair type.
    /// - Throws: EINVAL for more than the device allows.
    init(
        _ requested: ibv_qp_cap, type: ibv_qp_type, operations: UInt64?, hasReceives: Bool, device: DeviceLimits
    ) throws(KernelError) {
        limits = requested
        if requested.max_send_wr > 0 { try sizeSends(type, operations, device) } else { limits.max_inline_data = 0 }
        limits.max_recv_wr = 0
        limits.max_recv_sge = 0
        if hasReceives && requested.max_recv_wr > 0 { try sizeReceives(requested, device) }
    }

    private mutating func sizeSends(
        _ type: ibv_qp_type, _ operations: UInt64?, _ device: DeviceLimits
    ) throws(KernelError) {
        let overhead = sendOverhead(type, operations ?? sendOperations(type))
        let sges = overhead + UInt64(DataSegment.byteCount) * UInt64(limits.max_send_sge)
        var wqeSize = sges
        if limits.max_inline_data > 0 {
            let header = UInt64(InlineSegment.headerByteCount)
            wqeSize = max(wqeSize, overhead + rounded(header + UInt64(limits.max_inline_data), to: 16))
        }
        guard wqeSize <= UInt64(device.sendDescriptor) else { throw .invalidArgument }
        wqeSize = rounded(wqeSize, to: UInt64(SendRing.wqebbSize))
        guard UInt64(limits.max_send_wr) <= UInt64(Int32.max) / UInt64(max(device.sendDescriptor, 1)) else {
            throw .invalidArgument
        }
        let whole = powerOfTwo(atLeast: UInt64(limits.max_send_wr) * wqeSize)
        guard whole / UInt64(SendRing.wqebbSize) <= UInt64(device.sendWQEBBs) else { throw .invalidArgument }
        sendWQEBBs = UInt32(whole / UInt64(SendRing.wqebbSize))
        limits.max_send_wr = UInt32(whole / wqeSize)
        // Without SGEs and inline data the overhead can fill whole WQEBBs.
        let room = Int(wqeSize - overhead) - InlineSegment.headerByteCount
        limits.max_inline_data = UInt32(max(room, 0))
    }

    private mutating func sizeReceives(_ requested: ibv_qp_cap, _ device: DeviceLimits) throws(KernelError) {
        let sges = UInt64(max(requested.max_recv_sge, 1)) * UInt64(DataSegment.byteCount)
        guard requested.max_recv_wr <= device.receives, sges <= UInt64(device.receiveDescriptor) else {
            throw .invalidArgument
        }
        let wqeSize = powerOfTwo(atLeast: sges)
        let whole = max(powerOfTwo(atLeast: UInt64(requested.max_recv_wr)) * wqeSize, UInt64(SendRing.wqebbSize))
        receives = UInt32(whole / wqeSize)
        receiveShift = UInt32(wqeSize.trailingZeroBitCount)
        limits.max_recv_wr = receives
        limits.max_recv_sge = UInt32(wqeSize) / UInt32(DataSegment.byteCount)
    }
}

/// The maximum size in bytes of the segments before the data segments, for the given `send_ops_flags`.
private func sendOverhead(_ type: ibv_qp_type, _ operations: UInt64) -> UInt64 {
    func has(_ some: ibv_qp_create_send_ops_flags...) -> Bool {
        for one in some where operations & UInt64(one.rawValue) != 0 { return true }
        return false
    }
    let control = ControlSegment.byteCount
    var most = control
    if has(IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_RDMA_READ) {
        most = max(most, control + RemoteAddressSegment.byteCount)
    }
    if has(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) {
        most = max(most, control + RemoteAddressSegment.byteCount + AtomicSegment.byteCount)
    }
    if has(IBV_QP_EX_WITH_BIND_MW, IBV_QP_EX_WITH_LOCAL_INV) {
        most = max(
            most,
            control + UMRControlSegment.byteCount + MKeyContextSegment.byteCount + KLMSegment.byteCount)
    }
    return UInt64(most + (type == IBV_QPT_UD ? AddressVector.byteCount : 0))
}

/// The number of CQEs of a completion queue for `requested` completions: a power of two, at least one more than
/// requested. Throws EINVAL for 0 and for more than 2^24 CQEs.
func cqeCount(_ requested: UInt32) throws(KernelError) -> UInt32 {
    let entries = powerOfTwo(atLeast: UInt64(requested) + 1)
    guard requested > 0, entries <= 1 << 24 else { throw .invalidArgument }
    return UInt32(entries)
}

/// The size of a shared receive queue.
struct SharedReceiveSize {
    /// The number of WQEs, a power of two, one of which is always free; and the logarithm of the WQE size in bytes.
    let entries: UInt32
    let shift: UInt32
    /// The maximum number of SGEs of a WQE.
    var maxSGE: UInt32 { (1 << shift) / UInt32(DataSegment.byteCount) - 1 }

    /// - Throws: EINVAL for more than the device allows.
    init(_ requested: ibv_srq_attr, device: DeviceLimits) throws(KernelError) {
        guard requested.max_wr <= device.sharedReceives, requested.max_sge <= device.receiveDescriptor / 16 else {
            throw .invalidArgument
        }
        let wqeSize = UInt64(NextSegment.byteCount) + UInt64(requested.max_sge) * UInt64(DataSegment.byteCount)
        shift = UInt32(powerOfTwo(atLeast: max(32, wqeSize)).trailingZeroBitCount)
        entries = UInt32(powerOfTwo(atLeast: UInt64(requested.max_wr) + 1))
        guard 1 << UInt64(shift) <= UInt64(device.receiveDescriptor), entries <= 1 << 16 else {
            throw .invalidArgument
        }
    }
}
