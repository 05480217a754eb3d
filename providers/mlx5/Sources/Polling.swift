import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`.

/// The queue pair of the last CQE of a poll, which usually has the next CQE too.
struct LastQueuePair {
    /// The user index or QPN in the CQE; .max before the first CQE.
    var number: UInt32 = .max
    var pair: QueuePairPointer?
}

/// `poll_cq`. A second function waits for a lock that another thread holds, so that this one needs no stack frame.
@inline(never)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(returning: queue.ring.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    guard queue.pointee.lock.lock() else { return -EBUSY }
    return queue.pointee.lock.unlock(returning: queue.ring.poll(count, wc))
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Polls up to `count` completions (at least 1). Returns their number, or -EIO if the first CQE is invalid.
    @inline(__always)
    func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        var last = LastQueuePair()
        var polled: Int32 = 0
        var isInvalid = false
        while polled < count, let completion = pointee.next() {
            guard _fastPath(write(completion, to: wc + Int(polled), &last)) else {
                isInvalid = true
                break
            }
            polled &+= 1
        }
        if polled == 0 && !isInvalid { return 0 }
        // The completions before the invalid CQE are returned first; the next call returns the error.
        if isInvalid && polled != 0 { pointee.consumer &-= 1 }
        pointee.release()
        return polled == 0 ? -EIO : polled
    }

    /// Writes the `ibv_wc` of a CQE and retires its WQE. Returns false for a CQE with an unknown queue pair, WQE or
    /// opcode.
    @inline(__always)
    private func write(
        _ completion: Completion, to wc: UnsafeMutablePointer<ibv_wc>, _ last: inout LastQueuePair
    ) -> Bool {
        switch completion.opcode {
        case .request:
            guard let pair = find(completion, &last) else { return false }
            let posted = pair.retireSend(completion)
            completion.writeSent(wc, postedOpcode: posted.pointee.opcode)
            wc.pointee.wr_id = posted.pointee.id
            wc.pointee.vendor_err = 0
            wc.pointee.status = IBV_WC_SUCCESS
            if _slowPath(completion.inlineData != nil) {
                wc.pointee.status = pair.sends.pointee.ring.scatter(completion, to: completion.index)
            }
            return true
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate:
            guard let pair = find(completion, &last), let receive = pair.retireReceive(completion) else { return false }
            completion.writeReceived(wc)
            wc.pointee.wr_id = receive.id
            wc.pointee.vendor_err = 0
            wc.pointee.status = receive.status
            return true
        case .requestError, .responseError:
            guard let pair = find(completion, &last), let id = pair.retireFailed(completion) else { return false }
            completion.writeError(wc)
            wc.pointee.wr_id = id
            return true
        default: return false
        }
    }

    /// Returns the queue pair of a CQE; nil if its number is unknown, or if it does not use this completion queue.
    @inline(__always)
    func find(_ completion: Completion, _ last: inout LastQueuePair) -> QueuePairPointer? {
        let number = pointee.context.pointee.hasUserIndex ? completion.userIndex : completion.queuePair
        if _fastPath(number == last.number) { return last.pair }
        guard let found = pointee.context.pointee.queuePairs.find(number) else { return nil }
        let pair = found.assumingMemoryBound(to: NativeQueuePair.self)
        let base = pair.pointee.base.qp_base
        guard base.send_cq.native.ring == self || base.recv_cq.native.ring == self else { return nil }
        last.number = number
        last.pair = pair
        return pair
    }
}

extension QueuePairPointer {
    /// Retires a send WQE and all earlier ones. Returns the state that was stored at post.
    @inline(__always)
    func retireSend(_ completion: Completion) -> UnsafeMutablePointer<PostedSend> {
        let ring = sends.pointee.ring
        let posted = ring.posted + Int(completion.index & ring.mask)
        ring.retired.storeReleasing(posted.pointee.number &+ 1)
        return posted
    }

    /// Retires the receive WQE that a message consumed, and copies data in the CQE to its SGEs. Returns its `wr_id` and
    /// the result of the copy; nil if there is no WQE of that index.
    @inline(__always)
    func retireReceive(_ completion: Completion) -> (id: UInt64, status: ibv_wc_status)? {
        var status = IBV_WC_SUCCESS
        if let shared = pointee.base.qp_base.srq?.native {
            guard let wqe = shared.queue.pointee.wqe(completion.index) else { return nil }
            let id = shared.queue.pointee.posted[Int(completion.index)]
            if _slowPath(completion.inlineData != nil) { status = shared.queue.pointee.scatter(completion, to: wqe) }
            shared.free(completion.index)
            return (id, status)
        }
        guard let ring = receives.pointee.ring else { return nil }
        let number = ring.retired.loadOwn()
        let id = ring.posted[Int(number & ring.mask)]
        if _slowPath(completion.inlineData != nil) { status = ring.scatter(completion, to: number) }
        ring.retired.storeReleasing(number &+ 1)
        return (id, status)
    }

    /// Retires a failed or flushed WQE. Returns its `wr_id`; nil if there is no WQE of that index.
    @inline(never)
    func retireFailed(_ completion: Completion) -> UInt64? {
        guard completion.opcode == .responseError else { return retireSend(completion).pointee.id }
        if let shared = pointee.base.qp_base.srq?.native {
            guard shared.queue.pointee.wqe(completion.index) != nil else { return nil }
            let id = shared.queue.pointee.posted[Int(completion.index)]
            shared.free(completion.index)
            return id
        }
        guard let ring = receives.pointee.ring else { return nil }
        let number = ring.retired.loadOwn()
        ring.retired.storeReleasing(number &+ 1)
        return ring.posted[Int(number & ring.mask)]
    }
}

// MARK: - Completion events

/// `req_notify_cq`: writes the arm word with the consumer index to the doorbell record, and then to the CQ doorbell.
@inline(never)
func requestNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    let ring = cq.unsafelyUnwrapped.native.ring
    let sequence = SharedIndex(at: ring.pointee.armSequence).loadOwn()
    let consumer = ring.pointee.consumer
    ring.pointee.doorbellRecord.put(
        Filled(CompletionQueueDoorbellRecord.armSequence, sequence),
        Filled(CompletionQueueDoorbellRecord.solicitedOnly, solicitedOnly != 0 ? 1 : 0),
        Filled(CompletionQueueDoorbellRecord.armConsumer, consumer))
    // The doorbell record must be visible before the doorbell.
    linux_flush_to_device()
    let arm =
        CompletionQueueDoorbellRecord.armSequence.bits(sequence)
        | CompletionQueueDoorbellRecord.solicitedOnly.bits(solicitedOnly != 0 ? 1 : 0)
        | CompletionQueueDoorbellRecord.armConsumer.bits(consumer)
    let doorbell =
        CompletionQueueDoorbell.request.bits(UInt64(arm))
        | CompletionQueueDoorbell.completionQueue.bits(UInt64(ring.pointee.number))
    linux_store_to_device(ring.pointee.uarPage + CompletionQueueDoorbell.request.offset, doorbell.bigEndian)
    linux_flush_to_device()
    return 0
}

/// `cq_event`: advances the arm sequence number (`cmd_sn`) after an event.
func completionEvent(cq: UnsafeMutablePointer<ibv_cq>?) {
    guard let ring = cq?.native.ring else { return }
    SharedIndex(at: ring.pointee.armSequence).increment()
}
