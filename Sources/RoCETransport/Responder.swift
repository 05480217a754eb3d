import RoCEWire

// The receiving side of an RC connection: requests.

extension Core {
    mutating func receiveRequest(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let bth = packet.headers.bth
        guard isNext(pair, bth) else {
            if steps(from: pair.pointee.responder.expected, to: bth.psn) >= 1 << 23 { repeatAnswer(pair, packet) }
            return
        }
        guard isInOrder(pair, bth.opcode), hasLegalLength(pair, packet) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        switch bth.opcode.operation {
        case .send where !bth.opcode.headers.contains(.ieth): executeSend(pair, packet, payload: payload)
        case .write: executeWrite(pair, packet, payload: payload)
        case .readRequest: executeRead(pair, packet)
        case .compareSwap, .fetchAdd: executeAtomic(pair, packet)
        default: refuse(pair, .invalidRequest, event: .requestError)
        }
    }

    /// Whether the packet has the expected PSN. A later one is answered with one NAK, which names the expected PSN, and
    /// then nothing is answered until that comes (IBTA volume 1, 9.7.5.2.8).
    mutating func isNext(_ pair: Pair, _ bth: BTH) -> Bool {
        let distance = pair.pointee.responder.expected.distance(to: bth.psn)
        if distance == 0 {
            pair.pointee.responder.isNakSent = false
            return true
        }
        if distance > 0 {
            counters.outOfSequence &+= 1
            if !pair.pointee.responder.isNakSent {
                pair.pointee.responder.isNakSent = true
                counters.naksSent &+= 1
                answer(pair, pair.pointee.responder.expected, .nak(.psnSequenceError))
            }
        }
        return false
    }

    /// First, middle, last and only in a sequence that makes messages (IBTA volume 1, 9.7.4.1.2).
    private mutating func isInOrder(_ pair: Pair, _ opcode: Opcode) -> Bool {
        let message = pair.pointee.responder.message
        if message == .unknown { return opcode.startsMessage }
        return opcode.operation == message && !opcode.startsMessage
    }

    /// First and middle packets are full, last ones not empty, and requests without payload have none (9.7.4.1.6).
    mutating func hasLegalLength(_ pair: Pair, _ packet: TransportPacket) -> Bool {
        let opcode = packet.headers.bth.opcode
        let count = packet.payloadByteCount
        let mtu = Int(pair.pointee.attributes.pathMTU)
        if !opcode.hasPayload { return count == 0 }
        if !opcode.endsMessage { return count == mtu }
        return count <= mtu && (opcode.startsMessage || count > 0)
    }

    // MARK: - SEND

    private mutating func executeSend(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let bth = packet.headers.bth
        if bth.opcode.startsMessage {
            guard takeReceive(pair) else { return refuseForNow(pair) }
            pair.pointee.responder.received = 0
        }
        switch place(pair, packet, payload: payload) {
        case .success: break
        case .localLengthError: return refuse(pair, .invalidRequest, status: .localLengthError)
        default: return refuse(pair, .remoteOperationalError, status: .localProtectionError)
        }
        pair.pointee.responder.message = .send
        accept(pair, bth)
        if bth.opcode.endsMessage { finishReceive(pair, packet, opcode: .receive) }
    }

    /// Puts the payload of a SEND into the receive work request that was taken.
    mutating func place(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) -> CompletionStatus {
        let responder = pair.pointee.responder
        let count = packet.payloadByteCount
        guard count <= Int(responder.receiveLength &- responder.received) else { return .localLengthError }
        guard
            scatter(
                responder.elements, count: responder.elementCount, domain: pair.pointee.receiveDomain,
                offset: responder.received, byteCount: count, from: payload)
        else { return .localProtectionError }
        pair.pointee.responder.received &+= UInt32(count)
        counters.receivedBytes &+= UInt64(count)
        return .success
    }

    // MARK: - WRITE

    private mutating func executeWrite(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let bth = packet.headers.bth
        if bth.opcode.startsMessage {
            switch openWrite(pair, packet.headers.reth) {
            case .success: break
            case .remoteAccessError: return refuse(pair, .remoteAccessError, event: .accessError)
            default: return refuse(pair, .invalidRequest, event: .requestError)
            }
        }
        guard fitsWrite(pair, packet) else { return refuse(pair, .invalidRequest, event: .requestError) }
        if bth.opcode.headers.contains(.immDt) && !takeReceive(pair) { return refuseForNow(pair) }
        guard write(pair, packet, payload: payload) else {
            return refuse(pair, .remoteAccessError, event: .accessError)
        }
        pair.pointee.responder.message = .write
        accept(pair, bth)
        if bth.opcode.headers.contains(.immDt) {
            pair.pointee.responder.received = pair.pointee.responder.writeLength
            finishReceive(pair, packet, opcode: .receiveWriteImmediate)
        }
    }

    /// Checks all that a WRITE asks for, before a byte is written. A WRITE of nothing needs no valid key
    /// (IBTA volume 1, 9.7.4.1.5).
    mutating func openWrite(_ pair: Pair, _ reth: RETH) -> CompletionStatus {
        guard pair.pointee.attributes.access.contains(.remoteWrite), reth.dmaLength <= Limits.messageBytes else {
            return .remoteInvalidRequest
        }
        if reth.dmaLength != 0,
            keys.translate(
                key: reth.remoteKey, protectionDomain: pair.pointee.protectionDomain, address: reth.virtualAddress,
                length: UInt64(reth.dmaLength), access: .remoteWrite) == nil
        {
            return .remoteAccessError
        }
        pair.pointee.responder.writeAddress = reth.virtualAddress
        pair.pointee.responder.writeKey = reth.remoteKey
        pair.pointee.responder.writeLeft = reth.dmaLength
        pair.pointee.responder.writeLength = reth.dmaLength
        return .success
    }

