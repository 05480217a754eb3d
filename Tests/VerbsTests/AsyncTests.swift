import Synchronization
import SystemPackage
import Testing
import Verbs

@Suite("Asynchronous sequences")
struct AsyncTests {
    /// A queue pair that is connected to itself; its parts are used by several tasks.
    fileprivate final class Loop: @unchecked Sendable {
        // Unchecked: only one task posts, and only that task accesses `queuePair`.
        let region: MemoryRegion
        let batches: CompletionBatches
        private(set) var queuePair: QueuePair
        let polled = Atomic<UInt64>(0)

        init(_ device: String, batch: Int = 64) throws {
            let context = try Bench.open(device)
            let domain = try context.makeProtectionDomain()
            region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
            let queue = try context.makeCompletionQueue(capacity: 256, channel: try context.makeCompletionChannel())
            queuePair = try domain.makeQueuePair(.reliableConnection, completions: queue)
            try queuePair.connect(to: try queuePair.endpoint())
            batches = try queue.batches(of: batch)
        }

        func post(_ id: UInt64) throws(VerbsError) {
            try queuePair.postSend(.write(to: region.remote), try region.sge(0..<8), id: id)
        }
    }

    @Test("every completion is returned once, in order, for any interleaving of poll and arm", arguments: Bench.devices)
    func nothingLost(device: String) async throws {
        let count: UInt64 = 3000
        let loop = try Loop(device, batch: 7)
        try await withThrowingTaskGroup { group in
            group.addTask {
                for id in 0..<count {
                    // Keeps fewer requests outstanding than the queues hold.
                    while id - loop.polled.load(ordering: .acquiring) >= 100 { await Task.yield() }
                    try loop.post(id)
                    if id % 17 == 0 { await Task.yield() }
                }
            }
            var next: UInt64 = 0
            for try await batch in loop.batches {
                #expect(!batch.isEmpty && batch.count <= 7)
                for completion in batch {
                    #expect(completion.isSuccess && completion.id == next)
                    next += 1
                }
                loop.polled.store(next, ordering: .releasing)
                if next == count { break }
            }
            try await group.waitForAll()
        }
        let queue = loop.batches.takeQueue()!
        #expect(queue.capacity >= 256)
    }

    @Test("a waiting task resumes when a completion arrives", arguments: Bench.devices)
    func wake(device: String) async throws {
        let loop = try Loop(device)
        for id in 0..<20 as Range<UInt64> {
            async let batch = next(loop.batches)
            await Task.yield()
            try loop.post(id)
            #expect(try await batch?.map(\.id) == [id])
        }
    }

    private func next(_ batches: CompletionBatches) async throws -> [WorkCompletion]? {
        var iterator = batches.makeAsyncIterator()
        return try await iterator.next()
    }

    @Test("cancelling ends the sequence and loses no completion; a new iterator continues", arguments: Bench.devices)
    func cancel(device: String) async throws {
        let loop = try Loop(device)
        for id in 0..<50 as Range<UInt64> {
            let waiting = Task { try await next(loop.batches) }
            if id % 2 == 0 { await Task.yield() }
            waiting.cancel()
            #expect(try await waiting.value == nil)
            try loop.post(id)
            #expect(try await next(loop.batches)?.map(\.id) == [id])
        }
        let cancelled = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await next(loop.batches)
        }
        #expect(try await cancelled.value == nil)
    }

    @Test("several iterators share the completions between them", arguments: Bench.devices)
    func sharing(device: String) async throws {
        let loop = try Loop(device, batch: 1)
        let ids = try await withThrowingTaskGroup(of: [UInt64].self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var ids: [UInt64] = []
                    while ids.count < 10, let batch = try await next(loop.batches) { ids += batch.map(\.id) }
                    return ids
                }
            }
            for id in 0..<40 as Range<UInt64> {
                try loop.post(id)
                await Task.yield()
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(ids.sorted() == Array(0..<40))
    }

    @Test("the sequence ends after takeQueue()", arguments: Bench.devices)
    func takenQueue(device: String) async throws {
        let loop = try Loop(device)
        try loop.post(1)
        #expect(try await next(loop.batches)?.count == 1)
        var queue = loop.batches.takeQueue()!
        if loop.batches.takeQueue() != nil { Issue.record("takeQueue() returned the queue twice") }
        #expect(try await next(loop.batches) == nil)
        try loop.post(2)
        #expect(try queue.poll(timeout: .seconds(300)).id == 2)
    }

    @Test("a queue without a channel has no sequence", arguments: Bench.devices)
    func noChannel(device: String) throws {
        let context = try Bench.open(device)
        let error = failure { () throws(VerbsError) in
            _ = try context.makeCompletionQueue(capacity: 8).batches()
        }
        #expect(error?.errno == .invalidArgument && error?.hint?.contains("completion channel") == true)
    }

    @Test("tasks that wait for completions or events of a removed device resume with EIO")
    func removal() async throws {
        let loop = try Loop("ctest0")
        let completions = Task { try await next(loop.batches) }
        let events = Task {
            var iterator = loop.region.protectionDomain.context.events.makeAsyncIterator()
            #expect(try await iterator.next()?.type == .deviceFatal)
            return try await iterator.next()
        }
        await Task.yield()
        let gid = GID(bytes: [0xff, 0x0e] + Array("ctest".utf8) + [UInt8](repeating: 0, count: 7) + [1, 8])!
        try loop.removeDevice(gid)
        for task in [Task { try await completions.value != nil }, Task { try await events.value != nil }] {
            let result = await task.result
            #expect((result.failure as? VerbsError)?.errno == .ioError, "\(result)")
        }
    }

    @Test("each asynchronous event is delivered to one reader; cancelling loses none")
    func events() async throws {
        let context = try Bench.open("ctest0")
        let pair = try Pair(context)
        for _ in 0..<20 {
            let waiting = Task {
                var iterator = context.events.makeAsyncIterator()
                return try await iterator.next()
            }
            await Task.yield()
            waiting.cancel()
            #expect(try await waiting.value == nil)
            async let event = context.events.first { _ in true }
            try sendCommand([1, 10], to: pair.left)
            #expect(try await event == AsynchronousEvent(type: .portError, subject: .port(1)))
        }
        #expect(try context.nextEvent(timeout: .zero) == nil)
    }
}

extension Result {
    fileprivate var failure: Failure? {
        if case .failure(let failure) = self { failure } else { nil }
    }
}

extension AsyncTests.Loop {
    /// Removes the loopback device in C.
    fileprivate func removeDevice(_ command: GID) throws { try queuePair.attach(to: MulticastGroup(gid: command)) }
}
