import Synchronization

/// What a completion queue is made of. The engine writes entries, one polling thread at a time takes them.
struct CompletionQueueStorage: ~Copyable {
    var ring: Ring
    /// What the next event waits for; see `CompletionQueue.arm`.
    let armed = Atomic<UInt8>(0)
    /// Set when the queue overran: no entry is written any more.
    var overran = false
    /// Queue pairs that complete here, counted once per queue.
    var users = 0
    let core: UnsafeMutablePointer<Core>
    let event: UnsafeMutablePointer<EventNode>
    let userData: UnsafeMutableRawPointer?

    static let notArmed: UInt8 = 0
    static let armedForSolicited: UInt8 = 1
    static let armedForNext: UInt8 = 2
}

/// A completion queue. A plain handle; it is dead after `Engine.destroy`.
///
/// `poll`, `peek`, `release` and `arm` need not be under the lock that guards the engine, but only one thread at a time
/// may call them.
@frozen
public struct CompletionQueue: Hashable, @unchecked Sendable {
    /// The engine's storage, opaque outside; the same value names the same object.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<CompletionQueueStorage> {
        identity.assumingMemoryBound(to: CompletionQueueStorage.self)
    }

    init(_ storage: UnsafeMutablePointer<CompletionQueueStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// How many completions it holds; one more is an overrun.
    public var capacity: Int { Int(storage.pointee.ring.limit) }

    /// The pointer that was given to `Engine.createCompletionQueue`.
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// True when the queue overran: it takes no more entries, and `IBV_EVENT_CQ_ERR` was reported. What it held can
    /// still be polled.
    public var hasOverrun: Bool { storage.pointee.overran }

    /// Takes up to `count` completions, oldest first.
    /// - Parameter completions: room for `count` of them; `struct ibv_wc` has the same layout.
    /// - Returns: how many were taken.
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

    /// The oldest completion in place, or nil when there is none; valid until `release`.
    public func peek() -> UnsafePointer<WorkCompletion>? {
        let ring = storage.pointee.ring
        guard ring.has(ring.oldest) else { return nil }
        return UnsafePointer(ring.slot(ring.oldest).assumingMemoryBound(to: WorkCompletion.self))
    }

    /// Gives up the completion that `peek` showed.
    public func release() { storage.pointee.ring.release() }

    /// Asks for one event: at the next completion, or only at the next one that is solicited or an error
    /// (`ibv_req_notify_cq`). An event for any completion stands when both were asked for.
    ///
    /// A completion that came before is no reason for an event: poll once more after arming.
    public func arm(solicitedOnly: Bool) {
        let wanted =
            solicitedOnly
            ? CompletionQueueStorage.armedForSolicited : CompletionQueueStorage.armedForNext
        // Sequentially consistent, as is the engine's publishing of an entry: either the engine sees the request,
        // or the poll that follows sees the entry.
        _ = storage.pointee.armed.max(wanted, ordering: .sequentiallyConsistent)
    }
}

// MARK: - The engine's side

extension Core {
    /// Writes a completion. An overrun costs the queue its life, and `complete` says so.
    mutating func push(
        _ completion: WorkCompletion, solicited: Bool, to queue: UnsafeMutablePointer<CompletionQueueStorage>
    ) -> Bool {
        guard !queue.pointee.overran else { return false }
        let ring = queue.pointee.ring
        guard let slot = ring.reserve() else {
            queue.pointee.overran = true
            counters.completionQueueOverruns &+= 1
            events.post(queue.pointee.event, .completionQueueError)
            return false
        }
        let entry = slot.assumingMemoryBound(to: WorkCompletion.self)
        entry.initialize(to: completion)
        ring.stage()
        ring.produced.pointee.store(ring.producer.pointee.position, ordering: .sequentiallyConsistent)
        let armed = queue.pointee.armed.load(ordering: .sequentiallyConsistent)
        if armed == CompletionQueueStorage.notArmed { return true }
        if armed == CompletionQueueStorage.armedForNext || solicited || completion.status != .success {
            queue.pointee.armed.store(CompletionQueueStorage.notArmed, ordering: .sequentiallyConsistent)
            events.post(queue.pointee.event, EventNode.notification)
        }
        return true
    }

    /// Removes a queue pair's entries, for one that is reset or destroyed. The poller must not be at work.
    mutating func removeCompletions(of number: UInt32, from queue: UnsafeMutablePointer<CompletionQueueStorage>) {
        let ring = queue.pointee.ring
        var kept: UInt32 = ring.oldest
        let end = ring.oldest &+ ring.count
        var index = ring.oldest
        while index != end {
            let entry = ring.slot(index).load(as: WorkCompletion.self)
            if entry.queuePair != number {
                if kept != index { ring.slot(kept).storeBytes(of: entry, as: WorkCompletion.self) }
                kept &+= 1
            }
            index &+= 1
        }
        guard kept != end else { return }
        ring.producer.pointee.position = kept
        ring.produced.pointee.store(kept, ordering: .releasing)
        ring.consumer.pointee.seen = kept
    }

    /// Moves what a queue holds to a ring of another size. The poller must not be at work.
    mutating func resize(_ queue: UnsafeMutablePointer<CompletionQueueStorage>, capacity: UInt32) throws(Errno) {
        let old = queue.pointee.ring
        let held = old.count
        guard capacity >= held else { throw .invalid }
        let new = Ring(limit: capacity, stride: MemoryLayout<WorkCompletion>.stride)
        for offset in 0..<held {
            let entry = old.slot(old.oldest &+ offset).load(as: WorkCompletion.self)
            new.slot(offset).storeBytes(of: entry, as: WorkCompletion.self)
        }
        new.producer.pointee.position = held
        _ = new.publish()
        queue.pointee.ring = new
        old.deallocate()
    }
}
