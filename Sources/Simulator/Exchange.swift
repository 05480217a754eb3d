import CSimulator

// The messages on the wire: requests to queue pairs of other ports, and the acknowledgements of RC requests. A queue
// pair has one outstanding request; its WQE stays at the head of the send queue until it is acknowledged.

extension Device {
    /// Sends a request to another port, with `message` as the payload of a SEND or WRITE.
    func transmit(
        _ request: SendRequest, _ queuePair: QueuePair, _ kind: sim_wire_kind, to lid: UInt16
    ) -> Wire.Sending {
        guard let wire else { return .unreachable }
        let hasPayload = hasPayload(request)
        var header = sim_wire_message()
        header.kind = UInt8(kind.rawValue)
        header.operation = request.operation.rawValue
        header.flags = flags(request)
        let origin = Origin(queuePair, self)
        header.source_queue_pair = origin.queuePair
        header.source_gid = origin.gid
        header.service_level = origin.serviceLevel
        header.psn = origin.psn
        header.path_mtu = UInt32(origin.pathMTU)
        header.destination_queue_pair = queuePair.attributes.destination
        header.serial = queuePair.outstanding
        (header.remote_address, header.remote_key) = (request.remoteAddress, request.remoteKey)
        (header.compare, header.swap_or_add) = (request.compare, request.swapOrAdd)
        (header.immediate, header.invalid_key) = (request.immediate, request.invalidKey)
        if kind == SIM_WIRE_DATAGRAM {
            header.destination_queue_pair = request.destination.queuePair
            header.service_level = request.destination.serviceLevel
            header.qkey = key(of: request, queuePair)
            header.destination_gid = request.destination.gid
        }
        header.length = UInt64(hasPayload ? message.count : request.length)
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        let sending = wire.send(header, hasPayload ? gathered : nothing, to: lid)
        if case .sent = sending { transmitted += 1 }
        return sending
    }

    private func flags(_ request: SendRequest) -> UInt8 {
        var flags: UInt32 = 0
        if request.hasImmediate { flags |= SIM_WIRE_IMMEDIATE.rawValue }
        if request.invalidates { flags |= SIM_WIRE_INVALIDATES.rawValue }
        if request.isSolicited { flags |= SIM_WIRE_SOLICITED.rawValue }
        if request.destination.isGlobal { flags |= SIM_WIRE_GLOBAL.rawValue }
        return UInt8(flags)
    }

    // MARK: - Arrivals

    /// Receives up to 64 messages from the wire. Returns their number.
    func receiveMessages() -> Int {
        guard let wire, !isDead else { return 0 }
        wire.sendWaiting()
        for count in 0..<64 {
            do throws(Refusal) {
                guard let header = try wire.receive(message) else { return count }
                try handle(header)
            } catch {
                _ = record(error, of: "the wire")
            }
        }
        return 64
    }

    private func handle(_ header: sim_wire_message) throws(Refusal) {
        let origin = Origin(header)
        let number = header.destination_queue_pair
        switch sim_wire_kind(rawValue: UInt32(header.kind)) {
        case SIM_WIRE_REQUEST:
            // A malformed request is acknowledged too, because the requester waits for it.
            let isRequest = decode(header)
            reply(isRequest ? respond(to: arrived, origin, at: number) : .invalidRequest, to: header)
            try demand(isRequest, EPROTO, "no request of a reliable connection")
        case SIM_WIRE_ACKNOWLEDGEMENT: try handleAcknowledgement(header)
        case SIM_WIRE_UNRELIABLE:
            try demand(
                decode(header) && hasPayload(arrived) && !arrived.invalidates, EPROTO,
                "no request of an unreliable connection")
            guard let peer = responder(number, IBV_QPT_UC, origin) else { return }
            _ = deliver(arrived, from: origin, to: peer)
        case SIM_WIRE_DATAGRAM:
            try demand(
                decode(header) && arrived.operation == .send && !arrived.invalidates && message.count <= mtu, EPROTO,
                "no datagram")
            deliverDatagram(arrived, from: origin, qkey: header.qkey)
        case SIM_WIRE_DISCONNECT:
            guard let end = ConnectionEnd(rawValue: header.acknowledgement), options.isIWARP else {
                throw Refusal(EPROTO, "there is no such end of a connection", has: Int(header.acknowledgement))
            }
            if let queuePair = queuePair(number: number) { receiveEnd(queuePair, end, origin) }
        case SIM_WIRE_CONNECTION_MANAGER: try manager.receive(header, message, self)
        default: throw Refusal(EPROTO, "there is no such kind of message", has: Int(header.kind))
        }
    }

