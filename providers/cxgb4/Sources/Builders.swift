import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_qp_ex`, which build work requests step by step between wr_start and wr_complete
// (ibv_wr_post(3)). They write work requests directly behind the last posted one. wr_complete rings the doorbell for all
// of them, or, after an error, for none.
//
// The header of a work request is written last, at the start of the next one or in wr_complete, because it contains the
// size.

/// The state between wr_start and wr_complete.
struct SendBuilder {
    /// The open work request; nil if none is open.
    fileprivate var target: UnsafeMutableRawPointer?
    /// Its opcode (`WorkRequestOpcode`) and operation (`Operation`), and the flags of its header beyond those of
    /// `wr_flags`.
    fileprivate var opcode: UInt64 = 0
    fileprivate var operation: UInt32 = 0
    fileprivate var moreFlags: UInt64 = 0
    fileprivate var flags: UInt32 = 0
    fileprivate var id: UInt64 = 0
    /// The rkey and remote address, or the rkey to invalidate, and the immediate data.
    fileprivate var key: UInt32 = 0
    fileprivate var address: UInt64 = 0
    fileprivate var immediate: UInt32 = 0
    /// Its payload, and the SGE of a READ.
    fileprivate var payload = Payload(size: 0, length: 0)
    fileprivate var sink: ibv_sge?

    /// The numbers of finished work requests and of their slots, and the slots of the last one.
    fileprivate var count: UInt32 = 0
    fileprivate var slots: UInt32 = 0
    fileprivate var lastSlots: UInt32 = 0
    /// The state to restore if nothing is posted.
    fileprivate var firstSlot: UInt32 = 0
    fileprivate var firstIndex: UInt32 = 0
    fileprivate var firstNumber: UInt32 = 0
    /// The first error since wr_start. wr_complete then posts nothing and returns it.
    fileprivate var error: Int32 = 0
}

/// The supported `send_ops_flags` of a queue pair type (`enum ibv_qp_create_send_ops_flags`). The bit numbers are those
/// of `enum ibv_wr_opcode`.
func sendOperations(_ type: ibv_qp_type) -> UInt64 {
    type == IBV_QPT_RC ? UInt64(allowedOpcodes(hasImmediate: true)) : 0
}

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
    functions.wr_send = { $0.unsafelyUnwrapped.begin(WorkRequestOpcode.send, Operation.send) }
    functions.wr_send_inv = { qp, key in
        qp.unsafelyUnwrapped.begin(WorkRequestOpcode.send, Operation.sendInvalidate, key: key)
    }
    functions.wr_rdma_write = { qp, key, address in
        qp.unsafelyUnwrapped.begin(WorkRequestOpcode.write, Operation.write, key: key, address: address)
    }
    functions.wr_rdma_write_imm = { qp, key, address, immediate in
        qp.unsafelyUnwrapped.begin(
            WorkRequestOpcode.write, Operation.write, key: key, address: address,
            immediate: UInt32(bigEndian: immediate), moreFlags: WorkRequestFlags.immediate)
    }
    functions.wr_rdma_read = { qp, key, address in
        qp.unsafelyUnwrapped.begin(WorkRequestOpcode.read, Operation.read, key: key, address: address)
    }
    functions.wr_local_inv = { qp, key in
        qp.unsafelyUnwrapped.build { queue, target, id, flags in queue.writeInvalidation(target, key, id: id, flags) }
    }
    functions.wr_bind_mw = bind
    setWorkRequestFunctions(qp, operations: operations, from: functions)
}

// MARK: - From start to end

/// `wr_start`: locks the send queue until wr_complete or wr_abort.
@inline(never)
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    pair.pointee.sendLock.lock()
    let queue = pair.sends
    queue.pointee.builder.target = nil
    queue.pointee.builder.count = 0
    queue.pointee.builder.slots = 0
    queue.pointee.builder.firstSlot = queue.pointee.ring.next
    queue.pointee.builder.firstIndex = queue.pointee.index
    queue.pointee.builder.firstNumber = queue.pointee.number
    queue.pointee.builder.error = queue.pointee.flags.isInError ? EINVAL : 0
}

@inline(never)
private func complete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    queue.finishOpen()
    let error = queue.pointee.builder.error
    if _slowPath(error != 0) {
        queue.rollBack()
    } else if queue.pointee.builder.slots != 0 {
        queue.ringDoorbell(queue.pointee.builder.slots, last: queue.pointee.builder.lastSlots, of: pair)
    }
    return pair.pointee.sendLock.unlock(returning: error)
}

@inline(never)
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
        pointee.ring.next = pointee.builder.firstSlot
        pointee.index = pointee.builder.firstIndex
        pointee.number = pointee.builder.firstNumber
    }

    /// Writes the rest of the open work request, and adds it to the ring.
    @inline(__always)
    fileprivate func finishOpen() {
        guard let target = pointee.builder.target else { return }
        pointee.builder.target = nil
        let flags = pointee.builder.flags
        let payload = pointee.builder.payload
        switch pointee.builder.opcode {
        case WorkRequestOpcode.send:
            target.putSend(
                pointee.builder.operation, flags, invalidated: pointee.builder.key, length: payload.length)
            finish(target, headerFlags(flags, fence: WorkRequestFlags.readFence), SendRequest.byteCount, payload)
        case WorkRequestOpcode.write:
            target.putWrite(
                key: pointee.builder.key, address: pointee.builder.address, immediate: pointee.builder.immediate,
                length: payload.length)
            finish(
                target, headerFlags(flags, fence: 0) | pointee.builder.moreFlags, WriteRequest.byteCount, payload)
        default:
            add(
                writeRead(
                    target, sink: pointee.builder.sink, key: pointee.builder.key, address: pointee.builder.address,
                    id: pointee.builder.id, flags))
        }
    }

    @inline(__always)
    private func finish(_ target: UnsafeMutableRawPointer, _ flags: UInt64, _ size: Int, _ payload: Payload) {
        add(
            finish(
                target, pointee.builder.opcode, flags, size: UInt32(size) &+ payload.size,
                PostedSend(
                    id: pointee.builder.id, length: 0,
                    state: .init(pointee.builder.operation, isSignaled: isSignaled(pointee.builder.flags)))))
    }

    /// Counts a work request that was added to the ring, or records the error.
    @inline(__always)
    fileprivate func add(_ taken: Int32) {
        guard _fastPath(taken > 0) else { return fail(-taken) }
        pointee.builder.count &+= 1
        pointee.builder.lastSlots = UInt32(bitPattern: taken)
        pointee.builder.slots &+= UInt32(bitPattern: taken)
    }

    /// Whether a work request is open for the setter that was called. Records EINVAL if none is.
    @inline(__always)
    fileprivate var isOpen: Bool {
        guard _fastPath(pointee.builder.error == 0) else { return false }
        if pointee.builder.target == nil { fail(EINVAL) }
        return pointee.builder.target != nil
    }

    /// Whether the open work request can have inline data.
    @inline(__always)
    fileprivate var isOpenForInlineData: Bool {
        guard isOpen else { return false }
        if pointee.builder.opcode == WorkRequestOpcode.read { fail(EINVAL) }
        return pointee.builder.opcode != WorkRequestOpcode.read
    }

    /// Finishes the open work request and returns where to write the next. Returns nil after an error, or if the queue
    /// is full (ENOMEM).
    @inline(__always)
    fileprivate func nextTarget() -> UnsafeMutableRawPointer? {
        finishOpen()
        guard _fastPath(pointee.builder.error == 0) else { return nil }
        // One doorbell has 13 bits for the slots.
        guard _fastPath(room != 0), pointee.builder.slots < Doorbell.maximumSlots &- Limits.sendSlots else {
            fail(ENOMEM)
            return nil
        }
        return pointee.ring.target
    }

    /// The payload of the open SEND or WRITE, which follows a struct of 32 bytes.
    @inline(__always)
    fileprivate var openPayload: UnsafeMutableRawPointer {
        pointee.builder.target.unsafelyUnwrapped + SendRequest.byteCount
    }
}

// MARK: - Beginning a work request

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// Opens a work request.
    @inline(__always)
    fileprivate func begin(
        _ opcode: UInt64, _ operation: UInt32, key: UInt32 = 0, address: UInt64 = 0, immediate: UInt32 = 0,
        moreFlags: UInt64 = 0
    ) {
        let queue = native.sends
        guard let target = queue.nextTarget() else { return }
        queue.pointee.builder.target = target
        queue.pointee.builder.opcode = opcode
        queue.pointee.builder.operation = operation
        queue.pointee.builder.moreFlags = moreFlags
        queue.pointee.builder.flags = pointee.wr_flags
        queue.pointee.builder.id = pointee.wr_id
        queue.pointee.builder.key = key
        queue.pointee.builder.address = address
        queue.pointee.builder.immediate = immediate
        if opcode == WorkRequestOpcode.read {
            queue.pointee.builder.sink = nil
        } else {
            queue.pointee.builder.payload = finishInline(0, at: queue.openPayload)
        }
    }

    /// Adds a work request that needs no setter.
    @inline(__always)
    fileprivate func build(
        _ write: (UnsafeMutablePointer<SendQueue>, UnsafeMutableRawPointer, UInt64, UInt32) -> Int32
    ) {
        let queue = native.sends
        guard let target = queue.nextTarget() else { return }
        queue.add(write(queue, target, pointee.wr_id, pointee.wr_flags))
    }
}

/// `wr_bind_mw`: binds a memory window of type 2 (ibv_wr_post(3)).
@inline(never)
private func bind(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, window: UnsafeMutablePointer<ibv_mw>?, key: UInt32,
    info: UnsafePointer<ibv_mw_bind_info>?
) {
    guard let qp else { return }
    guard window != nil, let info else { return qp.native.sends.fail(EINVAL) }
    qp.build { queue, target, id, flags in
        queue.writeBinding(target, key: key, isType2: true, info.pointee, id: id, flags)
    }
}

// MARK: - Setters

@inline(__always)
private func setSGE(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    var sge = ibv_sge(addr: address, length: length, lkey: key)
    guard queue.pointee.builder.opcode != WorkRequestOpcode.read else { return queue.pointee.builder.sink = sge }
    guard let payload = putSGEs(&sge, 1, at: queue.openPayload) else { return queue.fail(EINVAL) }
    queue.pointee.builder.payload = payload
}

@inline(__always)
private func setSGEList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpen else { return }
    let isRead = queue.pointee.builder.opcode == WorkRequestOpcode.read
    guard UInt(bitPattern: count) <= (isRead ? 1 : UInt(Limits.sendSGE)), count == 0 || list != nil else {
        return queue.fail(EINVAL)
    }
    if isRead {
        queue.pointee.builder.sink = count == 0 ? nil : list.unsafelyUnwrapped.pointee
    } else if count == 0 {
        queue.pointee.builder.payload = finishInline(0, at: queue.openPayload)
    } else {
        let payload = putSGEs(list.unsafelyUnwrapped, UInt32(truncatingIfNeeded: count), at: queue.openPayload)
        guard let payload else { return queue.fail(EINVAL) }
        queue.pointee.builder.payload = payload
    }
}

@inline(__always)
private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpenForInlineData else { return }
    guard UInt(bitPattern: length) <= UInt(Limits.inlineData), length == 0 || address != nil else {
        return queue.fail(EINVAL)
    }
    let payload = queue.openPayload
    if length != 0 {
        (payload + InlineDataHeader.byteCount).copyMemory(from: address.unsafelyUnwrapped, byteCount: length)
    }
    queue.pointee.builder.payload = finishInline(UInt32(truncatingIfNeeded: length), at: payload)
}

@inline(__always)
private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard queue.isOpenForInlineData else { return }
    guard count >= 0, count == 0 || list != nil else { return queue.fail(EINVAL) }
    let payload = queue.openPayload
    let start = payload + InlineDataHeader.byteCount
    var used: UInt = 0
    for index in 0..<count {
        let buffer = list.unsafelyUnwrapped[index]
        let length = UInt(bitPattern: buffer.length)
        guard length <= UInt(Limits.inlineData) &- used, length == 0 || buffer.addr != nil else {
            return queue.fail(EINVAL)
        }
        if length != 0 { (start + Int(used)).copyMemory(from: buffer.addr.unsafelyUnwrapped, byteCount: Int(length)) }
        used &+= length
    }
    queue.pointee.builder.payload = finishInline(UInt32(truncatingIfNeeded: used), at: payload)
}
