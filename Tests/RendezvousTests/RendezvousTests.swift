import Glibc
import SystemPackage
import Testing

@testable import Rendezvous

/// Both ends of a connection in one thread. The socket buffers the messages in between.
private func makePair() throws -> (Rendezvous, Rendezvous) {
    let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
    let client = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
    return (try listener.accept(timeout: .seconds(300)), client)
}

/// A peer that can violate the protocol: one end of a socket pair, whose other end is a `Rendezvous`.
private final class BadPeer {
    let raw: FileDescriptor
    let rendezvous: Rendezvous

    init() throws {
        var pair: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
        raw = FileDescriptor(rawValue: pair[0])
        rendezvous = try Rendezvous(adopting: FileDescriptor(rawValue: pair[1]), peerName: "the bad peer")
    }

    deinit { try? raw.close() }

    func send(_ bytes: [UInt8]) throws { try raw.writeAll(bytes) }

    func disconnect() { _ = shutdown(raw.rawValue, CInt(SHUT_RDWR)) }

    /// The reason of the error that the rendezvous throws; nil if it receives a message.
    func receiveError(timeout: Duration = .seconds(300)) -> RendezvousError.Reason? {
        do {
            _ = try rendezvous.receiveBytes(timeout: timeout)
            return nil
        } catch { return error.reason }
    }
}

@Suite("Rendezvous: two programs exchange values over TCP")
struct RendezvousTests {
    @Test("exchange sends a value and returns the peer's", arguments: ["127.0.0.1", "::1"])
    func exchange(host: String) throws {
        let listener = try RendezvousListener(host: host, port: 0)
        let client = try Rendezvous.connect(to: host, port: listener.port)
        let server = try listener.accept(timeout: .seconds(300))
        try client.send(text: "17")
        #expect(try server.exchange(UInt32.max) == 17)
        #expect(try client.receiveText() == "4294967295")
    }

    @Test("a listener without a host accepts IPv4 and IPv6 connections")
    func anyAddress() throws {
        let listener = try RendezvousListener(port: 0)
        for host in ["127.0.0.1", "::1"] {
            let client = try Rendezvous.connect(to: host, port: listener.port)
            let server = try listener.accept(timeout: .seconds(300))
            try client.send(bytes: [42])
            #expect(try server.receiveBytes() == [42])
            #expect(server.peerName.hasPrefix("\(host) port "))
        }
    }

    @Test("messages up to the maximum size are received unchanged and in order, in both directions at once")
    func sizes() throws {
        let (server, client) = try makePair()
        let largest = [UInt8](repeating: 7, count: Rendezvous.maximumMessageSize)
        try server.send(bytes: largest)
        try client.send(bytes: largest)
        try client.send(bytes: [])
        try client.send(bytes: [1, 2, 3])
        #expect(try server.receiveBytes() == largest)
        #expect(try server.receiveBytes() == [])
        #expect(try server.receiveBytes() == [1, 2, 3])
        #expect(try client.receiveBytes() == largest)
        #expect(try client.receiveBytesIfAvailable() == nil)
    }

