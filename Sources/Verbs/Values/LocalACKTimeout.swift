/// The time that a requester waits for a response before it retries: the Local ACK Timeout (IBTA volume 1, 9.7.6.1.3;
/// `ibv_qp_attr.timeout`, `alt_timeout`).
///
/// The value is an exponent from 1 to 31: the timeout is 4.096 µs times 2 to that power. 0 waits without limit. Devices
/// may wait up to four times as long.
@frozen public struct LocalACKTimeout: RawRepresentable, Hashable, Sendable {
    /// The exponent: 5 bits.
    public let rawValue: UInt8

    /// The timeout with that exponent, from 0 to 31. A device refuses other values with `EINVAL`.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The shortest timeout that is at least `duration`. Longer durations than 2 h 26 min have exponent 31.
    public init(atLeast duration: Duration) {
        rawValue = (1...31).first { LocalACKTimeout.duration(exponent: $0) >= duration } ?? 31
    }

    /// No timeout: a lost response is never detected (exponent 0).
    @inlinable public static var infinite: LocalACKTimeout { LocalACKTimeout(rawValue: 0) }

    /// The timeout; nil for `infinite`.
    public var duration: Duration? {
        rawValue == 0 ? nil : LocalACKTimeout.duration(exponent: rawValue & 31)
    }

    private static func duration(exponent: UInt8) -> Duration { .nanoseconds(4096 << Int64(exponent)) }
}

extension LocalACKTimeout: CustomStringConvertible {
    /// The exponent and the time, such as `14 (0.067108864 seconds)`.
    public var description: String { "\(rawValue) (\(duration.map { "\($0)" } ?? "infinite"))" }
}
