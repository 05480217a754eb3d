import RoCEWire

// The sending side of a connection: what goes out, and in which order.

extension Core {
    /// Writes the next packet of an RC queue pair. Returns 0 when it has none that may be sent now; whatever could
    /// change that (an acknowledgement, a timer, a post) puts the queue pair back into the list.
    mutating func emitReliable(_ pair: Pair, to target: UnsafeMutableRawPointer, now: UInt64) -> Int {
        let state = pair.pointee.attributes.state
        guard state == .readyToSend || state == .sendQueueDrained, !pair.pointee.requester.isWaitingForReceiver,
            pair.pointee.requester.failure == .success
        else { return 0 }
        let current = pair.pointee.requester.current
        guard pair.pointee.send.has(current) else { return 0 }
        let entry = pair.pointee.sendEntry(current)
        let isNew = current == pair.pointee.requester.started
        if isNew && state == .sendQueueDrained { return 0 }
        guard mayGo(entry, isNew: isNew, pair) else { return 0 }
        if isNew {
            let status = begin(entry, pair)
            guard status == .success else {
                failCurrent(pair, status)
                return 0
            }
        }
        let isRepeated = pair.pointee.requester.next.precedes(pair.pointee.requester.high)
        let byteCount: Int
        if entry.pointee.isRead {
            byteCount = emitReadRequest(entry, pair, to: target)
        } else if entry.pointee.isReadOrAtomic {
            byteCount = emitAtomicRequest(entry, pair, to: target)
        } else {
            byteCount = emitData(entry, pair, to: target)
        }
        guard byteCount != 0 else { return 0 }
        if isRepeated { counters.retransmittedPackets &+= 1 }
        let next = pair.pointee.requester.next
        if pair.pointee.requester.high.precedes(next) { pair.pointee.requester.high = next }
        if next == entry.pointee.firstPSN &+ entry.pointee.packets { pair.pointee.requester.current = current &+ 1 }
        if pair.pointee.deadline == nil { startTimer(pair, now: now) }
        return byteCount
    }

    /// Window, limit of READs and atomics, fence.
    @inline(__always)
    private mutating func mayGo(_ entry: UnsafeMutablePointer<SendEntry>, isNew: Bool, _ pair: Pair) -> Bool {
        let requester = pair.pointee.requester
        guard UInt32(bitPattern: requester.una.distance(to: requester.next)) < requester.window else { return false }
        guard requester.outstandingReads != 0 else { return true }
        if entry.pointee.isReadOrAtomic && requester.outstandingReads >= pair.pointee.attributes.maxReadAtomic {
            return false
        }
        return !(isNew && entry.pointee.sendFlags.contains(.fence))
    }

    /// Checks a work request that is about to be carried out, and gives it its PSNs.
    mutating func begin(_ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair) -> CompletionStatus {
        if entry.pointee.length > Limits.messageBytes { return .localLengthError }
        let wantsData = entry.pointee.isReadOrAtomic
        if wantsData {
            if pair.pointee.attributes.maxReadAtomic == 0 { return .localOperationError }
            if !entry.pointee.isRead && entry.pointee.length < 8 { return .localLengthError }
        }
        if !entry.pointee.sendFlags.contains(.inline) {
            let elements = self.elements(of: entry, pair)
            guard
                areValid(
                    elements, count: Int(entry.pointee.elementCount), domain: pair.pointee.protectionDomain,
                    access: wantsData ? .localWrite : [])
            else { return .localProtectionError }
        }
        let isAtomic = wantsData && !entry.pointee.isRead
        let mtu = pair.pointee.attributes.pathMTU
        entry.pointee.firstPSN = pair.pointee.requester.next
        entry.pointee.packets = isAtomic ? 1 : packetCount(entry.pointee.length, mtu: mtu)
        pair.pointee.requester.started = pair.pointee.requester.current &+ 1
        return .success
    }

    @inline(__always)
    mutating func elements(of entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair) -> Elements {
        (UnsafeRawPointer(entry) + pair.pointee.elementOffset).assumingMemoryBound(to: ScatterGatherElement.self)
    }

    /// The work request at `current` cannot go on. It fails after those before it are complete.
    mutating func failCurrent(_ pair: Pair, _ status: CompletionStatus) {
        pair.pointee.requester.failure = status
        failIfOldest(pair)
    }

    mutating func failIfOldest(_ pair: Pair) {
        let status = pair.pointee.requester.failure
        guard status != .success, pair.pointee.requester.current == pair.pointee.send.oldest else { return }
        failOldestSend(pair, status: status)
    }

    // MARK: - Packets

