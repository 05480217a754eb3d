public import CCRC32

/// The invariant CRC (ICRC) of a RoCEv2 packet, computed over parts (IBTA volume 1, 7.8.1; annex A17.3.3).
///
/// It is the CRC-32 of Ethernet over eight bytes of ones, the IP header, the UDP header and the packet from the BTH
/// to the pad, where the fields that a router may change count as ones:
///
/// | header | counts as ones |
/// |--------|----------------|
/// | IPv4   | type of service, time to live, header checksum |
/// | IPv6   | traffic class, flow label, hop limit |
/// | UDP    | checksum |
/// | BTH    | byte 4: FECN, BECN, reserved |
///
/// The packet's last four bytes hold it, lowest byte first.
///
/// ```
/// var icrc = ICRC(ipv4: ip, udp: udp, packet: headersAsEmitted)
/// icrc.update(payload)
/// icrc.update(pad)
/// icrc.store(at: trailer)
/// ```
@frozen
public struct ICRC: Equatable, Sendable, BitwiseCopyable {
    /// The length of the ICRC on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }

    /// The CRC register of the ICRC, before the final complement.
    public var register: UInt32

    /// The CRC register after the eight bytes of ones with which the ICRC starts (annex A17.3.3).
    @inlinable internal static var afterOnes: UInt32 { 0xDEBB_20E3 }

    /// Starts the ICRC of a packet over IPv4 (annex A17.3.3).
    /// - Parameters:
    ///   - ipv4: the IP header; the fields that count are total length, identification, flags and addresses.
    ///   - udp: the UDP header; the checksum does not count.
    ///   - packet: the packet from the BTH on, or its first part of at least 12 bytes, without the ICRC.
    @inlinable
    public init(ipv4: IPv4Header, udp: UDPHeader, packet: UnsafeRawBufferPointer) {
        precondition(packet.count >= BTH.byteCount, "the first buffer must contain the whole BTH")
        let start = packet.baseAddress.unsafelyUnwrapped
        let masked = (
            (0x45FF << 48 | UInt64(ipv4.totalLength) << 32 | UInt64(ipv4.identification) << 16
                | UInt64(ipv4.fragmentation)).bigEndian,
            (0xFF00_FFFF << 32 | UInt64(ipv4.nextProtocol) << 48 | UInt64(ipv4.source)).bigEndian,
            (UInt64(ipv4.destination) << 32 | udp.maskedPorts).bigEndian,
            (udp.maskedLength | UInt64(start.big(0, as: UInt32.self))).bigEndian,
            (start.big(4, as: UInt64.self) | 0xFF << 56).bigEndian
        )
        register = withUnsafeBytes(of: masked) { ccrc32_update(Self.afterOnes, $0.baseAddress, $0.count) }
        update(UnsafeRawBufferPointer(rebasing: packet[BTH.byteCount...]))
    }

    /// Starts the ICRC of a packet over IPv6 (annex A17.3.3).
    /// - Parameters:
    ///   - ipv6: the IP header; the fields that count are payload length, next header and addresses.
    ///   - udp: the UDP header; the checksum does not count.
    ///   - packet: the packet from the BTH on, or its first part of at least 12 bytes, without the ICRC.
    @inlinable
    public init(ipv6: IPv6Header, udp: UDPHeader, packet: UnsafeRawBufferPointer) {
        precondition(packet.count >= BTH.byteCount, "the first buffer must contain the whole BTH")
        let start = packet.baseAddress.unsafelyUnwrapped
        let masked = (
            (0x6FFF_FFFF << 32 | UInt64(ipv6.payloadLength) << 16 | UInt64(ipv6.nextHeader) << 8 | 0xFF).bigEndian,
            ipv6.source.high.bigEndian, ipv6.source.low.bigEndian,
            ipv6.destination.high.bigEndian, ipv6.destination.low.bigEndian,
            (udp.maskedPorts << 32 | udp.maskedLength >> 32).bigEndian,
            (start.big(0, as: UInt64.self) | 0xFF << 24).bigEndian,
            start.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        )
        // 7 words of 8 bytes and one of 4: the tuple's tail padding is left out.
        register = withUnsafeBytes(of: masked) { ccrc32_update(Self.afterOnes, $0.baseAddress, 60) }
        update(UnsafeRawBufferPointer(rebasing: packet[BTH.byteCount...]))
    }

    /// Adds the next part of the packet to the ICRC, up to the pad and without the ICRC itself.
    @inlinable
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        register = ccrc32_update(register, bytes.baseAddress, bytes.count)
    }

    /// Makes the ICRC of a whole FLUSH that which the kernel's rxe computes and expects (Linux 6.3 to 6.12 at least): it
    /// covers the packet from the BTH on a second time, without the fields that count as ones. rxe has no offset of the
    /// payload for this opcode (`rxe_opcode`), and so takes the packet for the payload (`rxe_icrc_generate`).
    /// - Parameter packet: the whole packet, BTH to ICRC.
    @inlinable
    public mutating func coverFlushOfRxe(_ packet: UnsafeRawBufferPointer) { update(Self.covered(of: packet)) }

    /// The ICRC of the bytes that were added so far. Wireshark prints its bytes in wire order, that is,
    /// `value.byteSwapped`.
    @inlinable
    public var value: UInt32 { ~register }

    /// Writes the four bytes of the ICRC. They must be writable, which is not checked; they need no alignment.
    @inlinable
    public func store(at bytes: UnsafeMutableRawPointer) {
        bytes.storeBytes(of: value.littleEndian, as: UInt32.self)
    }

    /// The ICRC in the last four bytes of a packet, comparable with `value`.
    /// - Parameter packet: a whole packet, BTH to ICRC, at least 4 bytes.
    @inlinable
    public static func trailer(of packet: UnsafeRawBufferPointer) -> UInt32 {
        UInt32(littleEndian: packet.loadUnaligned(fromByteOffset: packet.count &- byteCount, as: UInt32.self))
    }

    /// The bytes of a packet that the ICRC covers, for `update` and the initializers: all but the last four.
    /// - Parameter packet: a whole packet, BTH to ICRC, at least 4 bytes.
    @inlinable
    public static func covered(of packet: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: packet[..<(packet.count &- byteCount)])
    }
}

extension UDPHeader {
    /// Both UDP ports in the low half of a word, as the ICRC covers them.
    @inlinable
    internal var maskedPorts: UInt64 { UInt64(sourcePort) << 16 | UInt64(destinationPort) }

    /// The UDP length and a checksum of ones in the high half of a word, as the ICRC covers them (annex A17.3.3).
    @inlinable
    internal var maskedLength: UInt64 { UInt64(length) << 48 | 0xFFFF << 32 }
}
