import ArgumentParser
import Verbs

struct PingCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract: "Move messages between two sides, one at a time, and show how long each takes.",
        discussion: """
            Without arguments it starts a server on this machine, a process of its own, and pings it. Between two \
            machines, run "verbs ping --listen" on the one and "verbs ping HOST" on the other; the client decides everything but the \
            server's device.

            Times are round trips where the server's program answers (send, send-imm, write, write-imm), else the time \
            until the completion (read, fetch-add, compare-swap). With --verify both sides look at every byte, and the \
            times include that. Ctrl-C ends the run with a summary so far.
            """)

    @OptionGroup var peer: PeerOptions

    @Option(help: "The transport service. (default: rc)")
    var transport: Transport?

    @Option(help: "How a message is moved. (default: send)")
    var operation: Operation?

    @Flag(help: "Every operation of every transport, or of the one that is given, one after the other.")
    var all = false

    @Option(
        help: """
            The payload of a message in bytes, such as 64, 4k or 1M. (default: 64; atomics have 8, and with --all a \
            datagram has no more than a packet)
            """,
        transform: sizeArgument)
    var size: Int?

    @Option(help: "How many messages; 0: until Ctrl-C, or --duration.")
    var count: UInt64 = 1000

    @Option(help: "End after that time, such as 500ms, 10s or 2m, even if messages are left.", transform: timeArgument)
    var duration: Duration?

    @Option(help: "How many messages to move first that are not measured.")
    var warmUp: UInt64 = 100

    @Flag(help: "Fill messages with a pattern that depends on their number, and check every byte on both sides.")
    var verify = false

    @Option(
        help: """
            How long to wait for an answer; then the message is lost, on rc the server. (default: 10s, uc and ud 1s; \
            more for messages of 5 MB and more)
            """,
        transform: timeArgument)
    var timeout: Duration?

    @OptionGroup var device: DeviceOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard all else { return }
        if operation != nil { throw ValidationError("Give either --operation or --all.") }
        if count == 0, duration == nil {
            throw ValidationError("With --all, each operation must end: give a --count or a --duration.")
        }
    }

    func run() throws {
        if peer.isServer { return try peer.serve(device, output) }
        if all { return try runAll() }
        let operation = operation ?? .send
        let setup = setup(transport ?? .rc, size: size ?? (operation.isAtomic ? 8 : 64))
        let job = job(operation, size: setup.largestSize, over: setup.transport)
        try job.check(setup)
        try peer.withServer(device, command: "ping") { rendezvous in
            var client = try Client.connect(rendezvous, device, setup)
            let report = try measure(&client, job)
            try client.end()
            try output.print(report)
            try client.conversation.endRun(corrupted: report.corrupted)
        }
    }

    /// A queue pair for each transport, and over it each operation.
    private func runAll() throws {
        let transports = transport.map { [$0] } ?? Transport.allCases
        try peer.withServer(device, command: "ping") { rendezvous in
            var client = try Client.connect(rendezvous, device, setup(transports[0], size: size ?? 64))
            let packet = client.address.mtu.byteCount
            var report = PingAllReport()
            for transport in transports where !client.conversation.isEnding {
                let size = transport == .ud ? min(size ?? 64, packet) : size ?? 64
                if transport != client.setup.transport { try client.reconnect(setup(transport, size: max(size, 8))) }
                for operation in Operation.allCases
                where operation.isPossible(on: transport) && !client.conversation.isEnding {
                    let job = job(operation, size: operation.isAtomic ? 8 : size, over: transport)
                    report.runs.append(try measure(&client, job))
                }
            }
            try client.end()
            try output.print(report)
            try client.conversation.endRun(corrupted: report.corrupted)
        }
    }

    private func setup(_ transport: Transport, size: Int) -> Setup {
        Setup(transport: transport, largestSize: size, window: 1, verify: verify)
    }

    private func job(_ operation: Operation, size: Int, over transport: Transport) -> Job {
        Job(
            kind: .latency, operation: operation, size: size,
            count: count == 0 ? nil : Job.total(count, warmUp: warmUp), duration: duration?.nanoseconds, warmUp: warmUp,
            verify: verify, window: 1, batch: 1,
            patience: timeout?.nanoseconds ?? Job.patience(transport, byteCount: 2 * size))
    }

    private func measure(_ client: inout Client, _ job: Job) throws -> PingReport {
        var recorder = Recorder()
        let start = Clock.now()
        let tallies = try client.run(job) { link, conversation in
            if job.count == nil, job.duration == nil { Console.note("moving messages until Ctrl-C") }
            var run = LatencyClient(job)
            return try run.run(&link, conversation, recorder: &recorder) { number, recorder in
                let total = job.count.map { " of \(Units.count($0))" } ?? ""
                let median = recorder.summary.map { ", median \(Units.duration(nanoseconds: $0.p50))" } ?? ""
                Progress.show("\(Units.count(number))\(total) messages\(median)")
            }
        }
        return PingReport(client, peer, job, tallies, recorder, elapsed: Clock.now() &- start)
    }
}

/// Reads a size from the command line.
func sizeArgument(_ text: String) throws -> Int {
    guard let size = Units.parseSize(text), size <= 1 << 30 else {
        throw ValidationError("\"\(text)\" is no size: give a number of bytes such as 64, 4k or 1M, at most 1G.")
    }
    return Int(size)
}

/// Reads a time from the command line.
func timeArgument(_ text: String) throws -> Duration {
    guard let duration = Units.parseDuration(text), duration > .zero else {
        throw ValidationError("\"\(text)\" is no time: give a number with a unit such as 500ms, 10s or 2m.")
    }
    return duration
}
