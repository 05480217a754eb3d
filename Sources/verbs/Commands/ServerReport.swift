import Verbs

/// What the server of `verbs ping` and `verbs perf` prints: Documentation/schema/server.json.
struct ServerReport: Report {
    let schema = "verbs-server-1"
    var device: String?
    var provider: String?
    var client: RunDescription.Side?
    var jobs: [Server.Served]
    /// Whether the run ended before its time: `interrupted` or `stopped-by-peer`.
    var endedEarly: String?

    init(_ server: Server, _ conversation: Conversation) {
        device = server.context?.deviceName
        provider = server.context?.provider.name
        client = server.client.map(RunDescription.Side.init)
        jobs = server.served
        endedEarly = conversation.endingName
    }

    var text: String {
        var text = "\(device ?? "no device"), client \(client?.gid ?? "unknown")\n\n".printable
        var table = Table(
            .left("transport"), .left("operation"), .right("size"), .left("measured"), .right("received"),
            .right("verified"),
            .right("wrong"))
        for job in jobs {
            table.add(
                job.transport.rawValue, job.operation.rawValue, Units.size(UInt64(job.size)),
                job.kind.rawValue,
                Units.count(job.tally.received),
                Units.count(job.tally.verified), Units.count(job.tally.corrupted))
        }
        text += table.text
        if let endedEarly { text += "ended early: \(endedEarly)\n" }
        return text
    }
}
