import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs perf with several pairs of processes", .serialized)
struct ProcessPairsTests {
    private struct Unexpected: Error { var text: String }

    /// The processes that `running` has started, and those that they have started.
    private func descendants(of process: pid_t) -> [pid_t] {
        let path = "/proc/\(process)/task/\(process)/children"
        let children = ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: " ")
            .compactMap { pid_t($0) }
        return children + children.flatMap { descendants(of: $0) }
    }

    /// Waits until `running` has that many descendants.
    private func descendants(of running: Tool.Running, count: Int) async throws -> [pid_t] {
        for _ in 0..<3000 {
            let found = descendants(of: running.process)
            if found.count == count { return found }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw Unexpected(text: "\(descendants(of: running.process))")
    }

    /// Waits until none of the processes runs. A process whose parent has died stays as a zombie until init collects it.
    private func expectEnd(of processes: [pid_t]) async throws {
        func runs(_ process: pid_t) -> Bool {
            let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
            return status.map { !$0.contains("\nState:\tZ") } ?? false
        }
        for _ in 0..<3000 {
            if !processes.contains(where: runs) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("still running: \(processes.filter(runs))")
    }

    @Test(
        "three pairs, with one and with four queue pairs each: every row has rates and percentiles", arguments: [1, 4])
    func three(queuePairs: Int) async throws {
        let folder = try TemporaryDirectory()
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--processes", "3", "--queue-pairs", "\(queuePairs)", "--count", "40",
            "--duration", "20ms", "--size", "8", "--size", "3000", "--batch", "1", "--json", "--plot",
            "\(folder.path)/x.svg")
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        #expect(document["pairs"] as? Int == 3 && document["queuePairs"] as? Int == queuePairs)
        #expect((document["run"] as? [String: Any])?["processes"] as? Int == 6)
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.count == 7)
        for row in rows {
            #expect(try #require(row["messagesPerSecond"] as? Double) > 0)
            let latency = try #require(row["latencyNanoseconds"] as? [String: Int])
            let order = ["min", "p50", "p99", "p999", "max"].map { latency[$0] ?? -1 }
            #expect(order == order.sorted() && order[0] > 0, "\(latency)")
            let spread = row["messagesOfQueuePair"] as? [String: Int]
            #expect((spread?["min"] ?? 0 > 0) == (queuePairs > 1), "\(row)")
        }
        let settings = "window 64, batch 1, " + (queuePairs > 1 ? "4 queue pairs, " : "") + "3 pairs of processes; "
        #expect(try String(contentsOfFile: "\(folder.path)/x.svg", encoding: .utf8).contains(settings))
    }

    @Test("rates are summed, lost messages too, and percentiles are those of all messages")
    func merged() throws {
        var (one, two) = (Recorder(), Recorder())
        for time in 1...98 { one.record(nanoseconds: UInt64(time)) }
        for time in [500, 7_000_000_001] { two.record(nanoseconds: UInt64(time)) }
        var both = Recorder()
        both.merge(one)
        both.merge(two)
        let summary = try #require(both.summary)
        #expect(both.count == 100 && summary.min == 1 && summary.max == 7_000_000_001)
        #expect(summary.p50 == 50 && summary.p99 == 500)
        #expect(summary.mean == (98 * 99 / 2 + 500 + 7_000_000_001) / 100)
        // What travels from one process to another.
        var received = Recorder()
        for (value, count) in both.times { received.add(value, count: count) }
        received.setExact(minimum: both.minimum, maximum: both.maximum, sum: both.sum)
        #expect(received.summary == summary)
        #expect(Recorder().times.isEmpty)

        var result = PairResult()
        result.client.sent = 1000
        result.server.received = 900
        result.throughput = .init(completed: 500, nanoseconds: 500_000_000)
        #expect(result.messagesPerSecond(.send, .rc) == 1000 && result.messagesPerSecond(.send, .ud) == 900)
        #expect(result.arrived(.send, .ud) == 900 && result.arrived(.write, .uc) == 1000)
    }

    @Test("the text names the number of pairs; UD works, too")
    func text() async throws {
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--processes", "2", "--transport", "ud", "--count", "0", "--duration", "10ms",
            "--size", "8")
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(
            outcome.output.contains("\nwindow 64, batch 16; 2 pairs of processes at once, rates are sums\n"),
            "\(outcome.output)")
    }

    @Test(
        "a signal to the command, or to all processes as in a terminal: one summary, its exit code, nothing is left",
        arguments: [SIGTERM, SIGINT])
    func interrupted(signal: CInt) async throws {
        nonisolated(unsafe) var started: [pid_t] = []
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--processes", "2", "--duration", "5m", "--count", "10", "--size", "8",
            "--json"
        ) { running in
            started = try await descendants(of: running, count: 4)
            // The command must have installed its handlers: it does when the clients run.
            for process in [running.process] + started { try await awaitHandler(process) }
            if signal == SIGINT { running.pressControlC() } else { running.send(signal: signal) }
        }
        #expect(outcome.status == 128 + signal, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(document["endedEarly"] as? String == "interrupted")
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        try await expectEnd(of: started)
    }

    /// Waits until a process handles SIGTERM.
    private func awaitHandler(_ process: pid_t) async throws {
        for _ in 0..<3000 {
            let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
            let handled = status.firstMatch(of: /SigCgt:\s*([0-9a-f]+)/).flatMap { UInt64($0.1, radix: 16) } ?? 0
            if handled >> UInt64(SIGTERM - 1) & 1 == 1 { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw Unexpected(text: "no handler in \(process)")
    }

    /// Waits until a process has used a second of processor time: it measures.
    private func awaitMeasurement(_ process: pid_t) async throws {
        for _ in 0..<6000 {
            // User and system time are fields 14 and 15; the second one, the name, ends with a parenthesis.
            let status = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
            let fields = status.split(separator: ")").last?.split(separator: " ") ?? []
            let ticks = try #require(Int(fields[11])) + #require(Int(fields[12]))
            if ticks >= sysconf(CInt(_SC_CLK_TCK)) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw Unexpected(text: "\(process) does not measure")
    }

    @Test(
        "a client that is killed, the first or another: the command reports it at once and ends; nothing is left",
        arguments: [0, 1])
    func killedClient(index: Int) async throws {
        nonisolated(unsafe) var started: [pid_t] = []
        nonisolated(unsafe) var killed = ContinuousClock.now
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--processes", "2", "--count", "0", "--duration", "30m", "--size", "8"
        ) { running in
            started = try await descendants(of: running, count: 4)
            let clients = try running.children()
            for client in clients { try await awaitMeasurement(client) }
            killed = .now
            kill(try #require(clients.count == 2 ? clients[index] : nil), SIGKILL)
        }
        // Less than the measurement takes.
        #expect(ContinuousClock.now - killed < .seconds(600))
        #expect(outcome.status == ToolExit.peerLost.rawValue && outcome.output.isEmpty, "\(outcome)")
        #expect(outcome.errors.contains("\n  try: "))
        try await expectEnd(of: started)
    }

    @Test("the command is killed: clients and servers end")
    func killedCommand() async throws {
        nonisolated(unsafe) var started: [pid_t] = []
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--processes", "2", "--duration", "5m", "--size", "8"
        ) { running in
            started = try await descendants(of: running, count: 4)
            running.send(signal: SIGKILL)
        }
        #expect(outcome.status == -SIGKILL)
        try await expectEnd(of: started)
    }

    @Test("the error of a client is that of the command")
    func failed() async throws {
        let outcome = try await Tool.run("perf", "--device", "nosuch0", "--processes", "2")
        #expect(outcome.status == ToolExit.noDevice.rawValue && outcome.output.isEmpty)
        #expect(outcome.errors.hasPrefix("verbs: there is no device \"nosuch0\"\n  try: one of these: "), "\(outcome)")
    }

    @Test(
        "counts and combinations that are impossible: exit code 64",
        arguments: [
            ["--processes", "0"], ["--processes", "65"], ["--processes", "2", "host"],
            ["--processes", "2", "--in-process"], ["--listen", "--processes", "2"],
        ])
    func refused(arguments: [String]) async throws {
        let outcome = try await Tool.run(["perf"] + arguments)
        #expect(outcome.status == ToolExit.usage.rawValue && outcome.output.isEmpty, "\(outcome)")
    }
}
