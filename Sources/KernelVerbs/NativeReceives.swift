import CIBVerbs
import ProviderKit

// Posting receives: `context->ops.post_recv` and `post_srq_recv`. The provider writes the WQEs; the locking and the
// check of the queue pair's state are common to all native providers.

/// A receive queue or shared receive queue of a native provider.
public protocol NativeReceiveQueue {
    /// Writes a list of receive work requests (`ibv_recv_wr`) to the queue. The caller holds the lock.
    ///
    /// - Returns: 0, ENOMEM when the queue is full, or EINVAL. After an error, `bad` (`bad_wr`) is the first request
    ///   that was not posted.
    mutating func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32
}

extension NativeQueuePairPointer {
    /// `post_recv`: returns EINVAL in the RESET state (ibv_post_recv(3)).
    @inline(__always)
    public func postReceive<Queue: NativeReceiveQueue>(
        to queue: UnsafeMutablePointer<Queue>, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        guard pointee.base.qp_base.state != IBV_QPS_RESET else {
            bad?.pointee = first
            return EINVAL
        }
        guard _fastPath(pointee.receiveLock.tryLock()) else { return postAfterWaiting(self, first, bad, queue) }
        return pointee.receiveLock.unlock(returning: queue.pointee.post(first, bad))
    }
}

extension NativeSharedReceiveQueuePointer {
    /// `post_srq_recv`.
    @inline(__always)
    public func postReceive<Queue: NativeReceiveQueue>(
        to queue: UnsafeMutablePointer<Queue>, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        guard _fastPath(pointee.lock.tryLock()) else { return postAfterWaiting(self, first, bad, queue) }
        return pointee.lock.unlock(returning: queue.pointee.post(first, bad))
    }
}

// Separate functions, so that the fast path needs no stack frame. The queue is the last parameter, so that the other
// arguments stay in their registers.

@inline(never)
private func postAfterWaiting<Queue: NativeReceiveQueue>(
    _ pair: NativeQueuePairPointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?, _ queue: UnsafeMutablePointer<Queue>
) -> Int32 {
    pair.pointee.receiveLock.lock()
    return pair.pointee.receiveLock.unlock(returning: queue.pointee.post(first, bad))
}

@inline(never)
private func postAfterWaiting<Queue: NativeReceiveQueue>(
    _ shared: NativeSharedReceiveQueuePointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?, _ queue: UnsafeMutablePointer<Queue>
) -> Int32 {
    shared.pointee.lock.lock()
    return shared.pointee.lock.unlock(returning: queue.pointee.post(first, bad))
}
