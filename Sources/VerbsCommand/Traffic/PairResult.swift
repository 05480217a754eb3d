import Verbs

/// The result of a job of `verbs perf`, measured by one client.
struct PairResult {
    /// The times of the messages, of a latency job.
    var recorder = Recorder()
    /// Of a throughput job.
    var throughput = ThroughputClient.Result()
    var client = Tally()
    var server = Tally()

    /// The messages that arrived: the network may drop messages of UC and UD.
    func arrived(_ operation: Operation, _ transport: Transport) -> UInt64 {
        transport.isReliable || !operation.consumesReceive ? client.sent : min(server.received, client.sent)
    }

    /// Of a throughput job: messages that arrived per second.
    func messagesPerSecond(_ operation: Operation, _ transport: Transport) -> Double {
        let share = client.sent == 0 ? 0 : Double(arrived(operation, transport)) / Double(client.sent)
        return Double(throughput.completed) * share / (Double(max(throughput.nanoseconds, 1)) / 1e9)
    }
}

extension Client {
    /// Runs a job of `verbs perf`; calls `progress` several times per second with the number of messages.
    mutating func measure(_ job: Job, progress: (UInt64) -> Void) throws -> PairResult {
        var result = PairResult()
        let tallies = try run(job) { link, control in
            switch job.type {
            case .latency:
                var run = LatencyClient(job)
                return try run.run(&link, control, recorder: &result.recorder) { number, _ in progress(number) }
            case .throughput:
                var run = ThroughputClient(job)
                let (outcome, tally) = try run.run(&link, control, progress: progress)
                result.throughput = outcome
                return tally
            }
        }
        (result.client, result.server) = tallies
        return result
    }
}
