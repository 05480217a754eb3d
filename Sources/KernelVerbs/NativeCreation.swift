import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// Entries of the control table for objects with queues. The provider's part is passed as closures: `allocate` allocates
// the object and the states behind it, `make` creates the object in the kernel and attaches its queues, `release` frees
// the queues.

// MARK: - Queue pairs

/// `create_qp_ex` (`ibv_create_qp_ex`).
/// - Parameters:
///   - operations: See `checkQueuePair`.
///   - make: Sets `qp_num` and `handle`, and writes the actual limits to `attr.cap`. If it throws, it has undone its
///     work.
///   - fillBuilders: Sets the `ibv_qp_ex` functions of the given `send_ops_flags`.
public func createNativeQueuePair(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?,
    operations: (ibv_qp_type) -> UInt64,
    allocate: (_ isSingleThreaded: Bool) -> NativeQueuePairPointer,
    make: (NativeQueuePairPointer, inout ibv_qp_init_attr_ex) throws(KernelError) -> Void,
    fillBuilders: (UnsafeMutablePointer<ibv_qp_ex>, UInt64) -> Void
) -> UnsafeMutablePointer<ibv_qp>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkQueuePair(attr.pointee, context, operations: operations)
    guard refusal == 0 else { return failure(refusal) }
    let domain = attr.pointee.pd.domain
    let pair = allocate(domain.pointee.isSingleThreaded)
    rdma_init_qp(pair.extended, context, attr)
    do throws(KernelError) {
        try make(pair, &attr.pointee)
    } catch {
        rdma_fini_qp(pair.verbs)
        pair.freeObject()
        return failure(error.rawValue)
    }
    if attr.pointee.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0 {
        fillBuilders(pair.extended, attr.pointee.send_ops_flags)
        pair.enlist()
    }
    domain.retain()
    return pair.verbs
}

/// `qp_to_qp_ex` (`ibv_qp_to_qp_ex`): returns nil for a queue pair that was created without `send_ops_flags`.
func extendNativeQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> UnsafeMutablePointer<ibv_qp_ex>? {
    guard let pair = qp?.native, pair.pointee.base.wr_start != nil else { return nil }
    return pair.extended
}

/// `destroy_qp` (`ibv_destroy_qp`). Returns after all its events have been acknowledged.
public func destroyNativeQueuePair(
    _ qp: UnsafeMutablePointer<ibv_qp>?, release: (NativeQueuePairPointer) -> Void
) -> Int32 {
    guard let qp else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        let events = try qp.pointee.context.native.pointee.kernel.destroyQueuePair(qp.pointee.handle)
        if let events { rdma_wait_qp_events(qp, events) }
    }
    if refusal != 0 { return refusal }
    qp.native.leave()
    release(qp.native)
    qp.pointee.pd.domain.release()
    rdma_fini_qp(qp)
    qp.native.freeObject()
    return 0
}

/// `bind_mw` (`ibv_bind_mw`), by a work request (IBV_WR_BIND_MW). `ibv_mw.rkey` changes when the request is posted.
/// After a completion with an error, the user must restore it (ibv_bind_mw(3)).
/// - Parameter post: The provider's `post_send`.
public func bindNativeWindow(
    _ qp: UnsafeMutablePointer<ibv_qp>?, _ mw: UnsafeMutablePointer<ibv_mw>?,
    _ binding: UnsafeMutablePointer<ibv_mw_bind>?,
    post: (
        UnsafeMutablePointer<ibv_qp>?, UnsafeMutablePointer<ibv_send_wr>?,
        UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
    ) -> Int32
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
    let error = post(qp, &request, nil)
    if error == 0 { mw.pointee.rkey = key }
    return error
}

// MARK: - Completion queues

/// `create_cq` (`ibv_create_cq`).
/// - Parameters:
///   - attr: The attributes, from `completionQueueAttributes`.
///   - make: Sets `handle` and `cqe`. If it throws, it has undone its work.
public func createNativeCompletionQueue(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: ibv_cq_init_attr_ex?,
    allocate: (_ isSingleThreaded: Bool) -> NativeCompletionQueuePointer,
    make: (NativeCompletionQueuePointer, ibv_cq_init_attr_ex) throws(KernelError) -> Void
) -> UnsafeMutablePointer<ibv_cq>? {
    createQueue(context, attr, fields: 0, allocate: allocate, make: make)?.verbs
}

/// `create_cq_ex` (`ibv_create_cq_ex`).
/// - Parameters:
///   - fields: The supported `wc_flags` (`enum ibv_create_cq_wc_flags`).
///   - make: Sets `handle` and `cqe`. If it throws, it has undone its work.
///   - fillPolling: Sets the functions of `ibv_cq_ex`.
public func createNativeExtendedCompletionQueue(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?, fields: UInt64,
    allocate: (_ isSingleThreaded: Bool) -> NativeCompletionQueuePointer,
    make: (NativeCompletionQueuePointer, ibv_cq_init_attr_ex) throws(KernelError) -> Void,
    fillPolling: (UnsafeMutablePointer<ibv_cq_ex>) -> Void
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    guard let queue = createQueue(context, attr?.pointee, fields: fields, allocate: allocate, make: make) else {
        return nil
    }
    fillPolling(queue.extended)
    queue.enlist()
    return queue.extended
}

