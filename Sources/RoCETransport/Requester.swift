import RoCEWire

// The requester of a connection: requests and their order (IBTA volume 1, 9.7.3; rxe_req.c of the kernel).

extension Core {
    /// Writes the next request packet of an RC queue pair. Returns 0 when no packet may be sent now; an
    /// acknowledgement, a timer or a post adds the queue pair to the ready list again.
    mutating func emitReliable(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> Int {
        let state = pair.pointee.state
        guard state == .readyToSend || state == .sendQueueDrained, pair.pointee.timer != .rnr,
            pair.pointee.requester.failure == .success, passLocal(pair)
        else { return 0 }
        let current = pair.pointee.requester.current
        guard pair.pointee.send.has(current) else { return 0 }
        let entry = pair.pointee.sendWQE(current)
        let isNew = current == pair.pointee.requester.started
        if isNew && state == .sendQueueDrained { return 0 }
        guard mayTransmit(entry, isNew: isNew, pair) else { return 0 }
        if isNew {
            let status = begin(entry, pair)
            guard status == .success else {
                failCurrent(pair, status)
                return 0
            }
        }
        let isRetransmission = pair.pointee.requester.next.precedes(pair.pointee.requester.high)
        let byteCount: Int
        if entry.pointee.isRead {
            byteCount = emitReadRequest(entry, pair, to: target)
        } else if entry.pointee.isAtomicWrite {
            byteCount = emitAtomicWrite(entry, pair, to: target)
        } else if entry.pointee.isFlush {
            byteCount = emitFlush(entry, pair, to: target)
        } else if entry.pointee.isReadOrAtomic {
            byteCount = emitAtomicRequest(entry, pair, to: target)
        } else if entry.pointee.length >= Reference.shortest, mayRefer(entry, pair) {
            byteCount = emitReference(entry, pair, to: target)
        } else {
            byteCount = emitData(entry, pair, to: target)
        }
        guard byteCount != 0 else { return 0 }
        let next = pair.pointee.requester.next
        if isRetransmission {
            counters.retransmittedPackets &+= 1
        } else if pair.pointee.requester.packetsSinceAckReq == 0 {
            pair.pointee.requester.roundTrip.begin(next, at: now)
        }
        if pair.pointee.requester.high.precedes(next) { pair.pointee.requester.high = next }
        assert(pair.pointee.requester.isOrdered, "una, next and high are out of order")
        assert(
            pair.pointee.requester.isOrdered(oldest: pair.pointee.send.oldest, limit: pair.pointee.send.limit),
            "oldest, current and started are out of order")
        if next == entry.pointee.firstPSN &+ entry.pointee.packets { pair.pointee.requester.current = current &+ 1 }
        if pair.pointee.timer == .none { startTimer(pair, now: now) }
        chargePathWindow(pair)
        return byteCount
    }

    /// Checks the window, `max_rd_atomic`, the fence, and the window of the destination.
    @inline(__always)
    private mutating func mayTransmit(_ entry: UnsafeMutablePointer<SendWQE>, isNew: Bool, _ pair: Pair) -> Bool {
        // The fields are read in place: a copy of the struct is dozens of stores.
        let inFlight = pair.pointee.requester.una.distance(to: pair.pointee.requester.next)
        guard UInt32(bitPattern: inFlight) < pair.pointee.requester.window else { return false }
        let outstandingReads = pair.pointee.requester.outstandingReads
        guard outstandingReads != 0 else { return mayUsePath(pair) }
        if entry.pointee.isReadOrAtomic && outstandingReads >= pair.pointee.attributes.maxReadAtomic { return false }
        if mustWaitForPart(entry, pair) { return false }
        return !(isNew && entry.pointee.flags.contains(.fence)) && mayUsePath(pair)
    }

    /// Begins a work request: checks it and assigns its PSNs (IBTA volume 1, 9.7.1).
    mutating func begin(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> CompletionStatus {
        if entry.pointee.length > Limits.maxMessageSize { return .localLengthError }
        let isReadOrAtomic = entry.pointee.isReadOrAtomic
        if isReadOrAtomic {
            if pair.pointee.attributes.maxReadAtomic == 0 { return .localQPOperationError }
            if !entry.pointee.isRead && !entry.pointee.isFlush && entry.pointee.length < atomicByteCount {
                return .localLengthError
            }
            if entry.pointee.isAtomicWrite && entry.pointee.length != atomicByteCount { return .localLengthError }
        }
        if !entry.pointee.flags.contains(.inline) {
            let sgList = self.sgList(of: entry, pair)
            guard
                areValid(
                    sgList, count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
                    access: isReadOrAtomic && !entry.pointee.isAtomicWrite ? .localWrite : .local)
            else { return .localProtectionError }
        }
        if faults != nil {
            let status = injectedStatus(entry, pair)
            if status != .success { return status }
        }
        let isAtomic = isReadOrAtomic && !entry.pointee.isRead
        let mtu = pair.pointee.attributes.pathMTU
        assignPSNs(entry, pair, packets: isAtomic ? 1 : packetCount(entry.pointee.length, mtu: mtu))
        return .success
    }

    /// Assigns PSNs to the work request at `current`, which was checked and has so many packets.
    @inline(__always)
    mutating func assignPSNs(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, packets: UInt32) {
        entry.pointee.firstPSN = pair.pointee.requester.next
        entry.pointee.packets = packets
        entry.pointee.readSegmentByte = UInt8(truncatingIfNeeded: configuration.readSegment.trailingZeroBitCount)
        pair.pointee.requester.started = pair.pointee.requester.current &+ 1
        // A request that was begun directly may have been completed by packets.
        pair.pointee.requester.directOffset = 0
        if pair.pointee.requester.referencePause != 0 { pair.pointee.requester.referencePause &-= 1 }
    }

    @inline(__always)
    mutating func sgList(of entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> SGList {
        (UnsafeRawPointer(entry) + pair.pointee.sgListOffset).assumingMemoryBound(to: SGE.self)
    }

    /// The work request at `current` failed. It completes with `status` when those before it are complete.
    mutating func failCurrent(_ pair: Pair, _ status: CompletionStatus) {
        assert(status != .success && pair.pointee.isSending)
        pair.pointee.requester.failure = status
        failIfOldest(pair)
        askAtOnce(pair)
    }

    /// The messages before a failed work request, which completes after them, may have asked for no acknowledgement
    /// (`canWait`): the next `advance` asks.
    private mutating func askAtOnce(_ pair: Pair) {
        guard pair.pointee.isSending, pair.pointee.requester.failure != .success, pair.pointee.timer == .localACK,
            pair.pointee.requester.packetsSinceAckReq != 0, pair.pointee.attributes.path.tag == Path.sameHost
        else { return }
        setTimer(pair, .localACK, now)
    }

    mutating func failIfOldest(_ pair: Pair) {
        let status = pair.pointee.requester.failure
        guard status != .success, pair.pointee.requester.current == pair.pointee.send.oldest else { return }
        failOldestSend(pair, status: status)
    }

    // MARK: - Packets

    /// The place of the header after the BTH. On XRC that is the XRCETH, which is written, and the place after it is
    /// returned.
    @inline(__always)
    func afterBase(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, _ target: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        let next = target + BTH.byteCount
        guard pair.pointee.type == .xrcSend else { return next }
        XRCETH(sharedReceiveQueueNumber: entry.pointee.remoteSRQN).emit(at: next)
        return next + XRCETH.byteCount
    }

    /// Writes one packet of a SEND or RDMA WRITE, on RC, UC or XRC.
    mutating func emitData(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        let psn = pair.pointee.requester.next
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let offset = position &* mtu
        let payload = min(mtu, entry.pointee.length &- offset)
        let isFirst = position == 0
        let isLast = position &+ 1 == entry.pointee.packets
        let opcode = self.opcode(entry, pair, isFirst: isFirst, isLast: isLast)
        var next = afterBase(entry, pair, target)
        if isFirst && !entry.pointee.isSend {
            RETH(
                virtualAddress: entry.pointee.remoteAddress, rkey: entry.pointee.rkey,
                dmaLength: entry.pointee.length
            ).emit(at: next)
            next += RETH.byteCount
        }
        if isLast && entry.pointee.hasImmediate {
            next.storeBytes(of: entry.pointee.immediate, as: UInt32.self)
            next += ImmDt.byteCount
        } else if isLast && entry.pointee.hasInvalidate {
            IETH(rkey: entry.pointee.immediate).emit(at: next)
            next += IETH.byteCount
        }
        guard copyPayload(entry, pair, offset: offset, byteCount: Int(payload), to: next) else {
            failCurrent(pair, .localProtectionError)
            return 0
        }
        let solicited =
            isLast && entry.pointee.flags.contains(.solicited)
            && (entry.pointee.isSend || entry.pointee.hasImmediate)
        let bth = BTH(
            opcode: opcode, destinationQPN: pair.pointee.attributes.destinationQPN, psn: psn,
            pkey: configuration.pkey, acknowledgeRequest: setsAckReq(entry, pair, isLast: isLast),
            solicited: solicited, migrated: pair.pointee.attributes.migration == .migrated)
        pair.pointee.requester.next = psn.next
        return seal(bth, at: target, payload: Int(payload))
    }

    @inline(__always)
    mutating func opcode(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, isFirst: Bool, isLast: Bool
    ) -> Opcode {
        let transport = pair.pointee.transport
        if entry.pointee.isSend {
            let extra: Opcode.Extra =
                entry.pointee.hasImmediate ? .immediate : entry.pointee.hasInvalidate ? .invalidate : .none
            return .send(transport, first: isFirst, last: isLast, extra: extra)
        }
        return .write(transport, first: isFirst, last: isLast, immediate: entry.pointee.hasImmediate)
    }

    @inline(__always)
    mutating func copyPayload(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, offset: UInt32, byteCount: Int,
        to target: UnsafeMutableRawPointer
    ) -> Bool {
        if entry.pointee.flags.contains(.inline) {
            let data = UnsafeRawPointer(entry) + pair.pointee.sgListOffset + Int(offset)
            target.copyMemory(from: data, byteCount: byteCount)
            return true
        }
        return gather(
            sgList(of: entry, pair), count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
            offset: offset, byteCount: byteCount, to: target)
    }

    /// Whether BTH.A (AckReq) of this packet is set: at the end of a message, after every `acknowledgeInterval` packets
    /// of a long message, when the window or that of the destination is full after this packet, before other queue
    /// pairs have their turn in a full window, in every packet of a probe, and with a rate limit in every packet, since
    /// the next one can be later than the retransmission timeout. A message for which `canWait` needs none at its end.
    @inline(__always)
    mutating func setsAckReq(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, isLast: Bool) -> Bool {
        guard pair.pointee.type != .uc else { return false }
        let inFlight = pair.pointee.requester.una.distance(to: pair.pointee.requester.next) &+ 1
        if isLast && !canWait(entry, pair) || UInt32(bitPattern: inFlight) >= pair.pointee.requester.window
            || pair.pointee.pacing.rate != 0 || pair.pointee.requester.isProbing
            || pair.pointee.requester.packetsSinceAckReq &+ 1 >= configuration.acknowledgeInterval || endsPathUse(pair)
        {
            pair.pointee.requester.packetsSinceAckReq = 0
            return true
        }
        pair.pointee.requester.packetsSinceAckReq &+= 1
        return false
    }

    /// Whether a message to an engine of this host needs no acknowledgement of its own, which would cost a cache line: no
    /// completion waits for it, and the next work request is posted, with which its acknowledgement comes. If that one is
    /// not sent soon, such as in SQD, the retransmission timer asks.
    @inline(__always)
    private mutating func canWait(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> Bool {
        messagesCanWait(pair) && canWait(entry, at: pair.pointee.requester.current, pair)
    }

    /// The same for all messages of a queue pair, each of which has conditions of its own.
    @inline(__always)
    mutating func messagesCanWait(_ pair: Pair) -> Bool {
        pair.pointee.attributes.path.tag == Path.sameHost && !pair.pointee.sqSigAll
            && pair.pointee.attributes.timeout != 0 && pair.pointee.state == .readyToSend && faults == nil
    }

    /// These conditions, for the message in slot `index`.
    @inline(__always)
    mutating func canWait(_ entry: UnsafeMutablePointer<SendWQE>, at index: UInt32, _ pair: Pair) -> Bool {
        !entry.pointee.flags.contains(.signaled) && pair.pointee.send.has(index &+ 1)
            && !pair.pointee.sendWQE(index &+ 1).pointee.isLocal
    }

    /// Writes an RDMA READ request. A READ is sent as requests that end at multiples of a number of packets, counted
    /// from its start: `SendWQE.readSegment`, a power of two that grows only where nothing is outstanding and nothing
    /// behind was ever requested. So a retransmitted request is always a part of a request that has a responder resource
    /// (IBTA volume 1, 9.4.4).
    private mutating func emitReadRequest(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        let psn = pair.pointee.requester.next
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        // A segment does not change while a request of it is outstanding, so that its end is where the response ends.
        if position == 0 || pair.pointee.requester.outstandingReads == 0 { limitReadSegment(entry, pair) }
        let end = segmentEnd(entry, position: position)
        let offset = position &* mtu
        let length = end == entry.pointee.packets ? entry.pointee.length &- offset : (end &- position) &* mtu
        RETH(
            virtualAddress: entry.pointee.remoteAddress &+ UInt64(offset), rkey: entry.pointee.rkey,
            dmaLength: length
        ).emit(at: afterBase(entry, pair, target))
        pair.pointee.requester.next = psn &+ (end &- position)
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(.rcReadRequest, pair, psn: psn, at: target)
    }

    /// Makes the requests of a READ so short that their responses fit in half of the window of the destination, and in
    /// that of the queue pair: the path that limits the window drops what is more. They become longer again when the
    /// windows have grown.
    private mutating func limitReadSegment(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) {
        guard let window = pair.pointee.pathWindow else { return }
        let requester = pair.pointee.requester
        // No request that was sent before covers what is requested from here on.
        let isFresh = requester.una == requester.next && requester.next == requester.high
        let longest = isFresh ? configuration.readSegment : entry.pointee.readSegment
        var room = min(longest, max(requester.window, 1))
        let half = max(window.pointee.window / 2, 1)
        window.pointee.limitsReads = half < min(room, entry.pointee.packets)
        room = min(room, half)
        let shift = UInt8(truncatingIfNeeded: 31 - room.leadingZeroBitCount)
        if isFresh {
            entry.pointee.readSegmentByte = shift
            return
        }
        guard shift < entry.pointee.readSegmentShift else { return }
        let wasSent = entry.pointee.isShortened || entry.pointee.firstPSN.precedes(pair.pointee.requester.high)
        entry.pointee.readSegmentByte = wasSent ? shift | 0x80 : shift
    }

    /// Whether the next request of a READ is a part of one that was sent before, and has to wait for the response to the
    /// part before it: a responder may remember only the last copy of a request (`ReadResource`).
    @inline(__always)
    private func mustWaitForPart(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> Bool {
        entry.pointee.isRead && entry.pointee.isShortened && pair.pointee.requester.next != entry.pointee.firstPSN
            && pair.pointee.requester.next.precedes(pair.pointee.requester.high)
    }

    /// The position after the last packet of the READ request that contains `position`.
    @inline(__always)
    func segmentEnd(_ entry: UnsafeMutablePointer<SendWQE>, position: UInt32) -> UInt32 {
        let shift = entry.pointee.readSegmentShift
        return min(entry.pointee.packets, (position >> shift &+ 1) << shift)
    }

    /// Whether the response at this position may be one after which the response to the same request continues.
    @inline(__always)
    func mayContinue(_ entry: UnsafeMutablePointer<SendWQE>, _ position: UInt32) -> Bool {
        position &+ 1 != entry.pointee.packets && !startsLongestSegment(position &+ 1)
    }

    /// Whether every request ends before this position.
    @inline(__always)
    func startsLongestSegment(_ position: UInt32) -> Bool { position & (configuration.readSegment &- 1) == 0 }

    private mutating func emitAtomicRequest(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let psn = pair.pointee.requester.next
        let isSwap = entry.pointee.opcode == .compareAndSwap
        AtomicETH(
            virtualAddress: entry.pointee.remoteAddress, rkey: entry.pointee.rkey,
            swapOrAdd: isSwap ? entry.pointee.swap : entry.pointee.compareAdd,
            compare: isSwap ? entry.pointee.compareAdd : 0
        ).emit(at: afterBase(entry, pair, target))
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(isSwap ? .rcCompareAndSwap : .rcFetchAndAdd, pair, psn: psn, at: target)
    }

    /// Writes an ATOMIC WRITE request (IBTA volume 1 release 1.5, annex A19; `IB_OPCODE_RC_ATOMIC_WRITE` of the kernel's
    /// rxe).
    private mutating func emitAtomicWrite(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let psn = pair.pointee.requester.next
        let data = target + BTH.byteCount + RETH.byteCount
        if entry.pointee.flags.contains(.inline) {
            data.storeBytes(of: entry.pointee.swap, as: UInt64.self)
        } else if !copyPayload(entry, pair, offset: 0, byteCount: Int(atomicByteCount), to: data) {
            failCurrent(pair, .localProtectionError)
            return 0
        }
        RETH(
            virtualAddress: entry.pointee.remoteAddress, rkey: entry.pointee.rkey, dmaLength: atomicByteCount
        ).emit(at: target + BTH.byteCount)
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(.rcAtomicWrite, pair, psn: psn, at: target, payload: Int(atomicByteCount))
    }

    mutating func sealRequest(
        _ opcode: Opcode, _ pair: Pair, psn: PSN, at target: UnsafeMutableRawPointer, payload: Int = 0
    ) -> Int {
        pair.pointee.requester.packetsSinceAckReq = 0
        let bth = BTH(
            opcode: opcode.on(pair.pointee.transport), destinationQPN: pair.pointee.attributes.destinationQPN, psn: psn,
            pkey: configuration.pkey, acknowledgeRequest: true,
            migrated: pair.pointee.attributes.migration == .migrated)
        return seal(bth, at: target, payload: payload)
    }
}

/// The distance from `from` to `to`, 0 to 2^24 - 1: for PSNs that are in that order and less than one ring (2^24)
/// apart, such as those of a message, which can have 2^23 packets. `PSN.distance` also distinguishes ahead from behind,
/// and needs PSNs that are less than half a ring apart.
@inline(__always)
func steps(from: PSN, to: PSN) -> UInt32 { (to.rawValue &- from.rawValue) & mask24 }

/// The number of packets of a message: at least one.
@inline(__always)
func packetCount(_ length: UInt32, mtu: UInt32) -> UInt32 {
    length <= mtu ? 1 : (length &- 1) / mtu &+ 1
}
