import CIBVerbs
import CLinux
import ProviderKit

// `context->ops.post_send` and `bind_mw`.
//
// The functions of the data path take the object that the inline functions of verbs.h reached them through, so it is there;
// and they are inlined into what C calls, which else would be a function of its own in front of each.

@inline(__always)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.rxe
    guard pair.takesSends else {
        bad?.pointee = first
        return EINVAL
    }
    let queue = pair.sends
    let ring = queue.pointee.ring
    var request = first
    var error: Int32 = 0
    pair.pointee.sendLock.lock()
    let start = ring.producer.loadOwn() & ring.mask
    var index = start
    let consumer = ring.consumer.loadAcquiring()
    while let current = request {
        let next = ring.next(index)
        if _slowPath(next == consumer) {
            error = ENOMEM
            break
        }
        error = queue.write(current, to: ring.entry(index))
        if _slowPath(error != 0) { break }
        index = next
        request = current.pointee.next
    }
    if _slowPath(index == start) {
        pair.pointee.sendLock.unlock()
    } else {
        ring.producer.storeReleasing(index)
        pair.pointee.sendLock.unlock()
        let refusal = queue.ring()
        if _slowPath(refusal != 0) {
            pair.takeBack(from: start, to: index)
            error = refusal
            request = first
        }
    }
    if _slowPath(error != 0) { bad?.pointee = request }
    return error
}

extension QueuePairPointer {
    /// Whether the state is one in which work requests may be posted to the send queue: not before RTS (IBTA volume 1,
    /// 10.3.1). A queue pair in an error state takes them and flushes them.
    @inline(__always)
    var takesSends: Bool {
        let state = pointee.base.qp_base.state.rawValue
        return state &- IBV_QPS_RTS.rawValue <= IBV_QPS_ERR.rawValue - IBV_QPS_RTS.rawValue
    }

    /// Takes entries back for which the kernel did not want to hear the doorbell, unless another thread has put more
    /// behind them.
    @inline(never)
    func takeBack(from start: UInt32, to end: UInt32) {
        pointee.sendLock.lock()
        let producer = sends.pointee.ring.producer
        if producer.loadOwn() == end { producer.storeReleasing(start) }
        pointee.sendLock.unlock()
    }
}

/// Binds a memory window of type 1. The window has its new key as soon as the request is posted; who gets an error
/// completion for it must undo that (ibv_bind_mw(3)).
func bindWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, binding: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    guard let qp, let mw, let binding else { return EINVAL }
    guard binding.pointee.bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED.rawValue == 0 else { return EINVAL }
    let key = ibv_inc_rkey(mw.pointee.rkey)
    var request = ibv_send_wr()
    request.opcode = IBV_WR_BIND_MW
    request.wr_id = binding.pointee.wr_id
    request.send_flags = binding.pointee.send_flags
    request.bind_mw.mw = mw
    request.bind_mw.rkey = key
    request.bind_mw.bind_info = binding.pointee.bind_info
    let error = postSend(qp: qp, first: &request, bad: nil)
    if error == 0 { mw.pointee.rkey = key }
    return error
}
