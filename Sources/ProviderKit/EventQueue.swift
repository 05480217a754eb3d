import CIBVerbs
import CLinux

/// The events of a completion channel or of a context that do not come from the kernel: a queue, and a descriptor that
/// is readable exactly while the queue holds something, for poll(2) (rdma_provider.h, chapter 5).
///
/// It grows when it must: an event is never lost. Any thread may call any function.
public struct EventQueue: ~Copyable {
    /// Reached through a pointer: several threads are in it at once, and a mutating method may assume to be alone.
    private struct State {
        /// Ring of `capacity` places, a power of two.
        var events: UnsafeMutablePointer<ibv_async_event>
        var capacity = 16
        var first = 0
        var count = 0
    }

    /// Apart from what it guards: to change a field is to access the struct around it, and those who wait for the lock
    /// look at the lock meanwhile.
    private let lock: UnsafeMutablePointer<Lock>
    private let state: UnsafeMutablePointer<State>
    /// The descriptor; the queue's owner hands it to the user, and it is closed with the queue.
    public let descriptor: Int32

    /// An empty queue, or nil and errno when there is no descriptor left.
    public init?() {
        let descriptor = linux_eventfd()
        guard descriptor >= 0 else {
            linux_set_errno(-descriptor)
            return nil
        }
        self.descriptor = descriptor
        lock = .allocate(capacity: 1)
        lock.initialize(to: Lock())
        state = .allocate(capacity: 1)
        state.initialize(to: State(events: .allocate(capacity: 16)))
    }

    deinit {
        state.pointee.events.deallocate()
        state.deallocate()
        lock.deinitialize(count: 1)
        lock.deallocate()
        linux_close(descriptor)
    }

    /// Adds an event at the end.
    public func append(_ event: ibv_async_event) {
        lock.pointee.lock()
        if state.pointee.count == state.pointee.capacity { grow() }
        place(state.pointee.count).pointee = event
        state.pointee.count += 1
        if state.pointee.count == 1 { linux_eventfd_raise(descriptor) }
        lock.pointee.unlock()
    }

    /// Takes the oldest event. Waits for one, unless the user has set O_NONBLOCK on the descriptor.
    /// - Parameters:
    ///   - event: where it goes.
    ///   - note: called with the event before anyone can know that it was taken: the place to count it.
    /// - Returns: 0, EAGAIN, or EINTR.
    public func take(
        into event: UnsafeMutablePointer<ibv_async_event>, note: (UnsafePointer<ibv_async_event>) -> Void
    ) -> Int32 {
        while !takeNow(into: event, note: note) {
            if linux_is_nonblocking(descriptor) { return EAGAIN }
            let error = linux_wait_readable(descriptor)
            if error != 0 { return error }
        }
        return 0
    }

    private func takeNow(
        into event: UnsafeMutablePointer<ibv_async_event>, note: (UnsafePointer<ibv_async_event>) -> Void
    ) -> Bool {
        lock.pointee.lock()
        defer { lock.pointee.unlock() }
        guard state.pointee.count > 0 else { return false }
        event.pointee = place(0).pointee
        state.pointee.first = (state.pointee.first &+ 1) & (state.pointee.capacity &- 1)
        state.pointee.count -= 1
        if state.pointee.count == 0 { linux_eventfd_clear(descriptor) }
        note(event)
        return true
    }

    /// Drops the waiting events for which `isDropped` says so; for an object that goes away. Runs `note` at the end,
    /// while nobody can take an event.
    public func drop(where isDropped: (UnsafePointer<ibv_async_event>) -> Bool, note: () -> Void) {
        lock.pointee.lock()
        var kept = 0
        for index in 0..<state.pointee.count where !isDropped(place(index)) {
            place(kept).pointee = place(index).pointee
            kept += 1
        }
        if kept == 0 && state.pointee.count > 0 { linux_eventfd_clear(descriptor) }
        state.pointee.count = kept
        note()
        lock.pointee.unlock()
    }

    /// Where event `index` lies, counted from the oldest.
    private func place(_ index: Int) -> UnsafeMutablePointer<ibv_async_event> {
        state.pointee.events + ((state.pointee.first &+ index) & (state.pointee.capacity &- 1))
    }

    private func grow() {
        let capacity = state.pointee.capacity
        let larger = UnsafeMutablePointer<ibv_async_event>.allocate(capacity: capacity * 2)
        for index in 0..<capacity { larger[index] = place(index).pointee }
        state.pointee.events.deallocate()
        state.pointee.events = larger
        state.pointee.capacity = capacity * 2
        state.pointee.first = 0
    }
}
