import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`, and the functions of `ibv_cq_ex`.

/// The ring of a completion queue, whose entries begin with `struct ib_uverbs_wc`: what the user gets, but for `flags`.
struct CompletionRing {
    var ring = Ring.absent
    /// Between start_poll and end_poll: the entry that is shown, nil when there is none, and how many are known to lie
    /// right behind it, before the end of the ring. They are given back together.
    fileprivate var shown: UnsafeRawPointer?
    fileprivate var following = 0
}

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(__always)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(answering: queue.completions.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    queue.pointee.lock.lock()
    return queue.pointee.lock.unlock(answering: queue.completions.poll(count, wc))
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Takes up to `count` completions, at least one: how many.
    @inline(__always)
    fileprivate func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        let ring = pointee.ring
        let index = ring.consumer.loadOwn()
        let there = (ring.producer.loadAcquiring() &- index) & ring.mask
        guard there != 0 else { return 0 }
        let taken = min(there, UInt32(bitPattern: count))
        ring.copy(taken, from: index & ring.mask, to: UnsafeMutableRawPointer(wc))
        ring.consumer.storeReleasing((index &+ taken) & ring.mask)
        return Int32(bitPattern: taken)
    }
}

extension Ring {
    /// Copies completions, at least one.
    @inline(__always)
    fileprivate func copy(_ count: UInt32, from index: UInt32, to target: UnsafeMutableRawPointer) {
        var index = index
        var target = target
        var rest = count
        repeat {
            let entry = UnsafeRawPointer(entry(index))
            target.put(entry.get16(0), at: 0)
            target.put(entry.get16(16), at: 16)
            target.put(entry.get16(32), at: 32)
            target.put(entry.flags, at: 36)
            target += Int(RXE_COMPLETION_SIZE)
            index = next(index)
            rest &-= 1
        } while rest != 0
    }
}

extension UnsafeRawPointer {
    /// `wc_flags` of the completion that lies here, as verbs.h has it.
    ///
    /// rdma_rxe tells of an invalidated key with the kernel's own bit for it (IB_WC_WITH_INVALIDATE, bit 2), which means
    /// IBV_WC_IP_CSUM_OK in verbs.h, where IBV_WC_WITH_INV is bit 3. Of IP checksums rxe has nothing to tell.
    @inline(__always)
    fileprivate var flags: UInt32 {
        let flags = load(fromByteOffset: 36, as: UInt32.self)
        return flags & ~4 | (flags & 4) &<< 1
    }
}

// MARK: - Extended polling

/// What `ibv_cq_ex` can tell of a completion.
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS)

/// Sets the functions of an extended completion queue.
func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { ibv_wc_opcode($0.unsafelyUnwrapped.entry.pointee.opcode.rawValue) }
    cq.pointee.read_vendor_err = { $0.unsafelyUnwrapped.entry.pointee.vendor_err }
    cq.pointee.read_byte_len = { $0.unsafelyUnwrapped.entry.pointee.byte_len }
    cq.pointee.read_imm_data = { $0.unsafelyUnwrapped.entry.pointee.imm_data }
    cq.pointee.read_qp_num = { $0.unsafelyUnwrapped.entry.pointee.qp_num }
    cq.pointee.read_src_qp = { $0.unsafelyUnwrapped.entry.pointee.src_qp }
    cq.pointee.read_wc_flags = { UnsafeRawPointer($0.unsafelyUnwrapped.entry).flags }
    cq.pointee.read_slid = { UInt32($0.unsafelyUnwrapped.entry.pointee.slid) }
    cq.pointee.read_sl = { $0.unsafelyUnwrapped.entry.pointee.sl }
    cq.pointee.read_dlid_path_bits = { $0.unsafelyUnwrapped.entry.pointee.dlid_path_bits }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The completion at the front. Only between start_poll and end_poll, when there is one.
    @inline(__always)
    fileprivate var entry: UnsafePointer<ibv_wc> {
        native.completions.pointee.shown.unsafelyUnwrapped.assumingMemoryBound(to: ibv_wc.self)
    }

    /// Shows a completion, and answers 0.
    @inline(__always)
    fileprivate func show(_ entry: UnsafeRawPointer, following: Int) -> Int32 {
        native.completions.pointee.shown = entry
        native.completions.pointee.following = following
        let completion = entry.assumingMemoryBound(to: ibv_wc.self)
        pointee.status = completion.pointee.status
        pointee.wr_id = completion.pointee.wr_id
        return 0
    }

    /// start_poll under the lock, which it gives back if there is nothing.
    @inline(__always)
    fileprivate func showFirst() -> Int32 {
        let ring = native.completions.pointee.ring
        let index = ring.consumer.loadOwn() & ring.mask
        guard _fastPath(index != ring.producer.loadAcquiring() & ring.mask) else {
            return native.pointee.lock.unlock(answering: ENOENT)
        }
        // How many follow is a question for those who ask for more than one.
        return show(ring.entry(index), following: 0)
    }
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Gives back everything up to the entry that is shown: the index behind it.
    @inline(__always)
    fileprivate func release(_ shown: UnsafeRawPointer) -> UInt32 {
        let index = pointee.ring.next(pointee.ring.index(of: shown))
        pointee.ring.consumer.storeReleasing(index)
        return index
    }
}

/// Holds the queue's lock from here to end_poll, unless it answers an error.
@inline(__always)
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    guard attr.unsafelyUnwrapped.pointee.comp_mask == 0 else { return EINVAL }
    guard _fastPath(cq.native.pointee.lock.tryLock()) else { return startAfterWaiting(cq) }
    return cq.showFirst()
}

@inline(never)
private func startAfterWaiting(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    cq.native.pointee.lock.lock()
    return cq.showFirst()
}

/// The lock stays with the caller, whatever it answers.
@inline(__always)
private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    let completions = cq.native.completions
    let following = completions.pointee.following &- 1
    guard _fastPath(following >= 0) else { return lookAgain(cq) }
    let size = completions.pointee.ring.entrySize
    return cq.show(completions.pointee.shown.unsafelyUnwrapped + size, following: following)
}

/// What the kernel has put behind the entry that is shown since the last look, or behind the end of the ring.
@inline(never)
private func lookAgain(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    let completions = cq.native.completions
    let ring = completions.pointee.ring
    let index = completions.pointee.shown.map { completions.release($0) } ?? (ring.consumer.loadOwn() & ring.mask)
    completions.pointee.shown = nil
    completions.pointee.following = 0
    let there = (ring.producer.loadAcquiring() &- index) & ring.mask
    guard there != 0 else { return ENOENT }
    return cq.show(ring.entry(index), following: Int(min(there &- 1, ring.mask &- index)))
}

@inline(__always)
private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    let queue = cq.unsafelyUnwrapped.native
    if let shown = queue.completions.pointee.shown { _ = queue.completions.release(shown) }
    _ = queue.pointee.lock.unlock(answering: 0)
}
