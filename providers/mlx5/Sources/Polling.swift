import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`.

/// Whose completion it is.
struct Owner {
    /// The number by which the device names the queue pair; none at the beginning.
    var number: UInt32 = .max
    var pair: QueuePairPointer?
}

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(never)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(answering: queue.ring.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    queue.pointee.lock.lock()
    return queue.pointee.lock.unlock(answering: queue.ring.poll(count, wc))
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Takes up to `count` completions, at least one: how many. -EIO when the first is one that cannot be.
    @inline(__always)
    func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        var owner = Owner()
        var taken: Int32 = 0
        var isBroken = false
        while taken < count, let completion = pointee.next() {
            guard _fastPath(write(completion, to: wc + Int(taken), &owner)) else {
                isBroken = true
                break
            }
            taken &+= 1
        }
        if taken == 0 && !isBroken { return 0 }
        // Those before it are shown first, and the next call is told of it.
        if isBroken && taken != 0 { pointee.consumer &-= 1 }
        pointee.release()
        return taken == 0 ? -EIO : taken
    }

    /// Writes a work completion, and retires the request that it is about. False when there is no such queue pair or
    /// request, or the kind is unknown.
    @inline(__always)
    private func write(_ completion: Completion, to wc: UnsafeMutablePointer<ibv_wc>, _ owner: inout Owner) -> Bool {
        switch completion.kind {
        case .request:
            guard let pair = find(completion, &owner) else { return false }
            let posted = pair.retireSend(completion)
            completion.writeSent(wc, noted: posted.pointee.opcode)
            wc.pointee.wr_id = posted.pointee.id
            wc.pointee.vendor_err = 0
            wc.pointee.status = IBV_WC_SUCCESS
            if _slowPath(completion.inlineData != nil) {
                wc.pointee.status = pair.sends.pointee.ring.scatter(completion, to: completion.index)
            }
            return true
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate:
            guard let pair = find(completion, &owner), let taken = pair.retireReceive(completion) else { return false }
            completion.writeReceived(wc)
            wc.pointee.wr_id = taken.id
            wc.pointee.vendor_err = 0
            wc.pointee.status = taken.status
            return true
        case .requestError, .responseError:
            guard let pair = find(completion, &owner), let id = pair.retireFailed(completion) else { return false }
            completion.writeError(wc)
            wc.pointee.wr_id = id
            return true
        default: return false
        }
    }

    /// The queue pair of a completion; nil when there is none of that number, or none of this completion queue.
    @inline(__always)
    func find(_ completion: Completion, _ owner: inout Owner) -> QueuePairPointer? {
        let number = pointee.context.pointee.hasUserIndex ? completion.userIndex : completion.queuePair
        if _fastPath(number == owner.number) { return owner.pair }
        guard let found = pointee.context.pointee.queuePairs.find(number) else { return nil }
        let pair = found.assumingMemoryBound(to: NativeQueuePair.self)
        let base = pair.pointee.base.qp_base
        guard base.send_cq.native.ring == self || base.recv_cq.native.ring == self else { return nil }
        owner.number = number
        owner.pair = pair
        return pair
    }
}

extension QueuePairPointer {
    /// Retires a request and those before it; what was kept of it.
    @inline(__always)
    func retireSend(_ completion: Completion) -> UnsafeMutablePointer<PostedSend> {
        let ring = sends.pointee.ring
        let posted = ring.posted + Int(completion.index & ring.mask)
        ring.retired.storeReleasing(posted.pointee.number &+ 1)
        return posted
    }

    /// Retires the receive that a message took: its id, and whether the data that stands in the completion found its place.
    /// Nil when there can be none of that index.
    @inline(__always)
    func retireReceive(_ completion: Completion) -> (id: UInt64, status: ibv_wc_status)? {
        var status = IBV_WC_SUCCESS
        if let shared = pointee.base.qp_base.srq?.native {
            guard let entry = shared.queue.pointee.entry(completion.index) else { return nil }
            let id = shared.queue.pointee.posted[Int(completion.index)]
            if _slowPath(completion.inlineData != nil) { status = shared.queue.pointee.scatter(completion, to: entry) }
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

    /// Retires what has failed or was flushed: its id.
    @inline(never)
    func retireFailed(_ completion: Completion) -> UInt64? {
        guard completion.kind == .responseError else { return retireSend(completion).pointee.id }
        if let shared = pointee.base.qp_base.srq?.native {
            guard shared.queue.pointee.entry(completion.index) != nil else { return nil }
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

// MARK: - Asking for events

/// `req_notify_cq`: says in the record up to where the user has seen completions, and rings.
@inline(never)
func requestNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    let ring = cq.unsafelyUnwrapped.native.ring
    let sequence = SharedIndex(at: ring.pointee.armSequence).loadOwn()
    let consumer = ring.pointee.consumer
    ring.pointee.record.put(
        Filled(CompletionRecord.armSequence, sequence),
        Filled(CompletionRecord.solicitedOnly, solicitedOnly != 0 ? 1 : 0),
        Filled(CompletionRecord.armConsumer, consumer))
    // The record must arrive before the doorbell.
    linux_flush_to_device()
    let arm =
        CompletionRecord.armSequence.bits(sequence)
        | CompletionRecord.solicitedOnly.bits(solicitedOnly != 0 ? 1 : 0) | CompletionRecord.armConsumer.bits(consumer)
    let doorbell =
        CompletionDoorbell.request.bits(UInt64(arm))
        | CompletionDoorbell.completionQueue.bits(UInt64(ring.pointee.number))
    linux_store_to_device(ring.pointee.register + CompletionDoorbell.request.offset, doorbell.bigEndian)
    linux_flush_to_device()
    return 0
}

/// `cq_event`: what is asked for next is the next event.
func completionEvent(cq: UnsafeMutablePointer<ibv_cq>?) {
    guard let ring = cq?.native.ring else { return }
    SharedIndex(at: ring.pointee.armSequence).increment()
}
