import RoCEWire
import TestSupport
import Testing
import WireSupport

@Suite("Headers")
struct HeaderTests {
    /// Parses `Header.byteCount` random bytes and emits the header; the reserved bits are 0 then.
    static func roundTrip<Header: WireFormat>(_ type: Header.Type, reserved: [Int: UInt8] = [:]) throws {
        var random = SplitMix(seed: UInt64(Header.byteCount))
        for _ in 0..<200 {
            let raw = random.bytes(Header.byteCount)
            let value = try parse(raw, Header.init(parsing:))
            var expected = raw
            for (index, bits) in reserved { expected[index] &= ~bits }
            let emitted = try written(Header.byteCount, value.emit(into:))
            #expect(emitted == expected)
            #expect(try parse(emitted, Header.init(parsing:)) == value)
        }
        for count in 0..<Header.byteCount {
            #expect(throws: PacketError.truncated(Header.part, needed: Header.byteCount, available: count)) {
                try parse([UInt8](repeating: 0, count: count), Header.init(parsing:))
            }
            let value = try parse([UInt8](repeating: 0xFF, count: Header.byteCount), Header.init(parsing:))
            #expect(throws: PacketError.noRoom(needed: Header.byteCount, available: count)) {
                try written(count, value.emit(into:))
            }
        }
    }

    @Test("Every header that is parsed from random bytes is emitted as the same bytes, with reserved bits 0")
    func roundTrips() throws {
        try Self.roundTrip(BTH.self, reserved: [4: 0x3F, 8: 0x7F])
        try Self.roundTrip(XRCETH.self, reserved: [0: 0xFF])
        try Self.roundTrip(DETH.self, reserved: [4: 0xFF])
        try Self.roundTrip(RETH.self)
        try Self.roundTrip(AtomicETH.self)
        try Self.roundTrip(AETH.self)
        try Self.roundTrip(AtomicAckETH.self)
        try Self.roundTrip(ImmDt.self)
        try Self.roundTrip(IETH.self)
        try Self.roundTrip(FETH.self, reserved: [0: 0xFF, 1: 0xFF, 2: 0xFF, 3: 0xC0])
    }

    @Test("Each field has the position of the specification")
    func layout() throws {
        var bth = BTH(opcode: .rcSendOnly, destinationQPN: 0x12_3456, psn: PSN(0xAB_CDEF), pkey: 0x7FFE)
        bth.padCount = 3
        #expect(try written(12, bth.emit(into:)) == hex("04 30 7FFE 00 123456 00 ABCDEF"))
        bth.solicited = true
        bth.migrated = true
        bth.fecn = true
        bth.acknowledgeRequest = true
        #expect(try written(12, bth.emit(into:)) == hex("04 F0 7FFE 80 123456 80 ABCDEF"))
        bth.becn = true
        bth.transportVersion = 5
        #expect(try written(12, bth.emit(into:)) == hex("04 F5 7FFE C0 123456 80 ABCDEF"))
        #expect(try written(4, XRCETH(sharedReceiveQueueNumber: 0xFF12_3456).emit(into:)) == hex("00 123456"))
        #expect(
            try written(8, DETH(qkey: 0x8001_0000, sourceQPN: 0xFF00_0001).emit(into:)) == hex("80010000 00 000001"))
        #expect(
            try written(
                16, RETH(virtualAddress: 0x0102_0304_0506_0708, rkey: 0x1112_1314, dmaLength: 9).emit(into:))
                == hex("0102030405060708 11121314 00000009"))
        #expect(
            try written(
                28, AtomicETH(virtualAddress: 1, rkey: 2, swapOrAdd: 3, compare: 4).emit(into:))
                == hex("0000000000000001 00000002 0000000000000003 0000000000000004"))
        #expect(
            try written(4, AETH(syndrome: .nak(.remoteAccessError), msn: 0x0100_0007).emit(into:)) == hex("62 000007"))
        #expect(try written(8, AtomicAckETH(original: 0x1122_3344_5566_7788).emit(into:)) == hex("1122334455667788"))
        #expect(try written(4, ImmDt(value: 0xDEAD_BEEF).emit(into:)) == hex("DEADBEEF"))
        #expect(try written(4, IETH(rkey: 0x0800_0106).emit(into:)) == hex("08000106"))
        #expect(try written(4, FETH(placement: 2, selectivity: 1).emit(into:)) == hex("00000012"))
    }

    @Test("AETH syndromes have the kind, credit count, timer code and NAK code of the specification")
    func syndromes() {
        #expect(AETHSyndrome.ack.rawValue == 0x1F && AETHSyndrome.ack.kind == .ack)
        #expect(AETHSyndrome.ack(credits: 5).credits == 5 && AETHSyndrome.ack(credits: 5).kind == .ack)
        #expect(AETHSyndrome.rnrNAK(RNRTimer(rawValue: 20)).rawValue == 0x34)
        #expect(AETHSyndrome(rawValue: 0x2C).kind == .rnrNAK && AETHSyndrome(rawValue: 0x2C).timer.rawValue == 12)
        #expect(AETHSyndrome.nak(.psnSequenceError).rawValue == 0x60)
        #expect(AETHSyndrome.nak(.invalidRequest).rawValue == 0x61)
        #expect(AETHSyndrome.nak(.remoteOperationalError).rawValue == 0x63)
        #expect(AETHSyndrome.nak(.invalidRDRequest).nakCode == .invalidRDRequest)
        for byte in UInt8.min...UInt8.max {
            let expected: AETHSyndrome.Kind =
                byte & 0x80 != 0 ? .reserved : [.ack, .rnrNAK, .reserved, .nak][Int(byte >> 5)]
            #expect(AETHSyndrome(rawValue: byte).kind == expected)
        }
    }

    @Test("RNR timer codes have the times of the specification's table")
    func timers() {
        let hundredths: [UInt64] = [
            65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072,
            4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
        ]
        for (code, time) in hundredths.enumerated() {
            #expect(RNRTimer(rawValue: UInt8(code)).nanoseconds == time * 10_000, "code \(code)")
        }
        #expect(RNRTimer(rawValue: 32 + 12) == RNRTimer(rawValue: 12))
    }

    @Test("IPv4, IPv6 and UDP headers that are parsed from random bytes are emitted as the same bytes")
    func networkHeaders() throws {
        var random = SplitMix(seed: 4791)
        for _ in 0..<200 {
            let ipv4 = [0x45] + random.bytes(19)
            let header4 = try parse(ipv4, IPv4Header.init(parsing:))
            #expect(try written(20, header4.emit(into:)) == ipv4)
            let ipv6 = [0x60 | random.any() >> 4] + random.bytes(39)
            let header6 = try parse(ipv6, IPv6Header.init(parsing:))
            #expect(try written(40, header6.emit(into:)) == ipv6)
            let udp = random.bytes(4) + [0, 8] + random.bytes(2)
            let headerUDP = try parse(udp, UDPHeader.init(parsing:))
            #expect(try written(8, headerUDP.emit(into:)) == udp)
        }
    }

    @Test("IP and UDP headers of a sender equal those of the capture, except identification and checksum")
    func senderHeaders() throws {
        for frame in Capture.frames {
            switch frame.ip {
            case .v4(let captured):
                var header = IPv4Header(
                    source: captured.source, destination: captured.destination,
                    packetByteCount: frame.transport.count, typeOfService: captured.typeOfService,
                    timeToLive: captured.timeToLive)
                #expect(header.identification == 0 && header.computedChecksum == header.checksum)
                header.identification = captured.identification
                header.checksum = header.computedChecksum
                #expect(header == captured, "frame \(frame.number)")
            case .v6(let captured):
                let header = IPv6Header(
                    source: captured.source, destination: captured.destination,
                    packetByteCount: frame.transport.count, trafficClass: captured.trafficClass,
                    flowLabel: captured.flowLabel, hopLimit: captured.hopLimit)
                #expect(header == captured, "frame \(frame.number)")
            }
            let udp = UDPHeader(sourcePort: frame.udp.sourcePort, packetByteCount: frame.transport.count)
            #expect(udp == frame.udp && udp.payloadByteCount == frame.transport.count, "frame \(frame.number)")
        }
    }
}
