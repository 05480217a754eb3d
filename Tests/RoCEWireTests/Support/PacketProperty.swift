import RoCEWire
import WireSupport

/// A property of parsing and emitting that holds for any bytes. The test suite checks it with corrupted captured
/// packets, the fuzzer with any input.
struct PacketProperty: ~Copyable, Sendable {
    let recovery = IPv4IdentificationRecovery()

    /// The violation when `bytes` are parsed as an IP packet and as the payload of UDP; nil if there is none.
    func violation(_ bytes: [UInt8]) -> String? {
        bytes.withUnsafeBytes { Self.transport($0) ?? network($0) }
    }

    /// A packet that parses is emitted as the same bytes, except reserved bits and the pad; one that does not parse
    /// throws an error that is correct.
    static func transport(_ bytes: UnsafeRawBufferPointer) -> String? {
        let packet: TransportPacket
        do throws(PacketError) {
            packet = try TransportPacket(parsing: bytes)
        } catch {
            return isCorrect(error, of: bytes) ? nil : "wrong error: \(error)"
        }
        let headers = packet.headers
        let pad = Int(headers.bth.padCount)
        guard packet.payloadOffset == headers.byteCount, packet.payload.upperBound + pad + 4 == bytes.count,
            headers.packetByteCount(payloadByteCount: packet.payloadByteCount) == bytes.count
        else { return "lengths do not add up: \(packet)" }
        // Longer than needed, so that bytes written beyond the end are detected.
        var again = [UInt8](repeating: 0xEE, count: bytes.count + 8)
        let payload = again.withUnsafeMutableBytes { raw in
            try? headers.emit(into: raw, payloadByteCount: packet.payloadByteCount)
        }
        guard payload == packet.payload else { return "payload was at \(packet.payload), went to \(payload as Any)" }
        again.replaceSubrange(packet.payload, with: bytes[packet.payload])
        again.replaceSubrange(bytes.count - 4..<bytes.count, with: bytes.suffix(4))
        guard again == normalized(bytes, packet) + [UInt8](repeating: 0xEE, count: 8) else {
            return "emitted differently: \(again)"
        }
        return nil
    }

    /// The bytes as a sender writes them: with reserved bits and the pad 0.
    private static func normalized(_ bytes: UnsafeRawBufferPointer, _ packet: TransportPacket) -> [UInt8] {
        var normal = Array(bytes)
        normal[4] &= 0xC0
        normal[8] &= 0x80
        let extended = packet.headers.bth.opcode.headers
        if extended.contains(.xrceth) { normal[12] = 0 }
        if extended.contains(.deth) { normal[16] = 0 }
        if extended.contains(.feth) {
            normal.replaceSubrange(12..<15, with: [0, 0, 0])
            normal[15] &= 0x3F
        }
        if extended.contains(.congestionReserved) {
            normal.replaceSubrange(12..<28, with: [UInt8](repeating: 0, count: 16))
        }
        for index in packet.payload.upperBound..<normal.count - 4 { normal[index] = 0 }
        return normal
    }

    private static func isCorrect(_ error: PacketError, of bytes: UnsafeRawBufferPointer) -> Bool {
        switch error {
        case .truncated(_, let needed, let available): available == bytes.count && needed > available
        case .unsupportedTransportVersion(let version): version != 0 && version == bytes[1] & 15
        case .unknownOpcode(let opcode): opcode.rawValue == bytes[0] && !opcode.isKnown
        case .padExceedsPayload(let pad, let available): pad == Int(bytes[1] >> 4 & 3) && pad > available
        case .unalignedPayload(let count): count % 4 != 0 && count < bytes.count
        case .noRoom, .ipVersion, .ipHeaderLength, .udpLength: false
        }
    }

    /// IP and UDP headers that parse are emitted as the same bytes. A packet in them with a correct ICRC is accepted
    /// without its identification, and `IPv4IdentificationRecovery` returns the identification.
    func network(_ bytes: UnsafeRawBufferPointer) -> String? {
        if let header = try? IPv4Header(parsing: bytes) {
            guard let again = try? written(IPv4Header.byteCount, header.emit(into:)),
                again.elementsEqual(bytes.prefix(again.count))
            else { return "IPv4 header emitted differently" }
            return udp(UnsafeRawBufferPointer(rebasing: bytes[again.count...])) { udp, packet in
                recovered(header, udp, packet)
            }
        }
        if let header = try? IPv6Header(parsing: bytes) {
            guard let again = try? written(IPv6Header.byteCount, header.emit(into:)),
                again.elementsEqual(bytes.prefix(again.count))
            else { return "IPv6 header emitted differently" }
            return udp(UnsafeRawBufferPointer(rebasing: bytes[again.count...])) { udp, packet in
                let whole = ICRC(ipv6: header, udp: udp, packet: ICRC.covered(of: packet))
                var parts = ICRC(
                    ipv6: header, udp: udp, packet: UnsafeRawBufferPointer(rebasing: packet[..<BTH.byteCount]))
                parts.update(UnsafeRawBufferPointer(rebasing: ICRC.covered(of: packet)[BTH.byteCount...]))
                return whole == parts ? nil : "an ICRC over two parts differs"
            }
        }
        return nil
    }

    private func udp(
        _ bytes: UnsafeRawBufferPointer, _ check: (UDPHeader, UnsafeRawBufferPointer) -> String?
    ) -> String? {
        guard let header = try? UDPHeader(parsing: bytes) else { return nil }
        guard let again = try? written(UDPHeader.byteCount, header.emit(into:)),
            again.elementsEqual(bytes.prefix(again.count))
        else { return "UDP header emitted differently" }
        let packet = UnsafeRawBufferPointer(rebasing: bytes[UDPHeader.byteCount..<Int(header.length)])
        if let violation = Self.transport(packet) { return violation }
        guard (try? TransportPacket(parsing: packet)) != nil else { return nil }
        return check(header, packet)
    }

    private func recovered(_ header: IPv4Header, _ udp: UDPHeader, _ packet: UnsafeRawBufferPointer) -> String? {
        var known = IPv4Header(source: header.source, destination: header.destination, packetByteCount: packet.count)
        let assumed = ICRC(ipv4: known, udp: udp, packet: ICRC.covered(of: packet))
        known.identification = header.identification
        known.fragmentation = header.fragmentation & IPv4Header.dontFragment
        let right = ICRC(ipv4: known, udp: udp, packet: ICRC.covered(of: packet))
        let fields = recovery.fields(computed: assumed, received: right.value, packetByteCount: packet.count)
        if packet.count > PacketHeaders.maximumPacketByteCount {
            return fields == nil || assumed == right ? nil : "a packet that is too long was accepted"
        }
        let expected = IPv4IdentificationRecovery.Fields(
            identification: header.identification, dontFragment: known.fragmentation != 0)
        return fields == expected ? nil : "found \(fields as Any) instead of \(expected)"
    }
}
