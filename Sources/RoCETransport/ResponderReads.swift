import RoCEWire
import Synchronization

// The responder of an RC connection: READs and atomics, whose responses have data and which use a responder resource.

extension Core {
    mutating func executeRead(_ pair: Pair, _ packet: TransportPacket) {
        let reth = packet.headers.reth
        guard pair.pointee.attributes.access.contains(.remoteRead), reth.dmaLength <= Limits.maxMessageSize else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        guard isReadable(pair, reth.rkey, reth.virtualAddress, reth.dmaLength) else {
            return refuse(pair, .remoteAccessError, event: .accessError)
        }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        resource.pointee.packets = packetCount(reth.dmaLength, mtu: pair.pointee.attributes.pathMTU)
        resource.pointee.address = reth.virtualAddress
        resource.pointee.key = reth.rkey
        resource.pointee.protectionDomain = pair.pointee.protectionDomain
        resource.pointee.sharedReceiveQueue = pair.pointee.sharedReceiveQueue?.pointee.number ?? 0
        resource.pointee.length = reth.dmaLength
        startRun(resource, at: 0, length: reth.dmaLength, mtu: pair.pointee.attributes.pathMTU)
        finishResource(pair, resource)
    }

    mutating func executeAtomic(_ pair: Pair, _ packet: TransportPacket) {
        let request = packet.headers.atomicETH
        guard pair.pointee.attributes.access.contains(.remoteAtomic),
            request.virtualAddress % UInt64(atomicByteCount) == 0
        else { return refuse(pair, .invalidRequest, event: .requestError) }
        guard
            let memory = remoteMemory(
                pair, key: request.rkey, address: request.virtualAddress, length: UInt64(atomicByteCount),
                access: .remoteAtomic),
            UInt(bitPattern: memory) % UInt(atomicByteCount) == 0
        else { return refuse(pair, .remoteAccessError, event: .accessError) }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        resource.pointee.operation = .atomic
        resource.pointee.packets = 1
        resource.pointee.end = 1
        resource.pointee.original = execute(
            request, isSwap: packet.headers.bth.opcode.operation == .compareAndSwap, on: memory)
        finishResource(pair, resource)
    }

    /// Executes an ATOMIC WRITE: 8 bytes at an address that is a multiple of 8, written at once and after everything
    /// that was written before (IBTA volume 1 release 1.5, annex A19; `atomic_write_reply` of the kernel's rxe).
    mutating func executeAtomicWrite(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let reth = packet.headers.reth
        guard pair.pointee.attributes.access.contains(.remoteWrite), reth.dmaLength == atomicByteCount,
            packet.payloadByteCount == Int(atomicByteCount), reth.virtualAddress % UInt64(atomicByteCount) == 0
        else { return refuse(pair, .invalidRequest, event: .requestError) }
        guard
            let memory = remoteMemory(
                pair, key: reth.rkey, address: reth.virtualAddress, length: UInt64(atomicByteCount),
                access: .remoteWrite),
            UInt(bitPattern: memory) % UInt(atomicByteCount) == 0
        else { return refuse(pair, .remoteAccessError, event: .accessError) }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        resource.pointee.operation = .atomicWrite
        resource.pointee.packets = 1
        resource.pointee.end = 1
        memory.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(
            payload.loadUnaligned(as: UInt64.self), ordering: .sequentiallyConsistent)
        counters.receivedBytes &+= UInt64(atomicByteCount)
        finishResource(pair, resource)
    }

    /// Executes an atomic, which is atomic also with respect to the processors of this host (`IBV_ATOMIC_GLOB`).
    private mutating func execute(_ request: AtomicETH, isSwap: Bool, on memory: UnsafeMutableRawPointer) -> UInt64 {
        let word = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
        if isSwap {
            return word.pointee.compareExchange(
                expected: request.compare, desired: request.swapOrAdd, ordering: .sequentiallyConsistent
            ).original
        }
        return word.pointee.wrappingAdd(request.swapOrAdd, ordering: .sequentiallyConsistent).oldValue
    }

