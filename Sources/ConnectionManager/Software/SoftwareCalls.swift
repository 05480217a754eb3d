import CLinux
import CMProtocol
import Glibc
import SystemPackage
import Verbs

// The calls of librdmacm for software identifiers. Each returns 0 or an errno value.

extension SoftwareService {
    /// rdma_bind_addr(3). It takes the mailbox of the service, so that the port is in use from now on.
    func bind(_ identifier: SoftwareIdentifier, _ address: ConnectionAddress) -> Int32 {
        perform { state in
            guard identifier.state.mailbox < 0, identifier.state.path == nil else { return EINVAL }
            let isAny = address.isAny
            let port: SoftwarePort
            if isAny {
                Self.openListed(&state)
                guard let first = state.ports.values.first else { return Self.failure(state) }
                port = first
            } else {
                let interface = Route.interface(having: address.host)
                guard interface != 0 else { return EADDRNOTAVAIL }
                guard let own = Self.port(ofInterface: interface, &state) else { return Self.failure(state) }
                port = own
            }
            let code = Self.reserve(identifier, address, port, at: isAny ? nil : address.host, &state)
            if code == 0 && !isAny { identifier.bind(port) }
            return code
        }
    }

    /// Takes the mailbox of a port number; of any free one when it is 0.
    private static func reserve(
        _ identifier: SoftwareIdentifier, _ address: ConnectionAddress, _ port: SoftwarePort, at gid: GID?,
        _ state: inout State
    ) -> Int32 {
        // The range of ports that Linux chooses from (ip(7)).
        let attempts = address.port == 0 ? 1000 : 1
        for _ in 0..<attempts {
            let number = address.port == 0 ? UInt16.random(in: 32768...60999) : address.port
            let serviceID = IPService.identifier(portSpace: identifier.portSpace.rawValue, port: number)
            let mailbox = port.listen(serviceID, at: gid)
            if mailbox == -EADDRINUSE && address.port == 0 { continue }
            guard mailbox >= 0 else { return -mailbox }
            // Received from now on, so that requests are refused while it does not listen.
            let code = linux_ready_add(state.mailboxes, mailbox, 1)
            guard code == 0 else {
                close(mailbox)
                return code
            }
            state.bound[mailbox] = Member(identifier: identifier)
            identifier.state.mailbox = mailbox
            identifier.setLocal(ConnectionAddress(host: address.host, port: number, scope: address.scope))
            return 0
        }
        return EADDRINUSE
    }

    /// The errno value of the device that could not be opened, or ENODEV.
    private static func failure(_ state: State) -> Int32 { state.failure?.errno.rawValue ?? ENODEV }

    /// rdma_listen(3).
    func listen(_ identifier: SoftwareIdentifier, backlog: Int32) -> Int32 {
        perform { state in
            guard identifier.state.mailbox >= 0, identifier.state.listener == nil, let local = identifier.local else {
                return EINVAL
            }
            let serviceID = IPService.identifier(portSpace: identifier.portSpace.rawValue, port: local.port)
            do throws(CMCallError) {
                let listener = try state.endpoint.listen(
                    serviceID: serviceID, address: local.isAny ? nil : PortGID(local.host))
                identifier.state.listener = listener
                identifier.state.backlog = backlog > 0 ? Int(backlog) : Self.defaultBacklog
                state.listeners[listener] = Member(identifier: identifier)
                return 0
            } catch {
                return EADDRINUSE
            }
        }
    }

    /// rdma_resolve_addr(3): chooses device and addresses by the routing tables.
    func resolveAddress(
        _ identifier: SoftwareIdentifier, _ peer: ConnectionAddress, from source: ConnectionAddress?
    ) -> Int32 {
        perform { state in
            guard identifier.state.connection == nil, identifier.state.listener == nil else { return EINVAL }
            var bound = identifier.state.mailbox >= 0 ? identifier.local : nil
            if bound?.isAny == true { bound = nil }
            let route: Route
            do throws(Errno) { route = try Route(to: peer, from: source ?? bound) } catch { return error.rawValue }
            guard let port = Self.port(ofInterface: route.interfaceIndex, &state) else {
                return Self.failure(state)
            }
            identifier.bind(port)
            // All of 127.0.0.0/8 is this host, and the device has one of its addresses.
            let isLoopback = PortGID(peer.host).isLoopbackIPv4 && PortGID(route.local).isLoopbackIPv4
            let remote = isLoopback ? route.local : peer.host
            identifier.state.path = CMPath(local: PortGID(route.local), remote: PortGID(remote), device: port.number)
            let number = identifier.local?.port ?? source?.port ?? 0
            // The peer sees the port; nothing here depends on it.
            identifier.setLocal(
                ConnectionAddress(
                    host: route.local, port: number == 0 ? UInt16.random(in: 32768...60999) : number,
                    scope: peer.scope))
            identifier.setPeer(peer)
            identifier.state.channel.push(SoftwareEvent(identifier, .addressResolved))
            return 0
        }
    }

