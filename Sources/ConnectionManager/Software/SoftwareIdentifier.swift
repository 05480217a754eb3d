import CIBVerbs
import CMProtocol
import CRDMACM
import Glibc
import SystemPackage
import Verbs

/// An identifier of a software device, as `struct rdma_cm_id` is one of librdmacm. `SoftwareService` does the work of its calls, which
/// return an errno value, or 0.
final class SoftwareIdentifier: @unchecked Sendable {
    // Unchecked: `raw` never changes, its fields and `state` change under the lock of the service only, before an event
    // tells of it.

    /// Its public part: device, port, addresses.
    let raw: UnsafeMutablePointer<rdma_cm_id>
    let portSpace: PortSpace
    /// Under the lock of the service.
    var state: State

    struct State {
        var channel: SoftwareChannel
        var port: SoftwarePort?
        var path: CMPath?
        var connection: CMIdentifier?
        /// The REQ that was sent or received, and the REP that was received or sent.
        var request: ConnectRequest?
        var reply: ConnectReply?
        var isActive = false
        /// The mailbox of the service, once it is bound; -1 before.
        var mailbox: Int32 = -1
        var listener: CMIdentifier?
        /// Requests that are neither accepted nor rejected, and the most that may be.
        var pending = 0
        var backlog = 0
        /// The listener that counts this request as pending.
        weak var countedBy: SoftwareIdentifier?
        var groups: [ConnectionAddress] = []
        var options = ConnectionIdentifierOptions()
        var isDestroyed = false
    }

    init(channel: SoftwareChannel, portSpace: PortSpace) {
        raw = .allocate(capacity: 1)
        raw.initialize(to: rdma_cm_id())
        raw.pointee.ps = portSpace.raw
        self.portSpace = portSpace
        state = State(channel: channel)
    }

    deinit {
        // A connect request that was not read.
        SoftwareService.shared.forget(state)
        raw.deallocate()
    }

    /// Binds it to a device and its addresses. Under the lock of the service.
    func bind(_ port: SoftwarePort) {
        state.port = port
        raw.pointee.verbs = port.context.unsafeRaw
        raw.pointee.port_num = 1
    }

    func setLocal(_ address: ConnectionAddress) {
        address.withRaw { Self.copy($0, to: &raw.pointee.route.addr.src_storage) }
    }

    func setPeer(_ address: ConnectionAddress) {
        address.withRaw { Self.copy($0, to: &raw.pointee.route.addr.dst_storage) }
    }

    /// `address` is the start of a `sockaddr_storage`.
    private static func copy(_ address: UnsafeMutablePointer<sockaddr>, to storage: inout sockaddr_storage) {
        storage = UnsafeRawPointer(address).loadUnaligned(as: sockaddr_storage.self)
    }

    var local: ConnectionAddress? { ConnectionAddress(rdma_get_local_addr(raw)) }
    var peer: ConnectionAddress? { ConnectionAddress(rdma_get_peer_addr(raw)) }
}

// MARK: - The attributes of the queue pair

extension SoftwareIdentifier {
    /// The attributes that rdma_init_qp_attr(3) returns, and their mask. Under the lock of the service.
    func attributes(for next: QueuePair.State) -> (errno: Int32, ibv_qp_attr, mask: UInt32) {
        var values = ibv_qp_attr()
        values.qp_state = ibv_qp_state(rawValue: next.rawValue)
        var mask = IBV_QP_STATE.rawValue
        switch next {
        case .initialized:
            values.port_num = 1
            mask |= IBV_QP_PKEY_INDEX.rawValue | IBV_QP_PORT.rawValue
            if portSpace.isDatagram {
                values.qkey = SoftwareService.datagramQKey
                mask |= IBV_QP_QKEY.rawValue
            } else {
                // Before the connection is requested, it is not known whether the peer may read.
                var access = IBV_ACCESS_REMOTE_WRITE.rawValue
                if depths.responder > 0 || state.request == nil {
                    access |= IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
                    // As the kernel since 6.3: a FLUSH needs responder resources too.
                    access |= UInt32(AccessFlags.flushGlobal.rawValue)
                }
                values.qp_access_flags = access
                mask |= IBV_QP_ACCESS_FLAGS.rawValue
            }
        case .readyToReceive where !portSpace.isDatagram:
            guard let request = state.request, let path = state.path, let port = state.port,
                state.reply != nil || !state.isActive
            else { return (EINVAL, values, mask) }
            values.ah_attr = Self.addressVector(path, port, request.trafficClass)
            values.path_mtu = ibv_mtu(rawValue: UInt32(request.pathMTU))
            values.dest_qp_num = state.isActive ? state.reply!.queuePairNumber : request.queuePairNumber
            values.rq_psn = ownPSN
            values.max_dest_rd_atomic = depths.responder
            mask |=
                IBV_QP_AV.rawValue | IBV_QP_PATH_MTU.rawValue | IBV_QP_DEST_QPN.rawValue | IBV_QP_RQ_PSN.rawValue
                | IBV_QP_MAX_DEST_RD_ATOMIC.rawValue | IBV_QP_MIN_RNR_TIMER.rawValue
        case .readyToSend where !portSpace.isDatagram:
            guard let request = state.request, state.reply != nil || !state.isActive else {
                return (EINVAL, values, mask)
            }
            values.sq_psn = state.isActive ? state.reply!.startingPSN : request.startingPSN
            values.timeout = request.localACKTimeout
            values.retry_cnt = request.retryCount
            values.rnr_retry = state.isActive ? state.reply!.rnrRetryCount : request.rnrRetryCount
            values.max_rd_atomic = depths.initiator
            mask |=
                IBV_QP_SQ_PSN.rawValue | IBV_QP_TIMEOUT.rawValue | IBV_QP_RETRY_CNT.rawValue
                | IBV_QP_RNR_RETRY.rawValue | IBV_QP_MAX_QP_RD_ATOMIC.rawValue
        default: break
        }
        return (0, values, mask)
    }

    /// The PSN with which the peer begins to send: that of the REQ or REP of this side.
    private var ownPSN: UInt32 {
        if state.isActive { return state.request?.startingPSN ?? 0 }
        return state.reply?.startingPSN ?? 0
    }

    /// The READs and atomics of the peer, and of this side, as the last message of the peer allows them.
    private var depths: (responder: UInt8, initiator: UInt8) {
        if state.isActive, let reply = state.reply { return (reply.initiatorDepth, reply.responderResources) }
        guard let request = state.request else { return (0, 0) }
        return state.isActive
            ? (request.responderResources, request.initiatorDepth)
            : (request.initiatorDepth, request.responderResources)
    }

    static func addressVector(_ path: CMPath, _ port: SoftwarePort, _ trafficClass: UInt8) -> ibv_ah_attr {
        var attributes = ibv_ah_attr()
        attributes.is_global = 1
        attributes.port_num = 1
        attributes.grh.dgid = GID(path.remote).raw
        attributes.grh.sgid_index = port.entry(GID(path.local))?.gidIndex ?? 0
        attributes.grh.hop_limit = 64
        attributes.grh.traffic_class = trafficClass
        return attributes
    }
}
