import CIBVerbs
import ConnectionManager
import Foundation
import Testing
import Verbs

private let address = IwarpBench.address

/// Connects two endpoints over siw0: `left` is the active side, `right` the passive one.
private func connectPair(
    to address: ConnectionAddress = address, request: [UInt8] = [], reply: [UInt8] = []
) async throws -> ConnectedPair {
    try await connectPair(
        to: address, at: Listener(on: address), left: ConnectionEndpoint.iwarp, right: ConnectionEndpoint.iwarp,
        request: request, reply: reply)
}

extension Guest {
    @Suite("rdma_cm over the kernel's iWARP (siw)")
    struct IwarpTests {
        @Test(
            "two endpoints connect without CONNECT_RESPONSE, exchange private data of exact length, and transfer data")
        func connects() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await exchange()
                        try await steps()
                    }
                }
            }
        }

        @Test("a failed connect reports its reason: MPA reject, closed port, backlog, no answer, another protocol")
        func refusals() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await rejections()
                        try await backlog()
                        try await unanswered()
                        try await strangers()
                    }
                }
            }
        }

        @Test("either side, or both, can end a connection; the queue pairs are in ERR, and cannot be used again")
        func ends() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await ended()
                        try await crossed()
                        try await dropped()
                    }
                }
            }
        }

        @Test("what iWARP lacks is refused with EOPNOTSUPP and a hint; a post is not refused because of a cached state")
        func limits() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await lacks()
                        try await stale()
                    }
                }
            }
        }

        @Test("asynchronous events are reported: access error, limit of a shared receive queue")
        func events() async throws {
            try await IwarpBench.run {
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await accessError()
                        try await sharedReceives()
                    }
                }
            }
        }

        @Test("removing a device ends its connections and reports DEVICE_REMOVAL")
        func removal() async throws {
            try await IwarpBench.run(alone: true) {
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(removed) }
                try await soon("[ ! -e /sys/class/infiniband/siw0 ]")
            }
        }
    }
}

private func exchange() async throws {
    for address in ["10.10.0.1:7471", "[fd10::1]:7471"].compactMap(ConnectionAddress.init) {
        for (requestLength, replyLength) in [(0, 0), (1, 251), (251, 1)] {
            let request = (0..<requestLength).map { UInt8(truncatingIfNeeded: $0 + 1) }
            let reply = (0..<replyLength).map { UInt8(255 - $0) }
            let (left, right, incoming) = try await connectPair(to: address, request: request, reply: reply)
            #expect(incoming.privateData == request)
            #expect(left.1.privateData == reply)
            #expect(incoming.peerAddress?.host == address.host && left.1.isConnected && right.1.isConnected)
            #expect(left.0.pair.lastKnownState == .readyToSend && right.0.pair.lastKnownState == .readyToSend)
            try send("to the right", from: left.0, to: right.0)
            try send("to the left", from: right.0, to: left.0)
            try transfer(from: left.0, to: right.0)
            try transfer(from: right.0, to: left.0)
            try await left.1.disconnect()
            try await right.1.waitUntilDisconnected(timeout: .seconds(300))
            #expect(left.0.pair.lastKnownState == .error && right.0.pair.lastKnownState == .error)
            // The posted receives are flushed.
            for endpoint in [left.0, right.0] {
                #expect(try endpoint.completions.poll(timeout: .seconds(300)).status == .flushed)
            }
        }
    }
    let connector = try await Connector.resolve(address)
    let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
    let tooMuch = await failure {
        _ = try await endpoint.connect(connector, privateData: [UInt8](repeating: 0, count: 252))
    }
    #expect(tooMuch?.description.contains("iWARP has room for 251") == true, "\(String(describing: tooMuch))")
}

/// WRITE and READ of several packets, and inline data of several SGEs' length.
private func transfer(from left: ConnectionEndpoint, to right: ConnectionEndpoint) throws {
    let bytes = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    try left.write(bytes, at: 12_000)
    try left.pair.postSend(.write(to: right.memory.remote.subrange(33_000...)), left.memory.sge(12_000..<32_000))
    #expect(try left.completion().opcode == .write)
    try left.pair.postSend(.read(from: right.memory.remote.subrange(33_000...)), left.memory.sge(40_000..<60_000))
    let read = try left.completion()
    #expect(read.opcode == .read && read.queuePairNumber == left.pair.number)
    // The READ is ordered behind the WRITE (RFC 5040, 5.5).
    #expect(try left.memory.copyBytes(40_000..<60_000) == bytes)
    #expect(try right.memory.copyBytes(33_000..<53_000) == bytes)
}

