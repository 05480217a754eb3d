import Verbs

/// Transfers one message at a time and records the time of each.
///
/// The time is the round-trip time if the peer's program answers the message, otherwise the time until the completion.
struct LatencyClient {
    let job: Job
    private var tally = Tally()
    private var backoff = PollBackoff()
    private var lostInARow = 0
    /// Whether the outstanding message has completed.
    private var isSendDone = false
    /// The answer to the outstanding message.
    private var answer: Answer?

    private struct Answer {
        /// The receive that the answer consumed; nil: it consumed none.
        var slot: ReceiveSlot?
        var byteCount = 0
        var immediate: UInt32?
        /// The rkey that the peer has invalidated.
        var invalidatedKey: UInt32?
    }

    /// The number of consecutive lost messages after which the peer counts as lost.
    private static let mostLostInARow = 10

    init(_ job: Job) { self.job = job }

    /// Runs the job; calls `progress` every `Progress.interval`.
    mutating func run(
        _ link: inout Link, _ control: ControlConnection, recorder: inout Recorder,
        progress: (UInt64, borrowing Recorder) -> Void
    ) throws -> Tally {
        var number: UInt64 = 0
        var now = Clock.now()
        let end = job.duration.map { now &+ $0 } ?? .max
        var nextProgress = now &+ Progress.interval
        while number < job.count ?? .max, now < end, try control.checkPeer(now: now) {
            if now >= nextProgress {
                progress(number, recorder)
                nextProgress = now &+ Progress.interval
            }
            prepare(&link, number)
            let start = Clock.now()
            try link.postMessage(job.operation, size: job.size, number: number, readOffset: readOffset(number))
            tally.sent += 1
            switch try awaitAnswer(&link, control, number, start) {
            case .answered(let arrival):
                lostInARow = 0
                if number >= job.warmUp { recorder.record(nanoseconds: arrival &- start) }
                now = arrival
            case .lost:
                tally.lost += 1
                lostInARow += 1
                if lostInARow == Self.mostLostInARow { throw ToolError.noAnswer(to: lostInARow, job.timeout) }
                now = Clock.now()
            case .stopped: return tally
            }
            number += 1
        }
        return tally
    }

    /// Fills the message, or clears the buffer of an RDMA read or atomic.
    private func prepare(_ link: inout Link, _ number: UInt64) {
        let bytes = link.outgoing(job.size)
        if job.operation.involvesPeer {
            link.fillOutgoing(job, number: number, direction: .request)
        } else if job.verify {
            // Data of the previous operation must not count as data of this one.
            bytes.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: ~number))
        }
    }

    /// The offset of an RDMA read. Each begins at another offset, so that each returns other bytes.
    private func readOffset(_ number: UInt64) -> Int { job.verify ? Int(number % UInt64(Link.readSlack)) : 0 }

    private enum Outcome {
        case answered(at: UInt64)
        case lost
        case stopped
    }

    /// Waits until the message has completed and is answered.
    private mutating func awaitAnswer(
        _ link: inout Link, _ control: ControlConnection, _ number: UInt64, _ start: UInt64
    ) throws -> Outcome {
        isSendDone = false
        answer = nil
        var arrival: UInt64?
        var waiting = WaitTimer(since: start)
        backoff.reset()
        while true {
            let count = try link.poll()
            for index in 0..<count { try take(&link, link.workCompletions[index], number) }
            if job.operation.isWritten, answer == nil, try link.writtenMark(job.size) == Pattern.mark(number) {
                answer = Answer()
            }
            if let answer {
                arrival = arrival ?? Clock.now()
                if isSendDone {
                    return try finish(&link, answer, number) ? .answered(at: arrival ?? start) : .lost
                }
            }
            guard count == 0, backoff.pause() else { continue }
            let now = Clock.now()
            guard try control.checkPeer(now: now) else { return .stopped }
            guard waiting.elapsed(at: now) > job.timeout else { continue }
            guard !link.setup.transport.isReliable, isSendDone else {
                throw ToolError.noAnswer(to: 1, job.timeout)
            }
            return .lost
        }
    }

    private mutating func take(_ link: inout Link, _ completion: WorkCompletion, _ number: UInt64) throws(VerbsError) {
        try completion.check()
        guard completion.id & Link.receiveID != 0 else {
            isSendDone = true
            if !job.operation.involvesPeer { answer = Answer() }
            return
        }
        let slot = ReceiveSlot(id: completion.id)
        if !link.setup.transport.isReliable,
            answer != nil || link.isStray(job, completion)
                || link.number(job, slot: slot, completion, expected: number) != number
        {
            // The answer to a message that counts as lost, or a duplicate from the network.
            try link.postReceive(slot: slot)
        } else {
            answer = Answer(
                slot: slot, byteCount: completion.byteCount, immediate: completion.immediate,
                invalidatedKey: completion.invalidatedKey)
        }
    }

    /// Verifies the answer and posts its receive again. Returns false if the answer was overwritten.
    private mutating func finish(_ link: inout Link, _ answer: Answer, _ number: UInt64) throws(VerbsError) -> Bool {
        if job.operation.involvesPeer { tally.received += 1 }
        var isOverwritten = false
        if job.verify {
            switch job.operation {
            case .send, .sendImmediate, .write, .writeImmediate, .atomicWrite, .flush, .window:
                var found = link.inspect(
                    job, slot: answer.slot, byteCount: answer.byteCount, number, .reply, immediate: answer.immediate)
                // Debian's librxe does not report the key. The next message binds the window again, which fails if this one
                // has not ended the binding.
                if job.operation == .window, let key = answer.invalidatedKey, key != link.memoryWindow?.rkey {
                    found = .wrong(at: job.size)
                }
                tally.count(number, found)
                isOverwritten = found == .overwritten
            case .read:
                let offset = readOffset(number)
                let bytes = UnsafeRawBufferPointer(link.outgoing(job.size))
                tally.count(number, difference: Pattern.firstDifference(bytes, toReadAt: offset))
            case .fetchAndAdd, .compareAndSwap:
                let found = link.outgoing(8).load(as: UInt64.self)
                tally.count(number, difference: found == Counter.value(job.operation, after: number) ? nil : 0)
            }
        }
        if let slot = answer.slot { try link.postReceive(slot: slot) }
        return !isOverwritten
    }
}
