import CIBVerbs
import KernelVerbs
import ProviderKit

// The provider's state in the objects of KernelVerbs (NativeQueues), guarded by their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

/// The part of a queue pair that its completion queues use, and its resources. Only its size is used: the parts are
/// accessed by pointers.
private struct CompletionSides {
    var sends: CompletionSide
    var receives: CompletionSide
    var resources: QueuePairResources
}

extension QueuePairPointer {
    /// Allocates a queue pair without initialising its queues.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self, CompletionSides.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        return pair
    }

    @inline(__always)
    private static var sidesOffset: Int { MemoryLayout<SendQueue>.stride &+ MemoryLayout<ReceiveQueue>.stride }

    /// The send queue. `sendLock` guards its variables.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue, which a queue pair with a shared receive queue does not have. `receiveLock` guards its
    /// variables.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }

    /// The sends, guarded by the lock of the send completion queue.
    @inline(__always)
    var sendSide: CompletionSidePointer { behind(Self.sidesOffset, as: CompletionSide.self) }

    /// The receives, guarded by the lock of the receive completion queue.
    @inline(__always)
    var receiveSide: CompletionSidePointer {
        behind(Self.sidesOffset &+ MemoryLayout<CompletionSide>.stride, as: CompletionSide.self)
    }

    /// The resources that are released when the queue pair is destroyed.
    var resources: UnsafeMutablePointer<QueuePairResources> {
        behind(Self.sidesOffset &+ 2 &* MemoryLayout<CompletionSide>.stride, as: QueuePairResources.self)
    }

    var context: Cxgb4ContextPointer { pointee.base.qp_base.context.cxgb4 }
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
    var ring: CompletionRingPointer { behind(0, as: CompletionRing.self) }

    var context: Cxgb4ContextPointer { pointee.base.context.cxgb4 }
}

// MARK: - Shared receive queues

extension SharedReceiveQueuePointer {
    /// Allocates a shared receive queue without initialising its ring.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let shared = allocateObject(holding: SharedReceives.self, SharedReceiveResources.self)
        shared.initialize(to: NativeSharedReceiveQueue(isSingleThreaded: isSingleThreaded))
        return shared
    }

    /// The ring of work requests, guarded by the lock.
    @inline(__always)
    var queue: UnsafeMutablePointer<SharedReceives> { behind(0, as: SharedReceives.self) }

    /// The resources that are released when the shared receive queue is destroyed.
    var resources: UnsafeMutablePointer<SharedReceiveResources> {
        behind(MemoryLayout<SharedReceives>.stride, as: SharedReceiveResources.self)
    }

    var context: Cxgb4ContextPointer { pointee.base.context.cxgb4 }
}
