import Glibc

/// A generator of random numbers with a seed (SplitMix64).
struct Random: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    /// True once in `n` times.
    mutating func once(in n: Int) -> Bool { Int.random(in: 0..<n, using: &self) == 0 }

    static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// The bytes of each message follow from its number: a part of a table of random bytes, so that both peers know them,
/// and fill and compare them with memcpy and memcmp.
enum Pattern {
    /// The largest message.
    static let maximum = 1 << 20
    private nonisolated(unsafe) static let table: UnsafeMutableRawPointer = {
        let table = UnsafeMutableRawPointer.allocate(byteCount: 2 * maximum, alignment: 8)
        var random = Random(seed: 0x5EED)
        for offset in stride(from: 0, to: 2 * maximum, by: 8) {
            table.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
        }
        return table
    }()

    private static func start(_ number: UInt64) -> UnsafeRawPointer {
        UnsafeRawPointer(table + Int(Random.mix(number) & UInt64(maximum - 1)))
    }

    /// Writes the pattern of that number, from byte `from` of it on.
    static func fill(_ memory: UnsafeMutableRawPointer, _ count: Int, number: UInt64, from: Int = 0) {
        precondition(from + count <= maximum, "the pattern has 1 MiB")
        memory.copyMemory(from: start(number) + from, byteCount: count)
    }

    /// The offset of the first byte that differs from the pattern; nil when none does.
    static func difference(
        _ memory: UnsafeRawPointer, _ count: Int, number: UInt64, from: Int = 0
    ) -> Int? {
        let expected = start(number) + from
        if memcmp(memory, expected, count) == 0 { return nil }
        return (0..<count).first {
            memory.load(fromByteOffset: $0, as: UInt8.self) != expected.load(fromByteOffset: $0, as: UInt8.self)
        }
    }

    /// The size of a message: all powers of two are equally likely. `large`: at least 64 KiB.
    static func size(_ number: UInt64, large: Bool) -> Int {
        let hash = Random.mix(number ^ 0x517E)
        let exponent = large ? 16 + hash % 5 : hash % 21
        return min(maximum, (1 << Int(exponent)) + Int((hash >> 32) % (1 << exponent)))
    }
}
