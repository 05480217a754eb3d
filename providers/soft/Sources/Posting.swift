import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// The data path of queue pairs: `context->ops.post_send` and `post_recv`.

func postSend(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_send_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
) -> Int32 {
    guard let pair = qp?.soft else { return EINVAL }
    let queue = pair.pointee.pair
    let isDatagram = queue.type == .ud
    var request = first
    var error = RoCETransport.Errno.success
    pair.pointee.sendLock.lock()
    while let current = request {
        error = stage(current, on: queue, isDatagram: isDatagram)
        if error != .success { break }
        request = current.pointee.next
    }
    let hasWork = queue.commitSends()
    pair.pointee.sendLock.unlock()
    if error != .success { bad?.pointee = request }
    if hasWork { pair.context.progressAfterPost() }
    return error.rawValue
}

@inline(__always)
private func stage(
    _ request: UnsafeMutablePointer<ibv_send_wr>, on queue: QueuePair, isDatagram: Bool
) -> RoCETransport.Errno {
    var wanted = SendWorkRequest(
        id: request.pointee.wr_id, opcode: WorkRequestOpcode(rawValue: request.pointee.opcode.rawValue),
        flags: SendFlags(rawValue: request.pointee.send_flags))
    wanted.immediate = request.pointee.imm_data
    if isDatagram {
        wanted.remoteQueuePair = request.pointee.wr.ud.remote_qpn
        wanted.remoteQueueKey = request.pointee.wr.ud.remote_qkey
        wanted.path = request.pointee.wr.ud.ah?.path
    } else if request.pointee.opcode.rawValue >= IBV_WR_ATOMIC_CMP_AND_SWP.rawValue {
        wanted.remoteAddress = request.pointee.wr.atomic.remote_addr
        wanted.remoteKey = request.pointee.wr.atomic.rkey
        wanted.compareAdd = request.pointee.wr.atomic.compare_add
        wanted.swap = request.pointee.wr.atomic.swap
    } else {
        wanted.remoteAddress = request.pointee.wr.rdma.remote_addr
        wanted.remoteKey = request.pointee.wr.rdma.rkey
    }
    let elements = UnsafeRawPointer(request.pointee.sg_list)?.assumingMemoryBound(to: ScatterGatherElement.self)
    return queue.stageSend(wanted, elements: elements, count: Int(request.pointee.num_sge))
}

extension UnsafeMutablePointer<ibv_ah> {
    /// The path of an address handle of ours.
    @inline(__always)
    var path: UnsafePointer<Path> {
        (UnsafeRawPointer(self) + SoftAddressHandle.pathOffset).assumingMemoryBound(to: Path.self)
    }
}

func postReceive(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    guard let pair = qp?.soft else { return EINVAL }
    let queue = pair.pointee.pair
    var request = first
    var error = RoCETransport.Errno.success
    pair.pointee.receiveLock.lock()
    while let current = request {
        error = queue.stageReceive(
            id: current.pointee.wr_id, elements: current.pointee.elements, count: Int(current.pointee.num_sge))
        if error != .success { break }
        request = current.pointee.next
    }
    let hasWork = queue.commitReceives()
    pair.pointee.receiveLock.unlock()
    if error != .success { bad?.pointee = request }
    if hasWork { pair.context.progressAfterPost() }
    return error.rawValue
}
