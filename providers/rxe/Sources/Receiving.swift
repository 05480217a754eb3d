import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// Receive queues, of a queue pair or shared: `context->ops.post_recv` and `post_srq_recv`. The kernel looks into them
// when a message arrives; no doorbell rings.

/// A receive queue, whose entries are `struct rxe_recv_wqe`.
struct ReceiveQueue {
    var ring = Ring.absent
    /// At most so many elements in a list.
    private(set) var maximumElements: UInt32 = 0

    /// False when the entries have no room for so many elements. Without a ring any number will do.
    mutating func setLimit(_ elements: UInt32) -> Bool {
        if ring.isAbsent { return true }
        guard Int(elements) <= (ring.entrySize - Int(RXE_RECEIVE_DATA)) / Int(RXE_SGE_SIZE) else { return false }
        maximumElements = elements
        return true
    }
}

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(__always)
func postReceive(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    guard pair.pointee.base.qp_base.state != IBV_QPS_RESET else {
        bad?.pointee = first
        return EINVAL
    }
    guard _fastPath(pair.pointee.receiveLock.tryLock()) else { return postAfterWaiting(pair, first, bad) }
    return pair.pointee.receiveLock.unlock(answering: pair.receives.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ pair: QueuePairPointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    pair.pointee.receiveLock.lock()
    return pair.pointee.receiveLock.unlock(answering: pair.receives.post(first, bad))
}

@inline(__always)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let queue = srq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return postAfterWaiting(queue, first, bad) }
    return queue.pointee.lock.unlock(answering: queue.receives.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ queue: SharedReceiveQueuePointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    queue.pointee.lock.lock()
    return queue.pointee.lock.unlock(answering: queue.receives.post(first, bad))
}

extension UnsafeMutablePointer<ReceiveQueue> {
    /// Puts a chain of requests into the queue. 0; or ENOMEM (full) or EINVAL, and which request that was.
    @inline(__always)
    fileprivate func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        let ring = pointee.ring
        var request = first
        var error: Int32 = 0
        var index = ring.producer.loadOwn() & ring.mask
        let consumer = ring.consumer.loadAcquiring()
        while let current = request {
            let next = ring.next(index)
            if _slowPath(next == consumer) {
                error = ring.isAbsent ? EINVAL : ENOMEM
                break
            }
            guard write(current, to: ring.entry(index)) else {
                error = EINVAL
                break
            }
            index = next
            request = current.pointee.next
        }
        ring.producer.storeReleasing(index)
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    @inline(__always)
    private func write(_ request: UnsafeMutablePointer<ibv_recv_wr>, to entry: UnsafeMutableRawPointer) -> Bool {
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= pointee.maximumElements,
            let length = copyElements(request.pointee.sg_list, count, to: entry + Int(RXE_RECEIVE_DATA))
        else { return false }
        entry.put(request.pointee.wr_id, at: RXE_RECEIVE_WR_ID)
        let account = entry + Int(RXE_RECEIVE_DMA)
        account.put(length, at: RXE_DMA_LENGTH)
        account.put(length, at: RXE_DMA_RESID)
        account.put(UInt64(count) << 32, at: RXE_DMA_CURRENT_SGE)
        account.put(0 as UInt64, at: RXE_DMA_SGE_OFFSET)
        return true
    }
}
