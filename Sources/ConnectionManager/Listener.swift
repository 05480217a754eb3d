import ProviderLoader
import Verbs

/// The side that is asked: waits for peers at a port of rdma_cm, as an asynchronous sequence of requests.
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
    /// One peer that asks.
    public typealias Element = ConnectionRequest
    /// What waiting throws.
    public typealias Failure = ConnectionError

    /// The identifier, for what this class does not do.
    public let identifier: ConnectionIdentifier
    private let channel: EventChannel

    /// Begins to listen.
    ///
    /// - Parameters:
    ///   - address: the local address; its port 0 lets the kernel choose.
    ///   - portSpace: `tcp` for connections, `udp` for datagram services.
    ///   - backlog: how many peers may wait; 0: as many as the kernel allows.
    ///   - options: type of service and the like.
    /// - Throws: `system` as `EventChannel`, and with `EADDRINUSE` or `ENODEV` as `ConnectionIdentifier.bind`.
    public init(
        on address: ConnectionAddress, portSpace: PortSpace = .tcp, backlog: Int32 = 0,
        options: ConnectionIdentifierOptions = .init()
    ) throws(ConnectionError) {
        channel = try EventChannel()
        identifier = try ConnectionIdentifier(channel: channel, portSpace: portSpace)
        try identifier.set(options)
        try identifier.bind(to: address)
        try identifier.listen(backlog: backlog)
    }

    /// Begins to listen at every address of this host, IPv4 and IPv6.
    public convenience init(
        port: UInt16, portSpace: PortSpace = .tcp, backlog: Int32 = 0, options: ConnectionIdentifierOptions = .init()
    ) throws(ConnectionError) {
        do throws(ConnectionError) {
            try self.init(on: .any(port: port), portSpace: portSpace, backlog: backlog, options: options)
        } catch {
            guard case .system("rdma_bind_addr", let errno) = error.reason,
                errno == .addressFamilyNotSupported || errno == .addressNotAvailable
            else { throw error }
            // IPv6 is switched off.
            try self.init(on: .anyIPv4(port: port), portSpace: portSpace, backlog: backlog, options: options)
        }
    }

    /// The port that it listens at; the one the kernel chose if 0 was asked for.
    public var port: UInt16 { identifier.localAddress?.port ?? 0 }

    /// Waits for the next peer; nil when the task is cancelled. A request that nobody waits for stays in the kernel.
    ///
    /// Each request takes a descriptor: a peer for whom the process has none left is refused, and the next one awaited.
    public func next() async throws(ConnectionError) -> ConnectionRequest? {
        while let event = try await channel.nextEventForTask() {
            if event.kind == .deviceRemoval, event.identifier === identifier {
                throw ConnectionError(.deviceRemoved, operation: "listen with \(identifier)")
            }
            // Others are of peers that gave up before their request was taken.
            guard event.kind == .connectRequest else { continue }
            // The peer is refused when its identifier goes: how many ask must not end the loop of a server.
            if let request = try? ConnectionRequest(event) { return request }
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

/// A peer that wants a connection, or looks for a datagram service. It is refused when the last reference goes
/// unanswered.
public final class ConnectionRequest: Sendable {
    /// What the peer asks for, seen from this side; nil for datagrams.
    public let parameters: ConnectionParameters?
    /// What the peer sent along, filled up with zeroes.
    public let privateData: [UInt8]
    private let conversation: Conversation

    init(_ event: ConnectionEvent) throws(ConnectionError) {
        parameters = event.connection
        privateData = event.privateData
        let channel = try EventChannel()
        try event.identifier.migrate(to: channel)
        conversation = Conversation(event.identifier, channel: channel)
    }

    /// The identifier, for what this class does not do.
    public var identifier: ConnectionIdentifier { conversation.identifier }
    /// The peer's address.
    public var peerAddress: ConnectionAddress? { identifier.peerAddress }
    /// Name of the device that the request came to.
    public var deviceName: String { identifier.deviceName ?? "" }

    /// Opens the device that the request came to: the queue pair must be made there.
    ///
    /// - Throws: as `ConnectionIdentifier.openDevice`.
    public func openDevice(from loader: ProviderLoader = .standard) throws(ConnectionError) -> Context {
        try identifier.openDevice(from: loader)
    }

    private var peerName: String { peerAddress?.description ?? "the peer" }

    /// Moves a queue pair from RESET to INIT, where receives can be posted; a UD one to RTS. `accept` does it when it
    /// has not been done.
    ///
    /// - Throws: `invalid` when the queue pair is on another device, of the wrong type or in another state; `verbs`.
    public func prepare(_ queuePair: borrowing QueuePair) throws(ConnectionError) {
        try conversation.prepare(queuePair, "prepare a queue pair for \(peerName)")
    }

    /// Accepts the connection, and waits until it stands. Of each request once: after an error, let it go.
    ///
    /// When data comes before the last message of the handshake, which may be lost, the device tells it with the
    /// asynchronous event `communicationEstablished`: pass that on with `identifier.notify`.
    ///
    /// - Parameters:
    ///   - queuePair: an RC queue pair on `openDevice`'s device, in RESET or INIT. It stays the caller's. After an
    ///     error it is in ERR.
    ///   - parameters: what this side offers; the queue pair's number is filled in.
    ///   - privateData: goes to the peer with the acceptance; at most 196 bytes.
    ///   - timeout: how long to wait for the peer.
    /// - Throws: `rejected`, `unreachable`, `timedOut` when the peer goes meanwhile; `verbs` or `system`
    ///   with `EINVAL` when it had gone before; `cancelled`, `invalid`.
    public func accept(
        _ queuePair: borrowing QueuePair, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = Connector.defaultTimeout
    ) async throws(ConnectionError) -> Connection {
        let operation = "accept \(peerName)"
        try identifier.require(isDatagram: false, operation)
        try conversation.prepare(queuePair, operation)
        let depths: Depths
        do throws(VerbsError) { depths = try Depths(parameters, on: queuePair.context) } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        try conversation.claim(queuePair, operation)
        var answer = parameters.with(queuePair)
        answer.responderResources = min(depths.responder, self.parameters?.responderResources ?? 0)
        answer.initiatorDepth = min(depths.initiator, self.parameters?.initiatorDepth ?? 0)
        do throws(ConnectionError) {
            // The peer may send as soon as it has the answer.
            try conversation.moveToReady(depths, operation)
            try identifier.accept(answer, privateData: privateData)
            let event = try await conversation.await([.established], within: timeout, operation)
            try? conversation.queuePair?.refreshState()
            conversation.advance(to: .connected)
            return Connection(conversation, event)
        } catch {
            conversation.abandon()
            throw error
        }
    }

    /// Tells the peer of a datagram service where to send to. Nothing follows.
    ///
    /// - Parameters:
    ///   - queuePair: a UD queue pair on `openDevice`'s device: in RESET, or the one that earlier peers were told.
    ///   - privateData: goes to the peer with the answer; at most 136 bytes.
    /// - Throws: `invalid`, such as when the peer wants a connection; `verbs`, `system`.
    public func acceptDatagrams(
        _ queuePair: borrowing QueuePair, privateData: [UInt8] = []
    ) throws(ConnectionError) {
        let operation = "accept \(peerName)"
        try identifier.require(isDatagram: true, operation)
        try conversation.prepare(queuePair, operation)
        try identifier.accept(ConnectionParameters().with(queuePair), privateData: privateData)
    }

    /// Refuses the peer.
    ///
    /// - Parameter privateData: goes to the peer; at most 148 bytes, of a datagram service 136.
    public func reject(privateData: [UInt8] = []) throws(ConnectionError) {
        try identifier.reject(privateData: privateData)
    }
}
