import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_qp_ex`, which build work requests piece by piece between wr_start and wr_complete
// (ibv_wr_post(3)). They write straight into the entries behind the last one that the kernel knows of; wr_complete lets
// it know of them all, or, after an error, of none.

/// How far the building is.
struct SendBuilder {
    /// The entry of the request that was begun last: its setters write there.
    fileprivate var entry: UnsafeMutableRawPointer?
    /// Index of the next entry.
    fileprivate var next: UInt32 = 0
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
    if wants(IBV_QP_EX_WITH_SEND) { qp.pointee.wr_send = { $0.unsafelyUnwrapped.begin(IBV_WR_SEND) } }
    if wants(IBV_QP_EX_WITH_SEND_WITH_IMM) {
        qp.pointee.wr_send_imm = { qp, immediate in qp.unsafelyUnwrapped.begin(IBV_WR_SEND_WITH_IMM, ex: immediate) }
    }
    if wants(IBV_QP_EX_WITH_SEND_WITH_INV) {
        qp.pointee.wr_send_inv = { qp, key in qp.unsafelyUnwrapped.begin(IBV_WR_SEND_WITH_INV, ex: key) }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE) {
        qp.pointee.wr_rdma_write = { qp, key, address in
            qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_WRITE, key: key, address: address)
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM) {
        qp.pointee.wr_rdma_write_imm = { qp, key, address, immediate in
            qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_WRITE_WITH_IMM, ex: immediate, key: key, address: address)
        }
    }
    if wants(IBV_QP_EX_WITH_RDMA_READ) {
        qp.pointee.wr_rdma_read = { qp, key, address in
            qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_READ, key: key, address: address)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP) {
        qp.pointee.wr_atomic_cmp_swp = { qp, key, address, compare, swap in
            qp.unsafelyUnwrapped.beginAtomic(IBV_WR_ATOMIC_CMP_AND_SWP, key: key, address: address, compare, swap)
        }
    }
    if wants(IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) {
        qp.pointee.wr_atomic_fetch_add = { qp, key, address, add in
            qp.unsafelyUnwrapped.beginAtomic(IBV_WR_ATOMIC_FETCH_AND_ADD, key: key, address: address, add, 0)
        }
    }
    if wants(IBV_QP_EX_WITH_LOCAL_INV) {
        qp.pointee.wr_local_inv = { qp, key in qp.unsafelyUnwrapped.begin(IBV_WR_LOCAL_INV, ex: key) }
    }
    if wants(IBV_QP_EX_WITH_BIND_MW) { qp.pointee.wr_bind_mw = beginBinding }
}

// MARK: - From start to end

/// Holds the send queue's lock from here to wr_complete or wr_abort.
@inline(__always)
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    pair.pointee.sendLock.lock()
    queue.pointee.builder.entry = nil
    queue.pointee.builder.error = EINVAL
    guard pair.takesSends else { return }
    let ring = queue.pointee.ring
    queue.pointee.builder.error = 0
    queue.pointee.builder.next = ring.producer.loadOwn() & ring.mask
}

@inline(__always)
private func complete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    let error = queue.pointee.builder.error
    guard _fastPath(error == 0) else {
        pair.pointee.sendLock.unlock()
        return error
    }
    guard queue.pointee.builder.entry != nil else {
        pair.pointee.sendLock.unlock()
        return 0
    }
    let ring = queue.pointee.ring
    let start = ring.producer.loadOwn()
    let end = queue.pointee.builder.next
    ring.producer.storeReleasing(end)
    pair.pointee.sendLock.unlock()
    let refusal = queue.ring()
    if _slowPath(refusal != 0) { pair.takeBack(from: start, to: end) }
    return refusal
}

@inline(__always)
private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) { qp.unsafelyUnwrapped.native.pointee.sendLock.unlock() }

// MARK: - Beginning a request

extension UnsafeMutablePointer<SendQueue> {
    fileprivate func spoil(_ error: Int32) {
        if pointee.builder.error == 0 { pointee.builder.error = error }
    }

    /// The entry whose setter was called; nil after an error, or when no request was begun.
    @inline(__always)
    fileprivate var openEntry: UnsafeMutableRawPointer? {
        guard _fastPath(pointee.builder.error == 0) else { return nil }
        if pointee.builder.entry == nil { spoil(EINVAL) }
        return pointee.builder.entry
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// Takes an entry and fills in what every request has. Nil after an error, or when the queue is full.
    @inline(__always)
    fileprivate func takeEntry(_ opcode: ibv_wr_opcode, ex: UInt32) -> UnsafeMutableRawPointer? {
        let queue = native.sends
        guard _fastPath(queue.pointee.builder.error == 0) else { return nil }
        let ring = queue.pointee.ring
        let index = queue.pointee.builder.next
        let next = ring.next(index)
        guard _fastPath(next != ring.consumer.loadAcquiring()) else {
            queue.pointee.builder.error = ENOMEM
            return nil
        }
        let entry = ring.entry(index)
        queue.pointee.builder.next = next
        queue.pointee.builder.entry = entry
        entry.put(pointee.wr_id, at: RXE_SEND_WR_ID)
        entry.put(opcode.rawValue, at: RXE_SEND_OPCODE)
        // Whether the data is inline, the setter says.
        entry.put(pointee.wr_flags & ~IBV_SEND_INLINE.rawValue, at: RXE_SEND_FLAGS)
        entry.put(ex, at: RXE_SEND_EX)
        queue.startAccount(of: entry, length: 0, elements: 0)
        return entry
    }

    @inline(__always)
    fileprivate func begin(_ opcode: ibv_wr_opcode, ex: UInt32 = 0, key: UInt32 = 0, address: UInt64 = 0) {
        guard let entry = takeEntry(opcode, ex: ex) else { return }
        // For a datagram, no address handle yet.
        entry.put(address, at: RXE_SEND_RDMA_ADDRESS)
        entry.put(UInt64(key), at: RXE_SEND_RDMA_RKEY)
        entry.put(address, at: RXE_SEND_IOVA)
    }

    @inline(__always)
    fileprivate func beginAtomic(
        _ opcode: ibv_wr_opcode, key: UInt32, address: UInt64, _ compareAdd: UInt64, _ swap: UInt64
    ) {
        guard address & 7 == 0 else { return native.sends.spoil(EINVAL) }
        guard let entry = takeEntry(opcode, ex: 0) else { return }
        entry.put(address, at: RXE_SEND_ATOMIC_ADDRESS)
        entry.put(compareAdd, at: RXE_SEND_ATOMIC_COMPARE_ADD)
        entry.put(swap, at: RXE_SEND_ATOMIC_SWAP)
        entry.put(key, at: RXE_SEND_ATOMIC_RKEY)
        entry.put(address, at: RXE_SEND_IOVA)
    }
}

@inline(__always)
private func beginBinding(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, window: UnsafeMutablePointer<ibv_mw>?, key: UInt32,
    info: UnsafePointer<ibv_mw_bind_info>?
) {
    guard let qp else { return }
    guard let window, let info, info.pointee.mr != nil else { return qp.native.sends.spoil(EINVAL) }
    guard let entry = qp.takeEntry(IBV_WR_BIND_MW, ex: 0) else { return }
    qp.native.sends.writeBinding(window, key: key, info.pointee, to: entry)
}

// MARK: - Setters

@inline(__always)
private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let entry = queue.openEntry else { return }
    guard let ah else { return queue.spoil(EINVAL) }
    entry.put(number, at: RXE_SEND_UD_QPN)
    entry.put(key, at: RXE_SEND_UD_QKEY)
    entry.put(UInt64(ah.rxe.pointee.number) << 32, at: RXE_SEND_UD_PKEY_INDEX)
}

@inline(__always)
private func setElement(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let entry = queue.openEntry else { return }
    guard queue.pointee.maximumElements > 0 else { return queue.spoil(EINVAL) }
    entry.put(address, at: RXE_SEND_DATA)
    entry.put(length, at: RXE_SEND_DATA + 8)
    entry.put(key, at: RXE_SEND_DATA + 12)
    entry.setData(length: length, elements: 1, flag: 0)
}

@inline(__always)
private func setElements(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let entry = queue.openEntry else { return }
    guard UInt(bitPattern: count) <= UInt(queue.pointee.maximumElements),
        let length = copyElements(list, UInt32(truncatingIfNeeded: count), to: entry + Int(RXE_SEND_DATA))
    else { return queue.spoil(EINVAL) }
    entry.setData(length: length, elements: UInt32(truncatingIfNeeded: count), flag: 0)
}

@inline(__always)
private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let entry = queue.openEntry else { return }
    guard let used = queue.copy(address, length, to: entry, behind: 0) else { return queue.spoil(EINVAL) }
    entry.setData(length: UInt32(truncatingIfNeeded: used), elements: 0, flag: IBV_SEND_INLINE.rawValue)
}

@inline(__always)
private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let entry = queue.openEntry else { return }
    guard count >= 0, count == 0 || list != nil else { return queue.spoil(EINVAL) }
    var used = 0
    for index in 0..<count {
        guard let more = queue.copy(list![index].addr, list![index].length, to: entry, behind: used) else {
            return queue.spoil(EINVAL)
        }
        used = more
    }
    entry.setData(length: UInt32(truncatingIfNeeded: used), elements: 0, flag: IBV_SEND_INLINE.rawValue)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Copies inline data behind the `used` bytes that are there. The number of bytes that are there then; nil when there
    /// is no room for them, or the operation takes no inline data.
    @inline(__always)
    fileprivate func copy(
        _ bytes: UnsafeMutableRawPointer?, _ length: Int, to entry: UnsafeMutableRawPointer, behind used: Int
    ) -> Int? {
        let opcode = entry.load(fromByteOffset: Int(RXE_SEND_OPCODE), as: UInt32.self)
        guard UInt(bitPattern: length) <= UInt(pointee.maximumInline) &- UInt(bitPattern: used),
            inlineOpcodes & (1 &<< opcode) != 0
        else { return nil }
        guard length > 0 else { return used }
        guard let bytes else { return nil }
        (entry + (Int(RXE_SEND_DATA) &+ used)).copyMemory(from: bytes, byteCount: length)
        return used &+ length
    }
}

extension UnsafeMutableRawPointer {
    /// Says how much data an entry has, and whether it stands in the entry itself (IBV_SEND_INLINE, or 0).
    @inline(__always)
    fileprivate func setData(length: UInt32, elements: UInt32, flag: UInt32) {
        let flags = load(fromByteOffset: Int(RXE_SEND_FLAGS), as: UInt32.self)
        put(flags & ~IBV_SEND_INLINE.rawValue | flag, at: RXE_SEND_FLAGS)
        let account = self + Int(RXE_SEND_DMA)
        account.put(length, at: RXE_DMA_LENGTH)
        account.put(length, at: RXE_DMA_RESID)
        account.put(elements, at: RXE_DMA_SGE_COUNT)
    }
}
