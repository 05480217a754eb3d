import RoCEWire

// The short path of an RC connection: a SEND of one short packet, as requester and as responder, where nothing out of the
// ordinary is going on. It has no rules of its own. Each of its conditions is one under which the general path
// (`emitReliable`, `receiveRequest`) does nothing but what is done here, to the same state and with the same packet; where one
// does not hold, it has changed nothing, and the general path follows. `ShortMessageTests` runs random histories with and
// without it and compares all packets, completions and counters.

enum ShortMessage {
    /// The bytes of the longest message that takes the short path: they fit in a packet of every path MTU, and are too few
    /// for a reference.
    static let longest: UInt32 = 256
}

extension Core {
    // MARK: - The requester

    /// The bytes of a message of 1 to `ShortMessage.longest` bytes that is in one place: inline, or in its only SGE. Nil for
    /// another message, and when the L_Key is not one of plain memory (`MemoryKeyTable.isPlain`) that may be read.
    @inline(__always)
    mutating func shortSource(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> UnsafeRawPointer? {
        guard entry.pointee.length &- 1 < ShortMessage.longest else { return nil }
        if entry.pointee.flags.contains(.inline) { return UnsafeRawPointer(entry) + pair.pointee.sgListOffset }
        guard entry.pointee.sgeCount == 1 else { return nil }
        let sge = sgList(of: entry, pair)
        return UnsafeRawPointer(
            keys.translatePlain(
                key: sge.pointee.lkey, protectionDomain: pair.pointee.protectionDomain, address: sge.pointee.address,
                length: UInt64(sge.pointee.length), access: .local))
    }

    /// Whether the short path may be taken for the next message of a queue pair, by what is known of the queue pair.
    @inline(__always)
    mutating func sendsShort(_ pair: Pair) -> Bool {
        configuration.usesShortPath && pair.pointee.type == .rc && pair.pointee.state == .readyToSend && faults == nil
            && pair.pointee.requester.current == pair.pointee.requester.started
            && pair.pointee.requester.next == pair.pointee.requester.high
            && pair.pointee.timer != .rnr && pair.pointee.requester.failure == .success
            && pair.pointee.requester.outstandingReads == 0 && pair.pointee.pathWindow == nil
            && pair.pointee.pacing.rate == 0 && !waitsForRoom(pair)
    }

    /// Writes the next packet of a queue pair, if that is a new SEND of one short packet.
    /// - Returns: The bytes of the packet; 0 when the general path is to write it, or none.
    @inline(__always)
    mutating func emitShort(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> Int {
        guard sendsShort(pair), pair.pointee.requester.hasWindow, pair.pointee.send.has(pair.pointee.requester.current)
        else {
            return 0
        }
        let current = pair.pointee.requester.current
        let psn = pair.pointee.requester.next
        let entry = pair.pointee.sendWQE(current)
        guard entry.pointee.opcode == .send, let source = shortSource(entry, pair) else { return 0 }
        assignPSNs(entry, pair, packets: 1)
        let payload = Int(entry.pointee.length)
        (target + BTH.byteCount).copyMemory(from: source, byteCount: payload)
        let bth = BTH(
            opcode: .rcSendOnly, destinationQPN: pair.pointee.attributes.destinationQPN, psn: psn,
            pkey: configuration.pkey, acknowledgeRequest: setsAckReq(entry, pair, isLast: true),
            solicited: entry.pointee.flags.contains(.solicited),
            migrated: pair.pointee.attributes.migration == .migrated)
        shortMessages &+= 1
        let next = psn.next
        pair.pointee.requester.next = next
        if pair.pointee.requester.packetsSinceAckReq == 0 { pair.pointee.requester.roundTrip.begin(next, at: now) }
        pair.pointee.requester.high = next
        pair.pointee.requester.current = current &+ 1
        if pair.pointee.timer == .none { startTimer(pair, now: now) }
        return seal(bth, headers: BTH.byteCount, at: target, payload: payload)
    }

    // MARK: - The responder

    /// Whether the short path may be taken for a SEND of one packet, by what is known of its queue pair.
    @inline(__always)
    mutating func receivesShort(_ pair: Pair, _ bth: BTH, from source: PacketSource) -> Bool {
        configuration.usesShortPath && faults == nil && pair.pointee.type == .rc && pair.pointee.isReceiving
            && matchesPartition(bth.pkey) && pair.pointee.attributes.migration == .migrated
            && source.source == pair.pointee.attributes.path.destination
            && source.destination == pair.pointee.attributes.path.source
            && pair.pointee.responder.sequence == .inSequence
            && pair.pointee.responder.message == Responder.betweenMessages && !pair.pointee.responder.holdsReceive
            && pair.pointee.sharedReceiveQueue == nil
    }

    /// Receives a packet, if it is the expected SEND of one packet, and the next receive work request holds it in its only
    /// SGE.
    /// - Returns: False when the general path is to receive it.
    mutating func receiveShort(_ bytes: UnsafeRawBufferPointer, from source: PacketSource) -> Bool {
        let overhead = BTH.byteCount + ICRC.byteCount
        guard bytes.count > overhead, let start = bytes.baseAddress else { return false }
        let bth = BTH(at: start)
        let byteCount = bytes.count &- overhead &- Int(bth.padCount)
        guard bth.opcode == .rcSendOnly, bth.transportVersion == 0, bytes.count & 3 == 0, byteCount > 0,
            let pair = queuePair(bth.destinationQPN), receivesShort(pair, bth, from: source),
            pair.pointee.responder.expected == bth.psn,
            byteCount <= Int(pair.pointee.attributes.pathMTU)
        else { return false }
        let ring = pair.pointee.receive
        guard ring.has(ring.oldest) else { return false }
        let slot = ring.slot(ring.oldest)
        let entry = slot.assumingMemoryBound(to: ReceiveWQE.self)
        let sge = (UnsafeRawPointer(slot) + ReceiveWQE.size).assumingMemoryBound(to: SGE.self)
        guard entry.pointee.sgeCount == 1, byteCount <= Int(entry.pointee.room),
            let memory = keys.translatePlain(
                key: sge.pointee.lkey, protectionDomain: pair.pointee.protectionDomain, address: sge.pointee.address,
                length: UInt64(byteCount), access: .localWrite)
        else { return false }
        memory.copyMemory(from: start + BTH.byteCount, byteCount: byteCount)
        counters.receivedPackets &+= 1
        counters.receivedBytes &+= UInt64(byteCount)
        shortMessages &+= 1
        var completion = WorkCompletion()
        completion.id = entry.pointee.id
        completion.opcode = .receive
        completion.byteCount = UInt32(truncatingIfNeeded: byteCount)
        completion.queuePairNumber = pair.pointee.number
        completion.serviceLevel = pair.pointee.attributes.path.serviceLevel
        ring.release()
        accept(pair, bth.psn, endsMessage: true, acknowledgeRequest: bth.acknowledgeRequest)
        if !push(completion, solicited: bth.solicited, to: pair.pointee.receiveCQ) { fatal(pair) }
        return true
    }
}
