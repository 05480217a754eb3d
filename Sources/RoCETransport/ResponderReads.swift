import RoCEWire
import Synchronization

// The receiving side of an RC connection: READs and atomics, which are answered with data and remembered.

extension Core {
    mutating func executeRead(_ pair: Pair, _ packet: TransportPacket) {
        let reth = packet.headers.reth
        guard pair.pointee.attributes.access.contains(.remoteRead), reth.dmaLength <= Limits.messageBytes else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        guard isReadable(pair, reth.remoteKey, reth.virtualAddress, reth.dmaLength) else {
            return refuse(pair, .remoteAccessError, event: .accessError)
        }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        resource.pointee.packets = packetCount(reth.dmaLength, mtu: pair.pointee.attributes.pathMTU)
        resource.pointee.address = reth.virtualAddress
        resource.pointee.key = reth.remoteKey
        resource.pointee.length = reth.dmaLength
        startRun(resource, at: 0, length: reth.dmaLength, mtu: pair.pointee.attributes.pathMTU)
        finishResource(pair, resource)
    }

    mutating func executeAtomic(_ pair: Pair, _ packet: TransportPacket) {
        let request = packet.headers.atomicETH
        guard pair.pointee.attributes.access.contains(.remoteAtomic), request.virtualAddress & 7 == 0 else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        guard
            let memory = keys.translate(
                key: request.remoteKey, protectionDomain: pair.pointee.protectionDomain,
                address: request.virtualAddress, length: 8, access: .remoteAtomic),
            UInt(bitPattern: memory) & 7 == 0
        else { return refuse(pair, .remoteAccessError, event: .accessError) }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            return refuse(pair, .invalidRequest, event: .requestError)
        }
        resource.pointee.isAtomic = true
        resource.pointee.packets = 1
        resource.pointee.end = 1
        resource.pointee.original = carryOut(
            request, isSwap: packet.headers.bth.opcode.operation == .compareSwap, on: memory)
        finishResource(pair, resource)
    }

    /// Atomic towards this machine's processors too, not just towards other work requests.
    private mutating func carryOut(_ request: AtomicETH, isSwap: Bool, on memory: UnsafeMutableRawPointer) -> UInt64 {
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
            || keys.translate(
                key: key, protectionDomain: pair.pointee.protectionDomain, address: address, length: UInt64(length),
                access: .remoteRead) != nil
    }

    // MARK: - What is remembered

    private mutating func resource(_ pair: Pair, _ index: UInt32) -> UnsafeMutablePointer<ReadResource> {
        pair.pointee.responder.resources + Int(index & (Limits.readAtomics &- 1))
    }

    /// A place for one more READ or atomic; the oldest is forgotten when there are `maxDestinationReadAtomic`. Nil when
    /// that one was never answered: the requester has more outstanding than was agreed.
    private mutating func newResource(_ pair: Pair, _ psn: PSN) -> UnsafeMutablePointer<ReadResource>? {
        let most = UInt32(pair.pointee.attributes.maxDestinationReadAtomic)
        guard most != 0 else { return nil }
        let responder = pair.pointee.responder
        if responder.endResource &- responder.firstResource >= most {
            if !resource(pair, responder.firstResource).pointee.wasAnswered { return nil }
            pair.pointee.responder.firstResource &+= 1
            if responder.sendingResource == responder.firstResource { pair.pointee.responder.sendingResource &+= 1 }
        }
        let new = resource(pair, responder.endResource)
        new.pointee = ReadResource()
        new.pointee.first = psn
        return new
    }

    /// The request is carried out: its PSNs are used up, and it counts as a message.
    private mutating func finishResource(_ pair: Pair, _ resource: UnsafeMutablePointer<ReadResource>) {
        pair.pointee.responder.endResource &+= 1
        pair.pointee.responder.expected = resource.pointee.first &+ resource.pointee.packets
        pair.pointee.responder.msn = (pair.pointee.responder.msn &+ 1) & 0xFF_FFFF
        resource.pointee.msn = pair.pointee.responder.msn
        // The response acknowledges all that came before.
        pair.pointee.responder.hasAcknowledgement = false
        scheduleResponder(pair)
    }

    /// From which packet on, and how many bytes, a READ is answered.
    private mutating func startRun(
        _ resource: UnsafeMutablePointer<ReadResource>, at position: UInt32, length: UInt32, mtu: UInt32
    ) {
        resource.pointee.sent = position
        resource.pointee.runStart = position
        resource.pointee.runLength = length
        resource.pointee.end = position &+ packetCount(length, mtu: mtu)
    }

    // MARK: - Repeated requests

    /// A request seen before: it is answered again and not carried out again, but for a READ, which harms nothing
    /// (IBTA volume 1, 9.7.4.1.3). What nobody remembers is dropped.
    mutating func repeatAnswer(_ pair: Pair, _ packet: TransportPacket) {
        counters.duplicateRequests &+= 1
        let bth = packet.headers.bth
        switch bth.opcode.operation {
        case .send, .write: repeatAcknowledgement(pair, bth.psn)
        case .readRequest: repeatRead(pair, bth.psn, packet.headers.reth)
        case .compareSwap, .fetchAdd: repeatAtomic(pair, bth.psn)
        default: break
        }
    }

    /// Acknowledges all that was carried out, but nothing beyond a READ or atomic after this request: its response may
    /// be what got lost, and an acknowledgement that overtakes it would say so a second time.
    private mutating func repeatAcknowledgement(_ pair: Pair, _ psn: PSN) {
        // A NAK that is due says the same and more.
        if pair.pointee.responder.hasAcknowledgement && pair.pointee.responder.syndrome.kind != .ack { return }
        var last = pair.pointee.responder.expected &- 1
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let first = resource(pair, index).pointee.first
            if psn.precedes(first) {
                last = first &- 1
                break
            }
            index &+= 1
        }
        answer(pair, last, .ack)
    }

    private mutating func repeatRead(_ pair: Pair, _ psn: PSN, _ reth: RETH) {
        let mtu = pair.pointee.attributes.pathMTU
        var index = pair.pointee.responder.firstResource
        while index != pair.pointee.responder.endResource {
            let resource = self.resource(pair, index)
            let position = steps(from: resource.pointee.first, to: psn)
            if position < resource.pointee.packets && !resource.pointee.isAtomic {
                let offset = position &* mtu
                guard reth.remoteKey == resource.pointee.key,
                    reth.virtualAddress == resource.pointee.address &+ UInt64(offset),
                    reth.dmaLength <= resource.pointee.length &- offset
                else { return }
                counters.repeatedReads &+= 1
                resource.pointee.isRepeated = true
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

    /// Sends from this resource on. Those after it go on where they were.
    private mutating func rewind(_ pair: Pair, to index: UInt32) {
        if Int32(bitPattern: index &- pair.pointee.responder.sendingResource) < 0 {
            pair.pointee.responder.sendingResource = index
        }
        scheduleResponder(pair)
    }

    // MARK: - Sending

    /// Queues an acknowledgement. It takes the place of one that was not sent yet, which it covers.
    mutating func answer(_ pair: Pair, _ psn: PSN, _ syndrome: AETHSyndrome) {
        pair.pointee.responder.hasAcknowledgement = true
        pair.pointee.responder.acknowledgedPSN = psn
        pair.pointee.responder.syndrome = syndrome
        scheduleResponder(pair)
    }

    /// Puts the queue pair into the list that its next response belongs to. Responses keep the order of the requests:
    /// READs and atomics first, since an acknowledgement that waits is always for a later request.
    private mutating func scheduleResponder(_ pair: Pair) {
        let front = pair.pointee.responder.sendingResource
        if front != pair.pointee.responder.endResource {
            if resource(pair, front).pointee.isAtomic {
                readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
                acknowledgements.add(pair.pointee.links + QueuePairStorage.acknowledgements)
            } else {
                readResponses.add(pair.pointee.links + QueuePairStorage.readResponses)
            }
        } else if pair.pointee.responder.hasAcknowledgement {
            acknowledgements.add(pair.pointee.links + QueuePairStorage.acknowledgements)
        }
    }

    /// Writes the next response of a queue pair; 0 when there is none. `isNew` becomes true for a READ response that
    /// was not sent before.
    mutating func emitResponse(_ pair: Pair, to target: UnsafeMutableRawPointer, _ isNew: inout Bool) -> Int {
        skipAnswered(pair)
        let front = pair.pointee.responder.sendingResource
        guard front != pair.pointee.responder.endResource else { return emitAcknowledgement(pair, to: target) }
        let resource = self.resource(pair, front)
        let byteCount =
            resource.pointee.isAtomic
            ? emitAtomicResponse(pair, resource, to: target) : emitReadResponse(pair, resource, to: target)
        if byteCount == 0 { return emitAcknowledgement(pair, to: target) }
        isNew = !resource.pointee.isAtomic && !resource.pointee.isRepeated
        resource.pointee.sent &+= 1
        if resource.pointee.sent == resource.pointee.packets { resource.pointee.wasAnswered = true }
        skipAnswered(pair)
        scheduleResponder(pair)
        return byteCount
    }

    private mutating func skipAnswered(_ pair: Pair) {
        while pair.pointee.responder.sendingResource != pair.pointee.responder.endResource {
            let resource = self.resource(pair, pair.pointee.responder.sendingResource)
            guard resource.pointee.sent == resource.pointee.end else { return }
            pair.pointee.responder.sendingResource &+= 1
        }
    }

    private mutating func emitAcknowledgement(_ pair: Pair, to target: UnsafeMutableRawPointer) -> Int {
        guard pair.pointee.responder.hasAcknowledgement else { return 0 }
        pair.pointee.responder.hasAcknowledgement = false
        AETH(syndrome: pair.pointee.responder.syndrome, msn: pair.pointee.responder.msn).emit(
            at: target + BTH.byteCount)
        return sealResponse(.rcAcknowledge, pair, pair.pointee.responder.acknowledgedPSN, at: target, payload: 0)
    }

    private mutating func emitAtomicResponse(
        _ pair: Pair, _ resource: UnsafeMutablePointer<ReadResource>, to target: UnsafeMutableRawPointer
    ) -> Int {
        AETH(syndrome: .ack, msn: resource.pointee.msn).emit(at: target + BTH.byteCount)
        AtomicAckETH(original: resource.pointee.original).emit(at: target + BTH.byteCount + AETH.byteCount)
        return sealResponse(.rcAtomicAcknowledge, pair, resource.pointee.first, at: target, payload: 0)
    }

    /// One packet of a READ response; 0 when the region went away meanwhile, which ends the connection.
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
                    key: resource.pointee.key, protectionDomain: pair.pointee.protectionDomain,
                    address: resource.pointee.address &+ UInt64(position &* mtu), length: UInt64(payload),
                    access: .remoteRead)
            else {
                loseResource(pair, psn)
                return 0
            }
            next.copyMemory(from: memory, byteCount: Int(payload))
        }
        return sealResponse(
            .readResponse(first: isFirst, last: isLast), pair, psn, at: target, payload: Int(payload))
    }

    private mutating func loseResource(_ pair: Pair, _ psn: PSN) {
        pair.pointee.responder.sendingResource = pair.pointee.responder.endResource
        counters.naksSent &+= 1
        answer(pair, psn, .nak(.remoteAccessError))
        guard pair.pointee.attributes.state != .error else { return }
        events.post(pair.pointee.event, .accessError)
        enterError(pair, answering: true)
    }

    private mutating func sealResponse(
        _ opcode: Opcode, _ pair: Pair, _ psn: PSN, at target: UnsafeMutableRawPointer, payload: Int
    ) -> Int {
        let bth = BTH(
            opcode: opcode, destinationQP: pair.pointee.attributes.destinationQueuePair, psn: psn,
            partitionKey: configuration.partitionKey)
        return seal(bth, at: target, payload: payload)
    }
}
