import Foundation
import Testing
import ToolSupport

extension Guest {
    /// fork(2) while a program moves data over rxe, whose memory regions the kernel pins and whose queues it shares.
    @Suite("A program on a kernel device that calls fork(2)")
    struct ForkTests {
        private func run(_ provider: NativeDevice.Provider, _ scenario: String) async throws -> String {
            let device = try NativeDevice(.rxe)
            let environment = device.environment(provider).map { "\($0)=\($1)" }.joined(separator: " ")
            let program =
                URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/fork-peer"
            return try await Bench.shell(
                "env SWIFT_BACKTRACE=enable=no \(environment) timeout 300 \(program) rxe0 \(scenario) 5")
        }

        /// The kernel pins the registered memory: after fork(2) the first write of the parent would move its page away
        /// from the device, if the kernel did not copy it for the child at once.
        @Test(
            "The parent goes on, with every byte right, while a child writes into the same pages, exits, or execs",
            arguments: NativeDevice.Provider.allCases, ["writes", "exits", "execs"])
        func parentGoesOn(_ provider: NativeDevice.Provider, _ scenario: String) async throws {
            try await Bench.run { _ in
                let output = try await run(provider, scenario)
                #expect(output.contains("children=5 statuses=0 ") && output.contains("fork=unneeded"), "\(output)")
                #expect(output.contains(provider == .native ? "provider=rxe" : "provider=libibverbs"), "\(output)")
            }
        }

        @Test(
            "A child that calls the API gets EPERM, and what it releases stays in the kernel",
            arguments: NativeDevice.Provider.allCases)
        func calls(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let output = try await run(provider, "calls")
                #expect(output.contains("children=5 statuses=0 "), "\(output)")
            }
        }

        @Test("A child that posts has no queues: SIGSEGV ends it, and the parent goes on")
        func posts() async throws {
            try await Bench.run { _ in
                let output = try await run(.native, "posts")
                #expect(output.contains("children=5 statuses=139 answers= "), "\(output)")
            }
        }
    }
}
