import CIBVerbs
import ProviderKit

// The objects of the data path: the public struct, the locks, and behind both what the locks guard
// (ProviderKit/StateBehind).

// MARK: - Queue pairs

/// A queue pair: always the extended form.
struct Mlx5QueuePair: ~Copyable {
    var base = ibv_qp_ex()
    let sendLock: Lock
    let receiveLock: Lock

    fileprivate init(isSingleThreaded: Bool) {
        sendLock = Lock(isSkipped: isSingleThreaded)
        receiveLock = Lock(isSkipped: isSingleThreaded)
    }
}

typealias QueuePairPointer = UnsafeMutablePointer<Mlx5QueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    @inline(__always)
    var mlx5: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5QueuePair.self) }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    @inline(__always)
    var mlx5: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5QueuePair.self) }
}

extension QueuePairPointer {
    /// Room for a queue pair whose public struct is zeroed. Its queues are not initialised yet: `attach` does that, before
    /// anybody posts.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self, QueuePairParts.self)
        pair.initialize(to: Mlx5QueuePair(isSingleThreaded: isSingleThreaded))
        return pair
    }

    /// Gives the queue pair its queues.
    func attach(_ send: SendQueue, _ receive: ReceiveQueue) {
        sends.initialize(to: send)
        receives.initialize(to: receive)
    }

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_qp> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self) }

    /// The send queue; under the lock of sends, but for what never changes.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue; under the lock of receives, but for what never changes.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }

    /// What is given back when it is destroyed.
    var parts: UnsafeMutablePointer<QueuePairParts> {
        behind(MemoryLayout<SendQueue>.stride &+ MemoryLayout<ReceiveQueue>.stride, as: QueuePairParts.self)
    }
}

// MARK: - Completion queues

/// A completion queue. The public struct is the extended one, whose beginning is the plain one.
struct Mlx5CompletionQueue: ~Copyable {
    var base = ibv_cq_ex()
    let lock: Lock
}

typealias CompletionQueuePointer = UnsafeMutablePointer<Mlx5CompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    @inline(__always)
    var mlx5: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5CompletionQueue.self)
    }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    @inline(__always)
    var mlx5: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5CompletionQueue.self)
    }
}

extension CompletionQueuePointer {
    /// Room for a completion queue whose public struct is zeroed. Its ring is not initialised yet.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: Mlx5CompletionQueue(lock: Lock(isSkipped: isSingleThreaded)))
        return queue
    }

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_cq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self) }

    /// The completions; under the lock.
    @inline(__always)
    var ring: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }
}

// MARK: - Shared receive queues

/// A shared receive queue.
struct Mlx5SharedReceiveQueue: ~Copyable {
    var base = ibv_srq()
    let lock: Lock
}

typealias SharedReceiveQueuePointer = UnsafeMutablePointer<Mlx5SharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    @inline(__always)
    var mlx5: SharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5SharedReceiveQueue.self)
    }
}

extension SharedReceiveQueuePointer {
    /// Room for a shared receive queue whose public struct is zeroed. Its memory is not initialised yet.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let shared = allocateObject(holding: SharedReceives.self)
        shared.initialize(to: Mlx5SharedReceiveQueue(lock: Lock(isSkipped: isSingleThreaded)))
        return shared
    }

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_srq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self) }

    /// The queue; under the lock.
    @inline(__always)
    var queue: UnsafeMutablePointer<SharedReceives> { behind(0, as: SharedReceives.self) }
}
