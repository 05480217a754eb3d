import RoCEWire
import TestSupport
import Testing
import WireSupport

/// Compares with the packets that the kernel's rxe driver sent.
@Suite("Packets of the kernel's rxe")
struct CaptureTests {
    @Test("All 249 packets parse, and are emitted from their values as the same bytes, including the ICRC")
    func emitAgain() throws {
        #expect(Capture.frames.count == 249)
        for frame in Capture.frames {
            #expect(try frame.emitted() == frame.bytes, "frame \(frame.number)")
        }
    }

    @Test("The computed ICRC of every packet equals the one in the packet")
    func icrc() {
        for frame in Capture.frames {
            #expect(frame.hasRightICRC, "frame \(frame.number)")
        }
    }

    @Test("The ICRC is independent of the parts over which it is computed")
    func icrcInParts() throws {
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

    @Test("The computed IPv4 header checksum equals the one in the packet")
    func checksum() {
        for frame in Capture.frames {
            if case .v4(let header) = frame.ip { #expect(header.computedChecksum == header.checksum) }
        }
    }
}

/// Compares the packets with the list of Fixtures/rxe.pcap.md, which was written from the commands that the guests ran.
@Suite("Contents of the captured packets")
struct CaptureContentTests {
    static func opcodes(_ frames: ClosedRange<Int>) -> [Opcode] { frames.map { Capture.frame($0).opcode } }

    @Test("RC SENDs of nine sizes and two with immediate data, each acknowledged; PSNs start at 0xFFFFF0")
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

    @Test("RDMA WRITEs have a RETH, and the PSN wraps at frames 27 to 29")
    func writes() {
        #expect([27, 29, 31, 33, 35].map { Capture.frame($0).headers.reth.dmaLength } == [0, 1, 8, 1024, 2500])
        #expect([39, 41, 45].map { Capture.frame($0).headers.immDt.value } == [0x0102_0304, 0x0102_0305, 0x0102_0306])
        #expect([27, 28, 29].map { Capture.frame($0).headers.bth.psn.rawValue } == [0xFF_FFFF, 0xFF_FFFF, 0])
        #expect(Self.opcodes(35...38) == [.rcWriteFirst, .rcWriteMiddle, .rcWriteLast, .rcAcknowledge])
        #expect(Capture.frame(65).opcode == .rcWriteOnly && Capture.frame(67).opcode == .rcSendOnlyWithInvalidate)
        #expect(Capture.frame(67).headers.ieth.rkey == Capture.frame(65).headers.reth.rkey)
    }

    @Test("READs and atomics with their responses")
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
                .rcFetchAndAdd, .rcAtomicAcknowledge, .rcCompareAndSwap, .rcAtomicAcknowledge, .rcCompareAndSwap,
                .rcAtomicAcknowledge,
            ])
        #expect(Capture.frame(59).headers.atomicETH.swapOrAdd == 0x10)
        #expect(Capture.frame(60).headers.atomicAckETH.original == 0x1122_3344_5566_7788)
        // The first comparison was equal, the second was not.
        #expect(Capture.frame(61).headers.atomicETH.compare == Capture.frame(62).headers.atomicAckETH.original)
        #expect(Capture.frame(62).headers.atomicAckETH.original == 0x1122_3344_5566_7798)
        #expect(Capture.frame(64).headers.atomicAckETH.original == Capture.frame(61).headers.atomicETH.swapOrAdd)
        #expect(Capture.frame(63).headers.atomicETH.compare != Capture.frame(64).headers.atomicAckETH.original)
    }

    @Test("UC and UD packets")
    func unreliable() {
        #expect(
            Self.opcodes(69...77) == [
                .ucSendOnly, .ucSendFirst, .ucSendMiddle, .ucSendLast, .ucSendOnlyWithImmediate, .ucWriteFirst,
                .ucWriteMiddle, .ucWriteLast, .ucWriteOnlyWithImmediate,
            ])
        #expect(
            Self.opcodes(78...82) == [.udSendOnly, .udSendOnly, .udSendOnly, .udSendOnly, .udSendOnlyWithImmediate])
        #expect((78...82).map { Capture.frame($0).payload.count } == [0, 1, 8, 1024, 6])
        #expect((78...82).allSatisfy { Capture.frame($0).headers.deth.qkey == 0x1122_3344 })
        #expect(Capture.frame(80).headers.bth.solicited && !Capture.frame(79).headers.bth.solicited)
    }

    @Test("AETH syndromes of frames 83 to 120: RNR, remote access, invalid request, remote operational, PSN sequence")
    func syndromes() {
        func syndromes(_ frames: [Int]) -> [UInt8] { frames.map { Capture.frame($0).headers.aeth.syndrome.rawValue } }
        #expect(syndromes([84, 86, 88, 90, 92]) == [0x34, 0x34, 0x34, 0x34, 0x1F])
        #expect(Capture.frame(84).headers.aeth.syndrome == .rnrNAK(RNRTimer(rawValue: 20)))
        #expect(Capture.frame(84).headers.aeth.syndrome.timer.nanoseconds == 10_240_000)
        #expect(syndromes([94, 96]) == [0x2C, 0x2C])
        #expect(syndromes([98, 100]) == [0x62, 0x62])
        #expect(Capture.frame(98).headers.aeth.syndrome == .nak(.remoteAccessError))
        #expect(Capture.frame(102).headers.aeth.syndrome == .nak(.invalidRequest))
        #expect(syndromes([104, 106]) == [0x63, 0x63])
        #expect(Capture.frame(108).headers.aeth.syndrome == .nak(.psnSequenceError))
        // The request is one PSN ahead; the NAK has the expected PSN.
        #expect(Capture.frame(107).headers.bth.psn == Capture.frame(108).headers.bth.psn.next)
        #expect(
            [112, 114, 116].map { Capture.frame($0).headers.bth.psn.rawValue } == [0xFF_FFFF, 0xFF_FFFF, 0xFF_FFFF])
        #expect((117...120).allSatisfy { Capture.frame($0).headers.bth.destinationQPN == 0xABCDE })
    }

    @Test("IPv6 packets, and packets of the connection manager")
    func versions() {
        #expect((1...120).allSatisfy { Capture.frame($0).isIPv4 })
        #expect((121...202).allSatisfy { !Capture.frame($0).isIPv4 })
        #expect(Self.opcodes(121...202) == Self.opcodes(1...82))
        for frame in [203, 204, 205, 242, 243, 244, 245] {
            #expect(Capture.frame(frame).headers.bth.destinationQPN == 1)
            #expect(Capture.frame(frame).headers.deth == DETH(qkey: 0x8001_0000, sourceQPN: 1))
            #expect(Capture.frame(frame).payload.count == 256)
        }
        #expect((246...249).allSatisfy { Capture.frame($0).headers.deth.qkey == 0x0123_4567 })
    }

    @Test("Number of packets of each operation")
    func counts() {
        var counts: [Opcode.Operation: Int] = [:]
        for frame in Capture.frames { counts[frame.opcode.operation, default: 0] += 1 }
        #expect(counts.values.reduce(0, +) == 249)
        #expect(counts[.compareAndSwap] == 4 && counts[.fetchAndAdd] == 2 && counts[.atomicAcknowledge] == 6)
        #expect(counts[.readResponse].map { $0 > counts[.readRequest] ?? .max } == true)
        #expect(counts[.unknown] == nil)
    }
}
