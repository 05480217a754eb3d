import Foundation
import RoCETransport
import RoCEWire
import Testing

/// Frames of the capture of the kernel's rxe in the tests of RoCEWire. Fixtures/rxe.pcap.md lists them.
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

/// Passes the requests of the kernel's client in the capture to the engine's responder, and compares its responses with
/// those of the kernel's server.
@Suite("The responder returns the responses of the kernel's rxe")
struct KernelCaptureTests {
    let capture: KernelCapture

    init() throws { capture = try KernelCapture() }

    private func headers(_ frame: Int) throws -> PacketHeaders {
        let bytes = try #require(capture.packets[frame])
        return try bytes.withUnsafeBytes { try TransportPacket(parsing: $0).headers }
    }

    /// A probe in the state of the kernel's server when `frame` arrived.
    private func probe(at frame: Int, change: (inout Connection) -> Void = { _ in }) throws -> Probe {
        var connection = Connection()
        connection.peerPSN = try headers(frame).bth.psn.rawValue
        connection.minRNRTimer = 20
        change(&connection)
        return try Probe(.rc, connection)
    }

    /// Passes a frame to the engine, with the QPN of the probe and, in RETH and AtomicETH, the address of its memory.
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

    /// Compares opcode, PSN and syndrome of responses with those of the kernel in these frames.
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

    /// Passes the requests among frames of one connection to the engine; its responses must equal the frames between
    /// them.
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

    @Test("SENDs of all sizes, with and without immediate data, return the ACKs of the kernel (frames 1-26)")
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

    @Test("RDMA WRITEs, READs and atomics return the responses of the kernel, also where the PSN wraps (frames 27-64)")
    func oneSided() throws {
        let probe = try probe(at: 1)
        for id in 0..<14 { probe.postReceive(id: UInt64(id), bytes: 4096) }
        try play(1...26, probe)
        try play(27...46, probe)
        #expect(probe.host.poll().filter { $0.opcode == .receiveWriteWithImmediate }.map(\.byteCount) == [0, 7, 2500])
        try play(47...58, probe)
        probe.memory.storeBytes(of: 0x1122_3344_5566_7788, as: UInt64.self)
        try play(59...64, probe)
    }

    @Test("An RNR NAK has the timer code of min_rnr_timer (frames 83, 84)")
    func rnr() throws {
        let probe = try probe(at: 83)
        try replay(83, to: probe)
        try expect(probe.sent(), equal: [84])
    }

    @Test("A wrong R_Key, a READ out of range and a WRITE without access return the NAKs of the kernel (frames 97-102)")
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

    @Test("A receive work request with a wrong L_Key returns the NAK of the kernel (frames 105, 106)")
    func badReceive() throws {
        let probe = try probe(at: 105)
        var sge = probe.sge(4096)
        sge.lkey ^= 1
        probe.host.postReceive(probe.pair, id: 1, [sge])
        try replay(105, to: probe)
        try expect(probe.sent(), equal: [106])
    }

    @Test("A receive that is too short returns 0x61, as specified; this kernel returns 0x63 (frames 103, 104)")
    func shortReceive() throws {
        let probe = try probe(at: 103)
        probe.postReceive(bytes: 1)
        try replay(103, to: probe)
        #expect(probe.sent().map(\.syndrome) == [0x61])
        #expect(try headers(104).aeth.syndrome.rawValue == 0x63)
    }

    @Test("A PSN that is one ahead returns one NAK with the expected PSN, then no response (frames 107-110)")
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
