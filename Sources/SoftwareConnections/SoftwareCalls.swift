import CLinux
import CMProtocol
import CIBVerbs
import CRDMACM
import Glibc
import SystemPackage

// The calls of librdmacm for software identifiers. Each returns 0 or an errno value.

extension SoftwareService {
    /// rdma_bind_addr(3). It takes the mailbox of the service, so that the port is in use from now on. As the kernel, a
    /// loopback address that no device has stands for every address.
    package func bind(_ identifier: SoftwareIdentifier, _ address: SocketAddress) -> Int32 {
        perform { state in
            guard identifier.state.mailbox < 0, identifier.state.path == nil else { return EINVAL }
            var own: SoftwarePort?
            if !address.isAny {
                let interface = AddressRoute.interface(having: address.host)
                guard interface != 0 || address.isLoopback else { return EADDRNOTAVAIL }
                own = self.port(ofInterface: interface, &state)
                guard own != nil || address.isLoopback && state.failure == ENODEV else { return Self.failure(state) }
            }
            guard let port = own ?? anyPort(&state) else { return Self.failure(state) }
            let code = Self.reserve(identifier, address, port, at: own == nil ? nil : address.host, &state)
            if code == 0, let own { identifier.bind(own) }
            return code
        }
    }

    /// The port of any listed device, all of which are open afterwards; nil if there is none.
    private func anyPort(_ state: inout State) -> SoftwarePort? {
        openListed(&state)
        return state.ports.values.first
    }

    /// Takes the mailbox of a port number; of any free one when it is 0.
    private static func reserve(
        _ identifier: SoftwareIdentifier, _ address: SocketAddress, _ port: SoftwarePort, at gid: PortGID?,
        _ state: inout State
    ) -> Int32 {
        // The range of ports that Linux chooses from (ip(7)).
        let attempts = address.port == 0 ? 1000 : 1
        for _ in 0..<attempts {
            let number = address.port == 0 ? UInt16.random(in: 32768...60999) : address.port
            let serviceID = IPService.identifier(portSpace: identifier.raw.pointee.ps.rawValue, port: number)
            let mailbox = port.listen(serviceID, at: gid)
            if mailbox == -EADDRINUSE && address.port == 0 { continue }
            guard mailbox >= 0 else { return -mailbox }
            // Received from now on, so that requests are refused while it does not listen.
            let code = linux_ready_add(state.mailboxes, mailbox, 1)
            guard code == 0 else {
                OwnDescriptors.close(mailbox)
                return code
            }
            state.bound[mailbox] = Member(identifier: identifier)
            identifier.state.mailbox = mailbox
            identifier.setLocal(SocketAddress(host: address.host, port: number, scope: address.scope))
            return 0
        }
        return EADDRINUSE
    }

    /// The errno value of the device that could not be opened, or ENODEV.
    private static func failure(_ state: State) -> Int32 { state.failure != 0 ? state.failure : ENODEV }

    /// rdma_listen(3).
    package func listen(_ identifier: SoftwareIdentifier, backlog: Int32) -> Int32 {
        perform { state in
            guard identifier.state.mailbox >= 0, identifier.state.listener == nil, let local = identifier.local else {
                return EINVAL
            }
            let serviceID = IPService.identifier(portSpace: identifier.raw.pointee.ps.rawValue, port: local.port)
            do throws(CMCallError) {
                let listener = try state.endpoint.listen(
                    serviceID: serviceID, address: identifier.state.port == nil ? nil : local.host,
                    transport: CMTransport(identifier.type))
                identifier.state.listener = listener
                identifier.state.backlog = backlog > 0 ? min(Int(backlog), Self.mostBacklog) : Self.mostBacklog
                state.listeners[listener] = Member(identifier: identifier)
                return 0
            } catch {
                return EADDRINUSE
            }
        }
    }

