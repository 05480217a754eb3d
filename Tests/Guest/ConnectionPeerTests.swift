import ConnectionManager
import Foundation
import ProviderLoader
import Testing
import Verbs

private let port: UInt16 = 7471
/// The multicast groups have no route, so the source address selects the device.
private let ownAddress = ConnectionAddress("10.9.0.1:0")

extension Guest {
    @Suite("Debian's programs as peers of rdma_cm")
    struct PeerTests {
        @Test("rping transfers data with a Swift server and a Swift client; every byte is compared")
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

        @Test("rping transfers data with queue pairs of the native provider, as client and as server")
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

        @Test("killing rping in the middle of a ping gives DISCONNECTED and flushed work requests")
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
                        try await connectsToUcmatose()
                    }
                }
            }
        }

        @Test("udaddy resolves a Swift datagram service, and a Swift client resolves udaddy's")
        func udaddy() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await servesUdaddy()
                        try await connectsToUdaddy()
                    }
                }
            }
        }

        @Test("multicast datagrams are delivered from mckey to Swift and from Swift to mckey")
        func mckey() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await receivesFromMckey()
                        try await sendsToMckey()
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
    let peer = RpingPeer(endpoint: try ConnectionEndpoint(on: request.openDevice(from: loader)))
    try peer.endpoint.prepare(for: request)
    try peer.begin()
    let connection = try await peer.endpoint.accept(request)
    let pings = try peer.serve()
    #expect(pings.count == 5 && pings.enumerated().allSatisfy { $1.hasPrefix("rdma-ping-\($0): ") })
    // rping -V exits with 0 only if every byte came back.
    #expect(try await client.contains("rdma-ping-4"))
    try await connection.waitUntilDisconnected(timeout: .seconds(300))
}

private func pingsRping(_ loader: ProviderLoader = .standard) async throws {
    let server = try await Program("rping -s -a 10.9.0.1 -p \(port) -S 1000 -v")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let peer = RpingPeer(endpoint: try ConnectionEndpoint(on: connector.openDevice(from: loader)))
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

private func survivesRping() async throws {
    let started = try await Bench.shell("rping -s -P -a 10.9.0.1 -p \(port) >/dev/null 2>&1 & echo $!")
    let server = try #require(pid_t(started.trimmingCharacters(in: .whitespacesAndNewlines)))
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let peer = RpingPeer(endpoint: try ConnectionEndpoint(on: connector.openDevice()))
    try peer.endpoint.prepare(for: connector)
    try peer.begin()
    let connection = try await peer.endpoint.connect(connector)
    #expect(try peer.ping("alive", size: 64) == "alive")
    // Stopped before it is killed, so that rping cannot process the message.
    try await stop(server)
    try peer.advertise(RpingPeer.ping, 64)
    kill(server, SIGKILL)
    try await connection.waitUntilDisconnected(timeout: .seconds(300))
    let event = try await connection.nextEvent(timeout: .seconds(1))
    #expect(event?.type == .disconnected, "\(String(describing: event))")
    #expect(peer.endpoint.pair.lastKnownState == .error)
    var statuses: [WorkCompletion.Status] = []
    // The kernel's rxe flushes in a separate task, which may run after the DISCONNECTED event.
    while !statuses.contains(.flushed) {
        try statuses.append(peer.endpoint.completions.poll(timeout: .seconds(300)).status)
    }
    let later = await failure { try await connection.disconnect() }
    #expect(later == nil)
}

private func servesUcmatose() async throws {
    let listener = try Listener(port: port)
    async let client = Bench.shell("timeout 120 ucmatose -s 10.9.0.1 -p \(port) -C 10 -S 100")
    let request = try #require(try await listener.next())
    let endpoint = try ConnectionEndpoint(on: request.openDevice())
    try endpoint.prepare(for: request)
    try endpoint.receive(0..<100, count: 10)
    let connection = try await endpoint.accept(request)
    for _ in 0..<10 { try endpoint.pair.postSend(.send, endpoint.memory.sge(4096..<4196)) }
    var received = 0
    while received < 10 { if try endpoint.completion().opcode == .receive { received += 1 } }
    try await connection.disconnect(timeout: .seconds(300))
    #expect(try await client.contains("data transfers complete"))
}

private func connectsToUcmatose() async throws {
    let server = try await Program("ucmatose -b 10.9.0.1 -p \(port) -C 10 -S 100")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: port)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice())
    try endpoint.prepare(for: connector)
    try endpoint.receive(0..<100, count: 10)
    let connection = try await endpoint.connect(connector)
    for _ in 0..<10 { try endpoint.pair.postSend(.send, endpoint.memory.sge(4096..<4196)) }
    var received = 0
    while received < 10 { if try endpoint.completion().opcode == .receive { received += 1 } }
    // The server ends this connection.
    try await connection.waitUntilDisconnected(timeout: .seconds(300))
    let output = try await server.end()
    #expect(output.contains("data transfers complete") && output.contains("return status 0"), "\(output)")
}

