import ConnectionManager
import Foundation
import Testing
import Verbs

private let address = ConnectionAddress("10.9.0.1:7471")!
/// No route leads to the groups: the own address says over which device.
private let ownAddress = ConnectionAddress("10.9.0.1:0")

/// Connects two parties over rxe0, one of which listens. Either may bring its own queue pair.
private func connectPair(
    to address: ConnectionAddress = address, left: Party? = nil, right: Party? = nil, request: [UInt8] = [],
    answer: [UInt8] = []
) async throws -> (left: (Party, Connection), right: (Party, Connection), request: ConnectionRequest) {
    let listener = try Listener(port: address.port)
    let connector = try await Connector.resolve(address)
    let left = try left ?? Party(on: connector.openDevice())
    try left.prepare(for: connector)
    try left.receive(0..<4096, count: 4)
    async let active = left.connect(connector, privateData: request)
    let incoming = try #require(try await listener.next())
    let right = try right ?? Party(on: incoming.openDevice())
    try right.prepare(for: incoming)
    try right.receive(0..<4096, count: 4)
    let passive = try await right.accept(incoming, privateData: answer)
    return ((left, try await active), (right, passive), incoming)
}

/// Sends one message from the one to the other.
private func send(_ text: String, from left: Party, to right: Party) throws {
    try left.write(Array(text.utf8) + [0], at: 8192)
    try left.pair.post(.send, left.memory.slice(8192..<8193 + text.utf8.count))
    try left.completion()
    #expect(try right.completion().opcode == .receive)
    #expect(try right.text(0..<64) == text)
}

extension Guest {
    @Suite("rdma_cm over the kernel's rxe")
    struct ConnectionManagerTests {
        @Test("two sides connect over IPv4 and IPv6, exchange private data of every length, and move data")
        func connects() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(exchange) }
            }
        }

        @Test("what cannot be connected answers with its reason: refused, nobody there, no answer, no device")
        func refusals() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        try await rejections()
                        try await nobody()
                        try await mistakes()
                        try await starved()
                    }
                }
            }
        }

        @Test("a connection ends from either side, and its queue pair carries another one only after TIMEWAIT_EXIT")
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

        @Test("options and parameters reach the queue pairs; who waits for events can be cancelled and wait again")
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

        @Test("a device that goes ends its connections, and says so")
        func removal() async throws {
            try await Bench.run(alone: true) { _ in
                await #expect(processExitsWith: .success) { try await ConnectionBench.run(removed) }
                // The kernel has waited for that process.
                try await Bench.shell("while [ -e /sys/class/infiniband/rxe0 ]; do sleep 0.1; done")
            }
        }

        @Test("who may not use rdma_cm, or has no provider that librdmacm could use, is told what to try")
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

        @Test("a datagram service is looked up, refuses, and answers; a group delivers to its members")
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
        for (asked, answered) in [(0, 0), (1, 1), (56, 196)] {
            let request = (0..<asked).map { UInt8($0 + 1) }
            let answer = (0..<answered).map { UInt8(255 - $0) }
            let (left, right, incoming) = try await connectPair(to: address, request: request, answer: answer)
            #expect(incoming.privateData.isPadded(request))
            #expect(left.1.privateData.isPadded(answer))
            #expect(incoming.peerAddress?.host == address.host && left.1.isConnected && right.1.isConnected)
            try send("to the right", from: left.0, to: right.0)
            try send("to the left", from: right.0, to: left.0)
            let attributes = try left.0.pair.query()
            #expect(attributes.minRNRTimer == 12 && attributes.state == .readyToSend)
            try await left.1.disconnect()
            try await right.1.waitUntilDisconnected(timeout: .seconds(20))
            #expect(left.0.pair.lastKnownState == .error && right.0.pair.lastKnownState == .error)
            // What was posted is given back.
            #expect(try right.0.completions.poll(timeout: .seconds(20)).status == .flushed)
        }
    }
}

