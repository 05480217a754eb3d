import CIBVerbs
import KernelVerbs
import ProviderKit

/// One direction of a queue pair, its sends or its receives, as its completion queue accounts for it. The lock of the
/// completion queue guards the variables. The poster's half is `SendQueue` or `ReceiveQueue`.
///
/// The adapter flushes nothing. When the kernel has marked a queue pair, the completion queue flushes each side: it
/// returns the CQEs that the side already has, then completes what remains with IBV_WC_WR_FLUSH_ERR, and drops the CQEs
/// that come later. No memory is needed for that, since the completions are made from the posted work requests when they
/// are polled.
struct CompletionSide {
    let pair: QueuePairPointer
    let isSend: Bool
    /// The QPN (`sqid`).
    let queuePair: UInt32
    /// The completion queue.
    let ring: CompletionRingPointer
    let flags: QueuePairFlags

    /// The number of indices, and the index of the oldest work request that is not retired.
    let entries: UInt32
    var index: UInt32 = 0
    /// The numbers of retired and of posted work requests.
    let retired: SharedIndex
    let published: SharedIndex
    /// The state of each index of a send queue.
    let sends: UnsafeMutablePointer<PostedSend>
    /// The `wr_id` of each index of a receive queue.
    let ids: UnsafeMutablePointer<UInt64>
    /// The shared receive queue, if there is one.
    let shared: SharedReceiveQueuePointer?
    /// The address of the status page with the index of a shared receive that was begun (`StatusPage.sharedReceive`).
    let sharedStatus: UnsafeRawPointer

    /// The numbers of the CQEs that belong to this queue pair: not those of an earlier one with the same QPN, and not
    /// those after the flush.
    var firstCQE: UInt64 = 0
    var cqeCount: UInt64 = .max

    /// The number of sends that completed before an earlier one.
    var storedCount: UInt32 = 0
    /// The number of the first send that no READ response has been compared with.
    var nextRead: UInt32 = 0
    /// The sequence number of the next receive (`msn`).
    var sequence: UInt32 = 1

    /// Whether the side is flushed, and whether a completion with IBV_WC_WR_FLUSH_ERR was returned.
    var isFlushed = false
    var hasReturnedFlush = false

    /// The list of sides that have completions without a CQE, and the number of the CQE before which they are returned.
    var isPending = false
    var nextPending: CompletionSidePointer?
    var barrier: UInt64 = 0
    /// The list of all sides of the completion queue.
    var nextUser: CompletionSidePointer?
}

typealias CompletionSidePointer = UnsafeMutablePointer<CompletionSide>

/// The result of taking a CQE.
enum Outcome {
    /// It is a completion, which was written to the `ibv_wc`.
    case completion
    /// It completes nothing now.
    case none
    /// It has an index or an operation that cannot be.
    case invalid
}

extension CompletionSidePointer {
    @inline(__always)
    var outstanding: UInt32 { pointee.published.loadAcquiring() &- pointee.retired.loadOwn() }

    /// Whether a CQE belongs to this queue pair and precedes the flush.
    @inline(__always)
    func accepts(_ number: UInt64) -> Bool { number &- pointee.firstCQE < pointee.cqeCount }

    /// Retires the oldest work requests.
    @inline(__always)
    func retire(_ count: UInt32) {
        let next = pointee.index &+ count
        pointee.index = next >= pointee.entries ? next &- pointee.entries : next
        pointee.retired.storeReleasing(pointee.retired.loadOwn() &+ count)
    }

    // MARK: - Sends

    @inline(__always)
    private func send(_ distance: UInt32) -> UnsafeMutablePointer<PostedSend> {
        let index = pointee.index &+ distance
        return pointee.sends + Int(index >= pointee.entries ? index &- pointee.entries : index)
    }

