/// The timing of an endpoint. Times are nanoseconds.
package struct CMTiming: Hashable, Sendable {
    /// The time after which a message without a response is sent again.
    package var retransmission: UInt64 = 4096 << 17
    /// The number of times that it is sent again.
    package var retries = 15
    /// The service timeout that an MRA asks for: 4.096 µs times 2 to this power, as the Linux kernel asks for.
    package var serviceTimeout: UInt8 = 24
    /// How long late packets of a queue pair may arrive after its connection has ended.
    package var timeWait: UInt64 = 4096 << 16

    package init() {}
}

/// The connection managers of the ports of a process (IBTA volume 1, 12): messages, calls and the time go in; messages,
/// events and deadlines come out. It does no input or output and reads no clock: the same inputs lead to the same outputs.
///
/// The order of calls:
/// - Active side: `connect`, event `replied`, `establish`.
/// - Passive side: `listen`, event `requested`, `accept` or `reject`, event `established`.
/// - Either side: `disconnect`, or event `disconnected` and then `disconnect`; event `timeWaitExit`; `release`.
/// - Datagram services: `lookUp`, event `serviceReplied`; on the other side event `serviceRequested`,
///   `replyToService`.
///
/// After each call and `receive`, the caller takes all of `nextTransmission` and `nextEvent`. It calls `advance` at
/// `nextDeadline`.
package struct CMEndpoint: Sendable {
    private var connections: [CMIdentifier: Connection] = [:]
    /// The connections for which a timer runs.
    private var deadlines: [CMIdentifier: UInt64] = [:]
    /// The connections that a peer has begun, to tell duplicates.
    private var begunByPeers: [PeerKey: CMIdentifier] = [:]
    private var listeners: [CMIdentifier: ListenerEntry] = [:]
    private var transmissions: [CMTransmission] = []
    private var events: [CMEvent] = []
    private let random: @Sendable () -> UInt64
    private let timing: CMTiming

    private struct PeerKey: Hashable {
        let gid: PortGID
        let identifier: UInt32
        let isService: Bool
    }

    private struct ListenerEntry {
        let serviceID: UInt64
        /// nil: every address.
        let address: PortGID?
        let transport: CMTransport
    }

    /// - Parameter random: Draws communication and transaction IDs. Its numbers must be unpredictable, even to a peer that
    ///   has seen some of them, so that other hosts cannot end connections; and distinct, or the search for an ID that is
    ///   free does not end.
    package init(random: @escaping @Sendable () -> UInt64, timing: CMTiming = CMTiming()) {
        self.random = random
        self.timing = timing
    }

    /// The number of connections and SIDR exchanges, those in time wait included.
    package var connectionCount: Int { connections.count }

    /// The next message to send.
    package mutating func nextTransmission() -> CMTransmission? {
        transmissions.isEmpty ? nil : transmissions.removeFirst()
    }

    /// The next event.
    package mutating func nextEvent() -> CMEvent? { events.isEmpty ? nil : events.removeFirst() }

    /// The time at which `advance` is to be called; nil when no timer runs.
    package var nextDeadline: UInt64? { deadlines.values.min() }

    /// Whether `identifier` is a connection or exchange that has not ended.
    package func contains(_ identifier: CMIdentifier) -> Bool { connections[identifier] != nil }
}

// MARK: - Calls

extension CMEndpoint {
    /// Takes requests for a service from now on.
    /// - Parameter address: The address at which requests arrive; nil takes them at every address.
    /// - Parameter transport: That of the requests; others are rejected.
    /// - Throws: `addressInUse` when another listener has both.
    package mutating func listen(
        serviceID: UInt64, address: PortGID?, transport: CMTransport = .reliable
    ) throws(CMCallError) -> CMIdentifier {
        let isTaken = listeners.values.contains { $0.serviceID == serviceID && $0.address == address }
        if isTaken { throw .addressInUse }
        var identifier: CMIdentifier
        repeat {
            identifier = CMIdentifier(rawValue: UInt32(truncatingIfNeeded: random()))
        } while listeners[identifier] != nil
        listeners[identifier] = ListenerEntry(serviceID: serviceID, address: address, transport: transport)
        return identifier
    }

