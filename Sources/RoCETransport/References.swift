import RoCEWire
import Synchronization

/// A SEND between two engines of one host whose packet tells where the data is, instead of the data: the responder copies
/// it from there, once. On RC a long SEND is a row of references, each for a part of at most `Core.copyShare` bytes.
///
/// A reference has the headers of a SEND packet, but uses the PSNs of as many packets as its part would have: so both sides
/// can continue with packets of data at any PSN, and retransmission, RNR NAKs and the order of requests are those of packets.
/// A reference is executed only if its PSN is the expected one, and so not acknowledged: its work request is outstanding,
/// unless it has completed in error, which ends the grant of the queue pair before. The responder compares the grant again
/// after it has copied, and counts the bytes as received only then.
///
/// A responder that cannot copy returns the NAK `needsPackets`.
///
/// The payload:
///
/// | byte | field |
/// |------|-------|
/// | 0-1  | the grant number of the requester (`QueuePairStorage.grantNumber`) |
/// | 2-7  | zero |
/// | 8 …  | 1 to 32 SGEs of 16 bytes: address, length (4 bytes), L_Key |
struct Reference {
    let grant: UInt16
    let count: Int
    /// The bytes of the part.
    let byteCount: Int
    private let list: UnsafeRawPointer

    /// The shortest message that is sent so. Below, a packet takes as long.
    static var shortest: UInt32 { 512 }
    /// The same for memory that the peer does not map, so that the kernel copies.
    static var shortestForeign: UInt32 { 4096 }
    /// After this many SENDs as packets, a reference is tried again at the latest.
    static var longestPause: UInt32 { 1024 }
    static let headByteCount = 8
    static let maximumCount = Int(Limits.maxSGE)

    /// Nil when the payload is not that of a reference.
    init?(_ payload: UnsafeRawPointer, byteCount: Int) {
        let bytes = byteCount - Self.headByteCount
        guard bytes > 0, bytes % MemoryLayout<SGE>.stride == 0, bytes / MemoryLayout<SGE>.stride <= Self.maximumCount
        else { return nil }
        grant = payload.loadUnaligned(as: UInt16.self)
        count = bytes / MemoryLayout<SGE>.stride
        list = payload + Self.headByteCount
        var sum = 0
        for index in 0..<count {
            let length = list.loadUnaligned(
                fromByteOffset: index * MemoryLayout<SGE>.stride + MemoryLayout<UInt64>.size, as: UInt32.self)
            sum += Int(length)
        }
        guard sum > 0, sum <= Core.copyShare else { return nil }
        self.byteCount = sum
    }

    /// A copy of an SGE, since another process can change the packet.
    func sge(_ index: Int) -> SGE { list.loadUnaligned(fromByteOffset: index * MemoryLayout<SGE>.stride, as: SGE.self) }
}

// MARK: - The requester

extension Requester {
    /// A reference was refused: the next SENDs are packets, more of them each time.
    mutating func noteRefusal() {
        hasReferences = false
        referencePause = referencePenalty
        referencePenalty = min(referencePenalty &* 4, Reference.longestPause)
    }

    /// The packets before `una` were acknowledged: if a reference is among them, the next refusal leads to a shorter
    /// pause.
    @inline(__always)
    mutating func noteReferences() {
        guard awaitsReference, !una.precedes(referenceEnd) else { return }
        awaitsReference = false
        if referencePenalty > 1 { referencePenalty /= 2 }
    }
}

