import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// The data path of completion queues: `context->ops.poll_cq`, `req_notify_cq`, and the functions of `ibv_cq_ex`.

func pollCompletions(cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, wc: UnsafeMutablePointer<ibv_wc>?) -> Int32 {
    guard let queue = cq?.soft, let wc, count > 0 else { return count == 0 ? 0 : -EINVAL }
    // Both structs have the same layout, field by field (a test says so).
    let completions = UnsafeMutableRawPointer(wc).assumingMemoryBound(to: WorkCompletion.self)
    queue.pointee.lock.lock()
    var taken = queue.pointee.queue.poll(into: completions, count: Int(count))
    queue.pointee.lock.unlock()
    if taken == 0 {
        queue.context.progressWhilePolling()
        queue.pointee.lock.lock()
        taken = queue.pointee.queue.poll(into: completions, count: Int(count))
        queue.pointee.lock.unlock()
    }
    return Int32(truncatingIfNeeded: taken)
}

func requestNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    guard let queue = cq?.soft else { return EINVAL }
    queue.pointee.lock.lock()
    queue.pointee.queue.arm(solicitedOnly: solicitedOnly != 0)
    queue.pointee.lock.unlock()
    queue.context.noteArming()
    return 0
}

// MARK: - Extended polling

/// What `ibv_cq_ex` can tell of a completion.
let supportedCompletionFlags = UInt64(IBV_WC_STANDARD_FLAGS)

func fillExtendedPolling(_ cq: UnsafeMutablePointer<ibv_cq_ex>) {
    cq.pointee.start_poll = startPoll
    cq.pointee.next_poll = nextPoll
    cq.pointee.end_poll = endPoll
    cq.pointee.read_opcode = { ibv_wc_opcode($0!.entry.pointee.opcode.rawValue) }
    cq.pointee.read_vendor_err = { $0!.entry.pointee.vendorError }
    cq.pointee.read_byte_len = { $0!.entry.pointee.byteCount }
    cq.pointee.read_imm_data = { $0!.entry.pointee.immediate }
    cq.pointee.read_qp_num = { $0!.entry.pointee.queuePair }
    cq.pointee.read_src_qp = { $0!.entry.pointee.sourceQueuePair }
    cq.pointee.read_wc_flags = { $0!.entry.pointee.flags.rawValue }
    cq.pointee.read_slid = { UInt32($0!.entry.pointee.sourceLID) }
    cq.pointee.read_sl = { $0!.entry.pointee.serviceLevel }
    cq.pointee.read_dlid_path_bits = { $0!.entry.pointee.destinationPathBits }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The completion at the front. Only between start_poll and end_poll, when there is one.
    @inline(__always)
    fileprivate var entry: UnsafePointer<WorkCompletion> { soft.pointee.queue.peek()! }

    /// Shows the user the completion at the front. ENOENT when there is none.
    @inline(__always)
    fileprivate func show(_ entry: UnsafePointer<WorkCompletion>?) -> Int32 {
        guard let entry else { return ENOENT }
        pointee.status = ibv_wc_status(entry.pointee.status.rawValue)
        pointee.wr_id = entry.pointee.id
        soft.pointee.showsEntry.pointee = true
        return 0
    }
}

/// Holds the queue's lock from here to end_poll, unless it answers an error.
private func startPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32 {
    guard let cq, let attr, attr.pointee.comp_mask == 0 else { return EINVAL }
    let queue = cq.soft
    queue.pointee.lock.lock()
    if queue.pointee.queue.peek() == nil { queue.context.progressWhilePolling() }
    let error = cq.show(queue.pointee.queue.peek())
    if error != 0 { queue.pointee.lock.unlock() }
    return error
}

private func nextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    guard let cq else { return EINVAL }
    let queue = cq.soft
    if queue.pointee.showsEntry.pointee {
        queue.pointee.queue.release()
        queue.pointee.showsEntry.pointee = false
    }
    return cq.show(queue.pointee.queue.peek())
}

private func endPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) {
    guard let queue = cq?.soft else { return }
    if queue.pointee.showsEntry.pointee {
        queue.pointee.queue.release()
        queue.pointee.showsEntry.pointee = false
    }
    queue.pointee.lock.unlock()
}
