import RoCEWire

// Unreliable datagrams: every message is one packet with an address of its own.

extension Core {
    /// Writes the next datagram of a queue pair; its work request is complete with that.
    mutating func emitDatagram(_ pair: Pair, to target: UnsafeMutableRawPointer) -> OutgoingPacket? {
        let current = pair.pointee.requester.current
        guard pair.pointee.attributes.state == .readyToSend, pair.pointee.send.has(current) else { return nil }
        let entry = pair.pointee.sendEntry(current)
        let payload = Int(entry.pointee.length)
        guard payload <= Int(configuration.activeMTU) else {
            failCurrent(pair, .localLengthError)
            return nil
        }
        let start = BTH.byteCount + DETH.byteCount
        let data = start + (entry.pointee.hasImmediate ? ImmDt.byteCount : 0)
        guard copyPayload(entry, pair, offset: 0, byteCount: payload, to: target + data) else {
            failCurrent(pair, .localProtectionError)
            return nil
        }
        let key = entry.pointee.remoteQueueKey
        DETH(queueKey: key & 1 << 31 != 0 ? pair.pointee.attributes.queueKey : key, sourceQP: pair.pointee.number)
            .emit(at: target + BTH.byteCount)
        if entry.pointee.hasImmediate { (target + start).storeBytes(of: entry.pointee.immediate, as: UInt32.self) }
        let psn = pair.pointee.requester.next
        let bth = BTH(
            opcode: .send(
                .unreliableDatagram, first: true, last: true, extra: entry.pointee.hasImmediate ? .immediate : .none),
            destinationQP: entry.pointee.remoteQueuePair, psn: psn, partitionKey: configuration.partitionKey,
            solicited: entry.pointee.sendFlags.contains(.solicited))
        let packet = OutgoingPacket(
            byteCount: seal(bth, at: target, payload: payload),
            path: (UnsafeRawPointer(entry) + SendEntry.size).load(as: Path.self),
            sourceQueuePair: pair.pointee.number, destinationQueuePair: entry.pointee.remoteQueuePair,
            isDatagram: true, isExpendable: false)
        counters.sentPackets &+= 1
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.una = psn.next
        pair.pointee.requester.high = psn.next
        pair.pointee.requester.current = current &+ 1
        pair.pointee.requester.started = current &+ 1
        completeOldestSend(pair, status: .success)
        return packet
    }

    /// Takes a datagram: 40 bytes of GRH area, then the payload (RoCEv2 annex A17.4.5.1; IBTA volume 1, 11.4.1.2).
    mutating func receiveDatagram(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, from source: PacketSource
    ) {
        guard packet.headers.deth.queueKey == pair.pointee.attributes.queueKey else {
            counters.droppedQueueKey &+= 1
            return
        }
        guard packet.payloadByteCount <= Int(configuration.activeMTU) else {
            counters.droppedInvalid &+= 1
            return
        }
        guard takeReceive(pair) else {
            counters.droppedNoReceive &+= 1
            return
        }
        var status = placeHeader(pair, source.header)
        if status == .success { status = place(pair, packet, payload: payload) }
        guard status == .success else {
            failReceive(pair, status: status)
            return enterError(pair)
        }
        finishReceive(pair, packet, opcode: .receive)
    }

    /// IPv6: its header. IPv4: 20 zero bytes and its header.
    private mutating func placeHeader(_ pair: Pair, _ header: UnsafeRawBufferPointer) -> CompletionStatus {
        let responder = pair.pointee.responder
        guard responder.receiveLength >= 40 else { return .localLengthError }
        var area: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        let isPlaced = withUnsafeMutableBytes(of: &area) { bytes in
            if header.count == 40 || header.count == 20, let from = header.baseAddress {
                (bytes.baseAddress! + (40 - header.count)).copyMemory(from: from, byteCount: header.count)
            }
            return scatter(
                responder.elements, count: responder.elementCount, domain: pair.pointee.receiveDomain, offset: 0,
                byteCount: 40, from: bytes.baseAddress!)
        }
        pair.pointee.responder.received = 40
        return isPlaced ? .success : .localProtectionError
    }
}
