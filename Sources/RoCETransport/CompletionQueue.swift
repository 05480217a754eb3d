import Synchronization

/// The storage of a completion queue (`struct rxe_cq` of the kernel's rxe). The engine writes CQEs, and one polling
/// thread at a time takes them.
struct CompletionQueueStorage: ~Copyable {
    var ring: Ring
    /// The condition of the next completion event (`ibv_req_notify_cq`): see `CompletionQueue.arm`.
    let armed = Atomic<UInt8>(0)
    /// Set when the queue overran (`IBV_EVENT_CQ_ERR`): no CQE is written any more.
    var overran = false
    /// The number of send and receive queues that complete here.
    var users = 0
    /// Whether a CQE that finds the ring full is dropped, in place of an overrun.
    let ignoresOverrun: Bool
    /// Whether it can be armed: without a completion channel, nothing receives its events.
    let hasEvents: Bool
    /// The clock of the timestamps; nil without them. The slots of a ring with timestamps are longer.
    let clock: Clock?
    var moderation = EventModeration()
    let core: UnsafeMutablePointer<Core>
    let event: UnsafeMutablePointer<EventNode>
    let userData: UnsafeMutableRawPointer?

    /// The bytes of a slot of the ring: a CQE, and its timestamp.
    static func stride(hasTimestamps: Bool) -> Int {
        MemoryLayout<WorkCompletion>.stride + (hasTimestamps ? MemoryLayout<UInt64>.stride : 0)
    }

    static let notArmed: UInt8 = 0
    static let armedForSolicited: UInt8 = 1
    static let armedForNext: UInt8 = 2
}

/// A clock of the engine's caller for completion timestamps (`IBV_WC_EX_WITH_COMPLETION_TIMESTAMP`): it returns
/// nanoseconds. The engine calls it for every CQE of a completion queue with timestamps, and for no other.
public typealias Clock = @convention(c) () -> UInt64

/// The moderation of the completion events of a completion queue (`struct ibv_moderate_cq`).
struct EventModeration {
    /// The CQEs that cause an event (`cq_count`); 0 and 1: every one.
    var count: UInt32 = 0
    /// The time in nanoseconds after the first of them at which the event is raised with fewer (`cq_period`).
    var period: UInt64 = 0
    /// The CQEs since the queue's last event that each would have caused one.
    var waiting: UInt32 = 0
    /// The time of the event for those CQEs, while the queue is in the engine's list of moderated queues.
    var deadline: UInt64 = 0
    var isListed = false
    var next: UnsafeMutablePointer<CompletionQueueStorage>?
}

