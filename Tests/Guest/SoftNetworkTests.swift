import Testing
import ToolSupport

extension Guest {
    /// netem(8) and small socket buffers, between two hosts without a kernel RDMA device. SoftMeetsRxeTests has soft with rxe.
    @Suite("The software device on bad networks")
    struct SoftNetworkTests {
        /// A fault of the network in both directions.
        enum Fault: String, CaseIterable, Sendable {
            case rareLoss = "loss 0.1%"
            case loss = "loss 5%"
            case reordering = "delay 2ms reorder 50% duplicate 1%"
            /// Buffers of sockets that hold a few packets.
            case smallBuffers = "limit 1000"
        }

        private let count = 8
        /// A loss may cost a message a few timeouts, on emulated processors.
        private let patience = ["--timeout", "60s"]

        /// Transfers messages of several packets with every operation of RC. The sizes give more packets in flight than a
        /// small buffer holds.
        private func exchange(
            from client: NetworkNamespace, to server: NetworkNamespace, address: String
        ) async throws {
            let soft = ["RDMA_SOFT_INTERFACES": "eth0"]
            var pinged: Tool.Outcome?
            let listened = try await Tool.run(
                ["ping", "--listen", "--port", "0", "--device", "soft_eth0"] + patience, on: server, environment: soft
            ) { running in
                pinged = try await Tool.run(
                    ["ping", address, "--port", try await running.port(), "--device", "soft_eth0", "--all"]
                        + ["--transport", "rc", "--ipv4", "--size", "12000"] + Ping.verified(count) + patience,
                    on: client, environment: soft)
            }
            let outcome = try #require(pinged)
            #expect(outcome.status == 0, "\(outcome.errors)\(outcome.status == 7 ? outcome.output : "")")
            if outcome.status == 0 { try Ping.check(outcome, sent: count) }
            #expect(listened.status == 0, "\(listened.errors)")
        }

        /// Runs `body` while sockets that are made have small buffers.
        private func withBuffers(of fault: Fault, _ body: () async throws -> Void) async throws {
            let usual = try await Bench.shell("sysctl -n net.core.rmem_max net.core.rmem_default")
                .split(whereSeparator: \.isWhitespace)
            try #require(usual.count == 2)
            if fault == .smallBuffers {
                try await Bench.shell("sysctl -q -w net.core.rmem_max=16384 net.core.rmem_default=16384")
            }
            var failure: (any Error)?
            do { try await body() } catch { failure = error }
            try await Bench.shell("sysctl -q -w net.core.rmem_max=\(usual[0]) net.core.rmem_default=\(usual[1])")
            if let failure { throw failure }
        }

        @Test("soft with soft: no message of RC is lost or wrong", arguments: Fault.allCases)
        func soft(fault: Fault) async throws {
            try await withBuffers(of: fault) {
                try await NetworkNamespace.withTwo { first, second in
                    for host in [first, second] {
                        try await host.shell("tc qdisc add dev eth0 root netem \(fault.rawValue)")
                    }
                    try await exchange(from: second, to: first, address: "10.9.0.1")
                }
            }
        }
    }
}
