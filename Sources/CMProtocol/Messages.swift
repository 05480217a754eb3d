/// The attribute of a MAD of communication management: the kind of message (IBTA volume 1, table 107).
public enum CMAttribute: UInt16, Hashable, Sendable, CaseIterable {
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
public struct ConnectRequest: Hashable, Sendable {
    /// Bytes of private data.
    public static let privateByteCount = 92
    public var localID: UInt32 = 0
    public var serviceID: UInt64 = 0
    public var localGUID: UInt64 = 0
    /// The queue pair of the sender, 24 bits.
    public var queuePairNumber: UInt32 = 0
    /// RDMA reads and atomics that the sender serves at a time, as the responder.
    public var responderResources: UInt8 = 0
    /// RDMA reads and atomics that the sender has outstanding at a time.
    public var initiatorDepth: UInt8 = 0
    /// How long the receiver may take to respond: 4.096 µs times 2 to this power.
    public var remoteResponseTimeout: UInt8 = 0
    /// 0 for RC, 1 for UC.
    public var transportType: UInt8 = 0
    public var flowControl = false
    /// The PSN with which the receiver of this message begins to send.
    public var startingPSN: UInt32 = 0
    /// How long the sender may take to respond: 4.096 µs times 2 to this power.
    public var localResponseTimeout: UInt8 = 0
    public var retryCount: UInt8 = 0
    public var partitionKey: UInt16 = 0xFFFF
    /// `enum ibv_mtu`.
    public var pathMTU: UInt8 = 0
    public var rnrRetryCount: UInt8 = 0
    public var maxCMRetries: UInt8 = 0
    public var hasSharedReceiveQueue = false
    /// 0xFFFF, the permissive LID, on RoCE.
    public var localLID: UInt16 = 0xFFFF
    public var remoteLID: UInt16 = 0xFFFF
    public var localGID = PortGID.zero
    public var remoteGID = PortGID.zero
    public var flowLabel: UInt32 = 0
    public var packetRate: UInt8 = 0
    public var trafficClass: UInt8 = 0
    public var hopLimit: UInt8 = 0
    public var serviceLevel: UInt8 = 0
    /// Local ACK Timeout of the sender, with the lifetime of packets: 4.096 µs times 2 to this power.
    public var localACKTimeout: UInt8 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// MRA: the receiver of a message needs more time (IBTA volume 1, 12.6.6).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3, 4-7 | | local and remote communication ID |
/// | 8 | 0-1 | the message: 0 REQ, 1 REP, 2 LAP |
/// | 9 | 0-4 | service timeout |
/// | 10-231 | | private data |
public struct MessageReceiptAcknowledgment: Hashable, Sendable {
    public static let privateByteCount = 222
    public var localID: UInt32 = 0
    public var remoteID: UInt32 = 0
    public var message = CMSubject.request
    /// How long the response may still take: 4.096 µs times 2 to this power.
    public var serviceTimeout: UInt8 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// The message to which an MRA or REJ refers.
public struct CMSubject: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// A REQ.
    public static let request = CMSubject(rawValue: 0)
    /// A REP.
    public static let reply = CMSubject(rawValue: 1)
    /// None, or a LAP.
    public static let none = CMSubject(rawValue: 2)
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
public struct ConnectReject: Hashable, Sendable {
    public static let privateByteCount = 148
    public static let informationByteCount = 72
    public var localID: UInt32 = 0
    public var remoteID: UInt32 = 0
    public var message = CMSubject.request
    public var reason = CMRejectReason.consumer
    /// Additional information, at most 72 bytes.
    public var information: [UInt8] = []
    public var privateData: [UInt8] = []

    public init() {}
}

/// The reason of a REJ (IBTA volume 1, 12.6.7.2).
public struct CMRejectReason: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    public static let noQueuePair = CMRejectReason(rawValue: 1)
    public static let noResources = CMRejectReason(rawValue: 3)
    public static let timeout = CMRejectReason(rawValue: 4)
    public static let unsupportedRequest = CMRejectReason(rawValue: 5)
    public static let invalidCommunicationID = CMRejectReason(rawValue: 6)
    public static let invalidServiceID = CMRejectReason(rawValue: 8)
    public static let invalidTransport = CMRejectReason(rawValue: 9)
    public static let staleConnection = CMRejectReason(rawValue: 10)
    public static let invalidMTU = CMRejectReason(rawValue: 26)
    public static let consumer = CMRejectReason(rawValue: 28)
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
public struct ConnectReply: Hashable, Sendable {
    public static let privateByteCount = 196
    public var localID: UInt32 = 0
    public var remoteID: UInt32 = 0
    public var queuePairNumber: UInt32 = 0
    /// The PSN with which the receiver of this message begins to send.
    public var startingPSN: UInt32 = 0
    public var responderResources: UInt8 = 0
    public var initiatorDepth: UInt8 = 0
    public var targetACKDelay: UInt8 = 0
    public var flowControl = false
    public var rnrRetryCount: UInt8 = 0
    public var hasSharedReceiveQueue = false
    public var localGUID: UInt64 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// RTU, which completes a connection (IBTA volume 1, 12.6.9), or DREP, which confirms its end (12.6.11): two
/// communication IDs, and private data from byte 8.
public struct CMConfirmation: Hashable, Sendable {
    public static let privateByteCount = 224
    public var localID: UInt32 = 0
    public var remoteID: UInt32 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// DREQ: ends a connection (IBTA volume 1, 12.6.10): two communication IDs, the receiver's QPN in bytes 8-10, and private
/// data from byte 12.
public struct DisconnectRequest: Hashable, Sendable {
    public static let privateByteCount = 220
    public var localID: UInt32 = 0
    public var remoteID: UInt32 = 0
    public var remoteQueuePairNumber: UInt32 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// SIDR_REQ: looks up the queue pair of a datagram service (IBTA volume 1, 12.11.1).
///
/// | byte | field |
/// |------|-------|
/// | 0-3 | request ID |
/// | 4-5 | P_Key |
/// | 8-15 | service ID |
/// | 16-231 | private data |
public struct ServiceRequest: Hashable, Sendable {
    public static let privateByteCount = 216
    public var requestID: UInt32 = 0
    public var partitionKey: UInt16 = 0xFFFF
    public var serviceID: UInt64 = 0
    public var privateData: [UInt8] = []

    public init() {}
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
public struct ServiceReply: Hashable, Sendable {
    public static let privateByteCount = 136
    public var requestID: UInt32 = 0
    public var status = CMServiceStatus.valid
    public var queuePairNumber: UInt32 = 0
    public var serviceID: UInt64 = 0
    public var queueKey: UInt32 = 0
    public var privateData: [UInt8] = []

    public init() {}
}

/// The status of a SIDR_REP (IBTA volume 1, 12.11.2.3).
public struct CMServiceStatus: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let valid = CMServiceStatus(rawValue: 0)
    public static let unsupportedServiceID = CMServiceStatus(rawValue: 1)
    public static let rejected = CMServiceStatus(rawValue: 2)
    public static let noQueuePair = CMServiceStatus(rawValue: 3)
}

/// LAP or APR: alternate paths (IBTA volume 1, 12.8), of which only the communication IDs are read.
public struct AlternatePathMessage: Hashable, Sendable {
    public var attribute: CMAttribute
    public var localID: UInt32
    public var remoteID: UInt32
}
