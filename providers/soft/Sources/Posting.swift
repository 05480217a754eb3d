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
    if linux_is_forked_child() {
        bad?.pointee = first
        return EPERM
    }
    let queue = pair.pointee.pair
    let isDatagram = queue.type == .ud
    let isExtended = queue.type == .xrcSend
    var request = first
    var error = RoCETransport.Errno.success
    pair.pointee.sendLock.lock()
    while let current = request {
        error = stage(current, on: queue, isDatagram: isDatagram, isExtended: isExtended)
        if error != .success { break }
        request = current.pointee.next
    }
    let hasWork = queue.publishSends()
    pair.pointee.sendLock.unlock()
    if error != .success { bad?.pointee = request }
    if hasWork { pair.context.progressAfterPost(to: queue) }
    return error.rawValue
}

@inline(__always)
private func stage(
    _ request: UnsafeMutablePointer<ibv_send_wr>, on queue: QueuePair, isDatagram: Bool, isExtended: Bool
) -> RoCETransport.Errno {
    // An XRC_RECV queue pair has no send queue.
    guard let wqe = queue.reserveSend() else { return queue.type == .xrcReceive ? .invalid : .noMemory }
    var path: UnsafePointer<Path>?
    wqe.pointee.id = request.pointee.wr_id
    wqe.pointee.opcode = WorkRequestOpcode(rawValue: request.pointee.opcode.rawValue)
    wqe.pointee.flags = SendFlags(rawValue: request.pointee.send_flags)
    wqe.pointee.immediate = request.pointee.imm_data
    if isExtended { wqe.pointee.remoteSRQN = request.pointee.qp_type.xrc.remote_srqn }
    if isDatagram {
        wqe.pointee.remoteQPN = request.pointee.wr.ud.remote_qpn
        wqe.pointee.remoteQKey = request.pointee.wr.ud.remote_qkey
        path = request.pointee.wr.ud.ah?.path
    } else if request.pointee.opcode == IBV_WR_BIND_MW {
        let bind = request.pointee.bind_mw
        let error = wqe.fillBind(bind.mw, key: bind.rkey, bind.bind_info)
        guard error == .success else { return error }
    } else if request.pointee.opcode.rawValue >= IBV_WR_ATOMIC_CMP_AND_SWP.rawValue
        && request.pointee.opcode != IBV_WR_ATOMIC_WRITE
    {
        // struct ibv_send_wr has no place for the operands of a FLUSH.
        if wqe.pointee.opcode == .flush { return .notSupported }
        wqe.pointee.remoteAddress = request.pointee.wr.atomic.remote_addr
        wqe.pointee.rkey = request.pointee.wr.atomic.rkey
        wqe.pointee.compareAdd = request.pointee.wr.atomic.compare_add
        wqe.pointee.swap = request.pointee.wr.atomic.swap
    } else {
        wqe.pointee.remoteAddress = request.pointee.wr.rdma.remote_addr
        wqe.pointee.rkey = request.pointee.wr.rdma.rkey
    }
    let sgList = UnsafeRawPointer(request.pointee.sg_list)?.assumingMemoryBound(to: SGE.self)
    return queue.stageSend(at: wqe, path: path, sgList: sgList, count: Int(request.pointee.num_sge))
}

extension UnsafeMutablePointer<ibv_ah> {
    /// The path of an address handle that soft has made.
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
    if linux_is_forked_child() {
        bad?.pointee = first
        return EPERM
    }
    let queue = pair.pointee.pair
    var request = first
    var error = RoCETransport.Errno.success
    pair.pointee.receiveLock.lock()
    while let current = request {
        error = queue.stageReceive(
            id: current.pointee.wr_id, sgList: current.pointee.sgList, count: Int(current.pointee.num_sge))
        if error != .success { break }
        request = current.pointee.next
    }
    let hasWork = queue.commitReceives()
    pair.pointee.receiveLock.unlock()
    if error != .success { bad?.pointee = request }
    if hasWork { pair.context.progressAfterPost() }
    return error.rawValue
}
