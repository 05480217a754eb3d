import CIBVerbs
import CKernelABI
import ProviderKit

// The objects of the data path: the public struct, the locks, and behind both, in the same allocation, what the locks
// guard. It lies apart because to change a field of a struct is to access all of it, and those who wait for a lock look
// at the lock meanwhile; it lies close because its address then is known without a load.
//
// An object is made in three steps: `allocate`; then the initialiser of rdma_provider.h and the kernel's command, which is
// told the object's address; then `attach`, with what the kernel has mapped. `free` gives all of it back, except the
// mapping.

// MARK: - Queue pairs

/// A queue pair: always the extended form.
struct RxeQueuePair: ~Copyable {
    var base = ibv_qp_ex()
    let sendLock: Lock
    let receiveLock: Lock

    fileprivate init(isSingleThreaded: Bool) {
        sendLock = Lock(isSkipped: isSingleThreaded)
        receiveLock = Lock(isSkipped: isSingleThreaded)
    }
}

typealias QueuePairPointer = UnsafeMutablePointer<RxeQueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    @inline(__always)
    var rxe: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeQueuePair.self) }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    @inline(__always)
    var rxe: QueuePairPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeQueuePair.self) }
}

extension QueuePairPointer {
    /// Room for a queue pair whose public struct is zeroed and that has no queues yet: it takes no work request.
    static func allocate(isSingleThreaded: Bool) -> QueuePairPointer {
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self)
        pair.initialize(to: RxeQueuePair(isSingleThreaded: isSingleThreaded))
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

    func free() {
        sends.deinitialize(count: 1)
        receives.deinitialize(count: 1)
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_qp> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self) }

    /// The send queue; under the lock of sends.
    @inline(__always)
    var sends: UnsafeMutablePointer<SendQueue> { behind(0, as: SendQueue.self) }

    /// The receive queue; under the lock of receives.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> {
        behind(MemoryLayout<SendQueue>.stride, as: ReceiveQueue.self)
    }
}

// MARK: - Completion queues

/// A completion queue. The public struct is the extended one, whose beginning is the plain one.
struct RxeCompletionQueue: ~Copyable {
    var base = ibv_cq_ex()
    let lock: Lock
}

typealias CompletionQueuePointer = UnsafeMutablePointer<RxeCompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    @inline(__always)
    var rxe: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeCompletionQueue.self)
    }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    @inline(__always)
    var rxe: CompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeCompletionQueue.self)
    }
}

extension CompletionQueuePointer {
    /// Room for a completion queue whose public struct is zeroed and that has no ring yet: it is empty.
    static func allocate(isSingleThreaded: Bool) -> CompletionQueuePointer {
        let queue = allocateObject(holding: CompletionRing.self)
        queue.initialize(to: RxeCompletionQueue(lock: Lock(isSkipped: isSingleThreaded)))
        queue.completions.initialize(to: CompletionRing())
        return queue
    }

    /// Gives the queue its ring, or another after a resize: under the lock, or before anybody else knows of the queue.
    func attach(_ ring: Ring) { completions.pointee.ring = ring }

    func free() {
        completions.deinitialize(count: 1)
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_cq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self) }

    /// The completions; under the lock.
    @inline(__always)
    var completions: UnsafeMutablePointer<CompletionRing> { behind(0, as: CompletionRing.self) }
}

// MARK: - Shared receive queues

/// A shared receive queue.
struct RxeSharedReceiveQueue: ~Copyable {
    var base = ibv_srq()
    let lock: Lock
}

typealias SharedReceiveQueuePointer = UnsafeMutablePointer<RxeSharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    @inline(__always)
    var rxe: SharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeSharedReceiveQueue.self)
    }
}

extension SharedReceiveQueuePointer {
    /// Room for a shared receive queue whose public struct is zeroed and that has no ring yet: it takes no request.
    static func allocate(isSingleThreaded: Bool) -> SharedReceiveQueuePointer {
        let queue = allocateObject(holding: ReceiveQueue.self)
        queue.initialize(to: RxeSharedReceiveQueue(lock: Lock(isSkipped: isSingleThreaded)))
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

    func free() {
        receives.deinitialize(count: 1)
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    @inline(__always)
    var verbs: UnsafeMutablePointer<ibv_srq> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self) }

    /// The queue; under the lock.
    @inline(__always)
    var receives: UnsafeMutablePointer<ReceiveQueue> { behind(0, as: ReceiveQueue.self) }
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
