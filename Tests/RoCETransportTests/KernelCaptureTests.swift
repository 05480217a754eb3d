import Foundation
import RoCETransport
import RoCEWire
import Testing

/// Frames of the capture of the Linux kernel's rxe driver, which lies with RoCEWire's tests; which frame is what
/// stands in the test that uses it.
struct KernelCapture {
    /// UDP payloads, BTH to ICRC, by frame number from 1 on, of the IPv4 frames; nil for the others.
    let packets: [[UInt8]?]

    init() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../RoCEWireTests/Fixtures/rxe.pcap")
        let bytes = [UInt8](try Data(contentsOf: file))
        var packets: [[UInt8]?] = [nil]
        // pcap: 24 bytes of file header, 16 per packet with the length at 8; Ethernet 14, IPv4 20, UDP 8.
        var place = 24
        while place + 16 <= bytes.count {
            let length = (0..<4).reduce(0) { $0 | Int(bytes[place + 8 + $1]) << (8 * $1) }
            let frame = Array(bytes[place + 16..<place + 16 + length])
            let isIPv4 = frame[12] == 0x08 && frame[13] == 0x00
            let total = Int(frame[16]) << 8 | Int(frame[17])
            packets.append(isIPv4 ? Array(frame[42..<14 + total]) : nil)
            place += 16 + length
        }
        self.packets = packets
    }
}

/// The kernel's client talks to our responder: requests from the capture go in, and what comes out is compared with
/// what the kernel's server answered.
@Suite("Our responder and the kernel's")
struct KernelCaptureTests {
    let capture: KernelCapture

    init() throws { capture = try KernelCapture() }

    private func headers(_ frame: Int) throws -> PacketHeaders {
        let bytes = try #require(capture.packets[frame])
        return try bytes.withUnsafeBytes { try TransportPacket(parsing: $0).headers }
    }

    /// A probe that stands where the kernel's server stood when `frame` arrived.
    private func probe(at frame: Int, change: (inout Connection) -> Void = { _ in }) throws -> Probe {
        var connection = Connection()
        connection.peerPSN = try headers(frame).bth.psn.rawValue
        connection.minRNRTimer = 20
        change(&connection)
        return try Probe(.rc, connection)
    }

