import RoCEWire

// The responder of an RC or XRC connection: requests (IBTA volume 1, 9.7.4; rxe_resp.c of the kernel).

extension Core {
    mutating func receiveRequest(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let distance = pair.pointee.responder.expected.distance(to: packet.headers.bth.psn)
        guard distance == 0 else {
            return distance < 0 ? repeatAnswer(pair, packet) : receiveEarly(pair, packet, payload: payload)
        }
        pair.pointee.responder.sequence = .inSequence
        executeRequest(pair, packet, payload: payload)
        if pair.pointee.responder.gap.count != 0 { continueHeld(pair) }
    }

    /// Executes the request with the expected PSN.
    mutating func executeRequest(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let bth = packet.headers.bth
        guard isInOrder(pair, bth.opcode), hasLegalLength(pair, packet) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        if pair.pointee.type == .xrcReceive {
            // verbs.h has no events of its own for the asynchronous errors of annex A14.
            switch select(pair, packet.headers.xrceth.sharedReceiveQueueNumber) {
            case .success: break
            case .remoteAccessError: return refuse(pair, .remoteAccessError, event: .accessError)
            default: return refuse(pair, .invalidRequest, event: .requestError)
            }
        }
        switch bth.opcode.operation {
        case .send: executeSend(pair, packet, payload: payload)
        case .write: executeWrite(pair, packet, payload: payload)
        case .readRequest: executeRead(pair, packet)
        case .compareAndSwap, .fetchAndAdd: executeAtomic(pair, packet)
        case .atomicWrite: executeAtomicWrite(pair, packet, payload: payload)
        case .flush: executeFlush(pair, packet)
        default: refuse(pair, .invalidRequest, event: .requestError)
        }
    }

    /// Whether the opcode may follow the previous one: first, middle, last and only in a sequence that forms messages
    /// (IBTA volume 1, 9.7.4.1; `check_op_seq` of the kernel's rxe).
    mutating func isInOrder(_ pair: Pair, _ opcode: Opcode) -> Bool {
        let message = pair.pointee.responder.message
        if message == Responder.betweenMessages { return opcode.startsMessage }
        return opcode.operation == message && !opcode.startsMessage
    }

