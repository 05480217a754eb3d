import Foundation
import Testing
import ToolSupport

@testable import verbs

@Suite("verbs ping between two processes over the software device", .serialized)
struct PingTests {
    /// Looks at a document of `verbs ping --verify --json` with so many messages.
    private func check(_ document: [String: Any], sent count: Int) throws {
        let transport = (document["transport", in: "run"] as? String).flatMap(Transport.init(rawValue:))
        let operation = (document["operation"] as? String).flatMap { verbs.Operation(rawValue: $0) }
        guard let transport, let operation else {
            Issue.record("it names neither transport nor operation: \(document)")
            return
        }
        let client = try #require(document["client"] as? [String: Any])
        let server = try #require(document["server"] as? [String: Any])
        let name = "\(transport.name) \(operation.rawValue)"
        #expect(client["sent"] as? Int == count, "\(name)")
        let lost = try #require(client["lost"] as? Int)
        #expect(lost == 0 || transport != .rc, "\(name)")
        #expect(client["corrupted"] as? Int == 0 && server["corrupted"] as? Int == 0, "\(name)")
        #expect(client["verified"] as? Int == count - lost, "\(name)")
        if operation.involvesPeer {
            #expect(server["verified"] as? Int == server["received"] as? Int, "\(name)")
            #expect(try #require(server["received"] as? Int) >= count - lost, "\(name)")
        }
    }

    @Test("one operation moves its data and verifies every byte", arguments: [("rc", "read"), ("uc", "write-imm")])
    func oneOperation(transport: String, operation: String) async throws {
        let outcome = try await Tool.run(
            "ping", "--device", "soft0", "--transport", transport, "--operation", operation, "--size", "10001",
            "--count", "40", "--warm-up", "5", "--verify", "--json")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "ping").faults(document) == [])
        #expect(
            document["operation"] as? String == operation && document["transport", in: "run"] as? String == transport)
        try check(document, sent: 45)
    }

    @Test("--all moves and verifies every operation of every transport", arguments: ["ipv4", "ipv6"])
    func everyOperation(family: String) async throws {
        let outcome = try await Tool.run(
            "ping", "--device", "soft0", "--all", "--\(family)", "--size", "10001", "--count", "40", "--warm-up", "5",
            "--verify", "--json")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "ping-all").faults(document) == [])
        let runs = try #require(document["runs"] as? [[String: Any]])
        let done = runs.map { "\($0["transport", in: "run"] ?? "") \($0["operation"] ?? "") \($0["size"] ?? "")" }
        #expect(
            done == [
                "rc send 10001", "rc send-imm 10001", "rc write 10001", "rc write-imm 10001", "rc read 10001",
                "rc fetch-add 8", "rc compare-swap 8", "uc send 10001", "uc send-imm 10001", "uc write 10001",
                "uc write-imm 10001", "ud send 4096", "ud send-imm 4096",
            ])
        for run in runs {
            try check(run, sent: 45)
            let server = try #require((run["run"] as? [String: Any])?["server"] as? [String: Any])
            #expect((server["gid"] as? String)?.contains(".") == (family == "ipv4"))
        }
    }

    @Test("--all of one transport, as a table")
    func allAsText() async throws {
        let outcome = try await Tool.run("ping", "--all", "--transport", "ud", "--count", "10", "--verify")
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n")
        #expect(lines[0] == "from soft0 (soft, ::ffff:127.0.0.1) to soft0 (soft, ::ffff:127.0.0.1)")
        #expect(lines[1].contains(/^transport +operation +size +min us +p50 +p99 +p99.9 +max +messages/))
        #expect(lines[2].contains(/^ud +send +64 B( +[0-9.]+){5} +110/))
        #expect(lines[3].contains(/^ud +send-imm +64 B/))
        #expect(lines.count == 4)
    }

    @Test("--all goes with neither an operation nor a run without end")
    func allRefused() async throws {
        for extra in [["--operation", "read"], ["--count", "0"]] {
            let outcome = try await Tool.run(["ping", "--all"] + extra)
            #expect(outcome.status == 64 && outcome.errors.contains("--all"), "\(outcome.errors)")
        }
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

extension [String: Any] {
    /// A member of a member.
    fileprivate subscript(_ key: String, in outer: String) -> Any? { (self[outer] as? [String: Any])?[key] }
}
