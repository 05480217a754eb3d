import Foundation
import RoCEWire

/// The IP header of either version.
enum IPHeader: Equatable {
    case v4(IPv4Header)
    case v6(IPv6Header)
}

/// One captured packet, from its IP header to its ICRC.
struct Frame {
    /// Counted from 1, as tshark and Fixtures/rxe.pcap.md do.
    let number: Int
    let bytes: [UInt8]
    let ip: IPHeader
    let udp: UDPHeader
    let packet: TransportPacket
    /// Where the BTH lies in `bytes`.
    let packetOffset: Int

    var isIPv4: Bool { packetOffset == 28 }
    var headers: PacketHeaders { packet.headers }
    var opcode: Opcode { headers.bth.opcode }
    /// BTH to ICRC.
    var transport: [UInt8] { Array(bytes[packetOffset...]) }
    /// The payload, in `transport`.
    var payload: [UInt8] { Array(transport[packet.payload]) }

    /// Parses the three layers one after the other.
    init(number: Int, bytes: [UInt8]) throws {
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

    /// The ICRC that the headers and `transport` (BTH to ICRC) call for.
    static func icrc(_ ip: IPHeader, _ udp: UDPHeader, _ transport: [UInt8]) -> ICRC {
        transport.withUnsafeBytes { raw in
            switch ip {
            case .v4(let header): ICRC(ipv4: header, udp: udp, packet: ICRC.covered(of: raw))
            case .v6(let header): ICRC(ipv6: header, udp: udp, packet: ICRC.covered(of: raw))
            }
        }
    }

    /// The trailer of `transport`.
    static func trailer(_ transport: [UInt8]) -> UInt32 { transport.withUnsafeBytes { ICRC.trailer(of: $0) } }

    /// Writes everything again from the values alone.
    func emitted() throws -> [UInt8] {
        try emit(ip: ip, udp: udp, headers: headers, payload: payload)
    }
}

/// A whole packet, IP header to ICRC, out of values.
func emit(ip: IPHeader, udp: UDPHeader, headers: PacketHeaders, payload: [UInt8]) throws -> [UInt8] {
    var payloadRange = 0..<0
    var transport = try written(headers.packetByteCount(payloadByteCount: payload.count)) { raw throws(PacketError) in
        payloadRange = try headers.emit(into: raw, payloadByteCount: payload.count)
    }
    transport.replaceSubrange(payloadRange, with: payload)
    let icrc = Frame.icrc(ip, udp, transport)
    transport.withUnsafeMutableBytes { icrc.store(at: $0.baseAddress! + $0.count - ICRC.byteCount) }
    return try bytes(of: ip) + bytes(of: udp) + transport
}

func bytes(of ip: IPHeader) throws -> [UInt8] {
    switch ip {
    case .v4(let header): try written(IPv4Header.byteCount, header.emit(into:))
    case .v6(let header): try written(IPv6Header.byteCount, header.emit(into:))
    }
}

func bytes(of udp: UDPHeader) throws -> [UInt8] { try written(UDPHeader.byteCount, udp.emit(into:)) }

/// What the Linux kernel sent: see Fixtures/rxe.pcap.md.
enum Capture {
    /// All 249 frames.
    static let frames: [Frame] = {
        guard let url = Bundle.module.url(forResource: "rxe", withExtension: "pcap", subdirectory: "Fixtures"),
            let data = try? Data(contentsOf: url)
        else { fatalError("Fixtures/rxe.pcap is missing") }
        return PCAP.packets([UInt8](data)).enumerated().map { index, ethernet in
            do {
                return try Frame(number: index + 1, bytes: Array(ethernet[14...]))
            } catch {
                fatalError("frame \(index + 1) does not parse: \(error)")
            }
        }
    }()

    /// A frame by its number, from 1.
    static func frame(_ number: Int) -> Frame { frames[number - 1] }
}

/// The little of the pcap format that tests need: little-endian, microseconds.
enum PCAP {
    static func packets(_ file: [UInt8]) -> [[UInt8]] {
        var packets: [[UInt8]] = []
        var offset = 24
        while offset + 16 <= file.count {
            let count = file.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)) }
            packets.append(Array(file[offset + 16..<offset + 16 + count]))
            offset += 16 + count
        }
        return packets
    }

    /// A file of bare IP packets (LINKTYPE_RAW, 101), a millisecond apart.
    static func file(_ packets: [[UInt8]]) -> [UInt8] {
        func words(_ values: UInt32...) -> [UInt8] {
            values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        }
        var file = words(0xA1B2_C3D4, 4 << 16 | 2, 0, 0, 0x10000, 101)
        for (index, packet) in packets.enumerated() {
            file += words(1, UInt32(index) * 1000, UInt32(packet.count), UInt32(packet.count)) + packet
        }
        return file
    }
}
