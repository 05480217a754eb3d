import Glibc
import SystemPackage
import Testing

@testable import Verbs

/// Both ends of a connection in one thread: what one side sends waits in the socket for the other.
private func makePair() throws -> (Rendezvous, Rendezvous) {
    let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
    let client = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
    return (try listener.accept(timeout: .seconds(5)), client)
}

/// A peer that need not keep to the protocol: the raw end of a socket pair.
private final class BadPeer {
    let raw: FileDescriptor
    let victim: Rendezvous

    init() throws {
        var pair: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
        raw = FileDescriptor(rawValue: pair[0])
        victim = try Rendezvous(adopting: FileDescriptor(rawValue: pair[1]), peerName: "the bad peer")
    }

    deinit { try? raw.close() }

    func send(_ bytes: [UInt8]) throws { try raw.writeAll(bytes) }

    func hangUp() { _ = shutdown(raw.rawValue, CInt(SHUT_RDWR)) }

    /// What the victim makes of it.
    func verdict(timeout: Duration = .seconds(5)) -> RendezvousError.Reason? {
        do {
            _ = try victim.receiveBytes(timeout: timeout)
            return nil
        } catch { return error.reason }
    }
}

@Suite("Rendezvous: two programs meet over TCP")
struct RendezvousTests {
    @Test("both sides hand over a value and get the other's", arguments: ["127.0.0.1", "::1"])
    func exchange(host: String) throws {
        let listener = try RendezvousListener(host: host, port: 0)
        let client = try Rendezvous.connect(to: host, port: listener.port)
        let server = try listener.accept(timeout: .seconds(5))
        try client.send(text: "17")
        #expect(try server.exchange(UInt32.max) == 17)
        #expect(try client.receiveText() == "4294967295")
    }

    @Test("a listener without a host takes IPv4 and IPv6 peers")
    func anyAddress() throws {
        let listener = try RendezvousListener(port: 0)
        for host in ["127.0.0.1", "::1"] {
            let client = try Rendezvous.connect(to: host, port: listener.port)
            let server = try listener.accept(timeout: .seconds(5))
            try client.send(bytes: [42])
            #expect(try server.receiveBytes() == [42])
            #expect(server.peerName.hasPrefix("\(host) port "))
        }
    }

    @Test("messages of every size up to the limit arrive whole, in order, both directions at once")
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

    @Test("a message above the limit is refused before anything is sent")
    func tooLargeToSend() throws {
        let (server, client) = try makePair()
        let error = #expect(throws: RendezvousError.self) {
            try client.send(bytes: [UInt8](repeating: 0, count: Rendezvous.maximumMessageSize + 1))
        }
        #expect(error?.reason == .tooLarge(Rendezvous.maximumMessageSize + 1))
        try client.send(bytes: [1])
        #expect(try server.receiveBytes() == [1])
    }

    @Test("a good end and a broken connection are told apart")
    func endings() throws {
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
        peer.hangUp()
        let broken = #expect(throws: RendezvousError.self) { try peer.victim.receiveBytesIfAvailable() }
        #expect(broken?.reason == .disconnected)
    }

    @Test("sending to a peer that has gone is an error, not a signal")
    func sendToTheDead() throws {
        let peer = try BadPeer()
        peer.hangUp()
        let error = #expect(throws: RendezvousError.self) { try peer.victim.send(bytes: [1]) }
        #expect(error?.reason == .disconnected)
    }

    @Test("garbage is recognised by its first bytes")
    func garbage() throws {
        for bytes in ["GET / HTTP/1.1\r\n\r\n", "RDM!", "S"] {
            let peer = try BadPeer()
            try peer.send(Array(bytes.utf8))
            #expect(peer.verdict() == .notRendezvous, "\(bytes)")
        }
    }

    @Test("another version is named")
    func version() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [9])
        #expect(peer.verdict() == .wrongVersion(9))
    }

    @Test("an oversized length is refused at its header")
    func oversized() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [1, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(peer.verdict() == .tooLarge(0xFFFF_FFFF))
    }

    @Test("a frame of unknown kind is refused")
    func unknownKind() throws {
        let peer = try BadPeer()
        try peer.send(Array("RDMA".utf8) + [1, 3, 0, 0, 0, 0, 0, 0])
        #expect(peer.verdict() == .unexpectedMessage("frame of unknown kind 3"))
    }

    @Test("half a frame is waited for, kept over a time-out, and completed later")
    func halfFrame() throws {
        let peer = try BadPeer()
        let frame = RendezvousFrame.message(Array(0..<100)).encoded
        for cut in 1..<frame.count {
            try peer.send(Array(frame[..<cut]))
            #expect(try peer.victim.receiveBytesIfAvailable() == nil)
            try peer.send(Array(frame[cut...]))
            #expect(try peer.victim.receiveBytes() == Array(0..<100))
        }
        try peer.send(Array(frame[..<50]))
        #expect(peer.verdict(timeout: .milliseconds(1)) == .timedOut)
        peer.hangUp()
        #expect(peer.verdict() == .disconnected)
    }

    @Test("a silent peer costs the given time and no more")
    func silent() throws {
        let peer = try BadPeer()
        #expect(peer.verdict(timeout: .milliseconds(5)) == .timedOut)
    }

    @Test("a value of another type is named")
    func wrongType() throws {
        let (server, client) = try makePair()
        try client.send(text: "a text")
        let error = #expect(throws: RendezvousError.self) { try server.exchange(UInt32(5)) }
        #expect(error?.reason == .unexpectedMessage("\"a text\" is no UInt32"))
    }

    @Test("nobody there, port taken, no such host, nobody comes")
    func cannotMeet() throws {
        let port: UInt16
        do {
            let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
            port = listener.port
            let taken = #expect(throws: RendezvousError.self) { try RendezvousListener(host: "127.0.0.1", port: port) }
            #expect(taken?.reason == .portInUse)
            let nobody = #expect(throws: RendezvousError.self) { try listener.accept(timeout: .milliseconds(1)) }
            #expect(nobody?.reason == .timedOut)
        }
        let refused = #expect(throws: RendezvousError.self) { try Rendezvous.connect(to: "127.0.0.1", port: port) }
        #expect(refused?.reason == .refused)
        #expect(refused?.description == "cannot connect to 127.0.0.1 port \(port): connection refused")
        let unknown = #expect(throws: RendezvousError.self) { try Rendezvous.connect(to: "256.1.2.3.invalid") }
        guard case .unresolvable = unknown?.reason else {
            Issue.record("\(String(describing: unknown))")
            return
        }
    }

    @Test("a descriptor that is no stream socket is refused")
    func adoptedFile() throws {
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(throws: RendezvousError.self) { try Rendezvous(adopting: file, peerName: "x") }
    }

    @Test("every error says what to try")
    func hints() {
        let reasons: [RendezvousError.Reason] = [
            .unresolvable("x"), .refused, .portInUse, .timedOut, .closed, .disconnected, .notRendezvous,
            .wrongVersion(2), .tooLarge(1), .unexpectedMessage("x"), .system(.ioError), .system(.permissionDenied),
            .system(.addressNotAvailable),
        ]
        for reason in reasons {
            let error = RendezvousError(reason, operation: "meet")
            #expect(error.hint.hasSuffix(".") && error.description.hasPrefix("cannot meet: "))
        }
    }
}
