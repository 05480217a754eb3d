import Locking
import SystemPackage

/// The completions of a queue as an asynchronous sequence of batches.
///
/// Each step polls the queue. When it is empty, the step arms it, polls once more, and then waits for an event of the
/// channel, so that no completion is missed. A batch is never empty, and completions keep the order in which the device
/// added them. The sequence ends when its task is cancelled. Completions that were not taken stay in the queue, for the
/// next iteration or for `takeQueue`.
public final class CompletionBatches: AsyncSequence, Sendable {
    /// One or more completions.
    public typealias Element = [WorkCompletion]
    /// The error of polling, arming or waiting.
    public typealias Failure = VerbsError

    private let source: Locked<Source?>
    private let channel: CompletionChannel
    private let id: CompletionQueue.ID
    private let object: VerbsObject
    private let solicitedOnly: Bool

    init(_ queue: consuming CompletionQueue, channel: CompletionChannel, maxCount: Int, solicitedOnly: Bool) {
        id = queue.id
        object = queue.owner.object
        source = Locked(Source(queue: queue, polled: WorkCompletionBuffer(capacity: maxCount)))
        self.channel = channel
        self.solicitedOnly = solicitedOnly
    }

    /// Gives the queue back, to be polled directly. The sequence has ended then; nil when it was taken before.
    public func takeQueue() -> CompletionQueue? {
        source.withLock { source in
            guard let taken = source.take() else { return nil }
            return taken.queue
        }
    }

    /// Makes an iterator. Several iterators at a time share the completions between them.
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

    /// Takes the completions that are in the queue. When there are none, it arms the queue and returns an empty array.
    /// Returns nil when `takeQueue` removed the queue.
    private func take() throws(VerbsError) -> [WorkCompletion]? {
        try source.withLock { (source: inout sending Source?) throws(VerbsError) -> [WorkCompletion]? in
            try source?.takeOrArm(solicitedOnly: solicitedOnly)
        }
    }
}

/// A queue and a reused buffer for polling it: only the arrays that are returned are allocated.
private struct Source: ~Copyable {
    var queue: CompletionQueue
    var polled: WorkCompletionBuffer

    /// Takes the completions that are in the queue. When there are none, it arms the queue and polls once more.
    mutating func takeOrArm(solicitedOnly: Bool) throws(VerbsError) -> [WorkCompletion] {
        if try queue.poll(into: &polled) == 0 {
            try queue.arm(solicitedOnly: solicitedOnly)
            try queue.poll(into: &polled)
        }
        return Array(UnsafeBufferPointer(start: polled.base, count: polled.count))
    }
}

extension CompletionQueue {
    /// The completions of the queue as an asynchronous sequence of batches of at most `maxCount`.
    ///
    /// The sequence takes the queue over; `CompletionBatches.takeQueue` gives it back.
    ///
    /// - Parameters:
    ///   - maxCount: The largest number of completions of a batch.
    ///   - solicitedOnly: Whether only solicited receives and failed requests end a wait.
    /// - Throws: `EINVAL` when the queue has no completion channel.
    public consuming func batches(
        of maxCount: Int = 64, solicitedOnly: Bool = false
    ) throws(VerbsError) -> CompletionBatches {
        guard let channel else {
            throw VerbsError(
                .reqNotifyCQ, errno: .invalidArgument, object: owner.object,
                hint: "pass a completion channel to makeCompletionQueue(capacity:channel:)")
        }
        return CompletionBatches(self, channel: channel, maxCount: maxCount, solicitedOnly: solicitedOnly)
    }
}