    /// Hands a frame over, addressed to our queue pair and, where it has a RETH or AtomicETH, to our memory.
    private func replay(_ frame: Int, to probe: Probe, keepKey: Bool = false, offset: UInt64 = 0) throws {
        var bytes = try #require(capture.packets[frame])
        let opcode = try headers(frame).bth.opcode
        bytes.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: UInt32(probe.pair.number).bigEndian, toByteOffset: 4, as: UInt32.self)
            guard opcode.headers.contains(.reth) || opcode.headers.contains(.atomicETH) else { return }
            bytes.storeBytes(of: (probe.address + offset).bigEndian, toByteOffset: 12, as: UInt64.self)
            if !keepKey { bytes.storeBytes(of: probe.host.key.bigEndian, toByteOffset: 20, as: UInt32.self) }
        }
        probe.receive(bytes)
    }

    /// Compares opcode, PSN and syndrome of our answers with those of the kernel's in these frames.
    private func expect(_ answers: [Probe.Sent], equal frames: [Int], messages: Bool = false) throws {
        #expect(answers.count == frames.count, "frames \(frames)")
        for (answer, frame) in zip(answers, frames) {
            let kernel = try headers(frame)
            #expect(answer.opcode == kernel.bth.opcode, "frame \(frame)")
            #expect(answer.headers.bth.psn == kernel.bth.psn, "frame \(frame)")
            #expect(answer.headers.bth.acknowledgeRequest == kernel.bth.acknowledgeRequest, "frame \(frame)")
            if kernel.bth.opcode.headers.contains(.aeth) {
                #expect(answer.headers.aeth.syndrome == kernel.aeth.syndrome, "frame \(frame)")
                if messages { #expect(answer.headers.aeth.msn == kernel.aeth.msn, "frame \(frame)") }
            }
        }
    }

    /// Plays a run of frames of one connection: requests go in, and our answers must be the frames between them.
    private func play(_ frames: ClosedRange<Int>, _ probe: Probe) throws {
        for frame in frames {
            let opcode = try headers(frame).bth.opcode
            if opcode.isResponse { continue }
            try replay(frame, to: probe)
            var answers: [Int] = []
            var next = frame + 1
            while next <= frames.upperBound, try headers(next).bth.opcode.isResponse {
                answers.append(next)
                next += 1
            }
            try expect(probe.sent(), equal: answers, messages: true)
        }
    }

    @Test("SENDs of all sizes, with and without immediate: an equal ACK for each (frames 1-26)")
    func sends() throws {
        let probe = try probe(at: 1)
        for id in 0..<11 { probe.postReceive(id: UInt64(id), bytes: 4096) }
        try play(1...26, probe)
        let completions = probe.host.poll()
        #expect(completions.map(\.byteCount) == [0, 1, 2, 3, 4, 8, 1024, 1025, 3000, 5, 2000])
        #expect(completions[9].immediate == UInt32(0xDEAD_BEEF).bigEndian)
        #expect(completions[10].immediate == UInt32(0xCAFE_F00D).bigEndian)
        #expect(completions.allSatisfy { $0.status == .success })
    }

    @Test("WRITEs, WRITEs with immediate, READs and atomics, over the wrap of the PSN (frames 27-64)")
    func oneSided() throws {
        let probe = try probe(at: 1)
        for id in 0..<14 { probe.postReceive(id: UInt64(id), bytes: 4096) }
        try play(1...26, probe)
        try play(27...46, probe)
        #expect(probe.host.poll().filter { $0.opcode == .receiveWriteImmediate }.map(\.byteCount) == [0, 7, 2500])
        try play(47...58, probe)
        probe.memory.storeBytes(of: 0x1122_3344_5566_7788, as: UInt64.self)
        try play(59...64, probe)
    }

    @Test("RNR NAK with the timer code of the attribute (frames 83, 84)")
    func rnr() throws {
        let probe = try probe(at: 83)
        try replay(83, to: probe)
        try expect(probe.sent(), equal: [84])
    }

    @Test("A bad key, a READ out of range, a WRITE without permission (frames 97-102)")
    func refusals() throws {
        let badKey = try probe(at: 97)
        try replay(97, to: badKey, keepKey: true)
        try expect(badKey.sent(), equal: [98])
        let outside = try probe(at: 99)
        try replay(99, to: outside, offset: UInt64(outside.host.memory.count))
        try expect(outside.sent(), equal: [100])
        let forbidden = try probe(at: 101) { $0.access = [.localWrite] }
        try replay(101, to: forbidden)
        try expect(forbidden.sent(), equal: [102])
    }

    @Test("A receive with a bad key answers as the kernel does (frames 105, 106)")
    func badReceive() throws {
        let probe = try probe(at: 105)
        var element = probe.element(4096)
        element.key ^= 1
        probe.host.postReceive(probe.pair, id: 1, [element])
        try replay(105, to: probe)
        try expect(probe.sent(), equal: [106])
    }

    @Test("A receive too short: 0x61 as the specification wants, where this kernel says 0x63 (frames 103, 104)")
    func shortReceive() throws {
        let probe = try probe(at: 103)
        probe.postReceive(bytes: 1)
        try replay(103, to: probe)
        #expect(probe.sent().map(\.syndrome) == [0x61])
        #expect(try headers(104).aeth.syndrome.rawValue == 0x63)
    }

    @Test("One PSN ahead: one NAK that names the expected PSN, then silence (frames 107-110)")
    func ahead() throws {
        let probe = try probe(at: 107) { $0.peerPSN = ($0.peerPSN &- 1) & 0xFF_FFFF }
        probe.postReceive(bytes: 4096)
        let requests = try (107...110).filter { try headers($0).bth.opcode.isRequest }
        let answers = try (107...110).filter { try headers($0).bth.opcode.isResponse }
        var sent: [Probe.Sent] = []
        for frame in requests {
            try replay(frame, to: probe)
            sent += probe.sent()
        }
        try expect(sent, equal: answers)
    }
}
