import ProviderLoader
import Verbs

/// The listening side: an asynchronous sequence of the requests to a port of rdma_cm (rdma_listen(3)).
///
/// ```swift
/// for try await request in try Listener(port: 7471) {
///     let domain = try request.openDevice().makeProtectionDomain()
///     var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
///     try request.prepare(pair)                      // now receives can be posted
///     let connection = try await request.accept(pair)
/// }
/// ```
public final class Listener: Sendable, AsyncSequence {
    /// One request.
    public typealias Element = ConnectionRequest
    /// The error that waiting throws.
    public typealias Failure = ConnectionError

    /// The identifier (`rdma_cm_id`), for calls that this class does not offer.
    public let identifier: ConnectionIdentifier
    private let channel: EventChannel
    /// The identifier for IPv4 peers, where that of IPv6 cannot serve them.
    private let forIPv4: ConnectionIdentifier?

    /// Begins to listen: rdma_bind_addr(3), rdma_listen(3).
    ///
    /// - Parameters:
    ///   - address: The local address; the kernel chooses the port when it is 0.
    ///   - portSpace: `tcp` for connections, `udp` for datagram services.
    ///   - backlog: The largest number of pending requests; 0: the limit of the kernel.
    ///   - options: Options of the identifier, such as the type of service.
    /// - Throws: `system` as `EventChannel`, and with `EADDRINUSE` or `ENODEV` as `ConnectionIdentifier.bind`.
    public init(
        on address: ConnectionAddress, portSpace: PortSpace = .tcp, backlog: Int32 = 0,
        options: ConnectionIdentifierOptions = .init()
    ) throws(ConnectionError) {
        channel = try EventChannel()
        identifier = try Self.listen(on: address, portSpace, backlog, options, channel)
        forIPv4 = nil
    }

    private static func listen(
        on address: ConnectionAddress, _ portSpace: PortSpace, _ backlog: Int32,
        _ options: ConnectionIdentifierOptions, _ channel: EventChannel
    ) throws(ConnectionError) -> ConnectionIdentifier {
        let identifier = try ConnectionIdentifier(channel: channel, portSpace: portSpace)
        try identifier.set(options)
        try identifier.bind(to: address)
        if portSpace.isDatagram { try identifier.requireDatagrams("rdma_listen", "listen at \(address)") }
        try identifier.listen(backlog: backlog)
        return identifier
    }

    /// Listens at every IPv6 address, and with a second identifier at every IPv4 address. Linux rejects IPv4 peers of an
    /// iWARP listener at `[::]`: it does not know their addresses in the form that the IPv6 socket gives them.
    private init(
        atBothFamilies port: UInt16, _ portSpace: PortSpace, _ backlog: Int32, _ options: ConnectionIdentifierOptions
    ) throws(ConnectionError) {
        channel = try EventChannel()
        var separate = options
        separate.isIPv6Only = true
        identifier = try Self.listen(on: .any(port: port), portSpace, backlog, separate, channel)
        let port = identifier.localAddress?.port ?? port
        forIPv4 = try Self.listen(on: .anyIPv4(port: port), portSpace, backlog, options, channel)
    }

    /// Whether this host has an iWARP device.
    private static var hasIWARP: Bool { (try? Device.list())?.contains { $0.transportType == .iWARP } ?? false }

    /// Begins to listen at every address of this host, IPv4 and IPv6. On a host with an iWARP device, `identifier` is
    /// the one for IPv6, and each family has a backlog of its own.
    public convenience init(
        port: UInt16, portSpace: PortSpace = .tcp, backlog: Int32 = 0, options: ConnectionIdentifierOptions = .init()
    ) throws(ConnectionError) {
        let isSeparate = !portSpace.isDatagram && options.isIPv6Only == nil && Self.hasIWARP
        do throws(ConnectionError) {
            if isSeparate {
                try self.init(atBothFamilies: port, portSpace, backlog, options)
            } else {
                try self.init(on: .any(port: port), portSpace: portSpace, backlog: backlog, options: options)
            }
        } catch {
            guard case .system("rdma_bind_addr", let errno) = error.reason,
                errno == .addressFamilyNotSupported || errno == .addressNotAvailable
            else { throw error }
            // IPv6 is switched off.
            try self.init(on: .anyIPv4(port: port), portSpace: portSpace, backlog: backlog, options: options)
        }
    }

    /// The port that it listens at; if 0 was requested, the port that the kernel chose.
    public var port: UInt16 { identifier.localAddress?.port ?? 0 }

    /// Waits for the next request (`RDMA_CM_EVENT_CONNECT_REQUEST`); nil when the task is cancelled. A request stays in
    /// the kernel until a task waits for it.
    ///
    /// Each request needs a descriptor. When the process has none left, the peer is rejected, the log says so
    /// (`ProviderLoader.messages`), and the next request is awaited.
    public func next() async throws(ConnectionError) -> ConnectionRequest? {
        while let event = try await channel.nextEventForTask() {
            var request: ConnectionRequest?
            if event.type == .deviceRemoval, event.identifier === identifier {
                throw ConnectionError(.deviceRemoved, operation: "listen with \(identifier)")
            }
            // Other events are of peers that cancelled their request before `next` returned it.
            guard event.type == .connectRequest else { continue }
            // On failure the peer is rejected when its identifier is destroyed. The error is logged, not thrown: too
            // many requests must not end the loop of a server.
            report { () throws(ConnectionError) in request = try ConnectionRequest(event) }
            if let request { return request }
        }
        return nil
    }

    /// A step through the sequence.
    public func makeAsyncIterator() -> Iterator { Iterator(listener: self) }