extension Core {
    /// Whether a work request may be sent as references. After a loss it is sent as packets.
    @inline(never)
    mutating func mayRefer(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> Bool {
        guard entry.pointee.isSend, pair.pointee.type == .rc, pair.pointee.attributes.path.tag == Path.sameHost,
            pair.pointee.grantNumber != 0, pair.pointee.requester.recovery == .none,
            pair.pointee.requester.referencePause == 0, pair.pointee.pacing.rate == 0, faults == nil,
            !entry.pointee.flags.contains(.inline)
        else { return false }
        let prefix = Int(pair.pointee.attributes.destinationQPN >> (24 &- configuration.qpnPrefixBits))
        guard neighbors.entries[prefix] != nil else { return false }
        let sgList = sgList(of: entry, pair)
        let isLong = entry.pointee.length >= Reference.shortestForeign
        for index in 0..<Int(entry.pointee.sgeCount) where sgList[index].length != 0 {
            guard keys.isPlain(sgList[index].lkey), isLong || keys.isShared(sgList[index].lkey) else { return false }
        }
        return true
    }

    /// Writes a reference to the next part of a SEND.
    mutating func emitReference(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        assert(Core.copyShare % Int(mtu) == 0, "a part that does not end the message consists of full packets")
        let psn = pair.pointee.requester.next
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let offset = position &* mtu
        let byteCount = min(entry.pointee.length &- offset, UInt32(Core.copyShare))
        let isLast = offset &+ byteCount == entry.pointee.length
        var next = afterBase(entry, pair, target)
        if isLast && entry.pointee.hasImmediate {
            next.storeBytes(of: entry.pointee.immediate, as: UInt32.self)
            next += ImmDt.byteCount
        } else if isLast && entry.pointee.hasInvalidate {
            IETH(rkey: entry.pointee.immediate).emit(at: next)
            next += IETH.byteCount
        }
        next.storeBytes(of: 0, as: UInt64.self)
        next.storeBytes(of: pair.pointee.grantNumber, as: UInt16.self)
        let count = writeParts(entry, pair, offset: offset, byteCount: byteCount, to: next + Reference.headByteCount)
        guard count != 0 else {
            failCurrent(pair, .localProtectionError)
            return 0
        }
        pair.pointee.requester.next = psn &+ packetCount(byteCount, mtu: mtu)
        pair.pointee.requester.packetsSinceAckReq = 0
        pair.pointee.requester.hasReferences = true
        if !pair.pointee.requester.awaitsReference {
            pair.pointee.requester.awaitsReference = true
            pair.pointee.requester.referenceEnd = pair.pointee.requester.next
        }
        wroteReference = true
        let bth = BTH(
            opcode: opcode(entry, pair, isFirst: position == 0, isLast: isLast),
            destinationQPN: pair.pointee.attributes.destinationQPN, psn: psn, pkey: configuration.pkey,
            acknowledgeRequest: true, solicited: isLast && entry.pointee.flags.contains(.solicited),
            migrated: pair.pointee.attributes.migration == .migrated)
        return seal(bth, at: target, payload: Reference.headByteCount + count * MemoryLayout<SGE>.stride)
    }

    /// Writes the parts of the SGEs that hold the bytes from `offset` on. Returns their number; 0 when an L_Key is not valid.
    private mutating func writeParts(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, offset: UInt32, byteCount: UInt32,
        to list: UnsafeMutableRawPointer
    ) -> Int {
        let sgList = sgList(of: entry, pair)
        var skip = offset
        var left = byteCount
        var count = 0
        var index = 0
        while left != 0, index < Int(entry.pointee.sgeCount) {
            var part = sgList[index]
            index &+= 1
            if skip >= part.length {
                skip &-= part.length
                continue
            }
            part.address &+= UInt64(skip)
            part.length = min(part.length &- skip, left)
            skip = 0
            guard
                keys.translate(
                    key: part.lkey, protectionDomain: pair.pointee.protectionDomain, address: part.address,
                    length: UInt64(part.length), access: .local) != nil
            else { return 0 }
            (list + count * MemoryLayout<SGE>.stride).storeBytes(of: part, as: SGE.self)
            count &+= 1
            left &-= part.length
        }
        assert(left == 0, "the length of a work request is that of its SGEs")
        return count
    }
}

// MARK: - The responder

extension Core {
    /// Receives a reference, from the memory that another engine of this host writes: its contents are not trusted.
    mutating func receiveReference(_ bytes: UnsafeRawBufferPointer, from source: PacketSource) {
        counters.receivedPackets &+= 1
        guard let packet = try? TransportPacket(parsing: bytes), let start = bytes.baseAddress,
            packet.headers.bth.opcode.operation == .send
        else {
            counters.droppedMalformed &+= 1
            return
        }
        guard let pair = destination(packet.headers.bth, from: source) else { return }
        // No answer to a reference, such as the NAK `needsPackets`, leaves the host.
        guard pair.pointee.type == .rc, pair.pointee.attributes.path.tag == Path.sameHost else {
            counters.droppedServiceType &+= 1
            return
        }
        establish(pair)
        let bth = packet.headers.bth
        let distance = pair.pointee.responder.expected.distance(to: bth.psn)
        guard distance == 0 else {
            if distance < 0 { return repeatAnswer(pair, packet) }
            // Never held: the data could be gone when its turn comes.
            counters.outOfSequence &+= 1
            return reportGap(pair)
        }
        let mtu = Int(pair.pointee.attributes.pathMTU)
        guard let reference = Reference(start + packet.payloadOffset, byteCount: packet.payloadByteCount),
            isInOrder(pair, bth.opcode), bth.opcode.endsMessage || reference.byteCount % mtu == 0
        else { return refuse(pair, .invalidRequest, event: .requestError) }
        // One from before RESET of the requester is dropped before it takes a receive work request.
        let prefix = Int(pair.pointee.attributes.destinationQPN >> (24 &- configuration.qpnPrefixBits))
        if neighbors.entries[prefix]?.isGranted(pair, reference.grant) == false {
            counters.droppedState &+= 1
            return
        }
        pair.pointee.responder.sequence = .inSequence
        execute(reference, pair, packet)
        if pair.pointee.responder.gap.count != 0 { continueHeld(pair) }
    }

