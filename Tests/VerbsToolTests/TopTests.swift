import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs top shows the counters of soft in other processes", .serialized)
struct TopTests {
    /// The device of soft that a process has open, in the document of `verbs top --json`.
    private func device(of process: pid_t, in document: [String: Any]) throws -> [String: Any] {
        let devices = try #require(document["softDevices"] as? [[String: Any]])
        return try #require(devices.first { $0["process"] as? Int == Int(process) }, "\(devices)")
    }

    @Test("a process that transfers messages: its name, its counters and their rates")
    func counters() async throws {
        var outcome: Tool.Outcome?
        _ = try await Tool.run("ping", "--listen", "--port", "0") { server in
            let port = try await server.port()
            _ = try await Tool.run("ping", "127.0.0.1", "--port", port, "--count", "0") { client in
                _ = try await client.hasSaid("until Ctrl-C")
                let deadline = ContinuousClock.now + .seconds(300)
                var document: [String: Any] = [:]
                var device: [String: Any] = [:]
                // A process that has had no processor for a while does not answer in time.
                repeat {
                    outcome = try await Tool.run("top", "--json", "--interval", "500ms")
                    document = try #require(try outcome?.document())
                    device = try self.device(of: client.process, in: document)
                } while (device["counters"] as? [String: Int] ?? [:]).isEmpty && ContinuousClock.now < deadline
                #expect(try SchemaValidator(named: "top").faults(document) == [])
                #expect(device["device"] as? String == "soft0" && device["command"] as? String == "verbs")
                let counters = try #require(device["counters"] as? [String: Int])
                for name in ["sent_pkts", "rcvd_pkts", "sent_bytes", "rcvd_bytes"] {
                    #expect(counters[name, default: 0] > 0, "\(name): \(counters)")
                }
                let rates = try #require(device["ratesPerSecond"] as? [String: Double])
                #expect(rates["sent_pkts", default: 0] > 0, "\(rates)")
                var text: Tool.Outcome
                repeat {
                    text = try await Tool.run("top", "soft0", "--interval", "100ms")
                } while !text.output.contains("soft0, process \(client.process) (verbs): ")
                    && ContinuousClock.now < deadline
                #expect(text.output.contains("soft0, process \(client.process) (verbs): "), "\(text)")
                client.send(signal: SIGINT)
            }
        }
        #expect(outcome?.status == 0, "\(outcome?.errors ?? "")")
    }

    @Test("an answer with lines of another form, or with random bytes, is read as far as it can be")
    func badAnswer() {
        var sample = SoftDevices.Sample(slot: 0, process: nil, device: nil, time: 0)
        sample.read(Array("device a b\nsent_pkts 5\n\nnothing\nnegative -1\nlong 99999999999999999999\n".utf8))
        #expect(sample.device == "a b" && sample.values == ["sent_pkts": 5])
        var random = SplitMix(seed: 11)
        for count in 0..<1000 {
            var sample = SoftDevices.Sample(slot: 0, process: nil, device: nil, time: 0)
            let byte = { random.pick([10, 32, 48, UInt8(random.below(256))]) }
            sample.read((0..<count % 200).map { _ in byte() })
            #expect(sample.device != nil)
        }
    }

    @Test("a process that is stopped is reported as silent, and does not hold up verbs top")
    func stopped() async throws {
        _ = try await Tool.run("ping", "--listen", "--port", "0") { server in
            let port = try await server.port()
            _ = try await Tool.run("ping", "127.0.0.1", "--port", port, "--count", "0") { client in
                _ = try await client.hasSaid("until Ctrl-C")
                client.send(signal: SIGSTOP)
                let outcome = try await Tool.run("top", "--json", "--interval", "100ms")
                client.send(signal: SIGCONT)
                client.send(signal: SIGINT)
                #expect(outcome.status == 0, "\(outcome.errors)")
                let device = try device(of: client.process, in: outcome.document())
                #expect(device["answered"] as? Bool == false && device["device"] == nil, "\(device)")
            }
        }
    }
}
