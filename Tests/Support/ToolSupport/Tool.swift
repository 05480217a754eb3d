import Foundation
import Subprocess
import SystemPackage

/// The built `verbs`, run as a user runs it.
public enum Tool {
    /// What a run has left behind.
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

    /// A run that is under way.
    public struct Running {
        public let process: pid_t
        fileprivate let errors: String

        public func send(signal: CInt) { kill(process, signal) }

        /// What a terminal does: the signal goes to the whole process group.
        public func pressControlC() { kill(-process, SIGINT) }

        /// Waits until the program has said something on standard error, and returns all that it has said.
        public func hasSaid(_ text: String) async throws -> String {
            for _ in 0..<3000 {
                let said = (try? String(contentsOfFile: errors, encoding: .utf8)) ?? ""
                if said.contains(text) { return said }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw Silence(text: text)
        }

        /// The TCP port at which a server waits, once it does.
        public func port() async throws -> String {
            let said = try await hasSaid("ping HOST")
            guard let port = said.firstMatch(of: /TCP port (\d+)/)?.1 else { throw Unexpected(text: said) }
            return String(port)
        }

        /// The processes that it has started.
        public func children() throws -> [pid_t] {
            try String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)
                .split(separator: " ").compactMap { pid_t($0) }
        }
    }

    /// It did not say that.
    public struct Silence: Error { public var text: String }

    /// It said something else.
    public struct Unexpected: Error { public var text: String }

    /// Beside the test bundle, or where RDMA_TEST_TOOL says.
    public static let path: String = {
        if let path = ProcessInfo.processInfo.environment["RDMA_TEST_TOOL"] { return path }
        for argument in CommandLine.arguments {
            if let range = argument.range(of: ".xctest", options: .backwards) {
                let bundle = String(argument[..<range.upperBound])
                return URL(fileURLWithPath: bundle).deletingLastPathComponent().path + "/verbs"
            }
        }
        return URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/verbs"
    }()

    /// Runs `verbs` to its end; `meanwhile` may look at it and send signals.
    ///
    /// - Parameters:
    ///   - host: where it runs; nil: here.
    ///   - wrapper: a program that runs it, with its arguments.
    ///   - redirection: as a shell understands it, such as `>/dev/full`.
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
        // A group of its own, as a shell gives each command.
        options.processGroupID = 0
        let result = try await Subprocess.run(
            .path("/bin/sh"), arguments: Arguments(["-c", "exec \"$0\" \"$@\" \(redirection)"] + program + arguments),
            environment: .inherit.updating(variables),
            platformOptions: options,
            input: .none, output: .string(limit: 1 << 20), error: .fileDescriptor(file, closeAfterSpawningProcess: true)
        ) { execution in
            let running = Running(process: execution.processIdentifier.value, errors: errors)
            do {
                try await meanwhile(running)
            } catch {
                // Nobody else would end it.
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