    @Test("a message above the maximum size is tooLarge, and nothing is sent")
    func tooLargeToSend() throws {
        let (server, client) = try makePair()
        let error = #expect(throws: RendezvousError.self) {
            try client.send(bytes: [UInt8](repeating: 0, count: Rendezvous.maximumMessageSize + 1))
        }
        #expect(error?.reason == .tooLarge(Rendezvous.maximumMessageSize + 1))
        try client.send(bytes: [1])
        #expect(try server.receiveBytes() == [1])
    }

    @Test("after close() of the peer the error is closed, after a broken connection disconnected")
    func closing() throws {
        let (server, client) = try makePair()
        try client.send(bytes: [5])
        client.close()
        #expect(try server.receiveBytes() == [5])
        let ended = #expect(throws: RendezvousError.self) { try server.receiveBytes() }
        #expect(ended?.reason == .closed)
        try server.send(bytes: [6])
        #expect(try client.receiveBytes() == [6])
        let late = #expect(throws: RendezvousError.self) { try client.send(bytes: [7]) }
        #expect(late?.reason == .closed)

        let peer = try BadPeer()
        peer.disconnect()
        let broken = #expect(throws: RendezvousError.self) { try peer.rendezvous.receiveBytesIfAvailable() }
        #expect(broken?.reason == .disconnected)
    }

    @Test("sending to a peer that has disconnected is an error, without SIGPIPE")
    func sendAfterDisconnect() throws {
        let peer = try BadPeer()
        peer.disconnect()
        let error = #expect(throws: RendezvousError.self) { try peer.rendezvous.send(bytes: [1]) }
        #expect(error?.reason == .disconnected)
    }

    @Test("bytes that do not start with the magic are notRendezvous")
    func wrongMagic() throws {
        for bytes in ["GET / HTTP/1.1\r\n\r\n", "RDM!", "S"] {
            let peer = try BadPeer()
            try peer.send(Array(bytes.utf8))
            #expect(peer.receiveError() == .notRendezvous, "\(bytes)")
        }
    }

    @Test("another protocol version is wrongVersion with its number")
    func version() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [9])
        #expect(peer.receiveError() == .wrongVersion(9))
    }

    @Test("a frame header with a length above the maximum is tooLarge")
    func oversized() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [RendezvousFrame.version, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(peer.receiveError() == .tooLarge(0xFFFF_FFFF))
    }

    @Test("a frame of unknown kind is unexpectedMessage")
    func unknownKind() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [RendezvousFrame.version, 9, 0, 0, 0, 0, 0, 0])
        #expect(peer.receiveError() == .unexpectedMessage("frame of unknown kind 9"))
    }

    @Test("a partial frame is kept, also after a time-out, and completed by the following bytes")
    func partialFrame() throws {
        let peer = try BadPeer()
        let frame = RendezvousFrame.message(Array(0..<100)).encoded
        for cut in 1..<frame.count {
            try peer.send(Array(frame[..<cut]))
            #expect(try peer.rendezvous.receiveBytesIfAvailable() == nil)
            try peer.send(Array(frame[cut...]))
            #expect(try peer.rendezvous.receiveBytes() == Array(0..<100))
        }
        try peer.send(Array(frame[..<50]))
        #expect(peer.receiveError(timeout: .milliseconds(1)) == .timedOut)
        peer.disconnect()
        #expect(peer.receiveError() == .disconnected)
    }

    @Test("receiving from a peer that sends nothing ends with timedOut")
    func silent() throws {
        let peer = try BadPeer()
        #expect(peer.receiveError(timeout: .milliseconds(5)) == .timedOut)
    }

    @Test("a value of another type is unexpectedMessage with its text")
    func wrongType() throws {
        let (server, client) = try makePair()
        try client.send(text: "a text")
        let error = #expect(throws: RendezvousError.self) { try server.exchange(UInt32(5)) }
        #expect(error?.reason == .unexpectedMessage("\"a text\" is not a UInt32"))
    }

    /// A TCP socket that is bound to a free port of 127.0.0.1 and does not listen; and its port.
    private func heldPort() throws -> (CInt, UInt16) {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let error = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) | getsockname(descriptor, $0, &size)
            }
        }
        try #require(descriptor >= 0 && error == 0)
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    @Test("the errors of connect, listen and accept: refused, unresolvable, portInUse, timedOut")
    func connectionErrors() throws {
        do {
            let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
            let port = listener.port
            let taken = #expect(throws: RendezvousError.self) { try RendezvousListener(host: "127.0.0.1", port: port) }
            #expect(taken?.reason == .portInUse)
            let timedOut = #expect(throws: RendezvousError.self) { try listener.accept(timeout: .milliseconds(1)) }
            #expect(timedOut?.reason == .timedOut)
        }
        // Bound but not listening, so that no other test listens at this port.
        let (held, quiet) = try heldPort()
        defer { close(held) }
        let refused = #expect(throws: RendezvousError.self) { try Rendezvous.connect(to: "127.0.0.1", port: quiet) }
        #expect(refused?.reason == .refused)
        #expect(refused?.description == "cannot connect to 127.0.0.1 port \(quiet): connection refused")
        let unknown = #expect(throws: RendezvousError.self) { try Rendezvous.connect(to: "256.1.2.3.invalid") }
        guard case .unresolvable = unknown?.reason else {
            Issue.record("\(String(describing: unknown))")
            return
        }
    }

    @Test("a message that was sent in part before a time-out is completed by the next call")
    func partialSend() throws {
        let peer = try BadPeer()
        let message = [UInt8](repeating: 7, count: 50_000)
        var sent = 0
        let full = #expect(throws: RendezvousError.self) {
            while true {
                try peer.rendezvous.send(bytes: message, timeout: .zero)
                sent += 1
            }
        }
        #expect(full?.reason == .timedOut && sent > 0)
        let reader = try Rendezvous(adopting: FileDescriptor(rawValue: dup(peer.raw.rawValue)), peerName: "x")
        for _ in 0..<sent { #expect(try reader.receiveBytes() == message) }
        try peer.rendezvous.send(bytes: [1])
        let next = try reader.receiveBytes()
        #expect(next == [1] || next == message)
        if next == message { #expect(try reader.receiveBytes() == [1]) }
    }

    @Test("a descriptor that is not a stream socket is refused")
    func adoptedFile() throws {
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(throws: RendezvousError.self) { try Rendezvous(adopting: file, peerName: "x") }
    }

    @Test("every error has a hint and a description")
    func hints() {
        let reasons: [RendezvousError.Reason] = [
            .unresolvable("x"), .refused, .portInUse, .timedOut, .closed, .disconnected, .notRendezvous,
            .wrongVersion(2), .tooLarge(1), .unexpectedMessage("x"), .system(.ioError), .system(.permissionDenied),
            .system(.addressNotAvailable), .displaced,
            .allFailed([.init(address: "::1", reason: .timedOut), .init(address: "127.0.0.1", reason: .refused)]),
        ]
        for reason in reasons {
            let error = RendezvousError(reason, operation: "meet")
            #expect(error.hint.hasSuffix(".") && error.description.hasPrefix("cannot meet: "))
        }
    }
}

