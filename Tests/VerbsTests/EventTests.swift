import SystemPackage
import Testing
import Verbs

@Suite("Events")
struct EventTests {
    @Test("an armed queue signals its channel once; completions before arming do not", arguments: Bench.devices)
    func channel(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let channel = pair.right.completions.channel!
        for _ in 0..<3 { try pair.right.queuePair.postReceive(try pair.right.region.sge()) }
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8))
        try pair.right.next().check()
        #expect(try channel.wait(timeout: .zero) == nil)
        try pair.right.completions.arm()
        #expect(try channel.wait(timeout: .milliseconds(1)) == nil)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8))
        #expect(try channel.wait(timeout: .seconds(300)) == pair.right.completions.id)
        try pair.right.next().check()
        #expect(try channel.wait(timeout: .zero) == nil)
        #expect(channel.fileDescriptor.rawValue >= 0)
    }

    @Test("a queue armed for solicited completions signals its channel for those only", arguments: Bench.devices)
    func solicited(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let channel = pair.right.completions.channel!
        for _ in 0..<2 { try pair.right.queuePair.postReceive(try pair.right.region.sge()) }
        try pair.right.completions.arm(solicitedOnly: true)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8))
        try pair.right.next().check()
        #expect(try channel.wait(timeout: .zero) == nil)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8), flags: [.signaled, .solicited])
        #expect(try channel.wait(timeout: .seconds(300)) == pair.right.completions.id)
    }

    @Test("events on a channel of several queues identify the queue", arguments: Bench.devices)
    func sharedChannel(device: String) throws {
        let context = try Bench.open(device)
        let channel = try context.makeCompletionChannel()
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64, access: [.localWrite, .remoteWrite])
        var first = try context.makeCompletionQueue(capacity: 8, channel: channel)
        var second = try context.makeCompletionQueue(capacity: 8, channel: channel)
        var left = try domain.makeQueuePair(.reliableConnection, completions: first)
        var right = try domain.makeQueuePair(.reliableConnection, completions: second)
        let (here, there) = (try left.endpoint(), try right.endpoint())
        try left.connect(to: there)
        try right.connect(to: here)
        try first.arm()
        try second.arm()
        try right.postSend(.write(to: region.remote), try region.sge(0..<8))
        #expect(try channel.wait(timeout: .seconds(300)) == second.id)
        try left.postSend(.write(to: region.remote), try region.sge(0..<8))
        #expect(try channel.wait(timeout: .seconds(300)) == first.id)
    }

    @Test(
        "queues with read or unread completion events are destroyed without a hang",
        arguments: Bench.devices)
    func destroyWithEvents(device: String) throws {
        let context = try Bench.open(device)
        for reads in [false, true] {
            var pair = try Pair(context)
            try pair.left.completions.arm()
            try pair.left.queuePair.postSend(.write(to: pair.right.region.remote), try pair.left.region.sge(0..<8))
            let channel = pair.left.completions.channel!
            if reads {
                #expect(try channel.wait(timeout: .seconds(300)) != nil)
            } else {
                _ = try pair.left.next()
            }
        }
    }

    @Test("asynchronous events have their subject, and unknown event types are preserved")
    func asynchronous() throws {
        let context = try Bench.open("ctest0")
        let pair = try Pair(context)
        let expected: [(UInt8, AsynchronousEvent.Subject)] = [
            (0, .completionQueue(pair.left.completions.id)), (1, .queuePair(number: pair.left.queuePair.number)),
            (4, .queuePair(number: pair.left.queuePair.number)), (10, .port(1)), (18, .port(1)),
        ]
        for (kind, subject) in expected {
            try sendCommand([1, kind], to: pair.left)
            let event = try context.nextEvent(timeout: .seconds(300))
            #expect(event == AsynchronousEvent(type: .init(rawValue: UInt32(kind)), subject: subject))
        }
        #expect(try context.nextEvent(timeout: .zero) == nil)
    }

    @Test("objects with unread asynchronous events are destroyed without a hang")
    func destroyWithAsynchronousEvents() throws {
        let context = try Bench.open("ctest0")
        do {
            let pair = try Pair(context)
            for kind in [0, 1, 4] as [UInt8] { try sendCommand([1, kind], to: pair.left) }
            _ = try context.nextEvent(timeout: .seconds(300))
        }
        #expect(try context.nextEvent(timeout: .zero) == nil)
    }

    @Test("a removed device reports DEVICE_FATAL; its verbs return EIO and its objects can be destroyed")
    func removal() throws {
        let context = try Bench.open("ctest0")
        var pair = try Pair(context)
        try pair.left.queuePair.postReceive(try pair.left.region.sge(), id: 8)
        try sendCommand([1, 8], to: pair.left)
        #expect(try context.nextEvent(timeout: .seconds(300))?.type == .deviceFatal)
        let event = failure { () throws(VerbsError) in _ = try context.nextEvent() }
        #expect(event?.errno == .ioError && event?.verb == .getAsyncEvent)
        #expect(event?.hint?.contains("was removed") == true)
        let channel = pair.left.completions.channel!
        #expect(failure { () throws(VerbsError) in _ = try channel.wait() }?.errno == .ioError)
        let flushed = try? pair.left.completions.poll()
        #expect(flushed == nil || flushed?.status == .flushed)
        let send = failure { () throws(VerbsError) in
            try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8))
        }
        #expect(send?.errno == .ioError)
        #expect(failure { () throws(VerbsError) in _ = try context.makeProtectionDomain() }?.errno == .ioError)
        #expect(failure { () throws(VerbsError) in _ = try context.attributes() }?.errno == .ioError)
    }
}
