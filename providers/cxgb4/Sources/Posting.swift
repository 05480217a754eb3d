import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

// `context->ops.post_send`, `post_recv`, `post_srq_recv` and `bind_mw`.
//
// The inline functions of verbs.h reach these functions through the object that they pass, so it is never nil.
//
// A post does not depend on `ibv_qp.state`, which the kernel's connection manager changes without the provider's
// knowledge. It fails with EINVAL if the kernel has marked the queue pair (`QueuePairFlags`): it is then in an error
// state, in which nothing that is posted would complete.
//
// Functions with barriers or stores to the device are marked @inline(never). Inlined into the thunk that C calls, each
// of their one-line C functions would become a call; as they are, the thunk is a jump.

@inline(never)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    pair.pointee.sendLock.lock()
    let error = pair.sends.post(first, bad, pair)
    return pair.pointee.sendLock.unlock(returning: error)
}

extension UnsafeMutablePointer<SendQueue> {
    /// The number of slots after which a chain rings the doorbell, whose field is 13 bits wide.
    private var slotsPerDoorbell: UInt32 { Doorbell.maximumSlots &- Limits.sendSlots }

    /// Writes a chain of work requests and rings the doorbell for them. Returns 0; or an errno value, with the first
    /// work request that was not posted in `bad`.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_send_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?, _ pair: QueuePairPointer
    ) -> Int32 {
        guard _fastPath(!pointee.flags.isInError) else {
            bad?.pointee = first
            return EINVAL
        }
        var room = room
        var request = first
        var error: Int32 = 0
        var slots: UInt32 = 0
        var last: UInt32 = 0
        if _slowPath(pointee.pairsWriteAndSend), let first, room >= 2, canPair(first) {
            let taken = writePair(first, first.pointee.next)
            if taken > 0 {
                ringDoorbell(UInt32(taken), last: UInt32(taken), of: pair)
                return 0
            }
            bad?.pointee = first
            return -taken
        }
        while let current = request {
            if _slowPath(room == 0) {
                error = ENOMEM
                break
            }
            let taken = write(current)
            if _slowPath(taken < 0) {
                error = -taken
                break
            }
            last = UInt32(bitPattern: taken)
            slots &+= last
            room &-= 1
            request = current.pointee.next
            if _slowPath(slots >= slotsPerDoorbell) {
                ringDoorbell(slots, last: last, of: pair)
                slots = 0
            }
        }
        if _fastPath(slots != 0) { ringDoorbell(slots, last: last, of: pair) }
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
    guard _fastPath(pair.pointee.base.qp_base.srq == nil) else {
        bad?.pointee = first
        return EINVAL
    }
    pair.pointee.receiveLock.lock()
    let error = pair.receives.post(first, bad, pair)
    return pair.pointee.receiveLock.unlock(returning: error)
}

@inline(never)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let shared = srq.unsafelyUnwrapped.native
    shared.pointee.lock.lock()
    let error = shared.queue.pointee.post(first, bad)
    return shared.pointee.lock.unlock(returning: error)
}

func bindWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, binding: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    bindNativeWindow(qp, mw, binding, post: postSend)
}
