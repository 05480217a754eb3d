/// How a send work request is to be treated (enum ibv_send_flags).
/// Inline data has calls of its own, which take the bytes instead of a slice.
@frozen public struct SendFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The bits in verbs.h; unknown ones are kept.
    public let rawValue: UInt32
    /// The set with those bits.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Start only when all earlier reads and atomics of this queue pair are done.
    @inlinable public static var fence: Self { Self(rawValue: 1 << 0) }
    /// Report its completion. Without it only a failure is reported, and its place in the queue becomes free when a
    /// later signaled one completes.
    @inlinable public static var signaled: Self { Self(rawValue: 1 << 1) }
    /// Raise the peer's solicited completion event.
    @inlinable public static var solicited: Self { Self(rawValue: 1 << 2) }
    /// The device computes the IP, TCP and UDP checksums.
    @inlinable public static var ipChecksum: Self { Self(rawValue: 1 << 4) }

    /// The names of the bits that are set.
    public var description: String {
        describeBits(
            rawValue,
            [
                (0, "FENCE"),
                (1, "SIGNALED"),
                (2, "SOLICITED"),
                (4, "IP_CSUM"),
            ])
    }
}
