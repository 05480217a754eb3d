import Glibc
import Synchronization

/// SIGINT and SIGTERM as a flag that the running loops poll, so that both peers end with a summary.
///
/// The first signal requests the end of the run, a second one ends the process at once. A signal within `echo` after
/// the first one is a repetition of it: timeout(1) sends each signal to the process and to its process group.
enum Interrupt {
    private static let received = Atomic<CInt>(0)
    /// The time of the first signal, in nanoseconds of `Clock`.
    private static let first = Atomic<UInt64>(0)
    private static let echo: UInt64 = 100_000_000

    /// The signals that request the end of a run.
    static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }

    /// Installs the handlers. Called at the beginning of a run: until then the signals have their default action.
    static func install() {
        // Accessed here so that they are initialised before the handler runs.
        received.store(0, ordering: .relaxed)
        first.store(0, ordering: .relaxed)
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { Interrupt.take($0) }
        // No SA_RESTART: a blocking system call returns EINTR, and the caller checks the flag.
        sigaction(SIGINT, &action, nil)
        sigaction(SIGTERM, &action, nil)
        // A local server is started with these signals blocked, so that none ends it before this point.
        var signals = signals
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    /// Runs in the signal handler, so it calls only functions that signal-safety(7) allows.
    private static func take(_ signal: CInt) {
        let now = Clock.now()
        let (isFirst, begin) = first.compareExchange(expected: 0, desired: now, ordering: .relaxed)
        if isFirst {
            received.store(signal, ordering: .relaxed)
        } else if now &- begin > echo {
            _exit(128 + signal)
        }
    }

    /// Requests the end of the run, as SIGTERM does.
    static func request() {
        _ = received.compareExchange(expected: 0, desired: SIGTERM, ordering: .relaxed)
    }

    static var isRequested: Bool { received.load(ordering: .relaxed) != 0 }

    /// The exit code for the signal that was received; nil if none was.
    static var exit: ToolExit? {
        switch received.load(ordering: .relaxed) {
        case 0: nil
        case SIGTERM: .terminated
        default: .interrupted
        }
    }
}
