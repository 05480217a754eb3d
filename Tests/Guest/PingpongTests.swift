import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("Debian's pingpong programs as peers")
    struct PingpongTests {
        /// The provider of our pingpong-peer. Debian's program uses libibverbs on rxe0, or on hfi1_0 for `hfi1`.
        enum PeerProgram: String, CaseIterable, Sendable {
            case libibverbs, native, crxe, soft, hfi1

            /// The prefix of our program's command line.
            func environment(_ bench: Bench?, _ device: borrowing NativeDevice) -> String {
                switch self {
                case .libibverbs: "env RDMA_PROVIDER=libibverbs"
                case .native, .hfi1: "env RDMA_DRIVER_PATH=\(device.directory) RDMA_PROVIDER=\(device.module)"
                case .crxe: "env RDMA_DRIVER_PATH=\(device.directory)/crxe RDMA_PROVIDER=crxe"
                case .soft: entrance(bench) + " env RDMA_SOFT_INTERFACES=eth0"
                }
            }

            /// The prefix that runs a command on our program's host.
            func entrance(_ bench: Bench?) -> String {
                self == .soft ? bench?.other.entrance.joined(separator: " ") ?? "" : ""
            }

            var device: String { self == .soft ? "soft_eth0" : theirDevice }
            var theirDevice: String { self == .hfi1 ? "hfi1_0" : "rxe0" }
            var address: String {
                switch self {
                case .soft: "10.9.0.2"
                case .hfi1: "127.0.0.1"
                default: "10.9.0.1"
                }
            }
        }

        private static let services = ["rc", "uc", "ud", "srq"]
        private static let count = 25
        /// TCP port of the first service; each service has its own.
        private static let port = 18515

        /// One process of our program runs all services in turn, because its start takes longer than a run.
        @Test(
            "RC, UC, UD and SRQ as client and as server; every byte that comes back is compared",
            arguments: PeerProgram.allCases)
        func run(_ peer: PeerProgram) async throws {
            if peer == .hfi1 {
                try await Bench.runLoopback { try await run(peer, .hfi1, on: nil) }
            } else {
                try await Bench.run { bench in try await run(peer, .rxe, on: bench) }
            }
        }

        private func run(_ peer: PeerProgram, _ module: NativeDevice.Module, on bench: Bench?) async throws {
            let device = try NativeDevice(module)
            let environment = peer.environment(bench, device)
            for role in Role.allCases {
                let output = try await Bench.shell(
                    role == .server ? serves(peer, environment, on: bench) : calls(peer, environment))
                let lines = output.split(separator: "\n")
                #expect(lines.count { $0.contains("received and compared") } == 4, "we are the \(role): \(output)")
                #expect(lines.count { $0.contains("\(Self.count) iters in") } == 4, "we are the \(role): \(output)")
            }
        }

        private func serves(_ peer: PeerProgram, _ environment: String, on bench: Bench?) -> String {
            let host = peer == .soft ? "\(bench?.other.holder ?? 0)" : "self"
            let clients = Self.services.indices.map { index in
                awaitListener(index, host) + "\n" + theirs(peer, index) + " \(peer.address)"
            }
            return """
                \(ours(peer, environment)) & server=$!
                \(clients.joined(separator: "\n"))
                wait $server
                """
        }

        private func calls(_ peer: PeerProgram, _ environment: String) -> String {
            let servers = Self.services.indices.map { theirs(peer, $0) + " & servers=\"$servers $!\"" }
            return """
                \(servers.joined(separator: "\n"))
                \(Self.services.indices.map { awaitListener($0, "self") }.joined(separator: "\n"))
                \(ours(peer, environment, calling: peer == .hfi1 ? peer.address : "10.9.0.1"))
                for server in $servers; do wait $server; done
                """
        }

        /// The message size. A datagram has at most one packet.
        private func size(_ index: Int) -> Int { Self.services[index] == "ud" ? 1024 : 4096 }

        private func theirs(_ peer: PeerProgram, _ index: Int) -> String {
            // GID index 1 of rxe is the IPv4 address; hfi1 is addressed by LIDs. On hfi1 the program waits for
            // completion events (--events).
            "timeout 120 ibv_\(Self.services[index])_pingpong --ib-dev=\(peer.theirDevice)"
                + (peer == .hfi1 ? " --events" : " --gid-idx=1") + " --port=\(Self.port + index)"
                + " --iters=\(Self.count) --size=\(size(index))"
                + (Self.services[index] == "srq" ? " --num-qp=4" : "")
        }

        private func ours(_ peer: PeerProgram, _ environment: String, calling host: String? = nil) -> String {
            let runs = Self.services.indices.map { index in
                "\(Self.services[index]) device=\(peer.device) port=\(Self.port + index)"
                    + " count=\(Self.count) size=\(size(index)) pairs=\(Self.services[index] == "srq" ? 4 : 1)"
                    + (host.map { " host=\($0)" } ?? "")
            }
            return "\(environment) timeout 120 \(Self.program) \(runs.joined(separator: " then "))"
        }

        /// Waits until a process listens at the port of that service. Reading /proc needs no large program.
        private func awaitListener(_ index: Int, _ host: String) -> String {
            let port = String(Self.port + index, radix: 16, uppercase: true)
            return """
                for attempt in $(seq 600); do
                    grep -qs ':\(port) .* 0A ' /proc/\(host)/net/tcp /proc/\(host)/net/tcp6 && break
                    sleep 0.1
                done
                """
        }

        private static let program =
            URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
            + "/pingpong-peer"
    }
}
