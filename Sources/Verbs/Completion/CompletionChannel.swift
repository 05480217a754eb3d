import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import Locking
import SystemPackage

/// A completion channel: delivers the events of armed completion queues (`struct ibv_comp_channel`,
/// ibv_create_comp_channel(3)).
///
/// Each event is acknowledged as soon as it is read, so that destroying a queue never waits for one.
public final class CompletionChannel: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    let raw: UnsafeMutablePointer<ibv_comp_channel>
    private let state = Locked(State())

    private struct State {
        /// The live queues of this channel; true when an event of the queue was read and no task has taken it yet.
        var pending: [CompletionQueue.ID: Bool] = [:]
        var waiters: [CompletionQueue.ID: [Waiter]] = [:]
        /// The reactor's wait for the descriptor, while a task waits.
        var token: Reactor.Token?
    }

    init(_ raw: UnsafeMutablePointer<ibv_comp_channel>, context: Context) {
        self.raw = raw
        self.context = context
    }

    deinit {
        guard let destroy = context.table.destroy_comp_channel else { return }
        context.destroy(.destroyCompChannel, object, keeping: [], destroy(raw))
    }

    var object: VerbsObject { context.object("completion channel", raw.pointee.fd) }

    /// The file descriptor, which is readable when an event is pending (`ibv_comp_channel.fd`). An event loop calls
    /// `wait(timeout: .zero)` until it returns nil.
    public var fileDescriptor: FileDescriptor { FileDescriptor(rawValue: raw.pointee.fd) }

    func add(_ queue: CompletionQueue.ID) { state.withLock { $0.pending[queue] = false } }

    func remove(_ queue: CompletionQueue.ID) { state.withLock { $0.pending[queue] = nil } }
}

extension Context {
    /// Makes a completion channel: ibv_create_comp_channel(3).
    public func makeCompletionChannel() throws(VerbsError) -> CompletionChannel {
        let create = try entry(
            table.create_comp_channel, destroyedBy: table.destroy_comp_channel, .createCompChannel, object("context"))
        let raw = try made(.createCompChannel, object("context")) { create(unsafeRaw) }
        let channel = CompletionChannel(raw, context: self)
        guard setNonBlocking(raw.pointee.fd) else {
            throw VerbsError(.createCompChannel, errno: Errno(rawValue: errno), object: channel.object)
        }
        return channel
    }
}

/// Sets O_NONBLOCK on a descriptor. Returns false when that fails.
package func setNonBlocking(_ descriptor: Int32) -> Bool {
    let flags = fcntl(descriptor, F_GETFL)
    return flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0
}

