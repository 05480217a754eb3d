import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// The work request that the functions of `ibv_qp_ex` build piece by piece between wr_start and wr_complete.
///
/// A function that begins a request ends the one before. What its setters say is copied here, since the caller's lists
/// need not outlive the call.
struct WorkRequestBuilder {
    fileprivate var request = SendWorkRequest(id: 0, opcode: .send)
    fileprivate var isOpen = false
    fileprivate var count = 0
    /// The first error since wr_start: it spoils the whole.
    fileprivate var error = RoCETransport.Errno.success
    private(set) fileprivate var elements: UnsafeMutablePointer<ScatterGatherElement>
    private(set) fileprivate var data: UnsafeMutableRawPointer
    fileprivate let elementCapacity: Int
    fileprivate let dataCapacity: Int

    /// Room for requests of these sizes; nil for a queue pair that has no such functions.
    init(_ capabilities: QueuePairCapabilities?) {
        elementCapacity = Int(capabilities?.sendElements ?? 0)
        dataCapacity = Int(capabilities?.inlineData ?? 0)
        elements = .allocate(capacity: max(elementCapacity, 1))
        data = .allocate(byteCount: max(dataCapacity, 1), alignment: 8)
    }

    func deallocate() {
        elements.deallocate()
        data.deallocate()
    }
}

/// Sets the functions that the operations call for.
func fillBuilders(_ qp: UnsafeMutablePointer<ibv_qp_ex>, operations: UInt64) {
    func wants(_ operation: ibv_qp_create_send_ops_flags) -> Bool { operations & UInt64(operation.rawValue) != 0 }
    qp.pointee.wr_start = start
    qp.pointee.wr_complete = complete
    qp.pointee.wr_abort = abort
    qp.pointee.wr_set_sge = setElement
    qp.pointee.wr_set_sge_list = setElements
    qp.pointee.wr_set_inline_data = setInline
    qp.pointee.wr_set_inline_data_list = setInlineList
    if qp.pointee.qp_base.qp_type == IBV_QPT_UD { qp.pointee.wr_set_ud_addr = setAddress }
    if wants(IBV_QP_EX_WITH_SEND) { qp.pointee.wr_send = { $0!.begin(.send) } }
    if wants(IBV_QP_EX_WITH_SEND_WITH_IMM) {
        qp.pointee.wr_send_imm = { qp, immediate in qp!.begin(.sendWithImmediate, immediate: immediate) }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE) {
        qp.pointee.wr_rdma_write = { qp, key, address in qp!.begin(.write, key: key, address: address) }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM) {
        qp.pointee.wr_rdma_write_imm = { qp, key, address, immediate in
            qp!.begin(.writeWithImmediate, key: key, address: address, immediate: immediate)
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_READ) {
        qp.pointee.wr_rdma_read = { qp, key, address in qp!.begin(.read, key: key, address: address) }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP) {
        qp.pointee.wr_atomic_cmp_swp = { qp, key, address, compare, swap in
            qp!.begin(.compareSwap, key: key, address: address, compareAdd: compare, swap: swap)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) {
        qp.pointee.wr_atomic_fetch_add = { qp, key, address, add in
            qp!.begin(.fetchAdd, key: key, address: address, compareAdd: add)
        }
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    @inline(__always)
    fileprivate func begin(
        _ opcode: WorkRequestOpcode, key: UInt32 = 0, address: UInt64 = 0, immediate: UInt32 = 0,
        compareAdd: UInt64 = 0, swap: UInt64 = 0
    ) {
        let pair = soft
        pair.stageOpen()
        var request = SendWorkRequest(
            id: pointee.wr_id, opcode: opcode, flags: SendFlags(rawValue: pointee.wr_flags))
        request.remoteKey = key
        request.remoteAddress = address
        request.immediate = immediate
        request.compareAdd = compareAdd
        request.swap = swap
        pair.pointee.builder.pointee.request = request
        pair.pointee.builder.pointee.count = 0
        pair.pointee.builder.pointee.isOpen = true
    }
}

extension QueuePairPointer {
    /// Puts the request that is being built into the queue.
    @inline(__always)
    fileprivate func stageOpen() {
        guard pointee.builder.pointee.isOpen else { return }
        pointee.builder.pointee.isOpen = false
        guard pointee.builder.pointee.error == .success else { return }
        pointee.builder.pointee.error = pointee.pair.stageSend(
            pointee.builder.pointee.request, elements: pointee.builder.pointee.elements,
            count: pointee.builder.pointee.count)
    }

    fileprivate func spoil() {
        if pointee.builder.pointee.error == .success { pointee.builder.pointee.error = .invalid }
    }

    /// Copies a piece of inline data behind those before it.
    @inline(__always)
    fileprivate func appendInline(_ bytes: UnsafeRawPointer?, _ length: Int) {
        let used = pointee.builder.pointee.count == 0 ? 0 : Int(pointee.builder.pointee.elements[0].length)
        guard length >= 0, length <= pointee.builder.pointee.dataCapacity - used, bytes != nil || length == 0 else {
            return spoil()
        }
        if let bytes { (pointee.builder.pointee.data + used).copyMemory(from: bytes, byteCount: length) }
        pointee.builder.pointee.request.flags.insert(.inline)
        pointee.builder.pointee.elements[0] = ScatterGatherElement(
            address: UInt64(UInt(bitPattern: pointee.builder.pointee.data)), length: UInt32(used + length), key: 0)
        pointee.builder.pointee.count = 1
    }
}

/// Holds the send queue's lock from here to wr_complete or wr_abort.
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    guard let pair = qp?.soft else { return }
    pair.pointee.sendLock.lock()
    pair.pointee.builder.pointee.isOpen = false
    pair.pointee.builder.pointee.error = .success
}

private func complete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    guard let pair = qp?.soft else { return EINVAL }
    pair.stageOpen()
    let error = pair.pointee.builder.pointee.error
    var hasWork = false
    if error == .success { hasWork = pair.pointee.pair.commitSends() } else { pair.pointee.pair.discardSends() }
    pair.pointee.sendLock.unlock()
    if hasWork { pair.context.progressAfterPost() }
    return error.rawValue
}

private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    guard let pair = qp?.soft else { return }
    pair.pointee.builder.pointee.isOpen = false
    pair.pointee.pair.discardSends()
    pair.pointee.sendLock.unlock()
}

private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    guard let pair = qp?.soft else { return }
    guard let ah else { return pair.spoil() }
    pair.pointee.builder.pointee.request.path = ah.path
    pair.pointee.builder.pointee.request.remoteQueuePair = number
    pair.pointee.builder.pointee.request.remoteQueueKey = key
}

private func setElement(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    guard let pair = qp?.soft else { return }
    guard pair.pointee.builder.pointee.elementCapacity > 0 else { return pair.spoil() }
    pair.pointee.builder.pointee.elements[0] = ScatterGatherElement(address: address, length: length, key: key)
    pair.pointee.builder.pointee.count = 1
}

private func setElements(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    guard let pair = qp?.soft else { return }
    guard count <= pair.pointee.builder.pointee.elementCapacity, let list else {
        if count != 0 { pair.spoil() }
        return
    }
    UnsafeMutableRawPointer(pair.pointee.builder.pointee.elements).copyMemory(
        from: list, byteCount: count * MemoryLayout<ScatterGatherElement>.stride)
    pair.pointee.builder.pointee.count = count
}

private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    qp?.soft.appendInline(address, length)
}

private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    guard let pair = qp?.soft else { return }
    for index in 0..<count { pair.appendInline(list?[index].addr, list?[index].length ?? 0) }
}
