import RoCEWire

extension Core {
    /// Acknowledgements first; then READ responses and requests take turns, and in each of the two the queue pairs.
    mutating func transmit(into buffer: UnsafeMutableRawBufferPointer, now: UInt64) -> OutgoingPacket? {
        guard let target = buffer.baseAddress else { return nil }
        takeDoorbells()
        while let link = acknowledgements.first {
            let pair = link.pointee.owner
            acknowledgements.remove(link)
            var isNew = false
            if let packet = finish(emitResponse(pair, to: target, &isNew), pair, isNew: isNew) { return packet }
        }
        if responsesNext, let packet = nextReadResponse(to: target) {
            responsesNext = false
            return packet
        }
        responsesNext = true
        return nextRequest(to: target, now: now) ?? nextReadResponse(to: target)
    }

    private mutating func nextReadResponse(to target: UnsafeMutableRawPointer) -> OutgoingPacket? {
        while let link = readResponses.first {
            let pair = link.pointee.owner
            readResponses.remove(link)
            var isNew = false
            // Puts the queue pair back at the end when it has more.
            if let packet = finish(emitResponse(pair, to: target, &isNew), pair, isNew: isNew) { return packet }
        }
        return nil
    }

    private mutating func nextRequest(to target: UnsafeMutableRawPointer, now: UInt64) -> OutgoingPacket? {
        while let link = requests.first {
            let pair = link.pointee.owner
            if inTurn >= configuration.burst {
                inTurn = 0
                requests.rotate()
                continue
            }
            inTurn &+= 1
            if let packet = emitRequest(pair, to: target, now: now) { return packet }
            requests.remove(link)
            inTurn = 0
        }
        return nil
    }

    private mutating func emitRequest(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> OutgoingPacket?
    {
        if pair.pointee.type == .ud { return emitDatagram(pair, to: target) }
        guard pair.pointee.type == .rc else { return finish(emitUnreliable(pair, to: target), pair, isNew: false) }
        let isNew = pair.pointee.requester.next == pair.pointee.requester.high
        return finish(emitReliable(pair, to: target, now: now), pair, isNew: isNew)
    }

    /// The description of a packet of a connection; nil for one without bytes. `isNew`: on RC, a request or READ
    /// response that was not sent before.
    @inline(__always)
    private mutating func finish(_ byteCount: Int, _ pair: Pair, isNew: Bool) -> OutgoingPacket? {
        guard byteCount != 0 else { return nil }
        counters.sentPackets &+= 1
        return OutgoingPacket(
            byteCount: byteCount, path: pair.pointee.attributes.path, sourceQueuePair: pair.pointee.number,
            destinationQueuePair: pair.pointee.attributes.destinationQueuePair, isDatagram: false,
            isExpendable: isNew && pair.pointee.attributes.timeout != 0 && pair.pointee.attributes.retryCount != 0)
    }

    /// Who was posted to since the last call.
    @inline(__always)
    private mutating func takeDoorbells() {
        while let (base, bits) = doorbells.take() {
            var left = bits
            while left != 0 {
                let index = base &+ UInt32(left.trailingZeroBitCount)
                left &= left &- 1
                if let pair = queuePairs[Int(index)] { answerDoorbell(pair) }
            }
        }
    }

    private mutating func answerDoorbell(_ pair: Pair) {
        switch pair.pointee.attributes.state {
        case .readyToSend, .sendQueueDrained: requests.add(pair.pointee.links + QueuePairStorage.requests)
        case .sendQueueError: flushSends(pair)
        case .error: flush(pair)
        default: break
        }
    }

    /// Writes pad and counts everything up: a BTH with its extended headers stands at `target`, the payload behind it.
    /// - Returns: bytes of the packet with the room of its ICRC.
    @inline(__always)
    mutating func seal(_ bth: BTH, at target: UnsafeMutableRawPointer, payload: Int) -> Int {
        var base = bth
        let headers = bth.opcode.headerByteCount
        let pad = PacketHeaders.padCount(payloadByteCount: payload)
        base.padCount = UInt8(truncatingIfNeeded: pad)
        base.emit(at: target)
        let end = headers &+ payload
        for index in 0..<pad { target.storeBytes(of: 0, toByteOffset: end &+ index, as: UInt8.self) }
        counters.sentBytes &+= UInt64(payload)
        return end &+ pad &+ ICRC.byteCount
    }
}
