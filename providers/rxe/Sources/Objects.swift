import CIBVerbs
import KernelVerbs
import ProviderKit

// What lies behind the objects of KernelVerbs (NativeQueues), under their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Room for a queue pair that has no queues yet: it takes no work request.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        pair.sends.initialize(to: SendQueue())
        pair.receives.initialize(to: ReceiveQueue())
        return pair
    }

    /// Gives the queue pair its queues. Before anybody else knows of it; its number, handle and type stand in the public
    /// struct already.
    /// - Parameters:
    ///   - send: the send queue.
    ///   - receive: the receive queue; nil with a shared receive queue.
    ///   - limits: what the kernel has granted.
    ///   - descriptor: of uverbs, where the doorbell rings.
    /// - Returns: false when the entries of a queue have no room for the limits.
    func attach(send: Ring, receive: Ring?, limits: ibv_qp_cap, descriptor: Int32) -> Bool {
        sends.pointee.ring = send
        receives.pointee.ring = receive ?? .absent
        guard sends.pointee.setLimits(limits), receives.pointee.setLimit(limits.max_recv_sge) else { return false }
        sends.pointee.allowed = allowedOpcodes(pointee.base.qp_base.qp_type)
        sends.pointee.isDatagram = pointee.base.qp_base.qp_type == IBV_QPT_UD
        sends.pointee.descriptor = descriptor
        sends.prepareDoorbell(handle: pointee.base.qp_base.handle)
        return true
    }

    /// The send queue; under the lock of sends.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue; under the lock of receives.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }

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

    /// Gives the queue its ring, or another after a resize: under the lock, or before anybody else knows of the queue.
    func attach(_ ring: Ring) { completions.pointee.ring = ring }

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

    /// Gives the queue its ring, or another after a resize: under the lock, or before anybody else knows of the queue.
    /// False, and nothing is changed, when the entries have no room for so many elements.
    func attach(_ ring: Ring, maximumElements: UInt32) -> Bool {
        var queue = ReceiveQueue()
        queue.ring = ring
        guard queue.setLimit(maximumElements) else { return false }
        receives.pointee = queue
        return true
    }

    /// The queue; under the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}

// MARK: - Address handles

/// An address handle.
struct RxeAddressHandle {
    var base = ibv_ah()
    /// How the kernel calls it in a work request (`ah_num`): never 0, which is what a kernel says that has no such number.
    var number: UInt32 = 0
}

extension UnsafeMutablePointer<ibv_ah> {
    @inline(__always)
    var rxe: UnsafeMutablePointer<RxeAddressHandle> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeAddressHandle.self)
    }
}
