import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

// The data path of completion queues: `context->ops.poll_cq`, and the functions of `ibv_cq_ex`.

/// The ring of a completion queue, whose entries begin with `struct ib_uverbs_wc`: what the user gets, byte for byte.
struct CompletionRing {
    /// Nil when there is none, or no longer one: then nothing ever completes.
    var ring: Ring?
    /// Between start_poll and end_poll: the entry at the front, where it is shown.
    fileprivate var shown: UnsafeRawPointer?
}

func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard let queue = cq?.rxe, let wc, count > 0 else { return count == 0 ? 0 : -EINVAL }
    queue.lock()
    defer { queue.unlock() }
    guard let ring = queue.completions.pointee.ring else { return 0 }
    var index = ring.consumer.loadOwn() & ring.mask
    let producer = ring.producer.loadAcquiring() & ring.mask
    guard index != producer else { return 0 }
    var target = UnsafeMutableRawPointer(wc)
    let end = target + Int(count) &* Int(RXE_COMPLETION_SIZE)
    repeat {
        let entry = UnsafeRawPointer(ring.entry(index))
        target.put(entry.get16(0), at: 0)
        target.put(entry.get16(16), at: 16)
        target.put(entry.get16(32), at: 32)
        target += Int(RXE_COMPLETION_SIZE)
        index = ring.next(index)
    } while index != producer && target != end
    ring.consumer.storeReleasing(index)
    return Int32(truncatingIfNeeded: (target - UnsafeMutableRawPointer(wc)) / Int(RXE_COMPLETION_SIZE))
}

// MARK: - Extended polling

/// What `ibv_cq_ex` can tell of a completion.
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS)

/// Sets the functions of an extended completion queue.
func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { ibv_wc_opcode($0!.entry.pointee.opcode.rawValue) }
    cq.pointee.read_vendor_err = { $0!.entry.pointee.vendor_err }
    cq.pointee.read_byte_len = { $0!.entry.pointee.byte_len }
    cq.pointee.read_imm_data = { $0!.entry.pointee.imm_data }
    cq.pointee.read_qp_num = { $0!.entry.pointee.qp_num }
    cq.pointee.read_src_qp = { $0!.entry.pointee.src_qp }
    cq.pointee.read_wc_flags = { $0!.entry.pointee.wc_flags }
    cq.pointee.read_slid = { UInt32($0!.entry.pointee.slid) }
    cq.pointee.read_sl = { $0!.entry.pointee.sl }
    cq.pointee.read_dlid_path_bits = { $0!.entry.pointee.dlid_path_bits }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The completion at the front. Only between start_poll and end_poll, when there is one.
    @inline(__always)
    fileprivate var entry: UnsafePointer<ibv_wc> {
        rxe.completions.pointee.shown.unsafelyUnwrapped.assumingMemoryBound(to: ibv_wc.self)
    }

    @inline(__always)
    fileprivate func show(_ index: UInt32, of ring: Ring) {
        let entry = UnsafeRawPointer(ring.entry(index))
        rxe.completions.pointee.shown = entry
        let completion = entry.assumingMemoryBound(to: ibv_wc.self)
        pointee.status = completion.pointee.status
        pointee.wr_id = completion.pointee.wr_id
    }
}

/// Holds the queue's lock from here to end_poll, unless it answers an error.
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    guard let cq, let attr, attr.pointee.comp_mask == 0 else { return EINVAL }
    let queue = cq.rxe
    queue.lock()
    if let ring = queue.completions.pointee.ring {
        let index = ring.consumer.loadOwn() & ring.mask
        if index != ring.producer.loadAcquiring() & ring.mask {
            cq.show(index, of: ring)
            return 0
        }
    }
    queue.unlock()
    return ENOENT
}

/// Gives back the entry that is shown, and shows the one behind it. The lock stays with the caller, whatever it answers.
private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    guard let cq else { return EINVAL }
    let completions = cq.rxe.completions
    guard let ring = completions.pointee.ring else { return ENOENT }
    var index = ring.consumer.loadOwn() & ring.mask
    if completions.pointee.shown != nil {
        index = ring.next(index)
        ring.consumer.storeReleasing(index)
    }
    if index == ring.producer.loadAcquiring() & ring.mask {
        completions.pointee.shown = nil
        return ENOENT
    }
    cq.show(index, of: ring)
    return 0
}

private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    guard let queue = cq?.rxe else { return }
    let completions = queue.completions
    if completions.pointee.shown != nil, let ring = completions.pointee.ring {
        ring.consumer.storeReleasing(ring.next(ring.consumer.loadOwn()))
        completions.pointee.shown = nil
    }
    queue.unlock()
}
