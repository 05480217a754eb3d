import Verbs

/// What the client of `verbs ping` prints: Documentation/schema/ping.json.
struct PingReport: Report {
    let schema = "verbs-ping-1"
    var run: RunDescription
    var operation: Operation
    /// In bytes.
    var size: Int
    /// Measured messages and the time of all, warm-up included.
    var measured: UInt64
    var elapsedNanoseconds: UInt64
    /// Nil if nothing was measured.
    var latencyNanoseconds: LatencySummary?
    /// Whether the times are round trips to the server's program, or end with the completion.
    var isRoundTrip: Bool
    var histogram: [HistogramChart.Range]
    var verify: Bool
    var client: Tally
    var server: Tally
    /// Whether the run ended before its time: `interrupted` or `stopped-by-server`.
    var endedEarly: String?

    init(
        _ client: borrowing Client, _ peer: PeerOptions, _ job: Job, _ tallies: (client: Tally, server: Tally),
        _ recorder: Recorder, elapsed: UInt64
    ) {
        run = RunDescription(client, peer)
        operation = job.operation
        size = job.size
        measured = recorder.count
        elapsedNanoseconds = elapsed
        latencyNanoseconds = recorder.summary
        isRoundTrip = job.operation.involvesPeer
        histogram = recorder.ranges(lines: 10)
        verify = job.verify
        (self.client, server) = tallies
        endedEarly = client.conversation.endingName
    }

    /// Messages with a wrong byte, on both sides.
    var corrupted: UInt64 { client.corrupted + server.corrupted }

    var text: String {
        var text = "\(run.title)\n\(operation.rawValue), \(Units.size(UInt64(size))); "
        text += "\(Units.count(measured)) messages measured in \(Units.duration(nanoseconds: elapsedNanoseconds))\n\n"
        if let latency = latencyNanoseconds {
            var table = Table(
                [.left(isRoundTrip ? "round trip" : "completion")] + LatencySummary.columns(minimum: "min"))
            table.add(["us"] + latency.cells)
            text += table.text + "\n" + HistogramChart.text(histogram, width: 40) + "\n"
        }
        if client.lost > 0 {
            text += "lost: \(Units.count(client.lost)) of \(Units.count(client.sent)) messages\n"
        }
        if verify { text += verification + "\n" }
        if let endedEarly { text += "ended early: \(endedEarly)\n" }
        return text
    }

    private var verification: String {
        let verified = client.verified + server.verified
        if corrupted == 0 { return "verified: \(Units.count(verified)) messages, every byte was right" }
        let first = (client.firstCorruption ?? server.firstCorruption).map {
            "; the first in message \($0.message) at byte \($0.offset)"
        }
        return "NOT RIGHT: \(Units.count(corrupted)) of \(Units.count(verified + corrupted)) messages" + (first ?? "")
    }
}

/// Between whom a run took place.
struct RunDescription: Encodable {
    struct Side: Encodable {
        var device: String
        var provider: String
        var gid: String
        var queuePair: UInt32
    }

    var transport: Transport
    /// 1 if both sides are in this process, else 2.
    var processes: Int
    /// The client's address, as `verbs info` shows it.
    var port: Int
    var gidIndex: Int
    var client: Side
    var server: Side

    init(_ client: borrowing Client, _ peer: PeerOptions) {
        transport = client.setup.transport
        processes = peer.inProcess ? 1 : 2
        port = Int(client.address.port)
        gidIndex = Int(client.address.gidIndex)
        self.client = Side(client.party)
        server = Side(client.server)
    }

    var title: String { "\(transport.name) \(sides)" }

    /// From whom to whom.
    var sides: String {
        let text =
            "from \(client.device) (\(client.provider), \(client.gid)) to \(server.device)"
            + " (\(server.provider), \(server.gid))" + (processes == 1 ? ", in one process" : "")
        return text.printable
    }
}

extension RunDescription.Side {
    init(_ party: Party) {
        self.init(
            device: party.device, provider: party.provider, gid: party.endpoint.gid.description,
            queuePair: party.endpoint.queuePairNumber)
    }
}

extension Conversation {
    /// How `--json` names the reason for an early end.
    var endingName: String? {
        switch reasonForEnding {
        case nil: nil
        case .interrupted: "interrupted"
        case .stoppedByPeer: "stopped-by-peer"
        }
    }
}