    /// Ends `listen`. Requests that arrived before are not affected.
    package mutating func stopListening(_ identifier: CMIdentifier) { listeners[identifier] = nil }

    /// Requests a connection: sends a REQ, in which the communication ID is filled in.
    package mutating func connect(_ request: ConnectRequest, on path: CMPath, now: UInt64) -> CMIdentifier {
        let identifier = newIdentifier(path)
        var request = request
        request.localID = identifier.rawValue
        let transactionID = random()
        connections[identifier] = Connection(
            state: .requestSent, path: path, remoteID: 0, transactionID: transactionID)
        sendAndRepeat(CMMessage(transactionID: transactionID, .connectRequest(request)), identifier, now: now)
        return identifier
    }

    /// Completes a connection after `replied`: sends the RTU.
    package mutating func establish(_ identifier: CMIdentifier, now: UInt64) throws(CMCallError) {
        let connection = try connection(identifier, in: .replyReceived)
        change(identifier, to: .established)
        var body = CMConfirmation()
        body.localID = identifier.rawValue
        body.remoteID = connection.remoteID
        let message = CMMessage(transactionID: connection.transactionID, .readyToUse(body))
        // Sent again for a duplicate of the REP.
        connections[identifier]!.sent = message
        send(message, connection.path)
    }

    /// Accepts a request: sends a REP, in which the communication IDs are filled in.
    package mutating func accept(
        _ identifier: CMIdentifier, _ reply: ConnectReply, now: UInt64
    ) throws(CMCallError) {
        let connection = try connection(identifier, in: .requestReceived)
        var reply = reply
        reply.localID = identifier.rawValue
        reply.remoteID = connection.remoteID
        change(identifier, to: .replySent)
        sendAndRepeat(
            CMMessage(transactionID: connection.transactionID, .connectReply(reply)), identifier, now: now)
    }

    /// Rejects a request, or a reply: sends a REJ, and ends the connection.
    package mutating func reject(
        _ identifier: CMIdentifier, reason: CMRejectReason = .consumer, privateData: [UInt8] = [], now: UInt64
    ) throws(CMCallError) {
        let connection = try connection(identifier)
        switch connection.state {
        case .requestReceived:
            sendReject(identifier, connection, .request, reason, privateData)
            remove(identifier)
        case .replyReceived:
            sendReject(identifier, connection, .reply, reason, privateData)
            enterTimeWait(identifier, now: now)
        default: throw .state
        }
    }

    /// Ends the connection: sends a DREQ, or, after the peer's, the DREP.
    package mutating func disconnect(_ identifier: CMIdentifier, now: UInt64) throws(CMCallError) {
        let connection = try connection(identifier)
        switch connection.state {
        case .established, .replySent:
            change(identifier, to: .disconnectSent)
            var body = DisconnectRequest()
            body.localID = identifier.rawValue
            body.remoteID = connection.remoteID
            body.remoteQueuePairNumber = connection.remoteQueuePair
            sendAndRepeat(CMMessage(transactionID: random(), .disconnectRequest(body)), identifier, now: now)
        case .disconnectReceived:
            sendDisconnectReply(identifier, connection, connection.disconnectTransactionID)
            enterTimeWait(identifier, now: now)
        default: throw .state
        }
    }

    /// The peer uses the connection, so its RTU was lost or is late (`IB_EVENT_COMM_EST`). Has an effect after `accept`
    /// only.
    package mutating func noteCommunication(_ identifier: CMIdentifier) {
        guard connections[identifier]?.state == .replySent else { return }
        change(identifier, to: .established)
        deadlines[identifier] = nil
        report(identifier, .established)
    }

