import ConnectionManager
import Foundation
import Testing
import Verbs

private let port: UInt16 = 7471

extension Guest {
    @Suite("Debian's programs as peers of rdma_cm over the kernel's iWARP (siw), on another host")
    struct IwarpPeerTests {
        @Test("rping transfers data with a Swift server and a Swift client; every byte is compared")
        func rping() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesRping()
                        try await pingsRping()
                    }
                }
            }
        }

        @Test("ucmatose sends and receives as client and as server")
        func ucmatose() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesUcmatose()
                        try await connectsToUcmatose()
                    }
                }
            }
        }

        @Test("killing rping, as server and as client, gives DISCONNECTED and flushed work requests")
        func killed() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await survivesServer()
                        try await survivesClient()
                    }
                }
            }
        }
    }
}

/// The Swift side listens at all addresses, for peers of both families.
private func servesRping() async throws {
    for host in ["10.10.0.1", "fd10::1"] {
        let listener = try Listener(port: port)
        let client = try await Program("rping -c -a \(host) -p \(port) -C 5 -S 1000 -V -v", prefix: IwarpBench.onPeer())
        let request = try await firstRequest(of: listener, from: client)
        #expect(request.deviceName == "siw0")
        let peer = RpingPeer(endpoint: try .iwarp(request.openDevice()))
        try peer.endpoint.prepare(for: request)
        try peer.begin()
        let connection = try await peer.endpoint.accept(request)
        let pings = try peer.serve()
        #expect(pings.count == 5 && pings.enumerated().allSatisfy { $1.hasPrefix("rdma-ping-\($0): ") })
        // rping -V exits with 0 only if every byte came back.
        #expect(try await client.end().contains("rdma-ping-4"))
        try await connection.waitUntilDisconnected(timeout: .seconds(300))
    }
}

/// The first request of a listener; fails with the client's output when none comes within 30 seconds.
private func firstRequest(of listener: Listener, from client: Program? = nil) async throws -> ConnectionRequest {
    let waiting = Task { try await listener.next() }
    let limit = Task {
        try await Task.sleep(for: .seconds(30))
        waiting.cancel()
    }
    let request = try await waiting.value
    limit.cancel()
    if request == nil, let client { Issue.record("\(try await client.awaitOutput("ended with"))") }
    return try #require(request)
}

private func pingsRping() async throws {
    let server = try await Program("rping -s -a 10.10.0.2 -p \(port) -S 1000 -v", prefix: IwarpBench.onPeer())
    try await awaitListener()
    let connector = try await Connector.resolve("10.10.0.2", port: port)
    #expect(connector.deviceName == "siw0")
    let peer = RpingPeer(endpoint: try .iwarp(connector.openDevice()))
    try peer.endpoint.prepare(for: connector)
    try peer.begin()
    let connection = try await peer.endpoint.connect(connector)
    for round in 0..<5 {
        let text = "ping number \(round) from Swift"
        #expect(try peer.ping(text, size: 1000) == text)
    }
    try await connection.disconnect()
    #expect(try await server.awaitOutput("ended with").contains("server ping data: ping number 4 from Swift"))
}

private func servesUcmatose() async throws {
    let listener = try Listener(port: port)
    let client = try await Program("ucmatose -s 10.10.0.1 -p \(port) -C 10 -S 100", prefix: IwarpBench.onPeer())
    let request = try await firstRequest(of: listener, from: client)
    let endpoint = try ConnectionEndpoint.iwarp(request.openDevice())
    try endpoint.prepare(for: request)
    try endpoint.receive(0..<100, count: 10)
    let connection = try await endpoint.accept(request)
    for _ in 0..<10 { try endpoint.pair.postSend(.send, endpoint.memory.sge(4096..<4196)) }
    try awaitReceives(endpoint)
    try await connection.disconnect(timeout: .seconds(300))
    #expect(try await client.awaitOutput("ended with").contains("data transfers complete"))
}

private func connectsToUcmatose() async throws {
    let server = try await Program("ucmatose -b 10.10.0.2 -p \(port) -C 10 -S 100", prefix: IwarpBench.onPeer())
    try await awaitListener()
    let connector = try await Connector.resolve("10.10.0.2", port: port)
    let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
    try endpoint.prepare(for: connector)
    try endpoint.receive(0..<100, count: 10)
    let connection = try await endpoint.connect(connector)
    for _ in 0..<10 { try endpoint.pair.postSend(.send, endpoint.memory.sge(4096..<4196)) }
    try awaitReceives(endpoint)
    // The server ends this connection.
    try await connection.waitUntilDisconnected(timeout: .seconds(300))
    #expect(try await server.awaitOutput("ended with").contains("data transfers complete"))
}

/// Awaits ten received messages.
private func awaitReceives(_ endpoint: ConnectionEndpoint) throws {
    var received = 0
    while received < 10 { if try endpoint.completion().opcode == .receive { received += 1 } }
}

/// Starts rping on the other host, outside of timeout(1). Returns its process.
private func start(_ rping: String) async throws -> pid_t {
    let said = try await Bench.shell("\(IwarpBench.onPeer()) \(rping) >/dev/null 2>&1 & echo $!")
    return try #require(pid_t(said.trimmingCharacters(in: .whitespacesAndNewlines)))
}

private func survivesServer() async throws {
    let server = try await start("rping -s -P -a 10.10.0.2 -p \(port)")
    try await awaitListener()
    let connector = try await Connector.resolve("10.10.0.2", port: port)
    let peer = RpingPeer(endpoint: try .iwarp(connector.openDevice()))
    try peer.endpoint.prepare(for: connector)
    try peer.begin()
    let connection = try await peer.endpoint.connect(connector)
    #expect(try peer.ping("alive", size: 64) == "alive")
    try await stop(server)
    try peer.advertise(RpingPeer.ping, 64)
    kill(server, SIGKILL)
    try await expectEnd(connection, peer.endpoint)
}

private func survivesClient() async throws {
    let listener = try Listener(port: port)
    let client = try await start("rping -c -a 10.10.0.1 -p \(port) -S 1000")
    let request = try await firstRequest(of: listener)
    let peer = RpingPeer(endpoint: try .iwarp(request.openDevice()))
    try peer.endpoint.prepare(for: request)
    try peer.endpoint.receive(0..<16, count: 3)
    let connection = try await peer.endpoint.accept(request)
    // The client has advertised its data.
    #expect(try peer.endpoint.completion().opcode == .receive)
    kill(client, SIGKILL)
    try await expectEnd(connection, peer.endpoint)
}

/// Expects the end of the connection after the death of the peer.
private func expectEnd(_ connection: Connection, _ endpoint: ConnectionEndpoint) async throws {
    try await connection.waitUntilDisconnected(timeout: .seconds(300))
    let event = try await connection.nextEvent(timeout: .seconds(1))
    #expect(event?.type == .disconnected, "\(String(describing: event))")
    #expect(endpoint.pair.lastKnownState == .error && !connection.isConnected)
    while try endpoint.completions.poll(timeout: .seconds(300)).status != .flushed {}
    #expect(await failure { try await connection.disconnect() } == nil)
}
