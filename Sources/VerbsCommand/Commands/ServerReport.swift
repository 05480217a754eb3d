import Verbs

/// The output of the server of `verbs ping` and `verbs perf`: Documentation/schema/server.json.
struct ServerReport: Report {
    let schema = "verbs-server-2"
    var device: String?
    var provider: String?
    var client: RunDescription.Peer?
    var jobs: [Server.Served]
    /// Warnings and errors that providers logged during the command.
    var warnings: [String]
    /// Why the run ended early: `interrupted` or `stopped-by-peer`; nil: it did not.
    var endedEarly: String?

    init(_ server: Server, _ control: ControlConnection) {
        device = server.context?.deviceName
        provider = server.context?.provider.name
        client = server.client.map(RunDescription.Peer.init)
        jobs = server.served
        warnings = .ofProviders
        endedEarly = control.endedEarly
    }

    var text: String {
        var text = "\(device ?? "no device"), client \(client?.gid ?? "unknown")".printable + "\n\n"
        var table = Table(
            .left("transport"), .left("operation"), .right("size"), .left("type"), .right("received"),
            .right("verified"), .right("corrupted"))
        for job in jobs {
            table.add(
                job.transport.rawValue, job.operation.rawValue, Units.size(UInt64(job.size)),
                job.type.rawValue, Units.count(job.tally.received),
                Units.count(job.tally.verified), Units.count(job.tally.corrupted))
        }
        text += table.text
        if let endedEarly { text += "ended early: \(endedEarly)\n" }
        return text
    }
}
