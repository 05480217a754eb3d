import RoCEWire

/// The round-trip time of a connection, and the retransmission timeout that follows from it (RFC 6298). One packet at a
/// time is measured, and none that was sent again (Karn's algorithm). All times are in nanoseconds.
struct RoundTripTime {
    /// The smoothed round-trip time and its mean deviation; 0 before the first measurement.
    private(set) var smoothed: UInt64 = 0
    private(set) var deviation: UInt64 = 0
    /// The PSN after the packet that is being measured, and when that packet was sent; 0: none is measured.
    private var sampleEnd = PSN(0)
    private var sampleStart: UInt64 = 0
    /// How often the retransmission timeout was doubled since the last measurement.
    private var doublings: UInt8 = 0

    /// The shortest retransmission timeout. The peer can be off its processor for some milliseconds without a packet
    /// being lost; a much shorter timeout would send packets again for nothing.
    static let shortestTimeout: UInt64 = 2_000_000

    /// The retransmission timeout before the first measurement. RFC 6298 says 1 s, for a retransmission that restarts a
    /// stream; here it repeats two packets, and a longer round trip only makes that needless.
    static let initialTimeout: UInt64 = 10_000_000

    /// The retransmission timeout.
    @inline(__always)
    var timeout: UInt64 {
        let shortest = smoothed == 0 ? Self.initialTimeout : max(smoothed &+ 4 &* deviation, Self.shortestTimeout)
        return shortest << UInt64(doublings)
    }

    /// Doubles the retransmission timeout until the next measurement: while packets are sent again before they are
    /// acknowledged, a longer round-trip time cannot be measured (RFC 6298, section 5).
    mutating func backOff() { doublings = min(doublings + 1, 20) }

    /// Begins to measure a packet that requests an acknowledgement, if none is being measured. `end` is the PSN after
    /// it.
    @inline(__always)
    mutating func begin(_ end: PSN, at now: UInt64) {
        guard sampleStart == 0 else { return }
        sampleEnd = end
        sampleStart = max(now, 1)
    }

    /// All packets before `una` are acknowledged: ends the measurement if the packet is one of them.
    /// - Returns: Whether it ended a measurement.
    @inline(__always) @discardableResult
    mutating func end(_ una: PSN, at now: UInt64) -> Bool {
        guard sampleStart != 0, !una.precedes(sampleEnd) else { return false }
        take(now > sampleStart ? now &- sampleStart : 1)
        sampleStart = 0
        return true
    }

    /// Begins with the times of another connection to the same destination, until this one is measured.
    mutating func begin(like other: RoundTripTime) {
        guard smoothed == 0 else { return }
        smoothed = other.smoothed
        deviation = other.deviation
    }

    /// Packets are sent again: the acknowledgement of the measured packet would be ambiguous.
    mutating func discard() { sampleStart = 0 }

    private mutating func take(_ sample: UInt64) {
        doublings = 0
        guard smoothed != 0 else {
            smoothed = max(sample, 1)
            deviation = sample / 2
            return
        }
        let difference = smoothed > sample ? smoothed &- sample : sample &- smoothed
        deviation = deviation &- deviation / 4 &+ difference / 4
        smoothed = max(smoothed &- smoothed / 8 &+ sample / 8, 1)
    }
}
