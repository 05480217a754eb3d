import Synchronization

/// SplitMix64: random numbers from a seed, the same on every machine.
public struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    /// A number from 0 to `bound` - 1.
    public mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }

    public mutating func within(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.count) }

    /// True with a probability of `percent` percent.
    public mutating func chance(_ percent: Int) -> Bool { percent > 0 && below(100) < percent }

    public mutating func pick<T>(_ choices: [T]) -> T { choices[below(choices.count)] }

    public mutating func any<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) -> T {
        T(truncatingIfNeeded: next())
    }

    public mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in any() } }

    public mutating func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        var offset = 0
        while offset < bytes.count {
            withUnsafeBytes(of: next()) { word in
                let part = min(8, bytes.count - offset)
                (bytes.baseAddress! + offset).copyMemory(from: word.baseAddress!, byteCount: part)
            }
            offset += 8
        }
    }
}

extension SplitMix {
    /// A function that returns the numbers of a generator with that seed, one after the other, on any thread.
    public static func numbers(seed: UInt64) -> @Sendable () -> UInt64 {
        let count = Atomic<UInt64>(seed)
        return {
            // The state of the generator after `next` is that before it plus this constant.
            var generator = SplitMix(seed: count.wrappingAdd(0x9E37_79B9_7F4A_7C15, ordering: .relaxed).oldValue)
            return generator.next()
        }
    }
}
