import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import verbs

@Suite("verbs devices, info, doctor, and wrong command lines")
struct CommandTests {
    @Test(
        "every command that describes the machine prints what its schema says",
        arguments: ["devices", "info", "doctor", "providers"])
    func documents(command: String) async throws {
        let outcome = try await Tool.run(command, "--json")
        #expect(outcome.status == 0 || command == "doctor", "\(outcome.errors)")
        #expect(outcome.errors.isEmpty)
        #expect(try SchemaValidator(named: command).faults(outcome.document()) == [])
    }

    @Test("the software device is there, with its provider")
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
            "soft0\n", "  provider: ", "  port 1\n", "    state: ", "  unsupported: ", "::ffff:127.0.0.1  RoCE v2",
        ] {
            #expect(outcome.output.contains(text), "\(text)")
        }
    }

    @Test("a device that is not there", arguments: ["info", "providers"])
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
        "a wrong command line is code 64 and says what is wrong",
        arguments: [
            ["nosuch"], ["ping", "--size", "lots"], ["ping", "--transport", "xx"], ["ping", "host", "--listen"],
            ["ping", "--operation", "read", "--transport", "ud"], ["ping", "--operation", "fetch-add", "--size", "16"],
            ["ping", "--timeout", "soon"], ["perf", "--batch", "100"], ["ping", "--size", "8k", "--transport", "ud"],
            ["ping", "--ipv4", "--ipv6"], ["perf", "host", "--in-process"], ["perf", "--listen", "--in-process"],
            ["perf", "--port", "5"], ["ping", "host", "--bind", "127.0.0.1"], ["perf", "--size", "0"],
        ])
    func usage(arguments: [String]) async throws {
        let outcome = try await Tool.run(arguments)
        #expect(outcome.status == 64 && outcome.output.isEmpty, "\(outcome)")
        #expect(!outcome.errors.isEmpty)
    }

    @Test(
        "an output that cannot be written is an error that says so, not lost data",
        arguments: [["devices"], ["info", "--json"], ["ping", "--count", "1"]], [">/dev/full", ">&-"])
    func output(arguments: [String], redirection: String) async throws {
        let outcome = try await Tool.run(arguments, redirection: redirection)
        #expect(outcome.status == ToolExit.failure.rawValue)
        #expect(outcome.errors.hasPrefix("verbs: cannot write to standard output: "), "\(outcome.errors)")
    }

    @Test("standard descriptors that are closed are not mistaken for others", arguments: ["<&-", "2>&-", "<&- 2>&-"])
    func closed(redirection: String) async throws {
        let outcome = try await Tool.run("ping", "--count", "5", "--verify", redirection: redirection)
        #expect(outcome.status == 0)
        #expect(outcome.output.contains("every byte was right"))
    }

    @Test("a server for inetd without a client says so")
    func inherited() async throws {
        let outcome = try await Tool.run("ping", "--inherited", redirection: "</dev/null")
        #expect(outcome.status == 64)
        #expect(outcome.errors.hasPrefix("verbs: standard input is no connection with a client\n  try: "))
    }

    @Test("nobody there, and somebody else there")
    func cannotMeet() async throws {
        let outcome = try await Tool.run("ping", "127.0.0.1", "--port", "1")
        #expect(outcome.status == ToolExit.cannotMeet.rawValue)
        #expect(outcome.errors.contains("connection refused\n  try: "))
    }

    @Test("a GID index that is not there, a port that is not there")
    func noAddress() async throws {
        for option in [["--gid-index", "200"], ["--device-port", "9"]] {
            let outcome = try await Tool.run(["ping", "--device", "soft0"] + option)
            #expect(outcome.status == ToolExit.noDevice.rawValue, "\(outcome)")
            #expect(outcome.errors.contains("it has port 1"))
        }
    }

    @Test("a kernel device without access is a fault for doctor, with a remedy")
    func doctor() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_7", pci: .init(0x15B3, 0x1017))
        let outcome = try await Tool.run("doctor", environment: ["SYSFS_PATH": sysfs.path])
        #expect(outcome.status == ToolExit.faultFound.rawValue)
        #expect(outcome.output.contains("fault: permissions: /dev/infiniband/uverbs0 is missing\n  try: "))
        #expect(outcome.output.contains("mlx5_7"))
    }

    @Test("what a provider warns of when its devices are listed or opened, doctor says")
    func doctorListens() async throws {
        let outcome = try await Tool.run("doctor", environment: ["RDMA_SOFT_INTERFACES": "nosuch0"])
        #expect(outcome.output.contains("warning: providers: soft says: RDMA_SOFT_INTERFACES names nosuch0"))
    }

}
