import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs devices, info, doctor, and wrong command lines")
struct CommandTests {
    @Test(
        "the JSON output of every command that describes the machine matches its schema",
        arguments: ["devices", "info", "doctor", "providers"])
    func documents(command: String) async throws {
        let outcome = try await Tool.run(command, "--json")
        #expect(outcome.status == 0 || command == "doctor", "\(outcome.errors)")
        #expect(outcome.errors.isEmpty)
        #expect(try SchemaValidator(named: command).faults(outcome.document()) == [])
    }

    @Test("devices lists the software device with its provider")
    func devices() async throws {
        let outcome = try await Tool.run("devices")
        #expect(outcome.status == 0)
        #expect(outcome.output.contains(/(?m)^soft0 +soft +software +InfiniBand +CA +[0-9a-f:]{19} +lo$/))
    }

    @Test("info shows limits, ports and GIDs")
    func info() async throws {
        let outcome = try await Tool.run("info", "soft0")
        #expect(outcome.status == 0)
        for text in [
            "soft0\n", "  provider: ", "  port 1\n", "    state: ", "  unsupported verbs: ",
            "::ffff:127.0.0.1  RoCE v2",
        ] {
            #expect(outcome.output.contains(text), "\(text)")
        }
    }

    @Test("The README of soft lists the limits and capabilities that info shows of soft0")
    func limitsOfSoft() async throws {
        let output = try await Tool.run("info", "soft0").output
        let shown = output.split(separator: "\n").compactMap { line -> String? in
            guard line.hasPrefix("  "), let colon = line.firstIndex(of: ":") else { return nil }
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .init(charactersIn: " []"))
            return "| \(line[..<colon].trimmingCharacters(in: .whitespaces)) | \(value) |"
        }
        let readme = try String(
            contentsOf: Repository.root.appending(path: "providers/soft/README.md"), encoding: .utf8)
        let start = try #require(readme.range(of: "### Limits and capabilities\n"))
        let rows = readme[start.upperBound...].split(separator: "\n\n")[1].split(separator: "\n").map(String.init)
        #expect(rows.count >= 10)
        let first = try #require(shown.firstIndex { $0.hasPrefix("| atomics |") })
        let end = try #require(shown.firstIndex { $0.hasPrefix("| unsupported verbs |") })
        #expect(Array(rows.dropFirst(2)) == Array(shown[first..<end]))
    }

    @Test("an unknown device name: exit code 2 and a hint with the known names", arguments: ["info", "providers"])
    func noDevice(command: String) async throws {
        let outcome = try await Tool.run(command, "nosuch0")
        #expect(outcome.status == ToolExit.noDevice.rawValue && outcome.output.isEmpty)
        #expect(outcome.errors.hasPrefix("verbs: there is no device \"nosuch0\"\n  try: one of these: "))
        #expect(outcome.errors.contains("soft0"))
        let ping = try await Tool.run("ping", "--device", "nosuch0")
        #expect(ping.status == ToolExit.noDevice.rawValue)
        #expect(ping.errors.split(separator: "\n").count == 2, "\(ping.errors)")
    }

    @Test(
        "a wrong command line: exit code 64 and a message",
        arguments: [
            ["nosuch"], ["ping", "--size", "lots"], ["ping", "--transport", "xx"], ["ping", "host", "--listen"],
            ["ping", "--operation", "read", "--transport", "ud"], ["ping", "--operation", "fetch-add", "--size", "16"],
            ["ping", "--timeout", "soon"], ["perf", "--batch", "100"], ["ping", "--size", "8k", "--transport", "ud"],
            ["ping", "--ipv4", "--ipv6"], ["perf", "host", "--in-process"], ["perf", "--listen", "--in-process"],
            ["perf", "--port", "5"], ["ping", "host", "--bind", "127.0.0.1"], ["perf", "--size", "0"],
            ["ping", "--listen", "--count", "5"], ["perf", "--listen", "--window", "5"], ["ping", ""],
            ["ping", "--listen", "--timeout", "10ms"], ["ping", "host", "--port", "0"], ["ping", "--device-port", "0"],
        ])
    func usage(arguments: [String]) async throws {
        let outcome = try await Tool.run(arguments)
        #expect(outcome.status == 64 && outcome.output.isEmpty, "\(outcome)")
        #expect(!outcome.errors.isEmpty)
    }

    @Test(
        "failure to write standard output is reported as an error",
        arguments: [["devices"], ["info", "--json"], ["ping", "--count", "1"]], [">/dev/full", ">&-"])
    func output(arguments: [String], redirection: String) async throws {
        let outcome = try await Tool.run(arguments, redirection: redirection)
        #expect(outcome.status == ToolExit.failure.rawValue)
        #expect(outcome.errors.hasPrefix("verbs: cannot write to standard output: "), "\(outcome.errors)")
    }

    @Test("the tool works with closed standard descriptors", arguments: ["<&-", "2>&-", "<&- 2>&-"])
    func closed(redirection: String) async throws {
        let outcome = try await Tool.run("ping", "--count", "5", "--verify", redirection: redirection)
        #expect(outcome.status == 0)
        #expect(outcome.output.contains("every byte correct"))
    }

    @Test("--inherited without a connection on standard input is an error")
    func inherited() async throws {
        let outcome = try await Tool.run("ping", "--inherited", redirection: "</dev/null")
        #expect(outcome.status == 64)
        #expect(outcome.errors.hasPrefix("verbs: standard input is not a connection to a client\n  try: "))
    }

    @Test("no server on the port: connection refused")
    func cannotConnect() async throws {
        let outcome = try await Tool.run("ping", "127.0.0.1", "--port", "1")
        #expect(outcome.status == ToolExit.cannotConnect.rawValue)
        #expect(outcome.errors.contains("connection refused\n  try: "))
    }

    @Test("an unknown GID index and an unknown port are errors")
    func noAddress() async throws {
        for option in [["--gid-index", "200"], ["--device-port", "9"]] {
            let outcome = try await Tool.run(["ping", "--device", "soft0"] + option)
            #expect(outcome.status == ToolExit.noDevice.rawValue, "\(outcome)")
            #expect(outcome.errors.contains("it has port 1"))
        }
    }

    @Test("doctor reports a kernel device without a device node as an error with a hint")
    func doctor() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_7", pci: .init(0x15B3, 0x1017))
        let outcome = try await Tool.run("doctor", environment: ["SYSFS_PATH": sysfs.path])
        #expect(outcome.status == ToolExit.problemFound.rawValue)
        #expect(outcome.output.contains("error: permissions: /dev/infiniband/uverbs0 is missing\n  try: "))
        #expect(outcome.output.contains("mlx5_7"))
    }

    @Test("doctor reports warnings that providers log when their devices are listed or opened")
    func doctorWarnings() async throws {
        let outcome = try await Tool.run("doctor", environment: ["RDMA_SOFT_INTERFACES": "nosuch0"])
        #expect(outcome.output.contains("warning: providers: soft warns: RDMA_SOFT_INTERFACES names nosuch0"))
    }
}
