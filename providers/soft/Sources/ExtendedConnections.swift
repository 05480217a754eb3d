import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// XRC: domains, the numbers of shared receive queues, and handles of queue pairs that exist already.

/// An XRC domain (`ibv_xrcd`).
struct SoftXRCDomain: ~Copyable {
    var base = ibv_xrcd()
    private let room = ObjectRoom()
    let domain: XRCDomain

    init(_ domain: XRCDomain) { self.domain = domain }
}

typealias XRCDomainPointer = UnsafeMutablePointer<SoftXRCDomain>

extension UnsafeMutablePointer<ibv_xrcd> {
    var soft: XRCDomainPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftXRCDomain.self) }
}

/// `ibv_open_xrcd`. A domain with a file is one that processes share, and the queue pairs and shared receive queues of
/// soft belong to one open device.
func openXRCDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_xrcd_init_attr>?
) -> UnsafeMutablePointer<ibv_xrcd>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == IBV_XRCD_INIT_ATTR_FD.rawValue | IBV_XRCD_INIT_ATTR_OFLAGS.rawValue else {
        return failure(refusal(EINVAL, "comp_mask: fd and oflags must be set, and nothing else can be"))
    }
    guard attr.pointee.fd == -1 else {
        return failure(
            refusal(EOPNOTSUPP, "fd: soft has no XRC domains that processes share; -1 makes one of this open device"))
    }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let domain = XRCDomainPointer.allocate(capacity: 1)
        domain.initialize(to: SoftXRCDomain(try soft.pointee.engine.openXRCDomain()))
        let verbs = UnsafeMutableRawPointer(domain).assumingMemoryBound(to: ibv_xrcd.self)
        rdma_init_xrcd(verbs, context)
        return verbs
    } catch {
        return failure(error.rawValue)
    }
}

func closeXRCDomain(xrcd: UnsafeMutablePointer<ibv_xrcd>?) -> Int32 {
    guard let xrcd else { return EINVAL }
    let domain = xrcd.soft
    let context = xrcd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    do {
        try context.pointee.engine.close(domain.pointee.domain)
    } catch {
        return refusal(error.rawValue, "shared receive queues or queue pairs still belong to it: destroy them first")
    }
    domain.deinitialize(count: 1)
    domain.deallocate()
    return 0
}

/// `ibv_get_srq_num`.
func getSharedReceiveQueueNumber(srq: UnsafeMutablePointer<ibv_srq>?, number: UnsafeMutablePointer<UInt32>?) -> Int32 {
    guard let queue = srq?.soft, let number else { return EINVAL }
    guard let found = queue.pointee.queue.number else {
        return refusal(EOPNOTSUPP, "only shared receive queues of type IBV_SRQT_XRC have a number")
    }
    number.pointee = found
    return 0
}

/// Checks the attributes of a new shared receive queue of type IBV_SRQT_XRC. Returns 0, EINVAL or EOPNOTSUPP.
func checkExtendedSharedReceiveQueue(
    _ attr: ibv_srq_init_attr_ex, _ context: UnsafeMutablePointer<ibv_context>
) -> Int32 {
    let needed =
        IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue | IBV_SRQ_INIT_ATTR_XRCD.rawValue
        | IBV_SRQ_INIT_ATTR_CQ.rawValue
    guard attr.comp_mask & ~needed == 0 else {
        return refusal(EOPNOTSUPP, "comp_mask has bits other than those of type, pd, xrcd and cq")
    }
    guard attr.comp_mask == needed, let pd = attr.pd, let xrcd = attr.xrcd, let cq = attr.cq else {
        return refusal(
            EINVAL, "a shared receive queue for XRC needs a protection domain, an XRC domain and a completion queue")
    }
    guard pd.pointee.context == context, xrcd.pointee.context == context, cq.pointee.context == context else {
        return refusal(EINVAL, "the given objects belong to different open devices (ibv_context)")
    }
    return 0
}

// MARK: - Handles of queue pairs

/// `ibv_open_qp`: one more handle of an XRC_RECV queue pair of this open device.
func openQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_open_attr>?
) -> UnsafeMutablePointer<ibv_qp>? {
    guard let context, let attr else { return failure(EINVAL) }
    let mask = attr.pointee.comp_mask
    let needed = IBV_QP_OPEN_ATTR_NUM.rawValue | IBV_QP_OPEN_ATTR_XRCD.rawValue | IBV_QP_OPEN_ATTR_TYPE.rawValue
    guard mask & ~(needed | IBV_QP_OPEN_ATTR_CONTEXT.rawValue) == 0 else {
        return failure(refusal(EOPNOTSUPP, "comp_mask has bits that enum ibv_qp_open_attr_mask lacks"))
    }
    guard mask & needed == needed, let xrcd = attr.pointee.xrcd, xrcd.pointee.context == context,
        attr.pointee.qp_type == IBV_QPT_XRC_RECV
    else {
        return failure(
            refusal(EINVAL, "an XRC domain of this open device, a number and the type IBV_QPT_XRC_RECV are needed"))
    }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    guard let found = soft.pointee.engine.queuePair(attr.pointee.qp_num, of: xrcd.soft.pointee.domain),
        let first = found.soft
    else {
        return failure(refusal(EINVAL, "qp_num: the XRC domain has no queue pair of type XRC_RECV with this number"))
    }
    var initial = ibv_qp_init_attr_ex()
    initial.qp_type = IBV_QPT_XRC_RECV
    if mask & IBV_QP_OPEN_ATTR_CONTEXT.rawValue != 0 { initial.qp_context = attr.pointee.qp_context }
    let pair = QueuePairPointer.allocate(capacity: 1)
    pair.initialize(
        to: SoftQueuePair(pair: found, isExtended: false, signalsAll: false, isSingleThreaded: false))
    pair.begin(context, &initial)
    pair.pointee.next.pointee = first.pointee.next.pointee
    first.pointee.next.pointee = pair
    return pair.verbs
}

extension QueuePairPointer {
    /// Initialises the public struct.
    func begin(_ context: UnsafeMutablePointer<ibv_context>, _ attr: UnsafePointer<ibv_qp_init_attr_ex>) {
        let base = UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp_ex.self)
        rdma_init_qp(base, context, attr)
        base.pointee.qp_base.qp_num = pointee.pair.number
        base.pointee.qp_base.handle = pointee.pair.number
        base.pointee.qp_base.state = pointee.pair.state.verbs
        // ibv_create_qp_ex(3): these attributes are ignored.
        if pointee.pair.type == .xrcSend || pointee.pair.type == .xrcReceive { base.pointee.qp_base.srq = nil }
        guard pointee.pair.type == .xrcReceive else { return }
        base.pointee.qp_base.pd = nil
        base.pointee.qp_base.send_cq = nil
        base.pointee.qp_base.recv_cq = nil
    }

    /// Removes one of several handles of a queue pair, which stays. Returns false for the only handle. Under the lock.
    func leave() -> Bool {
        guard var before = pointee.pair.soft else { return false }
        let following = pointee.next.pointee
        if before == self {
            guard let following else { return false }
            context.pointee.engine.setUserData(of: pointee.pair, to: UnsafeMutableRawPointer(following))
            return true
        }
        while let next = before.pointee.next.pointee, next != self { before = next }
        before.pointee.next.pointee = following
        return true
    }
}
