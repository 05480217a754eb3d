import Glibc
import SystemPackage
import Testing
import Verbs

@testable import verbs

@Suite("A server believes nothing that a client says")
struct ServerTests {
    /// Serves a client that has already said all it has to say, and returns what the server makes of it, and what the
    /// client is told.
    private func serve(_ say: (Rendezvous) throws -> Void) throws -> (failure: ToolError?, answer: ControlMessage?) {
        var pair: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
        let client = try Rendezvous(adopting: FileDescriptor(rawValue: pair[0]), peerName: "the server")
        let conversation = Conversation(
            try Rendezvous(adopting: FileDescriptor(rawValue: pair[1]), peerName: "the client"), as: .server)
        try say(client)
        var server = Server(try DeviceOptions.parse(["--device", "soft0"]))
        do throws(ToolError) {
            try server.serve(conversation, try conversation.next())
            return (nil, nil)
        } catch {
            return (error, try? client.receive(ControlMessage.self))
        }
    }

    private func hello(version: Int = ControlMessage.version, _ setup: Setup) throws -> ControlMessage {
        let endpoint = Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(ipv4: 127, 0, 0, 1), lid: 0, mtu: .bytes1024)
        return .hello(
            version: version, setup: setup, party: Party(endpoint: endpoint, device: "x", provider: "y"))
    }

    private let setup = Setup(transport: .rc, family: .ipv4, largestSize: 64, window: 1, verify: false)

    @Test("another version, another first message: refused, and the client is told")
    func firstMessage() throws {
        var (failure, answer) = try serve { try $0.send(try hello(version: 99, setup)) }
        #expect(failure?.exit == .cannotMeet)
        #expect(failure?.message.contains("version 99") == true)
        guard case .failed(let told) = answer else {
            Issue.record("\(String(describing: answer))")
            return
        }
        #expect(told == failure)
        (failure, _) = try serve { try $0.send(ControlMessage.goodbye) }
        #expect(failure == .outOfTurn)
        (failure, _) = try serve { try $0.send(bytes: Array("{}".utf8)) }
        #expect(failure?.exit == .cannotMeet)
    }

    @Test(
        "sizes that would exhaust the machine are refused", arguments: [(-1, 1), (1 << 40, 1), (64, 0), (64, 1 << 30)])
    func sizes(size: Int, window: Int) throws {
        var wild = setup
        wild.largestSize = size
        wild.window = window
        let (failure, _) = try serve { try $0.send(try hello(wild)) }
        #expect(failure?.message.contains("beyond what verbs does") == true, "\(String(describing: failure))")
    }

    @Test("two users' softs on one address are told that they cannot reach each other")
    func users() throws {
        let endpoint = Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(ipv4: 127, 0, 0, 1), lid: 0, mtu: .bytes1024)
        let mine = Party(endpoint: endpoint, device: "soft0", provider: "soft", user: 0)
        var other = mine
        #expect(throws: Never.self) { try mine.checkReach(of: other) }
        other.user = 1000
        #expect(throws: ToolError.self) { try mine.checkReach(of: other) }
        other.endpoint.gid = GID(ipv4: 10, 0, 0, 1)
        #expect(throws: Never.self) { try mine.checkReach(of: other) }
    }

    @Test("a client that exposes no memory is refused")
    func noMemory() throws {
        let (failure, _) = try serve { try $0.send(try hello(setup)) }
        #expect(failure?.message.contains("less memory") == true, "\(String(describing: failure))")
    }

    @Test("a client that goes at once, and one that reports a failure")
    func leaving() throws {
        #expect(try serve { $0.close() }.failure?.exit == .peerLost)
        let (failure, _) = try serve {
            try $0.send(ControlMessage.failed(error: ToolError(.noDevice, "there is no device", hint: "plug one in")))
        }
        #expect(failure?.exit == .peerLost)
        #expect(failure?.text == "verbs: the other side failed: there is no device\n  try: plug one in")
    }

    @Test("the largest counts do not wrap")
    func counts() {
        #expect(Job.total(1000, warmUp: 100) == 1100)
        #expect(Job.total(5, warmUp: .max) == .max && Job.total(.max, warmUp: 100) == .max)
    }

    @Test("jobs that the queue pairs cannot do are refused")
    func jobs() {
        let good = Job(
            kind: .latency, operation: .write, size: 64, count: 1, duration: nil, warmUp: 0, verify: false, window: 1,
            batch: 1, patience: 1)
        #expect(throws: Never.self) { try good.check(setup) }
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
