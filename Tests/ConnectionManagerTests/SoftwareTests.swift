import CMProtocol
import Glibc
import SoftwareConnections
import SystemPackage
import Testing
import Verbs

@testable import ConnectionManager

/// A queue pair with memory and completions of its own.
private final class Endpoint: @unchecked Sendable {
    // Unchecked: one task at a time uses it.
    let domain: ProtectionDomain
    let memory: MemoryRegion
    var completions: CompletionQueue
    var pair: QueuePair

    init(on context: Context, _ type: QueuePairType = .reliableConnection) throws {
        domain = try context.makeProtectionDomain()
        memory = try domain.makeMemoryRegion(
            byteCount: 8192, access: [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic])
        completions = try context.makeCompletionQueue(capacity: 64)
        pair = try domain.makeQueuePair(type, completions: completions)
    }

    func receive() throws { try pair.postReceive(memory.sge(0..<4096)) }

    func completion() throws -> WorkCompletion { try completions.poll(timeout: .seconds(300)) }

    func send(_ text: String, to other: Endpoint) throws {
        try memory.copyBytes(from: Array(text.utf8).span.bytes, at: 4096)
        try pair.postSend(.send, memory.sge(4096..<4096 + text.utf8.count))
        try completion().check()
        let received = try other.completion()
        try received.check()
        #expect(String(decoding: try other.memory.copyBytes(0..<text.utf8.count), as: UTF8.self) == text)
    }

    func connect(_ connector: Connector, _ privateData: [UInt8] = []) async throws(ConnectionError) -> Connection {
        try await connector.connect(pair, privateData: privateData, timeout: .seconds(120))
    }

    func accept(
        _ request: ConnectionRequest, _ privateData: [UInt8] = []
    ) async throws(ConnectionError) -> Connection {
        try await request.accept(pair, privateData: privateData, timeout: .seconds(120))
    }
}

private typealias Connected = (left: Endpoint, Connection, right: Endpoint, Connection, request: ConnectionRequest)

private func connected(
    _ listener: Listener, to host: String = "127.0.0.1", request: [UInt8] = [], reply: [UInt8] = []
) async throws -> Connected {
    let connector = try await Connector.resolve(host, port: listener.port)
    let left = try Endpoint(on: connector.openDevice())
    try connector.prepare(left.pair)
    try left.receive()
    async let active = left.connect(connector, request)
    let incoming = try #require(try await listener.next())
    let right = try Endpoint(on: incoming.openDevice())
    try incoming.prepare(right.pair)
    try right.receive()
    let passive = try await right.accept(incoming, reply)
    return (left, try await active, right, passive, incoming)
}

private func failure(_ body: () async throws -> Void) async -> ConnectionError? {
    do { try await body() } catch { return error as? ConnectionError }
    Issue.record("no error was thrown")
    return nil
}

private func isPadded(_ data: [UInt8], _ start: [UInt8], _ count: Int) -> Bool {
    data.count == count && data.starts(with: start) && data.dropFirst(start.count).allSatisfy { $0 == 0 }
}

extension ChannelTests {
    @Suite("Software devices", .enabled(if: kernelHasNoConnectionManager))
    struct SoftwareTests {
        @Test(
            "Two queue pairs connect, exchange private data and messages, and disconnect",
            arguments: ["127.0.0.1", "::1"])
        func connects(host: String) async throws {
            let listener = try Listener(port: 0)
            for (requestCount, replyCount) in [(0, 0), (56, 196)] {
                let request = (0..<requestCount).map { UInt8($0 + 1) }
                let reply = (0..<replyCount).map { UInt8(255 - $0) }
                let (left, first, right, second, incoming) = try await connected(
                    listener, to: host, request: request, reply: reply)
                #expect(isPadded(incoming.privateData, request, 56) && isPadded(first.privateData, reply, 196))
                #expect(incoming.deviceName == "soft0" && first.identifier.deviceName == "soft0")
                #expect(first.peerAddress?.port == listener.port && second.localAddress == first.peerAddress)
                #expect(
                    second.peerAddress == first.localAddress
                        && second.peerAddress?.host.description == GID(host)?.description ?? "::ffff:\(host)")
                try left.send("to the right", to: right)
                try right.send("to the left", to: left)
                let attributes = try left.pair.query()
                #expect(attributes.minRNRTimer?.rawValue == 12 && attributes.maxRdAtomic ?? 0 > 0)
                try left.receive()
                try right.receive()
                try await first.disconnect()
                try await second.waitUntilDisconnected(timeout: .seconds(120))
                #expect(left.pair.lastKnownState == .error && right.pair.lastKnownState == .error)
                #expect(try right.completion().status == .flushed)
                try await first.recycleQueuePair()
                #expect(left.pair.lastKnownState == .reset)
            }
        }

