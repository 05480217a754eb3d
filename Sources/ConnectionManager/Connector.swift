import ProviderLoader
import Verbs

/// The connecting side: an address that is resolved to a device and a route. Each makes one connection, looks up one
/// datagram service, or joins one multicast group.
///
/// ```swift
/// let connector = try await Connector.resolve("node7", port: 7471)
/// let domain = try connector.openDevice().makeProtectionDomain()
/// var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
/// try connector.prepare(pair)                        // now receives can be posted
/// let connection = try await connector.connect(pair)
/// ```
public final class Connector: Sendable {
    /// The default time limit of each step: ten seconds.
    public static let defaultTimeout: Duration = .seconds(10)

    /// The address of the peer or the multicast group.
    public let address: ConnectionAddress
    private let managed: ManagedConnection

    private init(_ address: ConnectionAddress, _ managed: ManagedConnection) {
        self.address = address
        self.managed = managed
    }

    /// Resolves a host to a device and a route: getaddrinfo(3), rdma_resolve_addr(3), rdma_resolve_route(3).
    ///
    /// All addresses of the host are tried in the order in which the system gives them, each for its share of the time
    /// that is left: of three addresses the first takes a third of the time at most. The time limit does not cover the
    /// look-up of the name.
    ///
    /// - Parameters:
    ///   - host: Name or address of the host; of a multicast group its address.
    ///   - port: The port of rdma_cm.
    ///   - portSpace: `tcp` for connections, `udp` for datagrams.
    ///   - source: The local address; nil: chosen by the routing tables.
    ///   - options: Options of the identifier, such as the type of service.
    ///   - timeout: The time limit of all addresses together.
    /// - Throws: `unresolvable`, `addressNotResolved`, `routeNotResolved`, `timedOut`, `cancelled`, `invalid`; `system`
    ///   as `EventChannel`. Of several addresses the error has the reason of the first one, and all in its `attempts`.
    public static func resolve(
        _ host: String, port: UInt16, portSpace: PortSpace = .tcp, from source: ConnectionAddress? = nil,
        options: ConnectionIdentifierOptions = .init(), timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connector {
        let addresses = try ConnectionAddress.resolve(host, port: port)
        return try await first(of: addresses, within: timeout, "find the way to the host \"\(host)\"") {
            (address, time) async throws(ConnectionError) in
            try await resolve(address, portSpace: portSpace, from: source, options: options, timeout: time)
        }
    }

    /// The result of `reach` for the first address for which it does not throw. Each address gets its share of the
    /// remaining time.
    static func first<Reached>(
        of addresses: [ConnectionAddress], within timeout: Duration, _ operation: String,
        _ reach: (ConnectionAddress, Duration) async throws(ConnectionError) -> Reached
    ) async throws(ConnectionError) -> Reached {
        precondition(!addresses.isEmpty)
        let deadline = ContinuousClock.now + timeout
        var attempts: [ConnectionError.Attempt] = []
        for (index, address) in addresses.enumerated() {
            let left = addresses.count == 1 ? timeout : max(deadline - ContinuousClock.now, .zero)
            do throws(ConnectionError) {
                return try await reach(address, left / (addresses.count - index))
            } catch {
                if addresses.count == 1 || error.concernsEveryAddress { throw error }
                attempts.append(ConnectionError.Attempt(address: address, error: error))
            }
        }
        throw ConnectionError(attempts: attempts, operation: operation)
    }

    /// Resolves one address, and the route to it: rdma_resolve_addr(3), rdma_resolve_route(3).
    ///
    /// - Parameters:
    ///   - address: The address of the peer.
    ///   - portSpace: The port space (`enum rdma_port_space`).
    ///   - source: The local address; by default the system chooses it.
    ///   - options: Options of the identifier.
    ///   - timeout: The longest time for both steps together.
    public static func resolve(
        _ address: ConnectionAddress, portSpace: PortSpace = .tcp, from source: ConnectionAddress? = nil,
        options: ConnectionIdentifierOptions = .init(), timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connector {
        let channel = try EventChannel()
        let identifier = try ConnectionIdentifier(channel: channel, portSpace: portSpace)
        try identifier.set(options)
        let managed = ManagedConnection(identifier, channel: channel)
        let operation = "find the way to \(address)"
        let start = ContinuousClock.now
        do throws(ConnectionError) {
            try identifier.resolveAddress(address, from: source, timeout: timeout)
            // The kernel ends the step in time and reports the reason; the grace covers the case that it does not.
            _ = try await managed.await(
                [.addressResolved], within: timeout, since: start, grace: .seconds(1), operation)
            if !address.isMulticast {
                try identifier.resolveRoute(timeout: timeout - (ContinuousClock.now - start))
                _ = try await managed.await(
                    [.routeResolved], within: timeout, since: start, grace: .seconds(1), operation)
            }
        } catch {
            let hint = ConnectionAdvice.unresolved(error, isMulticast: address.isMulticast, from: source)
            throw ConnectionError(error.reason, operation: operation, hint: hint)
        }
        return Connector(address, managed)
    }

    /// The identifier (`rdma_cm_id`), for calls that this class does not offer.
    public var identifier: ConnectionIdentifier { managed.identifier }
    /// Name of the device on the route to the peer.
    public var deviceName: String { managed.identifier.deviceName ?? "" }

    /// Opens the device on the route to the peer. Make the queue pair there.
    ///
    /// - Throws: The errors of `ConnectionIdentifier.openDevice`.
    public func openDevice(from loader: ProviderLoader = .standard) throws(ConnectionError) -> Context {
        try managed.identifier.openDevice(from: loader)
    }

    /// Moves a queue pair from RESET to INIT, where receives can be posted, or a UD queue pair to RTS. `connect` does
    /// the same to a queue pair in RESET.
    ///
    /// - Throws: `invalid` when the queue pair is on another device, of the wrong type or in another state; `verbs`.
    public func prepare(_ queuePair: borrowing QueuePair) throws(ConnectionError) {
        try managed.prepare(queuePair, "prepare a queue pair for \(address)")
    }

    /// Connects: rdma_connect(3). Possible once for each Connector; after an error, resolve again.
    ///
    /// On iWARP the kernel may wait up to ten seconds more for the peer's MPA reply when the connector and the queue
    /// pair are destroyed after `timedOut` or `cancelled`.
    ///
    /// - Parameters:
    ///   - queuePair: An RC queue pair on `openDevice`'s device, in RESET or INIT. The caller keeps it. After an error
    ///     it is in ERR.
    ///   - parameters: The parameters that this side offers; the number of the queue pair is filled in.
    ///   - privateData: Private data of the request; at most 56 bytes, on iWARP 251.
    ///   - timeout: The longest time to wait for the peer's reply.
    /// - Throws: `rejected` with the peer's reason and private data, `unreachable`, `timedOut`, `cancelled`, `invalid`,
    ///   `verbs`.
    public func connect(
        _ queuePair: borrowing QueuePair, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connection {
        let operation = "connect to \(address)"
        try identifier.require(isDatagram: false, operation)
        try managed.prepare(queuePair, operation)
        let depths: Depths
        do throws(VerbsError) { depths = try Depths(parameters, on: queuePair.context) } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        try managed.claim(queuePair, operation)
        let parameters = parameters.with(queuePair)
        do throws(ConnectionError) {
            let start = ContinuousClock.now
            if identifier.isIWARP {
                try await managed.dial(parameters, privateData: privateData, within: timeout, operation)
            } else {
                try identifier.connect(parameters, privateData: privateData)
            }
            let answer = try await managed.await(
                [.connectResponse, .established], within: timeout, since: start, operation)
            // On iWARP there is no CONNECT_RESPONSE, and the kernel has moved the queue pair.
            if answer.type == .connectResponse { try complete(depths, operation) }
            managed.advance(to: .connected)
            return Connection(managed, answer)
        } catch {
            managed.abandon()
            throw error
        }
    }

    /// Completes the connection after the peer's REP: moves the queue pair to RTS and sends the RTU.
    private func complete(_ depths: Depths, _ operation: String) throws(ConnectionError) {
        do throws(ConnectionError) {
            try managed.moveToReady(depths, operation)
            try identifier.establish()
        } catch {
            // The peer would wait for the RTU. The first error is thrown.
            try? identifier.reject()
            throw error
        }
    }

    /// Looks up the datagram service at the address: rdma_connect(3) of a UDP identifier (SIDR; IBTA volume 1, 12.11).
    /// Any UD queue pair of this device can send there.
    ///
    /// - Parameters:
    ///   - privateData: Private data of the request; at most 180 bytes.
    ///   - timeout: The longest time to wait for the reply.
    /// - Returns: The service, for `ProtectionDomain.makeDestination`, and the private data of the peer's SIDR_REP.
    /// - Throws: `serviceRefused` with the peer's status and private data, `unreachable`, `timedOut`, `cancelled`;
    ///   `invalid` when the address was not resolved for datagrams.
    public func lookUp(
        privateData: [UInt8] = [], timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> (service: DatagramParameters, privateData: [UInt8]) {
        let operation = "look up the datagram service at \(address)"
        try identifier.require(isDatagram: true, operation)
        try identifier.requireDatagrams("rdma_connect", operation)
        try identifier.connect(ConnectionParameters(), privateData: privateData)
        let answer = try await managed.await([.established], within: timeout, operation)
        guard let service = answer.datagram else {
            throw ConnectionError(.invalid("the kernel reported no service"), operation: operation)
        }
        return (service, answer.privateData)
    }

    /// Joins the multicast group of the address, and attaches the queue pair, which then receives its datagrams:
    /// rdma_join_multicast(3), ibv_attach_mcast(3).
    ///
    /// - Parameters:
    ///   - queuePair: a UD queue pair on `openDevice`'s device.
    ///   - isSendOnly: Whether to send to the group only (`RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER`); then the queue pair
    ///     is not attached.
    ///   - timeout: How long to wait for the join.
    /// - Throws: `multicastNotJoined`, `timedOut`, `cancelled`, `invalid`, `verbs`.
    public func join(
        _ queuePair: borrowing QueuePair, isSendOnly: Bool = false, timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> MulticastMembership {
        let operation = "join the group \(address.host)"
        try identifier.require(isDatagram: true, operation)
        try identifier.requireDatagrams("rdma_join_multicast", operation)
        try managed.prepare(queuePair, operation)
        let control = QueuePairControl(queuePair)
        try identifier.join(address, isSendOnly: isSendOnly)
        let answer = try await managed.await([.multicastJoin], within: timeout, operation)
        guard let group = answer.datagram else {
            throw ConnectionError(.invalid("the kernel reported no group"), operation: operation)
        }
        do throws(VerbsError) {
            if !isSendOnly { try control.attach(to: group.group) }
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        return MulticastMembership(managed, address, group, isSendOnly ? nil : control)
    }
}

/// Membership of a multicast group. The last reference to it leaves the group (rdma_leave_multicast(3)).
public final class MulticastMembership: Sendable {
    /// The group, for `ProtectionDomain.makeDestination`.
    public let group: DatagramParameters
    private let managed: ManagedConnection
    private let address: ConnectionAddress
    private let queuePair: QueuePairControl?

    init(
        _ managed: ManagedConnection, _ address: ConnectionAddress, _ group: DatagramParameters,
        _ queuePair: QueuePairControl?
    ) {
        self.managed = managed
        self.address = address
        self.group = group
        self.queuePair = queuePair
    }

    deinit {
        let operation = "leave the group \(address.host)"
        report { () throws(ConnectionError) in
            do throws(VerbsError) { try queuePair?.detach(from: group.group) } catch {
                throw ConnectionError(.verbs(error), operation: operation)
            }
        }
        report { () throws(ConnectionError) in try managed.identifier.leave(address) }
    }

    /// Waits for the next event: `RDMA_CM_EVENT_MULTICAST_ERROR` when the membership is lost,
    /// `RDMA_CM_EVENT_DEVICE_REMOVAL`.
    ///
    /// - Parameter timeout: How long to wait; nil waits without a limit.
    /// - Returns: The event; nil when the time is over.
    public func nextEvent(timeout: Duration? = nil) async throws(ConnectionError) -> ConnectionEvent? {
        try await managed.next(until: timeout.map { .now + $0 }, "wait for events of the group \(address.host)")
    }
}

extension ConnectionError {
    /// Whether the error would be the same for every other address of the host.
    fileprivate var concernsEveryAddress: Bool {
        switch reason {
        case .cancelled, .invalid: true
        case .system(let call, _): call != "rdma_resolve_addr" && call != "rdma_resolve_route"
        default: false
        }
    }
}
