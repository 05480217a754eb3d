import ArgumentParser
import Verbs

struct PingCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract: "Transfer messages between two peers, one at a time, and show the latency.",
        discussion: """
            Without arguments, the command starts a server on this machine, in another process, and pings it. Between \
            two machines, run "verbs ping --listen" on one and "verbs ping HOST" on the other: each peer uses the device \
            through which it reaches the other. The client sets everything but the server's device.

            Times are round-trip times for send, send-imm, write, write-imm, atomic-write, flush and window, which the server's program \
            answers, and times until the completion for read, fetch-add and compare-swap. With --verify, both peers check every byte, \
            and the times include the check. Ctrl-C ends the run with a summary.
            """)

    @OptionGroup var peer: PeerOptions

    @Option(help: "The transport service. (default: rc)")
    var transport: Transport?

    @Option(help: "The operation that transfers a message. (default: send)")
    var operation: Operation?

    @Flag(
        help:
            "Run every operation of every transport, or of the given transport, in sequence; atomic-write, flush, window and xrc where both devices have them."
    )
    var all = false

    @Option(
        help: """
            The payload of a message in bytes, such as 64, 4k or 1M. (default: 64; atomics and atomic-write have 8 bytes, and with --all a \
            UD message has at most the path MTU)
            """,
        transform: sizeArgument)
    var size: Int?

    @Option(name: .customLong("count"), help: "The number of messages; 0: until Ctrl-C or --duration. (default: 1000)")
    var givenCount: UInt64?

    @Option(
        help: "End after that time, such as 500ms, 10s or 2m, even if --count is not reached.", transform: timeArgument)
    var duration: Duration?

    @Option(
        name: .customLong("warm-up"),
        help: "The number of messages at the beginning that are not measured. (default: 100)")
    var givenWarmUp: UInt64?

    @Flag(help: "Fill each message with a pattern of its number, and check every byte on both peers.")
    var verify = false

    @OptionGroup var faults: FaultOptions
    @OptionGroup var device: DeviceOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var picture: PlotOptions

    private var count: UInt64 { givenCount ?? 1000 }
    private var warmUp: UInt64 { givenWarmUp ?? 100 }

    func validate() throws {
        try peer.refuse([
            "transport": transport != nil, "operation": operation != nil, "all": all, "size": size != nil,
            "count": givenCount != nil, "duration": duration != nil, "warm-up": givenWarmUp != nil, "verify": verify,
            "plot": picture.plot != nil,
        ])
        guard all else { return }
        if picture.plot != nil { throw ValidationError("A picture shows one operation: give either --plot or --all.") }
        if operation != nil { throw ValidationError("Give either --operation or --all.") }
        if count == 0, duration == nil {
            throw ValidationError("With --all, each operation must end: give --count or --duration.")
        }
    }

    mutating func run() throws {
        try faults.prepare(&device, peer)
        if peer.isServer { return try peer.serve(device, output, command: "ping") }
        if all { return try runAll() }
        let operation = operation ?? .send
        let setup = setup(transport ?? .rc, size: size ?? (operation.hasEightBytes ? 8 : 64))
        let job = job(operation, size: setup.largestSize, over: setup.transport)
        try job.check(setup)
        try picture.check()
        try peer.withServer(device, command: "ping") { rendezvous in
            var client = try Client.connect(rendezvous, device, setup)
            let report = try measure(&client, job)
            try client.end()
            try output.print(report)
            try picture.write(report)
            try client.control.endRun(corrupted: report.corrupted)
        }
    }

    /// Creates a queue pair for each transport, and runs each operation over it.
    private func runAll() throws {
        let transports = transport.map { [$0] } ?? (peer.usesConnectionManager ? [.rc] : Transport.allCases)
        // Checked before the device is open: the path MTU can only make UD messages smaller.
        for transport in transports { try check(jobs(over: transport, packet: .max), transport) }
        try peer.withServer(device, command: "ping") { rendezvous in
            var client = try Client.connect(
                rendezvous, device, setup(transports[0], size: transports[0] == .ud ? 8 : largestSize))
            let packet = client.pathMTU
            var report = PingAllReport()
            let isIWARP = client.context.transportType == .iWARP
            let peers = [client.info, client.server]
            for transport in transports where !client.control.isEnding && (transport == .rc || !isIWARP) {
                guard peers.allSatisfy({ $0.has(transport) }) else { continue }
                let jobs = jobs(over: transport, packet: packet).filter { job in
                    (job.operation.isOfIWARP || !isIWARP) && peers.allSatisfy { $0.has(job.operation) }
                }
                let setup = setup(transport, size: max(8, jobs.map(\.size).max() ?? 8))
                if setup.transport != client.setup.transport || setup.largestSize != client.setup.largestSize {
                    try client.reconnect(setup)
                }
                for job in jobs where !client.control.isEnding {
                    report.runs.append(try measure(&client, job))
                }
            }
            try client.end()
            report.warnings = .ofProviders
            try output.print(report)
            try client.control.endRun(corrupted: report.corrupted)
        }
    }

    /// The buffer size for a message: at least 8 bytes, for atomics.
    private var largestSize: Int { max(size ?? 64, 8) }

    /// The jobs of `--all` over a transport. Atomics have 8 bytes, and a UD message at most `packet`.
    private func jobs(over transport: Transport, packet: Int) -> [Job] {
        let size = transport == .ud ? min(size ?? 64, packet) : size ?? 64
        return Operation.allCases.filter { $0.isSupported(on: transport) }.map {
            job($0, size: $0.hasEightBytes ? 8 : size, over: transport)
        }
    }

    private func check(_ jobs: [Job], _ transport: Transport) throws {
        for job in jobs { try job.check(setup(transport, size: largestSize)) }
    }

    private func setup(_ transport: Transport, size: Int) -> Setup {
        Setup(
            transport: transport, largestSize: size, window: 1, verify: verify,
            timeout: timeout(transport, size: size), retryTime: peer.timeout?.nanoseconds ?? 0,
            usesConnectionManager: peer.usesConnectionManager)
    }

    private func timeout(_ transport: Transport, size: Int) -> UInt64 {
        peer.timeout?.nanoseconds ?? Job.defaultTimeout(transport, byteCount: 2 * size)
    }

    private func job(_ operation: Operation, size: Int, over transport: Transport) -> Job {
        Job(
            type: .latency, operation: operation, size: size,
            count: count == 0 ? nil : Job.total(count, warmUp: warmUp), duration: duration?.nanoseconds, warmUp: warmUp,
            verify: verify, window: 1, batch: 1, timeout: timeout(transport, size: size))
    }

    private func measure(_ client: inout Client, _ job: Job) throws -> PingReport {
        var recorder = Recorder()
        let start = Clock.now()
        let tallies = try client.run(job) { link, control in
            if job.count == nil, job.duration == nil { Console.note("transferring messages until Ctrl-C") }
            var run = LatencyClient(job)
            return try run.run(&link, control, recorder: &recorder) { number, recorder in
                let total = job.count.map { " of \(Units.count($0))" } ?? ""
                let median = recorder.summary.map { ", median \(Units.duration(nanoseconds: $0.p50))" } ?? ""
                Progress.show("\(Units.count(number))\(total) messages\(median)")
            }
        }
        return PingReport(client, peer, job, tallies, recorder, elapsed: Clock.now() &- start)
    }
}

/// Parses a size from the command line.
func sizeArgument(_ text: String) throws -> Int {
    guard let size = Units.parseSize(text), size <= 1 << 30 else {
        throw ValidationError("\"\(text)\" is not a size: give a number of bytes such as 64, 4k or 1M, at most 1G.")
    }
    return Int(size)
}

/// Parses the number of a device port from the command line.
func portArgument(_ text: String) throws -> UInt8 {
    guard let port = UInt8(text), port > 0 else {
        throw ValidationError("\"\(text)\" is not a port number: device ports count from 1.")
    }
    return port
}

/// Parses a time from the command line.
func timeArgument(_ text: String) throws -> Duration {
    guard let duration = Units.parseDuration(text), duration > .zero else {
        throw ValidationError("\"\(text)\" is not a time: give a number with a unit such as 500ms, 10s or 2m.")
    }
    return duration
}
