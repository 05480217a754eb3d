import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs ping between two processes over the software device", .serialized)
struct PingTests {
    /// Checks a document of `verbs ping --verify --json` with `count` messages.
    private func check(_ document: [String: Any], sent count: Int) throws {
        let transport = (document["transport", in: "run"] as? String).flatMap(Transport.init(rawValue:))
        let operation = (document["operation"] as? String).flatMap { VerbsCommand.Operation(rawValue: $0) }
        guard let transport, let operation else {
            Issue.record("transport or operation is missing: \(document)")
            return
        }
        let client = try #require(document["client"] as? [String: Any])
        let server = try #require(document["server"] as? [String: Any])
        let name = "\(transport.name) \(operation.rawValue)"
        #expect(client["sent"] as? Int == count, "\(name)")
        let lost = try #require(client["lost"] as? Int)
        #expect(lost == 0 || !transport.isReliable, "\(name)")
        #expect(client["corrupted"] as? Int == 0 && server["corrupted"] as? Int == 0, "\(name)")
        #expect(client["verified"] as? Int == count - lost, "\(name)")
        if operation.involvesPeer {
            #expect(server["verified"] as? Int == server["received"] as? Int, "\(name)")
            #expect(try #require(server["received"] as? Int) >= count - lost, "\(name)")
        }
    }

    @Test(
        "one operation transfers its data and verifies every byte",
        arguments: [("rc", "read"), ("uc", "write-imm"), ("xrc", "send-imm")])
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

    @Test(
        "--rdma-cm connects through the connection manager for software devices, between two processes and in one",
        .enabled(if: !FileManager.default.fileExists(atPath: "/dev/infiniband/rdma_cm")))
    func connectionManager() async throws {
        for mode in [[], ["--in-process"]] {
            let outcome = try await Tool.run(
                [
                    "ping", "--device", "soft0", "--rdma-cm", "--all", "--verify", "--size", "10001", "--count", "20",
                    "--warm-up", "2", "--json",
                ] + mode)
            #expect(outcome.status == 0, "\(outcome.errors)")
            let document = try outcome.document()
            #expect(try SchemaValidator(named: "ping-all").faults(document) == [])
            let runs = try #require(document["runs"] as? [[String: Any]])
            #expect(runs.count > 6)
            for run in runs {
                #expect(run["connectedBy", in: "run"] as? String == "rdma_cm")
                try check(run, sent: 22)
            }
        }
    }

