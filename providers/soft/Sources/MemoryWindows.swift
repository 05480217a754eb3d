import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A memory window (`ibv_mw`). Its handle is the upper 24 bits of its R_Key, which never change; a bind sets the others.
struct SoftMemoryWindow: ~Copyable {
    var base = ibv_mw()
    private let room = ObjectRoom()
}

extension UnsafeMutablePointer<ibv_mw> {
    fileprivate var soft: UnsafeMutablePointer<SoftMemoryWindow> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftMemoryWindow.self)
    }

    /// The R_Key with the low 8 bits of `key`.
    fileprivate func key(like key: UInt32) -> UInt32 { pointee.handle << 8 | key & 0xFF }
}

func allocateMemoryWindow(
    pd: UnsafeMutablePointer<ibv_pd>?, type: ibv_mw_type
) -> UnsafeMutablePointer<ibv_mw>? {
    guard let pd else { return failure(EINVAL) }
    guard let wanted = MemoryWindowType(rawValue: type.rawValue) else {
        return failure(refusal(EINVAL, "the type of a memory window is IBV_MW_TYPE_1 or IBV_MW_TYPE_2"))
    }
    let context = pd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    let key: UInt32
    do {
        key = try context.pointee.engine.allocateMemoryWindow(pd.domain.engine, wanted)
    } catch {
        return failure(tooMany("memory regions and memory windows", Int(Limits.maxMR), "max_mr, max_mw"))
    }
    let window = UnsafeMutablePointer<SoftMemoryWindow>.allocate(capacity: 1)
    window.initialize(to: SoftMemoryWindow())
    rdma_init_mw(&window.pointee.base, pd, type, key >> 8, key)
    pd.domain.retain()
    return UnsafeMutableRawPointer(window).assumingMemoryBound(to: ibv_mw.self)
}

func deallocateMemoryWindow(mw: UnsafeMutablePointer<ibv_mw>?) -> Int32 {
    guard let mw else { return EINVAL }
    let context = mw.pointee.context!.soft
    context.lockForControl()
    try? context.pointee.engine.deallocateMemoryWindow(mw.key(like: 0))
    context.unlock()
    mw.pointee.pd.domain.release()
    mw.soft.deinitialize(count: 1)
    mw.soft.deallocate()
    return 0
}

/// `ibv_bind_mw`: binds a window of type 1 by a work request, which gives it the next R_Key.
func bindMemoryWindow(
    qp: UnsafeMutablePointer<ibv_qp>?, mw: UnsafeMutablePointer<ibv_mw>?, bind: UnsafeMutablePointer<ibv_mw_bind>?
) -> Int32 {
    guard let qp, let mw, let bind else { return EINVAL }
    if linux_is_forked_child() { return EPERM }
    let info = bind.pointee.bind_info
    guard mw.pointee.type == IBV_MW_TYPE_1 else {
        return refusal(EINVAL, "a memory window of type 2 is bound by a work request with IBV_WR_BIND_MW")
    }
    guard info.mw_access_flags & IBV_ACCESS_ZERO_BASED.rawValue == 0 else {
        return refusal(EINVAL, "a memory window of type 1 cannot be zero-based")
    }
    guard info.mr != nil || (info.addr == 0 && info.length == 0) else {
        return refusal(EINVAL, "the range has no memory region")
    }
    // A queue pair under a parent domain belongs to the protection domain below it.
    let domain = mw.pointee.pd.pointee.handle
    guard qp.pointee.pd.pointee.handle == domain, info.mr == nil || info.mr.pointee.pd.pointee.handle == domain else {
        return refusal(EPERM, "window, memory region and queue pair belong to different protection domains")
    }
    let pair = qp.soft
    let key = mw.key(like: mw.pointee.rkey &+ 1)
    pair.pointee.sendLock.lock()
    let error = stageBind(
        pair.pointee.pair, id: bind.pointee.wr_id, flags: bind.pointee.send_flags, key: key, info)
    let hasWork = pair.pointee.pair.commitSends()
    if error == .success { mw.pointee.rkey = key }
    pair.pointee.sendLock.unlock()
    if hasWork { pair.context.progressAfterPost() }
    return error.rawValue
}

private func stageBind(
    _ queue: QueuePair, id: UInt64, flags: UInt32, key: UInt32, _ info: ibv_mw_bind_info
) -> RoCETransport.Errno {
    guard let wqe = queue.reserveSend() else { return .noMemory }
    wqe.pointee.id = id
    wqe.pointee.opcode = .bindMemoryWindow
    wqe.pointee.flags = SendFlags(rawValue: flags)
    wqe.fill(key: key, info)
    return queue.stageSend(at: wqe, sgList: nil, count: 0)
}

extension UnsafeMutablePointer<SendWQE> {
    /// Sets the fields of the bind of a window of type 2, posted as a work request. Returns EINVAL for a window of
    /// type 1, which only `ibv_bind_mw` binds, and without a window.
    func fillBind(
        _ window: UnsafeMutablePointer<ibv_mw>?, key: UInt32, _ info: ibv_mw_bind_info
    ) -> RoCETransport.Errno {
        guard let window, window.pointee.type == IBV_MW_TYPE_2 else { return .invalid }
        fill(key: window.key(like: key), info)
        return .success
    }

    fileprivate func fill(key: UInt32, _ info: ibv_mw_bind_info) {
        pointee.bind(
            key: key, lkey: info.mr?.pointee.lkey ?? 0, address: info.addr, length: info.length,
            access: AccessFlags(rawValue: info.mw_access_flags))
    }
}