    /// The process of the peer has ended, which some transports tell: ends the connection as a DREQ of it does.
    package mutating func notePeerEnd(_ identifier: CMIdentifier, now: UInt64) {
        guard let connection = connections[identifier] else { return }
        switch connection.state {
        case .established, .replySent, .replyReceived, .disconnectSent:
            deadlines[identifier] = nil
            report(identifier, .disconnected(hasTimedOut: false))
            enterTimeWait(identifier, now: now)
        case .requestSent, .serviceRequestSent:
            report(identifier, .unreachable)
            remove(identifier)
        case .requestReceived, .serviceRequestReceived, .serviceReplySent, .disconnectReceived, .timeWait: break
        }
    }

    /// The connection is not used any more: no event follows. A peer that waits for a message gets the one that ends it.
    package mutating func release(_ identifier: CMIdentifier, now: UInt64) {
        guard let connection = connections[identifier] else { return }
        connections[identifier]!.isReleased = true
        events.removeAll { $0.identifier == identifier }
        switch connection.state {
        case .requestSent:
            sendReject(identifier, connection, .request, .timeout, [])
            remove(identifier)
        case .requestReceived:
            sendReject(identifier, connection, .request, .consumer, [])
            remove(identifier)
        case .replySent, .replyReceived:
            sendReject(identifier, connection, connection.state == .replySent ? .none : .reply, .consumer, [])
            enterTimeWait(identifier, now: now)
        case .established, .disconnectReceived: try? disconnect(identifier, now: now)
        case .serviceRequestSent: remove(identifier)
        case .serviceRequestReceived:
            var reply = ServiceReply()
            reply.status = .rejected
            try? replyToService(identifier, reply, now: now)
        case .disconnectSent, .timeWait, .serviceReplySent: break
        }
    }

    /// Looks up a datagram service: sends a SIDR_REQ, in which the request ID is filled in.
    package mutating func lookUp(_ request: ServiceRequest, on path: CMPath, now: UInt64) -> CMIdentifier {
        let identifier = newIdentifier(path)
        var request = request
        request.requestID = identifier.rawValue
        let transactionID = random()
        var connection = Connection(state: .serviceRequestSent, path: path, remoteID: 0, transactionID: transactionID)
        connection.serviceID = request.serviceID
        connections[identifier] = connection
        sendAndRepeat(CMMessage(transactionID: transactionID, .serviceRequest(request)), identifier, now: now)
        return identifier
    }

    /// Replies to a look-up: sends a SIDR_REP, in which request ID and service ID are filled in. One that names a queue pair
    /// is kept for a while, for duplicates of the request; a refusal is not, so that refused requests take no memory.
    package mutating func replyToService(
        _ identifier: CMIdentifier, _ reply: ServiceReply, now: UInt64
    ) throws(CMCallError) {
        let connection = try connection(identifier, in: .serviceRequestReceived)
        var reply = reply
        reply.requestID = connection.remoteID
        reply.serviceID = connection.serviceID
        let message = CMMessage(transactionID: connection.transactionID, .serviceReply(reply))
        guard reply.status == .valid else {
            send(message, connection.path)
            return remove(identifier)
        }
        change(identifier, to: .serviceReplySent)
        connections[identifier]!.sent = message
        deadlines[identifier] = now &+ timing.retransmission * UInt64(timing.retries + 1)
        send(message, connection.path)
    }
}

// MARK: - Messages

