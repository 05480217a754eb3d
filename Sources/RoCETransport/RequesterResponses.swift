import RoCEWire

// The sending side of an RC connection: what comes back.

extension Core {
    /// An ACK, NAK, READ response or atomic response.
    mutating func receiveResponse(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, now: UInt64
    ) {
        let state = pair.pointee.attributes.state
        guard state == .readyToSend || state == .sendQueueDrained else {
            counters.droppedState &+= 1
            return
        }
        let psn = packet.headers.bth.psn
        // Outside [una, high) it answers nothing that waits: a duplicate, a late one, or another's.
        guard pair.pointee.requester.una.distance(to: psn) >= 0, psn.precedes(pair.pointee.requester.high) else {
            counters.strayResponses &+= 1
            return
        }
        switch packet.headers.bth.opcode.operation {
        case .readResponse: receiveReadResponse(pair, packet, payload: payload, now: now)
        case .atomicAcknowledge: receiveAtomicResponse(pair, packet, now: now)
        default: receiveAcknowledgement(pair, psn, packet.headers.aeth.syndrome, now: now)
        }
    }

    private mutating func receiveAcknowledgement(_ pair: Pair, _ psn: PSN, _ syndrome: AETHSyndrome, now: UInt64) {
        switch syndrome.kind {
        case .ack:
            guard acknowledge(pair, before: psn.next, now: now) else { return goBackForGap(pair, now: now) }
        case .rnrNak:
            counters.rnrNaksReceived &+= 1
            guard acknowledge(pair, before: psn, now: now) else { return goBackForGap(pair, now: now) }
            waitForReceiver(pair, syndrome.timer, now: now)
        case .nak:
            if syndrome.nakCode == .psnSequenceError { counters.sequenceNaksReceived &+= 1 }
            guard acknowledge(pair, before: psn, now: now) else { return goBackForGap(pair, now: now) }
            guard pair.pointee.isSending else { return }
            if syndrome.nakCode == .psnSequenceError { return goBackOnce(pair, now: now) }
            failOldestSend(pair, status: syndrome.nakCode.status, vendorError: UInt32(syndrome.rawValue))
        case .reserved:
            counters.droppedMalformed &+= 1
        }
    }

    // MARK: - Progress

    /// Takes everything before `end` as acknowledged, and completes what is whole. False when a READ or atomic stands
    /// in the way whose response did not come: it must have been lost.
    private mutating func acknowledge(_ pair: Pair, before end: PSN, now: UInt64) -> Bool {
        let start = pair.pointee.requester.una
        var isMissing = false
        while pair.pointee.requester.una != end, pair.pointee.send.oldest != pair.pointee.requester.started {
            let entry = pair.pointee.sendEntry(pair.pointee.send.oldest)
            if entry.pointee.isReadOrAtomic {
                isMissing = true
                break
            }
            let entryEnd = entry.pointee.firstPSN &+ entry.pointee.packets
            if end.precedes(entryEnd) {
                pair.pointee.requester.una = end
            } else {
                pair.pointee.requester.una = entryEnd
                completeOldestSend(pair, status: .success)
                guard pair.pointee.isSending else { return true }
            }
        }
        if pair.pointee.requester.una != start { noteProgress(pair, since: start, now: now) }
        return !isMissing
    }

    /// Something was acknowledged: retries start afresh, the window grows, the timer starts again.
    private mutating func noteProgress(_ pair: Pair, since start: PSN, now: UInt64) {
        let una = pair.pointee.requester.una
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
        pair.pointee.requester.rnrRetriesLeft = pair.pointee.attributes.rnrRetry
        pair.pointee.requester.wentBackForGap = false
        pair.pointee.requester.isWaitingForReceiver = false
        if pair.pointee.requester.isRepairing {
            pair.pointee.requester.isRepairing = false
            counters.repairs &+= 1
        }
        // An answer to what was about to be sent again: no need to.
        if pair.pointee.requester.next.precedes(una) {
            pair.pointee.requester.next = una
            pair.pointee.requester.current = pair.pointee.send.oldest
        }
        growWindow(pair, by: UInt32(bitPattern: start.distance(to: una)))
        if una == pair.pointee.requester.high { pair.pointee.deadline = nil } else { startTimer(pair, now: now) }
        requests.add(pair.pointee.links + QueuePairStorage.requests)
        reportDrained(pair)
        failIfOldest(pair)
    }

    // MARK: - Going back

