import RoCEWire
import Synchronization

// Runs: consecutive SENDs of one connection between two engines of one host, whose packets each take one cache line of the
// memory that both share. What is the same for all of them is looked at once. A run is a part of the short path (see
// ShortMessages.swift), and like that has no rules of its own: a message for which a condition does not hold ends the run, and
// has changed nothing.

/// The record of a packet of a run: a cache line of memory that two processes share.
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | bits 15:0: the bytes of the packet; bit 27: `continues`; the others as in the next line |
/// | 4-15 | fields of the caller, which are the same for all records of a run except the first, which has its acknowledgement |
/// | 16   | the packet, from the BTH to the end of the ICRC, which is zero; then zeros |
///
/// The first 8 bytes are stored last, with release ordering.
public enum RunRecord {
    /// The bytes of a record.
    @inlinable public static var byteCount: Int { 64 }
    /// The offset of the packet.
    @inlinable public static var packetOffset: Int { 16 }
    /// The bytes of the longest message of a run.
    @inlinable public static var longestMessage: Int {
        byteCount - packetOffset - BTH.byteCount - ICRC.byteCount
    }
    /// The bits of the first word that have the bytes of the packet.
    @inlinable public static var countMask: UInt64 { 0xFFFF }
    /// The bit of the first word that says that another record may follow at once. Without it the reader does not look, since
    /// the next line would have to come from the writer's cache first.
    @inlinable public static var continues: UInt64 { 1 << 27 }
}

/// Where the packets of a run go.
public struct RunDestination {
    /// The path of the connection (`ibv_ah_attr`).
    public let path: Path
    /// The QPN of the peer.
    public let queuePair: UInt32
    /// The PSN that the first packet acknowledges besides (`OutgoingPacket.acknowledged`).
    public let acknowledged: PSN?

    /// Creates a destination.
    @inline(__always)
    public init(path: Path, queuePair: UInt32, acknowledged: PSN?) {
        self.path = path
        self.queuePair = queuePair
        self.acknowledged = acknowledged
    }
}

extension Engine {
    /// Whether the next packet that `write` would write is the first of a run.
    /// - Parameter acknowledgements: When acknowledgements are written.
    /// - Returns: Where its packets go; nil when `write` is to write the next packet.
    public borrowing func beginRun(acknowledgements: AcknowledgementOrder = .first) -> RunDestination? {
        core.pointee.beginRun(acknowledgements)
    }

    /// Writes the packets of a run, after `beginRun`.
    /// - Parameters:
    ///   - records: Where the records are written, one after the other.
    ///   - first: The first two words of the first record, without the bytes of the packet.
    ///   - header: Those of each further record.
    ///   - limit: The number of records for which there is room.
    ///   - now: The time in nanoseconds.
    /// - Returns: The number of records. If it is 0, `write` is to write the next packet.
    public borrowing func writeRun(
        to records: UnsafeMutableRawPointer, first: (UInt64, UInt64), header: (UInt64, UInt64), limit: Int, now: UInt64
    ) -> Int {
        core.pointee.now = now
        return core.pointee.writeRun(to: records, first: first, header: header, limit: limit, now: now)
    }

    /// Receives a packet as `receive` does, and those after it that are of its run.
    /// - Parameters:
    ///   - records: The records, one after the other. Another process may write to them meanwhile.
    ///   - first: The first word of the first record, whose packet has at least the bytes of a BTH and an ICRC, and fits in
    ///     the record.
    ///   - header: That of each further record, without the bytes of the packet and `RunRecord.continues`: another one ends the
    ///     run.
    ///   - limit: The number of records that may be read, at least 1.
    ///   - source: The addresses of the packets.
    ///   - acknowledged: `OutgoingPacket.acknowledged`, of the first packet.
    ///   - now: The time in nanoseconds.
    /// - Returns: The number of packets, at least 1.
    public borrowing func receiveRun(
        _ records: UnsafeMutableRawPointer, first: UInt64, header: UInt64, limit: Int, from source: PacketSource,
        acknowledged: PSN? = nil, now: UInt64
    ) -> Int {
        core.pointee.now = now
        let packet = UnsafeRawBufferPointer(
            start: records + RunRecord.packetOffset, count: Int(first & RunRecord.countMask))
        if let acknowledged { core.pointee.receiveAcknowledgement(acknowledged, of: packet, from: source, now: now) }
        let count = core.pointee.receiveRun(records, first: first, header: header, limit: limit, from: source)
        if count != 0 { return count }
        core.pointee.receive(packet, from: source, now: now)
        return 1
    }
}

