import RoCEWire

// The requester of an RC connection: responses (IBTA volume 1, 9.7.6; rxe_comp.c of the kernel).

extension Core {
    /// Receives an ACK, NAK, READ response or atomic response.
    mutating func receiveResponse(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, now: UInt64
    ) {
        guard pair.pointee.isSending else {
            counters.droppedState &+= 1
            return
        }
        let psn = packet.headers.bth.psn
        guard isOutstanding(psn, pair) else { return }
        switch packet.headers.bth.opcode.operation {
        case .readResponse: receiveReadResponse(pair, packet, payload: payload, now: now)
        case .atomicAcknowledge: receiveAtomicResponse(pair, packet, now: now)
        default: receiveAcknowledgement(pair, psn, packet.headers.aeth.syndrome, now: now)
        }
        if pair.pointee.isSending { chargePathWindow(pair) }
    }

    /// Receives an ACK that a request of the peer carried (`OutgoingPacket.acknowledged`).
    mutating func receiveCarried(_ psn: PSN, _ pair: Pair, now: UInt64) {
        guard isOutstanding(psn, pair) else { return }
        receiveAcknowledgement(pair, psn, .ack, now: now)
        if pair.pointee.isSending { chargePathWindow(pair) }
    }

    /// Whether a response is to an outstanding request: one in [una, high). Otherwise it is a duplicate, or of an earlier
    /// connection, and counted.
    @inline(__always)
    private mutating func isOutstanding(_ psn: PSN, _ pair: Pair) -> Bool {
        if pair.pointee.requester.una.distance(to: psn) >= 0, psn.precedes(pair.pointee.requester.high) { return true }
        counters.strayResponses &+= 1
        return false
    }

    private mutating func receiveAcknowledgement(_ pair: Pair, _ psn: PSN, _ syndrome: AETHSyndrome, now: UInt64) {
        switch syndrome.kind {
        case .ack:
            guard acknowledge(pair, before: psn.next, now: now) else { return goBackForGap(pair, now: now) }
        case .rnrNAK:
            counters.rnrNAKsReceived &+= 1
            guard acknowledge(pair, before: psn, now: now) else { return goBackForGap(pair, now: now) }
            waitForReceiver(pair, syndrome.timer, now: now)
        case .nak:
            if syndrome.nakCode == .psnSequenceError { counters.sequenceNAKsReceived &+= 1 }
            guard acknowledge(pair, before: psn, now: now) else { return goBackForGap(pair, now: now) }
            guard pair.pointee.isSending else { return }
            if syndrome.nakCode == .psnSequenceError { return goBackOnce(pair, now: now) }
            if syndrome.nakCode == .needsPackets, pair.pointee.attributes.path.tag == Path.sameHost {
                return sendPackets(pair, now: now)
            }
            failOldestSend(pair, status: syndrome.nakCode.status, vendorError: UInt32(syndrome.rawValue))
        case .reserved:
            counters.droppedMalformed &+= 1
        }
    }

    // MARK: - Progress

    /// Acknowledges all packets before `end` (IBTA volume 1, 9.7.5.1.2, coalesced acknowledge messages), and completes
    /// the work requests that end there. Returns false when the response of a READ or atomic before `end` is missing,
    /// and so was lost.
    private mutating func acknowledge(_ pair: Pair, before end: PSN, now: UInt64) -> Bool {
        let start = pair.pointee.requester.una
        assert(pair.pointee.requester.isOrdered, "una, next and high are out of order")
        assert(steps(from: start, to: end) <= steps(from: start, to: pair.pointee.requester.high))
        var isMissing = false
        while pair.pointee.requester.una != end, pair.pointee.send.oldest != pair.pointee.requester.started {
            let entry = pair.pointee.sendWQE(pair.pointee.send.oldest)
            if entry.pointee.isReadOrAtomic {
                isMissing = true
                break
            }
            let entryEnd = entry.pointee.firstPSN &+ entry.pointee.packets
            // Both are counted from `una`: a message can be half a ring long, for which `precedes` is not defined.
            let una = pair.pointee.requester.una
            if steps(from: una, to: end) < steps(from: una, to: entryEnd) {
                pair.pointee.requester.una = end
            } else {
                pair.pointee.requester.una = entryEnd
                completeOldestSend(pair, status: .success)
                guard pair.pointee.isSending else { return true }
            }
        }
        if pair.pointee.requester.una != start {
            // The oldest request is a SEND or RDMA WRITE, so it is the request that was sent again.
            if pair.pointee.requester.recovery != .none && !pair.pointee.requester.wasProbeNeedless {
                counters.repairs &+= 1
            }
            noteProgress(pair, since: start, now: now)
        }
        return !isMissing
    }

