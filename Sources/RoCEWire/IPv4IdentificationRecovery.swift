public import CCRC32

/// Checks the ICRC of IPv4 packets whose identification and DF flag the receiver does not know.
///
/// The ICRC covers both, a UDP socket tells neither. But a CRC is linear: the difference between the ICRC received
/// and the one computed for the expected identification with DF set is the CRC of just the bits that differ, run on over the rest
/// of the packet. Running it backwards by as many bits as follow (a multiplication by x^-n modulo the CRC's
/// polynomial) leaves these bits themselves in the register, since 32 bits fit in it before the CRC begins to mix
/// them: bytes 4 and 5 of the IP header in the low half, byte 6 (flags), byte 7 (fragment offset) above. The packet
/// is good if nothing but identification and DF differs; any other bit says that it was corrupted.
///
/// A wrong packet passes with probability 2^-15 instead of 2^-32, and with 2^-16 if the receiver also insists on DF,
/// which every RoCEv2 sender known to us sets. Where the sender is known to number its packets 0 with DF set, compare
/// the ICRCs themselves.
///
/// The factors for all packet lengths are made once: checking allocates nothing.
public struct IPv4IdentificationRecovery: ~Copyable, @unchecked Sendable {
    /// x^-(8 * 24 + 32 * words): one factor for every count of 32-bit words from BTH to pad. A pointer, since an
    /// array would be retained on every use. Never written after `init`, so any thread may read.
    @usableFromInline internal let factors: UnsafeMutableBufferPointer<UInt32>

    /// What a sender chose.
    @frozen
    public struct Fields: Equatable, Sendable, BitwiseCopyable {
        /// The identification of the IPv4 header.
        public var identification: UInt16
        /// The DF flag of the IPv4 header.
        public var dontFragment: Bool

        /// The two fields.
        @inlinable
        public init(identification: UInt16, dontFragment: Bool) {
            self.identification = identification
            self.dontFragment = dontFragment
        }
    }

    /// Makes the factors, 4 bytes for every 4 bytes of packet.
    /// - Parameter maximumPacketByteCount: length of the longest packet, BTH to ICRC; a packet of path MTU 4096 has
    ///   up to 4140. Longer ones will be refused.
    public init(maximumPacketByteCount: Int = 4140) {
        factors = .allocate(capacity: max(0, maximumPacketByteCount / 4))
        let step = Self.inversePower(bits: 32)
        // From byte 4 of the IP header on, 16 bytes of IP and 8 of UDP come before the packet.
        var factor = Self.inversePower(bits: 8 * (16 + 8))
        for index in factors.indices {
            factors.initializeElement(at: index, to: factor)
            factor = ccrc32_multiply(factor, step)
        }
    }

    deinit { factors.deallocate() }

    /// x^-bits modulo the polynomial, reflected as in the register: bit 31 is x^0.
    internal static func inversePower(bits: Int) -> UInt32 {
        var value: UInt32 = 1 << 31
        for _ in 0..<bits { value = value & 1 << 31 != 0 ? (value ^ 0xEDB8_8320) << 1 | 1 : value << 1 }
        return value
    }

    /// Tells identification and DF of a good packet, nil of a corrupted one.
    /// - Parameters:
    ///   - computed: the ICRC over this packet with the identification that it is thought to have, DF set, offset 0, as
    ///     `IPv4Header.init(source:destination:packetByteCount:)` makes the header.
    ///   - expected: that identification.
    ///   - received: the packet's trailer.
    ///   - packetByteCount: length of the packet, BTH to ICRC.
    @inlinable
    public borrowing func fields(
        computed: ICRC, expected: UInt16 = 0, received: UInt32, packetByteCount: Int
    ) -> Fields? {
        let difference = computed.value ^ received
        if difference == 0 { return Fields(identification: expected, dontFragment: true) }
        let words = packetByteCount / 4 &- ICRC.byteCount / 4
        guard packetByteCount & 3 == 0, words >= 0, words < factors.count else { return nil }
        let bits = ccrc32_multiply(difference, factors[words])
        guard bits & ~0x0040_FFFF == 0 else { return nil }
        return Fields(
            identification: UInt16(truncatingIfNeeded: bits).byteSwapped ^ expected,
            dontFragment: bits & 0x0040_0000 == 0)
    }
}