private func createQueue(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: ibv_cq_init_attr_ex?, fields: UInt64,
    allocate: (_ isSingleThreaded: Bool) -> NativeCompletionQueuePointer,
    make: (NativeCompletionQueuePointer, ibv_cq_init_attr_ex) throws(KernelError) -> Void
) -> NativeCompletionQueuePointer? {
    guard let context, let attr else { return failure(EINVAL) }
    let (refusal, isSingleThreaded) = checkCompletionQueue(attr, context, fields: fields)
    guard refusal == 0 else { return failure(refusal) }
    let queue = allocate(isSingleThreaded)
    rdma_init_cq(queue.verbs, context, attr.channel, attr.cq_context, Int32(attr.cqe))
    do throws(KernelError) {
        try make(queue, attr)
        return queue
    } catch {
        rdma_fini_cq(queue.verbs)
        queue.freeObject()
        return failure(error.rawValue)
    }
}

/// `resize_cq` (`ibv_resize_cq`).
/// - Parameter resize: Runs while no other thread polls. If a batch of extended polling is open (`lock.hasBatch`), the
///   current completion must stay readable.
public func resizeNativeCompletionQueue(
    _ cq: UnsafeMutablePointer<ibv_cq>?, _ entries: Int32,
    resize: (NativeCompletionQueuePointer, UInt32) throws(KernelError) -> Void
) -> Int32 {
    guard let queue = cq?.native, entries > 0 else { return EINVAL }
    return whileNotPolled(queue.pointee.lock, queue.pointee.lock) {
        errno { () throws(KernelError) in try resize(queue, UInt32(entries)) }
    }
}

/// `destroy_cq` (`ibv_destroy_cq`). Returns after all its events have been acknowledged. EBUSY while a batch of
/// extended polling is open.
public func destroyNativeCompletionQueue(
    _ cq: UnsafeMutablePointer<ibv_cq>?, release: (NativeCompletionQueuePointer) -> Void
) -> Int32 {
    guard let cq else { return EINVAL }
    guard !cq.native.pointee.lock.hasBatch() else { return EBUSY }
    let refusal = errno { () throws(KernelError) in
        let events = try cq.pointee.context.native.pointee.kernel.destroyCompletionQueue(cq.pointee.handle)
        if let events { rdma_wait_cq_events(cq, events.completions, events.asynchronous) }
    }
    if refusal != 0 { return refusal }
    cq.native.leave()
    release(cq.native)
    rdma_fini_cq(cq)
    cq.native.freeObject()
    return 0
}

// MARK: - Shared receive queues

/// `create_srq_ex` (`ibv_create_srq_ex`).
/// - Parameter make: Sets `handle`, and writes the actual limits to `ibv_srq_attr`. If it throws, it has undone its
///   work.
public func createNativeSharedReceiveQueue(
    _ context: UnsafeMutablePointer<ibv_context>?, _ attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?,
    allocate: (_ isSingleThreaded: Bool) -> NativeSharedReceiveQueuePointer,
    make: (NativeSharedReceiveQueuePointer, inout ibv_srq_attr) throws(KernelError) -> Void
) -> UnsafeMutablePointer<ibv_srq>? {
    guard let context, let attr else { return failure(EINVAL) }
    let refusal = checkBasicSharedReceiveQueue(attr.pointee, context)
    guard refusal == 0 else { return failure(refusal) }
    let domain = attr.pointee.pd.domain
    let queue = allocate(domain.pointee.isSingleThreaded)
    rdma_init_srq(queue.verbs, context, attr)
    do throws(KernelError) {
        try make(queue, &attr.pointee.attr)
    } catch {
        rdma_fini_srq(queue.verbs)
        queue.freeObject()
        return failure(error.rawValue)
    }
    domain.retain()
    return queue.verbs
}

/// `destroy_srq` (`ibv_destroy_srq`). Returns after all its events have been acknowledged.
public func destroyNativeSharedReceiveQueue(
    _ srq: UnsafeMutablePointer<ibv_srq>?, release: (NativeSharedReceiveQueuePointer) -> Void
) -> Int32 {
    guard let srq else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        let events = try srq.pointee.context.native.pointee.kernel.destroySharedReceiveQueue(srq.pointee.handle)
        if let events { rdma_wait_srq_events(srq, events) }
    }
    if refusal != 0 { return refusal }
    release(srq.native)
    srq.pointee.pd.domain.release()
    rdma_fini_srq(srq)
    srq.native.freeObject()
    return 0
}