    /// rdma_resolve_addr(3): chooses device and addresses by the routing tables. Once; `EINVAL` afterwards.
    package func resolveAddress(
        _ identifier: SoftwareIdentifier, _ peer: SocketAddress, from source: SocketAddress?
    ) -> Int32 {
        perform { state in
            guard identifier.state.path == nil, identifier.state.listener == nil else { return EINVAL }
            // Without a port it is bound to every address.
            let bound = identifier.state.port == nil ? nil : identifier.local
            let route: AddressRoute
            do throws(Errno) { route = try AddressRoute(to: peer, from: source ?? bound) } catch {
                return error.rawValue
            }
            var (own, local) = (self.port(ofInterface: route.interfaceIndex, &state), route.local.host)
            var isThisHost = peer.isAny
            if own == nil, peer.isAny || peer.isLoopback, route.local.isLoopback, state.failure == ENODEV {
                // As the kernel: a loopback address that no device has leads from any device to itself.
                own = anyPort(&state)
                guard let address = own?.firstAddress(isIPv4: peer.isIPv4) else { return Self.failure(state) }
                (local, isThisHost) = (address, true)
            }
            guard let port = own else { return Self.failure(state) }
            identifier.bind(port)
            // The unspecified address is this host, as for the kernel.
            let peer = isThisHost ? SocketAddress(host: local, port: peer.port, scope: peer.scope) : peer
            // All of 127.0.0.0/8 is this host, and the device has one of its addresses.
            let isLoopback = peer.host.isLoopbackIPv4 && local.isLoopbackIPv4
            let remote = isLoopback ? local : peer.host
            identifier.state.path = CMPath(local: local, remote: remote, device: port.number)
            let number = identifier.local?.port ?? source?.port ?? 0
            // The peer sees the port; nothing here depends on it.
            identifier.setLocal(
                SocketAddress(
                    host: local, port: number == 0 ? UInt16.random(in: 32768...60999) : number,
                    scope: peer.scope))
            identifier.setPeer(peer)
            push(SoftwareEvent(identifier, RDMA_CM_EVENT_ADDR_RESOLVED))
            return 0
        }
    }

    /// rdma_resolve_route(3): on RoCE there is nothing to resolve. Once, after `resolveAddress`; `EINVAL` otherwise.
    package func resolveRoute(_ identifier: SoftwareIdentifier) -> Int32 {
        perform { _ in
            guard identifier.state.path != nil, identifier.state.connection == nil, !identifier.state.hasRoute else {
                return EINVAL
            }
            identifier.state.hasRoute = true
            push(SoftwareEvent(identifier, RDMA_CM_EVENT_ROUTE_RESOLVED))
            return 0
        }
    }

    /// rdma_connect(3): sends a REQ or SIDR_REQ. Once, after `resolveRoute`; `EINVAL` otherwise.
    package func connect(
        _ identifier: SoftwareIdentifier, _ parameters: rdma_conn_param, _ privateData: [UInt8]
    ) -> Int32 {
        perform { state in
            guard let path = identifier.state.path, let port = identifier.state.port,
                identifier.state.hasRoute, identifier.state.connection == nil, let local = identifier.local,
                let peer = identifier.peer
            else { return EINVAL }
            let addresses = IPAddresses(
                source: local.host, destination: peer.host, sourcePort: local.port)
            let serviceID = IPService.identifier(portSpace: identifier.raw.pointee.ps.rawValue, port: peer.port)
            let connection: CMIdentifier
            if identifier.isDatagram {
                var request = ServiceRequest()
                request.serviceID = serviceID
                request.privateData = addresses.bytes + privateData
                connection = state.endpoint.lookUp(request, on: path, now: Self.now)
            } else {
                guard port.index(of: path.local) != nil, let attributes = port.attributes else {
                    return EADDRNOTAVAIL
                }
                var request = ConnectRequest(parameters, port)
                request.transport = CMTransport(identifier.type)
                request.serviceID = serviceID
                request.pathMTU = UInt8(truncatingIfNeeded: attributes.active_mtu.rawValue)
                (request.localGID, request.remoteGID) = (path.local, path.remote)
                request.trafficClass = identifier.typeOfService
                if let timeout = identifier.state.options.acknowledgeTimeout { request.localACKTimeout = timeout }
                request.privateData = addresses.bytes + privateData
                identifier.state.request = request
                identifier.state.isActive = true
                connection = state.endpoint.connect(request, on: path, now: Self.now)
            }
            identifier.state.connection = connection
            state.identifiers[connection] = Member(identifier: identifier)
            return 0
        }
    }

    /// Calls a function of the endpoint for the connection of an identifier.
    private func call(
        _ identifier: SoftwareIdentifier,
        _ body: (inout State, CMIdentifier) throws(CMCallError) -> Void
    ) -> Int32 {
        perform { state in
            guard let connection = identifier.state.connection else { return EINVAL }
            do throws(CMCallError) { try body(&state, connection) } catch { return EINVAL }
            return 0
        }
    }

