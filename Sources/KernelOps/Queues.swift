import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Completion channels, and the objects that have events: completion queues, shared receive queues, queue pairs. The
// kernel gets the address of the public struct as `user_handle`.

/// `create_comp_channel`.
func createChannel(
    kernel: OpaquePointer?, channel: UnsafeMutablePointer<ibv_comp_channel>?,
    context: UnsafeMutablePointer<ibv_context>?
) -> Int32 {
    guard let node = node(kernel), let channel, let context else { return EINVAL }
    return errno { () throws(KernelError) in
        rdma_init_comp_channel(channel, context, try node.pointee.kernel.createChannel())
    }
}

/// `destroy_comp_channel`.
func destroyChannel(kernel: OpaquePointer?, channel: UnsafeMutablePointer<ibv_comp_channel>?) -> Int32 {
    guard kernel != nil, let channel else { return EINVAL }
    if rdma_comp_channel_busy(channel) != 0 { return EBUSY }
    linux_close(channel.pointee.fd)
    return 0
}

// MARK: - Completion queues

/// `create_cq`.
func createCompletionQueue(
    kernel: OpaquePointer?, cq: UnsafeMutablePointer<ibv_cq>?, context: UnsafeMutablePointer<ibv_context>?,
    attr: UnsafePointer<ibv_cq_init_attr_ex>?, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let cq, let context, let attr, let entries = Int32(exactly: attr.pointee.cqe)
    else { return EINVAL }
    rdma_init_cq(cq, context, attr.pointee.channel, attr.pointee.cq_context, entries)
    let error = errno { () throws(KernelError) in
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(cq), entries: attr.pointee.cqe, asyncDescriptor: try node.asyncDescriptor())
        request.channel = attr.pointee.channel?.pointee.fd
        request.vector = attr.pointee.comp_vector
        request.flags = attr.pointee.kernelFlags
        let made = try node.pointee.kernel.createCompletionQueue(request, driver: try driverData(udata))
        cq.pointee.handle = made.handle
        cq.pointee.cqe = Int32(bitPattern: made.entries)
    }
    if error != 0 { rdma_fini_cq(cq) }
    return error
}

extension ibv_cq_init_attr_ex {
    /// `enum ib_uverbs_ex_create_cq_flags`.
    fileprivate var kernelFlags: UInt32 {
        var result: UInt32 = 0
        if comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue != 0,
            flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue != 0
        {
            result |= IB_UVERBS_CQ_FLAGS_IGNORE_OVERRUN.rawValue
        }
        let timestamps =
            IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue
        if wc_flags & UInt64(timestamps) != 0 { result |= IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION.rawValue }
        return result
    }
}

/// `resize_cq`.
func resizeCompletionQueue(
    kernel: OpaquePointer?, cq: UnsafeMutablePointer<ibv_cq>?, entries: Int32, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let cq, entries > 0 else { return EINVAL }
    return errno { () throws(KernelError) in
        let actual = try node.pointee.kernel.resizeCompletionQueue(
            cq.pointee.handle, entries: UInt32(entries), driver: try driverData(udata))
        cq.pointee.cqe = Int32(bitPattern: actual)
    }
}

/// `req_notify_cq`.
func requestNotification(kernel: OpaquePointer?, cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    guard let node = node(kernel), let cq else { return EINVAL }
    return node.pointee.kernel.requestNotification(cq.pointee.handle, solicitedOnly: solicitedOnly != 0)
}

/// `destroy_cq`.
func destroyCompletionQueue(kernel: OpaquePointer?, cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    guard let node = node(kernel), let cq else { return EINVAL }
    let error = errno { () throws(KernelError) in
        let events = try node.pointee.kernel.destroyCompletionQueue(cq.pointee.handle)
        if let events { rdma_wait_cq_events(cq, events.completions, events.asynchronous) }
    }
    if error == 0 { rdma_fini_cq(cq) }
    return error
}

// MARK: - Shared receive queues

/// `create_srq_ex`.
func createSharedReceiveQueue(
    kernel: OpaquePointer?, srq: UnsafeMutablePointer<ibv_srq>?, context: UnsafeMutablePointer<ibv_context>?,
    attr: UnsafeMutablePointer<ibv_srq_init_attr_ex>?, number: UnsafeMutablePointer<UInt32>?,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let srq, let context, let attr else { return EINVAL }
    let mask = attr.pointee.comp_mask
    if mask & IBV_SRQ_INIT_ATTR_TYPE.rawValue != 0, attr.pointee.srq_type != IBV_SRQT_BASIC { return EOPNOTSUPP }
    guard mask & IBV_SRQ_INIT_ATTR_PD.rawValue != 0, let pd = attr.pointee.pd else { return EINVAL }
    rdma_init_srq(srq, context, attr)
    let error = errno { () throws(KernelError) in
        let made = try node.pointee.kernel.createSharedReceiveQueue(
            domain: pd.pointee.handle, userHandle: UnsafeRawPointer(srq), limits: attr.pointee.attr,
            asyncDescriptor: try node.asyncDescriptor(), driver: try driverData(udata))
        srq.pointee.handle = made.handle
        attr.pointee.attr.max_wr = made.maxWR
        attr.pointee.attr.max_sge = made.maxSGE
        number?.pointee = made.number
    }
    if error != 0 { rdma_fini_srq(srq) }
    return error
}

/// `modify_srq`.
func modifySharedReceiveQueue(
    kernel: OpaquePointer?, srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafePointer<ibv_srq_attr>?, mask: Int32,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let srq, let attr else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.modifySharedReceiveQueue(
            srq.pointee.handle, attr.pointee, mask: UInt32(bitPattern: mask), driver: try driverData(udata))
    }
}

