import CLinux
import Synchronization

/// A mutual exclusion that costs two atomic instructions when nobody contends, and sleeps in the kernel when somebody
/// does. It stays where it was made: make it a field of an object that does not move. `QueueLock` is for less.
///
/// Where the user has promised that one thread at a time comes (a thread domain, IBV_CREATE_CQ_ATTR_SINGLE_THREADED) the
/// lock is made to be skipped, and costs a look at that.
///
/// | state | meaning |
/// |-------|---------|
/// | 0     | free |
/// | 1     | held |
/// | 2     | held, and somebody may sleep |
public struct Lock: ~Copyable {
    // First, and the state behind it: the other way round costs an instruction for the address.
    private let isSkipped: Bool
    private let state = Atomic<UInt32>(0)

    /// A free lock, or one that takes nothing and keeps nobody out.
    public init(isSkipped: Bool = false) { self.isSkipped = isSkipped }

    /// Takes the lock if it is free. True when it was taken. Sequentially consistent, as is `unlock`: who leaves a
    /// message, finds the lock taken and goes away is sure that the holder can see the message after unlocking.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        isSkipped || state.compareExchange(expected: 0, desired: 1, ordering: .sequentiallyConsistent).exchanged
    }

    /// Takes the lock, waiting for it if need be. Not recursive.
    @inline(__always)
    public borrowing func lock() {
        if isSkipped || state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { return }
        lockSlowly()
    }

    /// Gives the lock back; only its holder may.
    @inline(__always)
    public borrowing func unlock() {
        if !isSkipped && state.exchange(0, ordering: .sequentiallyConsistent) == 2 { wakeOne() }
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