    /// Steps through the sequence.
    public struct Iterator: AsyncIteratorProtocol {
        let listener: Listener

        /// The next peer; nil when the task is cancelled.
        public mutating func next() async throws(ConnectionError) -> ConnectionRequest? { try await listener.next() }

        /// The next peer; nil when the task is cancelled.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws(ConnectionError) -> ConnectionRequest? {
            try await listener.next()
        }
    }
}

/// A peer's request for a connection, or its look-up of a datagram service (`RDMA_CM_EVENT_CONNECT_REQUEST`). A request
/// that is neither accepted nor rejected is rejected when its last reference is released.
public final class ConnectionRequest: Sendable {
    /// The parameters that the peer requests, from the point of view of this side (`rdma_cm_event.param.conn`); nil for
    /// datagrams.
    public let parameters: ConnectionParameters?
    /// The private data of the request, padded with zeroes.
    public let privateData: [UInt8]
    private let managed: ManagedConnection

    init(_ event: ConnectionEvent) throws(ConnectionError) {
        parameters = event.connection
        privateData = event.privateData
        let channel = try EventChannel()
        try event.identifier.migrate(to: channel)
        managed = ManagedConnection(event.identifier, channel: channel)
    }

    /// The identifier (`rdma_cm_id`), for calls that this class does not offer.
    public var identifier: ConnectionIdentifier { managed.identifier }
    /// The peer's address: rdma_get_peer_addr(3).
    public var peerAddress: ConnectionAddress? { identifier.peerAddress }
    /// Name of the device that received the request.
    public var deviceName: String { identifier.deviceName ?? "" }

    /// Opens the device that received the request. Make the queue pair there.
    ///
    /// - Throws: The errors of `ConnectionIdentifier.openDevice`.
    public func openDevice(from loader: ProviderLoader = .standard) throws(ConnectionError) -> Context {
        try identifier.openDevice(from: loader)
    }

    private var peerName: String { peerAddress?.description ?? "the peer" }

    /// Moves a queue pair from RESET to INIT, where receives can be posted, or a UD queue pair to RTS. `accept` does
    /// the same to a queue pair in RESET.
    ///
    /// - Throws: `invalid` when the queue pair is on another device, of the wrong type or in another state; `verbs`.
    public func prepare(_ queuePair: borrowing QueuePair) throws(ConnectionError) {
        try managed.prepare(queuePair, "prepare a queue pair for \(peerName)")
    }

    /// Accepts the connection, and waits until it is established: rdma_accept(3). Possible once for each request; after
    /// an error, release it.
    /// When data arrives before the peer's RTU, which may be lost, the device raises the asynchronous event
    /// `communicationEstablished`: pass it to `identifier.notify`.
    ///
    /// - Parameters:
    ///   - queuePair: An RC queue pair on `openDevice`'s device, in RESET or INIT. The caller keeps it. After an error
    ///     it is in ERR.
    ///   - parameters: The parameters that this side offers; the number of the queue pair is filled in.
    ///   - privateData: Private data of the acceptance; at most 196 bytes, on iWARP 251.
    ///   - timeout: How long to wait for the peer.
    /// - Throws: `rejected`, `unreachable`, `timedOut` when the peer goes meanwhile; `verbs` or `system`
    ///   with `EINVAL` when it had gone before; `cancelled`, `invalid`.
    public func accept(
        _ queuePair: borrowing QueuePair, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = Connector.defaultTimeout
    ) async throws(ConnectionError) -> Connection {
        let operation = "accept \(peerName)"
        try identifier.require(isDatagram: false, operation)
        try managed.prepare(queuePair, operation)
        let depths: Depths
        do throws(VerbsError) { depths = try Depths(parameters, on: queuePair.context) } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        try managed.claim(queuePair, operation)
        var answer = parameters.with(queuePair)
        answer.responderResources = min(depths.responder, self.parameters?.responderResources ?? 0)
        answer.initiatorDepth = min(depths.initiator, self.parameters?.initiatorDepth ?? 0)
        do throws(ConnectionError) {
            // The peer may send as soon as it has the REP.
            try managed.moveToReady(depths, operation)
            try identifier.accept(answer, privateData: privateData)
            let event = try await managed.await([.established], within: timeout, operation)
            managed.advance(to: .connected)
            return Connection(managed, event)
        } catch {
            managed.abandon()
            throw error
        }
    }

    /// Accepts the look-up of a datagram service: sends the QPN and the Q_Key to the peer (rdma_accept(3)). No event
    /// follows.
    ///
    /// - Parameters:
    ///   - queuePair: A UD queue pair on `openDevice`'s device: in RESET, or one that an earlier look-up returned.
    ///   - privateData: Private data of the SIDR_REP; at most 136 bytes.
    /// - Throws: `invalid`, such as when the peer requests a connection; `verbs`, `system`.
    public func acceptDatagrams(
        _ queuePair: borrowing QueuePair, privateData: [UInt8] = []
    ) throws(ConnectionError) {
        let operation = "accept \(peerName)"
        try identifier.require(isDatagram: true, operation)
        try managed.prepare(queuePair, operation)
        try identifier.accept(ConnectionParameters().with(queuePair), privateData: privateData)
    }

    /// Rejects the request: rdma_reject(3).
    ///
    /// - Parameter privateData: Private data of the rejection; at most 148 bytes, of a datagram service 136, on iWARP 251.
    public func reject(privateData: [UInt8] = []) throws(ConnectionError) {
        try identifier.reject(privateData: privateData)
    }
}
