import CIBVerbs
import CMProtocol
import CRDMACM
import Glibc

/// An identifier of a software device, as `struct rdma_cm_id` is one of librdmacm. `SoftwareService` does the work of its
/// calls, which return an errno value, or 0.
package final class SoftwareIdentifier: @unchecked Sendable {
    // Unchecked: `raw` never changes, its fields and `state` change under the lock of the service only, before an event
    // tells of it.

    /// Its public part: device, port, addresses.
    package let raw: UnsafeMutablePointer<rdma_cm_id>
    let service: SoftwareService
    /// Under the lock of the service.
    var state: State

    struct State {
        var channel: SoftwareChannel
        var port: SoftwarePort?
        var path: CMPath?
        /// Whether rdma_resolve_route(3) has been called.
        var hasRoute = false
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
        /// Whether it is the identifier of a request that is not accepted.
        var isRequest = false
        var groups: [SocketAddress] = []
        var options = SoftwareOptions()
        var isDestroyed = false
    }

    /// Makes an identifier: rdma_create_id(3).
    package init(
        _ service: SoftwareService, channel: SoftwareChannel, portSpace: rdma_port_space, type: ibv_qp_type
    ) {
        raw = .allocate(capacity: 1)
        raw.initialize(to: rdma_cm_id())
        raw.pointee.ps = portSpace
        raw.pointee.qp_type = type
        self.service = service
        state = State(channel: channel)
    }

    /// Whether its queue pairs are UD.
    package var isDatagram: Bool { raw.pointee.qp_type == IBV_QPT_UD }
    /// The type of its queue pairs.
    package var type: ibv_qp_type { raw.pointee.qp_type }

    deinit {
        // A connect request that was not read.
        service.forget(state)
        raw.deallocate()
    }

    /// Binds it to a device and its addresses. Under the lock of the service.
    func bind(_ port: SoftwarePort) {
        state.port = port
        raw.pointee.verbs = port.context
        raw.pointee.port_num = 1
    }

    func setLocal(_ address: SocketAddress) { raw.pointee.route.addr.src_storage = address.storage }

    func setPeer(_ address: SocketAddress) { raw.pointee.route.addr.dst_storage = address.storage }

    /// rdma_get_local_addr(3).
    package var local: SocketAddress? { SocketAddress(rdma_get_local_addr(raw)) }
    /// rdma_get_peer_addr(3).
    package var peer: SocketAddress? { SocketAddress(rdma_get_peer_addr(raw)) }
    /// `RDMA_OPTION_ID_TOS`. Under the lock of the service.
    var typeOfService: UInt8 { state.options.typeOfService ?? 0 }
}

/// `IBV_ACCESS_FLUSH_GLOBAL`, which older verbs.h do not have.
private let flushGlobal: UInt32 = 1 << 8

// MARK: - The attributes of the queue pair

