import CIBVerbs
import CProviderABI

/// Flags of a send work request (enum ibv_send_flags).
/// Inline data has calls of its own, which take the bytes instead of an SGE.
@frozen public struct SendFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The bits in verbs.h; unknown ones are kept.
    public let rawValue: UInt32
    /// The set with those bits.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The request starts only when all earlier reads and atomics of this queue pair are complete (`IBV_SEND_FENCE`).
    @inlinable public static var fence: Self { Self(rawValue: IBV_SEND_FENCE.rawValue) }
    /// The request produces a completion (`IBV_SEND_SIGNALED`). Without the flag only a failure produces one, and the
    /// WQE becomes free when a later signaled request completes.
    @inlinable public static var signaled: Self { Self(rawValue: IBV_SEND_SIGNALED.rawValue) }
    /// The completion at the peer is solicited: it raises the event of a completion queue that is armed for solicited
    /// completions only (`IBV_SEND_SOLICITED`).
    @inlinable public static var solicited: Self { Self(rawValue: IBV_SEND_SOLICITED.rawValue) }
    /// The device computes the IP, TCP and UDP checksums (`IBV_SEND_IP_CSUM`).
    @inlinable public static var ipChecksum: Self { Self(rawValue: IBV_SEND_IP_CSUM.rawValue) }

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
