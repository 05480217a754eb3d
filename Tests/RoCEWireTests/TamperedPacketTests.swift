import RoCEWire
import TestSupport
import Testing
import WireSupport

@Suite("Corrupted packets")
struct TamperedPacketTests {
    /// Changes bytes, bits and lengths at random, as a fuzzer does.
    static func tamper(_ packet: [UInt8], _ random: inout SplitMix) -> [UInt8] {
        var bytes = packet
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard !bytes.isEmpty else { return bytes }
            // Half of the changes are in the headers.
            let index = Int.random(
                in: 0..<(Bool.random(using: &random) ? min(60, bytes.count) : bytes.count), using: &random)
            switch random.next() % 6 {
            case 0: bytes[index] = random.any()
            case 1: bytes[index] ^= 1 << (random.any(UInt8.self) % 8)
            case 2: bytes[index] = [0, 0xFF, 0x7F, 0x80][Int(random.next() % 4)]
            case 3: bytes.removeLast(Int.random(in: 0...min(40, bytes.count), using: &random))
            case 4: bytes += random.bytes(Int.random(in: 1...9, using: &random))
            default: bytes.remove(at: index)
            }
        }
        return bytes
    }

    @Test(
        "A corrupted packet does not crash a parser, and one that parses is emitted as the same bytes",
        arguments: 1...4 as ClosedRange<UInt64>)
    func tampered(seed: UInt64) {
        let property = PacketProperty()
        var random = SplitMix(seed: seed)
        var parsed = 0
        for _ in 0..<2000 {
            let frame = Capture.frames[Int(random.next() % UInt64(Capture.frames.count))]
            let bytes = Self.tamper(Bool.random(using: &random) ? frame.bytes : frame.transport, &random)
            if let violation = property.violation(bytes) {
                Issue.record("seed \(seed), frame \(frame.number): \(violation)\n\(bytes)")
            }
            if (try? parse(bytes, TransportPacket.init(parsing:))) != nil { parsed += 1 }
        }
        // The test means something only if both outcomes are frequent.
        #expect((200...1800).contains(parsed), "\(parsed) of 2000 parsed")
    }

    @Test("Captured packets that are not changed satisfy the same property")
    func untouched() {
        let property = PacketProperty()
        for frame in Capture.frames {
            #expect(property.violation(frame.bytes) == nil, "frame \(frame.number)")
            #expect(property.violation(frame.transport) == nil, "frame \(frame.number)")
        }
    }
}
