import Foundation
import ProviderKit
import Synchronization
import Testing

@Suite("The lock of a completion queue")
struct CompletionQueueLockTests {
    /// A counter that a completion queue lock guards.
    private final class Counter: @unchecked Sendable {
        // Unchecked: the lock guards `value`.
        let lock: CompletionQueueLock
        var value = 0

        init(isSkipped: Bool = false) { lock = CompletionQueueLock(isSkipped: isSkipped) }

        /// The value of `hasBatch` during a change.
        func hasBatchWhileChanged() -> Bool { whileNotPolled(lock, lock) { lock.hasBatch() } }
    }

    /// Runs `body` in `count` threads, and waits for all.
    private func inThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let ended = DispatchGroup()
        for index in 0..<count {
            ended.enter()
            Thread.detachNewThread {
                body(index)
                ended.leave()
            }
        }
        ended.wait()
    }

    @Test("Polls, batches and changes exclude each other between threads")
    func exclusion() {
        let counter = Counter()
        let refusals = Atomic(0)
        inThreads(4) { index in
            for _ in 0..<5_000 {
                switch index {
                case 0:
                    if !counter.lock.begin() || !counter.lock.isInBatch() { refusals.add(1, ordering: .relaxed) }
                    counter.value += 1
                    counter.lock.unlock()
                case 1: whileNotPolled(counter.lock, counter.lock) { counter.value += 1 }
                default:
                    if !counter.lock.lock() { refusals.add(1, ordering: .relaxed) }
                    counter.value += 1
                    counter.lock.unlock()
                }
            }
        }
        #expect(counter.value == 20_000 && refusals.load(ordering: .relaxed) == 0)
    }

    @Test("Inside a batch, polling is refused and changes are allowed", arguments: [false, true])
    func insideBatch(isSkipped: Bool) {
        let counter = Counter(isSkipped: isSkipped)
        #expect(counter.lock.begin() && counter.lock.isInBatch() && counter.lock.hasBatch())
        #expect(!counter.lock.lock() && !counter.lock.begin())
        #expect(!counter.lock.tryLock() && !counter.lock.tryBegin())
        #expect(counter.hasBatchWhileChanged())
        // The batch is still open after the change.
        #expect(counter.lock.isInBatch() && !counter.lock.lock())
        counter.lock.unlock()
        #expect(!counter.lock.isInBatch() && !counter.lock.hasBatch())
        #expect(counter.lock.lock() && !counter.lock.hasBatch())
        counter.lock.unlock()
        #expect(!counter.hasBatchWhileChanged())
        #expect(counter.lock.tryLock() == true)
    }

    @Test("isInBatch is false in other threads than that of the batch")
    func otherThread() {
        let counter = Counter()
        #expect(counter.lock.begin() == true)
        let seen = Mutex<(Bool, Bool, Bool)?>(nil)
        inThreads(1) { _ in
            let all = (counter.lock.isInBatch(), counter.lock.hasBatch(), counter.lock.tryLock())
            seen.withLock { $0 = all }
        }
        #expect(seen.withLock { $0! } == (false, true, false))
        counter.lock.unlock()
    }

    @Test("Threads that change each other's queues, each inside a batch, do not deadlock", arguments: 2...4)
    func crosswise(count: Int) {
        let counters = (0..<count).map { _ in Counter() }
        for _ in 0..<200 {
            let open = Atomic(0)
            inThreads(count) { index in
                let ours = counters[index]
                _ = ours.lock.begin()
                open.add(1, ordering: .sequentiallyConsistent)
                while open.load(ordering: .sequentiallyConsistent) < count { sched_yield() }
                for distance in 1..<count {
                    let others = (counters[(index + distance) % count], counters[(index + 1) % count])
                    whileNotPolled(others.0.lock, others.1.lock) { others.0.value += 1 }
                }
                ours.lock.unlock()
            }
        }
        #expect(counters.allSatisfy { $0.value == 200 * (count - 1) && !$0.lock.hasBatch() })
    }

    @Test("A change that waits for another lock does not hold the completion queue's lock")
    func allOrNothing() {
        let counter = Counter()
        let other = Atomic(1)
        let looked = Atomic(false)
        let polls = Atomic(0)
        inThreads(2) { index in
            if index == 0 {
                whileNotPolled(
                    counter.lock, counter.lock,
                    taking: {
                        looked.store(true, ordering: .sequentiallyConsistent)
                        return other.load(ordering: .sequentiallyConsistent) == 0
                    }, { counter.value += 1 })
            } else {
                while !looked.load(ordering: .sequentiallyConsistent) { sched_yield() }
                if counter.lock.lock() { polls.add(1, ordering: .relaxed) }
                counter.lock.unlock()
                other.store(0, ordering: .sequentiallyConsistent)
            }
        }
        #expect(counter.value == 1 && polls.load(ordering: .relaxed) == 1)
    }
}
