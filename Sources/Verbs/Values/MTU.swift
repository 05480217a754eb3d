/// A path MTU: the largest payload of one packet (IBTA volume 1, 9.7.1; enum ibv_mtu).
@frozen public struct MTU: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// 256 bytes (`IBV_MTU_256`).
    @inlinable public static var bytes256: Self { Self(rawValue: 1) }
    /// 512 bytes (`IBV_MTU_512`).
    @inlinable public static var bytes512: Self { Self(rawValue: 2) }
    /// 1024 bytes (`IBV_MTU_1024`).
    @inlinable public static var bytes1024: Self { Self(rawValue: 3) }
    /// 2048 bytes (`IBV_MTU_2048`).
    @inlinable public static var bytes2048: Self { Self(rawValue: 4) }
    /// 4096 bytes (`IBV_MTU_4096`).
    @inlinable public static var bytes4096: Self { Self(rawValue: 5) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 1: "256"
        case 2: "512"
        case 3: "1024"
        case 4: "2048"
        case 5: "4096"
        default: nil
        }
    }

    /// The payload in bytes, or 0 for an unknown number.
    public var byteCount: Int { (1...5).contains(rawValue) ? 128 << Int(rawValue) : 0 }

    /// The MTU with that payload: 256, 512, 1024, 2048 or 4096 bytes; nil for another number.
    public init?(byteCount: Int) {
        guard let rawValue = (1...5).first(where: { 128 << $0 == byteCount }) else { return nil }
        self.init(rawValue: UInt32(rawValue))
    }
}
