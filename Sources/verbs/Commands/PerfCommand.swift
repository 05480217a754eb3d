import ArgumentParser
import Verbs

struct PerfCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perf",
        abstract: "Measure latency, bandwidth and message rate between two processes, or within one.",
        discussion: """
            Without arguments it starts a server on this machine, a process of its own, or with --in-process a thread. \
            Between two machines, run "verbs perf --listen" on the \
            one and "verbs perf HOST" on the other; the server learns everything but its device from the client.

            Latency is half a round trip for send, send-imm, write and write-imm, and the time until the completion for \
            read, fetch-add and compare-swap. Bandwidth and message rate are those of messages that have completed, on \
            uc and ud of those that the server has received. A MB is 10^6 bytes.
            """)

    @OptionGroup var peer: PeerOptions

    @Option(help: "The transport service.")
    var transport: Transport = .rc

    @Option(
        name: .customLong("operation"),
        help:
            "What to measure; can be repeated. (default: send, write, read, fetch-add, as far as the transport has them)"
    )
    var operations: [Operation] = []

    @Option(
        name: .customLong("size"),
        help: "The payload of a message in bytes; can be repeated. (default: 8, 1k, 64k and 1M; atomics have 8)",
        transform: sizeArgument)
    var sizes: [Int] = []

    @Option(help: "How many messages the latency is measured with; 0: do not measure it.")
    var count: UInt64 = 1000

    @Option(
        help: "How long bandwidth and message rate are measured, such as 500ms. (default: 300ms)",
        transform: timeArgument)
    var duration: Duration?

    @Option(help: "How many messages are under way at a time.")
    var window: Int = 64

    @Option(help: "How many of them share a completion.")
    var batch: Int = 16

    @OptionGroup var device: DeviceOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard (1...4096).contains(window), (1...window).contains(batch) else {
            throw ValidationError("Give a --window of 1 to 4096, and a --batch of 1 to the window.")
        }
    }

    func run() throws {
        if peer.isServer { return try peer.serve(device, output) }
        try peer.withServer(device, command: "perf") { rendezvous in
            // A datagram must fit a packet, and how large that is only the device knows.
            let sizes = sizes.isEmpty ? (transport == .ud ? [8, 256] : [8, 1 << 10, 64 << 10, 1 << 20]) : sizes
            let setup = Setup(
                transport: transport, largestSize: max(sizes.max() ?? 8, 8), window: window, verify: false)
            let plan = try plan(sizes, setup)
            var client = try Client.connect(rendezvous, device, setup)
            var report = PerfReport(client, peer, window: window, batch: batch)
            for (index, row) in plan.enumerated() where !client.conversation.isEnding {
                report.rows.append(try measure(&client, row, "\(index + 1) of \(plan.count)"))
            }
            report.endedEarly = client.conversation.endingName
            try client.end()
            try output.print(report)
            try client.conversation.endRun(corrupted: 0)
        }
    }

    /// The rows of the table, in order.
    private func plan(_ sizes: [Int], _ setup: Setup) throws -> [(operation: Operation, size: Int)] {
        let wanted =
            operations.isEmpty
            ? [.send, .write, .read, .fetchAndAdd].filter { $0.isPossible(on: transport) } : operations
        let rows = wanted.flatMap { operation in
            (operation.isAtomic ? [8] : sizes).map { (operation: operation, size: $0) }
        }
        for row in rows { try job(.throughput, row.operation, row.size).check(setup) }
        return rows
    }

    private func job(_ kind: Job.Kind, _ operation: Operation, _ size: Int) -> Job {
        let warmUp = kind == .latency ? min(count / 10, 100) : UInt64(window)
        return Job(
            kind: kind, operation: operation, size: size,
            count: kind == .latency ? Job.total(count, warmUp: warmUp) : nil,
            duration: kind == .latency ? nil : (duration ?? .milliseconds(300)).nanoseconds, warmUp: warmUp,
            verify: false,
            window: kind == .latency ? 1 : window, batch: kind == .latency ? 1 : batch,
            patience: Job.patience(transport, byteCount: 2 * size * (kind == .latency ? 1 : window)))
    }

    private func measure(
        _ client: inout Client, _ row: (operation: Operation, size: Int), _ place: String
    ) throws -> PerfReport.Row {
        let title = "\(row.operation.rawValue), \(Units.size(UInt64(row.size))) (\(place))"
        var recorder = Recorder()
        var lost: UInt64 = 0
        if count > 0 {
            let job = job(.latency, row.operation, row.size)
            let tallies = try client.run(job) { link, conversation in
                var run = LatencyClient(job)
                return try run.run(&link, conversation, recorder: &recorder) { number, _ in
                    Progress.show("\(title): latency, \(Units.count(number)) messages")
                }
            }
            lost = tallies.client.lost
        }
        var result = ThroughputClient.Result()
        let job = job(.throughput, row.operation, row.size)
        let tallies = try client.run(job) { link, conversation in
            var run = ThroughputClient(job)
            let (outcome, tally) = try run.run(&link, conversation) { number in
                Progress.show("\(title): bandwidth, \(Units.count(number)) messages")
            }
            result = outcome
            return tally
        }
        return PerfReport.Row(row, recorder.summary, latencyLost: lost, result, tallies, transport)
    }
}

/// What the client of `verbs perf` prints: Documentation/schema/perf.json.
struct PerfReport: Report {
    struct Row: Encodable {
        var operation: Operation
        /// In bytes.
        var size: Int
        /// Half a round trip, or the time until the completion; nil if it was not measured.
        var latencyNanoseconds: LatencySummary?
        var bytesPerSecond: Double
        var messagesPerSecond: Double
        /// Messages of both measurements that did not arrive.
        var lost: UInt64
    }

    let schema = "verbs-perf-1"
    var run: RunDescription
    var window: Int
    var batch: Int
    var rows: [Row] = []
    /// Whether the run ended before its time: `interrupted` or `stopped-by-peer`.
    var endedEarly: String?

    init(_ client: borrowing Client, _ peer: PeerOptions, window: Int, batch: Int) {
        run = RunDescription(client, peer)
        self.window = window
        self.batch = batch
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
        return "\(run.title)\nwindow \(window), batch \(batch)\n\n" + table.text + early
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
        // What an unreliable sender has sent, the network may have dropped.
        let arrived =
            transport.isReliable || !row.operation.consumesReceive
            ? tallies.client.sent : min(tallies.server.received, tallies.client.sent)
        let share = tallies.client.sent == 0 ? 0 : Double(arrived) / Double(tallies.client.sent)
        let seconds = Double(max(result.nanoseconds, 1)) / 1e9
        messagesPerSecond = Double(result.completed) * share / seconds
        bytesPerSecond = messagesPerSecond * Double(row.size)
        lost = latencyLost + (tallies.client.sent - arrived)
    }
}

extension LatencySummary {
    /// From a round trip to one way.
    var halved: LatencySummary {
        LatencySummary(min: min / 2, p50: p50 / 2, p99: p99 / 2, p999: p999 / 2, max: max / 2, mean: mean / 2)
    }
}