    /// A request was acknowledged: the retry counters start again, the window grows, the timer starts again.
    /// - Parameter isRead: Whether that was by a response with data.
    private mutating func noteProgress(_ pair: Pair, since start: PSN, isRead: Bool = false, now: UInt64) {
        let una = pair.pointee.requester.una
        pair.pointee.requester.noteReferences()
        completeLocal(pair)
        guard pair.pointee.isSending else { return }
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
        pair.pointee.requester.rnrRetriesLeft = pair.pointee.attributes.rnrRetry
        pair.pointee.requester.recovery = .none
        if pair.pointee.requester.roundTrip.end(una, at: now), let window = pair.pointee.pathWindow {
            window.pointee.roundTrip = pair.pointee.requester.roundTrip
        }
        if pair.pointee.requester.isProbing { endProbe(pair, now: now) }
        // Packets that were acknowledged meanwhile are not sent again.
        if pair.pointee.requester.next.precedes(una) {
            pair.pointee.requester.next = una
            pair.pointee.requester.current = pair.pointee.send.oldest
        }
        growWindow(pair, by: UInt32(bitPattern: start.distance(to: una)), isRead: isRead)
        if una == pair.pointee.requester.high { pair.pointee.timer = .none } else { startTimer(pair, now: now) }
        requests.add(pair.pointee.links + QueuePairStorage.requests)
        reportDrained(pair)
        failIfOldest(pair)
    }

    // MARK: - Going back

    /// Go-back-N: sends again from the oldest packet that is not acknowledged.
    private mutating func goBack(_ pair: Pair) {
        pair.pointee.requester.next = pair.pointee.requester.una
        pair.pointee.requester.current = pair.pointee.send.oldest
        pair.pointee.requester.outstandingReads = 0
        pair.pointee.requester.awaitsReference = false
        pair.pointee.requester.roundTrip.discard()
        // A failed work request fails again when it is begun again.
        pair.pointee.requester.failure = .success
        requests.add(pair.pointee.links + QueuePairStorage.requests)
    }

    /// Goes back because packets seem lost: those of a request, or the responses to the oldest request.
    private mutating func goBackForLoss(_ pair: Pair, _ recovery: LossRecovery, now: UInt64) {
        pair.pointee.requester.recovery = recovery
        assert(pair.pointee.requester.recovery != .none, "packets are sent again for a loss that is not noted")
        assert(!pair.pointee.hasNothingOutstanding, "no work request is outstanding")
        shrinkWindow(pair)
        // `endProbe` does it when a response comes.
        if !pair.pointee.requester.isProbing { shrinkPathWindow(pair, now: now) }
        goBack(pair)
    }

    /// Goes back after a NAK for a PSN sequence error, once: a responder returns one NAK for a gap, so another NAK
    /// without progress is a copy of the first. A packet that is lost again is found by the local ACK timeout.
    private mutating func goBackOnce(_ pair: Pair, now: UInt64) {
        guard pair.pointee.requester.recovery != .negativelyAcknowledged else { return }
        guard pair.pointee.requester.retriesLeft > 0 else { return endRetries(pair, now: now) }
        pair.pointee.requester.retriesLeft -= 1
        goBackForLoss(pair, .negativelyAcknowledged, now: now)
        // A running RNR timer continues: lost packets are sent again when it expires.
        if pair.pointee.timer != .rnr { startTimer(pair, now: now) }
    }

    /// The peer cannot read the data of a reference where it is: the SEND is sent again, as packets. That uses no retry.
    /// Without a reference under way, it is a copy of an earlier refusal.
    private mutating func sendPackets(_ pair: Pair, now: UInt64) {
        guard pair.pointee.requester.hasReferences else { return }
        pair.pointee.requester.noteRefusal()
        goBack(pair)
        if pair.pointee.timer != .rnr { startTimer(pair, now: now) }
    }

    /// The retries are over: an armed queue pair continues on its alternate path, and another one fails.
    @inline(never)
    private mutating func endRetries(_ pair: Pair, now: UInt64) {
        guard pair.pointee.attributes.migration == .armed else {
            return failOldestSend(pair, status: .retryExceeded)
        }
        migrate(pair)
        // A request that waits for room looks for it on the other path.
        if pair.pointee.hasNothingOutstanding { return requests.add(pair.pointee.links + QueuePairStorage.requests) }
        goBackForLoss(pair, .timedOut, now: now)
        if pair.pointee.timer != .rnr { startTimer(pair, now: now) }
    }

