import Testing
import Verbs

@Suite("Attributes of queues, on soft0")
struct QueueAttributeTests {
    @Test("A completion's timestamp lies between two readings of the device's clock, and has a wall clock")
    func timestamps() throws {
        let context = try Bench.open("soft0")
        let attributes = try context.attributes()
        #expect(attributes.coreClock == 1_000_000 && attributes.completionTimestampMask == .max)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64)
        var completions = try context.makeCompletionQueue(
            capacity: 16, fields: [.standard, .timestamp, .wallClock])
        var left = try domain.makeQueuePair(.reliableConnection, completions: completions)
        var right = try domain.makeQueuePair(.reliableConnection, completions: completions)
        let (here, there) = (try left.endpoint(), try right.endpoint())
        try left.connect(to: there)
        try right.connect(to: here)
        let before = try context.rawClock()
        try right.postReceive(try region.sge(0..<64), id: 1)
        try left.postSend(.send, try region.sge(0..<8), id: 2)
        var times: [UInt64] = []
        var count = 0
        while count < 2 {
            count += try completions.pollExtended { completion in
                if let time = completion.timestamp, completion.wallClock ?? 0 > time { times.append(time) }
            }
        }
        let after = try context.rawClock()
        #expect(times.count == 2 && times.allSatisfy { (before...after).contains($0) })
    }

    @Test("Moderation, a rate limit and enhanced connection establishment through the Swift API")
    func settings() throws {
        let context = try Bench.open("soft0")
        let attributes = try context.attributes()
        #expect(attributes.maxModerationCount == .max && attributes.maxModerationPeriod == .max)
        #expect(attributes.maxRateLimit == 1_000_000_000)
        var pair = try Pair(context)
        try pair.left.completions.moderate(count: 4, period: .milliseconds(1))
        try pair.left.queuePair.limitRate(1_000_000, maxBurst: 4096)
        #expect(try pair.left.queuePair.enhancedConnection().options == 0)
        try pair.left.queuePair.setEnhancedConnection(.init(vendorID: 1, options: 0))
        try pair.right.queuePair.postReceive(try pair.right.region.sge(0..<64), id: 1)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<64), id: 2)
        // The moderated event is raised when the period is over.
        #expect(try pair.left.next().id == 2)
        #expect(try pair.right.next().id == 1)
    }
}
