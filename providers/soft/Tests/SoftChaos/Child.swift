import Glibc

/// Limits of a peer process.
struct Limits: CustomStringConvertible {
    /// RLIMIT_FSIZE in bytes.
    var fileSize: Int?
    /// The number of descriptors that the process may open besides those that it begins with (RLIMIT_NOFILE).
    var descriptors: Int?

    var arguments: [String] { [fileSize.map { "fsize=\($0)" }, descriptors.map { "nofile=\($0)" }].compactMap { $0 } }
    var description: String { arguments.joined(separator: " ") }

    /// Sets the limits of this process.
    static func apply(_ arguments: some Sequence<String>) throws {
        for argument in arguments {
            let parts = argument.split(separator: "=")
            guard parts.count == 2, let value = Int(parts[1]) else { throw Failure("\(argument): not NAME=NUMBER") }
            switch parts[0] {
            case "fsize": try set(RLIMIT_FSIZE, rlim_t(value))
            case "nofile":
                var limit: Int32 = 0
                var left = value
                while left > 0 || fcntl(limit, F_GETFD) >= 0 {
                    if fcntl(limit, F_GETFD) < 0 { left -= 1 }
                    limit += 1
                }
                try set(RLIMIT_NOFILE, rlim_t(limit))
            default: throw Failure("\(argument): unknown limit")
            }
        }
    }

    /// Raises the limits again, before the process ends: the leak sanitizer needs descriptors.
    static func lift() {
        for limit in [RLIMIT_FSIZE, RLIMIT_NOFILE] {
            var limits = rlimit()
            getrlimit(__rlimit_resource_t(limit.rawValue), &limits)
            limits.rlim_cur = limits.rlim_max
            setrlimit(__rlimit_resource_t(limit.rawValue), &limits)
        }
    }

    private static func set(_ limit: __rlimit_resource, _ value: rlim_t) throws {
        var limits = rlimit()
        getrlimit(__rlimit_resource_t(limit.rawValue), &limits)
        limits.rlim_cur = value
        guard setrlimit(__rlimit_resource_t(limit.rawValue), &limits) == 0 else {
            throw Failure("setrlimit: \(String(cString: strerror(errno)))")
        }
    }
}

/// A peer process of the controller.
final class Child {
    /// The longest time for an answer or an exit. Only a broken run reaches it.
    static let patience = Duration.seconds(300)

    let role: Int
    let identifier: pid_t
    private let input: Int32
    private var output: LineReader
    private var hasExited = false
    /// Answers that came before the ones that were waited for.
    private var waiting: [Answer] = []

    init(role: Int, _ limits: Limits) throws {
        var toChild: [Int32] = [0, 0]
        var fromChild: [Int32] = [0, 0]
        guard pipe(&toChild) == 0, pipe(&fromChild) == 0 else { throw Failure("no pipe") }
        for descriptor in toChild + fromChild { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, toChild[0], STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], STDOUT_FILENO)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let words = [CommandLine.arguments[0], "peer", "\(role)"] + limits.arguments
        var arguments = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var child: pid_t = 0
        let error = posix_spawn(&child, "/proc/self/exe", &actions, nil, &arguments, environ)
        guard error == 0 else { throw Failure("posix_spawn: \(String(cString: strerror(error)))") }
        close(toChild[0])
        close(fromChild[1])
        self.role = role
        identifier = child
        input = toChild[1]
        output = LineReader(fromChild[0])
    }

    deinit {
        if !hasExited {
            Glibc.kill(identifier, SIGKILL)
            waitpid(identifier, nil, 0)
        }
        close(input)
        close(output.descriptor)
    }

    func tell(_ command: Command) throws { try writeAll(encoded(command), to: input) }

    /// The next answer of that kind. Answers of other kinds are kept.
    @discardableResult
    func answer(_ kind: Answer.Kind) throws -> Answer { try firstAnswer([kind]) }

    /// The next answer of one of those kinds.
    func firstAnswer(_ kinds: [Answer.Kind]) throws -> Answer {
        let end = ContinuousClock.now + Self.patience
        while true {
            if let index = waiting.firstIndex(where: { kinds.contains($0.kind) }) { return waiting.remove(at: index) }
            guard ContinuousClock.now < end else {
                throw Failure("peer \(role) hangs: no answer '\(kinds[0].rawValue)' within \(Self.patience)")
            }
            guard let line = output.line(isReadable: isReadable(output.descriptor, milliseconds: 100)) else {
                if output.hasEnded { throw Failure("peer \(role) ended: \(waitForExit())") }
                continue
            }
            let answer = try decoded(Answer.self, line)
            if answer.kind == .failure { throw Failure("peer \(role): \(answer.text ?? "")") }
            waiting.append(answer)
        }
    }

    func hasAnswered(_ kind: Answer.Kind) -> Bool { waiting.contains { $0.kind == kind } }

    func signal(_ signal: Int32) { Glibc.kill(identifier, signal) }

    /// Kills the process. What it said before does not count.
    func kill() {
        signal(SIGKILL)
        _ = waitForExit()
    }

    /// Waits until the process has ended. The description of its end; empty when it ended with status 0.
    func waitForExit() -> String {
        let end = ContinuousClock.now + Self.patience
        var status: Int32 = 0
        while waitpid(identifier, &status, WNOHANG) == 0 {
            if ContinuousClock.now > end { return "it hangs" }
            usleep(500)
        }
        hasExited = true
        if status & 0x7F != 0 { return "killed by signal \(status & 0x7F)" }
        return status == 0 ? "" : "status \(status >> 8)"
    }
}