    /// rdma_establish(3).
    package func establish(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            try state.endpoint.establish(connection, now: Self.now)
        }
    }

    /// rdma_accept(3): sends a REP or SIDR_REP.
    package func accept(
        _ identifier: SoftwareIdentifier, _ parameters: rdma_conn_param, _ privateData: [UInt8]
    ) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            if identifier.isDatagram {
                var reply = ServiceReply()
                reply.queuePairNumber = parameters.qp_num
                reply.queueKey = Self.datagramQKey
                reply.privateData = privateData
                try state.endpoint.replyToService(connection, reply, now: Self.now)
            } else {
                guard let port = identifier.state.port, let path = identifier.state.path,
                    let request = identifier.state.request
                else { throw .state }
                var reply = identifier.state.reply ?? ConnectReply()
                reply.fill(parameters, port, request)
                if identifier.type == IBV_QPT_XRC_RECV {
                    // As the kernel: the queue pair of an XRC target has shared receive queues only.
                    (reply.endToEndContextNumber, reply.queuePairNumber) = (parameters.qp_num, 0)
                    reply.hasSharedReceiveQueue = true
                }
                reply.privateData = privateData
                try state.endpoint.accept(connection, reply, now: Self.now)
                identifier.state.reply = reply
                Self.watch(connection, path, peer: request.localID, &state)
            }
            uncount(identifier)
            identifier.state.isRequest = false
        }
    }

    /// rdma_reject(3).
    /// - Parameter reason: That of a REJ; a SIDR_REP says that the request is rejected.
    package func reject(
        _ identifier: SoftwareIdentifier, _ privateData: [UInt8],
        reason: UInt16 = CMRejectReason.consumer.rawValue
    ) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            if identifier.isDatagram {
                var reply = ServiceReply()
                reply.status = .rejected
                reply.privateData = privateData
                try state.endpoint.replyToService(connection, reply, now: Self.now)
            } else {
                try state.endpoint.reject(
                    connection, reason: CMRejectReason(rawValue: reason), privateData: privateData, now: Self.now)
            }
            uncount(identifier)
        }
    }

    /// rdma_disconnect(3).
    package func disconnect(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            try state.endpoint.disconnect(connection, now: Self.now)
        }
    }

    /// rdma_notify(3) with IBV_EVENT_COMM_EST.
    package func noteCommunication(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in state.endpoint.noteCommunication(connection) }
    }

    /// rdma_init_qp_attr(3).
    package func attributes(
        of identifier: SoftwareIdentifier, for next: ibv_qp_state
    ) -> (errno: Int32, values: ibv_qp_attr, mask: UInt32) {
        // The lock may be held for ever in a child of fork(2).
        if isInChild { return (EPERM, ibv_qp_attr(), 0) }
        return state.withLock { _ in identifier.attributes(for: next) }
    }

    /// What is known of an identifier; nothing in a child of fork(2).
    package func view(of identifier: SoftwareIdentifier) -> SoftwareView {
        if isInChild { return SoftwareView() }
        return state.withLock { _ in
            var view = SoftwareView()
            (view.local, view.peer) = (identifier.local, identifier.peer)
            view.path = identifier.state.path
            view.typeOfService = identifier.typeOfService
            view.hasConnection = identifier.state.connection != nil
            view.device = identifier.state.port.map { port in
                SoftwareView.Device(
                    guid: port.guid, mtu: UInt8(truncatingIfNeeded: port.attributes?.active_mtu.rawValue ?? 1))
            }
            return view
        }
    }

    /// rdma_set_option(3).
    package func set(_ options: SoftwareOptions, of identifier: SoftwareIdentifier) {
        if isInChild { return }
        state.withLock { _ in
            identifier.state.options.typeOfService = options.typeOfService ?? identifier.state.options.typeOfService
            identifier.state.options.isIPv6Only = options.isIPv6Only ?? identifier.state.options.isIPv6Only
            identifier.state.options.acknowledgeTimeout =
                options.acknowledgeTimeout ?? identifier.state.options.acknowledgeTimeout
        }
    }

    /// rdma_join_multicast(3): without a subnet manager, membership is that of the queue pairs that are attached.
    package func join(_ identifier: SoftwareIdentifier, _ group: SocketAddress) -> Int32 {
        perform { state in
            guard let port = identifier.state.port, group.isMulticast else { return EINVAL }
            let local = identifier.local?.host ?? .zero
            let path = CMPath(local: local, remote: group.host, device: port.number)
            identifier.state.groups.append(group)
            var event = SoftwareEvent(identifier, RDMA_CM_EVENT_MULTICAST_JOIN)
            event.group = group
            event.datagram.ah_attr = SoftwareIdentifier.addressVector(path, port, identifier.typeOfService)
            (event.datagram.qp_num, event.datagram.qkey) = (0xFF_FFFF, Self.datagramQKey)
            push(event)
            return 0
        }
    }

    /// rdma_leave_multicast(3).
    package func leave(_ identifier: SoftwareIdentifier, _ group: SocketAddress) -> Int32 {
        perform { _ in
            guard let index = identifier.state.groups.firstIndex(of: group) else { return EADDRNOTAVAIL }
            identifier.state.groups.remove(at: index)
            return 0
        }
    }

    /// rdma_migrate_id(3): events that wait move too.
    package func migrate(_ identifier: SoftwareIdentifier, to channel: SoftwareChannel) {
        perform(inChild: ()) { _ in
            let waiting = identifier.state.channel.remove(identifier)
            identifier.state.channel = channel
            for event in waiting {
                // A request that waits comes by the listener's channel, and so do its own events.
                event.identifier.state.channel = channel
                channel.push(event)
            }
        }
    }

    /// rdma_destroy_id(3).
    package func destroy(_ identifier: SoftwareIdentifier) {
        let waiting: [SoftwareEvent] = perform(inChild: []) { state in
            uncount(identifier)
            Self.end(identifier.state, &state)
            identifier.state.isDestroyed = true
            return identifier.state.channel.remove(identifier)
        }
        withExtendedLifetime(waiting) {}
    }

    /// Releases connection, listener and mailbox of an identifier. Under the lock.
    static func end(_ identifier: SoftwareIdentifier.State, _ state: inout State) {
        if let listener = identifier.listener {
            state.endpoint.stopListening(listener)
            state.listeners[listener] = nil
        }
        if let owner = identifier.countedBy { owner.state.pending -= 1 }
        if identifier.mailbox >= 0 {
            state.bound[identifier.mailbox] = nil
            // A child of vfork(2) or clone(2) may have a copy of the descriptor, which would keep the mailbox in the list.
            linux_ready_remove(state.mailboxes, identifier.mailbox)
            OwnDescriptors.close(identifier.mailbox)
        }
        if let connection = identifier.connection {
            state.endpoint.release(connection, now: now)
            state.identifiers[connection] = nil
        }
    }
}

