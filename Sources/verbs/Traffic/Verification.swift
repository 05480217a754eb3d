import Verbs

extension Link {
    /// Fills the place that messages are sent from: all of it if data is verified, else the last byte, by which the
    /// other side knows the message.
    mutating func fillOutgoing(_ job: Job, number: UInt64, direction: Pattern.Direction) {
        let bytes = outgoing(job.size)
        if job.verify {
            Pattern.fill(bytes, number: number, direction: direction)
        } else if job.size > 0 {
            bytes[job.size - 1] = Pattern.mark(number)
        }
    }

    /// The number of a message that took a receive.
    func number(_ job: Job, slot: Int, _ completion: WorkCompletion, expected: UInt64) -> UInt64 {
        // A reliable connection promises the order: what is not the expected message is not right.
        if setup.transport.isReliable { return expected }
        if let immediate = completion.immediate {
            // An old one, which the network has repeated, is behind.
            let distance = Int32(bitPattern: immediate &- UInt32(truncatingIfNeeded: expected))
            return expected &+ UInt64(bitPattern: Int64(distance))
        }
        let bytes = received(slot: slot, byteCount: completion.byteCount)
        return Pattern.number(of: bytes, expected: expected, filled: job.verify)
    }

    /// Whether a receive is none of this job's: a network that repeats and delays packets can bring a message of the
    /// job before.
    func isStray(_ job: Job, _ completion: WorkCompletion) -> Bool {
        if setup.transport.isReliable { return false }
        let opcode: WorkCompletion.Opcode = job.operation == .writeImmediate ? .receiveWriteWithImmediate : .receive
        return !job.operation.consumesReceive || completion.opcode != opcode
            || (completion.immediate != nil) != job.operation.hasImmediate
    }

    /// Looks at every byte of message `number`, which has arrived in a slot or been written.
    func inspect(
        _ job: Job, slot: Int?, byteCount: Int, _ number: UInt64, _ direction: Pattern.Direction, immediate: UInt32?
    ) -> Inspection {
        let isWritten = job.operation == .write || job.operation == .writeImmediate
        // A datagram has its global route header in front, which is none of the message.
        let bytes =
            isWritten ? UnsafeRawBufferPointer(written(job.size)) : received(slot: slot ?? 0, byteCount: byteCount)
        let length = job.operation == .writeImmediate ? byteCount : bytes.count
        if length != job.size { return .wrong(at: min(length, job.size)) }
        let found = isWritten ? inspectWritten(job, bytes, number, direction) : Inspection(bytes, number, direction)
        guard found == .right else { return found }
        if job.operation.hasImmediate, immediate != UInt32(truncatingIfNeeded: number) { return .wrong(at: job.size) }
        return .right
    }

    /// Looks at memory that the peer writes, perhaps right now.
    private func inspectWritten(
        _ job: Job, _ bytes: UnsafeRawBufferPointer, _ number: UInt64, _ direction: Pattern.Direction
    ) -> Inspection {
        let isReliable = setup.transport.isReliable
        let deadline = Clock.now() &+ 1_000_000_000
        var patience = Patience()
        while true {
            let found = Inspection(bytes, number, direction)
            if found == .right { return found }
            if !isReliable, Pattern.isOther(bytes, than: number, direction) { return .overwritten }
            // Nothing but the last byte says that a write is there, and it may be there before the others.
            let mayChange = job.operation == .write || !isReliable
            if !mayChange || patience.pause() && Clock.now() >= deadline { return found }
        }
    }
}

/// What the bytes of a message turned out to be.
enum Inspection: Equatable {
    case right
    /// The place of the first wrong byte, or the size of the message if something beside it is wrong.
    case wrong(at: Int)
    /// Where the message was written, there is another one, whole: one that the network repeated, or the next.
    case overwritten

    fileprivate init(_ bytes: UnsafeRawBufferPointer, _ number: UInt64, _ direction: Pattern.Direction) {
        let difference = Pattern.firstDifference(bytes, number: number, direction: direction)
        self = difference.map { .wrong(at: $0) } ?? .right
    }
}

extension Tally {
    /// Counts what was found in message `number`.
    mutating func count(_ number: UInt64, _ found: Inspection) {
        switch found {
        case .right: count(number, difference: nil)
        case .wrong(let place): count(number, difference: place)
        case .overwritten: break
        }
    }

    /// Counts a message whose first wrong byte is at `difference`; nil: every byte is right.
    mutating func count(_ number: UInt64, difference: Int?) {
        guard let difference else {
            verified += 1
            return
        }
        corrupted += 1
        firstCorruption = firstCorruption ?? Corruption(message: number, offset: difference)
    }
}