extension CMEndpoint {
    /// Receives a message of the peer.
    ///
    /// - Parameter path: The way back: `local` is the GID to which the message was sent. `device` is the top byte of the
    ///   communication ID of a new connection.
    package mutating func receive(_ message: CMMessage, on path: CMPath, now: UInt64) {
        switch message.body {
        case .connectRequest(let body): receive(body, message.transactionID, path, now: now)
        case .messageReceiptAcknowledgment(let body): receive(body, path, now: now)
        case .connectReject(let body): receive(body, path, now: now)
        case .connectReply(let body): receive(body, message.transactionID, path, now: now)
        case .readyToUse(let body):
            guard let (identifier, _) = find(body.remoteID, body.localID, path) else { return }
            noteCommunication(identifier)
        case .disconnectRequest(let body): receive(body, message.transactionID, path, now: now)
        case .disconnectReply(let body):
            guard let (identifier, connection) = find(body.remoteID, body.localID, path),
                connection.state == .disconnectSent
            else { return }
            report(identifier, .disconnected(hasTimedOut: false))
            enterTimeWait(identifier, now: now)
        case .serviceRequest(let body): receive(body, message.transactionID, path, now: now)
        case .serviceReply(let body):
            let identifier = CMIdentifier(rawValue: body.requestID)
            guard let connection = connections[identifier], connection.state == .serviceRequestSent,
                connection.path.remote == path.remote, connection.serviceID == body.serviceID
            else { return }
            report(identifier, .serviceReplied(body))
            remove(identifier)
        // No alternate path is offered, and none is loaded.
        case .alternatePath: break
        }
    }

    private mutating func receive(
        _ request: ConnectRequest, _ transactionID: UInt64, _ path: CMPath, now: UInt64
    ) {
        let key = PeerKey(gid: path.remote, identifier: request.localID, isService: false)
        if let identifier = begunByPeers[key], let connection = connections[identifier] {
            return repeatResponse(identifier, connection)
        }
        let stale = connections.first {
            let other = $0.value
            return other.remoteQueuePair == request.queuePairNumber && other.remoteGUID == request.localGUID
                && other.path.remote == path.remote && other.state.holdsQueuePair
        }
        if let stale {
            sendReject(to: request.localID, transactionID, path, .request, .staleConnection)
            // The peer does not know the old connection any more.
            try? disconnect(stale.key, now: now)
            return
        }
        guard let listener = listener(request.serviceID, request.privateData, path) else {
            return sendReject(to: request.localID, transactionID, path, .request, .invalidServiceID)
        }
        guard request.transport == listeners[listener]?.transport else {
            return sendReject(to: request.localID, transactionID, path, .request, .invalidTransport)
        }
        let identifier = newIdentifier(path)
        var connection = Connection(
            state: .requestReceived, path: path, remoteID: request.localID, transactionID: transactionID)
        connection.remoteGUID = request.localGUID
        connection.remoteQueuePair = request.queuePairNumber
        connections[identifier] = connection
        begunByPeers[key] = identifier
        report(identifier, .requested(listener: listener, request, path))
    }

    /// Responds to a duplicate of a REQ.
    private mutating func repeatResponse(_ identifier: CMIdentifier, _ connection: Connection) {
        switch connection.state {
        case .requestReceived: sendReceiptAcknowledgment(identifier, connection, .request)
        case .replySent:
            if let message = connection.sent { send(message, connection.path) }
        default: break
        }
    }

    private mutating func receive(
        _ reply: ConnectReply, _ transactionID: UInt64, _ path: CMPath, now: UInt64
    ) {
        let identifier = CMIdentifier(rawValue: reply.remoteID)
        guard let connection = connections[identifier], connection.path.remote == path.remote,
            connection.remoteID == 0 || connection.remoteID == reply.localID
        else {
            return sendReject(
                to: reply.localID, from: reply.remoteID, transactionID, path, .reply, .invalidCommunicationID)
        }
        switch connection.state {
        case .requestSent:
            connections[identifier]!.remoteID = reply.localID
            connections[identifier]!.remoteGUID = reply.localGUID
            connections[identifier]!.remoteQueuePair = reply.queuePairNumber
            change(identifier, to: .replyReceived)
            deadlines[identifier] = nil
            report(identifier, .replied(reply))
        case .replyReceived: sendReceiptAcknowledgment(identifier, connection, .reply)
        case .established:
            // The RTU was lost.
            if let message = connection.sent { send(message, connection.path) }
        default: break
        }
    }

