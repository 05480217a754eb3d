import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs perf with several queue pairs", .serialized)
struct QueuePairsTests {
    private func document(_ arguments: [String]) async throws -> [String: Any] {
        let outcome = try await Tool.run(
            ["perf", "--device", "soft0", "--count", "200", "--duration", "20ms", "--json"] + arguments)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
        return document
    }

    @Test(
        "every queue pair completes messages, as many as the others: 2 and 64, of rc and uc, in one and in two processes",
        arguments: [(2, "rc", 2), (64, "rc", 2), (64, "rc", 1), (3, "uc", 2)])
    func spread(count: Int, transport: String, processes: Int) async throws {
        let document = try await document(
            ["--queue-pairs", "\(count)", "--transport", transport, "--size", "8", "--size", "3000", "--batch", "1"]
                + (processes == 1 ? ["--in-process"] : []))
        #expect(document["queuePairs"] as? Int == count)
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.count == (transport == "rc" ? 7 : 4))
        for row in rows {
            let messages = try #require(row["messagesOfQueuePair"] as? [String: Int])
            let (least, most) = (try #require(messages["min"]), try #require(messages["max"]))
            // In turn, so they differ by one at most. The window of 64 messages reaches all of them.
            #expect(least > 0 && (0...1).contains(most - least), "\(row)")
            #expect(row["latencyNanoseconds"] != nil && row["messagesPerSecond"] as? Double != 0)
        }
    }

    @Test("over xrc the operations have latency and message rate, and the receiver posts to its shared receive queue")
    func extended() async throws {
        let document = try await document([
            "--transport", "xrc", "--operation", "send", "--operation", "write", "--operation", "read", "--size",
            "3000",
        ])
        let rows = try #require(document["rows"] as? [[String: Any]])
        #expect(rows.count == 3)
        for row in rows {
            #expect(row["latencyNanoseconds"] != nil && row["messagesPerSecond"] as? Double != 0, "\(row)")
        }
    }

    @Test("one queue pair is the default, and the document says so; one of an earlier version does not")
    func one() async throws {
        var document = try await document(["--size", "8", "--operation", "send"])
        #expect(document["queuePairs"] as? Int == 1)
        #expect((document["rows"] as? [[String: Any]])?.first?["messagesOfQueuePair"] == nil)
        (document["queuePairs"], document["pairs"]) = (nil, nil)
        #expect(try SchemaValidator(named: "perf").faults(document) == [])
    }

    @Test("between a server with --listen and a client with HOST, and the text names the number")
    func separately() async throws {
        let server = try await Tool.run("perf", "--listen", "--port", "0") { server in
            let client = try await Tool.run(
                "perf", "127.0.0.1", "--port", try await server.port(), "--queue-pairs", "5", "--count", "20",
                "--duration", "10ms", "--size", "8")
            #expect(client.status == 0, "\(client.errors)")
            #expect(client.output.contains("\nwindow 64, batch 16, 5 queue pairs\n"), "\(client.output)")
        }
        #expect(server.status == 0, "\(server.errors)")
    }

    @Test("a device with fewer queue pairs is an error that names its limit")
    func tooMany() {
        for (count, limit) in [(1, 0), (1, 1), (64, 64), (4096, 8189)] {
            #expect(throws: Never.self, "\(count)") { try Link.checkQueuePairs(count, limit: limit, "mlx5_0") }
        }
        let error = #expect(throws: ToolError.self) { try Link.checkQueuePairs(65, limit: 64, "mlx5_0") }
        #expect(error?.exit == .unsupported && error?.message == "mlx5_0 has at most 64 queue pairs, not 65")
        #expect(error?.hint == "use --queue-pairs 64, or fewer")
        #expect(throws: ToolError.self) { try Link.checkQueuePairs(2, limit: 0, "mlx5_0") }
    }

    @Test(
        "counts and combinations that are impossible: exit code 64",
        arguments: [
            ["--queue-pairs", "0"], ["--queue-pairs", "4097"], ["--queue-pairs", "2", "--transport", "ud"],
            ["--queue-pairs", "2", "--transport", "xrc"],
            ["--queue-pairs", "2", "--rdma-cm"], ["--listen", "--queue-pairs", "2"],
        ])
    func refused(arguments: [String]) async throws {
        let outcome = try await Tool.run(["perf"] + arguments)
        #expect(outcome.status == ToolExit.usage.rawValue && outcome.output.isEmpty, "\(outcome)")
    }

    @Test("memory is bounded: receives in all, and send queues that hold two batches")
    func depths() {
        var setup = Setup(
            transport: .rc, largestSize: 64, window: 64, batch: 16, verify: false, timeout: 1, retryTime: 0)
        #expect(setup.sendDepth == 64 && setup.receiveDepth(limit: 16384) == 256)
        for (count, send, receive) in [(2, 64, 256), (4, 32, 128), (64, 32, 128), (4096, 32, 16)] {
            setup.queuePairs = count
            #expect(setup.sendDepth == send && setup.receiveDepth(limit: 16384) == receive, "\(count)")
            #expect(count * setup.receiveDepth(limit: 16384) <= Setup.mostReceives)
        }
        for window in [1, 5, 4096] {
            for batch in [1, window] {
                for count in [2, 7, 4096] {
                    (setup.window, setup.batch, setup.queuePairs) = (window, batch, count)
                    #expect((batch...window).contains(setup.sendDepth))
                }
            }
        }
    }

    @Test("a work request ID keeps queue pair and buffer apart")
    func identifiers() {
        for slot in [ReceiveSlot(queuePair: 0, buffer: 0), ReceiveSlot(queuePair: 4095, buffer: 15)] {
            #expect(ReceiveSlot(id: slot.id) == slot && slot.id & Link.receiveID != 0)
        }
    }

    @Test("a server rejects a setup with too many queue pairs, or with some that it cannot connect")
    func setups() {
        let good = Setup(
            transport: .rc, largestSize: 64, window: 64, queuePairs: 4096, batch: 16, verify: false, timeout: 1,
            retryTime: 0)
        #expect(throws: Never.self) { try good.check() }
        for change in [
            { $0.queuePairs = 0 }, { $0.queuePairs = 4097 }, { $0.batch = 0 }, { $0.batch = 65 },
            { $0.transport = .ud },
            { $0.verify = true }, { $0.usesConnectionManager = true },
        ] as [(inout Setup) -> Void] {
            var bad = good
            change(&bad)
            #expect(throws: ToolError.self, "\(bad)") { try bad.check() }
        }
    }
}