        @Test("A request is rejected by the program, by the absence of one, and when it is released")
        func rejections() async throws {
            let listener = try Listener(on: ConnectionAddress("127.0.0.1:0")!)
            #expect(listener.port != 0)
            let reason = (0..<148).map { UInt8($0) }
            for isDropped in [false, true] {
                let connector = try await Connector.resolve("127.0.0.1", port: listener.port)
                let endpoint = try Endpoint(on: connector.openDevice())
                async let outcome = failure { _ = try await endpoint.connect(connector) }
                var request = try await listener.next()
                if !isDropped { try request?.reject(privateData: reason) }
                request = nil
                guard case .rejected(.consumer, let data) = await outcome?.reason else {
                    Issue.record("\(String(describing: await outcome))")
                    continue
                }
                #expect(isDropped || isPadded(data, reason, 148))
                #expect(endpoint.pair.lastKnownState == .error)
            }
            let connector = try await Connector.resolve("127.0.0.1", port: listener.port == 9 ? 10 : 9)
            let endpoint = try Endpoint(on: connector.openDevice())
            let refused = await failure { _ = try await endpoint.connect(connector) }
            guard case .rejected(.invalidServiceID, _) = refused?.reason else {
                Issue.record("\(String(describing: refused))")
                return
            }
        }

        @Test("A request that nobody reads is rejected when the listener ends")
        func unread() async throws {
            var listener: Listener? = try Listener(port: 0)
            let connector = try await Connector.resolve("127.0.0.1", port: listener!.port)
            let endpoint = try Endpoint(on: connector.openDevice())
            async let outcome = failure { _ = try await endpoint.connect(connector) }
            let descriptor = listener!.identifier.channel.fileDescriptor.rawValue
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // A blocked thread would delay the task that connects.
            while poll(&entry, 1, 0) == 0 { try await Task.sleep(for: .milliseconds(1)) }
            listener = nil
            guard case .rejected(.consumer, _) = await outcome?.reason else {
                Issue.record("\(String(describing: await outcome))")
                return
            }
        }

        @Test("A port is taken once, at each address and for all; it is free after the listener")
        func ports() async throws {
            let address = ConnectionAddress("127.0.0.1:0")!
            var first: Listener? = try Listener(on: address)
            let taken = ConnectionAddress(host: address.host, port: first!.port)
            let second = await failure { _ = try Listener(on: taken) }
            guard case .system("rdma_bind_addr", .addressInUse) = second?.reason else {
                Issue.record("\(String(describing: second))")
                return
            }
            first = nil
            _ = try Listener(on: taken)
            let elsewhere = await failure { _ = try Listener(on: ConnectionAddress("192.0.2.1:7471")!) }
            guard case .system("rdma_bind_addr", .addressNotAvailable) = elsewhere?.reason else {
                Issue.record("\(String(describing: elsewhere))")
                return
            }
        }

