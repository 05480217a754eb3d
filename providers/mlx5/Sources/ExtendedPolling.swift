import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The functions of `ibv_cq_ex`: completions are read field by field from where the device wrote them.

/// What `ibv_cq_ex` can tell of a completion.
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
        let completion = ring.pointee.shown
        guard completion.kind == .request else { return completion.receiveOpcode }
        return completion.sendOpcode ?? ibv_wc_opcode(ring.pointee.shownOpcode)
    }
    cq.pointee.read_vendor_err = { $0.unsafelyUnwrapped.shown.vendorError }
    cq.pointee.read_byte_len = { cq in
        let completion = cq.unsafelyUnwrapped.shown
        return completion.kind == .request ? completion.sendLength : completion.length
    }
    cq.pointee.read_imm_data = { $0.unsafelyUnwrapped.shown.immediate }
    cq.pointee.read_qp_num = { $0.unsafelyUnwrapped.shown.queuePair }
    cq.pointee.read_src_qp = { $0.unsafelyUnwrapped.shown.sourceQueuePair }
    cq.pointee.read_wc_flags = { cq in
        let completion = cq.unsafelyUnwrapped.shown
        return completion.kind == .request ? completion.sendFlags : completion.receiveFlags
    }
    cq.pointee.read_slid = { UInt32($0.unsafelyUnwrapped.shown.sourceLID) }
    cq.pointee.read_sl = { $0.unsafelyUnwrapped.shown.serviceLevel }
    cq.pointee.read_dlid_path_bits = { $0.unsafelyUnwrapped.shown.pathBits }
    cq.pointee.read_completion_ts = { $0.unsafelyUnwrapped.shown.timestamp }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The completion at the front. Only between start_poll and end_poll, when there is one.
    @inline(__always)
    fileprivate var shown: Completion { native.ring.pointee.shown }

    /// Shows the next completion: 0, ENOENT when there is none, or EIO for one that cannot be.
    @inline(__always)
    fileprivate func showNext() -> Int32 {
        let ring = native.ring
        guard let completion = ring.pointee.next() else { return ENOENT }
        var owner = Owner()
        guard let pair = ring.find(completion, &owner) else { return EIO }
        ring.pointee.shown = completion
        switch completion.kind {
        case .request:
            let posted = pair.retireSend(completion)
            pointee.wr_id = posted.pointee.id
            ring.pointee.shownOpcode = posted.pointee.opcode
            pointee.status =
                _fastPath(completion.inlineData == nil)
                ? IBV_WC_SUCCESS : pair.sends.pointee.ring.scatter(completion, to: completion.index)
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate:
            guard let taken = pair.retireReceive(completion) else { return EIO }
            pointee.wr_id = taken.id
            pointee.status = taken.status
        case .requestError, .responseError:
            guard let id = pair.retireFailed(completion) else { return EIO }
            pointee.wr_id = id
            pointee.status = completion.errorStatus
        default: return EIO
        }
        return 0
    }

    /// start_poll under the lock, which it gives back if there is nothing.
    @inline(__always)
    fileprivate func showFirst() -> Int32 {
        let answer = showNext()
        if _fastPath(answer == 0) { return 0 }
        if answer != ENOENT { native.ring.pointee.release() }
        return native.pointee.lock.unlock(answering: answer)
    }
}

/// Holds the queue's lock from here to end_poll, unless it answers an error.
@inline(never)
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    guard attr.unsafelyUnwrapped.pointee.comp_mask == 0 else { return EINVAL }
    guard _fastPath(cq.native.pointee.lock.tryLock()) else { return startAfterWaiting(cq) }
    return cq.showFirst()
}

@inline(never)
private func startAfterWaiting(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    cq.native.pointee.lock.lock()
    return cq.showFirst()
}

/// The lock stays with the caller, whatever it answers.
@inline(never)
private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 { cq.unsafelyUnwrapped.showNext() }

@inline(__always)
private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    let queue = cq.unsafelyUnwrapped.native
    queue.ring.pointee.release()
    _ = queue.pointee.lock.unlock(answering: 0)
}
