/// The asynchronous events of a device as an asynchronous sequence. Each event goes to one reader.
///
/// It ends when its task is cancelled; no event is lost then.
public struct AsynchronousEvents: AsyncSequence, Sendable {
    /// One event.
    public typealias Element = AsynchronousEvent
    /// The error of reading: `EIO` when the device is gone.
    public typealias Failure = VerbsError

    let context: Context

    /// A step through the sequence.
    public func makeAsyncIterator() -> Iterator { Iterator(context: context) }

    /// Steps through the sequence.
    public struct Iterator: AsyncIteratorProtocol {
        let context: Context

        /// The next event; nil when the task is cancelled.
        public mutating func next() async throws(VerbsError) -> AsynchronousEvent? {
            try await context.nextEventForTask()
        }

        /// The next event; nil when the task is cancelled.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws(VerbsError) -> AsynchronousEvent? {
            try await context.nextEventForTask()
        }
    }
}

extension Context {
    /// The asynchronous events of the device: ibv_get_async_event(3).
    public var events: AsynchronousEvents { AsynchronousEvents(context: self) }

    func nextEventForTask() async throws(VerbsError) -> AsynchronousEvent? {
        while !Task.isCancelled {
            if let event = try readEvent() { return event }
            let descriptor = unsafeRaw.pointee.async_fd
            let object = object("context")
            guard try await waitUntilReadable(descriptor, for: .getAsyncEvent, object) else { return nil }
        }
        return nil
    }
}
