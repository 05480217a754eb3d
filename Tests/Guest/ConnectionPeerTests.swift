import ConnectionManager
import Foundation
import ProviderLoader
import Testing
import Verbs

private let port: UInt16 = 7471
/// No route leads to the groups: the own address says over which device.
private let ownAddress = ConnectionAddress("10.9.0.1:0")

/// A program of Debian's that runs in the background, where what it says is kept.
private struct Program {
    let output: String

    /// Starts it; after two minutes it is ended.
    init(_ command: String) async throws {
        output = "/dev/shm/\(UUID().uuidString)"
        try await Bench.shell("(timeout 120 \(command); echo \"ended with $?\") >\(output) 2>&1 &")
    }

    /// Waits until it has said something, and returns all that it has said.
    @discardableResult
    func hasSaid(_ text: String) async throws -> String {
        try await soon("grep -q '\(text)' \(output)")
        return try await Bench.shell("cat \(output)")
    }

    /// Waits for its end, which must be a good one, and returns what it has said.
    func end() async throws -> String {
        let said = try await hasSaid("ended with")
        #expect(said.contains("ended with 0"), "\(said)")
        return said
    }
}

/// Waits until a command of the shell succeeds; two minutes at most.
private func soon(_ condition: String) async throws {
    try await Bench.shell("for try in $(seq 1200); do \(condition) && exit 0; sleep 0.1; done; exit 1")
}

/// Waits until somebody listens.
private func awaitListener() async throws { try await soon("rdma resource show cm_id | grep -q LISTEN") }

extension Guest {
    @Suite("Debian's programs as peers of rdma_cm")
    struct PeerTests {
        @Test("rping pings us, and we ping rping; every byte is compared")
        func rping() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesRping()
                        try await pingsRping()
                    }
                }
            }
        }

        @Test("rping with queue pairs of the native provider, in both roles")
        func nativeRping() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        let device = try NativeDevice(.rxe)
                        #expect(try device.open().provider.name == "rxe")
                        try await servesRping(device.loader(.native))
                        try await pingsRping(device.loader(.native))
                    }
                }
            }
        }

        @Test("rping that is killed in the middle of a ping leaves a disconnection and flushed work")
        func killed() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(survivesRping) }
            }
        }

        @Test("ucmatose sends and receives as client and as server")
        func ucmatose() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesUcmatose()
                        try await asksUcmatose()
                    }
                }
            }
        }

        @Test("udaddy finds our datagram service, and we find its")
        func udaddy() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesUdaddy()
                        try await asksUdaddy()
                    }
                }
            }
        }

        @Test("mckey's multicasts reach us, and ours reach mckey")
        func mckey() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await hearsMckey()
                        try await tellsMckey()
                    }
                }
            }
        }
    }
}

private func servesRping(_ loader: ProviderLoader = .standard) async throws {
    let listener = try Listener(port: port)
    async let client = Bench.shell("timeout 120 rping -c -a 10.9.0.1 -p \(port) -C 5 -S 1000 -V -v")
    let request = try #require(try await listener.next())
    let peer = RpingPeer(party: try Party(on: request.openDevice(from: loader)))
    try peer.party.prepare(for: request)
    try peer.begin()
    let connection = try await peer.party.accept(request)
    let pings = try peer.serve()
    #expect(pings.count == 5 && pings.enumerated().allSatisfy { $1.hasPrefix("rdma-ping-\($0): ") })
    // It ends well only when every byte has come back.
    #expect(try await client.contains("rdma-ping-4"))
    try await connection.waitUntilDisconnected(timeout: .seconds(30))
}

private func pingsRping(_ loader: ProviderLoader = .standard) async throws {
    let server = try await Program("rping -s -a 10.9.0.1 -p \(port) -S 1000 -v")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let peer = RpingPeer(party: try Party(on: connector.openDevice(from: loader)))
    try peer.party.prepare(for: connector)
    try peer.begin()
    let connection = try await peer.party.connect(connector)
    for round in 0..<5 {
        let text = "ping number \(round) from Swift"
        #expect(try peer.ping(text, size: 1000) == text)
    }
    try await connection.disconnect()
    #expect(try await server.hasSaid("ended with").contains("server ping data: ping number 4 from Swift"))
}

private func survivesRping() async throws {
    let started = try await Bench.shell("rping -s -P -a 10.9.0.1 -p \(port) >/dev/null 2>&1 & echo $!")
    let server = try #require(pid_t(started.trimmingCharacters(in: .whitespacesAndNewlines)))
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let peer = RpingPeer(party: try Party(on: connector.openDevice()))
    try peer.party.prepare(for: connector)
    try peer.begin()
    let connection = try await peer.party.connect(connector)
    #expect(try peer.ping("alive", size: 64) == "alive")
    // It stands still before it dies, so that it cannot answer.
    kill(server, SIGSTOP)
    try peer.tell(RpingPeer.ping, 64)
    kill(server, SIGKILL)
    try await connection.waitUntilDisconnected(timeout: .seconds(60))
    let event = try await connection.nextEvent(timeout: .seconds(1))
    #expect(event?.kind == .disconnected, "\(String(describing: event))")
    #expect(peer.party.pair.lastKnownState == .error)
    var statuses: [WorkCompletion.Status] = []
    while let completion = try peer.party.completions.poll() { statuses.append(completion.status) }
    #expect(statuses.contains(.flushed), "\(statuses)")
    let later = await failure { try await connection.disconnect() }
    #expect(later == nil)
}

