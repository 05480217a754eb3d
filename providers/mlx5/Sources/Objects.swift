import CIBVerbs
import KernelVerbs
import ProviderKit

// What lies behind the objects of KernelVerbs (NativeQueues), under their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Room for a queue pair. Its queues are not initialised yet: `attach` does that, before anybody posts.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self, QueuePairParts.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        return pair
    }

    /// Gives the queue pair its queues.
    func attach(_ send: SendQueue, _ receive: ReceiveQueue) {
        sends.initialize(to: send)
        receives.initialize(to: receive)
    }

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

    var context: Mlx5ContextPointer { pointee.base.qp_base.context.mlx5 }
}

// MARK: - Completion queues

extension CompletionQueuePointer {
    /// Room for a completion queue. Its ring is not initialised yet.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: NativeCompletionQueue(isSingleThreaded: isSingleThreaded))
        return queue
    }

    /// The completions; under the lock.
    @inline(__always)
    var ring: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }

    var context: Mlx5ContextPointer { pointee.base.context.mlx5 }
}

// MARK: - Shared receive queues

extension SharedReceiveQueuePointer {
    /// Room for a shared receive queue. Its memory is not initialised yet.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let shared = allocateObject(holding: SharedReceives.self)
        shared.initialize(to: NativeSharedReceiveQueue(isSingleThreaded: isSingleThreaded))
        return shared
    }

    /// The queue; under the lock.
    @inline(__always)
    var queue: UnsafeMutablePointer<SharedReceives> { behind(0, as: SharedReceives.self) }

    var context: Mlx5ContextPointer { pointee.base.context.mlx5 }
}
