import CMProtocol
import CIBVerbs
import CRDMACM
import Glibc

// The events of the protocol become events of identifiers, as librdmacm reports them.

extension SoftwareService {
    func deliver(_ event: CMEvent, _ state: inout State, _ kept: inout [SoftwareIdentifier]) {
        switch event.kind {
        case .requested(let listener, let request, let path):
            return deliver(event.identifier, of: listener, path, &state, &kept) { identifier in
                identifier.state.request = request
                var reply = ConnectReply()
                reply.startingPSN = UInt32.random(in: 0...0xFF_FFFF)
                identifier.state.reply = reply
                var result = SoftwareEvent(identifier, RDMA_CM_EVENT_CONNECT_REQUEST)
                result.connection = rdma_conn_param(request)
                result.privateData = Array(request.privateData.dropFirst(IPAddresses.byteCount))
                return (result, request.serviceID, request.privateData)
            }
        case .serviceRequested(let listener, let request, let path):
            return deliver(event.identifier, of: listener, path, &state, &kept) { identifier in
                var result = SoftwareEvent(identifier, RDMA_CM_EVENT_CONNECT_REQUEST)
                result.privateData = Array(request.privateData.dropFirst(IPAddresses.byteCount))
                return (result, request.serviceID, request.privateData)
            }
        default: break
        }
        guard let identifier = state.identifiers[event.identifier]?.identifier else { return }
        kept.append(identifier)
        if let result = translate(event, identifier, &state) { push(result) }
        if !state.endpoint.contains(event.identifier) { state.identifiers[event.identifier] = nil }
    }

    private func translate(
        _ event: CMEvent, _ identifier: SoftwareIdentifier, _ state: inout State
    ) -> SoftwareEvent? {
        switch event.kind {
        case .replied(let reply):
            identifier.state.reply = reply
            if let path = identifier.state.path { Self.watch(event.identifier, path, peer: reply.localID, &state) }
            var result = SoftwareEvent(identifier, RDMA_CM_EVENT_CONNECT_RESPONSE)
            result.connection = rdma_conn_param(reply)
            result.privateData = reply.privateData
            return result
        case .established:
            return SoftwareEvent(identifier, RDMA_CM_EVENT_ESTABLISHED)
        case .serviceReplied(let reply):
            let isValid = reply.status == .valid
            var result = SoftwareEvent(
                identifier, isValid ? RDMA_CM_EVENT_ESTABLISHED : RDMA_CM_EVENT_UNREACHABLE,
                status: Int32(reply.status.rawValue))
            result.privateData = reply.privateData
            if let path = identifier.state.path, let port = identifier.state.port, isValid {
                result.datagram.ah_attr = SoftwareIdentifier.addressVector(path, port, identifier.typeOfService)
                result.datagram.qp_num = reply.queuePairNumber
                result.datagram.qkey = reply.queueKey
            }
            return result
        case .rejected(let reject):
            uncount(identifier)
            var result = SoftwareEvent(
                identifier, RDMA_CM_EVENT_REJECTED, status: Int32(reject.reason.rawValue))
            result.privateData = reject.privateData
            return result
        case .unreachable:
            return SoftwareEvent(identifier, RDMA_CM_EVENT_UNREACHABLE, status: -ETIMEDOUT)
        case .disconnected(let hasTimedOut):
            return SoftwareEvent(identifier, RDMA_CM_EVENT_DISCONNECTED, status: hasTimedOut ? -ETIMEDOUT : 0)
        case .timeWaitExit: return SoftwareEvent(identifier, RDMA_CM_EVENT_TIMEWAIT_EXIT)
        case .requested, .serviceRequested: return nil
        }
    }

