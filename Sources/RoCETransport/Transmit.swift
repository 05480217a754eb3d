import RoCEWire

extension Core {
    /// Writes the next packet: acknowledgements where `order` says; READ responses and requests alternate, and queue pairs
    /// take turns in each of the two lists.
    mutating func transmit(
        into buffer: UnsafeMutableRawBufferPointer, _ order: AcknowledgementOrder, now: UInt64
    ) -> OutgoingPacket? {
        guard let target = buffer.baseAddress else { return nil }
        if order == .only { return nextAcknowledgement(to: target) }
        takeDoorbells()
        hasDirectWork = false
        switch order {
        case .last: if let packet = nextAcknowledgement(to: target, isUrgent: true) { return packet }
        case .held where mayHoldAcknowledgements: break
        default: if let packet = nextAcknowledgement(to: target) { return packet }
        }
        if responsesNext, let packet = nextReadResponse(to: target) {
            responsesNext = false
            return packet
        }
        responsesNext = true
        if let packet = nextRequest(to: target, carries: order != .first, now: now) ?? nextReadResponse(to: target) {
            return packet
        }
        if order == .last, let packet = nextAcknowledgement(to: target) { return packet }
        assert(
            hasDirectWork || requests.first == nil && readResponses.first == nil,
            "without a packet to send, no list has an entry")
        return nil
    }

    /// The next response of the list of acknowledgements; of those that are not ACKs if `isUrgent`.
    @inline(__always)
    private mutating func nextAcknowledgement(
        to target: UnsafeMutableRawPointer, isUrgent: Bool = false
    ) -> OutgoingPacket? {
        var next = acknowledgements.first
        while let link = next {
            let pair = link.pointee.owner
            if isUrgent && pair.pointee.isNextResponseACK {
                next = link.pointee.next
                continue
            }
            if waitsForRoom(pair) {
                acknowledgements.park(link)
                next = acknowledgements.first
                continue
            }
            acknowledgements.remove(link)
            if let packet = nextResponse(pair, to: target) { return packet }
            next = acknowledgements.first
        }
        return nil
    }

    @inline(__always)
    private mutating func nextResponse(_ pair: Pair, to target: UnsafeMutableRawPointer) -> OutgoingPacket? {
        var isNew = false
        return finish(emitResponse(pair, to: target, &isNew), pair, isNew: isNew)
    }

    private mutating func nextReadResponse(to target: UnsafeMutableRawPointer) -> OutgoingPacket? {
        while let link = readResponses.first {
            let pair = link.pointee.owner
            if waitsForRoom(pair) {
                readResponses.park(link)
                continue
            }
            readResponses.remove(link)
            // Adds the queue pair at the end again when it has more responses.
            if let packet = nextResponse(pair, to: target) { return packet }
        }
        return nil
    }

    private mutating func nextRequest(
        to target: UnsafeMutableRawPointer, carries: Bool, now: UInt64
    ) -> OutgoingPacket? {
        var share = Core.copyShare
        while let link = requests.first {
            let pair = link.pointee.owner
            if inTurn >= configuration.burst {
                inTurn = 0
                endPathTurn(pair)
                requests.rotate()
                continue
            }
            if executeDirectly(pair, share: &share) {
                inTurn = 0
                requests.rotate()
                hasDirectWork = true
                return nil
            }
            // A completion queue that overran has ended the queue pair.
            guard pair.pointee.isSending else { continue }
            if requestWaitsForRoom(pair) {
                // The one that has filled the receiver comes after the others when there is room.
                if inTurn != 0 { requests.rotate() } else { requests.park(link) }
                endPathTurn(pair)
                inTurn = 0
                continue
            }
            inTurn &+= 1
            if pair.pointee.pacing.rate == 0 || mayPace(pair), var packet = emitRequest(pair, to: target, now: now) {
                if pair.pointee.pacing.rate != 0 { countPaced(pair, byteCount: packet.byteCount) }
                if carries { packet.acknowledged = takeAcknowledgement(pair) }
                return packet
            }
            requests.remove(link)
            endPathTurn(pair)
            inTurn = 0
        }
        return nil
    }

    private mutating func emitRequest(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> OutgoingPacket?
    {
        assert(pair.pointee.isSending, "only queue pairs in RTS and SQD are in the list of requests")
        if pair.pointee.type == .ud { return emitDatagram(pair, to: target) }
        guard pair.pointee.type != .uc else { return finish(emitUnreliable(pair, to: target), pair, isNew: false) }
        let isNew = pair.pointee.requester.next == pair.pointee.requester.high
        var packet = finish(emitReliable(pair, to: target, now: now), pair, isNew: isNew)
        if wroteReference {
            wroteReference = false
            packet?.isReference = true
        }
        return packet
    }

    /// The description of a packet of a connection; nil when no packet was written. `isNew`: on RC, a request, READ
    /// response or ACK that was not sent before.
    @inline(__always)
    private mutating func finish(_ byteCount: Int, _ pair: Pair, isNew: Bool) -> OutgoingPacket? {
        guard byteCount != 0 else { return nil }
        counters.sentPackets &+= 1
        return OutgoingPacket(
            byteCount: byteCount, path: pair.pointee.attributes.path, sourceQPN: pair.pointee.number,
            destinationQPN: pair.pointee.attributes.destinationQPN, isDatagram: false,
            isExpendable: isNew && pair.pointee.sendsExpendable)
    }

    /// Takes the doorbells that were rung since the last call, and adds their queue pairs to the ready list.
    @inline(__always)
    private mutating func takeDoorbells() {
        while let (base, bits) = doorbells.take() {
            var left = bits
            while left != 0 {
                let index = base &+ UInt32(left.trailingZeroBitCount)
                left &= left &- 1
                if let pair = queuePairs[Int(index)] { serveDoorbell(pair) }
            }
        }
    }

    mutating func serveDoorbell(_ pair: Pair) {
        switch pair.pointee.state {
        case .readyToSend, .sendQueueDrained: requests.add(pair.pointee.links + QueuePairStorage.requests)
        case .sendQueueError: flushSends(pair)
        case .error: flush(pair)
        default: break
        }
    }

    /// Completes a packet whose extended headers and payload are at `target`: writes BTH and pad, and zeros for the ICRC, so
    /// that a packet to another process has no bytes of an earlier one.
    /// - Returns: The bytes of the packet, with the ICRC.
    @inline(__always)
    mutating func seal(_ bth: BTH, at target: UnsafeMutableRawPointer, payload: Int) -> Int {
        var base = bth
        let headers = bth.opcode.headerByteCount
        let pad = PacketHeaders.padCount(payloadByteCount: payload)
        base.padCount = UInt8(truncatingIfNeeded: pad)
        base.emit(at: target)
        let end = headers &+ payload
        for index in 0..<pad { target.storeBytes(of: 0, toByteOffset: end &+ index, as: UInt8.self) }
        target.storeBytes(of: 0, toByteOffset: end &+ pad, as: UInt32.self)
        counters.sentBytes &+= UInt64(payload)
        return end &+ pad &+ ICRC.byteCount
    }
}

extension QueuePairStorage {
    /// Whether a loss of its new packets only costs time (`OutgoingPacket.isExpendable`).
    @inline(__always)
    var sendsExpendable: Bool { attributes.timeout != 0 && attributes.retryCount != 0 }
}
