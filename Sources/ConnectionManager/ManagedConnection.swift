import Locking
import SystemPackage
import Verbs

/// An rdma_cm identifier (`struct rdma_cm_id`) with an event channel of its own, and the queue pair whose state it
/// changes.
///
/// Events are handled as they arrive, on the reactor's thread, whether or not a task waits: when the peer ends the
/// connection, the queue pair moves to ERR and all posted work requests complete as flushed.
final class ManagedConnection: Sendable {
    let identifier: ConnectionIdentifier
    private let channel: EventChannel
    let state = Locked(State())

    /// The phase of the connection.
    enum Phase: Int, Sendable, Comparable {
        case new, connecting, connected, disconnecting, disconnected, over

        static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
    }

    struct State {
        var phase = Phase.new
        var queuePair: QueuePairControl?
        /// Whether packets for the queue pair may have arrived.
        var isExposed = false
        var inbox: [ConnectionEvent] = []
        var failure: ConnectionError?
        /// Why the queue pair could not be moved to ERR.
        var queuePairFailure: VerbsError?
        var waiters: [Waiter] = []
        /// The wait for the descriptor.
        var token: Reactor.Token?
        /// The result of rdma_connect(3) in a thread of its own: 0 or an errno value; nil while it has not returned.
        var dialed: Int32?
    }

    /// `channel` must receive the events of this identifier only.
    init(_ identifier: ConnectionIdentifier, channel: EventChannel) {
        self.identifier = identifier
        self.channel = channel
        watch()
    }

    deinit {
        let (token, phase, queuePair) = state.withLock { ($0.token, $0.phase, $0.queuePair) }
        if let token { Reactor.shared.cancel(token) }
        if phase == .connecting || phase == .connected { fail(queuePair) }
        // The destruction of the identifier disconnects a connected peer.
    }

    var phase: Phase { state.withLock { $0.phase } }
    var queuePair: QueuePairControl? { state.withLock { $0.queuePair } }
    /// Why the queue pair could not be moved to ERR at the end of the connection; nil when it was.
    var queuePairFailure: VerbsError? { state.withLock { $0.queuePairFailure } }

    /// Sets the queue pair whose state it changes. Returns false when a queue pair was set before.
    func begin(_ queuePair: QueuePairControl) -> Bool {
        state.withLock { state in
            guard state.phase == .new else { return false }
            state.queuePair = queuePair
            state.phase = .connecting
            return true
        }
    }

    /// Records that packets may arrive from now on.
    func expose() { state.withLock { $0.isExposed = true } }

    /// Ends an attempt that failed: the queue pair moves to ERR. If no packet for it can have arrived, it may be reset
    /// and used for another connection.
    func abandon() {
        let (queuePair, isExposed) = state.withLock { ($0.queuePair, $0.isExposed) }
        advance(to: .over)
        fail(queuePair)
        // An iWARP queue pair does not leave ERR.
        if !isExposed, !identifier.isIWARP { queuePair?.release() }
    }

    /// Advances to a later phase; an earlier phase is ignored.
    func advance(to phase: Phase) {
        state.withLock { state in
            if phase > state.phase { state.phase = phase }
        }
    }
}

// MARK: - Events

extension ManagedConnection {
    private func watch() {
        let failure: ConnectionError? = state.withLock { state in
            switch Reactor.shared.whenReadable(channel.fileDescriptor.rawValue, { [weak self] in self?.isReadable() }) {
            case .success(let token):
                state.token = token
                return nil
            case .failure(let failure):
                return ConnectionError("epoll_ctl", code: failure.code, operation: "wait for events")
            }
        }
        if let failure { give(up: failure) }
    }

    private func isReadable() {
        state.withLock { $0.token = nil }
        do throws(ConnectionError) {
            while let event = try channel.readEvent() { handle(event) }
            watch()
        } catch {
            give(up: error)
        }
    }

    /// Handles an event, and wakes the waiters.
    private func handle(_ event: ConnectionEvent) {
        switch event.type {
        // The connection exists on this side at most: no `disconnected` follows.
        case .rejected, .unreachable, .connectError: end(at: .disconnected)
        // Neither `disconnected` nor `timeWaitExit` follows.
        case .deviceRemoval: end(at: .over)
        case .disconnected:
            end(at: .disconnected)
            // The peer may wait for a DREP even if this side has sent a DREQ: both may have sent one at the same time.
            // If it does not wait, the call fails.
            try? identifier.disconnect()
        // iWARP: the kernel has moved the queue pair. Recorded here, so that a later event's state stays.
        case .established where identifier.isIWARP: queuePair?.record(.readyToSend)
        case .timeWaitExit:
            advance(to: .over)
            queuePair?.release()
        default: break
        }
        change { $0.inbox.append(event) }
    }

