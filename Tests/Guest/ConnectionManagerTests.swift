import ConnectionManager
import Foundation
import Testing
import Verbs

private let address = ConnectionAddress("10.9.0.1:7471")!
/// The multicast groups have no route, so the source address selects the device.
private let ownAddress = ConnectionAddress("10.9.0.1:0")

/// Connects two endpoints over rxe0: `left` is the active side, `right` the passive one. An endpoint that is nil is
/// created.
private func connectPair(
    to address: ConnectionAddress = address, left: ConnectionEndpoint? = nil, right: ConnectionEndpoint? = nil,
    request: [UInt8] = [], reply: [UInt8] = []
) async throws -> ConnectedPair {
    try await connectPair(
        to: address, at: Listener(port: address.port), left: { try left ?? ConnectionEndpoint(on: $0) },
        right: { try right ?? ConnectionEndpoint(on: $0) }, request: request, reply: reply)
}

extension Guest {
    @Suite("rdma_cm over the kernel's rxe")
    struct ConnectionManagerTests {
        @Test("two endpoints connect over IPv4 and IPv6, exchange private data of several lengths, and transfer data")
        func connects() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(exchange) }
            }
        }

        @Test("a failed connect reports its reason: rejected, no listener, no response, no device")
        func refusals() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await rejections()
                        try await unreachable()
                        try await mistakes()
                    }
                }
            }
        }

        @Test("either side can end a connection, and its queue pair can be reused only after TIMEWAIT_EXIT")
        func ends() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await recycled()
                        try await crossed()
                        try await dropped()
                        try await steps()
                    }
                }
            }
        }

        @Test("options and parameters reach the queue pairs; a task that waits for events can be cancelled")
        func settings() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await options()
                        try await cancellation()
                    }
                }
            }
        }

        @Test("removing a device ends its connections and reports DEVICE_REMOVAL")
        func removal() async throws {
            try await Bench.run(alone: true) { _ in
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(removed) }
                // The kernel removes the device only after the process has exited.
                try await Bench.shell("while [ -e /sys/class/infiniband/rxe0 ]; do sleep 0.1; done")
            }
        }

        @Test("without permission for rdma_cm, or without a libibverbs provider, the error has a hint")
        func unusable() async throws {
            try await Bench.run { _ in
                try await Bench.shell("chmod 600 /dev/infiniband/rdma_cm")
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(forbidden) }
                try await Bench.shell("chmod 666 /dev/infiniband/rdma_cm")
                try await Bench.shell("mount -t tmpfs none /etc/libibverbs.d")
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(withoutProvider) }
                try await Bench.shell("umount /etc/libibverbs.d")
            }
        }

        @Test("a datagram service accepts and rejects SIDR requests; a multicast group delivers to its members")
        func datagrams() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await service()
                        try await group()
                    }
                }
            }
        }
    }
}

private func exchange() async throws {
    for address in ["10.9.0.1:7471", "[fd09::1]:7471"].compactMap(ConnectionAddress.init) {
        for (requestLength, replyLength) in [(0, 0), (1, 1), (56, 196)] {
            let request = (0..<requestLength).map { UInt8($0 + 1) }
            let reply = (0..<replyLength).map { UInt8(255 - $0) }
            let (left, right, incoming) = try await connectPair(to: address, request: request, reply: reply)
            #expect(incoming.privateData.isPadded(request))
            #expect(left.1.privateData.isPadded(reply))
            #expect(incoming.peerAddress?.host == address.host && left.1.isConnected && right.1.isConnected)
            try send("to the right", from: left.0, to: right.0)
            try send("to the left", from: right.0, to: left.0)
            let attributes = try left.0.pair.query()
            #expect(attributes.minRNRTimer?.rawValue == 12 && attributes.state == .readyToSend)
            try await left.1.disconnect()
            try await right.1.waitUntilDisconnected(timeout: .seconds(300))
            #expect(left.0.pair.lastKnownState == .error && right.0.pair.lastKnownState == .error)
            // The posted receives are flushed.
            #expect(try right.0.completions.poll(timeout: .seconds(300)).status == .flushed)
        }
    }
}

