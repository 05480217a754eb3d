/// A number with a name, as verbs.h and the kernel define many of them.
///
/// The set of values is open: a newer device or kernel may return a number that this package has no name
/// for. Such a value is carried unchanged; it compares, hashes and prints like every other.
public protocol OpenEnumeration: RawRepresentable, Hashable, Sendable, CustomStringConvertible
where RawValue: FixedWidthInteger & Sendable {
    /// The value's name in the specification's terms, or nil if this package does not know it.
    var name: String? { get }
    /// Makes the value that stands for that number; every number is accepted.
    init(rawValue: RawValue)
}

extension OpenEnumeration {
    /// The name, or `unknown (N)`.
    public var description: String { name ?? "unknown (\(rawValue))" }
}

/// Prints the names of the bits that are set, and the remaining bits as a hexadecimal number.
func describeBits(_ bits: some FixedWidthInteger, _ names: [(Int, String)]) -> String {
    var rest = UInt64(truncatingIfNeeded: bits)
    var parts: [String] = []
    for (bit, name) in names where rest & (1 << UInt64(bit)) != 0 {
        parts.append(name)
        rest &= ~(1 << UInt64(bit))
    }
    if rest != 0 { parts.append("0x" + String(rest, radix: 16)) }
    return "[" + parts.joined(separator: ", ") + "]"
}