    private mutating func execute(_ reference: Reference, _ pair: Pair, _ packet: TransportPacket) {
        var bth = packet.headers.bth
        if bth.opcode.startsMessage {
            guard takeReceive(pair) else { return refuseForNow(pair) }
            pair.pointee.responder.received = 0
        }
        let room = Int(pair.pointee.responder.receiveLength &- pair.pointee.responder.received)
        guard reference.byteCount <= room else { return refuse(pair, .invalidRequest, status: .localLengthError) }
        switch pull(reference, pair) {
        case .success: break
        case .localProtectionError: return refuse(pair, .remoteOperationalError, status: .localProtectionError)
        default: return refuseReference(pair)
        }
        pair.pointee.responder.received &+= UInt32(reference.byteCount)
        pair.pointee.responder.message = .send
        counters.directRequests &+= 1
        counters.directBytes &+= UInt64(reference.byteCount)
        let packets = packetCount(UInt32(reference.byteCount), mtu: pair.pointee.attributes.pathMTU)
        bth.psn = bth.psn &+ (packets &- 1)
        accept(pair, bth)
        // `accept` compares with a PSN that lies before the last one of the reference.
        if pair.pointee.responder.forgetAt != Responder.nothingRemembered { forgetDistant(pair) }
        guard bth.opcode.endsMessage else { return }
        if bth.opcode.headers.contains(.ieth) && !invalidate(packet.headers.ieth.rkey, pair) {
            return failInvalidate(pair)
        }
        finishReceive(pair, packet, opcode: .receive)
    }

    /// Asks for packets with data. References that follow are ahead of the expected PSN, and cause no NAK of their own.
    private mutating func refuseReference(_ pair: Pair) {
        pair.pointee.responder.sequence = .negativelyAcknowledged
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(.needsPackets))
    }

    /// Copies the data of a reference to the receive work request that is held.
    /// - Returns: `.success`, `.localProtectionError` for memory of this side, and another status when the data cannot be
    ///   read; then some bytes may have been written.
    private mutating func pull(_ reference: Reference, _ pair: Pair) -> CompletionStatus {
        let prefix = Int(pair.pointee.attributes.destinationQPN >> (24 &- configuration.qpnPrefixBits))
        guard pair.pointee.attributes.path.tag == Path.sameHost, faults == nil, neighbors.entries[prefix] != nil else {
            return .remoteAccessError
        }
        let responder = pair.pointee.responder
        for index in 0..<responder.sgeCount where responder.sgList[index].length != 0 {
            if !keys.isPlain(responder.sgList[index].lkey) { return .remoteAccessError }
        }
        var offset = responder.received
        for index in 0..<reference.count {
            let part = reference.sge(index)
            // The lengths may have changed since their sum was checked.
            guard part.length <= responder.receiveLength &- offset else { return .remoteAccessError }
            if part.length == 0 { continue }
            let status = pull(part, pair, prefix, grant: reference.grant, offset: offset)
            guard status == .success else { return status }
            offset &+= part.length
        }
        guard offset &- responder.received == UInt32(reference.byteCount) else { return .remoteAccessError }
        // The data was read before the grant is read again.
        atomicMemoryFence(ordering: .acquiring)
        return neighbors.entries[prefix]!.isGranted(pair, reference.grant) ? .success : .remoteAccessError
    }

    private mutating func pull(_ part: SGE, _ pair: Pair, _ prefix: Int, grant: UInt16, offset: UInt32)
        -> CompletionStatus
    {
        neighbors.entries[prefix]!.enter(queuePair: pair.pointee.attributes.destinationQPN, key: part.lkey)
        defer { neighbors.entries[prefix]!.leave() }
        let responder = pair.pointee.responder
        switch neighbors.entries[prefix]!.source(
            pair, key: part.lkey, address: part.address, length: UInt64(part.length), grant: grant)
        {
        case nil: return .remoteAccessError
        case .mapped(let start):
            let isPlaced = scatter(
                responder.sgList, count: responder.sgeCount, domain: pair.pointee.receiveDomain, offset: offset,
                byteCount: Int(part.length), from: start)
            return isPlaced ? .success : .localProtectionError
        case .foreign(let process, let copy, let address):
            var parts = InlineArray<32, MemoryPart>(repeating: MemoryPart(address: nil, byteCount: 0))
            var used = 0
            let areValid = forEachSGE(
                responder.sgList, count: responder.sgeCount, domain: pair.pointee.receiveDomain, offset: offset,
                byteCount: Int(part.length), access: .localWrite
            ) { memory, _, length in
                parts[used] = MemoryPart(address: memory, byteCount: length)
                used &+= 1
            }
            guard areValid else { return .localProtectionError }
            let isCopied = withUnsafeBytes(of: &parts) { copy(process, $0.baseAddress!, Int32(used), address, false) }
            return isCopied ? .success : .remoteAccessError
        }
    }
}
