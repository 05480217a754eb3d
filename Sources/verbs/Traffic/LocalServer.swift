import Glibc
import SystemPackage
import Verbs

/// A server in a process of its own on this machine: `verbs` runs itself again.
struct LocalServer {
    /// The connection to it: a socket pair, so that no port is taken and nobody else can come in between.
    let rendezvous: Rendezvous
    private let process: pid_t

    /// How long a server may take to end after its client has.
    private static let endingTime: Duration = .seconds(5)

    /// Starts `verbs` with those arguments; its standard input is the connection.
    static func start(_ arguments: [String]) throws(ToolError) -> LocalServer {
        var pair: [CInt] = [-1, -1]
        let kind = CInt(bitPattern: SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &pair) == 0 else { throw failure(errno) }
        defer { close(pair[1]) }
        let peer: Rendezvous
        do throws(RendezvousError) {
            peer = try Rendezvous(adopting: FileDescriptor(rawValue: pair[0]), peerName: "the local server")
        } catch {
            throw ToolError(error)
        }
        return LocalServer(rendezvous: peer, process: try spawn(arguments, input: pair[1]))
    }

    private static func spawn(_ arguments: [String], input: CInt) throws(ToolError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        var list = (["verbs"] + arguments).map { strdup($0) } + [nil]
        defer { for argument in list { free(argument) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, "/proc/self/exe", &actions, nil, &list, environ)
        guard code == 0 else { throw failure(code) }
        return process
    }

    private static func failure(_ code: CInt) -> ToolError {
        ToolError(
            .failure, "cannot start the server process: \(Errno(rawValue: code))",
            hint: "run both sides yourself: verbs ping --listen, and verbs ping localhost")
    }

    /// Waits until the server's process has ended; ends it if it takes too long.
    func reap() {
        let deadline = ContinuousClock.now + Self.endingTime
        var status: CInt = 0
        while waitpid(process, &status, WNOHANG) == 0 {
            if ContinuousClock.now >= deadline { kill(process, SIGKILL) }
            usleep(1000)
        }
    }
}
