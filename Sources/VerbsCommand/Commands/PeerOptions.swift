import ArgumentParser
import Rendezvous
import SystemPackage
import Verbs

/// The options that select the peer of a run.
struct PeerOptions: ParsableArguments {
    @Argument(help: "The machine on which the server listens; without it, a server is started on this machine.")
    var host: String?

    @Flag(help: "Run as the server: wait for one client, serve its requests, and exit.")
    var listen = false

    @Option(help: "The TCP port on which the server listens. (default: \(Rendezvous.defaultPort))")
    var port: UInt16?

    @Option(help: ArgumentHelp("The local address on which the server listens; without it, all.", valueName: "address"))
    var bind: String?

    @Flag(help: "Run as the server of the client that is connected to standard input, as inetd starts it.")
    var inherited = false

    @Flag(
        name: .customLong("rdma-cm"),
        help: """
            Connect the queue pairs through the connection manager (rdma_cm), over RC. iWARP devices are always \
            connected so.
            """)
    var usesConnectionManager = false

    @Flag(help: "Start the server as a thread of this process: both peers in one process.")
    var inProcess = false

    @Option(
        help: """
            How long to wait for an answer. After that time, the message counts as lost on uc and ud, and the server on rc. \
            A server waits that long for a silent client. (default: 10s, on uc and ud 1s; more for messages of 5 MB and \
            more)
            """,
        transform: timeArgument)
    var timeout: Duration?

    func validate() throws {
        if host != nil, listen || inherited {
            throw ValidationError("A server has no HOST: give either HOST or --listen.")
        }
        if host == "" { throw ValidationError("The HOST is empty: give a name or an address.") }
        if listen, inherited { throw ValidationError("Give either --listen or --inherited.") }
        if inProcess, host != nil || isServer {
            throw ValidationError(
                "With --in-process both peers are in this process: give no HOST, --listen or --inherited.")
        }
        if port != nil, host == nil, !listen { throw ValidationError("--port needs HOST or --listen.") }
        if port == 0, host != nil {
            throw ValidationError("No server listens on port 0: give the port that the server prints.")
        }
        if bind != nil, !listen { throw ValidationError("--bind needs --listen.") }
        if isServer, let timeout, timeout < .seconds(1) {
            throw ValidationError("A server needs a --timeout of 1s or more.")
        }
    }

    /// Throws if a server was given options that the client sets.
    ///
    /// - Parameter given: options, each with whether it was given.
    func refuse(_ given: KeyValuePairs<String, Bool>) throws {
        let names = given.filter(\.value).map { "--\($0.key)" } + (usesConnectionManager ? ["--rdma-cm"] : [])
        guard isServer, !names.isEmpty else { return }
        throw ValidationError("The client sets \(names.joined(separator: ", ")): give that to the client.")
    }

    var isServer: Bool { listen || inherited }

    private var tcpPort: UInt16 { port ?? Rendezvous.defaultPort }

    /// Waits for the client and serves it.
    /// - Parameter command: `ping` or `perf`: printed in the command to run on the other machine.
    func serve(_ device: DeviceOptions, _ output: OutputOptions, command: String) throws {
        Interrupt.install()
        var server = Server(device, timeout: timeout)
        var hasReportedToPeer = false
        do {
            let (control, hello) = try inherited ? inheritedClient() : awaitClient(command)
            if case .prepare(let version, let setup, let operations) = hello {
                return try obey(control, version, setup, operations, device)
            }
            defer { hasReportedToPeer = control.hasReportedToPeer }
            let result = Result { () throws(ToolError) in try server.serve(control, hello) }
            if !inherited, !server.served.isEmpty { try output.print(ServerReport(server, control)) }
            try result.get()
            try control.endRun(corrupted: server.served.reduce(0) { $0 + $1.tally.corrupted })
        } catch let error as ToolError where inherited && (hasReportedToPeer || error.exit == .peerLost) {
            // The client reports the error to the user.
            throw ExitCode(error.exit.rawValue)
        }
    }

