import CIBVerbs
import CProviderABI
import Foundation
import ProviderLoader
import SoftProvider
import SoftTestSupport
import TestSupport
import Testing

extension Soft {
    /// Tests of the shipped provider: a module in Embedded Swift, which replaces the built-in provider.
    @Suite("The loadable module")
    struct ModuleTests {
        private static let root = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()

        private func run(_ tool: String, _ arguments: [String]) throws -> String {
            let process = Process()
            let output = Pipe()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = [tool] + arguments
            process.standardOutput = output
            // The build must not inherit the SWIFT… variables of the test process.
            process.environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SWIFT") }
            try process.run()
            let text = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            #expect(process.terminationStatus == 0, "\(tool) \(arguments)")
            return String(decoding: text, as: UTF8.self)
        }

        /// Builds and checks the module with scripts/build-providers, which prints its path.
        private func build() throws -> String {
            let script = Self.root.appendingPathComponent("scripts/build-providers").path
            let folder = try run(script, ["soft"]).split(separator: "\n").last.map(String.init)
            return Self.root.appendingPathComponent(try #require(folder)).appendingPathComponent("soft.so").path
        }

        @Test("Exports one symbol, replaces the built-in provider, and exchanges data with it")
        func module() throws {
            let library = try build()
            let exported = try run("nm", ["-D", "--defined-only", library]).split(separator: "\n")
            #expect(exported.count == 1)
            #expect(exported.first?.hasSuffix(" rdma_provider_entry") == true)

            let folder = try TemporaryDirectory()
            try FileManager.default.createDirectory(
                atPath: folder.path("override.d"), withIntermediateDirectories: true)
            try FileManager.default.copyItem(atPath: library, toPath: folder.path("soft.so"))
            let driver = try String(
                contentsOf: Self.root.appendingPathComponent("providers/soft/soft.driver"), encoding: .utf8)
            try driver.write(toFile: folder.path("override.d/soft.driver"), atomically: true, encoding: .utf8)

            var configuration = LoaderConfiguration()
            configuration.overrideDirectory = folder.path("override.d")
            configuration.mainDirectory = folder.path("nothing")
            configuration.providerDirectory = folder.path("")
            configuration.isPrivileged = false
            configuration.builtIn = [
                BuiltInProvider(name: "soft", entry: { SoftProvider.providerEntry(core: $0, why: $1) })
            ]
            let loader = ProviderLoader(configuration: configuration)
            let opened = try loader.open("soft0")
            #expect(opened.provider.library == folder.path("soft.so"))

            let module = OpenDevice(context: opened.context, table: opened.ops.pointee)
            // One end is a device of the module, the other of the built-in provider. They use the same slots.
            let (a, b) = try pair(on: module, and: OpenDevice())
            a.fill(0, 5000, seed: 6)
            try b.postReceive([b.sge(0, 5000)])
            try a.post(IBV_WR_SEND, [a.sge(0, 5000)])
            try a.success()
            try b.success()
            #expect(b.bytes(0, 5000) == a.bytes(0, 5000))
        }
    }
}
