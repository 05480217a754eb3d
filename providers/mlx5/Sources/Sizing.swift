import CIBVerbs
import CLinux
import KernelVerbs

/// What a device allows, as its kernel driver says when a context is made.
struct DeviceLimits {
    /// Bytes of one work request.
    var sendDescriptor: UInt32
    var receiveDescriptor: UInt32
    /// Blocks of 64 bytes in a send queue.
    var sendBlocks: UInt32
    /// Work requests in a receive queue, and in a shared one.
    var receives: UInt32
    var sharedReceives: UInt32
}

/// The next power of two.
func powerOfTwo(atLeast value: UInt64) -> UInt64 {
    var power: UInt64 = 1
    while power < value { power <<= 1 }
    return power
}

private func rounded(_ value: UInt64, to unit: UInt64) -> UInt64 { (value + unit - 1) / unit * unit }

/// How large the queues of a queue pair are: the rules by which every driver of this device sizes them, and which the
/// kernel's driver repeats.
struct QueuePairSize {
    /// Blocks of 64 bytes, a power of two; 0 for no send queue.
    var sendBlocks: UInt32 = 0
    /// Receives, a power of two, and the logarithm of the size of each; 0 for none.
    var receives: UInt32 = 0
    var receiveShift: UInt32 = 0
    /// What is granted.
    var limits: ibv_qp_cap

    var receiveByteCount: Int { Int(receives) << Int(receiveShift) }

    /// In front the receives, behind them the sends.
    var byteCount: Int { receiveByteCount + SendRing.blockSize * Int(sendBlocks) }

    /// - Parameters:
    ///   - asked: what is asked for.
    ///   - operations: bits of ibv_qp_create_send_ops_flags, where only those will be posted.
    /// - Throws: EINVAL for more than the device allows.
    init(
        _ asked: ibv_qp_cap, type: ibv_qp_type, operations: UInt64?, hasReceives: Bool, device: DeviceLimits
    ) throws(KernelError) {
        limits = asked
        if asked.max_send_wr > 0 { try sizeSends(type, operations, device) } else { limits.max_inline_data = 0 }
        limits.max_recv_wr = 0
        limits.max_recv_sge = 0
        if hasReceives && asked.max_recv_wr > 0 { try sizeReceives(asked, device) }
    }

    private mutating func sizeSends(
        _ type: ibv_qp_type, _ operations: UInt64?, _ device: DeviceLimits
    ) throws(KernelError) {
        let overhead = sendOverhead(type, operations ?? sendOperations(type))
        let pieces = overhead + UInt64(DataSegment.byteCount) * UInt64(limits.max_send_sge)
        var entry = pieces
        if limits.max_inline_data > 0 {
            let header = UInt64(InlineSegment.headerByteCount)
            entry = max(entry, overhead + rounded(header + UInt64(limits.max_inline_data), to: 16))
        }
        guard entry <= UInt64(device.sendDescriptor) else { throw .invalidArgument }
        entry = rounded(entry, to: UInt64(SendRing.blockSize))
        guard UInt64(limits.max_send_wr) <= UInt64(Int32.max) / UInt64(max(device.sendDescriptor, 1)) else {
            throw .invalidArgument
        }
        let whole = powerOfTwo(atLeast: UInt64(limits.max_send_wr) * entry)
        guard whole / UInt64(SendRing.blockSize) <= UInt64(device.sendBlocks) else { throw .invalidArgument }
        sendBlocks = UInt32(whole / UInt64(SendRing.blockSize))
        limits.max_send_wr = UInt32(whole / entry)
        limits.max_inline_data = UInt32(entry - overhead) - UInt32(InlineSegment.headerByteCount)
    }

    private mutating func sizeReceives(_ asked: ibv_qp_cap, _ device: DeviceLimits) throws(KernelError) {
        let pieces = UInt64(max(asked.max_recv_sge, 1)) * UInt64(DataSegment.byteCount)
        guard asked.max_recv_wr <= device.receives, pieces <= UInt64(device.receiveDescriptor) else {
            throw .invalidArgument
        }
        let entry = powerOfTwo(atLeast: pieces)
        let whole = max(powerOfTwo(atLeast: UInt64(asked.max_recv_wr)) * entry, UInt64(SendRing.blockSize))
        receives = UInt32(whole / entry)
        receiveShift = UInt32(entry.trailingZeroBitCount)
        limits.max_recv_wr = receives
        limits.max_recv_sge = UInt32(entry) / UInt32(DataSegment.byteCount)
    }
}

/// Bytes in front of the data of the largest of some operations.
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
            control + KeyControlSegment.byteCount + KeyContextSegment.byteCount + TranslationSegment.byteCount)
    }
    return UInt64(most + (type == IBV_QPT_UD ? AddressVector.byteCount : 0))
}

/// How large a completion queue is: entries, a power of two, one of them always free. Throws EINVAL for more than 2^24.
func completionEntries(_ asked: UInt32) throws(KernelError) -> UInt32 {
    let entries = powerOfTwo(atLeast: UInt64(asked) + 1)
    guard asked > 0, entries <= 1 << 24 else { throw .invalidArgument }
    return UInt32(entries)
}

/// How large a shared receive queue is.
struct SharedReceiveSize {
    /// A power of two, one of them always free; and the logarithm of the size of each.
    let entries: UInt32
    let shift: UInt32
    /// Pieces of memory in each.
    var elements: UInt32 { (1 << shift) / UInt32(DataSegment.byteCount) - 1 }

    /// - Throws: EINVAL for more than the device allows.
    init(_ asked: ibv_srq_attr, device: DeviceLimits) throws(KernelError) {
        guard asked.max_wr <= device.sharedReceives, asked.max_sge <= device.receiveDescriptor / 16 else {
            throw .invalidArgument
        }
        let entry = UInt64(NextSegment.byteCount) + UInt64(asked.max_sge) * UInt64(DataSegment.byteCount)
        shift = UInt32(powerOfTwo(atLeast: max(32, entry)).trailingZeroBitCount)
        entries = UInt32(powerOfTwo(atLeast: UInt64(asked.max_wr) + 1))
        guard 1 << UInt64(shift) <= UInt64(device.receiveDescriptor), entries <= 1 << 16 else {
            throw .invalidArgument
        }
    }
}
