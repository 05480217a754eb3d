import Foundation
import Subprocess
import SystemPackage

/// A network namespace, which RoCE treats as another host. It exists as long as its sleeping process.
public struct NetworkNamespace: Sendable {
    /// The process of the namespace.
    public let holder: pid_t

    /// Whether this process may create one.
    public static let isPossible = geteuid() == 0 && system("unshare --net true") == 0

    /// The prefix of a command that runs in the namespace.
    public var entrance: [String] { ["nsenter", "--target", "\(holder)", "--net"] }

    /// Runs `body` with two hosts that an Ethernet connects: eth0 has 10.9.0.1 and fd09::1 on the first host, 10.9.0.2
    /// and fd09::2 on the second.
    public static func withTwo(_ body: (NetworkNamespace, NetworkNamespace) async throws -> Void) async throws {
        try await withOne { first in
            try await withOne { second in
                try await first.shell("ip link add eth0 type veth peer name eth0 netns \(second.holder)")
                try await first.shell(joining("eth0", as: 1, to: 2))
                try await second.shell(joining("eth0", as: 2, to: 1))
                try await body(first, second)
            }
        }
    }

    /// The shell commands that set up an interface of host `own` on the Ethernet with host `peer`: 10.9.0.N, and
    /// fd09::N if the MTU is large enough for IPv6.
    /// The link-layer addresses are static: neighbor discovery repeats a lost request only after a second, when a queue
    /// pair has already failed.
    public static func joining(_ interface: String, as own: Int, to peer: Int, mtu: Int = 1500) -> String {
        // One run of `ip` for all commands: on emulated processors, starting a program is slow.
        var lines = """
            ip -batch - <<END
            link set \(interface) address 02:00:00:00:09:0\(own) mtu \(mtu)
            address add 10.9.0.\(own)/24 dev \(interface)
            link set \(interface) up
            neighbour replace 10.9.0.\(peer) lladdr 02:00:00:00:09:0\(peer) dev \(interface)
            """
        // RFC 8200: the minimum MTU of IPv6 is 1280 bytes.
        if mtu >= 1280 {
            lines += """

                address add fd09::\(own)/64 dev \(interface) nodad
                neighbour replace fd09::\(peer) lladdr 02:00:00:00:09:0\(peer) dev \(interface)
                """
        }
        return lines + "\nEND"
    }

    /// Runs `body` with a host that has only a loopback interface.
    public static func withOne(_ body: (NetworkNamespace) async throws -> Void) async throws {
        let command = ["unshare", "--net", "sh", "-ec", "ip link set lo up; exec sleep infinity"]
        try await whileRunning(command) { holder in
            try await body(NetworkNamespace(sleeping: holder))
        }
    }

    /// A host that has only a loopback interface, until `end`.
    public static func start() async throws -> NetworkNamespace {
        let said = try await shellHere(
            "unshare --net sh -ec 'ip link set lo up; exec sleep infinity' </dev/null >/dev/null 2>&1 & echo $!")
        guard let holder = pid_t(said.filter(\.isNumber)) else { throw Failure(lines: "unshare", said: said) }
        return try await NetworkNamespace(sleeping: holder)
    }

    /// Ends a host that `start` created.
    public func end() { kill(holder, SIGKILL) }

    /// The host of a process that will run sleep(1). Before that, `nsenter` could enter the current namespace.
    private init(sleeping holder: pid_t) async throws {
        while try String(contentsOfFile: "/proc/\(holder)/comm", encoding: .utf8) != "sleep\n" {
            try await Task.sleep(for: .milliseconds(5))
        }
        self.holder = holder
    }

    /// Runs a program in the namespace during `body`, and kills it afterwards.
    public func whileRunning(_ command: [String], _ body: () async throws -> Void) async throws {
        try await Self.whileRunning(entrance + command) { _ in try await body() }
    }

    private static func whileRunning(_ command: [String], _ body: (pid_t) async throws -> Void) async throws {
        _ = try await Subprocess.run(
            .name(command[0]), arguments: Arguments(Array(command.dropFirst())), input: .none, output: .discarded,
            error: .discarded
        ) { execution in
            defer { kill(execution.processIdentifier.value, SIGKILL) }
            try await body(execution.processIdentifier.value)
        }
    }

    /// Shell commands that failed, with their output.
    public struct Failure: Error { public var lines, said: String }

    /// Runs shell commands in the namespace, and returns their output.
    @discardableResult
    public func shell(_ lines: String) async throws -> String { try await Self.shell(lines, entrance) }

    /// Runs shell commands in the current namespace, and returns their output.
    @discardableResult
    public static func shellHere(_ lines: String) async throws -> String { try await shell(lines, []) }

    private static func shell(_ lines: String, _ entrance: [String]) async throws -> String {
        let command = entrance + ["sh", "-ec", lines]
        let result = try await Subprocess.run(
            .name(command[0]), arguments: Arguments(Array(command.dropFirst())), input: .none,
            output: .string(limit: 1 << 16), error: .string(limit: 1 << 16))
        guard result.terminationStatus.isSuccess else {
            throw Failure(lines: lines, said: result.standardOutput + result.standardError)
        }
        return result.standardOutput
    }
}
