import CIBVerbs

/// A static rate: the limit of the data rate to a destination (`ibv_ah_attr.static_rate`, enum ibv_rate).
@frozen public struct Rate: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt8
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// No limit (`IBV_RATE_MAX`).
    @inlinable public static var max: Self { Self(rawValue: UInt8(IBV_RATE_MAX.rawValue)) }
    /// 2.5 Gbit/s (`IBV_RATE_2_5_GBPS`).
    @inlinable public static var gbps2_5: Self { Self(rawValue: UInt8(IBV_RATE_2_5_GBPS.rawValue)) }
    /// 5 Gbit/s (`IBV_RATE_5_GBPS`).
    @inlinable public static var gbps5: Self { Self(rawValue: UInt8(IBV_RATE_5_GBPS.rawValue)) }
    /// 10 Gbit/s (`IBV_RATE_10_GBPS`).
    @inlinable public static var gbps10: Self { Self(rawValue: UInt8(IBV_RATE_10_GBPS.rawValue)) }
    /// 20 Gbit/s (`IBV_RATE_20_GBPS`).
    @inlinable public static var gbps20: Self { Self(rawValue: UInt8(IBV_RATE_20_GBPS.rawValue)) }
    /// 30 Gbit/s (`IBV_RATE_30_GBPS`).
    @inlinable public static var gbps30: Self { Self(rawValue: UInt8(IBV_RATE_30_GBPS.rawValue)) }
    /// 40 Gbit/s (`IBV_RATE_40_GBPS`).
    @inlinable public static var gbps40: Self { Self(rawValue: UInt8(IBV_RATE_40_GBPS.rawValue)) }
    /// 60 Gbit/s (`IBV_RATE_60_GBPS`).
    @inlinable public static var gbps60: Self { Self(rawValue: UInt8(IBV_RATE_60_GBPS.rawValue)) }
    /// 80 Gbit/s (`IBV_RATE_80_GBPS`).
    @inlinable public static var gbps80: Self { Self(rawValue: UInt8(IBV_RATE_80_GBPS.rawValue)) }
    /// 120 Gbit/s (`IBV_RATE_120_GBPS`).
    @inlinable public static var gbps120: Self { Self(rawValue: UInt8(IBV_RATE_120_GBPS.rawValue)) }
    /// 14 Gbit/s (`IBV_RATE_14_GBPS`).
    @inlinable public static var gbps14: Self { Self(rawValue: UInt8(IBV_RATE_14_GBPS.rawValue)) }
    /// 56 Gbit/s (`IBV_RATE_56_GBPS`).
    @inlinable public static var gbps56: Self { Self(rawValue: UInt8(IBV_RATE_56_GBPS.rawValue)) }
    /// 112 Gbit/s (`IBV_RATE_112_GBPS`).
    @inlinable public static var gbps112: Self { Self(rawValue: UInt8(IBV_RATE_112_GBPS.rawValue)) }
    /// 168 Gbit/s (`IBV_RATE_168_GBPS`).
    @inlinable public static var gbps168: Self { Self(rawValue: UInt8(IBV_RATE_168_GBPS.rawValue)) }
    /// 25 Gbit/s (`IBV_RATE_25_GBPS`).
    @inlinable public static var gbps25: Self { Self(rawValue: UInt8(IBV_RATE_25_GBPS.rawValue)) }
    /// 100 Gbit/s (`IBV_RATE_100_GBPS`).
    @inlinable public static var gbps100: Self { Self(rawValue: UInt8(IBV_RATE_100_GBPS.rawValue)) }
    /// 200 Gbit/s (`IBV_RATE_200_GBPS`).
    @inlinable public static var gbps200: Self { Self(rawValue: UInt8(IBV_RATE_200_GBPS.rawValue)) }
    /// 300 Gbit/s (`IBV_RATE_300_GBPS`).
    @inlinable public static var gbps300: Self { Self(rawValue: UInt8(IBV_RATE_300_GBPS.rawValue)) }
    /// 28 Gbit/s (`IBV_RATE_28_GBPS`).
    @inlinable public static var gbps28: Self { Self(rawValue: UInt8(IBV_RATE_28_GBPS.rawValue)) }
    /// 50 Gbit/s (`IBV_RATE_50_GBPS`).
    @inlinable public static var gbps50: Self { Self(rawValue: UInt8(IBV_RATE_50_GBPS.rawValue)) }
    /// 400 Gbit/s (`IBV_RATE_400_GBPS`).
    @inlinable public static var gbps400: Self { Self(rawValue: UInt8(IBV_RATE_400_GBPS.rawValue)) }
    /// 600 Gbit/s (`IBV_RATE_600_GBPS`).
    @inlinable public static var gbps600: Self { Self(rawValue: UInt8(IBV_RATE_600_GBPS.rawValue)) }
    /// 800 Gbit/s (`IBV_RATE_800_GBPS`).
    @inlinable public static var gbps800: Self { Self(rawValue: UInt8(IBV_RATE_800_GBPS.rawValue)) }
    /// 1200 Gbit/s (`IBV_RATE_1200_GBPS`).
    @inlinable public static var gbps1200: Self { Self(rawValue: UInt8(IBV_RATE_1200_GBPS.rawValue)) }

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