extension CMTransport {
    /// The transport of connections between queue pairs of that type.
    init(_ type: ibv_qp_type) {
        switch type {
        case IBV_QPT_UC: self = .unreliable
        case IBV_QPT_XRC_SEND, IBV_QPT_XRC_RECV: self = .extended
        default: self = .reliable
        }
    }
}

extension ConnectRequest {
    /// The parameters that this side offers. Depths that are not set are those of the device.
    fileprivate init(_ parameters: rdma_conn_param, _ port: SoftwarePort) {
        self.init()
        let limits = port.depthLimits
        localGUID = port.guid
        queuePairNumber = parameters.qp_num
        responderResources = min(parameters.responder_resources, limits.responder)
        initiatorDepth = min(parameters.initiator_depth, limits.initiator)
        flowControl = parameters.flow_control != 0
        startingPSN = UInt32.random(in: 0...0xFF_FFFF)
        // 4.3 seconds, as the Linux kernel allows.
        (remoteResponseTimeout, localResponseTimeout) = (20, 20)
        retryCount = min(parameters.retry_count, 7)
        rnrRetryCount = min(parameters.rnr_retry_count, 7)
        maxCMRetries = 15
        hasSharedReceiveQueue = parameters.srq != 0
        hopLimit = 64
        // 0.5 seconds.
        localACKTimeout = 17
    }
}

extension ConnectReply {
    fileprivate mutating func fill(
        _ parameters: rdma_conn_param, _ port: SoftwarePort, _ request: ConnectRequest
    ) {
        let limits = port.depthLimits
        localGUID = port.guid
        queuePairNumber = parameters.qp_num
        responderResources = min(parameters.responder_resources, limits.responder, request.initiatorDepth)
        initiatorDepth = min(parameters.initiator_depth, limits.initiator, request.responderResources)
        flowControl = parameters.flow_control != 0
        rnrRetryCount = min(parameters.rnr_retry_count, 7)
        hasSharedReceiveQueue = parameters.srq != 0
        targetACKDelay = 15
    }
}
