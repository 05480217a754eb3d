import ArgumentParser
import SystemPackage
import Verbs

/// With whom a run takes place.
struct PeerOptions: ParsableArguments {
    @Argument(help: "The machine on which the server waits; without it, a server is started on this machine.")
    var host: String?

    @Flag(help: "Be the server: wait for one client, do what it asks for, and end.")
    var listen = false

    @Option(help: "The TCP port at which the server waits. (default: \(Rendezvous.defaultPort))")
    var port: UInt16?

    @Option(help: ArgumentHelp("The local address at which the server waits; without it, all.", valueName: "address"))
    var bind: String?

    @Flag(help: "Be the server of the client that is connected to standard input, as inetd starts one.")
    var inherited = false

    @Flag(help: "Start the server as a thread of this process: both sides in one process.")
    var inProcess = false

    func validate() throws {
        if host != nil, listen || inherited {
            throw ValidationError("A server has no HOST: give either HOST or --listen.")
        }
        if listen, inherited { throw ValidationError("Give either --listen or --inherited.") }
        if inProcess, host != nil || isServer {
            throw ValidationError("With --in-process both sides are here: give no HOST, --listen or --inherited.")
        }
        if port != nil, host == nil, !listen { throw ValidationError("A --port goes with HOST or --listen.") }
        if bind != nil, !listen { throw ValidationError("A --bind goes with --listen.") }
    }

    var isServer: Bool { listen || inherited }

    private var tcpPort: UInt16 { port ?? Rendezvous.defaultPort }

    /// Waits for the client and serves it.
    func serve(_ device: DeviceOptions, _ output: OutputOptions) throws {
        Interrupt.install()
        var server = Server(device)
        do {
            let (conversation, hello) = try awaitClient()
            let result = Result { () throws(ToolError) in try server.serve(conversation, hello) }
            if !inherited, !server.served.isEmpty { try output.print(ServerReport(server, conversation)) }
            try result.get()
            try conversation.endRun(corrupted: server.served.reduce(0) { $0 + $1.tally.corrupted })
        } catch let error as ToolError where inherited && error != Self.noConnection {
            // The client has been told, and tells the user.
            throw ExitCode(error.exit.rawValue)
        }
    }

    private static let noConnection = ToolError(
        .usage, "standard input is no connection with a client", hint: "wait for one with --listen")

    /// The client, with the first message that it has sent.
    private func awaitClient() throws(ToolError) -> (Conversation, ControlMessage) {
        do {
            if inherited {
                guard let peer = try? Rendezvous(adopting: .standardInput, peerName: "the client") else {
                    throw Self.noConnection
                }
                let conversation = Conversation(peer, as: .server)
                return (conversation, try conversation.next())
            }
            let listener = try RendezvousListener(host: bind, port: tcpPort)
            let portOption = listener.port == Rendezvous.defaultPort ? "" : " --port \(listener.port)"
            Console.note("waiting at TCP port \(listener.port); on the other machine: verbs ping HOST\(portOption)")
            while true {
                if let client = try accept(listener) { return client }
                if let exit = Interrupt.exit {
                    throw ToolError(exit, "interrupted before a client came", hint: "start the client")
                }
            }
        } catch let error as RendezvousError {
            throw ToolError(error)
        } catch {
            throw error as? ToolError ?? .outOfTurn
        }
    }

    /// The next client. Strangers are sent away, those who come just to see whether a port is open too.
    private func accept(_ listener: RendezvousListener) throws -> (Conversation, ControlMessage)? {
        let peer: Rendezvous
        do throws(RendezvousError) {
            peer = try listener.accept(timeout: .milliseconds(50))
        } catch {
            guard case .timedOut = error.reason else { throw error }
            return nil
        }
        let conversation = Conversation(peer, as: .server)
        do {
            return (conversation, try conversation.next(timeout: .seconds(5)))
        } catch {
            Console.note("sent \(peer.peerName) away: \(error.message)")
            return nil
        }
    }
}

extension Conversation {
    /// Ends the process with the exit code that a run calls for which went through.
    func endRun(corrupted: UInt64) throws {
        if corrupted > 0 { throw ExitCode(ToolExit.corrupted.rawValue) }
        switch reasonForEnding {
        case nil: return
        case .interrupted: throw ExitCode((Interrupt.exit ?? .interrupted).rawValue)
        case .stoppedByPeer: throw ExitCode(ToolExit.stoppedByPeer.rawValue)
        }
    }
}

extension PeerOptions {
    /// Connects to the server, which it starts on this machine if no host was named, and hands it to `body`.
    func withServer(_ device: DeviceOptions, command: String, _ body: (Rendezvous) throws -> Void) throws {
        guard let host else {
            let server = try inProcess ? LocalServer.thread(device) : LocalServer.process(command, device)
            // From here on a signal ends both sides in good order.
            Interrupt.install()
            defer { server.reap() }
            return try body(server.rendezvous)
        }
        let rendezvous: Rendezvous
        do throws(RendezvousError) {
            rendezvous = try Rendezvous.connect(to: host, port: tcpPort)
        } catch {
            throw ToolError(error)
        }
        Interrupt.install()
        try body(rendezvous)
    }
}

extension DeviceOptions {
    /// The options again, for a server on this machine.
    var arguments: [String] {
        var list: [String] = []
        if let device { list += ["--device", device] }
        if let devicePort { list += ["--device-port", String(devicePort)] }
        if let gidIndex { list += ["--gid-index", String(gidIndex)] }
        if let family { list.append("--\(family.rawValue)") }
        return list
    }
}
