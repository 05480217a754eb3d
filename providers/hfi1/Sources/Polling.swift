import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`.

/// A completion queue (`struct rvt_cq_wc`), whose entries are `struct ib_uverbs_wc`: what the user gets, byte for byte
/// but for one flag.
struct CompletionRing {
    let mapping: Mapping
    /// The highest index: as many completions as the queue has room for.
    private let last: UInt32

    /// No queue: it is empty.
    init() {
        mapping = .absent
        last = 0
    }

    /// A queue for so many completions.
    init(mapping: Mapping, entries: UInt32) {
        self.mapping = mapping
        last = entries
    }

    @inline(__always)
    private var head: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_HEAD)) }

    @inline(__always)
    private var tail: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_TAIL)) }

    /// Takes up to `count` completions, at least one: how many.
    @inline(__always)
    func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        let head = head.loadAcquiring()
        var index = tail.loadOwn()
        guard index != head else { return 0 }
        // Beyond the end the kernel itself takes both for the end.
        if _slowPath(index > last) { index = last }
        let end = min(head, last)
        var target = UnsafeMutableRawPointer(wc)
        var taken: Int32 = 0
        while taken < count && index != end {
            let entry =
                UnsafeRawPointer(mapping.memory) + (Int(RVT_QUEUE_ENTRIES) &+ Int(RVT_COMPLETION_SIZE) &* Int(index))
            target.put(entry.get16(0), at: 0)
            target.put(entry.get16(16), at: 16)
            target.put(entry.get16(32), at: 32)
            let flags = entry.load(fromByteOffset: 36, as: UInt32.self)
            if _slowPath(flags & kernelInvalidated != 0) {
                target.put(flags ^ (kernelInvalidated | IBV_WC_WITH_INV.rawValue), at: 36)
            }
            target += Int(RVT_COMPLETION_SIZE)
            index = index == last ? 0 : index &+ 1
            taken &+= 1
        }
        tail.storeReleasing(index)
        return taken
    }
}

/// rdmavt tells of an invalidated key with the kernel's own bit for it (IB_WC_WITH_INVALIDATE), which in verbs.h means
/// IBV_WC_IP_CSUM_OK. Of IP checksums rdmavt has nothing to tell.
private let kernelInvalidated: UInt32 = 1 << 2

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(__always)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(answering: queue.completions.pointee.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    queue.pointee.lock.lock()
    return queue.pointee.lock.unlock(answering: queue.completions.pointee.poll(count, wc))
}
