import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// `context->ops.post_send`, `post_recv` and `bind_mw`.
//
// The functions of the data path take the object that the inline functions of verbs.h reached them through, so it is there.
//
// Those that contain barriers or stores to the device are not inlined into the function by which C calls them, as the
// compiler would: there it makes a call of every such one-liner of C. What C calls is a jump.

@inline(never)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    guard _fastPath(pair.takesSends) else {
        bad?.pointee = first
        return EINVAL
    }
    pair.pointee.sendLock.lock()
    let error = pair.sends.post(first, bad)
    return pair.pointee.sendLock.unlock(answering: error)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Writes a chain of requests, and rings for those that were taken. 0; or an errno value, and which was not taken.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_send_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        var count: UInt32 = 0
        var last = pointee.ring.start
        var lastSegments: UInt32 = 0
        while let current = request {
            if _slowPath(isFull(behind: count)) {
                error = ENOMEM
                break
            }
            let entry = pointee.ring.block(pointee.block)
            let segments = write(current, number: pointee.number &+ count)
            if _slowPath(segments < 0) {
                error = -segments
                break
            }
            last = entry
            lastSegments = UInt32(bitPattern: segments)
            pointee.block &+= (lastSegments &+ 3) / 4
            count &+= 1
            request = current.pointee.next
        }
        if _fastPath(count != 0) {
            pointee.number &+= count
            ringDoorbell(last, segments: count == 1 ? lastSegments : 0)
        }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }
}

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(never)
func postReceive(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    guard pair.pointee.base.qp_base.state != IBV_QPS_RESET else {
        bad?.pointee = first
        return EINVAL
    }
    guard _fastPath(pair.pointee.receiveLock.tryLock()) else { return postAfterWaiting(pair, first, bad) }
    return pair.pointee.receiveLock.unlock(answering: pair.receives.pointee.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ pair: QueuePairPointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    pair.pointee.receiveLock.lock()
    return pair.pointee.receiveLock.unlock(answering: pair.receives.pointee.post(first, bad))
}

func bindWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, binding: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    bindNativeWindow(qp, mw, binding, post: postSend)
}