        @Test("A listener with isIPv6Only takes no IPv4 peer; one at 0.0.0.0 no IPv6 peer")
        func families() async throws {
            var options = ConnectionIdentifierOptions()
            options.isIPv6Only = true
            for (listener, host) in [
                (try Listener(on: .any(port: 0), options: options), "127.0.0.1"),
                (try Listener(on: .anyIPv4(port: 0)), "::1"),
            ] {
                let connector = try await Connector.resolve(host, port: listener.port)
                let endpoint = try Endpoint(on: connector.openDevice())
                let refused = await failure { _ = try await endpoint.connect(connector) }
                guard case .rejected(.invalidServiceID, _) = refused?.reason else {
                    Issue.record("\(host): \(String(describing: refused))")
                    continue
                }
            }
        }

        @Test("More requests than the backlog are rejected")
        func backlog() async throws {
            let listener = try Listener(on: ConnectionAddress("127.0.0.1:0")!, backlog: 1)
            let connectors = [
                try await Connector.resolve("127.0.0.1", port: listener.port),
                try await Connector.resolve("127.0.0.1", port: listener.port),
            ]
            let endpoints = try connectors.map { try Endpoint(on: $0.openDevice()) }
            async let first = endpoints[0].connect(connectors[0])
            let request = try #require(try await listener.next())
            let refused = await failure { _ = try await endpoints[1].connect(connectors[1]) }
            guard case .rejected(.noResources, _) = refused?.reason else {
                Issue.record("\(String(describing: refused))")
                return
            }
            let right = try Endpoint(on: request.openDevice())
            let passive = try await right.accept(request)
            #expect(try await first.isConnected && passive.isConnected)
        }