    /// Sends again from the oldest packet that is not acknowledged.
    private mutating func goBack(_ pair: Pair) {
        pair.pointee.requester.next = pair.pointee.requester.una
        pair.pointee.requester.current = pair.pointee.send.oldest
        pair.pointee.requester.outstandingReads = 0
        // Found again when its turn comes.
        pair.pointee.requester.failure = .success
        requests.add(pair.pointee.links + QueuePairStorage.requests)
    }

    /// Goes back because packets seem lost: of a SEND or WRITE, or of the answer to the oldest request.
    private mutating func goBackForLoss(_ pair: Pair) {
        if !pair.pointee.sendEntry(pair.pointee.send.oldest).pointee.isReadOrAtomic {
            pair.pointee.requester.isRepairing = true
        }
        shrinkWindow(pair)
        goBack(pair)
    }

    /// Goes back after a PSN sequence NAK, once: a responder names a gap once, so another NAK without progress is a
    /// copy of the first. What is lost again is the timer's to find.
    private mutating func goBackOnce(_ pair: Pair, now: UInt64) {
        guard !pair.pointee.requester.wentBackForGap else { return }
        guard pair.pointee.requester.retriesLeft > 0 else { return failOldestSend(pair, status: .retryExceeded) }
        pair.pointee.requester.retriesLeft -= 1
        pair.pointee.requester.wentBackForGap = true
        goBackForLoss(pair)
        startTimer(pair, now: now)
    }

    /// Something later was answered, so the response in front was lost (IBTA volume 1, 9.7.5.2.8, implied NAK).
    private mutating func goBackForGap(_ pair: Pair, now: UInt64) {
        guard pair.pointee.isSending else { return }
        counters.impliedNaks &+= 1
        goBackOnce(pair, now: now)
    }

    /// The receiver has nothing posted: waits as long as it asks for.
    private mutating func waitForReceiver(_ pair: Pair, _ timer: RNRTimer, now: UInt64) {
        guard pair.pointee.isSending, !pair.pointee.requester.isWaitingForReceiver else { return }
        if pair.pointee.attributes.rnrRetry != 7 {
            guard pair.pointee.requester.rnrRetriesLeft > 0 else {
                return failOldestSend(pair, status: .rnrRetryExceeded)
            }
            pair.pointee.requester.rnrRetriesLeft -= 1
        }
        goBack(pair)
        pair.pointee.requester.isWaitingForReceiver = true
        setDeadline(pair, now &+ timer.nanoseconds)
    }

    // MARK: - Timers

    /// Local ACK timeout: 4.096 us * 2^timeout, and never for 0 (IBTA volume 1, 9.7.6.1.3).
    mutating func startTimer(_ pair: Pair, now: UInt64) {
        let timeout = pair.pointee.attributes.timeout
        guard timeout != 0 else {
            pair.pointee.deadline = nil
            return
        }
        setDeadline(pair, now &+ 4096 << UInt64(timeout))
    }

    private mutating func setDeadline(_ pair: Pair, _ time: UInt64) {
        pair.pointee.deadline = time
        timers.schedule(pair, at: time)
    }

    mutating func advance(to now: UInt64) {
        while let pair = timers.pop(at: now) {
            guard let deadline = pair.pointee.deadline else { continue }
            if deadline > now {
                timers.schedule(pair, at: deadline)
                continue
            }
            pair.pointee.deadline = nil
            if pair.pointee.requester.isWaitingForReceiver {
                pair.pointee.requester.isWaitingForReceiver = false
                requests.add(pair.pointee.links + QueuePairStorage.requests)
            } else {
                timeOut(pair, now: now)
            }
        }
    }

    private mutating func timeOut(_ pair: Pair, now: UInt64) {
        counters.timeouts &+= 1
        guard pair.pointee.requester.retriesLeft > 0 else { return failOldestSend(pair, status: .retryExceeded) }
        pair.pointee.requester.retriesLeft -= 1
        goBackForLoss(pair)
        startTimer(pair, now: now)
    }

    // MARK: - The window

    private mutating func growWindow(_ pair: Pair, by packets: UInt32) {
        let window = pair.pointee.requester.window
        guard window < configuration.maximumWindow else { return }
        if window < pair.pointee.requester.slowStartEnd {
            pair.pointee.requester.window = min(window &+ packets, configuration.maximumWindow)
            return
        }
        let growth = pair.pointee.requester.windowGrowth &+ packets
        pair.pointee.requester.windowGrowth = growth >= window ? 0 : growth
        if growth >= window { pair.pointee.requester.window = window &+ 1 }
    }

