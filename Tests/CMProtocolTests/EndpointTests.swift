import TestSupport
import Testing

@testable import CMProtocol

@Suite("Connections")
struct EndpointTests {
    /// A world with a listener, and the two identifiers of a connection whose request has arrived.
    private func requested(_ timing: CMTiming = CMTiming()) throws -> (World, CMIdentifier, CMIdentifier) {
        var world = World(seed: 5, timing: timing)
        _ = try world[.server].listen(serviceID: World.serviceID, address: nil)
        let client = world[.client].connect(World.request(), on: World.Side.client.path, now: 0)
        world.deliver()
        let event = try #require(world.take(.server).first)
        guard case .requested(_, let request, let path) = event.kind else { throw Unexpected(event: event) }
        #expect(request.queuePairNumber == 0x1234 && request.localID == client.rawValue)
        #expect(Array(request.privateData[36..<40]) == [1, 2, 3, 0])
        #expect(path == World.Side.server.path)
        return (world, client, event.identifier)
    }

    private struct Unexpected: Error { let event: CMEvent? }

    private func replied() throws -> (World, CMIdentifier, CMIdentifier) {
        var (world, client, server) = try requested()
        try world[.server].accept(server, World.reply(), now: 0)
        world.deliver()
        let event = world.take(.client).first
        guard case .replied(let reply) = event?.kind else { throw Unexpected(event: event) }
        #expect(event?.identifier == client && reply.queuePairNumber == 0x5678)
        return (world, client, server)
    }

    private func established() throws -> (World, CMIdentifier, CMIdentifier) {
        var (world, client, server) = try replied()
        try world[.client].establish(client, now: 0)
        world.deliver()
        #expect(world.take(.server) == [CMEvent(server, .established)])
        return (world, client, server)
    }

    private func kinds(_ world: World) -> [CMAttribute] { world.log.map(\.message.body.attribute) }