        @Test("Many connections at once")
        func many() async throws {
            let listener = try Listener(port: 0)
            let port = listener.port
            let count = 40
            let server = Task {
                var served: [(Endpoint, Connection)] = []
                for try await request in listener {
                    let endpoint = try Endpoint(on: request.openDevice())
                    served.append((endpoint, try await endpoint.accept(request)))
                    if served.count == count { break }
                }
                return served
            }
            let context = try Device.named("soft0").open()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<count {
                    group.addTask {
                        let connector = try await Connector.resolve("127.0.0.1", port: port)
                        let endpoint = try Endpoint(on: context)
                        let connection = try await endpoint.connect(connector)
                        try await connection.waitUntilDisconnected()
                    }
                }
                for (_, connection) in try await server.value {
                    try await connection.disconnect(timeout: .seconds(120))
                }
                try await group.waitForAll()
            }
        }

        @Test("When the process of the peer is killed, its connection ends")
        func killed() async throws {
            let port = try Listener(port: 0).port
            async let server: Void = Self.serveAndDie(port)
            var connected: (Endpoint, Connection)?
            while connected == nil {
                let connector = try await Connector.resolve("127.0.0.1", port: port)
                let endpoint = try Endpoint(on: connector.openDevice())
                do throws(ConnectionError) {
                    connected = (endpoint, try await endpoint.connect(connector))
                } catch {
                    // The process does not listen yet.
                    guard case .rejected(.invalidServiceID, _) = error.reason else { throw error }
                    try await Task.sleep(for: .milliseconds(1))
                }
            }
            let (endpoint, connection) = try #require(connected)
            try await connection.waitUntilDisconnected(timeout: .seconds(120))
            #expect(endpoint.pair.lastKnownState == .error)
            try await connection.recycleQueuePair()
            await server
        }

        @Test("An identifier that is bound and does not listen refuses requests")
        func bound() async throws {
            let channel = try EventChannel()
            let identifier = try ConnectionIdentifier(channel: channel)
            try identifier.bind(to: ConnectionAddress("127.0.0.1:0")!)
            let port = try #require(identifier.localAddress?.port)
            let connector = try await Connector.resolve("127.0.0.1", port: port)
            let endpoint = try Endpoint(on: connector.openDevice())
            let refused = await failure { _ = try await endpoint.connect(connector) }
            guard case .rejected(.invalidServiceID, _) = refused?.reason else {
                Issue.record("\(String(describing: refused))")
                return
            }
        }

        @Test("A request that claims an address which its port does not have is refused", arguments: [true, false])
        func claimed(isTrue: Bool) throws {
            let channel = try EventChannel()
            let identifier = try ConnectionIdentifier(channel: channel)
            try identifier.bind(to: ConnectionAddress("127.0.0.1:0")!)
            try identifier.listen()
            let port = try #require(identifier.localAddress?.port)
            let code = SoftwareService.shared.perform { state in
                guard let number = state.ports.values.first?.number else { return ENODEV }
                let own = PortGID(low: 0xFFFF_7F00_0001)
                let source = isTrue ? own : PortGID(low: 0xFFFF_0A09_0909)
                var request = ConnectRequest()
                request.localID = UInt32(number) << 24 | 1
                request.serviceID = IPService.identifier(portSpace: 0x0106, port: port)
                request.privateData = IPAddresses(source: source, destination: own, sourcePort: 1).bytes
                state.endpoint.receive(
                    CMMessage(transactionID: 1, .connectRequest(request)),
                    on: CMPath(local: own, remote: own, device: number), now: SoftwareService.now)
                return 0
            }
            try #require(code == 0)
            #expect(try (channel.nextEvent(timeout: .zero)?.type == .connectRequest) == isTrue)
        }

        @Test("The exit of the process ends its connections")
        func exit() async throws {
            let (left, first, right, second, _) = try await connected(Listener(port: 0))
            SoftwareService.shared.leave()
            try await first.waitUntilDisconnected()
            try await second.waitUntilDisconnected()
            #expect(left.pair.lastKnownState == .error && right.pair.lastKnownState == .error)
        }

        private static func serveAndDie(_ port: UInt16) async {
            await #expect(processExitsWith: .signal(SIGKILL)) { [port] in
                // Ends a child to which no connection comes.
                alarm(300)
                let request = try await Listener(port: port).next()!
                let endpoint = try Endpoint(on: request.openDevice())
                let connection = try await endpoint.accept(request)
                withExtendedLifetime(connection) { _ = kill(getpid(), SIGKILL) }
            }
        }

        @Test("A datagram service is looked up, refuses, and is not there")
        func datagrams() async throws {
            let listener = try Listener(port: 0, portSpace: .udp)
            let connector = try await Connector.resolve("127.0.0.1", port: listener.port, portSpace: .udp)
            let left = try Endpoint(on: connector.openDevice(), .unreliableDatagram)
            try connector.prepare(left.pair)
            async let found = connector.lookUp(privateData: [1, 2], timeout: .seconds(120))
            let request = try #require(try await listener.next())
            #expect(isPadded(request.privateData, [1, 2], 180) && request.parameters == nil)
            let right = try Endpoint(on: request.openDevice(), .unreliableDatagram)
            try request.prepare(right.pair)
            try right.receive()
            try request.acceptDatagrams(right.pair, privateData: [3])
            let (service, data) = try await found
            #expect(isPadded(data, [3], 136) && service.qkey == 0x0123_4567)
            #expect(service.queuePairNumber == right.pair.number)
            let destination = try left.domain.makeDestination(service)
            try left.pair.postSend(.send, left.memory.sge(4096..<4100), to: destination)
            try left.completion().check()
            #expect(try right.completion().byteCount == 44)

            let second = try await Connector.resolve("127.0.0.1", port: listener.port, portSpace: .udp)
            async let refused = failure { _ = try await second.lookUp(timeout: .seconds(120)) }
            try #require(try await listener.next()).reject(privateData: [7])
            guard case .serviceRefused(.rejected, let reason) = await refused?.reason else {
                Issue.record("\(String(describing: await refused))")
                return
            }
            #expect(reason.first == 7)
            let third = try await Connector.resolve("127.0.0.1", port: 9, portSpace: .udp)
            let absent = await failure { _ = try await third.lookUp(timeout: .seconds(120)) }
            guard case .serviceRefused(.unsupportedServiceID, _) = absent?.reason else {
                Issue.record("\(String(describing: absent))")
                return
            }
        }

        @Test("A group is joined, and delivers datagrams to its member")
        func multicast() async throws {
            let source = ConnectionAddress("127.0.0.1:0")!
            let connector = try await Connector.resolve("239.1.2.3", port: 7471, portSpace: .udp, from: source)
            let member = try Endpoint(on: connector.openDevice(), .unreliableDatagram)
            let membership = try await connector.join(member.pair, timeout: .seconds(120))
            #expect(membership.group.queuePairNumber == 0xFF_FFFF)
            try member.receive()
            let destination = try member.domain.makeDestination(membership.group)
            try member.pair.postSend(.send, member.memory.sge(4096..<4100), to: destination)
            let completions = [try member.completion(), try member.completion()]
            for completion in completions { try completion.check() }
            #expect(completions.contains { $0.opcode == .receive && $0.byteCount == 44 })
        }

        @Test("Steps out of order, and private data that is too long, are refused")
        func mistakes() async throws {
            let channel = try EventChannel()
            let identifier = try ConnectionIdentifier(channel: channel)
            func refused(_ text: String, _ body: () throws -> Void) {
                let error = #expect(throws: ConnectionError.self) { try body() }
                #expect(error?.description.contains(text) == true, "\(String(describing: error))")
            }
            refused("not bound to a device") { try identifier.connect(ConnectionParameters()) }
            refused("rdma_listen failed: EINVAL") { try identifier.listen() }
            refused("rdma_establish failed: EINVAL") { try identifier.establish() }
            try identifier.resolveAddress(ConnectionAddress("127.0.0.1:9")!, timeout: .seconds(1))
            #expect(try channel.nextEvent(timeout: .seconds(300))?.type == .addressResolved)
            refused("room for 56") {
                try identifier.connect(ConnectionParameters(), privateData: Array(repeating: 0, count: 57))
            }
            refused("rdma_init_qp_attr failed: EINVAL") { _ = try identifier.queuePairAttributes(for: .readyToReceive) }
            refused("rdma_disconnect failed: EINVAL") { try identifier.disconnect() }
            #expect(try channel.nextEvent(timeout: .zero) == nil)
            let events = pollfd(fd: channel.fileDescriptor.rawValue, events: Int16(POLLIN), revents: 0)
            var list = [events]
            #expect(poll(&list, 1, 0) == 0)
        }

        @Test("A child of fork(2) sends nothing in the name of its parent, and does not wait for its lock")
        func child() async throws {
            let (left, first, right, second, _) = try await connected(Listener(port: 0))
            // Swift does not offer fork(2), because a child may call little more than exec.
            let fork = unsafeBitCast(try #require(dlsym(nil, "fork")), to: (@convention(c) () -> pid_t).self)
            // The lock is held during the fork, as another thread may hold it.
            let child = SoftwareService.shared.state.withLock { _ in
                let child = fork()
                if child != 0 { return child }
                alarm(60)
                SoftwareService.shared.leave()
                _exit(SoftwareService.shared.perform { _ in 0 } == EPERM ? 0 : 1)
            }
            try #require(child > 0)
            var status: Int32 = -1
            #expect(waitpid(child, &status, 0) == child && status == 0)
            #expect(first.isConnected && second.isConnected)
            try left.send("still connected", to: right)
        }

        @Test("Events that wait move with the identifier to another channel")
        func migration() throws {
            let (first, second) = (try EventChannel(), try EventChannel())
            let identifier = try ConnectionIdentifier(channel: first)
            try identifier.resolveAddress(ConnectionAddress("127.0.0.1:9")!, timeout: .seconds(1))
            try identifier.migrate(to: second)
            #expect(try first.nextEvent(timeout: .zero) == nil)
            #expect(try second.nextEvent(timeout: .seconds(300))?.type == .addressResolved)
        }
    }
}
