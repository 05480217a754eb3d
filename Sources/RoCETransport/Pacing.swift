/// The pacing of a send queue (`ibv_qp_attr.rate_limit`, ibv_modify_qp_rate_limit(3)): after each packet, the next one
/// waits for the time that the packet takes at the rate limit. A pause saves up to `burst` of that time.
struct Pacing {
    /// The rate limit in kbit/s; 0: none.
    var rate: UInt32 = 0
    /// The longest saved time, in nanoseconds.
    var burst: UInt64 = 0
    /// The time from which the next packet may be sent.
    var free: UInt64 = 0
    /// Whether the queue pair is in the engine's list of paced ones, and the next one there.
    var isWaiting = false
    var next: UnsafeMutablePointer<QueuePairStorage>?

    /// The saved time without `max_burst_sz`: 1 ms, so that timers of some 100 us do not lower the rate.
    static var defaultBurst: UInt64 { 1_000_000 }

    init() {}

    /// A rate limit in kbit/s, with bursts of that many bytes; 0 for the default.
    init(rate: UInt32, burst byteCount: UInt32) {
        self.rate = rate
        burst = byteCount == 0 || rate == 0 ? Self.defaultBurst : Self.duration(of: UInt64(byteCount), rate)
    }

    /// The time of that many bytes at a rate in kbit/s, in nanoseconds.
    static func duration(of byteCount: UInt64, _ rate: UInt32) -> UInt64 { byteCount &* 8_000_000 / UInt64(rate) }
}

extension Engine {
    /// Limits the rate of the packets of a send queue (ibv_modify_qp_rate_limit(3)): of all packets that carry its work
    /// requests, with their headers from the BTH on, sent for the first time or again. Responses are not limited.
    /// - Parameters:
    ///   - rate: The rate in kbit/s, up to `Limits.maxRateLimit`; 0 for none (`rate_limit`).
    ///   - burst: The bytes that may be sent at once after a pause (`max_burst_sz`); 0 for those of 1 ms.
    /// - Throws: EINVAL for a higher rate, and before RTS.
    public borrowing func limitRate(of queuePair: QueuePair, to rate: UInt32, burst: UInt32 = 0) throws(Errno) {
        guard rate <= Limits.maxRateLimit, queuePair.storage.pointee.isSending else { throw .invalid }
        queuePair.storage.pointee.attributes.rateLimit = rate
        core.pointee.pace(queuePair.storage, Pacing(rate: rate, burst: burst))
    }
}

extension Core {
    /// Sets the pacing of a queue pair, and lets it send.
    mutating func pace(_ pair: Pair, _ pacing: Pacing) {
        stopWaiting(pair)
        pair.pointee.pacing = pacing
        if pair.pointee.isSending { requests.add(pair.pointee.links + QueuePairStorage.requests) }
    }

    /// Whether the rate limit allows a packet now. If not, the queue pair is added to the list of requests again when
    /// it does.
    @inline(never)
    mutating func mayPace(_ pair: Pair) -> Bool {
        guard pair.pointee.pacing.free > now else { return true }
        if !pair.pointee.pacing.isWaiting {
            pair.pointee.pacing.isWaiting = true
            pair.pointee.pacing.next = paced
            paced = pair
        }
        pacingDeadline = min(pacingDeadline, pair.pointee.pacing.free)
        return false
    }

    /// Counts a packet of a queue pair with a rate limit.
    @inline(never)
    mutating func countPaced(_ pair: Pair, byteCount: Int) {
        let pacing = pair.pointee.pacing
        let start = max(pacing.free, now > pacing.burst ? now - pacing.burst : 0)
        pair.pointee.pacing.free = start &+ Pacing.duration(of: UInt64(byteCount), pacing.rate)
    }

    /// Adds the queue pairs whose rate limit allows a packet to the list of requests.
    @inline(never)
    mutating func resumePaced() {
        var earliest = UInt64.max
        var next = paced
        while let pair = next {
            next = pair.pointee.pacing.next
            if pair.pointee.pacing.free > now {
                earliest = min(earliest, pair.pointee.pacing.free)
            } else {
                stopWaiting(pair)
                if pair.pointee.isSending { requests.add(pair.pointee.links + QueuePairStorage.requests) }
            }
        }
        pacingDeadline = earliest
    }

    /// Removes a queue pair from the list of paced ones.
    mutating func stopWaiting(_ pair: Pair) {
        guard pair.pointee.pacing.isWaiting else { return }
        pair.pointee.pacing.isWaiting = false
        if paced == pair {
            paced = pair.pointee.pacing.next
        } else {
            var before = paced
            while let link = before, link.pointee.pacing.next != pair { before = link.pointee.pacing.next }
            before?.pointee.pacing.next = pair.pointee.pacing.next
        }
        pair.pointee.pacing.next = nil
        if paced == nil { pacingDeadline = .max }
    }
}
