import RoCEWire
import Testing
import WireSupport

@Suite("Errors of malformed packets")
struct PacketErrorTests {
    static func error(_ bytes: [UInt8]) -> PacketError? {
        do throws(PacketError) {
            _ = try parse(bytes, TransportPacket.init(parsing:))
            return nil
        } catch {
            return error
        }
    }

    /// The headers of an opcode, payload and ICRC: zeros except the opcode.
    static func packet(_ opcode: Opcode, payload: Int = 0) -> [UInt8] {
        [opcode.rawValue] + [UInt8](repeating: 0, count: opcode.headerByteCount - 1 + payload + 4)
    }

    @Test("Each captured packet that is truncated at any byte is an error")
    func cutFrames() {
        for frame in Capture.frames {
            let parsed = (0..<frame.bytes.count).filter {
                (try? Frame(number: 0, bytes: Array(frame.bytes[..<$0]))) != nil
            }
            #expect(parsed.isEmpty, "frame \(frame.number) parsed when cut to \(parsed) bytes")
        }
    }

    @Test("A packet that is truncated in a header or the ICRC names that part; elsewhere its ICRC is wrong")
    func cutPackets() {
        for frame in Capture.frames {
            let transport = frame.transport
            let least = frame.opcode.headerByteCount + ICRC.byteCount
            for count in 0..<transport.count {
                let bytes = Array(transport[..<count])
                let error = Self.error(bytes)
                if count < least {
                    guard case .truncated(let part, let needed, count) = error else {
                        Issue.record("frame \(frame.number) cut to \(count) bytes: \(String(describing: error))")
                        continue
                    }
                    #expect(needed > count && needed <= least)
                    #expect((part == .bth) == (count < 12))
                    #expect((part == .icrc) == (count >= least - 4))
                } else if let error {
                    if case .truncated = error { Issue.record("frame \(frame.number) cut to \(count) bytes: \(error)") }
                } else {
                    var udp = frame.udp
                    udp.length = UInt16(count + 8)
                    #expect(Frame.icrc(frame.ip, udp, bytes).value != Frame.trailer(bytes))
                }
            }
        }
    }

