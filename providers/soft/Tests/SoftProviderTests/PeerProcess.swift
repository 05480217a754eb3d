import Foundation
import Testing

/// A `soft-peer` process.
final class PeerProcess {
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()

    /// - Parameter wrapper: A command that executes the command after it by exec(2).
    init(_ role: String, _ settings: [String], environment: [String: String] = [:], by wrapper: [String] = []) throws {
        let command = wrapper + [Self.executable.path, role] + settings
        process.executableURL = URL(fileURLWithPath: command[0])
        process.arguments = Array(command.dropFirst())
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = input
        process.standardOutput = output
        try process.run()
    }

    deinit {
        if process.isRunning { kill() }
    }

    /// The path of `soft-peer`.
    private static let executable = built("soft-peer")

    /// The path of a program that is built with the tests.
    static func built(_ name: String) -> URL {
        let here = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        var folder = Bundle.main.bundleURL
        for candidate in [folder, folder.deletingLastPathComponent(), here.deletingLastPathComponent()] {
            folder = candidate
            let file = folder.appendingPathComponent(name)
            if FileManager.default.isExecutableFile(atPath: file.path) { return file }
        }
        return folder.appendingPathComponent(name)
    }

    var identifier: pid_t { process.processIdentifier }

    /// The next line of its output; nil at the end.
    func line() -> String? {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while read(output.fileHandleForReading.fileDescriptor, &byte, 1) == 1 {
            if byte == 10 { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(byte)
        }
        return nil
    }

    func writeLine(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

    func kill() {
        Foundation.kill(identifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Waits until it exits, and returns its exit status.
    func status() -> Int32 {
        process.waitUntilExit()
        return process.terminationStatus
    }
}

/// Two processes that have exchanged their addresses and are ready.
func connectedProcesses(
    _ settings: [String], environment: [String: String] = [:]
) throws -> (server: PeerProcess, client: PeerProcess) {
    let server = try PeerProcess("server", settings, environment: environment)
    let client = try PeerProcess("client", settings, environment: environment)
    // Exchanges the addresses, and then the readiness.
    for _ in 0..<2 {
        let fromServer = try #require(server.line())
        let fromClient = try #require(client.line())
        server.writeLine(fromClient)
        client.writeLine(fromServer)
    }
    return (server, client)
}