/// The listening side does not want it, or forgets it.
private func rejections() async throws {
    let listener = try Listener(on: address)
    #expect(listener.port == 7471)
    let reason = (0..<148).map { UInt8($0) }
    for isDropped in [false, true] {
        let connector = try await Connector.resolve(address)
        let party = try Party(on: connector.openDevice())
        async let outcome = failure { _ = try await party.connect(connector) }
        var request = try await listener.next()
        if !isDropped {
            let tooMuch = await failure { try request?.reject(privateData: reason + [0]) }
            #expect(tooMuch?.description.contains("takes 148") == true)
            try request?.reject(privateData: reason)
        }
        request = nil
        guard case .rejected(let code, let privateData) = await outcome?.reason else {
            Issue.record("\(String(describing: await outcome))")
            continue
        }
        #expect(isDropped || code == .consumer && privateData.isPadded(reason), "\(code)")
        #expect(party.pair.lastKnownState == .error)
    }
    let second = await failure { _ = try Listener(on: address) }
    guard case .system("rdma_bind_addr", .addressInUse) = second?.reason else {
        Issue.record("\(String(describing: second))")
        return
    }
}

/// Nobody listens; the host has no RDMA; there is no such host; no RDMA device leads there.
private func nobody() async throws {
    let connector = try await Connector.resolve("10.9.0.1", port: 999)
    let party = try Party(on: connector.openDevice())
    let unheard = await failure { _ = try await party.connect(connector) }
    guard case .rejected(.invalidServiceID, _) = unheard?.reason else {
        Issue.record("\(String(describing: unheard))")
        return
    }
    #expect(unheard?.description.contains("nobody listens") == true)

    let deaf = try await Connector.resolve("10.9.0.2", port: 7471)
    let other = try Party(on: deaf.openDevice())
    let silence = await failure {
        _ = try await other.connect(deaf, timeout: .seconds(2))
    }
    guard case .timedOut(.seconds(2)) = silence?.reason else {
        Issue.record("\(String(describing: silence))")
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
    let third = try Party(on: cancelled.openDevice())
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
        // The devices that there are.
        if case .addressNotResolved = error?.reason { #expect(text.contains("rxe0 ("), "\(text)") }
    }
}

/// What can be known before anything is sent.
private func mistakes() async throws {
    let connector = try await Connector.resolve(address)
    let party = try Party(on: connector.openDevice())
    let soft = try Party(on: Device.named("soft0").open())
    let datagrams = try Party(on: connector.openDevice(), .unreliableDatagram)
    for (wrong, sentence) in [(soft, "in userspace only"), (datagrams, "of type UD in port space TCP")] {
        let error = await failure { _ = try await wrong.connect(connector) }
        #expect(error?.description.contains(sentence) == true, "\(String(describing: error))")
        #expect(wrong.pair.lastKnownState == .reset)
    }
    let long = await failure {
        _ = try await party.connect(connector, privateData: [UInt8](repeating: 1, count: 57))
    }
    #expect(long?.description.contains("takes 56") == true, "\(String(describing: long))")
    let used = await failure { _ = try await party.connect(connector) }
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

/// Datagrams are asked of who connects, and the other way round: nothing is sent, and no queue pair moves.
private func wrongPortSpace() async throws {
    func expectRefusal(_ error: ConnectionError?, _ space: PortSpace) {
        #expect(
            error?.description.contains("the identifier is of port space \(space)") == true,
            "\(String(describing: error))")
    }
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address)
    let left = try Party(on: connector.openDevice())
    expectRefusal(await failure { _ = try await connector.lookUp() }, .tcp)
    expectRefusal(await failure { _ = try await left.join(connector) }, .tcp)
    #expect(left.pair.lastKnownState == .reset)
    async let refusal = failure { _ = try await left.connect(connector) }
    let request = try #require(try await listener.next())
    let right = try Party(on: request.openDevice())
    expectRefusal(await failure { try right.acceptDatagrams(request) }, .tcp)
    #expect(right.pair.lastKnownState == .reset)
    try request.reject()
    guard case .rejected(.consumer, _) = await refusal?.reason else {
        Issue.record("\(String(describing: await refusal))")
        return
    }

    let service = try Listener(port: 7472, portSpace: .udp)
    let finder = try await Connector.resolve("10.9.0.1", port: 7472, portSpace: .udp)
    let datagrams = try Party(on: finder.openDevice(), .unreliableDatagram)
    expectRefusal(await failure { _ = try await datagrams.connect(finder) }, .udp)
    async let answer = failure { _ = try await finder.lookUp() }
    let question = try #require(try await service.next())
    expectRefusal(await failure { _ = try await datagrams.accept(question) }, .udp)
    #expect(datagrams.pair.lastKnownState == .reset)
    try question.reject()
    guard case .serviceRefused(.rejected, _) = await answer?.reason else {
        Issue.record("\(String(describing: await answer))")
        return
    }
}

