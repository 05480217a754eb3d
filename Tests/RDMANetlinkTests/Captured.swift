import Foundation

@testable import RDMANetlink

/// Messages that a kernel sent: Fixtures/README.md.
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

    /// The decoded responses to a request.
    static func response<Value>(
        to name: String, isDump: Bool = true, _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]
    ) -> Response<Value> {
        let datagrams = datagrams(name)
        var response = Response<Value>(isDump: isDump)
        response.sequence = UInt32(machineNumber(datagrams[0][8..<12]))
        for datagram in datagrams { response.append(datagram, read) }
        return response
    }
}
