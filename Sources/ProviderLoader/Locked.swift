import Glibc

/// A value that one thread at a time can reach, for code that is not on the data path.
///
/// A mutex of pthreads and not Synchronization's, because the thread sanitizer knows the one and not the other: with
/// Mutex it reports every access under the lock.
package final class Locked<Value: ~Copyable>: @unchecked Sendable {
    // Unchecked: the mutex guards the value.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    /// Holds `value` from now on.
    package init(_ value: consuming sending Value) {
        self.value = .allocate(capacity: 1)
        self.value.initialize(to: value)
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
        value.deinitialize(count: 1)
        value.deallocate()
    }

    /// Calls `body` with the value, while no other thread has it. Not recursive.
    package func withLock<Outcome: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Outcome
    ) throws(Failure) -> sending Outcome {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value.pointee)
    }
}
