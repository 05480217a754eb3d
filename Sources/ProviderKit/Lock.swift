import CLinux
import Synchronization

/// A mutex that costs two atomic instructions without contention, and sleeps in futex(2) under contention. The lock
/// must not move: make it a field of an object with a fixed address. `QueueLock` is for critical sections of
/// nanoseconds.
///
/// If the user has promised that one thread at a time uses the queue (`ibv_td`, IBV_CREATE_CQ_ATTR_SINGLE_THREADED),
/// the lock is created with `isSkipped`, and costs one test of that flag.
///
/// | state | meaning |
/// |-------|---------|
/// | 0     | free |
/// | 1     | held |
/// | 2     | held, and a thread may be sleeping |
public struct Lock: ~Copyable {
    // Declared before the state: the other order costs an instruction to compute the state's address.
    private let isSkipped: Bool
    private let state = Atomic<UInt32>(0)

    /// Creates a free lock. With `isSkipped`, the lock excludes no thread.
    public init(isSkipped: Bool = false) { self.isSkipped = isSkipped }

    /// Takes the lock if it is free. Returns whether the lock was taken. Sequentially consistent, like `unlock`: if a
    /// thread stores a message and then fails to take the lock, the holder can load the message after it unlocks.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        isSkipped || state.compareExchange(expected: 0, desired: 1, ordering: .sequentiallyConsistent).exchanged
    }

    /// Takes the lock, and waits while another thread holds it. Not recursive.
    @inline(__always)
    public borrowing func lock() {
        if isSkipped || state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { return }
        lockSlowly()
    }

    /// Releases the lock. Only the holder may call it.
    @inline(__always)
    public borrowing func unlock() {
        if !isSkipped && state.exchange(0, ordering: .sequentiallyConsistent) == 2 { wakeOne() }
    }

    @inline(never)
    private borrowing func lockSlowly() {
        // Sleeping and waking cost about 35 µs, so the thread first spins for a few microseconds.
        for _ in 0..<100 {
            linux_spin_hint()
            if tryLock() { return }
        }
        while state.exchange(2, ordering: .acquiring) != 0 { linux_futex_wait(address, 2) }
    }

    @inline(never)
    private borrowing func wakeOne() { linux_futex_wake_one(address) }

    /// The address of the state. `Atomic` has the layout of its value and does not move while it is borrowed.
    private var address: UnsafeRawPointer {
        borrowing get { withUnsafePointer(to: state) { UnsafeRawPointer($0) } }
    }
}