    /// A response to a later request arrived, so the response to the oldest request was lost: an implied NAK (IBTA
    /// volume 1, 9.7).
    private mutating func goBackForGap(_ pair: Pair, now: UInt64) {
        guard pair.pointee.isSending else { return }
        counters.impliedNAKs &+= 1
        goBackOnce(pair, now: now)
    }

    /// After an RNR NAK: waits for the time of its timer code (IBTA volume 1, 9.7.5.2.8).
    private mutating func waitForReceiver(_ pair: Pair, _ timer: RNRTimer, now: UInt64) {
        guard pair.pointee.isSending, pair.pointee.timer != .rnr else { return }
        if pair.pointee.attributes.rnrRetry != Limits.infiniteRNRRetry {
            guard pair.pointee.requester.rnrRetriesLeft > 0 else {
                return failOldestSend(pair, status: .rnrRetryExceeded)
            }
            pair.pointee.requester.rnrRetriesLeft -= 1
        }
        goBack(pair)
        setTimer(pair, .rnr, now &+ timer.nanoseconds)
    }

    // MARK: - Timers

    /// The unit of the local ACK timeout: 4.096 us (IBTA volume 1, 9.7.6.1.3).
    private static var localACKTimeoutUnit: UInt64 { 4096 }

    /// Starts the local ACK timeout: 4.096 us * 2^timeout, and none for 0 (IBTA volume 1, 9.7.6.1.3). The timer runs to
    /// the retransmission timeout of the connection, if that is shorter.
    mutating func startTimer(_ pair: Pair, now: UInt64) {
        let timeout = pair.pointee.attributes.timeout
        guard timeout != 0 else {
            pair.pointee.timer = .none
            return
        }
        // A packet that is sent again waits for the rate limit first.
        let start = max(now, pair.pointee.pacing.free)
        pair.pointee.requester.timeoutAt = start &+ Self.localACKTimeoutUnit << UInt64(timeout)
        setRetransmissionTimer(pair, start: start)
    }

    /// Starts the local ACK timeout of a queue pair whose next request waits for room at its receiver (`FullReceivers`), unless
    /// it runs: to the end, since nothing is to be sent again earlier.
    mutating func startRoomTimer(_ pair: Pair, now: UInt64) {
        let timeout = pair.pointee.attributes.timeout
        guard pair.pointee.type.isReliable, timeout != 0, pair.pointee.timer == .none,
            pair.pointee.send.has(pair.pointee.requester.current),
            pair.pointee.state == .readyToSend || pair.pointee.requester.current != pair.pointee.requester.started
        else { return }
        pair.pointee.requester.timeoutAt = now &+ Self.localACKTimeoutUnit << UInt64(timeout)
        setTimer(pair, .localACK, pair.pointee.requester.timeoutAt)
    }

    /// There is room, and nothing was sent yet: the time and the retries begin with the first packet.
    mutating func endRoomTimer(_ pair: Pair) {
        guard pair.pointee.timer == .localACK, pair.pointee.hasNothingOutstanding else { return }
        pair.pointee.timer = .none
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
    }

    /// The local ACK timeout has passed with nothing outstanding: a request waits for room, which counts as a packet without
    /// acknowledgement.
    private mutating func timeOutForRoom(_ pair: Pair, now: UInt64) {
        guard waitsForRoom(pair), pair.pointee.state == .readyToSend,
            pair.pointee.send.has(pair.pointee.requester.current)
        else {
            return requests.add(pair.pointee.links + QueuePairStorage.requests)
        }
        counters.timeouts &+= 1
        guard pair.pointee.requester.retriesLeft > 0 else { return endRetries(pair, now: now) }
        pair.pointee.requester.retriesLeft -= 1
        startRoomTimer(pair, now: now)
    }

    /// Sets the timer to the retransmission timeout, or to the end of the local ACK timeout if that is earlier.
    private mutating func setRetransmissionTimer(_ pair: Pair, start: UInt64) {
        // Of a connection that is not measured yet, the round-trip time of another one to the same destination.
        if let window = pair.pointee.pathWindow {
            pair.pointee.requester.roundTrip.begin(like: window.pointee.roundTrip)
        }
        let early = start &+ pair.pointee.requester.roundTrip.timeout
        setTimer(pair, .localACK, min(pair.pointee.requester.timeoutAt, early))
    }