/// A second attempt with the same connector leaves the connection as it is.
private func connectedTwice() async throws {
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address)
    let left = try Party(on: connector.openDevice())
    let other = try Party(on: connector.openDevice())
    async let active = left.connect(connector)
    let request = try #require(try await listener.next())
    let right = try Party(on: request.openDevice())
    let passive = try await right.accept(request)
    let connection = try await active
    let again = await failure { _ = try await other.connect(connector) }
    #expect(again?.description.contains("has connected a queue pair already") == true, "\(String(describing: again))")
    #expect(connection.isConnected && left.pair.lastKnownState == .readyToSend)
    try await connection.disconnect()
    try await passive.waitUntilDisconnected(timeout: .seconds(20))
    #expect(left.pair.lastKnownState == .error)
}

/// A peer for whom there is no descriptor is refused, and the listener waits on.
private func starved() async throws {
    let listener = try Listener(on: address)
    let (first, second) = (try await Connector.resolve(address), try await Connector.resolve(address))
    let (left, right) = (try Party(on: first.openDevice()), try Party(on: second.openDevice()))
    let server = Task { try await listener.next() }
    var limit = rlimit()
    #expect(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
    var none = limit
    // 0 to 2 are open: no other can be.
    none.rlim_cur = 3
    #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none) == 0)
    let error = await failure { _ = try await left.connect(first) }
    #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
    guard case .rejected = error?.reason else {
        Issue.record("\(String(describing: error))")
        server.cancel()
        return
    }
    async let refusal = failure { _ = try await right.connect(second) }
    try await server.value?.reject()
    guard case .rejected(.consumer, _) = await refusal?.reason else {
        Issue.record("\(String(describing: await refusal))")
        return
    }
}

/// What is set before the connection is what its queue pairs have. The connecting side says how often both try again,
/// and each side how often the other does when there is no receive.
private func options() async throws {
    var options = ConnectionIdentifierOptions()
    options.acknowledgeTimeout = 18
    let listener = try Listener(on: address)
    let connector = try await Connector.resolve(address, options: options)
    let left = try Party(on: connector.openDevice())
    var asked = ConnectionParameters()
    asked.retryCount = 3
    asked.rnrRetry = 6
    async let active = left.connect(connector, parameters: asked)
    let request = try #require(try await listener.next())
    let right = try Party(on: request.openDevice())
    var answered = ConnectionParameters()
    answered.rnrRetry = 5
    let passive = try await right.accept(request, parameters: answered)
    let connection = try await active
    let (here, there) = (try left.pair.query(), try right.pair.query())
    #expect(here.timeout == 18)
    #expect(here.retryCount == 3 && there.retryCount == 3)
    #expect(here.rnrRetry == 5 && there.rnrRetry == 6)
    try await connection.disconnect()
    try await passive.waitUntilDisconnected(timeout: .seconds(20))
}

/// A loop over events, or over peers, ends with its task, and what comes later is not lost.
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
    // So that they wait.
    try await Task.sleep(for: .milliseconds(200))
    reader.cancel()
    server.cancel()
    #expect(try await reader.value == 0)
    #expect(try await server.value == 0)

    let identifier = try ConnectionIdentifier(channel: channel)
    try identifier.resolveAddress(address, timeout: .seconds(2))
    #expect(try channel.nextEvent(timeout: .seconds(20))?.identifier === identifier)
    let connector = try await Connector.resolve(address)
    let party = try Party(on: connector.openDevice())
    async let refusal = failure { _ = try await party.connect(connector) }
    try await listener.next()?.reject()
    guard case .rejected(.consumer, _) = await refusal?.reason else {
        Issue.record("\(String(describing: await refusal))")
        return
    }
}

/// The device goes while it is used: DEVICE_REMOVAL comes, and DISCONNECTED need not.
private func removed() async throws {
    let (left, right, _) = try await connectPair()
    // It ends when this process has: librdmacm keeps the device open.
    try await Bench.shell("rdma link delete rxe0 </dev/null >/dev/null 2>&1 &")
    for connection in [left.1, right.1] {
        try await connection.waitUntilDisconnected(timeout: .seconds(20))
        #expect(!connection.isConnected)
        var kinds: [ConnectionEvent.Kind] = []
        // The side that is told first may say goodbye to the other.
        while kinds.last != .deviceRemoval, let event = try await connection.nextEvent(timeout: .seconds(20)) {
            kinds.append(event.kind)
        }
        #expect(kinds.last == .deviceRemoval, "\(kinds)")
        try await connection.disconnect()
    }
}