/// A request that is rejected, or released without a response, is rejected at the active side.
private func rejections() async throws {
    let listener = try Listener(on: address)
    #expect(listener.port == 7471)
    let reason = (0..<148).map { UInt8($0) }
    for isDropped in [false, true] {
        let connector = try await Connector.resolve(address)
        let endpoint = try ConnectionEndpoint(on: connector.openDevice())
        async let outcome = failure { _ = try await endpoint.connect(connector) }
        var request = try await listener.next()
        if !isDropped {
            let tooMuch = await failure { try request?.reject(privateData: reason + [0]) }
            #expect(tooMuch?.description.contains("has room for 148") == true)
            try request?.reject(privateData: reason)
        }
        request = nil
        guard case .rejected(let code, let privateData) = await outcome?.reason else {
            Issue.record("\(String(describing: await outcome))")
            continue
        }
        #expect(isDropped || code == .consumer && privateData.isPadded(reason), "\(code)")
        #expect(endpoint.pair.lastKnownState == .error)
    }
    let second = await failure { _ = try Listener(on: address) }
    guard case .system("rdma_bind_addr", .addressInUse) = second?.reason else {
        Issue.record("\(String(describing: second))")
        return
    }
}

/// No listener at the port; a host without rdma_cm; a cancelled connect; addresses that no RDMA device reaches.
private func unreachable() async throws {
    let connector = try await Connector.resolve("10.9.0.1", port: 999)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice())
    let refused = await failure { _ = try await endpoint.connect(connector) }
    guard case .rejected(.invalidServiceID, _) = refused?.reason else {
        Issue.record("\(String(describing: refused))")
        return
    }
    #expect(refused?.description.contains("no program listens") == true)

    let silent = try await Connector.resolve("10.9.0.2", port: 7471)
    let other = try ConnectionEndpoint(on: silent.openDevice())
    let noResponse = await failure {
        _ = try await other.connect(silent, timeout: .seconds(2))
    }
    guard case .timedOut(.seconds(2)) = noResponse?.reason else {
        Issue.record("\(String(describing: noResponse))")
        return
    }
    #expect(other.pair.lastKnownState == .error)

    let unanswered = try await Connector.resolve("10.9.0.2", port: 7472, portSpace: .udp)
    let noService = await failure { _ = try await unanswered.lookUp(timeout: .seconds(2)) }
    guard case .timedOut(.seconds(2)) = noService?.reason else {
        Issue.record("\(String(describing: noService))")
        return
    }

    let cancelled = try await Connector.resolve("10.9.0.2", port: 7471)
    let third = try ConnectionEndpoint(on: cancelled.openDevice())
    let task = Task { await failure { _ = try await third.connect(cancelled) } }
    task.cancel()
    guard case .cancelled = await task.value?.reason else {
        Issue.record("\(String(describing: await task.value))")
        return
    }

    for host in ["10.9.0.77", "127.0.0.1", "192.0.2.1"] {
        let error = await failure {
            _ = try await Connector.resolve(host, port: 1, timeout: .seconds(2))
        }
        let text = error?.description ?? ""
        switch error?.reason {
        case .addressNotResolved, .timedOut(.seconds(2)), .system: break
        default: Issue.record("\(text)")
        }
        #expect(text.contains(host) && !text.contains("\n"))
        // The error lists the RDMA devices.
        if case .addressNotResolved = error?.reason { #expect(text.contains("rxe0 ("), "\(text)") }
    }
}

