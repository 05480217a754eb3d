import Glibc
import Rendezvous
import Verbs

/// The client, which sets the queue pairs and jobs of a run.
struct Client: ~Copyable {
    let context: Context
    let address: PortAddress
    private(set) var setup: Setup
    private(set) var server: PeerInfo
    let control: ControlConnection
    private var link: Link

    /// Opens the device, creates a queue pair and connects it to the server at the other end of `peer`.
    static func connect(_ peer: Rendezvous, _ options: DeviceOptions, _ setup: Setup) throws -> Client {
        let control = ControlConnection(peer, as: .client)
        control.setTimeout(.controlTimeout(for: setup))
        return try reportingErrors(control) {
            try setup.check()
            let context = try options.open(for: control.route)
            let address = try options.address(of: context, for: control.route)
            var setup = setup
            setup.family = address.family
            if context.transportType == .iWARP { setup.usesConnectionManager = true }
            try setup.checkConnectionManager()
            try setup.transport.check(on: context)
            try Link.checkWindow(setup, on: context)
            try Link.checkQueuePairs(setup, on: context)
            var link = try Link.make(context, at: address, setup)
            let server = try exchangeEndpoints(control, context, &link)
            return Client(
                context: context, address: address, setup: setup, server: server, control: control,
                link: link)
        }
    }

    /// Replaces the queue pair by another; the server does the same.
    mutating func reconnect(_ setup: Setup) throws {
        try Self.reportingErrors(control) {
            let usesConnectionManager = self.setup.usesConnectionManager
            self.setup = setup
            self.setup.family = address.family
            self.setup.usesConnectionManager = usesConnectionManager
            try self.setup.check()
            link = try Link.make(context, at: address, self.setup)
            server = try Self.exchangeEndpoints(control, context, &link)
        }
    }

    /// Exchanges endpoints with the server and connects the queue pair to the server's.
    private static func exchangeEndpoints(
        _ control: ControlConnection, _ context: Context, _ link: inout Link
    ) throws -> PeerInfo {
        let info = PeerInfo(context, link.endpoint)
        try control.send(.hello(version: ControlMessage.version, setup: link.setup, info: info))
        try control.send(link.further)
        if link.setup.usesConnectionManager {
            guard case .listening(let port, let host) = try control.next() else { throw ToolError.protocolError }
            try link.connect(to: host ?? control.peerHost, port: port, on: context, control)
        }
        guard case .welcome(let server) = try control.next() else { throw ToolError.protocolError }
        if link.setup.usesConnectionManager {
            try link.setRemoteMemory(of: server.endpoint)
            return server
        }
        let endpoints = try control.receiveEndpoints(1 + link.further.count, first: server.endpoint)
        try info.checkReach(of: server, along: control.route)
        try link.checkMTU(of: server)
        try link.connect(to: endpoints, control)
        return server
    }

    private init(
        context: Context, address: PortAddress, setup: Setup, server: PeerInfo, control: ControlConnection,
        link: consuming Link
    ) {
        self.context = context
        self.address = address
        self.setup = setup
        self.server = server
        self.control = control
        self.link = link
    }

    /// The path MTU between the peers, in bytes.
    var pathMTU: Int { min(address.mtu.byteCount, server.endpoint.mtu.byteCount) }

    /// This process, as the server knows it.
    var info: PeerInfo { PeerInfo(context, link.endpoint) }

    /// Throws if this device or the server's does not have one of the operations: before the first job, so that no
    /// measurement is lost.
    func check(_ operations: [Operation]) throws {
        try Self.reportingErrors(control) {
            for operation in operations { try check(operation) }
        }
    }

    private func check(_ operation: Operation) throws(ToolError) {
        try operation.check(on: context)
        if operation.isOptional { try operation.check([info, server]) }
    }

    /// Runs one job: calls `body` between the server's `ready` and the client's `done`.
    ///
    /// - Returns: The counts of client and server.
    mutating func run(
        _ job: Job, _ body: (inout Link, ControlConnection) throws -> Tally
    ) throws -> (client: Tally, server: Tally) {
        try Self.reportingErrors(control) {
            try job.check(setup)
            try check(job.operation)
            link.prepare(for: job)
            try control.send(.begin(job: job))
            guard case .ready = try control.next() else { throw ToolError.protocolError }
            let tally = try body(&link, control)
            Progress.clear()
            try control.send(.done(tally: tally))
            guard case .counted(let counted) = try control.next() else { throw ToolError.protocolError }
            return (tally, counted)
        }
    }

    /// Tells the server that there are no more jobs, and closes the connection.
    func end() throws {
        link.disconnect()
        try control.send(.goodbye)
        control.close()
    }

    /// Runs `body`, and reports an error to the server.
    private static func reportingErrors<Result: ~Copyable>(
        _ control: ControlConnection, _ body: () throws -> Result
    ) throws -> Result {
        do {
            return try body()
        } catch {
            throw control.report(error)
        }
    }
}

extension ControlConnection {
    /// Converts an error to a `ToolError` and reports it to the peer.
    func report(_ error: any Error) -> ToolError {
        Progress.clear()
        let explained: ToolError =
            switch error {
            case let error as ToolError: error
            case let error as VerbsError: explain(error)
            case let error as RendezvousError: ToolError(error)
            default: ToolError(.failure, "\(error)", hint: "run it again; if it persists, report it with this text")
            }
        fail(explained)
        return explained
    }
}

extension ToolError {
    /// The peer sent a message that the protocol does not allow at this point.
    static let protocolError = ToolError(
        .cannotConnect, "the peer violates the protocol", hint: "run the same version on both machines")
}

extension Duration {
    /// The longest silence of the peer: the jobs' timeout, but at least the time to create large or many queue pairs.
    static func controlTimeout(for setup: Setup) -> Duration {
        max(
            Rendezvous.defaultTimeout + .milliseconds(10 * (setup.queuePairs - 1)),
            .nanoseconds(Int64(clamping: setup.timeout)))
    }
}

extension PeerInfo {
    init(_ context: Context, _ endpoint: Endpoint) {
        self.init(
            endpoint: endpoint, device: context.deviceName, provider: context.provider.name, user: geteuid(),
            optionalOperations: Operation.optional(on: context).map(\.rawValue),
            optionalTransports: Transport.optional(on: context).map(\.rawValue))
    }
}
