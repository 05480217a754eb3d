import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// Receive queues, of a queue pair or shared: `context->ops.post_recv` and `post_srq_recv`. The kernel looks into them
// when a message arrives; no doorbell rings.

/// A receive queue (`struct rvt_rwq`), whose entries are `struct rvt_rwqe`.
struct ReceiveQueue {
    private(set) var mapping = Mapping.absent
    /// One more than there may be requests; 1 where there is no queue.
    private var places: UInt32 = 1
    /// At most so many elements in a list: the entry counts them in 8 bits.
    private(set) var maximumElements: UInt32 = 0
    private var entrySize = Int(RVT_RECEIVE_SGES)

    /// No queue: it takes no request.
    init() {}

    /// A queue for so many requests, mapped as `entrySize` and `places` say.
    init(mapping: Mapping, maximumRequests: UInt32, maximumElements: UInt32) {
        self.mapping = mapping
        places = maximumRequests + 1
        self.maximumElements = min(maximumElements, UInt32(UInt8.max))
        entrySize = Self.entrySize(maximumElements)
    }

    /// The size of an entry with room for so many elements, as the kernel counts it.
    static func entrySize(_ elements: UInt32) -> Int { Int(RVT_RECEIVE_SGES) + Int(RVT_SGE_SIZE) * Int(elements) }

    private var isAbsent: Bool { mapping.byteCount == 0 }

    @inline(__always)
    private var head: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_HEAD)) }

    @inline(__always)
    private var tail: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_TAIL)) }

    /// Puts a chain of requests into the queue. 0; or ENOMEM (full) or EINVAL, and which request that was.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        // The kernel sets it to 0 when the queue pair is reset.
        var index = head.loadOwn()
        if _slowPath(index >= places) { index = 0 }
        let tail = tail.loadAcquiring()
        while let current = request {
            let next = index &+ 1 == places ? 0 : index &+ 1
            if _slowPath(next == tail) {
                error = isAbsent ? EINVAL : ENOMEM
                break
            }
            guard write(current, to: mapping.memory + (Int(RVT_QUEUE_ENTRIES) &+ Int(index) &* entrySize)) else {
                error = EINVAL
                break
            }
            index = next
            request = current.pointee.next
        }
        head.storeReleasing(index)
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    /// Writes a request to an entry. False when its list is too long.
    @inline(__always)
    private func write(_ request: UnsafeMutablePointer<ibv_recv_wr>, to entry: UnsafeMutableRawPointer) -> Bool {
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= maximumElements else { return false }
        entry.put(request.pointee.wr_id, at: Int(RVT_RECEIVE_WR_ID))
        entry.put(UInt8(truncatingIfNeeded: count), at: Int(RVT_RECEIVE_SGE_COUNT))
        guard count != 0 else { return true }
        guard var element = UnsafeRawPointer(request.pointee.sg_list) else { return false }
        var target = entry + Int(RVT_RECEIVE_SGES)
        for _ in 0..<Int(count) {
            target.put(element.get16(0), at: 0)
            target += Int(RVT_SGE_SIZE)
            element += Int(RVT_SGE_SIZE)
        }
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
    return pair.pointee.receiveLock.unlock(answering: pair.receives.pointee.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ pair: QueuePairPointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    pair.pointee.receiveLock.lock()
    return pair.pointee.receiveLock.unlock(answering: pair.receives.pointee.post(first, bad))
}

@inline(__always)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let queue = srq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return postAfterWaiting(queue, first, bad) }
    return queue.pointee.lock.unlock(answering: queue.receives.pointee.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ queue: SharedReceiveQueuePointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    queue.pointee.lock.lock()
    return queue.pointee.lock.unlock(answering: queue.receives.pointee.post(first, bad))
}
