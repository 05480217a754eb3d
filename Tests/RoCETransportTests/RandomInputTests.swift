import TestSupport
import Testing

@Suite("Random input")
struct RandomInputTests {
    @Test("Random packets, posts, times and transitions violate no rule of the engine")
    func random() throws {
        for seed in 1...400 as ClosedRange<UInt64> {
            var random = SplitMix(seed: seed)
            let bytes = (0..<random.within(10...400)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            if let violation = try EngineWorld().violation(bytes) { Issue.record("seed \(seed): \(violation)") }
        }
    }
}
