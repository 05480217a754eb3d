import Glibc
import Synchronization

/// SIGINT and SIGTERM as a flag that the running loops look at, so that both sides end with a summary.
///
/// The first signal asks, a second one ends the process at once.
enum Interrupt {
    private static let received = Atomic<CInt>(0)

    /// Takes the signals over. Called where a run begins: until then they end the program as ever.
    static func install() {
        // Touched here so that the handler finds it initialised.
        received.store(0, ordering: .relaxed)
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { Interrupt.received.store($0, ordering: .relaxed) }
        // No SA_RESTART: waiting system calls return and the flag is seen.
        action.sa_flags = CInt(bitPattern: UInt32(SA_RESETHAND))
        sigaction(SIGINT, &action, nil)
        sigaction(SIGTERM, &action, nil)
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
