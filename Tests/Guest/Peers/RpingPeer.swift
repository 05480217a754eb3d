import ConnectionManager
import Testing
import Verbs

/// Speaks the protocol of Debian's rping, whose two sides tell each other a buffer in a message of 16 bytes: address,
/// rkey and size, all in network order. In every round the client names its data, which the server reads; the server
/// says go; the client names where the echo goes, which the server writes; the server says go.
///
/// | bytes | of the party's memory |
/// |---|---|
/// | 0..<16 | messages that come |
/// | 16..<32 | messages that go |
/// | 4096... | the ping |
/// | 32768... | client: the echo |
struct RpingPeer {
    static let ping = 4096
    static let echo = 32_768

    let party: Party

    /// Posts the first receive: before the connection stands.
    func begin() throws { try party.receive(0..<16) }

    /// The server's side, until the client ends the connection: what was pinged.
    func serve() throws -> [String] {
        var pings: [String] = []
        while let data = try buffer() {
            let size = Int(data.byteCount)
            try party.pair.post(.read(from: data), party.memory.slice(Self.ping..<Self.ping + size))
            try party.completion()
            let text = try party.text(Self.ping..<Self.ping + size)
            pings.append(text)
            try go()
            guard let sink = try buffer() else { throw Ended() }
            try party.pair.post(
                .write(to: sink), party.memory.slice(Self.ping..<Self.ping + text.utf8.count + 1))
            try party.completion()
            try go()
        }
        return pings
    }

    /// The client's side: one round with that text.
    func ping(_ text: String, size: Int) throws -> String {
        try party.write(Array(text.utf8) + [UInt8](repeating: 0, count: size - text.utf8.count), at: Self.ping)
        try tell(Self.ping, size)
        try awaitGo()
        try tell(Self.echo, size)
        try awaitGo()
        return try party.text(Self.echo..<Self.echo + size)
    }

    /// The connection ended in the middle of a round.
    struct Ended: Error {}

    /// The buffer that the peer names; nil when it has ended the connection.
    private func buffer() throws -> RemoteMemory? {
        while true {
            let completion = try party.completions.poll(timeout: .seconds(30))
            if completion.status == .flushed { return nil }
            try completion.check()
            guard completion.opcode == .receive else { continue }
            #expect(completion.byteCount == 16)
            let bytes = try party.memory.copyBytes(0..<16)
            try party.receive(0..<16)
            func number(_ range: Range<Int>) -> UInt64 { bytes[range].reduce(0) { $0 << 8 | UInt64($1) } }
            return RemoteMemory(
                address: number(0..<8), rkey: UInt32(number(8..<12)), byteCount: number(12..<16))
        }
    }

    /// Not reported: the client's next message may be faster than its completion.
    private func go() throws { try party.pair.post(.send, party.memory.slice(16..<32), flags: []) }

    /// Names a buffer to the peer.
    func tell(_ offset: Int, _ size: Int) throws {
        let fields: [(UInt64, Int)] = [
            (party.memory.address + UInt64(offset), 8), (UInt64(party.memory.rkey), 4), (UInt64(size), 4),
        ]
        let bytes = fields.flatMap { value, count in
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
        }
        try party.write(bytes, at: 16)
        try party.pair.post(.send, party.memory.slice(16..<32))
    }

    private func awaitGo() throws {
        while try party.completion().opcode != .receive {}
        try party.receive(0..<16)
    }
}
