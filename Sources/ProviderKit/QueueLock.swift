import CLinux
import Synchronization

/// A spin lock for critical sections of nanoseconds, such as posting (`CompletionQueueLock` is for polling). Unlocking
/// is a plain store, which costs a third of the exchange that `Lock` needs to find sleeping threads. A waiting thread
/// spins, then yields the processor, then sleeps for 50 µs at a time, so that a waiting real-time thread does not keep
/// the holder from running. The lock must not move: make it a field of an object with a fixed address.
///
/// If the user has promised that one thread at a time uses the queue (`ibv_td`), the lock is created with `isSkipped`,
/// and costs one test of that flag.
public struct QueueLock: ~Copyable {
    // Declared before the state: the other order costs an instruction to compute the state's address.
    private let isSkipped: Bool
    private let isHeld = Atomic<UInt32>(0)

    /// Creates a free lock. With `isSkipped`, the lock excludes no thread.
    public init(isSkipped: Bool = false) { self.isSkipped = isSkipped }

    /// Takes the lock if it is free. Returns whether the lock was taken.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        isSkipped || isHeld.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }

    /// Takes the lock, and waits while another thread holds it. Not recursive.
    @inline(__always)
    public borrowing func lock() {
        if _fastPath(tryLock()) { return }
        lockSlowly()
    }

    /// Releases the lock. Only the holder may call it.
    @inline(__always)
    public borrowing func unlock() {
        if !isSkipped { isHeld.store(0, ordering: .releasing) }
    }

    /// Releases the lock and returns `value`, so that a function can end with a tail call.
    @inline(__always)
    public borrowing func unlock(returning value: Int32) -> Int32 {
        unlock()
        return value
    }

    @inline(never)
    private borrowing func lockSlowly() {
        var wait = BusyWait()
        repeat {
            while isHeld.load(ordering: .relaxed) != 0 { wait.pause() }
        } while !isHeld.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }
}

/// The backoff of a waiting thread: it spins, then yields the processor, then sleeps for 50 µs at a time.
struct BusyWait {
    private var pauses = 0

    mutating func pause() {
        pauses += 1
        switch pauses {
        case ...1000: linux_spin_hint()
        case ...1100: linux_yield()
        default: _ = linux_wait_any(nil, 0, 50_000)
        }
    }
}
