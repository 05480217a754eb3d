/// A message of the connection manager: a MAD of class 0x07 (IBTA volume 1, 12.6 and 12.11).
///
/// | byte | field of the header | value |
/// |------|-------|-------|
/// | 0 | base version | 1 |
/// | 1 | management class | 0x07 |
/// | 2 | class version | 2 |
/// | 3 | method | 3, Send |
/// | 4-5 | status | 0 |
/// | 8-15 | transaction ID | |
/// | 16-17 | attribute | `CMAttribute` |
/// | 20-23 | attribute modifier | 0 |
package struct CMMessage: Hashable, Sendable {
    /// The transaction ID: a response has that of the message to which it responds.
    package var transactionID: UInt64
    package var body: Body

    /// The kinds of messages.
    package enum Body: Hashable, Sendable {
        case connectRequest(ConnectRequest)
        case messageReceiptAcknowledgment(MessageReceiptAcknowledgment)
        case connectReject(ConnectReject)
        case connectReply(ConnectReply)
        case readyToUse(CMConfirmation)
        case disconnectRequest(DisconnectRequest)
        case disconnectReply(CMConfirmation)
        case serviceRequest(ServiceRequest)
        case serviceReply(ServiceReply)
        /// LAP or APR.
        case alternatePath(AlternatePathMessage)
    }

    package init(transactionID: UInt64, _ body: Body) {
        self.transactionID = transactionID
        self.body = body
    }

    /// The bytes of every message.
    package static var byteCount: Int { Datagram.byteCount }

    /// Reads a MAD. Reserved fields are ignored.
    package init(parsing bytes: some Collection<UInt8>) throws(CMMessageError) {
        guard let datagram = Datagram(bytes) else { throw .byteCount(bytes.count) }
        guard datagram.bytes[0] == 1, datagram.bytes[1] == 7 else {
            throw .notCommunicationManagement(baseVersion: datagram.bytes[0], managementClass: datagram.bytes[1])
        }
        guard datagram.bytes[2] == 2 else { throw .classVersion(datagram.bytes[2]) }
        let status = UInt16(datagram.number(at: 4, 2))
        guard datagram.bytes[3] == 3, status == 0 else { throw .method(datagram.bytes[3], status: status) }
        let number = UInt16(datagram.number(at: 16, 2))
        guard let attribute = CMAttribute(rawValue: number) else { throw .unknownAttribute(number) }
        transactionID = datagram.number(at: 8, 8)
        body = Body(attribute, datagram)
    }

    /// The 256 bytes of the MAD.
    package var bytes: [UInt8] {
        var datagram = Datagram()
        datagram.bytes.replaceSubrange(0..<4, with: [1, 7, 2, 3])
        datagram.set(transactionID, at: 8, 8)
        datagram.set(UInt64(body.attribute.rawValue), at: 16, 2)
        body.write(to: &datagram)
        return datagram.bytes
    }
}

/// The start of the data of a message.
private let data = Datagram.headerByteCount

extension CMMessage.Body {
    /// The attribute of the MAD.
    package var attribute: CMAttribute {
        switch self {
        case .connectRequest: .connectRequest
        case .messageReceiptAcknowledgment: .messageReceiptAcknowledgment
        case .connectReject: .connectReject
        case .connectReply: .connectReply
        case .readyToUse: .readyToUse
        case .disconnectRequest: .disconnectRequest
        case .disconnectReply: .disconnectReply
        case .serviceRequest: .serviceRequest
        case .serviceReply: .serviceReply
        case .alternatePath(let message): message.attribute
        }
    }

