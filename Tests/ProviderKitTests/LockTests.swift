import CLinux
import Glibc
import ProviderKit
import Testing

@Suite("Locks")
struct LockTests {
    /// A counter that a lock guards; each test uses one of the two locks.
    private final class Counter: @unchecked Sendable {
        // Unchecked: a lock guards `value`.
        let lock = Lock()
        let queueLock = QueueLock()
        var value = 0
    }

    /// Counts in four threads.
    private func count(_ counter: Counter, _ add: @escaping @Sendable (Counter) -> Void) async {
        await withTaskGroup { group in
            for _ in 0..<4 {
                group.addTask { for _ in 0..<10_000 { add(counter) } }
            }
        }
    }

    @Test("Lock provides mutual exclusion")
    func exclusion() async {
        let counter = Counter()
        await count(counter) {
            $0.lock.lock()
            $0.value += 1
            $0.lock.unlock()
        }
        #expect(counter.value == 40_000)
        let first = counter.lock.tryLock()
        let second = counter.lock.tryLock()
        #expect(first && !second)
        counter.lock.unlock()
    }

    @Test("QueueLock provides mutual exclusion")
    func queueExclusion() async {
        let counter = Counter()
        await count(counter) {
            $0.queueLock.lock()
            $0.value += 1
            $0.queueLock.unlock()
        }
        #expect(counter.value == 40_000)
        let first = counter.queueLock.tryLock()
        let second = counter.queueLock.tryLock()
        #expect(first && !second)
        let result = counter.queueLock.unlock(returning: 7)
        let third = counter.queueLock.tryLock()
        #expect(result == 7 && third)
    }

    /// A thread instead of a task: waiting tasks could occupy all threads of the pool, and the unlocking task would not
    /// run.
    @Test("a thread that waits for a long time sleeps, and continues after the unlock")
    func sleeps() {
        let counter = Counter()
        counter.queueLock.lock()
        let thread = linux_start_thread(
            ("waits" as StaticString).cString,
            { argument in
                let counter = Unmanaged<Counter>.fromOpaque(argument!).takeUnretainedValue()
                counter.queueLock.lock()
                counter.value += 1
                counter.queueLock.unlock()
            }, Unmanaged.passUnretained(counter).toOpaque())
        // Longer than it spins and yields, so that it sleeps.
        usleep(20_000)
        #expect(counter.value == 0)
        counter.queueLock.unlock()
        linux_join_thread(thread)
        #expect(counter.value == 1)
    }

    @Test("a skipped lock (single-threaded) is always acquired")
    func skipped() {
        let lock = Lock(isSkipped: true)
        let queueLock = QueueLock(isSkipped: true)
        for _ in 0..<2 {
            let isTaken = (lock.tryLock(), queueLock.tryLock())
            #expect(isTaken == (true, true))
        }
        lock.unlock()
        queueLock.unlock()
    }
}
