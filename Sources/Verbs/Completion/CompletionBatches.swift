import ProviderLoader
import SystemPackage

/// The completions of a queue as an asynchronous sequence of batches.
///
/// Each step takes what is there. When there is nothing it arms the queue, looks once more, and only then waits
/// for the channel: so nothing is lost between looking and waiting. A batch is never empty, and completions come
/// in the order in which the device added them. The sequence ends when its task is cancelled; what was not taken
/// stays in the queue, for the next iteration or for `takeQueue`.
public final class CompletionBatches: AsyncSequence, Sendable {
    /// One or more completions.
    public typealias Element = [WorkCompletion]
    /// What polling, arming or waiting throws.
    public typealias Failure = VerbsError

    private let queue: Locked<CompletionQueue?>
    private let channel: CompletionChannel
    private let id: CompletionQueue.ID
    private let object: VerbsObject
    private let maxCount: Int
    private let solicitedOnly: Bool

    init(_ queue: consuming CompletionQueue, channel: CompletionChannel, maxCount: Int, solicitedOnly: Bool) {
        id = queue.id
        object = queue.owner.object
        self.queue = Locked(consume queue)
        self.channel = channel
        self.maxCount = Swift.max(maxCount, 1)
        self.solicitedOnly = solicitedOnly
    }

    /// Gives the queue back, to be polled directly. The sequence has ended then; nil when it was taken before.
    public func takeQueue() -> CompletionQueue? {
        queue.withLock { queue in
            let taken = queue.take()
            return taken
        }
    }

    /// A step through the sequence. Several at a time share the completions between them.
    public func makeAsyncIterator() -> Iterator { Iterator(batches: self) }

    /// Steps through the sequence.
    public struct Iterator: AsyncIteratorProtocol {
        let batches: CompletionBatches

        /// The next batch; nil when the task is cancelled or the queue was taken.
        public mutating func next() async throws(VerbsError) -> [WorkCompletion]? {
            try await batches.next()
        }

        /// The next batch; nil when the task is cancelled or the queue was taken.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws(VerbsError) -> [WorkCompletion]? {
            try await batches.next()
        }
    }

    private func next() async throws(VerbsError) -> [WorkCompletion]? {
        while !Task.isCancelled {
            guard let batch = try take() else { return nil }
            if !batch.isEmpty { return batch }
            guard try await channel.event(of: id) else { return nil }
        }
        return nil
    }

    /// What is there; empty when there is nothing, and the queue is armed then. Nil when the queue was taken.
    private func take() throws(VerbsError) -> [WorkCompletion]? {
        try queue.withLock { (queue: inout sending CompletionQueue?) throws(VerbsError) -> [WorkCompletion]? in
            guard var current = queue.take() else { return nil }
            let result = Result { () throws(VerbsError) in try current.takeOrArm(maxCount, solicitedOnly) }
            queue = consume current
            return try result.get()
        }
    }
}

extension CompletionQueue {
    /// The completions of the queue as an asynchronous sequence of batches of at most `maxCount`.
    ///
    /// The sequence takes the queue over; `CompletionBatches.takeQueue` gives it back.
    ///
    /// - Parameters:
    ///   - maxCount: most completions of a batch.
    ///   - solicitedOnly: wake only for receives that the peer marked as solicited, and for failures.
    /// - Throws: `EINVAL` when the queue has no completion channel.
    public consuming func batches(
        of maxCount: Int = 64, solicitedOnly: Bool = false
    ) throws(VerbsError) -> CompletionBatches {
        guard let channel else {
            throw VerbsError(
                .reqNotifyCQ, errno: .invalidArgument, object: owner.object,
                hint: "it has no completion channel: make it with one")
        }
        return CompletionBatches(self, channel: channel, maxCount: maxCount, solicitedOnly: solicitedOnly)
    }

    /// What is there, at most `maxCount`. When there is nothing, arms the queue and looks once more.
    mutating func takeOrArm(_ maxCount: Int, _ solicitedOnly: Bool) throws(VerbsError) -> [WorkCompletion] {
        let first = try take(maxCount)
        guard first.isEmpty else { return first }
        try arm(solicitedOnly: solicitedOnly)
        return try take(maxCount)
    }

    private mutating func take(_ maxCount: Int) throws(VerbsError) -> [WorkCompletion] {
        var taken: Int32 = 0
        let completions = [WorkCompletion](unsafeUninitializedCapacity: maxCount) { buffer, count in
            buffer.initialize(repeating: WorkCompletion())
            taken = unsafePoll(buffer.baseAddress!, Int32(clamping: maxCount))
            count = Int(max(taken, 0))
        }
        if taken < 0 { throw failure(.pollCQ, taken) }
        return completions
    }
}
