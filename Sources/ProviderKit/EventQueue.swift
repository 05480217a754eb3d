import CIBVerbs
import CLinux

/// The events of a completion channel (`ibv_comp_channel`) or of a context (`ibv_async_event`) of a provider without a
/// kernel driver: a queue, and a descriptor that is readable for poll(2) exactly while the queue is not empty
/// (rdma_provider.h, chapter 5).
///
/// The queue grows on demand, so no event is lost. Any thread may call any function.
public struct EventQueue: ~Copyable {
    /// Accessed through a pointer: several threads access it, and a mutating method would claim exclusive access.
    private struct State {
        /// A ring of `capacity` events, a power of two.
        var events: UnsafeMutablePointer<ibv_async_event>
        var capacity = 16
        var first = 0
        var count = 0
        /// Set when the device has failed: no event is added any more.
        var hasEnded = false
    }

    /// Allocated separately from the state: changing a field accesses the whole struct, and waiting threads read the
    /// lock meanwhile.
    private let lock: UnsafeMutablePointer<Lock>
    private let state: UnsafeMutablePointer<State>
    /// The descriptor (`ibv_comp_channel.fd`, `ibv_context.async_fd`). It is closed with the queue.
    public let descriptor: Int32

    /// Creates an empty queue. Returns nil and sets errno if eventfd(2) fails (EMFILE, ENFILE).
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

    /// Appends an event and makes the descriptor readable.
    public func append(_ event: ibv_async_event) {
        lock.pointee.lock()
        defer { lock.pointee.unlock() }
        guard !state.pointee.hasEnded else { return }
        if state.pointee.count == state.pointee.capacity { grow() }
        place(state.pointee.count).pointee = event
        state.pointee.count += 1
        if state.pointee.count == 1 { linux_eventfd_raise(descriptor) }
    }

    /// Ends the queue, because the device has failed (rdma_provider.h, chapter 6): queued events can still be taken, then
    /// `take` returns EIO, also in threads that wait. The descriptor stays readable.
    public func end() {
        lock.pointee.lock()
        defer { lock.pointee.unlock() }
        guard !state.pointee.hasEnded else { return }
        state.pointee.hasEnded = true
        if state.pointee.count == 0 { linux_eventfd_raise(descriptor) }
    }

    /// Removes the oldest event. Waits for an event, unless the user has set O_NONBLOCK on the descriptor.
    /// - Parameters:
    ///   - event: Receives the event.
    ///   - note: Called with the event under the lock, before another thread can observe the removal. It counts the
    ///     event.
    /// - Returns: 0, EAGAIN, or EINTR; EIO after `end`.
    public func take(
        into event: UnsafeMutablePointer<ibv_async_event>, note: (UnsafePointer<ibv_async_event>) -> Void
    ) -> Int32 {
        while true {
            let result = takeNow(into: event, note: note)
            if result != EAGAIN { return result }
            if linux_is_nonblocking(descriptor) { return EAGAIN }
            let error = linux_wait_readable(descriptor)
            if error != 0 { return error }
        }
    }

    /// Returns 0, EAGAIN when the queue is empty, or EIO when it has ended as well.
    private func takeNow(
        into event: UnsafeMutablePointer<ibv_async_event>, note: (UnsafePointer<ibv_async_event>) -> Void
    ) -> Int32 {
        lock.pointee.lock()
        defer { lock.pointee.unlock() }
        guard state.pointee.count > 0 else { return state.pointee.hasEnded ? EIO : EAGAIN }
        event.pointee = place(0).pointee
        state.pointee.first = (state.pointee.first &+ 1) & (state.pointee.capacity &- 1)
        state.pointee.count -= 1
        if state.pointee.count == 0 && !state.pointee.hasEnded { linux_eventfd_clear(descriptor) }
        note(event)
        return 0
    }

    /// Removes the queued events for which `isDropped` returns true, for an object that is destroyed. Then runs `note`
    /// under the lock, while no thread can take an event.
    public func drop(where isDropped: (UnsafePointer<ibv_async_event>) -> Bool, note: () -> Void) {
        lock.pointee.lock()
        var kept = 0
        for index in 0..<state.pointee.count where !isDropped(place(index)) {
            place(kept).pointee = place(index).pointee
            kept += 1
        }
        if kept == 0 && state.pointee.count > 0 && !state.pointee.hasEnded { linux_eventfd_clear(descriptor) }
        state.pointee.count = kept
        note()
        lock.pointee.unlock()
    }

    /// The slot of event `index`, counted from the oldest.
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
