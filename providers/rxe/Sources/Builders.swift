import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// The functions of `ibv_qp_ex`, which build work requests step by step between wr_start and wr_complete
// (ibv_wr_post(3)). They write WQEs in place, from the producer index on. wr_complete advances the producer index past
// all of them and rings the doorbell; after an error it does neither.

/// The state between wr_start and wr_complete.
struct SendBuilder {
    /// The WQE of the latest work request, to which the setters write; nil before the first.
    fileprivate var wqe: UnsafeMutableRawPointer?
    /// Index of the next WQE.
    fileprivate var next: UInt32 = 0
    /// The first error since wr_start, which wr_complete returns; 0 when there is none.
    fileprivate var error: Int32 = 0
}

/// The operations (`ibv_qp_create_send_ops_flags`) that a QP of this type supports on every kernel. Bit n of the flags is
/// opcode n of `ibv_wr_opcode`.
func sendOperations(_ type: ibv_qp_type) -> UInt64 { UInt64(allowedOpcodes(type)) }

/// ATOMIC WRITE and FLUSH (`ibv_qp_create_send_ops_flags`), which only the wr_ functions of an RC QP post, as far as the kernel's
/// rxe supports them: ATOMIC WRITE from Linux 6.2 on, FLUSH from 6.3 on.
/// - Parameter capabilities: `device_cap_flags_ex`.
func placementOperations(_ capabilities: UInt64) -> UInt64 {
    let flushes = PlacementCapability.flushGlobal | PlacementCapability.flushPersistent
    return (capabilities & PlacementCapability.atomicWrite != 0 ? PlacementOperations.atomicWrite : 0)
        | (capabilities & flushes != 0 ? PlacementOperations.flush : 0)
}

/// IBV_WR_FLUSH of later versions of verbs.h than that of rdma-core 44.
private let flushOpcode = ibv_wr_opcode(14)
/// IBV_FLUSH_MR, likewise: the selectivity level of a whole memory region.
private let flushRegion: UInt8 = 1

/// Sets the wr_ functions of the given operations (`ibv_qp_create_send_ops_flags`).
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
    functions.wr_send = { $0.unsafelyUnwrapped.begin(IBV_WR_SEND) }
    functions.wr_send_imm = { qp, immediate in qp.unsafelyUnwrapped.begin(IBV_WR_SEND_WITH_IMM, ex: immediate) }
    functions.wr_send_inv = { qp, key in qp.unsafelyUnwrapped.begin(IBV_WR_SEND_WITH_INV, ex: key) }
    functions.wr_rdma_write = { qp, key, address in
        qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_WRITE, key: key, address: address)
    }
    functions.wr_rdma_write_imm = { qp, key, address, immediate in
        qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_WRITE_WITH_IMM, ex: immediate, key: key, address: address)
    }
    functions.wr_rdma_read = { qp, key, address in
        qp.unsafelyUnwrapped.begin(IBV_WR_RDMA_READ, key: key, address: address)
    }
    functions.wr_atomic_cmp_swp = { qp, key, address, compare, swap in
        qp.unsafelyUnwrapped.beginAtomic(IBV_WR_ATOMIC_CMP_AND_SWP, key: key, address: address, compare, swap)
    }
    functions.wr_atomic_fetch_add = { qp, key, address, add in
        qp.unsafelyUnwrapped.beginAtomic(IBV_WR_ATOMIC_FETCH_AND_ADD, key: key, address: address, add, 0)
    }
    functions.wr_atomic_write = { qp, key, address, bytes in
        qp.unsafelyUnwrapped.beginAtomicWrite(key: key, address: address, bytes)
    }
    functions.wr_local_inv = { qp, key in qp.unsafelyUnwrapped.begin(IBV_WR_LOCAL_INV, ex: key) }
    functions.wr_bind_mw = beginBinding
    setWorkRequestFunctions(qp, operations: operations, from: functions)
    // The struct of verbs.h does not declare the function.
    if operations & PlacementOperations.flush != 0 {
        rdma_wr_flush_place(qp).pointee = { qp, key, address, length, placement, selectivity in
            qp.unsafelyUnwrapped.beginFlush(key: key, address: address, length, placement, selectivity)
        }
    }
}

