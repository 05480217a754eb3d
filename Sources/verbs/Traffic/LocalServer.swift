import Glibc
import Synchronization
import SystemPackage
import Verbs

/// A server on this machine: a process of its own, or a thread of this one.
struct LocalServer {
    /// The connection to it: a socket pair, so that no port is taken and nobody else can come in between.
    let rendezvous: Rendezvous
    private let runner: Runner

    private enum Runner {
        case process(pid_t)
        case thread(ThreadWork)
    }

    /// How long a server may take to end after its client has.
    private static let endingTime: Duration = .seconds(5)

    /// Starts `verbs` again, with its standard input as the connection.
    static func process(_ command: String, _ device: DeviceOptions) throws(ToolError) -> LocalServer {
        let (rendezvous, remote) = try connection()
        defer { close(remote) }
        let process = try spawn([command, "--inherited"] + device.arguments, input: remote)
        return LocalServer(rendezvous: rendezvous, runner: .process(process))
    }

    /// Starts a thread that serves, over a device that it opens for itself.
    static func thread(_ device: DeviceOptions) throws(ToolError) -> LocalServer {
        let (rendezvous, remote) = try connection()
        let peer = try adopt(remote, peerName: "the client")
        let work = ThreadWork(peer: peer, device: device)
        try startThread(work)
        return LocalServer(rendezvous: rendezvous, runner: .thread(work))
    }

    /// This side's end of a socket pair, and the descriptor of the other.
    private static func connection() throws(ToolError) -> (Rendezvous, remote: CInt) {
        var pair: [CInt] = [-1, -1]
        let kind = CInt(bitPattern: SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &pair) == 0 else { throw failure(errno) }
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
        // No signal ends the server before it takes them over: see Interrupt.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = Interrupt.signals
        posix_spawnattr_setsigmask(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var list = (["verbs"] + arguments).map { strdup($0) } + [nil]
        defer { for argument in list { free(argument) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, "/proc/self/exe", &actions, &attributes, &list, environ)
        guard code == 0 else { throw failure(code) }
        return process
    }

    /// What the thread is handed.
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
            let conversation = Conversation(peer, as: .server)
            var server = Server(device)
            // The client has been told of a failure, and tells the user.
            try? server.serve(conversation, conversation.next())
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
            hint: "run both sides yourself: verbs ping --listen, and verbs ping localhost")
    }

    /// Waits until the server has ended, whose client has: it is told so. A process that takes too long is ended, a
    /// thread left to the end of this process.
    func reap() {
        rendezvous.close()
        let deadline = ContinuousClock.now + Self.endingTime
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
