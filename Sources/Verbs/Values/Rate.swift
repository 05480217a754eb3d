/// A static rate of an address: how fast packets may follow each other (enum ibv_rate).
@frozen public struct Rate: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt8
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// No limit.
    @inlinable public static var max: Self { Self(rawValue: 0) }
    /// 2.5 Gbit/s.
    @inlinable public static var gbps2_5: Self { Self(rawValue: 2) }
    /// 5 Gbit/s.
    @inlinable public static var gbps5: Self { Self(rawValue: 5) }
    /// 10 Gbit/s.
    @inlinable public static var gbps10: Self { Self(rawValue: 3) }
    /// 20 Gbit/s.
    @inlinable public static var gbps20: Self { Self(rawValue: 6) }
    /// 30 Gbit/s.
    @inlinable public static var gbps30: Self { Self(rawValue: 4) }
    /// 40 Gbit/s.
    @inlinable public static var gbps40: Self { Self(rawValue: 7) }
    /// 60 Gbit/s.
    @inlinable public static var gbps60: Self { Self(rawValue: 8) }
    /// 80 Gbit/s.
    @inlinable public static var gbps80: Self { Self(rawValue: 9) }
    /// 120 Gbit/s.
    @inlinable public static var gbps120: Self { Self(rawValue: 10) }
    /// 14 Gbit/s.
    @inlinable public static var gbps14: Self { Self(rawValue: 11) }
    /// 56 Gbit/s.
    @inlinable public static var gbps56: Self { Self(rawValue: 12) }
    /// 112 Gbit/s.
    @inlinable public static var gbps112: Self { Self(rawValue: 13) }
    /// 168 Gbit/s.
    @inlinable public static var gbps168: Self { Self(rawValue: 14) }
    /// 25 Gbit/s.
    @inlinable public static var gbps25: Self { Self(rawValue: 15) }
    /// 100 Gbit/s.
    @inlinable public static var gbps100: Self { Self(rawValue: 16) }
    /// 200 Gbit/s.
    @inlinable public static var gbps200: Self { Self(rawValue: 17) }
    /// 300 Gbit/s.
    @inlinable public static var gbps300: Self { Self(rawValue: 18) }
    /// 28 Gbit/s.
    @inlinable public static var gbps28: Self { Self(rawValue: 19) }
    /// 50 Gbit/s.
    @inlinable public static var gbps50: Self { Self(rawValue: 20) }
    /// 400 Gbit/s.
    @inlinable public static var gbps400: Self { Self(rawValue: 21) }
    /// 600 Gbit/s.
    @inlinable public static var gbps600: Self { Self(rawValue: 22) }
    /// 800 Gbit/s.
    @inlinable public static var gbps800: Self { Self(rawValue: 23) }
    /// 1200 Gbit/s.
    @inlinable public static var gbps1200: Self { Self(rawValue: 24) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "MAX"
        case 2: "2.5 Gbit/s"
        case 5: "5 Gbit/s"
        case 3: "10 Gbit/s"
        case 6: "20 Gbit/s"
        case 4: "30 Gbit/s"
        case 7: "40 Gbit/s"
        case 8: "60 Gbit/s"
        case 9: "80 Gbit/s"
        case 10: "120 Gbit/s"
        case 11: "14 Gbit/s"
        case 12: "56 Gbit/s"
        case 13: "112 Gbit/s"
        case 14: "168 Gbit/s"
        case 15: "25 Gbit/s"
        case 16: "100 Gbit/s"
        case 17: "200 Gbit/s"
        case 18: "300 Gbit/s"
        case 19: "28 Gbit/s"
        case 20: "50 Gbit/s"
        case 21: "400 Gbit/s"
        case 22: "600 Gbit/s"
        case 23: "800 Gbit/s"
        case 24: "1200 Gbit/s"
        default: nil
        }
    }
}
