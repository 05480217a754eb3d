import CIBVerbs
import CMProtocol
import CRDMACM
import SoftwareConnections
import SystemPackage
import Verbs

// Each call starts a step in the kernel and returns; the event that its documentation names reports the result.

extension ConnectionIdentifier {
    /// Binds to a local address: rdma_bind_addr(3). The address of a device also binds the identifier to that device.
    ///
    /// - Throws: `system` with `EADDRINUSE`, `EADDRNOTAVAIL`, or `ENODEV` when no device of the kernel has that
    ///   address.
    public func bind(to address: ConnectionAddress) throws(ConnectionError) {
        chooseSoftware { SoftwareService.isNamed(AddressRoute.interface(having: PortGID(address.host))) }
        try perform(
            "rdma_bind_addr", "bind to \(address)", kernel: address.withRaw { rdma_bind_addr(raw, $0) },
            software: { $0.bind($1, SocketAddress(address)) })
        guard let companion, address.isAny else { return }
        // A listener on every address has the same port at both.
        let bound = ConnectionAddress(host: address.host, port: localAddress?.port ?? address.port)
        let code = SoftwareService.shared.bind(companion, SocketAddress(bound))
        if code != 0 { throw ConnectionError("rdma_bind_addr", code: code, operation: "bind to \(bound)") }
    }

    /// Resolves an address to the local device that leads to it: rdma_resolve_addr(3). Ends with `addressResolved` or
    /// `addressError`.
    ///
    /// - Parameters:
    ///   - address: The peer's address, or a multicast address.
    ///   - source: The local address; nil: chosen by the routing tables.
    ///   - timeout: How long to try, in milliseconds.
    public func resolveAddress(
        _ address: ConnectionAddress, from source: ConnectionAddress? = nil, timeout: Duration
    ) throws(ConnectionError) {
        let time = milliseconds(timeout)
        chooseSoftware {
            SoftwareService.isNamed(
                (try? AddressRoute(to: SocketAddress(address), from: source.map { SocketAddress($0) }))?.interfaceIndex
                    ?? 0
            )
        }
        func resolve() -> Int32 {
            address.withRaw { peer in
                source?.withRaw { rdma_resolve_addr(raw, $0, peer, time) } ?? rdma_resolve_addr(raw, nil, peer, time)
            }
        }
        try perform(
            "rdma_resolve_addr", "find the way to \(address)", kernel: resolve(),
            software: {
                $0.resolveAddress($1, SocketAddress(address), from: source.map { SocketAddress($0) })
            })
    }

    /// Resolves the route to the resolved address: rdma_resolve_route(3). Ends with `routeResolved` or `routeError`.
    public func resolveRoute(timeout: Duration) throws(ConnectionError) {
        try requireDevice("find the route for \(self)")
        try perform(
            "rdma_resolve_route", "find the route for \(self)",
            kernel: rdma_resolve_route(raw, milliseconds(timeout)), software: { $0.resolveRoute($1) })
    }

    /// Listens at the bound address: rdma_listen(3). Each peer causes a `connectRequest`.
    ///
    /// - Parameter backlog: How many requests may wait to be accepted; 0: as many as the kernel allows.
    public func listen(backlog: Int32 = 0) throws(ConnectionError) {
        try perform(
            "rdma_listen", "listen with \(self)", kernel: rdma_listen(raw, backlog),
            software: { $0.listen($1, backlog: backlog) })
        guard let companion, localAddress?.isAny != false else { return }
        let code = SoftwareService.shared.listen(companion, backlog: backlog)
        if code != 0 { throw ConnectionError("rdma_listen", code: code, operation: "listen with \(self)") }
    }

    /// Requests a connection, or looks up a datagram service: rdma_connect(3). Ends with `connectResponse`
    /// (iWARP and datagrams: `established`), `rejected`, `unreachable` or `connectError`.
    ///
    /// On iWARP with siw it returns when the TCP connection is there or has failed, such as with `ECONNREFUSED`.
    ///
    /// - Parameters:
    ///   - parameters: must name the queue pair; not used for datagrams.
    ///   - privateData: at most `PrivateDataLimit.request` bytes, on iWARP `PrivateDataLimit.iWARP`.
    public func connect(
        _ parameters: ConnectionParameters, privateData: [UInt8] = []
    ) throws(ConnectionError) {
        try requireConnectable(privateData)
        try perform(
            "rdma_connect", "connect \(self)",
            kernel: parameters.withRaw(privateData) { rdma_connect(raw, $0) },
            software: { $0.connect($1, parameters.raw, privateData) })
    }

    /// Active side, after `connectResponse` and with the queue pair in RTS: completes the connection:
    /// rdma_establish(3). No event follows here.
    public func establish() throws(ConnectionError) {
        try perform(
            "rdma_establish", "complete the connection of \(self)", kernel: rdma_establish(raw),
            software: { $0.establish($1) })
    }