/// A completion queue (`struct ibv_cq`). The handle is not valid any more after `Engine.destroy`.
///
/// `poll`, `show`, `release` and `arm` do not need the engine's lock. Only one thread at a time may call them, except
/// `arm`, which any thread may call at any time.
@frozen
public struct CompletionQueue: Hashable, @unchecked Sendable {
    /// The address of the engine's storage, which identifies the completion queue, as the address of a `struct ibv_cq`
    /// does in libibverbs.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<CompletionQueueStorage> {
        identity.assumingMemoryBound(to: CompletionQueueStorage.self)
    }

    init(_ storage: UnsafeMutablePointer<CompletionQueueStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// The number of CQEs that it holds (`ibv_cq.cqe`); one more is an overrun.
    public var capacity: Int { Int(storage.pointee.ring.limit) }

    /// The pointer that was passed to `Engine.createCompletionQueue` (`cq_context`).
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// True when the queue overran: it accepts no more CQEs, and `IBV_EVENT_CQ_ERR` was reported. The CQEs in it can
    /// still be polled.
    public var hasOverrun: Bool { storage.pointee.overran }

    /// Takes up to `count` CQEs, oldest first (`ibv_poll_cq`).
    /// - Parameter completions: room for `count` CQEs; `struct ibv_wc` has the same layout.
    /// - Returns: The number of CQEs that were taken.
    public func poll(into completions: UnsafeMutablePointer<WorkCompletion>, count: Int) -> Int {
        let ring = storage.pointee.ring
        var taken: UInt32 = 0
        while Int(taken) < count {
            let index = ring.oldest &+ taken
            guard ring.has(index) else { break }
            (completions + Int(taken)).initialize(to: ring.slot(index).load(as: WorkCompletion.self))
            taken &+= 1
        }
        if taken != 0 { ring.release(taken) }
        return Int(taken)
    }

    /// Takes the oldest CQE and returns it in place, or nil when the queue is empty (`ibv_start_poll`,
    /// `ibv_next_poll`). `poll` does not return it, and a reset, a destruction and a resize do not remove it. Its slot
    /// stays in use until `release`.
    public func show() -> UnsafePointer<WorkCompletion>? {
        let ring = storage.pointee.ring
        guard ring.has(ring.oldest) else { return nil }
        ring.take()
        return shown
    }

    /// The CQE that `show` returned last, for `ibv_wc_read_opcode` and the like. It is valid until `release`; a resize
    /// moves it.
    @inline(__always)
    public var shown: UnsafePointer<WorkCompletion> {
        let ring = storage.pointee.ring
        return UnsafePointer(ring.slot(ring.oldest &- 1).assumingMemoryBound(to: WorkCompletion.self))
    }

    /// The time at which the shown CQE was written (`ibv_wc_read_completion_ts`), in nanoseconds of the clock of
    /// `Engine.createCompletionQueue`; 0 on a completion queue without timestamps.
    @inline(__always)
    public var shownTimestamp: UInt64 {
        let ring = storage.pointee.ring
        guard storage.pointee.clock != nil else { return 0 }
        return ring.slot(ring.oldest &- 1).load(
            fromByteOffset: MemoryLayout<WorkCompletion>.stride, as: UInt64.self)
    }

    /// Returns the slot of the CQE that `show` returned, if there is one, to the engine (`ibv_end_poll`).
    public func release() { storage.pointee.ring.giveBack() }

    /// Requests one completion event: at the next CQE, or only at the next one that is solicited or an error
    /// (`ibv_req_notify_cq`). After both requests, the next CQE causes the event.
    ///
    /// A CQE that was written before causes no event: poll once more after arming.
    public func arm(solicitedOnly: Bool) {
        guard storage.pointee.hasEvents else { return }
        let wanted =
            solicitedOnly
            ? CompletionQueueStorage.armedForSolicited : CompletionQueueStorage.armedForNext
        // Sequentially consistent, as is the store that publishes a CQE: either the engine reads this request, or the
        // poll that follows reads the CQE.
        _ = storage.pointee.armed.max(wanted, ordering: .sequentiallyConsistent)
    }
}

// MARK: - The engine's side

extension Core {
    /// Writes a CQE. Returns false when the queue overruns, or overran before. A queue that ignores overruns drops a
    /// CQE for which it has no room, and returns true.
    mutating func push(
        _ completion: WorkCompletion, solicited: Bool, to queue: UnsafeMutablePointer<CompletionQueueStorage>
    ) -> Bool {
        guard !queue.pointee.overran else { return false }
        let ring = queue.pointee.ring
        guard let slot = ring.reserve() else {
            counters.completionQueueOverruns &+= 1
            if queue.pointee.ignoresOverrun { return true }
            queue.pointee.overran = true
            events.post(queue.pointee.event, .completionQueueError)
            return false
        }
        let entry = slot.assumingMemoryBound(to: WorkCompletion.self)
        entry.initialize(to: completion)
        // The stride is known from the address of the slot, so a queue without timestamps reads nothing for them.
        if ring.stride != MemoryLayout<WorkCompletion>.stride { stamp(slot, queue) }
        ring.stage()
        guard queue.pointee.hasEvents else {
            // The sequentially consistent store below waits until the caches of other processors have given up the lines
            // of all stores before, such as those of a packet ring.
            ring.produced.pointee.store(ring.producer.pointee.position, ordering: .releasing)
            return true
        }
        ring.produced.pointee.store(ring.producer.pointee.position, ordering: .sequentiallyConsistent)
        let armed = queue.pointee.armed.load(ordering: .sequentiallyConsistent)
        if armed == CompletionQueueStorage.notArmed { return true }
        if armed == CompletionQueueStorage.armedForNext || solicited || completion.status != .success {
            if queue.pointee.moderation.count > 1 && !endsModeration(queue) { return true }
            queue.pointee.armed.store(CompletionQueueStorage.notArmed, ordering: .sequentiallyConsistent)
            events.post(queue.pointee.event, EventNode.notification)
        }
        return true
    }

    @inline(never)
    private func stamp(_ slot: UnsafeMutableRawPointer, _ queue: UnsafeMutablePointer<CompletionQueueStorage>) {
        let time = queue.pointee.clock.map { $0() } ?? 0
        slot.storeBytes(of: time, toByteOffset: MemoryLayout<WorkCompletion>.stride, as: UInt64.self)
    }

