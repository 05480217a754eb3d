/// UDP header (RFC 768).
///
/// | byte | field |
/// |------|-------|
/// | 0-1  | source port |
/// | 2-3  | destination port |
/// | 4-5  | length of header and payload |
/// | 6-7  | checksum; 0 for none, as RoCEv2 sends it |
@frozen
public struct UDPHeader: Equatable, Sendable, BitwiseCopyable {
    /// The length of the UDP header on the wire: 8 bytes (RFC 768).
    @inlinable public static var byteCount: Int { 8 }
    /// The destination port of RoCEv2, 4791 (RoCEv2 annex A17.3.2.2; `ROCE_V2_UDP_DPORT` of the kernel).
    @inlinable public static var rocePort: UInt16 { 4791 }

    /// Source port (RFC 768): the same for all packets of a queue pair, so that routers keep their order (RoCEv2 annex
    /// A17.3.2.1).
    public var sourcePort: UInt16
    /// Destination port (RFC 768).
    public var destinationPort: UInt16
    /// Length (RFC 768): the bytes of this header and its payload, 8 to 65535; with the ICRC (RoCEv2 annex A17.3.2.3).
    public var length: UInt16
    /// Checksum (RFC 768); RoCEv2 sends 0 (RoCEv2 annex A17.3.2.4), since the packet has the ICRC.
    public var checksum: UInt16

    /// Creates the UDP header of a packet of `packetByteCount` bytes, BTH to ICRC (at most 65527).
    @inlinable
    public init(sourcePort: UInt16, destinationPort: UInt16 = UDPHeader.rocePort, packetByteCount: Int) {
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        length = UInt16(truncatingIfNeeded: packetByteCount &+ Self.byteCount)
        checksum = 0
    }

    /// The bytes of the payload of UDP, from BTH to ICRC, according to the length field.
    @inlinable
    public var payloadByteCount: Int { Int(length) &- Self.byteCount }

    /// Reads the UDP header (RFC 768) from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated` when `bytes` ends inside header or payload; `udpLength` when the length field
    ///   is less than the header.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .truncated(.udp, needed: Self.byteCount, available: bytes.count)
        }
        sourcePort = start.big(0, as: UInt16.self)
        destinationPort = start.big(2, as: UInt16.self)
        length = start.big(4, as: UInt16.self)
        checksum = start.big(6, as: UInt16.self)
        guard Int(length) >= Self.byteCount else { throw .udpLength(Int(length)) }
        guard Int(length) <= bytes.count else {
            throw .truncated(.udp, needed: Int(length), available: bytes.count)
        }
    }

    /// Writes the UDP header (RFC 768) to the start of `bytes`.
    /// - Throws: `PacketError.noRoom` when `bytes` is shorter than 8 bytes.
    @inlinable
    public func emit(into bytes: UnsafeMutableRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .noRoom(needed: Self.byteCount, available: bytes.count)
        }
        start.setBig(0, sourcePort)
        start.setBig(2, destinationPort)
        start.setBig(4, length)
        start.setBig(6, checksum)
    }
}
