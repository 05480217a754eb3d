import Glibc
import Verbs

/// The client's side: it decides what happens.
struct Client: ~Copyable {
    let context: Context
    let address: PortAddress
    private(set) var setup: Setup
    private(set) var server: Party
    let conversation: Conversation
    private var link: Link

    /// Opens the device, makes a queue pair and connects it with the server at the other end of `peer`.
    static func connect(_ peer: Rendezvous, _ options: DeviceOptions, _ setup: Setup) throws -> Client {
        let conversation = Conversation(peer, as: .client)
        return try telling(conversation) {
            try setup.check()
            let context = try options.open()
            let address = try options.address(of: context)
            var setup = setup
            setup.family = address.family
            var link = try Link.make(context, at: address, setup)
            let server = try meet(conversation, context, &link)
            return Client(
                context: context, address: address, setup: setup, server: server, conversation: conversation,
                link: link)
        }
    }

    /// Gives up the queue pair for another, of which the server makes the counterpart.
    mutating func reconnect(_ setup: Setup) throws {
        try Self.telling(conversation) {
            try setup.check()
            self.setup = setup
            self.setup.family = address.family
            link = try Link.make(context, at: address, self.setup)
            server = try Self.meet(conversation, context, &link)
        }
    }

    /// Connects the queue pair with the server's.
    private static func meet(
        _ conversation: Conversation, _ context: Context, _ link: inout Link
    ) throws -> Party {
        let party = Party(context, link.endpoint)
        try conversation.send(.hello(version: ControlMessage.version, setup: link.setup, party: party))
        guard case .welcome(let server) = try conversation.next() else { throw ToolError.outOfTurn }
        try party.checkReach(of: server)
        try link.connect(to: server.endpoint)
        return server
    }

    private init(
        context: Context, address: PortAddress, setup: Setup, server: Party, conversation: Conversation,
        link: consuming Link
    ) {
        self.context = context
        self.address = address
        self.setup = setup
        self.server = server
        self.conversation = conversation
        self.link = link
    }

    /// This side, as the server knows it.
    var party: Party { Party(context, link.endpoint) }

    /// Does one job: `body` is what happens between the server's "ready" and this side's "done".
    ///
    /// - Returns: what this side and the server have seen.
    mutating func run(
        _ job: Job, _ body: (inout Link, Conversation) throws -> Tally
    ) throws -> (client: Tally, server: Tally) {
        try Self.telling(conversation) {
            try job.check(setup)
            link.prepare(for: job)
            try conversation.send(.begin(job: job))
            guard case .ready = try conversation.next() else { throw ToolError.outOfTurn }
            let tally = try body(&link, conversation)
            Progress.clear()
            try conversation.send(.done(tally: tally))
            guard case .counted(let counted) = try conversation.next() else { throw ToolError.outOfTurn }
            return (tally, counted)
        }
    }

    /// Parts from the server in good order.
    func end() throws {
        try conversation.send(.goodbye)
        conversation.close()
    }

    /// Runs `body`; the server is told of its failure.
    private static func telling<Result: ~Copyable>(
        _ conversation: Conversation, _ body: () throws -> Result
    ) throws -> Result {
        do {
            return try body()
        } catch {
            throw conversation.told(error)
        }
    }
}

extension Conversation {
    /// Explains an error to the user and the peer.
    func told(_ error: any Error) -> ToolError {
        Progress.clear()
        let explained: ToolError =
            switch error {
            case let error as ToolError: error
            case let error as VerbsError: explain(error)
            case let error as RendezvousError: ToolError(error)
            default: ToolError(.failure, "\(error)", hint: "run it again; if it stays, report it with this text")
            }
        fail(explained)
        return explained
    }
}

extension ToolError {
    /// The peer speaks, but says something else than it should.
    static let outOfTurn = ToolError(
        .cannotMeet, "the other side does not keep to the protocol", hint: "run the same version on both sides")
}

extension Party {
    init(_ context: Context, _ endpoint: Endpoint) {
        self.init(
            endpoint: endpoint, device: context.deviceName, provider: context.provider.name, user: geteuid())
    }
}
