import Rendezvous
import Verbs

// `verbs perf --processes M` starts M clients, each in a process of its own. Each client starts its server, as `verbs perf`
// does, and runs the jobs that it is ordered to run. The processes talk by ControlMessage:
//
//     command                          each client
//     prepare(version, setup,   ->     starts its server, connects to it, checks the operations
//       operations)
//                               <-     prepared
//     measure(job)              ->     runs the job with its server
//                               <-     times, as often as needed; measured
//     goodbye                   ->     ends
//
// The command has the role of a server, since the clients send `alive`, and end a job after `stop`.

/// What a client reports when it is connected to its server.
struct PreparedPair: Codable {
    var run: RunDescription
    /// Whether its device is an iWARP adapter.
    var isIWARP: Bool
}

/// What a client reports about a job, without the times of the messages.
struct MeasuredPair: Codable {
    var completed: UInt64
    var nanoseconds: UInt64
    /// The fewest and the most messages of a queue pair; nil: there is one queue pair.
    var fewest: UInt64?
    var most: UInt64?
    var client: Tally
    var server: Tally
    /// Of the times.
    var minimum: UInt64
    var maximum: UInt64
    var sum: UInt64
    /// Whether a signal ended the job.
    var endedEarly: Bool
    /// Warnings that providers logged in this process.
    var warnings: [String]
}

/// The processes of `verbs perf --processes`, as the command sees them.
struct ProcessPairs {
    /// The largest number of pairs.
    static let most = 64

    private let processes: [LocalServer]
    private let controls: [ControlConnection]
    /// What the first client has reported.
    let first: PreparedPair
    private(set) var warnings: [String] = []
    private var hasEndedEarly = false

    /// Starts `count` pairs, and calls `body` when all are connected. Throws if a device does not have one of the
    /// operations.
    static func with(
        _ count: Int, _ device: DeviceOptions, _ setup: Setup, _ operations: [Operation],
        _ body: (inout ProcessPairs) throws -> Void
    ) throws {
        var processes: [LocalServer] = []
        defer {
            // All learn that the run is over before the first is waited for.
            for process in processes { process.rendezvous.close() }
            let deadline = ContinuousClock.now + LocalServer.endingTime
            for process in processes { process.reap(until: deadline) }
        }
        for _ in 0..<count { processes.append(try LocalServer.process("perf", device)) }
        Interrupt.install()
        var pairs = try ProcessPairs(processes, setup, operations)
        try body(&pairs)
    }

    private init(_ processes: [LocalServer], _ setup: Setup, _ operations: [Operation]) throws {
        self.processes = processes
        controls = processes.map { ControlConnection($0.rendezvous, as: .server) }
        // While a job waits for an answer, its client sends no messages; many processes may share a processor.
        let patience = Duration.controlTimeout(for: setup) + .seconds(10 + processes.count)
        for control in controls {
            control.passesFailures = true
            control.setTimeout(patience)
            try control.send(.prepare(version: ControlMessage.version, setup: setup, operations: operations))
        }
        var prepared: [PreparedPair] = []
        for control in controls {
            guard case .prepared(let pair) = try control.next() else { throw ToolError.protocolError }
            prepared.append(pair)
        }
        first = prepared[0]
    }

    /// Runs a job in every pair at once, and returns their results.
    mutating func measure(_ job: Job) throws -> [PairResult] {
        for control in controls { try control.send(.measure(job: job)) }
        var results = [PairResult](repeating: PairResult(), count: controls.count)
        var isFinished = [Bool](repeating: false, count: controls.count)
        while true {
            let now = Clock.now()
            // All are checked, so that the failure of one is noticed at once, and an interruption reaches all.
            for (index, control) in controls.enumerated() {
                guard try !control.checkPeer(now: now), let message = control.takePending() else { continue }
                guard !isFinished[index] else { throw ToolError.protocolError }
                isFinished[index] = try take(message, &results[index])
            }
            if !isFinished.contains(false) { return results }
            Clock.sleep(1_000_000)
        }
    }

