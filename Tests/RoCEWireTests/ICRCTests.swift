import RoCEWire
import Testing
import WireSupport

@Suite("Invariant CRC")
struct ICRCTests {
    /// Captured packets: IP header to pad, and the four bytes of the ICRC.
    @Test(
        "The ICRC of known IPv4 packets is correct",
        arguments: [
            (
                "4528003014ba40004011113f0a4d00010a4d0002e34112b7001c00000430ffff0000001180fffff110000000", "04600cb7"
            ),
            (
                """
                45280038739740004011b2590a4d00020a4d0001e34112b7002400001200ffff00000011000000131f000018\
                1122334455667788
                """, "d923027c"
            ),
            (
                """
                4528003814f44000401110fd0a4d00010a4d0002d07812b7002400006430ffff000000130000070111223344\
                0000001342000000
                """, "f662f7ca"
            ),
        ])
    func vectors(covered: String, trailer: String) throws {
        let frame = try Frame(number: 0, bytes: hex(covered + trailer))
        let icrc = Frame.icrc(frame.ip, frame.udp, frame.transport)
        #expect(try written(4) { raw in icrc.store(at: raw.baseAddress!) } == hex(trailer))
        #expect(try frame.emitted() == frame.bytes)
    }

    @Test("The ICRC of a known IPv6 packet is correct")
    func ipv6() {
        let frame = Capture.frame(122)
        #expect(Array(frame.bytes.prefix(8)) == hex("62800000001c1140"))
        #expect(Array(frame.bytes.suffix(24)) == hex("001c00001100ffff0000001f00fffff01f000001d0c308f2"))
        #expect(Frame.icrc(frame.ip, frame.udp, frame.transport).value == 0xF208_C3D0)
    }

    /// The bits that a router may change, of each byte from the IP header on.
    static func masked(_ frame: Frame) -> [Int: UInt8] {
        var masked: [Int: UInt8] =
            frame.isIPv4
            ? [1: 0xFF, 8: 0xFF, 10: 0xFF, 11: 0xFF] : [0: 0x0F, 1: 0xFF, 2: 0xFF, 3: 0xFF, 7: 0xFF]
        masked[frame.packetOffset - 2] = 0xFF
        masked[frame.packetOffset - 1] = 0xFF
        masked[frame.packetOffset + 4] = 0xFF
        return masked
    }

    /// True when all of the bytes parse as one packet, and its ICRC is correct.
    static func accepted(_ bytes: UnsafeRawBufferPointer, _ packetOffset: Int) -> Bool {
        let packet = UnsafeRawBufferPointer(rebasing: bytes[packetOffset...])
        let datagram = UnsafeRawBufferPointer(rebasing: bytes[(packetOffset - UDPHeader.byteCount)...])
        do throws(PacketError) {
            let udp = try UDPHeader(parsing: datagram)
            guard udp.payloadByteCount == packet.count else { return false }
            _ = try TransportPacket(parsing: packet)
            let icrc =
                packetOffset == 28
                ? ICRC(ipv4: try IPv4Header(parsing: bytes), udp: udp, packet: ICRC.covered(of: packet))
                : ICRC(ipv6: try IPv6Header(parsing: bytes), udp: udp, packet: ICRC.covered(of: packet))
            return icrc.value == ICRC.trailer(of: packet)
        } catch {
            return false
        }
    }

    @Test(
        """
        The ICRC detects each changed bit of the headers and of the ICRC, and one in each byte of payload; bits that \
        routers may change are not covered
        """)
    func singleBits() {
        for frame in Capture.frames {
            let masked = Self.masked(frame)
            var bytes = frame.bytes
            var wrong: [Int] = []
            bytes.withUnsafeMutableBytes { raw in
                let payload = frame.packetOffset + frame.packet.payload.lowerBound..<raw.count - ICRC.byteCount
                for bit in 0..<raw.count * 8 where !payload.contains(bit / 8) || bit % 8 == bit / 8 % 8 {
                    let mask: UInt8 = 1 << UInt8(bit % 8)
                    raw[bit / 8] ^= mask
                    let harmless = masked[bit / 8, default: 0] & mask != 0
                    if Self.accepted(UnsafeRawBufferPointer(raw), frame.packetOffset) != harmless { wrong.append(bit) }
                    raw[bit / 8] ^= mask
                }
            }
            #expect(wrong.isEmpty, "frame \(frame.number): bits \(wrong)")
        }
    }

    @Test("The ICRC over headers and payload in separate buffers equals that over one buffer")
    func scattered() throws {
        for frame in Capture.frames {
            var headers = try written(PacketHeaders.maximumByteCount) { raw throws(PacketError) in
                #expect(
                    try frame.headers.emitHeaders(into: raw, payloadByteCount: frame.payload.count)
                        == frame.headers.byteCount)
            }
            headers.removeLast(headers.count - frame.headers.byteCount)
            var icrc = Frame.icrc(frame.ip, frame.udp, headers + [0, 0, 0, 0])
            frame.payload.withUnsafeBytes { icrc.update($0) }
            let pad = PacketHeaders.padCount(payloadByteCount: frame.payload.count)
            [UInt8](repeating: 0, count: pad).withUnsafeBytes { icrc.update($0) }
            #expect(icrc.value == Frame.trailer(frame.transport), "frame \(frame.number)")
        }
    }
}
