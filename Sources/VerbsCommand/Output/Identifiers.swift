/// Formats of identifiers.
enum Identifiers {
    /// `0002:c903:00ab:cdef`.
    static func guid(_ value: UInt64) -> String {
        (0..<4).map { group in
            let digits = String(value >> UInt64(48 - 16 * group) & 0xFFFF, radix: 16)
            return String(repeating: "0", count: 4 - digits.count) + digits
        }.joined(separator: ":")
    }

    /// `0x2c9`.
    static func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
}
