import CLinux
import Synchronization

/// The lock of a completion queue: `poll_cq` holds it during the call, extended polling from start_poll to end_poll (a
/// batch). It records the thread that opened a batch, so that a function called inside a batch of the same thread
/// neither waits for itself nor breaks the batch:
///
/// - `lock` and `begin` return false; poll_cq and start_poll then return EBUSY.
/// - Functions that change the queue (`whileNotPolled`) run. A provider therefore consumes the current completion at
///   start_poll or next_poll, and returns its CQE to the device at the following next_poll or end_poll: a function that
///   changes the queue in between finds only completions that are not current.
///
/// If the user has promised that one thread at a time uses the queue (`ibv_td`, IBV_CREATE_CQ_ATTR_SINGLE_THREADED),
/// the lock is created with `isSkipped`: it executes no atomic exchange, but still records whether a batch is open.
///
/// Unlocking is a plain store and waiting threads spin, as with `QueueLock`. The lock must not move: make it a field of
/// an object with a fixed address.
///
/// | holder       | meaning |
/// |--------------|---------|
/// | 0            | free |
/// | 1            | held for one call of poll_cq, which calls nothing that takes the lock |
/// | thread       | held for a batch of that thread (`linux_this_thread()`) |
/// | thread + 1   | held by a function of that thread that changes the queue |
public struct CompletionQueueLock: ~Copyable {
    // Declared before the state: the other order costs an instruction to compute the state's address.
    private let isSkipped: Bool
    private let holder = Atomic<UInt>(0)

    @inline(__always)
    private static var oneCall: UInt { 1 }

    /// Creates a free lock. With `isSkipped`, the lock does not exclude other threads.
    public init(isSkipped: Bool = false) { self.isSkipped = isSkipped }

    @inline(__always)
    private borrowing func take(_ value: UInt) -> Bool {
        holder.compareExchange(expected: 0, desired: value, ordering: .acquiring).exchanged
    }
}

// MARK: - Polling

extension CompletionQueueLock {
    /// Takes the lock for one call if it is free. Returns whether the lock was taken.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        isSkipped ? holder.load(ordering: .relaxed) == 0 : take(Self.oneCall)
    }

    /// Takes the lock for one call, and waits while another thread holds it. Returns false inside a batch of this
    /// thread.
    @inline(__always)
    public borrowing func lock() -> Bool { _fastPath(tryLock()) || waitForThread(taking: Self.oneCall) }

    /// Opens a batch (`start_poll`) if the lock is free. Returns whether the batch was opened.
    @inline(__always)
    public borrowing func tryBegin() -> Bool {
        if !isSkipped { return take(linux_this_thread()) }
        guard holder.load(ordering: .relaxed) == 0 else { return false }
        holder.store(linux_this_thread(), ordering: .relaxed)
        return true
    }

    /// Opens a batch (`start_poll`), and waits while another thread holds the lock. Returns false inside a batch of
    /// this thread.
    @inline(__always)
    public borrowing func begin() -> Bool { _fastPath(tryBegin()) || waitForThread(taking: linux_this_thread()) }

    /// Whether the calling thread has opened a batch.
    @inline(__always)
    public borrowing func isInBatch() -> Bool { holder.load(ordering: .relaxed) == linux_this_thread() }

    /// Releases the lock after a call, or ends a batch (`end_poll`). Only the holder may call it.
    @inline(__always)
    public borrowing func unlock() { holder.store(0, ordering: .releasing) }

    /// Releases the lock and returns `value`, so that a function can end with a tail call.
    @inline(__always)
    public borrowing func unlock(returning value: Int32) -> Int32 {
        unlock()
        return value
    }

    @inline(never)
    private borrowing func waitForThread(taking value: UInt) -> Bool {
        var wait = BusyWait()
        repeat {
            // The user of a lock that is skipped has promised that there is no other thread.
            if isSkipped || isHeld(by: linux_this_thread()) { return false }
            while holder.load(ordering: .relaxed) != 0 { wait.pause() }
        } while !take(value)
        return true
    }
}

// MARK: - Functions that change the queue

extension CompletionQueueLock {
    /// Whether any thread has a batch open. For use inside `whileNotPolled`, or to refuse `ibv_destroy_cq` with EBUSY.
    public borrowing func hasBatch() -> Bool {
        let value = holder.load(ordering: .acquiring)
        return value != 0 && value & 1 == 0
    }

    private borrowing func isHeld(by thread: UInt) -> Bool { holder.load(ordering: .relaxed) & ~1 == thread }

    /// Takes the lock for a function that changes the queue, unless the calling thread holds it already.
    /// - Parameter calls: The waiting calls of `whileNotPolled`. A waiting thread lends the locks of its own batches.
    fileprivate borrowing func claim(_ thread: UInt, lentBy calls: UnsafePointer<WaitingCalls>?) -> Claim {
        if isSkipped || isHeld(by: thread) { return .notNeeded }
        if take(thread | 1) { return .taken }
        guard let calls else { return .refused }
        return calls.pointee.contains(holder.load(ordering: .relaxed) & ~1) ? .notNeeded : .refused
    }

