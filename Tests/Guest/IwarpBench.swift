import ConnectionManager
import Foundation
import Testing
import ToolSupport
import Verbs

/// The kernel's software iWARP device siw0 on an Ethernet link to another host (network namespace) with siw1.
///
/// | | this host | peer host |
/// |---|---|---|
/// | device | siw0 | siw1 |
/// | interface | veth1 | eth1 |
/// | addresses | 10.10.0.1, fd10::1 | 10.10.0.2, fd10::2 |
struct IwarpBench {
    static let address = ConnectionAddress("10.10.0.1:7471")!

    /// The other host, kept because creating it takes longer than many tests. Tests are serialized.
    private nonisolated(unsafe) static var kept: NetworkNamespace?
    /// The process of the other host, for the processes of exit tests.
    private static let holderFile = "/dev/shm/iwarp-peer"

    /// Runs `body` in a process of its own, since librdmacm keeps devices open until the process exits. Afterwards
    /// neither that process nor the kernel may have more RDMA objects than before.
    ///
    /// - Parameter alone: Whether the host and the devices are made for this test and removed after it.
    static func run(alone: Bool = false, _ body: () async throws -> Void) async throws {
        // rxe would answer for addresses of its own interface only, but programs list all devices.
        try await Bench.removeKept()
        if alone { try await removeKept() }
        if kept == nil { kept = try await make() }
        do {
            try await Bench.keepingResources(body)
        } catch {
            try await removeKept()
            throw error
        }
        if alone { try await removeKept() }
    }

    /// Removes both devices.
    static func removeKept() async throws {
        guard let host = kept else { return }
        kept = nil
        try await Bench.shell("ip link delete veth1")
        try await soon("[ ! -e /sys/class/infiniband/siw0 ] && [ ! -e /sys/class/infiniband/siw1 ]")
        host.end()
    }

    private static func make() async throws -> NetworkNamespace {
        let host = try await NetworkNamespace.start()
        // siw binds a listener at all addresses to the interface of each device, by its number. Both hosts' devices are
        // visible on each, so the numbers must differ.
        try await Bench.shell(
            """
            ip link add veth1 index 1001 type veth peer name eth1 netns \(host.holder)
            echo \(host.holder) >\(holderFile)
            """)
        try await Bench.shell(addressing)
        try await host.shell(joining("eth1", as: 2, to: 1) + "\nrdma link add siw1 type siw netdev eth1")
        try await Bench.shell("rdma link add siw0 type siw netdev veth1")
        return host
    }

    /// Shell commands that give veth1 its addresses again.
    static var addressing: String { joining("veth1", as: 1, to: 2) }

    /// As `NetworkNamespace.joining`, with other addresses.
    private static func joining(_ interface: String, as own: Int, to peer: Int) -> String {
        """
        ip -batch - <<END
        link set \(interface) address 02:00:00:00:10:0\(own)
        address replace 10.10.0.\(own)/24 dev \(interface)
        address replace fd10::\(own)/64 dev \(interface) nodad
        link set \(interface) up
        neighbour replace 10.10.0.\(peer) lladdr 02:00:00:00:10:0\(peer) dev \(interface)
        neighbour replace fd10::\(peer) lladdr 02:00:00:00:10:0\(peer) dev \(interface)
        END
        """
    }

    /// The prefix of a command that runs on the peer host.
    static func onPeer() throws -> String {
        let holder = try String(contentsOfFile: holderFile, encoding: .utf8).filter(\.isNumber)
        return "nsenter --target \(holder) --net"
    }
}

extension ConnectionEndpoint {
    /// An endpoint on an iWARP device, which has no atomics.
    static func iwarp(_ context: Context) throws -> ConnectionEndpoint {
        try ConnectionEndpoint(on: context, access: [.localWrite, .remoteWrite, .remoteRead])
    }
}
