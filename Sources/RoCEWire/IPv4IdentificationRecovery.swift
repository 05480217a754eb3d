public import CCRC32

/// Checks the ICRC of IPv4 packets whose identification and DF flag (RFC 791) the receiver does not know.
///
/// The ICRC covers both fields, and a UDP socket reports neither. A CRC is linear: the difference between the ICRC
/// received and the one computed for the expected identification with DF set is the CRC of only the bits that differ,
/// continued over the rest of the packet. Running it backwards by as many bits as follow (a multiplication by x^-n
/// modulo the CRC's polynomial) leaves these bits themselves in the register, since 32 bits fit in it before the CRC
/// begins to mix them: bytes 4 and 5 of the IP header in the low half, byte 6 (flags), byte 7 (fragment offset) above.
/// The packet is good if only identification and DF differ; a difference in any other bit means that it was corrupted.
///
/// A corrupted packet passes with probability 2^-15 instead of 2^-32, and with 2^-16 if the receiver also requires DF,
/// which RoCEv2 senders must set (RoCEv2 annex A17.3.1.1). For a sender that is known to use identification 0 with DF
/// set, compare the ICRCs themselves.
///
/// The factors for all packet lengths are computed once: a check allocates nothing.
public struct IPv4IdentificationRecovery: ~Copyable, @unchecked Sendable {
    /// x^-(8 * 24 + 32 * words): one factor for every count of 32-bit words from BTH to pad. A pointer, since an
    /// array would be retained on every use. Never written after `init`, so any thread may read.
    @usableFromInline internal let factors: UnsafeMutableBufferPointer<UInt32>

    /// The two fields of the IPv4 header (RFC 791) that the sender chose.
    @frozen
    public struct Fields: Equatable, Sendable, BitwiseCopyable {
        /// Identification (RFC 791).
        public var identification: UInt16
        /// The DF flag (RFC 791; `IP_DF`).
        public var dontFragment: Bool

        /// Creates the two fields (RFC 791).
        @inlinable
        public init(identification: UInt16, dontFragment: Bool) {
            self.identification = identification
            self.dontFragment = dontFragment
        }
    }

    /// Computes the factors, 4 bytes for every 4 bytes of packet.
    /// - Parameter maximumPacketByteCount: length of the longest packet, BTH to ICRC. `fields` returns nil for longer
    ///   packets.
    public init(maximumPacketByteCount: Int = PacketHeaders.maximumPacketByteCount) {
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

    /// x^-bits modulo the polynomial of the ICRC (CRC-32), reflected as in the register: bit 31 is x^0.
    internal static func inversePower(bits: Int) -> UInt32 {
        var value: UInt32 = 1 << 31
        for _ in 0..<bits { value = value & 1 << 31 != 0 ? (value ^ 0xEDB8_8320) << 1 | 1 : value << 1 }
        return value
    }

    /// Returns identification and DF of a packet whose ICRC is correct for some values of them, and nil for a corrupted
    /// packet.
    /// - Parameters:
    ///   - computed: the ICRC of this packet with the expected identification, DF set and fragment offset 0, as
    ///     `IPv4Header.init(source:destination:packetByteCount:)` creates the header.
    ///   - expected: the expected identification.
    ///   - received: the ICRC in the packet (`ICRC.trailer(of:)`).
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
