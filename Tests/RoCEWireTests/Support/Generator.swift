/// SplitMix64: a sequence that a seed fixes, on every machine.
struct Generator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    mutating func any<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) -> T {
        T(truncatingIfNeeded: next())
    }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in any() } }
}

/// "45 28 00" or "452800" as bytes.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
