import Glibc
import Synchronization

/// SIGINT and SIGTERM as a flag that the running loops look at, so that both sides end with a summary.
///
/// The first signal asks, a second one ends the process at once. What follows within `echo` is the first one again:
/// timeout(1) sends each signal to the process and to its group.
enum Interrupt {
    private static let received = Atomic<CInt>(0)
    /// When the first signal came, in nanoseconds of `Clock`.
    private static let first = Atomic<UInt64>(0)
    private static let echo: UInt64 = 100_000_000

    /// The signals that ask for the end of a run.
    static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }

    /// Takes the signals over. Called where a run begins: until then they end the program as ever.
    static func install() {
        // Touched here so that the handler finds them initialised.
        received.store(0, ordering: .relaxed)
        first.store(0, ordering: .relaxed)
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { Interrupt.take($0) }
        // No SA_RESTART: waiting system calls return and the flag is seen.
        sigaction(SIGINT, &action, nil)
        sigaction(SIGTERM, &action, nil)
        // A local server is started with its signals held back, so that none ends it before this point.
        var signals = signals
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    /// Runs in the signal handler: only what signal-safety(7) allows.
    private static func take(_ signal: CInt) {
        let now = Clock.now()
        let (isFirst, begin) = first.compareExchange(expected: 0, desired: now, ordering: .relaxed)
        if isFirst {
            received.store(signal, ordering: .relaxed)
        } else if now &- begin > echo {
            _exit(128 + signal)
        }
    }

    static var isRequested: Bool { received.load(ordering: .relaxed) != 0 }

    /// The exit code that the signal calls for; nil if there was none.
    static var exit: ToolExit? {
        switch received.load(ordering: .relaxed) {
        case 0: nil
        case SIGTERM: .terminated
        default: .interrupted
        }
    }
}
