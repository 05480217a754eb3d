import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// XRC: domains, the numbers of shared receive queues, and handles of queue pairs that exist already.

/// A handle of an XRC domain (`ibv_xrcd`). All that were opened with one file are of one domain.
struct SoftXRCDomain: ~Copyable {
    var base = ibv_xrcd()
    private let room = ObjectRoom()
    let domain: XRCDomain
    let file: XRCDomainFile?
    /// The handle that was opened before this one; under the device's lock.
    var next: XRCDomainPointer?

    init(_ domain: XRCDomain, _ file: XRCDomainFile?) {
        self.domain = domain
        self.file = file
    }
}

typealias XRCDomainPointer = UnsafeMutablePointer<SoftXRCDomain>

extension UnsafeMutablePointer<ibv_xrcd> {
    var soft: XRCDomainPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftXRCDomain.self) }
}

/// The file that an XRC domain was opened with.
struct XRCDomainFile {
    /// A duplicate of the descriptor: while it is open, no other file has the inode number.
    let descriptor: Int32
    private let device: UInt64
    private let number: UInt64

    /// Duplicates a descriptor. Returns nil, and the errno value in `error`, when that fails.
    init?(_ descriptor: Int32, error: inout Int32) {
        var (device, number) = (UInt64(0), UInt64(0))
        let held = linux_hold_file(descriptor, &device, &number)
        guard held >= 0 else {
            error = -held
            return nil
        }
        self.descriptor = held
        self.device = device
        self.number = number
    }

    func isSame(as other: XRCDomainFile) -> Bool { device == other.device && number == other.number }
}

/// `ibv_open_xrcd`. A domain with a file is shared by all who open it with that file through one open device, not by other
/// processes: a connection belongs to the process that made it, and so do the shared receive queues that it names.
func openXRCDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_xrcd_init_attr>?
) -> UnsafeMutablePointer<ibv_xrcd>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == IBV_XRCD_INIT_ATTR_FD.rawValue | IBV_XRCD_INIT_ATTR_OFLAGS.rawValue else {
        return failure(refusal(EINVAL, "comp_mask: fd and oflags must be set, and nothing else can be"))
    }
    var file: XRCDomainFile?
    if attr.pointee.fd != -1 {
        var error: Int32 = 0
        file = XRCDomainFile(attr.pointee.fd, error: &error)
        if file == nil { return failure(refusal(error, "fd: it is no open descriptor, or no other can be opened")) }
    }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    var error: Int32 = 0
    guard let domain = soft.xrcDomain(file, flags: attr.pointee.oflags, error: &error) else {
        if let file { linux_close(file.descriptor) }
        return failure(error)
    }
    let handle = XRCDomainPointer.allocate(capacity: 1)
    handle.initialize(to: SoftXRCDomain(domain, file))
    handle.pointee.next = soft.guarded.pointee.xrcDomains
    soft.guarded.pointee.xrcDomains = handle
    let verbs = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_xrcd.self)
    rdma_init_xrcd(verbs, context)
    return verbs
}

extension ContextPointer {
    /// The XRC domain of a file, or a new one; nil, with the errno value of the kernel, when `oflags` exclude both. Under the
    /// lock.
    fileprivate func xrcDomain(_ file: XRCDomainFile?, flags: Int32, error: inout Int32) -> XRCDomain? {
        if let file {
            if let found = firstHandle({ $0.pointee.file?.isSame(as: file) == true }) {
                guard flags & O_EXCL == 0 else {
                    error = refusal(EINVAL, "oflags has O_EXCL, and the file has an XRC domain already")
                    return nil
                }
                return found.pointee.domain
            }
            guard flags & O_CREAT != 0 else {
                error = refusal(EAGAIN, "oflags lacks O_CREAT, and the file has no XRC domain in this process")
                return nil
            }
        }
        do throws(RoCETransport.Errno) {
            return try pointee.engine.openXRCDomain()
        } catch let refused {
            error = refused.rawValue
            return nil
        }
    }

    private func firstHandle(_ isWanted: (XRCDomainPointer) -> Bool) -> XRCDomainPointer? {
        var handle = guarded.pointee.xrcDomains
        while let current = handle, !isWanted(current) { handle = current.pointee.next }
        return handle
    }

    /// Closes a handle, and the domain with its last one. Returns 0 or a positive errno value. Under the lock.
    fileprivate func close(_ handle: XRCDomainPointer) -> Int32 {
        let domain = handle.pointee.domain
        if firstHandle({ $0 != handle && $0.pointee.domain == domain }) == nil {
            do throws(RoCETransport.Errno) { try pointee.engine.close(domain) } catch { return error.rawValue }
        }
        if let before = firstHandle({ $0.pointee.next == handle }) {
            before.pointee.next = handle.pointee.next
        } else {
            guarded.pointee.xrcDomains = handle.pointee.next
        }
        return 0
    }
}

func closeXRCDomain(xrcd: UnsafeMutablePointer<ibv_xrcd>?) -> Int32 {
    guard let xrcd else { return EINVAL }
    let handle = xrcd.soft
    let context = xrcd.pointee.context!.soft
    context.lockForControl()
    let error = context.close(handle)
    context.unlock()
    guard error == 0 else {
        return refusal(error, "shared receive queues or queue pairs still belong to it: destroy them first")
    }
    if let file = handle.pointee.file { linux_close(file.descriptor) }
    handle.deinitialize(count: 1)
    handle.deallocate()
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
        // The protection domain stays, unused: rdma_create_qp(3) takes it from here again.
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