    @inline(__always)
    mutating func setTimer(_ pair: Pair, _ timer: QueuePairTimer, _ time: UInt64) {
        assert(pair.pointee.isSending, "only a queue pair that sends waits for a response")
        pair.pointee.timer = timer
        pair.pointee.deadline = time
        timers.schedule(pair, at: time)
        assert(timers.covers(pair), "the timer would expire too late")
    }

    mutating func advance(to now: UInt64) {
        while let pair = timers.pop(at: now) {
            let timer = pair.pointee.timer
            if timer == .none { continue }
            if pair.pointee.deadline > now {
                timers.schedule(pair, at: pair.pointee.deadline)
                continue
            }
            assert(pair.pointee.type.isReliable && pair.pointee.isSending, "a timer runs where nothing is waited for")
            pair.pointee.timer = .none
            switch timer {
            case .rnr: requests.add(pair.pointee.links + QueuePairStorage.requests)
            case .localACK where pair.pointee.hasNothingOutstanding: timeOutForRoom(pair, now: now)
            case .localACK where now < pair.pointee.requester.timeoutAt: probe(pair, now: now)
            case .localACK: timeOut(pair, now: now)
            case .none: break
            }
            if pair.pointee.isSending { chargePathWindow(pair) }
        }
    }

    private mutating func timeOut(_ pair: Pair, now: UInt64) {
        counters.timeouts &+= 1
        guard pair.pointee.requester.retriesLeft > 0 else { return endRetries(pair, now: now) }
        pair.pointee.requester.retriesLeft -= 1
        let recovery = pair.pointee.requester.recovery
        goBackForLoss(pair, recovery == .none ? .timedOut : recovery, now: now)
        startTimer(pair, now: now)
    }

    // MARK: - Probes

    /// No response arrived within the retransmission timeout: the last packets, or their responses, may be lost, which
    /// no NAK reports. Sends again from the oldest packet, with a window of two packets, or of one where that of the
    /// destination is full: if packets were lost, the acknowledgement of the first one leads to the rest, and if only the
    /// response was, to the response. This uses no retry (`ibv_qp_attr.retry_cnt`): the local ACK timeout continues.
    private mutating func probe(_ pair: Pair, now: UInt64) {
        assert(!pair.pointee.hasNothingOutstanding, "no work request is outstanding")
        counters.probes &+= 1
        if !pair.pointee.requester.isProbing {
            pair.pointee.requester.probeBegan = now
            pair.pointee.requester.windowBeforeProbe = pair.pointee.requester.window
            shrinkWindow(pair)
        }
        pair.pointee.requester.isProbing = true
        releasePathWindow(pair)
        pair.pointee.requester.roundTrip.backOff()
        if pair.pointee.requester.recovery == .none { pair.pointee.requester.recovery = .timedOut }
        pair.pointee.requester.window = min(2, configuration.maximumWindow)
        goBack(pair)
        setRetransmissionTimer(pair, start: max(now, pair.pointee.pacing.free))
    }

    /// A probe was answered. If the acknowledgement covers packets that were not sent again, none was lost, and the
    /// window is as large as before (as in F-RTO, RFC 5682).
    private mutating func endProbe(_ pair: Pair, now: UInt64) {
        if pair.pointee.requester.wasProbeNeedless {
            counters.needlessProbes &+= 1
            pair.pointee.requester.window = pair.pointee.requester.windowBeforeProbe
        } else if let window = pair.pointee.pathWindow, window.pointee.halvedAt < pair.pointee.requester.probeBegan {
            // Queue pairs that begin to probe together have lost packets together: the first answer halves the window.
            shrinkPathWindow(pair, now: now)
        }
        pair.pointee.requester.isProbing = false
    }

    // MARK: - The window

