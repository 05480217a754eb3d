import Foundation
import RoCETransport
import Testing

/// The seeds of a run. `SIM_COUNT` sets their number; `SIM_SEED` repeats one seed.
func simulationSeeds(_ usual: Int) -> ClosedRange<UInt64> {
    let environment = ProcessInfo.processInfo.environment
    if let text = environment["SIM_SEED"], let seed = UInt64(text) { return seed...seed }
    let count = environment["SIM_COUNT"].flatMap { Int($0) } ?? usual
    return 1...UInt64(max(count, 1))
}

func report(_ kind: String, _ seed: UInt64, _ error: any Error) {
    Issue.record("\(kind), SIM_SEED=\(seed): \(error)")
}

@Suite("Simulation of networks with loss")
struct SimulationTests {
    @Test("RC executes each work request once and in order, or completes it with an error, and does not hang")
    func reliable() throws {
        var broken = 0
        var scenarios = 0
        var timeouts: UInt64 = 0
        var retransmitted: UInt64 = 0
        var references = 0
        var held: UInt64 = 0
        for seed in simulationSeeds(800) {
            do {
                let scenario = try ReliableScenario(seed: seed)
                try scenario.run()
                scenarios += 1
                if scenario.unexplainedRetries > 0 { broken += 1 }
                references += scenario.referencesReceived
                for counters in scenario.counters {
                    timeouts += counters.timeouts
                    retransmitted += counters.retransmittedPackets
                    held += counters.heldRequests
                }
                #expect(scenario.packetsCorrupted >= scenario.packetsRejected, "SIM_SEED=\(seed)")
            } catch {
                report("reliable", seed, error)
            }
        }
        print("\(scenarios) scenarios, \(broken) gave up, \(timeouts) timeouts, \(retransmitted) packets sent again")
        #expect(references > 0 && held > 0 || scenarios < 100)
        // With 7 retries and at most 10 % loss, RETRY_EXC_ERR must be rare.
        #expect(broken * 50 <= max(scenarios, 50))
    }

    @Test("XRC does the same, with two shared receive queues for each receiver, which each work request chooses from")
    func extended() {
        var received: UInt64 = 0
        for seed in simulationSeeds(200) {
            do {
                let scenario = try ReliableScenario(seed: seed, isExtended: true)
                try scenario.run()
                received += scenario.counters.reduce(0) { $0 + $1.receivedBytes }
            } catch {
                report("extended", seed, error)
            }
        }
        #expect(received > 0)
    }

    /// `scripts/test laps` runs the same scenarios over distances up to one and a half laps (2^24 PSNs).
    @Test(
        "RC recovers from each type of lost response, some PSNs after a READ and an atomic",
        arguments: LapScenario.Loss.allCases.indices)
    func losses(first: Int) throws {
        try LapScenario(first: first, psn: 0xFF_FFC0).run(distances: [5, 64, 300])
        try UnreliableLapScenario(psn: 0xFF_FFC0).run(messages: 200, lossInterval: 37)
    }

    @Test("Many RC queue pairs through one drop-tail queue: everything arrives, few packets are lost, none starves")
    func bottleneck() {
        for seed in simulationSeeds(40) {
            do { try BottleneckScenario(seed: seed).run() } catch { report("bottleneck", seed, error) }
        }
    }

    @Test(
        "64 queue pairs send to one host through a small buffer, with losses and reordering, and do not collapse",
        arguments: [(10, 0), (100, 1), (500, 0), (500, 2), (0, 5)])
    func weather(loss: Int, reordering: Int) throws {
        var most = 0.0
        for seed in UInt64(1)...2 {
            let scenario = try BottleneckScenario(seed: seed, weather: .init(loss: loss, reordering: reordering))
            do { try scenario.run() } catch { report("weather", seed, error) }
            most = max(most, scenario.packetsForEach)
        }
        // The packets of go-back-N after a loss, acknowledgements and requests of READs.
        #expect(most < 4)
        print("loss \(Double(loss) / 100) %, reordering \(reordering) %: up to \(most) packets for each one")
    }

    @Test("The window of the destination prevents most losses of a drop-tail queue")
    func sharedWindow() throws {
        var lost = (shared: 0, separate: 0)
        for seed in UInt64(1)...15 {
            let shared = try BottleneckScenario(seed: seed)
            try shared.run()
            lost.shared += shared.overflowed
            let separate = try BottleneckScenario(seed: seed, sharesWindow: false)
            try? separate.run()
            lost.separate += separate.overflowed
        }
        print("lost with a shared window: \(lost.shared) packets, without: \(lost.separate)")
        #expect(lost.shared * 3 < lost.separate)
    }

    @Test("UC delivers complete messages or none")
    func unreliable() {
        for seed in simulationSeeds(300) {
            do { try UnreliableScenario(seed: seed).run() } catch { report("unreliable", seed, error) }
        }
    }

    @Test("Datagrams arrive complete, with GRH area and source QPN, or not at all")
    func datagrams() {
        for seed in simulationSeeds(300) {
            do { try DatagramScenario(seed: seed).run() } catch { report("datagram", seed, error) }
        }
    }
}
