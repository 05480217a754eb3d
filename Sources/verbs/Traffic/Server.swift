import Verbs

/// The server's side: it does what the client asks for.
struct Server {
    /// A job that was served.
    struct Served: Encodable {
        var transport: Transport
        var kind: Job.Kind
        var operation: Operation
        var size: Int
        var tally: Tally
    }

    let options: DeviceOptions
    private(set) var context: Context?
    private(set) var setup: Setup?
    private(set) var client: Party?
    private(set) var served: [Served] = []

    init(_ options: DeviceOptions) { self.options = options }

    /// Serves one client, whose first message was `hello`, until it is done.
    mutating func serve(_ conversation: Conversation, _ hello: ControlMessage) throws(ToolError) {
        do {
            var link = try greet(conversation, hello)
            while try serveJob(&link, conversation) {}
        } catch {
            throw conversation.told(error)
        }
    }

    /// Makes and connects the queue pair that the client wants.
    private mutating func greet(_ conversation: Conversation, _ hello: ControlMessage) throws -> Link {
        guard case .hello(let version, let setup, let party) = hello else { throw ToolError.outOfTurn }
        guard version == ControlMessage.version else {
            throw ToolError(
                .cannotMeet,
                "the client speaks version \(version) of the protocol, the server \(ControlMessage.version)",
                hint: "run the same version of verbs on both sides")
        }
        try setup.check()
        self.setup = setup
        client = party
        let context = try self.context ?? options.open()
        self.context = context
        let address = try options.address(of: context, family: setup.family)
        var link = try Link.make(context, at: address, setup)
        try link.connect(to: party.endpoint)
        try conversation.send(.welcome(party: Party(context, link.endpoint)))
        return link
    }

    /// Serves the next job, or connects another queue pair; false if the client is done.
    private mutating func serveJob(_ link: inout Link, _ conversation: Conversation) throws -> Bool {
        let message = try conversation.next(timeout: nil)
        switch message {
        case .goodbye:
            conversation.close()
            return false
        case .hello:
            link = try greet(conversation, message)
            return true
        case .begin(let job):
            try job.check(link.setup)
            link.prepare(for: job)
            try conversation.send(.ready)
            let tally = try Self.run(job, &link, conversation)
            served.append(
                Served(
                    transport: link.setup.transport, kind: job.kind, operation: job.operation, size: job.size,
                    tally: tally))
            try conversation.send(.counted(tally: tally))
            return true
        default: throw ToolError.outOfTurn
        }
    }

    private static func run(_ job: Job, _ link: inout Link, _ conversation: Conversation) throws -> Tally {
        var tally: Tally
        switch job.kind {
        case .latency where job.operation.involvesPeer:
            var server = LatencyServer(job)
            tally = try server.run(&link, conversation)
        case .throughput where job.operation.consumesReceive:
            tally = try ThroughputServer(job: job).run(&link, conversation)
        default:
            // The device alone does the work.
            tally = Tally()
        }
        guard case .done(let client) = try conversation.next(timeout: nil) else { throw ToolError.outOfTurn }
        if job.operation.isAtomic, job.kind == .latency {
            let counter = try link.exposed.loadAcquiring(at: 0)
            tally.count(client.sent, difference: counter == Counter.value(job.operation, after: client.sent) ? nil : 0)
        }
        return tally
    }
}
