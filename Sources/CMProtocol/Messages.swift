/// The attribute of a MAD of communication management: the kind of message (IBTA volume 1, table 107).
package enum CMAttribute: UInt16, Hashable, Sendable, CaseIterable {
    case connectRequest = 0x10
    case messageReceiptAcknowledgment = 0x11
    case connectReject = 0x12
    case connectReply = 0x13
    case readyToUse = 0x14
    case disconnectRequest = 0x15
    case disconnectReply = 0x16
    case serviceRequest = 0x17
    case serviceReply = 0x18
    case loadAlternatePath = 0x19
    case alternatePathResponse = 0x1A
}

/// REQ: requests a connection (IBTA volume 1, 12.6.5). Offsets are those after the header of the MAD.
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3 | | local communication ID |
/// | 8-15 | | service ID |
/// | 16-23 | | local CA GUID |
/// | 28-31 | | local Q_Key |
/// | 32-34 | | local QPN |
/// | 35 | | responder resources |
/// | 36-38 | | local EECN |
/// | 39 | | initiator depth |
/// | 40-42 | | remote EECN |
/// | 43 | 0-4 | remote CM response timeout |
/// | | 5-6 | transport service type |
/// | | 7 | end-to-end flow control |
/// | 44-46 | | starting PSN |
/// | 47 | 0-4 | local CM response timeout |
/// | | 5-7 | retry count |
/// | 48-49 | | P_Key |
/// | 50 | 0-3 | path MTU |
/// | | 5-7 | RNR retry count |
/// | 51 | 0-3 | max CM retries |
/// | | 4 | SRQ |
/// | | 5-7 | extended transport type |
/// | 52-53, 54-55 | | primary local and remote LID |
/// | 56-71, 72-87 | | primary local and remote GID |
/// | 88-90 | 0-19 | primary flow label |
/// | 91 | 2-7 | primary packet rate |
/// | 92 | | primary traffic class |
/// | 93 | | primary hop limit |
/// | 94 | 0-3 | primary SL |
/// | | 4 | primary subnet local |
/// | 95 | 0-4 | primary local ACK timeout |
/// | 96-139 | | alternate path |
/// | 140-231 | | private data |
package struct ConnectRequest: Hashable, Sendable {
    /// Bytes of private data.
    package static let privateByteCount = 92
    package var localID: UInt32 = 0
    package var serviceID: UInt64 = 0
    package var localGUID: UInt64 = 0
    /// The queue pair of the sender, 24 bits.
    package var queuePairNumber: UInt32 = 0
    /// RDMA reads and atomics that the sender serves at a time, as the responder.
    package var responderResources: UInt8 = 0
    /// RDMA reads and atomics that the sender has outstanding at a time.
    package var initiatorDepth: UInt8 = 0
    /// How long the receiver may take to respond: 4.096 µs times 2 to this power.
    package var remoteResponseTimeout: UInt8 = 0
    package var transport = CMTransport.reliable
    package var flowControl = false
    /// The PSN with which the receiver of this message begins to send.
    package var startingPSN: UInt32 = 0
    /// How long the sender may take to respond: 4.096 µs times 2 to this power.
    package var localResponseTimeout: UInt8 = 0
    package var retryCount: UInt8 = 0
    package var partitionKey: UInt16 = 0xFFFF
    /// `enum ibv_mtu`.
    package var pathMTU: UInt8 = 0
    package var rnrRetryCount: UInt8 = 0
    package var maxCMRetries: UInt8 = 0
    package var hasSharedReceiveQueue = false
    /// 0xFFFF, the permissive LID, on RoCE.
    package var localLID: UInt16 = 0xFFFF
    package var remoteLID: UInt16 = 0xFFFF
    package var localGID = PortGID.zero
    package var remoteGID = PortGID.zero
    package var flowLabel: UInt32 = 0
    package var packetRate: UInt8 = 0
    package var trafficClass: UInt8 = 0
    package var hopLimit: UInt8 = 0
    package var serviceLevel: UInt8 = 0
    /// Local ACK Timeout of the sender, with the lifetime of packets: 4.096 µs times 2 to this power.
    package var localACKTimeout: UInt8 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// The transport service type of a REQ, and its extended transport type.
package struct CMTransport: Hashable, Sendable {
    package var type: UInt8
    package var extended: UInt8
    package init(type: UInt8, extended: UInt8) { (self.type, self.extended) = (type, extended) }
    /// RC.
    package static let reliable = CMTransport(type: 0, extended: 0)
    /// UC.
    package static let unreliable = CMTransport(type: 1, extended: 0)
    /// XRC.
    package static let extended = CMTransport(type: 3, extended: 1)
}

/// MRA: the receiver of a message needs more time (IBTA volume 1, 12.6.6).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3, 4-7 | | local and remote communication ID |
/// | 8 | 0-1 | the message: 0 REQ, 1 REP, 2 LAP |
/// | 9 | 0-4 | service timeout |
/// | 10-231 | | private data |
package struct MessageReceiptAcknowledgment: Hashable, Sendable {
    package static let privateByteCount = 222
    package var localID: UInt32 = 0
    package var remoteID: UInt32 = 0
    package var message = CMSubject.request
    /// How long the response may still take: 4.096 µs times 2 to this power.
    package var serviceTimeout: UInt8 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// The message to which an MRA or REJ refers.
package struct CMSubject: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// A REQ.
    package static let request = CMSubject(rawValue: 0)
    /// A REP.
    package static let reply = CMSubject(rawValue: 1)
    /// None, or a LAP.
    package static let none = CMSubject(rawValue: 2)
}

/// REJ: rejects a connection (IBTA volume 1, 12.6.7).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3, 4-7 | | local and remote communication ID |
/// | 8 | 0-1 | the message: 0 REQ, 1 REP, 2 none |
/// | 9 | 0-6 | bytes of additional reject information |
/// | 10-11 | | reason |
/// | 12-83 | | additional reject information (ARI) |
/// | 84-231 | | private data |
package struct ConnectReject: Hashable, Sendable {
    package static let privateByteCount = 148
    package static let informationByteCount = 72
    package var localID: UInt32 = 0
    package var remoteID: UInt32 = 0
    package var message = CMSubject.request
    package var reason = CMRejectReason.consumer
    /// Additional information, at most 72 bytes.
    package var information: [UInt8] = []
    package var privateData: [UInt8] = []

    package init() {}
}

/// The reason of a REJ (IBTA volume 1, 12.6.7.2).
package struct CMRejectReason: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let noQueuePair = CMRejectReason(rawValue: 1)
    package static let noResources = CMRejectReason(rawValue: 3)
    package static let timeout = CMRejectReason(rawValue: 4)
    package static let unsupportedRequest = CMRejectReason(rawValue: 5)
    package static let invalidCommunicationID = CMRejectReason(rawValue: 6)
    package static let invalidServiceID = CMRejectReason(rawValue: 8)
    package static let invalidTransport = CMRejectReason(rawValue: 9)
    package static let staleConnection = CMRejectReason(rawValue: 10)
    package static let invalidMTU = CMRejectReason(rawValue: 26)
    package static let consumer = CMRejectReason(rawValue: 28)
}

