import Testing
import ToolSupport

extension Guest {
    /// Runs with each of the two providers: the distribution's libibverbs, and the native one.
    @Suite("verbs over the kernel's rxe")
    struct ToolTests {
        @Test("devices, info and providers show the device and its provider", arguments: NativeDevice.Provider.allCases)
        func shown(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let environment = rxe.environment(provider)
                let devices = try await Tool.run("devices", environment: environment)
                #expect(devices.output.contains(try Regex("rxe0 +\(rxe.name(provider)) +kernel")), "\(devices)")
                let info = try await Tool.run("info", "rxe0", environment: environment)
                #expect(info.status == 0 && info.output.contains("::ffff:10.9.0.1"), "\(info)")
                let providers = try await Tool.run("providers", "rxe0", environment: environment)
                #expect(providers.output.contains(try Regex("chosen +\(rxe.name(provider))")), "\(providers)")
            }
        }

        @Test(
            "ping between two processes verifies every operation", arguments: NativeDevice.Provider.allCases,
            ["ipv4", "ipv6"])
        func ping(_ provider: NativeDevice.Provider, family: String) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let outcome = try await Tool.run(
                    ["ping", "--device", "rxe0", "--all", "--\(family)", "--size", "5001"] + Ping.verified(20),
                    environment: rxe.environment(provider))
                #expect(outcome.status == 0, "\(outcome.errors)")
                try Ping.check(outcome, sent: 20)
                #expect(outcome.output.contains("\"provider\" : \"\(rxe.name(provider))\""))
            }
        }

        @Test("perf prints its table", arguments: NativeDevice.Provider.allCases)
        func perf(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let outcome = try await Tool.run(
                    "perf", "--device", "rxe0", "--count", "10", "--duration", "20ms", "--size", "64",
                    environment: rxe.environment(provider))
                #expect(outcome.status == 0 && outcome.output.contains("fetch-add"), "\(outcome)")
            }
        }

        @Test(
            "killing the server gives the client an error, and leaves no kernel objects",
            arguments: NativeDevice.Provider.allCases)
        func killed(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let environment = rxe.environment(provider)
                let server = try await Tool.run(
                    "ping", "--listen", "--port", "0", "--device", "rxe0", environment: environment
                ) { server in
                    let port = try await server.port()
                    let client = try await Tool.run(
                        "ping", "10.9.0.1", "--port", port, "--device", "rxe0", "--count", "0",
                        environment: environment
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