/// Wrong calls that are reported before a packet is sent.
private func mistakes() async throws {
    let connector = try await Connector.resolve(address)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice())
    let soft = try ConnectionEndpoint(on: Device.named("soft0").open())
    let datagrams = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
    for (wrong, message) in [(soft, "in userspace only"), (datagrams, "of type UD in port space TCP")] {
        let error = await failure { _ = try await wrong.connect(connector) }
        #expect(error?.description.contains(message) == true, "\(String(describing: error))")
        #expect(wrong.pair.lastKnownState == .reset)
    }
    let long = await failure {
        _ = try await endpoint.connect(connector, privateData: [UInt8](repeating: 1, count: 57))
    }
    #expect(long?.description.contains("has room for 56") == true, "\(String(describing: long))")
    let used = await failure { _ = try await endpoint.connect(connector) }
    #expect(used?.description.contains("in state ERR") == true, "\(String(describing: used))")
    try await wrongPortSpace()
    try await connectedTwice()

    let unbound = try ConnectionIdentifier(channel: EventChannel())
    for step in 0..<6 {
        let error = await failure {
            switch step {
            case 0: try unbound.resolveRoute(timeout: .seconds(1))
            case 1: try unbound.connect(ConnectionParameters())
            case 2: try unbound.disconnect()
            case 3: _ = try unbound.openDevice()
            case 4: _ = try unbound.queuePairAttributes(for: .initialized)
            default: try unbound.join(#require(ConnectionAddress("239.1.2.3:0")))
            }
        }
        #expect(
            error?.description.contains("resolve the address first") == true, "\(step): \(String(describing: error))")
    }
    var options = ConnectionIdentifierOptions()
    options.acknowledgeTimeout = 32
    let value = await failure { try unbound.set(options) }
    #expect(value?.description.contains("from 0 to 31") == true)
    options.acknowledgeTimeout = 18
    options.typeOfService = 0x20
    options.reusesAddress = true
    options.isIPv6Only = false
    try unbound.set(options)
}

/// A call of the wrong port space (datagrams on TCP, connections on UDP) sends nothing and modifies no queue pair.
private func wrongPortSpace() async throws {
    func expectRefusal(_ error: ConnectionError?, _ space: PortSpace) {
        #expect(
            error?.description.contains("the identifier is of port space \(space)") == true,
            "\(String(describing: error))")
    }
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address)
    let left = try ConnectionEndpoint(on: connector.openDevice())
    expectRefusal(await failure { _ = try await connector.lookUp() }, .tcp)
    expectRefusal(await failure { _ = try await left.join(connector) }, .tcp)
    #expect(left.pair.lastKnownState == .reset)
    async let refusal = failure { _ = try await left.connect(connector) }
    let request = try #require(try await listener.next())
    let right = try ConnectionEndpoint(on: request.openDevice())
    expectRefusal(await failure { try right.acceptDatagrams(request) }, .tcp)
    #expect(right.pair.lastKnownState == .reset)
    try request.reject()
    guard case .rejected(.consumer, _) = await refusal?.reason else {
        Issue.record("\(String(describing: await refusal))")
        return
    }

    let service = try Listener(port: 7472, portSpace: .udp)
    let finder = try await Connector.resolve("10.9.0.1", port: 7472, portSpace: .udp)
    let datagrams = try ConnectionEndpoint(on: finder.openDevice(), .unreliableDatagram)
    expectRefusal(await failure { _ = try await datagrams.connect(finder) }, .udp)
    async let outcome = failure { _ = try await finder.lookUp() }
    let lookup = try #require(try await service.next())
    expectRefusal(await failure { _ = try await datagrams.accept(lookup) }, .udp)
    #expect(datagrams.pair.lastKnownState == .reset)
    try lookup.reject()
    guard case .serviceRefused(.rejected, _) = await outcome?.reason else {
        Issue.record("\(String(describing: await outcome))")
        return
    }
}

/// A second connect with the same connector fails and leaves the connection unchanged.
private func connectedTwice() async throws {
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address)
    let left = try ConnectionEndpoint(on: connector.openDevice())
    let other = try ConnectionEndpoint(on: connector.openDevice())
    async let active = left.connect(connector)
    let request = try #require(try await listener.next())
    let right = try ConnectionEndpoint(on: request.openDevice())
    let passive = try await right.accept(request)
    let connection = try await active
    let again = await failure { _ = try await other.connect(connector) }
    #expect(again?.description.contains("has connected a queue pair already") == true, "\(String(describing: again))")
    #expect(connection.isConnected && left.pair.lastKnownState == .readyToSend)
    try await connection.disconnect()
    try await passive.waitUntilDisconnected(timeout: .seconds(300))
    #expect(left.pair.lastKnownState == .error)
}

