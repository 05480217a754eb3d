import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

/// An XRC domain (`struct ibv_xrcd`, ibv_open_xrcd(3); IBTA volume 1, annex A14): its receiving queue pairs consume
/// receives of the shared receive queue of the domain that the sender specifies (`remote_srqn`).
public final class XRCDomain: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    let raw: UnsafeMutablePointer<ibv_xrcd>

    init(_ raw: UnsafeMutablePointer<ibv_xrcd>, context: Context) {
        self.raw = raw
        self.context = context
    }

    deinit {
        guard let close = context.table.close_xrcd else { return }
        context.destroy(.closeXRCD, object, keeping: [], close(raw))
    }

    var object: VerbsObject { context.object("XRC domain") }
}

extension Context {
    /// Opens an XRC domain: ibv_open_xrcd(3).
    ///
    /// - Parameters:
    ///   - file: A file (`ibv_xrcd_init_attr.fd`). Processes that open a domain with the same inode share it. Nil
    ///     makes a domain of this context only.
    ///   - create: Whether a domain that does not exist is made (`O_CREAT`).
    ///   - exclusive: Whether an existing domain is refused with `EEXIST` (`O_EXCL`).
    /// - Throws: `EOPNOTSUPP` when the device has no XRC, and from soft for a file.
    public func openXRCDomain(
        file: FileDescriptor? = nil, create: Bool = true, exclusive: Bool = false
    ) throws(VerbsError) -> XRCDomain {
        let open = try entry(table.open_xrcd, destroyedBy: table.close_xrcd, .openXRCD, object("context"))
        var attributes = ibv_xrcd_init_attr()
        attributes.comp_mask = IBV_XRCD_INIT_ATTR_FD.rawValue | IBV_XRCD_INIT_ATTR_OFLAGS.rawValue
        attributes.fd = file?.rawValue ?? -1
        attributes.oflags = (create ? O_CREAT : 0) | (exclusive ? O_EXCL : 0)
        let raw = try made(.openXRCD, object("context")) { open(unsafeRaw, &attributes) }
        return XRCDomain(raw, context: self)
    }
}

extension ProtectionDomain {
    /// Makes a shared receive queue for extended reliable connections: ibv_create_srq_ex(3) with `IBV_SRQT_XRC`.
    /// Senders specify it by its `number`.
    ///
    /// - Parameters:
    ///   - attributes: The smallest limits of the queue.
    ///   - xrcDomain: The XRC domain of the queue pairs that use the queue.
    ///   - completions: The completion queue of the receives.
    public func makeSharedReceiveQueue(
        _ attributes: SharedReceiveQueue.Attributes = .init(), xrcDomain: XRCDomain,
        completions: borrowing CompletionQueue
    ) throws(VerbsError) -> SharedReceiveQueue {
        var initial = ibv_srq_init_attr_ex()
        initial.comp_mask =
            IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue | IBV_SRQ_INIT_ATTR_XRCD.rawValue
            | IBV_SRQ_INIT_ATTR_CQ.rawValue
        initial.srq_type = IBV_SRQT_XRC
        initial.pd = unsafeRaw
        initial.xrcd = xrcDomain.raw
        initial.cq = completions.raw
        initial.attr = attributes.raw
        return try context.makeSharedReceiveQueue(&initial, needs: [self, xrcDomain, completions.owner], object)
    }
}

extension XRCDomain {
    /// Makes the receiving side of an extended reliable connection: ibv_create_qp_ex(3), IBV_QPT_XRC_RECV. The
    /// sending side is made by `ProtectionDomain.makeQueuePair(.xrcSend, …)`, and both are connected by `connect`.
    public func makeReceiveQueuePair() throws(VerbsError) -> QueuePair {
        var attributes = ibv_qp_init_attr_ex()
        attributes.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
        attributes.xrcd = raw
        attributes.qp_type = IBV_QPT_XRC_RECV
        return try context.makeQueuePair(&attributes, needs: [self], object)
    }

    /// Opens a receiving queue pair of the domain that exists already, made by this or another process: ibv_open_qp(3).
    /// It exists until every object that was made or opened for it is destroyed. Each of them has its asynchronous
    /// events.
    ///
    /// - Throws: `EINVAL` when the domain has no queue pair with that number.
    public func openReceiveQueuePair(number: UInt32) throws(VerbsError) -> QueuePair {
        let open = try context.entry(
            context.table.open_qp, destroyedBy: context.table.destroy_qp, .openQP, object)
        var attributes = ibv_qp_open_attr()
        attributes.comp_mask =
            IBV_QP_OPEN_ATTR_NUM.rawValue | IBV_QP_OPEN_ATTR_XRCD.rawValue | IBV_QP_OPEN_ATTR_TYPE.rawValue
        attributes.qp_num = number
        attributes.xrcd = raw
        attributes.qp_type = IBV_QPT_XRC_RECV
        let opened = try context.made(.openQP, object) { open(context.unsafeRaw, &attributes) }
        // It has no queues of its own.
        let capabilities = QueuePair.Capabilities(ibv_qp_cap())
        return QueuePair(
            QueuePair.Owner(opened, context: context, needs: [self], capabilities: capabilities))
    }
}
