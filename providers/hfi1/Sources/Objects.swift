import CIBVerbs
import KernelVerbs
import ProviderKit

// The provider's state behind the objects of KernelVerbs (NativeQueues), under their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Allocates a queue pair without queues.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendCommand.self, ReceiveQueue.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        pair.receives.initialize(to: ReceiveQueue())
        return pair
    }

    /// Sets the queues of a queue pair that no other thread can access yet. `ibv_qp.handle` and `qp_type` are set.
    func attach(receive: ReceiveQueue, maxSendSGE: UInt32) {
        sends.initialize(
            to: SendCommand(
                queuePair: pointee.base.qp_base.handle, type: pointee.base.qp_base.qp_type,
                maxSGE: maxSendSGE))
        receives.pointee = receive
    }

    /// The POST_SEND command of the send queue, which is in the kernel. The caller holds `sendLock`.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendCommand> { behind(0, as: SendCommand.self) }

    /// The receive queue. The caller holds `receiveLock`.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendCommand>.stride, as: ReceiveQueue.self)
    }

    @inline(__always)
    var context: NativeContextPointer { pointee.base.qp_base.context.native }
}

// MARK: - Completion queues

extension CompletionQueuePointer {
    /// Allocates a completion queue without a ring, which is empty.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: NativeCompletionQueue(isSingleThreaded: isSingleThreaded))
        queue.completions.initialize(to: CompletionRing())
        return queue
    }

    /// The ring of CQEs. The caller holds the lock.
    @inline(__always)
    var completions: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}

// MARK: - Shared receive queues

extension SharedReceiveQueuePointer {
    /// Allocates a shared receive queue without a ring, to which no work request can be posted.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let queue = allocateObject(holding: ReceiveQueue.self)
        queue.initialize(to: NativeSharedReceiveQueue(isSingleThreaded: isSingleThreaded))
        queue.receives.initialize(to: ReceiveQueue())
        return queue
    }

    /// The receive queue. The caller holds the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}
