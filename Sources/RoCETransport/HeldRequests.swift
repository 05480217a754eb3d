import RoCEWire

// Requests that arrive before an earlier one. A responder of IBTA volume 1 (9.7.5.2) drops them, and the requester sends all of
// them again, also where the network has only changed their order. Here the responder keeps some, and executes them in order
// once the earlier one is there; the NAK for the PSN sequence error waits for a few packets or some time, as TCP waits for
// three duplicate acknowledgements (RFC 5681). On the wire, this is a responder that is late with its NAK and coalesces its
// acknowledgements.

/// A request that waits for an earlier one. Its payload is behind it, as far from it as in the packet.
struct HeldRequest {
    var packet: TransportPacket
    /// The next one of the queue pair, in the order of PSNs, or of the unused places.
    var next: UnsafeMutablePointer<HeldRequest>?

    var psn: PSN { packet.headers.bth.psn }

    static let payloadOffset = (MemoryLayout<HeldRequest>.size + 63) & ~63
    static let stride = payloadOffset + Int(Limits.maxPathMTU)
}

/// The places for held requests of an engine. Untouched memory takes no pages: a place is used for the first time only when
/// all that were used before are taken.
struct HeldRequestPool {
    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    private var touched = 0
    private var unused: UnsafeMutablePointer<HeldRequest>?

    init(capacity: Int) {
        self.capacity = capacity
        memory = .allocate(byteCount: capacity * HeldRequest.stride, alignment: 16)
    }

    func deallocate() { memory.deallocate() }

    mutating func take() -> UnsafeMutablePointer<HeldRequest>? {
        if let place = unused {
            unused = place.pointee.next
            return place
        }
        guard touched < capacity else { return nil }
        touched += 1
        return (memory + (touched - 1) * HeldRequest.stride).assumingMemoryBound(to: HeldRequest.self)
    }

    mutating func giveBack(_ place: UnsafeMutablePointer<HeldRequest>) {
        place.pointee.next = unused
        unused = place
    }
}

/// The held requests of a queue pair.
///
/// Invariant: while there is one, the queue pair is in the list `Core.gaps`, and `Responder.sequence` is not `inSequence`
/// except during the execution of a request, so that no request takes the short path past them.
struct Gap {
    var first: UnsafeMutablePointer<HeldRequest>?
    var last: UnsafeMutablePointer<HeldRequest>?
    var count = 0
    /// When the NAK is queued, or after it, when the requests are dropped: in nanoseconds.
    var deadline: UInt64 = 0

    /// So many held requests show that the earlier one is lost, not late.
    static let reordering = 3
    /// The longest time for which a NAK waits, in nanoseconds: much less than the usual local ACK timeouts.
    static let patience: UInt64 = 200_000
    /// The time for which requests are kept after the NAK, in nanoseconds. By then the requester has sent them again.
    static let life: UInt64 = 20_000_000
    /// The requests of one queue pair that are kept, and the distance of the last one from the expected PSN.
    static let longest = 64
    static let reach = 256
}

extension Core {
    /// Keeps a request that is ahead of the expected PSN.
    /// - Returns: Whether it may be only early, so that no NAK is due. False also when it could not be kept.
    private mutating func hold(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) -> Bool {
        let psn = packet.headers.bth.psn
        let count = pair.pointee.responder.gap.count
        // Before a request of this connection was executed, those of an earlier one with the same queue pair numbers may still
        // arrive: nothing is held until then. After an RNR NAK the requester waits, and sends all of them again.
        guard configuration.heldRequests != 0, count < Gap.longest,
            pair.pointee.responder.expected != PSN(pair.pointee.attributes.rqPSN),
            count != 0 || pair.pointee.responder.sequence == .inSequence,
            pair.pointee.responder.expected.distance(to: psn) <= Gap.reach,
            packet.payloadByteCount <= Int(Limits.maxPathMTU)
        else { return false }
        var before = pair.pointee.responder.gap.last
        if let last = before, !last.pointee.psn.precedes(psn) {
            before = nil
            var next = pair.pointee.responder.gap.first
            while let other = next, other.pointee.psn.precedes(psn) {
                before = other
                next = other.pointee.next
            }
            // A copy of one that is held, which may ask for the acknowledgement that the first one did not ask for.
            if let next, next.pointee.psn == psn {
                if packet.headers.bth.acknowledgeRequest { next.pointee.packet.headers.bth.acknowledgeRequest = true }
                return true
            }
        }
        guard let place = heldRequests.take() else { return false }
        let next = before.map { $0.pointee.next } ?? pair.pointee.responder.gap.first
        place.initialize(to: HeldRequest(packet: packet, next: next))
        (UnsafeMutableRawPointer(place) + HeldRequest.payloadOffset)
            .copyMemory(from: payload, byteCount: packet.payloadByteCount)
        if let before { before.pointee.next = place } else { pair.pointee.responder.gap.first = place }
        if next == nil { pair.pointee.responder.gap.last = place }
        pair.pointee.responder.gap.count = count + 1
        counters.heldRequests &+= 1
        if count == 0 {
            gaps.add(pair.pointee.links + QueuePairStorage.gaps)
            pair.pointee.responder.sequence = .waiting
            startGap(pair)
        }
        return count + 1 < Gap.reordering
    }