/// Each step is a separate call on a `ConnectionIdentifier`; the events of both sides arrive on one channel.
private func steps() async throws {
    let channel = try EventChannel()
    let listener = try ConnectionIdentifier(channel: channel)
    try listener.bind(to: ConnectionAddress(host: address.host, port: 0))
    try listener.listen(backlog: 1)
    let port = try #require(listener.localAddress?.port)
    let active = try ConnectionIdentifier(channel: channel)
    try active.resolveAddress(ConnectionAddress(host: address.host, port: port), timeout: .seconds(2))
    var kinds: [ConnectionEventType] = []
    var endpoints: [ConnectionEndpoint] = []
    var passive: ConnectionIdentifier?
    for try await event in channel.events {
        kinds.append(event.type)
        switch event.type {
        case .addressResolved: try active.resolveRoute(timeout: .seconds(2))
        case .routeResolved:
            endpoints.append(try ConnectionEndpoint.iwarp(active.openDevice()))
            try endpoints[0].pair.modify(active.queuePairAttributes(for: .initialized))
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = endpoints[0].pair.number
            try active.connect(parameters, privateData: [1, 2, 3])
        case .connectRequest:
            #expect(event.listener === listener && event.privateData == [1, 2, 3])
            passive = event.identifier
            endpoints.append(try ConnectionEndpoint.iwarp(event.identifier.openDevice()))
            try endpoints[1].pair.modify(event.identifier.queuePairAttributes(for: .initialized))
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = endpoints[1].pair.number
            try event.identifier.accept(parameters)
        case .established where event.identifier === active:
            // The kernel has completed the connection.
            let refused = await failure { try active.establish() }
            #expect(refused != nil)
            try endpoints[1].receive(0..<4096)
            try endpoints[0].write(Array("unmoved".utf8) + [0], at: 8192)
            try endpoints[0].pair.postSend(.send, endpoints[0].memory.sge(8192..<8200))
            try endpoints[0].completion()
            #expect(try endpoints[1].completion().byteCount == 8 && endpoints[1].text(0..<64) == "unmoved")
            try active.disconnect()
        default: break
        }
        if kinds.count(where: { $0 == .disconnected }) == 2 { break }
    }
    #expect(kinds.prefix(3) == [.addressResolved, .routeResolved, .connectRequest])
    #expect(kinds.count { $0 == .established } == 2 && !kinds.contains(.connectResponse), "\(kinds)")
    withExtendedLifetime(passive) {}
}

/// A request that is rejected, or released without a response, is rejected at the active side; so is a connect to a
/// port where no program listens.
private func rejections() async throws {
    let listener = try Listener(on: address)
    let reason = (0..<200).map { UInt8($0) }
    for isDropped in [false, true] {
        let connector = try await Connector.resolve(address)
        let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
        try endpoint.prepare(for: connector)
        try endpoint.receive(0..<4096)
        async let outcome = failure { _ = try await endpoint.connect(connector) }
        var request = try await listener.next()
        if !isDropped { try request?.reject(privateData: reason) }
        request = nil
        guard case .rejected(.reset, let privateData) = await outcome?.reason else {
            Issue.record("\(String(describing: await outcome))")
            continue
        }
        #expect(privateData == (isDropped ? [] : reason))
        #expect(endpoint.pair.lastKnownState == .error)
        #expect(try endpoint.completions.poll(timeout: .seconds(300)).status == .flushed)
        let again = try await Connector.resolve(address)
        let used = await failure { _ = try await endpoint.connect(again) }
        #expect(used?.description.contains("use a new one") == true, "\(String(describing: used))")
    }
    for host in ["10.10.0.1", "10.10.0.2"] {
        let connector = try await Connector.resolve(host, port: 999)
        let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
        let refused = await failure { _ = try await endpoint.connect(connector) }
        guard case .rejected(.refused, _) = refused?.reason else {
            Issue.record("\(String(describing: refused))")
            continue
        }
        #expect(refused?.description.contains("no program listens") == true)
    }
    let second = await failure { _ = try Listener(on: address) }
    guard case .system("rdma_bind_addr", .addressInUse) = second?.reason else {
        Issue.record("\(String(describing: second))")
        return
    }
}