    fileprivate init(_ attribute: CMAttribute, _ datagram: Datagram) {
        switch attribute {
        case .connectRequest: self = .connectRequest(ConnectRequest(datagram))
        case .messageReceiptAcknowledgment:
            self = .messageReceiptAcknowledgment(MessageReceiptAcknowledgment(datagram))
        case .connectReject: self = .connectReject(ConnectReject(datagram))
        case .connectReply: self = .connectReply(ConnectReply(datagram))
        case .readyToUse: self = .readyToUse(CMConfirmation(datagram))
        case .disconnectRequest: self = .disconnectRequest(DisconnectRequest(datagram))
        case .disconnectReply: self = .disconnectReply(CMConfirmation(datagram))
        case .serviceRequest: self = .serviceRequest(ServiceRequest(datagram))
        case .serviceReply: self = .serviceReply(ServiceReply(datagram))
        case .loadAlternatePath, .alternatePathResponse:
            let (local, remote) = datagram.identifiers
            self = .alternatePath(AlternatePathMessage(attribute: attribute, localID: local, remoteID: remote))
        }
    }

    fileprivate func write(to datagram: inout Datagram) {
        switch self {
        case .connectRequest(let message): message.write(to: &datagram)
        case .messageReceiptAcknowledgment(let message): message.write(to: &datagram)
        case .connectReject(let message): message.write(to: &datagram)
        case .connectReply(let message): message.write(to: &datagram)
        case .readyToUse(let message), .disconnectReply(let message): message.write(to: &datagram)
        case .disconnectRequest(let message): message.write(to: &datagram)
        case .serviceRequest(let message): message.write(to: &datagram)
        case .serviceReply(let message): message.write(to: &datagram)
        case .alternatePath(let message): datagram.identifiers = (message.localID, message.remoteID)
        }
    }
}

extension Datagram {
    /// Local and remote communication ID.
    fileprivate var identifiers: (local: UInt32, remote: UInt32) {
        get { (UInt32(number(at: data, 4)), UInt32(number(at: data + 4, 4))) }
        set {
            set(UInt64(newValue.local), at: data, 4)
            set(UInt64(newValue.remote), at: data + 4, 4)
        }
    }

    fileprivate func number24(at offset: Int) -> UInt32 { UInt32(number(at: offset, 3)) }
}