// MARK: - wr_start, wr_complete, wr_abort

/// wr_start: takes the send queue's lock, which wr_complete or wr_abort releases.
@inline(__always)
private func start(qp: UnsafeMutablePointer<ibv_qp_ex>?) {
    let pair = qp.unsafelyUnwrapped.native
    let queue = pair.sends
    pair.pointee.sendLock.lock()
    queue.pointee.builder.wqe = nil
    queue.pointee.builder.error = EINVAL
    guard pair.allowsPostSend else { return }
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
    guard queue.pointee.builder.wqe != nil else {
        pair.pointee.sendLock.unlock()
        return 0
    }
    let ring = queue.pointee.ring
    let start = ring.producer.loadOwn()
    let end = queue.pointee.builder.next
    ring.producer.storeReleasing(end)
    pair.pointee.sendLock.unlock()
    let doorbellError = queue.ringDoorbell()
    if _slowPath(doorbellError != 0) { pair.rollBack(from: start, to: end) }
    return doorbellError
}

@inline(__always)
private func abort(qp: UnsafeMutablePointer<ibv_qp_ex>?) { qp.unsafelyUnwrapped.native.pointee.sendLock.unlock() }

// MARK: - Beginning a work request

extension UnsafeMutablePointer<SendQueue> {
    fileprivate func setError(_ error: Int32) {
        if pointee.builder.error == 0 { pointee.builder.error = error }
    }