    /// Completes the send of an index.
    @inline(__always)
    func completeSend(_ index: UInt32, status: UInt32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Outcome {
        guard _fastPath(index < pointee.entries) else { return .invalid }
        let distance = index &- pointee.index
        return complete(index >= pointee.index ? distance : distance &+ pointee.entries, status: status, wc)
    }

    /// Completes the send that is `distance` behind the oldest one, unless an earlier one must be returned first. The
    /// sends before it are retired: they were not signaled.
    @inline(__always)
    func complete(_ distance: UInt32, status: UInt32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Outcome {
        let entry = send(distance)
        guard _fastPath(distance < outstanding), !entry.pointee.state.isComplete else { return .invalid }
        if _slowPath(status != 0) { pointee.flags.setError() }
        if _slowPath(distance != 0) && mustWait(distance) {
            entry.pointee.state.complete(status)
            pointee.storedCount &+= 1
            return .none
        }
        wc.putSent(entry.pointee, status: status, queuePair: pointee.queuePair)
        retire(distance &+ 1)
        if _slowPath(pointee.storedCount != 0), nextStored != nil { pointee.ring.append(self, before: 0) }
        return .completion
    }

    /// Whether one of the oldest `distance` sends holds up the later ones.
    @inline(never)
    private func mustWait(_ distance: UInt32) -> Bool {
        var before: UInt32 = 0
        while before != distance {
            if send(before).pointee.state.holdsUp { return true }
            before &+= 1
        }
        return false
    }

    /// The distance of the first send that holds up the later ones, if it is complete.
    private var nextStored: UInt32? {
        let outstanding = outstanding
        var distance: UInt32 = 0
        while distance < outstanding {
            let state = send(distance).pointee.state
            if state.holdsUp { return state.isComplete ? distance : nil }
            distance &+= 1
        }
        return nil
    }

    /// Completes the oldest READ that has no response yet.
    func completeRead(status: UInt32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Outcome {
        let retired = pointee.retired.loadOwn()
        let published = pointee.published.loadAcquiring()
        var number = pointee.nextRead
        if Int32(bitPattern: number &- retired) < 0 { number = retired }
        while number != published, !send(number &- retired).pointee.state.isAwaited { number &+= 1 }
        guard number != published else { return .invalid }
        pointee.nextRead = number &+ 1
        let read = send(number &- retired)
        read.pointee.state.answer()
        if read.pointee.state.isSignaled || status != 0 { return complete(number &- retired, status: status, wc) }
        // An unsignaled READ is retired with the next send that is returned, which may have waited for it.
        if pointee.storedCount != 0, nextStored != nil { pointee.ring.append(self, before: 0) }
        return .none
    }

    // MARK: - Receives

    /// Completes a receive.
    @inline(__always)
    func completeReceive(_ completion: Completion, _ wc: UnsafeMutablePointer<ibv_wc>) -> Outcome {
        var status = completion.status
        // The adapter checks only 4 bits of the sequence number.
        if _slowPath(status != 0 || completion.sequence != pointee.sequence) {
            if status == 0 { status = CQEStatus.sequence }
            pointee.flags.setError()
        }
        if let shared = pointee.shared {
            guard let id = shared.retire(completion.sharedReceive) else { return .invalid }
            wc.pointee.wr_id = id
        } else {
            guard _fastPath(outstanding != 0) else {
                pointee.flags.setError()
                return .none
            }
            wc.pointee.wr_id = pointee.ids[Int(pointee.index)]
            retire(1)
        }
        pointee.sequence &+= 1
        wc.putReceived(completion, status: status, queuePair: pointee.queuePair)
        return .completion
    }

    // MARK: - Completions without a CQE

    /// Writes the next completion that has no CQE. Returns false if there is none.
    func next(_ wc: UnsafeMutablePointer<ibv_wc>) -> Bool { pointee.isSend ? nextSend(wc) : nextReceive(wc) }

    private func nextSend(_ wc: UnsafeMutablePointer<ibv_wc>) -> Bool {
        // After a flushed send, those that are not signaled are flushed too.
        if pointee.storedCount != 0, let distance = nextStored, distance == 0 || !pointee.hasReturnedFlush {
            let entry = send(distance)
            // A success after a flushed send would not be in order.
            let isFlushed = pointee.hasReturnedFlush && entry.pointee.state.status == 0
            wc.putSent(
                entry.pointee, status: isFlushed ? CQEStatus.flushed : entry.pointee.state.status,
                queuePair: pointee.queuePair)
            pointee.storedCount &-= 1
            retire(distance &+ 1)
            return true
        }
        guard pointee.isFlushed, outstanding != 0 else { return false }
        pointee.hasReturnedFlush = true
        wc.putSent(send(0).pointee, status: CQEStatus.flushed, queuePair: pointee.queuePair)
        retire(1)
        return true
    }

    private func nextReceive(_ wc: UnsafeMutablePointer<ibv_wc>) -> Bool {
        guard pointee.isFlushed else { return false }
        if let shared = pointee.shared {
            guard let id = begunSharedReceive.flatMap({ shared.retire($0) }) else { return false }
            wc.putFlushedReceive(id, queuePair: pointee.queuePair)
            return true
        }
        guard outstanding != 0 else { return false }
        wc.putFlushedReceive(pointee.ids[Int(pointee.index)], queuePair: pointee.queuePair)
        retire(1)
        return true
    }

    /// The RQT index of the shared receive that the connection had begun when it ended; nil after the first call.
    var begunSharedReceive: UInt32? {
        guard !pointee.hasReturnedFlush else { return nil }
        pointee.hasReturnedFlush = true
        let index = StatusPage.sharedReceive.get(pointee.sharedStatus)
        return index == 0 ? nil : index
    }

    /// Empties the side after a transition to RESET.
    func reset() {
        pointee.ring.drop(self)
        let end = pointee.ring.pointee.forEachWritten()
        pointee.index = 0
        pointee.retired.storeReleasing(0)
        pointee.storedCount = 0
        pointee.nextRead = 0
        pointee.sequence = 1
        pointee.isFlushed = false
        pointee.hasReturnedFlush = false
        pointee.firstCQE = end
        pointee.cqeCount = .max
    }
}

extension SharedReceiveQueuePointer {
    /// Retires the work request of a CQE, under the queue's lock; for the thread that polls. Returns its `wr_id`, or nil
    /// for an unknown index.
    func retire(_ index: UInt32) -> UInt64? {
        pointee.lock.lock()
        let id = queue.pointee.retire(index)
        let passesLimit = id != nil && queue.pointee.passesLimit()
        pointee.lock.unlock()
        if _slowPath(passesLimit) { raiseLimitEvent() }
        return id
    }
}