    /// Whether the payload has a valid length: the path MTU in first and middle packets, at least one byte in last
    /// ones, and none in requests without payload (IBTA volume 1, 9.7.4.1.6).
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
            if faults != nil, refusesByFault(pair, bth.opcode) { return }
            guard takeReceive(pair) else { return refuseForNow(pair) }
            pair.pointee.responder.received = 0
        }
        switch place(pair, packet, payload: payload) {
        case .success: break
        case .localLengthError: return refuse(pair, .invalidRequest, status: .localLengthError)
        default: return refuse(pair, .remoteOperationalError, status: .localProtectionError)
        }
        pair.pointee.responder.message = .send
        assert(pair.pointee.responder.isConsistent, "a SEND is under way without a receive work request")
        accept(pair, bth)
        guard bth.opcode.endsMessage else { return }
        if bth.opcode.headers.contains(.ieth) && !invalidate(packet.headers.ieth.rkey, pair) {
            return failInvalidate(pair)
        }
        finishReceive(pair, packet, opcode: .receive)
    }

    /// The R_Key that a SEND with invalidate names cannot be invalidated: the receive work request completes in error
    /// and the queue pair moves to ERR. The message was transferred, so it is acknowledged (IBTA volume 1, 9.9.3,
    /// responder class J fault; `RESPST_ERR_INVALIDATE_RKEY` of the kernel's rxe).
    mutating func failInvalidate(_ pair: Pair) {
        failReceive(pair, status: .remoteInvalidRequestError)
        enterError(pair, sendsNAK: true)
    }

    /// Scatters the payload of a SEND into the receive work request that is held.
    mutating func place(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) -> CompletionStatus {
        let count = packet.payloadByteCount
        let received = pair.pointee.responder.received
        guard count <= Int(pair.pointee.responder.receiveLength &- received) else { return .localLengthError }
        guard
            scatter(
                pair.pointee.responder.sgList, count: pair.pointee.responder.sgeCount,
                domain: pair.pointee.receiveDomain, offset: received, byteCount: count, from: payload)
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
        if bth.opcode.headers.contains(.immDt), faults != nil, refusesByFault(pair, bth.opcode) { return }
        if bth.opcode.headers.contains(.immDt) && !takeReceive(pair) { return refuseForNow(pair) }
        guard write(pair, packet, payload: payload) else {
            return refuse(pair, .remoteAccessError, event: .accessError)
        }
        pair.pointee.responder.message = .write
        accept(pair, bth)
        if bth.opcode.headers.contains(.immDt) {
            pair.pointee.responder.received = pair.pointee.responder.writeLength
            finishReceive(pair, packet, opcode: .receiveWriteWithImmediate)
        }
    }

    /// Checks the whole range of an RDMA WRITE before a byte is written. An RDMA WRITE of length 0 needs no valid R_Key
    /// (IBTA volume 1, 9.7.4.1.5).
    mutating func openWrite(_ pair: Pair, _ reth: RETH) -> CompletionStatus {
        guard pair.pointee.attributes.access.contains(.remoteWrite), reth.dmaLength <= Limits.maxMessageSize else {
            return .remoteInvalidRequestError
        }
        if reth.dmaLength != 0,
            remoteMemory(
                pair, key: reth.rkey, address: reth.virtualAddress,
                length: UInt64(reth.dmaLength), access: .remoteWrite) == nil
        {
            return .remoteAccessError
        }
        pair.pointee.responder.writeAddress = reth.virtualAddress
        pair.pointee.responder.writeKey = reth.rkey
        pair.pointee.responder.writeLeft = reth.dmaLength
        pair.pointee.responder.writeLength = reth.dmaLength
        return .success
    }

    /// Whether the payload matches RETH.DMALen: all remaining bytes in the last packet, and fewer before.
    mutating func fitsWrite(_ pair: Pair, _ packet: TransportPacket) -> Bool {
        let left = Int(pair.pointee.responder.writeLeft)
        return packet.headers.bth.opcode.endsMessage
            ? packet.payloadByteCount == left : packet.payloadByteCount < left
    }

    /// Writes the payload. The R_Key is looked up for each packet, since the region can be deregistered between
    /// packets.
    mutating func write(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) -> Bool {
        let count = packet.payloadByteCount
        guard count != 0 else { return true }
        guard
            let memory = remoteMemory(
                pair, key: pair.pointee.responder.writeKey, address: pair.pointee.responder.writeAddress,
                length: UInt64(count), access: .remoteWrite)
        else { return false }
        memory.copyMemory(from: payload, byteCount: count)
        pair.pointee.responder.writeAddress &+= UInt64(count)
        pair.pointee.responder.writeLeft &-= UInt32(count)
        counters.receivedBytes &+= UInt64(count)
        return true
    }

    // MARK: - Common to all requests

    /// The packet was executed: the next PSN is expected, and the packet is acknowledged if BTH.A is set.
    mutating func accept(_ pair: Pair, _ bth: BTH) {
        accept(pair, bth.psn, endsMessage: bth.opcode.endsMessage, acknowledgeRequest: bth.acknowledgeRequest)
    }

    @inline(__always)
    mutating func accept(_ pair: Pair, _ psn: PSN, endsMessage: Bool, acknowledgeRequest: Bool) {
        pair.pointee.responder.expected = psn.next
        if psn.next.rawValue == pair.pointee.responder.forgetAt { forgetDistant(pair) }
        if endsMessage {
            pair.pointee.responder.msn = (pair.pointee.responder.msn &+ 1) & mask24
            pair.pointee.responder.message = Responder.betweenMessages
        }
        if acknowledgeRequest { answer(pair, psn, .ack) }
    }

    /// The bytes of the receive work request for the next message: the one that is held, or the oldest one posted. Nil
    /// when none is posted.
    @inline(__always)
    func receiveRoom(_ pair: Pair) -> UInt32? {
        if pair.pointee.responder.holdsReceive { return pair.pointee.responder.receiveLength }
        let ring = pair.pointee.receiveRing
        guard ring.has(ring.oldest) else { return nil }
        return ring.slot(ring.oldest).assumingMemoryBound(to: ReceiveWQE.self).pointee.room
    }

    /// Consumes a receive work request for the message, if none is held. Returns false when none is posted.
    mutating func takeReceive(_ pair: Pair) -> Bool {
        if pair.pointee.responder.holdsReceive { return true }
        let ring = pair.pointee.receiveRing
        guard ring.has(ring.oldest) else { return false }
        let slot = ring.slot(ring.oldest)
        let entry = slot.assumingMemoryBound(to: ReceiveWQE.self)
        pair.pointee.responder.holdsReceive = true
        pair.pointee.responder.receiveID = entry.pointee.id
        pair.pointee.responder.receiveLength = entry.pointee.room
        pair.pointee.responder.received = 0
        pair.pointee.responder.sgeCount = Int(entry.pointee.sgeCount)
        UnsafeMutableRawPointer(pair.pointee.responder.sgList).copyMemory(
            from: slot + ReceiveWQE.size,
            byteCount: pair.pointee.responder.sgeCount &* MemoryLayout<SGE>.stride)
        ring.release()
        if let shared = pair.pointee.sharedReceiveQueue { checkLimit(shared) }
        return true
    }

    private mutating func checkLimit(_ queue: UnsafeMutablePointer<SharedReceiveQueueStorage>) {
        guard queue.pointee.limit != 0, queue.pointee.ring.count < queue.pointee.limit else { return }
        queue.pointee.limit = 0
        events.post(queue.pointee.event, .sharedReceiveQueueLimitReached)
    }

    /// Completes the receive work request of a SEND, or of an RDMA WRITE with immediate data.
    mutating func finishReceive(
        _ pair: Pair, _ packet: TransportPacket, opcode: CompletionOpcode, networkType: UInt8 = 0
    ) {
        assert(pair.pointee.responder.holdsReceive, "no receive work request was taken")
        var completion = WorkCompletion()
        completion.id = pair.pointee.responder.receiveID
        completion.opcode = opcode
        completion.byteCount = pair.pointee.responder.received
        completion.queuePairNumber = pair.pointee.number
        if packet.headers.bth.opcode.headers.contains(.immDt) {
            completion.immediate = packet.headers.immDt.value.bigEndian
            completion.flags = .withImmediate
        } else if packet.headers.bth.opcode.headers.contains(.ieth) {
            completion.immediate = packet.headers.ieth.rkey
            completion.flags = .withInvalidate
        }
        if pair.pointee.type == .ud {
            completion.sourceQueuePairNumber = packet.headers.deth.sourceQPN
            completion.serviceLevel = networkType
            completion.flags.insert(.grh)
        } else {
            completion.serviceLevel = pair.pointee.attributes.path.serviceLevel
        }
        pair.pointee.responder.holdsReceive = false
        if !push(completion, solicited: packet.headers.bth.solicited, to: pair.pointee.receiveCQ) {
            fatal(pair)
        }
    }

    // MARK: - Refusals

    /// No receive work request is posted: queues an RNR NAK (IBTA volume 1, 9.7.5.2.8). The requester waits and sends
    /// the same PSN again.
    mutating func refuseForNow(_ pair: Pair) {
        pair.pointee.responder.sequence = .negativelyAcknowledged
        counters.rnrNAKsSent &+= 1
        answer(
            pair, pair.pointee.responder.expected,
            .rnrNAK(RNRTimer(rawValue: pair.pointee.attributes.minRNRTimer)))
    }

    /// A request that ends the connection: NAK, event and ERR (IBTA volume 1, 9.9.3.1.3, responder class C fault).
    mutating func refuse(_ pair: Pair, _ code: AETHSyndrome.NAKCode, event: AsyncEventType) {
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(code))
        events.post(pair.pointee.event, event)
        enterError(pair, sendsNAK: true)
    }

    /// The message does not fit into the receive work request, which completes in error: NAK and ERR (IBTA volume 1,
    /// 9.9.3, responder class A and C faults).
    mutating func refuse(_ pair: Pair, _ code: AETHSyndrome.NAKCode, status: CompletionStatus) {
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(code))
        failReceive(pair, status: status)
        enterError(pair, sendsNAK: true)
    }

    /// Completes the receive work request that is held with an error.
    mutating func failReceive(_ pair: Pair, status: CompletionStatus) {
        assert(pair.pointee.responder.holdsReceive && status != .success)
        pair.pointee.responder.holdsReceive = false
        completeReceive(pair, id: pair.pointee.responder.receiveID, status: status)
    }
}

extension QueuePairStorage {
    /// The protection domain of the memory regions of receive work requests.
    @inline(__always)
    var receiveDomain: UInt32 { sharedReceiveQueue.map { $0.pointee.protectionDomain } ?? protectionDomain }

    /// The queue of receive work requests: the shared receive queue, or its own.
    @inline(__always)
    var receiveRing: Ring { sharedReceiveQueue.map { $0.pointee.ring } ?? receive }
}