@Suite("A host with several addresses: the first address that accepts is used")
struct ConnectionRaceTests {
    /// An address at which connect(2) neither succeeds nor fails, because the listener's queue is full.
    private final class FullListener {
        let port: UInt16
        private var sockets: [CInt] = []

        init() throws {
            let listener = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let isListening = withUnsafeMutablePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(listener, $0, length) == 0 && listen(listener, 0) == 0
                        && getsockname(listener, $0, &length) == 0
                }
            }
            sockets.append(listener)
            port = UInt16(bigEndian: address.sin_port)
            try #require(isListening)
            // The queue has room for one connection. The others wait.
            for _ in 0..<4 {
                let client = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
                sockets.append(client)
                _ = withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(client, $0, length) }
                }
            }
        }

        deinit { for socket in sockets { close(socket) } }

        var address: SocketAddress { get throws { try SocketAddress.resolve(host: "127.0.0.1", port: port)[0] } }
    }

    private static func peerPort(of socket: FileDescriptor) -> UInt16? {
        var address = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(socket.rawValue, $0, &length) }
        }
        return result == 0 ? UInt16(bigEndian: address.sin6_port) : nil
    }

    private func refusing() throws -> SocketAddress {
        let port = try RendezvousListener(host: "127.0.0.1", port: 0).port
        return try SocketAddress.resolve(host: "127.0.0.1", port: port)[0]
    }

    @Test("an address without a response and one that refuses do not delay the address that accepts")
    func unresponsiveFirst() throws {
        let unresponsive = try FullListener()
        let listener = try RendezvousListener(host: "::1", port: 0)
        let accepting = try SocketAddress.resolve(host: "::1", port: listener.port)[0]
        let orders = [
            [try unresponsive.address, try refusing(), accepting],
            [try refusing(), try unresponsive.address, accepting],
            [accepting],
        ]
        for order in orders {
            let start = ContinuousClock.now
            let socket = try ConnectionRace.run(order, timeout: .seconds(600))
            #expect(Self.peerPort(of: socket.fileDescriptor) == listener.port)
            // If the addresses were tried one after the other, the unresponsive one would use up the time-out.
            #expect(ContinuousClock.now - start < .seconds(300))
        }
    }

    @Test("when no address accepts, the error lists each address with its reason, within the time-out")
    func noneAccepts() throws {
        let unresponsive = try FullListener()
        let reason = #expect(throws: RendezvousError.Reason.self) {
            try ConnectionRace.run([try unresponsive.address, try refusing()], timeout: .seconds(3))
        }
        #expect(
            reason
                == .allFailed([
                    .init(address: "127.0.0.1", reason: .refused), .init(address: "127.0.0.1", reason: .timedOut),
                ]))
        let error = RendezvousError(try #require(reason), operation: "connect to dual port 1")
        #expect(
            error.description
                == "cannot connect to dual port 1: 127.0.0.1: connection refused; 127.0.0.1: timed out")
        let single = #expect(throws: RendezvousError.Reason.self) {
            try ConnectionRace.run([try unresponsive.address], timeout: .milliseconds(20))
        }
        #expect(single == .timedOut)
    }

    @Test("addresses of the two families alternate, starting with the family of the first")
    func interleaved() throws {
        let hosts = ["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"]
        let order = ConnectionRace.interleaved(try hosts.map { try SocketAddress.resolve(host: $0, port: 1)[0] })
        #expect(order.map(\.host) == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"])
    }
}

