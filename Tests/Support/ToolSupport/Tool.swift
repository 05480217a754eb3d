import Foundation
import Subprocess
import SystemPackage

/// Runs the built `verbs` as a user does.
public enum Tool {
    /// The result of a run.
    public struct Outcome: Sendable {
        /// The exit code; minus the number of the signal that ended it.
        public var status: CInt
        public var output: String
        public var errors: String

        /// Standard output as a JSON document.
        public func document() throws -> [String: Any] {
            let object = try JSONSerialization.jsonObject(with: Data(output.utf8))
            guard let document = object as? [String: Any] else { throw Unexpected(text: output) }
            return document
        }
    }

    /// A process that is running.
    public struct Running: Sendable {
        public let process: pid_t
        fileprivate let errors: String

        public func send(signal: CInt) { kill(process, signal) }

        /// Sends SIGINT to the process group, as a terminal does.
        public func pressControlC() { kill(-process, SIGINT) }

        /// Waits until the program has printed `text` on standard error, and returns everything that it has printed
        /// there.
        public func hasSaid(_ text: String) async throws -> String {
            for _ in 0..<3000 {
                let said = (try? String(contentsOfFile: errors, encoding: .utf8)) ?? ""
                if said.contains(text) { return said }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw Silence(text: text)
        }

        /// Waits until a server listens, and returns its TCP port.
        public func port() async throws -> String {
            let said = try await hasSaid(" HOST")
            guard let port = said.firstMatch(of: /TCP port (\d+)/)?.1 else { throw Unexpected(text: said) }
            return String(port)
        }

        /// Its child processes.
        public func children() throws -> [pid_t] {
            try String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)
                .split(separator: " ").compactMap { pid_t($0) }
        }
    }

    /// The program did not print `text` in time.
    public struct Silence: Error { public var text: String }

    /// The program printed unexpected output.
    public struct Unexpected: Error { public var text: String }

    /// A program that runs longer is killed. No program needs that long, not even on an emulated machine.
    private static let longestRun = Duration.seconds(600)

    /// Path of the program: RDMA_TEST_TOOL, or `verbs` in the directory of the test bundle.
    public static let path = ProcessInfo.processInfo.environment["RDMA_TEST_TOOL"] ?? built("verbs")

    /// Path of a program of this package, in the directory of the test bundle.
    public static func built(_ name: String) -> String {
        for argument in CommandLine.arguments {
            if let range = argument.range(of: ".xctest", options: .backwards) {
                let bundle = String(argument[..<range.upperBound])
                return URL(fileURLWithPath: bundle).deletingLastPathComponent().path + "/\(name)"
            }
        }
        return URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/\(name)"
    }

    /// Runs `verbs` until it exits; `meanwhile` can read its output and send signals.
    ///
    /// - Parameters:
    ///   - host: The network namespace in which it runs; nil: the current one.
    ///   - wrapper: A program that runs it, with its arguments.
    ///   - redirection: A shell redirection, such as `>/dev/full`.
    public static func run(
        _ arguments: String..., on host: NetworkNamespace? = nil, by wrapper: [String] = [],
        environment: [String: String] = [:], redirection: String = "",
        meanwhile: (Running) async throws -> Void = { _ in }
    ) async throws -> Outcome {
        try await run(
            arguments, on: host, by: wrapper, environment: environment, redirection: redirection, meanwhile: meanwhile)
    }

    public static func run(
        _ arguments: [String], on host: NetworkNamespace? = nil, by wrapper: [String] = [],
        environment: [String: String] = [:], redirection: String = "",
        meanwhile: (Running) async throws -> Void = { _ in }
    ) async throws -> Outcome {
        let program = (host?.entrance ?? []) + wrapper + [path]
        let errors = NSTemporaryDirectory() + "verbs-\(UUID().uuidString).stderr"
        defer { try? FileManager.default.removeItem(atPath: errors) }
        let file = try FileDescriptor.open(
            FilePath(errors), .writeOnly, options: [.create, .truncate, .append], permissions: .ownerReadWrite)
        var variables: [Environment.Key: String?] = ["RDMA_PROVIDER": nil, "RDMA_DRIVER_PATH": nil, "RDMA_LOG": nil]
        for (name, value) in environment { variables[Environment.Key(stringLiteral: name)] = value }
        var options = PlatformOptions()
        // A separate process group, as a shell creates for each command.
        options.processGroupID = 0
        // A program that never exits must fail its test, not block the test run.
        nonisolated(unsafe) var watchdog: Task<Void, any Error>?
        defer { watchdog?.cancel() }
        let result = try await Subprocess.run(
            .path("/bin/sh"), arguments: Arguments(["-c", "exec \"$0\" \"$@\" \(redirection)"] + program + arguments),
            environment: .inherit.updating(variables),
            platformOptions: options,
            input: .none, output: .string(limit: 1 << 20), error: .fileDescriptor(file, closeAfterSpawningProcess: true)
        ) { execution in
            let running = Running(process: execution.processIdentifier.value, errors: errors)
            watchdog = Task.detached {
                try await Task.sleep(for: longestRun)
                running.send(signal: SIGKILL)
            }
            do {
                try await meanwhile(running)
            } catch {
                // The program would not end by itself.
                running.send(signal: SIGKILL)
                throw error
            }
        }
        let status: CInt =
            switch result.terminationStatus {
            case .exited(let code): code
            case .signaled(let signal): -signal
            }
        return Outcome(
            status: status, output: result.standardOutput,
            errors: try String(contentsOfFile: errors, encoding: .utf8))
    }
}
