import Foundation
import RoCEWire
import TestSupport
import Testing
import WireSupport

/// Compares emitted packets with the output of Wireshark's dissector, which is an independent implementation.
@Suite("Wireshark parses emitted packets", .enabled(if: Tshark.path != nil, "tshark is not installed"))
struct WiresharkTests {
    /// Opcodes whose headers Wireshark 4.0, the oldest in the supported distributions, does not support: it
    /// reports them, and shows the BTH only. It does the same with those of XRC, whose names it has.
    static let young: Set<Opcode> = [.rcFlush, .rcAtomicWrite, .congestionNotification]

    /// Packets of every opcode, over IPv4 or IPv6, with random fields.
    static func samples() throws -> [(headers: PacketHeaders, payload: [UInt8], bytes: [UInt8])] {
        var random = SplitMix(seed: 0x511)
        var samples: [(PacketHeaders, [UInt8], [UInt8])] = []
        for byte in UInt8.min...UInt8.max {
            let opcode = Opcode(rawValue: byte)
            guard opcode.isKnown else { continue }
            for size in opcode.hasPayload ? [0, 1, 2, 3, 64] : [0] {
                // Begins like an Ethernet frame with IPv4, which Wireshark's heuristics must not detect.
                let payload = Array([0x08, 0, 0, 0].prefix(size)) + random.bytes(max(size - 4, 0))
                let headers = Self.headers(opcode, &random)
                let length = headers.packetByteCount(payloadByteCount: size)
                let ip: IPHeader =
                    Bool.random(using: &random)
                    ? .v4(IPv4Header(source: 0x0A4D_0001, destination: 0x0A4D_0002, packetByteCount: length))
                    : .v6(
                        IPv6Header(
                            source: IPv6Address(high: 0xFD77 << 48, low: 1),
                            destination: IPv6Address(high: 0xFD77 << 48, low: 2), packetByteCount: length))
                let udp = UDPHeader(sourcePort: 0xC000 | random.any() >> 2, packetByteCount: length)
                samples.append((headers, payload, try emit(ip: ip, udp: udp, headers: headers, payload: payload)))
            }
        }
        return samples
    }

    static func headers(_ opcode: Opcode, _ random: inout SplitMix) -> PacketHeaders {
        // Wireshark dissects the payload of QP 0 and 1 as a MAD.
        let qpn = UInt32.random(in: 0x100...0xFF_FFFF, using: &random)
        var headers = PacketHeaders(
            BTH(
                opcode: opcode, destinationQPN: qpn, psn: PSN(random.any()), pkey: random.any(),
                acknowledgeRequest: .random(using: &random), solicited: .random(using: &random)))
        headers.bth.migrated = .random(using: &random)
        headers.xrceth = XRCETH(sharedReceiveQueueNumber: random.any() & 0xFF_FFFF)
        headers.deth = DETH(qkey: random.any(), sourceQPN: UInt32.random(in: 2...0xFF_FFFF, using: &random))
        headers.reth = RETH(virtualAddress: random.any(), rkey: random.any(), dmaLength: random.any())
        headers.atomicETH = AtomicETH(
            virtualAddress: random.any(), rkey: random.any(), swapOrAdd: random.any(), compare: random.any())
        headers.aeth = AETH(syndrome: .ack(credits: random.any()), msn: random.any() & 0xFF_FFFF)
        headers.atomicAckETH = AtomicAckETH(original: random.any())
        headers.immDt = ImmDt(value: random.any())
        headers.ieth = IETH(rkey: random.any())
        return headers
    }