    private mutating func receive(_ body: MessageReceiptAcknowledgment, _ path: CMPath, now: UInt64) {
        let identifier = CMIdentifier(rawValue: body.remoteID)
        guard let connection = connections[identifier], connection.path.remote == path.remote,
            connection.remoteID == 0 || connection.remoteID == body.localID
        else { return }
        switch (connection.state, body.message) {
        case (.requestSent, .request), (.replySent, .reply):
            connections[identifier]!.remoteID = body.localID
            let service: UInt64 = 4096 << UInt64(body.serviceTimeout)
            deadlines[identifier] = now &+ timing.retransmission &+ service
        default: break
        }
    }

    private mutating func receive(_ body: ConnectReject, _ path: CMPath, now: UInt64) {
        // The REJ of a side that has no connection for the message has no ID of that side.
        var found = find(body.remoteID, body.localID, path, acceptsZero: true)
        if found == nil, body.remoteID == 0 || body.reason == .timeout,
            let identifier = begunByPeers[PeerKey(gid: path.remote, identifier: body.localID, isService: false)],
            let connection = connections[identifier]
        {
            // The peer gave up before it learned the communication ID of this side.
            found = (identifier, connection)
        }
        guard let (identifier, connection) = found else { return }
        switch connection.state {
        case .requestSent, .requestReceived:
            report(identifier, .rejected(body))
            remove(identifier)
        case .replySent, .replyReceived, .established:
            report(identifier, .rejected(body))
            enterTimeWait(identifier, now: now)
        case .disconnectSent:
            report(identifier, .disconnected(hasTimedOut: false))
            enterTimeWait(identifier, now: now)
        default: break
        }
    }

    private mutating func receive(
        _ body: DisconnectRequest, _ transactionID: UInt64, _ path: CMPath, now: UInt64
    ) {
        guard let (identifier, connection) = find(body.remoteID, body.localID, path) else {
            // The connection is long over: the peer must not wait for that.
            var reply = CMConfirmation()
            reply.localID = body.remoteID
            reply.remoteID = body.localID
            return send(CMMessage(transactionID: transactionID, .disconnectReply(reply)), path)
        }
        switch connection.state {
        case .replySent, .replyReceived, .established, .disconnectSent:
            deadlines[identifier] = nil
            change(identifier, to: .disconnectReceived)
            connections[identifier]!.disconnectTransactionID = transactionID
            report(identifier, .disconnected(hasTimedOut: false))
            if connection.isReleased { try? disconnect(identifier, now: now) }
        case .timeWait: sendDisconnectReply(identifier, connection, transactionID)
        default: break
        }
    }

    private mutating func receive(
        _ request: ServiceRequest, _ transactionID: UInt64, _ path: CMPath, now: UInt64
    ) {
        let key = PeerKey(gid: path.remote, identifier: request.requestID, isService: true)
        if let identifier = begunByPeers[key], let connection = connections[identifier] {
            if connection.state == .serviceReplySent, let message = connection.sent { send(message, path) }
            return
        }
        guard let listener = listener(request.serviceID, request.privateData, path) else {
            var reply = ServiceReply()
            reply.requestID = request.requestID
            reply.serviceID = request.serviceID
            reply.status = .unsupportedServiceID
            return send(CMMessage(transactionID: transactionID, .serviceReply(reply)), path)
        }
        let identifier = newIdentifier(path)
        var connection = Connection(
            state: .serviceRequestReceived, path: path, remoteID: request.requestID, transactionID: transactionID)
        connection.serviceID = request.serviceID
        connections[identifier] = connection
        begunByPeers[key] = identifier
        report(identifier, .serviceRequested(listener: listener, request, path))
    }

