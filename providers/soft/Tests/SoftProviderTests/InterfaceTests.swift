import CIBVerbs
import CProviderABI
import Foundation
import Testing

extension Soft {
    /// Tests of the port, the GID table, the sockets and the events of a device whose interface changes while it is
    /// open.
    @Suite(
        "An interface that changes while its device is open", .serialized,
        .enabled(if: geteuid() == 0 && system("unshare --net true") == 0, "only root can make network namespaces"))
    struct InterfaceTests {
        private struct Port: Codable, Equatable {
            var gids: [String]
            var state: UInt32
            var physicalState: UInt8
            var activeMTU: UInt32
        }

        /// A process with an open device on the interface `e0` in its own network namespace. `e0`, with the address
        /// 10.5.0.1, is one end of a veth pair; the other is `e1`.
        private struct Host {
            let peer: PeerProcess

            init(environment: [String: String] = [:], by sandbox: [String] = []) throws {
                let lines = """
                    ip link set lo up
                    ip link add e0 type veth peer name e1
                    ip link set e1 up; ip address add 10.5.0.1/24 dev e0; ip link set e0 up
                    sysctl -qw net.ipv6.conf.e0.dad_transmits=1 || :
                    ip -6 address flush dev e0
                    exec "$0" "$@"
                    """
                peer = try PeerProcess(
                    "interface", ["interface=e0"], environment: environment,
                    by: ["/usr/bin/env", "unshare", "--net", "sh", "-ec", lines] + sandbox)
                #expect(peer.line() == "\"open\"")
            }