    /// Changes what a task may wait for, and wakes the waiters.
    func change(_ body: (inout State) -> Void) {
        let waiters = state.withLock { state in
            body(&state)
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.finish(.ready) }
    }

    /// Ends the connection, or the attempt to establish it.
    private func end(at phase: Phase) {
        // First, so that the queue pair is in ERR when a waiter is woken.
        fail(queuePair)
        // The task that connects may not have advanced to `connected` yet; it cannot go back to it.
        if self.phase >= .connecting { advance(to: phase) }
    }

    private func give(up error: ConnectionError) {
        change { $0.failure = error }
    }

    /// Moves the queue pair to ERR: posted work requests complete as flushed. It may be in ERR or destroyed already.
    /// The first error is kept, but not EIO: after a device failure no completion is awaited, since polling fails as
    /// well.
    func fail(_ queuePair: QueuePairControl?) {
        guard let queuePair else { return }
        do throws(VerbsError) {
            // On iWARP the kernel moves it as well, but may do so after the event.
            var attributes = QueuePair.Attributes()
            attributes.state = .error
            try queuePair.modify(attributes)
        } catch {
            if error.errno == .ioError { return }
            state.withLock { $0.queuePairFailure = $0.queuePairFailure ?? error }
        }
    }

    /// Waits until `look` returns a value. Returns nil after the deadline.
    ///
    /// - Throws: `cancelled` with the task; the error of reading events.
    func wait<Answer: Sendable>(
        until deadline: ContinuousClock.Instant?, _ operation: @autoclosure () -> String,
        _ look: @Sendable (inout State) -> Answer?
    ) async throws(ConnectionError) -> Answer? {
        while true {
            let waiter = Waiter()
            let (answer, failure): (Answer?, ConnectionError?) = state.withLock { state in
                if let answer = look(&state) { return (answer, nil) }
                if state.failure == nil { state.waiters.append(waiter) }
                return (nil, state.failure)
            }
            if let answer { return answer }
            if let failure { throw ConnectionError(failure.reason, operation: operation(), hint: failure.hint) }
            let outcome = await waiter.outcome(until: deadline)
            if case .ready = outcome { continue }
            state.withLock { $0.waiters.removeAll { $0 === waiter } }
            if case .cancelled = outcome { throw ConnectionError(.cancelled, operation: operation()) }
            // An event that arrived at the last moment still counts.
            return state.withLock { look(&$0) }
        }
    }

    /// The next event; nil after the deadline.
    func next(
        until deadline: ContinuousClock.Instant?, _ operation: @autoclosure () -> String
    ) async throws(ConnectionError) -> ConnectionEvent? {
        try await wait(until: deadline, operation()) { $0.inbox.isEmpty ? nil : $0.inbox.removeFirst() }
    }

    /// Waits for an event of one of those types, for `timeout` plus `grace`.
    ///
    /// - Parameter start: The start of `timeout`.
    /// - Throws: The error of another event; `timedOut`.
    func await(
        _ kinds: [ConnectionEventType], within timeout: Duration, since start: ContinuousClock.Instant = .now,
        grace: Duration = .zero, _ operation: String
    ) async throws(ConnectionError) -> ConnectionEvent {
        let deadline = start + timeout + grace
        while true {
            guard let event = try await next(until: deadline, operation) else {
                throw ConnectionError(.timedOut(timeout), operation: operation)
            }
            if kinds.contains(event.type) { return event }
            if let reason = event.failure(within: timeout) { throw ConnectionError(reason, operation: operation) }
        }
    }
}

extension ConnectionEvent {
    /// The error that an event means for a caller that waits for another event; nil when it means none.
    func failure(within timeout: Duration) -> ConnectionError.Reason? {
        switch type {
        // In these steps the kernel uses the caller's time limit too; in others it has its own.
        case .addressError where errno == .timedOut, .routeError where errno == .timedOut: .timedOut(timeout)
        case .addressError: .addressNotResolved(errno)
        case .routeError: .routeNotResolved(errno)
        case .multicastError: .multicastNotJoined(errno)
        case .rejected: .rejected(RejectionReason(rawValue: status), privateData: privateData)
        case .unreachable where status > 0 && identifier.portSpace.isDatagram:
            .serviceRefused(DatagramServiceStatus(rawValue: status), privateData: privateData)
        case .unreachable, .connectError: .unreachable(errno)
        case .disconnected: .disconnected
        case .deviceRemoval: .deviceRemoved
        default: nil
        }
    }
}