/// Waits until a descriptor is readable. Returns false after the deadline; nil waits without limit.
package func waitUntilReadable(_ descriptor: Int32, until deadline: ContinuousClock.Instant?) -> Bool {
    while true {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let milliseconds = deadline.map { deadline in
            let (seconds, attoseconds) = max(deadline - ContinuousClock.now, .zero).components
            return Int32(clamping: seconds &* 1000 &+ (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
        }
        let ready = Glibc.poll(&entry, 1, milliseconds ?? -1)
        if ready > 0 { return true }
        if let deadline, ContinuousClock.now >= deadline { return false }
    }
}

// MARK: - Reading events

extension CompletionChannel {
    /// Waits for an event: ibv_get_cq_event(3), ibv_ack_cq_events(3). Blocks the thread; tasks use
    /// `CompletionQueue.batches` instead.
    ///
    /// - Parameter timeout: The longest time to wait; nil waits without limit, `.zero` does not wait.
    /// - Returns: The queue of the event, which must be armed again and polled; nil after the timeout.
    /// - Throws: `EIO` when the device is gone.
    public func wait(timeout: Duration? = nil) throws(VerbsError) -> CompletionQueue.ID? {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            if let queue = takePending() { return queue }
            if let queue = try readEvent() {
                deliver(queue)
                // A task that waits for this queue has taken the event.
                if let queue = takePending() { return queue }
                continue
            }
            guard waitUntilReadable(raw.pointee.fd, until: deadline) else { return nil }
        }
    }

    private func takePending() -> CompletionQueue.ID? {
        state.withLock { state in
            guard let queue = state.pending.first(where: { $0.value })?.key else { return nil }
            state.pending[queue] = false
            return queue
        }
    }

    /// Reads one event and acknowledges it. Returns nil when no event is pending.
    private func readEvent() throws(VerbsError) -> CompletionQueue.ID? {
        try Context.refuseInChild(.getCQEvent, object)
        while true {
            var queue: UnsafeMutablePointer<ibv_cq>?
            rdma_drop_explanation()
            let code = rdma_get_cq_event(context.providerTable, raw, &queue)
            if code == EAGAIN { return nil }
            if code == EINTR { continue }
            if code != 0 { throw context.failure(.getCQEvent, object, code) }
            // The event is not yet acknowledged, so the queue cannot be destroyed before the next line.
            rdma_ack_cq_events(queue, 1)
            return CompletionQueue.ID(queue)
        }
    }

    /// Wakes the waiters of the queue, or stores the event.
    private func deliver(_ queue: CompletionQueue.ID) {
        let waiters = state.withLock { state in
            let waiters = state.waiters.removeValue(forKey: queue)
            // A destroyed queue has no entry; its last events are ignored.
            if waiters == nil, state.pending[queue] != nil { state.pending[queue] = true }
            return waiters ?? []
        }
        for waiter in waiters { waiter.finish(.ready) }
    }
}

// MARK: - Waiting tasks

extension CompletionChannel {
    /// Waits until an event of that queue has been read. Returns false when the task is cancelled.
    func event(of queue: CompletionQueue.ID) async throws(VerbsError) -> Bool {
        let waiter = Waiter()
        let outcome = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                waiter.wait(continuation)
                enlist(waiter, for: queue)
            }
        } onCancel: {
            waiter.finish(.cancelled)
            delist(waiter, of: queue)
        }
        switch outcome {
        case .ready: return true
        case .cancelled, .timedOut: return false
        case .failed(let error): throw error
        }
    }

    private func enlist(_ waiter: Waiter, for queue: CompletionQueue.ID) {
        let isReady = state.withLock { state in
            if state.pending[queue] == true {
                state.pending[queue] = false
                return true
            }
            state.waiters[queue, default: []].append(waiter)
            return false
        }
        if isReady {
            // The task was cancelled meanwhile: the next waiting task takes the event.
            if !waiter.finish(.ready) { state.withLock { $0.pending[queue] = true } }
            return
        }
        watch()
        if waiter.isDone { delist(waiter, of: queue) }
    }

    private func delist(_ waiter: Waiter, of queue: CompletionQueue.ID) {
        state.withLock { state in
            state.waiters[queue]?.removeAll { $0 === waiter }
            if state.waiters[queue]?.isEmpty == true { state.waiters[queue] = nil }
            guard state.waiters.isEmpty, let token = state.token else { return }
            state.token = nil
            Reactor.shared.cancel(token)
        }
    }

    /// Registers the descriptor with the reactor while a task waits.
    private func watch() {
        let failure: VerbsError? = state.withLock { state in
            guard state.token == nil, !state.waiters.isEmpty else { return nil }
            switch Reactor.shared.whenReadable(raw.pointee.fd, { self.isReadable() }) {
            case .success(let token):
                state.token = token
                return nil
            case .failure(let failure):
                return VerbsError(.getCQEvent, errno: Errno(rawValue: failure.code), object: object)
            }
        }
        if let failure { fail(failure) }
    }

    private func isReadable() {
        state.withLock { $0.token = nil }
        do throws(VerbsError) {
            while let queue = try readEvent() { deliver(queue) }
            watch()
        } catch {
            fail(error)
        }
    }

    private func fail(_ error: VerbsError) {
        let waiters = state.withLock { state in
            defer { state.waiters = [:] }
            return state.waiters.values.flatMap { $0 }
        }
        for waiter in waiters { waiter.finish(.failed(error)) }
    }
}
