import CIBVerbs
import CLinux

/// The events of a completion channel or of a context that do not come from the kernel: a queue, and a descriptor that
/// is readable exactly while the queue holds something, for poll(2) (rdma_provider.h, chapter 5).
///
/// It grows when it must: an event is never lost. Any thread may call any function.
public struct EventQueue: ~Copyable {
    private let lock = Lock()
    /// Ring of `capacity` places, a power of two.
    private var events: UnsafeMutablePointer<ibv_async_event>
    private var capacity = 16
    private var first = 0
    private var count = 0
    /// The descriptor; the queue's owner hands it to the user and closes it with the queue.
    public let descriptor: Int32

    /// An empty queue, or nil and errno when there is no descriptor left.
    public init?() {
        let descriptor = linux_eventfd()
        guard descriptor >= 0 else {
            linux_set_errno(-descriptor)
            return nil
        }
        self.descriptor = descriptor
        events = .allocate(capacity: capacity)
    }

    deinit {
        events.deallocate()
        linux_close(descriptor)
    }

    /// Adds an event at the end.
    public mutating func append(_ event: ibv_async_event) {
        lock.lock()
        if count == capacity { grow() }
        events[(first &+ count) & (capacity &- 1)] = event
        count += 1
        if count == 1 { linux_eventfd_raise(descriptor) }
        lock.unlock()
    }

    /// Takes the oldest event. Waits for one, unless the user has set O_NONBLOCK on the descriptor.
    /// - Parameters:
    ///   - event: where it goes.
    ///   - note: called with the event before anyone can know that it was taken: the place to count it.
    /// - Returns: 0, EAGAIN, or EINTR.
    public mutating func take(
        into event: inout ibv_async_event, note: (borrowing ibv_async_event) -> Void
    ) -> Int32 {
        while true {
            lock.lock()
            if count > 0 {
                event = events[first]
                first = (first &+ 1) & (capacity &- 1)
                count -= 1
                if count == 0 { linux_eventfd_clear(descriptor) }
                note(event)
                lock.unlock()
                return 0
            }
            lock.unlock()
            if linux_is_nonblocking(descriptor) { return EAGAIN }
            let error = linux_wait_readable(descriptor)
            if error != 0 { return error }
        }
    }

    /// Drops the waiting events for which `isDropped` says so; for an object that goes away. Runs `note` at the end,
    /// while nobody can take an event.
    public mutating func drop(where isDropped: (borrowing ibv_async_event) -> Bool, note: () -> Void) {
        lock.lock()
        var kept = 0
        for index in 0..<count {
            let event = events[(first &+ index) & (capacity &- 1)]
            if isDropped(event) { continue }
            events[(first &+ kept) & (capacity &- 1)] = event
            kept += 1
        }
        if kept == 0 && count > 0 { linux_eventfd_clear(descriptor) }
        count = kept
        note()
        lock.unlock()
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<ibv_async_event>.allocate(capacity: capacity * 2)
        for index in 0..<count { larger[index] = events[(first &+ index) & (capacity &- 1)] }
        events.deallocate()
        events = larger
        capacity *= 2
        first = 0
    }
}
