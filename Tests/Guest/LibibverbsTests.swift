import Testing
import ToolSupport

extension Guest {
    @Suite("The kernel's rxe through libibverbs")
    struct LibibverbsTests {
        @Test("verbs devices, info and providers show it, served by the distribution's libibverbs")
        func shown() async throws {
            try await Bench.run { _ in
                let devices = try await Tool.run("devices")
                #expect(devices.output.contains(/rxe0 +libibverbs +kernel/), "\(devices.output)\(devices.errors)")
                let info = try await Tool.run("info", "rxe0")
                #expect(info.status == 0 && info.output.contains("::ffff:10.9.0.1"), "\(info.output)\(info.errors)")
                let providers = try await Tool.run("providers", "rxe0")
                #expect(providers.output.contains(/chosen +libibverbs/), "\(providers.output)\(providers.errors)")
            }
        }

        @Test("verbs ping between two processes verifies every operation", arguments: ["ipv4", "ipv6"])
        func ping(family: String) async throws {
            try await Bench.run { _ in
                let outcome = try await Tool.run(
                    ["ping", "--device", "rxe0", "--all", "--\(family)", "--size", "5001"] + Ping.verified(20))
                #expect(outcome.status == 0, "\(outcome.errors)")
                try Ping.check(outcome, sent: 20)
            }
        }

        @Test("verbs perf prints its table")
        func perf() async throws {
            try await Bench.run { _ in
                let outcome = try await Tool.run(
                    "perf", "--device", "rxe0", "--count", "10", "--duration", "20ms", "--size", "64")
                #expect(
                    outcome.status == 0 && outcome.output.contains("fetch-add"), "\(outcome.output)\(outcome.errors)")
            }
        }

        @Test("a peer that is killed leaves an error, and the kernel nothing of it")
        func killed() async throws {
            try await Bench.run { _ in
                let server = try await Tool.run("ping", "--listen", "--port", "0", "--device", "rxe0") { server in
                    let port = try await server.port()
                    let client = try await Tool.run(
                        "ping", "10.9.0.1", "--port", port, "--device", "rxe0", "--count", "0"
                    ) { client in
                        _ = try await client.hasSaid("until Ctrl-C")
                        server.send(signal: 9)
                    }
                    #expect(client.status == 6, "\(client.errors)")
                }
                #expect(server.status == -9)
            }
        }
    }
}
