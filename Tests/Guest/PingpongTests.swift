import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("Debian's pingpong programs, which know nothing of us, as peers")
    struct PingpongTests {
        /// Whom Debian's program, on the kernel's rxe0 through libibverbs, plays with.
        enum Opponent: String, CaseIterable, Sendable {
            case libibverbs, native, soft

            /// Before the command of this side.
            func environment(_ bench: Bench, _ rxe: borrowing RxeDevice) -> String {
                switch self {
                case .libibverbs: "env RDMA_PROVIDER=libibverbs"
                case .native: "env RDMA_DRIVER_PATH=\(rxe.directory) RDMA_PROVIDER=rxe"
                case .soft: entrance(bench) + " env RDMA_SOFT_INTERFACES=eth0"
                }
            }

            /// The host that it is on.
            func entrance(_ bench: Bench) -> String {
                self == .soft ? bench.other.entrance.joined(separator: " ") : ""
            }

            var device: String { self == .soft ? "soft_eth0" : "rxe0" }
            var address: String { self == .soft ? "10.9.0.2" : "10.9.0.1" }
        }

        @Test("RC, UC, UD and SRQ, in both roles; every byte that comes back is compared", arguments: Opponent.allCases)
        func play(_ opponent: Opponent) async throws {
            try await Bench.run { bench in
                let rxe = try RxeDevice()
                for service in ["rc", "uc", "ud", "srq"] {
                    for role in Role.allCases { try await play(service, opponent, opponentIs: role, on: bench, rxe) }
                }
            }
        }

        private func play(
            _ service: String, _ opponent: Opponent, opponentIs role: Role, on bench: Bench,
            _ rxe: borrowing RxeDevice
        ) async throws {
            let count = 50
            // A datagram has at most one packet.
            let size = service == "ud" ? 1024 : 4096
            let pairs = service == "srq" ? 4 : 1
            // GID 1 of rxe is that of the IPv4 address.
            let theirs =
                "timeout 300 ibv_\(service)_pingpong --ib-dev=rxe0 --gid-idx=1 --iters=\(count) --size=\(size)"
                + (service == "srq" ? " --num-qp=\(pairs)" : "")
            let ours =
                "\(opponent.environment(bench, rxe)) timeout 300 \(Self.program) \(service) device=\(opponent.device)"
                + " count=\(count) size=\(size) pairs=\(pairs)"
            let (server, client) =
                role == .server ? (ours, "\(theirs) \(opponent.address)") : (theirs, "\(ours) host=10.9.0.1")
            // Where the server listens, at port 18515, which is 4853 in base 16. Looking there starts no program of size.
            let host = role == .server && opponent == .soft ? "\(bench.other.holder)" : "self"
            let said = try await Bench.shell(
                """
                \(server) & server=$!
                for attempt in $(seq 600); do
                    grep -qs ':4853 .* 0A ' /proc/\(host)/net/tcp /proc/\(host)/net/tcp6 && break
                    sleep 0.1
                done
                \(client)
                wait $server
                """)
            #expect(said.contains("received and compared"), "\(service), we are the \(role): \(said)")
            #expect(said.contains("\(count) iters in"), "\(service), we are the \(role): \(said)")
        }

        private static let program =
            URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
            + "/pingpong-peer"
    }
}
