import CIBVerbs
import CLinux
import RoCETransport
import RoCEWire

/// A message of communication management (IBTA volume 1, 13.4.2 and 12.6) as far as its way through a host depends on it.
/// Numbers are in network order.
///
/// | byte | field |
/// |------|-------|
/// | 0-3 | base version 1, class 0x07, class version 2, method 3 |
/// | 4-5 | status, 0 |
/// | 8-15 | transaction ID |
/// | 16-17 | attribute |
/// | 24-27 | the sender's communication ID; SIDR_REQ and SIDR_REP: the request ID |
/// | 28-31 | the receiver's communication ID |
/// | 32-39 | REQ, SIDR_REQ: service ID |
struct ManagementMessage {
    let bytes: UnsafeRawBufferPointer

    static let byteCount = 256

    private enum Attribute {
        static let connectRequest: UInt32 = 0x10
        static let reject: UInt32 = 0x12
        static let disconnectRequest: UInt32 = 0x15
        static let disconnectReply: UInt32 = 0x16
        static let serviceRequest: UInt32 = 0x17
        static let serviceReply: UInt32 = 0x18
        static let last: UInt32 = 0x1A
    }

    /// Where a message goes.
    enum Receiver {
        case service(UInt64)
        case slot(Int)
    }

    /// nil unless it is a message of communication management.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount, Self.number(bytes, 0) == 0x0107_0203, bytes[4] == 0, bytes[5] == 0 else {
            return nil
        }
        self.bytes = bytes
        guard attribute >= Attribute.connectRequest, attribute <= Attribute.last else { return nil }
    }

    private var attribute: UInt32 { Self.number(bytes, 16) >> 16 }

    private static func number(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt32 {
        UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    var receiver: Receiver {
        switch attribute {
        case Attribute.connectRequest, Attribute.serviceRequest:
            .service(UInt64(Self.number(bytes, 32)) << 32 | UInt64(Self.number(bytes, 36)))
        case Attribute.serviceReply: .slot(Int(bytes[24]))
        // The REJ of a client that gives up has no ID of its peer, and goes to slot 0. To try every slot would cost 256 system
        // calls for each such packet of any host.
        default: .slot(Int(bytes[28]))
        }
    }

    /// Writes the reply to a message that no process of this host takes, so that its sender need not wait: a REJ for a
    /// REQ, with the reason "invalid service ID"; a SIDR_REP with that status; a DREP for a DREQ.
    /// - Returns: Whether there is a reply.
    func writeReply(to reply: UnsafeMutableRawBufferPointer) -> Bool {
        reply.initializeMemory(as: UInt8.self, repeating: 0)
        // Base version to method, and the transaction ID.
        for index in 0..<4 { reply[index] = bytes[index] }
        for index in 8..<16 { reply[index] = bytes[index] }
        switch attribute {
        case Attribute.connectRequest:
            reply[17] = UInt8(Attribute.reject)
            // The IDs change places. Byte 32: the message is a REQ, 0. The reason is in bytes 34 and 35.
            for index in 0..<4 { reply[28 + index] = bytes[24 + index] }
            reply[35] = 8
        case Attribute.disconnectRequest:
            reply[17] = UInt8(Attribute.disconnectReply)
            for index in 0..<4 {
                reply[24 + index] = bytes[28 + index]
                reply[28 + index] = bytes[24 + index]
            }
        case Attribute.serviceRequest:
            reply[17] = UInt8(Attribute.serviceReply)
            for index in 0..<4 { reply[24 + index] = bytes[24 + index] }
            // The status "service ID not supported", and the service ID.
            reply[28] = 1
            for index in 0..<8 { reply[36 + index] = bytes[32 + index] }
        default: return false
        }
        return true
    }
}

/// Queue pair 1 of the port, as far as MADs of communication management need it. All processes of a host that have the
/// port open are its queue pair 1 together: the one that receives a MAD from the network passes it to the mailbox of the
/// process that takes it.
///
/// | byte of a message in a mailbox | field |
/// |------|-------|
/// | 0-7  | layout number |
/// | 8-23, 24-39 | GID of the sender's port, and of the receiver's |
/// | 40-295 | the MAD |
struct ManagementPort: ~Copyable {
    /// The queue pair (`IB_QPT_GSI`), and its Q_Key (IBTA volume 1, 10.2.4).
    static let queuePairNumber: UInt32 = 1
    static let qkey: UInt32 = 0x8001_0000
    static let headByteCount = 40
    static let packetByteCount = BTH.byteCount + DETH.byteCount + ManagementMessage.byteCount + ICRC.byteCount

    /// The layout number. It changes with the format.
    static let layout: UInt64 = 0x5D3A_4D41_4400_0001

    /// The PSN of the next packet.
    private var psn: UInt32 = 0
    /// The socket that passes messages to mailboxes; -1 until it is needed.
    private var sender: Int32 = -1
    /// Replies that wait to be sent.
    private var replies = InlineArray<8, Reply>(repeating: Reply())
    private var replyCount = 0

    private struct Reply {
        var path = Path(source: GID(), destination: GID())
        var bytes = InlineArray<256, UInt8>(repeating: 0)
    }

    deinit { if sender >= 0 { linux_close(sender) } }

    /// Whether the destination QP of a packet is queue pair 1.
    @inline(__always)
    static func isDestination(of packet: UnsafeRawBufferPointer) -> Bool {
        packet[7] == 1 && packet[6] == 0 && packet[5] == 0
    }

    /// The MAD of a packet; nil when it is not a packet to queue pair 1 with the Q_Key of that and one MAD.
    static func message(in packet: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard packet.count == packetByteCount else { return nil }
        let bth = BTH(at: packet.baseAddress!)
        let deth = DETH(at: packet.baseAddress! + BTH.byteCount)
        guard bth.opcode == .udSendOnly, bth.transportVersion == 0, bth.padCount == 0,
            bth.pkey & 0x7FFF == BTH.defaultPKey & 0x7FFF, deth.qkey == qkey, deth.sourceQPN == queuePairNumber
        else { return nil }
        let start = BTH.byteCount + DETH.byteCount
        return UnsafeRawBufferPointer(rebasing: packet[start..<start + ManagementMessage.byteCount])
    }

    /// Writes a packet, without the ICRC.
    mutating func write(_ mad: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) {
        BTH(opcode: .udSendOnly, destinationQPN: Self.queuePairNumber, psn: PSN(psn)).emit(at: target)
        DETH(qkey: Self.qkey, sourceQPN: Self.queuePairNumber).emit(at: target + BTH.byteCount)
        (target + BTH.byteCount + DETH.byteCount).copyMemory(from: mad.baseAddress!, byteCount: mad.count)
        psn = (psn &+ 1) & 0xFF_FFFF
    }

    /// Passes a message to the process of this host that takes it. Returns 0, or a positive errno value: ECONNREFUSED
    /// when there is none, EAGAIN when its mailbox is full.
    mutating func pass(_ message: ManagementMessage, from source: GID, to destination: GID) -> Int32 {
        if sender < 0 { sender = linux_mailbox_open(nil) }
        guard sender >= 0 else { return -sender }
        switch message.receiver {
        case .slot(let slot):
            return pass(message, source, destination) { linux_mailbox_of_slot(Int32(slot), $0) }
        case .service(let service):
            let error = pass(message, source, destination) { name in
                destination.withNetworkBytes { linux_mailbox_of_service(service, $0, name) }
            }
            guard error == ECONNREFUSED else { return error }
            return pass(message, source, destination) { linux_mailbox_of_service(service, nil, $0) }
        }
    }

    private func pass(
        _ message: ManagementMessage, _ source: GID, _ destination: GID,
        name write: (UnsafeMutablePointer<CChar>) -> Void
    ) -> Int32 {
        var name = InlineArray<96, CChar>(repeating: 0)
        var head = InlineArray<5, UInt64>(repeating: Self.layout)
        (head[1], head[2]) = (source.high.bigEndian, source.low.bigEndian)
        (head[3], head[4]) = (destination.high.bigEndian, destination.low.bigEndian)
        return withUnsafeMutableBytes(of: &name) { name in
            let name = name.baseAddress!.assumingMemoryBound(to: CChar.self)
            write(name)
            return withUnsafeBytes(of: &head) { head in
                linux_mailbox_send(
                    sender, name, head.baseAddress, Self.headByteCount, message.bytes.baseAddress, message.bytes.count)
            }
        }
    }

    /// Keeps the reply to a message that no process takes; drops it when there are too many.
    mutating func keepReply(to message: ManagementMessage, _ path: Path) {
        guard replyCount < replies.count else { return }
        var reply = Reply(path: path)
        let isReply = withUnsafeMutableBytes(of: &reply.bytes) { message.writeReply(to: $0) }
        guard isReply else { return }
        replies[replyCount] = reply
        replyCount += 1
    }

    /// Whether a reply waits to be sent.
    @inline(__always)
    var hasReplies: Bool { replyCount > 0 }

    /// Takes the last reply that waits, and passes it to `body`.
    mutating func takeReply(_ body: (inout ManagementPort, UnsafeRawBufferPointer, Path) -> Void) {
        replyCount -= 1
        let reply = replies[replyCount]
        withUnsafeBytes(of: reply.bytes) { body(&self, $0, reply.path) }
    }
}

extension ContextPointer {
    /// Passes a MAD from the network to the process that takes it. Under the lock.
    @inline(never)
    func receiveManagement(_ packet: UnsafeRawBufferPointer, _ envelope: PacketEnvelope) {
        guard let mad = ManagementPort.message(in: packet), let message = ManagementMessage(mad) else {
            pointee.counters.pointee.badManagement &+= 1
            return
        }
        let error = guarded.pointee.management.pass(message, from: envelope.source, to: envelope.destination)
        if error == 0 { return }
        pointee.counters.pointee.badManagement &+= 1
        guard error == ECONNREFUSED else { return }
        let path = Path(source: envelope.destination, destination: envelope.source, tag: Route.datagrams)
        guarded.pointee.management.keepReply(to: message, path)
    }

    /// Sends the replies to MADs that no process takes. Under the lock.
    @inline(__always)
    func sendManagementReplies() {
        while guarded.pointee.management.hasReplies {
            guarded.pointee.management.takeReply { port, mad, path in
                _ = sendManagementDatagram(mad, path, &port)
            }
        }
    }

    /// Queues a MAD for the network. Returns false when the source address has no socket. Under the lock.
    func sendManagementDatagram(_ mad: UnsafeRawBufferPointer, _ path: Path, _ port: inout ManagementPort) -> Bool {
        let target = guarded.pointee.sockets.reserve()
        port.write(mad, to: target)
        let byteCount = ManagementPort.packetByteCount
        guard guarded.pointee.sockets.commit(byteCount: byteCount, path, isExpendable: false) else {
            pointee.counters.pointee.unreachable &+= 1
            return false
        }
        pointee.counters.pointee.sentDatagrams &+= 1
        return true
    }
}
