/// A packet sequence number: 24 bits, compared and counted modulo 2^24 (IBTA volume 1, 9.7.1).
///
/// There is no `<`: an order of serial numbers is not transitive. Use the signed distance instead.
@frozen
public struct PSN: RawRepresentable, Hashable, Sendable {
    /// The value of BTH.PSN, 0 to 0xFF_FFFF (`BTH_PSN_MASK` of the kernel's rxe).
    public let rawValue: UInt32

    /// Creates a PSN from the low 24 bits of `rawValue`, as BTH.PSN holds them.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = low24(rawValue) }

    /// Creates a PSN from the low 24 bits of `value`, such as `ibv_qp_attr.sq_psn` or `rq_psn`.
    @inlinable
    public init(_ value: UInt32) { self.init(rawValue: value) }

    /// 2^23: PSNs less than this far apart compare unambiguously (IBTA volume 1, 9.7.1). An entry that is kept under
    /// its PSN for longer is found again one lap later, when the PSN belongs to another packet.
    @inlinable
    public static var halfRing: UInt32 { 1 << 23 }

    /// The PSN of the next packet (IBTA volume 1, 9.7.1); 0 follows 0xFF_FFFF.
    @inlinable
    public var next: PSN { self &+ 1 }

    /// The PSN `count` packets ahead, modulo 2^24 (IBTA volume 1, 9.7.1).
    @inlinable
    public static func &+ (psn: PSN, count: UInt32) -> PSN { PSN(psn.rawValue &+ count) }

    /// The PSN `count` packets behind, modulo 2^24 (IBTA volume 1, 9.7.1).
    @inlinable
    public static func &- (psn: PSN, count: UInt32) -> PSN { PSN(psn.rawValue &- count) }

    /// The signed distance from this PSN to `other`: -2^23 to 2^23 - 1, negative when `other` is behind (`psn_compare`
    /// of the kernel's rxe, shifted right by 8). A PSN that is 2^23 away is behind.
    @inlinable
    public func distance(to other: PSN) -> Int32 {
        Int32(bitPattern: (other.rawValue &- rawValue) << 8) >> 8
    }

    /// True when this PSN is before `other`, by at most 2^23 - 1 packets (IBTA volume 1, 9.7.1).
    @inlinable
    public func precedes(_ other: PSN) -> Bool { distance(to: other) > 0 }
}
