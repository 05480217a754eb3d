import Foundation
import RoCETransport
import Testing

/// Seeds of a run. `SIM_COUNT` asks for more or fewer; `SIM_SEED` plays one seed again.
func simulationSeeds(_ usual: Int) -> ClosedRange<UInt64> {
    let environment = ProcessInfo.processInfo.environment
    if let text = environment["SIM_SEED"], let seed = UInt64(text) { return seed...seed }
    let count = environment["SIM_COUNT"].flatMap { Int($0) } ?? usual
    return 1...UInt64(max(count, 1))
}

func report(_ kind: String, _ seed: UInt64, _ error: any Error) {
    Issue.record("\(kind), SIM_SEED=\(seed): \(error)")
}

@Suite("Simulation from a seed")
struct SimulationTests {
    @Test("Reliable connections keep their promise: once, in order, or a named error; and nothing hangs")
    func reliable() throws {
        var broken = 0
        var scenarios = 0
        var timeouts: UInt64 = 0
        var retransmitted: UInt64 = 0
        for seed in simulationSeeds(800) {
            do {
                let scenario = try ReliableScenario(seed: seed)
                try scenario.run()
                scenarios += 1
                if scenario.unexplainedRetries > 0 { broken += 1 }
                for counters in scenario.counters {
                    timeouts += counters.timeouts
                    retransmitted += counters.retransmittedPackets
                }
                #expect(scenario.packetsCorrupted >= scenario.packetsRejected, "SIM_SEED=\(seed)")
            } catch {
                report("reliable", seed, error)
            }
        }
        print("\(scenarios) scenarios, \(broken) gave up, \(timeouts) timeouts, \(retransmitted) packets sent again")
        // Seven retries against at most 10 % of loss: giving up must be rare.
        #expect(broken * 50 <= max(scenarios, 50))
    }

    @Test("Unreliable connections deliver whole messages or nothing")
    func unreliable() {
        for seed in simulationSeeds(300) {
            do { try UnreliableScenario(seed: seed).run() } catch { report("unreliable", seed, error) }
        }
    }

    @Test("Datagrams arrive whole, with their header and source, or not at all")
    func datagrams() {
        for seed in simulationSeeds(300) {
            do { try DatagramScenario(seed: seed).run() } catch { report("datagram", seed, error) }
        }
    }
}