    fileprivate borrowing func giveBack(_ claim: Claim) {
        if claim == .taken { unlock() }
    }
}

/// Runs `body` while no other thread polls either completion queue, so that `body` can remove or move completions.
/// Inside a batch of the calling thread, `body` runs at once.
///
/// The function takes all locks or none: a thread that waits here holds only the locks of its own open batches. While
/// it waits, it lends those locks to the other waiting threads, because its batches make no progress. Two threads that,
/// each inside a batch, destroy a queue pair of the other's completion queue therefore do not deadlock.
/// - Parameters:
///   - one: The lock of the first completion queue.
///   - other: The lock of the second completion queue, which may be the same.
///   - takeOthers: Tries to take the other locks that `body` needs and releases. It takes all of them and returns true,
///     or takes none and returns false. It does not wait.
public func whileNotPolled<Result>(
    _ one: borrowing CompletionQueueLock, _ other: borrowing CompletionQueueLock,
    taking takeOthers: () -> Bool = { true }, _ body: () -> Result
) -> Result {
    let thread = linux_this_thread()
    if let claims = claim(one, other, thread, lentBy: nil, takeOthers) {
        defer { claims.giveBack(one, other) }
        return body()
    }
    let call = waitingCalls.add(thread)
    var wait = BusyWait()
    while true {
        if let claims = waitingCalls.takeTurn(call, { claim(one, other, thread, lentBy: $0, takeOthers) }) {
            defer {
                claims.giveBack(one, other)
                waitingCalls.endTurn()
            }
            return body()
        }
        wait.pause()
    }
}

/// The result of `CompletionQueueLock.claim`.
private enum Claim: UInt8 {
    case refused, taken, notNeeded
}

private struct Claims {
    let one: Claim
    let other: Claim

    func giveBack(_ one: borrowing CompletionQueueLock, _ other: borrowing CompletionQueueLock) {
        other.giveBack(self.other)
        one.giveBack(self.one)
    }
}

/// Takes all locks, or takes none and returns nil.
private func claim(
    _ one: borrowing CompletionQueueLock, _ other: borrowing CompletionQueueLock, _ thread: UInt,
    lentBy calls: UnsafePointer<WaitingCalls>?, _ takeOthers: () -> Bool
) -> Claims? {
    let first = one.claim(thread, lentBy: calls)
    guard first != .refused else { return nil }
    let claims = Claims(one: first, other: other.claim(thread, lentBy: calls))
    if claims.other != .refused && takeOthers() { return claims }
    claims.giveBack(one, other)
    return nil
}

// MARK: - Waiting

/// A waiting call of `whileNotPolled`.
private struct WaitingCall {
    let thread: UInt
    var next: UnsafeMutablePointer<WaitingCall>?
}

/// The waiting calls of `whileNotPolled`. One call at a time is removed from the list and runs; the others do not
/// access the queues.
private struct WaitingCalls {
    var first: UnsafeMutablePointer<WaitingCall>?
    var hasTurn = false

    func contains(_ thread: UInt) -> Bool {
        var call = first
        while let current = call {
            if current.pointee.thread == thread { return true }
            call = current.pointee.next
        }
        return false
    }

    mutating func remove(_ call: UnsafeMutablePointer<WaitingCall>) {
        if first == call {
            first = call.pointee.next
        } else {
            var previous = first
            while let current = previous, current.pointee.next != call { previous = current.pointee.next }
            previous?.pointee.next = call.pointee.next
        }
        call.deallocate()
    }
}

/// `WaitingCalls` and its lock.
private struct GuardedCalls: ~Copyable {
    private let lock = Lock()
    private let calls: UnsafeMutablePointer<WaitingCalls>

    init() {
        calls = .allocate(capacity: 1)
        calls.initialize(to: WaitingCalls())
    }

    borrowing func add(_ thread: UInt) -> UnsafeMutablePointer<WaitingCall> {
        let call = UnsafeMutablePointer<WaitingCall>.allocate(capacity: 1)
        lock.lock()
        call.initialize(to: WaitingCall(thread: thread, next: calls.pointee.first))
        calls.pointee.first = call
        lock.unlock()
        return call
    }

    /// Removes a call from the list if no other call runs and `claim` takes its locks. Returns nil otherwise.
    borrowing func takeTurn(
        _ call: UnsafeMutablePointer<WaitingCall>, _ claim: (UnsafePointer<WaitingCalls>) -> Claims?
    ) -> Claims? {
        lock.lock()
        defer { lock.unlock() }
        guard !calls.pointee.hasTurn, let claims = claim(calls) else { return nil }
        calls.pointee.hasTurn = true
        calls.pointee.remove(call)
        return claims
    }

    borrowing func endTurn() {
        lock.lock()
        calls.pointee.hasTurn = false
        lock.unlock()
    }
}

nonisolated(unsafe) private let waitingCalls = GuardedCalls()
