import CIBVerbs
import CProviderABI
import Foundation
import ProviderLoader
import SoftTestSupport
import TestSupport
import Testing

extension Soft {
    /// The provider as it is shipped: Embedded Swift, loaded by the loader in the place of the built-in one.
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
            // The build must not take over the settings of this one.
            process.environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SWIFT") }
            try process.run()
            let text = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            #expect(process.terminationStatus == 0, "\(tool) \(arguments)")
            return String(decoding: text, as: UTF8.self)
        }

        /// scripts/build-providers builds it, checks it, and says where.
        private func build() throws -> String {
            let script = Self.root.appendingPathComponent("scripts/build-providers").path
            let folder = try run(script, ["soft"]).split(separator: "\n").last.map(String.init)
            return Self.root.appendingPathComponent(try #require(folder)).appendingPathComponent("soft.so").path
        }

        @Test("Exports one symbol, takes the place of the built-in provider, and moves data with it")
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
            configuration.builtIn = [BuiltInProvider(name: "soft", entry: { rdma_provider_entry_soft($0, $1) })]
            let loader = ProviderLoader(configuration: configuration)
            let opened = try loader.open("soft0")
            #expect(opened.provider.library == folder.path("soft.so"))

            let module = OpenDevice(context: opened.context, table: opened.ops.pointee)
            // One end in the module, one in the built-in provider: they share the registry.
            let (a, b) = try pair(on: module, and: OpenDevice())
            a.fill(0, 5000, seed: 6)
            try b.postReceive([b.piece(0, 5000)])
            try a.post(IBV_WR_SEND, [a.piece(0, 5000)])
            try a.success()
            try b.success()
            #expect(b.bytes(0, 5000) == a.bytes(0, 5000))
        }
    }
}
