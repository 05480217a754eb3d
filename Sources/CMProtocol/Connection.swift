/// The way of a message between two ports, as its sender sees it.
package struct CMPath: Hashable, Sendable {
    /// The GID of the own port.
    package var local: PortGID
    /// The GID of the peer's port.
    package var remote: PortGID
    /// The top byte of the communication IDs of the own device: the peer's messages carry it, and find the device by it.
    package var device: UInt8

    package init(local: PortGID, remote: PortGID, device: UInt8) {
        self.local = local
        self.remote = remote
        self.device = device
    }
}

/// A message to send to queue pair 1 of a port.
package struct CMTransmission: Hashable, Sendable {
    package var path: CMPath
    package var message: CMMessage
}

/// A communication ID of this endpoint, or the request ID of a SIDR exchange; zero is none.
package struct CMIdentifier: Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A call that does not fit the state of its connection (`EINVAL` of rdma_cm).
package enum CMCallError: Error, Hashable, Sendable {
    /// There is no such connection, or it has ended.
    case noConnection
    /// The connection is in a state in which the call has no meaning.
    case state
    /// Another listener has the service ID and address.
    case addressInUse
}

/// An event of a connection.
package struct CMEvent: Hashable, Sendable {
    package var identifier: CMIdentifier
    package var kind: Kind

    /// The kinds of events.
    package enum Kind: Hashable, Sendable {
        /// A REQ arrived for a listener; `identifier` is the new connection.
        case requested(listener: CMIdentifier, ConnectRequest, CMPath)
        /// A SIDR_REQ arrived for a listener; `identifier` is the new exchange.
        case serviceRequested(listener: CMIdentifier, ServiceRequest, CMPath)
        /// A REP arrived: `establish` completes the connection.
        case replied(ConnectReply)
        /// The RTU arrived.
        case established
        /// A SIDR_REP arrived. The exchange has ended.
        case serviceReplied(ServiceReply)
        /// A REJ arrived.
        case rejected(ConnectReject)
        /// No response arrived within all retries.
        case unreachable
        /// The connection has ended. If the peer ended it, `disconnect` or `release` sends the DREP. `hasTimedOut`: no
        /// DREP arrived within all retries.
        case disconnected(hasTimedOut: Bool)
        /// No late packet can arrive any more.
        case timeWaitExit
    }

    init(_ identifier: CMIdentifier, _ kind: Kind) {
        self.identifier = identifier
        self.kind = kind
    }
}

/// One connection, or one SIDR exchange.
struct Connection {
    /// The states of IBTA volume 1, 12.9.5 and 12.9.6; MRA has none, since it only moves a deadline.
    enum State: Hashable, CaseIterable {
        /// Active side: REQ sent.
        case requestSent
        /// Passive side: REQ received.
        case requestReceived
        /// Passive side: REP sent.
        case replySent
        /// Active side: REP received.
        case replyReceived
        /// RTU sent or received.
        case established
        /// DREQ sent.
        case disconnectSent
        /// DREQ received, DREP not sent.
        case disconnectReceived
        /// Late packets of the queue pair may arrive.
        case timeWait
        /// SIDR_REQ sent.
        case serviceRequestSent
        /// SIDR_REQ received.
        case serviceRequestReceived
        /// SIDR_REP sent, and kept for duplicates of the SIDR_REQ.
        case serviceReplySent
    }

    var state: State
    let path: CMPath
    /// The peer's communication or request ID; 0 while it is not known.
    var remoteID: UInt32
    /// The transaction ID of the exchange that set up the connection.
    let transactionID: UInt64
    /// GUID and queue pair of the peer; 0 while they are not known.
    var remoteGUID: UInt64 = 0
    var remoteQueuePair: UInt32 = 0
    /// The service of a SIDR exchange.
    var serviceID: UInt64 = 0
    /// The last message, which is sent again while no response arrives, or for a duplicate.
    var sent: CMMessage?
    var retriesLeft = 0
    /// The transaction ID of the peer's DREQ.
    var disconnectTransactionID: UInt64 = 0
    /// Whether its events are not wanted any more.
    var isReleased = false
}
