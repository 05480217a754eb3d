import Foundation

/// The command tshark.
public enum Tshark {
    public static let path: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin")
        .split(separator: ":").map { "\($0)/tshark" }.first { FileManager.default.isExecutableFile(atPath: $0) }

    /// tshark exited with an error.
    public struct Failure: Error { public var arguments: [String] }

    /// Runs tshark and returns its standard output.
    public static func run(_ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path ?? "tshark")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failure(arguments: arguments) }
        return String(decoding: data, as: UTF8.self)
    }

    /// Protocols that Wireshark's heuristics detect in payloads; they are disabled, because it reports a payload as
    /// malformed if the heuristic is wrong. The fixed list avoids running tshark to get it; unknown names are ignored.
    public static let guesses = [
        "drbd", "ethertype", "fcoib", "infiniband.eoib", "infiniband_sdp", "iser", "lnet", "nvme-rdma", "rpcordma",
        "smb_direct", "smc",
    ]

    /// The heuristic protocols of this version.
    public static func knownGuesses() throws -> Set<String> {
        let lines = try run(["-G", "heuristic-decodes"]).split(separator: "\n").map { $0.split(separator: "\t") }
        return Set(lines.filter { $0.count > 1 && $0[0] == "infiniband.payload" }.map { String($0[1]) })
    }

    /// The problems of each packet of a file; empty if there is none.
    public static func complaints(of file: [UInt8]) throws -> [String] {
        try fields([], of: file).map { ($0["_ws.malformed"] ?? "") + ($0["_ws.expert.message"] ?? "") }
    }

    /// The values of fields for every packet of a file.
    public static func fields(_ names: [String], of file: [UInt8]) throws -> [[String: String]] {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("emitted-\(UUID()).pcap")
        try Data(file).write(to: url)
        defer { try? FileManager.default.removeItem(at: url) }
        let names = names + ["_ws.malformed", "_ws.expert.message"]
        var arguments =
            ["-r", url.path, "-T", "fields", "-E", "occurrence=f", "-o", "udp.ignore_ipv6_zero_checksum:TRUE"]
            + guesses.flatMap { ["--disable-protocol", $0] }
            // Detects a payload that begins with an EtherType; it has no protocol name.
            + ["--disable-heuristic", "eth_over_ib"]
        for name in names { arguments += ["-e", name] }
        var packets: [[String: String]] = []
        for line in try run(arguments).split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            let values = line.split(separator: "\t", omittingEmptySubsequences: false)
            var packet: [String: String] = [:]
            for (name, value) in zip(names, values) { packet[name] = String(value) }
            packets.append(packet)
        }
        return packets
    }

    /// Fields that are printed as bytes, without "0x".
    public static let byteFields: Set<String> = ["immdt", "ieth"]

    /// The numeric value of a printed field; nil if the field is missing.
    public static func number(_ field: String, _ text: String?) -> UInt64? {
        guard let text, !text.isEmpty else { return nil }
        if text.hasPrefix("0x") { return UInt64(text.dropFirst(2), radix: 16) }
        if text == "True" || text == "False" { return text == "True" ? 1 : 0 }
        return UInt64(text, radix: byteFields.contains(field) ? 16 : 10)
    }
}