/// A user who may not open the node.
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

/// The native provider serves the device, but librdmacm has none for it.
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

/// One queue pair, three connections.
private func recycled() async throws {
    let (left, right, _) = try await connectPair()
    try send("first", from: left.0, to: right.0)
    try await right.1.disconnect()
    try await left.1.waitUntilDisconnected(timeout: .seconds(20))
    let early = try await Connector.resolve(address)
    let error = await failure { _ = try await left.0.connect(early) }
    #expect(error?.description.contains("recycleQueuePair") == true, "\(String(describing: error))")
    for round in ["second", "third"] {
        try await left.1.recycleQueuePair(timeout: .seconds(30))
        try await right.1.recycleQueuePair(timeout: .seconds(30))
        #expect(left.0.pair.lastKnownState == .reset)
        left.0.drain()
        right.0.drain()
        let again = try await connectPair(left: left.0, right: right.0)
        try send(round, from: left.0, to: right.0)
        try await again.left.1.recycleQueuePair(timeout: .seconds(30))
        try await again.right.1.recycleQueuePair(timeout: .seconds(30))
    }
}

/// Both sides end the connection at once, or the one as soon as it stands: each answers the other.
private func crossed() async throws {
    for _ in 0..<5 {
        let (left, right, _) = try await connectPair()
        async let first: Void = left.1.recycleQueuePair(timeout: .seconds(20))
        async let second: Void = right.1.recycleQueuePair(timeout: .seconds(20))
        try await first
        try await second
        #expect(left.0.pair.lastKnownState == .reset && right.0.pair.lastKnownState == .reset)
    }
    let listener = try Listener(on: address)
    for _ in 0..<5 {
        let connector = try await Connector.resolve(address)
        let left = try Party(on: connector.openDevice())
        async let active: Void = left.connect(connector).recycleQueuePair(timeout: .seconds(20))
        let request = try #require(try await listener.next())
        let right = try Party(on: request.openDevice())
        try await right.accept(request).recycleQueuePair(timeout: .seconds(20))
        try await active
    }
}

/// Whoever lets a connection go ends it, and who has unread events can go.
private func dropped() async throws {
    let right: (Party, Connection)
    do {
        let both = try await connectPair()
        right = both.right
    }
    try await right.1.waitUntilDisconnected(timeout: .seconds(20))
    let event = try await right.1.nextEvent(timeout: .seconds(20))
    #expect(event?.kind == .disconnected, "\(String(describing: event))")

    // Nobody reads what comes to these.
    let channel = try EventChannel()
    for _ in 0..<10 {
        let identifier = try ConnectionIdentifier(channel: channel)
        try identifier.resolveAddress(address, timeout: .seconds(2))
    }
    let waiting = try ConnectionIdentifier(channel: channel)
    try waiting.resolveAddress(address, timeout: .seconds(2))
    #expect(try channel.nextEvent(timeout: .seconds(20))?.identifier === waiting)
    #expect(try channel.nextEvent(timeout: .zero) == nil)
}

