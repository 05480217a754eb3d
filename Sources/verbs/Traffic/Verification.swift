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
            return expected &+ UInt64(immediate &- UInt32(truncatingIfNeeded: expected))
        }
        let bytes = received(slot: slot, byteCount: completion.byteCount)
        return Pattern.number(of: bytes, expected: expected, filled: job.verify)
    }

    /// The bytes of message `number`, which has arrived in a slot or been written.
    func message(
        _ job: Job, slot: Int?, byteCount: Int, _ number: UInt64, _ direction: Pattern.Direction
    ) -> UnsafeRawBufferPointer {
        switch job.operation {
        case .write:
            // Nothing but the last byte says that a write is there, and it may be there before the others.
            let bytes = UnsafeRawBufferPointer(written(job.size))
            let deadline = Clock.now() &+ 1_000_000_000
            var patience = Patience()
            while Pattern.firstDifference(bytes, number: number, direction: direction) != nil,
                !patience.pause() || Clock.now() < deadline
            {}
            return bytes
        case .writeImmediate: return UnsafeRawBufferPointer(written(min(byteCount, job.size)))
        default: return received(slot: slot ?? 0, byteCount: byteCount)
        }
    }
}

extension Tally {
    /// Compares a message with what it must be.
    mutating func inspect(
        _ bytes: UnsafeRawBufferPointer, _ job: Job, number: UInt64, _ direction: Pattern.Direction, immediate: UInt32?
    ) {
        var difference = bytes.count == job.size ? nil : min(bytes.count, job.size)
        difference = difference ?? Pattern.firstDifference(bytes, number: number, direction: direction)
        if difference == nil, job.operation.hasImmediate, immediate != UInt32(truncatingIfNeeded: number) {
            difference = job.size
        }
        count(number, difference)
    }

    /// Counts a message whose first wrong byte is at `difference`; nil: every byte is right.
    mutating func count(_ number: UInt64, _ difference: Int?) {
        guard let difference else {
            verified += 1
            return
        }
        corrupted += 1
        firstCorruption = firstCorruption ?? Corruption(message: number, offset: difference)
    }
}
