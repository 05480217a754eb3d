import ArgumentParser
import Verbs

struct PerfCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perf",
        abstract: "Measure latency, bandwidth and message rate between two processes, or within one.",
        discussion: """
            Without arguments, the command starts a server on this machine: a process, or with --in-process a thread. \
            Between two machines, run "verbs perf --listen" on one and "verbs perf HOST" on the other: each peer uses the \
            device through which it reaches the other. The server takes all other settings from the client.

            Latency is half the round-trip time for send, send-imm, write and write-imm, and the time until the completion \
            for read, fetch-add and compare-swap. Bandwidth and message rate count completed messages; on uc and ud, \
            messages that the server received. A MB is 10^6 bytes.
            """)

    @OptionGroup var peer: PeerOptions

    @Option(name: .customLong("transport"), help: "The transport service. (default: rc)")
    var givenTransport: Transport?

    @Option(
        name: .customLong("operation"),
        help:
            "The operation; can be repeated. (default: those of send, write, read, fetch-add that the transport supports)"
    )
    var operations: [Operation] = []

    @Option(
        name: .customLong("size"),
        help: "The payload of a message in bytes; can be repeated. (default: 8, 1k, 64k and 1M; atomics have 8)",
        transform: sizeArgument)
    var sizes: [Int] = []

    @Option(
        name: .customLong("count"),
        help: "The number of messages for the latency; 0: do not measure latency. (default: 1000)")
    var givenCount: UInt64?

    @Option(
        help: "The time for which bandwidth and message rate are measured, such as 500ms. (default: 300ms)",
        transform: timeArgument)
    var duration: Duration?

    @Option(name: .customLong("window"), help: "The number of outstanding messages. (default: 64)")
    var givenWindow: Int?

    @Option(
        name: .customLong("batch"), help: "Signal every Nth send work request. (default: 16, at most the window)")
    var givenBatch: Int?

    @Option(
        name: .customLong("queue-pairs"),
        help: """
            The number of queue pairs between client and server, which send messages in turn: 1 to \(QueuePairs.most). They \
            share a completion queue, the buffers and the window. All receive queues together hold at most \
            \(Setup.mostReceives) messages, so that memory stays bounded. (default: 1)
            """)
    var givenQueuePairs: Int?

    @OptionGroup var device: DeviceOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var picture: PlotOptions

    private var transport: Transport { givenTransport ?? .rc }
    private var count: UInt64 { givenCount ?? 1000 }
    private var window: Int { givenWindow ?? 64 }
    private var queuePairs: Int { givenQueuePairs ?? 1 }
    private var batch: Int { givenBatch ?? min(16, window) }

    func validate() throws {
        try peer.refuse([
            "transport": givenTransport != nil, "operation": !operations.isEmpty, "size": !sizes.isEmpty,
            "count": givenCount != nil, "duration": duration != nil, "window": givenWindow != nil,
            "batch": givenBatch != nil, "queue-pairs": givenQueuePairs != nil, "plot": picture.plot != nil,
        ])
        guard (1...4096).contains(window), (1...window).contains(batch) else {
            throw ValidationError("Give a --window of 1 to 4096, and a --batch of 1 to the window.")
        }
        guard (1...QueuePairs.most).contains(queuePairs) else {
            throw ValidationError("Give --queue-pairs of 1 to \(QueuePairs.most).")
        }
        guard queuePairs == 1 || transport != .ud else {
            throw ValidationError("--queue-pairs needs connected queue pairs: give --transport rc or uc.")
        }
        guard queuePairs == 1 || !peer.usesConnectionManager else {
            throw ValidationError("rdma_cm connects one queue pair: give either --queue-pairs or --rdma-cm.")
        }
    }

    func run() throws {
        if peer.isServer { return try peer.serve(device, output, command: "perf") }
        // A UD message must fit one packet; the path MTU is not known before the device is open.
        let sizes = sizes.isEmpty ? (transport == .ud ? [8, 256] : [8, 1 << 10, 64 << 10, 1 << 20]) : sizes
        let largestSize = max(sizes.max() ?? 8, 8)
        let setup = Setup(
            transport: transport, largestSize: largestSize, window: window, queuePairs: queuePairs, batch: batch,
            verify: false,
            timeout: timeout(byteCount: 2 * largestSize * window), retryTime: peer.timeout?.nanoseconds ?? 0,
            usesConnectionManager: peer.usesConnectionManager)
        let plan = try plan(sizes, setup)
        try picture.check()
        try peer.withServer(device, command: "perf") { rendezvous in
            var client = try Client.connect(rendezvous, device, setup)
            var plan = plan
            if operations.isEmpty, client.context.transportType == .iWARP { plan.removeAll { !$0.operation.isOfIWARP } }
            var report = PerfReport(client, peer, window: window, batch: batch, queuePairs: queuePairs)
            for (index, row) in plan.enumerated() where !client.control.isEnding {
                report.rows.append(try measure(&client, row, "\(index + 1) of \(plan.count)"))
            }
            report.warnings = .ofProviders
            report.endedEarly = client.control.endedEarly
            try client.end()
            try output.print(report)
            try picture.write(report)
            try client.control.endRun(corrupted: 0)
        }
    }

    /// The operations and sizes to measure, in the order of the table.
    private func plan(_ sizes: [Int], _ setup: Setup) throws -> [(operation: Operation, size: Int)] {
        let wanted =
            operations.isEmpty
            ? [.send, .write, .read, .fetchAndAdd].filter { $0.isSupported(on: transport) } : operations
        let rows = wanted.flatMap { operation in
            (operation.isAtomic ? [8] : sizes).map { (operation: operation, size: $0) }
        }
        for row in rows { try job(.throughput, row.operation, row.size).check(setup) }
        return rows
    }

    private func timeout(byteCount: Int) -> UInt64 {
        peer.timeout?.nanoseconds ?? Job.defaultTimeout(transport, byteCount: byteCount)
    }

    private func job(_ type: Job.Measurement, _ operation: Operation, _ size: Int) -> Job {
        let warmUp = type == .latency ? min(count / 10, 100) : UInt64(window)
        return Job(
            type: type, operation: operation, size: size,
            count: type == .latency ? Job.total(count, warmUp: warmUp) : nil,
            duration: type == .latency ? nil : (duration ?? .milliseconds(300)).nanoseconds, warmUp: warmUp,
            verify: false,
            window: type == .latency ? 1 : window, batch: type == .latency ? 1 : batch,
            timeout: timeout(byteCount: 2 * size * (type == .latency ? 1 : window)))
    }

    private func measure(
        _ client: inout Client, _ row: (operation: Operation, size: Int), _ place: String
    ) throws -> PerfReport.Row {
        let title = "\(row.operation.rawValue), \(Units.size(UInt64(row.size))) (\(place))"
        var recorder = Recorder()
        var lost: UInt64 = 0
        if count > 0 {
            let job = job(.latency, row.operation, row.size)
            let tallies = try client.run(job) { link, control in
                var run = LatencyClient(job)
                return try run.run(&link, control, recorder: &recorder) { number, _ in
                    Progress.show("\(title): latency, \(Units.count(number)) messages")
                }
            }
            lost = tallies.client.lost
        }
        var result = ThroughputClient.Result()
        let job = job(.throughput, row.operation, row.size)
        let tallies = try client.run(job) { link, control in
            var run = ThroughputClient(job)
            let (outcome, tally) = try run.run(&link, control) { number in
                Progress.show("\(title): bandwidth, \(Units.count(number)) messages")
            }
            result = outcome
            return tally
        }
        return PerfReport.Row(row, recorder.summary, latencyLost: lost, result, tallies, transport)
    }
}