    /// rdma_resolve_route(3): on RoCE there is nothing to resolve.
    func resolveRoute(_ identifier: SoftwareIdentifier) -> Int32 {
        perform { _ in
            guard identifier.state.path != nil else { return EINVAL }
            identifier.state.channel.push(SoftwareEvent(identifier, .routeResolved))
            return 0
        }
    }

    /// rdma_connect(3): sends a REQ or SIDR_REQ.
    func connect(
        _ identifier: SoftwareIdentifier, _ parameters: ConnectionParameters, _ privateData: [UInt8]
    ) -> Int32 {
        perform { state in
            guard let path = identifier.state.path, let port = identifier.state.port,
                identifier.state.connection == nil, let local = identifier.local, let peer = identifier.peer
            else { return EINVAL }
            let addresses = IPAddresses(
                source: PortGID(local.host), destination: PortGID(peer.host), sourcePort: local.port)
            let serviceID = IPService.identifier(portSpace: identifier.portSpace.rawValue, port: peer.port)
            let connection: CMIdentifier
            if identifier.portSpace.isDatagram {
                var request = ServiceRequest()
                request.serviceID = serviceID
                request.privateData = addresses.bytes + privateData
                connection = state.endpoint.lookUp(request, on: path, now: Self.now)
            } else {
                guard let entry = port.entry(GID(path.local)) else { return EADDRNOTAVAIL }
                var request = ConnectRequest(parameters, port)
                request.serviceID = serviceID
                request.pathMTU = UInt8(truncatingIfNeeded: entry.mtu.rawValue)
                (request.localGID, request.remoteGID) = (path.local, path.remote)
                request.trafficClass = identifier.state.options.typeOfService ?? 0
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
    func establish(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            try state.endpoint.establish(connection, now: Self.now)
        }
    }

    /// rdma_accept(3): sends a REP or SIDR_REP.
    func accept(
        _ identifier: SoftwareIdentifier, _ parameters: ConnectionParameters, _ privateData: [UInt8]
    ) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            if identifier.portSpace.isDatagram {
                var reply = ServiceReply()
                reply.queuePairNumber = parameters.queuePairNumber
                reply.queueKey = Self.datagramQKey
                reply.privateData = privateData
                try state.endpoint.replyToService(connection, reply, now: Self.now)
            } else {
                guard let port = identifier.state.port, let path = identifier.state.path,
                    let request = identifier.state.request
                else { throw .state }
                var reply = identifier.state.reply ?? ConnectReply()
                reply.fill(parameters, port, request)
                reply.privateData = privateData
                try state.endpoint.accept(connection, reply, now: Self.now)
                identifier.state.reply = reply
                Self.watch(connection, path, peer: request.localID, &state)
            }
            uncount(identifier)
        }
    }

    /// rdma_reject(3).
    func reject(_ identifier: SoftwareIdentifier, _ privateData: [UInt8]) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            if identifier.portSpace.isDatagram {
                var reply = ServiceReply()
                reply.status = .rejected
                reply.privateData = privateData
                try state.endpoint.replyToService(connection, reply, now: Self.now)
            } else {
                try state.endpoint.reject(connection, privateData: privateData, now: Self.now)
            }
            uncount(identifier)
        }
    }

    /// rdma_disconnect(3).
    func disconnect(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in
            try state.endpoint.disconnect(connection, now: Self.now)
        }
    }

    /// rdma_notify(3) with IBV_EVENT_COMM_EST.
    func noteCommunication(_ identifier: SoftwareIdentifier) -> Int32 {
        call(identifier) { (state, connection) throws(CMCallError) in state.endpoint.noteCommunication(connection) }
    }

    /// rdma_init_qp_attr(3).
    func attributes(
        of identifier: SoftwareIdentifier, for next: QueuePair.State
    ) -> (errno: Int32, QueuePair.Attributes) {
        // The lock may be held for ever in a child of fork(2).
        if isInChild { return (EPERM, QueuePair.Attributes()) }
        return state.withLock { _ in
            let (errno, values, mask) = identifier.attributes(for: next)
            return (errno, QueuePair.Attributes(values, mask: QueuePair.Attributes.Mask(rawValue: mask)))
        }
    }

    /// rdma_set_option(3).
    func set(_ options: ConnectionIdentifierOptions, of identifier: SoftwareIdentifier) {
        if isInChild { return }
        state.withLock { _ in
            identifier.state.options.typeOfService = options.typeOfService ?? identifier.state.options.typeOfService
            identifier.state.options.isIPv6Only = options.isIPv6Only ?? identifier.state.options.isIPv6Only
            identifier.state.options.acknowledgeTimeout =
                options.acknowledgeTimeout ?? identifier.state.options.acknowledgeTimeout
        }
    }

    /// rdma_join_multicast(3): without a subnet manager, membership is that of the queue pairs that are attached.
    func join(_ identifier: SoftwareIdentifier, _ group: ConnectionAddress) -> Int32 {
        perform { state in
            guard let port = identifier.state.port, group.isMulticast else { return EINVAL }
            let local = identifier.local?.host ?? .zero
            let path = CMPath(local: PortGID(local), remote: PortGID(group.host), device: port.number)
            identifier.state.groups.append(group)
            var event = SoftwareEvent(identifier, .multicastJoin)
            let vector = SoftwareIdentifier.addressVector(path, port, identifier.state.options.typeOfService ?? 0)
            event.datagram = DatagramParameters(
                path: AddressVector(vector), queuePairNumber: 0xFF_FFFF, qkey: Self.datagramQKey)
            identifier.state.channel.push(event)
            return 0
        }
    }

    /// rdma_leave_multicast(3).
    func leave(_ identifier: SoftwareIdentifier, _ group: ConnectionAddress) -> Int32 {
        perform { _ in
            guard let index = identifier.state.groups.firstIndex(of: group) else { return EADDRNOTAVAIL }
            identifier.state.groups.remove(at: index)
            return 0
        }
    }

    /// rdma_migrate_id(3): events that wait move too.
    func migrate(_ identifier: SoftwareIdentifier, to channel: SoftwareChannel) {
        perform(inChild: ()) { _ in
            let waiting = identifier.state.channel.remove(identifier)
            identifier.state.channel = channel
            for event in waiting { channel.push(event) }
        }
    }

    /// rdma_destroy_id(3).
    func destroy(_ identifier: SoftwareIdentifier) {
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
            // A child of fork(2) may have a copy of the descriptor, which would keep the mailbox in the list.
            linux_ready_remove(state.mailboxes, identifier.mailbox)
            close(identifier.mailbox)
        }
        if let connection = identifier.connection {
            state.endpoint.release(connection, now: now)
            state.identifiers[connection] = nil
        }
    }
}

