import Foundation
import Testing
import WireSupport

/// The RoCE packets that cross veth0, in both directions.
enum PacketCapture {
    /// The data of a datagram that ends a capture: the kernel passes packets on in blocks, and not those of the last block when
    /// the capture ends.
    private static let end = "swift-rdma: the capture ends here"

    /// Captures while `body` runs. No packet may have been dropped, and every packet must parse.
    static func during(_ body: () async throws -> Void) async throws -> [Frame] {
        let file = NSTemporaryDirectory() + "\(UUID().uuidString).pcap"
        let process = try await Bench.shell(
            "dumpcap -P -B 64 -i veth0 -f 'udp port 4791' -w \(file) >\(file).log 2>&1 & echo $!"
        ).filter(\.isNumber)
        // dumpcap prints this line once its socket is open.
        try await Bench.shell("until grep -q '^File: ' \(file).log; do kill -0 \(process); sleep 0.2; done")
        do {
            try await body()
        } catch {
            try await Bench.shell("kill \(process); rm -f \(file)")
            throw error
        }
        try await Bench.shell(
            "bash -c \"printf '\(end)' >/dev/udp/10.9.0.2/4791\"; until grep -qa '\(end)' \(file); do sleep 0.2; done")
        // dumpcap prints its counts after the last packet is in the file.
        let output = try await Bench.shell(
            "kill -INT \(process); until grep dropped \(file).log; do sleep 0.2; done; rm \(file).log")
        defer { try? FileManager.default.removeItem(atPath: file) }
        let counts = try #require(output.firstMatch(of: /on interface 'veth0': (\d+)\/(\d+)/), "\(output)")
        #expect(counts.2 == "0", "dropped by the capture: \(output)")
        let packets = PCAP.packets([UInt8](try Data(contentsOf: URL(fileURLWithPath: file))))
        #expect(packets.count == Int(counts.1), "\(output)")
        // An Ethernet header is 14 bytes long.
        return try packets.filter { !$0.ends(with: end.utf8) }.enumerated().map {
            try Frame(number: $0 + 1, bytes: Array($1.dropFirst(14)))
        }
    }

    /// Checks every packet: Wireshark checks its headers, and the ICRC is computed again.
    static func check(_ frames: [Frame]) throws {
        for frame in frames where !frame.hasRightICRC {
            Issue.record("the ICRC of packet \(frame.number), opcode \(frame.opcode.rawValue), is wrong")
        }
        // Proof that Wireshark reports a fault: a packet that is truncated within the headers behind the BTH.
        let cut = frames.first { !$0.opcode.headers.isDisjoint(with: [.reth, .aeth, .deth]) }?.cut(to: 3)
        let complaints = try Tshark.complaints(of: PCAP.file(frames.map(\.bytes) + [try #require(cut)]))
        try #require(complaints.count == frames.count + 1)
        #expect(complaints.last != "")
        for (frame, complaint) in zip(frames, complaints) where complaint != "" {
            Issue.record("packet \(frame.number), opcode \(frame.opcode.rawValue): \(complaint)")
        }
        // Proof that the ICRC check fails for a changed address, port, PSN, payload or ICRC.
        let frame = try #require(frames.first { $0.payload.count > 8 })
        let start = frame.packetOffset
        for offset in [start - 9, start - 7, start + 11, start + frame.packet.payloadOffset, frame.bytes.count - 1] {
            var bytes = frame.bytes
            bytes[offset] ^= 1
            #expect(try !Frame(number: 0, bytes: bytes).hasRightICRC, "byte \(offset)")
        }
    }
}

extension [UInt8] {
    fileprivate func ends(with other: String.UTF8View) -> Bool { suffix(other.count).elementsEqual(other) }
}
