import RoCEWire
import TestSupport
import Testing

@Suite("Packet sequence numbers")
struct PSNTests {
    @Test("PSNs wrap at 24 bits in both directions")
    func wrap() {
        #expect(PSN(0xFF_FFFF).next == PSN(0))
        #expect(PSN(0) &- 1 == PSN(0xFF_FFFF))
        #expect(PSN(0xFF_FFF0) &+ 0x20 == PSN(0x10))
        #expect(PSN(5) &+ 0x100_0000 == PSN(5))
        #expect(PSN(5) &+ UInt32.max == PSN(4))
        #expect(PSN(0xABCD_EF01).rawValue == 0xCD_EF01)
    }

    @Test("The distance is signed, and a PSN that is 2^23 away is behind")
    func distance() {
        #expect(PSN(0xFF_FFFE).distance(to: PSN(3)) == 5)
        #expect(PSN(3).distance(to: PSN(0xFF_FFFE)) == -5)
        #expect(PSN(7).distance(to: PSN(7)) == 0)
        #expect(PSN(0).distance(to: PSN(0x7F_FFFF)) == 0x7F_FFFF)
        #expect(PSN(0).distance(to: PSN(0x80_0000)) == -0x80_0000)
        #expect(PSN(0xFF_FFFF).precedes(PSN(0)))
        #expect(!PSN(0).precedes(PSN(0)) && !PSN(0).precedes(PSN(0xFF_FFFF)))
    }

    @Test("A PSN plus its distance to another PSN is the other PSN")
    func roundTrip() {
        var random = SplitMix(seed: 24)
        for _ in 0..<1000 {
            let from = PSN(random.any())
            let to = PSN(random.any())
            #expect(from &+ UInt32(bitPattern: from.distance(to: to)) == to)
        }
    }
}