    /// One packet of a SEND or WRITE, on RC or UC.
    mutating func emitData(
        _ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        let psn = pair.pointee.requester.next
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let offset = position &* mtu
        let payload = min(mtu, entry.pointee.length &- offset)
        let isFirst = position == 0
        let isLast = position &+ 1 == entry.pointee.packets
        let opcode = self.opcode(entry, pair, isFirst: isFirst, isLast: isLast)
        var next = target + BTH.byteCount
        if isFirst && !entry.pointee.isSend {
            RETH(
                virtualAddress: entry.pointee.remoteAddress, remoteKey: entry.pointee.remoteKey,
                dmaLength: entry.pointee.length
            ).emit(at: next)
            next += RETH.byteCount
        }
        if isLast && entry.pointee.hasImmediate {
            next.storeBytes(of: entry.pointee.immediate, as: UInt32.self)
            next += ImmDt.byteCount
        }
        guard copyPayload(entry, pair, offset: offset, byteCount: Int(payload), to: next) else {
            failCurrent(pair, .localProtectionError)
            return 0
        }
        let solicited =
            isLast && entry.pointee.sendFlags.contains(.solicited)
            && (entry.pointee.isSend || entry.pointee.hasImmediate)
        let bth = BTH(
            opcode: opcode, destinationQP: pair.pointee.attributes.destinationQueuePair, psn: psn,
            partitionKey: configuration.partitionKey, acknowledgeRequest: asks(pair, isLast: isLast),
            solicited: solicited)
        pair.pointee.requester.next = psn.next
        return seal(bth, at: target, payload: Int(payload))
    }

    @inline(__always)
    private mutating func opcode(
        _ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair, isFirst: Bool, isLast: Bool
    ) -> Opcode {
        let transport: Opcode.Transport = pair.pointee.type == .rc ? .reliableConnection : .unreliableConnection
        if entry.pointee.isSend {
            return .send(
                transport, first: isFirst, last: isLast, extra: entry.pointee.hasImmediate ? .immediate : .none)
        }
        return .write(transport, first: isFirst, last: isLast, immediate: entry.pointee.hasImmediate)
    }

    @inline(__always)
    mutating func copyPayload(
        _ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair, offset: UInt32, byteCount: Int,
        to target: UnsafeMutableRawPointer
    ) -> Bool {
        if entry.pointee.sendFlags.contains(.inline) {
            let data = UnsafeRawPointer(entry) + pair.pointee.elementOffset + Int(offset)
            target.copyMemory(from: data, byteCount: byteCount)
            return true
        }
        return gather(
            elements(of: entry, pair), count: Int(entry.pointee.elementCount), domain: pair.pointee.protectionDomain,
            offset: offset, byteCount: byteCount, to: target)
    }

    /// Whether this packet asks for an acknowledgement: at the end of a message, now and then in a long one, and when
    /// the window is full after it.
    @inline(__always)
    private mutating func asks(_ pair: Pair, isLast: Bool) -> Bool {
        guard pair.pointee.type == .rc else { return false }
        let requester = pair.pointee.requester
        let inFlight = UInt32(bitPattern: requester.una.distance(to: requester.next)) &+ 1
        if isLast || inFlight >= requester.window || requester.unasked &+ 1 >= configuration.acknowledgeInterval {
            pair.pointee.requester.unasked = 0
            return true
        }
        pair.pointee.requester.unasked &+= 1
        return false
    }

    /// A READ is asked for in pieces that end at multiples of `readPiece` packets from its start, so that a repeated
    /// request always lies within one that the responder remembers.
    private mutating func emitReadRequest(
        _ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let mtu = pair.pointee.attributes.pathMTU
        let psn = pair.pointee.requester.next
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let end = pieceEnd(entry, position: position)
        let offset = position &* mtu
        let length = end == entry.pointee.packets ? entry.pointee.length &- offset : (end &- position) &* mtu
        RETH(
            virtualAddress: entry.pointee.remoteAddress &+ UInt64(offset), remoteKey: entry.pointee.remoteKey,
            dmaLength: length
        ).emit(at: target + BTH.byteCount)
        pair.pointee.requester.next = psn &+ (end &- position)
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(.rcReadRequest, pair, psn: psn, at: target)
    }

    /// The packet after the last one of the piece of a READ that `position` lies in.
    mutating func pieceEnd(_ entry: UnsafeMutablePointer<SendEntry>, position: UInt32) -> UInt32 {
        min(entry.pointee.packets, (position / configuration.readPiece &+ 1) &* configuration.readPiece)
    }

    private mutating func emitAtomicRequest(
        _ entry: UnsafeMutablePointer<SendEntry>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let psn = pair.pointee.requester.next
        let isSwap = entry.pointee.operation == .compareSwap
        AtomicETH(
            virtualAddress: entry.pointee.remoteAddress, remoteKey: entry.pointee.remoteKey,
            swapOrAdd: isSwap ? entry.pointee.swap : entry.pointee.compareAdd,
            compare: isSwap ? entry.pointee.compareAdd : 0
        ).emit(at: target + BTH.byteCount)
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(isSwap ? .rcCompareSwap : .rcFetchAdd, pair, psn: psn, at: target)
    }

    private mutating func sealRequest(_ opcode: Opcode, _ pair: Pair, psn: PSN, at target: UnsafeMutableRawPointer)
        -> Int
    {
        pair.pointee.requester.unasked = 0
        let bth = BTH(
            opcode: opcode, destinationQP: pair.pointee.attributes.destinationQueuePair, psn: psn,
            partitionKey: configuration.partitionKey, acknowledgeRequest: true)
        return seal(bth, at: target, payload: 0)
    }
}

/// How far `to` lies after `from`, 0 to 2^24 - 1: a message can be as long as 2^23 packets.
@inline(__always)
func steps(from: PSN, to: PSN) -> UInt32 { (to.rawValue &- from.rawValue) & 0xFF_FFFF }

/// Packets of a message: at least one.
@inline(__always)
func packetCount(_ length: UInt32, mtu: UInt32) -> UInt32 {
    length <= mtu ? 1 : (length &- 1) / mtu &+ 1
}
