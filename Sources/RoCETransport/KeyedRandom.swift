/// Random numbers for L_Keys, R_Keys and QPNs from a given seed: SipHash-2-4 over a counter, so that numbers that a
/// peer has seen do not reveal later ones, as those of a plain generator do (the engine's own).
struct KeyedRandom {
    private let key0: UInt64
    private let key1: UInt64
    private var counter: UInt64 = 0

    init(seed: (UInt64, UInt64)) {
        key0 = seed.0
        key1 = seed.1
    }

    mutating func next() -> UInt64 {
        counter &+= 1
        var v0 = key0 ^ 0x736f_6d65_7073_6575
        var v1 = key1 ^ 0x646f_7261_6e64_6f6d
        var v2 = key0 ^ 0x6c79_6765_6e65_7261
        var v3 = key1 ^ 0x7465_6462_7974_6573
        func rotate(_ x: UInt64, _ n: UInt64) -> UInt64 { x << n | x >> (64 &- n) }
        func round() {
            v0 = v0 &+ v1
            v1 = rotate(v1, 13) ^ v0
            v0 = rotate(v0, 32)
            v2 = v2 &+ v3
            v3 = rotate(v3, 16) ^ v2
            v0 = v0 &+ v3
            v3 = rotate(v3, 21) ^ v0
            v2 = v2 &+ v1
            v1 = rotate(v1, 17) ^ v2
            v2 = rotate(v2, 32)
        }
        // One block with the counter, one with the length byte of an 8-byte message.
        absorb(counter)
        absorb(8 << 56)
        v2 ^= 0xff
        round()
        round()
        round()
        round()
        return v0 ^ v1 ^ v2 ^ v3

        func absorb(_ block: UInt64) {
            v3 ^= block
            round()
            round()
            v0 ^= block
        }
    }

    /// A number below `bound`, which is not 0. The remainder is biased, which does not matter for QPNs.
    mutating func next(below bound: UInt32) -> UInt32 { UInt32(truncatingIfNeeded: next() >> 16) % bound }
}