    /// The connection of a message with these communication IDs. An ID of the peer that is not known yet fits.
    /// - Parameter acceptsZero: Whether the message may leave the peer's ID out.
    private func find(
        _ own: UInt32, _ peers: UInt32, _ path: CMPath, acceptsZero: Bool = false
    ) -> (CMIdentifier, Connection)? {
        let identifier = CMIdentifier(rawValue: own)
        guard let connection = connections[identifier], connection.path.remote == path.remote,
            connection.remoteID == peers || connection.remoteID == 0 || acceptsZero && peers == 0,
            !connection.state.isService
        else { return nil }
        return (identifier, connection)
    }

    /// The listener for a service: of several, that for the address at which the request arrived. The address that the
    /// private data claims chooses among those of 127.0.0.0/8 only, for all of which the port has one GID.
    private func listener(_ serviceID: UInt64, _ privateData: [UInt8], _ path: CMPath) -> CMIdentifier? {
        var address = path.local
        let claimed = IPAddresses(parsing: privateData)?.destination
        if let claimed, claimed.isLoopbackIPv4, address.isLoopbackIPv4 {
            address = claimed
        }
        var found: CMIdentifier?
        for (identifier, listener) in listeners where listener.serviceID == serviceID {
            if listener.address == address { return identifier }
            if listener.address == nil { found = identifier }
        }
        return found
    }
}

// MARK: - Time

extension CMEndpoint {
    /// Handles the timers that have expired at `now`.
    package mutating func advance(to now: UInt64) {
        // In a fixed order, since that of a Dictionary differs from run to run.
        let expired = deadlines.filter { $0.value <= now }.keys.sorted { $0.rawValue < $1.rawValue }
        for identifier in expired { expire(identifier, now: now) }
    }

    private mutating func expire(_ identifier: CMIdentifier, now: UInt64) {
        guard let connection = connections[identifier] else {
            assertionFailure("a timer runs for a connection that has ended")
            return
        }
        switch connection.state {
        case .timeWait:
            report(identifier, .timeWaitExit)
            return remove(identifier)
        case .serviceReplySent: return remove(identifier)
        case .requestSent, .replySent, .disconnectSent, .serviceRequestSent: break
        case .requestReceived, .replyReceived, .established, .disconnectReceived, .serviceRequestReceived:
            assertionFailure("no timer runs in this state")
        }
        if connection.retriesLeft > 0, let message = connection.sent {
            connections[identifier]!.retriesLeft -= 1
            deadlines[identifier] = now &+ timing.retransmission
            return send(message, connection.path)
        }
        giveUp(identifier, connection, now: now)
    }

    private mutating func giveUp(_ identifier: CMIdentifier, _ connection: Connection, now: UInt64) {
        switch connection.state {
        case .disconnectSent:
            report(identifier, .disconnected(hasTimedOut: true))
            enterTimeWait(identifier, now: now)
        case .replySent:
            sendReject(identifier, connection, .reply, .timeout, [])
            report(identifier, .unreachable)
            enterTimeWait(identifier, now: now)
        case .requestSent:
            sendReject(identifier, connection, .request, .timeout, [])
            report(identifier, .unreachable)
            remove(identifier)
        default:
            report(identifier, .unreachable)
            remove(identifier)
        }
    }

    private mutating func enterTimeWait(_ identifier: CMIdentifier, now: UInt64) {
        change(identifier, to: .timeWait)
        deadlines[identifier] = now &+ timing.timeWait
    }
}

// MARK: - Parts

extension CMEndpoint {
    private mutating func newIdentifier(_ path: CMPath) -> CMIdentifier {
        while true {
            let number = UInt32(truncatingIfNeeded: random()) & 0xFF_FFFF | UInt32(path.device) << 24
            let identifier = CMIdentifier(rawValue: number)
            if number != 0 && connections[identifier] == nil { return identifier }
        }
    }

