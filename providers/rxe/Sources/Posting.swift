import CIBVerbs
import CLinux
import KernelVerbs
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
    let pair = qp.unsafelyUnwrapped.native
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

func bindWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, binding: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    bindNativeWindow(qp, mw, binding, post: postSend)
}
