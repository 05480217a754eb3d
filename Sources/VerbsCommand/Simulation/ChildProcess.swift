import Glibc
import SystemPackage

/// A command that this process runs on its behalf: in the same terminal, with the same signals.
enum ChildProcess {
    /// Runs a command until it exits. Returns its exit code, or 128 plus the number of the signal that ended it, as a
    /// shell does.
    static func run(_ command: [String], environment: [String: String]) throws(ToolError) -> Int32 {
        // Ctrl-C reaches the command directly, which handles it; signals sent to this process alone are forwarded.
        var blocked = sigset_t()
        sigemptyset(&blocked)
        for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGCHLD] { sigaddset(&blocked, signal) }
        var previous = sigset_t()
        signal(SIGCHLD, SIG_DFL)
        pthread_sigmask(SIG_BLOCK, &blocked, &previous)
        defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
        let process = try spawn(command, environment, mask: previous)
        while true {
            var status: CInt = 0
            if waitpid(process, &status, WNOHANG) == process { return code(status) }
            var signal: CInt = 0
            guard sigwait(&blocked, &signal) == 0 else { continue }
            if signal == SIGTERM || signal == SIGHUP { kill(process, signal) }
        }
    }

    private static func code(_ status: CInt) -> Int32 {
        let signal = status & 0x7F
        return signal == 0 ? status >> 8 & 0xFF : 128 + signal
    }

    private static func spawn(
        _ command: [String], _ environment: [String: String], mask: sigset_t
    ) throws(ToolError) -> pid_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = mask
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var arguments = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var variables = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for variable in variables { free(variable) } }
        var process: pid_t = 0
        let code = posix_spawnp(&process, command[0], nil, &attributes, &arguments, &variables)
        guard code == 0 else {
            throw ToolError(
                .failure, "cannot start \(command[0]): \(Errno(rawValue: code))",
                hint: "check that it is in PATH and executable; shell builtins such as cd need a shell: sh -c '...'")
        }
        return process
    }
}
