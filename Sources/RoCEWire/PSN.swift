/// A packet sequence number: 24 bits, compared and counted modulo 2^24 (IBTA volume 1, 9.7.1).
///
/// There is no `<`: an order of serial numbers is not transitive. Ask for the signed distance instead.
@frozen
public struct PSN: RawRepresentable, Hashable, Sendable {
    /// The number, 0 to 0xFF_FFFF.
    public let rawValue: UInt32

    /// The low 24 bits of `rawValue`; the others are dropped.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = low24(rawValue) }

    /// The low 24 bits of `value`; the others are dropped.
    @inlinable
    public init(_ value: UInt32) { self.init(rawValue: value) }

    /// The number that follows this one; 0 follows 0xFF_FFFF.
    @inlinable
    public var next: PSN { self &+ 1 }

    /// The number `count` places further on, modulo 2^24.
    @inlinable
    public static func &+ (psn: PSN, count: UInt32) -> PSN { PSN(psn.rawValue &+ count) }

    /// The number `count` places before, modulo 2^24.
    @inlinable
    public static func &- (psn: PSN, count: UInt32) -> PSN { PSN(psn.rawValue &- count) }

    /// How many places `other` lies ahead of this number: -2^23 to 2^23 - 1, negative when it lies behind.
    /// Exactly half way around counts as behind.
    @inlinable
    public func distance(to other: PSN) -> Int32 {
        Int32(bitPattern: (other.rawValue &- rawValue) << 8) >> 8
    }

    /// True when this number lies behind `other`, that is, at most 2^23 - 1 places before it.
    @inlinable
    public func precedes(_ other: PSN) -> Bool { distance(to: other) > 0 }
}