    /// The fields that tshark must print of a packet; nil for a field that must be absent.
    static func expected(_ headers: PacketHeaders, payload: [UInt8], bytes: [UInt8]) -> [String: UInt64?] {
        let bth = headers.bth
        let has = bth.opcode.headers
        func only<T: BinaryInteger>(_ header: ExtendedHeaders, _ value: T) -> UInt64? {
            has.isDisjoint(with: header) ? nil : UInt64(value)
        }
        var expected: [String: UInt64?] = [
            "bth.opcode": UInt64(bth.opcode.rawValue), "bth.psn": UInt64(bth.psn.rawValue),
            "bth.destqp": UInt64(bth.destinationQPN), "bth.p_key": UInt64(bth.pkey),
            "bth.padcnt": UInt64((4 - payload.count % 4) % 4), "bth.tver": 0,
        ]
        expected["bth.se"] = bth.solicited ? 1 : 0
        expected["bth.m"] = bth.migrated ? 1 : 0
        expected["bth.a"] = bth.acknowledgeRequest ? 1 : 0
        expected["deth.q_key"] = only(.deth, headers.deth.qkey)
        expected["deth.srcqp"] = only(.deth, headers.deth.sourceQPN)
        // Wireshark has one name for the address and the key of RETH and AtomicETH.
        let remote = headers.atomicETH
        let isAtomic = has.contains(.atomicETH)
        expected["reth.va"] = only([.reth, .atomicETH], isAtomic ? remote.virtualAddress : headers.reth.virtualAddress)
        expected["reth.r_key"] = only([.reth, .atomicETH], isAtomic ? remote.rkey : headers.reth.rkey)
        expected["reth.dmalen"] = only(.reth, headers.reth.dmaLength)
        expected["atomiceth.swapdt"] = only(.atomicETH, remote.swapOrAdd)
        expected["atomiceth.cmpdt"] = only(.atomicETH, remote.compare)
        expected["aeth.syndrome"] = only(.aeth, headers.aeth.syndrome.rawValue)
        expected["aeth.msn"] = only(.aeth, headers.aeth.msn)
        expected["atomicacketh.origremdt"] = only(.atomicAckETH, headers.atomicAckETH.original)
        expected["immdt"] = only(.immDt, headers.immDt.value)
        expected["ieth"] = only(.ieth, headers.ieth.rkey)
        expected["invariant.crc"] = UInt64(Frame.trailer(bytes).byteSwapped)
        return expected
    }

    @Test("tshark prints the emitted values of packets of every opcode, and reports none as malformed")
    func dissection() throws {
        let samples = try Self.samples()
        let expected = samples.map { Self.expected($0.headers, payload: $0.payload, bytes: $0.bytes) }
        let fields = expected[0].keys.sorted()
        let printed = try Tshark.fields(fields.map { "infiniband.\($0)" }, of: PCAP.file(samples.map(\.bytes)))
        try #require(printed.count == samples.count)
        for (index, sample) in samples.enumerated() {
            let opcode = sample.headers.bth.opcode
            let isYoung = Self.young.contains(opcode) || opcode.transport == .extendedReliableConnection
            for field in fields where field.hasPrefix("bth.") || !isYoung {
                #expect(
                    Tshark.number(field, printed[index]["infiniband.\(field)"]) == expected[index][field],
                    "\(field) of opcode \(sample.headers.bth.opcode.rawValue), \(sample.payload.count) bytes")
            }
            #expect(printed[index]["_ws.malformed"] == "", "opcode \(sample.headers.bth.opcode.rawValue)")
            #expect(printed[index]["_ws.expert.message"] == "", "opcode \(sample.headers.bth.opcode.rawValue)")
        }
    }

    @Test("All heuristic dissectors of payloads are disabled")
    func guesses() throws {
        let known = try Tshark.knownGuesses()
        #expect(!known.isEmpty && known.isSubset(of: Tshark.guesses), "\(known)")
    }

    @Test("tshark reports truncated headers, and no packet of the kernel")
    func complaints() throws {
        // RETH, AETH with READ data, and AtomicETH; over IPv4 and IPv6.
        let cut = [27, 54, 59, 147].map { Capture.frame($0).cut(to: 3) }
        let complaints = try Tshark.complaints(of: PCAP.file(Capture.frames.map(\.bytes) + cut))
        try #require(complaints.count == Capture.frames.count + cut.count)
        for (index, complaint) in complaints.enumerated() {
            #expect(complaint.isEmpty == (index < Capture.frames.count), "packet \(index + 1): \(complaint)")
        }
    }
}