extension Core {
    // MARK: - The requester

    fileprivate mutating func beginRun(_ order: AcknowledgementOrder) -> RunDestination? {
        guard readResponses.first == nil, !doorbells.isRung else { return nil }
        if inTurn >= configuration.burst, let link = requests.first {
            inTurn = 0
            endPathTurn(link.pointee.owner)
            requests.rotate()
        }
        guard let pair = requests.first?.pointee.owner, sendsShort(pair),
            pair.pointee.attributes.path.tag == Path.sameHost, pair.pointee.send.has(pair.pointee.requester.current)
        else { return nil }
        // Its own acknowledgement is the only one that does not come before its requests.
        if let link = acknowledgements.first {
            guard order == .last || order == .held, link.pointee.owner == pair, mayHoldAcknowledgements else {
                return nil
            }
        }
        let entry = pair.pointee.sendWQE(pair.pointee.requester.current)
        guard entry.pointee.opcode == .send, entry.pointee.length &- 1 < RunRecord.longestMessage else { return nil }
        return RunDestination(
            path: pair.pointee.attributes.path, queuePair: pair.pointee.attributes.destinationQPN,
            acknowledged: acknowledgements.first == nil ? nil : pair.pointee.responder.acknowledgement?.psn)
    }

    fileprivate mutating func writeRun(
        to records: UnsafeMutableRawPointer, first: (UInt64, UInt64), header: (UInt64, UInt64), limit: Int, now: UInt64
    ) -> Int {
        guard let pair = requests.first?.pointee.owner else { return 0 }
        let send = pair.pointee.send
        // Without SE, pad, A and PSN.
        let bth = BTH(
            opcode: .rcSendOnly, destinationQPN: pair.pointee.attributes.destinationQPN, psn: PSN(0),
            pkey: configuration.pkey, migrated: pair.pointee.attributes.migration == .migrated
        ).words
        let base = UInt64(bth.0.bigEndian) | UInt64(bth.1.bigEndian) << 32
        let canWait = messagesCanWait(pair) && !pair.pointee.requester.isProbing
        let segment = UInt8(truncatingIfNeeded: configuration.readSegment.trailingZeroBitCount)
        let interval = configuration.acknowledgeInterval
        let window = pair.pointee.requester.windowLeft
        let most = min(UInt32(truncatingIfNeeded: limit), window, configuration.burst &- inTurn)
        var current = pair.pointee.requester.current
        var psn = pair.pointee.requester.next
        var packetsSinceAckReq = pair.pointee.requester.packetsSinceAckReq
        var byteCount = 0
        var written: UInt32 = 0
        var words = first
        while written < most, send.has(current) {
            let entry = pair.pointee.sendWQE(current)
            let length = Int(entry.pointee.length)
            guard entry.pointee.opcode == .send, length <= RunRecord.longestMessage,
                let source = shortSource(entry, pair)
            else { break }
            let flags = entry.pointee.flags
            entry.pointee.firstPSN = psn
            entry.pointee.packets = 1
            entry.pointee.readSegmentByte = segment
            written &+= 1
            // As in `setsAckReq`.
            packetsSinceAckReq &+= 1
            let isLast = packetsSinceAckReq >= interval || written == window
            if isLast || !canWait || !self.canWait(entry, at: current, pair) { packetsSinceAckReq = 0 }
            let pad = PacketHeaders.padCount(payloadByteCount: length)
            let record = records + (Int(written) &- 1) &* RunRecord.byteCount
            store(
                ShortPayload(source, length),
                after: base | UInt64(pad) << 12 | (flags.contains(.solicited) ? 1 << 15 : 0),
                UInt64(psn.rawValue.bigEndian) | (packetsSinceAckReq == 0 ? 1 << 7 : 0), to: record)
            record.storeBytes(of: words.1, toByteOffset: 8, as: UInt64.self)
            let continues = written < most && send.has(current &+ 1) ? RunRecord.continues : 0
            AccessTable.word64(record).pointee.store(
                words.0 | UInt64(BTH.byteCount &+ length &+ pad &+ ICRC.byteCount) | continues, ordering: .releasing)
            words = header
            byteCount &+= length
            psn = psn.next
            current &+= 1
            if packetsSinceAckReq == 0 { pair.pointee.requester.roundTrip.begin(psn, at: now) }
        }
        guard written != 0 else { return 0 }
        pair.pointee.requester.next = psn
        pair.pointee.requester.high = psn
        pair.pointee.requester.current = current
        pair.pointee.requester.started = current
        pair.pointee.requester.packetsSinceAckReq = packetsSinceAckReq
        pair.pointee.requester.directOffset = 0
        pair.pointee.requester.referencePause &-= min(written, pair.pointee.requester.referencePause)
        if pair.pointee.timer == .none { startTimer(pair, now: now) }
        counters.sentPackets &+= UInt64(written)
        counters.sentBytes &+= UInt64(byteCount)
        shortMessages &+= UInt64(written)
        inTurn &+= written
        // It is in the first record.
        if acknowledgements.first != nil { _ = takeAcknowledgement(pair) }
        responsesNext = true
        hasDirectWork = false
        if !send.has(current) {
            // As `nextRequest` does when there is nothing more to send.
            requests.remove(pair.pointee.links + QueuePairStorage.requests)
            inTurn = 0
        }
        return Int(written)
    }