/// Options and parameters that are set before the connection reach its queue pairs. The active side determines
/// `retry_count` of both queue pairs; each side determines the peer's `rnr_retry_count`.
private func options() async throws {
    var options = ConnectionIdentifierOptions()
    options.acknowledgeTimeout = 18
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address, options: options)
    let left = try ConnectionEndpoint(on: connector.openDevice())
    var requested = ConnectionParameters()
    requested.retryCount = 3
    requested.rnrRetry = 6
    async let active = left.connect(connector, parameters: requested)
    let request = try #require(try await listener.next())
    let right = try ConnectionEndpoint(on: request.openDevice())
    var accepted = ConnectionParameters()
    accepted.rnrRetry = 5
    let passive = try await right.accept(request, parameters: accepted)
    let connection = try await active
    let (here, there) = (try left.pair.query(), try right.pair.query())
    #expect(here.timeout?.rawValue == 18)
    #expect(here.retryCount == 3 && there.retryCount == 3)
    #expect(here.rnrRetry == 5 && there.rnrRetry == 6)
    try await connection.disconnect()
    try await passive.waitUntilDisconnected(timeout: .seconds(300))
}

/// A loop over events, or over connection requests, ends when its task is cancelled; later events are not lost.
private func cancellation() async throws {
    let channel = try EventChannel()
    let reader = Task {
        var count = 0
        for try await _ in channel.events { count += 1 }
        return count
    }
    let listener = try Listener(on: address)
    let server = Task {
        var count = 0
        for try await _ in listener { count += 1 }
        return count
    }
    // Time for both tasks to begin waiting.
    try await Task.sleep(for: .milliseconds(200))
    reader.cancel()
    server.cancel()
    #expect(try await reader.value == 0)
    #expect(try await server.value == 0)

    let identifier = try ConnectionIdentifier(channel: channel)
    try identifier.resolveAddress(address, timeout: .seconds(2))
    #expect(try channel.nextEvent(timeout: .seconds(300))?.identifier === identifier)
    let connector = try await Connector.resolve(address)
    let endpoint = try ConnectionEndpoint(on: connector.openDevice())
    async let refusal = failure { _ = try await endpoint.connect(connector) }
    try await listener.next()?.reject()
    guard case .rejected(.consumer, _) = await refusal?.reason else {
        Issue.record("\(String(describing: await refusal))")
        return
    }
}

/// The device is removed while it is in use: DEVICE_REMOVAL is reported; DISCONNECTED may be reported before it.
private func removed() async throws {
    let (left, right, _) = try await connectPair()
    // In the background: the command returns only after this process has exited, since librdmacm keeps the device open.
    try await Bench.shell("rdma link delete rxe0 </dev/null >/dev/null 2>&1 &")
    for connection in [left.1, right.1] {
        try await connection.waitUntilDisconnected(timeout: .seconds(300))
        #expect(!connection.isConnected)
        var kinds: [ConnectionEventType] = []
        // The side that is notified first may disconnect the other.
        while kinds.last != .deviceRemoval, let event = try await connection.nextEvent(timeout: .seconds(300)) {
            kinds.append(event.type)
        }
        #expect(kinds.last == .deviceRemoval, "\(kinds)")
        try await connection.disconnect()
    }
}

