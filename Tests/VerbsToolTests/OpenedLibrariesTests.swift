import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

/// The dynamic linker reports the libraries that a command opens (LD_DEBUG of ld.so(8)).
///
/// The host has soft0 and two kernel devices, each with its own driver file and library.
@Suite("verbs opens only the provider libraries of the named devices")
struct OpenedLibrariesTests {
    private let directory: TemporaryDirectory
    private let sysfs: FakeSysfs

    init() throws {
        directory = try TemporaryDirectory()
        sysfs = try FakeSysfs()
        for (index, name) in ["ctest0", "ctest1"].enumerated() {
            try sysfs.addDevice(name, index: index)
            // A copy, which the loader treats as a separate library.
            let library = directory.path("\(name).so")
            try Data(contentsOf: URL(fileURLWithPath: CTestProvider.library())).write(
                to: URL(fileURLWithPath: library))
            try directory.write("driver ctest\nlibrary \(library)\nmatch name \(name)\n", to: "\(name).driver")
        }
    }

    /// Runs `verbs`, and returns the names of the provider libraries that were opened: the two of this test, and those
    /// that libibverbs itself opens (such as libmlx5-rdmav34.so).
    private func opened(by arguments: String...) async throws -> Set<String> {
        let outcome = try await Tool.run(
            arguments,
            environment: [
                "LD_DEBUG": "files", "RDMA_DRIVER_PATH": directory.path, "SYSFS_PATH": sysfs.path,
            ])
        #expect(outcome.status == 0, "\(arguments): \(outcome.status)")
        #expect(outcome.errors.contains("generating link map"), "the dynamic linker reports nothing")
        let names = outcome.errors.matches(of: /file=\S*?((?:ctest\d|\w+-rdmav\d+)\.so)/).map { String($0.1) }
        return Set(names)
    }

    @Test("a library that lists software devices is opened by every command that lists devices, and no other is")
    func lister() async throws {
        let library = directory.path("ctest2.so")
        try Data(contentsOf: URL(fileURLWithPath: CTestProvider.library())).write(to: URL(fileURLWithPath: library))
        // ctest0 and ctest1 are kernel devices here, so that only the third of its devices is listed.
        try directory.write(
            "driver ctest\nlibrary \(library)\nlist-devices yes\nmatch name ctest2\n", to: "ctest2.driver")
        #expect(try await opened(by: "info", "soft0") == ["ctest2.so"])
        #expect(try await opened(by: "providers", "ctest0") == ["ctest0.so", "ctest2.so"])
    }

    @Test("verbs info soft0 opens no library of another device")
    func info() async throws {
        #expect(try await opened(by: "info", "soft0") == [])
        #expect(try await opened(by: "info", "ctest1") == ["ctest1.so"])
    }

    @Test("verbs ping --device soft0 opens no library of another device")
    func ping() async throws {
        #expect(try await opened(by: "ping", "--device", "soft0", "--count", "3") == [])
    }

    @Test("verbs providers opens the library of the named device; without a name, and verbs devices, those of all")
    func providers() async throws {
        #expect(try await opened(by: "providers", "soft0") == [])
        #expect(try await opened(by: "providers", "ctest0") == ["ctest0.so"])
        for command in ["providers", "devices"] {
            #expect(try await opened(by: command) == ["ctest0.so", "ctest1.so"], "\(command)")
        }
    }
}
