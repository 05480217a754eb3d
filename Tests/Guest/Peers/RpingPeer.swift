import ConnectionManager
import Testing
import Verbs

/// The protocol of Debian's rping. Client and server exchange messages of 16 bytes; the client's advertise a buffer:
/// address, rkey and size, all in network byte order. In every round:
///
/// 1. The client advertises its data; the server reads it (RDMA READ) and sends a go-ahead.
/// 2. The client advertises the buffer for the echo; the server writes it (RDMA WRITE) and sends a go-ahead.
///
/// | bytes of the endpoint's memory | content |
/// |---|---|
/// | 0..<16 | received messages |
/// | 16..<32 | sent messages |
/// | 4096... | the ping |
/// | 32768... | client: the echo |
struct RpingPeer {
    static let ping = 4096
    static let echo = 32_768

    let endpoint: ConnectionEndpoint

    /// Posts the first receive. Called before the connection is established.
    func begin() throws { try endpoint.receive(0..<16) }

    /// Runs the server until the client ends the connection. Returns the text of each ping.
    func serve() throws -> [String] {
        var pings: [String] = []
        while let data = try nextAdvertisement() {
            let size = Int(data.byteCount)
            try endpoint.pair.postSend(.read(from: data), endpoint.memory.sge(Self.ping..<Self.ping + size))
            try endpoint.completion()
            let text = try endpoint.text(Self.ping..<Self.ping + size)
            pings.append(text)
            try sendGoAhead()
            guard let sink = try nextAdvertisement() else { throw Ended() }
            try endpoint.pair.postSend(
                .write(to: sink), endpoint.memory.sge(Self.ping..<Self.ping + text.utf8.count + 1))
            try endpoint.completion()
            try sendGoAhead()
        }
        return pings
    }

    /// Runs one round of the client with `text`. Returns the echo.
    func ping(_ text: String, size: Int) throws -> String {
        try endpoint.write(Array(text.utf8) + [UInt8](repeating: 0, count: size - text.utf8.count), at: Self.ping)
        try advertise(Self.ping, size)
        try awaitGoAhead()
        try advertise(Self.echo, size)
        try awaitGoAhead()
        return try endpoint.text(Self.echo..<Self.echo + size)
    }

    /// The connection ended in the middle of a round.
    struct Ended: Error {}

    /// The buffer that the peer advertises next; nil when the peer has ended the connection.
    private func nextAdvertisement() throws -> RemoteMemory? {
        while true {
            let completion = try endpoint.completions.poll(timeout: .seconds(300))
            if completion.status == .flushed { return nil }
            try completion.check()
            guard completion.opcode == .receive else { continue }
            #expect(completion.byteCount == 16)
            let bytes = try endpoint.memory.copyBytes(0..<16)
            try endpoint.receive(0..<16)
            func number(_ range: Range<Int>) -> UInt64 { bytes[range].reduce(0) { $0 << 8 | UInt64($1) } }
            return RemoteMemory(
                address: number(0..<8), rkey: UInt32(number(8..<12)), byteCount: number(12..<16))
        }
    }

    /// Unsignaled, because the client's next message may arrive before the completion of this send.
    private func sendGoAhead() throws { try endpoint.pair.postSend(.send, endpoint.memory.sge(16..<32), flags: []) }

    /// Advertises a buffer to the peer.
    func advertise(_ offset: Int, _ size: Int) throws {
        let fields: [(UInt64, Int)] = [
            (endpoint.memory.address + UInt64(offset), 8), (UInt64(endpoint.memory.rkey), 4), (UInt64(size), 4),
        ]
        let bytes = fields.flatMap { value, count in
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
        }
        try endpoint.write(bytes, at: 16)
        try endpoint.pair.postSend(.send, endpoint.memory.sge(16..<32))
    }

    private func awaitGoAhead() throws {
        while try endpoint.completion().opcode != .receive {}
        try endpoint.receive(0..<16)
    }
}