/// The user has no permission to open the device node.
private func forbidden() async throws {
    #expect(seteuid(65534) == 0)
    defer { #expect(seteuid(0) == 0) }
    let error = await failure { _ = try EventChannel() }
    guard case .system("rdma_create_event_channel", .permissionDenied) = error?.reason else {
        Issue.record("\(String(describing: error))")
        return
    }
    #expect(error?.hint?.contains("may not open /dev/infiniband/rdma_cm") == true, "\(String(describing: error))")
}

/// The native provider serves the device, but libibverbs, and so librdmacm, has no provider for it.
private func withoutProvider() async throws {
    let device = try NativeDevice(.rxe)
    setenv("RDMA_DRIVER_PATH", device.directory, 1)
    let error = await failure { _ = try await Connector.resolve(address) }
    let text = error?.description ?? ""
    switch error?.reason {
    case .system(_, .operationNotSupportedByDevice), .addressNotResolved(.operationNotSupportedByDevice): break
    default: Issue.record("\(text)")
    }
    #expect(text.contains("rxe0") && text.contains("apt install ibverbs-providers"), "\(text)")
    #expect(!text.contains("\n"))
}

/// One queue pair is used for three connections in turn.
private func recycled() async throws {
    let (left, right, _) = try await connectPair()
    try send("first", from: left.0, to: right.0)
    try await right.1.disconnect()
    try await left.1.waitUntilDisconnected(timeout: .seconds(300))
    let early = try await Connector.resolve(address)
    let error = await failure { _ = try await left.0.connect(early) }
    #expect(error?.description.contains("recycleQueuePair") == true, "\(String(describing: error))")
    for round in ["second", "third"] {
        try await left.1.recycleQueuePair(timeout: .seconds(300))
        try await right.1.recycleQueuePair(timeout: .seconds(300))
        #expect(left.0.pair.lastKnownState == .reset)
        left.0.drain()
        right.0.drain()
        let again = try await connectPair(left: left.0, right: right.0)
        try send(round, from: left.0, to: right.0)
        try await again.left.1.recycleQueuePair(timeout: .seconds(300))
        try await again.right.1.recycleQueuePair(timeout: .seconds(300))
    }
}

/// Both sides end the connection at the same time, also immediately after it was established.
private func crossed() async throws {
    for _ in 0..<5 {
        let (left, right, _) = try await connectPair()
        async let first: Void = left.1.recycleQueuePair(timeout: .seconds(300))
        async let second: Void = right.1.recycleQueuePair(timeout: .seconds(300))
        try await first
        try await second
        #expect(left.0.pair.lastKnownState == .reset && right.0.pair.lastKnownState == .reset)
    }
    let listener = try Listener(on: address)
    for _ in 0..<5 {
        let connector = try await Connector.resolve(address)
        let left = try ConnectionEndpoint(on: connector.openDevice())
        async let active: Void = left.connect(connector).recycleQueuePair(timeout: .seconds(300))
        let request = try #require(try await listener.next())
        let right = try ConnectionEndpoint(on: request.openDevice())
        try await right.accept(request).recycleQueuePair(timeout: .seconds(300))
        try await active
    }
}

/// Releasing a connection ends it, also with unread events.
private func dropped() async throws {
    let right: (ConnectionEndpoint, Connection)
    do {
        let both = try await connectPair()
        right = both.right
    }
    try await right.1.waitUntilDisconnected(timeout: .seconds(300))
    let event = try await right.1.nextEvent(timeout: .seconds(300))
    #expect(event?.type == .disconnected, "\(String(describing: event))")

    // The events of these identifiers stay unread.
    let channel = try EventChannel()
    for _ in 0..<10 {
        let identifier = try ConnectionIdentifier(channel: channel)
        try identifier.resolveAddress(address, timeout: .seconds(2))
    }
    let waiting = try ConnectionIdentifier(channel: channel)
    try waiting.resolveAddress(address, timeout: .seconds(2))
    #expect(try channel.nextEvent(timeout: .seconds(300))?.identifier === waiting)
    #expect(try channel.nextEvent(timeout: .zero) == nil)
}

/// Each step is a separate call on a `ConnectionIdentifier`; the events of both sides arrive on one channel.
private func steps() async throws {
    let channel = try EventChannel()
    let listener = try ConnectionIdentifier(channel: channel)
    try listener.bind(to: .anyIPv4(port: 0))
    try listener.listen(backlog: 1)
    let port = try #require(listener.localAddress?.port)
    let active = try ConnectionIdentifier(channel: channel)
    try active.resolveAddress(ConnectionAddress(host: address.host, port: port), timeout: .seconds(2))
    var passive: ConnectionIdentifier?
    var kinds: [ConnectionEventType] = []
    var endpoints: [ConnectionEndpoint] = []
    func move(_ endpoint: ConnectionEndpoint, _ identifier: ConnectionIdentifier) throws {
        for state in [QueuePair.State.initialized, .readyToReceive, .readyToSend] {
            try endpoint.pair.modify(try identifier.queuePairAttributes(for: state))
        }
    }
    for try await event in channel.events {
        kinds.append(event.type)
        switch event.type {
        case .addressResolved: try active.resolveRoute(timeout: .seconds(2))
        case .routeResolved:
            endpoints.append(try ConnectionEndpoint(on: active.openDevice()))
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = endpoints[0].pair.number
            parameters.initiatorDepth = 3
            try active.connect(parameters, privateData: [1, 2, 3])
        case .connectRequest:
            #expect(event.listener === listener && event.identifier !== active)
            #expect(event.privateData.isPadded([1, 2, 3]))
            let requested = try #require(event.connection)
            #expect(requested.responderResources == 3 && requested.queuePairNumber == endpoints[0].pair.number)
            passive = event.identifier
            endpoints.append(try ConnectionEndpoint(on: event.identifier.openDevice()))
            try move(endpoints[1], event.identifier)
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = endpoints[1].pair.number
            try event.identifier.accept(parameters)
        case .connectResponse:
            try move(endpoints[0], active)
            try active.establish()
        case .established:
            #expect(event.identifier === passive)
            try active.notify(
                AsynchronousEvent(type: .pathMigrated, subject: .queuePair(number: endpoints[0].pair.number)))
            try active.disconnect()
        case .disconnected where event.identifier === passive: try event.identifier.disconnect()
        default: break
        }
        if kinds.count(where: { $0 == .disconnected }) == 2 { break }
    }
    #expect(
        kinds.prefix(5) == [.addressResolved, .routeResolved, .connectRequest, .connectResponse, .established])
}