extension ConnectRequest {
    fileprivate init(_ datagram: Datagram) {
        localID = datagram.identifiers.local
        serviceID = datagram.number(at: data + 8, 8)
        localGUID = datagram.number(at: data + 16, 8)
        queuePairNumber = datagram.number24(at: data + 32)
        responderResources = datagram.bytes[data + 35]
        initiatorDepth = datagram.bytes[data + 39]
        remoteResponseTimeout = datagram.bits(at: data + 43, 0, 5)
        transport = CMTransport(
            type: datagram.bits(at: data + 43, 5, 2), extended: datagram.bits(at: data + 51, 5, 3))
        flowControl = datagram.bits(at: data + 43, 7, 1) != 0
        startingPSN = datagram.number24(at: data + 44)
        localResponseTimeout = datagram.bits(at: data + 47, 0, 5)
        retryCount = datagram.bits(at: data + 47, 5, 3)
        partitionKey = UInt16(datagram.number(at: data + 48, 2))
        pathMTU = datagram.bits(at: data + 50, 0, 4)
        rnrRetryCount = datagram.bits(at: data + 50, 5, 3)
        maxCMRetries = datagram.bits(at: data + 51, 0, 4)
        hasSharedReceiveQueue = datagram.bits(at: data + 51, 4, 1) != 0
        localLID = UInt16(datagram.number(at: data + 52, 2))
        remoteLID = UInt16(datagram.number(at: data + 54, 2))
        localGID = datagram.gid(at: data + 56)
        remoteGID = datagram.gid(at: data + 72)
        flowLabel = datagram.number24(at: data + 88) >> 4
        packetRate = datagram.bits(at: data + 91, 2, 6)
        trafficClass = datagram.bytes[data + 92]
        hopLimit = datagram.bytes[data + 93]
        serviceLevel = datagram.bits(at: data + 94, 0, 4)
        localACKTimeout = datagram.bits(at: data + 95, 0, 5)
        privateData = datagram.octets(at: data + 140, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.set(UInt64(localID), at: data, 4)
        datagram.set(serviceID, at: data + 8, 8)
        datagram.set(localGUID, at: data + 16, 8)
        datagram.set(UInt64(queuePairNumber), at: data + 32, 3)
        datagram.bytes[data + 35] = responderResources
        datagram.bytes[data + 39] = initiatorDepth
        datagram.set(remoteResponseTimeout, at: data + 43, 0, bits: 5)
        datagram.set(transport.type, at: data + 43, 5, bits: 2)
        datagram.set(transport.extended, at: data + 51, 5, bits: 3)
        datagram.set(flowControl ? 1 : 0, at: data + 43, 7, bits: 1)
        datagram.set(UInt64(startingPSN), at: data + 44, 3)
        datagram.set(localResponseTimeout, at: data + 47, 0, bits: 5)
        datagram.set(retryCount, at: data + 47, 5, bits: 3)
        datagram.set(UInt64(partitionKey), at: data + 48, 2)
        datagram.set(pathMTU, at: data + 50, 0, bits: 4)
        datagram.set(rnrRetryCount, at: data + 50, 5, bits: 3)
        datagram.set(maxCMRetries, at: data + 51, 0, bits: 4)
        datagram.set(hasSharedReceiveQueue ? 1 : 0, at: data + 51, 4, bits: 1)
        datagram.set(UInt64(localLID), at: data + 52, 2)
        datagram.set(UInt64(remoteLID), at: data + 54, 2)
        datagram.set(localGID, at: data + 56)
        datagram.set(remoteGID, at: data + 72)
        datagram.set(UInt64(flowLabel & 0xF_FFFF) << 4, at: data + 88, 3)
        datagram.set(packetRate, at: data + 91, 2, bits: 6)
        datagram.bytes[data + 92] = trafficClass
        datagram.bytes[data + 93] = hopLimit
        datagram.set(serviceLevel, at: data + 94, 0, bits: 4)
        datagram.set(localACKTimeout, at: data + 95, 0, bits: 5)
        datagram.set(privateData, at: data + 140, Self.privateByteCount)
    }
}

extension MessageReceiptAcknowledgment {
    fileprivate init(_ datagram: Datagram) {
        (localID, remoteID) = datagram.identifiers
        message = CMSubject(rawValue: datagram.bits(at: data + 8, 0, 2))
        serviceTimeout = datagram.bits(at: data + 9, 0, 5)
        privateData = datagram.octets(at: data + 10, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.identifiers = (localID, remoteID)
        datagram.set(message.rawValue, at: data + 8, 0, bits: 2)
        datagram.set(serviceTimeout, at: data + 9, 0, bits: 5)
        datagram.set(privateData, at: data + 10, Self.privateByteCount)
    }
}

extension ConnectReject {
    fileprivate init(_ datagram: Datagram) {
        (localID, remoteID) = datagram.identifiers
        message = CMSubject(rawValue: datagram.bits(at: data + 8, 0, 2))
        // 7 bits have room for more than the field.
        let count = min(Int(datagram.bits(at: data + 9, 0, 7)), Self.informationByteCount)
        reason = CMRejectReason(rawValue: UInt16(datagram.number(at: data + 10, 2)))
        information = datagram.octets(at: data + 12, count)
        privateData = datagram.octets(at: data + 84, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.identifiers = (localID, remoteID)
        datagram.set(message.rawValue, at: data + 8, 0, bits: 2)
        datagram.set(UInt8(min(information.count, Self.informationByteCount)), at: data + 9, 0, bits: 7)
        datagram.set(UInt64(reason.rawValue), at: data + 10, 2)
        datagram.set(information, at: data + 12, Self.informationByteCount)
        datagram.set(privateData, at: data + 84, Self.privateByteCount)
    }
}

extension ConnectReply {
    fileprivate init(_ datagram: Datagram) {
        (localID, remoteID) = datagram.identifiers
        queuePairNumber = datagram.number24(at: data + 12)
        endToEndContextNumber = datagram.number24(at: data + 16)
        startingPSN = datagram.number24(at: data + 20)
        responderResources = datagram.bytes[data + 24]
        initiatorDepth = datagram.bytes[data + 25]
        targetACKDelay = datagram.bits(at: data + 26, 0, 5)
        flowControl = datagram.bits(at: data + 26, 7, 1) != 0
        rnrRetryCount = datagram.bits(at: data + 27, 0, 3)
        hasSharedReceiveQueue = datagram.bits(at: data + 27, 3, 1) != 0
        localGUID = datagram.number(at: data + 28, 8)
        privateData = datagram.octets(at: data + 36, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.identifiers = (localID, remoteID)
        datagram.set(UInt64(queuePairNumber), at: data + 12, 3)
        datagram.set(UInt64(endToEndContextNumber), at: data + 16, 3)
        datagram.set(UInt64(startingPSN), at: data + 20, 3)
        datagram.bytes[data + 24] = responderResources
        datagram.bytes[data + 25] = initiatorDepth
        datagram.set(targetACKDelay, at: data + 26, 0, bits: 5)
        datagram.set(flowControl ? 1 : 0, at: data + 26, 7, bits: 1)
        datagram.set(rnrRetryCount, at: data + 27, 0, bits: 3)
        datagram.set(hasSharedReceiveQueue ? 1 : 0, at: data + 27, 3, bits: 1)
        datagram.set(localGUID, at: data + 28, 8)
        datagram.set(privateData, at: data + 36, Self.privateByteCount)
    }
}

extension CMConfirmation {
    fileprivate init(_ datagram: Datagram) {
        (localID, remoteID) = datagram.identifiers
        privateData = datagram.octets(at: data + 8, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.identifiers = (localID, remoteID)
        datagram.set(privateData, at: data + 8, Self.privateByteCount)
    }
}

extension DisconnectRequest {
    fileprivate init(_ datagram: Datagram) {
        (localID, remoteID) = datagram.identifiers
        remoteQueuePairNumber = datagram.number24(at: data + 8)
        privateData = datagram.octets(at: data + 12, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.identifiers = (localID, remoteID)
        datagram.set(UInt64(remoteQueuePairNumber), at: data + 8, 3)
        datagram.set(privateData, at: data + 12, Self.privateByteCount)
    }
}

extension ServiceRequest {
    fileprivate init(_ datagram: Datagram) {
        requestID = datagram.identifiers.local
        partitionKey = UInt16(datagram.number(at: data + 4, 2))
        serviceID = datagram.number(at: data + 8, 8)
        privateData = datagram.octets(at: data + 16, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.set(UInt64(requestID), at: data, 4)
        datagram.set(UInt64(partitionKey), at: data + 4, 2)
        datagram.set(serviceID, at: data + 8, 8)
        datagram.set(privateData, at: data + 16, Self.privateByteCount)
    }
}

extension ServiceReply {
    fileprivate init(_ datagram: Datagram) {
        requestID = datagram.identifiers.local
        status = CMServiceStatus(rawValue: datagram.bytes[data + 4])
        queuePairNumber = datagram.number24(at: data + 8)
        serviceID = datagram.number(at: data + 12, 8)
        queueKey = UInt32(datagram.number(at: data + 20, 4))
        privateData = datagram.octets(at: data + 96, Self.privateByteCount)
    }

    fileprivate func write(to datagram: inout Datagram) {
        datagram.set(UInt64(requestID), at: data, 4)
        datagram.bytes[data + 4] = status.rawValue
        datagram.set(UInt64(queuePairNumber), at: data + 8, 3)
        datagram.set(serviceID, at: data + 12, 8)
        datagram.set(UInt64(queueKey), at: data + 20, 4)
        datagram.set(privateData, at: data + 96, Self.privateByteCount)
    }
}
