import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite(
    "Two hosts on one Ethernet link: packets are sent over UDP", .serialized,
    .enabled(if: NetworkNamespace.isPossible, "only root can make network namespaces"))
struct TwoHostsTests {
    private let environment = ["RDMA_SOFT_INTERFACES": "eth0"]

    /// Runs a server on `host`, and calls `body` with its TCP port.
    private func withServer(
        _ host: NetworkNamespace, endsWith exit: ToolExit = .success, _ body: (String) async throws -> Void
    ) async throws {
        let server = try await Tool.run(
            "ping", "--listen", "--port", "0", "--device", "soft_eth0", on: host, environment: environment
        ) { try await body(try await $0.port()) }
        #expect(server.status == exit.rawValue, "\(server.errors)")
    }

    @Test(
        "every transport transfers its data and verifies every byte, over IPv4 and IPv6",
        arguments: AddressFamily.allCases)
    func services(family: AddressFamily) async throws {
        let examples: [(Transport, VerbsCommand.Operation, Int)] = [
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

    @Test(
        "--rdma-cm connects over UDP, over IPv4 and IPv6, with and without RDMA_SOFT_INTERFACES",
        arguments: ["10.9.0.2", "fd09::2"], [[:], ["RDMA_SOFT_INTERFACES": "eth0"]] as [[String: String]])
    func connectionManager(address: String, environment: [String: String]) async throws {
        try await NetworkNamespace.withTwo { first, second in
            let server = try await Tool.run(
                "ping", "--listen", "--port", "0", on: second, environment: environment
            ) { server in
                let outcome = try await Tool.run(
                    "ping", address, "--port", try await server.port(), "--rdma-cm", "--count", "30", "--verify",
                    "--json",
                    on: first, environment: environment)
                #expect(outcome.status == 0, "\(outcome.errors)")
                let document = try outcome.document()
                #expect((document["run"] as? [String: Any])?["connectedBy"] as? String == "rdma_cm")
                #expect(try #require(document["client"] as? [String: Any])["corrupted"] as? Int == 0)
            }
            #expect(server.status == 0, "\(server.errors)")
        }
    }

    @Test("the device has the properties of its interface: an MTU of 1024 over Ethernet's 1500, and both addresses")
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

    /// The commands for two machines in the README: `verbs ping --listen` and `verbs ping HOST`.
    private func commandsOfREADME() throws -> (listen: [String], connect: [String]) {
        let text = try String(contentsOf: Repository.root.appending(path: "README.md"), encoding: .utf8)
        let words = try #require(
            text.firstMatch(of: /Between two machines, run `verbs (.*?)` on one and `verbs (.*?)` on/))
        return (words.1.split(separator: " ").map(String.init), words.2.split(separator: " ").map(String.init))
    }

    @Test(
        "the README's commands work, with and without RDMA_SOFT_INTERFACES, for ping and perf",
        arguments: [[:], ["RDMA_SOFT_INTERFACES": "eth0"]] as [[String: String]], ["ping", "perf"])
    func commandsOfREADME(environment: [String: String], command: String) async throws {
        var words = try commandsOfREADME()
        #expect(words.listen == ["ping", "--listen"] && words.connect == ["ping", "HOST"])
        (words.listen[0], words.connect[0]) = (command, command)
        try await NetworkNamespace.withTwo { first, second in
            let server = try await Tool.run(words.listen, on: second, environment: environment) { server in
                let printed = try await server.hasSaid(" HOST")
                #expect(printed == "listening on TCP port 18515; on the other machine: verbs \(command) HOST\n")
                let client = try await Tool.run(
                    words.connect.map { $0 == "HOST" ? "10.9.0.2" : $0 }
                        + (command == "perf" ? ["--size", "64", "--count", "5", "--duration", "10ms"] : []),
                    on: first, environment: environment)
                #expect(client.status == 0 && client.errors.isEmpty, "\(client.errors)")
                let sides = "RC from soft_eth0 (soft, ::ffff:10.9.0.1) to soft_eth0 (soft, ::ffff:10.9.0.2)\n"
                #expect(client.output.hasPrefix(sides), "\(client.output)")
            }
            #expect(server.status == 0, "\(server.errors)")
            #expect(server.output.hasPrefix("soft_eth0, client ::ffff:10.9.0.1\n\n"), "\(server.output)")
        }
    }

    @Test("device and address are those of the route to the server")
    func route() async throws {
        try await NetworkNamespace.withTwo { first, second in
            // A second Ethernet between the hosts, and second addresses on the first Ethernet.
            try await first.shell("ip link add eth1 type veth peer name eth1 netns \(second.holder)")
            for (host, number) in [(first, 1), (second, 2)] {
                try await host.shell(
                    """
                    ip address add 10.8.0.\(number)/24 dev eth1
                    ip link set eth1 up
                    ip address add 10.7.0.\(number)/24 dev eth0
                    ip address add fe80::9:\(number)/64 dev eth0 nodad
                    """)
            }
            let expected = [
                ("10.8.0.2", "soft_eth1", "::ffff:10.8.0"), ("10.7.0.2", "soft_eth0", "::ffff:10.7.0"),
                ("fd09::2", "soft_eth0", "fd09:"), ("[fd09::2]", "soft_eth0", "fd09:"),
                ("fe80::9:2%eth0", "soft_eth0", "fe80::"),
            ]
            for (host, device, network) in expected {
                let server = try await Tool.run("ping", "--listen", "--port", "0", "--json", on: second) { server in
                    let outcome = try await Tool.run(
                        "ping", host, "--port", try await server.port(), "--count", "5", "--verify", "--json",
                        on: first)
                    #expect(outcome.status == 0, "\(host): \(outcome.errors)")
                    let run = try #require(try outcome.document()["run"] as? [String: Any])
                    for side in ["client", "server"] {
                        let side = try #require(run[side] as? [String: Any])
                        #expect(side["device"] as? String == device, "\(host)")
                        #expect((side["gid"] as? String)?.hasPrefix(network) == true, "\(host): \(side)")
                    }
                }
                #expect(server.status == 0, "\(host): \(server.errors)")
            }
        }
    }

    @Test("a device on request can be opened by name, and is not in the list of devices")
    func onRequest() async throws {
        try await NetworkNamespace.withTwo { first, second in
            let devices = try await Tool.run("devices", "--json", on: first)
            let document = try devices.document()
            #expect(try SchemaValidator(named: "devices").faults(document) == [])
            #expect((document["devices"] as? [[String: Any]])?.compactMap { $0["name"] as? String } == ["soft0"])
            #expect(document["onRequest"] as? [String] == ["soft_eth0"])
            #expect(try await Tool.run("info", "soft_eth0", on: first).status == 0)
            #expect(try await !Tool.run("info", on: first).output.contains("eth0"))
            let doctor = try await Tool.run("doctor", on: first)
            #expect(doctor.output.contains("RDMA_SOFT_INTERFACES=eth0"), "\(doctor.output)")
            // An interface that is down, or has no address, has no device on request.
            try await first.shell("ip link set eth0 down")
            let down = try await Tool.run("ping", "10.9.0.2", "--device", "soft_eth0", on: first)
            #expect(down.status == ToolExit.cannotConnect.rawValue, "\(down.errors)")
            let info = try await Tool.run("info", "soft_eth0", on: first)
            #expect(info.status == ToolExit.noDevice.rawValue && info.errors.contains("is up"), "\(info.errors)")
        }
    }

    @Test("--device soft0 on one of two machines is reported at once, for client and server")
    func loopbackDevice() async throws {
        try await NetworkNamespace.withTwo { first, second in
            let hint = "soft0 is on the loopback interface, and does not reach ::ffff:10.9.0."
            for isServers in [false, true] {
                let server = try await Tool.run(
                    ["ping", "--listen", "--port", "0"] + (isServers ? ["--device", "soft0"] : []), on: second
                ) { server in
                    let client = try await Tool.run(
                        ["ping", "10.9.0.2", "--port", try await server.port()]
                            + (isServers ? [] : ["--device", "soft0"]), on: first)
                    let exit: ToolExit = isServers ? .peerLost : .unsupported
                    #expect(client.status == exit.rawValue, "\(client.errors)")
                    #expect(client.errors.contains(hint + (isServers ? "1" : "2")), "\(client.errors)")
                    #expect(client.errors.contains("leave out --device, or use --device soft_eth0"))
                    // The client did not connect: the server waits for another.
                    if !isServers { server.send(signal: SIGINT) }
                }
                #expect(server.status == (isServers ? ToolExit.unsupported.rawValue : 130), "\(server.errors)")
            }
        }
    }

    @Test("a host name whose first address does not answer: the next address is tried concurrently")
    func deadFirstAddress() async throws {
        try await NetworkNamespace.withTwo { first, second in
            let hosts = NSTemporaryDirectory() + "verbs-\(UUID().uuidString).hosts"
            defer { try? FileManager.default.removeItem(atPath: hosts) }
            try Data("fd09::dead dual\n10.9.0.2 dual\n".utf8).write(to: URL(filePath: hosts))
            // No host has this link-layer address, so packets are dropped without an error.
            try await first.shell("ip neighbour replace fd09::dead lladdr 02:00:00:00:de:ad dev eth0")
            let withHosts = ["unshare", "--mount", "sh", "-ec", "mount --bind \"$0\" /etc/hosts; exec \"$@\"", hosts]
            let server = try await Tool.run("ping", "--listen", "--port", "0", on: second) { server in
                let port = try await server.port()
                let start = ContinuousClock.now
                let client = try await Tool.run(
                    "ping", "dual", "--port", port, "--count", "5", "--timeout", "10m", on: first, by: withHosts)
                #expect(client.status == 0 && client.output.contains("10.9.0.2"), "\(client.errors)")
                // If addresses were tried one after the other, the first would use the whole timeout.
                #expect(ContinuousClock.now - start < .seconds(300))
                let refused = try await Tool.run(
                    "ping", "dual", "--port", "1", "--timeout", "5s", on: first, by: withHosts)
                #expect(refused.status == ToolExit.cannotConnect.rawValue)
                for text in ["fd09::dead: timed out", "10.9.0.2: connection refused"] {
                    #expect(refused.errors.contains(text), "\(refused.errors)")
                }
            }
            #expect(server.status == 0, "\(server.errors)")
        }
    }

    @Test("client and server report a link that goes down within their --timeout")
    func pulledCable() async throws {
        try await NetworkNamespace.withTwo { first, second in
            let server = try await Tool.run("ping", "--listen", "--port", "0", "--timeout", "5s", on: second) {
                server in
                let outcome = try await Tool.run(
                    "ping", "10.9.0.2", "--port", try await server.port(), "--operation", "read", "--count", "0",
                    "--timeout", "5s", on: first
                ) { client in
                    _ = try await client.hasSaid("until Ctrl-C")
                    try await first.shell("ip link set eth0 down")
                }
                #expect(outcome.status == ToolExit.peerLost.rawValue, "\(outcome.errors)")
            }
            // The server's device handles RDMA reads: only the client's silence shows the loss.
            #expect(server.status == ToolExit.peerLost.rawValue, "\(server.errors)")
        }
    }

    @Test("UDP port 4791 is held by another program: ping works within the host, and doctor reports it")
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
                #expect(ping.status == 0 && ping.output.contains("every byte correct"), "\(ping.errors)")
                let doctor = try await Tool.run("doctor", on: host)
                #expect(doctor.output.contains("4791"), "\(doctor.output)")
            }
        }
    }
}
