import CIBVerbs
import KernelVerbs
import ProviderKit

// The provider's state behind the objects of KernelVerbs (NativeQueues), under their locks (ProviderKit/StateBehind).

typealias QueuePairPointer = NativeQueuePairPointer
typealias CompletionQueuePointer = NativeCompletionQueuePointer
typealias SharedReceiveQueuePointer = NativeSharedReceiveQueuePointer

// MARK: - Queue pairs

extension QueuePairPointer {
    /// Allocates a queue pair without queues, to which no work request can be posted.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self)
        pair.initialize(to: NativeQueuePair(isSingleThreaded: isSingleThreaded))
        pair.sends.initialize(to: SendQueue())
        pair.receives.initialize(to: ReceiveQueue())
        return pair
    }

    /// Sets the queues of a queue pair that no other thread can access yet. `ibv_qp.handle`, `qp_num` and
    /// `qp_type` are set.
    /// - Parameters:
    ///   - send: The send queue.
    ///   - receive: The receive queue; nil with a shared receive queue.
    ///   - limits: The limits that the kernel returned (`ibv_qp_cap`).
    ///   - descriptor: The uverbs file descriptor, to which doorbells are written.
    /// - Returns: False when the WQEs of a queue are too small for the limits.
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

    /// The send queue. The caller holds `sendLock`.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue. The caller holds `receiveLock`.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }

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

    /// Sets the ring. The caller holds the lock, or no other thread can access the queue yet.
    func attach(_ ring: Ring) { completions.pointee.ring = ring }

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

    /// Sets the ring. The caller holds the lock, or no other thread can access the queue yet. Returns false, without a
    /// change, when a WQE is too small for `maxSGE` SGEs.
    func attach(_ ring: Ring, maxSGE: UInt32) -> Bool {
        var queue = ReceiveQueue()
        queue.ring = ring
        guard queue.setLimit(maxSGE) else { return false }
        receives.pointee = queue
        return true
    }

    /// The receive queue. The caller holds the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }

    var context: NativeContextPointer { pointee.base.context.native }
}

// MARK: - Address handles

/// An address handle (`ibv_ah`).
struct RxeAddressHandle {
    var base = ibv_ah()
    private let room = ObjectRoom()
    /// The AH number in a WQE (`rxe_create_ah_resp.ah_num`). 0 means that the kernel does not number address handles.
    var number: UInt32 = 0
}

extension UnsafeMutablePointer<ibv_ah> {
    @inline(__always)
    var rxe: UnsafeMutablePointer<RxeAddressHandle> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeAddressHandle.self)
    }
}