    @Test("A connection is made and ended, with one message each")
    func lifecycle() throws {
        var (world, client, server) = try established()
        try world[.client].disconnect(client, now: 0)
        world.deliver()
        #expect(world.take(.server) == [CMEvent(server, .disconnected(hasTimedOut: false))])
        #expect(world.take(.client).isEmpty, "the peer has not replied yet")
        try world[.server].disconnect(server, now: 0)
        world.deliver()
        #expect(world.take(.client) == [CMEvent(client, .disconnected(hasTimedOut: false))])
        #expect(
            kinds(world) == [.connectRequest, .connectReply, .readyToUse, .disconnectRequest, .disconnectReply])
        while world.step() {}
        #expect(world.take(.client) == [CMEvent(client, .timeWaitExit)])
        #expect(world.take(.server) == [CMEvent(server, .timeWaitExit)])
        #expect(world[.client].connectionCount == 0 && world[.server].connectionCount == 0)
    }

    @Test("Communication IDs have the device in the top byte; a response has the transaction ID of its request")
    func identifiers() throws {
        let (world, client, server) = try established()
        #expect(client.rawValue >> 24 == 1 && server.rawValue >> 24 == 2)
        #expect(Set(world.log.map(\.message.transactionID)).count == 1)
    }

    @Test("A rejection carries reason and private data, and ends both sides")
    func rejection() throws {
        var (world, client, server) = try requested()
        try world[.server].reject(server, privateData: [9], now: 0)
        world.deliver()
        let event = try #require(world.take(.client).first)
        guard case .rejected(let body) = event.kind else { throw Unexpected(event: event) }
        #expect(event.identifier == client && body.reason == .consumer && body.privateData.first == 9)
        #expect(world[.client].connectionCount == 0 && world[.server].connectionCount == 0)
        #expect(throws: CMCallError.noConnection) { try world[.server].accept(server, World.reply(), now: 0) }
    }

    @Test("Without a listener, for another address or another transport, the request is rejected")
    func noListener() throws {
        for (address, transport, reason) in [
            (PortGID(low: 7), CMTransport.reliable, CMRejectReason.invalidServiceID),
            (World.Side.server.gid, .unreliable, .invalidTransport),
        ] {
            var world = World(seed: 1)
            _ = try world[.server].listen(serviceID: World.serviceID, address: address)
            var request = World.request()
            request.transport = transport
            _ = world[.client].connect(request, on: World.Side.client.path, now: 0)
            world.deliver()
            let event = world.take(.client).first
            guard case .rejected(let body) = event?.kind else { throw Unexpected(event: event) }
            #expect(body.reason == reason)
        }
    }

    @Test("The listener for the address precedes that for all; the same twice is refused")
    func listeners() throws {
        var world = World(seed: 1)
        let all = try world[.server].listen(serviceID: World.serviceID, address: nil)
        let one = try world[.server].listen(serviceID: World.serviceID, address: World.Side.server.gid)
        #expect(throws: CMCallError.addressInUse) {
            _ = try world[.server].listen(serviceID: World.serviceID, address: nil)
        }
        for expected in [one, all] {
            var request = World.request()
            request.queuePairNumber = expected.rawValue & 0xFF_FFFF
            _ = world[.client].connect(request, on: World.Side.client.path, now: 0)
            world.deliver()
            let event = world.take(.server).first
            guard case .requested(let listener, _, _) = event?.kind else { throw Unexpected(event: event) }
            #expect(listener == expected)
            world[.server].stopListening(one)
        }
    }

    @Test("A duplicate REQ is answered with an MRA, then with the same REP; a duplicate REP with an MRA, then the RTU")
    func duplicates() throws {
        var (world, client, server) = try requested()
        let request = world.log[0].message
        func repeated(_ message: CMMessage, to side: World.Side) -> CMMessage? {
            let before = world.log.count
            world[side].receive(message, on: side.path, now: 0)
            world.collect()
            world.inFlight = []
            #expect(world.events[side.rawValue].isEmpty)
            return world.log.count == before ? nil : world.log.last?.message
        }
        #expect(repeated(request, to: .server)?.body.attribute == .messageReceiptAcknowledgment)
        try world[.server].accept(server, World.reply(), now: 0)
        world.deliver()
        let reply = try #require(world.log.last?.message)
        _ = world.take(.client)
        #expect(repeated(request, to: .server) == reply)
        #expect(repeated(reply, to: .client)?.body.attribute == .messageReceiptAcknowledgment)
        try world[.client].establish(client, now: 0)
        world.deliver()
        let ready = try #require(world.log.last?.message)
        _ = world.take(.server)
        #expect(repeated(reply, to: .client) == ready)
        #expect(repeated(ready, to: .server) == nil)
        #expect(repeated(request, to: .server) == nil)
    }

    @Test("An MRA moves the deadline of a REQ by the service timeout")
    func receiptAcknowledgment() throws {
        var (world, _, _) = try requested()
        let first = try #require(world[.client].nextDeadline)
        world[.client].advance(to: first)
        world.deliver()
        #expect(kinds(world).suffix(2) == [.connectRequest, .messageReceiptAcknowledgment])
        #expect(world[.client].nextDeadline == CMTiming().retransmission + 4096 << 24)
    }

    @Test("A REQ without an answer is sent 16 times, then a REJ; the connection is unreachable")
    func unreachable() {
        var world = World(seed: 1)
        world.loss = 100
        let client = world[.client].connect(World.request(), on: World.Side.client.path, now: 0)
        while world.step() {}
        #expect(kinds(world) == Array(repeating: .connectRequest, count: 16) + [.connectReject])
        #expect(world.take(.client) == [CMEvent(client, .unreachable)])
        #expect(world.now == 16 * CMTiming().retransmission)
    }

    @Test("A REP without an RTU is repeated, then the connection is unreachable, after a time wait over")
    func lostReadyToUse() throws {
        var (world, _, server) = try requested()
        world.loss = 100
        try world[.server].accept(server, World.reply(), now: 0)
        while world.step() {}
        #expect(kinds(world).filter { $0 == .connectReply }.count == 16)
        #expect(world.take(.server) == [CMEvent(server, .unreachable), CMEvent(server, .timeWaitExit)])
    }

    @Test("Data that arrives before the RTU establishes the connection")
    func communicationEstablished() throws {
        var (world, _, server) = try requested()
        try world[.server].accept(server, World.reply(), now: 0)
        world[.server].noteCommunication(server)
        world[.server].noteCommunication(server)
        #expect(world.take(.server) == [CMEvent(server, .established)])
        #expect(world[.server].nextDeadline == nil)
    }

    @Test("A DREQ without a DREP is repeated; then the connection ends with a time-out")
    func lostDisconnect() throws {
        var (world, client, _) = try established()
        world.loss = 100
        try world[.client].disconnect(client, now: 0)
        while world.step() {}
        #expect(
            world.take(.client)
                == [CMEvent(client, .disconnected(hasTimedOut: true)), CMEvent(client, .timeWaitExit)])
    }

    @Test("Both sides disconnect at once")
    func simultaneous() throws {
        var (world, client, server) = try established()
        try world[.client].disconnect(client, now: 0)
        try world[.server].disconnect(server, now: 0)
        world.deliver()
        #expect(world.take(.client) == [CMEvent(client, .disconnected(hasTimedOut: false))])
        #expect(world.take(.server) == [CMEvent(server, .disconnected(hasTimedOut: false))])
        try world[.client].disconnect(client, now: 0)
        try world[.server].disconnect(server, now: 0)
        while world.step() {}
        #expect(world.take(.client) == [CMEvent(client, .timeWaitExit)])
        #expect(world.take(.server) == [CMEvent(server, .timeWaitExit)])
    }

    @Test("A DREQ of a connection that is over, or in time wait, is answered")
    func lateDisconnect() throws {
        var (world, client, server) = try established()
        try world[.client].disconnect(client, now: 0)
        world.deliver()
        let request = try #require(world.log.last?.message)
        try world[.server].disconnect(server, now: 0)
        world.deliver()
        for isOver in [false, true] {
            if isOver { while world.step() {} }
            #expect(world[.server].contains(server) != isOver)
            world[.server].receive(request, on: World.Side.server.path, now: world.now)
            world.deliver()
            let answer = try #require(world.log.last?.message)
            #expect(answer.body.attribute == .disconnectReply && answer.transactionID == request.transactionID)
        }
    }

    @Test("A request of a queue pair whose connection is not over is stale, and ends the old connection")
    func stale() throws {
        var (world, client, server) = try established()
        // The client has lost its memory.
        world.endpoints[0] = CMEndpoint(random: SplitMix.numbers(seed: 99))
        let second = world[.client].connect(World.request(), on: World.Side.client.path, now: 0)
        world.deliver()
        #expect(!world[.client].contains(second) && !world[.client].contains(client))
        let event = world.take(.client).first
        guard case .rejected(let body) = event?.kind else { throw Unexpected(event: event) }
        #expect(body.reason == .staleConnection)
        #expect(world.take(.server) == [CMEvent(server, .disconnected(hasTimedOut: false))])
    }

    @Test("A queue pair whose time wait is over connects again, though that of the other side is not over")
    func recycled() throws {
        var (world, client, server) = try established()
        try world[.client].disconnect(client, now: 0)
        world.deliver()
        try world[.server].disconnect(server, now: 0)
        world.deliver()
        world[.client].advance(to: try #require(world[.client].nextDeadline))
        #expect(!world[.client].contains(client) && world[.server].contains(server))
        _ = (world.take(.client), world.take(.server))
        let second = world[.client].connect(World.request(), on: World.Side.client.path, now: 0)
        world.deliver()
        let event = try #require(world.take(.server).first)
        guard case .requested = event.kind else { throw Unexpected(event: event) }
        #expect(event.identifier != server && world[.client].contains(second) && world.take(.client).isEmpty)
    }

    @Test("The address at which a request arrives chooses the listener, and a claimed one only within 127.0.0.0/8")
    func claimedAddress() throws {
        func loopback(_ number: UInt64) -> PortGID { PortGID(low: 0xFFFF_7F00_0000 + number) }
        let elsewhere = PortGID(low: 0xFFFF_0A4D_0009)
        let cases: [(listener: PortGID, local: PortGID, claimed: PortGID, isFound: Bool)] = [
            (elsewhere, World.Side.server.gid, elsewhere, false),
            (World.Side.server.gid, World.Side.server.gid, elsewhere, true),
            (elsewhere, loopback(1), elsewhere, false), (loopback(2), World.Side.server.gid, loopback(2), false),
            (loopback(2), loopback(1), loopback(2), true), (loopback(1), loopback(1), loopback(2), false),
        ]
        for (listener, local, claimed, isFound) in cases {
            var endpoint = CMEndpoint(random: SplitMix.numbers(seed: 1))
            _ = try endpoint.listen(serviceID: World.serviceID, address: listener)
            var request = World.request()
            request.privateData = IPAddresses(source: local, destination: claimed, sourcePort: 1).bytes
            let path = CMPath(local: local, remote: World.Side.client.gid, device: 2)
            endpoint.receive(CMMessage(transactionID: 1, .connectRequest(request)), on: path, now: 0)
            #expect((endpoint.nextEvent() != nil) == isFound, "\(listener) \(local) \(claimed)")
        }
    }

    @Test("A REP for an unknown communication ID is rejected, and the other side learns it")
    func unknownReply() throws {
        var (world, client, server) = try requested()
        world[.client].release(client, now: 0)
        world.collect()
        // The REJ is lost.
        world.inFlight = []
        try world[.server].accept(server, World.reply(), now: 0)
        world.deliver()
        let event = world.take(.server).first
        guard case .rejected(let body) = event?.kind else { throw Unexpected(event: event) }
        #expect(body.reason == .invalidCommunicationID)
    }

    @Test("A client that gives up ends the request of the server, though it does not know its communication ID")
    func givenUp() throws {
        var (world, client, server) = try requested()
        world[.client].release(client, now: 0)
        world.deliver()
        let event = world.take(.server).first
        guard case .rejected(let body) = event?.kind else { throw Unexpected(event: event) }
        #expect(event?.identifier == server && body.reason == .timeout)
    }

    @Test("Messages of another host with the right communication IDs have no effect")
    func foreign() throws {
        var (world, client, server) = try established()
        let elsewhere = CMPath(local: World.Side.server.gid, remote: PortGID(low: 0xBAD), device: 2)
        var body = DisconnectRequest()
        (body.localID, body.remoteID) = (client.rawValue, server.rawValue)
        world[.server].receive(CMMessage(transactionID: 1, .disconnectRequest(body)), on: elsewhere, now: 0)
        var reject = ConnectReject()
        (reject.localID, reject.remoteID) = (client.rawValue, server.rawValue)
        world[.server].receive(CMMessage(transactionID: 1, .connectReject(reject)), on: elsewhere, now: 0)
        while world[.server].nextTransmission() != nil {}
        #expect(world.take(.server).isEmpty)
        // Nor those of the right host that leave its communication ID out.
        body.localID = 0
        world[.server].receive(
            CMMessage(transactionID: 1, .disconnectRequest(body)), on: World.Side.server.path, now: 0)
        while world[.server].nextTransmission() != nil {}
        #expect(world.take(.server).isEmpty)
    }

    @Test("The end of the peer's process ends the connection")
    func peerEnd() throws {
        var (world, _, server) = try established()
        world[.server].notePeerEnd(server, now: 0)
        #expect(world.take(.server) == [CMEvent(server, .disconnected(hasTimedOut: false))])
        world.loss = 100
        while world.step() {}
        #expect(world.take(.server) == [CMEvent(server, .timeWaitExit)])
    }

    /// The states that a test can bring a connection into, as (the side, how).
    private func connection(in state: Connection.State) throws -> (World, World.Side, CMIdentifier) {
        switch state {
        case .requestSent:
            var world = World(seed: 1)
            let client = world[.client].connect(World.request(), on: World.Side.client.path, now: 0)
            return (world, .client, client)
        case .requestReceived:
            let (world, _, server) = try requested()
            return (world, .server, server)
        case .replySent:
            var (world, _, server) = try requested()
            try world[.server].accept(server, World.reply(), now: 0)
            return (world, .server, server)
        case .replyReceived:
            let (world, client, _) = try replied()
            return (world, .client, client)
        case .established:
            let (world, client, _) = try established()
            return (world, .client, client)
        case .disconnectSent:
            var (world, client, _) = try established()
            try world[.client].disconnect(client, now: 0)
            return (world, .client, client)
        case .disconnectReceived:
            var (world, client, server) = try established()
            try world[.client].disconnect(client, now: 0)
            world.deliver()
            _ = world.take(.server)
            return (world, .server, server)
        case .timeWait:
            var (world, client, server) = try established()
            try world[.client].disconnect(client, now: 0)
            world.deliver()
            try world[.server].disconnect(server, now: 0)
            _ = world.take(.server)
            return (world, .server, server)
        case .serviceRequestSent:
            var world = World(seed: 1)
            let client = world[.client].lookUp(ServiceRequest(), on: World.Side.client.path, now: 0)
            return (world, .client, client)
        case .serviceRequestReceived, .serviceReplySent:
            var world = World(seed: 1)
            _ = try world[.server].listen(serviceID: World.datagramServiceID, address: nil)
            var request = ServiceRequest()
            request.serviceID = World.datagramServiceID
            _ = world[.client].lookUp(request, on: World.Side.client.path, now: 0)
            world.deliver()
            let server = try #require(world.take(.server).first).identifier
            if state == .serviceReplySent { try world[.server].replyToService(server, ServiceReply(), now: 0) }
            return (world, .server, server)
        }
    }

    @Test("Calls that do not fit the state are refused, and change nothing", arguments: Connection.State.allCases)
    func refusedCalls(_ state: Connection.State) throws {
        let allowed: [String: Set<Connection.State>] = [
            "establish": [.replyReceived], "accept": [.requestReceived], "reject": [.requestReceived, .replyReceived],
            "disconnect": [.established, .replySent, .disconnectReceived], "reply": [.serviceRequestReceived],
        ]
        for (call, states) in allowed {
            var (world, side, identifier) = try connection(in: state)
            world.collect()
            let before = world.log.count
            func run() throws(CMCallError) {
                switch call {
                case "establish": try world[side].establish(identifier, now: 0)
                case "accept": try world[side].accept(identifier, ConnectReply(), now: 0)
                case "reject": try world[side].reject(identifier, now: 0)
                case "disconnect": try world[side].disconnect(identifier, now: 0)
                default: try world[side].replyToService(identifier, ServiceReply(), now: 0)
                }
            }
            if states.contains(state) {
                try run()
            } else {
                #expect(throws: CMCallError.state, "\(call) in \(state)") { try run() }
            }
            world.collect()
            #expect((world.log.count == before) == !states.contains(state), "\(call) in \(state)")
        }
    }

    @Test("A released connection reports nothing and ends in every state", arguments: Connection.State.allCases)
    func released(_ state: Connection.State) throws {
        var (world, side, identifier) = try connection(in: state)
        world[side].release(identifier, now: 0)
        while world.step() {}
        #expect(world.take(side).isEmpty && !world[side].contains(identifier))
    }

    @Test("Every message in every state: no crash, and the connection ends", arguments: Connection.State.allCases)
    func anyMessage(_ state: Connection.State) throws {
        for attribute in CMAttribute.allCases {
            for knowsPeer in [true, false] {
                var (world, side, identifier) = try connection(in: state)
                world.collect()
                let peers = world.log.last { $0.from == side.other }?.message.bytes[24..<28]
                var bytes = Array(repeating: UInt8(0), count: 256)
                bytes.replaceSubrange(0..<4, with: [1, 7, 2, 3])
                bytes[17] = UInt8(attribute.rawValue)
                if knowsPeer, let peers { bytes.replaceSubrange(24..<28, with: peers) }
                let offset = attribute == .serviceReply ? 24 : 28
                for index in 0..<4 {
                    bytes[offset + index] = UInt8(truncatingIfNeeded: identifier.rawValue >> UInt32(24 - 8 * index))
                }
                for _ in 0..<2 {
                    world[side].receive(try CMMessage(parsing: bytes), on: side.path, now: 0)
                    world.collect()
                }
                world[side].release(identifier, now: 0)
                while world.step() {}
                #expect(!world[side].contains(identifier), "\(attribute) in \(state)")
            }
        }
    }

    @Test("A datagram service is looked up; a duplicate of the request gets the same reply")
    func service() throws {
        var (world, _, server) = try connection(in: .serviceRequestReceived)
        var reply = ServiceReply()
        (reply.queuePairNumber, reply.queueKey, reply.privateData) = (0x23, 0x0123_4567, [8])
        try world[.server].replyToService(server, reply, now: 0)
        world.collect()
        let answer = try #require(world.log.last?.message)
        world[.server].receive(world.log[0].message, on: World.Side.server.path, now: 0)
        world.collect()
        #expect(world.log.last?.message == answer && world.log.count == 3)
        world.deliver()
        let events = world.take(.client)
        guard events.count == 1, case .serviceReplied(let body) = events[0].kind else {
            throw Unexpected(event: events.first)
        }
        #expect(body.queuePairNumber == 0x23 && body.queueKey == 0x0123_4567 && body.privateData.first == 8)
        while world.step() {}
        #expect(world[.client].connectionCount == 0 && world[.server].connectionCount == 0)
    }

    @Test("A refused look-up is not kept")
    func refusedService() throws {
        var (world, _, server) = try connection(in: .serviceRequestReceived)
        var reply = ServiceReply()
        reply.status = .rejected
        try world[.server].replyToService(server, reply, now: 0)
        #expect(world[.server].connectionCount == 0 && world[.server].nextDeadline == nil)
        world.deliver()
        let event = world.take(.client).first
        guard case .serviceReplied(let body) = event?.kind else { throw Unexpected(event: event) }
        #expect(body.status == .rejected)
    }

    @Test("A datagram service without a listener, and one that does not answer")
    func noService() throws {
        var world = World(seed: 1)
        _ = world[.client].lookUp(ServiceRequest(), on: World.Side.client.path, now: 0)
        world.deliver()
        let event = world.take(.client).first
        guard case .serviceReplied(let body) = event?.kind else { throw Unexpected(event: event) }
        #expect(body.status == .unsupportedServiceID)
        world.loss = 100
        let second = world[.client].lookUp(ServiceRequest(), on: World.Side.client.path, now: 0)
        while world.step() {}
        #expect(world.take(.client) == [CMEvent(second, .unreachable)])
    }
}
