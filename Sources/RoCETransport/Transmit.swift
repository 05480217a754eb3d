import RoCEWire

extension Core {
    /// Writes the next packet, and its description to `outgoing`: acknowledgements where `order` says; READ responses and
    /// requests alternate, and queue pairs take turns in each of the two lists.
    /// - Returns: False when there is no packet to send now.
    mutating func transmit(
        into buffer: UnsafeMutableRawBufferPointer, _ order: AcknowledgementOrder, now: UInt64
    ) -> Bool {
        guard let target = buffer.baseAddress else { return false }
        if order == .only { return nextAcknowledgement(to: target) }
        takeDoorbells()
        hasDirectWork = false
        switch order {
        case .last: if nextAcknowledgement(to: target, isUrgent: true) { return true }
        case .held where mayHoldAcknowledgements: break
        default: if nextAcknowledgement(to: target) { return true }
        }
        if responsesNext, nextReadResponse(to: target) {
            responsesNext = false
            return true
        }
        responsesNext = true
        if nextRequest(to: target, carries: order != .first, now: now) || nextReadResponse(to: target) { return true }
        if order == .last, nextAcknowledgement(to: target) { return true }
        assert(
            hasDirectWork || requests.first == nil && readResponses.first == nil,
            "without a packet to send, no list has an entry")
        return false
    }

    /// The next response of the list of acknowledgements; of those that are not ACKs if `isUrgent`.
    @inline(__always)
    private mutating func nextAcknowledgement(
        to target: UnsafeMutableRawPointer, isUrgent: Bool = false
    ) -> Bool {
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
            if nextResponse(pair, to: target) { return true }
            next = acknowledgements.first
        }
        return false
    }

    @inline(__always)
    private mutating func nextResponse(_ pair: Pair, to target: UnsafeMutableRawPointer) -> Bool {
        var isNew = false
        let byteCount = emitResponse(pair, to: target, &isNew)
        return finish(byteCount, pair, isNew: isNew)
    }

    @inline(__always)
    private mutating func nextReadResponse(to target: UnsafeMutableRawPointer) -> Bool {
        readResponses.first != nil && writeReadResponse(to: target)
    }

    @inline(never)
    private mutating func writeReadResponse(to target: UnsafeMutableRawPointer) -> Bool {
        while let link = readResponses.first {
            let pair = link.pointee.owner
            if waitsForRoom(pair) {
                readResponses.park(link)
                continue
            }
            readResponses.remove(link)
            // Adds the queue pair at the end again when it has more responses.
            if nextResponse(pair, to: target) { return true }
        }
        return false
    }

    private mutating func nextRequest(
        to target: UnsafeMutableRawPointer, carries: Bool, now: UInt64
    ) -> Bool {
        var share = Core.copyShare
        while let link = requests.first {
            let pair = link.pointee.owner
            if inTurn >= configuration.burst {
                inTurn = 0
                endPathTurn(pair)
                requests.rotate()
                continue
            }
            let byteCount = emitShort(pair, to: target, now: now)
            if finish(byteCount, pair, isNew: true) {
                inTurn &+= 1
                if carries { outgoing.pointee.acknowledged = takeAcknowledgement(pair) }
                return true
            }
            if executeDirectly(pair, share: &share) {
                inTurn = 0
                requests.rotate()
                hasDirectWork = true
                return false
            }
            // A completion queue that overran has ended the queue pair.
            guard pair.pointee.isSending else { continue }
            if requestWaitsForRoom(pair) {
                // The one that has filled the receiver comes after the others when there is room.
                if inTurn != 0 {
                    requests.rotate()
                } else {
                    requests.park(link)
                    startRoomTimer(pair, now: now)
                }
                endPathTurn(pair)
                inTurn = 0
                continue
            }
            inTurn &+= 1
            if pair.pointee.pacing.rate == 0 || mayPace(pair), emitRequest(pair, to: target, now: now) {
                if pair.pointee.pacing.rate != 0 { countPaced(pair, byteCount: outgoing.pointee.byteCount) }
                if carries { outgoing.pointee.acknowledged = takeAcknowledgement(pair) }
                return true
            }
            requests.remove(link)
            endPathTurn(pair)
            inTurn = 0
        }
        return false
    }

    private mutating func emitRequest(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> Bool {
        assert(pair.pointee.isSending, "only queue pairs in RTS and SQD are in the list of requests")
        if pair.pointee.type == .ud { return emitDatagram(pair, to: target) }
        guard pair.pointee.type != .uc else {
            let byteCount = emitUnreliable(pair, to: target)
            return finish(byteCount, pair, isNew: false)
        }
        let isNew = pair.pointee.requester.next == pair.pointee.requester.high
        let byteCount = emitReliable(pair, to: target, now: now)
        guard finish(byteCount, pair, isNew: isNew) else { return false }
        if wroteReference {
            wroteReference = false
            outgoing.pointee.isReference = true
        }
        return true
    }

    /// Writes the description of a packet of a connection.
    /// - Parameter isNew: On RC, a request, READ response or ACK that was not sent before.
    /// - Returns: False when no packet was written: `byteCount` is 0.
    @inline(__always)
    mutating func finish(_ byteCount: Int, _ pair: Pair, isNew: Bool) -> Bool {
        guard byteCount != 0 else { return false }
        counters.sentPackets &+= 1
        outgoing.initialize(
            to: OutgoingPacket(
                byteCount: byteCount, path: pair.pointee.attributes.path, sourceQPN: pair.pointee.number,
                destinationQPN: pair.pointee.attributes.destinationQPN, isDatagram: false,
                isExpendable: isNew && pair.pointee.sendsExpendable))
        return true
    }

    /// Takes the doorbells that were rung since the last call, and adds their queue pairs to the ready list.
    @inline(__always)
    mutating func takeDoorbells() {
        let doorbells = doorbells
        doorbells.take { index in
            if let pair = queuePairs[Int(index)] { serveDoorbell(pair) }
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
        seal(bth, headers: bth.opcode.headerByteCount, at: target, payload: payload)
    }

    /// The same, for headers of a known length in bytes.
    @inline(__always)
    mutating func seal(_ bth: BTH, headers: Int, at target: UnsafeMutableRawPointer, payload: Int) -> Int {
        var base = bth
        let pad = PacketHeaders.padCount(payloadByteCount: payload)
        base.padCount = UInt8(truncatingIfNeeded: pad)
        base.emit(at: target)
        let end = headers &+ payload
        // Pad and ICRC in two stores: there are 0 to 3 bytes of pad.
        target.storeBytes(of: 0, toByteOffset: end, as: UInt32.self)
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
