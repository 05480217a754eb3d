import Verbs

/// Keeps as many messages outstanding as the window allows.
struct ThroughputClient {
    struct Result {
        /// Completed messages after the warm-up.
        var completed: UInt64 = 0
        /// The time from the end of the warm-up to the last completion.
        var nanoseconds: UInt64 = 0
        /// The completed messages of each queue pair, with the warm-up.
        var ofQueuePairs: [UInt64] = []
    }

    let job: Job
    /// The queue pair of the next batch.
    private var turn = 0
    /// The outstanding messages of each queue pair.
    private var outstanding: [Int] = []
    /// The completed messages of each queue pair.
    private var ofQueuePairs: [UInt64] = []
    private var posted: UInt64 = 0
    private var completed: UInt64 = 0
    private var backoff = PollBackoff()

    init(_ job: Job) { self.job = job }

    mutating func run(
        _ link: inout Link, _ control: ControlConnection, progress: (UInt64) -> Void
    ) throws -> (Result, Tally) {
        let list = try link.batch(job)
        outstanding = Array(repeating: 0, count: link.queuePairs.count)
        ofQueuePairs = Array(repeating: 0, count: link.queuePairs.count)
        var start = Clock.now()
        /// The messages before the measurement; nil during the warm-up.
        var skipped: UInt64? = job.warmUp == 0 ? 0 : nil
        var isOpen = true
        var nextCheck: UInt64 = 0
        var waiting = WaitTimer(since: start)
        while isOpen || completed < posted {
            if isOpen { try post(&link, list) }
            let count = try link.poll()
            for index in 0..<count { try take(&link, link.workCompletions[index]) }
            if count > 0 { backoff.reset() } else if !backoff.pause() { continue }
            let now = Clock.now()
            if count > 0 { waiting = WaitTimer(since: now) }
            if skipped == nil, completed >= job.warmUp {
                skipped = completed
                start = now
            }
            if let limit = job.count, posted >= limit { isOpen = false }
            if let duration = job.duration, skipped != nil, now &- start >= duration { isOpen = false }
            guard now >= nextCheck else { continue }
            nextCheck = now &+ Progress.interval / 10
            // Do not wait for outstanding messages: they could take long.
            if try !control.checkPeer(now: now) {
                posted = completed
                break
            }
            progress(completed)
            if waiting.elapsed(at: now) > job.timeout {
                throw ToolError.noAnswer(to: Int(posted - completed), job.timeout)
            }
        }
        let end = Clock.now()
        var tally = Tally()
        tally.sent = posted
        let result = Result(
            completed: completed - (skipped ?? completed), nanoseconds: end &- start, ofQueuePairs: ofQueuePairs)
        return (result, tally)
    }

    /// Fills the window, batch by batch, to the queue pairs in turn. A queue pair whose send queue is full is waited for.
    private mutating func post(_ link: inout Link, _ list: borrowing SendRequestList) throws(VerbsError) {
        let batch = UInt64(job.batch)
        let depth = link.setup.sendDepth
        while posted &- completed &+ batch <= UInt64(job.window), posted < job.count ?? .max,
            outstanding[turn] + job.batch <= depth
        {
            if job.operation.isExtended {
                try link.postExtended(job.operation, turn, size: job.size, count: job.batch)
            } else {
                try link.queuePairs[turn].pointee.postSend(list)
            }
            posted &+= batch
            outstanding[turn] += job.batch
            turn = turn + 1 == outstanding.count ? 0 : turn + 1
        }
    }

    private mutating func take(_ link: inout Link, _ completion: WorkCompletion) throws(VerbsError) {
        try completion.check()
        if completion.id & Link.receiveID == 0 {
            completed &+= UInt64(job.batch)
            let queuePair = link.queuePairs.index(ofNumber: completion.queuePairNumber)
            outstanding[queuePair] -= job.batch
            ofQueuePairs[queuePair] &+= UInt64(job.batch)
        } else {
            // The answer to a message of an earlier job that counted as lost.
            try link.postReceive(slot: ReceiveSlot(id: completion.id))
        }
    }
}

/// Receives and counts the messages of a `ThroughputClient`.
struct ThroughputServer {
    let job: Job

    func run(_ link: inout Link, _ control: ControlConnection) throws -> Tally {
        var tally = Tally()
        var backoff = PollBackoff()
        var nextCheck: UInt64 = 0
        var receives = ReceiveRequestList(capacity: link.workCompletions.capacity)
        while true {
            let count = try link.poll()
            /// The queue pair of `receives`. Consecutive receives of one queue pair are posted together.
            var queuePair = 0
            for index in 0..<count {
                let completion = link.workCompletions[index]
                try completion.check()
                guard completion.id & Link.receiveID != 0 else { continue }
                tally.received += 1
                let slot = ReceiveSlot(id: completion.id)
                if slot.queuePair != queuePair {
                    try link.post(&receives, queuePair: queuePair)
                    queuePair = slot.queuePair
                }
                try receives.append(try link.sge(ofSlot: slot), id: completion.id)
            }
            try link.post(&receives, queuePair: queuePair)
            if count > 0 { backoff.reset() } else if !backoff.pause() { continue }
            let now = Clock.now()
            guard now >= nextCheck else { continue }
            nextCheck = now &+ Progress.interval / 100
            // The client is done, so every message that arrived is in the completion queue.
            if try !control.checkPeer(now: now), count == 0 { return tally }
        }
    }
}