    @Test("The error names the header in which a packet ends")
    func truncatedParts() {
        #expect(Self.error([]) == .truncated(.bth, needed: 12, available: 0))
        let opcode = Opcode.udSendOnlyWithImmediate
        let bytes = Self.packet(opcode)
        #expect(Self.error(Array(bytes[..<13])) == .truncated(.deth, needed: 20, available: 13))
        #expect(Self.error(Array(bytes[..<20])) == .truncated(.immDt, needed: 24, available: 20))
        #expect(Self.error(Array(bytes[..<27])) == .truncated(.icrc, needed: 28, available: 27))
        #expect(Self.error(bytes) == nil)
        let ends: [(Opcode, PacketPart, Int)] = [
            (.rcWriteOnly, .reth, 28), (.rcFlush, .feth, 16), (.rcFetchAndAdd, .atomicETH, 40),
            (.rcAcknowledge, .aeth, 16), (.rcSendOnlyWithInvalidate, .ieth, 16),
            (.congestionNotification, .congestionReserved, 28),
        ]
        for (opcode, part, end) in ends {
            #expect(
                Self.error(Array(Self.packet(opcode)[..<(end - 1)]))
                    == .truncated(part, needed: end, available: end - 1))
        }
        #expect(
            Self.error(Array(Self.packet(.rcAtomicAcknowledge)[..<17]))
                == .truncated(.atomicAckETH, needed: 24, available: 17))
    }

    @Test("BTH.TVer other than 0 is an error")
    func transportVersion() {
        for version in 1...15 {
            var bytes = Self.packet(.rcSendOnly, payload: 4)
            bytes[1] = UInt8(version)
            #expect(Self.error(bytes) == .unsupportedTransportVersion(UInt8(version)))
        }
    }

    @Test("An unknown BTH.OpCode is an error that names it")
    func unknownOpcode() {
        for byte in UInt8.min...UInt8.max where !Opcode(rawValue: byte).isKnown {
            var bytes = Self.packet(.rcFetchAndAdd, payload: 8)
            bytes[0] = byte
            #expect(Self.error(bytes) == .unknownOpcode(Opcode(rawValue: byte)))
        }
        #expect(throws: PacketError.unknownOpcode(Opcode(rawValue: 0x15))) {
            let headers = PacketHeaders(BTH(opcode: Opcode(rawValue: 0x15), destinationQPN: 1, psn: PSN(1)))
            _ = try written(64) { raw throws(PacketError) in _ = try headers.emit(into: raw, payloadByteCount: 0) }
        }
    }

    @Test("BTH.PadCnt above the payload, and a payload that is not padded to four bytes, are errors")
    func pad() {
        for pad in 1...3 {
            var bytes = Self.packet(.rcSendOnly)
            bytes[1] = UInt8(pad << 4)
            #expect(Self.error(bytes) == .padExceedsPayload(pad: pad, available: 0))
        }
        for payload in [1, 2, 3, 5, 1023] {
            #expect(Self.error(Self.packet(.rcSendOnly, payload: payload)) == .unalignedPayload(payload))
        }
    }

    @Test("A buffer that is too short for a packet is an error, and no byte beyond it is written")
    func noRoom() throws {
        for byte in UInt8.min...UInt8.max where Opcode(rawValue: byte).isKnown {
            let headers = PacketHeaders(BTH(opcode: Opcode(rawValue: byte), destinationQPN: 1, psn: PSN(1)))
            let needed = headers.packetByteCount(payloadByteCount: 5)
            #expect(needed == headers.byteCount + 5 + 3 + 4)
            for count in 0..<needed {
                #expect(throws: PacketError.noRoom(needed: needed, available: count)) {
                    try written(count) { raw throws(PacketError) in _ = try headers.emit(into: raw, payloadByteCount: 5)
                    }
                }
            }
            #expect(throws: PacketError.noRoom(needed: headers.byteCount, available: headers.byteCount - 1)) {
                try written(headers.byteCount - 1) { raw throws(PacketError) in
                    _ = try headers.emitHeaders(into: raw, payloadByteCount: 5)
                }
            }
        }
        #expect(throws: PacketError.self) {
            let headers = PacketHeaders(BTH(opcode: .rcSendOnly, destinationQPN: 1, psn: PSN(1)))
            _ = try written(64) { raw throws(PacketError) in _ = try headers.emit(into: raw, payloadByteCount: -1) }
        }
    }

    @Test("IP headers of the wrong version or length, and wrong UDP lengths, are errors")
    func networkHeaders() {
        let zeros = [UInt8](repeating: 0, count: 64)
        #expect(throws: PacketError.ipVersion(6)) { try parse([0x65] + zeros, IPv4Header.init(parsing:)) }
        #expect(throws: PacketError.ipVersion(4)) { try parse([0x45] + zeros, IPv6Header.init(parsing:)) }
        #expect(throws: PacketError.ipHeaderLength(24)) { try parse([0x46] + zeros, IPv4Header.init(parsing:)) }
        #expect(throws: PacketError.ipHeaderLength(16)) { try parse([0x44] + zeros, IPv4Header.init(parsing:)) }
        #expect(throws: PacketError.udpLength(7)) {
            try parse([0, 0, 0, 0, 0, 7, 0, 0], UDPHeader.init(parsing:))
        }
        #expect(throws: PacketError.truncated(.udp, needed: 9, available: 8)) {
            try parse([0, 0, 0, 0, 0, 9, 0, 0], UDPHeader.init(parsing:))
        }
        for count in 0..<20 {
            #expect(throws: PacketError.truncated(.ipv4, needed: 20, available: count)) {
                try parse(Array(([0x45] + zeros)[..<count]), IPv4Header.init(parsing:))
            }
            #expect(throws: PacketError.noRoom(needed: 20, available: count)) {
                try written(count, IPv4Header(source: 1, destination: 2, packetByteCount: 16).emit(into:))
            }
        }
    }

    @Test("The description of an error contains the part and the numbers")
    func descriptions() {
        #expect(
            PacketError.truncated(.aeth, needed: 16, available: 13).description
                == "the packet ends inside the AETH: 13 bytes, where 16 are needed")
        let errors: [(PacketError, String)] = [
            (.noRoom(needed: 41, available: 17), "17 bytes is too short for the 41"),
            (.unsupportedTransportVersion(3), "transport version 3"),
            (.unknownOpcode(Opcode(rawValue: 21)), "opcode 21"),
            (.padExceedsPayload(pad: 3, available: 0), "3 bytes of pad, but there are 0"),
            (.unalignedPayload(5), "5 bytes together"), (.ipVersion(6), "IP version 6"),
            (.ipHeaderLength(24), "24 bytes"), (.udpLength(7), "is 7"),
        ]
        for (error, words) in errors { #expect("\(error)".contains(words), "\(error)") }
        let names: Set<String> = Set((0..<14).compactMap { PacketPart(rawValue: $0)?.name })
        #expect(names.count == 14)
    }
}