/// The expert's way: each step by itself, the events of both sides on one channel.
private func steps() async throws {
    let channel = try EventChannel()
    let listener = try ConnectionIdentifier(channel: channel)
    try listener.bind(to: .anyIPv4(port: 0))
    try listener.listen(backlog: 1)
    let port = try #require(listener.localAddress?.port)
    let active = try ConnectionIdentifier(channel: channel)
    try active.resolveAddress(ConnectionAddress(host: address.host, port: port), timeout: .seconds(2))
    var passive: ConnectionIdentifier?
    var kinds: [ConnectionEvent.Kind] = []
    var parties: [Party] = []
    func move(_ party: Party, _ identifier: ConnectionIdentifier) throws {
        for state in [QueuePair.State.initialized, .readyToReceive, .readyToSend] {
            try party.pair.modify(try identifier.queuePairAttributes(for: state))
        }
    }
    for try await event in channel.events {
        kinds.append(event.kind)
        switch event.kind {
        case .addressResolved: try active.resolveRoute(timeout: .seconds(2))
        case .routeResolved:
            parties.append(try Party(on: active.openDevice()))
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = parties[0].pair.number
            parameters.initiatorDepth = 3
            try active.connect(parameters, privateData: [1, 2, 3])
        case .connectRequest:
            #expect(event.listener === listener && event.identifier !== active)
            #expect(event.privateData.isPadded([1, 2, 3]))
            let asked = try #require(event.connection)
            #expect(asked.responderResources == 3 && asked.queuePairNumber == parties[0].pair.number)
            passive = event.identifier
            parties.append(try Party(on: event.identifier.openDevice()))
            try move(parties[1], event.identifier)
            var parameters = ConnectionParameters()
            parameters.queuePairNumber = parties[1].pair.number
            try event.identifier.accept(parameters)
        case .connectResponse:
            try move(parties[0], active)
            try active.establish()
        case .established:
            #expect(event.identifier === passive)
            try active.notify(
                AsynchronousEvent(kind: .pathMigrated, subject: .queuePair(number: parties[0].pair.number)))
            try active.disconnect()
        case .disconnected where event.identifier === passive: try event.identifier.disconnect()
        default: break
        }
        if kinds.count(where: { $0 == .disconnected }) == 2 { break }
    }
    #expect(
        kinds.prefix(5) == [.addressResolved, .routeResolved, .connectRequest, .connectResponse, .established])
}

/// SIDR: who sends datagrams to that port?
private func service() async throws {
    let listener = try Listener(port: 7472, portSpace: .udp)
    let connector = try await Connector.resolve("10.9.0.1", port: 7472, portSpace: .udp)
    let client = try Party(on: connector.openDevice(), .unreliableDatagram)
    try client.prepare(for: connector)
    async let answer = connector.lookUp(privateData: [UInt8](repeating: 7, count: 180))
    let request = try #require(try await listener.next())
    #expect(request.parameters == nil && request.privateData.isPadded([UInt8](repeating: 7, count: 180)))
    let server = try Party(on: request.openDevice(), .unreliableDatagram)
    try server.prepare(for: request)
    try server.receive(0..<4096, count: 2)
    try server.acceptDatagrams(request, privateData: [UInt8](repeating: 9, count: 136))
    let (found, privateData) = try await answer
    #expect(found.queuePairNumber == server.pair.number && privateData.isPadded([UInt8](repeating: 9, count: 136)))
    try client.write(Array("hello".utf8), at: 8192)
    try client.pair.post(.send, client.memory.slice(8192..<8197), to: client.domain.makeDestination(found))
    try client.completion()
    #expect(try server.completion().byteCount == 45)
    #expect(try server.text(40..<45) == "hello")

    for isHeard in [true, false] {
        let again = try await Connector.resolve("10.9.0.1", port: isHeard ? 7472 : 998, portSpace: .udp)
        async let refusal = failure { _ = try await again.lookUp() }
        if isHeard { try await listener.next()?.reject(privateData: [3]) }
        guard case .serviceRefused(let status, let data) = await refusal?.reason else {
            Issue.record("\(String(describing: await refusal))")
            continue
        }
        #expect(status == (isHeard ? .rejected : .unsupportedServiceID) && (!isHeard || data.isPadded([3])))
    }
}

/// Both are members; what the one sends, both receive.
private func group() async throws {
    var members: [(Party, MulticastMembership)] = []
    for _ in 0..<2 {
        let connector = try await Connector.resolve("239.77.1.1", port: 0, portSpace: .udp, from: ownAddress)
        #expect(connector.address.isMulticast)
        let party = try Party(on: connector.openDevice(), .unreliableDatagram)
        try party.prepare(for: connector)
        try party.receive(0..<4096, count: 2)
        members.append((party, try await party.join(connector)))
    }
    let (sender, membership) = members[0]
    #expect(membership.group.group == members[1].1.group.group)
    try sender.write(Array("to all".utf8), at: 8192)
    try sender.pair.post(
        .send, sender.memory.slice(8192..<8198), to: sender.domain.makeDestination(membership.group))
    for (index, (party, _)) in members.enumerated() {
        // The sender's own copy comes beside the completion of the send.
        while try party.completion().opcode != .receive { #expect(index == 0) }
        #expect(try party.text(40..<46) == "to all")
    }
}
