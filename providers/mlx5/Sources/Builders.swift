import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_qp_ex`, which build work requests piece by piece between wr_start and wr_complete
// (ibv_wr_post(3)). They write straight into the blocks behind the last one that the device knows of; wr_complete rings
// for them all, or, after an error, for none.
//
// The first segment of a request is written last, when the next one begins or wr_complete comes: only then its size is
// known.

/// How far the building is.
struct SendBuilder {
    /// The request that was begun last; nil when none is open.
    fileprivate var entry: UnsafeMutableRawPointer?
    /// The request that was finished last, and its size.
    fileprivate var last: UnsafeMutableRawPointer?
    fileprivate var lastSegments: UInt32 = 0
    /// How many requests were finished.
    fileprivate var count: UInt32 = 0
    /// Of the open request: what its first segment will say.
    fileprivate var operation: UInt32 = 0
    fileprivate var flags: UInt32 = 0
    fileprivate var immediate: UInt32 = 0
    fileprivate var id: UInt64 = 0
    /// Of the open request: where its data goes, and how many segments there are in front and of data.
    fileprivate var data: UnsafeMutableRawPointer?
    fileprivate var segments: UInt32 = 0
    fileprivate var dataSegments: UInt32 = 0
    /// Of the open request: a datagram whose address is still missing.
    fileprivate var lacksAddress = false
    /// What to go back to when nothing is posted.
    fileprivate var firstBlock: UInt32 = 0
    fileprivate var firstFence: UInt32 = 0
    /// The first error since wr_start: it spoils the whole.
    fileprivate var error: Int32 = 0
}

/// The operations, as bits of ibv_qp_create_send_ops_flags, that an extended queue pair of this type can have: the bits
/// have the numbers of the opcodes.
func sendOperations(_ type: ibv_qp_type) -> UInt64 { UInt64(allowedOpcodes(type)) }

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
    if wants(IBV_QP_EX_WITH_SEND) { qp.pointee.wr_send = { $0.unsafelyUnwrapped.beginSend(Opcode.send) } }
    if wants(IBV_QP_EX_WITH_SEND_WITH_IMM) {
        qp.pointee.wr_send_imm = { qp, immediate in
            qp.unsafelyUnwrapped.beginSend(Opcode.sendImmediate, immediate: UInt32(bigEndian: immediate))
        }
    }
    if wants(IBV_QP_EX_WITH_SEND_WITH_INV) {
        qp.pointee.wr_send_inv = { qp, key in
            qp.unsafelyUnwrapped.beginSend(Opcode.sendInvalidate, immediate: key)
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE) {
        qp.pointee.wr_rdma_write = { qp, key, address in
            qp.unsafelyUnwrapped.beginRemote(Opcode.write, key: key, address: address)
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM) {
        qp.pointee.wr_rdma_write_imm = { qp, key, address, immediate in
            qp.unsafelyUnwrapped.beginRemote(
                Opcode.writeImmediate, key: key, address: address, immediate: UInt32(bigEndian: immediate))
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_READ) {
        qp.pointee.wr_rdma_read = { qp, key, address in
            qp.unsafelyUnwrapped.beginRemote(Opcode.read, key: key, address: address)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP) {
        qp.pointee.wr_atomic_cmp_swp = { qp, key, address, compare, swap in
            qp.unsafelyUnwrapped.beginAtomic(Opcode.compareSwap, key: key, address: address, compare, swap)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) {
        qp.pointee.wr_atomic_fetch_add = { qp, key, address, add in
            qp.unsafelyUnwrapped.beginAtomic(Opcode.fetchAdd, key: key, address: address, add, 0)
        }
    }
    if wants(IBV_QP_EX_WITH_LOCAL_INV) {
        qp.pointee.wr_local_inv = { qp, key in
            qp.unsafelyUnwrapped.changeKey(.invalidation(of: key))
        }
    }
    if wants(IBV_QP_EX_WITH_BIND_MW) { qp.pointee.wr_bind_mw = bind }
}

// MARK: - From start to end

/// Holds the send queue's lock from here to wr_complete or wr_abort.
@inline(__always)
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    pair.pointee.sendLock.lock()
    let queue = pair.sends
    queue.pointee.builder.entry = nil
    queue.pointee.builder.count = 0
    queue.pointee.builder.firstBlock = queue.pointee.block
    queue.pointee.builder.firstFence = queue.pointee.fence
    queue.pointee.builder.error = pair.takesSends ? 0 : EINVAL
}

@inline(never)
private func complete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    queue.finishOpen()
    let error = queue.pointee.builder.error
    if _slowPath(error != 0) {
        queue.goBack()
    } else if queue.pointee.builder.count != 0 {
        let isAlone = queue.pointee.builder.count == 1
        queue.pointee.number &+= queue.pointee.builder.count
        queue.ringDoorbell(
            queue.pointee.builder.last.unsafelyUnwrapped, segments: isAlone ? queue.pointee.builder.lastSegments : 0)
    }
    return pair.pointee.sendLock.unlock(answering: error)
}

@inline(__always)
private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    pair.sends.goBack()
    _ = pair.pointee.sendLock.unlock(answering: 0)
}

extension UnsafeMutablePointer<SendQueue> {
    @inline(__always)
    fileprivate func spoil(_ error: Int32) {
        if pointee.builder.error == 0 { pointee.builder.error = error }
    }

    @inline(__always)
    fileprivate func goBack() {
        pointee.block = pointee.builder.firstBlock
        pointee.fence = pointee.builder.firstFence
    }

    /// Writes the first segment of the open request, and takes its blocks.
    @inline(__always)
    fileprivate func finishOpen() {
        guard let entry = pointee.builder.entry else { return }
        if _slowPath(pointee.builder.lacksAddress) { return spoil(EINVAL) }
        let segments = pointee.builder.segments &+ pointee.builder.dataSegments
        finish(
            entry, pointee.builder.operation, flags: pointee.builder.flags, immediate: pointee.builder.immediate,
            segments: segments)
        note(pointee.builder.id, number: pointee.number &+ pointee.builder.count, opcode: 0)
        take(entry, segments)
    }

    @inline(__always)
    fileprivate func take(_ entry: UnsafeMutableRawPointer, _ segments: UInt32) {
        pointee.block &+= (segments &+ 3) / 4
        pointee.builder.count &+= 1
        pointee.builder.last = entry
        pointee.builder.lastSegments = segments
        pointee.builder.entry = nil
    }

    /// Whether a request is open whose setter was called.
    @inline(__always)
    fileprivate var isOpen: Bool {
        guard _fastPath(pointee.builder.error == 0) else { return false }
        if pointee.builder.entry == nil { spoil(EINVAL) }
        return pointee.builder.entry != nil
    }

    /// Finishes the request before, and finds room for another. Nil after an error, or when the queue is full.
    @inline(__always)
    fileprivate func nextEntry() -> UnsafeMutableRawPointer? {
        finishOpen()
        guard _fastPath(pointee.builder.error == 0) else { return nil }
        guard _fastPath(!isFull(behind: pointee.builder.count)) else {
            spoil(ENOMEM)
            return nil
        }
        return pointee.ring.block(pointee.block)
    }
}

// MARK: - Beginning a request

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// Opens a request whose data begins at a place.
    @inline(__always)
    private func open(
        _ entry: UnsafeMutableRawPointer, _ operation: UInt32, immediate: UInt32, segments: UInt32
    ) {
        let queue = native.sends
        queue.pointee.builder.entry = entry
        queue.pointee.builder.operation = operation
        queue.pointee.builder.flags = pointee.wr_flags
        queue.pointee.builder.immediate = immediate
        queue.pointee.builder.id = pointee.wr_id
        queue.pointee.builder.segments = segments
        queue.pointee.builder.dataSegments = 0
        queue.pointee.builder.lacksAddress = queue.pointee.isDatagram
        queue.pointee.builder.data = queue.pointee.ring.wrapped(entry + Int(segments) &* 16)
    }

    @inline(__always)
    fileprivate func beginSend(_ operation: UInt32, immediate: UInt32 = 0) {
        let queue = native.sends
        guard let entry = queue.nextEntry() else { return }
        open(entry, operation, immediate: immediate, segments: queue.pointee.isDatagram ? 4 : 1)
    }

    @inline(__always)
    fileprivate func beginRemote(_ operation: UInt32, key: UInt32, address: UInt64, immediate: UInt32 = 0) {
        guard let entry = native.sends.nextEntry() else { return }
        (entry + ControlSegment.byteCount).putRemote(address, key)
        open(entry, operation, immediate: immediate, segments: 2)
    }

    @inline(__always)
    fileprivate func beginAtomic(
        _ operation: UInt32, key: UInt32, address: UInt64, _ compareAdd: UInt64, _ swap: UInt64
    ) {
        guard let entry = native.sends.nextEntry() else { return }
        let remote = entry + ControlSegment.byteCount
        remote.putRemote(address, key)
        (remote + RemoteAddressSegment.byteCount).putAtomic(operation, compareAdd: compareAdd, swap: swap)
        open(entry, operation, immediate: 0, segments: 3)
    }

    @inline(never)
    fileprivate func changeKey(_ change: KeyChange) {
        let queue = native.sends
        guard let entry = queue.nextEntry() else { return }
        let segments = queue.writeKeyChange(
            change, id: pointee.wr_id, flags: pointee.wr_flags,
            number: queue.pointee.number &+ queue.pointee.builder.count)
        guard segments > 0 else { return queue.spoil(-segments) }
        queue.take(entry, UInt32(bitPattern: segments))
    }
}

/// A window of type 2 (ibv_wr_post(3)).
@inline(__always)
private func bind(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, window: UnsafeMutablePointer<ibv_mw>?, key: UInt32,
    info: UnsafePointer<ibv_mw_bind_info>?
) {
    guard let qp else { return }
    guard let window, let info,
        let change = KeyChange(window.pointee.rkey, IBV_MW_TYPE_2, key: key, info.pointee)
    else { return qp.native.sends.spoil(EINVAL) }
    qp.changeKey(change)
}

// MARK: - Setters

@inline(__always)
private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard let ah else { return queue.spoil(EINVAL) }
    let place = queue.pointee.builder.entry.unsafelyUnwrapped + ControlSegment.byteCount
    place.putAddress(ah, queuePair: number, key: key)
    queue.pointee.builder.lacksAddress = false
}

@inline(__always)
private func setElement(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard queue.pointee.maximumElements > 0 else { return queue.spoil(EINVAL) }
    guard length != 0 else { return queue.pointee.builder.dataSegments = 0 }
    queue.pointee.builder.data.unsafelyUnwrapped.putPiece(length, key, address)
    queue.pointee.builder.dataSegments = 1
}

@inline(__always)
private func setElements(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    guard UInt(bitPattern: count) <= UInt(queue.pointee.maximumElements) else { return queue.spoil(EINVAL) }
    let segments = queue.pointee.ring.putPieces(
        list, UInt32(truncatingIfNeeded: count), at: queue.pointee.builder.data.unsafelyUnwrapped, isAtomic: false)
    guard segments >= 0 else { return queue.spoil(-segments) }
    queue.pointee.builder.dataSegments = UInt32(bitPattern: segments)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Whether the open request may have its data inside.
    @inline(__always)
    fileprivate var takesInline: Bool {
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
    guard UInt(bitPattern: length) <= UInt(queue.pointee.maximumInline), queue.takesInline,
        length == 0 || address != nil
    else { return queue.spoil(EINVAL) }
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
    guard count >= 0, count == 0 || list != nil, queue.takesInline else { return queue.spoil(EINVAL) }
    let segment = queue.pointee.builder.data.unsafelyUnwrapped
    let ring = queue.pointee.ring
    var target = segment + InlineSegment.headerByteCount
    var room = UInt(queue.pointee.maximumInline)
    for index in 0..<count {
        let buffer = list.unsafelyUnwrapped + index
        let length = UInt(bitPattern: buffer.pointee.length)
        guard length <= room, length == 0 || buffer.pointee.addr != nil else { return queue.spoil(EINVAL) }
        if length != 0 { target = ring.copy(buffer.pointee.addr.unsafelyUnwrapped, Int(length), to: target) }
        room &-= length
    }
    let used = queue.pointee.maximumInline &- UInt32(truncatingIfNeeded: room)
    queue.pointee.builder.dataSegments = UInt32(bitPattern: ring.finishInline(used, at: segment))
}