            func execute<Output: Decodable>(_ command: String, _: Output.Type = Output.self) throws -> Output {
                peer.writeLine(command)
                return try JSONDecoder().decode(Output.self, from: Data(#require(peer.line()).utf8))
            }

            /// Runs shell commands in its network namespace, and returns their output.
            @discardableResult
            func shell(_ lines: String) throws -> String {
                let process = Process()
                let output = Pipe()
                process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
                process.arguments = ["nsenter", "--target", "\(peer.identifier)", "--net", "sh", "-ec", lines]
                process.standardOutput = output
                try process.run()
                let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
                process.waitUntilExit()
                #expect(process.terminationStatus == 0, "\(lines)")
                return text
            }

            /// Starts a program that binds the RoCEv2 port at an address without SO_REUSEPORT (IP_FREEBIND).
            func hold(_ address: String) throws -> Process {
                let process = Process()
                let output = Pipe()
                process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
                process.arguments = [
                    "nsenter", "--target", "\(peer.identifier)", "--net", "python3", "-c",
                    """
                    import socket, signal
                    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    held.setsockopt(socket.IPPROTO_IP, 15, 1)
                    held.bind(("\(address)", 4791))
                    print("held", flush=True)
                    signal.pause()
                    """,
                ]
                process.standardOutput = output
                try process.run()
                _ = output.fileHandleForReading.availableData
                return process
            }

            func port() throws -> Port { try execute("show") }

            /// Queries the port until it fulfils the condition, for at most 20 s: for later changes by the kernel,
            /// without an event.
            func port(where isWanted: (Port) -> Bool) throws -> Port {
                let end = ContinuousClock.now + .seconds(300)
                while true {
                    let port = try port()
                    if isWanted(port) || ContinuousClock.now > end { return port }
                    usleep(20_000)
                }
            }

            /// The addresses to which a socket is bound at the RoCEv2 port, as ss(8) prints them.
            func sockets() throws -> Set<String> {
                let lines = try shell("ss -Hlun 'sport = 4791' | awk '{ print $4 }'").split(separator: "\n")
                return Set(
                    lines.map { line in
                        var address = line.dropLast(":4791".count)
                        if address.hasPrefix("[") { address = address.dropFirst().dropLast() }
                        address = address.prefix { $0 != "%" }
                        return address.contains(":") ? String(address) : "::ffff:" + address
                    })
            }

            /// Expects a socket at each of these addresses, and at no other.
            func expectSockets(for gids: [String], _ location: SourceLocation = #_sourceLocation) throws {
                #expect(try sockets() == Set(gids), sourceLocation: location)
            }
        }

        private static let own = "::ffff:10.5.0.1"

        @Test("While no descriptor is left, the addresses of an interface do not count as removed")
        func scarceDescriptors() throws {
            let host = try Host()
            for left in 0...3 {
                // The next query reads the addresses again.
                try host.shell("ip address add 10.5.1.\(left + 1)/24 dev e0")
                let gids: [String] = try host.execute("scarce \(left)")
                let isRefused = gids.count == 1 && gids[0] == "Refusal(errno: \(EMFILE))"
                #expect(isRefused || gids.first == "::ffff:10.5.0.1", "\(left) descriptors left: \(gids)")
            }
            #expect(try host.port().gids.first == "::ffff:10.5.0.1")
        }

        @Test("Addresses are added and removed: GID table, sockets and GID_CHANGE events")
        func addresses() throws {
            let host = try Host()
            try #require(try host.port().gids == [Self.own])
            try host.expectSockets(for: [Self.own])
            try host.shell("ip address add 10.5.0.7/24 dev e0")
            #expect(try host.execute("event") == IBV_EVENT_GID_CHANGE.rawValue)
            // The sockets are bound before the table is queried.
            try host.expectSockets(for: [Self.own, "::ffff:10.5.0.7"])
            #expect(try host.port().gids == [Self.own, "::ffff:10.5.0.7"])
            try host.shell("ip address del 10.5.0.1/24 dev e0")
            // The second address was a secondary of the first. promote_secondaries decides whether it is removed too.
            #expect(try host.execute("event") == IBV_EVENT_GID_CHANGE.rawValue)
            try host.expectSockets(for: host.port().gids)
            try host.shell("ip address replace 10.5.0.1/24 dev e0; ip address replace 10.5.0.9/24 dev e0")
            let gids = try host.port().gids
            #expect(gids.contains(Self.own) && gids.contains("::ffff:10.5.0.9"))
            try host.expectSockets(for: gids)
            #expect(try host.execute("traffic") == "done")
        }

        @Test("An IPv6 address is in the GID table after duplicate address detection passes, not if it fails")
        func tentative() throws {
            let host = try Host()
            try host.shell("ip address add fd05::1/64 dev e0")
            let early = try host.port()
            try host.expectSockets(for: early.gids)
            let late = try host.port { $0.gids.contains("fd05::1") }
            #expect(late.gids == [Self.own, "fd05::1"])
            try host.expectSockets(for: late.gids)
            // The other end of the veth pair has the same address.
            try host.shell("ip address add fd05::2/64 dev e1 nodad; ip address add fd05::2/64 dev e0")
            try host.shell("until ip -6 address show dev e0 | grep -q dadfailed; do sleep 0.05; done")
            #expect(try host.port().gids == [Self.own, "fd05::1"])
            try host.expectSockets(for: [Self.own, "fd05::1"])
        }

        @Test(
            "A raised or lowered MTU changes active_mtu and the maximum path MTU of queue pairs",
            arguments: [9000, 600])
        func mtu(_ mtu: Int) throws {
            let host = try Host()
            #expect(try host.port().activeMTU == 1024)
            try host.shell("ip link set e0 mtu \(mtu)")
            #expect(try host.port().activeMTU == (mtu == 9000 ? 4096 : 512))
            #expect(try host.execute("traffic") == "done")
            // A path MTU above active_mtu is refused, so that no packets are lost later.
            if mtu == 600 { #expect(try host.execute("beyond") == "Refusal(errno: 22)") }
            try host.shell("ip link set e0 mtu 1500")
            #expect(try host.execute("traffic") == "done")
            #expect(try host.execute("beyond") == "Refusal(errno: 22)")
            #expect(try host.port().activeMTU == 1024)
        }

        @Test("Port state, physical state and events when the interface goes down, loses its carrier, and comes up")
        func states() throws {
            let host = try Host()
            let active = IBV_PORT_ACTIVE.rawValue
            let down = IBV_PORT_DOWN.rawValue
            #expect(try host.port().state == active)
            try host.shell("ip link set e0 down")
            #expect(try host.execute("event") == IBV_EVENT_PORT_ERR.rawValue)
            #expect(try host.port() == Port(gids: [Self.own], state: down, physicalState: 3, activeMTU: 1024))
            try host.shell("ip link set e0 up")
            #expect(try host.execute("event") == IBV_EVENT_PORT_ACTIVE.rawValue)
            #expect(try host.port().state == active)
            // The other end of the veth pair.
            try host.shell("ip link set e1 down")
            #expect(try host.execute("event") == IBV_EVENT_PORT_ERR.rawValue)
            #expect(try host.port() == Port(gids: [Self.own], state: down, physicalState: 2, activeMTU: 1024))
            try host.shell("ip link set e1 up")
            #expect(try host.execute("event") == IBV_EVENT_PORT_ACTIVE.rawValue)
            #expect(try host.port().physicalState == 5)
        }

        @Test(
            "The device follows a renamed interface, and a new interface with the name of a removed one")
        func identity() throws {
            let host = try Host()
            try host.shell("ip link set e0 down; ip link set e0 name other; ip link set other up")
            #expect(try host.port().state == IBV_PORT_ACTIVE.rawValue)
            #expect(try host.port().gids == [Self.own])
            #expect(try host.execute("traffic") == "done")
            try host.shell("ip link del other")
            let gone = try host.port()
            #expect(gone.gids.isEmpty && gone.state == IBV_PORT_DOWN.rawValue && gone.physicalState == 3)
            try host.expectSockets(for: [])
            #expect(try host.execute("traffic") != "done")
            try host.shell(
                """
                ip link add other type veth peer name e1; ip link set e1 up
                ip address add 10.5.0.3/24 dev other; ip link set other up; ip -6 address flush dev other
                """)
            let back = try host.port()
            #expect(back.gids == ["::ffff:10.5.0.3"] && back.state == IBV_PORT_ACTIVE.rawValue)
            try host.expectSockets(for: back.gids)
            #expect(try host.execute("traffic") == "done")
        }

        @Test("Of unread events, one of each type is kept")
        func unread() throws {
            let host = try Host()
            for _ in 0..<5 {
                try host.shell("ip link set e0 down")
                _ = try host.port()
                try host.shell("ip link set e0 up")
                _ = try host.port()
            }
            #expect(try host.execute("event") == IBV_EVENT_PORT_ACTIVE.rawValue)
            // A further port event would be read before GID_CHANGE.
            try host.shell("ip address add 10.5.0.8/24 dev e0")
            #expect(try host.execute("event") == IBV_EVENT_GID_CHANGE.rawValue)
        }

        @Test("When another process releases the UDP port, the device binds it without being queried")
        func releasedPort() throws {
            let host = try Host()
            let holder = try host.hold("10.5.0.7")
            try host.shell("ip address add 10.5.0.7/24 dev e0")
            #expect(try host.port().gids == [Self.own, "::ffff:10.5.0.7"])
            // SIGKILL, because a child inherits the signal mask, in which a test thread may have blocked SIGTERM.
            kill(holder.processIdentifier, SIGKILL)
            holder.waitUntilExit()
            let end = ContinuousClock.now + .seconds(300)
            // The device is not queried meanwhile.
            while try host.sockets() != [Self.own, "::ffff:10.5.0.7"], ContinuousClock.now < end { usleep(50_000) }
            try host.expectSockets(for: [Self.own, "::ffff:10.5.0.7"])
        }

        @Test("Without netlink sockets (EACCES), the device polls the interface")
        func withoutNetlink() throws {
            // EACCES for AF_NETLINK.
            let host = try Host(by: [PeerProcess.built("refuse-calls").path, "13", "socket:0=16", "--"])
            try host.shell("ip address add 10.5.0.7/24 dev e0")
            #expect(try host.execute("event") == IBV_EVENT_GID_CHANGE.rawValue)
            try host.expectSockets(for: [Self.own, "::ffff:10.5.0.7"])
        }
    }
}