@Suite("Connections of other programs to a listener do not block a peer")
struct OtherProgramTests {
    /// A connection of a program that does not use the rendezvous protocol.
    private func connectOther(_ listener: RendezvousListener, sending bytes: [UInt8] = []) throws -> Rendezvous {
        let address = try SocketAddress.resolve(host: "127.0.0.1", port: listener.port)
        let socket = try ConnectionRace.run(address, timeout: .seconds(300))
        if !bytes.isEmpty { _ = try socket.write(bytes, deadline: .now + .seconds(300)) }
        return Rendezvous(socket: socket, peerName: "the listener")
    }

    @Test("accept returns a peer that connects after silent, invalid, partial, oversized and closed connections")
    func several() throws {
        let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
        let header = Array("RDMA".utf8) + [RendezvousFrame.version, 1, 0, 0]
        var others = [
            try connectOther(listener), try connectOther(listener, sending: Array("GET / HTTP/1.1".utf8)),
            try connectOther(listener, sending: header), try connectOther(listener),
            try connectOther(listener, sending: header + [0xFF, 0xFF, 0xFF, 0xFF]), try connectOther(listener),
        ]
        others.removeLast()
        let client = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
        var reasons: [RendezvousError.Reason] = []
        let server = try listener.accept(timeout: .seconds(300)) { reasons.append($0.reason) }
        #expect(reasons == [.notRendezvous, .tooLarge(0xFFFF_FFFF), .disconnected])
        try client.send(bytes: [1])
        #expect(try server.receiveBytes() == [1])
        // Connections without an error are kept for the next call.
        _ = try others[2].socket.write([0, 0, 0, 1, 9], deadline: .now)
        #expect(try listener.accept(timeout: .seconds(300)).receiveBytes() == [9])
    }

    @Test("acceptMessage returns the first message of another peer while a connected peer sends none")
    func firstMessage() throws {
        let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
        let silent = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
        let client = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
        try client.send(bytes: [5])
        #expect(try listener.acceptMessage(timeout: .seconds(300)).message == [5])
        let timedOut = #expect(throws: RendezvousError.self) { try listener.acceptMessage(timeout: .milliseconds(1)) }
        #expect(timedOut?.reason == .timedOut)
        try silent.send(bytes: [6])
        #expect(try listener.acceptMessage(timeout: .seconds(300)).message == [6])
    }

    @Test("above the maximum number of waiting connections, the oldest are displaced")
    func tooMany() throws {
        let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
        let others = try (0..<RendezvousListener.maximumWaiting + 2).map { _ in try connectOther(listener) }
        let client = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
        var reasons: [RendezvousError.Reason] = []
        let server = try listener.accept(timeout: .seconds(300)) { reasons.append($0.reason) }
        #expect(reasons == [.displaced, .displaced, .displaced])
        try client.send(bytes: [1])
        #expect(try server.receiveBytes() == [1])
        let gone = #expect(throws: RendezvousError.self) { try others[0].receiveBytes() }
        #expect(gone?.reason == .disconnected)
    }

    @Test("a program of another version gets an end frame of this version, and is disconnected")
    func otherVersion() throws {
        let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
        let old = try connectOther(listener, sending: Array("RDMA".utf8) + [1])
        var reasons: [RendezvousError.Reason] = []
        let timedOut = #expect(throws: RendezvousError.self) {
            try listener.accept(timeout: .milliseconds(100)) { reasons.append($0.reason) }
        }
        #expect(timedOut?.reason == .timedOut)
        #expect(reasons == [.wrongVersion(1)])
        // An end frame of this version.
        let ending = #expect(throws: RendezvousError.self) { try old.receiveBytes() }
        #expect(ending?.reason == .closed)
    }

    @Test("a greeting after the first frame is unexpectedMessage")
    func greeting() throws {
        let peer = try BadPeer()
        try peer.send(RendezvousFrame.greeting.encoded + RendezvousFrame.message([1]).encoded)
        #expect(try peer.rendezvous.receiveBytes() == [1])
        try peer.send(RendezvousFrame.greeting.encoded)
        #expect(peer.receiveError() == .unexpectedMessage("a second greeting"))
    }
}
