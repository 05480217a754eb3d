import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_cq_ex`, which read the fields directly from the CQE.

/// The supported `wc_flags` (`enum ibv_create_cq_wc_flags`).
func supportedCompletionFlags(_ hasTimestamps: Bool) -> UInt64 {
    UInt64(IBV_WC_STANDARD_FLAGS)
        | (hasTimestamps ? UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue) : 0)
}

/// Sets the functions of an extended completion queue.
func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { cq in
        let ring = cq.unsafelyUnwrapped.native.ring
        let completion = ring.pointee.current
        guard completion.opcode == .request else { return completion.receiveOpcode }
        return completion.sendOpcode ?? ibv_wc_opcode(ring.pointee.currentOpcode)
    }
    cq.pointee.read_vendor_err = { $0.unsafelyUnwrapped.current.vendorError }
    cq.pointee.read_byte_len = { cq in
        let completion = cq.unsafelyUnwrapped.current
        return completion.opcode == .request ? completion.sendLength : completion.length
    }
    cq.pointee.read_imm_data = { $0.unsafelyUnwrapped.current.immediate }
    cq.pointee.read_qp_num = { $0.unsafelyUnwrapped.current.queuePair }
    cq.pointee.read_src_qp = { $0.unsafelyUnwrapped.current.sourceQueuePair }
    cq.pointee.read_wc_flags = { cq in
        let completion = cq.unsafelyUnwrapped.current
        return completion.opcode == .request ? completion.sendFlags : completion.receiveFlags
    }
    cq.pointee.read_slid = { UInt32($0.unsafelyUnwrapped.current.sourceLID) }
    cq.pointee.read_sl = { $0.unsafelyUnwrapped.current.serviceLevel }
    cq.pointee.read_dlid_path_bits = { $0.unsafelyUnwrapped.current.pathBits }
    cq.pointee.read_completion_ts = { $0.unsafelyUnwrapped.current.timestamp }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The current completion. Valid only between start_poll and end_poll.
    @inline(__always)
    fileprivate var current: Completion { native.ring.pointee.current }

    /// Makes the next CQE the current completion. Returns 0, ENOENT if there is none, or EIO for an invalid CQE.
    @inline(__always)
    fileprivate func moveToNext() -> Int32 {
        let ring = native.ring
        guard let completion = ring.pointee.next() else { return ENOENT }
        var last = LastQueuePair()
        guard let pair = ring.find(completion, &last) else { return EIO }
        ring.pointee.current = completion
        switch completion.opcode {
        case .request:
            let posted = pair.retireSend(completion)
            pointee.wr_id = posted.pointee.id
            ring.pointee.currentOpcode = posted.pointee.opcode
            pointee.status =
                _fastPath(completion.inlineData == nil)
                ? IBV_WC_SUCCESS : pair.sends.pointee.ring.scatter(completion, to: completion.index)
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate:
            guard let receive = pair.retireReceive(completion) else { return EIO }
            pointee.wr_id = receive.id
            pointee.status = receive.status
        case .requestError, .responseError:
            guard let id = pair.retireFailed(completion) else { return EIO }
            pointee.wr_id = id
            pointee.status = completion.errorStatus
        default: return EIO
        }
        return 0
    }

    /// start_poll under the lock. Releases the lock unless it returns 0.
    @inline(__always)
    fileprivate func moveToFirst() -> Int32 {
        let error = moveToNext()
        if _fastPath(error == 0) { return 0 }
        if error != ENOENT { native.ring.pointee.release() }
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
    queue.ring.pointee.release()
    queue.pointee.lock.unlock()
}
