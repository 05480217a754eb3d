import RoCEWire

extension Core {
    /// Finds the queue pair of a packet, and drops packets that are not valid for it (IBTA volume 1, 9.6.1; `rxe_rcv`
    /// of the kernel's rxe).
    mutating func receive(_ bytes: UnsafeRawBufferPointer, from source: PacketSource, now: UInt64) {
        counters.receivedPackets &+= 1
        let packet: TransportPacket
        do {
            packet = try TransportPacket(parsing: bytes)
        } catch .unknownOpcode {
            return receiveUnknown(bytes, from: source)
        } catch {
            counters.droppedMalformed &+= 1
            return
        }
        guard packet.headers.bth.opcode.operation != .congestionNotification else {
            counters.congestionNotifications &+= 1
            return
        }
        guard let start = bytes.baseAddress else { return }
        let payload = start + packet.payloadOffset
        if isMulticast(packet.headers.bth) { return receiveMulticast(packet, payload: payload, from: source) }
        guard let pair = destination(packet.headers.bth, from: source) else { return }
        if pair.pointee.type == .ud { return receiveDatagram(pair, packet, payload: payload, from: source) }
        if packet.headers.bth.opcode.isResponse {
            return receiveResponse(pair, packet, payload: payload, now: now)
        }
        if pair.pointee.type == .xrcSend {
            // An XRC_SEND queue pair has no responder.
            counters.droppedServiceType &+= 1
            return
        }
        establish(pair)
        if pair.pointee.type == .uc { return receiveUnreliable(pair, packet, payload: payload) }
        receiveRequest(pair, packet, payload: payload)
    }

    /// The queue pair of this packet; nil, after counting the reason, when the packet is dropped.
    mutating func destination(_ bth: BTH, from source: PacketSource) -> Pair? {
        guard let pair = queuePair(bth.destinationQPN) else {
            counters.droppedNoQueuePair &+= 1
            return nil
        }
        guard pair.pointee.isReceiving else {
            counters.droppedState &+= 1
            return nil
        }
        guard bth.opcode.transport == pair.pointee.transport else {
            counters.droppedServiceType &+= 1
            return nil
        }
        guard matchesPartition(bth.pkey) else {
            counters.droppedPKey &+= 1
            return nil
        }
        if pair.pointee.type != .ud {
            let path = pair.pointee.attributes.path
            if source.source == path.destination, source.destination == path.source {
                if pair.pointee.attributes.migration != .migrated { noteMigrationState(pair, bth) }
            } else if !followMigration(pair, bth, from: source) {
                counters.droppedAddress &+= 1
                return nil
            }
        }
        return pair
    }

    /// Whether a P_Key matches that of the port: the low 15 bits are the partition, and at least one of the two has the
    /// top bit, full membership (IBTA volume 1, 10.9.3; `pkey_match` of the kernel's rxe).
    mutating func matchesPartition(_ key: UInt16) -> Bool {
        let fullMember: UInt16 = 0x8000
        return (key ^ configuration.pkey) & ~fullMember == 0 && (key | configuration.pkey) & fullMember != 0
    }

    /// A BTH.OpCode that is not known: on RC and XRC, the responder returns a NAK when the PSN is the expected one; on
    /// UC and UD the packet is dropped.
    private mutating func receiveUnknown(_ bytes: UnsafeRawBufferPointer, from source: PacketSource) {
        guard let bth = try? BTH(parsing: bytes),
            bth.opcode.transport == .reliableConnection || bth.opcode.transport == .extendedReliableConnection,
            let pair = destination(bth, from: source), pair.pointee.type != .xrcSend
        else {
            counters.droppedMalformed &+= 1
            return
        }
        establish(pair)
        let distance = pair.pointee.responder.expected.distance(to: bth.psn)
        if distance == 0 { return refuse(pair, .invalidRequest, event: .requestError) }
        guard distance > 0 else { return }
        counters.outOfSequence &+= 1
        reportGap(pair)
    }

    /// The first packet in RTR establishes the communication (IBTA volume 1, 11.6.3.1; `IBV_EVENT_COMM_EST`).
    @inline(__always)
    mutating func establish(_ pair: Pair) {
        guard pair.pointee.responder.sequence == .awaitingFirst else { return }
        pair.pointee.responder.sequence = .inSequence
        if pair.pointee.state == .readyToReceive {
            events.post(pair.pointee.event, .communicationEstablished)
            publish(pair)
        }
    }
}

extension QueuePairType {
    /// The transport service in BTH.OpCode.
    @inline(__always)
    var transport: Opcode.Transport {
        switch self {
        case .rc: .reliableConnection
        case .uc: .unreliableConnection
        case .xrcSend, .xrcReceive: .extendedReliableConnection
        default: .unreliableDatagram
        }
    }
}
