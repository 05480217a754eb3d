import Glibc
import Verbs

/// The server, which runs the jobs of a client.
struct Server {
    /// A completed job.
    struct Served: Encodable {
        var transport: Transport
        var type: Job.Measurement
        var operation: Operation
        var size: Int
        var tally: Tally
    }

    let options: DeviceOptions
    /// The longest silence of a client; nil: the client's own timeout, and at least 10 seconds.
    let timeout: Duration?
    private(set) var context: Context?
    private(set) var setup: Setup?
    private(set) var client: PeerInfo?
    private(set) var served: [Served] = []

    init(_ options: DeviceOptions, timeout: Duration? = nil) {
        self.options = options
        self.timeout = timeout
    }

    /// Serves one client, whose first message is `hello`, until it disconnects.
    mutating func serve(_ control: ControlConnection, _ hello: ControlMessage) throws(ToolError) {
        do {
            var link = try acceptHello(control, hello)
            while try serveJob(&link, control) {}
        } catch {
            throw control.report(error)
        }
    }

    /// Creates and connects the queue pair that the client requests.
    private mutating func acceptHello(_ control: ControlConnection, _ hello: ControlMessage) throws -> Link {
        guard case .hello(let version, let setup, let info) = hello else { throw ToolError.protocolError }
        guard version == ControlMessage.version else {
            throw ToolError(
                .cannotConnect,
                "the client uses version \(version) of the protocol, the server version \(ControlMessage.version)",
                hint: "run the same version of verbs on both machines")
        }
        try setup.check()
        self.setup = setup
        client = info
        control.setTimeout(timeout ?? .controlTimeout(for: setup))
        // An address without a family is on InfiniBand.
        let linkLayer: LinkLayer = setup.family == nil ? .infiniBand : .ethernet
        let context = try self.context ?? options.open(for: control.route, to: linkLayer)
        self.context = context
        try setup.transport.check(on: context)
        try Link.checkQueuePairs(setup, on: context)
        let address = try options.address(of: context, for: control.route, family: setup.family)
        var link = try Link.make(context, at: address, setup)
        let own = PeerInfo(context, link.endpoint)
        if setup.usesConnectionManager {
            let listener = try ServerListener()
            let host = address.gid.isIPv4Mapped && !address.gid.isLoopback ? address.gid.hostAddress : nil
            try control.send(.listening(port: listener.port, host: host))
            try listener.accept(&link, on: context, control)
            try link.setRemoteMemory(of: info.endpoint)
            try control.send(.welcome(info: own))
            return link
        }
        let endpoints = try control.receiveEndpoints(1 + link.further.count, first: info.endpoint)
        try own.checkReach(of: info, along: control.route)
        try link.checkMTU(of: info)
        try link.connect(to: endpoints, control)
        try control.send(.welcome(info: own))
        try control.send(link.further)
        return link
    }

    /// Serves the next job, or replaces the queue pair. Returns false if the client has no more jobs.
    private mutating func serveJob(_ link: inout Link, _ control: ControlConnection) throws -> Bool {
        let message = try control.next()
        switch message {
        case .goodbye:
            link.disconnect()
            control.close()
            return false
        case .hello:
            link = try acceptHello(control, message)
            return true
        case .begin(let job):
            try job.check(link.setup)
            link.prepare(for: job)
            try control.send(.ready)
            let tally = try Self.run(job, &link, control)
            served.append(
                Served(
                    transport: link.setup.transport, type: job.type, operation: job.operation, size: job.size,
                    tally: tally))
            try control.send(.counted(tally: tally))
            return true
        default: throw ToolError.protocolError
        }
    }

    /// Polls until the client has ended the job, and yields the processor now and then: the client may need it.
    private static func poll(_ link: inout Link, _ control: ControlConnection) throws {
        while try control.checkPeer(now: Clock.now()) {
            for _ in 0..<512 { for index in 0..<(try link.poll()) { try link.workCompletions[index].check() } }
            sched_yield()
        }
    }

    private static func run(_ job: Job, _ link: inout Link, _ control: ControlConnection) throws -> Tally {
        var tally: Tally
        switch job.type {
        case .latency where job.operation.involvesPeer:
            var server = LatencyServer(job)
            tally = try server.run(&link, control)
        case .throughput where job.operation.consumesReceive:
            tally = try ThroughputServer(job: job).run(&link, control)
        default:
            // The device executes the operations alone.
            tally = Tally()
            if job.target == .polls, !job.operation.involvesPeer { try poll(&link, control) }
        }
        guard case .done(let client) = try control.next() else { throw ToolError.protocolError }
        if job.operation.isAtomic, job.type == .latency {
            let counter = try link.exposed.loadAcquiring(at: 0)
            tally.count(client.sent, difference: counter == Counter.value(job.operation, after: client.sent) ? nil : 0)
        }
        return tally
    }
}
