import RoCEWire
import TestSupport
import Testing
import WireSupport

@Suite("ICRC of IPv4 packets with unknown identification")
struct IPv4IdentificationRecoveryTests {
    /// Checks a packet with the values that a UDP socket returns: addresses, ports and payload.
    static func check(
        _ recovery: borrowing IPv4IdentificationRecovery, _ header: IPv4Header, _ udp: UDPHeader, _ transport: [UInt8],
        expected: UInt16 = 0
    ) -> IPv4IdentificationRecovery.Fields? {
        var known = IPv4Header(
            source: header.source, destination: header.destination, packetByteCount: transport.count)
        known.identification = expected
        return recovery.fields(
            computed: Frame.icrc(.v4(known), udp, transport), expected: expected, received: Frame.trailer(transport),
            packetByteCount: transport.count)
    }

    @Test("Every IPv4 packet of the kernel is accepted, and its identification is returned")
    func kernelPackets() {
        let recovery = IPv4IdentificationRecovery()
        var count = 0
        for frame in Capture.frames {
            guard case .v4(let header) = frame.ip else { continue }
            let fields = Self.check(recovery, header, frame.udp, frame.transport)
            #expect(fields?.identification == header.identification, "frame \(frame.number)")
            #expect(fields?.dontFragment == true, "frame \(frame.number)")
            count += 1
        }
        #expect(count > 100)
    }

    @Test("Any identification, with and without DF, is returned for every length of packet")
    func anyIdentification() throws {
        let recovery = IPv4IdentificationRecovery()
        var random = SplitMix(seed: 16)
        let bth = BTH(opcode: .rcSendOnly, destinationQPN: 0x11, psn: PSN(5))
        for count in 0...1100 {
            let payload = random.bytes(count)
            let length = PacketHeaders(bth).packetByteCount(payloadByteCount: count)
            var header = IPv4Header(source: random.any(), destination: random.any(), packetByteCount: length)
            header.identification = random.any()
            header.fragmentation = Bool.random(using: &random) ? IPv4Header.dontFragment : 0
            let udp = UDPHeader(sourcePort: random.any(), packetByteCount: length)
            let bytes = try emit(ip: .v4(header), udp: udp, headers: PacketHeaders(bth), payload: payload)
            let fields = Self.check(recovery, header, udp, Array(bytes[28...]))
            #expect(fields?.identification == header.identification, "\(count) bytes")
            #expect(fields?.dontFragment == (header.fragmentation != 0), "\(count) bytes")
            let other = Self.check(recovery, header, udp, Array(bytes[28...]), expected: random.any())
            #expect(other == fields, "\(count) bytes")
        }
    }

    @Test("A fragment is rejected: MF, a fragment offset, the reserved flag")
    func fragments() throws {
        let recovery = IPv4IdentificationRecovery()
        let frame = Capture.frame(35)
        guard case .v4(var header) = frame.ip else {
            Issue.record("frame 35 is IPv4")
            return
        }
        for bit in 0..<16 as Range<UInt16> where 1 << bit != IPv4Header.dontFragment {
            header.fragmentation = IPv4Header.dontFragment | 1 << bit
            let bytes = try emit(ip: .v4(header), udp: frame.udp, headers: frame.headers, payload: frame.payload)
            #expect(Self.check(recovery, header, frame.udp, Array(bytes[28...])) == nil, "bit \(bit)")
        }
    }

    @Test("Of all single changed bits in the kernel's packets, only one passes, and it appears as a missing DF")
    func corruption() {
        let recovery = IPv4IdentificationRecovery()
        var passed: Set<Int> = []
        for frame in Capture.frames {
            guard case .v4(let header) = frame.ip else { continue }
            var transport = frame.transport
            // The ICRC does not cover byte 4.
            for bit in 0..<transport.count * 8 where bit / 8 != 4 {
                transport[bit / 8] ^= 1 << UInt8(bit % 8)
                if let fields = Self.check(recovery, header, frame.udp, transport) {
                    passed.insert(bit)
                    #expect(!fields.dontFragment, "frame \(frame.number), bit \(bit)")
                }
                transport[bit / 8] ^= 1 << UInt8(bit % 8)
            }
        }
        #expect(passed == [173 * 8 + 3])
    }

    @Test("Of randomly corrupted packets, about one in 2^15 passes")
    func randomCorruption() {
        let recovery = IPv4IdentificationRecovery()
        var random = SplitMix(seed: 15)
        let icrc = Frame.icrc(Capture.frame(35).ip, Capture.frame(35).udp, Capture.frame(35).transport)
        var passed = 0
        for _ in 0..<1 << 20 {
            if recovery.fields(computed: icrc, received: random.any(), packetByteCount: 1056) != nil { passed += 1 }
        }
        #expect((16...48).contains(passed), "\(passed)")
    }

    @Test("A packet with other addresses or ports is rejected")
    func spoofed() {
        let recovery = IPv4IdentificationRecovery()
        for frame in Capture.frames {
            guard case .v4(var header) = frame.ip else { continue }
            header.source ^= 1
            #expect(Self.check(recovery, header, frame.udp, frame.transport) == nil)
            header.source ^= 1
            var udp = frame.udp
            udp.sourcePort ^= 0x100
            #expect(Self.check(recovery, header, udp, frame.transport) == nil)
        }
    }

    @Test("Lengths that no packet has are rejected")
    func lengths() {
        let recovery = IPv4IdentificationRecovery(maximumPacketByteCount: 64)
        let frame = Capture.frame(3)
        let icrc = Frame.icrc(frame.ip, frame.udp, frame.transport)
        for count in [Int.min, -4, 0, 3, 5, 66, 68, 4096, Int.max] {
            #expect(recovery.fields(computed: icrc, received: ~icrc.value, packetByteCount: count) == nil)
        }
        let none = IPv4IdentificationRecovery(maximumPacketByteCount: -1)
        #expect(none.fields(computed: icrc, received: ~icrc.value, packetByteCount: 20) == nil)
    }
}
