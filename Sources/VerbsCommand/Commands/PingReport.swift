import Verbs

/// The output of the client of `verbs ping`: Documentation/schema/ping.json.
struct PingReport: Report {
    /// Name and version of the document.
    static let schemaName = "verbs-ping-2"

    let schema = Self.schemaName
    var run: RunDescription
    var operation: Operation
    /// In bytes.
    var size: Int
    /// Messages that were measured: without the warm-up.
    var measured: UInt64
    /// The time of all messages, warm-up included.
    var elapsedNanoseconds: UInt64
    /// Nil if nothing was measured.
    var latencyNanoseconds: LatencySummary?
    /// Whether the times are round-trip times to the server's program; otherwise they end with the completion.
    var isRoundTrip: Bool
    /// At most 40 ranges; as text, at most 10.
    var histogram: [HistogramChart.Range]
    var verify: Bool
    var client: Tally
    var server: Tally
    /// Warnings and errors that providers logged during the command.
    var warnings: [String]
    /// Why the run ended early: `interrupted` or `stopped-by-peer`; nil: it did not.
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
        histogram = recorder.ranges(lines: 40)
        verify = job.verify
        (self.client, server) = tallies
        warnings = .ofProviders
        endedEarly = client.control.endedEarly
    }

    /// Corrupted messages, on both peers.
    var corrupted: UInt64 { client.corrupted + server.corrupted }

    var text: String {
        var text = "\(run.title)\n\(operation.rawValue), \(Units.size(UInt64(size))); "
        text += "\(Units.count(measured)) messages measured in \(Units.duration(nanoseconds: elapsedNanoseconds))\n\n"
        if let latency = latencyNanoseconds {
            var table = Table(
                [.left(isRoundTrip ? "round trip" : "completion")] + LatencySummary.columns(minimum: "min"))
            table.add(["us"] + latency.cells)
            text +=
                table.text + "\n" + HistogramChart.text(HistogramChart.merged(histogram, lines: 10), width: 40) + "\n"
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
        if corrupted == 0 { return "verified: \(Units.count(verified)) messages, every byte correct" }
        let first = (client.firstCorruption ?? server.firstCorruption).map {
            "; the first is message \($0.message), at byte \($0.offset)"
        }
        return "CORRUPTED: \(Units.count(corrupted)) of \(Units.count(verified + corrupted)) messages" + (first ?? "")
    }
}

/// The two peers of a run.
struct RunDescription: Codable {
    struct Peer: Codable {
        var device: String
        var provider: String
        var gid: String
        /// Queue pair number (`ibv_qp.qp_num`).
        var qpn: UInt32
    }

    var transport: Transport
    /// 1 if both peers are in this process, 2 for a client and a server, and more for several pairs.
    var processes: Int
    /// The client's port number.
    var port: Int
    /// The client's GID index.
    var gidIndex: Int
    var client: Peer
    var server: Peer
    /// `rdma_cm` if the connection manager connected the queue pairs; otherwise nil.
    var connectedBy: String?

    init(_ client: borrowing Client, _ peer: PeerOptions) { self.init(client, processes: peer.inProcess ? 1 : 2) }

    init(_ client: borrowing Client, processes: Int) {
        transport = client.setup.transport
        self.processes = processes
        port = Int(client.address.port)
        gidIndex = Int(client.address.gidIndex)
        self.client = Peer(client.info)
        server = Peer(client.server)
        connectedBy = client.setup.usesConnectionManager ? "rdma_cm" : nil
    }

    var title: String { "\(transport.name) \(peers)" }

    /// The devices, providers and GIDs of client and server.
    var peers: String {
        let text =
            "from \(client.device) (\(client.provider), \(client.gid)) to \(server.device)"
            + " (\(server.provider), \(server.gid))" + (processes == 1 ? ", in one process" : "")
            + (connectedBy.map { ", connected through \($0)" } ?? "")
        return text.printable
    }
}

extension RunDescription.Peer {
    init(_ info: PeerInfo) {
        self.init(
            device: info.device, provider: info.provider, gid: info.endpoint.gid.description,
            qpn: info.endpoint.queuePairNumber)
    }
}

extension ControlConnection {
    /// The reason for an early end, as in the JSON documents; nil: the run did not end early.
    var endedEarly: String? { reasonForEnding?.name }
}

extension ControlConnection.Ending {
    /// As in the JSON documents.
    var name: String {
        switch self {
        case .interrupted: "interrupted"
        case .stoppedByPeer: "stopped-by-peer"
        }
    }

    /// The exit code of a run that ended early.
    var exit: ToolExit {
        switch self {
        case .interrupted: Interrupt.exit ?? .interrupted
        case .stoppedByPeer: .stoppedByPeer
        }
    }
}
