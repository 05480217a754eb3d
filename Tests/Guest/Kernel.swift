import Foundation
import Glibc
import Testing
import ToolSupport

/// All suites that need a kernel with RDMA: they run where `scripts/guest` has booted one, and one after the other,
/// since they share its devices.
@Suite(
    "In a guest with Debian's kernel", .serialized,
    .enabled(if: ProcessInfo.processInfo.environment["RDMA_GUEST"] != nil, "scripts/guest runs them"))
enum Guest {}

/// The kernel's software device rxe0 on an Ethernet to another host, which has no RDMA of the kernel's.
///
/// | | this host | the other |
/// |---|---|---|
/// | interface | veth0 | eth0 |
/// | addresses | 10.9.0.1, fd09::1 | 10.9.0.2, fd09::2 |
struct Bench {
    let other: NetworkNamespace

    /// The pair that the next test gets: to make one takes longer than many a test. Tests run one after the other.
    private nonisolated(unsafe) static var kept: Bench?

    /// Runs `body` with such a pair of hosts. Afterwards the kernel must hold no more objects of ours than before.
    /// - Parameter alone: whether they are made for this test, and removed behind it: because it changes them.
    static func run(mtu: Int = 1500, alone: Bool = false, _ body: (Bench) async throws -> Void) async throws {
        let isOwn = alone || mtu != 1500
        if isOwn { try await removeKept() }
        let bench: Bench
        if let kept { bench = kept } else { bench = try await make(mtu: mtu) }
        kept = bench
        do {
            try await keepingResources { try await body(bench) }
        } catch {
            try await removeKept()
            throw error
        }
        if isOwn { try await removeKept() }
    }

    /// For a test that wants no hosts besides.
    static func removeKept() async throws {
        guard let bench = kept else { return }
        kept = nil
        // Takes rxe0 with it.
        try await shell("ip link delete veth0")
        bench.other.end()
    }

    private static func make(mtu: Int) async throws -> Bench {
        let other = try await NetworkNamespace.start()
        try await shell("ip link add veth0 type veth peer name eth0 netns \(other.holder)")
        try await shell(NetworkNamespace.joining("veth0", as: 1, to: 2, mtu: mtu))
        try await other.shell(NetworkNamespace.joining("eth0", as: 2, to: 1, mtu: mtu))
        try await shell("rdma link add rxe0 type rxe netdev veth0")
        try await awaitAddresses(hasIPv6: mtu >= 1280)
        return Bench(other: other)
    }

    /// Runs `body`, after which the kernel must hold no more objects of ours than before.
    private static func keepingResources(_ body: () async throws -> Void) async throws {
        let before = try await resources()
        try await body()
        let after = try await resources()
        if before != after { throw Leak(before: before, after: after) }
    }

    /// Runs `body` with hfi1_0, an adapter without hardware that is its own only peer: rdmavt_loopback/. Afterwards the
    /// kernel must hold no more objects of ours than before.
    static func runLoopback(_ body: () async throws -> Void) async throws {
        let module = try #require(ProcessInfo.processInfo.environment["RDMA_TEST_MODULE"])
        try await shell("insmod '\(module)'")
        do {
            try await keepingResources(body)
        } catch {
            // What a failed test has left open may keep it: that test is what must be said.
            _ = try? await shell("rmmod rdmavt_loopback")
            throw error
        }
        try await shell("rmmod rdmavt_loopback")
    }

    /// What the kernel's resource list has more, or less, after a test than before it.
    struct Leak: Error { var before, after: String }

    /// The kernel enters an interface's addresses in the GID table some time after they were added.
    private static func awaitAddresses(hasIPv6: Bool) async throws {
        let wanted = ["ffff:0a09:0001"] + (hasIPv6 ? ["fd09:0000:0000:0000:0000:0000:0000:0001"] : [])
        let table = "/sys/class/infiniband/rxe0/ports/1/gids/"
        while true {
            let entries = try FileManager.default.contentsOfDirectory(atPath: table)
                // The kernel has an error for a place without an address.
                .compactMap { try? String(contentsOfFile: table + $0, encoding: .utf8) }
            if wanted.allSatisfy({ address in entries.contains { $0.contains(address) } }) { return }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// What the kernel has of RDMA objects, but for its own.
    static func resources() async throws -> String {
        try await shell(
            """
            for kind in qp cq pd mr cm_id ctx srq; do echo "resource show $kind"; done | rdma -b - >/dev/shm/resources
            grep -v 'comm \\[' /dev/shm/resources || :
            """)
    }

    @discardableResult
    static func shell(_ lines: String) async throws -> String { try await NetworkNamespace.shellHere(lines) }
}
