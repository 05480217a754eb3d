import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import ProviderKit

// Entries of the control table for objects whose only provider state is the kernel's handle.

/// Runs `body`. Returns 0, or the errno value that `body` throws.
@inline(__always)
public func errno(of body: () throws(KernelError) -> Void) -> Int32 {
    do throws(KernelError) {
        try body()
        return 0
    } catch {
        return error.rawValue
    }
}

// MARK: - Protection domains

/// `alloc_pd`.
func allocateNativeDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    do throws(KernelError) {
        return makeDomain(context: context, handle: try context.native.pointee.kernel.allocateDomain())
    } catch {
        return failure(error.rawValue)
    }
}

/// `dealloc_pd`.
func deallocateNativeDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let pd else { return EINVAL }
    return pd.domain.end { handle in
        errno { () throws(KernelError) in try pd.pointee.context.native.pointee.kernel.deallocateDomain(handle) }
    }
}

// MARK: - Memory regions and windows

/// `reg_mr` (`ibv_reg_mr_iova2`).
public func registerNativeMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd, length >= 0 else { return failure(EINVAL) }
    let context = pd.pointee.context!
    let optional = context.native.pointee.opened.takesOptionalAccess ? 0 : IB_UVERBS_ACCESS_OPTIONAL_RANGE.rawValue
    do throws(KernelError) {
        let made = try context.native.pointee.kernel.registerMemory(
            domain: pd.pointee.handle, address: address, length: length, virtualAddress: virtualAddress,
            access: access & ~optional)
        let region = allocatePublicStruct(ibv_mr.self)
        rdma_init_mr(region, pd, address, length, made.handle, made.lkey, made.rkey)
        pd.domain.retain()
        return region
    } catch {
        return failure(error.rawValue)
    }
}

/// `dereg_mr`.
func deregisterNativeMemory(mr: UnsafeMutablePointer<ibv_mr>?) -> Int32 {
    guard let mr else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        try mr.pointee.context.native.pointee.kernel.deregisterMemory(mr.pointee.handle)
    }
    if refusal != 0 { return refusal }
    mr.pointee.pd.domain.release()
    mr.deallocate()
    return 0
}

/// `alloc_mw` (`ibv_alloc_mw`).
public func allocateNativeWindow(
    pd: UnsafeMutablePointer<ibv_pd>?, type: ibv_mw_type
) -> UnsafeMutablePointer<ibv_mw>? {
    guard let pd else { return failure(EINVAL) }
    do throws(KernelError) {
        let made = try pd.pointee.context.native.pointee.kernel.allocateWindow(domain: pd.pointee.handle, type: type)
        let window = allocatePublicStruct(ibv_mw.self)
        rdma_init_mw(window, pd, type, made.handle, made.rkey)
        pd.domain.retain()
        return window
    } catch {
        return failure(error.rawValue)
    }
}

/// `dealloc_mw` (`ibv_dealloc_mw`).
public func deallocateNativeWindow(mw: UnsafeMutablePointer<ibv_mw>?) -> Int32 {
    guard let mw else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        try mw.pointee.context.native.pointee.kernel.deallocateWindow(mw.pointee.handle)
    }
    if refusal != 0 { return refusal }
    mw.pointee.pd.domain.release()
    mw.deallocate()
    return 0
}

// MARK: - Address handles and multicast

/// `create_ah` (`ibv_create_ah`).
public func createNativeAddressHandle(
    pd: UnsafeMutablePointer<ibv_pd>?, attr: UnsafeMutablePointer<ibv_ah_attr>?
) -> UnsafeMutablePointer<ibv_ah>? {
    guard let pd, let attr else { return failure(EINVAL) }
    do throws(KernelError) {
        let handle = try pd.pointee.context.native.pointee.kernel.createAddressHandle(
            domain: pd.pointee.handle, attr.pointee)
        let made = allocatePublicStruct(ibv_ah.self)
        rdma_init_ah(made, pd, handle)
        pd.domain.retain()
        return made
    } catch {
        return failure(error.rawValue)
    }
}

/// `destroy_ah` (`ibv_destroy_ah`). The provider may allocate state behind the `ibv_ah`.
public func destroyNativeAddressHandle(ah: UnsafeMutablePointer<ibv_ah>?) -> Int32 {
    guard let ah else { return EINVAL }
    let refusal = errno { () throws(KernelError) in
        try ah.pointee.context.native.pointee.kernel.destroyAddressHandle(ah.pointee.handle)
    }
    if refusal != 0 { return refusal }
    ah.pointee.pd.domain.release()
    UnsafeMutableRawPointer(ah).deallocate()
    return 0
}

