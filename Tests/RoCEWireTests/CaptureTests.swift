import RoCEWire
import TestSupport
import Testing
import WireSupport

/// What the kernel's rxe driver put on the wire, packet by packet.
@Suite("The Linux kernel's own packets")
struct CaptureTests {
    @Test("All 249 packets parse, and are emitted again from their values to the same bytes, ICRC included")
    func emitAgain() throws {
        #expect(Capture.frames.count == 249)
        for frame in Capture.frames {
            #expect(try frame.emitted() == frame.bytes, "frame \(frame.number)")
        }
    }

    @Test("Every recomputed ICRC equals the one in the packet")
    func icrc() {
        for frame in Capture.frames {
            #expect(frame.hasRightICRC, "frame \(frame.number)")
        }
    }

    @Test("An ICRC fed in pieces of any size is the same")
    func icrcInPieces() throws {
        var random = SplitMix(seed: 7)
        for frame in Capture.frames {
            let covered = Array(frame.transport.dropLast(ICRC.byteCount))
            var cut = Int.random(in: BTH.byteCount...covered.count, using: &random)
            var icrc = Frame.icrc(frame.ip, frame.udp, Array(covered[..<cut]) + [0, 0, 0, 0])
            while cut < covered.count {
                let next = Int.random(in: cut...min(covered.count, cut + 300), using: &random)
                Array(covered[cut..<next]).withUnsafeBytes { icrc.update($0) }
                cut = next
            }
            #expect(icrc.value == Frame.trailer(frame.transport), "frame \(frame.number)")
        }
    }

    @Test("The IPv4 header checksum recomputes")
    func checksum() {
        for frame in Capture.frames {
            if case .v4(let header) = frame.ip { #expect(header.computedChecksum == header.checksum) }
        }
    }
}

/// The classification of Fixtures/rxe.pcap.md, which was written from what the guests were told to do.
@Suite("What the captured packets are")
struct CaptureContentTests {
    static func opcodes(_ frames: ClosedRange<Int>) -> [Opcode] { frames.map { Capture.frame($0).opcode } }

    @Test("RC SENDs of nine sizes and two with immediate, each acknowledged; PSNs start at 0xFFFFF0")
    func sends() {
        #expect(
            Self.opcodes(1...26) == [
                .rcSendOnly, .rcAcknowledge, .rcSendOnly, .rcAcknowledge, .rcSendOnly, .rcAcknowledge, .rcSendOnly,
                .rcAcknowledge, .rcSendOnly, .rcAcknowledge, .rcSendOnly, .rcAcknowledge, .rcSendOnly, .rcAcknowledge,
                .rcSendFirst, .rcSendLast, .rcAcknowledge,
                .rcSendFirst, .rcSendMiddle, .rcSendLast, .rcAcknowledge,
                .rcSendOnlyWithImmediate, .rcAcknowledge,
                .rcSendFirst, .rcSendLastWithImmediate, .rcAcknowledge,
            ])
        #expect([1, 3, 5, 7, 9, 11, 13].map { Capture.frame($0).payload.count } == [0, 1, 2, 3, 4, 8, 1024])
        #expect([15, 16].map { Capture.frame($0).payload.count } == [1024, 1])
        #expect([18, 19, 20].map { Capture.frame($0).payload.count } == [1024, 1024, 952])
        #expect(Capture.frame(22).headers.immDt.value == 0xDEAD_BEEF && Capture.frame(22).payload.count == 5)
        #expect(Capture.frame(25).headers.immDt.value == 0xCAFE_F00D && Capture.frame(25).payload.count == 976)
        #expect(Capture.frame(1).headers.bth.psn == PSN(0xFF_FFF0))
        #expect((1...26).filter { Capture.frame($0).headers.bth.solicited } == [11])
        // Payload bytes count up from the operation's seed.
        let payload = Capture.frame(13).payload
        #expect(zip(payload, payload.dropFirst()).allSatisfy { $1 == $0 &+ 1 })
    }

    @Test("WRITEs carry their RETH, and the PSN wraps at frames 27 to 29")
    func writes() {
        #expect([27, 29, 31, 33, 35].map { Capture.frame($0).headers.reth.dmaLength } == [0, 1, 8, 1024, 2500])
        #expect([39, 41, 45].map { Capture.frame($0).headers.immDt.value } == [0x0102_0304, 0x0102_0305, 0x0102_0306])
        #expect([27, 28, 29].map { Capture.frame($0).headers.bth.psn.rawValue } == [0xFF_FFFF, 0xFF_FFFF, 0])
        #expect(Self.opcodes(35...38) == [.rcWriteFirst, .rcWriteMiddle, .rcWriteLast, .rcAcknowledge])
        #expect(Capture.frame(65).opcode == .rcWriteOnly && Capture.frame(67).opcode == .rcSendOnlyWithInvalidate)
        #expect(Capture.frame(67).headers.ieth.remoteKey == Capture.frame(65).headers.reth.remoteKey)
    }