    /// Whether the packet brings what the RETH announced: all that is left at the end, and less before.
    mutating func fitsWrite(_ pair: Pair, _ packet: TransportPacket) -> Bool {
        let left = Int(pair.pointee.responder.writeLeft)
        return packet.headers.bth.opcode.endsMessage
            ? packet.payloadByteCount == left : packet.payloadByteCount < left
    }

    /// Writes the payload. The key is looked up for each packet, since the region can go in between.
    mutating func write(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) -> Bool {
        let count = packet.payloadByteCount
        guard count != 0 else { return true }
        guard
            let memory = keys.translate(
                key: pair.pointee.responder.writeKey, protectionDomain: pair.pointee.protectionDomain,
                address: pair.pointee.responder.writeAddress, length: UInt64(count), access: .remoteWrite)
        else { return false }
        memory.copyMemory(from: payload, byteCount: count)
        pair.pointee.responder.writeAddress &+= UInt64(count)
        pair.pointee.responder.writeLeft &-= UInt32(count)
        counters.receivedBytes &+= UInt64(count)
        return true
    }

    // MARK: - What all requests have in common

    /// The packet was carried out: the next one is expected, and it is acknowledged if it asks for it.
    mutating func accept(_ pair: Pair, _ bth: BTH) {
        pair.pointee.responder.expected = bth.psn.next
        if bth.opcode.endsMessage {
            pair.pointee.responder.msn = (pair.pointee.responder.msn &+ 1) & 0xFF_FFFF
            pair.pointee.responder.message = .unknown
        }
        if bth.acknowledgeRequest { answer(pair, bth.psn, .ack) }
    }

    /// Makes sure that a receive work request is held for the message. False when none is posted.
    mutating func takeReceive(_ pair: Pair) -> Bool {
        if pair.pointee.responder.holdsReceive { return true }
        let ring = pair.pointee.sharedReceiveQueue.map { $0.pointee.ring } ?? pair.pointee.receive
        guard ring.has(ring.oldest) else { return false }
        let slot = ring.slot(ring.oldest)
        let entry = slot.assumingMemoryBound(to: ReceiveEntry.self)
        pair.pointee.responder.holdsReceive = true
        pair.pointee.responder.receiveID = entry.pointee.id
        pair.pointee.responder.receiveLength = entry.pointee.length
        pair.pointee.responder.received = 0
        pair.pointee.responder.elementCount = Int(entry.pointee.elementCount)
        UnsafeMutableRawPointer(pair.pointee.responder.elements).copyMemory(
            from: slot + ReceiveEntry.size,
            byteCount: pair.pointee.responder.elementCount &* MemoryLayout<ScatterGatherElement>.stride)
        ring.release()
        if let shared = pair.pointee.sharedReceiveQueue { checkLimit(shared) }
        return true
    }

    private mutating func checkLimit(_ queue: UnsafeMutablePointer<SharedReceiveQueueStorage>) {
        guard queue.pointee.limit != 0, queue.pointee.ring.count < queue.pointee.limit else { return }
        queue.pointee.limit = 0
        events.post(queue.pointee.event, .sharedReceiveQueueLimit)
    }

    /// Completes the receive work request that the message was put into, or told of by its immediate data.
    mutating func finishReceive(_ pair: Pair, _ packet: TransportPacket, opcode: CompletionOpcode) {
        var completion = WorkCompletion()
        completion.id = pair.pointee.responder.receiveID
        completion.opcode = opcode
        completion.byteCount = pair.pointee.responder.received
        completion.queuePair = pair.pointee.number
        if packet.headers.bth.opcode.headers.contains(.immDt) {
            completion.immediate = packet.headers.immDt.value.bigEndian
            completion.flags = .withImmediate
        }
        if pair.pointee.type == .ud {
            completion.sourceQueuePair = packet.headers.deth.sourceQP
            completion.flags.insert(.grh)
        } else {
            completion.serviceLevel = pair.pointee.attributes.path.serviceLevel
        }
        pair.pointee.responder.holdsReceive = false
        if !push(completion, solicited: packet.headers.bth.solicited, to: pair.pointee.receiveCompletions) {
            fatal(pair)
        }
    }

    // MARK: - Refusals

    /// No receive is posted: the requester waits and comes again with the same PSN.
    private mutating func refuseForNow(_ pair: Pair) {
        pair.pointee.responder.isNakSent = true
        counters.rnrNaksSent &+= 1
        answer(
            pair, pair.pointee.responder.expected,
            .rnrNak(RNRTimer(rawValue: pair.pointee.attributes.minRNRTimer)))
    }

    /// A request that ends the connection: NAK, event and ERR (IBTA volume 1, 9.9.3.1.1, class C).
    mutating func refuse(_ pair: Pair, _ code: AETHSyndrome.NakCode, event: AsyncEventType) {
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(code))
        events.post(pair.pointee.event, event)
        enterError(pair, answering: true)
    }

    /// The receive work request cannot take the message: it completes in error, and the connection ends (class A, C).
    private mutating func refuse(_ pair: Pair, _ code: AETHSyndrome.NakCode, status: CompletionStatus) {
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(code))
        failReceive(pair, status: status)
        enterError(pair, answering: true)
    }

    /// Completes the receive work request that is held with an error.
    mutating func failReceive(_ pair: Pair, status: CompletionStatus) {
        pair.pointee.responder.holdsReceive = false
        completeReceive(pair, id: pair.pointee.responder.receiveID, status: status)
    }
}

extension QueuePairStorage {
    /// The protection domain that the memory of receives belongs to.
    @inline(__always)
    var receiveDomain: UInt32 { sharedReceiveQueue.map { $0.pointee.protectionDomain } ?? protectionDomain }
}
