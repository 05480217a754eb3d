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

            Latency is half the round-trip time for send, send-imm, write, write-imm, atomic-write and flush, and the time until \
            the completion for read, fetch-add and compare-swap. With --queue-pairs and --processes it measures how the \
            device scales on one machine. Bandwidth and message rate count completed messages; on uc and ud, messages \
            that the server received. A MB is 10^6 bytes.
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

    @Option(
        name: .customLong("processes"),
        help: """
            The number of pairs of a client and a server process on this machine, which measure at once: 1 to \
            \(ProcessPairs.most). Shows the sum of their rates, and percentiles over the messages of all. Not with HOST, \
            --listen or --in-process. (default: 1)
            """)
    var givenPairs: Int?

    @Option(
        name: .customLong("memory"),
        help: """
            The memory of both peers: api, which the Swift API allocates, or malloc, the program's own. On soft, other \
            processes of the host map memory of the first kind, and the kernel copies the second. (default: api)
            """)
    var givenMemory: BufferMemory?

    @Option(
        name: .customLong("target"),
        help: """
            What the server's program does during read, fetch-add and compare-swap, in which it has no part: sleeps, or \
            polls its completion queue. It matters where a device needs the program or a thread of it, as soft for \
            atomics on memory of malloc. (default: sleeps)
            """)
    var givenTarget: TargetBehavior?

    @OptionGroup var faults: FaultOptions
    @OptionGroup var device: DeviceOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var picture: PlotOptions

    private var transport: Transport { givenTransport ?? .rc }
    private var count: UInt64 { givenCount ?? 1000 }
    private var window: Int { givenWindow ?? 64 }
    private var queuePairs: Int { givenQueuePairs ?? 1 }
    private var pairs: Int { givenPairs ?? 1 }
    private var memory: BufferMemory { givenMemory ?? .api }
    private var batch: Int { givenBatch ?? min(16, window) }

    func validate() throws {
        try peer.refuse([
            "transport": givenTransport != nil, "operation": !operations.isEmpty, "size": !sizes.isEmpty,
            "count": givenCount != nil, "duration": duration != nil, "window": givenWindow != nil,
            "batch": givenBatch != nil, "queue-pairs": givenQueuePairs != nil,
            "processes": givenPairs != nil, "memory": givenMemory != nil, "target": givenTarget != nil,
            "plot": picture.plot != nil,
        ])
        guard (1...4096).contains(window), (1...window).contains(batch) else {
            throw ValidationError("Give a --window of 1 to 4096, and a --batch of 1 to the window.")
        }
        guard (1...QueuePairs.most).contains(queuePairs) else {
            throw ValidationError("Give --queue-pairs of 1 to \(QueuePairs.most).")
        }
        guard (1...ProcessPairs.most).contains(pairs) else {
            throw ValidationError("Give --processes of 1 to \(ProcessPairs.most).")
        }
        guard pairs == 1 || peer.host == nil && !peer.inProcess else {
            throw ValidationError(
                "--processes starts all servers on this machine: give it without HOST and without --in-process.")
        }
        guard queuePairs == 1 || transport == .rc || transport == .uc else {
            throw ValidationError("--queue-pairs needs RC or UC: give --transport rc or uc.")
        }
        guard queuePairs == 1 || !peer.usesConnectionManager else {
            throw ValidationError("rdma_cm connects one queue pair: give either --queue-pairs or --rdma-cm.")
        }
    }

    mutating func run() throws {
        try faults.prepare(&device, peer)
        if peer.isServer { return try peer.serve(device, output, command: "perf") }
        // A UD message must fit one packet; the path MTU is not known before the device is open.
        let sizes = sizes.isEmpty ? (transport == .ud ? [8, 256] : [8, 1 << 10, 64 << 10, 1 << 20]) : sizes
        let largestSize = max(sizes.max() ?? 8, 8)
        let setup = Setup(
            transport: transport, largestSize: largestSize, window: window, queuePairs: queuePairs, batch: batch,
            verify: false,
            timeout: timeout(byteCount: 2 * largestSize * window), retryTime: peer.timeout?.nanoseconds ?? 0,
            usesConnectionManager: peer.usesConnectionManager, memory: memory)
        let plan = try plan(sizes, setup)
        try picture.check()
        if pairs > 1 { return try runPairs(plan, setup) }
        try peer.withServer(device, command: "perf") { rendezvous in
            var client = try Client.connect(rendezvous, device, setup)
            try client.check(operations)
            let plan = adapted(plan, isIWARP: client.context.transportType == .iWARP)
            var report = report(RunDescription(client, peer))
            for (index, row) in plan.enumerated() where !client.control.isEnding {
                let title = title(row, index, of: plan)
                report.rows.append(
                    try measure(row) { job in
                        [
                            try client.measure(job) { number in
                                Progress.show("\(title): \(job.type.rawValue), \(Units.count(number)) messages")
                            }
                        ]
                    })
            }
            report.warnings = .ofProviders
            report.endedEarly = client.control.endedEarly
            try client.end()
            try output.print(report)
            try picture.write(report)
            try client.control.endRun(corrupted: 0)
        }
    }

    /// Measures with several pairs of processes at once.
    private func runPairs(_ plan: [PlannedRow], _ setup: Setup) throws {
        try ProcessPairs.with(pairs, device, setup, operations) { pairs in
            let plan = adapted(plan, isIWARP: pairs.first.isIWARP)
            var run = pairs.first.run
            run.processes = 2 * self.pairs
            var report = report(run)
            for (index, row) in plan.enumerated() where pairs.ending == nil {
                let title = title(row, index, of: plan)
                report.rows.append(
                    try measure(row) { job in
                        Progress.show("\(title): \(job.type.rawValue), \(self.pairs) pairs of processes")
                        return try pairs.measure(job)
                    })
            }
            Progress.clear()
            report.warnings = pairs.warnings
            let ending = pairs.ending
            report.endedEarly = ending?.name
            try pairs.end()
            try output.print(report)
            try picture.write(report)
            if let ending { throw ExitCode(ending.exit.rawValue) }
        }
    }

    private typealias PlannedRow = (operation: Operation, size: Int)

    /// Without operations that the device does not have, unless they were requested.
    private func adapted(_ plan: [PlannedRow], isIWARP: Bool) -> [PlannedRow] {
        operations.isEmpty && isIWARP ? plan.filter(\.operation.isOfIWARP) : plan
    }

    private func report(_ run: RunDescription) -> PerfReport {
        PerfReport(
            run: run, window: window, batch: batch, queuePairs: queuePairs, pairs: pairs, memory: memory,
            target: givenTarget ?? .sleeps)
    }

    private func title(_ row: PlannedRow, _ index: Int, of plan: [PlannedRow]) -> String {
        "\(row.operation.rawValue), \(Units.size(UInt64(row.size))) (\(index + 1) of \(plan.count))"
    }

    /// The operations and sizes to measure, in the order of the table.
    private func plan(_ sizes: [Int], _ setup: Setup) throws -> [(operation: Operation, size: Int)] {
        let wanted =
            operations.isEmpty
            ? [.send, .write, .read, .fetchAndAdd].filter { $0.isSupported(on: transport) } : operations
        let rows = wanted.flatMap { operation in
            (operation.hasEightBytes ? [8] : sizes).map { (operation: operation, size: $0) }
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
            timeout: timeout(byteCount: 2 * size * (type == .latency ? 1 : window)), target: givenTarget)
    }

    /// Measures latency and bandwidth; `run` runs a job and returns the result of each pair of client and server.
    private func measure(_ row: PlannedRow, run: (Job) throws -> [PairResult]) throws -> PerfReport.Row {
        let latency = count > 0 ? try run(job(.latency, row.operation, row.size)) : []
        let throughput = try run(job(.throughput, row.operation, row.size))
        return PerfReport.Row(row, latency: latency, throughput: throughput, transport)
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
        /// The fewest and the most messages of a queue pair in the measurement of bandwidth, its warm-up included; nil:
        /// there is one queue pair.
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
    /// Pairs of client and server that measured at once.
    var pairs: Int
    var memory: BufferMemory
    var target: TargetBehavior
    var rows: [Row] = []
    /// Warnings and errors that providers logged during the command.
    var warnings: [String] = []
    /// Why the run ended early: `interrupted` or `stopped-by-peer`; nil: it did not.
    var endedEarly: String?

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
        let spread =
            (queuePairs == 1 ? "" : ", \(queuePairs) queue pairs")
            + (memory == .api ? "" : ", memory of \(memory.rawValue)")
            + (target == .sleeps ? "" : ", the target \(target.rawValue)")
            + (pairs == 1 ? "" : "; \(pairs) pairs of processes at once, rates are sums")
        return "\(run.title)\nwindow \(window), batch \(batch)\(spread)\n\n" + table.text + early
    }
}

extension PerfReport.Row {
    /// - Parameters:
    ///   - latency: The results of each pair of client and server; empty if latency was not measured.
    ///   - throughput: The results of each pair.
    fileprivate init(
        _ row: (operation: Operation, size: Int), latency: [PairResult], throughput: [PairResult],
        _ transport: Transport
    ) {
        operation = row.operation
        size = row.size
        var recorder = Recorder()
        for result in latency { recorder.merge(result.recorder) }
        let summary = recorder.summary
        latencyNanoseconds = row.operation.involvesPeer ? summary?.halved : summary
        messagesPerSecond = throughput.reduce(0) { $0 + $1.messagesPerSecond(row.operation, transport) }
        bytesPerSecond = messagesPerSecond * Double(row.size)
        lost = latency.reduce(0) { $0 + $1.client.lost }
        for result in throughput { lost += result.client.sent - result.arrived(row.operation, transport) }
        let counts = throughput.map(\.throughput.ofQueuePairs).filter { $0.count > 1 }.flatMap { $0 }
        if let least = counts.min(), let most = counts.max() {
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
