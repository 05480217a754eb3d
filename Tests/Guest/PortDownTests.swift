import Testing
import ToolSupport
import Verbs

extension Guest {
    @Suite("A port that goes down under traffic")
    struct PortDownTests {
        @Test(
            "PORT_ERR, an error on both sides of the traffic, PORT_ACTIVE, and traffic again",
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
                    // rxe finds no way for the packet, or TCP for a word to the peer: whichever the client needs first.
                    let ofPacket =
                        client.status == 4 && client.errors.contains("LOC_QP_OP_ERR")
                        && client.errors.contains("check that the port is up")
                    let ofWord = client.status == 6 && client.errors.contains("the connection broke")
                    #expect(ofPacket || ofWord, "\(client.status): \(client.errors)")
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

        /// A server on the other host, which has a device of soft.
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
