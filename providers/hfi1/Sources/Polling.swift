import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`.

/// A completion queue (`struct rvt_cq_wc`). Its CQEs are `struct ib_uverbs_wc`, which is `ibv_wc` except for one flag.
struct CompletionRing {
    let mapping: Mapping
    /// The highest index, which equals the capacity (`ibv_cq.cqe`).
    private let last: UInt32

    /// The empty queue of an object without a mapping.
    init() {
        mapping = .absent
        last = 0
    }

    /// A mapped queue with the capacity `entries` (`ibv_cq.cqe`).
    init(mapping: Mapping, entries: UInt32) {
        self.mapping = mapping
        last = entries
    }

    @inline(__always)
    private var head: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_HEAD)) }

    @inline(__always)
    private var tail: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_TAIL)) }

    /// Polls up to `count` CQEs (`count` > 0), and returns their number.
    @inline(__always)
    func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        let head = head.loadAcquiring()
        var index = tail.loadOwn()
        guard index != head else { return 0 }
        // Indices beyond the end count as the last index, as in the kernel.
        if _slowPath(index > last) { index = last }
        let end = min(head, last)
        var target = UnsafeMutableRawPointer(wc)
        var polled: Int32 = 0
        while polled < count && index != end {
            let cqe =
                UnsafeRawPointer(mapping.memory) + (Int(RVT_QUEUE_ENTRIES) &+ Int(RVT_COMPLETION_SIZE) &* Int(index))
            target.put(cqe.get16(0), at: 0)
            target.put(cqe.get16(16), at: 16)
            target.put(cqe.get16(32), at: 32)
            let flags = cqe.load(fromByteOffset: 36, as: UInt32.self)
            if _slowPath(flags & kernelInvalidated != 0) {
                target.put(flags ^ (kernelInvalidated | IBV_WC_WITH_INV.rawValue), at: 36)
            }
            target += Int(RVT_COMPLETION_SIZE)
            index = index == last ? 0 : index &+ 1
            polled &+= 1
        }
        tail.storeReleasing(index)
        return polled
    }
}

/// The kernel's IB_WC_WITH_INVALIDATE, by which rdmavt reports an invalidated rkey. In verbs.h the bit is
/// IBV_WC_IP_CSUM_OK; rdmavt does not report IP checksums.
private let kernelInvalidated: UInt32 = 1 << 2

/// `poll_cq`. A separate function waits for the lock, so that the fast path needs no stack frame.
@inline(__always)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(returning: queue.completions.pointee.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    guard queue.pointee.lock.lock() else { return -EBUSY }
    return queue.pointee.lock.unlock(returning: queue.completions.pointee.poll(count, wc))
}