/// Of three requests that wait at a listener with a backlog of two, one is rejected; the others are accepted.
private func backlog() async throws {
    let listener = try Listener(on: address, backlog: 2)
    let outcomes = try await withThrowingTaskGroup(of: Bool.self) { group in
        for _ in 0..<3 {
            let connector = try await Connector.resolve(address)
            let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
            group.addTask {
                let error = await failure { _ = try await endpoint.connect(connector, timeout: .seconds(9)) }
                if let error, case .rejected(.reset, _) = error.reason { return false }
                #expect(error == nil)
                return true
            }
        }
        var isConnected: [Bool] = []
        // The rejection comes while the two other requests wait.
        if let first = try await group.next() { isConnected.append(first) }
        var kept: [(ConnectionEndpoint, Connection)] = []
        for _ in 0..<2 {
            let request = try #require(try await listener.next())
            let endpoint = try ConnectionEndpoint.iwarp(request.openDevice())
            kept.append((endpoint, try await endpoint.accept(request)))
        }
        for try await outcome in group { isConnected.append(outcome) }
        return isConnected
    }
    #expect(outcomes == [false, true, true])
}

/// Hosts that do not answer: not to the TCP connection, not at all, or not to the MPA request.
private func unanswered() async throws {
    // A neighbour without a host: no answer comes, as behind a firewall that drops packets.
    try await Bench.shell("ip neighbour replace 10.10.0.77 lladdr 02:00:00:00:10:77 dev veth1")
    do {
        let connector = try await Connector.resolve("10.10.0.77", port: 7471)
        let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
        let late = await failure { _ = try await endpoint.connect(connector, timeout: .seconds(1)) }
        guard case .timedOut(.seconds(1)) = late?.reason else {
            Issue.record("\(String(describing: late))")
            return
        }
        #expect(endpoint.pair.lastKnownState == .error)
    }

    let cancelled = try await Connector.resolve("10.10.0.77", port: 7471)
    let second = try ConnectionEndpoint.iwarp(cancelled.openDevice())
    let task = Task { await failure { _ = try await second.connect(cancelled) } }
    try await Task.sleep(for: .milliseconds(300))
    task.cancel()
    guard case .cancelled = await task.value?.reason else {
        Issue.record("\(String(describing: await task.value))")
        return
    }

    let absent = await failure { _ = try await Connector.resolve("10.10.0.78", port: 7471, timeout: .seconds(2)) }
    switch absent?.reason {
    case .addressNotResolved, .timedOut(.seconds(2)): break
    default: Issue.record("\(String(describing: absent))")
    }
}

/// Servers that speak TCP but not MPA: one that answers something else, one that does not answer, one that closes.
///
/// The wrong answer has the length of an MPA reply without private data: after one with a length of private data that
/// never comes, siw of Linux 6.1 dereferences a null pointer in the kernel (siw_cm_upcall). Likewise its listeners
/// count references wrongly after a client that is gone before its MPA request, so no such client connects here.
private func strangers() async throws {
    for (port, answer) in [(7481, "b'HTTP/1.0 400 Bad' + bytes(4)"), (7482, "b''"), (7483, "")] as [(UInt16, String)] {
        let server = try await Program(
            """
            python3 -c "import socket
            s = socket.socket(); s.bind(('10.10.0.2', \(port))); s.listen(); print('ready', flush=True)
            c = s.accept()[0]; c.recv(999); \(answer.isEmpty ? "" : "c.sendall(\(answer)); c.recv(999);") c.close()"
            """, prefix: IwarpBench.onPeer())
        try await server.awaitOutput("ready")
        let connector = try await Connector.resolve("10.10.0.2", port: port)
        let endpoint = try ConnectionEndpoint.iwarp(connector.openDevice())
        let error = await failure { _ = try await endpoint.connect(connector, timeout: .seconds(30)) }
        switch (port, error?.reason) {
        case (7481, .unreachable), (7482, .unreachable(.timedOut)), (7483, .rejected(.reset, _)): break
        default: Issue.record("\(port): \(String(describing: error))")
        }
        #expect(endpoint.pair.lastKnownState == .error)
        _ = try await server.end()
    }
}

/// Each side ends one connection.
private func ended() async throws {
    for isActive in [true, false] {
        let (left, right, _) = try await connectPair()
        try send("before the end", from: left.0, to: right.0)
        let (first, second) = isActive ? (left, right) : (right, left)
        let refused = await failure { try await first.1.recycleQueuePair() }
        #expect(refused?.description.contains("make a new queue pair") == true && first.1.isConnected)
        try await first.1.disconnect()
        try await second.1.waitUntilDisconnected(timeout: .seconds(300))
        #expect(try await second.1.nextEvent(timeout: .seconds(1))?.type == .disconnected)
        for (endpoint, connection) in [first, second] {
            #expect(!connection.isConnected && endpoint.pair.lastKnownState == .error)
            // All receives that were posted are flushed: the right side has used one.
            for _ in 0..<(endpoint === left.0 ? 4 : 3) {
                #expect(try endpoint.completions.poll(timeout: .seconds(300)).status == .flushed)
            }
            // A post is not refused. libsiw leaves it in the queue.
            try endpoint.receive(0..<4096)
            try endpoint.pair.postSend(.send, endpoint.memory.sge(8192..<8200))
            #expect(await failure { try await connection.disconnect() } == nil)
        }
    }
}

