public import CCRC32

/// The invariant CRC of a RoCEv2 packet, piece by piece (IBTA volume 1, 7.8.1; annex A17.3.3).
///
/// It is the CRC-32 of Ethernet over eight bytes of ones, the IP header, the UDP header and the packet from the BTH
/// to the pad, in which all that a router may change counts as ones:
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
    /// Length on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }

    /// The register of the CRC, before the final complement.
    public var register: UInt32

    /// The register after eight bytes of ones.
    @inlinable internal static var afterOnes: UInt32 { 0xDEBB_20E3 }

    /// Starts with the headers of an IPv4 packet.
    /// - Parameters:
    ///   - ipv4: the IP header; the fields that count are total length, identification, flags and addresses.
    ///   - udp: the UDP header; the checksum does not count.
    ///   - packet: the packet from the BTH on, or the first piece of it: 12 bytes or more. Not the ICRC.
    @inlinable
    public init(ipv4: IPv4Header, udp: UDPHeader, packet: UnsafeRawBufferPointer) {
        precondition(packet.count >= BTH.byteCount, "the first piece must hold the whole BTH")
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

    /// Starts with the headers of an IPv6 packet.
    /// - Parameters:
    ///   - ipv6: the IP header; the fields that count are payload length, next header and addresses.
    ///   - udp: the UDP header; the checksum does not count.
    ///   - packet: the packet from the BTH on, or the first piece of it: 12 bytes or more. Not the ICRC.
    @inlinable
    public init(ipv6: IPv6Header, udp: UDPHeader, packet: UnsafeRawBufferPointer) {
        precondition(packet.count >= BTH.byteCount, "the first piece must hold the whole BTH")
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

    /// Goes on with the next piece of the packet, up to the pad and not into the ICRC.
    @inlinable
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        register = ccrc32_update(register, bytes.baseAddress, bytes.count)
    }

    /// The CRC of what was fed so far. Wireshark prints its bytes in wire order, that is, `value.byteSwapped`.
    @inlinable
    public var value: UInt32 { ~register }

    /// Writes the four bytes of the trailer. Unchecked: they must be writable; no alignment is asked for.
    @inlinable
    public func store(at bytes: UnsafeMutableRawPointer) {
        bytes.storeBytes(of: value.littleEndian, as: UInt32.self)
    }

    /// The trailer of a packet: its last four bytes, comparable with `value`.
    /// - Parameter packet: a whole packet, BTH to ICRC, at least 4 bytes.
    @inlinable
    public static func trailer(of packet: UnsafeRawBufferPointer) -> UInt32 {
        UInt32(littleEndian: packet.loadUnaligned(fromByteOffset: packet.count &- byteCount, as: UInt32.self))
    }

    /// A whole packet without its trailer: what `update` and the initialisers take.
    /// - Parameter packet: a whole packet, BTH to ICRC, at least 4 bytes.
    @inlinable
    public static func covered(of packet: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: packet[..<(packet.count &- byteCount)])
    }
}

extension UDPHeader {
    /// Both ports in the low half of a word.
    @inlinable
    internal var maskedPorts: UInt64 { UInt64(sourcePort) << 16 | UInt64(destinationPort) }

    /// Length and a checksum of ones in the high half of a word.
    @inlinable
    internal var maskedLength: UInt64 { UInt64(length) << 48 | 0xFFFF << 32 }
}