    private mutating func isReadable(_ pair: Pair, _ key: UInt32, _ address: UInt64, _ length: UInt32) -> Bool {
        length == 0
            || remoteMemory(
                pair, key: key, address: address, length: UInt64(length),
                access: .remoteRead) != nil
    }

    // MARK: - Responder resources

    private mutating func resource(_ pair: Pair, _ index: UInt32) -> UnsafeMutablePointer<ReadResource> {
        pair.pointee.responder.resources.place(index)
    }

    /// A responder resource for one more READ or atomic, in place of the oldest one when there are
    /// `maxDestinationReadAtomic`. Nil when responses of that one were not sent yet: the requester exceeds the
    /// responder resources.
    mutating func newResource(_ pair: Pair, _ psn: PSN) -> UnsafeMutablePointer<ReadResource>? {
        let most = UInt32(pair.pointee.attributes.maxDestinationReadAtomic)
        guard most != 0 else { return nil }
        while pair.pointee.responder.endResource &- pair.pointee.responder.firstResource >= most {
            if !resource(pair, pair.pointee.responder.firstResource).pointee.allResponsesSent { return nil }
            forgetOldest(pair)
        }
        let new = resource(pair, pair.pointee.responder.endResource)
        new.initialize(to: ReadResource())
        new.pointee.first = psn
        return new
    }

    private mutating func forgetOldest(_ pair: Pair) {
        let oldest = pair.pointee.responder.firstResource
        assert(oldest != pair.pointee.responder.endResource, "nothing is remembered")
        pair.pointee.responder.firstResource = oldest &+ 1
        if pair.pointee.responder.sendingResource == oldest { pair.pointee.responder.sendingResource = oldest &+ 1 }
    }

    /// Forgets the READs and atomics whose end is 2^23 PSNs or more before `expected`: no duplicate request can refer
    /// to them (see `Responder.resources`). That includes one whose responses were not sent: a requester has at most
    /// 2^23 PSNs outstanding, so a peer that is this far ahead does not wait for the response.
    mutating func forgetDistant(_ pair: Pair) {
        while pair.pointee.responder.firstResource != pair.pointee.responder.endResource {
            let end = resource(pair, pair.pointee.responder.firstResource).pointee.endPSN
            if steps(from: end, to: pair.pointee.responder.expected) < PSN.halfRing {
                pair.pointee.responder.forgetAt = (end &+ PSN.halfRing).rawValue
                return
            }
            forgetOldest(pair)
        }
        pair.pointee.responder.forgetAt = Responder.nothingRemembered
    }

    /// The request was executed: its PSNs are used, and it counts as a message in the MSN.
    mutating func finishResource(_ pair: Pair, _ resource: UnsafeMutablePointer<ReadResource>) {
        assert(resource.pointee.packets >= 1 && resource.pointee.packets <= PSN.halfRing)
        pair.pointee.responder.endResource &+= 1
        pair.pointee.responder.expected = resource.pointee.endPSN
        forgetDistant(pair)
        pair.pointee.responder.msn = (pair.pointee.responder.msn &+ 1) & mask24
        resource.pointee.msn = pair.pointee.responder.msn
        // The response acknowledges all earlier requests.
        pair.pointee.responder.acknowledgement = nil
        scheduleResponder(pair)
    }

    /// Sets the first packet and the number of bytes of the READ responses to send.
    private mutating func startRun(
        _ resource: UnsafeMutablePointer<ReadResource>, at position: UInt32, length: UInt32, mtu: UInt32
    ) {
        resource.pointee.sent = position
        resource.pointee.runStart = position
        resource.pointee.runLength = length
        resource.pointee.end = position &+ packetCount(length, mtu: mtu)
    }

    // MARK: - Duplicate requests

