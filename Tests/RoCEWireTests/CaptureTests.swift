import RoCEWire
import Testing

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
            #expect(
                Frame.icrc(frame.ip, frame.udp, frame.transport).value == Frame.trailer(frame.transport),
                "frame \(frame.number)")
        }
    }

    @Test("An ICRC fed in pieces of any size is the same")
    func icrcInPieces() throws {
        var random = Generator(seed: 7)
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
