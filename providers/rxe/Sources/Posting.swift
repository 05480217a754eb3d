import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// `context->ops.post_send` and `bind_mw`.
//
// The inline functions of verbs.h dereference the object before they call a function of the data path, so it is not
// nil. The functions are inlined into their C entry points, which would otherwise be separate functions.

@inline(__always)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    guard pair.allowsPostSend else {
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
        let doorbellError = queue.ringDoorbell()
        if _slowPath(doorbellError != 0) {
            pair.rollBack(from: start, to: index)
            error = doorbellError
            request = first
        }
    }
    if _slowPath(error != 0) { bad?.pointee = request }
    return error
}

extension QueuePairPointer {
    /// Resets the producer index to `start` after the kernel refused the doorbell, unless another thread has posted
    /// further WQEs.
    @inline(never)
    func rollBack(from start: UInt32, to end: UInt32) {
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
