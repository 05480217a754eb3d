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
    /// Length on the wire: 8 bytes.
    @inlinable public static var byteCount: Int { 8 }
    /// The destination port of RoCEv2: 4791.
    @inlinable public static var rocePort: UInt16 { 4791 }

    /// Source port: the same for all packets of a queue pair, so that routers keep their order.
    public var sourcePort: UInt16
    /// Destination port.
    public var destinationPort: UInt16
    /// Bytes of this header and all that follows, 8 to 65535.
    public var length: UInt16
    /// Checksum; RoCEv2 relies on the ICRC and sends 0.
    public var checksum: UInt16

    /// The header before a packet of `packetByteCount` bytes, BTH to ICRC (at most 65527).
    @inlinable
    public init(sourcePort: UInt16, destinationPort: UInt16 = UDPHeader.rocePort, packetByteCount: Int) {
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        length = UInt16(truncatingIfNeeded: packetByteCount &+ Self.byteCount)
        checksum = 0
    }

    /// Bytes behind this header, by its length field.
    @inlinable
    public var payloadByteCount: Int { Int(length) &- Self.byteCount }

    /// Reads the header from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated` when header or payload are not all there; `udpLength` when the length field
    ///   does not even cover the header.
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

    /// Writes the header to the start of `bytes`.
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
