import Verbs

/// What the client of `verbs ping --all` prints: Documentation/schema/ping-all.json.
struct PingAllReport: Report {
    let schema = "verbs-ping-all-1"
    var runs: [PingReport] = []

    /// Messages with a wrong byte, on both sides, in all runs.
    var corrupted: UInt64 { runs.reduce(0) { $0 + $1.corrupted } }

    var text: String {
        guard let first = runs.first else { return "ended before the first operation\n" }
        var table = Table(
            .left("transport"), .left("operation"), .right("size"), .right("min us"), .right("p50"), .right("p99"),
            .right("p99.9"), .right("max"), .right("messages"), .right("lost"), .right("verified"), .right("wrong"))
        for run in runs {
            let latency = run.latencyNanoseconds
            let values = [latency?.min, latency?.p50, latency?.p99, latency?.p999, latency?.max]
            let cells = values.map { $0.map(Units.microseconds(nanoseconds:)) ?? "" }
            table.add(
                run.run.transport.rawValue, run.operation.rawValue, Units.size(UInt64(run.size)), cells[0], cells[1],
                cells[2], cells[3], cells[4], Units.count(run.client.sent),
                run.client.lost == 0 ? "" : Units.count(run.client.lost),
                run.verify ? Units.count(run.client.verified + run.server.verified) : "",
                run.corrupted == 0 ? "" : Units.count(run.corrupted))
        }
        let early = runs.last?.endedEarly.map { "ended early: \($0)\n" } ?? ""
        return first.run.sides + "\n\n" + table.text + early
    }
}