/// Both sides end the connection at the same time, also immediately after it was established.
private func crossed() async throws {
    for _ in 0..<5 {
        let (left, right, _) = try await connectPair()
        async let first: Void = left.1.disconnect(timeout: .seconds(300))
        async let second: Void = right.1.disconnect(timeout: .seconds(300))
        try await first
        try await second
        #expect(left.0.pair.lastKnownState == .error && right.0.pair.lastKnownState == .error)
    }
    let listener = try Listener(on: address)
    for _ in 0..<5 {
        let connector = try await Connector.resolve(address)
        let left = try ConnectionEndpoint.iwarp(connector.openDevice())
        async let active: Void = left.connect(connector).disconnect(timeout: .seconds(300))
        let request = try #require(try await listener.next())
        let right = try ConnectionEndpoint.iwarp(request.openDevice())
        try await right.accept(request).disconnect(timeout: .seconds(300))
        try await active
        #expect(left.pair.lastKnownState == .error && right.pair.lastKnownState == .error)
    }
}

/// Releasing a connection ends it; releasing a queue pair does so too.
private func dropped() async throws {
    let right: (ConnectionEndpoint, Connection)
    do {
        let both = try await connectPair()
        right = both.right
    }
    try await right.1.waitUntilDisconnected(timeout: .seconds(300))
    func withoutQueuePair() async throws -> (left: Connection, right: (ConnectionEndpoint, Connection)) {
        let both = try await connectPair()
        return (both.left.1, both.right)
    }
    let again = try await withoutQueuePair()
    try await again.right.1.waitUntilDisconnected(timeout: .seconds(300))
    #expect(await failure { try await again.left.disconnect() } == nil)
}

/// Operations, objects and port spaces that iWARP does not have.
private func lacks() async throws {
    let (left, right, _) = try await connectPair()
    let remote = right.0.memory.remote
    let operations: [(SendOperation, String)] = [
        (.send(immediate: 1), "SEND_WITH_IMM"), (.write(to: remote, immediate: 1), "RDMA_WRITE_WITH_IMM"),
        (.fetchAndAdd(at: remote, adding: 1), "ATOMIC_FETCH_AND_ADD"),
        (.compareAndSwap(at: remote, expected: 0, desired: 1), "ATOMIC_CMP_AND_SWP"),
    ]
    for (operation, name) in operations {
        expectUnsupported(name) { () throws(VerbsError) in
            try left.0.pair.postSend(operation, left.0.memory.sge(8192..<8200))
        }
    }
    // Nothing was posted.
    try send("still connected", from: left.0, to: right.0)

    let (context, domain) = (left.0.context, left.0.domain)
    expectUnsupported("rdma_cm") { () throws(VerbsError) in try left.0.pair.initialize() }
    expectUnsupported("reliable connections (RC) only") { () throws(VerbsError) in
        let completions = try context.makeCompletionQueue(capacity: 4)
        _ = try domain.makeQueuePair(.unreliableDatagram, completions: completions)
    }
    expectUnsupported("no address handles") { () throws(VerbsError) in
        _ = try domain.makeAddressHandle(AddressVector(port: 1, lid: 1))
    }
    expectUnsupported("no multicast") { () throws(VerbsError) in
        try left.0.pair.attach(to: MulticastGroup(gid: GID(ipv4: 239, 1, 1, 1)))
    }
    let attempts: [(Verb, () async throws -> Void)] = [
        ("rdma_connect", { _ = try await Connector.resolve("10.10.0.1", port: 7472, portSpace: .udp).lookUp() }),
        ("rdma_listen", { _ = try Listener(on: ConnectionAddress("10.10.0.1:7472")!, portSpace: .udp) }),
        (
            "rdma_join_multicast",
            {
                let group = try await Connector.resolve(
                    "239.77.1.1", port: 0, portSpace: .udp, from: ConnectionAddress("10.10.0.1:0")!)
                _ = try await left.0.join(group)
            }
        ),
    ]
    for (call, attempt) in attempts {
        let error = await failure(attempt)
        guard case .system(call, .notSupported) = error?.reason else {
            Issue.record("\(call): \(String(describing: error))")
            continue
        }
        #expect(error?.hint?.contains("siw0 is an iWARP device") == true)
    }
}

