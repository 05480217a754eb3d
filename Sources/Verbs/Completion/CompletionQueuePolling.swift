import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

extension CompletionQueue {
    /// Takes one completion, if there is one: ibv_poll_cq(3). Never waits, allocates nothing.
    ///
    /// - Throws: `EIO` when the queue or the device has failed.
    @inlinable @inline(__always)
    public mutating func poll() throws(VerbsError) -> WorkCompletion? {
        let polled = rdma_poll_one(raw)
        if polled.count == 0 { return nil }
        if polled.count < 0 { throw failure(.pollCQ, polled.count) }
        return WorkCompletion(polled.wc)
    }

    /// Takes as many completions as there are and fit, from the start of `completions`: ibv_poll_cq(3). Never
    /// waits, allocates nothing.
    ///
    /// - Returns: how many were taken.
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

    /// Takes as many completions as there are and fit in place of what `buffer` held: ibv_poll_cq(3). Never
    /// waits, allocates nothing.
    ///
    /// - Returns: how many were taken; `buffer.count`.
    /// - Throws: `EIO` when the queue or the device has failed; the buffer is then empty.
    @inlinable @inline(__always) @discardableResult
    public mutating func poll(into buffer: inout WorkCompletionBuffer) throws(VerbsError) -> Int {
        let count = unsafePoll(buffer.base, buffer.room)
        buffer.taken = count > 0 ? Int(count) : 0
        if count < 0 { throw failure(.pollCQ, count) }
        return Int(count)
    }

    /// Takes completions through the provider's function: their number, or a negative value.
    @inlinable @inline(__always)
    func unsafePoll(_ completions: UnsafeMutablePointer<WorkCompletion>, _ count: Int32) -> Int32 {
        // The layouts are one: a WorkCompletion is an ibv_wc and nothing else.
        let raws = UnsafeMutableRawPointer(completions).assumingMemoryBound(to: ibv_wc.self)
        return raw.pointee.context.pointee.ops.poll_cq.unsafelyUnwrapped(raw, count, raws)
    }

    /// Polls until a completion comes. Keeps the processor busy for a few microseconds, then gives it to other
    /// threads in between; `batches` sleeps instead.
    ///
    /// - Throws: `ETIMEDOUT` when none came in time; else as `poll`.
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
