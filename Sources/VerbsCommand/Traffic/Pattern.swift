/// The contents of messages that are verified. Every byte is a function of the number of the message, its direction and
/// the byte's offset.
///
///     first 8 bytes   the number, little-endian (only in messages of 16 bytes or more)
///     last byte       the low byte of the number, plus one
///     other bytes     pseudo-random
///
/// The last byte changes with every message and is not 0 in the first one, so that a receiver which polls its memory
/// detects the end of a message. The number identifies the message when messages can be lost.
enum Pattern {
    enum Direction: UInt64, Codable {
        case request = 0x9E37_79B9_7F4A_7C15
        case reply = 0xC2B2_AE3D_27D4_EB4F
    }

    private static let stampedSize = 16

    /// The last byte of message `number`.
    static func mark(_ number: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: number &+ 1) }

    /// The number of a message: the one that it contains, or the first number from `expected` on with the same mark.
    ///
    /// - Parameter filled: Whether the message was filled by `fill`; otherwise it contains only the mark.
    static func number(of bytes: UnsafeRawBufferPointer, expected: UInt64, filled: Bool) -> UInt64 {
        guard let last = bytes.last else { return expected }
        if filled, bytes.count >= stampedSize {
            let number = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
            if mark(number) == last { return number }
        }
        return expected &+ UInt64(last &- mark(expected))
    }

    /// Writes message `number`. Does not allocate.
    static func fill(_ bytes: UnsafeMutableRawBufferPointer, number: UInt64, direction: Direction) {
        guard !bytes.isEmpty else { return }
        let words = Words(number: number, direction: direction, size: bytes.count)
        for word in 0..<bytes.count / 8 {
            bytes.storeBytes(of: words[word].littleEndian, toByteOffset: word * 8, as: UInt64.self)
        }
        var tail = words[bytes.count / 8]
        for index in bytes.count & ~7..<bytes.count {
            bytes[index] = UInt8(truncatingIfNeeded: tail)
            tail >>= 8
        }
        bytes[bytes.count - 1] = mark(number)
    }

    /// The offset of the first byte that differs from message `number`; nil if every byte is correct.
    static func firstDifference(
        _ bytes: UnsafeRawBufferPointer, number: UInt64, direction: Direction
    ) -> Int? {
        guard !bytes.isEmpty else { return nil }
        let words = Words(number: number, direction: direction, size: bytes.count)
        let last = bytes.count - 1
        // The word that holds the last byte is compared byte by byte.
        for word in 0..<last / 8 {
            let found = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self))
            let difference = found ^ words[word]
            if difference != 0 { return word * 8 + difference.trailingZeroBitCount / 8 }
        }
        var tail = words[last / 8]
        for index in last & ~7..<last {
            if bytes[index] != UInt8(truncatingIfNeeded: tail) { return index }
            tail >>= 8
        }
        return bytes[last] == mark(number) ? nil : last
    }

    /// Whether every byte is correct for another message than `number`.
    static func isOther(_ bytes: UnsafeRawBufferPointer, than number: UInt64, _ direction: Direction) -> Bool {
        let found = Pattern.number(of: bytes, expected: number, filled: true)
        return found != number && firstDifference(bytes, number: found, direction: direction) == nil
    }

    /// Fills the source of RDMA reads at different offsets.
    static func fillSource(_ bytes: UnsafeMutableRawBufferPointer) {
        for index in bytes.indices { bytes[index] = sourceByte(index) }
    }

    /// The offset of the first byte that differs from an RDMA read at `offset` of the source; nil if every byte is
    /// correct.
    static func firstDifference(_ bytes: UnsafeRawBufferPointer, toReadAt offset: Int) -> Int? {
        bytes.indices.first { bytes[$0] != sourceByte(offset + $0) }
    }

    /// A byte of the source: differs from its neighbors, without a period within a page.
    private static func sourceByte(_ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: UInt64(index) &* 0x9E37_79B9_7F4A_7C15 >> 56)
    }

    /// The message as words of 8 bytes, before the last byte is set.
    private struct Words {
        let number: UInt64
        let seed: UInt64
        let isStamped: Bool

        init(number: UInt64, direction: Direction, size: Int) {
            isStamped = size >= Pattern.stampedSize
            // A short message contains only the low byte of its number, so its contents depend on that byte alone.
            self.number = isStamped ? number : number & 0xFF
            seed = self.number &* 0xD1B5_4A32_D192_ED03 ^ direction.rawValue
        }

        /// 64 bits that depend on all bits of number and index (the finalizer of splitmix64).
        subscript(index: Int) -> UInt64 {
            if isStamped, index == 0 { return number }
            var value = seed &+ UInt64(truncatingIfNeeded: index) &* 0x9E37_79B9_7F4A_7C15
            value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
            return value ^ value >> 31
        }
    }
}