private func expectUnsupported(_ hint: String, _ body: () throws(VerbsError) -> Void) {
    do throws(VerbsError) {
        try body()
        Issue.record("no error with \(hint)")
    } catch {
        #expect(error.errno == .notSupported && error.hint?.contains(hint) == true, "\(error)")
        #expect(error.hint?.contains("iWARP") == true, "\(error)")
    }
}

/// Posting reaches the device whatever state this side has recorded, since the kernel moves the queue pair.
private func stale() async throws {
    let (left, right, _) = try await connectPair()
    for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_SQD, IBV_QPS_ERR] {
        left.0.pair.unsafeRaw.pointee.state = state
        right.0.pair.unsafeRaw.pointee.state = state
        try right.0.receive(0..<4096)
        try send("state \(state.rawValue)", from: left.0, to: right.0)
        try send("state \(state.rawValue) back", from: right.0, to: left.0)
        try left.0.receive(0..<4096)
    }
}

/// A WRITE to memory that the peer has not opened for it.
private func accessError() async throws {
    let (left, right, _) = try await connectPair()
    let region = try right.0.domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteRead])
    try left.0.pair.postSend(.write(to: region.remote), left.0.memory.sge(0..<64))
    let event = try right.0.context.nextEvent(timeout: .seconds(300))
    #expect(
        event == AsynchronousEvent(type: .queuePairAccessError, subject: .queuePair(number: right.0.pair.number)))
    // The responder sends TERMINATE and closes the connection (RFC 5040, 4.8).
    for (endpoint, connection) in [left, right] {
        try await connection.waitUntilDisconnected(timeout: .seconds(300))
        #expect(endpoint.pair.lastKnownState == .error)
        while try endpoint.completions.poll(timeout: .seconds(300)).status != .flushed {}
    }
}

/// Two queue pairs receive from one shared receive queue, whose limit is reached.
private func sharedReceives() async throws {
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address)
    let left = try ConnectionEndpoint.iwarp(connector.openDevice())
    let active = Task { try await left.connect(connector) }
    let request = try #require(try await listener.next())
    let right = try ConnectionEndpoint.iwarp(request.openDevice())
    let queue = try right.domain.makeSharedReceiveQueue(.init(maxWR: 16))
    right.pair = try right.domain.makeQueuePair(
        .reliableConnection, sendCompletions: right.completions, receiveCompletions: right.completions,
        sharedReceiveQueue: queue)
    try await share(queue, left, right, request, active)
}

private func share(
    _ shared: consuming SharedReceiveQueue, _ left: ConnectionEndpoint, _ right: ConnectionEndpoint,
    _ request: ConnectionRequest, _ active: Task<Connection, any Error>
) async throws {
    for index in 0..<8 { try shared.postReceive(right.memory.sge(index * 64..<index * 64 + 64), id: UInt64(index)) }
    try shared.setLimit(4)
    let passive = try await right.accept(request)
    let connection = try await active.value
    for index in 0..<6 {
        try left.write(Array("message \(index)".utf8) + [0], at: 8192)
        try left.pair.postSend(.send, left.memory.sge(8192..<8202))
        try left.completion()
        #expect(try right.completion().id == UInt64(index))
        #expect(try right.text(index * 64..<index * 64 + 64) == "message \(index)")
    }
    let event = try right.context.nextEvent(timeout: .seconds(300))
    #expect(event?.type == .sharedReceiveQueueLimitReached, "\(String(describing: event))")
    try await connection.disconnect()
    try await passive.waitUntilDisconnected(timeout: .seconds(300))
}

/// The device is removed while it is in use.
private func removed() async throws {
    let (left, right, _) = try await connectPair()
    // In the background: the command returns only after this process has exited, since librdmacm keeps the device open.
    try await Bench.shell("rdma link delete siw0 </dev/null >/dev/null 2>&1 &")
    for connection in [left.1, right.1] {
        try await connection.waitUntilDisconnected(timeout: .seconds(300))
        #expect(!connection.isConnected)
        var kinds: [ConnectionEventType] = []
        while kinds.last != .deviceRemoval, let event = try await connection.nextEvent(timeout: .seconds(300)) {
            kinds.append(event.type)
        }
        #expect(kinds.last == .deviceRemoval, "\(kinds)")
        try await connection.disconnect()
    }
}
