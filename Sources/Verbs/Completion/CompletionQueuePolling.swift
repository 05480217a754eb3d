import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import SystemPackage

extension CompletionQueue {
    /// Polls one completion; nil when the queue is empty: ibv_poll_cq(3). Never waits, allocates nothing.
    ///
    /// - Throws: `EIO` when the queue or the device has failed.
    @inlinable @inline(__always)
    public mutating func poll() throws(VerbsError) -> WorkCompletion? {
        let polled = rdma_poll_one(raw)
        if polled.count == 0 { return nil }
        if polled.count < 0 { throw failure(.pollCQ, polled.count) }
        return WorkCompletion(polled.wc)
    }

    /// Polls at most `completions.count` completions into `completions`, from its start: ibv_poll_cq(3). Never waits,
    /// allocates nothing.
    ///
    /// - Returns: The number of completions that were taken.
    /// - Throws: `EIO` when the queue or the device has failed.
    @inlinable @inline(__always)
    public mutating func poll(into completions: inout MutableSpan<WorkCompletion>) throws(VerbsError) -> Int {
        let count = completions.withUnsafeMutableBufferPointer { buffer in
            buffer.isEmpty
                ? 0
                : unsafePoll(
                    buffer.baseAddress.unsafelyUnwrapped, Int32(clamping: buffer.count))
        }
        if count < 0 { throw failure(.pollCQ, count) }
        return Int(count)
    }

    /// Polls at most `buffer.capacity` completions and replaces the contents of `buffer` by them: ibv_poll_cq(3). Never
    /// waits, allocates nothing.
    ///
    /// - Returns: The number of completions that were taken, `buffer.count`.
    /// - Throws: `EIO` when the queue or the device has failed; the buffer is then empty.
    @inlinable @inline(__always) @discardableResult
    public mutating func poll(into buffer: inout WorkCompletionBuffer) throws(VerbsError) -> Int {
        let count = unsafePoll(buffer.base, buffer.room)
        buffer.taken = count > 0 ? Int(count) : 0
        if count < 0 { throw failure(.pollCQ, count) }
        return Int(count)
    }

    /// Calls the provider's `poll_cq`. Returns the number of completions or a negative value.
    @inlinable @inline(__always)
    func unsafePoll(_ completions: UnsafeMutablePointer<WorkCompletion>, _ count: Int32) -> Int32 {
        // A WorkCompletion has the layout of its only field, an ibv_wc.
        let raws = UnsafeMutableRawPointer(completions).assumingMemoryBound(to: ibv_wc.self)
        return raw.pointee.context.pointee.ops.poll_cq.unsafelyUnwrapped(raw, count, raws)
    }

    /// Polls until a completion arrives. After every 256 polls of an empty queue it yields the processor; `batches`
    /// sleeps instead.
    ///
    /// - Throws: `ETIMEDOUT` when no completion arrived in time; otherwise the errors of `poll`.
    public mutating func poll(timeout: Duration) throws(VerbsError) -> WorkCompletion {
        let deadline = ContinuousClock.now + timeout
        while true {
            for _ in 0..<256 {
                if let completion = try poll() { return completion }
            }
            guard ContinuousClock.now < deadline else {
                throw VerbsError(
                    .pollCQ, errno: .timedOut, object: owner.object, hint: "no completion came within \(timeout)")
            }
            sched_yield()
        }
    }
}