private func servesUdaddy() async throws {
    let listener = try Listener(port: 7174, portSpace: .udp)
    async let client = Bench.shell("timeout 120 udaddy -s 10.9.0.1 -C 10 -S 100")
    let request = try #require(try await listener.next())
    let endpoint = try ConnectionEndpoint(on: request.openDevice(), .unreliableDatagram)
    try endpoint.prepare(for: request)
    try endpoint.receive(0..<140, count: 10)
    try endpoint.acceptDatagrams(request)
    var first: WorkCompletion?
    for _ in 0..<10 {
        let completion = try endpoint.completion()
        #expect(completion.opcode == .receive && completion.byteCount == 140)
        first = first ?? completion
    }
    // udaddy sends its QP number as immediate data.
    let number = try #require(first?.immediate)
    let destination = try endpoint.destination(of: #require(first), number: number)
    for _ in 0..<10 {
        try endpoint.pair.postSend(
            .send(immediate: endpoint.pair.number), endpoint.memory.sge(4096..<4196), to: destination)
        try endpoint.completion()
    }
    let output = try await client
    #expect(output.contains("data transfers complete") && output.contains("return status 0"), "\(output)")
}

private func connectsToUdaddy() async throws {
    let server = try await Program("udaddy -b 10.9.0.1 -C 10 -S 100")
    try await awaitListener()
    let connector = try await Connector.resolve("10.9.0.1", port: 7174, portSpace: .udp)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
    try endpoint.prepare(for: connector)
    try endpoint.receive(0..<140, count: 10)
    let (service, _) = try await connector.lookUp(timeout: .seconds(300))
    let destination = try endpoint.domain.makeDestination(service)
    for _ in 0..<10 {
        try endpoint.pair.postSend(
            .send(immediate: endpoint.pair.number), endpoint.memory.sge(4096..<4196), to: destination)
    }
    var received = 0
    while received < 10 { if try endpoint.completion().opcode == .receive { received += 1 } }
    let output = try await server.end()
    #expect(output.contains("data transfers complete") && output.contains("return status 0"), "\(output)")
}

/// Both sides must be members of the group before the first datagram is sent. mckey itself waits three seconds.
private func receivesFromMckey() async throws {
    let connector = try await Connector.resolve("239.77.2.1", port: 0, portSpace: .udp, from: ownAddress)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
    try endpoint.prepare(for: connector)
    try endpoint.receive(0..<140, count: 10)
    let membership = try await endpoint.join(connector)
    async let sender = Bench.shell("timeout 120 mckey -b 10.9.0.1 -m 239.77.2.1 -s -C 10 -S 100")
    for _ in 0..<10 { #expect(try endpoint.completion().byteCount == 140) }
    #expect(try await sender.contains("return status 0"))
    withExtendedLifetime(membership) {}
}

private func sendsToMckey() async throws {
    let receiver = try await Program("stdbuf -oL mckey -b 10.9.0.1 -m 239.77.2.2 -C 10 -S 100")
    let connector = try await Connector.resolve("239.77.2.2", port: 0, portSpace: .udp, from: ownAddress)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
    try endpoint.prepare(for: connector)
    let membership = try await endpoint.join(connector)
    let destination = try endpoint.domain.makeDestination(membership.group)
    try await receiver.awaitOutput("receiving")
    for _ in 0..<10 {
        try endpoint.pair.postSend(.send, endpoint.memory.sge(4096..<4196), to: destination)
        try endpoint.completion()
    }
    let output = try await receiver.end()
    #expect(output.contains("return status 0"), "\(output)")
}
