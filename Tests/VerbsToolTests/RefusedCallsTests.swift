import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

/// If the system rejects a call, `verbs` works with a fallback, or ends with an exit code that verbs(1) documents and
/// reports the errno value.
@Suite("verbs with system calls that fail")
struct RefusedCallsTests {
    private static let commands = [["info", "soft0"], ["ping", "--count", "3"]]

    /// Runs `verbs` for at most ten minutes. Expects success, or a documented exit code and one of the causes in the
    /// error.
    private func run(_ arguments: [String], by launcher: [String], _ causes: [String], _ what: String) async throws {
        let launcher = ["timeout", "--signal=KILL", "600"] + launcher
        let outcome = try await Tool.run(arguments, by: launcher)
        let place = Comment("\(what), \(arguments): \(outcome)")
        #expect(ToolExit(rawValue: outcome.status) != nil, place)
        if outcome.status != 0 { #expect(causes.contains { outcome.errors.contains($0) }, place) }
    }

    @Test(
        "The limit of file descriptors is reached at different calls: the error reports it",
        arguments: [4, 5, 7, 9, 10, 11, 12, 13, 14, 16])
    func descriptors(limit: Int) async throws {
        let launcher = ["sh", "-c", "ulimit -n \(limit); exec \"$0\" \"$@\""]
        for command in Self.commands {
            try await run(command, by: launcher, ["Too many open files"], "\(limit) descriptors")
        }
    }

    // With a lower limit the result depends on the build.
    @Test("With little address space, ping works or the error names the limit")
    func addressSpace() async throws {
        let launcher = ["sh", "-c", "ulimit -v 262144; exec \"$0\" \"$@\""]
        for command in Self.commands { try await run(command, by: launcher, ["ulimit -v"], "256 MiB") }
    }

    private static let refuseCalls = Tool.built("refuse-calls")

    /// System calls of `verbs` whose failure `verbs` reports.
    private static let calls = [
        "socket", "bind", "ioctl", "eventfd2", "timerfd_create", "socketpair", "clone3", "setsockopt",
        "getsockopt", "poll", "sched_setscheduler", "readlink", "recvmmsg", "sendmmsg", "connect", "madvise", "access",
    ]

    @Test("A system call is forbidden: the error contains the errno value", arguments: calls)
    func forbidden(call: String) async throws {
        let launcher = [Self.refuseCalls, "1", call, "--"]
        for command in Self.commands {
            try await run(command, by: launcher, ["Operation not permitted", "EPERM"], "\(call) forbidden")
        }
    }

    @Test(
        "A system call fails with ENOSYS or ENOMEM: the error contains the cause",
        arguments: ["socket", "eventfd2", "timerfd_create", "ioctl"])
    func missing(call: String) async throws {
        for (number, causes) in [("38", ["Function not implemented", "ENOSYS"]), ("12", ["Cannot allocate memory"])] {
            try await run(["info", "soft0"], by: [Self.refuseCalls, number, call, "--"], causes, "\(call): \(number)")
        }
    }

    @Test(
        "Interfaces cannot be listed: the error reports it, and does not mention RDMA_SOFT_INTERFACES, which is not set"
    )
    func interfaces() async throws {
        let outcome = try await Tool.run("devices", by: [Self.refuseCalls, "1", "ioctl", "--"])
        #expect(outcome.status == ToolExit.noDevice.rawValue, "\(outcome)")
        #expect(outcome.errors.contains("EPERM (Operation not permitted): a sandbox forbids the call"), "\(outcome)")
        #expect(!outcome.errors.contains("RDMA_SOFT_INTERFACES"), "\(outcome)")
    }

    @Test("Warnings of a provider are printed once, below the error or by RDMA_LOG", arguments: [nil, "warning"])
    func warnings(level: String?) async throws {
        var environment = ["RDMA_SOFT_INTERFACES": "nosuch0"]
        environment["RDMA_LOG"] = level
        let outcome = try await Tool.run("info", "nosuch", environment: environment)
        #expect(outcome.status == ToolExit.noDevice.rawValue)
        let message = "RDMA_SOFT_INTERFACES names nosuch0, which is not an interface of this host"
        // RDMA_LOG prints a warning every time the provider logs it.
        let prefix = level == nil ? "  warning from soft: " : "rdma: soft: warning: "
        #expect(outcome.errors.contains(prefix + message), "\(outcome.errors)")
        let count = outcome.errors.components(separatedBy: "warning from soft").count - 1
        #expect(count == (level == nil ? 1 : 0), "\(outcome.errors)")
    }

    @Test(
        "Without /proc, the command line is still read: ping works, and a wrong command is an error",
        .enabled(if: NetworkNamespace.isPossible))
    func withoutProc() async throws {
        let launcher = ["unshare", "--mount", "sh", "-c", "umount -l /proc && exec \"$0\" \"$@\""]
        let ping = try await Tool.run("ping", "--count", "10", "--verify", by: launcher)
        #expect(ping.status == 0 && ping.output.contains("every byte correct"), "\(ping)")
        let wrong = try await Tool.run("no-such-command", by: launcher)
        #expect(wrong.status == ToolExit.usage.rawValue && wrong.errors.contains("no-such-command"), "\(wrong)")
    }
}
