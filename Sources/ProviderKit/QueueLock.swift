import CLinux
import Synchronization

/// A mutual exclusion for what takes nanoseconds, as posting and polling do: giving it back is a plain store, which costs
/// a third of the exchange that `Lock` needs to see who sleeps. Those who wait spin; then they let others have the
/// processor; then they look every 50 microseconds, so that a thread which the holder has to wait for does not keep it from
/// running for ever. It stays where it was made: make it a field of an object that does not move.
///
/// Where the user has promised that one thread at a time comes (a thread domain, IBV_CREATE_CQ_ATTR_SINGLE_THREADED) the
/// lock is made to be skipped, and costs a look at that.
public struct QueueLock: ~Copyable {
    // First, and the state behind it: the other way round costs an instruction for the address.
    private let isSkipped: Bool
    private let isHeld = Atomic<UInt32>(0)

    /// A free lock, or one that takes nothing and keeps nobody out.
    public init(isSkipped: Bool = false) { self.isSkipped = isSkipped }

    /// Takes the lock if it is free. True when it was taken.
    @inline(__always)
    public borrowing func tryLock() -> Bool {
        isSkipped || isHeld.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }

    /// Takes the lock, waiting for it if need be. Not recursive.
    @inline(__always)
    public borrowing func lock() {
        if _fastPath(tryLock()) { return }
        lockSlowly()
    }

    /// Gives the lock back; only its holder may.
    @inline(__always)
    public borrowing func unlock() {
        if !isSkipped { isHeld.store(0, ordering: .releasing) }
    }

    /// Gives the lock back, as the last thing that a function does, and answers what it answers.
    @inline(__always)
    public borrowing func unlock(answering value: Int32) -> Int32 {
        unlock()
        return value
    }

    @inline(never)
    private borrowing func lockSlowly() {
        var looks = 0
        repeat {
            while isHeld.load(ordering: .relaxed) != 0 {
                looks += 1
                switch looks {
                case ...1000: linux_spin_hint()
                case ...1100: linux_yield()
                default: linux_wait_any(nil, 0, 50_000)
                }
            }
        } while !isHeld.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }
}