    private func connection(
        _ identifier: CMIdentifier, in state: Connection.State? = nil
    ) throws(CMCallError) -> Connection {
        guard let connection = connections[identifier] else { throw .noConnection }
        if let state, connection.state != state { throw .state }
        return connection
    }

    private mutating func change(_ identifier: CMIdentifier, to state: Connection.State) {
        connections[identifier]!.state = state
    }

    private mutating func remove(_ identifier: CMIdentifier) {
        guard let connection = connections.removeValue(forKey: identifier) else { return }
        deadlines[identifier] = nil
        let key = PeerKey(
            gid: connection.path.remote, identifier: connection.remoteID, isService: connection.state.isService)
        if begunByPeers[key] == identifier { begunByPeers[key] = nil }
    }

    private mutating func report(_ identifier: CMIdentifier, _ kind: CMEvent.Kind) {
        if connections[identifier]?.isReleased != true { events.append(CMEvent(identifier, kind)) }
    }

    private mutating func send(_ message: CMMessage, _ path: CMPath) {
        transmissions.append(CMTransmission(path: path, message: message))
    }

    /// Sends a message, and sends it again until the state changes.
    private mutating func sendAndRepeat(_ message: CMMessage, _ identifier: CMIdentifier, now: UInt64) {
        connections[identifier]!.sent = message
        connections[identifier]!.retriesLeft = timing.retries
        deadlines[identifier] = now &+ timing.retransmission
        send(message, connections[identifier]!.path)
    }

    private mutating func sendReceiptAcknowledgment(
        _ identifier: CMIdentifier, _ connection: Connection, _ subject: CMSubject
    ) {
        var body = MessageReceiptAcknowledgment()
        body.localID = identifier.rawValue
        body.remoteID = connection.remoteID
        body.message = subject
        body.serviceTimeout = timing.serviceTimeout
        send(
            CMMessage(transactionID: connection.transactionID, .messageReceiptAcknowledgment(body)), connection.path)
    }

    private mutating func sendDisconnectReply(
        _ identifier: CMIdentifier, _ connection: Connection, _ transactionID: UInt64
    ) {
        var body = CMConfirmation()
        body.localID = identifier.rawValue
        body.remoteID = connection.remoteID
        send(CMMessage(transactionID: transactionID, .disconnectReply(body)), connection.path)
    }

    private mutating func sendReject(
        _ identifier: CMIdentifier, _ connection: Connection, _ subject: CMSubject, _ reason: CMRejectReason,
        _ privateData: [UInt8]
    ) {
        var body = ConnectReject()
        body.localID = identifier.rawValue
        body.remoteID = connection.remoteID
        body.message = subject
        body.reason = reason
        body.privateData = privateData
        send(CMMessage(transactionID: connection.transactionID, .connectReject(body)), connection.path)
    }

    /// Rejects a message to which no connection belongs.
    private mutating func sendReject(
        to remoteID: UInt32, from localID: UInt32 = 0, _ transactionID: UInt64, _ path: CMPath,
        _ subject: CMSubject, _ reason: CMRejectReason
    ) {
        var body = ConnectReject()
        body.localID = localID
        body.remoteID = remoteID
        body.message = subject
        body.reason = reason
        send(CMMessage(transactionID: transactionID, .connectReject(body)), path)
    }
}

extension Connection.State {
    /// Whether the peer's queue pair is in use by the connection. In time wait it is not: the peer may have recycled it,
    /// since its own time wait began earlier.
    fileprivate var holdsQueuePair: Bool {
        switch self {
        case .replySent, .replyReceived, .established, .disconnectSent, .disconnectReceived: true
        case .requestSent, .requestReceived, .timeWait: false
        case .serviceRequestSent, .serviceRequestReceived, .serviceReplySent: false
        }
    }

    fileprivate var isService: Bool {
        switch self {
        case .serviceRequestSent, .serviceRequestReceived, .serviceReplySent: true
        default: false
        }
    }
}
