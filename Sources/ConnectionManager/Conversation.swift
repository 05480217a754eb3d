import ProviderLoader
import SystemPackage
import Verbs

/// One identifier with a channel of its own, and the queue pair that it moves: what the short path is made of.
///
/// Events are dealt with as they come, on the reactor's thread, whether or not a task waits: when the peer ends the
/// connection, the queue pair goes to ERR and everything posted completes as flushed.
final class Conversation: Sendable {
    let identifier: ConnectionIdentifier
    private let channel: EventChannel
    private let state = Locked(State())

    /// How far it has come.
    enum Phase: Int, Sendable, Comparable {
        case new, connecting, connected, disconnecting, disconnected, over

        static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
    }

    struct State {
        var phase = Phase.new
        var queuePair: QueuePairControl?
        /// Whether packets may have come for the queue pair.
        var isExposed = false
        var inbox: [ConnectionEvent] = []
        var failure: ConnectionError?
        var waiters: [Waiter] = []
        /// The wait for the descriptor.
        var token: Reactor.Token?
    }

    /// The identifier must send its events to `channel`, and no other may.
    init(_ identifier: ConnectionIdentifier, channel: EventChannel) {
        self.identifier = identifier
        self.channel = channel
        watch()
    }

    deinit {
        let (token, phase, queuePair) = state.withLock { ($0.token, $0.phase, $0.queuePair) }
        if let token { Reactor.shared.cancel(token) }
        if phase == .connecting || phase == .connected { fail(queuePair) }
        // A peer that is connected hears of it when the identifier goes.
    }

    var phase: Phase { state.withLock { $0.phase } }
    var queuePair: QueuePairControl? { state.withLock { $0.queuePair } }

    /// From now on it moves that queue pair: false when it has had one already.
    func begin(_ queuePair: QueuePairControl) -> Bool {
        state.withLock { state in
            guard state.phase == .new else { return false }
            state.queuePair = queuePair
            state.phase = .connecting
            return true
        }
    }

    /// From now on packets may come.
    func expose() { state.withLock { $0.isExposed = true } }

    /// Ends an attempt that failed: the queue pair goes to ERR. If no packet can have come for it, it may be reset and
    /// used for another connection.
    func abandon() {
        let (queuePair, isExposed) = state.withLock { ($0.queuePair, $0.isExposed) }
        advance(to: .over)
        fail(queuePair)
        if !isExposed { queuePair?.release() }
    }

    /// Goes on to a later phase; never back.
    func advance(to phase: Phase) {
        state.withLock { state in
            if phase > state.phase { state.phase = phase }
        }
    }
}

// MARK: - Events

extension Conversation {
    private func watch() {
        let failure: ConnectionError? = state.withLock { state in
            switch Reactor.shared.whenReadable(channel.fileDescriptor.rawValue, { [weak self] in self?.isReadable() }) {
            case .success(let token):
                state.token = token
                return nil
            case .failure(let failure):
                return ConnectionError(
                    .system("epoll_ctl", Errno(rawValue: failure.code)), operation: "wait for events")
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

    /// Does what an event asks for, and tells those who wait.
    private func handle(_ event: ConnectionEvent) {
        switch event.kind {
        // Of a connection that stands on this side only: no `disconnected` follows.
        case .rejected, .unreachable, .connectError: end(at: .disconnected)
        // Neither `disconnected` nor `timeWaitExit` follows.
        case .deviceRemoval: end(at: .over)
        case .disconnected:
            end(at: .disconnected)
            // The peer may wait for the answer even if this side has asked: both may have done so at once. Where it
            // does not wait, the kernel refuses.
            try? identifier.disconnect()
        case .timeWaitExit:
            advance(to: .over)
            queuePair?.release()
        default: break
        }
        let waiters = state.withLock { state in
            state.inbox.append(event)
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.finish(.ready) }
    }

    /// The connection is over, or the attempt to make it.
    private func end(at phase: Phase) {
        // First, so that who learns of the end finds the queue pair in ERR.
        fail(queuePair)
        // The task that connects may not have come to `connected` yet: this end stays.
        if self.phase >= .connecting { advance(to: phase) }
    }

    private func give(up error: ConnectionError) {
        let waiters = state.withLock { state in
            state.failure = error
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.finish(.ready) }
    }

    /// Moves the queue pair to ERR: what is posted completes as flushed. It may have failed or gone already.
    func fail(_ queuePair: QueuePairControl?) {
        guard let queuePair, !identifier.isIWARP else {
            // iWARP: the kernel moves it.
            try? queuePair?.refreshState()
            return
        }
        var attributes = QueuePair.Attributes()
        attributes.state = .error
        try? queuePair.modify(attributes)
    }

    /// Waits until `look` answers something about the state: nil when the time is over.
    ///
    /// - Throws: `cancelled` with the task; what made reading fail.
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
            if let failure { throw failure }
            let outcome = await waiter.outcome(until: deadline)
            if case .ready = outcome { continue }
            state.withLock { $0.waiters.removeAll { $0 === waiter } }
            if case .cancelled = outcome { throw ConnectionError(.cancelled, operation: operation()) }
            // What came at the last moment still counts.
            return state.withLock { look(&$0) }
        }
    }

    /// The next event: nil when the time is over.
    func next(
        until deadline: ContinuousClock.Instant?, _ operation: @autoclosure () -> String
    ) async throws(ConnectionError) -> ConnectionEvent? {
        try await wait(until: deadline, operation()) { $0.inbox.isEmpty ? nil : $0.inbox.removeFirst() }
    }

    /// Waits for an event of that kind, for `grace` longer than the caller has said.
    ///
    /// - Throws: what any other event means; `timedOut`.
    func await(
        _ kinds: [ConnectionEvent.Kind], within timeout: Duration, grace: Duration = .zero, _ operation: String
    ) async throws(ConnectionError) -> ConnectionEvent {
        let deadline = ContinuousClock.now + timeout + grace
        while true {
            guard let event = try await next(until: deadline, operation) else {
                throw ConnectionError(.timedOut(timeout), operation: operation)
            }
            if kinds.contains(event.kind) { return event }
            if let reason = event.failure(within: timeout) { throw ConnectionError(reason, operation: operation) }
        }
    }
}

extension ConnectionEvent {
    /// What an event means for who waits for another one; nil: nothing.
    func failure(within timeout: Duration) -> ConnectionError.Reason? {
        // The kernel keeps the time as well.
        if status < 0, errno == .timedOut { return .timedOut(timeout) }
        return switch kind {
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
