import Foundation
import Testing
import ToolSupport

@testable import verbs

@Suite(
    "Two hosts with an Ethernet between them: everything goes over UDP", .serialized,
    .enabled(if: NetworkNamespace.isPossible, "only root can make network namespaces"))
struct TwoHostsTests {
    private let environment = ["RDMA_SOFT_INTERFACES": "eth0"]

    /// Runs a server on the second host, and gives `body` its port.
    private func withServer(
        _ host: NetworkNamespace, endsWith exit: ToolExit = .success, _ body: (String) async throws -> Void
    ) async throws {
        let server = try await Tool.run(
            "ping", "--listen", "--port", "0", "--device", "soft_eth0", on: host, environment: environment
        ) { try await body(try await $0.port()) }
        #expect(server.status == exit.rawValue, "\(server.errors)")
    }

    @Test("every service moves its data and verifies every byte, over IPv4 and IPv6", arguments: AddressFamily.allCases)
    func services(family: AddressFamily) async throws {
        let examples: [(Transport, verbs.Operation, Int)] = [
            (.rc, .send, 100_000), (.rc, .read, 5000), (.rc, .writeImmediate, 1025), (.rc, .fetchAndAdd, 8),
            (.uc, .send, 3000), (.uc, .write, 1), (.ud, .sendImmediate, 1024),
        ]
        try await NetworkNamespace.withTwo { first, second in
            for (transport, operation, size) in examples {
                try await withServer(second) { port in
                    let outcome = try await Tool.run(
                        "ping", "10.9.0.2", "--port", port, "--device", "soft_eth0", "--transport", transport.rawValue,
                        "--operation", operation.rawValue, "--\(family.rawValue)", "--size", "\(size)", "--count", "30",
                        "--warm-up", "5", "--verify", "--json", on: first, environment: environment)
                    #expect(outcome.status == 0, "\(outcome.errors)")
                    let client = try #require(try outcome.document()["client"] as? [String: Any])
                    let lost = try #require(client["lost"] as? Int)
                    #expect(lost == 0 || transport != .rc)
                    #expect(client["corrupted"] as? Int == 0)
                    #expect(client["verified"] as? Int == 35 - lost && lost < 35, "\(transport) \(operation)")
                }
            }
        }
    }

    @Test("the device says what its interface gives: an MTU of 1024 under Ethernet's 1500, and both addresses")
    func device() async throws {
        try await NetworkNamespace.withTwo { first, _ in
            let outcome = try await Tool.run("info", "soft_eth0", on: first, environment: environment)
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(outcome.output.contains("1024"), "\(outcome.output)")
            for address in ["::ffff:10.9.0.1", "fd09::1"] {
                #expect(outcome.output.contains(address), "\(outcome.output)")
            }
        }
    }

    @Test("a cable that is pulled leaves both sides with an error within the retry time")
    func pulledCable() async throws {
        try await NetworkNamespace.withTwo { first, second in
            try await withServer(second, endsWith: .peerLost) { port in
                let outcome = try await Tool.run(
                    "ping", "10.9.0.2", "--port", port, "--device", "soft_eth0", "--operation", "read", "--count", "0",
                    on: first, environment: environment
                ) { client in
                    _ = try await client.hasSaid("until Ctrl-C")
                    try await first.shell("ip link set eth0 down")
                }
                #expect(outcome.status == ToolExit.peerLost.rawValue, "\(outcome.errors)")
                #expect(outcome.errors.contains("RETRY_EXC_ERR"), "\(outcome.errors)")
                // The server's part of a READ is its device's. It learns of the loss when TCP gets through again.
                try await first.shell("ip link set eth0 up")
            }
        }
    }

    @Test("UDP port 4791 in somebody else's hands: this host is still served, and doctor says who is not")
    func takenPort() async throws {
        try await NetworkNamespace.withOne { host in
            let holder = """
                import signal, socket
                held = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET6, socket.AF_INET)]
                held[0].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                for one in held: one.bind(("", 4791))
                signal.pause()
                """
            try await host.whileRunning(["python3", "-c", holder]) {
                try await host.shell("until [ $(ss -Hlun 'sport = 4791' | wc -l) = 2 ]; do sleep 0.01; done")
                let ping = try await Tool.run("ping", "--count", "20", "--verify", on: host)
                #expect(ping.status == 0 && ping.output.contains("every byte was right"), "\(ping.errors)")
                let doctor = try await Tool.run("doctor", on: host)
                #expect(doctor.output.contains("4791"), "\(doctor.output)")
            }
        }
    }
}
