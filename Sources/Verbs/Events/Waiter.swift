import Locking

/// One waiting task. The first of these wakes it: the awaited event, the cancellation, the end of the time limit.
package final class Waiter: Sendable {
    /// The reason of the wake-up.
    package enum Outcome: Sendable {
        case ready
        case cancelled
        case timedOut
        case failed(VerbsError)
    }

    private enum State {
        case new
        case waiting(CheckedContinuation<Outcome, Never>)
        case done(Outcome)
    }

    private let state = Locked(State.new)

    /// Makes a waiter that has no outcome yet.
    package init() {}

    /// Suspends the task, or resumes it at once when the outcome is already known.
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
    /// - Returns: Whether this call ended the wait; false when another call did before.
    @discardableResult
    package func finish(_ outcome: Outcome) -> Bool {
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

    /// Suspends the task until `finish` is called, the deadline passes, or the task is cancelled.
    package func outcome(until deadline: ContinuousClock.Instant?) async -> Outcome {
        let alarm = deadline.map { deadline in
            Task {
                // Cancelled when another outcome came first.
                guard (try? await Task.sleep(until: deadline, clock: .continuous)) != nil else { return }
                finish(.timedOut)
            }
        }
        defer { alarm?.cancel() }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { wait($0) }
        } onCancel: {
            finish(.cancelled)
        }
    }

    /// Whether the outcome is known.
    var isDone: Bool {
        state.withLock { state in
            if case .done = state { true } else { false }
        }
    }
}
