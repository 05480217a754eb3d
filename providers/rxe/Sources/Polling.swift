import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`, and the functions of `ibv_cq_ex`.

/// The ring of a completion queue. Its CQEs begin with `struct ib_uverbs_wc`, which differs from `ibv_wc` only in
/// `wc_flags`.
struct CompletionRing {
    var ring = Ring.absent
    /// The ring before a resize whose new ring could not be mapped: a batch was open, so its current CQE is still read.
    var replacedRing = Ring.absent
    /// Between start_poll and end_poll: the current CQE, nil when there is none, and the known number of CQEs that
    /// follow it up to the end of the ring; 0 outside a batch. The consumer index advances past all of them at once.
    fileprivate var current: UnsafeRawPointer?
    fileprivate var following = 0
}

/// `poll_cq`. A separate function waits for the lock, so that the fast path needs no stack frame.
@inline(__always)
func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard count > 0 else { return count == 0 ? 0 : -EINVAL }
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.tryLock()) else { return pollAfterWaiting(queue, count, wc.unsafelyUnwrapped) }
    return queue.pointee.lock.unlock(returning: queue.completions.poll(count, wc.unsafelyUnwrapped))
}

@inline(never)
private func pollAfterWaiting(
    _ queue: CompletionQueuePointer, _ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>
) -> Int32 {
    guard queue.pointee.lock.lock() else { return -EBUSY }
    return queue.pointee.lock.unlock(returning: queue.completions.poll(count, wc))
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Polls up to `count` CQEs (`count` > 0), and returns their number.
    @inline(__always)
    fileprivate func poll(_ count: Int32, _ wc: UnsafeMutablePointer<ibv_wc>) -> Int32 {
        let ring = pointee.ring
        let index = ring.consumer.loadOwn()
        let available = (ring.producer.loadAcquiring() &- index) & ring.mask
        guard available != 0 else { return 0 }
        let polled = min(available, UInt32(bitPattern: count))
        ring.copy(polled, from: index & ring.mask, to: UnsafeMutableRawPointer(wc))
        ring.consumer.storeReleasing((index &+ polled) & ring.mask)
        return Int32(bitPattern: polled)
    }
}

extension Ring {
    /// Copies `count` CQEs (`count` > 0) to an array of `ibv_wc`.
    @inline(__always)
    fileprivate func copy(_ count: UInt32, from index: UInt32, to target: UnsafeMutableRawPointer) {
        var index = index
        var target = target
        var remaining = count
        repeat {
            let cqe = UnsafeRawPointer(entry(index))
            target.put(cqe.get16(0), at: 0)
            target.put(cqe.get16(16), at: 16)
            target.put(cqe.get16(32), at: 32)
            target.put(cqe.flags, at: 36)
            target += Int(RXE_COMPLETION_SIZE)
            index = next(index)
            remaining &-= 1
        } while remaining != 0
    }
}

extension UnsafeRawPointer {
    /// `ibv_wc.wc_flags` of this CQE.
    ///
    /// rdma_rxe reports an invalidated rkey with the kernel's IB_WC_WITH_INVALIDATE (bit 2), which is
    /// IBV_WC_IP_CSUM_OK in verbs.h; IBV_WC_WITH_INV is bit 3. rxe does not report IP checksums.
    @inline(__always)
    fileprivate var flags: UInt32 {
        let flags = load(fromByteOffset: 36, as: UInt32.self)
        return flags & ~4 | (flags & 4) &<< 1
    }
}

// MARK: - Extended polling

/// The fields of a CQE that the read_ functions support (`ibv_cq_init_attr_ex.wc_flags`).
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS)

/// Sets the functions of an extended completion queue.
func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { ibv_wc_opcode($0.unsafelyUnwrapped.currentCQE.pointee.opcode.rawValue) }
    cq.pointee.read_vendor_err = { $0.unsafelyUnwrapped.currentCQE.pointee.vendor_err }
    cq.pointee.read_byte_len = { $0.unsafelyUnwrapped.currentCQE.pointee.byte_len }
    cq.pointee.read_imm_data = { $0.unsafelyUnwrapped.currentCQE.pointee.imm_data }
    cq.pointee.read_qp_num = { $0.unsafelyUnwrapped.currentCQE.pointee.qp_num }
    cq.pointee.read_src_qp = { $0.unsafelyUnwrapped.currentCQE.pointee.src_qp }
    cq.pointee.read_wc_flags = { UnsafeRawPointer($0.unsafelyUnwrapped.currentCQE).flags }
    cq.pointee.read_slid = { UInt32($0.unsafelyUnwrapped.currentCQE.pointee.slid) }
    cq.pointee.read_sl = { $0.unsafelyUnwrapped.currentCQE.pointee.sl }
    cq.pointee.read_dlid_path_bits = { $0.unsafelyUnwrapped.currentCQE.pointee.dlid_path_bits }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The current CQE. Between start_poll and end_poll, when there is one.
    @inline(__always)
    fileprivate var currentCQE: UnsafePointer<ibv_wc> {
        native.completions.pointee.current.unsafelyUnwrapped.assumingMemoryBound(to: ibv_wc.self)
    }

    /// Makes a CQE the current one, and returns 0.
    @inline(__always)
    fileprivate func show(_ cqe: UnsafeRawPointer, following: Int) -> Int32 {
        native.completions.pointee.current = cqe
        native.completions.pointee.following = following
        let completion = cqe.assumingMemoryBound(to: ibv_wc.self)
        pointee.status = completion.pointee.status
        pointee.wr_id = completion.pointee.wr_id
        return 0
    }

    /// start_poll after the lock is taken. When the queue is empty, releases the lock and returns ENOENT.
    @inline(__always)
    fileprivate func showFirst() -> Int32 {
        let ring = native.completions.pointee.ring
        let index = ring.consumer.loadOwn() & ring.mask
        guard _fastPath(index != ring.producer.loadAcquiring() & ring.mask) else {
            return native.pointee.lock.unlock(returning: ENOENT)
        }
        // next_poll loads the producer index when it is called, so a batch of one CQE does not pay for it.
        return show(ring.entry(index), following: 0)
    }
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Advances the consumer index past the current CQE, and returns it.
    @inline(__always)
    fileprivate func release(_ current: UnsafeRawPointer) -> UInt32 {
        let index = pointee.ring.next(pointee.ring.index(of: current))
        pointee.ring.consumer.storeReleasing(index)
        return index
    }
}

/// start_poll: opens a batch, which holds the queue's lock until end_poll. After an error no batch is open.
@inline(never)
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    guard attr.unsafelyUnwrapped.pointee.comp_mask == 0 else { return EINVAL }
    guard _fastPath(cq.native.pointee.lock.tryBegin()) else { return startAfterWaiting(cq) }
    return cq.showFirst()
}

@inline(never)
private func startAfterWaiting(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    guard cq.native.pointee.lock.begin() else { return EBUSY }
    return cq.showFirst()
}

/// next_poll: the caller holds the lock, also after an error.
@inline(__always)
private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    let cq = cq.unsafelyUnwrapped
    let completions = cq.native.completions
    let following = completions.pointee.following &- 1
    guard _fastPath(following >= 0) else { return reloadProducer(cq) }
    let size = completions.pointee.ring.entrySize
    return cq.show(completions.pointee.current.unsafelyUnwrapped + size, following: following)
}

/// next_poll when no CQE is known to follow: frees the polled CQEs and loads the kernel's producer index again.
@inline(never)
private func reloadProducer(_ cq: UnsafeMutablePointer<ibv_cq_ex>) -> Int32 {
    guard cq.native.pointee.lock.isInBatch() else { return EINVAL }
    let completions = cq.native.completions
    let ring = completions.pointee.ring
    let index = completions.pointee.current.map { completions.release($0) } ?? (ring.consumer.loadOwn() & ring.mask)
    completions.pointee.current = nil
    completions.pointee.following = 0
    let available = (ring.producer.loadAcquiring() &- index) & ring.mask
    guard available != 0 else { return ENOENT }
    return cq.show(ring.entry(index), following: Int(min(available &- 1, ring.mask &- index)))
}

/// end_poll: does nothing when no batch is open.
@inline(never)
private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    let queue = cq.unsafelyUnwrapped.native
    guard _fastPath(queue.pointee.lock.isInBatch()) else { return }
    if let current = queue.completions.pointee.current { _ = queue.completions.release(current) }
    queue.completions.pointee.following = 0
    queue.pointee.lock.unlock()
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Sets the consumer index to the current CQE before a resize, so that it is the first CQE that the kernel moves.
    func prepareToMove() {
        guard let current = pointee.current else { return }
        pointee.ring.consumer.storeReleasing(pointee.ring.index(of: current))
    }

    /// Continues in the ring to which the kernel has moved the CQEs. With `isInBatch`, the first one stays current.
    func move(to ring: Ring, isInBatch: Bool) {
        pointee.ring = ring
        pointee.following = 0
        guard isInBatch, pointee.current != nil else { return }
        pointee.current = UnsafeRawPointer(ring.entry(ring.consumer.loadOwn() & ring.mask))
    }
}