    /// Delivers a request, with a new identifier, or rejects it when the listener does not take it.
    private func deliver(
        _ connection: CMIdentifier, of listener: CMIdentifier, _ path: CMPath, _ state: inout State,
        _ kept: inout [SoftwareIdentifier],
        _ make: (SoftwareIdentifier) -> (event: SoftwareEvent, serviceID: UInt64, privateData: [UInt8])
    ) {
        guard let owner = state.listeners[listener]?.identifier,
            let port = state.port(path.device)
        else { return state.endpoint.release(connection, now: Self.now) }
        kept.append(owner)
        let identifier = SoftwareIdentifier(
            self, channel: owner.state.channel, portSpace: owner.raw.pointee.ps, type: owner.type)
        identifier.state.isRequest = true
        kept.append(identifier)
        identifier.bind(port)
        identifier.state.path = path
        identifier.state.connection = connection
        identifier.state.options = owner.state.options
        var (event, serviceID, privateData) = make(identifier)
        guard let addresses = IPAddresses(parsing: privateData), owner.takes(addresses),
            addresses.belong(to: path)
        else {
            refuse(connection, .invalidServiceID, .unsupportedServiceID, &state)
            identifier.state.isDestroyed = true
            return
        }
        guard owner.state.pending < owner.state.backlog else {
            refuse(connection, .noResources, .noQueuePair, &state)
            identifier.state.isDestroyed = true
            return
        }
        owner.state.pending += 1
        identifier.state.countedBy = owner
        identifier.setLocal(
            SocketAddress(host: addresses.destination, port: IPService.port(of: serviceID)))
        identifier.setPeer(SocketAddress(host: addresses.source, port: addresses.sourcePort))
        state.identifiers[connection] = Member(identifier: identifier)
        event.listener = owner
        push(event)
    }

    private func refuse(
        _ connection: CMIdentifier, _ reason: CMRejectReason, _ status: CMServiceStatus, _ state: inout State
    ) {
        do throws(CMCallError) {
            try state.endpoint.reject(connection, reason: reason, now: Self.now)
        } catch {
            var reply = ServiceReply()
            reply.status = status
            try? state.endpoint.replyToService(connection, reply, now: Self.now)
        }
    }

    /// Adds an event to the channel of its identifier, or of the listener of a request.
    func push(_ event: SoftwareEvent) {
        if let listener = event.listener { return listener.state.channel.push(event) }
        let state = event.identifier.state
        if state.isRequest && state.channel.dropsEventsBeforeAcceptance { return }
        state.channel.push(event)
    }

    /// The request is no longer pending at its listener.
    func uncount(_ identifier: SoftwareIdentifier) {
        guard let owner = identifier.state.countedBy else { return }
        owner.state.pending -= 1
        identifier.state.countedBy = nil
    }
}

extension SoftwareIdentifier {
    /// Whether a listener takes requests to that address: one for IPv4 addresses, or with `isIPv6Only`, those of its
    /// family only.
    fileprivate func takes(_ addresses: IPAddresses) -> Bool {
        guard let local else { return false }
        if local.isIPv4 { return addresses.destination.isIPv4 }
        return !addresses.destination.isIPv4 || state.options.isIPv6Only != true
    }
}

extension IPAddresses {
    /// Whether a request that came on that path may claim these addresses: those of the ports, or any of 127.0.0.0/8, all of
    /// which are this host.
    fileprivate func belong(to path: CMPath) -> Bool {
        func fits(_ claimed: PortGID, _ actual: PortGID) -> Bool {
            claimed == actual || claimed.isLoopbackIPv4 && actual.isLoopbackIPv4
        }
        return fits(source, path.remote) && fits(destination, path.local)
    }
}

extension rdma_conn_param {
    /// Those of a REQ, from the point of view of its receiver.
    fileprivate init(_ request: ConnectRequest) {
        self.init()
        responder_resources = request.initiatorDepth
        initiator_depth = request.responderResources
        flow_control = request.flowControl ? 1 : 0
        retry_count = request.retryCount
        rnr_retry_count = request.rnrRetryCount
        qp_num = request.queuePairNumber
        srq = request.hasSharedReceiveQueue ? 1 : 0
    }

    /// Those of a REP, from the point of view of its receiver.
    fileprivate init(_ reply: ConnectReply) {
        self.init()
        responder_resources = reply.initiatorDepth
        initiator_depth = reply.responderResources
        flow_control = reply.flowControl ? 1 : 0
        rnr_retry_count = reply.rnrRetryCount
        qp_num = reply.queuePairNumber
        srq = reply.hasSharedReceiveQueue ? 1 : 0
    }
}