/// The output of the client of `verbs perf`: Documentation/schema/perf.json.
struct PerfReport: Report {
    struct Row: Encodable {
        var operation: Operation
        /// In bytes.
        var size: Int
        /// Half the round-trip time, or the time until the completion; nil if it was not measured.
        var latencyNanoseconds: LatencySummary?
        var bytesPerSecond: Double
        var messagesPerSecond: Double
        /// Messages of both measurements that were lost.
        var lost: UInt64
        /// The fewest and the most messages of a queue pair while bandwidth was measured; nil: there is one queue pair.
        var messagesOfQueuePair: Extremes?
    }

    struct Extremes: Encodable {
        var min: UInt64
        var max: UInt64
    }

    /// Name and version of the document.
    static let schemaName = "verbs-perf-2"

    let schema = Self.schemaName
    var run: RunDescription
    var window: Int
    var batch: Int
    /// Queue pairs between a client and its server.
    var queuePairs: Int
    var rows: [Row] = []
    /// Warnings and errors that providers logged during the command.
    var warnings: [String] = []
    /// Why the run ended early: `interrupted` or `stopped-by-peer`; nil: it did not.
    var endedEarly: String?

    init(_ client: borrowing Client, _ peer: PeerOptions, window: Int, batch: Int, queuePairs: Int) {
        run = RunDescription(client, peer)
        self.window = window
        self.batch = batch
        self.queuePairs = queuePairs
    }

    var text: String {
        var table = Table(
            [.left("operation"), .right("size")] + LatencySummary.columns(minimum: "min us")
                + [.right("MB/s"), .right("k msg/s"), .right("lost")])
        for row in rows {
            let rates = [
                Units.megabytesPerSecond(row.bytesPerSecond), Units.kiloPerSecond(row.messagesPerSecond),
                row.lost == 0 ? "" : Units.count(row.lost),
            ]
            table.add(
                [row.operation.rawValue, Units.size(UInt64(row.size))]
                    + (row.latencyNanoseconds?.cells ?? LatencySummary.noCells) + rates)
        }
        let early = endedEarly.map { "ended early: \($0)\n" } ?? ""
        let spread = queuePairs == 1 ? "" : ", \(queuePairs) queue pairs"
        return "\(run.title)\nwindow \(window), batch \(batch)\(spread)\n\n" + table.text + early
    }
}

extension PerfReport.Row {
    init(
        _ row: (operation: Operation, size: Int), _ latency: LatencySummary?, latencyLost: UInt64,
        _ result: ThroughputClient.Result, _ tallies: (client: Tally, server: Tally), _ transport: Transport
    ) {
        operation = row.operation
        size = row.size
        latencyNanoseconds = row.operation.involvesPeer ? latency?.halved : latency
        // The network may drop messages of UC and UD.
        let arrived =
            transport.isReliable || !row.operation.consumesReceive
            ? tallies.client.sent : min(tallies.server.received, tallies.client.sent)
        let share = tallies.client.sent == 0 ? 0 : Double(arrived) / Double(tallies.client.sent)
        let seconds = Double(max(result.nanoseconds, 1)) / 1e9
        messagesPerSecond = Double(result.completed) * share / seconds
        bytesPerSecond = messagesPerSecond * Double(row.size)
        lost = latencyLost + (tallies.client.sent - arrived)
        if result.ofQueuePairs.count > 1, let least = result.ofQueuePairs.min(), let most = result.ofQueuePairs.max() {
            messagesOfQueuePair = PerfReport.Extremes(min: least, max: most)
        }
    }
}

extension LatencySummary {
    /// Half of each value: the one-way latency of a round-trip time.
    var halved: LatencySummary {
        LatencySummary(min: min / 2, p50: p50 / 2, p99: p99 / 2, p999: p999 / 2, max: max / 2, mean: mean / 2)
    }
}
