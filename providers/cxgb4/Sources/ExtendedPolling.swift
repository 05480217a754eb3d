import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_cq_ex`. The current completion is an `ibv_wc`, so that its CQE can be returned to the adapter at
// once.

/// The supported `wc_flags` (`enum ibv_create_cq_wc_flags`).
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS)

/// Sets the functions of an extended completion queue.
func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { $0.unsafelyUnwrapped.current.pointee.opcode }
    cq.pointee.read_vendor_err = { $0.unsafelyUnwrapped.current.pointee.vendor_err }
    cq.pointee.read_byte_len = { $0.unsafelyUnwrapped.current.pointee.byte_len }
    cq.pointee.read_imm_data = { $0.unsafelyUnwrapped.current.pointee.imm_data }
    cq.pointee.read_qp_num = { $0.unsafelyUnwrapped.current.pointee.qp_num }
    cq.pointee.read_src_qp = { _ in 0 }
    cq.pointee.read_wc_flags = { $0.unsafelyUnwrapped.current.pointee.wc_flags }
    cq.pointee.read_slid = { _ in 0 }
    cq.pointee.read_sl = { _ in 0 }
    cq.pointee.read_dlid_path_bits = { _ in 0 }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The current completion. Valid only between start_poll and end_poll.
    @inline(__always)
    fileprivate var current: UnsafeMutablePointer<ibv_wc> { native.ring.pointee.current }

    /// Makes the next completion the current one. Returns 0, ENOENT if there is none, EIO for an invalid CQE, or
    /// EOVERFLOW if the queue has overflowed.
    @inline(__always)
    fileprivate func moveToNext() -> Int32 {
        let wc = current
        let found = native.ring.poll(1, wc)
        guard _fastPath(found == 1) else { return found == 0 ? ENOENT : -found }
        pointee.wr_id = wc.pointee.wr_id
        pointee.status = wc.pointee.status
        return 0
    }

    /// start_poll under the lock. Releases the lock unless it returns 0.
    @inline(__always)
    fileprivate func moveToFirst() -> Int32 {
        let error = moveToNext()
        if _fastPath(error == 0) { return 0 }
        return native.pointee.lock.unlock(returning: error)
    }
}

/// `start_poll`: opens a batch, which holds the queue's lock until end_poll, unless it returns an error.
@inline(never)
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    guard attr.unsafelyUnwrapped.pointee.comp_mask == 0 else { return EINVAL }
    guard _fastPath(cq.native.pointee.lock.tryBegin()) else { return startAfterWaiting(cq) }
    return cq.moveToFirst()
}

@inline(never)
private func startAfterWaiting(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    guard cq.native.pointee.lock.begin() else { return EBUSY }
    return cq.moveToFirst()
}

/// `next_poll`. The batch stays open, whatever it returns.
@inline(never)
private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    guard _fastPath(cq.native.pointee.lock.isInBatch()) else { return EINVAL }
    return cq.moveToNext()
}

/// `end_poll`. Does nothing if no batch is open.
@inline(never)
private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.isInBatch()) else { return }
    queue.pointee.lock.unlock()
}
