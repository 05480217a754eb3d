import Foundation

@testable import RDMANetlink

/// What a kernel sent: Fixtures/README.md.
enum Captured {
    private static let lines: [(name: String, datagram: [UInt8])] = {
        let url = Bundle.module.url(forResource: "linux-6.1", withExtension: "txt", subdirectory: "Fixtures")!
        return (try! String(contentsOf: url, encoding: .utf8)).split(separator: "\n").map { line in
            let words = line.split(separator: " ")
            let digits = Array(words[1].utf8)
            let bytes = stride(from: 0, to: digits.count, by: 2).map {
                UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)!
            }
            return (String(words[0]), bytes)
        }
    }()

    static let all = lines.map(\.datagram)

    static func datagrams(_ name: String) -> [[UInt8]] { lines.filter { $0.name == name }.map(\.datagram) }

    /// The answer to a request: how it ended, and its values.
    static func answers<Value>(
        to name: String, isDump: Bool = true, _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]
    ) -> Answers<Value> {
        let datagrams = datagrams(name)
        var answers = Answers<Value>(isDump: isDump)
        answers.sequence = UInt32(machineNumber(datagrams[0][8..<12]))
        for datagram in datagrams { answers.take(datagram, read) }
        return answers
    }
}
