import CIBVerbs
import KernelVerbs
import ProviderKit

// The provider's state in the objects of KernelVerbs (NativeQueues), guarded by their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Allocates a queue pair. `attach` initialises its queues before anything is posted.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self, QueuePairResources.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        return pair
    }

    /// Initialises the queues.
    func attach(_ send: SendQueue, _ receive: ReceiveQueue) {
        sends.initialize(to: send)
        receives.initialize(to: receive)
    }

    /// The send queue. `sendLock` guards its variables.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue. `receiveLock` guards its variables.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }

    /// The resources that are released when the queue pair is destroyed.
    var resources: UnsafeMutablePointer<QueuePairResources> {
        behind(MemoryLayout<SendQueue>.stride &+ MemoryLayout<ReceiveQueue>.stride, as: QueuePairResources.self)
    }

    var context: Mlx5ContextPointer { pointee.base.qp_base.context.mlx5 }
}

// MARK: - Completion queues

extension CompletionQueuePointer {
    /// Allocates a completion queue without initialising its ring.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: NativeCompletionQueue(isSingleThreaded: isSingleThreaded))
        return queue
    }

    /// The ring of CQEs, guarded by the lock.
    @inline(__always)
    var ring: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }

    var context: Mlx5ContextPointer { pointee.base.context.mlx5 }
}

// MARK: - Shared receive queues

extension SharedReceiveQueuePointer {
    /// Allocates a shared receive queue without initialising its ring.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let shared = allocateObject(holding: SharedReceives.self)
        shared.initialize(to: NativeSharedReceiveQueue(isSingleThreaded: isSingleThreaded))
        return shared
    }

    /// The ring of WQEs, guarded by the lock.
    @inline(__always)
    var queue: UnsafeMutablePointer<SharedReceives> { behind(0, as: SharedReceives.self) }

    var context: Mlx5ContextPointer { pointee.base.context.mlx5 }
}
