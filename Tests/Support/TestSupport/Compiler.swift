import Foundation

/// Runs the C compiler for tests that need a C library.
public enum Compiler {
    /// A compilation that failed, with the compiler's output.
    public struct Failure: Error, CustomStringConvertible {
        /// The command and its output.
        public let description: String
    }

    /// Path of the package of the tests.
    public static let packageRoot: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { url.deleteLastPathComponent() }
        return url.path
    }()

    /// Builds a shared library from one C source text, which can include <rdma_provider.h>.
    /// - Parameters:
    ///   - source: C11 source text.
    ///   - library: Path of the library.
    ///   - flags: Further arguments for the compiler.
    public static func build(_ source: String, to library: String, flags: [String] = []) throws {
        let scratch = try TemporaryDirectory()
        let file = try scratch.write(source, to: "source.c")
        try run(
            "/usr/bin/env",
            [
                "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-I",
                packageRoot + "/Sources/CProviderABI/include",
            ] + flags + ["-o", library, file])
    }

    static func run(_ program: String, _ arguments: [String]) throws {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        if process.terminationStatus != 0 || process.terminationReason != .exit {
            throw Failure(description: ([program] + arguments).joined(separator: " ") + "\n" + text)
        }
    }
}
