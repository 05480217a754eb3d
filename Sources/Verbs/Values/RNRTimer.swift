/// The timer of an RNR NAK: the time that the requester waits before it sends again (IBTA volume 1, table 45;
/// `ibv_qp_attr.min_rnr_timer`).
///
/// The value is a code from 0 to 31. The codes do not rise with the time: code 0 is the longest, 655.36 ms.
@frozen public struct RNRTimer: RawRepresentable, Hashable, Sendable {
    /// The code: 5 bits.
    public let rawValue: UInt8

    /// The timer with that code, from 0 to 31. A device refuses other values with `EINVAL`.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The shortest timer that is at least `duration`. Longer durations than 655.36 ms have code 0.
    public init(atLeast duration: Duration) {
        rawValue = (1...31).first { RNRTimer(rawValue: $0).duration >= duration } ?? 0
    }

    /// The time.
    public var duration: Duration { .microseconds(10 * RNRTimer.tensOfMicroseconds[Int(rawValue & 31)]) }

    private static let tensOfMicroseconds: [Int64] = [
        65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
        6144, 8192, 12288, 16384, 24576, 32768, 49152,
    ]
}

extension RNRTimer: CustomStringConvertible {
    /// The code and the time, such as `12 (0.00064 seconds)`.
    public var description: String { "\(rawValue) (\(duration))" }
}
