import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_qp_ex`, which build work requests step by step between wr_start and wr_complete
// (ibv_wr_post(3)). They write WQEs directly into the send queue, behind the last posted WQE. wr_complete rings the
// doorbell for all of them, or, after an error, for none.
//
// The control segment of a WQE is written last, at the start of the next WQE or in wr_complete, because it contains the
// size of the WQE.

/// The state between wr_start and wr_complete.
struct SendBuilder {
    /// The open WQE; nil if none is open.
    fileprivate var wqe: UnsafeMutableRawPointer?
    /// The last finished WQE, and its size in units of 16 bytes.
    fileprivate var last: UnsafeMutableRawPointer?
    fileprivate var lastSegments: UInt32 = 0
    /// The number of finished WQEs.
    fileprivate var count: UInt32 = 0
    /// The contents of the open WQE's control segment.
    fileprivate var operation: UInt32 = 0
    fileprivate var flags: UInt32 = 0
    fileprivate var immediate: UInt32 = 0
    fileprivate var id: UInt64 = 0
    /// The open WQE's first data segment, the number of 16-byte segments before it, and the number of data segments.
    fileprivate var data: UnsafeMutableRawPointer?
    fileprivate var segments: UInt32 = 0
    fileprivate var dataSegments: UInt32 = 0
    /// Whether the open WQE is a UD send whose `wr_set_ud_addr` was not called yet.
    fileprivate var lacksAddress = false
    /// The state to restore if nothing is posted.
    fileprivate var firstWQEBB: UInt32 = 0
    fileprivate var firstFence: UInt32 = 0
    /// The first error since wr_start. wr_complete then posts nothing and returns it.
    fileprivate var error: Int32 = 0
}

/// The supported `send_ops_flags` of a queue pair type (`enum ibv_qp_create_send_ops_flags`). The bit numbers are those
/// of `enum ibv_wr_opcode`.
func sendOperations(_ type: ibv_qp_type) -> UInt64 { UInt64(allowedOpcodes(type)) }

/// Sets the `ibv_qp_ex` functions of the given `send_ops_flags`.
func fillBuilders(_ qp: UnsafeMutablePointer<ibv_qp_ex>, operations: UInt64) {
    var functions = ibv_qp_ex()
    functions.wr_start = start
    functions.wr_complete = complete
    functions.wr_abort = abort
    functions.wr_set_sge = setSGE
    functions.wr_set_sge_list = setSGEList
    functions.wr_set_inline_data = setInline
    functions.wr_set_inline_data_list = setInlineList
    functions.wr_set_ud_addr = setAddress
    functions.wr_send = { $0.unsafelyUnwrapped.beginSend(Opcode.send) }
    functions.wr_send_imm = { qp, immediate in
        qp.unsafelyUnwrapped.beginSend(Opcode.sendImmediate, immediate: UInt32(bigEndian: immediate))
    }
    functions.wr_send_inv = { qp, key in
        qp.unsafelyUnwrapped.beginSend(Opcode.sendInvalidate, immediate: key)
    }
    functions.wr_rdma_write = { qp, key, address in
        qp.unsafelyUnwrapped.beginRemote(Opcode.write, key: key, address: address)
    }
    functions.wr_rdma_write_imm = { qp, key, address, immediate in
        qp.unsafelyUnwrapped.beginRemote(
            Opcode.writeImmediate, key: key, address: address, immediate: UInt32(bigEndian: immediate))
    }
    functions.wr_rdma_read = { qp, key, address in
        qp.unsafelyUnwrapped.beginRemote(Opcode.read, key: key, address: address)
    }
    functions.wr_atomic_cmp_swp = { qp, key, address, compare, swap in
        qp.unsafelyUnwrapped.beginAtomic(Opcode.compareSwap, key: key, address: address, compare, swap)
    }
    functions.wr_atomic_fetch_add = { qp, key, address, add in
        qp.unsafelyUnwrapped.beginAtomic(Opcode.fetchAdd, key: key, address: address, add, 0)
    }
    functions.wr_local_inv = { qp, key in
        qp.unsafelyUnwrapped.buildUMR(.invalidation(of: key))
    }
    functions.wr_bind_mw = bind
    setWorkRequestFunctions(qp, operations: operations, from: functions)
}

// MARK: - From start to end

/// `wr_start`: locks the send queue until wr_complete or wr_abort.
@inline(__always)
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    pair.pointee.sendLock.lock()
    let queue = pair.sends
    queue.pointee.builder.wqe = nil
    queue.pointee.builder.count = 0
    queue.pointee.builder.firstWQEBB = queue.pointee.wqebb
    queue.pointee.builder.firstFence = queue.pointee.fence
    queue.pointee.builder.error = pair.allowsPostSend ? 0 : EINVAL
}

@inline(never)
private func complete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    queue.finishOpen()
    let error = queue.pointee.builder.error
    if _slowPath(error != 0) {
        queue.rollBack()
    } else if queue.pointee.builder.count != 0 {
        let isAlone = queue.pointee.builder.count == 1
        queue.pointee.number &+= queue.pointee.builder.count
        queue.ringDoorbell(
            queue.pointee.builder.last.unsafelyUnwrapped, segments: isAlone ? queue.pointee.builder.lastSegments : 0)
    }
    return pair.pointee.sendLock.unlock(returning: error)
}

@inline(__always)
private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    pair.sends.rollBack()
    _ = pair.pointee.sendLock.unlock(returning: 0)
}

extension UnsafeMutablePointer<SendQueue> {
    @inline(__always)
    fileprivate func fail(_ error: Int32) {
        if pointee.builder.error == 0 { pointee.builder.error = error }
    }

    @inline(__always)
    fileprivate func rollBack() {
        pointee.wqebb = pointee.builder.firstWQEBB
        pointee.fence = pointee.builder.firstFence
    }

    /// Writes the control segment of the open WQE, and advances past its WQEBBs.
    @inline(__always)
    fileprivate func finishOpen() {
        guard let wqe = pointee.builder.wqe else { return }
        if _slowPath(pointee.builder.lacksAddress) { return fail(EINVAL) }
        let segments = pointee.builder.segments &+ pointee.builder.dataSegments
        finish(
            wqe, pointee.builder.operation, flags: pointee.builder.flags, immediate: pointee.builder.immediate,
            segments: segments)
        storePosted(pointee.builder.id, number: pointee.number &+ pointee.builder.count, opcode: 0)
        commit(wqe, segments)
    }

    @inline(__always)
    fileprivate func commit(_ wqe: UnsafeMutableRawPointer, _ segments: UInt32) {
        pointee.wqebb &+= (segments &+ 3) / 4
        pointee.builder.count &+= 1
        pointee.builder.last = wqe
        pointee.builder.lastSegments = segments
        pointee.builder.wqe = nil
    }

    /// Whether a WQE is open for the setter that was called. Records EINVAL if none is.
    @inline(__always)
    fileprivate var isOpen: Bool {
        guard _fastPath(pointee.builder.error == 0) else { return false }
        if pointee.builder.wqe == nil { fail(EINVAL) }
        return pointee.builder.wqe != nil
    }

    /// Finishes the open WQE and returns the address of the next. Returns nil after an error, or if the queue is full
    /// (ENOMEM).
    @inline(__always)
    fileprivate func nextWQE() -> UnsafeMutableRawPointer? {
        finishOpen()
        guard _fastPath(pointee.builder.error == 0) else { return nil }
        guard _fastPath(!isFull(behind: pointee.builder.count)) else {
            fail(ENOMEM)
            return nil
        }
        return pointee.ring.wqebb(pointee.wqebb)
    }
}

// MARK: - Beginning a WQE

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// Opens a WQE whose data segments begin after `segments` segments.
    @inline(__always)
    private func open(
        _ wqe: UnsafeMutableRawPointer, _ operation: UInt32, immediate: UInt32, segments: UInt32
    ) {
        let queue = native.sends
        queue.pointee.builder.wqe = wqe
        queue.pointee.builder.operation = operation
        queue.pointee.builder.flags = pointee.wr_flags
        queue.pointee.builder.immediate = immediate
        queue.pointee.builder.id = pointee.wr_id
        queue.pointee.builder.segments = segments
        queue.pointee.builder.dataSegments = 0
        queue.pointee.builder.lacksAddress = queue.pointee.isDatagram
        queue.pointee.builder.data = queue.pointee.ring.wrapped(wqe + Int(segments) &* 16)
    }

    @inline(__always)
    fileprivate func beginSend(_ operation: UInt32, immediate: UInt32 = 0) {
        let queue = native.sends
        guard let wqe = queue.nextWQE() else { return }
        open(wqe, operation, immediate: immediate, segments: queue.pointee.isDatagram ? 4 : 1)
    }

    @inline(__always)
    fileprivate func beginRemote(_ operation: UInt32, key: UInt32, address: UInt64, immediate: UInt32 = 0) {
        guard let wqe = native.sends.nextWQE() else { return }
        (wqe + ControlSegment.byteCount).putRemote(address, key)
        open(wqe, operation, immediate: immediate, segments: 2)
    }

    @inline(__always)
    fileprivate func beginAtomic(
        _ operation: UInt32, key: UInt32, address: UInt64, _ compareAdd: UInt64, _ swap: UInt64
    ) {
        guard let wqe = native.sends.nextWQE() else { return }
        let remote = wqe + ControlSegment.byteCount
        remote.putRemote(address, key)
        (remote + RemoteAddressSegment.byteCount).putAtomic(operation, compareAdd: compareAdd, swap: swap)
        open(wqe, operation, immediate: 0, segments: 3)
    }

    @inline(never)
    fileprivate func buildUMR(_ umr: UMR) {
        let queue = native.sends
        guard let wqe = queue.nextWQE() else { return }
        let segments = queue.writeUMR(
            umr, id: pointee.wr_id, flags: pointee.wr_flags,
            number: queue.pointee.number &+ queue.pointee.builder.count)
        guard segments > 0 else { return queue.fail(-segments) }
        queue.commit(wqe, UInt32(bitPattern: segments))
    }
}

/// `wr_bind_mw`: binds a memory window of type 2 (ibv_wr_post(3)).
@inline(__always)
private func bind(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, window: UnsafeMutablePointer<ibv_mw>?, key: UInt32,
    info: UnsafePointer<ibv_mw_bind_info>?
) {
    guard let qp else { return }
    guard let window, let info,
        let umr = UMR(window.pointee.rkey, IBV_MW_TYPE_2, key: key, info.pointee)
    else { return qp.native.sends.fail(EINVAL) }
    qp.buildUMR(umr)
}

// MARK: - Setters

@inline(__always)
private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard let ah else { return queue.fail(EINVAL) }
    let place = queue.pointee.builder.wqe.unsafelyUnwrapped + ControlSegment.byteCount
    place.putAddress(ah, queuePair: number, key: key)
    queue.pointee.builder.lacksAddress = false
}

@inline(__always)
private func setSGE(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard queue.pointee.maxSGE > 0 else { return queue.fail(EINVAL) }
    guard length != 0 else { return queue.pointee.builder.dataSegments = 0 }
    queue.pointee.builder.data.unsafelyUnwrapped.putSGE(length, key, address)
    queue.pointee.builder.dataSegments = 1
}

@inline(__always)
private func setSGEList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard UInt(bitPattern: count) <= UInt(queue.pointee.maxSGE) else { return queue.fail(EINVAL) }
    let segments = queue.pointee.ring.putSGEs(
        list, UInt32(truncatingIfNeeded: count), at: queue.pointee.builder.data.unsafelyUnwrapped, isAtomic: false)
    guard segments >= 0 else { return queue.fail(-segments) }
    queue.pointee.builder.dataSegments = UInt32(bitPattern: segments)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Whether the open WQE's operation allows inline data.
    @inline(__always)
    fileprivate var allowsInlineData: Bool {
        switch pointee.builder.operation {
        case Opcode.send, Opcode.sendImmediate, Opcode.sendInvalidate, Opcode.write, Opcode.writeImmediate: true
        default: false
        }
    }
}

@inline(__always)
private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard UInt(bitPattern: length) <= UInt(queue.pointee.maximumInline), queue.allowsInlineData,
        length == 0 || address != nil
    else { return queue.fail(EINVAL) }
    let segment = queue.pointee.builder.data.unsafelyUnwrapped
    let ring = queue.pointee.ring
    if length != 0 {
        _ = ring.copy(address.unsafelyUnwrapped, length, to: segment + InlineSegment.headerByteCount)
    }
    let segments = ring.finishInline(UInt32(truncatingIfNeeded: length), at: segment)
    queue.pointee.builder.dataSegments = UInt32(bitPattern: segments)
}

@inline(__always)
private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard count >= 0, count == 0 || list != nil, queue.allowsInlineData else { return queue.fail(EINVAL) }
    let segment = queue.pointee.builder.data.unsafelyUnwrapped
    let ring = queue.pointee.ring
    var target = segment + InlineSegment.headerByteCount
    var room = UInt(queue.pointee.maximumInline)
    for index in 0..<count {
        let buffer = list.unsafelyUnwrapped + index
        let length = UInt(bitPattern: buffer.pointee.length)
        guard length <= room, length == 0 || buffer.pointee.addr != nil else { return queue.fail(EINVAL) }
        if length != 0 { target = ring.copy(buffer.pointee.addr.unsafelyUnwrapped, Int(length), to: target) }
        room &-= length
    }
    let used = queue.pointee.maximumInline &- UInt32(truncatingIfNeeded: room)
    queue.pointee.builder.dataSegments = UInt32(bitPattern: ring.finishInline(used, at: segment))
}