    /// The WQE to which a setter writes; nil after an error, or when no work request was begun.
    @inline(__always)
    fileprivate var currentWQE: UnsafeMutableRawPointer? {
        guard _fastPath(pointee.builder.error == 0) else { return nil }
        if pointee.builder.wqe == nil { setError(EINVAL) }
        return pointee.builder.wqe
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// Starts the next WQE and writes the fields common to all operations. Nil after an error, or when the queue is
    /// full.
    @inline(__always)
    fileprivate func nextWQE(_ opcode: ibv_wr_opcode, ex: UInt32) -> UnsafeMutableRawPointer? {
        let queue = native.sends
        guard _fastPath(queue.pointee.builder.error == 0) else { return nil }
        let ring = queue.pointee.ring
        let index = queue.pointee.builder.next
        let next = ring.next(index)
        guard _fastPath(next != ring.consumer.loadAcquiring()) else {
            queue.pointee.builder.error = ENOMEM
            return nil
        }
        let wqe = ring.entry(index)
        queue.pointee.builder.next = next
        queue.pointee.builder.wqe = wqe
        wqe.put(pointee.wr_id, at: RXE_SEND_WR_ID)
        wqe.put(opcode.rawValue, at: RXE_SEND_OPCODE)
        // The setter of the data sets or clears IBV_SEND_INLINE.
        wqe.put(pointee.wr_flags & ~IBV_SEND_INLINE.rawValue, at: RXE_SEND_FLAGS)
        wqe.put(ex, at: RXE_SEND_EX)
        queue.initializeState(of: wqe, length: 0, sgeCount: 0)
        return wqe
    }

    @inline(__always)
    fileprivate func begin(_ opcode: ibv_wr_opcode, ex: UInt32 = 0, key: UInt32 = 0, address: UInt64 = 0) {
        guard let wqe = nextWQE(opcode, ex: ex) else { return }
        // On a UD QP this zeroes the fields of `wr.ud`; wr_set_ud_addr sets them.
        wqe.put(address, at: RXE_SEND_RDMA_ADDRESS)
        wqe.put(UInt64(key), at: RXE_SEND_RDMA_RKEY)
        wqe.put(address, at: RXE_SEND_IOVA)
    }

    @inline(__always)
    fileprivate func beginAtomic(
        _ opcode: ibv_wr_opcode, key: UInt32, address: UInt64, _ compareAdd: UInt64, _ swap: UInt64
    ) {
        guard address & 7 == 0 else { return native.sends.setError(EINVAL) }
        guard let wqe = nextWQE(opcode, ex: 0) else { return }
        wqe.put(address, at: RXE_SEND_ATOMIC_ADDRESS)
        wqe.put(compareAdd, at: RXE_SEND_ATOMIC_COMPARE_ADD)
        wqe.put(swap, at: RXE_SEND_ATOMIC_SWAP)
        wqe.put(key, at: RXE_SEND_ATOMIC_RKEY)
        wqe.put(address, at: RXE_SEND_IOVA)
    }

    /// The kernel reads the 8 bytes from `rxe_dma_info.atomic_wr`, where inline data is in other WQEs.
    fileprivate func beginAtomicWrite(key: UInt32, address: UInt64, _ bytes: UnsafeRawPointer?) {
        guard address & 7 == 0, let bytes, native.sends.pointee.ring.entrySize >= Int(RXE_SEND_DATA) + 8 else {
            return native.sends.setError(EINVAL)
        }
        guard let wqe = nextWQE(IBV_WR_ATOMIC_WRITE, ex: 0) else { return }
        wqe.put(address, at: RXE_SEND_RDMA_ADDRESS)
        wqe.put(UInt64(key), at: RXE_SEND_RDMA_RKEY)
        wqe.put(address, at: RXE_SEND_IOVA)
        wqe.put(bytes.loadUnaligned(as: UInt64.self), at: RXE_SEND_DATA)
        wqe.setData(length: 8, sgeCount: 0, flag: 0)
    }

    fileprivate func beginFlush(
        key: UInt32, address: UInt64, _ length: Int, _ placement: UInt8, _ selectivity: UInt8
    ) {
        // Of a whole memory region, address and length have no meaning.
        let range = selectivity == flushRegion ? 0 : UInt32(exactly: length)
        guard let range else { return native.sends.setError(EINVAL) }
        guard let wqe = nextWQE(flushOpcode, ex: 0) else { return }
        wqe.put(address, at: RXE_SEND_FLUSH_ADDRESS)
        wqe.put(range, at: RXE_SEND_FLUSH_LENGTH)
        wqe.put(key, at: RXE_SEND_FLUSH_RKEY)
        wqe.put(placement, at: RXE_SEND_FLUSH_PLACEMENT)
        wqe.put(selectivity, at: RXE_SEND_FLUSH_SELECTIVITY)
        wqe.put(address, at: RXE_SEND_IOVA)
        wqe.setData(length: range, sgeCount: 0, flag: 0)
    }
}

@inline(__always)
private func beginBinding(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, window: UnsafeMutablePointer<ibv_mw>?, key: UInt32,
    info: UnsafePointer<ibv_mw_bind_info>?
) {
    guard let qp else { return }
    guard let window, let info, info.pointee.mr != nil else { return qp.native.sends.setError(EINVAL) }
    guard let wqe = qp.nextWQE(IBV_WR_BIND_MW, ex: 0) else { return }
    qp.native.sends.writeBinding(window, key: key, info.pointee, to: wqe)
}

// MARK: - Setters

@inline(__always)
private func setAddress(
    qp: UnsafeMutablePointer<ibv_qp_ex>?, ah: UnsafeMutablePointer<ibv_ah>?, number: UInt32, key: UInt32
) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let wqe = queue.currentWQE else { return }
    guard let ah else { return queue.setError(EINVAL) }
    wqe.put(number, at: RXE_SEND_UD_QPN)
    wqe.put(key, at: RXE_SEND_UD_QKEY)
    wqe.put(UInt64(ah.rxe.pointee.number) << 32, at: RXE_SEND_UD_PKEY_INDEX)
}