    /// Decodes a message into `arrived`; false when it is not a valid request.
    private func decode(_ header: sim_wire_message) -> Bool {
        guard let operation = Operation(rawValue: header.operation) else { return false }
        arrived.clear()
        arrived.operation = operation
        arrived.hasImmediate = header.flags & UInt8(SIM_WIRE_IMMEDIATE.rawValue) != 0
        arrived.invalidates = header.flags & UInt8(SIM_WIRE_INVALIDATES.rawValue) != 0
        arrived.isSolicited = header.flags & UInt8(SIM_WIRE_SOLICITED.rawValue) != 0
        (arrived.immediate, arrived.invalidKey) = (header.immediate, header.invalid_key)
        (arrived.remoteAddress, arrived.remoteKey) = (header.remote_address, header.remote_key)
        (arrived.compare, arrived.swapOrAdd) = (header.compare, header.swap_or_add)
        arrived.destination.queuePair = header.destination_queue_pair
        arrived.destination.gid = header.destination_gid
        arrived.destination.isGlobal = header.flags & UInt8(SIM_WIRE_GLOBAL.rawValue) != 0
        arrived.destination.serviceLevel = header.service_level
        switch operation {
        case .send, .write: return message.count == Int(header.length)
        case .read, .compareAndSwap, .fetchAndAdd:
            // The SGE holds the number of bytes to read.
            return message.count == 0 && arrived.append(SGE(address: 0, length: UInt32(header.length), key: 0))
        case .invalidate, .bind, .none: return false
        }
    }

    private func reply(_ acknowledgement: Acknowledgement, to request: sim_wire_message) {
        var header = sim_wire_message()
        header.kind = UInt8(SIM_WIRE_ACKNOWLEDGEMENT.rawValue)
        header.acknowledgement = acknowledgement.rawValue
        header.serial = request.serial
        header.source_queue_pair = request.destination_queue_pair
        header.destination_queue_pair = request.source_queue_pair
        header.path_mtu = request.path_mtu
        let hasResponsePayload = acknowledgement == .ack && !hasPayload(arrived)
        header.length = UInt64(hasResponsePayload ? message.count : 0)
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        wire?.sendAcknowledgement(header, hasResponsePayload ? gathered : nothing, to: request.source)
    }

    // MARK: - Acknowledgements

    /// Handles the acknowledgement of the request at the head of a send queue. Any other is late, because the queue
    /// pair was destroyed or reset, and is ignored.
    private func handleAcknowledgement(_ header: sim_wire_message) throws(Refusal) {
        guard let queuePair = queuePair(number: header.destination_queue_pair), queuePair.outstanding != 0,
            queuePair.outstanding == header.serial
        else { return }
        try demand(
            header.source == port(of: queuePair.attributes.address), EPROTO,
            "an acknowledgement from another port than the request's",
            has: Int(header.source))
        guard var acknowledgement = Acknowledgement(rawValue: header.acknowledgement) else {
            throw Refusal(EPROTO, "there is no such acknowledgement", has: Int(header.acknowledgement))
        }
        // The WQE of the request is still at the head of its queue.
        guard codec.fetchSend(queuePair, send) else { return queuePair.outstanding = 0 }
        if acknowledgement == .ack && !hasPayload(send) {
            let wanted = send.operation == .read ? send.length : 8
            if message.count != wanted { acknowledgement = .remoteOperationalError }
        }
        finishOutstanding(queuePair, acknowledgement)
    }

    /// Ends the outstanding request, whose WQE is in `send`.
    private func finishOutstanding(_ queuePair: QueuePair, _ acknowledgement: Acknowledgement) {
        queuePair.outstanding = 0
        if complete(send, queuePair, acknowledgement) {
            executed += 1
            hasProgressed = true
        } else {
            queuePair.retryStep = steps + 1
        }
        if queuePair.wantsDrained {
            queuePair.wantsDrained = false
            raise(IBV_EVENT_SQ_DRAINED, queuePair)
        }
    }

    /// Completes, with IBV_WC_RETRY_EXC_ERR, requests to a port that is closed or whose process has ended.
    /// Acknowledgements that the port sent before are handled first.
    func failUnreachable() {
        guard let wire, !isDead else { return }
        for queuePair in queuePairs {
            guard let queuePair, queuePair.outstanding != 0, !wire.isOpen(port(of: queuePair.attributes.address)) else {
                continue
            }
            let serial = queuePair.outstanding
            while receiveMessages() > 0 {}
            guard queuePair.outstanding == serial, codec.fetchSend(queuePair, send) else { continue }
            finishOutstanding(queuePair, .noResponse)
        }
    }

    /// Whether the request has the payload (SEND and WRITE), and not its response.
    func hasPayload(_ request: SendRequest) -> Bool { request.operation == .send || request.operation == .write }
}
