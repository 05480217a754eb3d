import RoCEWire

extension Core {
    /// Finds the queue pair, and drops what is not for it (IBTA volume 1, 9.6.1: validation of the headers).
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
        guard let pair = receiver(packet.headers.bth, from: source), let start = bytes.baseAddress else { return }
        let payload = start + packet.payloadOffset
        if pair.pointee.type == .ud { return receiveDatagram(pair, packet, payload: payload, from: source) }
        if packet.headers.bth.opcode.isResponse {
            return receiveResponse(pair, packet, payload: payload, now: now)
        }
        establish(pair)
        if pair.pointee.type == .uc { return receiveUnreliable(pair, packet, payload: payload) }
        receiveRequest(pair, packet, payload: payload)
    }

    /// The queue pair that takes this packet, or nil after counting why none does.
    private mutating func receiver(_ bth: BTH, from source: PacketSource) -> Pair? {
        guard let pair = queuePair(bth.destinationQP) else {
            counters.droppedNoQueuePair &+= 1
            return nil
        }
        switch pair.pointee.attributes.state {
        case .readyToReceive, .readyToSend, .sendQueueDrained, .sendQueueError: break
        default:
            counters.droppedState &+= 1
            return nil
        }
        guard bth.opcode.transport == pair.pointee.type.transport else {
            counters.droppedServiceType &+= 1
            return nil
        }
        guard matchesPartition(bth.partitionKey) else {
            counters.droppedPartitionKey &+= 1
            return nil
        }
        if pair.pointee.type != .ud {
            let path = pair.pointee.attributes.path
            guard source.source == path.destination, source.destination == path.source else {
                counters.droppedAddress &+= 1
                return nil
            }
        }
        return pair
    }

    /// The low 15 bits are the partition; two limited members (top bit clear) do not talk (IBTA volume 1, 10.9.3).
    private mutating func matchesPartition(_ key: UInt16) -> Bool {
        (key ^ configuration.partitionKey) & 0x7FFF == 0 && (key | configuration.partitionKey) & 0x8000 != 0
    }

    /// An opcode nobody knows: an RC peer is told so when it is its turn, for UC and UD it is dropped.
    private mutating func receiveUnknown(_ bytes: UnsafeRawBufferPointer, from source: PacketSource) {
        guard let bth = try? BTH(parsing: bytes), bth.opcode.transport == .reliableConnection,
            let pair = receiver(bth, from: source)
        else {
            counters.droppedMalformed &+= 1
            return
        }
        establish(pair)
        if isNext(pair, bth) { refuse(pair, .invalidRequest, event: .requestError) }
    }

    /// The first packet in RTR says that the peer is there (IBTA volume 1, 11.6.3.4).
    private mutating func establish(_ pair: Pair) {
        guard !pair.pointee.responder.isEstablished else { return }
        pair.pointee.responder.isEstablished = true
        if pair.pointee.attributes.state == .readyToReceive {
            events.post(pair.pointee.event, .communicationEstablished)
        }
    }
}

extension QueuePairType {
    /// The top bits of its opcodes.
    @inline(__always)
    var transport: Opcode.Transport {
        switch self {
        case .rc: .reliableConnection
        case .uc: .unreliableConnection
        default: .unreliableDatagram
        }
    }
}
