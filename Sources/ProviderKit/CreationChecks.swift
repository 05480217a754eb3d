import CIBVerbs
import CLinux

// The argument checks that every provider makes before it creates an object.

private let strangers: StaticString = "the given objects belong to different open devices (ibv_context)"

/// Checks the attributes of a new queue pair (`ibv_qp_init_attr_ex`): type RC, UC or UD, a protection domain, and two
/// completion queues.
/// - Parameters:
///   - operations: The supported `send_ops_flags` (`enum ibv_qp_create_send_ops_flags`) of a queue pair type. The flags
///     of RC include those of all other types.
///   - supportsXRC: Whether the types XRC_SEND, which needs no completion queue for receives, and XRC_RECV, which needs
///     an XRC domain alone, are supported too.
/// - Returns: 0, EINVAL, or EOPNOTSUPP.
public func checkQueuePair(
    _ attr: ibv_qp_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>, operations: (ibv_qp_type) -> UInt64,
    supportsXRC: Bool = false
) -> Int32 {
    var known =
        IBV_QP_INIT_ATTR_PD.rawValue | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
        | IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue
    if supportsXRC { known |= IBV_QP_INIT_ATTR_XRCD.rawValue }
    guard attr.comp_mask & ~known == 0 else {
        return supportsXRC
            ? refusal(EOPNOTSUPP, "comp_mask: the provider supports no TSO, RSS and other extensions")
            : refusal(EOPNOTSUPP, "comp_mask: the provider supports no XRC, TSO, RSS and other extensions")
    }
    if attr.comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue != 0 && attr.create_flags != 0 {
        return refusal(EOPNOTSUPP, "create_flags: the provider supports no creation flags of queue pairs")
    }
    switch attr.qp_type {
    case IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD: break
    case IBV_QPT_XRC_SEND where supportsXRC, IBV_QPT_XRC_RECV where supportsXRC: break
    default: return refusal(EOPNOTSUPP, "qp_type: the provider supports queue pairs of types RC, UC and UD only")
    }
    if attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0 {
        // A provider without extended queue pairs refuses an empty set of operations too.
        let all = operations(IBV_QPT_RC)
        guard all != 0, attr.send_ops_flags & ~all == 0 else {
            return refusal(EOPNOTSUPP, "send_ops_flags: the provider does not support all of these operations")
        }
        // EOPNOTSUPP if no queue pair type supports an operation; EINVAL if only another type does.
        guard attr.send_ops_flags & ~operations(attr.qp_type) == 0 else {
            return refusal(EINVAL, "send_ops_flags: a queue pair of this type does not support all of these operations")
        }
    }
    if attr.qp_type == IBV_QPT_XRC_RECV {
        guard attr.comp_mask & IBV_QP_INIT_ATTR_XRCD.rawValue != 0, let domain = attr.xrcd else {
            return refusal(EINVAL, "xrcd: a queue pair of type XRC_RECV needs an XRC domain")
        }
        return domain.pointee.context == context ? 0 : refusal(EINVAL, strangers)
    }
    let needsReceives = attr.qp_type != IBV_QPT_XRC_SEND
    guard attr.comp_mask & IBV_QP_INIT_ATTR_PD.rawValue != 0, let pd = attr.pd, let send = attr.send_cq,
        attr.recv_cq != nil || !needsReceives
    else { return refusal(EINVAL, "a queue pair needs a protection domain and two completion queues") }
    guard pd.pointee.context == context, send.pointee.context == context,
        attr.recv_cq == nil || attr.recv_cq.pointee.context == context,
        attr.srq == nil || attr.srq.pointee.context == context
    else { return refusal(EINVAL, strangers) }
    return 0
}

/// Checks the attributes of a new shared receive queue of type IBV_SRQT_BASIC (`ibv_srq_init_attr_ex`). Returns 0,
/// EINVAL, or EOPNOTSUPP.
public func checkBasicSharedReceiveQueue(
    _ attr: ibv_srq_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>
) -> Int32 {
    let mask = attr.comp_mask
    guard mask & ~(IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue) == 0,
        mask & IBV_SRQ_INIT_ATTR_TYPE.rawValue == 0 || attr.srq_type == IBV_SRQT_BASIC
    else { return refusal(EOPNOTSUPP, "the provider supports shared receive queues of type IBV_SRQT_BASIC only") }
    guard mask & IBV_SRQ_INIT_ATTR_PD.rawValue != 0, let pd = attr.pd else {
        return refusal(EINVAL, "a shared receive queue needs a protection domain")
    }
    return pd.pointee.context == context ? 0 : refusal(EINVAL, strangers)
}

/// Converts the arguments of `create_cq` to those of `create_cq_ex` (`ibv_cq_init_attr_ex`). Returns nil and sets errno
/// to EINVAL if `entries` (`cqe`) or `vector` (`comp_vector`) is negative.
public func completionQueueAttributes(
    entries: Int32, context: UnsafeMutableRawPointer?, channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> ibv_cq_init_attr_ex? {
    guard entries >= 0, vector >= 0 else {
        _ = refusal(EINVAL, "the number of entries (cqe) or the completion vector (comp_vector) is negative")
        return nil
    }
    var attr = ibv_cq_init_attr_ex()
    attr.cqe = UInt32(entries)
    attr.cq_context = context
    attr.channel = channel
    attr.comp_vector = UInt32(vector)
    return attr
}

/// Checks the attributes of a new completion queue (`ibv_cq_init_attr_ex`).
/// - Parameters:
///   - fields: The supported `wc_flags` (`enum ibv_create_cq_wc_flags`).
///   - ignoresOverrun: Whether the provider supports `IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN`.
/// - Returns: 0, EINVAL, or EOPNOTSUPP; and whether one thread at a time will use the queue
///   (IBV_CREATE_CQ_ATTR_SINGLE_THREADED, or a parent domain with a thread domain).
public func checkCompletionQueue(
    _ attr: ibv_cq_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>, fields: UInt64,
    ignoresOverrun: Bool = false
) -> (refusal: Int32, isSingleThreaded: Bool) {
    let mask = attr.comp_mask
    let flags = mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0 ? attr.flags : 0
    let single = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
    let known = ignoresOverrun ? single | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue : single
    guard mask & ~(IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue | IBV_CQ_INIT_ATTR_MASK_PD.rawValue) == 0,
        flags & ~known == 0, attr.wc_flags & ~fields == 0
    else {
        return (refusal(EOPNOTSUPP, "the provider does not support all of these flags or wc_flags"), false)
    }
    guard attr.cqe > 0, attr.cqe <= UInt32(Int32.max) else {
        return (refusal(EINVAL, "cqe: a completion queue has 1 to 2147483647 entries"), false)
    }
    guard attr.comp_vector < UInt32(context.pointee.num_comp_vectors) else {
        var text = MessageText("the device has ")
        text.append(Int(context.pointee.num_comp_vectors))
        text.append(" completion vectors, counted from 0: there is no vector ")
        text.append(Int(attr.comp_vector))
        return (text.refusal(EINVAL), false)
    }
    guard attr.channel == nil || attr.channel.pointee.context == context else {
        return (refusal(EINVAL, strangers), false)
    }
    guard mask & IBV_CQ_INIT_ATTR_MASK_PD.rawValue != 0 else { return (0, flags & single != 0) }
    guard let parent = attr.parent_domain else {
        return (refusal(EINVAL, "IBV_CQ_INIT_ATTR_MASK_PD is set without a parent domain"), false)
    }
    return (0, flags & single != 0 || parent.domain.pointee.isSingleThreaded)
}
