import Verbs

/// Answers each message of a `LatencyClient` with a message of the same operation and size.
struct LatencyServer {
    let job: Job
    private var tally = Tally()
    private var backoff = PollBackoff()
    /// The number of the next message if none is lost.
    private var expected: UInt64 = 0
    private var lastMark: UInt8 = 0
    private var isSendDone = true
    private var request: Request?

    private struct Request {
        var number: UInt64
        var slot: ReceiveSlot?
        var byteCount = 0
        var immediate: UInt32?
    }

    init(_ job: Job) { self.job = job }

    /// Serves until the client's `done`.
    mutating func run(_ link: inout Link, _ control: ControlConnection) throws -> Tally {
        while true {
            let count = try link.poll()
            for index in 0..<count { try take(&link, link.workCompletions[index]) }
            if job.operation.isWritten, request == nil { try checkForWrite(&link) }
            // The buffer of the last answer may still be in use.
            if let request, isSendDone {
                self.request = nil
                try answer(&link, request)
                backoff.reset()
            } else if count == 0, backoff.pause() {
                // The next job must not poll the completion of this job's last answer.
                if try !control.checkPeer(now: Clock.now()), isSendDone { return tally }
            }
        }
    }

    private mutating func take(_ link: inout Link, _ completion: WorkCompletion) throws(VerbsError) {
        try completion.check()
        guard completion.id & Link.receiveID != 0 else {
            isSendDone = true
            return
        }
        let slot = ReceiveSlot(id: completion.id)
        if link.isStray(job, completion) { return try link.postReceive(slot: slot) }
        // The client has one outstanding message, so a request that is not yet answered counts as lost there.
        if let forgotten = request?.slot { try link.postReceive(slot: forgotten) }
        request = Request(
            number: link.number(job, slot: slot, completion, expected: expected), slot: slot,
            byteCount: completion.byteCount, immediate: completion.immediate)
    }

    /// Checks whether the client has written a message.
    private mutating func checkForWrite(_ link: inout Link) throws(VerbsError) {
        let mark = try link.writtenMark(job.size)
        guard mark != lastMark else { return }
        lastMark = mark
        let distance = mark &- Pattern.mark(expected)
        // A duplicate of an old message from the network, to which the client expects no answer.
        if distance > UInt8.max / 2, !link.setup.transport.isReliable { return }
        request = Request(number: expected &+ UInt64(distance))
    }

    private mutating func answer(_ link: inout Link, _ request: Request) throws(VerbsError) {
        tally.received += 1
        let number = request.number
        if job.verify {
            tally.count(
                number,
                link.inspect(
                    job, slot: request.slot, byteCount: request.byteCount, number, .request,
                    immediate: request.immediate))
        }
        // The next message finds another receive, so the answer need not wait for this one.
        let postsLater = link.receiveCount > 1
        if !postsLater, let slot = request.slot { try link.postReceive(slot: slot) }
        expected = number &+ 1
        link.fillOutgoing(job, number: number, direction: .reply)
        isSendDone = false
        if job.operation == .window {
            try link.answer(through: request.immediate ?? 0, size: job.size, number: number)
        } else {
            try link.postMessage(job.operation, size: job.size, number: number)
        }
        tally.sent += 1
        if postsLater, let slot = request.slot { try link.postReceive(slot: slot) }
    }
}