    /// Adds what a client has reported to its result. Returns whether the result is complete.
    private mutating func take(_ message: ControlMessage, _ result: inout PairResult) throws(ToolError) -> Bool {
        switch message {
        case .times(let values, let counts):
            guard values.count == counts.count else { throw ToolError.protocolError }
            for (value, count) in zip(values, counts) { result.recorder.add(value, count: count) }
            return false
        case .measured(let measured):
            result.take(measured)
            if measured.endedEarly { hasEndedEarly = true }
            for warning in measured.warnings where !warnings.contains(warning) { warnings.append(warning) }
            return true
        default: throw ToolError.protocolError
        }
    }

    /// Tells the clients that there are no more jobs.
    func end() throws {
        for control in controls { try control.send(.goodbye) }
    }

    /// Why the run ended early; nil: it did not.
    var ending: ControlConnection.Ending? {
        Interrupt.isRequested ? .interrupted : hasEndedEarly ? .stoppedByPeer : nil
    }
}

extension PairResult {
    fileprivate mutating func take(_ measured: MeasuredPair) {
        throughput.completed = measured.completed
        throughput.nanoseconds = measured.nanoseconds
        if let fewest = measured.fewest, let most = measured.most { throughput.ofQueuePairs = [fewest, most] }
        (client, server) = (measured.client, measured.server)
        recorder.setExact(minimum: measured.minimum, maximum: measured.maximum, sum: measured.sum)
    }

    /// The report about this result, without the times.
    fileprivate func measured(endedEarly: Bool) -> MeasuredPair {
        let spread = throughput.ofQueuePairs.count > 1
        return MeasuredPair(
            completed: throughput.completed, nanoseconds: throughput.nanoseconds,
            fewest: spread ? throughput.ofQueuePairs.min() : nil, most: spread ? throughput.ofQueuePairs.max() : nil,
            client: client, server: server, minimum: recorder.minimum, maximum: recorder.maximum, sum: recorder.sum,
            endedEarly: endedEarly,
            // A message has a largest size.
            warnings: [String].ofProviders.prefix(16).map { String($0.prefix(500)) })
    }
}

/// A client that `verbs perf --processes` has started.
struct OrderedClient {
    /// Distinct times in one message.
    private static let timesInMessage = 1024

    let coordinator: ControlConnection
    let device: DeviceOptions

    /// Starts a server, connects to it, checks the operations of the jobs to come, and runs jobs until `goodbye`.
    func run(_ setup: Setup, _ operations: [Operation]) throws {
        let server = try LocalServer.process("perf", device)
        defer { server.reap() }
        var client = try Client.connect(server.rendezvous, device, setup)
        try client.check(operations)
        try coordinator.send(
            .prepared(
                PreparedPair(
                    run: RunDescription(client, processes: 2), isIWARP: client.context.transportType == .iWARP)))
        while true {
            switch try nextOrder(client.control) {
            case .measure(let job):
                let result = try client.measure(job) { _ in
                    // A lost command ends the job too; the error shows when the next order is awaited.
                    let isConnected = (try? coordinator.checkPeer(now: Clock.now())) != nil
                    if !isConnected || coordinator.isEnding { Interrupt.request() }
                }
                try send(result, endedEarly: client.control.isEnding)
            case .goodbye:
                try client.end()
                return
            default: throw ToolError.protocolError
            }
        }
    }

    /// Waits for the next message of the command. Meanwhile the server learns that this process is alive.
    private func nextOrder(_ server: ControlConnection) throws(ToolError) -> ControlMessage {
        while true {
            let now = Clock.now()
            if try !coordinator.checkPeer(now: now), let message = coordinator.takePending() { return message }
            _ = try server.checkPeer(now: now)
            Clock.sleep(1_000_000)
        }
    }

    private func send(_ result: PairResult, endedEarly: Bool) throws(ToolError) {
        let times = result.recorder.times
        for start in stride(from: 0, to: times.count, by: Self.timesInMessage) {
            let part = times[start..<min(start + Self.timesInMessage, times.count)]
            try coordinator.send(.times(values: part.map(\.value), counts: part.map(\.count)))
        }
        try coordinator.send(.measured(result.measured(endedEarly: endedEarly)))
    }
}
