import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// The data path of completion queues: `context->ops.poll_cq`, `req_notify_cq`, and the functions of `ibv_cq_ex`.

func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard let queue = cq?.soft, let wc, count > 0 else { return count == 0 ? 0 : -EINVAL }
    if linux_is_forked_child() { return -EPERM }
    // Both structs have the same layout, field by field (a test compares them).
    let completions = UnsafeMutableRawPointer(wc).assumingMemoryBound(to: WorkCompletion.self)
    guard queue.pointee.lock.lock() else { return -EBUSY }
    var taken = queue.pointee.queue.poll(into: completions, count: Int(count))
    if taken != 0 {
        queue.pointee.lock.unlock()
        return Int32(truncatingIfNeeded: taken)
    }
    let (isUnlocked, holds) = queue.context.progressWhilePolling(unlocking: { queue.pointee.lock.unlock() })
    if isUnlocked, !queue.pointee.lock.lock() { return -EBUSY }
    taken = queue.pointee.queue.poll(into: completions, count: Int(count))
    queue.pointee.lock.unlock()
    if holds && taken == 0 { queue.context.sendHeldAcknowledgementNow() }
    return Int32(truncatingIfNeeded: taken)
}

func requestNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    guard let queue = cq?.soft else { return EINVAL }
    if linux_is_forked_child() { return EPERM }
    queue.pointee.queue.arm(solicitedOnly: solicitedOnly != 0)
    // Without a completion channel the thread cannot sleep until a completion event.
    if cq?.pointee.channel != nil { queue.context.noteArming() }
    return 0
}

// MARK: - Extended polling

/// The `wc_flags` of `ibv_create_cq_ex` that are supported.
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS) | timestampFlags

/// The `wc_flags` for which CQEs have a timestamp: nanoseconds of CLOCK_MONOTONIC, the device's raw clock.
let timestampFlags =
    UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
    | UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue)

func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>, _ fields: UInt64) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { ibv_wc_opcode($0!.entry.pointee.opcode.rawValue) }
    cq.pointee.read_vendor_err = { $0!.entry.pointee.vendorError }
    cq.pointee.read_byte_len = { $0!.entry.pointee.byteCount }
    cq.pointee.read_imm_data = { $0!.entry.pointee.immediate }
    cq.pointee.read_qp_num = { $0!.entry.pointee.queuePairNumber }
    cq.pointee.read_src_qp = { $0!.entry.pointee.sourceQueuePairNumber }
    cq.pointee.read_wc_flags = { $0!.entry.pointee.flags.rawValue }
    cq.pointee.read_slid = { UInt32($0!.entry.pointee.sourceLID) }
    cq.pointee.read_sl = { $0!.entry.pointee.serviceLevel }
    cq.pointee.read_dlid_path_bits = { $0!.entry.pointee.destinationPathBits }
    if fields & UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue) != 0 {
        cq.pointee.read_completion_ts = { $0!.soft.pointee.queue.shownTimestamp }
    }
    if fields & UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue) != 0 {
        cq.pointee.read_completion_wallclock_ns = { wallClock(at: $0!.soft.pointee.queue.shownTimestamp) }
    }
}

/// The wall clock (CLOCK_REALTIME, nanoseconds) at this time of CLOCK_MONOTONIC, by the difference between the two now.
private func wallClock(at time: UInt64) -> UInt64 {
    let now = linux_monotonic_ns()
    return linux_realtime_ns() &- now &+ time
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The current completion. Valid between start_poll and end_poll, while there is one.
    @inline(__always)
    fileprivate var entry: UnsafePointer<WorkCompletion> { soft.pointee.queue.shown }

    /// Makes the next completion the current one. Returns ENOENT when there is none.
    @inline(__always)
    fileprivate func showNext() -> Int32 {
        guard let entry = soft.pointee.queue.show() else { return ENOENT }
        pointee.status = ibv_wc_status(entry.pointee.status.rawValue)
        pointee.wr_id = entry.pointee.id
        return 0
    }
}

/// `ibv_start_poll`: begins a batch, which holds the queue's lock until end_poll, unless it returns an error.
@inline(never)
func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    guard let cq, let attr, attr.pointee.comp_mask == 0 else { return EINVAL }
    if linux_is_forked_child() { return EPERM }
    let queue = cq.soft
    guard queue.pointee.lock.begin() else { return EBUSY }
    if cq.showNext() == 0 { return 0 }
    let (isUnlocked, holds) = queue.context.progressWhilePolling(unlocking: { queue.pointee.lock.unlock() })
    if isUnlocked, !queue.pointee.lock.begin() { return EBUSY }
    let error = cq.showNext()
    if error != 0 {
        queue.pointee.lock.unlock()
        if holds { queue.context.sendHeldAcknowledgementNow() }
    }
    return error
}

func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    guard let cq, cq.soft.pointee.lock.isInBatch() else { return EINVAL }
    cq.soft.pointee.queue.release()
    return cq.showNext()
}

/// `ibv_end_poll`: ends a batch. Has no effect without one.
@inline(never)
private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    guard let queue = cq?.soft, queue.pointee.lock.isInBatch() else { return }
    queue.pointee.queue.release()
    queue.pointee.lock.unlock()
}