private func servesUcmatose() async throws {
    let listener = try Listener(port: port)
    async let client = Bench.shell("timeout 120 ucmatose -s 10.9.0.1 -p \(port) -C 10 -S 100")
    let request = try #require(try await listener.next())
    let party = try Party(on: request.openDevice())
    try party.prepare(for: request)
    try party.receive(0..<100, count: 10)
    let connection = try await party.accept(request)
    for _ in 0..<10 { try party.pair.post(.send, party.memory.slice(4096..<4196)) }
    var received = 0
    while received < 10 { if try party.completion().opcode == .receive { received += 1 } }
    try await connection.disconnect(timeout: .seconds(30))
    #expect(try await client.contains("data transfers complete"))
}

private func asksUcmatose() async throws {
    let server = try await Program("ucmatose -b 10.9.0.1 -p \(port) -C 10 -S 100")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let party = try Party(on: connector.openDevice())
    try party.prepare(for: connector)
    try party.receive(0..<100, count: 10)
    let connection = try await party.connect(connector)
    for _ in 0..<10 { try party.pair.post(.send, party.memory.slice(4096..<4196)) }
    var received = 0
    while received < 10 { if try party.completion().opcode == .receive { received += 1 } }
    // It is the server that ends this conversation.
    try await connection.waitUntilDisconnected(timeout: .seconds(60))
    let said = try await server.end()
    #expect(said.contains("data transfers complete") && said.contains("return status 0"), "\(said)")
}

private func servesUdaddy() async throws {
    let listener = try Listener(port: 7174, portSpace: .udp)
    async let client = Bench.shell("timeout 120 udaddy -s 10.9.0.1 -C 10 -S 100")
    let request = try #require(try await listener.next())
    let party = try Party(on: request.openDevice(), .unreliableDatagram)
    try party.prepare(for: request)
    try party.receive(0..<140, count: 10)
    try party.acceptDatagrams(request)
    var first: WorkCompletion?
    for _ in 0..<10 {
        let completion = try party.completion()
        #expect(completion.opcode == .receive && completion.byteCount == 140)
        first = first ?? completion
    }
    // The way back is that of what came: its number stands in the immediate.
    let number = try #require(first?.immediate)
    let destination = try party.destination(of: #require(first), number: number)
    for _ in 0..<10 {
        try party.pair.post(.send(immediate: party.pair.number), party.memory.slice(4096..<4196), to: destination)
        try party.completion()
    }
    let said = try await client
    #expect(said.contains("data transfers complete") && said.contains("return status 0"), "\(said)")
}

private func asksUdaddy() async throws {
    let server = try await Program("udaddy -b 10.9.0.1 -C 10 -S 100")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: 7174, portSpace: .udp)
    let party = try Party(on: connector.openDevice(), .unreliableDatagram)
    try party.prepare(for: connector)
    try party.receive(0..<140, count: 10)
    let (service, _) = try await connector.lookUp(timeout: .seconds(30))
    let destination = try party.domain.makeDestination(service)
    for _ in 0..<10 {
        try party.pair.post(.send(immediate: party.pair.number), party.memory.slice(4096..<4196), to: destination)
    }
    var received = 0
    while received < 10 { if try party.completion().opcode == .receive { received += 1 } }
    let said = try await server.end()
    #expect(said.contains("data transfers complete") && said.contains("return status 0"), "\(said)")
}

/// Both sides must be members before the first datagram: mckey waits three seconds by itself.
private func hearsMckey() async throws {
    let connector = try await Connector.resolve("239.77.2.1", port: 0, portSpace: .udp, from: ownAddress)
    let party = try Party(on: connector.openDevice(), .unreliableDatagram)
    try party.prepare(for: connector)
    try party.receive(0..<140, count: 10)
    let membership = try await party.join(connector)
    async let sender = Bench.shell("timeout 120 mckey -b 10.9.0.1 -m 239.77.2.1 -s -C 10 -S 100")
    for _ in 0..<10 { #expect(try party.completion().byteCount == 140) }
    #expect(try await sender.contains("return status 0"))
    withExtendedLifetime(membership) {}
}

private func tellsMckey() async throws {
    let receiver = try await Program("stdbuf -oL mckey -b 10.9.0.1 -m 239.77.2.2 -C 10 -S 100")
    let connector = try await Connector.resolve("239.77.2.2", port: 0, portSpace: .udp, from: ownAddress)
    let party = try Party(on: connector.openDevice(), .unreliableDatagram)
    try party.prepare(for: connector)
    let membership = try await party.join(connector)
    let destination = try party.domain.makeDestination(membership.group)
    try await receiver.hasSaid("receiving")
    for _ in 0..<10 {
        try party.pair.post(.send, party.memory.slice(4096..<4196), to: destination)
        try party.completion()
    }
    let said = try await receiver.end()
    #expect(said.contains("return status 0"), "\(said)")
}
