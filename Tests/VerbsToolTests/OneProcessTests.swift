import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs ping and perf with both peers in one process", .serialized)
struct OneProcessTests {
    @Test("ping on each transport starts no second process, and every byte is correct", arguments: Transport.allCases)
    func everyTransport(transport: Transport) async throws {
        let outcome = try await Tool.run(
            "ping", "--in-process", "--transport", transport.rawValue, "--size", "1000", "--verify", "--json",
            "--count", "0", "--warm-up", "0"
        ) { running in
            _ = try await running.hasSaid("until Ctrl-C")
            #expect(try running.children() == [])
            running.pressControlC()
        }
        #expect(outcome.status == 130, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "ping").faults(document) == [])
        #expect((document["run"] as? [String: Any])?["processes"] as? Int == 1)
        #expect(document["endedEarly"] as? String == "interrupted")
        for side in ["client", "server"] {
            let tally = try #require(document[side] as? [String: Any])
            #expect(tally["corrupted"] as? Int == 0 && tally["verified"] as? Int == tally["received"] as? Int)
        }
    }

    @Test("ping over a loaded software device: all that it supports in one process, and every byte is correct")
    func loadedDevice() async throws {
        let directory = try TemporaryDirectory()
        try CTestProvider.writeDriverFile(in: directory)
        let environment = ["RDMA_DRIVER_PATH": directory.path, "SYSFS_PATH": "/nonexistent"]
        let info = try await Tool.run("info", "ctest0", "--json", environment: environment)
        #expect(info.status == 0, "\(info.errors)")
        let document = try info.document()
        #expect(try SchemaValidator(named: "info").faults(document) == [])
        let device = try #require((document["devices"] as? [[String: Any]])?.first)
        #expect(device["location"] as? String == "memory of this process" && device["interface"] == nil)
        // It has no UC queue pairs.
        for (transport, operations) in [("rc", 7), ("ud", 2)] {
            let ping = try await Tool.run(
                "ping", "--device", "ctest0", "--in-process", "--all", "--transport", transport, "--verify", "--count",
                "50", "--json", environment: environment)
            #expect(ping.status == 0, "\(ping.errors)")
            let runs = try #require(ping.document()["runs"] as? [[String: Any]], "\(ping.output)")
            #expect(runs.count == operations)
        }
    }

    @Test("perf measures the same rows in one and in two processes", arguments: [1, 2])
    func perf(processes: Int) async throws {
        let outcome = try await Tool.run(
            ["perf", "--count", "20", "--duration", "10ms", "--size", "64", "--json"]
                + (processes == 1 ? ["--in-process"] : []))
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        #expect((document["run"] as? [String: Any])?["processes"] as? Int == processes)
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.map { $0["operation"] as? String } == ["send", "write", "read", "fetch-add"])
        for row in rows {
            #expect(row["latencyNanoseconds"] != nil)
            #expect(try #require(row["messagesPerSecond"] as? Double) > 0)
        }
    }

    @Test("a device that cannot be opened is reported, and the command ends")
    func noDevice() async throws {
        let outcome = try await Tool.run("perf", "--in-process", "--device", "nosuch0")
        #expect(outcome.status == ToolExit.noDevice.rawValue && outcome.output.isEmpty)
        #expect(outcome.errors.contains("  try: "))
    }
}
