import Glibc
import RoCETransport

// Connections that use all 2^24 PSNs, some of them twice. scripts/test laps runs it as an optimized build with
// assertions; a debug build takes ten minutes. The test suite runs the same scenarios over short distances.

/// PSN distances from a remembered READ or atomic: within half of the PSN space, at its border, within and beyond one
/// lap.
let distances: [UInt32] = [
    1 << 22, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, 3 << 23,
]

do {
    for first in [0, 3] {
        let scenario = try LapScenario(first: first, psn: 0xFF_FF00)
        try scenario.run(distances: distances)
        print("reliable, \(LapScenario.Loss.allCases[first]) lost first: \(scenario.packets) packets")
    }
    let unreliable = try UnreliableLapScenario(psn: 0xFF_FF00)
    try unreliable.run(messages: 1 << 22 + 1000, lossInterval: 1001)
    print("unreliable: \(unreliable.packets) packets")
} catch {
    print("failed: \(error)")
    exit(1)
}
