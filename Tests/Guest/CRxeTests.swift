import Foundation
import Testing
import ToolSupport

extension Guest {
    /// The example of a provider in C (Examples/crxe), built from the installed headers alone and loaded by its driver
    /// file. The suites of rxe test its objects, and PingpongTests its queue pairs with Debian's programs as peers.
    @Suite("crxe, a provider in C over the core's uverbs commands")
    struct CRxeTests {
        @Test("verbs opens the device through it, and shows the attributes and verbs that the native provider has")
        func shown() async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let providers = try await Tool.run("providers", "rxe0", environment: rxe.environment(.crxe))
                #expect(providers.output.contains(try Regex("chosen +crxe")), "\(providers)")
                let info = try await Tool.run("info", "rxe0", environment: rxe.environment(.crxe))
                #expect(info.status == 0 && info.output.contains("::ffff:10.9.0.1"), "\(info)")
                let native = try await Tool.run("info", "rxe0", environment: rxe.environment(.native))
                let (ours, theirs) = (Self.attributes(info), Self.attributes(native))
                #expect(ours.count > 20 && ours == theirs, "\(info.output)\n\(native.output)")
            }
        }

        /// The lines of `verbs info`, without those of the provider and its driver file.
        private static func attributes(_ info: Tool.Outcome) -> [Substring] {
            info.output.split(separator: "\n").filter { !$0.contains(" provider:") && !$0.contains(" driver file:") }
        }

        @Test(
            "ping verifies every operation between two processes of the provider, over IPv4 and IPv6",
            arguments: ["ipv4", "ipv6"])
        func alone(family: String) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                let outcome = try await Tool.run(
                    ["ping", "--device", "rxe0", "--all", "--\(family)", "--size", "5001"] + Ping.verified(20),
                    environment: rxe.environment(.crxe))
                #expect(outcome.status == 0, "\(outcome.errors)")
                try Ping.check(outcome, sent: 20)
                #expect(outcome.output.contains("\"provider\" : \"crxe\""))
            }
        }

        @Test(
            "ping verifies every operation with the native provider, or libibverbs, in the other process",
            arguments: NativeDevice.Provider.allCases)
        func others(_ other: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let rxe = try NativeDevice(.rxe)
                for (listener, caller) in [(NativeDevice.Provider.crxe, other), (other, .crxe)] {
                    var client: Tool.Outcome?
                    let calling = rxe.environment(caller)
                    let server = try await Tool.run(
                        "ping", "--listen", "--port", "0", "--device", "rxe0", environment: rxe.environment(listener)
                    ) { server in
                        client = try await Tool.run(
                            ["ping", "10.9.0.1", "--port", try await server.port(), "--device", "rxe0", "--all"]
                                + ["--size", "5001"] + Ping.verified(20), environment: calling)
                    }
                    let pinged = try #require(client)
                    #expect(pinged.status == 0 && server.status == 0, "\(pinged.errors)\(server.errors)")
                    try Ping.check(pinged, sent: 20)
                }
            }
        }
    }
}
