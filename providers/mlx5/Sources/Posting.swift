import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// `context->ops.post_send`, `post_recv` and `bind_mw`.
//
// The inline functions of verbs.h reach these functions through the object that they pass, so it is never nil.
//
// Functions with barriers or stores to the device are marked @inline(never). Inlined into the thunk that C calls, each
// of their one-line C functions would become a call; as they are, the thunk is a jump.

@inline(never)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    guard _fastPath(pair.allowsPostSend) else {
        bad?.pointee = first
        return EINVAL
    }
    pair.pointee.sendLock.lock()
    let error = pair.sends.post(first, bad)
    return pair.pointee.sendLock.unlock(returning: error)
}

extension UnsafeMutablePointer<SendQueue> {
    /// Writes the WQEs of a chain of work requests and rings the doorbell for them. Returns 0; or an errno value, with
    /// the first work request that was not posted in `bad`.
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
            let wqe = pointee.ring.wqebb(pointee.wqebb)
            let segments = write(current, number: pointee.number &+ count)
            if _slowPath(segments < 0) {
                error = -segments
                break
            }
            last = wqe
            lastSegments = UInt32(bitPattern: segments)
            pointee.wqebb &+= (lastSegments &+ 3) / 4
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

@inline(never)
func postReceive(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    return pair.postReceive(to: pair.receives, first, bad)
}

func bindWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, binding: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    bindNativeWindow(qp, mw, binding, post: postSend)
}
