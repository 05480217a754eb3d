import CLinux
import Glibc
import Rendezvous
import Synchronization
import SystemPackage
import Verbs

/// A server on this machine: a child process, or a thread of this process.
struct LocalServer {
    /// The connection to the server: a socket pair, so that it needs no port and no other process can connect.
    let rendezvous: Rendezvous
    private let runner: Runner

    private enum Runner {
        case process(pid_t)
        case thread(ThreadWork)
    }

    /// The time limit for the server to end after its client has ended.
    static let endingTime: Duration = .seconds(5)

    /// Starts `verbs` with the connection as its standard input.
    static func process(_ command: String, _ device: DeviceOptions) throws(ToolError) -> LocalServer {
        let (rendezvous, remote) = try connection()
        defer { close(remote) }
        let process = try spawn([command, "--inherited"] + device.arguments, input: remote)
        return LocalServer(rendezvous: rendezvous, runner: .process(process))
    }

    /// Starts a server thread, which opens the device a second time.
    static func thread(_ device: DeviceOptions) throws(ToolError) -> LocalServer {
        let (rendezvous, remote) = try connection()
        let peer = try adopt(remote, peerName: "the client")
        let work = ThreadWork(peer: peer, device: device)
        try startThread(work)
        return LocalServer(rendezvous: rendezvous, runner: .thread(work))
    }

    /// A socket pair: the client's end, and the descriptor of the server's end.
    private static func connection() throws(ToolError) -> (Rendezvous, remote: CInt) {
        var pair: [CInt] = [-1, -1]
        let type = CInt(bitPattern: SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &pair) == 0 else { throw failure(errno) }
        return (try adopt(pair[0], peerName: "the local server"), pair[1])
    }

    private static func adopt(_ descriptor: CInt, peerName: String) throws(ToolError) -> Rendezvous {
        do throws(RendezvousError) {
            return try Rendezvous(adopting: FileDescriptor(rawValue: descriptor), peerName: peerName)
        } catch {
            throw ToolError(error)
        }
    }

    private static func spawn(_ arguments: [String], input: CInt) throws(ToolError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        // The signals are blocked until the server has installed its handlers: see Interrupt.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = Interrupt.signals
        posix_spawnattr_setsigmask(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var list = (["verbs"] + arguments).map { strdup($0) } + [nil]
        defer { for argument in list { free(argument) } }
        var process: pid_t = 0
        guard let program = linux_program_path() else { throw failure(ENOENT) }
        let code = posix_spawn(&process, program, &actions, &attributes, &list, environ)
        guard code == 0 else { throw failure(code) }
        return process
    }

    /// The argument of the thread.
    private final class ThreadWork {
        let peer: Rendezvous
        let device: DeviceOptions
        let hasEnded = Atomic<Bool>(false)

        init(peer: Rendezvous, device: DeviceOptions) {
            self.peer = peer
            self.device = device
        }

        func run() {
            serve()
            hasEnded.store(true, ordering: .releasing)
        }

        private func serve() {
            let control = ControlConnection(peer, as: .server)
            var server = Server(device)
            // The client receives the error, and reports it to the user.
            try? server.serve(control, control.next())
        }
    }

    private static func startThread(_ work: ThreadWork) throws(ToolError) {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(work)
        let code = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<ThreadWork>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, argument.toOpaque())
        guard code == 0 else {
            argument.release()
            throw failure(code)
        }
        pthread_detach(thread)
    }

    private static func failure(_ code: CInt) -> ToolError {
        ToolError(
            .failure, "cannot start the server: \(Errno(rawValue: code))",
            hint: "start both: a server with --listen, and a client with HOST localhost")
    }

    /// Closes the connection and waits for the server to end. A process that does not end by the deadline is killed; a
    /// thread keeps running until this process exits.
    ///
    /// - Parameter deadline: Nil: `endingTime` from now.
    func reap(until deadline: ContinuousClock.Instant? = nil) {
        rendezvous.close()
        let deadline = deadline ?? ContinuousClock.now + Self.endingTime
        switch runner {
        case .process(let process):
            var status: CInt = 0
            while waitpid(process, &status, WNOHANG) == 0 {
                if ContinuousClock.now >= deadline { kill(process, SIGKILL) }
                usleep(1000)
            }
        case .thread(let work):
            while !work.hasEnded.load(ordering: .acquiring), ContinuousClock.now < deadline { usleep(1000) }
        }
    }
}
