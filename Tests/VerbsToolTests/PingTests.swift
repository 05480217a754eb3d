import Foundation
import Testing
import ToolSupport

@testable import verbs

@Suite("verbs ping between two processes over the software device", .serialized)
struct PingTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var transport: Transport
        var operation: verbs.Operation
        var family: AddressFamily
        var testDescription: String { "\(transport.name) \(operation.rawValue) \(family.rawValue)" }

        static let all = Transport.allCases.flatMap { transport in
            verbs.Operation.allCases.filter { $0.isPossible(on: transport) }.flatMap { operation in
                AddressFamily.allCases.map { Case(transport: transport, operation: operation, family: $0) }
            }
        }
    }

    @Test("every operation moves its data and verifies every byte", arguments: Case.all)
    func everyOperation(_ example: Case) async throws {
        let size = example.operation.isAtomic ? 8 : example.transport == .ud ? 1024 : 10_001
        let outcome = try await Tool.run(
            "ping", "--device", "soft0", "--transport", example.transport.rawValue, "--operation",
            example.operation.rawValue, "--\(example.family.rawValue)", "--size", "\(size)", "--count", "40",
            "--warm-up",
            "5", "--verify", "--json")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "ping").faults(document) == [])
        let client = try #require(document["client"] as? [String: Any])
        let server = try #require(document["server"] as? [String: Any])
        #expect(client["sent"] as? Int == 45)
        let lost = try #require(client["lost"] as? Int)
        #expect(lost == 0 || example.transport != .rc)
        #expect(client["corrupted"] as? Int == 0 && server["corrupted"] as? Int == 0)
        #expect(client["verified"] as? Int == 45 - lost)
        if example.operation.involvesPeer {
            #expect(server["verified"] as? Int == server["received"] as? Int)
            #expect(try #require(server["received"] as? Int) >= 45 - lost)
        }
        let run = try #require(document["run"] as? [String: Any])
        let side = try #require(run["server"] as? [String: Any])
        #expect((side["gid"] as? String)?.contains(".") == (example.family == .ipv4))
    }

    @Test(
        "messages of every size, from nothing to more than a megabyte",
        arguments: ["0", "1", "7", "8", "15", "16", "4096", "4097", "1M"])
    func sizes(size: String) async throws {
        let outcome = try await Tool.run("ping", "--size", size, "--count", "10", "--warm-up", "0", "--verify")
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output.contains("verified: 20 messages, every byte was right"), "\(outcome.output)")
    }

    @Test("the text has the percentiles, the histogram and the verification")
    func text() async throws {
        let outcome = try await Tool.run("ping", "--count", "50", "--verify")
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[0] == "RC from soft0 (soft, ::ffff:127.0.0.1) to soft0 (soft, ::ffff:127.0.0.1)")
        #expect(lines[1].hasPrefix("send, 64 B; 50 messages measured in "))
        #expect(lines[3].wholeMatch(of: /round trip +min +p50 +p99 +p99.9 +max/) != nil)
        #expect(lines[4].wholeMatch(of: /us( +[0-9]+\.[0-9]{2}){5}/) != nil)
        #expect(outcome.output.contains("%  #"))
        #expect(outcome.output.hasSuffix("verified: 300 messages, every byte was right\n"))
    }

    @Test("eight pairs at once on one address")
    func eightPairs() async throws {
        try await withThrowingTaskGroup(of: Tool.Outcome.self) { group in
            for _ in 0..<8 {
                group.addTask { try await Tool.run("ping", "--count", "30", "--size", "5000", "--verify") }
            }
            for try await outcome in group {
                #expect(outcome.status == 0, "\(outcome.errors)")
                #expect(outcome.output.contains("every byte was right"))
            }
        }
    }

    @Test("a server on its own and a client that names its host", arguments: ["127.0.0.1", "::1"])
    func separately(host: String) async throws {
        let server = try await Tool.run("ping", "--listen", "--port", "0", "--json") { server in
            let port = try await server.port()
            let client = try await Tool.run("ping", host, "--port", port, "--count", "20", "--verify")
            #expect(client.status == 0, "\(client.errors)")
            #expect(client.output.contains("verified: 240 messages"))
        }
        #expect(server.status == 0, "\(server.errors)")
        let document = try server.document()
        #expect(try SchemaValidator(named: "server").faults(document) == [])
        let jobs = try #require(document["jobs"] as? [[String: Any]])
        #expect((jobs.first?["tally"] as? [String: Any])?["verified"] as? Int == 120)
    }

    @Test("a stranger at the server's port is sent away, and the client still served")
    func stranger() async throws {
        let server = try await Tool.run("perf", "--listen", "--bind", "127.0.0.1", "--port", "0") { server in
            let port = try await server.port()
            let curious = try await Tool.run("ping", "127.0.0.1", "--port", port, "--device", "nosuch")
            #expect(curious.status == ToolExit.noDevice.rawValue)
            _ = try await server.hasSaid("away")
            let client = try await Tool.run("ping", "127.0.0.1", "--port", port, "--count", "5")
            #expect(client.status == 0, "\(client.errors)")
        }
        #expect(server.status == 0 && server.output.contains("latency"), "\(server.errors)")
    }

    @Test("verbs perf prints its table: latency, bandwidth and rate of every operation")
    func perf() async throws {
        let outcome = try await Tool.run(
            "perf", "--count", "20", "--duration", "20ms", "--size", "64", "--size", "20k", "--json")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        let rows = try #require(document["rows"] as? [[String: Any]])
        let names = rows.map { "\($0["operation"]!) \($0["size"]!)" }
        #expect(
            names == [
                "send 64", "send 20480", "write 64", "write 20480", "read 64", "read 20480", "fetch-add 8",
            ])
        for row in rows {
            #expect(row["latencyNanoseconds"] != nil)
            #expect(try #require(row["messagesPerSecond"] as? Double) > 0)
        }
        let text = try await Tool.run(
            "perf", "--count", "10", "--duration", "10ms", "--operation", "send", "--size", "1k", "--transport", "ud")
        #expect(text.status == 0, "\(text.errors)")
        #expect(text.output.contains("\nwindow 64, batch 16\n"))
        #expect(text.output.contains("operation   size  min us"), "\(text.output)")
    }
}