    /// Runs as a client of `verbs perf --processes`, which is at the other end of standard input.
    private func obey(
        _ control: ControlConnection, _ version: Int, _ setup: Setup, _ operations: [Operation], _ device: DeviceOptions
    ) throws {
        let coordinator = control.turned
        do {
            // Only a process of this machine, over a socket pair, may give orders: not a client that inetd has accepted.
            guard control.route == nil, version == ControlMessage.version else { throw ToolError.protocolError }
            try OrderedClient(coordinator: coordinator, device: device).run(setup, operations)
        } catch {
            // The command reports the error to the user.
            throw ExitCode(coordinator.report(error).exit.rawValue)
        }
    }

    private static let noConnection = ToolError(
        .usage, "standard input is not a connection to a client", hint: "wait for a client with --listen")

    /// The client that is connected to standard input, with its first message.
    private func inheritedClient() throws(ToolError) -> (ControlConnection, ControlMessage) {
        guard let peer = try? Rendezvous(adopting: .standardInput, peerName: "the client") else {
            throw Self.noConnection
        }
        let control = ControlConnection(peer, as: .server)
        return (control, try control.next())
    }

    /// Listens for the client; returns it with its first message. Connections of other programs, such as port scanners,
    /// are closed, and do not delay the client.
    private func awaitClient(_ command: String) throws(ToolError) -> (ControlConnection, ControlMessage) {
        do {
            let listener = try RendezvousListener(host: bind, port: tcpPort)
            let portOption = listener.port == Rendezvous.defaultPort ? "" : " --port \(listener.port)"
            Console.note(
                "listening on TCP port \(listener.port); on the other machine: verbs \(command) HOST\(portOption)")
            while true {
                if let exit = Interrupt.exit {
                    throw ToolError(exit, "interrupted before a client connected", hint: "start the client")
                }
                let (peer, message): (Rendezvous, [UInt8])
                do throws(RendezvousError) {
                    (peer, message) = try listener.acceptMessage(timeout: .milliseconds(50)) { logRejected($0) }
                } catch {
                    guard case .timedOut = error.reason else { throw error }
                    continue
                }
                do throws(RendezvousError) {
                    let hello = try peer.decode(ControlMessage.self, from: message)
                    if case .hello = hello { return (ControlConnection(peer, as: .server), hello) }
                    throw RendezvousError(.unexpectedMessage("no hello"), operation: "receive from \(peer.peerName)")
                } catch { logRejected(error) }
            }
        } catch let error as RendezvousError {
            throw ToolError(error)
        } catch {
            throw error as? ToolError ?? .protocolError
        }
    }

    private func logRejected(_ error: RendezvousError) {
        Console.note("rejected a connection: \(error)")
    }
}

extension ControlConnection {
    /// Ends the process with the exit code of a run that completed: for corrupted data, and for an early end.
    func endRun(corrupted: UInt64) throws {
        if corrupted > 0 { throw ExitCode(ToolExit.corrupted.rawValue) }
        if let reasonForEnding { throw ExitCode(reasonForEnding.exit.rawValue) }
    }
}

extension PeerOptions {
    /// Connects to the server and calls `body` with the connection. Starts the server on this machine if no host was
    /// named.
    func withServer(_ device: DeviceOptions, command: String, _ body: (Rendezvous) throws -> Void) throws {
        guard let host else {
            let server = try inProcess ? LocalServer.thread(device) : LocalServer.process(command, device)
            // From here on a signal ends both peers with a summary.
            Interrupt.install()
            defer { server.reap() }
            return try body(server.rendezvous)
        }
        let rendezvous: Rendezvous
        do throws(RendezvousError) {
            rendezvous = try Rendezvous.connect(
                to: host, port: tcpPort, timeout: timeout ?? Rendezvous.defaultTimeout)
        } catch {
            throw ToolError(error)
        }
        Interrupt.install()
        try body(rendezvous)
    }
}

extension DeviceOptions {
    /// These options as command-line arguments, for a server on this machine.
    var arguments: [String] {
        var list: [String] = []
        if let device { list += ["--device", device] }
        if let devicePort { list += ["--device-port", String(devicePort)] }
        if let gidIndex { list += ["--gid-index", String(gidIndex)] }
        if let family { list.append("--\(family.rawValue)") }
        return list
    }
}