    private mutating func startGap(_ pair: Pair) {
        let isWaiting = pair.pointee.responder.sequence == .waiting
        pair.pointee.responder.gap.deadline = now &+ (isWaiting ? Gap.patience : Gap.life)
        gapDeadline = min(gapDeadline, pair.pointee.responder.gap.deadline)
    }

    /// A request ahead of the expected PSN arrived: keeps it, or queues the NAK, once for each gap (IBTA volume 1, 9.7.5.2;
    /// `sent_psn_nak` of the kernel's rxe).
    mutating func receiveEarly(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        counters.outOfSequence &+= 1
        if !hold(pair, packet, payload: payload) { reportGap(pair) }
    }

    /// Queues a NAK for a PSN sequence error, which makes the requester send again from the expected PSN on, unless one is
    /// queued.
    mutating func reportGap(_ pair: Pair) {
        guard pair.pointee.responder.sequence != .negativelyAcknowledged else { return }
        pair.pointee.responder.sequence = .negativelyAcknowledged
        counters.naksSent &+= 1
        answer(pair, pair.pointee.responder.expected, .nak(.psnSequenceError))
        if pair.pointee.responder.gap.count != 0 { startGap(pair) }
    }

    /// The expected request was executed or refused: executes those that are held and follow it. After a refusal for now the
    /// requester sends all of them again.
    mutating func continueHeld(_ pair: Pair) {
        while let held = pair.pointee.responder.gap.first, pair.pointee.isReceiving,
            pair.pointee.responder.sequence == .inSequence
        {
            let distance = pair.pointee.responder.expected.distance(to: held.pointee.psn)
            guard distance <= 0 else {
                // Another gap.
                pair.pointee.responder.sequence = .waiting
                return startGap(pair)
            }
            pair.pointee.responder.gap.first = held.pointee.next
            if held.pointee.next == nil { pair.pointee.responder.gap.last = nil }
            pair.pointee.responder.gap.count -= 1
            if pair.pointee.responder.gap.count == 0 { leaveGaps(pair) }
            // One that is behind has arrived a second time meanwhile, and was executed.
            if distance == 0 {
                executeRequest(
                    pair, held.pointee.packet, payload: UnsafeRawPointer(held) + HeldRequest.payloadOffset)
            }
            heldRequests.giveBack(held)
        }
        if pair.pointee.responder.sequence == .negativelyAcknowledged { dropHeld(pair) }
    }

    /// Drops all held requests of a queue pair.
    mutating func dropHeld(_ pair: Pair) {
        guard pair.pointee.responder.gap.count != 0 else { return }
        leaveGaps(pair)
        while let held = pair.pointee.responder.gap.first {
            pair.pointee.responder.gap.first = held.pointee.next
            heldRequests.giveBack(held)
        }
        pair.pointee.responder.gap = Gap()
    }

    private mutating func leaveGaps(_ pair: Pair) {
        gaps.remove(pair.pointee.links + QueuePairStorage.gaps)
        if gaps.first == nil { gapDeadline = .max }
    }

    /// Queues the NAKs whose time has come, and drops the requests that were held for too long.
    @inline(never)
    mutating func checkGaps() {
        gapDeadline = .max
        var next = gaps.first
        while let link = next {
            let pair = link.pointee.owner
            next = link.pointee.next
            if pair.pointee.responder.gap.deadline > now {
                gapDeadline = min(gapDeadline, pair.pointee.responder.gap.deadline)
            } else if pair.pointee.responder.sequence == .waiting {
                reportGap(pair)
            } else {
                dropHeld(pair)
            }
        }
    }
}