/// `attach_mcast`.
func attachNativeMulticast(
    qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16
) -> Int32 {
    guard let qp, let gid else { return EINVAL }
    return errno { () throws(KernelError) in
        try qp.pointee.context.native.pointee.kernel.attachMulticast(
            queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
    }
}

/// `detach_mcast`.
func detachNativeMulticast(
    qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16
) -> Int32 {
    guard let qp, let gid else { return EINVAL }
    return errno { () throws(KernelError) in
        try qp.pointee.context.native.pointee.kernel.detachMulticast(
            queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
    }
}

// MARK: - Completion channels

/// `create_comp_channel`: creates a kernel descriptor, from which the core reads the events (rdma_provider.h, chapter
/// 5).
func createNativeChannel(
    context: UnsafeMutablePointer<ibv_context>?
) -> UnsafeMutablePointer<ibv_comp_channel>? {
    guard let context else { return failure(EINVAL) }
    do throws(KernelError) {
        let descriptor = try context.native.pointee.kernel.createChannel()
        let channel = allocatePublicStruct(ibv_comp_channel.self)
        rdma_init_comp_channel(channel, context, descriptor)
        return channel
    } catch {
        return failure(error.rawValue)
    }
}

/// `destroy_comp_channel`.
func destroyNativeChannel(channel: UnsafeMutablePointer<ibv_comp_channel>?) -> Int32 {
    guard let channel else { return EINVAL }
    if rdma_comp_channel_busy(channel) != 0 { return EBUSY }
    linux_close(channel.pointee.fd)
    channel.deallocate()
    return 0
}

// MARK: - Queue pairs and shared receive queues

/// `query_qp`. Updates `ibv_qp.state`, which posting checks, because the kernel moves a queue pair to the error state
/// on its own.
public func queryNativeQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32,
    initial: UnsafeMutablePointer<ibv_qp_init_attr>?
) -> Int32 {
    guard let qp, let attr, let initial else { return EINVAL }
    do throws(KernelError) {
        let response = try qp.pointee.context.native.pointee.kernel.queryQueuePair(
            qp.pointee.handle, mask: UInt32(bitPattern: mask))
        attr.pointee = response.attributes
        initial.pointee = ibv_qp_init_attr(
            qp_context: qp.pointee.qp_context, send_cq: qp.pointee.send_cq, recv_cq: qp.pointee.recv_cq,
            srq: qp.pointee.srq, cap: response.attributes.cap, qp_type: qp.pointee.qp_type,
            sq_sig_all: response.signalsAll ? 1 : 0)
        if mask & Int32(IBV_QP_STATE.rawValue) != 0 { qp.pointee.state = response.attributes.qp_state }
        return 0
    } catch {
        return error.rawValue
    }
}

/// `modify_qp` (`ibv_modify_qp`) for a provider without state of its own to change. The kernel checks the transition.
public func modifyNativeQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32
) -> Int32 {
    guard let qp, let attr else { return EINVAL }
    let mask = UInt32(bitPattern: mask)
    let refusal = errno { () throws(KernelError) in
        try qp.pointee.context.native.pointee.kernel.modifyQueuePair(qp.pointee.handle, attr.pointee, mask: mask)
    }
    if refusal == 0, mask & IBV_QP_STATE.rawValue != 0 { qp.pointee.state = attr.pointee.qp_state }
    return refusal
}

/// `query_srq`.
func queryNativeSharedReceiveQueue(
    srq: UnsafeMutablePointer<ibv_srq>?, attr: UnsafeMutablePointer<ibv_srq_attr>?
) -> Int32 {
    guard let srq, let attr else { return EINVAL }
    return errno { () throws(KernelError) in
        attr.pointee = try srq.pointee.context.native.pointee.kernel.querySharedReceiveQueue(srq.pointee.handle)
    }
}

/// `req_notify_cq` (`ibv_req_notify_cq`) for a device without a CQ doorbell.
public func requestNativeNotification(cq: UnsafeMutablePointer<ibv_cq>?, solicitedOnly: Int32) -> Int32 {
    guard let cq else { return EINVAL }
    return cq.pointee.context.native.pointee.kernel.requestNotification(
        cq.pointee.handle, solicitedOnly: solicitedOnly != 0)
}

// MARK: - The table

/// Creates a control table (`rdma_context_ops`) with the entries that are common to all native providers. `fill` sets
/// the others. The table is never freed.
public func makeNativeControlTable(
    _ fill: (inout rdma_context_ops) -> Void
) -> UnsafeMutablePointer<rdma_context_ops> {
    let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
    table.initialize(to: rdma_context_ops())
    table.pointee.size = UInt32(MemoryLayout<rdma_context_ops>.size)
    table.pointee.async_event = hearNativeEvent
    table.pointee.query_port = queryNativePort
    table.pointee.query_gid_ex = queryNativeGID
    table.pointee.query_gid_table = queryNativeGIDTable
    table.pointee.query_pkey = queryNativePartitionKey

    table.pointee.alloc_pd = allocateNativeDomain
    table.pointee.dealloc_pd = deallocateNativeDomain
    table.pointee.alloc_parent_domain = allocateParentDomain
    table.pointee.alloc_td = allocateThreadDomain
    table.pointee.dealloc_td = deallocateThreadDomain

    table.pointee.reg_mr = registerNativeMemory
    table.pointee.dereg_mr = deregisterNativeMemory

    table.pointee.create_comp_channel = createNativeChannel
    table.pointee.destroy_comp_channel = destroyNativeChannel

    table.pointee.query_srq = queryNativeSharedReceiveQueue
    table.pointee.query_qp = queryNativeQueuePair
    table.pointee.qp_to_qp_ex = extendNativeQueuePair

    table.pointee.destroy_ah = destroyNativeAddressHandle
    table.pointee.attach_mcast = attachNativeMulticast
    table.pointee.detach_mcast = detachNativeMulticast
    fill(&table.pointee)
    return table
}
