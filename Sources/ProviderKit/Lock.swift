import CLinux
import Synchronization

/// A mutual exclusion that costs two atomic instructions when nobody contends, and sleeps in the kernel when somebody
/// does. It stays where it was made: make it a field of an object that does not move.
///
/// | state | meaning |
/// |-------|---------|
/// | 0     | free |
/// | 1     | held |
/// | 2     | held, and somebody may sleep |
public struct Lock: ~Copyable {
    private let state = Atomic<UInt32>(0)

    /// A free lock.
    public init() {}

    /// Takes the lock if it is free. True when it was taken. Sequentially consistent, as is `unlock`: who leaves a
    /// message, finds the lock taken and goes away is sure that the holder can see the message after unlocking.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        state.compareExchange(expected: 0, desired: 1, ordering: .sequentiallyConsistent).exchanged
    }

    /// Takes the lock, waiting for it if need be. Not recursive.
    @inline(__always)
    public borrowing func lock() {
        if state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { return }
        lockSlowly()
    }

    /// Gives the lock back; only its holder may.
    @inline(__always)
    public borrowing func unlock() {
        if state.exchange(0, ordering: .sequentiallyConsistent) == 2 { wakeOne() }
    }

    /// Gives the lock back as the last thing that a function of the data path does, and answers what it answers: so the
    /// function calls nobody, and saves no registers.
    @inline(__always)
    public borrowing func unlock(answering value: Int32) -> Int32 {
        if _slowPath(state.exchange(0, ordering: .sequentiallyConsistent) == 2) { return wake(address, value) }
        return value
    }

    @inline(never)
    private borrowing func lockSlowly() {
        // A sleep and its waking cost some 35 microseconds: worth a few of waiting.
        for _ in 0..<100 {
            linux_spin_hint()
            if tryLock() { return }
        }
        while state.exchange(2, ordering: .acquiring) != 0 { linux_futex_wait(address, 2) }
    }

    @inline(never)
    private borrowing func wakeOne() { linux_futex_wake_one(address) }

    /// Where the state lies. An atomic has the layout of its value, and is never moved while it is borrowed.
    private var address: UnsafeRawPointer {
        borrowing get { withUnsafePointer(to: state) { UnsafeRawPointer($0) } }
    }
}

@inline(never)
private func wake(_ address: UnsafeRawPointer, _ value: Int32) -> Int32 {
    linux_futex_wake_one(address)
    return value
}