@inline(__always)
private func setSGE(qp: UnsafeMutablePointer<ibv_qp_ex>?, key: UInt32, address: UInt64, length: UInt32) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let wqe = queue.currentWQE else { return }
    guard queue.pointee.maxSGE > 0 else { return queue.setError(EINVAL) }
    wqe.put(address, at: RXE_SEND_DATA)
    wqe.put(length, at: RXE_SEND_DATA + 8)
    wqe.put(key, at: RXE_SEND_DATA + 12)
    wqe.setData(length: length, sgeCount: 1, flag: 0)
}

@inline(__always)
private func setSGEList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_sge>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let wqe = queue.currentWQE else { return }
    guard UInt(bitPattern: count) <= UInt(queue.pointee.maxSGE),
        let length = copySGEs(list, UInt32(truncatingIfNeeded: count), to: wqe + Int(RXE_SEND_DATA))
    else { return queue.setError(EINVAL) }
    wqe.setData(length: length, sgeCount: UInt32(truncatingIfNeeded: count), flag: 0)
}

@inline(__always)
private func setInline(qp: UnsafeMutablePointer<ibv_qp_ex>?, address: UnsafeMutableRawPointer?, length: Int) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let wqe = queue.currentWQE else { return }
    guard let used = queue.copy(address, length, to: wqe, behind: 0) else { return queue.setError(EINVAL) }
    wqe.setData(length: UInt32(truncatingIfNeeded: used), sgeCount: 0, flag: IBV_SEND_INLINE.rawValue)
}

@inline(__always)
private func setInlineList(qp: UnsafeMutablePointer<ibv_qp_ex>?, count: Int, list: UnsafePointer<ibv_data_buf>?) {
    let queue = qp.unsafelyUnwrapped.native.sends
    guard let wqe = queue.currentWQE else { return }
    guard count >= 0, count == 0 || list != nil else { return queue.setError(EINVAL) }
    var used = 0
    for index in 0..<count {
        guard let more = queue.copy(list![index].addr, list![index].length, to: wqe, behind: used) else {
            return queue.setError(EINVAL)
        }
        used = more
    }
    wqe.setData(length: UInt32(truncatingIfNeeded: used), sgeCount: 0, flag: IBV_SEND_INLINE.rawValue)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Appends inline data to the `used` bytes in the WQE. Returns the new number of bytes; nil when it exceeds
    /// `max_inline_data`, or the opcode does not allow inline data.
    @inline(__always)
    fileprivate func copy(
        _ bytes: UnsafeMutableRawPointer?, _ length: Int, to wqe: UnsafeMutableRawPointer, behind used: Int
    ) -> Int? {
        let opcode = wqe.load(fromByteOffset: Int(RXE_SEND_OPCODE), as: UInt32.self)
        guard UInt(bitPattern: length) <= UInt(pointee.maxInlineData) &- UInt(bitPattern: used),
            inlineOpcodes & (1 &<< opcode) != 0
        else { return nil }
        guard length > 0 else { return used }
        guard let bytes else { return nil }
        (wqe + (Int(RXE_SEND_DATA) &+ used)).copyMemory(from: bytes, byteCount: length)
        return used &+ length
    }
}

extension UnsafeMutableRawPointer {
    /// Writes the length of the data and the number of SGEs (`struct rxe_dma_info`).
    /// - Parameter flag: IBV_SEND_INLINE for inline data, else 0.
    @inline(__always)
    fileprivate func setData(length: UInt32, sgeCount: UInt32, flag: UInt32) {
        let flags = load(fromByteOffset: Int(RXE_SEND_FLAGS), as: UInt32.self)
        put(flags & ~IBV_SEND_INLINE.rawValue | flag, at: RXE_SEND_FLAGS)
        let dma = self + Int(RXE_SEND_DMA)
        dma.put(length, at: RXE_DMA_LENGTH)
        dma.put(length, at: RXE_DMA_RESID)
        dma.put(sgeCount, at: RXE_DMA_SGE_COUNT)
    }
}