/// SIDR: the client resolves the QP number and Q_Key of a datagram service.
private func service() async throws {
    let listener = try Listener(port: 7472, portSpace: .udp)
    let connector = try await Connector.resolve("10.9.0.1", port: 7472, portSpace: .udp)
    let client = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
    try client.prepare(for: connector)
    async let response = connector.lookUp(privateData: [UInt8](repeating: 7, count: 180))
    let request = try #require(try await listener.next())
    #expect(request.parameters == nil && request.privateData.isPadded([UInt8](repeating: 7, count: 180)))
    let server = try ConnectionEndpoint(on: request.openDevice(), .unreliableDatagram)
    try server.prepare(for: request)
    try server.receive(0..<4096, count: 2)
    try server.acceptDatagrams(request, privateData: [UInt8](repeating: 9, count: 136))
    let (found, privateData) = try await response
    #expect(found.queuePairNumber == server.pair.number && privateData.isPadded([UInt8](repeating: 9, count: 136)))
    try client.write(Array("hello".utf8), at: 8192)
    try client.pair.postSend(.send, client.memory.sge(8192..<8197), to: client.domain.makeDestination(found))
    try client.completion()
    #expect(try server.completion().byteCount == 45)
    #expect(try server.text(40..<45) == "hello")

    for hasListener in [true, false] {
        let again = try await Connector.resolve("10.9.0.1", port: hasListener ? 7472 : 998, portSpace: .udp)
        async let refusal = failure { _ = try await again.lookUp() }
        if hasListener { try await listener.next()?.reject(privateData: [3]) }
        guard case .serviceRefused(let status, let data) = await refusal?.reason else {
            Issue.record("\(String(describing: await refusal))")
            continue
        }
        #expect(status == (hasListener ? .rejected : .unsupportedServiceID) && (!hasListener || data.isPadded([3])))
    }
}

/// Both endpoints are members of the group; both receive the datagram that one of them sends.
private func group() async throws {
    var members: [(ConnectionEndpoint, MulticastMembership)] = []
    for _ in 0..<2 {
        let connector = try await Connector.resolve("239.77.1.1", port: 0, portSpace: .udp, from: ownAddress)
        #expect(connector.address.isMulticast)
        let endpoint = try ConnectionEndpoint(on: connector.openDevice(), .unreliableDatagram)
        try endpoint.prepare(for: connector)
        try endpoint.receive(0..<4096, count: 2)
        members.append((endpoint, try await endpoint.join(connector)))
    }
    let (sender, membership) = members[0]
    #expect(membership.group.group == members[1].1.group.group)
    try sender.write(Array("to all".utf8), at: 8192)
    try sender.pair.postSend(
        .send, sender.memory.sge(8192..<8198), to: sender.domain.makeDestination(membership.group))
    for (index, (endpoint, _)) in members.enumerated() {
        // The sender receives its own datagram too, in addition to the completion of the send.
        while try endpoint.completion().opcode != .receive { #expect(index == 0) }
        #expect(try endpoint.text(40..<46) == "to all")
    }
}