extension SoftwareIdentifier {
    /// The attributes that rdma_init_qp_attr(3) returns, and their mask. Under the lock of the service.
    func attributes(for next: ibv_qp_state) -> (errno: Int32, values: ibv_qp_attr, mask: UInt32) {
        var values = ibv_qp_attr()
        values.qp_state = next
        var mask = IBV_QP_STATE.rawValue
        switch next {
        case IBV_QPS_INIT:
            values.port_num = 1
            mask |= IBV_QP_PKEY_INDEX.rawValue | IBV_QP_PORT.rawValue
            if isDatagram {
                values.qkey = SoftwareService.datagramQKey
                mask |= IBV_QP_QKEY.rawValue
            } else {
                // Before the connection is requested, it is not known whether the peer may read.
                var access = IBV_ACCESS_REMOTE_WRITE.rawValue
                if depths.responder > 0 || state.request == nil {
                    access |= IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
                    // As the kernel since 6.3: a FLUSH needs responder resources too.
                    access |= flushGlobal
                }
                values.qp_access_flags = access
                mask |= IBV_QP_ACCESS_FLAGS.rawValue
            }
        case IBV_QPS_RTR where !isDatagram:
            guard let request = state.request, let path = state.path, let port = state.port,
                state.reply != nil || !state.isActive
            else { return (EINVAL, values, mask) }
            values.ah_attr = Self.addressVector(path, port, request.trafficClass)
            values.path_mtu = ibv_mtu(rawValue: UInt32(request.pathMTU))
            values.dest_qp_num = peerQueuePair(request)
            values.rq_psn = ownPSN
            mask |=
                IBV_QP_AV.rawValue | IBV_QP_PATH_MTU.rawValue | IBV_QP_DEST_QPN.rawValue | IBV_QP_RQ_PSN.rawValue
            // Attributes of the responder of RDMA reads.
            if type == IBV_QPT_RC || type == IBV_QPT_XRC_RECV {
                values.max_dest_rd_atomic = depths.responder
                // 0.64 ms. The kernel sets 0, the code of 655 ms.
                values.min_rnr_timer = 12
                mask |= IBV_QP_MAX_DEST_RD_ATOMIC.rawValue | IBV_QP_MIN_RNR_TIMER.rawValue
            }
        case IBV_QPS_RTS where !isDatagram:
            guard let request = state.request, state.reply != nil || !state.isActive else {
                return (EINVAL, values, mask)
            }
            values.sq_psn = state.isActive ? state.reply!.startingPSN : request.startingPSN
            mask |= IBV_QP_SQ_PSN.rawValue
            // Attributes of the requester of a reliable connection.
            if type == IBV_QPT_RC || type == IBV_QPT_XRC_SEND {
                values.retry_cnt = request.retryCount
                values.rnr_retry = state.isActive ? state.reply!.rnrRetryCount : request.rnrRetryCount
                values.max_rd_atomic = depths.initiator
                mask |=
                    IBV_QP_RETRY_CNT.rawValue | IBV_QP_RNR_RETRY.rawValue | IBV_QP_MAX_QP_RD_ATOMIC.rawValue
            }
            if type != IBV_QPT_UC {
                values.timeout = request.localACKTimeout
                mask |= IBV_QP_TIMEOUT.rawValue
            }
        default: break
        }
        return (0, values, mask)
    }

    /// The queue pair of the peer. That of an XRC target is in the field of an end-to-end context.
    private func peerQueuePair(_ request: ConnectRequest) -> UInt32 {
        guard state.isActive, let reply = state.reply else { return request.queuePairNumber }
        return type == IBV_QPT_XRC_SEND ? reply.endToEndContextNumber : reply.queuePairNumber
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
        withUnsafeMutableBytes(of: &attributes.grh.dgid) { $0.copyBytes(from: path.remote.bytes) }
        attributes.grh.sgid_index = port.index(of: path.local) ?? 0
        attributes.grh.hop_limit = 64
        attributes.grh.traffic_class = trafficClass
        return attributes
    }
}

/// The options of rdma_set_option(3); nil leaves one as it is.
package struct SoftwareOptions: Hashable, Sendable {
    package var typeOfService: UInt8?
    package var isIPv6Only: Bool?
    package var acknowledgeTimeout: UInt8?

    package init(typeOfService: UInt8? = nil, isIPv6Only: Bool? = nil, acknowledgeTimeout: UInt8? = nil) {
        self.typeOfService = typeOfService
        self.isIPv6Only = isIPv6Only
        self.acknowledgeTimeout = acknowledgeTimeout
    }
}

/// What is known of an identifier at one moment.
package struct SoftwareView: Sendable {
    package struct Device: Hashable, Sendable {
        /// Node GUID in host byte order.
        package let guid: UInt64
        /// `enum ibv_mtu` of its port.
        package let mtu: UInt8
    }

    package internal(set) var local: SocketAddress?
    package internal(set) var peer: SocketAddress?
    /// The way to the peer, once its address is resolved.
    package internal(set) var path: CMPath?
    /// The device to which it is bound.
    package internal(set) var device: Device?
    package internal(set) var typeOfService: UInt8 = 0
    /// Whether it has had a connection, or has begun one.
    package internal(set) var hasConnection = false
}
