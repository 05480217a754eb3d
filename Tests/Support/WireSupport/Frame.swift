public import RoCEWire

/// The IP header of either version.
public enum IPHeader: Equatable, Sendable {
    case v4(IPv4Header)
    case v6(IPv6Header)
}

/// One captured packet, from its IP header to its ICRC.
public struct Frame: Sendable {
    /// Counted from 1, as tshark and Fixtures/rxe.pcap.md do.
    public let number: Int
    public let bytes: [UInt8]
    public let ip: IPHeader
    public let udp: UDPHeader
    public let packet: TransportPacket
    /// The offset of the BTH in `bytes`.
    public let packetOffset: Int

    public var isIPv4: Bool { packetOffset == 28 }
    public var headers: PacketHeaders { packet.headers }
    public var opcode: Opcode { headers.bth.opcode }
    /// BTH to ICRC.
    public var transport: [UInt8] { Array(bytes[packetOffset...]) }
    /// The payload, in `transport`.
    public var payload: [UInt8] { Array(transport[packet.payload]) }

    /// Parses the three layers.
    public init(number: Int, bytes: [UInt8]) throws {
        self.number = number
        self.bytes = bytes
        let udpOffset: Int
        if bytes.first.map({ $0 >> 4 }) == 6 {
            ip = .v6(try parse(bytes, IPv6Header.init(parsing:)))
            udpOffset = IPv6Header.byteCount
        } else {
            ip = .v4(try parse(bytes, IPv4Header.init(parsing:)))
            udpOffset = IPv4Header.byteCount
        }
        udp = try parse(Array(bytes[udpOffset...]), UDPHeader.init(parsing:))
        packetOffset = udpOffset + UDPHeader.byteCount
        packet = try parse(Array(bytes[packetOffset..<udpOffset + Int(udp.length)]), TransportPacket.init(parsing:))
    }

    /// The ICRC computed from the headers and `transport` (BTH to ICRC).
    public static func icrc(_ ip: IPHeader, _ udp: UDPHeader, _ transport: [UInt8]) -> ICRC {
        transport.withUnsafeBytes { raw in
            switch ip {
            case .v4(let header): ICRC(ipv4: header, udp: udp, packet: ICRC.covered(of: raw))
            case .v6(let header): ICRC(ipv6: header, udp: udp, packet: ICRC.covered(of: raw))
            }
        }
    }

    /// The trailer of `transport`.
    public static func trailer(_ transport: [UInt8]) -> UInt32 { transport.withUnsafeBytes { ICRC.trailer(of: $0) } }

    /// Whether the ICRC in the packet is correct.
    public var hasRightICRC: Bool { Self.icrc(ip, udp, transport).value == Self.trailer(transport) }

    /// The packet with `count` bytes after its BTH, with matching lengths in IP and UDP.
    public func cut(to count: Int) -> [UInt8] {
        var bytes = Array(bytes.prefix(packetOffset + BTH.byteCount + count))
        // IPv4: total length; IPv6: length after the header; UDP: length including its header.
        for (offset, length) in [
            isIPv4 ? (2, bytes.count) : (4, bytes.count - IPv6Header.byteCount),
            (packetOffset - 4, bytes.count - packetOffset + UDPHeader.byteCount),
        ] {
            bytes.replaceSubrange(offset..<offset + 2, with: [UInt8(length >> 8), UInt8(length & 0xFF)])
        }
        return bytes
    }

    /// Emits the packet again from its values.
    public func emitted() throws -> [UInt8] {
        try emit(ip: ip, udp: udp, headers: headers, payload: payload)
    }
}

/// A complete packet, IP header to ICRC, from values.
public func emit(ip: IPHeader, udp: UDPHeader, headers: PacketHeaders, payload: [UInt8]) throws -> [UInt8] {
    var payloadRange = 0..<0
    var transport = try written(headers.packetByteCount(payloadByteCount: payload.count)) { raw throws(PacketError) in
        payloadRange = try headers.emit(into: raw, payloadByteCount: payload.count)
    }
    transport.replaceSubrange(payloadRange, with: payload)
    let icrc = Frame.icrc(ip, udp, transport)
    transport.withUnsafeMutableBytes { icrc.store(at: $0.baseAddress! + $0.count - ICRC.byteCount) }
    return try bytes(of: ip) + bytes(of: udp) + transport
}

public func bytes(of ip: IPHeader) throws -> [UInt8] {
    switch ip {
    case .v4(let header): try written(IPv4Header.byteCount, header.emit(into:))
    case .v6(let header): try written(IPv6Header.byteCount, header.emit(into:))
    }
}

public func bytes(of udp: UDPHeader) throws -> [UInt8] { try written(UDPHeader.byteCount, udp.emit(into:)) }
