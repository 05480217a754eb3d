import Glibc
import Rendezvous
import SystemPackage
import Testing
import Verbs

@testable import VerbsCommand

@Suite("The server validates every message of a client")
struct ServerTests {
    /// Serves a client whose messages `send` has already sent. Returns the server's error and its response.
    private func serve(
        timeout: Duration? = nil, _ send: (Rendezvous) throws -> Void
    ) throws -> (failure: ToolError?, response: ControlMessage?) {
        var pair: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
        let client = try Rendezvous(adopting: FileDescriptor(rawValue: pair[0]), peerName: "the server")
        let control = ControlConnection(
            try Rendezvous(adopting: FileDescriptor(rawValue: pair[1]), peerName: "the client"), as: .server)
        try send(client)
        var server = Server(try DeviceOptions.parse(["--device", "soft0"]), timeout: timeout)
        do throws(ToolError) {
            try server.serve(control, try control.next())
            return (nil, nil)
        } catch {
            return (error, try? client.receive(ControlMessage.self))
        }
    }

    private func hello(
        version: Int = ControlMessage.version, memory: RemoteMemory? = nil, _ setup: Setup
    ) throws -> ControlMessage {
        let endpoint = Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(ipv4: 127, 0, 0, 1), lid: 0, mtu: .bytes1024,
            memory: memory)
        return .hello(
            version: version, setup: setup, info: PeerInfo(endpoint: endpoint, device: "x", provider: "y"))
    }

    private let setup = Setup(
        transport: .rc, family: .ipv4, largestSize: 64, window: 1, verify: false, timeout: 1, retryTime: 0)

    @Test("another version or another first message is rejected, and the client gets the error")
    func firstMessage() throws {
        var (failure, response) = try serve { try $0.send(try hello(version: 99, setup)) }
        #expect(failure?.exit == .cannotConnect)
        #expect(failure?.message.contains("version 99") == true)
        guard case .failed(let reported) = response else {
            Issue.record("\(String(describing: response))")
            return
        }
        #expect(reported == failure)
        (failure, _) = try serve { try $0.send(ControlMessage.goodbye) }
        #expect(failure == .protocolError)
        (failure, _) = try serve { try $0.send(bytes: Array("{}".utf8)) }
        #expect(failure?.exit == .cannotConnect)
    }

    @Test(
        "sizes that exceed the limits are rejected", arguments: [(-1, 1), (1 << 40, 1), (64, 0), (64, 1 << 30)])
    func sizes(size: Int, window: Int) throws {
        var excessive = setup
        excessive.largestSize = size
        excessive.window = window
        let (failure, _) = try serve { try $0.send(try hello(excessive)) }
        #expect(failure?.message.contains("exceed the limits of verbs") == true, "\(String(describing: failure))")
    }

    @Test("soft devices of different users with the same address are rejected")
    func users() throws {
        let endpoint = Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(ipv4: 127, 0, 0, 1), lid: 0, mtu: .bytes1024)
        let mine = PeerInfo(endpoint: endpoint, device: "soft0", provider: "soft", user: 0)
        var other = mine
        #expect(throws: Never.self) { try mine.checkReach(of: other, along: nil) }
        other.user = 1000
        #expect(throws: ToolError.self) { try mine.checkReach(of: other, along: nil) }
        other.endpoint.gid = GID(ipv4: 10, 0, 0, 1)
        #expect(throws: Never.self) { try mine.checkReach(of: other, along: nil) }
    }

    @Test("a client that is silent after its hello is disconnected, and gets the error")
    func silent() throws {
        let memory = RemoteMemory(address: 0, rkey: 0, byteCount: 1 << 20)
        let (failure, response) = try serve(timeout: .milliseconds(1)) { try $0.send(try hello(memory: memory, setup)) }
        #expect(failure == .peerSilent("the client", 1_000_000))
        #expect(failure?.exit == .peerLost)
        guard case .welcome = response else {
            Issue.record("\(String(describing: response))")
            return
        }
    }

    @Test("an alive message does not count as the first message")
    func alive() throws {
        let (failure, _) = try serve {
            try $0.send(ControlMessage.alive)
            try $0.send(ControlMessage.goodbye)
        }
        #expect(failure == .protocolError)
    }

    @Test("WaitTimer does not count time in which the process was stopped")
    func waiting() {
        var waiting = WaitTimer(since: 5_000)
        #expect(waiting.elapsed(at: 7_000) == 2_000)
        #expect(waiting.elapsed(at: 60_000_000_000) == 500_002_000)
        #expect(waiting.elapsed(at: 60_000_000_001) == 500_002_001)
    }

    @Test("the Local ACK Timeout covers the job's timeout, and fits five bits")
    func retries() {
        #expect(Link.localACKTimeout(lasting: 0, tries: 8).rawValue == 14)
        for seconds: UInt64 in [1, 2, 10, 60, 3600] {
            let exponent = Link.localACKTimeout(lasting: seconds * 1_000_000_000, tries: 8).rawValue
            #expect(8 * 4096 << UInt64(exponent) >= seconds * 1_000_000_000)
            #expect(8 * 4096 << UInt64(exponent - 1) < seconds * 1_000_000_000)
        }
        #expect(Link.localACKTimeout(lasting: .max, tries: 8).rawValue == 31)
    }

    @Test("a peer with a loopback address is accepted on the same machine")
    func loopback() throws {
        let endpoint = Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(ipv4: 127, 0, 0, 1), lid: 0, mtu: .bytes1024)
        let info = PeerInfo(endpoint: endpoint, device: "soft0", provider: "soft", user: 0)
        let listener = try RendezvousListener(host: "127.0.0.1", port: 0)
        let peer = try Rendezvous.connect(to: "127.0.0.1", port: listener.port)
        let route = try #require(try Route(of: peer.fileDescriptor))
        #expect(route.isWithinHost)
        #expect(throws: Never.self) { try info.checkReach(of: info, along: route) }
        #expect(throws: Never.self) { try info.checkReach(of: info, along: nil) }
    }

    @Test("a client that exposes no memory is rejected")
    func noMemory() throws {
        let (failure, _) = try serve { try $0.send(try hello(setup)) }
        #expect(failure?.message.contains("less memory") == true, "\(String(describing: failure))")
    }

    @Test("a client that disconnects at once or reports an error gives the exit code for a lost peer")
    func leaving() throws {
        #expect(try serve { $0.close() }.failure?.exit == .peerLost)
        let (failure, _) = try serve {
            try $0.send(ControlMessage.failed(error: ToolError(.noDevice, "there is no device", hint: "plug one in")))
        }
        #expect(failure?.exit == .peerLost)
        #expect(failure?.text == "verbs: the peer failed: there is no device\n  try: plug one in")
    }

    @Test("message counts saturate instead of overflowing")
    func counts() {
        #expect(Job.total(1000, warmUp: 100) == 1100)
        #expect(Job.total(5, warmUp: .max) == .max && Job.total(.max, warmUp: 100) == .max)
    }

    @Test("jobs that the queue pairs do not support are rejected")
    func jobs() {
        let good = Job(
            type: .latency, operation: .write, size: 64, count: 1, duration: nil, warmUp: 0, verify: false, window: 1,
            batch: 1, timeout: 1)
        #expect(throws: Never.self) { try good.check(setup) }
        var atomic = good
        atomic.operation = .fetchAndAdd
        let error = #expect(throws: ToolError.self) { try atomic.check(setup) }
        #expect(error?.message == "fetch-add over RC has 8 bytes, not 64")
        var datagrams = setup
        datagrams.transport = .ud
        #expect(throws: ToolError.self) { try good.check(datagrams) }
        for change in [
            { $0.size = 65 }, { $0.size = 0 }, { $0.size = -1 }, { $0.window = 2 }, { $0.batch = 2 }, { $0.batch = 0 },
            { $0.operation = .fetchAndAdd },
        ] as [(inout Job) -> Void] {
            var bad = good
            change(&bad)
            #expect(throws: ToolError.self, "\(bad)") { try bad.check(setup) }
        }
    }
}