    private mutating func growWindow(_ pair: Pair, by packets: UInt32, isRead: Bool) {
        if let path = pair.pointee.pathWindow {
            path.pointee.grow(by: packets, isRead: isRead, limit: configuration.maximumPathWindow)
        }
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

    private mutating func shrinkPathWindow(_ pair: Pair, now: UInt64) {
        guard let window = pair.pointee.pathWindow else { return }
        window.pointee.halve(at: now, roundTrip: pair.pointee.requester.roundTrip)
    }
}

// MARK: - Responses with data

extension Core {
    private mutating func receiveReadResponse(
        _ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer, now: UInt64
    ) {
        let psn = packet.headers.bth.psn
        let opcode = packet.headers.bth.opcode
        guard let entry = oldestRequest(pair, respondedBy: psn, now: now) else { return }
        if entry.pointee.isAtomicWrite || entry.pointee.isFlush {
            // The response to an ATOMIC WRITE or FLUSH is a READ response without data.
            guard opcode.isOnly, packet.payloadByteCount == 0 else {
                return failOldestSend(pair, status: .badResponseError)
            }
            return acceptResponse(pair, psn, endsRequest: true, endsWork: true, now: now)
        }
        let mtu = pair.pointee.attributes.pathMTU
        let position = steps(from: entry.pointee.firstPSN, to: psn)
        let isWhole = position &+ 1 == entry.pointee.packets
        let endsSegment = position &+ 1 == segmentEnd(entry, position: position)
        let length = isWhole ? entry.pointee.length &- position &* mtu : mtu
        // A retransmitted READ request starts at any packet, so First and Only are valid at any packet. A response can be
        // one to an earlier, longer request, which has no Last where the segment ends now, and no First after that.
        guard entry.pointee.isRead, opcode.endsMessage ? endsSegment : mayContinue(entry, position),
            opcode.startsMessage || !startsLongestSegment(position),
            packet.payloadByteCount == Int(length)
        else { return failOldestSend(pair, status: .badResponseError) }
        guard
            scatter(
                sgList(of: entry, pair), count: Int(entry.pointee.sgeCount),
                domain: pair.pointee.protectionDomain, offset: position &* mtu, byteCount: packet.payloadByteCount,
                from: payload)
        else { return failOldestSend(pair, status: .localProtectionError) }
        counters.receivedBytes &+= UInt64(packet.payloadByteCount)
        acceptResponse(pair, psn, endsRequest: endsSegment, endsWork: isWhole, now: now)
    }

    private mutating func receiveAtomicResponse(_ pair: Pair, _ packet: TransportPacket, now: UInt64) {
        let psn = packet.headers.bth.psn
        guard let entry = oldestRequest(pair, respondedBy: psn, now: now) else { return }
        guard entry.pointee.isAtomic else { return failOldestSend(pair, status: .badResponseError) }
        let isPlaced = withUnsafeBytes(of: packet.headers.atomicAckETH.original) { value in
            scatter(
                sgList(of: entry, pair), count: Int(entry.pointee.sgeCount),
                domain: pair.pointee.protectionDomain, offset: 0, byteCount: value.count, from: value.baseAddress!)
        }
        guard isPlaced else { return failOldestSend(pair, status: .localProtectionError) }
        acceptResponse(pair, psn, endsRequest: true, endsWork: true, now: now)
    }

    /// The work request of the response with this PSN, which is the oldest one: the response acknowledges all packets
    /// before it. Nil when a response before it is missing.
    private mutating func oldestRequest(
        _ pair: Pair, respondedBy psn: PSN, now: UInt64
    ) -> UnsafeMutablePointer<SendWQE>? {
        guard acknowledge(pair, before: psn, now: now) else {
            goBackForGap(pair, now: now)
            return nil
        }
        guard pair.pointee.isSending, pair.pointee.send.oldest != pair.pointee.requester.started else { return nil }
        return pair.pointee.sendWQE(pair.pointee.send.oldest)
    }

    /// A response with data was placed: its PSN is acknowledged.
    private mutating func acceptResponse(
        _ pair: Pair, _ psn: PSN, endsRequest: Bool, endsWork: Bool, now: UInt64
    ) {
        // Requests before a go-back that were not sent again are not counted.
        if endsRequest && psn.precedes(pair.pointee.requester.next) { pair.pointee.requester.outstandingReads &-= 1 }
        pair.pointee.requester.una = psn.next
        if endsWork {
            completeOldestSend(pair, status: .success)
            guard pair.pointee.isSending else { return }
        }
        noteProgress(pair, since: psn, isRead: true, now: now)
    }
}

extension QueuePairStorage {
    /// RTS or SQD.
    @inline(__always)
    var isSending: Bool { state == .readyToSend || state == .sendQueueDrained }

    /// Whether no work request was begun that is not complete.
    @inline(__always)
    var hasNothingOutstanding: Bool { send.oldest == requester.started }

    /// RTR, RTS, SQD or SQE.
    @inline(__always)
    var isReceiving: Bool {
        switch state {
        case .readyToReceive, .readyToSend, .sendQueueDrained, .sendQueueError: true
        default: false
        }
    }
}

extension AETHSyndrome.NAKCode {
    /// The completion status of a work request for which the peer returned this NAK code (IBTA volume 1, 9.9.2).
    var status: CompletionStatus {
        switch self {
        case .invalidRequest: .remoteInvalidRequestError
        case .remoteAccessError: .remoteAccessError
        case .remoteOperationalError: .remoteOperationError
        default: .badResponseError
        }
    }
}
