import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// The work request that the wr_ functions of `ibv_qp_ex` build between wr_start and wr_complete.
///
/// A function that begins a request completes the previous one. The arguments of the setters are copied, since the
/// caller's lists need not outlive the call.
struct WorkRequestBuilder {
    /// The slot of the send queue that the open request is written to; nil when none is open.
    fileprivate var wqe: UnsafeMutablePointer<SendWQE>?
    /// UD: the path of the address handle that was passed to wr_set_ud_addr.
    fileprivate var path: UnsafePointer<Path>?
    fileprivate var count = 0
    /// The first error since wr_start, which wr_complete returns; then none of the requests is posted.
    fileprivate var error = RoCETransport.Errno.success
    private(set) fileprivate var sgList: UnsafeMutablePointer<SGE>
    private(set) fileprivate var data: UnsafeMutableRawPointer
    fileprivate let maxSGE: Int
    fileprivate let maxInlineData: Int

    /// Allocates room for requests of these sizes; nil for a queue pair without wr_ functions.
    init(_ capabilities: QueuePairCapabilities?) {
        maxSGE = Int(capabilities?.maxSendSGE ?? 0)
        maxInlineData = Int(capabilities?.maxInlineData ?? 0)
        sgList = .allocate(capacity: max(maxSGE, 1))
        // An ATOMIC WRITE has 8 bytes, whatever max_inline_data is.
        data = .allocate(byteCount: max(maxInlineData, 8), alignment: 8)
    }

    func deallocate() {
        sgList.deallocate()
        data.deallocate()
    }
}