/// REP: accepts a connection (IBTA volume 1, 12.6.8).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3, 4-7 | | local and remote communication ID |
/// | 8-11 | | local Q_Key |
/// | 12-14 | | local QPN |
/// | 16-18 | | local EECN |
/// | 20-22 | | starting PSN |
/// | 24 | | responder resources |
/// | 25 | | initiator depth |
/// | 26 | 0-4 | target ACK delay |
/// | | 5-6 | failover accepted |
/// | | 7 | end-to-end flow control |
/// | 27 | 0-2 | RNR retry count |
/// | | 3 | SRQ |
/// | 28-35 | | local CA GUID |
/// | 36-231 | | private data |
package struct ConnectReply: Hashable, Sendable {
    package static let privateByteCount = 196
    package var localID: UInt32 = 0
    package var remoteID: UInt32 = 0
    package var queuePairNumber: UInt32 = 0
    /// The EECN; of an XRC target its queue pair.
    package var endToEndContextNumber: UInt32 = 0
    /// The PSN with which the receiver of this message begins to send.
    package var startingPSN: UInt32 = 0
    package var responderResources: UInt8 = 0
    package var initiatorDepth: UInt8 = 0
    package var targetACKDelay: UInt8 = 0
    package var flowControl = false
    package var rnrRetryCount: UInt8 = 0
    package var hasSharedReceiveQueue = false
    package var localGUID: UInt64 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// RTU, which completes a connection (IBTA volume 1, 12.6.9), or DREP, which confirms its end (12.6.11): two
/// communication IDs, and private data from byte 8.
package struct CMConfirmation: Hashable, Sendable {
    package static let privateByteCount = 224
    package var localID: UInt32 = 0
    package var remoteID: UInt32 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// DREQ: ends a connection (IBTA volume 1, 12.6.10): two communication IDs, the receiver's QPN in bytes 8-10, and private
/// data from byte 12.
package struct DisconnectRequest: Hashable, Sendable {
    package static let privateByteCount = 220
    package var localID: UInt32 = 0
    package var remoteID: UInt32 = 0
    package var remoteQueuePairNumber: UInt32 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// SIDR_REQ: looks up the queue pair of a datagram service (IBTA volume 1, 12.11.1).
///
/// | byte | field |
/// |------|-------|
/// | 0-3 | request ID |
/// | 4-5 | P_Key |
/// | 8-15 | service ID |
/// | 16-231 | private data |
package struct ServiceRequest: Hashable, Sendable {
    package static let privateByteCount = 216
    package var requestID: UInt32 = 0
    package var partitionKey: UInt16 = 0xFFFF
    package var serviceID: UInt64 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// SIDR_REP: the queue pair of a datagram service (IBTA volume 1, 12.11.2).
///
/// | byte | field |
/// |------|-------|
/// | 0-3 | request ID |
/// | 4 | status |
/// | 5 | bytes of additional information |
/// | 8-10 | QPN |
/// | 12-19 | service ID |
/// | 20-23 | Q_Key |
/// | 24-95 | additional information |
/// | 96-231 | private data |
package struct ServiceReply: Hashable, Sendable {
    package static let privateByteCount = 136
    package var requestID: UInt32 = 0
    package var status = CMServiceStatus.valid
    package var queuePairNumber: UInt32 = 0
    package var serviceID: UInt64 = 0
    package var queueKey: UInt32 = 0
    package var privateData: [UInt8] = []

    package init() {}
}

/// The status of a SIDR_REP (IBTA volume 1, 12.11.2.3).
package struct CMServiceStatus: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let valid = CMServiceStatus(rawValue: 0)
    package static let unsupportedServiceID = CMServiceStatus(rawValue: 1)
    package static let rejected = CMServiceStatus(rawValue: 2)
    package static let noQueuePair = CMServiceStatus(rawValue: 3)
}

/// LAP or APR: alternate paths (IBTA volume 1, 12.8), of which only the communication IDs are read.
package struct AlternatePathMessage: Hashable, Sendable {
    package var attribute: CMAttribute
    package var localID: UInt32
    package var remoteID: UInt32
}