    /// Accepts a connect request: rdma_accept(3). The queue pair must be in RTS. Ends with `established`, or an error;
    /// no event follows for datagrams.
    ///
    /// - Parameters:
    ///   - parameters: must name the queue pair.
    ///   - privateData: at most `PrivateDataLimit.acceptance` bytes, on iWARP `PrivateDataLimit.iWARP`.
    public func accept(_ parameters: ConnectionParameters, privateData: [UInt8] = []) throws(ConnectionError) {
        try requireDevice("accept \(self)")
        try requireRoom(PrivateDataLimit.acceptance(portSpace), for: privateData, "an acceptance")
        try perform(
            "rdma_accept", "accept \(self)", kernel: parameters.withRaw(privateData) { rdma_accept(raw, $0) },
            software: { $0.accept($1, parameters.raw, privateData) })
    }

    /// Rejects a connect request or a connect response: rdma_reject(3).
    ///
    /// - Parameter privateData: at most `PrivateDataLimit.rejection` bytes, on iWARP `PrivateDataLimit.iWARP`.
    public func reject(privateData: [UInt8] = []) throws(ConnectionError) {
        try requireRoom(PrivateDataLimit.rejection(portSpace), for: privateData, "a rejection")
        func reject() -> Int32 {
            privateData.withUnsafeBufferPointer {
                rdma_reject(raw, UnsafeRawPointer($0.baseAddress), UInt8(clamping: $0.count))
            }
        }
        try perform(
            "rdma_reject", "reject \(self)", kernel: reject(), software: { $0.reject($1, privateData) })
    }

    /// Ends the connection, or replies to the peer's disconnect request: rdma_disconnect(3). Ends with `disconnected`,
    /// and with `timeWaitExit` when the queue pair may be used again.
    public func disconnect() throws(ConnectionError) {
        try requireDevice("disconnect \(self)")
        try perform(
            "rdma_disconnect", "disconnect \(self)", kernel: rdma_disconnect(raw), software: { $0.disconnect($1) })
    }

    /// Reports an asynchronous event of the queue pair to the kernel: rdma_notify(3). Only `communicationEstablished`
    /// has an effect: data arrived before the peer's RTU, which may be lost. Other events are ignored.
    public func notify(_ event: AsynchronousEvent) throws(ConnectionError) {
        guard event.type == .communicationEstablished else { return }
        try perform(
            "rdma_notify", "notify \(self)", kernel: rdma_notify(raw, IBV_EVENT_COMM_EST),
            software: { $0.noteCommunication($1) })
    }

    /// The attributes that move the queue pair to that state: rdma_init_qp_attr(3). On iWARP, where the kernel modifies
    /// the queue pair itself, only the state.
    public func queuePairAttributes(for state: QueuePair.State) throws(ConnectionError) -> QueuePair.Attributes {
        try requireDevice("ask for attributes of \(self)")
        var values = ibv_qp_attr()
        values.qp_state = ibv_qp_state(rawValue: state.rawValue)
        var mask: Int32 = 0
        var found: QueuePair.Attributes?
        try perform(
            "rdma_init_qp_attr", "ask for attributes of \(self)", kernel: rdma_init_qp_attr(raw, &values, &mask),
            software: { service, identifier in
                let attributes = service.attributes(of: identifier, for: ibv_qp_state(rawValue: state.rawValue))
                found = QueuePair.Attributes(
                    attributes.values, mask: QueuePair.Attributes.Mask(rawValue: attributes.mask))
                return attributes.errno
            })
        if let found { return found }
        // Bits 21 to 24 are the kernel's own (addresses and VLANs of RoCE); its uverbs refuse them.
        var attributes = QueuePair.Attributes(
            values, mask: QueuePair.Attributes.Mask(rawValue: UInt32(bitPattern: mask) & 0x1f_ffff))
        attributes.state = state
        return attributes
    }

    /// Throws when the identifier has no device: librdmacm dereferences `rdma_cm_id.verbs` without a check.
    private func requireDevice(_ operation: @autoclosure () -> String) throws(ConnectionError) {
        guard raw.pointee.verbs == nil else { return }
        throw ConnectionError(
            .invalid("it is not bound to a device: resolve the address first"), operation: operation())
    }

    /// Throws when rdma_connect(3) cannot be called with that private data.
    func requireConnectable(_ privateData: [UInt8]) throws(ConnectionError) {
        try requireDevice("connect \(self)")
        try requireRoom(PrivateDataLimit.request(portSpace), for: privateData, "a request")
    }

    private func requireRoom(_ limit: Int, for privateData: [UInt8], _ what: String) throws(ConnectionError) {
        let limit = isIWARP ? PrivateDataLimit.iWARP : limit
        guard privateData.count > limit else { return }
        let carrier = isIWARP ? "iWARP" : "\(portSpace)"
        throw ConnectionError(
            .invalid("\(privateData.count) bytes of private data, but \(what) of \(carrier) has room for \(limit)"),
            operation: "send private data with \(self)",
            hint: "send the rest over the connection")
    }
}