/// Sets the functions for the operations in `send_ops_flags`.
func fillBuilders(_ qp: UnsafeMutablePointer<ibv_qp_ex>, operations: UInt64) {
    func wants(_ operation: ibv_qp_create_send_ops_flags) -> Bool { operations & UInt64(operation.rawValue) != 0 }
    qp.pointee.wr_start = start
    qp.pointee.wr_complete = completeBuilding
    qp.pointee.wr_abort = abort
    qp.pointee.wr_set_sge = setSGE
    qp.pointee.wr_set_sge_list = setSGList
    qp.pointee.wr_set_inline_data = setInline
    qp.pointee.wr_set_inline_data_list = setInlineList
    if qp.pointee.qp_base.qp_type == IBV_QPT_UD { qp.pointee.wr_set_ud_addr = setAddress }
    if qp.pointee.qp_base.qp_type == IBV_QPT_XRC_SEND { qp.pointee.wr_set_xrc_srqn = setSharedReceiveQueue }
    if wants(IBV_QP_EX_WITH_SEND) { qp.pointee.wr_send = { $0!.begin(.send) } }
    if wants(IBV_QP_EX_WITH_SEND_WITH_IMM) {
        qp.pointee.wr_send_imm = { qp, immediate in qp!.begin(.sendWithImmediate, immediate: immediate) }
    }
    if wants(IBV_QP_EX_WITH_SEND_WITH_INV) {
        qp.pointee.wr_send_inv = { qp, key in qp!.begin(.sendWithInvalidate, immediate: key) }
    }
    if wants(IBV_QP_EX_WITH_LOCAL_INV) {
        qp.pointee.wr_local_inv = { qp, key in qp!.begin(.localInvalidate, immediate: key) }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_WRITE) {
        qp.pointee.wr_atomic_write = { qp, key, address, bytes in qp!.atomicWrite(key, address, bytes) }
    }
    if operations & PlacementOperations.flush != 0 {
        rdma_wr_flush_place(qp).pointee = { qp, key, address, length, placement, level in
            qp!.flush(key, address, length, placement, level)
        }
    }
    if wants(IBV_QP_EX_WITH_BIND_MW) {
        qp.pointee.wr_bind_mw = { qp, window, key, info in qp!.bind(window, key, info) }
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
            qp!.begin(.compareAndSwap, key: key, address: address, compareAdd: compare, swap: swap)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) {
        qp.pointee.wr_atomic_fetch_add = { qp, key, address, add in
            qp!.begin(.fetchAndAdd, key: key, address: address, compareAdd: add)
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
        guard let wqe = pair.pointee.pair.reserveSend() else { return pair.fail(.noMemory) }
        wqe.pointee.id = pointee.wr_id
        wqe.pointee.opcode = opcode
        wqe.pointee.flags = SendFlags(rawValue: pointee.wr_flags)
        wqe.pointee.rkey = key
        wqe.pointee.remoteAddress = address
        wqe.pointee.immediate = immediate
        wqe.pointee.compareAdd = compareAdd
        wqe.pointee.swap = swap
        wqe.pointee.remoteSRQN = 0
        pair.pointee.builder.pointee.wqe = wqe
        pair.pointee.builder.pointee.path = nil
        pair.pointee.builder.pointee.count = 0
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    fileprivate func bind(
        _ window: UnsafeMutablePointer<ibv_mw>?, _ key: UInt32, _ info: UnsafePointer<ibv_mw_bind_info>?
    ) {
        begin(.bindMemoryWindow)
        guard let wqe = soft.pointee.builder.pointee.wqe else { return }
        guard let info else { return soft.fail() }
        let error = wqe.fillBind(window, key: key, info.pointee)
        if error != .success { soft.fail(error) }
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    fileprivate func atomicWrite(_ key: UInt32, _ address: UInt64, _ bytes: UnsafeRawPointer?) {
        begin(.atomicWrite, key: key, address: address)
        guard let wqe = soft.pointee.builder.pointee.wqe else { return }
        guard let bytes, soft.pointee.builder.pointee.maxSGE > 0 else { return soft.fail() }
        soft.pointee.builder.pointee.data.copyMemory(from: bytes, byteCount: 8)
        wqe.pointee.flags.insert(.inline)
        soft.pointee.builder.pointee.sgList[0] = SGE(
            address: UInt64(UInt(bitPattern: soft.pointee.builder.pointee.data)), length: 8, lkey: 0)
        soft.pointee.builder.pointee.count = 1
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    fileprivate func flush(_ key: UInt32, _ address: UInt64, _ length: Int, _ placement: UInt8, _ level: UInt8) {
        begin(.flush, key: key, address: address)
        soft.pointee.builder.pointee.wqe?.pointee.flush(
            length: UInt64(UInt(bitPattern: length)), placement: placement, selectivity: level)
    }
}

extension QueuePairPointer {
    /// Stages the open request, if there is one.
    @inline(__always)
    fileprivate func stageOpen() {
        guard let wqe = pointee.builder.pointee.wqe else { return }
        pointee.builder.pointee.wqe = nil
        guard pointee.builder.pointee.error == .success else { return }
        pointee.builder.pointee.error = pointee.pair.stageSend(
            at: wqe, path: pointee.builder.pointee.path,
            sgList: pointee.builder.pointee.sgList, count: pointee.builder.pointee.count)
    }

    /// Keeps the first error since wr_start.
    fileprivate func fail(_ error: RoCETransport.Errno = .invalid) {
        if pointee.builder.pointee.error == .success { pointee.builder.pointee.error = error }
    }

    /// Appends inline data to the data of the open request.
    @inline(__always)
    fileprivate func appendInline(_ bytes: UnsafeRawPointer?, _ length: Int) {
        let used = pointee.builder.pointee.count == 0 ? 0 : Int(pointee.builder.pointee.sgList[0].length)
        guard length >= 0, length <= pointee.builder.pointee.maxInlineData - used, bytes != nil || length == 0 else {
            return fail()
        }
        if let bytes { (pointee.builder.pointee.data + used).copyMemory(from: bytes, byteCount: length) }
        pointee.builder.pointee.wqe?.pointee.flags.insert(.inline)
        pointee.builder.pointee.sgList[0] = SGE(
            address: UInt64(UInt(bitPattern: pointee.builder.pointee.data)), length: UInt32(used + length), lkey: 0)
        pointee.builder.pointee.count = 1
    }
}

/// `ibv_wr_start`: takes the send queue's lock, which wr_complete or wr_abort releases. In a child of fork(2) another thread
/// of the parent may have held it, and wr_complete refuses.
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    guard let pair = qp?.soft, !linux_is_forked_child() else { return }
    pair.pointee.sendLock.lock()
    pair.pointee.builder.pointee.wqe = nil
    pair.pointee.builder.pointee.error = .success
}

func completeBuilding(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    guard let pair = qp?.soft else { return EINVAL }
    if linux_is_forked_child() { return EPERM }
    pair.stageOpen()
    let error = pair.pointee.builder.pointee.error
    var hasWork = false
    if error == .success { hasWork = pair.pointee.pair.publishSends() } else { pair.pointee.pair.discardSends() }
    pair.pointee.sendLock.unlock()
    if hasWork { pair.context.progressAfterPost(to: pair.pointee.pair) }
    return error.rawValue
}

private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    guard let pair = qp?.soft, !linux_is_forked_child() else { return }
    pair.pointee.builder.pointee.wqe = nil
    pair.pointee.pair.discardSends()
    pair.pointee.sendLock.unlock()
}

private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    guard let pair = qp?.soft else { return }
    guard let ah else { return pair.fail() }
    pair.pointee.builder.pointee.path = ah.path
    pair.pointee.builder.pointee.wqe?.pointee.remoteQPN = number
    pair.pointee.builder.pointee.wqe?.pointee.remoteQKey = key
}

private func setSharedReceiveQueue(qp: UnsafeMutablePointer<ibv_qp_ex>?, number: UInt32) {
    qp?.soft.pointee.builder.pointee.wqe?.pointee.remoteSRQN = number
}

private func setSGE(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    guard let pair = qp?.soft else { return }
    guard pair.pointee.builder.pointee.maxSGE > 0 else { return pair.fail() }
    pair.pointee.builder.pointee.sgList[0] = SGE(address: address, length: length, lkey: key)
    pair.pointee.builder.pointee.count = 1
}

private func setSGList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    guard let pair = qp?.soft else { return }
    guard count <= pair.pointee.builder.pointee.maxSGE, let list else {
        if count != 0 { pair.fail() }
        return
    }
    UnsafeMutableRawPointer(pair.pointee.builder.pointee.sgList).copyMemory(
        from: list, byteCount: count * MemoryLayout<SGE>.stride)
    pair.pointee.builder.pointee.count = count
}

private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    qp?.soft.appendInline(address, length)
}

private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    guard let pair = qp?.soft else { return }
    for index in 0..<count { pair.appendInline(list?[index].addr, list?[index].length ?? 0) }
}
