/// An IPv6 address (RFC 4291), or a GID (`union ibv_gid`): 16 bytes as two numbers, the first byte in the highest bits
/// of `high`.
@frozen
public struct IPv6Address: Hashable, Sendable, BitwiseCopyable {
    /// Bytes 0 to 7 of the address (`ibv_gid.global.subnet_prefix`).
    public var high: UInt64
    /// Bytes 8 to 15 of the address (`ibv_gid.global.interface_id`).
    public var low: UInt64

    /// Creates an address (RFC 4291) from its two halves.
    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// IPv6 header (RFC 8200).
///
/// | byte  | bits  | field |
/// |-------|-------|-------|
/// | 0-3   | 31:28 | version, 6 |
/// |       | 27:20 | traffic class |
/// |       | 19:0  | flow label |
/// | 4-5   |       | payload length |
/// | 6     |       | next header |
/// | 7     |       | hop limit |
/// | 8-23  |       | source |
/// | 24-39 |       | destination |
@frozen
public struct IPv6Header: Equatable, Sendable, BitwiseCopyable {
    /// The length of the IPv6 header on the wire: 40 bytes (RFC 8200).
    @inlinable public static var byteCount: Int { 40 }

    /// Traffic class (RFC 8200): DSCP and ECN.
    public var trafficClass: UInt8
    /// Flow label (RFC 8200), 20 bits; higher bits are dropped.
    public var flowLabel: UInt32
    /// Payload length (RFC 8200): the bytes after this header.
    public var payloadLength: UInt16
    /// Next header (RFC 8200): the protocol of the payload.
    public var nextHeader: UInt8
    /// Hop limit (RFC 8200).
    public var hopLimit: UInt8
    /// Source address (RFC 8200).
    public var source: IPv6Address
    /// Destination address (RFC 8200).
    public var destination: IPv6Address

    /// Creates the IPv6 header (RFC 8200) of a packet in UDP.
    /// - Parameters:
    ///   - source: source address.
    ///   - destination: destination address.
    ///   - packetByteCount: length of the packet in UDP, BTH to ICRC, at most 65527.
    ///   - trafficClass: DSCP and ECN.
    ///   - flowLabel: flow label, 20 bits.
    ///   - hopLimit: hop limit.
    @inlinable
    public init(
        source: IPv6Address, destination: IPv6Address, packetByteCount: Int, trafficClass: UInt8 = 0,
        flowLabel: UInt32 = 0, hopLimit: UInt8 = 64
    ) {
        self.trafficClass = trafficClass
        self.flowLabel = flowLabel
        payloadLength = UInt16(truncatingIfNeeded: UDPHeader.byteCount &+ packetByteCount)
        nextHeader = IPv4Header.udp
        self.hopLimit = hopLimit
        self.source = source
        self.destination = destination
    }

    /// Reads the IPv6 header (RFC 8200) from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated`, `ipVersion`. The payload length is not checked.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .truncated(.ipv6, needed: Self.byteCount, available: bytes.count)
        }
        guard bytes[0] >> 4 == 6 else { throw .ipVersion(bytes[0] >> 4) }
        let word = start.big(0, as: UInt32.self)
        trafficClass = UInt8(truncatingIfNeeded: word >> 20)
        flowLabel = word & 0xF_FFFF
        payloadLength = start.big(4, as: UInt16.self)
        nextHeader = bytes[6]
        hopLimit = bytes[7]
        source = IPv6Address(high: start.big(8, as: UInt64.self), low: start.big(16, as: UInt64.self))
        destination = IPv6Address(high: start.big(24, as: UInt64.self), low: start.big(32, as: UInt64.self))
    }

    /// Writes the IPv6 header (RFC 8200) to the start of `bytes`.
    /// - Throws: `PacketError.noRoom` when `bytes` is shorter than 40 bytes.
    @inlinable
    public func emit(into bytes: UnsafeMutableRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .noRoom(needed: Self.byteCount, available: bytes.count)
        }
        start.setBig(0, 6 << 28 | UInt32(trafficClass) << 20 | flowLabel & 0xF_FFFF)
        start.setBig(4, payloadLength)
        start.setBig(6, UInt16(nextHeader) << 8 | UInt16(hopLimit))
        start.setBig(8, source.high)
        start.setBig(16, source.low)
        start.setBig(24, destination.high)
        start.setBig(32, destination.low)
    }
}
