import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq` and `req_notify_cq`.

/// The queue pair of the last CQE of a poll, which usually has the next CQE too.
struct LastQueuePair {
    /// The QPN in the CQE; .max before the first CQE.
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

extension CompletionRingPointer {
    /// Polls up to `count` completions (at least 1). Returns their number; or -EIO if the first CQE is invalid, or
    /// -EOVERFLOW if the queue has overflowed.
    @inline(__always)
    func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        if _slowPath(pointee.isFlushRequested) { startFlushes() }
        var last = LastQueuePair()
        var polled: Int32 = 0
        while polled < count {
            if _slowPath(pointee.firstPending != nil), nextPending(wc + Int(polled)) {
                polled &+= 1
                continue
            }
            guard let completion = pointee.peek() else {
                return _slowPath(pointee.isOverrun) ? pollOverrun(polled, count, wc) : polled
            }
            switch take(completion, to: wc + Int(polled), &last) {
            case .completion: polled &+= 1
            case .none: break
            case .invalid:
                // The completions before the invalid CQE are returned first; the next call returns the error.
                guard polled == 0 else { return polled }
                pointee.consume()
                return -EIO
            }
            pointee.consume()
        }
        return polled
    }

    /// The queue has overflowed: returns the completions of flushed queue pairs, for which no CQE is needed, then the
    /// error.
    @inline(never)
    private func pollOverrun(_ before: Int32, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        var polled = before
        while polled < count, nextPending(wc + Int(polled)) { polled &+= 1 }
        return polled == 0 ? -EOVERFLOW : polled
    }

    /// Takes a CQE, and writes its `ibv_wc` if it is a completion.
    @inline(__always)
    func take(
        _ completion: Completion, to wc: UnsafeMutablePointer<ibv_wc>, _ last: inout LastQueuePair
    ) -> Outcome {
        // CQEs of a destroyed queue pair remain in the queue.
        guard let pair = find(completion.queuePair, &last) else { return .none }
        let operation = completion.operation
        if completion.isSend {
            let side = pair.sendSide
            guard _fastPath(Completion.isOperationOfSend(operation) && side.pointee.ring == self) else {
                return takeOther(completion, pair)
            }
            guard _fastPath(side.accepts(pointee.consumed)) else { return .none }
            return side.completeSend(completion.index, status: completion.status, wc)
        }
        guard _fastPath(Completion.isOperationOfReceive(operation)) else {
            return operation == Operation.readResponse ? takeRead(completion, pair, wc) : takeOther(completion, pair)
        }
        let side = pair.receiveSide
        guard _fastPath(side.pointee.ring == self) else { return .invalid }
        guard _fastPath(side.accepts(pointee.consumed)) else { return takeLate(completion, side, wc) }
        return side.completeReceive(completion, wc)
    }

    /// Returns the queue pair of a CQE; nil if there is none.
    @inline(__always)
    private func find(_ number: UInt32, _ last: inout LastQueuePair) -> QueuePairPointer? {
        if _fastPath(number == last.number) { return last.pair }
        guard let found = pointee.context.pointee.queuePairs.find(number) else { return nil }
        last.number = number
        last.pair = found.assumingMemoryBound(to: NativeQueuePair.self)
        return last.pair
    }

    /// Takes the response to a READ, whose CQE has no index.
    @inline(never)
    private func takeRead(
        _ completion: Completion, _ pair: QueuePairPointer, _ wc: UnsafeMutablePointer<ibv_wc>
    ) -> Outcome {
        let side = pair.sendSide
        guard side.pointee.ring == self else { return .invalid }
        guard side.accepts(pointee.consumed) else { return .none }
        // The kernel's own READ, by which it sets up a connection between peers.
        guard completion.key != 1 else {
            if completion.status != 0 { side.pointee.flags.setError() }
            return .none
        }
        return side.completeRead(status: completion.status, wc)
    }

    /// Takes a CQE that completes no work request: a terminate message, or an error of an incoming request. Other
    /// operations are invalid.
    @inline(never)
    private func takeOther(_ completion: Completion, _ pair: QueuePairPointer) -> Outcome {
        let side = completion.isSend ? pair.sendSide : pair.receiveSide
        guard side.pointee.ring == self else { return .invalid }
        let operation = completion.operation
        if operation == Operation.terminate { return .none }
        let isOfPeer =
            completion.isSend
            ? operation == Operation.readResponse : operation == Operation.write || operation == Operation.read
        guard isOfPeer else { return .invalid }
        if completion.status != 0 { side.pointee.flags.setError() }
        return .none
    }

    /// Takes a receive of a flushed queue pair. The adapter has consumed a work request of a shared receive queue, which
    /// must be returned.
    @inline(never)
    private func takeLate(
        _ completion: Completion, _ side: CompletionSidePointer, _ wc: UnsafeMutablePointer<ibv_wc>
    ) -> Outcome {
        guard side.pointee.isFlushed, pointee.consumed >= side.pointee.firstCQE, let shared = side.pointee.shared
        else { return .none }
        guard let id = shared.retire(completion.sharedReceive) else { return .invalid }
        wc.putFlushedReceive(id, queuePair: side.pointee.queuePair)
        return .completion
    }
}

/// `req_notify_cq`. Inside a batch of the calling thread the lock is held already.
@inline(never)
func requestNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    let queue = cq.unsafelyUnwrapped.native
    let isTaken = queue.pointee.lock.lock()
    queue.ring.pointee.arm(solicitedOnly: solicitedOnly != 0)
    if isTaken { queue.pointee.lock.unlock() }
    return 0
}
