import ProviderLoader
import Verbs

/// The side that asks: an address that is resolved to a device and a route, from which one connection is made, one
/// datagram service is looked up, or one group is joined.
///
/// ```swift
/// let connector = try await Connector.resolve("node7", port: 7471)
/// let domain = try connector.openDevice().makeProtectionDomain()
/// var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
/// try connector.prepare(pair)                        // now receives can be posted
/// let connection = try await connector.connect(pair)
/// ```
public final class Connector: Sendable {
    /// How long steps may take when no time is given: ten seconds.
    public static let defaultTimeout: Duration = .seconds(10)

    /// The peer's address, or the group's.
    public let address: ConnectionAddress
    private let conversation: Conversation

    private init(_ address: ConnectionAddress, _ conversation: Conversation) {
        self.address = address
        self.conversation = conversation
    }

    /// Finds the device and the route to a host.
    ///
    /// All addresses of the host are tried in the order in which the system gives them. The time limit does not cover
    /// the look-up of the name.
    ///
    /// - Parameters:
    ///   - host: its name or address; of a multicast group its address.
    ///   - port: the port of rdma_cm.
    ///   - portSpace: `tcp` for connections, `udp` for datagrams.
    ///   - source: the own address; nil: as the routing tables say.
    ///   - options: type of service and the like.
    ///   - timeout: how long, for each address.
    /// - Throws: `unresolvable`, `addressNotResolved`, `routeNotResolved`, `timedOut`; `system` as `EventChannel`.
    public static func resolve(
        _ host: String, port: UInt16, portSpace: PortSpace = .tcp, from source: ConnectionAddress? = nil,
        options: ConnectionIdentifierOptions = .init(), timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connector {
        var failure: ConnectionError?
        for address in try ConnectionAddress.resolve(host, port: port) {
            do throws(ConnectionError) {
                return try await resolve(
                    address, portSpace: portSpace, from: source, options: options, timeout: timeout)
            } catch {
                failure = failure ?? error
            }
        }
        throw failure ?? ConnectionError(.unresolvable("the host has no address"), operation: "find \"\(host)\"")
    }

    /// Finds the device and the route to an address. The same with one address that is known.
    public static func resolve(
        _ address: ConnectionAddress, portSpace: PortSpace = .tcp, from source: ConnectionAddress? = nil,
        options: ConnectionIdentifierOptions = .init(), timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connector {
        let channel = try EventChannel()
        let identifier = try ConnectionIdentifier(channel: channel, portSpace: portSpace)
        try identifier.set(options)
        let conversation = Conversation(identifier, channel: channel)
        let operation = "find the way to \(address)"
        do throws(ConnectionError) {
            try identifier.resolveAddress(address, from: source, timeout: timeout)
            // The kernel ends it in time, with a reason; a second more in case that it does not.
            _ = try await conversation.await([.addressResolved], within: timeout, grace: .seconds(1), operation)
            if !address.isMulticast {
                try identifier.resolveRoute(timeout: timeout)
                _ = try await conversation.await([.routeResolved], within: timeout, grace: .seconds(1), operation)
            }
        } catch {
            switch error.reason {
            case .addressNotResolved, .system:
                let hint =
                    address.isMulticast && source == nil
                    ? "say over which device, with its address as the own one (from:)" : ConnectionAdvice.noDevice()
                throw ConnectionError(error.reason, operation: operation, hint: hint)
            default: throw error
            }
        }
        return Connector(address, conversation)
    }

    /// The identifier, for what this class does not do.
    public var identifier: ConnectionIdentifier { conversation.identifier }
    /// Name of the device that leads to the peer.
    public var deviceName: String { conversation.identifier.deviceName ?? "" }

    /// Opens the device that leads to the peer: the queue pair must be made there.
    ///
    /// - Throws: as `ConnectionIdentifier.openDevice`.
    public func openDevice(from loader: ProviderLoader = .standard) throws(ConnectionError) -> Context {
        try conversation.identifier.openDevice(from: loader)
    }

    /// Moves a queue pair from RESET to INIT, where receives can be posted; a UD one to RTS. `connect` does it when it
    /// has not been done.
    ///
    /// - Throws: `invalid` when the queue pair is on another device, of the wrong type or in another state; `verbs`.
    public func prepare(_ queuePair: borrowing QueuePair) throws(ConnectionError) {
        try conversation.prepare(queuePair, "prepare a queue pair for \(address)")
    }

    /// Connects. Of each Connector once: after an error, resolve again.
    ///
    /// - Parameters:
    ///   - queuePair: an RC queue pair on `openDevice`'s device, in RESET or INIT. It stays the caller's. After an
    ///     error it is in ERR.
    ///   - parameters: what this side offers; the queue pair's number is filled in.
    ///   - privateData: goes to the peer with the request; at most 56 bytes.
    ///   - timeout: how long to wait for the peer's answer.
    /// - Throws: `rejected` with the peer's reason and private data, `unreachable`, `timedOut`, `cancelled`, `invalid`,
    ///   `verbs`.
    public func connect(
        _ queuePair: borrowing QueuePair, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> Connection {
        let operation = "connect to \(address)"
        try identifier.require(isDatagram: false, operation)
        try conversation.prepare(queuePair, operation)
        let depths: Depths
        do throws(VerbsError) { depths = try Depths(parameters, on: queuePair.context) } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        try conversation.claim(queuePair, operation)
        let parameters = parameters.with(queuePair)
        do throws(ConnectionError) {
            try identifier.connect(parameters, privateData: privateData)
            let answer = try await conversation.await([.connectResponse, .established], within: timeout, operation)
            if answer.kind == .connectResponse {
                try complete(depths, operation)
            } else {
                // iWARP: the kernel has moved the queue pair.
                try? conversation.queuePair?.refreshState()
            }
            conversation.advance(to: .connected)
            return Connection(conversation, answer)
        } catch {
            conversation.abandon()
            throw error
        }
    }

    /// The peer has accepted: its answer to ours.
    private func complete(_ depths: Depths, _ operation: String) throws(ConnectionError) {
        do throws(ConnectionError) {
            try conversation.moveToReady(depths, operation)
            try identifier.establish()
        } catch {
            // It would wait for the last message of the handshake.
            try? identifier.reject()
            throw error
        }
    }

    /// Looks for the datagram service at the address (IBTA volume 1, 12.11: SIDR). The queue pair that sends there may
    /// be any UD one of this device.
    ///
    /// - Parameters:
    ///   - privateData: goes to the peer with the request; at most 180 bytes.
    ///   - timeout: how long to wait for the answer.
    /// - Returns: where to send to, for `ProtectionDomain.makeDestination`, and what the peer sent along.
    /// - Throws: `serviceRefused` with the peer's status and private data, `unreachable`, `timedOut`, `cancelled`;
    ///   `invalid` when the address was not resolved for datagrams.
    public func lookUp(
        privateData: [UInt8] = [], timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> (service: DatagramParameters, privateData: [UInt8]) {
        let operation = "look up the datagram service at \(address)"
        try identifier.require(isDatagram: true, operation)
        try identifier.connect(ConnectionParameters(), privateData: privateData)
        let answer = try await conversation.await([.established], within: timeout, operation)
        guard let service = answer.datagram else {
            throw ConnectionError(.invalid("the kernel told no service"), operation: operation)
        }
        return (service, answer.privateData)
    }

    /// Joins the multicast group of the address, and attaches the queue pair, which then receives its datagrams.
    ///
    /// - Parameters:
    ///   - queuePair: a UD queue pair on `openDevice`'s device.
    ///   - isSendOnly: whether to send to the group only, which needs no attaching.
    ///   - timeout: how long to wait for the network.
    /// - Throws: `multicastNotJoined`, `timedOut`, `cancelled`, `invalid`, `verbs`.
    public func join(
        _ queuePair: borrowing QueuePair, isSendOnly: Bool = false, timeout: Duration = defaultTimeout
    ) async throws(ConnectionError) -> MulticastMembership {
        let operation = "join the group \(address.host)"
        try identifier.require(isDatagram: true, operation)
        try conversation.prepare(queuePair, operation)
        let control = QueuePairControl(queuePair)
        try identifier.join(address, isSendOnly: isSendOnly)
        let answer = try await conversation.await([.multicastJoin], within: timeout, operation)
        guard let group = answer.datagram else {
            throw ConnectionError(.invalid("the kernel told no group"), operation: operation)
        }
        do throws(VerbsError) {
            if !isSendOnly { try control.attach(to: group.group) }
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
        return MulticastMembership(conversation, address, group, isSendOnly ? nil : control)
    }
}

/// Membership of a multicast group. The group is left when the last reference goes.
public final class MulticastMembership: Sendable {
    /// The group, for `ProtectionDomain.makeDestination`.
    public let group: DatagramParameters
    private let conversation: Conversation
    private let address: ConnectionAddress
    private let queuePair: QueuePairControl?

    init(
        _ conversation: Conversation, _ address: ConnectionAddress, _ group: DatagramParameters,
        _ queuePair: QueuePairControl?
    ) {
        self.conversation = conversation
        self.address = address
        self.group = group
        self.queuePair = queuePair
    }

    deinit {
        try? queuePair?.detach(from: group.group)
        try? conversation.identifier.leave(address)
    }

    /// Waits for the next event: `multicastError` when the membership is lost, `deviceRemoval`.
    ///
    /// - Parameter timeout: how long; nil waits for ever.
    /// - Returns: nil when the time is over.
    public func nextEvent(timeout: Duration? = nil) async throws(ConnectionError) -> ConnectionEvent? {
        try await conversation.next(until: timeout.map { .now + $0 }, "wait for events of the group \(address.host)")
    }
}