    private mutating func shrinkWindow(_ pair: Pair) {
        let half = max(pair.pointee.requester.window / 2, min(2, configuration.maximumWindow))
        pair.pointee.requester.window = half
        pair.pointee.requester.slowStartEnd = half
        pair.pointee.requester.windowGrowth = 0
    }
}

// MARK: - Responses with data

extension Core {
    private mutating func receiveReadResponse(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, now: UInt64
    ) {
        let psn = packet.headers.bth.psn
        let opcode = packet.headers.bth.opcode
        guard let entry = awaited(pair, psn, now: now) else { return }
        let mtu = pair.pointee.attributes.pathMTU
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let isWhole = position &+ 1 == entry.pointee.packets
        let endsPiece = position &+ 1 == pieceEnd(entry, position: position)
        let startsPiece = position % configuration.readPiece == 0
        let length = isWhole ? entry.pointee.length &- position &* mtu : mtu
        // A repeated request starts anywhere in a piece, so FIRST and ONLY may stand anywhere.
        guard entry.pointee.isRead, opcode.endsMessage == endsPiece, opcode.startsMessage || !startsPiece,
            packet.payloadByteCount == Int(length)
        else { return failOldestSend(pair, status: .badResponse) }
        guard
            scatter(
                elements(of: entry, pair), count: Int(entry.pointee.elementCount),
                domain: pair.pointee.protectionDomain, offset: position &* mtu, byteCount: packet.payloadByteCount,
                from: payload)
        else { return failOldestSend(pair, status: .localProtectionError) }
        counters.receivedBytes &+= UInt64(packet.payloadByteCount)
        answered(pair, psn, endsRequest: endsPiece, endsWork: isWhole, now: now)
    }

    private mutating func receiveAtomicResponse(_ pair: Pair, _ packet: TransportPacket, now: UInt64) {
        let psn = packet.headers.bth.psn
        guard let entry = awaited(pair, psn, now: now) else { return }
        guard entry.pointee.isReadOrAtomic, !entry.pointee.isRead else {
            return failOldestSend(pair, status: .badResponse)
        }
        let isPlaced = withUnsafeBytes(of: packet.headers.atomicAckETH.original) { value in
            scatter(
                elements(of: entry, pair), count: Int(entry.pointee.elementCount),
                domain: pair.pointee.protectionDomain, offset: 0, byteCount: 8, from: value.baseAddress!)
        }
        guard isPlaced else { return failOldestSend(pair, status: .localProtectionError) }
        answered(pair, psn, endsRequest: true, endsWork: true, now: now)
    }

    /// The work request that the response with this PSN is for: everything before it is acknowledged by it. Nil when
    /// a response before it is missing.
    private mutating func awaited(_ pair: Pair, _ psn: PSN, now: UInt64) -> UnsafeMutablePointer<SendEntry>? {
        guard acknowledge(pair, before: psn, now: now) else {
            goBackForGap(pair, now: now)
            return nil
        }
        guard pair.pointee.isSending, pair.pointee.send.oldest != pair.pointee.requester.started else { return nil }
        return pair.pointee.sendEntry(pair.pointee.send.oldest)
    }

    private mutating func answered(_ pair: Pair, _ psn: PSN, endsRequest: Bool, endsWork: Bool, now: UInt64) {
        // Requests that went back and were not sent again are not counted.
        if endsRequest && psn.precedes(pair.pointee.requester.next) { pair.pointee.requester.outstandingReads &-= 1 }
        pair.pointee.requester.una = psn.next
        if endsWork {
            completeOldestSend(pair, status: .success)
            guard pair.pointee.isSending else { return }
        }
        noteProgress(pair, since: psn, now: now)
    }
}

extension QueuePairStorage {
    /// RTS or SQD.
    @inline(__always)
    var isSending: Bool { attributes.state == .readyToSend || attributes.state == .sendQueueDrained }
}

extension AETHSyndrome.NakCode {
    /// How a work request ends that the peer refused (IBTA volume 1, 9.9.2.4.1, table "Requester Side Error Behavior").
    var status: CompletionStatus {
        switch self {
        case .invalidRequest: .remoteInvalidRequest
        case .remoteAccessError: .remoteAccessError
        case .remoteOperationalError: .remoteOperationError
        default: .badResponse
        }
    }
}