    /// Stores the packet of a record: the first 8 bytes of its BTH, and the other 4, in the byte order of the packet; then the
    /// payload. Pad, ICRC and what follows are zero, so that no byte of an earlier record is left.
    @inline(__always)
    private func store(
        _ payload: ShortPayload, after first: UInt64, _ second: UInt64, to record: UnsafeMutableRawPointer
    ) {
        let words = payload.words
        record.storeBytes(of: first, toByteOffset: 16, as: UInt64.self)
        record.storeBytes(of: second | words.0 << 32, toByteOffset: 24, as: UInt64.self)
        record.storeBytes(of: words.0 >> 32 | words.1 << 32, toByteOffset: 32, as: UInt64.self)
        record.storeBytes(of: words.1 >> 32 | words.2 << 32, toByteOffset: 40, as: UInt64.self)
        record.storeBytes(of: words.2 >> 32 | words.3 << 32, toByteOffset: 48, as: UInt64.self)
        record.storeBytes(of: words.3 >> 32, toByteOffset: 56, as: UInt64.self)
    }

    // MARK: - The responder

    fileprivate mutating func receiveRun(
        _ records: UnsafeMutableRawPointer, first: UInt64, header: UInt64, limit: Int, from source: PacketSource
    ) -> Int {
        let packet = records.load(fromByteOffset: RunRecord.packetOffset, as: UInt64.self)
        let bth = BTH(
            words: UInt32(truncatingIfNeeded: packet).bigEndian, UInt32(truncatingIfNeeded: packet >> 32).bigEndian, 0)
        guard bth.opcode == .rcSendOnly, bth.transportVersion == 0, let pair = queuePair(bth.destinationQPN),
            receivesShort(pair, bth, from: source), !pair.pointee.receiveCQ.pointee.overran
        else { return 0 }
        // SE and the pad count may differ.
        let varying: UInt64 = 0xB000
        let base = packet & ~varying
        let receive = pair.pointee.receive
        let completions = pair.pointee.receiveCQ.pointee.ring
        let isPlain =
            !pair.pointee.receiveCQ.pointee.hasEvents && completions.stride == MemoryLayout<WorkCompletion>.stride
        let domain = pair.pointee.protectionDomain
        var completion = WorkCompletion()
        completion.opcode = .receive
        completion.queuePairNumber = pair.pointee.number
        completion.serviceLevel = pair.pointee.attributes.path.serviceLevel
        var answered: (psn: PSN, msn: UInt32)?
        var bytes = 0
        var received = 0
        var word = first
        while true {
            let record = records + received &* RunRecord.byteCount
            let count = Int(word & RunRecord.countMask)
            let start = record.load(fromByteOffset: RunRecord.packetOffset, as: UInt64.self)
            let end = record.load(fromByteOffset: RunRecord.packetOffset + 8, as: UInt32.self).bigEndian
            let byteCount = count &- BTH.byteCount &- ICRC.byteCount &- Int(start >> 12 & 3)
            let psn = PSN(end)
            guard start & ~varying == base, count & 3 == 0, byteCount > 0, byteCount <= RunRecord.longestMessage,
                psn == pair.pointee.responder.expected, receive.has(receive.oldest)
            else { break }
            let slot = receive.slot(receive.oldest)
            let entry = slot.assumingMemoryBound(to: ReceiveWQE.self)
            let sge = (UnsafeRawPointer(slot) + ReceiveWQE.size).assumingMemoryBound(to: SGE.self)
            guard entry.pointee.sgeCount == 1, byteCount <= Int(entry.pointee.room),
                let memory = keys.translatePlain(
                    key: sge.pointee.lkey, protectionDomain: domain, address: sge.pointee.address,
                    length: UInt64(byteCount), access: .localWrite),
                let place = completions.reserve()
            else { break }
            copyShort(
                from: record + RunRecord.packetOffset + BTH.byteCount, to: memory, byteCount: byteCount)
            completion.id = entry.pointee.id
            completion.byteCount = UInt32(truncatingIfNeeded: byteCount)
            receive.release()
            bytes &+= byteCount
            received &+= 1
            pair.pointee.responder.expected = psn.next
            if psn.next.rawValue == pair.pointee.responder.forgetAt { forgetDistant(pair) }
            pair.pointee.responder.msn = (pair.pointee.responder.msn &+ 1) & mask24
            if end >> 31 != 0 { answered = (psn, pair.pointee.responder.msn) }
            if isPlain {
                place.initializeMemory(as: WorkCompletion.self, to: completion)
                completions.stage()
            } else {
                _ = push(completion, solicited: start >> 15 & 1 != 0, to: pair.pointee.receiveCQ)
            }
            guard received < limit, word & RunRecord.continues != 0 else { break }
            word = AccessTable.word64(record + RunRecord.byteCount).pointee.load(ordering: .acquiring)
            guard word & ~(RunRecord.countMask | RunRecord.continues) == header else { break }
        }
        guard received != 0 else { return 0 }
        if isPlain { _ = completions.publish() }
        if let answered { answer(pair, answered.psn, .ack, msn: answered.msn) }
        counters.receivedPackets &+= UInt64(received)
        counters.receivedBytes &+= UInt64(bytes)
        shortMessages &+= UInt64(received)
        return received
    }
}

