import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("Debian's pingpong programs, which know nothing of us, as peers")
    struct PingpongTests {
        /// Whom Debian's program plays with, on the kernel's device through libibverbs: rxe0, or for hfi1 hfi1_0.
        enum Opponent: String, CaseIterable, Sendable {
            case libibverbs, native, soft, hfi1

            /// Before the command of this side.
            func environment(_ bench: Bench?, _ device: borrowing NativeDevice) -> String {
                switch self {
                case .libibverbs: "env RDMA_PROVIDER=libibverbs"
                case .native, .hfi1: "env RDMA_DRIVER_PATH=\(device.directory) RDMA_PROVIDER=\(device.module)"
                case .soft: entrance(bench) + " env RDMA_SOFT_INTERFACES=eth0"
                }
            }

            /// The host that it is on.
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
        /// Of the first service; each has a port of its own.
        private static let port = 18515

        /// One start of our program plays all services, one after the other: a start takes longer than a play.
        @Test("RC, UC, UD and SRQ, in both roles; every byte that comes back is compared", arguments: Opponent.allCases)
        func play(_ opponent: Opponent) async throws {
            if opponent == .hfi1 {
                try await Bench.runLoopback { try await play(opponent, .hfi1, on: nil) }
            } else {
                try await Bench.run { bench in try await play(opponent, .rxe, on: bench) }
            }
        }

        private func play(_ opponent: Opponent, _ module: NativeDevice.Module, on bench: Bench?) async throws {
            let device = try NativeDevice(module)
            let environment = opponent.environment(bench, device)
            for role in Role.allCases {
                let said = try await Bench.shell(
                    role == .server ? serves(opponent, environment, on: bench) : calls(opponent, environment))
                let plays = said.split(separator: "\n")
                #expect(plays.count { $0.contains("received and compared") } == 4, "we are the \(role): \(said)")
                #expect(plays.count { $0.contains("\(Self.count) iters in") } == 4, "we are the \(role): \(said)")
            }
        }

        private func serves(_ opponent: Opponent, _ environment: String, on bench: Bench?) -> String {
            let host = opponent == .soft ? "\(bench?.other.holder ?? 0)" : "self"
            let clients = Self.services.indices.map { index in
                awaitListener(index, host) + "\n" + theirs(opponent, index) + " \(opponent.address)"
            }
            return """
                \(ours(opponent, environment)) & server=$!
                \(clients.joined(separator: "\n"))
                wait $server
                """
        }

        private func calls(_ opponent: Opponent, _ environment: String) -> String {
            let servers = Self.services.indices.map { theirs(opponent, $0) + " & servers=\"$servers $!\"" }
            return """
                \(servers.joined(separator: "\n"))
                \(Self.services.indices.map { awaitListener($0, "self") }.joined(separator: "\n"))
                \(ours(opponent, environment, calling: opponent == .hfi1 ? opponent.address : "10.9.0.1"))
                for server in $servers; do wait $server; done
                """
        }

        /// A datagram has at most one packet.
        private func size(_ index: Int) -> Int { Self.services[index] == "ud" ? 1024 : 4096 }

        private func theirs(_ opponent: Opponent, _ index: Int) -> String {
            // GID 1 of rxe is that of the IPv4 address; hfi1 is addressed by LIDs. There they sleep until an event comes.
            "timeout 120 ibv_\(Self.services[index])_pingpong --ib-dev=\(opponent.theirDevice)"
                + (opponent == .hfi1 ? " --events" : " --gid-idx=1") + " --port=\(Self.port + index)"
                + " --iters=\(Self.count) --size=\(size(index))"
                + (Self.services[index] == "srq" ? " --num-qp=4" : "")
        }

        private func ours(_ opponent: Opponent, _ environment: String, calling host: String? = nil) -> String {
            let plays = Self.services.indices.map { index in
                "\(Self.services[index]) device=\(opponent.device) port=\(Self.port + index)"
                    + " count=\(Self.count) size=\(size(index)) pairs=\(Self.services[index] == "srq" ? 4 : 1)"
                    + (host.map { " host=\($0)" } ?? "")
            }
            return "\(environment) timeout 120 \(Self.program) \(plays.joined(separator: " then "))"
        }

        /// Waits until somebody listens at the port of that service. Looking there starts no program of size.
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