/// `query_srq`.
func querySharedReceiveQueue(
    kernel: OpaquePointer?, srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?
) -> Int32 {
    guard let node = node(kernel), let srq, let attr else { return EINVAL }
    return errno { () throws(KernelError) in
        attr.pointee = try node.pointee.kernel.querySharedReceiveQueue(srq.pointee.handle)
    }
}

/// `destroy_srq`.
func destroySharedReceiveQueue(kernel: OpaquePointer?, srq: UnsafeMutablePointer<ibv_srq>?) -> Int32 {
    guard let node = node(kernel), let srq else { return EINVAL }
    let error = errno { () throws(KernelError) in
        let events = try node.pointee.kernel.destroySharedReceiveQueue(srq.pointee.handle)
        if let events { rdma_wait_srq_events(srq, events) }
    }
    if error == 0 { rdma_fini_srq(srq) }
    return error
}

// MARK: - Queue pairs

/// `create_qp_ex`.
func createQueuePair(
    kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp_ex>?, context: UnsafeMutablePointer<ibv_context>?,
    attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let qp, let context, let attr else { return EINVAL }
    let mask = attr.pointee.comp_mask
    let unsupported = IBV_QP_INIT_ATTR_XRCD.rawValue | IBV_QP_INIT_ATTR_IND_TABLE.rawValue
    if mask & unsupported != 0 { return EOPNOTSUPP }
    guard mask & IBV_QP_INIT_ATTR_PD.rawValue != 0, let pd = attr.pointee.pd, let sends = attr.pointee.send_cq,
        let receives = attr.pointee.recv_cq
    else { return EINVAL }
    rdma_init_qp(qp, context, attr)
    let error = errno { () throws(KernelError) in
        var request = QueuePairRequest(
            userHandle: UnsafeRawPointer(qp), type: attr.pointee.qp_type, domain: pd.pointee.handle,
            sendCompletions: sends.pointee.handle, receiveCompletions: receives.pointee.handle,
            limits: attr.pointee.cap, signalsAll: attr.pointee.sq_sig_all != 0,
            asyncDescriptor: try node.asyncDescriptor())
        request.sharedReceiveQueue = attr.pointee.srq?.pointee.handle
        if mask & IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue != 0 { request.flags = attr.pointee.create_flags }
        let made = try node.pointee.kernel.createQueuePair(request, driver: try driverData(udata))
        qp.pointee.qp_base.handle = made.handle
        qp.pointee.qp_base.qp_num = made.number
        attr.pointee.cap = made.limits
    }
    if error != 0 { withQueuePair(of: qp, rdma_fini_qp) }
    return error
}

/// Passes the `ibv_qp` at the beginning of an `ibv_qp_ex`.
private func withQueuePair(of qp: UnsafeMutablePointer<ibv_qp_ex>, _ body: (UnsafeMutablePointer<ibv_qp>) -> Void) {
    body(UnsafeMutableRawPointer(qp).assumingMemoryBound(to: ibv_qp.self))
}

/// `modify_qp`.
func modifyQueuePair(
    kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafePointer<ibv_qp_attr>?, mask: Int32,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let qp, let attr else { return EINVAL }
    let mask = UInt32(bitPattern: mask)
    return errno { () throws(KernelError) in
        try node.pointee.kernel.modifyQueuePair(
            qp.pointee.handle, attr.pointee, mask: mask, driver: try driverData(udata))
        if mask & IBV_QP_STATE.rawValue != 0 { qp.pointee.state = attr.pointee.qp_state }
    }
}

/// `query_qp`.
func queryQueuePair(
    kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32,
    initial: UnsafeMutablePointer<ibv_qp_init_attr>?
) -> Int32 {
    guard let node = node(kernel), let qp, let attr, let initial else { return EINVAL }
    let mask = UInt32(bitPattern: mask)
    return errno { () throws(KernelError) in
        let response = try node.pointee.kernel.queryQueuePair(qp.pointee.handle, mask: mask)
        attr.store(response.attributes, mask: mask)
        initial.pointee = ibv_qp_init_attr(
            qp_context: qp.pointee.qp_context, send_cq: qp.pointee.send_cq, recv_cq: qp.pointee.recv_cq,
            srq: qp.pointee.srq, cap: response.attributes.cap, qp_type: qp.pointee.qp_type,
            sq_sig_all: response.signalsAll ? 1 : 0)
        if mask & IBV_QP_STATE.rawValue != 0 { qp.pointee.state = response.attributes.qp_state }
    }
}

/// `destroy_qp`.
func destroyQueuePair(kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    guard let node = node(kernel), let qp else { return EINVAL }
    let error = errno { () throws(KernelError) in
        let events = try node.pointee.kernel.destroyQueuePair(qp.pointee.handle)
        if let events { rdma_wait_qp_events(qp, events) }
    }
    if error == 0 { rdma_fini_qp(qp) }
    return error
}

extension UnsafeMutablePointer<ibv_qp_attr> {
    /// Copies the attributes; `rate_limit`, which older versions of verbs.h do not have, only if the mask asks for it.
    fileprivate func store(_ attributes: ibv_qp_attr, mask: UInt32) {
        guard mask & IBV_QP_RATE_LIMIT.rawValue == 0 else { return pointee = attributes }
        withUnsafeBytes(of: attributes) { bytes in
            UnsafeMutableRawPointer(self).copyMemory(
                from: bytes.baseAddress!, byteCount: MemoryLayout<ibv_qp_attr>.offset(of: \.rate_limit)!)
        }
    }
}
