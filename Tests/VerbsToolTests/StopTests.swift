import Foundation
import Testing
import ToolSupport

@testable import verbs

@Suite("verbs ping and perf stop cleanly, and notice when the other side is gone", .serialized)
struct StopTests {
    /// Runs a server and a client that goes on for ever, and lets `meanwhile` interfere once it runs.
    private func endless(
        _ client: [String] = [], _ interfere: (_ client: Tool.Running, _ server: Tool.Running) throws -> Void
    ) async throws -> (client: Tool.Outcome, server: Tool.Outcome) {
        var outcome: Tool.Outcome?
        let server = try await Tool.run("ping", "--listen", "--port", "0", "--json") { server in
            let port = try await server.port()
            outcome = try await Tool.run(
                ["ping", "127.0.0.1", "--port", port, "--count", "0", "--warm-up", "0", "--json"] + client
            ) { client in
                _ = try await client.hasSaid("until Ctrl-C")
                try interfere(client, server)
            }
        }
        return (try #require(outcome), server)
    }

    @Test("Ctrl-C on the client: both sides end with a summary so far", arguments: [SIGINT, SIGTERM])
    func clientInterrupted(signal: CInt) async throws {
        let (client, server) = try await endless { client, _ in client.send(signal: signal) }
        #expect(client.status == 128 + signal, "\(client.errors)")
        #expect(server.status == 0, "\(server.errors)")
        let document = try client.document()
        #expect(try SchemaValidator(named: "ping").faults(document) == [])
        #expect(document["endedEarly"] as? String == "interrupted")
        #expect(try (server.document()["jobs"] as? [Any])?.count == 1)
    }

    @Test("Ctrl-C on the server: both sides end with a summary so far")
    func serverInterrupted() async throws {
        let (client, server) = try await endless { _, server in server.send(signal: SIGINT) }
        #expect(server.status == 130, "\(server.errors)")
        #expect(client.status == ToolExit.stoppedByPeer.rawValue, "\(client.errors)")
        #expect(try client.document()["endedEarly"] as? String == "stopped-by-peer")
        #expect(try server.document()["endedEarly"] as? String == "interrupted")
    }

    @Test("Ctrl-C in a terminal reaches both processes of a local ping: one summary, one exit code")
    func localInterrupted() async throws {
        let outcome = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            running.pressControlC()
        }
        #expect(outcome.status == 130, "\(outcome.errors)")
        #expect(outcome.output.contains("ended early: interrupted"))
    }

    @Test("Ctrl-C while the server still waits")
    func waitingInterrupted() async throws {
        let outcome = try await Tool.run("ping", "--listen", "--port", "0") { running in
            _ = try await running.hasSaid("ping HOST")
            running.send(signal: SIGINT)
        }
        #expect(outcome.status == 130)
    }

    @Test("a killed server leaves the client with an error", arguments: ["send", "write", "read"])
    func serverKilled(operation: String) async throws {
        let clock = ContinuousClock()
        var killed = clock.now
        let (client, server) = try await endless(["--operation", operation]) { _, server in
            server.send(signal: SIGKILL)
            killed = clock.now
        }
        #expect(server.status == -SIGKILL)
        #expect(client.status == ToolExit.peerLost.rawValue, "\(client.errors)")
        #expect(client.errors.contains("  try: "))
        // The retry time is half a second; the rest is room for a busy machine.
        #expect(clock.now - killed < .seconds(20))
    }

    @Test(
        "a server that hangs while its connection stands: the retry count runs out, or nobody answers in time",
        arguments: ["send", "read"])
    func serverHangs(operation: String) async throws {
        var outcome: Tool.Outcome?
        _ = try await Tool.run("ping", "--listen", "--port", "0") { server in
            let port = try await server.port()
            outcome = try await Tool.run(
                "ping", "127.0.0.1", "--port", port, "--count", "0", "--operation", operation, "--timeout",
                "2s"
            ) { client in
                _ = try await client.hasSaid("until Ctrl-C")
                server.send(signal: SIGSTOP)
            }
            server.send(signal: SIGKILL)
        }
        #expect(outcome?.status == ToolExit.peerLost.rawValue)
        // A server that hangs between taking a message and answering it leaves nothing that could be tried again.
        let errors = outcome?.errors ?? ""
        let isUnanswered = operation == "send" && errors.contains("no answer to a message within 2.00 s")
        #expect(errors.contains("RETRY_EXC_ERR") || isUnanswered, "\(errors)")
    }

    @Test("a killed client leaves the server with an error", arguments: ["send", "write", "read"])
    func clientKilled(operation: String) async throws {
        let (client, server) = try await endless(["--operation", operation]) { client, _ in
            client.send(signal: SIGKILL)
        }
        #expect(client.status == -SIGKILL)
        #expect(server.status == ToolExit.peerLost.rawValue, "\(server.errors)")
        #expect(server.errors.contains("  try: "))
    }

    @Test("a killed local server leaves the client with an error, and nothing behind")
    func localServerKilled() async throws {
        let outcome = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            for process in try running.children() { kill(process, SIGKILL) }
        }
        #expect(outcome.status == ToolExit.peerLost.rawValue, "\(outcome.errors)")
        #expect(outcome.errors.contains("  try: "))
    }

    @Test("a killed client takes its local server with it")
    func localClientKilled() async throws {
        var children: [pid_t] = []
        _ = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            children = try running.children()
            running.send(signal: SIGKILL)
        }
        #expect(children.count == 1)
        for process in children {
            for _ in 0..<1000 where kill(process, 0) == 0 { try await Task.sleep(for: .milliseconds(10)) }
            #expect(kill(process, 0) != 0)
        }
    }
}