/// The payload of a packet of a run: its bytes, 1 to `RunRecord.longestMessage`, followed by zeros. It is held in registers: the
/// record is stored at once, and a load of what was just stored in parts would wait for all stores before.
private struct ShortPayload {
    var words: (UInt64, UInt64, UInt64, UInt64)

    @inline(__always)
    init(_ bytes: UnsafeRawPointer, _ count: Int) {
        words = (0, 0, 0, 0)
        if count < 8 {
            words.0 = Self.part(bytes, count)
            return
        }
        words.0 = bytes.loadUnaligned(as: UInt64.self)
        if count == 8 { return }
        // The last bytes are those of the word that ends with the payload.
        let last = bytes.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
        let rest = last >> UInt64(truncatingIfNeeded: (8 &- (count & 7)) & 7 &* 8)
        if count <= 16 {
            words.1 = rest
            return
        }
        words.1 = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        if count <= 24 {
            words.2 = rest
            return
        }
        words.2 = bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        words.3 = rest
    }

    /// 1 to 7 bytes. Each is taken from one load, although the loads overlap: the memory may change between them.
    @inline(__always)
    private static func part(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt64 {
        if count >= 4 {
            let last = UInt64(bytes.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self))
            let rest = last >> UInt64(truncatingIfNeeded: (8 &- count) &* 8)
            return UInt64(bytes.loadUnaligned(as: UInt32.self)) | rest << 32
        }
        if count == 1 { return UInt64(bytes.load(as: UInt8.self)) }
        let first = UInt64(bytes.loadUnaligned(as: UInt16.self))
        return count == 2 ? first : first | UInt64(bytes.load(fromByteOffset: 2, as: UInt8.self)) << 16
    }
}

/// Copies 1 to `RunRecord.longestMessage` bytes: 8 of them without a call.
@inline(__always)
private func copyShort(from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, byteCount: Int) {
    if byteCount == 8 {
        target.storeBytes(of: source.loadUnaligned(as: UInt64.self), as: UInt64.self)
    } else {
        target.copyMemory(from: source, byteCount: byteCount)
    }
}
