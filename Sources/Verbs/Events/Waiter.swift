import ProviderLoader

/// One task that waits for one thing: whoever is first, the thing or the cancellation, wakes it.
final class Waiter: Sendable {
    /// Why it woke.
    enum Outcome: Sendable {
        case ready
        case cancelled
        case failed(VerbsError)
    }

    private enum State {
        case new
        case waiting(CheckedContinuation<Outcome, Never>)
        case done(Outcome)
    }

    private let state = Locked(State.new)

    /// Lets the task wait; wakes it at once when the outcome is known already.
    func wait(_ continuation: CheckedContinuation<Outcome, Never>) {
        let outcome: Outcome? = state.withLock { state in
            if case .done(let outcome) = state { return outcome }
            state = .waiting(continuation)
            return nil
        }
        if let outcome { continuation.resume(returning: outcome) }
    }

    /// Wakes the task, unless something else did so before.
    ///
    /// - Returns: whether this call decided.
    @discardableResult
    func finish(_ outcome: Outcome) -> Bool {
        let (decided, continuation): (Bool, CheckedContinuation<Outcome, Never>?) = state.withLock { state in
            switch state {
            case .done: return (false, nil)
            case .new:
                state = .done(outcome)
                return (true, nil)
            case .waiting(let continuation):
                state = .done(outcome)
                return (true, continuation)
            }
        }
        continuation?.resume(returning: outcome)
        return decided
    }

    /// Whether the outcome is known.
    var isDone: Bool {
        state.withLock { state in
            if case .done = state { true } else { false }
        }
    }
}
