import CIBVerbs
import RoCEWire

// Unreliable datagrams (IBTA volume 1, 9.8): every message is one packet, with the path of its work request.

extension Core {
    /// Writes the next datagram of a queue pair, and completes its work request.
    mutating func emitDatagram(_ pair: Pair, to target: UnsafeMutableRawPointer) -> Bool {
        let current = pair.pointee.requester.current
        guard pair.pointee.state == .readyToSend, pair.pointee.send.has(current) else { return false }
        let entry = pair.pointee.sendWQE(current)
        let payload = Int(entry.pointee.length)
        guard payload <= Int(configuration.activeMTU) else {
            failCurrent(pair, .localLengthError)
            return false
        }
        if faults != nil {
            let status = injectedStatus(entry, pair)
            guard status == .success else {
                failCurrent(pair, status)
                return false
            }
        }
        let start = BTH.byteCount + DETH.byteCount
        let data = start + (entry.pointee.hasImmediate ? ImmDt.byteCount : 0)
        guard copyPayload(entry, pair, offset: 0, byteCount: payload, to: target + data) else {
            failCurrent(pair, .localProtectionError)
            return false
        }
        let key = entry.pointee.remoteQKey
        DETH(qkey: key & controlledQKey != 0 ? pair.pointee.attributes.qkey : key, sourceQPN: pair.pointee.number)
            .emit(at: target + BTH.byteCount)
        if entry.pointee.hasImmediate { (target + start).storeBytes(of: entry.pointee.immediate, as: UInt32.self) }
        let psn = pair.pointee.requester.next
        let bth = BTH(
            opcode: .send(
                .unreliableDatagram, first: true, last: true, extra: entry.pointee.hasImmediate ? .immediate : .none),
            destinationQPN: entry.pointee.remoteQPN, psn: psn, pkey: configuration.pkey,
            solicited: entry.pointee.flags.contains(.solicited))
        outgoing.initialize(
            to: OutgoingPacket(
                byteCount: seal(bth, at: target, payload: payload),
                path: (UnsafeRawPointer(entry) + SendWQE.size).load(as: Path.self),
                sourceQPN: pair.pointee.number, destinationQPN: entry.pointee.remoteQPN & mask24,
                isDatagram: true, isExpendable: false))
        counters.sentPackets &+= 1
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.una = psn.next
        pair.pointee.requester.high = psn.next
        pair.pointee.requester.current = current &+ 1
        pair.pointee.requester.started = current &+ 1
        completeOldestSend(pair, status: .success)
        return true
    }

    /// The bytes at the start of a datagram's receive buffer that hold the GRH, or the IP header: 40 (`struct
    /// ibv_grh`).
    private static var grhByteCount: Int { MemoryLayout<ibv_grh>.size }

    /// Receives a datagram: 40 bytes of GRH area, then the payload (RoCEv2 annex A17.4.5.2; IBTA volume 1, 11.4.1.2).
    ///
    /// A datagram that is longer than the next receive work request is dropped, and the receive work request stays at
    /// the head of its queue, as in rxe and rdmavt: any host that knows QPN and Q_Key can send such a datagram. The
    /// check precedes the removal of the receive work request, so that such datagrams consume none of a shared receive
    /// queue either.
    mutating func receiveDatagram(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, from source: PacketSource
    ) {
        guard packet.headers.deth.qkey == pair.pointee.attributes.qkey else {
            counters.droppedQKey &+= 1
            return
        }
        guard packet.payloadByteCount <= Int(configuration.activeMTU) else {
            counters.droppedInvalid &+= 1
            return
        }
        guard let room = receiveRoom(pair) else {
            counters.droppedNoReceive &+= 1
            return
        }
        guard packet.payloadByteCount &+ Self.grhByteCount <= Int(room) else {
            counters.droppedTooLong &+= 1
            return
        }
        if faults != nil, failsByFault(pair, packet.headers.bth.opcode) { return }
        guard takeReceive(pair), placeGRH(pair, source.header), place(pair, packet, payload: payload) == .success
        else {
            failReceive(pair, status: .localProtectionError)
            return enterError(pair)
        }
        finishReceive(pair, packet, opcode: .receive, networkType: Self.networkType(of: source.header))
    }

    /// What the service level of a received datagram says, as mlx5 reports it for RoCE v2 and UCX reads it: 8, for UDP, with
    /// 2 for IPv4 or 1 for IPv6 (RoCEv2 annex A17.4.5.1 wants it in the completion; ibv_wc has no field for it).
    static func networkType(of header: UnsafeRawBufferPointer) -> UInt8 {
        switch header.count {
        case IPv4Header.byteCount: 8 | 2
        case IPv6Header.byteCount: 8 | 1
        default: 0
        }
    }

    /// Writes the GRH area: the IPv6 header, or 20 zero bytes and the IPv4 header (RoCEv2 annex A17.4.5.2). Returns
    /// false when an L_Key of the receive work request is not valid.
    private mutating func placeGRH(_ pair: Pair, _ header: UnsafeRawBufferPointer) -> Bool {
        let responder = pair.pointee.responder
        assert(Int(responder.receiveLength) >= Self.grhByteCount)
        var area: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        let isPlaced = withUnsafeMutableBytes(of: &area) { bytes in
            if header.count == IPv6Header.byteCount || header.count == IPv4Header.byteCount,
                let from = header.baseAddress
            {
                let end = bytes.baseAddress! + (Self.grhByteCount - header.count)
                end.copyMemory(from: from, byteCount: header.count)
            }
            return scatter(
                responder.sgList, count: responder.sgeCount, domain: pair.pointee.receiveDomain, offset: 0,
                byteCount: Self.grhByteCount, from: bytes.baseAddress!)
        }
        pair.pointee.responder.received = UInt32(Self.grhByteCount)
        return isPlaced
    }
}
