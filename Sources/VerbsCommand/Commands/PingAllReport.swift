import Verbs

/// The output of the client of `verbs ping --all`: Documentation/schema/ping-all.json.
struct PingAllReport: Report {
    let schema = "verbs-ping-all-2"
    var runs: [PingReport] = []
    /// Warnings and errors that providers logged during the command.
    var warnings: [String] = []

    /// Corrupted messages, on both peers, in all runs.
    var corrupted: UInt64 { runs.reduce(0) { $0 + $1.corrupted } }

    var text: String {
        guard let first = runs.first else { return "ended before the first operation\n" }
        var table = Table(
            [.left("transport"), .left("operation"), .right("size")] + LatencySummary.columns(minimum: "min us")
                + [.right("messages"), .right("lost"), .right("verified"), .right("corrupted")])
        for run in runs {
            let counts = [
                Units.count(run.client.sent), run.client.lost == 0 ? "" : Units.count(run.client.lost),
                run.verify ? Units.count(run.client.verified + run.server.verified) : "",
                run.corrupted == 0 ? "" : Units.count(run.corrupted),
            ]
            table.add(
                [run.run.transport.rawValue, run.operation.rawValue, Units.size(UInt64(run.size))]
                    + (run.latencyNanoseconds?.cells ?? LatencySummary.noCells) + counts)
        }
        let early = runs.last?.endedEarly.map { "ended early: \($0)\n" } ?? ""
        return first.run.peers + "\n\n" + table.text + early
    }
}
