import CIBVerbs
import KernelVerbs
import ProviderKit

// The objects of the data path: the public struct, the locks, and behind both what the locks guard
// (ProviderKit/StateBehind).
//
// An object is made in three steps: `allocate`; then the initialiser of rdma_provider.h and the kernel's command, which is
// told the object's address; then `attach`, with what the kernel has mapped. `free` gives all of it back, except the
// mapping.

// MARK: - Queue pairs

/// A queue pair: always the extended form.
struct Hfi1QueuePair: ~Copyable {
    var base = ibv_qp_ex()
    let sendLock: Lock
    let receiveLock: Lock

    fileprivate init(isSingleThreaded: Bool) {
        sendLock = Lock(isSkipped: isSingleThreaded)
        receiveLock = Lock(isSkipped: isSingleThreaded)
    }
}

typealias QueuePairPointer = UnsafeMutablePointer<Hfi1QueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    @inline(__always)
    var hfi1: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: Hfi1QueuePair.self) }
}

extension QueuePairPointer {
    /// Room for a queue pair whose public struct is zeroed and that has no queues yet.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendCommand.self, ReceiveQueue.self)
        pair.initialize(to: Hfi1QueuePair(isSingleThreaded: isSingleThreaded))
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

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_qp> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self) }

    @inline(__always)
    var context: NativeContextPointer { pointee.base.qp_base.context.native }

    /// The way to the send queue; under the lock of sends.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendCommand> { behind(0, as: SendCommand.self) }

    /// The receive queue; under the lock of receives.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendCommand>.stride, as: ReceiveQueue.self)
    }
}

// MARK: - Completion queues

/// A completion queue.
struct Hfi1CompletionQueue: ~Copyable {
    var base = ibv_cq()
    let lock: Lock
}

typealias CompletionQueuePointer = UnsafeMutablePointer<Hfi1CompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    @inline(__always)
    var hfi1: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Hfi1CompletionQueue.self)
    }
}

extension CompletionQueuePointer {
    /// Room for a completion queue whose public struct is zeroed and that has no ring yet: it is empty.
    static func allocate() -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: Hfi1CompletionQueue(lock: Lock()))
        queue.completions.initialize(to: CompletionRing())
        return queue
    }

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_cq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self) }

    var context: NativeContextPointer { pointee.base.context.native }

    /// The completions; under the lock.
    @inline(__always)
    var completions: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }
}

// MARK: - Shared receive queues

/// A shared receive queue.
struct Hfi1SharedReceiveQueue: ~Copyable {
    var base = ibv_srq()
    let lock: Lock
}

typealias SharedReceiveQueuePointer = UnsafeMutablePointer<Hfi1SharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    @inline(__always)
    var hfi1: SharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Hfi1SharedReceiveQueue.self)
    }
}

extension SharedReceiveQueuePointer {
    /// Room for a shared receive queue whose public struct is zeroed and that has no ring yet: it takes no request.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let queue = allocateObject(holding: ReceiveQueue.self)
        queue.initialize(to: Hfi1SharedReceiveQueue(lock: Lock(isSkipped: isSingleThreaded)))
        queue.receives.initialize(to: ReceiveQueue())
        return queue
    }

    func free() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_srq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self) }

    var context: NativeContextPointer { pointee.base.context.native }

    /// The queue; under the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }
}
