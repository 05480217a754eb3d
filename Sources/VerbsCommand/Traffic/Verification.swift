import Verbs

extension Link {
    /// Fills the send buffer: every byte if data is verified, otherwise the last byte, which identifies the message.
    mutating func fillOutgoing(_ job: Job, number: UInt64, direction: Pattern.Direction) {
        let bytes = outgoing(job.size)
        if job.verify {
            Pattern.fill(bytes, number: number, direction: direction)
        } else if job.size > 0 {
            bytes[job.size - 1] = Pattern.mark(number)
        }
    }

    /// The number of a received message.
    func number(_ job: Job, slot: ReceiveSlot, _ completion: WorkCompletion, expected: UInt64) -> UInt64 {
        // A reliable connection keeps the order: a message other than the expected one is corrupted.
        if setup.transport.isReliable { return expected }
        if let immediate = completion.immediate {
            // The distance is negative for a duplicate of an old message.
            let distance = Int32(bitPattern: immediate &- UInt32(truncatingIfNeeded: expected))
            return expected &+ UInt64(bitPattern: Int64(distance))
        }
        let bytes = received(slot: slot, byteCount: completion.byteCount)
        return Pattern.number(of: bytes, expected: expected, filled: job.verify)
    }

    /// Whether a received message does not belong to this job: a network that duplicates and delays packets can deliver
    /// a message of the previous job.
    func isStray(_ job: Job, _ completion: WorkCompletion) -> Bool {
        if setup.transport.isReliable { return false }
        let opcode: WorkCompletion.Opcode = job.operation == .writeImmediate ? .receiveWriteWithImmediate : .receive
        return !job.operation.consumesReceive || completion.opcode != opcode
            || (completion.immediate != nil) != job.operation.hasImmediate
    }

    /// Verifies every byte of message `number`, which was received in a slot or written to exposed memory.
    func inspect(
        _ job: Job, slot: ReceiveSlot?, byteCount: Int, _ number: UInt64, _ direction: Pattern.Direction,
        immediate: UInt32?
    ) -> Inspection {
        let isAnswer = job.operation == .window && direction == .reply
        let isWritten = job.operation.isWritten || job.operation == .writeImmediate || isAnswer
        // The GRH of a UD message is not part of the message.
        let bytes =
            isWritten
            ? UnsafeRawBufferPointer(written(job.size))
            : received(slot: slot ?? ReceiveSlot(queuePair: 0, buffer: 0), byteCount: byteCount)
        let length = job.operation == .writeImmediate ? byteCount : bytes.count
        if length != job.size { return .wrong(at: min(length, job.size)) }
        let found = isWritten ? inspectWritten(job, bytes, number, direction) : Inspection(bytes, number, direction)
        guard found == .correct else { return found }
        if job.operation.hasImmediate, immediate != UInt32(truncatingIfNeeded: number) { return .wrong(at: job.size) }
        return .correct
    }

    /// Verifies memory that the peer may be writing concurrently.
    private func inspectWritten(
        _ job: Job, _ bytes: UnsafeRawBufferPointer, _ number: UInt64, _ direction: Pattern.Direction
    ) -> Inspection {
        let isReliable = setup.transport.isReliable
        let deadline = Clock.now() &+ 1_000_000_000
        var backoff = PollBackoff()
        while true {
            let found = Inspection(bytes, number, direction)
            if found == .correct { return found }
            if !isReliable, Pattern.isOther(bytes, than: number, direction) { return .overwritten }
            // Only the last byte shows that a write has arrived, and it may become visible before the other bytes.
            let mayChange = job.operation.isWritten || !isReliable
            if !mayChange || backoff.pause() && Clock.now() >= deadline { return found }
        }
    }
}

/// The result of verifying a message.
enum Inspection: Equatable {
    case correct
    /// The offset of the first wrong byte, or the size of the message if its length or immediate data is wrong.
    case wrong(at: Int)
    /// The memory holds another complete message: a duplicate from the network, or the next one.
    case overwritten

    fileprivate init(_ bytes: UnsafeRawBufferPointer, _ number: UInt64, _ direction: Pattern.Direction) {
        let difference = Pattern.firstDifference(bytes, number: number, direction: direction)
        self = difference.map { .wrong(at: $0) } ?? .correct
    }
}

extension Tally {
    /// Counts the result for message `number`.
    mutating func count(_ number: UInt64, _ found: Inspection) {
        switch found {
        case .correct: count(number, difference: nil)
        case .wrong(let place): count(number, difference: place)
        case .overwritten: break
        }
    }

    /// Counts a message whose first wrong byte is at `difference`; nil: every byte is correct.
    mutating func count(_ number: UInt64, difference: Int?) {
        guard let difference else {
            verified += 1
            return
        }
        corrupted += 1
        firstCorruption = firstCorruption ?? Corruption(message: number, offset: difference)
    }
}
