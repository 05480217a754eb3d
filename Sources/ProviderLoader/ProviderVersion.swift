/// The version of a provider: dotted numbers and an optional suffix, such as `5.8`, `24.10-2.1` or `1.0~rc1`.
///
/// The order is total:
/// 1. The numbers are compared from left to right; where one version has no further number, it is the lower one
///    (`1.2` < `1.2.0` < `1.10`).
/// 2. With equal numbers, a suffix that begins with `~`, or with `-` and a letter, is a preview and goes before no
///    suffix at all; any other goes after it (`1.0~rc1` < `1.0-beta` < `1.0` < `1.0+git5` < `1.0-1`).
/// 3. Two suffixes of the same side are compared piece by piece: runs of digits by their value, everything else
///    byte by byte, with `~` before all other bytes and before the end (`-rc9` < `-rc10`).
public struct ProviderVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The dotted numbers, at least one.
    public let numbers: [UInt64]
    /// The suffix with its `~`, `-` or `+`; empty where there is none.
    public let suffix: String

    /// Largest length of a version, in bytes.
    static let maximumLength = 128
    /// Largest number of digits of a number, so that it fits UInt64.
    static let maximumDigits = 18

    /// Parses a version; nil where `text` is not one.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count <= ProviderVersion.maximumLength else { return nil }
        let end = bytes.firstIndex { !($0.isDigit || $0 == UInt8(ascii: ".")) } ?? bytes.count
        var numbers: [UInt64] = []
        for digits in bytes[..<end].split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard (1...ProviderVersion.maximumDigits).contains(digits.count) else { return nil }
            numbers.append(digits.reduce(0) { $0 * 10 + UInt64($1 - UInt8(ascii: "0")) })
        }
        let rest = bytes[end...]
        if let first = rest.first {
            guard "~-+".utf8.contains(first), rest.count > 1, rest.allSatisfy(\.isVersionByte) else { return nil }
        }
        self.numbers = numbers
        suffix = String(decoding: rest, as: UTF8.self)
    }

    /// Whether `left` is the lower version.
    public static func < (left: ProviderVersion, right: ProviderVersion) -> Bool {
        if left.numbers != right.numbers {
            return left.numbers.lexicographicallyPrecedes(right.numbers)
        }
        if left.side != right.side {
            return left.side < right.side
        }
        return naturallyPrecedes(left.suffix, right.suffix)
    }

    /// The text of the version, without leading zeros.
    public var description: String {
        numbers.map(String.init).joined(separator: ".") + suffix
    }

    /// Whether the suffix puts the version before (-1), at (0) or after (1) its numbers alone.
    private var side: Int {
        var bytes = suffix.utf8.makeIterator()
        guard let first = bytes.next() else { return 0 }
        if first == UInt8(ascii: "~") { return -1 }
        return first == UInt8(ascii: "-") && bytes.next()?.isLetter == true ? -1 : 1
    }
}

/// A total order of strings that compares runs of digits by their values: `mlx5_2` precedes `mlx5_10`. `~` precedes all
/// other bytes, and the end.
func naturallyPrecedes(_ left: String, _ right: String) -> Bool {
    var one = Array(left.utf8)[...]
    var other = Array(right.utf8)[...]
    while let a = one.first, let b = other.first {
        if a.isDigit, b.isDigit {
            let x = one.takeNumber()
            let y = other.takeNumber()
            if x.count != y.count { return x.count < y.count }
            if x != y { return x.lexicographicallyPrecedes(y) }
        } else {
            if a != b { return weight(a) < weight(b) }
            one.removeFirst()
            other.removeFirst()
        }
    }
    if one.first != other.first {
        return weight(one.first) < weight(other.first)
    }
    // Equal but for leading zeros.
    return left.utf8.lexicographicallyPrecedes(right.utf8)
}

/// The rank of a byte, or of the end, in the order.
private func weight(_ byte: UInt8?) -> Int {
    switch byte {
    case UInt8(ascii: "~"): -1
    case nil: 0
    case let byte?: Int(byte) + 1
    }
}

extension ArraySlice<UInt8> {
    /// Removes the run of digits at the front, and returns it without leading zeros.
    fileprivate mutating func takeNumber() -> ArraySlice<UInt8> {
        let digits = prefix(while: \.isDigit)
        removeFirst(digits.count)
        return digits.drop { $0 == UInt8(ascii: "0") }
    }
}

extension UInt8 {
    /// 0 to 9.
    var isDigit: Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) }

    /// a to z, A to Z.
    var isLetter: Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self | 0x20)
    }

    fileprivate var isVersionByte: Bool { isDigit || isLetter || ".+~_-".utf8.contains(self) }
}
