import CCRC32
import TestSupport
import Testing

@Suite("CRC-32")
struct CRC32Tests {
    /// CRC-32 by its definition, one bit at a time.
    static func bitwise(_ register: UInt32, _ bytes: some Sequence<UInt8>) -> UInt32 {
        var register = register
        for byte in bytes {
            register ^= UInt32(byte)
            for _ in 0..<8 { register = register & 1 != 0 ? register >> 1 ^ 0xEDB8_8320 : register >> 1 }
        }
        return register
    }

    static func fast(_ register: UInt32, _ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.withUnsafeBytes { ccrc32_update(register, $0.baseAddress, $0.count) }
    }

    static func portable(_ register: UInt32, _ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.withUnsafeBytes { ccrc32_update_portable(register, $0.baseAddress, $0.count) }
    }

    @Test("CRC-32 of known inputs, including the check value of the CRC catalogues")
    func knownValues() {
        let vectors: [(String, UInt32)] = [
            ("", 0), ("a", 0xE8B7_BE43), ("abc", 0x3524_41C2), ("123456789", 0xCBF4_3926),
            ("The quick brown fox jumps over the lazy dog", 0x414F_A339),
        ]
        for (text, crc) in vectors {
            #expect(~Self.fast(.max, ArraySlice(text.utf8)) == crc)
            #expect(~Self.portable(.max, ArraySlice(text.utf8)) == crc)
            #expect(~Self.bitwise(.max, text.utf8) == crc)
        }
        #expect(Self.fast(.max, [UInt8](repeating: 0xFF, count: 8)[...]) == 0xDEBB_20E3)
    }

    @Test("All implementations agree for every length up to 1100 and every alignment, from any initial register")
    func agreement() {
        var random = SplitMix(seed: 32)
        let bytes = random.bytes(4300)
        for count in Array(0...1100) + [4095, 4096, 4139] {
            let start = count % 17
            let slice = bytes[start..<start + count]
            let register: UInt32 = random.any()
            let expected = Self.bitwise(register, slice)
            #expect(Self.fast(register, slice) == expected, "\(Self.acceleration), \(count) bytes")
            #expect(Self.portable(register, slice) == expected, "portable, \(count) bytes")
        }
    }

    @Test("Multiplication modulo the polynomial agrees with its definition, and by x^8 equals one byte of zeros")
    func multiplication() {
        /// x * value, in the reflected order.
        func timesX(_ value: UInt32) -> UInt32 { value & 1 != 0 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
        func multiply(_ a: UInt32, _ b: UInt32) -> UInt32 {
            var power = b
            var sum: UInt32 = 0
            for bit in (0..<32).reversed() {
                if a >> bit & 1 != 0 { sum ^= power }
                power = timesX(power)
            }
            return sum
        }
        var random = SplitMix(seed: 2)
        for _ in 0..<1000 {
            let a: UInt32 = random.any()
            let b: UInt32 = random.any()
            #expect(ccrc32_multiply(a, b) == multiply(a, b))
            #expect(ccrc32_multiply_portable(a, b) == multiply(a, b))
            // x^8 is one byte of zeros.
            #expect(ccrc32_multiply(a, 1 << 23) == Self.bitwise(a, [0]))
        }
    }

    static var acceleration: String { String(cString: ccrc32_acceleration()) }
}
