import Glibc

/// A value behind a mutex, for code that is not on the data path.
///
/// It is a pthread mutex, because the thread sanitizer does not recognize Synchronization's `Mutex` and reports every
/// access under it.
package final class Locked<Value: ~Copyable>: @unchecked Sendable {
    // Unchecked: the mutex guards the value.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    /// Creates a mutex that guards `value`.
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

    /// Calls `body` with the value while the mutex is held. Not recursive: `body` must not call `withLock` on the same
    /// object.
    package func withLock<Outcome: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Outcome
    ) throws(Failure) -> sending Outcome {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value.pointee)
    }
}
