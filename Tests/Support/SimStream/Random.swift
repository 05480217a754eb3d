/// Random numbers from a seed, the same on every machine: SplitMix64.
struct Random: RandomNumberGenerator {
    private var state: UInt64

    /// A separate sequence for each kind of device, so that one of them can be replayed alone.
    init(seed: UInt64, name: String) {
        // FNV-1a
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        state = seed &* 0x9E37_79B9_7F4A_7C15 ^ hash
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    /// A number from 0 to `bound` - 1.
    mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }

    /// True with a probability of `percent` percent.
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }

    mutating func pick<Value>(_ choices: [Value]) -> Value { choices[below(choices.count)] }

    mutating func any<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) -> Value {
        Value(truncatingIfNeeded: next() >> 8) ^ Value(truncatingIfNeeded: next())
    }
}