    @Test("--all runs and verifies every operation of every transport", arguments: ["ipv4", "ipv6"])
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
                "rc fetch-add 8", "rc compare-swap 8", "rc atomic-write 8", "rc flush 10001", "rc window 10001",
                "uc send 10001", "uc send-imm 10001", "uc write 10001", "uc write-imm 10001", "ud send 4096",
                "ud send-imm 4096", "xrc send 10001", "xrc send-imm 10001",
                "xrc write 10001", "xrc write-imm 10001", "xrc read 10001", "xrc fetch-add 8", "xrc compare-swap 8",
            ])
        for run in runs {
            try check(run, sent: 45)
            let server = try #require((run["run"] as? [String: Any])?["server"] as? [String: Any])
            #expect((server["gid"] as? String)?.contains(".") == (family == "ipv4"))
        }
    }

    @Test("--all of one transport prints a table")
    func allAsText() async throws {
        let outcome = try await Tool.run("ping", "--all", "--transport", "ud", "--count", "10", "--verify")
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n")
        try #require(lines.count == 4, "\(outcome)")
        #expect(lines[0] == "from soft0 (soft, ::ffff:127.0.0.1) to soft0 (soft, ::ffff:127.0.0.1)")
        #expect(lines[1].contains(/^transport +operation +size +min us +p50 +p99 +p99.9 +max +messages/))
        #expect(lines[2].contains(/^ud +send +64 B( +[0-9.]+){5} +110/))
        #expect(lines[3].contains(/^ud +send-imm +64 B/))
    }

    @Test("--all with another size: atomics have 8 bytes", arguments: ["1", "7"])
    func smallest(size: String) async throws {
        let outcome = try await Tool.run("ping", "--all", "--size", size, "--count", "4", "--verify", "--json")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let runs = try #require(try outcome.document()["runs"] as? [[String: Any]])
        #expect(runs.count == 23)
        for run in runs {
            #expect(
                (run["size"] as? Int).map(String.init)
                    == (["fetch-add", "compare-swap", "atomic-write"].contains("\(run["operation"]!)") ? "8" : size)
            )
        }
    }

    @Test("a size that an operation does not support is rejected before the run")
    func refusedBeforehand() async throws {
        // There is no server on that port: the command line is checked before the connection.
        for extra in [["--all", "--size", "0"], ["--operation", "read", "--size", "0"]] {
            let outcome = try await Tool.run(["ping", "127.0.0.1", "--port", "1"] + extra)
            #expect(outcome.status == ToolExit.usage.rawValue, "\(outcome.errors)")
            #expect(
                outcome.errors.contains("over RC cannot have 0 bytes\n  try: use at least 1"), "\(outcome.errors)")
        }
        let perf = try await Tool.run("perf", "127.0.0.1", "--port", "1", "--operation", "write", "--size", "0")
        #expect(perf.status == ToolExit.usage.rawValue, "\(perf.errors)")
    }

    @Test("--all rejects --operation and --count 0")
    func allRefused() async throws {
        for extra in [["--operation", "read"], ["--count", "0"]] {
            let outcome = try await Tool.run(["ping", "--all"] + extra)
            #expect(outcome.status == 64 && outcome.errors.contains("--all"), "\(outcome.errors)")
        }
    }

    @Test(
        "messages of 0 bytes to 1 MiB are verified",
        arguments: ["0", "1", "7", "8", "15", "16", "4096", "4097", "1M"])
    func sizes(size: String) async throws {
        let outcome = try await Tool.run("ping", "--size", size, "--count", "10", "--warm-up", "0", "--verify")
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output.contains("verified: 20 messages, every byte correct"), "\(outcome.output)")
    }

    @Test("the text has the percentiles, the histogram and the verification")
    func text() async throws {
        let outcome = try await Tool.run("ping", "--count", "50", "--verify")
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        try #require(lines.count > 4, "\(outcome)")
        #expect(lines[0] == "RC from soft0 (soft, ::ffff:127.0.0.1) to soft0 (soft, ::ffff:127.0.0.1)")
        #expect(lines[1].hasPrefix("send, 64 B; 50 messages measured in "))
        #expect(lines[3].wholeMatch(of: /round trip +min +p50 +p99 +p99.9 +max/) != nil)
        #expect(lines[4].wholeMatch(of: /us( +[0-9]+\.[0-9]{2}){5}/) != nil)
        #expect(outcome.output.contains("%  #"))
        #expect(outcome.output.hasSuffix("verified: 300 messages, every byte correct\n"))
    }

    @Test("eight concurrent client/server pairs on one address")
    func eightPairs() async throws {
        try await withThrowingTaskGroup(of: Tool.Outcome.self) { group in
            for _ in 0..<8 {
                group.addTask { try await Tool.run("ping", "--count", "30", "--size", "5000", "--verify") }
            }
            for try await outcome in group {
                #expect(outcome.status == 0, "\(outcome.errors)")
                #expect(outcome.output.contains("every byte correct"))
            }
        }
    }

    @Test("a server with --listen and a client with HOST", arguments: ["127.0.0.1", "::1"])
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

    @Test("connections of other programs are rejected, and the client is served")
    func otherPrograms() async throws {
        let server = try await Tool.run("perf", "--listen", "--bind", "127.0.0.1", "--port", "0") { server in
            let port = try await server.port()
            let rejected = try await Tool.run("ping", "127.0.0.1", "--port", port, "--device", "nosuch")
            #expect(rejected.status == ToolExit.noDevice.rawValue)
            _ = try await server.hasSaid("rejected a connection")
            // Silent connections, a browser, half a frame, a frame that is too large: they stay until the client is
            // served.
            let otherPrograms = try await NetworkNamespace.shellHere(
                """
                python3 - <<'END' >/dev/null 2>&1 &
                import os, socket, time
                sent = [b"", b"", b"", b"GET / HTTP/1.1\\r\\n", b"RDMA\\x02\\x01",
                        b"RDMA\\x02\\x01\\0\\0\\xff\\xff\\xff\\xff",
                        b"RDMA\\x02\\x03\\0\\0\\0\\0\\0\\0"]
                held = [socket.create_connection(("127.0.0.1", \(port))) for _ in sent]
                for one, text in zip(held, sent): one.sendall(text)
                time.sleep(60)
                END
                echo $!
                """)
            defer { kill(pid_t(otherPrograms.filter(\.isNumber)) ?? 0, SIGKILL) }
            _ = try await server.hasSaid("65536 are allowed")
            let client = try await Tool.run("ping", "127.0.0.1", "--port", port, "--count", "5")
            #expect(client.status == 0, "\(client.errors)")
        }
        #expect(server.status == 0, "\(server.errors)")
        #expect(server.errors.contains("on the other machine: verbs perf HOST --port"), "\(server.errors)")
        let lines = server.output.split(separator: "\n", omittingEmptySubsequences: false)
        try #require(lines.count > 3, "\(server)")
        #expect(lines[0] == "soft0, client ::ffff:127.0.0.1" && lines[1].isEmpty, "\(server.output)")
        #expect(lines[2].contains(/^transport +operation +size/) && lines[3].contains("latency"), "\(server.output)")
    }

    @Test("verbs perf measures latency, bandwidth and message rate of every operation")
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
        // The columns are as wide as their longest value.
        #expect(text.output.contains(/operation +size +min us/), "\(text.output)")
    }

    @Test("verbs perf --memory malloc measures memory that other processes cannot map, and flush")
    func perfOverMemoryOfMalloc() async throws {
        let operations = ["write", "read", "fetch-add", "flush"]
        let outcome = try await Tool.run(
            ["perf", "--memory", "malloc", "--count", "20", "--duration", "20ms", "--size", "8", "--json"]
                + operations.flatMap { ["--operation", $0] })
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        #expect(document["memory"] as? String == "malloc" && document["target"] as? String == "sleeps")
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.map { $0["operation"] as? String } == operations)
        for row in rows { #expect(try #require(row["messagesPerSecond"] as? Double) > 0) }
        let refused = try await Tool.run("perf", "--listen", "--memory", "malloc")
        #expect(refused.status == ToolExit.usage.rawValue, "\(refused.errors)")
    }

    @Test("verbs perf --target polls lets the server poll while the client reads and adds")
    func perfWithPollingTarget() async throws {
        let outcome = try await Tool.run(
            "perf", "--target", "polls", "--count", "20", "--duration", "20ms", "--size", "8", "--json", "--memory",
            "malloc", "--operation", "read", "--operation", "fetch-add")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        #expect(document["target"] as? String == "polls")
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.map { $0["operation"] as? String } == ["read", "fetch-add"])
        for row in rows { #expect(try #require(row["messagesPerSecond"] as? Double) > 0) }
        let refused = try await Tool.run("perf", "--listen", "--target", "polls")
        #expect(refused.status == ToolExit.usage.rawValue, "\(refused.errors)")
    }
}

extension [String: Any] {
    /// A nested member.
    fileprivate subscript(_ key: String, in outer: String) -> Any? { (self[outer] as? [String: Any])?[key] }
}