/// A time limit in milliseconds for librdmacm, at least 1.
private func milliseconds(_ time: Duration) -> Int32 {
    let (seconds, attoseconds) = time.components
    let whole = seconds.multipliedReportingOverflow(by: 1000)
    guard !whole.overflow else { return seconds > 0 ? .max : 1 }
    return max(1, Int32(clamping: whole.partialValue + attoseconds / 1_000_000_000_000_000))
}

// MARK: - Options

/// Options of an identifier, set before it is bound (rdma_set_option(3), level `RDMA_OPTION_ID`).
public struct ConnectionIdentifierOptions: Hashable, Sendable {
    /// Type of service (`RDMA_OPTION_ID_TOS`): on RoCE the DSCP in the upper six bits (RFC 2474), on InfiniBand it
    /// chooses the service level.
    public var typeOfService: UInt8?
    /// Whether other identifiers may bind to the same address (`RDMA_OPTION_ID_REUSEADDR`).
    public var reusesAddress: Bool?
    /// Whether a listener on an IPv6 address accepts no IPv4 peers (`RDMA_OPTION_ID_AFONLY`).
    public var isIPv6Only: Bool?
    /// Local ACK Timeout of the queue pair (`RDMA_OPTION_ID_ACK_TIMEOUT`): 4.096 µs times 2 to this power, 0 to 31.
    public var acknowledgeTimeout: UInt8?

    /// No options.
    public init() {}
}

extension ConnectionIdentifier {
    /// Sets those options that are not nil: rdma_set_option(3).
    public func set(_ options: ConnectionIdentifierOptions) throws(ConnectionError) {
        if let timeout = options.acknowledgeTimeout, timeout > 31 {
            throw ConnectionError(
                .invalid("an acknowledge timeout of \(timeout): it is a power of two, from 0 to 31"),
                operation: "set options of \(self)")
        }
        setSoftware(options)
        if isSoftware { return }
        try set(RDMA_OPTION_ID_TOS, "typeOfService", options.typeOfService)
        try set(RDMA_OPTION_ID_REUSEADDR, "reusesAddress", options.reusesAddress.map { Int32($0 ? 1 : 0) })
        try set(RDMA_OPTION_ID_AFONLY, "isIPv6Only", options.isIPv6Only.map { Int32($0 ? 1 : 0) })
        try set(RDMA_OPTION_ID_ACK_TIMEOUT, "acknowledgeTimeout", options.acknowledgeTimeout)
    }

    private func set(_ option: Int, _ name: String, _ value: (some BitwiseCopyable)?) throws(ConnectionError) {
        guard var value else { return }
        func set() -> Int32 {
            withUnsafeMutableBytes(of: &value) {
                rdma_set_option(raw, Int32(RDMA_OPTION_ID), Int32(option), $0.baseAddress, $0.count)
            }
        }
        try check("rdma_set_option", "set the option \(name) of \(self)", set())
    }
}

// MARK: - Multicast

extension ConnectionIdentifier {
    /// Joins a multicast group: rdma_join_multicast(3), rdma_join_multicast_ex(3). Ends with `multicastJoin` or
    /// `multicastError`. A queue pair receives its datagrams after it is attached to the event's group.
    ///
    /// - Parameters:
    ///   - group: The address of the group. It must have been resolved, or the identifier bound.
    ///   - isSendOnly: Whether to send to the group only (InfiniBand; `RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER`).
    ///     Otherwise the port is a full member (`RDMA_MC_JOIN_FLAG_FULLMEMBER`).
    public func join(_ group: ConnectionAddress, isSendOnly: Bool = false) throws(ConnectionError) {
        try requireDevice("join \(group)")
        func join() -> Int32 {
            group.withRaw { address in
                guard isSendOnly else { return rdma_join_multicast(raw, address, nil) }
                var attributes = rdma_cm_join_mc_attr_ex()
                attributes.comp_mask =
                    RDMA_CM_JOIN_MC_ATTR_ADDRESS.rawValue | RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS.rawValue
                attributes.join_flags = RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER.rawValue
                attributes.addr = address
                return rdma_join_multicast_ex(raw, &attributes, nil)
            }
        }
        try perform(
            isSendOnly ? "rdma_join_multicast_ex" : "rdma_join_multicast", "join \(group)", kernel: join(),
            software: { $0.join($1, SocketAddress(group)) })
        remember(group, isMember: true)
    }

    /// Leaves a multicast group: rdma_leave_multicast(3). Detach its queue pairs first.
    public func leave(_ group: ConnectionAddress) throws(ConnectionError) {
        remember(group, isMember: false)
        try perform(
            "rdma_leave_multicast", "leave \(group)", kernel: group.withRaw { rdma_leave_multicast(raw, $0) },
            software: { $0.leave($1, SocketAddress(group)) })
    }
}
