import Testing
import ToolSupport
import Verbs

extension Guest {
    @Suite("A port that goes down under traffic")
    struct PortDownTests {
        @Test(
            "link down gives PORT_ERR and errors at client and server; link up gives PORT_ACTIVE and traffic again",
            arguments: NativeDevice.Provider.allCases)
        func downAndUp(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run(alone: true) { bench in
                let rxe = try NativeDevice(.rxe)
                let witness = try rxe.open(provider)
                let server = try await listen(on: bench) { port in
                    let client = try await ping(port, count: 0, rxe, provider) { client in
                        _ = try await client.hasSaid("until Ctrl-C")
                        try await Bench.shell("ip link set veth0 down")
                        try witness.awaitPortEvent(.portError)
                        #expect(try witness.port(1).state != .active)
                    }
                    // The first of: rxe finds no route for a packet, TCP finds none for a message to the peer, or the
                    // peer's response is lost.
                    expectLoss(client)
                    try await Bench.shell("ip link set veth0 up")
                    try witness.awaitPortEvent(.portActive)
                    #expect(try witness.port(1).state == .active)
                }
                #expect(server.status == 6, "\(server.errors)")
                let again = try await listen(on: bench) { port in
                    let client = try await ping(port, count: 20, rxe, provider)
                    #expect(client.status == 0, "\(client.errors)")
                }
                #expect(again.status == 0, "\(again.errors)")
            }
        }

        /// Expects a failed send, a broken TCP connection to the peer, or a message without response.
        private func expectLoss(_ client: Tool.Outcome) {
            let isFailedSend =
                client.status == 4 && client.errors.contains("LOC_QP_OP_ERR")
                && client.errors.contains("check that the port is up")
            let isBrokenConnection = client.status == 6 && client.errors.contains("the connection broke")
            let isMissingResponse = client.status == 6 && client.errors.contains("no response to a message within")
            #expect(isFailedSend || isBrokenConnection || isMissingResponse, "\(client.status): \(client.errors)")
        }

        /// Runs a server on the other host, with the device soft_eth0.
        private func listen(on bench: Bench, _ body: (String) async throws -> Void) async throws -> Tool.Outcome {
            try await Tool.run(
                "ping", "--listen", "--port", "0", "--device", "soft_eth0", on: bench.other,
                environment: ["RDMA_SOFT_INTERFACES": "eth0"]
            ) { try await body(try await $0.port()) }
        }

        private func ping(
            _ port: String, count: Int, _ rxe: borrowing NativeDevice, _ provider: NativeDevice.Provider,
            meanwhile: (Tool.Running) async throws -> Void = { _ in }
        ) async throws -> Tool.Outcome {
            try await Tool.run(
                "ping", "10.9.0.2", "--port", port, "--device", "rxe0", "--count", "\(count)", "--verify",
                environment: rxe.environment(provider), meanwhile: meanwhile)
        }
    }
}
