import CIBVerbs
import CLinux

// What every provider asks of the arguments before it makes an object.

/// Whether a queue pair can be made of these parts: RC, UC or UD, in a protection domain, with two completion queues.
/// - Parameter operations: the operations that builders can have, as bits of ibv_qp_create_send_ops_flags, for a transport
///   service; those of RC include all others.
/// - Returns: 0, EINVAL, or EOPNOTSUPP.
public func checkQueuePair(
    _ attr: ibv_qp_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>, operations: (ibv_qp_type) -> UInt64
) -> Int32 {
    let known =
        IBV_QP_INIT_ATTR_PD.rawValue | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
        | IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue
    guard attr.comp_mask & ~known == 0 else { return EOPNOTSUPP }
    if attr.comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue != 0 && attr.create_flags != 0 { return EOPNOTSUPP }
    switch attr.qp_type {
    case IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD: break
    default: return EOPNOTSUPP
    }
    if attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0 {
        // A provider without builders has none for no operation either.
        let all = operations(IBV_QPT_RC)
        guard all != 0, attr.send_ops_flags & ~all == 0 else { return EOPNOTSUPP }
        // What the device has for no type of queue pair, it has not; else the type is the wrong one.
        guard attr.send_ops_flags & ~operations(attr.qp_type) == 0 else { return EINVAL }
    }
    guard attr.comp_mask & IBV_QP_INIT_ATTR_PD.rawValue != 0, let pd = attr.pd, pd.pointee.context == context,
        let send = attr.send_cq, send.pointee.context == context,
        let receive = attr.recv_cq, receive.pointee.context == context,
        attr.srq == nil || attr.srq.pointee.context == context
    else { return EINVAL }
    return 0
}

/// Whether a shared receive queue of the basic kind can be made of these parts. 0, EINVAL, or EOPNOTSUPP.
public func checkBasicSharedReceiveQueue(
    _ attr: ibv_srq_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>
) -> Int32 {
    let mask = attr.comp_mask
    guard mask & ~(IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue) == 0,
        mask & IBV_SRQ_INIT_ATTR_TYPE.rawValue == 0 || attr.srq_type == IBV_SRQT_BASIC
    else { return EOPNOTSUPP }
    guard mask & IBV_SRQ_INIT_ATTR_PD.rawValue != 0, let pd = attr.pd, pd.pointee.context == context else {
        return EINVAL
    }
    return 0
}

/// What `create_cq` is asked for, as `create_cq_ex` is. Nil where a number is negative.
public func completionQueueAttributes(
    entries: Int32, context: UnsafeMutableRawPointer?, channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> ibv_cq_init_attr_ex? {
    guard entries >= 0, vector >= 0 else { return nil }
    var attr = ibv_cq_init_attr_ex()
    attr.cqe = UInt32(entries)
    attr.cq_context = context
    attr.channel = channel
    attr.comp_vector = UInt32(vector)
    return attr
}

/// Whether a completion queue can be made of these parts: with one entry or more, and for all threads or, on demand, for
/// one at a time.
/// - Parameter fields: of ibv_create_cq_wc_flags, that polling can bring.
/// - Returns: 0, EINVAL, or EOPNOTSUPP; and whether one thread at a time will use the queue.
public func checkCompletionQueue(
    _ attr: ibv_cq_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>, fields: UInt64
) -> (refusal: Int32, isSingleThreaded: Bool) {
    let mask = attr.comp_mask
    let flags = mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0 ? attr.flags : 0
    let single = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
    // A queue that overruns takes no more entries, whatever the user says: IGNORE_OVERRUN is not served.
    guard mask & ~(IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue | IBV_CQ_INIT_ATTR_MASK_PD.rawValue) == 0,
        flags & ~single == 0, attr.wc_flags & ~fields == 0
    else { return (EOPNOTSUPP, false) }
    guard attr.cqe > 0, attr.cqe <= UInt32(Int32.max), attr.comp_vector < UInt32(context.pointee.num_comp_vectors),
        attr.channel == nil || attr.channel.pointee.context == context
    else { return (EINVAL, false) }
    guard mask & IBV_CQ_INIT_ATTR_MASK_PD.rawValue != 0 else { return (0, flags & single != 0) }
    guard let parent = attr.parent_domain else { return (EINVAL, false) }
    return (0, flags & single != 0 || parent.domain.pointee.isSingleThreaded)
}
