import ProviderKit
import Testing

@Suite("Locks")
struct LockTests {
    /// A counter that only locks keep true: those who take one of them take no other.
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

    @Test("a lock keeps threads apart")
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

    @Test("so does one that is given back by a store")
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
        let answer = counter.queueLock.unlock(answering: 7)
        let third = counter.queueLock.tryLock()
        #expect(answer == 7 && third)
    }

    @Test("who waits for long sleeps, and goes on")
    func patience() async {
        let counter = Counter()
        counter.queueLock.lock()
        async let waiting: Void = count(counter) {
            $0.queueLock.lock()
            $0.value += 1
            $0.queueLock.unlock()
        }
        try? await Task.sleep(for: .milliseconds(20))
        #expect(counter.value == 0)
        counter.queueLock.unlock()
        await waiting
        #expect(counter.value == 40_000)
    }

    @Test("a lock that is made to be skipped keeps nobody out")
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
