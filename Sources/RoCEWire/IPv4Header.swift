/// IPv4 header without options (RFC 791).
///
/// | byte  | bits | field |
/// |-------|------|-------|
/// | 0     | 7:4  | version, 4 |
/// |       | 3:0  | header length in words, 5 |
/// | 1     |      | type of service |
/// | 2-3   |      | total length |
/// | 4-5   |      | identification |
/// | 6-7   | 15:13 | flags: reserved, DF, MF |
/// |       | 12:0 | fragment offset in 8 bytes |
/// | 8     |      | time to live |
/// | 9     |      | protocol |
/// | 10-11 |      | header checksum |
/// | 12-15 |      | source |
/// | 16-19 |      | destination |
@frozen
public struct IPv4Header: Equatable, Sendable, BitwiseCopyable {
    /// The length of the IPv4 header on the wire, without options: 20 bytes (RFC 791).
    @inlinable public static var byteCount: Int { 20 }
    /// The protocol number of UDP, 17 (RFC 768; `IPPROTO_UDP`).
    @inlinable public static var udp: UInt8 { 17 }
    /// The DF bit of `fragmentation` (RFC 791; `IP_DF`).
    @inlinable public static var dontFragment: UInt16 { 0x4000 }

    /// Type of service (RFC 791): DSCP and ECN.
    public var typeOfService: UInt8
    /// Total length (RFC 791): the bytes of this header and its payload.
    public var totalLength: UInt16
    /// Identification (RFC 791).
    public var identification: UInt16
    /// Flags and fragment offset (RFC 791); RoCEv2 sets DF and the offset 0 (RoCEv2 annex A17.3.1.1).
    public var fragmentation: UInt16
    /// Time to live (RFC 791).
    public var timeToLive: UInt8
    /// Protocol (RFC 791): that of the payload.
    public var nextProtocol: UInt8
    /// Header checksum (RFC 791); see `computedChecksum`.
    public var checksum: UInt16
    /// Source address (RFC 791); 10.0.0.1 is 0x0A00_0001.
    public var source: UInt32
    /// Destination address (RFC 791).
    public var destination: UInt32

    /// Creates the header that Linux gives a datagram of an unconnected UDP socket with IP_PMTUDISC_DO (ip(7)):
    /// identification 0, DF set. The checksum is computed (RFC 791).
    /// - Parameters:
    ///   - source: source address, the first byte in the highest bits.
    ///   - destination: destination address.
    ///   - packetByteCount: length of the packet in UDP, BTH to ICRC, at most 65507.
    ///   - typeOfService: DSCP and ECN.
    ///   - timeToLive: time to live.
    @inlinable
    public init(
        source: UInt32, destination: UInt32, packetByteCount: Int, typeOfService: UInt8 = 0, timeToLive: UInt8 = 64
    ) {
        self.typeOfService = typeOfService
        totalLength = UInt16(truncatingIfNeeded: Self.byteCount &+ UDPHeader.byteCount &+ packetByteCount)
        identification = 0
        fragmentation = Self.dontFragment
        self.timeToLive = timeToLive
        nextProtocol = Self.udp
        checksum = 0
        self.source = source
        self.destination = destination
        checksum = computedChecksum
    }

    /// Reads the IPv4 header (RFC 791) from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated`, `ipVersion`, `ipHeaderLength`. The total length and the checksum are not
    ///   checked.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .truncated(.ipv4, needed: Self.byteCount, available: bytes.count)
        }
        guard bytes[0] >> 4 == 4 else { throw .ipVersion(bytes[0] >> 4) }
        guard bytes[0] & 15 == 5 else { throw .ipHeaderLength(Int(bytes[0] & 15) * 4) }
        typeOfService = bytes[1]
        totalLength = start.big(2, as: UInt16.self)
        identification = start.big(4, as: UInt16.self)
        fragmentation = start.big(6, as: UInt16.self)
        timeToLive = bytes[8]
        nextProtocol = bytes[9]
        checksum = start.big(10, as: UInt16.self)
        source = start.big(12, as: UInt32.self)
        destination = start.big(16, as: UInt32.self)
    }

    /// Writes the IPv4 header (RFC 791) with the value of `checksum` to the start of `bytes`.
    /// - Throws: `PacketError.noRoom` when `bytes` is shorter than 20 bytes.
    @inlinable
    public func emit(into bytes: UnsafeMutableRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .noRoom(needed: Self.byteCount, available: bytes.count)
        }
        start.setBig(0, UInt16(0x4500) | UInt16(typeOfService))
        start.setBig(2, totalLength)
        start.setBig(4, identification)
        start.setBig(6, fragmentation)
        start.setBig(8, UInt16(timeToLive) << 8 | UInt16(nextProtocol))
        start.setBig(10, checksum)
        start.setBig(12, source)
        start.setBig(16, destination)
    }

    /// The checksum of the other fields (RFC 1071).
    @inlinable
    public var computedChecksum: UInt16 {
        var sum = UInt32(0x4500) &+ UInt32(typeOfService) &+ UInt32(totalLength) &+ UInt32(identification)
        sum &+= UInt32(fragmentation) &+ UInt32(timeToLive) << 8 &+ UInt32(nextProtocol)
        sum &+= source >> 16 &+ source & 0xFFFF
        sum &+= destination >> 16 &+ destination & 0xFFFF
        sum = sum & 0xFFFF &+ sum >> 16
        sum = sum & 0xFFFF &+ sum >> 16
        return ~UInt16(truncatingIfNeeded: sum)
    }
}
