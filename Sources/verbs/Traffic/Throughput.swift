import Verbs

/// Keeps as many messages under way as the window allows.
struct ThroughputClient {
    struct Result {
        /// Messages whose completion is there, and the time from the first post to the last completion.
        var completed: UInt64 = 0
        var nanoseconds: UInt64 = 0
    }

    let job: Job
    private var posted: UInt64 = 0
    private var completed: UInt64 = 0
    private var patience = Patience()

    init(_ job: Job) { self.job = job }

    mutating func run(
        _ link: inout Link, _ conversation: Conversation, progress: (UInt64) -> Void
    ) throws -> (Result, Tally) {
        let list = try link.batch(job)
        var start = Clock.now()
        /// The messages before the first one that is measured; nil while it is not their time yet.
        var skipped: UInt64? = job.warmUp == 0 ? 0 : nil
        var isOpen = true
        var nextLook: UInt64 = 0
        var lastProgress = start
        while isOpen || completed < posted {
            if isOpen { try post(&link, list) }
            let count = try link.poll()
            for index in 0..<count { try take(&link, link.arrived[index]) }
            if count > 0 { patience.reset() } else if !patience.pause() { continue }
            let now = Clock.now()
            if count > 0 { lastProgress = now }
            if skipped == nil, completed >= job.warmUp {
                skipped = completed
                start = now
            }
            if let limit = job.count, posted >= limit { isOpen = false }
            if let duration = job.duration, skipped != nil, now &- start >= duration { isOpen = false }
            guard now >= nextLook else { continue }
            nextLook = now &+ Progress.interval / 10
            // What is under way could take long, and nobody waits for it any more.
            if try !conversation.look(now: now) {
                posted = completed
                break
            }
            progress(completed)
            if now &- lastProgress > job.patience {
                throw ToolError.noAnswer(to: Int(posted - completed), job.patience)
            }
        }
        let end = Clock.now()
        var tally = Tally()
        tally.sent = posted
        return (Result(completed: completed - (skipped ?? completed), nanoseconds: end &- start), tally)
    }

    /// Fills the window, batch by batch.
    private mutating func post(_ link: inout Link, _ list: borrowing SendRequestList) throws(VerbsError) {
        let batch = UInt64(job.batch)
        while posted &- completed &+ batch <= UInt64(job.window), posted < job.count ?? .max {
            try link.queuePair.post(list)
            posted &+= batch
        }
    }

    private mutating func take(_ link: inout Link, _ completion: WorkCompletion) throws(VerbsError) {
        try completion.check()
        if completion.id & Link.receiveID == 0 {
            completed &+= UInt64(job.batch)
        } else {
            // The answer to a message of an earlier job, which was given up.
            try link.postReceive(slot: Int(completion.id & ~Link.receiveID))
        }
    }
}

/// Takes what a `ThroughputClient` sends, and counts it.
struct ThroughputServer {
    let job: Job

    func run(_ link: inout Link, _ conversation: Conversation) throws -> Tally {
        var tally = Tally()
        var patience = Patience()
        var nextLook: UInt64 = 0
        var receives = ReceiveRequestList(capacity: link.arrived.capacity)
        while true {
            let count = try link.poll()
            receives.removeAll()
            for index in 0..<count {
                let completion = link.arrived[index]
                try completion.check()
                guard completion.id & Link.receiveID != 0 else { continue }
                tally.received += 1
                try receives.append(
                    try link.slice(ofSlot: Int(completion.id & ~Link.receiveID)), id: completion.id)
            }
            try link.queuePair.postReceive(receives)
            if count > 0 { patience.reset() } else if !patience.pause() { continue }
            let now = Clock.now()
            guard now >= nextLook else { continue }
            nextLook = now &+ Progress.interval / 100
            // The client is done: what has arrived is in the queue by now.
            if try !conversation.look(now: now), count == 0 { return tally }
        }
    }
}
