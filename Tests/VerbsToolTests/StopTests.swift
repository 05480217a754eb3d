import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs ping and perf end with a summary after a signal, and detect a lost peer", .serialized)
struct StopTests {
    /// Runs a server and a client without a limit, and calls `interfere` when the client transfers messages.
    private func endless(
        _ client: [String] = [], _ interfere: (_ client: Tool.Running, _ server: Tool.Running) async throws -> Void
    ) async throws -> (client: Tool.Outcome, server: Tool.Outcome) {
        var outcome: Tool.Outcome?
        let server = try await Tool.run("ping", "--listen", "--port", "0", "--json") { server in
            let port = try await server.port()
            outcome = try await Tool.run(
                ["ping", "127.0.0.1", "--port", port, "--count", "0", "--warm-up", "0", "--json"] + client
            ) { client in
                _ = try await client.hasSaid("until Ctrl-C")
                try await interfere(client, server)
            }
        }
        return (try #require(outcome), server)
    }

    @Test("SIGINT or SIGTERM to the client: both peers end with a summary", arguments: [SIGINT, SIGTERM])
    func clientInterrupted(signal: CInt) async throws {
        let (client, server) = try await endless { client, _ in client.send(signal: signal) }
        #expect(client.status == 128 + signal, "\(client.errors)")
        #expect(server.status == 0, "\(server.errors)")
        let document = try client.document()
        #expect(try SchemaValidator(named: "ping").faults(document) == [])
        #expect(document["endedEarly"] as? String == "interrupted")
        #expect(try (server.document()["jobs"] as? [Any])?.count == 1)
    }

    @Test("SIGINT to the server: both peers end with a summary")
    func serverInterrupted() async throws {
        let (client, server) = try await endless { _, server in server.send(signal: SIGINT) }
        #expect(server.status == 130, "\(server.errors)")
        #expect(client.status == ToolExit.stoppedByPeer.rawValue, "\(client.errors)")
        #expect(try client.document()["endedEarly"] as? String == "stopped-by-peer")
        #expect(try server.document()["endedEarly"] as? String == "interrupted")
    }

    @Test("Ctrl-C in a terminal, which reaches both processes of a local ping: one summary, one exit code")
    func localInterrupted() async throws {
        let outcome = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            running.pressControlC()
        }
        #expect(outcome.status == 130, "\(outcome.errors)")
        #expect(outcome.output.contains("ended early: interrupted"))
    }

    @Test("SIGINT ends a server that waits for a client, with exit code 130")
    func waitingInterrupted() async throws {
        let outcome = try await Tool.run("ping", "--listen", "--port", "0") { running in
            _ = try await running.hasSaid("ping HOST")
            running.send(signal: SIGINT)
        }
        #expect(outcome.status == 130)
    }

    @Test("the client reports a killed server", arguments: ["send", "write", "read"])
    func serverKilled(operation: String) async throws {
        // The control connection is closed at once: nothing waits for the time-out.
        let (client, server) = try await endless(["--operation", operation, "--timeout", "1h"]) { _, server in
            server.send(signal: SIGKILL)
        }
        #expect(server.status == -SIGKILL)
        #expect(client.status == ToolExit.peerLost.rawValue, "\(client.errors)")
        #expect(client.errors.contains("  try: ") && !client.errors.contains("silent"), "\(client.errors)")
    }

    @Test(
        "the client reports a server that hangs with an open connection", arguments: ["send", "read"])
    func serverHangs(operation: String) async throws {
        var outcome: Tool.Outcome?
        _ = try await Tool.run("ping", "--listen", "--port", "0") { server in
            let port = try await server.port()
            outcome = try await Tool.run(
                "ping", "127.0.0.1", "--port", port, "--count", "0", "--operation", operation, "--timeout",
                "5s"
            ) { client in
                _ = try await client.hasSaid("until Ctrl-C")
                server.send(signal: SIGSTOP)
            }
            server.send(signal: SIGKILL)
        }
        #expect(outcome?.status == ToolExit.peerLost.rawValue)
        let errors = try #require(outcome?.errors)
        #expect(errors.contains("no response to a message within 5.00 s") || Self.exhausted(errors), "\(errors)")
    }

    @Test("a server that is stopped for less than --timeout: the run continues")
    func serverStopped() async throws {
        let (client, server) = try await endless(["--timeout", "10m", "--operation", "read"]) { client, server in
            // An RDMA read is always outstanding, and only the stopped process can respond.
            server.send(signal: SIGSTOP)
            // Longer than eight transmissions with a Local ACK Timeout of 67 ms.
            try await Task.sleep(for: .milliseconds(800))
            server.send(signal: SIGCONT)
            client.send(signal: SIGINT)
        }
        #expect(client.status == 130, "\(client.errors)")
        #expect(server.status == 0, "\(server.errors)")
    }

    @Test(
        "the server ends within its --timeout if the client is stopped", arguments: ["send", "write", "read"])
    func clientStopped(operation: String) async throws {
        let server = try await Tool.run("ping", "--listen", "--port", "0", "--timeout", "5s") { server in
            let port = try await server.port()
            _ = try await Tool.run(
                "ping", "127.0.0.1", "--port", port, "--count", "0", "--operation", operation
            ) { client in
                _ = try await client.hasSaid("until Ctrl-C")
                client.send(signal: SIGSTOP)
                _ = try await server.hasSaid("  try: ")
                client.send(signal: SIGKILL)
            }
        }
        #expect(server.status == ToolExit.peerLost.rawValue, "\(server.errors)")
        let errors = server.errors
        #expect(errors.contains("has been silent for 5.00 s") || Self.exhausted(errors), "\(errors)")
    }

    /// The retransmissions of the queue pair last a little longer than the timeout. On a busy machine a process may
    /// notice their end first.
    private static func exhausted(_ errors: String) -> Bool { errors.contains("completion status RETRY_EXC_ERR") }

    @Test("the server reports a killed client", arguments: ["send", "write", "read"])
    func clientKilled(operation: String) async throws {
        let (client, server) = try await endless(["--operation", operation]) { client, _ in
            client.send(signal: SIGKILL)
        }
        #expect(client.status == -SIGKILL)
        #expect(server.status == ToolExit.peerLost.rawValue, "\(server.errors)")
        #expect(server.errors.contains("  try: "))
    }

    @Test("the client reports a killed local server")
    func localServerKilled() async throws {
        let outcome = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            for process in try running.children() { kill(process, SIGKILL) }
        }
        #expect(outcome.status == ToolExit.peerLost.rawValue, "\(outcome.errors)")
        #expect(outcome.errors.contains("  try: "))
    }

    @Test("a local server ends if its client is killed")
    func localClientKilled() async throws {
        var children: [pid_t] = []
        _ = try await Tool.run("ping", "--count", "0") { running in
            _ = try await running.hasSaid("until Ctrl-C")
            children = try running.children()
            running.send(signal: SIGKILL)
        }
        #expect(children.count == 1)
        for process in children {
            for _ in 0..<30_000 where kill(process, 0) == 0 { try await Task.sleep(for: .milliseconds(10)) }
            #expect(kill(process, 0) != 0)
        }
    }
}