    /// Removes the CQEs of a queue pair that is reset or destroyed. No thread may be inside `poll`, `show` or
    /// `release`; a CQE that `show` returned stays as it is.
    mutating func removeCompletions(of number: UInt32, from queue: UnsafeMutablePointer<CompletionQueueStorage>) {
        let ring = queue.pointee.ring
        var kept: UInt32 = ring.oldest
        let end = ring.oldest &+ ring.count
        var index = ring.oldest
        while index != end {
            let entry = ring.slot(index).load(as: WorkCompletion.self)
            if entry.queuePairNumber != number {
                if kept != index { ring.slot(kept).copyMemory(from: ring.slot(index), byteCount: ring.stride) }
                kept &+= 1
            }
            index &+= 1
        }
        guard kept != end else { return }
        ring.producer.pointee.position = kept
        ring.produced.pointee.store(kept, ordering: .releasing)
        ring.consumer.pointee.seen = kept
    }

    /// Moves the CQEs of a queue, and the one that `show` returned, to a ring of another size. No thread may be inside
    /// `poll`, `show` or `release`.
    mutating func resize(_ queue: UnsafeMutablePointer<CompletionQueueStorage>, capacity: UInt32) throws(Errno) {
        let old = queue.pointee.ring
        let shown = old.taken
        let held = shown + old.count
        guard capacity >= held else { throw .invalid }
        let new = Ring(limit: capacity, stride: old.stride)
        for offset in 0..<held {
            new.slot(offset).copyMemory(from: old.slot(old.oldest &- shown &+ offset), byteCount: old.stride)
        }
        new.producer.pointee.position = held
        _ = new.publish()
        new.consumer.pointee = RingSide(position: shown, seen: shown)
        queue.pointee.ring = new
        old.deallocate()
    }
}

// MARK: - Moderation of completion events

extension Core {
    /// Counts a CQE that causes an event on an armed queue with moderation.
    /// - Returns: Whether the event is raised now: the CQE is number `cq_count`.
    @inline(never)
    private mutating func endsModeration(_ queue: UnsafeMutablePointer<CompletionQueueStorage>) -> Bool {
        queue.pointee.moderation.waiting &+= 1
        if queue.pointee.moderation.waiting >= queue.pointee.moderation.count {
            stopModerating(queue)
            return true
        }
        guard !queue.pointee.moderation.isListed else { return false }
        let deadline = now &+ queue.pointee.moderation.period
        queue.pointee.moderation.deadline = deadline
        queue.pointee.moderation.isListed = true
        queue.pointee.moderation.next = moderated
        moderated = queue
        moderationDeadline = min(moderationDeadline, deadline)
        return false
    }

    /// Removes a queue from the list of those whose event waits for `cq_period`.
    mutating func stopModerating(_ queue: UnsafeMutablePointer<CompletionQueueStorage>) {
        queue.pointee.moderation.waiting = 0
        guard queue.pointee.moderation.isListed else { return }
        queue.pointee.moderation.isListed = false
        if moderated == queue {
            moderated = queue.pointee.moderation.next
        } else {
            var before = moderated
            while let link = before, link.pointee.moderation.next != queue { before = link.pointee.moderation.next }
            before?.pointee.moderation.next = queue.pointee.moderation.next
        }
        queue.pointee.moderation.next = nil
        if moderated == nil { moderationDeadline = .max }
    }

    /// Raises the events whose `cq_period` has passed.
    @inline(never)
    mutating func raiseModerated() {
        var earliest = UInt64.max
        var next = moderated
        while let queue = next {
            next = queue.pointee.moderation.next
            if queue.pointee.moderation.deadline > now {
                earliest = min(earliest, queue.pointee.moderation.deadline)
            } else {
                raiseWaiting(queue)
            }
        }
        moderationDeadline = earliest
    }

    /// Raises the event of a queue for the CQEs that were counted.
    private mutating func raiseWaiting(_ queue: UnsafeMutablePointer<CompletionQueueStorage>) {
        guard queue.pointee.moderation.waiting != 0 else { return stopModerating(queue) }
        stopModerating(queue)
        queue.pointee.armed.store(CompletionQueueStorage.notArmed, ordering: .sequentiallyConsistent)
        events.post(queue.pointee.event, EventNode.notification)
    }

    /// Sets the moderation of a queue. An event that waits is raised at once, since it was due under the old one.
    mutating func moderate(_ queue: UnsafeMutablePointer<CompletionQueueStorage>, count: UInt16, period: UInt64) {
        raiseWaiting(queue)
        queue.pointee.moderation.count = period == 0 ? 0 : UInt32(count)
        queue.pointee.moderation.period = period
    }
}
