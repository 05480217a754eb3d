import CIBVerbs
import KernelVerbs
import ProviderKit

/// `context->ops.post_send`: sends a POST_SEND command, because the send queue is in the kernel. The lock guards the
/// memory of the command.
@inline(__always)
func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    pair.pointee.sendLock.lock()
    let error = pair.sends.pointee.post(first, to: pair.context.pointee.kernel, bad: bad)
    return pair.pointee.sendLock.unlock(returning: error)
}