    @Test("READs and atomics, with their answers")
    func readsAndAtomics() {
        #expect([47, 49, 51, 53].map { Capture.frame($0).headers.reth.dmaLength } == [0, 8, 1024, 4097])
        #expect(
            Self.opcodes(53...58) == [
                .rcReadRequest, .rcReadResponseFirst, .rcReadResponseMiddle, .rcReadResponseMiddle,
                .rcReadResponseMiddle, .rcReadResponseLast,
            ])
        #expect(Capture.frame(58).payload.count == 1 && Capture.frame(58).headers.bth.padCount == 3)
        #expect(
            Self.opcodes(59...64) == [
                .rcFetchAdd, .rcAtomicAcknowledge, .rcCompareSwap, .rcAtomicAcknowledge, .rcCompareSwap,
                .rcAtomicAcknowledge,
            ])
        #expect(Capture.frame(59).headers.atomicETH.swapOrAdd == 0x10)
        #expect(Capture.frame(60).headers.atomicAckETH.original == 0x1122_3344_5566_7788)
        // The first comparison held, the second did not.
        #expect(Capture.frame(61).headers.atomicETH.compare == Capture.frame(62).headers.atomicAckETH.original)
        #expect(Capture.frame(62).headers.atomicAckETH.original == 0x1122_3344_5566_7798)
        #expect(Capture.frame(64).headers.atomicAckETH.original == Capture.frame(61).headers.atomicETH.swapOrAdd)
        #expect(Capture.frame(63).headers.atomicETH.compare != Capture.frame(64).headers.atomicAckETH.original)
    }

    @Test("UC and UD")
    func unreliable() {
        #expect(
            Self.opcodes(69...77) == [
                .ucSendOnly, .ucSendFirst, .ucSendMiddle, .ucSendLast, .ucSendOnlyWithImmediate, .ucWriteFirst,
                .ucWriteMiddle, .ucWriteLast, .ucWriteOnlyWithImmediate,
            ])
        #expect(
            Self.opcodes(78...82) == [.udSendOnly, .udSendOnly, .udSendOnly, .udSendOnly, .udSendOnlyWithImmediate])
        #expect((78...82).map { Capture.frame($0).payload.count } == [0, 1, 8, 1024, 6])
        #expect((78...82).allSatisfy { Capture.frame($0).headers.deth.queueKey == 0x1122_3344 })
        #expect(Capture.frame(80).headers.bth.solicited && !Capture.frame(79).headers.bth.solicited)
    }

    @Test("The syndromes of frames 83 to 120: RNR, access, request, operation and sequence errors")
    func syndromes() {
        func syndromes(_ frames: [Int]) -> [UInt8] { frames.map { Capture.frame($0).headers.aeth.syndrome.rawValue } }
        #expect(syndromes([84, 86, 88, 90, 92]) == [0x34, 0x34, 0x34, 0x34, 0x1F])
        #expect(Capture.frame(84).headers.aeth.syndrome == .rnrNak(RNRTimer(rawValue: 20)))
        #expect(Capture.frame(84).headers.aeth.syndrome.timer.nanoseconds == 10_240_000)
        #expect(syndromes([94, 96]) == [0x2C, 0x2C])
        #expect(syndromes([98, 100]) == [0x62, 0x62])
        #expect(Capture.frame(98).headers.aeth.syndrome == .nak(.remoteAccessError))
        #expect(Capture.frame(102).headers.aeth.syndrome == .nak(.invalidRequest))
        #expect(syndromes([104, 106]) == [0x63, 0x63])
        #expect(Capture.frame(108).headers.aeth.syndrome == .nak(.psnSequenceError))
        // Sent one ahead; the NAK names the PSN expected.
        #expect(Capture.frame(107).headers.bth.psn == Capture.frame(108).headers.bth.psn.next)
        #expect(
            [112, 114, 116].map { Capture.frame($0).headers.bth.psn.rawValue } == [0xFF_FFFF, 0xFF_FFFF, 0xFF_FFFF])
        #expect((117...120).allSatisfy { Capture.frame($0).headers.bth.destinationQP == 0xABCDE })
    }

    @Test("IPv6 and the connection manager's packets")
    func versions() {
        #expect((1...120).allSatisfy { Capture.frame($0).isIPv4 })
        #expect((121...202).allSatisfy { !Capture.frame($0).isIPv4 })
        #expect(Self.opcodes(121...202) == Self.opcodes(1...82))
        for frame in [203, 204, 205, 242, 243, 244, 245] {
            #expect(Capture.frame(frame).headers.bth.destinationQP == 1)
            #expect(Capture.frame(frame).headers.deth == DETH(queueKey: 0x8001_0000, sourceQP: 1))
            #expect(Capture.frame(frame).payload.count == 256)
        }
        #expect((246...249).allSatisfy { Capture.frame($0).headers.deth.queueKey == 0x0123_4567 })
    }

    @Test("How many packets there are of each operation")
    func counts() {
        var counts: [Opcode.Operation: Int] = [:]
        for frame in Capture.frames { counts[frame.opcode.operation, default: 0] += 1 }
        #expect(counts.values.reduce(0, +) == 249)
        #expect(counts[.compareSwap] == 4 && counts[.fetchAdd] == 2 && counts[.atomicAcknowledge] == 6)
        #expect(counts[.readResponse].map { $0 > counts[.readRequest] ?? .max } == true)
        #expect(counts[.unknown] == nil)
    }
}