    /// A duplicate request (`RESPST_DUPLICATE_REQUEST` of the kernel's rxe): its response is sent again. Only a READ is
    /// executed again. A READ or atomic without a responder resource is dropped.
    mutating func repeatAnswer(_ pair: Pair, _ packet: TransportPacket) {
        counters.duplicateRequests &+= 1
        let bth = packet.headers.bth
        assert(remembersOnlyNear(pair), "a remembered READ or atomic lies half a ring back")
        switch bth.opcode.operation {
        case .send, .write: repeatAcknowledgement(pair, bth.psn)
        case .readRequest: repeatRead(pair, bth.psn, packet.headers.reth)
        case .compareAndSwap, .fetchAndAdd, .atomicWrite, .flush: repeatAtomic(pair, bth.psn)
        default: break
        }
    }

    /// The invariant of `Responder.resources`.
    private mutating func remembersOnlyNear(_ pair: Pair) -> Bool {
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let end = resource(pair, index).pointee.endPSN
            if steps(from: end, to: pair.pointee.responder.expected) >= PSN.halfRing { return false }
            index &+= 1
        }
        return true
    }

    /// Acknowledges all executed requests up to the first READ or atomic after this request: the response of that one
    /// may be lost, and an acknowledgement beyond it would be an implied NAK for it.
    private mutating func repeatAcknowledgement(_ pair: Pair, _ psn: PSN) {
        countLostAcknowledgement(pair, psn)
        // A queued NAK also acknowledges all requests before it.
        if let waiting = pair.pointee.responder.acknowledgement, waiting.syndrome.kind != .ack { return }
        // Both are counted back from `expected`: for PSNs that are up to 2^24 apart, `precedes` is not defined.
        let expected = pair.pointee.responder.expected
        let distance = steps(from: psn, to: expected)
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let resource = self.resource(pair, index)
            if steps(from: resource.pointee.first, to: expected) < distance {
                return answer(
                    pair, resource.pointee.first &- 1, .ack, msn: resource.pointee.msnBefore, isRepeated: true)
            }
            index &+= 1
        }
        answer(pair, expected &- 1, .ack, isRepeated: true)
    }

    /// Counts the loss of an expendable ACK packet that covers this duplicate request. Without such a packet the request is
    /// no sign of a loss: it may have been sent again because this side was late.
    private mutating func countLostAcknowledgement(_ pair: Pair, _ psn: PSN) {
        let sentAt = pair.pointee.responder.expendableAt
        guard sentAt != 0, now &- sentAt > Self.longestDelay,
            !pair.pointee.responder.expendablePSN.precedes(psn)
        else { return }
        // The other requests that it covers are sent again for the same loss.
        pair.pointee.responder.expendableAt = 0
        lostAcknowledgements &+= 1
    }

    /// A duplicate request that arrives this soon after its acknowledgement was sent shows no loss: the acknowledgement may
    /// have been late. Nanoseconds.
    private static var longestDelay: UInt64 { 1_000_000 }

    private mutating func repeatRead(_ pair: Pair, _ psn: PSN, _ reth: RETH) {
        let mtu = pair.pointee.attributes.pathMTU
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let resource = self.resource(pair, index)
            let position = steps(from: resource.pointee.first, to: psn)
            if position < resource.pointee.packets && !resource.pointee.isAtomic {
                let offset = position &* mtu
                guard reth.rkey == resource.pointee.key,
                    reth.virtualAddress == resource.pointee.address &+ UInt64(offset),
                    reth.dmaLength <= resource.pointee.length &- offset
                else { return }
                counters.repeatedReads &+= 1
                resource.pointee.isReplayed = true
                startRun(resource, at: position, length: reth.dmaLength, mtu: mtu)
                return rewind(pair, to: index)
            }
            index &+= 1
        }
    }

    private mutating func repeatAtomic(_ pair: Pair, _ psn: PSN) {
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let resource = self.resource(pair, index)
            if resource.pointee.isAtomic && resource.pointee.first == psn {
                resource.pointee.sent = 0
                return rewind(pair, to: index)
            }
            index &+= 1
        }
    }

    /// Sends the responses of this resource next. Those after it continue where they were.
    private mutating func rewind(_ pair: Pair, to index: UInt32) {
        if Int32(bitPattern: index &- pair.pointee.responder.sendingResource) < 0 {
            pair.pointee.responder.sendingResource = index
        }
        scheduleResponder(pair)
    }

    // MARK: - Sending

    /// Queues an acknowledgement. It replaces one that was not sent yet, whose requests it also acknowledges (IBTA
    /// volume 1, 9.7.5.1.2, coalesced acknowledge messages).
    /// - Parameters:
    ///   - msn: The MSN of `psn`; by default that of all completed messages.
    ///   - isRepeated: Whether it answers a duplicate request.
    mutating func answer(
        _ pair: Pair, _ psn: PSN, _ syndrome: AETHSyndrome, msn: UInt32? = nil, isRepeated: Bool = false
    ) {
        pair.pointee.responder.acknowledgement = Acknowledgement(
            psn: psn, msn: msn ?? pair.pointee.responder.msn, syndrome: syndrome, isRepeated: isRepeated)
        scheduleResponder(pair)
    }

    /// Adds the queue pair to the list of its next response. Responses keep the order of the requests: those of READs
    /// and atomics are first, since a queued acknowledgement is always for a later request.
    private mutating func scheduleResponder(_ pair: Pair) {
        let front = pair.pointee.responder.sendingResource
        if front != pair.pointee.responder.endResource {
            if resource(pair, front).pointee.isAtomic {
                readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
                acknowledgements.add(pair.pointee.links + QueuePairStorage.acknowledgements)
            } else {
                readResponses.add(pair.pointee.links + QueuePairStorage.readResponses)
            }
        } else if pair.pointee.responder.acknowledgement != nil {
            acknowledgements.add(pair.pointee.links + QueuePairStorage.acknowledgements)
        }
    }

    /// Writes the next response of a queue pair. Returns 0 when there is none. `isNew` becomes true for a READ response or
    /// an ACK that was not sent before.
    mutating func emitResponse(_ pair: Pair, to target: UnsafeMutableRawPointer, _ isNew: inout Bool) -> Int {
        skipSentResources(pair)
        let front = pair.pointee.responder.sendingResource
        assert(pair.pointee.responder.hasOrderedResources, "first, sending and end are out of order")
        guard front != pair.pointee.responder.endResource else { return emitAcknowledgement(pair, to: target, &isNew) }
        let resource = self.resource(pair, front)
        let byteCount =
            resource.pointee.isAtomic
            ? emitAtomicResponse(pair, resource, to: target) : emitReadResponse(pair, resource, to: target)
        if byteCount == 0 { return emitAcknowledgement(pair, to: target, &isNew) }
        isNew = !resource.pointee.isAtomic && !resource.pointee.isReplayed
        resource.pointee.sent &+= 1
        if resource.pointee.sent == resource.pointee.packets { resource.pointee.allResponsesSent = true }
        skipSentResources(pair)
        scheduleResponder(pair)
        return byteCount
    }

    private mutating func skipSentResources(_ pair: Pair) {
        while pair.pointee.responder.sendingResource != pair.pointee.responder.endResource {
            let resource = self.resource(pair, pair.pointee.responder.sendingResource)
            guard resource.pointee.sent == resource.pointee.end else { return }
            pair.pointee.responder.sendingResource &+= 1
        }
    }

    private mutating func emitAcknowledgement(
        _ pair: Pair, to target: UnsafeMutableRawPointer, _ isNew: inout Bool
    ) -> Int {
        guard let acknowledgement = pair.pointee.responder.acknowledgement else { return 0 }
        pair.pointee.responder.acknowledgement = nil
        // The queue pair has migrated to a path to another host meanwhile.
        if acknowledgement.syndrome == .nak(.needsPackets) && pair.pointee.attributes.path.tag != Path.sameHost {
            return 0
        }
        isNew = !acknowledgement.isRepeated && acknowledgement.syndrome.kind == .ack
        if isNew && pair.pointee.sendsExpendable && pair.pointee.attributes.path.tag != Path.sameHost {
            pair.pointee.responder.expendablePSN = acknowledgement.psn
            pair.pointee.responder.expendableAt = max(now, 1)
        }
        AETH(syndrome: acknowledgement.syndrome, msn: acknowledgement.msn).emit(at: target + BTH.byteCount)
        return sealResponse(.rcAcknowledge, pair, acknowledgement.psn, at: target, payload: 0)
    }

    private mutating func emitAtomicResponse(
        _ pair: Pair, _ resource: UnsafeMutablePointer<ReadResource>, to target: UnsafeMutableRawPointer
    ) -> Int {
        AETH(syndrome: .ack, msn: resource.pointee.msn).emit(at: target + BTH.byteCount)
        if resource.pointee.operation != .atomic {
            return sealResponse(.rcReadResponseOnly, pair, resource.pointee.first, at: target, payload: 0)
        }
        AtomicAckETH(original: resource.pointee.original).emit(at: target + BTH.byteCount + AETH.byteCount)
        return sealResponse(.rcAtomicAcknowledge, pair, resource.pointee.first, at: target, payload: 0)
    }

    /// Writes one packet of a READ response. Returns 0 when the region was deregistered meanwhile, which ends the
    /// connection (IBTA volume 1, 9.7.5.2.4).
    private mutating func emitReadResponse(
        _ pair: Pair, _ resource: UnsafeMutablePointer<ReadResource>, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        let position = resource.pointee.sent
        let isFirst = position == resource.pointee.runStart
        let isLast = position &+ 1 == resource.pointee.end
        let psn = resource.pointee.first &+ position
        let payload = min(mtu, resource.pointee.runLength &- (position &- resource.pointee.runStart) &* mtu)
        var next = target + BTH.byteCount
        if isFirst || isLast {
            AETH(syndrome: .ack, msn: resource.pointee.msn).emit(at: next)
            next += AETH.byteCount
        }
        if payload != 0 {
            guard
                let memory = keys.translate(
                    key: resource.pointee.key, protectionDomain: resource.pointee.protectionDomain,
                    queuePair: pair.pointee.number, address: resource.pointee.address &+ UInt64(position &* mtu),
                    length: UInt64(payload), access: .remoteRead)
            else {
                failRead(pair, psn, msn: resource.pointee.msnBefore)
                return 0
            }
            next.copyMemory(from: memory, byteCount: Int(payload))
        }
        return sealResponse(
            .readResponse(first: isFirst, last: isLast), pair, psn, at: target, payload: Int(payload))
    }

    private mutating func failRead(_ pair: Pair, _ psn: PSN, msn: UInt32) {
        pair.pointee.responder.sendingResource = pair.pointee.responder.endResource
        counters.naksSent &+= 1
        answer(pair, psn, .nak(.remoteAccessError), msn: msn)
        guard pair.pointee.state != .error else { return }
        events.post(pair.pointee.event, .accessError)
        enterError(pair, sendsNAK: true)
    }

    private mutating func sealResponse(
        _ opcode: Opcode, _ pair: Pair, _ psn: PSN, at target: UnsafeMutableRawPointer, payload: Int
    ) -> Int {
        let bth = BTH(
            opcode: opcode.on(pair.pointee.transport), destinationQPN: pair.pointee.attributes.destinationQPN, psn: psn,
            pkey: configuration.pkey, migrated: pair.pointee.attributes.migration == .migrated)
        return seal(bth, at: target, payload: payload)
    }
}
