import Glibc
import Verbs

/// The protocol of the ibv_*_pingpong programs over TCP: for each queue pair a line of 52 bytes with LID, QPN, PSN and
/// GID in hexadecimal, first the client's; at the end "done" from the client. ibv_srq_pingpong always sends 256 such
/// lines; only as many as it has queue pairs are valid.
struct Handshake {
    /// The Q_Key of ibv_ud_pingpong.
    static let qkey: UInt32 = 0x1111_1111
    private static let byteCount = "0000:000000:000000:".utf8.count + 32 + 1

    private static let sharedLines = 256

    private let settings: Settings
    private let socket: CInt

    init(_ settings: Settings) throws {
        self.settings = settings
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = settings.port.bigEndian
        guard inet_pton(AF_INET, settings.host ?? "0.0.0.0", &address.sin_addr) == 1 else {
            throw Failure("\(settings.host ?? "") is not an IPv4 address")
        }
        let new = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isServer = settings.host == nil
        var enabled: CInt = 1
        setsockopt(new, SOL_SOCKET, SO_REUSEADDR, &enabled, socklen_t(MemoryLayout<CInt>.size))
        let answer = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                isServer ? bind(new, $0, size) : Glibc.connect(new, $0, size)
            }
        }
        guard answer == 0 else {
            throw Failure("cannot reach port \(settings.port): \(String(cString: strerror(errno)))")
        }
        guard isServer else {
            socket = new
            return
        }
        listen(new, 1)
        socket = accept(new, nil, nil)
        close(new)
    }

    func send(_ endpoints: [Endpoint]) throws {
        for endpoint in endpoints {
            let fields = [
                hex(endpoint.lid, 4), hex(endpoint.queuePairNumber, 6), hex(endpoint.packetSequenceNumber, 6),
                endpoint.gid.bytes.map { hex($0, 2) }.joined(),
            ]
            try send(bytes: Array(fields.joined(separator: ":").utf8) + [0])
        }
        let nothing = [String(repeating: "0", count: 4), "000000", "000000", String(repeating: "0", count: 32)]
        for _ in 0..<padding(endpoints.count) { try send(bytes: Array(nothing.joined(separator: ":").utf8) + [0]) }
    }

    private func padding(_ count: Int) -> Int { settings.isShared ? Self.sharedLines - count : 0 }

    func receive(_ count: Int) throws -> [Endpoint] {
        let endpoints = try (0..<count).map { _ in
            let text = String(decoding: try receive(byteCount: Self.byteCount).dropLast(), as: UTF8.self)
            let fields = text.split(separator: ":")
            guard fields.count == 4, let lid = UInt16(fields[0], radix: 16), let number = UInt32(fields[1], radix: 16),
                let psn = UInt32(fields[2], radix: 16), let gid = gid(fields[3])
            else { throw Failure("unexpected line from the peer: \"\(text)\"") }
            // The default path MTU of the programs is 1024.
            return Endpoint(
                queuePairNumber: number, packetSequenceNumber: psn, gid: gid, lid: lid, mtu: .bytes1024,
                maxDestRdAtomic: 1, qkey: Self.qkey)
        }
        for _ in 0..<padding(count) { _ = try receive(byteCount: Self.byteCount) }
        return endpoints
    }

    /// The last message, from the client.
    func finish() throws {
        let done = Array("done\0".utf8)
        if settings.host != nil {
            try send(bytes: done)
        } else if try receive(byteCount: done.count) != done {
            throw Failure("the client did not send \"done\"")
        }
    }

    private func gid(_ text: Substring) -> GID? {
        let digits = Array(text)
        guard digits.count == 32 else { return nil }
        let bytes = stride(from: 0, to: 32, by: 2).compactMap { UInt8(String(digits[$0..<$0 + 2]), radix: 16) }
        return GID(bytes: bytes)
    }

    private func hex(_ value: some BinaryInteger, _ width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: width - digits.count) + digits
    }

    private func send(bytes: [UInt8]) throws {
        guard Glibc.send(socket, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count else {
            throw Failure("cannot send to the peer")
        }
    }

    private func receive(byteCount: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        guard recv(socket, &bytes, byteCount, CInt(MSG_WAITALL)) == byteCount else {
            throw Failure("the peer closed the connection")
        }
        return bytes
    }
}