extension ConnectRequest {
    /// The parameters that this side offers. Depths that are not set are those of the device.
    fileprivate init(_ parameters: ConnectionParameters, _ port: SoftwarePort) {
        self.init()
        let limits = port.depthLimits
        localGUID = port.context.device.nodeGUID
        queuePairNumber = parameters.queuePairNumber
        responderResources = min(parameters.responderResources ?? limits.responder, limits.responder)
        initiatorDepth = min(parameters.initiatorDepth ?? limits.initiator, limits.initiator)
        flowControl = parameters.flowControl
        startingPSN = UInt32.random(in: 0...0xFF_FFFF)
        // 4.3 seconds, as the Linux kernel allows.
        (remoteResponseTimeout, localResponseTimeout) = (20, 20)
        retryCount = min(parameters.retryCount, 7)
        rnrRetryCount = min(parameters.rnrRetry, 7)
        maxCMRetries = 15
        hasSharedReceiveQueue = parameters.hasSharedReceiveQueue
        hopLimit = 64
        // 0.5 seconds.
        localACKTimeout = 17
    }
}

extension ConnectReply {
    fileprivate mutating func fill(
        _ parameters: ConnectionParameters, _ port: SoftwarePort, _ request: ConnectRequest
    ) {
        let limits = port.depthLimits
        localGUID = port.context.device.nodeGUID
        queuePairNumber = parameters.queuePairNumber
        responderResources = min(parameters.responderResources ?? limits.responder, request.initiatorDepth)
        initiatorDepth = min(parameters.initiatorDepth ?? limits.initiator, request.responderResources)
        flowControl = parameters.flowControl
        rnrRetryCount = min(parameters.rnrRetry, 7)
        hasSharedReceiveQueue = parameters.hasSharedReceiveQueue
        targetACKDelay = 15
    }
}

extension SoftwarePort {
    fileprivate var depthLimits: (responder: UInt8, initiator: UInt8) {
        guard let device = try? context.attributes() else { return (0, 0) }
        return (UInt8(clamping: device.maxQPRdAtom), UInt8(clamping: device.maxQPInitRdAtom))
    }
}

extension Route {
    /// The route to an address, as the routing tables say; no packet is sent.
    ///
    /// - Throws: The errno value of socket(2), bind(2) or connect(2), such as `ENETUNREACH`.
    init(to peer: ConnectionAddress, from source: ConnectionAddress?) throws(Errno) {
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(peer.isIPv4 ? AF_INET : AF_INET6, kind, 0)
        guard socket >= 0 else { throw Errno(rawValue: errno) }
        defer { close(socket) }
        if var source, !source.host.isZero {
            source.port = 0
            let bound = source.withRaw { Glibc.bind(socket, $0, Self.byteCount(source)) }
            guard bound == 0 else { throw Errno(rawValue: errno) }
        }
        var peer = peer
        // connect(2) accepts any port but 0.
        peer.port = 4791
        let connected = peer.withRaw { Glibc.connect(socket, $0, Self.byteCount(peer)) }
        guard connected == 0 else { throw Errno(rawValue: errno) }
        guard let route = try Route(of: FileDescriptor(rawValue: socket)) else { throw .addressFamilyNotSupported }
        self = route
    }

    private static func byteCount(_ address: ConnectionAddress) -> socklen_t {
        socklen_t(address.isIPv4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size)
    }
}
