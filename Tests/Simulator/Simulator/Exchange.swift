import CSimulator

// What crosses the wire: requests to queue pairs of other ports, and the answers of reliable ones. One request of a
// queue pair is on its way at a time; it stays at the head of its queue until its answer is there.

extension Device {
    /// Sends a request to another port, `message` with it when it carries data.
    func transmit(
        _ request: SendRequest, _ queuePair: QueuePair, _ kind: sim_wire_kind, to lid: UInt16
    ) -> Wire.Sending {
        guard let wire else { return .nobody }
        let carries = carries(request)
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
        header.serial = queuePair.awaited
        (header.remote_address, header.remote_key) = (request.remoteAddress, request.remoteKey)
        (header.compare, header.swap_or_add) = (request.compare, request.swapOrAdd)
        (header.immediate, header.invalid_key) = (request.immediate, request.invalidKey)
        if kind == SIM_WIRE_DATAGRAM {
            header.destination_queue_pair = request.destination.queuePair
            header.service_level = request.destination.serviceLevel
            header.qkey = key(of: request, queuePair)
            header.destination_gid = request.destination.gid
        }
        header.length = UInt64(carries ? message.count : request.length)
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        let sending = wire.send(header, carries ? gathered : nothing, to: lid)
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

    /// Takes what other ports have sent, as much of it as a run may. How many messages there were.
    func receiveMessages() -> Int {
        guard let wire, !isDead else { return 0 }
        wire.sendWaiting()
        for count in 0..<64 {
            do throws(Refusal) {
                guard let header = try wire.receive(message) else { return count }
                try take(header)
            } catch {
                _ = keep(error, of: "the wire")
            }
        }
        return 64
    }

    private func take(_ header: sim_wire_message) throws(Refusal) {
        let origin = Origin(header)
        let number = header.destination_queue_pair
        switch sim_wire_kind(rawValue: UInt32(header.kind)) {
        case SIM_WIRE_REQUEST:
            // What cannot be understood is answered all the same: the other side waits.
            let isRequest = decode(header)
            reply(isRequest ? respond(to: arrived, origin, at: number) : .invalid, to: header)
            try demand(isRequest, EPROTO, "no request of a reliable connection")
        case SIM_WIRE_ANSWER: try takeAnswer(header)
        case SIM_WIRE_UNRELIABLE:
            try demand(
                decode(header) && carries(arrived) && !arrived.invalidates, EPROTO,
                "no request of an unreliable connection")
            guard let peer = listener(number, IBV_QPT_UC, origin) else { return }
            _ = deliver(arrived, from: origin, to: peer)
        case SIM_WIRE_DATAGRAM:
            try demand(
                decode(header) && arrived.operation == .send && !arrived.invalidates && message.count <= mtu, EPROTO,
                "no datagram")
            deliverDatagram(arrived, from: origin, qkey: header.qkey)
        default: throw Refusal(EPROTO, "there is no such kind of message", has: Int(header.kind))
        }
    }

    /// Makes `arrived` of a message; false when it is no request.
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
            // How much is wanted.
            return message.count == 0 && arrived.append(Segment(address: 0, length: UInt32(header.length), key: 0))
        case .invalidate, .bind, .none: return false
        }
    }

    private func reply(_ answer: Answer, to request: sim_wire_message) {
        var header = sim_wire_message()
        header.kind = UInt8(SIM_WIRE_ANSWER.rawValue)
        header.answer = answer.rawValue
        header.serial = request.serial
        header.source_queue_pair = request.destination_queue_pair
        header.destination_queue_pair = request.source_queue_pair
        header.path_mtu = request.path_mtu
        let brings = answer == .done && !carries(arrived)
        header.length = UInt64(brings ? message.count : 0)
        wire?.answer(header, brings ? gathered : UnsafeRawBufferPointer(start: nil, count: 0), to: request.source)
    }

    // MARK: - Answers

    /// The answer to the request at the head of a queue. One that nobody waits for comes late: its queue pair is gone, or
    /// was reset.
    private func takeAnswer(_ header: sim_wire_message) throws(Refusal) {
        guard let queuePair = queuePair(number: header.destination_queue_pair), queuePair.awaited != 0,
            queuePair.awaited == header.serial
        else { return }
        try demand(
            header.source == port(of: queuePair.attributes.address), EPROTO, "an answer of a port that was not asked",
            has: Int(header.source))
        guard var answer = Answer(rawValue: header.answer) else {
            throw Refusal(EPROTO, "there is no such answer", has: Int(header.answer))
        }
        // It is the same request that was sent: it has not left the head of its queue.
        guard codec.fetchSend(queuePair, send) else { return queuePair.awaited = 0 }
        if answer == .done && !carries(send) {
            let wanted = send.operation == .read ? send.length : 8
            if message.count != wanted { answer = .failed }
        }
        end(queuePair, answer)
    }

    /// The request at the head of the queue, which is in `send`, has been answered.
    private func end(_ queuePair: QueuePair, _ answer: Answer) {
        queuePair.awaited = 0
        if settle(send, queuePair, answer) {
            carriedOut += 1
            hasProgressed = true
        } else {
            queuePair.resumes = steps + 1
        }
        if queuePair.wantsDrained {
            queuePair.wantsDrained = false
            raise(IBV_EVENT_SQ_DRAINED, queuePair)
        }
    }

    /// Requests to a port that is closed, or whose process has died, end. What it has said before counts.
    func giveUp() {
        guard let wire, !isDead else { return }
        for queuePair in queuePairs {
            guard let queuePair, queuePair.awaited != 0, !wire.isOpen(port(of: queuePair.attributes.address)) else {
                continue
            }
            let serial = queuePair.awaited
            while receiveMessages() > 0 {}
            guard queuePair.awaited == serial, codec.fetchSend(queuePair, send) else { continue }
            end(queuePair, .nobody)
        }
    }

    /// SEND and WRITE have data with them; all others bring some back.
    func carries(_ request: SendRequest) -> Bool { request.operation == .send || request.operation == .write }
}
