import Foundation
import Testing

/// A `soft-peer` process.
final class PeerProcess {
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()

    init(_ role: String, _ settings: [String], environment: [String: String] = [:]) throws {
        process.executableURL = Self.executable
        process.arguments = [role] + settings
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = input
        process.standardOutput = output
        try process.run()
    }

    deinit {
        if process.isRunning { kill() }
    }

    /// Beside the bundle of tests.
    private static let executable: URL = {
        let here = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        var folder = Bundle.main.bundleURL
        for candidate in [folder, folder.deletingLastPathComponent(), here.deletingLastPathComponent()] {
            folder = candidate
            let file = folder.appendingPathComponent("soft-peer")
            if FileManager.default.isExecutableFile(atPath: file.path) { return file }
        }
        return folder.appendingPathComponent("soft-peer")
    }()

    var identifier: pid_t { process.processIdentifier }

    /// The next line that it prints; nil when it has ended.
    func line() -> String? {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while read(output.fileHandleForReading.fileDescriptor, &byte, 1) == 1 {
            if byte == 10 { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(byte)
        }
        return nil
    }

    func say(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

    func kill() {
        Foundation.kill(identifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Its exit status, once it ends by itself.
    func status() -> Int32 {
        process.waitUntilExit()
        return process.terminationStatus
    }
}

/// Two of them that have each other's addresses and are ready.
func connectedProcesses(
    _ settings: [String], environment: [String: String] = [:]
) throws -> (server: PeerProcess, client: PeerProcess) {
    let server = try PeerProcess("server", settings, environment: environment)
    let client = try PeerProcess("client", settings, environment: environment)
    // First the addresses, then that they are ready.
    for _ in 0..<2 {
        let fromServer = try #require(server.line())
        let fromClient = try #require(client.line())
        server.say(fromClient)
        client.say(fromServer)
    }
    return (server, client)
}
