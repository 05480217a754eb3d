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
        let pair = allocateObject(holding: SendQueue.self, ReceiveQueue.self)
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
}
