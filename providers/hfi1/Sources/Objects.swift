import CIBVerbs
import KernelVerbs
import ProviderKit

// What lies behind the objects of KernelVerbs (NativeQueues), under their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Room for a queue pair that has no queues yet.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendCommand.self, ReceiveQueue.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        pair.receives.initialize(to: ReceiveQueue())
        return pair
    }

    /// Gives the queue pair its queues. Before anybody else knows of it; its handle and type stand in the public struct
    /// already.
    func attach(receive: ReceiveQueue, maximumSendElements: UInt32) {
        sends.initialize(
            to: SendCommand(
                queuePair: pointee.base.qp_base.handle, type: pointee.base.qp_base.qp_type,
                maximumElements: maximumSendElements))
        receives.pointee = receive
    }

    /// The way to the send queue; under the lock of sends.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendCommand> { behind(0, as: SendCommand.self) }

    /// The receive queue; under the lock of receives.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendCommand>.stride, as: ReceiveQueue.self)
    }

    @inline(__always)
    var context: NativeContextPointer { pointee.base.qp_base.context.native }
}

// MARK: - Completion queues

extension CompletionQueuePointer {
    /// Room for a completion queue that has no ring yet: it is empty.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: NativeCompletionQueue(isSingleThreaded: isSingleThreaded))
        queue.completions.initialize(to: CompletionRing())
        return queue
    }

    /// The completions; under the lock.
    @inline(__always)
    var completions: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}

// MARK: - Shared receive queues

extension SharedReceiveQueuePointer {
    /// Room for a shared receive queue that has no ring yet: it takes no request.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let queue = allocateObject(holding: ReceiveQueue.self)
        queue.initialize(to: NativeSharedReceiveQueue(isSingleThreaded: isSingleThreaded))
        queue.receives.initialize(to: ReceiveQueue())
        return queue
    }

    /// The queue; under the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}
