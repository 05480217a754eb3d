import Foundation
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
