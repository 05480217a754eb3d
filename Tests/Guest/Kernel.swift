import Foundation
import Glibc
import Testing
import ToolSupport

/// All suites that need a kernel with RDMA. They run in the guest that `scripts/guest` boots, serialized because they
/// share its devices.
@Suite(
    "In a guest with Debian's kernel", .serialized,
    .enabled(if: ProcessInfo.processInfo.environment["RDMA_GUEST"] != nil, "scripts/guest runs them"))
enum Guest {}

/// The kernel's software device rxe0 on an Ethernet link to another host (network namespace) without a kernel RDMA
/// device.
///
/// | | this host | peer host |
/// |---|---|---|
/// | interface | veth0 | eth0 |
/// | addresses | 10.9.0.1, fd09::1 | 10.9.0.2, fd09::2 |
struct Bench {
    let other: NetworkNamespace

    /// The hosts for the next test, kept because creating them takes longer than many tests. Tests are serialized.
    private nonisolated(unsafe) static var kept: Bench?

    /// Runs `body` with the two hosts. Afterwards the kernel must have no more RDMA objects than before.
    /// - Parameter alone: Whether the hosts are created for this test and removed after it, because it changes them.
    static func run(mtu: Int = 1500, alone: Bool = false, _ body: (Bench) async throws -> Void) async throws {
        let isOwn = alone || mtu != 1500
        try await IwarpBench.removeKept()
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

    /// Removes the kept hosts, for a test that requires a single network namespace.
    static func removeKept() async throws {
        guard let bench = kept else { return }
        kept = nil
        // Also removes rxe0.
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

    /// Runs `body`, after which the kernel must have no more RDMA objects than before.
    static func keepingResources(_ body: () async throws -> Void) async throws {
        let before = try await resources()
        try await body()
        let after = try await resources()
        if before != after { throw Leak(before: before, after: after) }
    }

    /// Runs `body` with hfi1_0, a loopback adapter without hardware (rdmavt_loopback/). Afterwards the kernel must have
    /// no more RDMA objects than before.
    static func runLoopback(_ body: () async throws -> Void) async throws {
        try await IwarpBench.removeKept()
        let module = try #require(ProcessInfo.processInfo.environment["RDMA_TEST_MODULE"])
        try await shell("insmod '\(module)'")
        do {
            try await keepingResources(body)
        } catch {
            // rmmod may fail because the failed test left objects open; the error to report is the test's.
            _ = try? await shell("rmmod rdmavt_loopback")
            throw error
        }
        try await shell("rmmod rdmavt_loopback")
    }

    /// The kernel's resource lists before and after a test that left objects behind.
    struct Leak: Error { var before, after: String }

    /// Waits until the addresses are in the GID table: the kernel adds them some time after the interface gets them.
    private static func awaitAddresses(hasIPv6: Bool) async throws {
        let wanted = ["ffff:0a09:0001"] + (hasIPv6 ? ["fd09:0000:0000:0000:0000:0000:0000:0001"] : [])
        let table = "/sys/class/infiniband/rxe0/ports/1/gids/"
        while true {
            let entries = try FileManager.default.contentsOfDirectory(atPath: table)
                // The kernel returns an error for a GID index without an address.
                .compactMap { try? String(contentsOfFile: table + $0, encoding: .utf8) }
            if wanted.allSatisfy({ address in entries.contains { $0.contains(address) } }) { return }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// The kernel's RDMA objects that belong to processes, without those of kernel modules.
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
