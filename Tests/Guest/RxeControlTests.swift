import Foundation
import Testing
import Verbs

extension Guest {
    /// The control path: memory regions, asynchronous waiting, and the verbs that the kernel's rxe does not support.
    @Suite("rxe with every provider: memory, tasks and unsupported verbs")
    struct RxeControlTests {
        @Test("the peer reads and writes registered user memory, and a region with its own IOVA")
        func memory() async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                for provider in NativeDevice.Provider.ofRxe {
                    let context = try device.open(provider)
                    var link = try Link(context, try device.open(provider.other))
                    let domain = link.left.region.protectionDomain
                    let access: AccessFlags = [.localWrite, .remoteRead, .remoteWrite]

                    let address: UInt64 = 0x7_0000_0000
                    let moved = try domain.makeMemoryRegion(byteCount: 8192, access: access, iova: address)
                    try moved.copyBytes(from: Array("moved".utf8).span.bytes, at: 100)
                    #expect(moved.remote.address == address)
                    try link.right.queuePair.postSend(
                        .read(from: moved.remote.subrange(100...)), try link.right.region.sge(0..<5))
                    try link.right.next().check()
                    #expect(try link.right.region.copyBytes(0..<5) == Array("moved".utf8))

                    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 10_000, alignment: 1)
                    defer { bytes.deallocate() }
                    bytes.initializeMemory(as: UInt8.self, repeating: 7)
                    do {
                        // Neither the beginning nor the end is page-aligned.
                        let part = UnsafeMutableRawBufferPointer(rebasing: bytes[3..<9001])
                        let region = try domain.unsafeRegister(part, access: access)
                        try link.right.queuePair.postSend(
                            .write(to: region.remote.subrange(8993...)), try link.right.region.sge(0..<5))
                        try link.right.next().check()
                        // One byte more is outside the region.
                        try link.right.queuePair.postSend(
                            .write(to: region.remote.subrange(8993...)), try link.right.region.sge(0..<6))
                        #expect(try link.right.next().status == .remoteAccessError)
                    }
                    #expect(bytes[8996..<9001].elementsEqual(Array("moved".utf8)))
                    #expect(bytes[..<8996].allSatisfy { $0 == 7 } && bytes[9001...].allSatisfy { $0 == 7 })
                }
            }
        }

        @Test(
            "a task waits for batches of completions and for events, and ends when it is cancelled",
            arguments: NativeDevice.Provider.ofRxe)
        func tasks(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 4096)
                let completions = try context.makeCompletionQueue(
                    capacity: 64, channel: try context.makeCompletionChannel())
                var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
                var peer = try Link.End(context, .reliableConnection)
                let (here, there) = (try pair.endpoint(), try peer.queuePair.endpoint())
                try pair.connect(to: there)
                try peer.queuePair.connect(to: here)
                for id in 0..<40 as Range<UInt64> { try pair.postReceive(try region.sge(0..<64), id: id) }

                let batches = try completions.batches(of: 16)
                let reader = Task {
                    var ids: [UInt64] = []
                    for try await batch in batches {
                        for completion in batch { ids.append(completion.id) }
                        if ids.count == 40 { break }
                    }
                    return ids
                }
                for _ in 0..<40 {
                    try peer.queuePair.postSend(.send, try peer.region.sge(0..<8))
                    try peer.next().check()
                }
                #expect(try await reader.value == Array(0..<40))
                let waiter = Task { for try await _ in batches { Issue.record("nothing more was sent") } }
                try await Task.sleep(for: .milliseconds(50))
                waiter.cancel()
                try await waiter.value

                let number = pair.number
                let listener = Task { () -> AsynchronousEvent.Subject? in
                    for try await event in context.events where event.type == .sendQueueDrained { return event.subject }
                    return nil
                }
                var drain = QueuePair.Attributes()
                drain.state = .sendQueueDrained
                try pair.modify(drain)
                #expect(try await listener.value == .queuePair(number: number))
            }
        }

        @Test(
            "queues of a thread domain, which use no locks, transfer data",
            arguments: [NativeDevice.Provider.native, .crxe])
        func threadDomain(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                let parent = try domain.makeParentDomain(threadDomain: try context.makeThreadDomain())
                let region = try parent.makeMemoryRegion(byteCount: 4096)
                var completions = try context.makeCompletionQueue(capacity: 16)
                var shared = try parent.makeSharedReceiveQueue(.init(maxWR: 8))
                var left = try parent.makeQueuePair(.reliableConnection, completions: completions)
                let right = try parent.makeQueuePair(
                    .reliableConnection, sendCompletions: completions, receiveCompletions: completions,
                    sharedReceiveQueue: shared)
                let (here, there) = (try left.endpoint(), try right.endpoint())
                try left.connect(to: there)
                try right.connect(to: here)
                try region.copyBytes(from: Array("threads".utf8).span.bytes)
                for id in 2..<6 as Range<UInt64> { try shared.postReceive(try region.sge(1024..<1088), id: id) }
                for _ in 0..<4 { try left.postSend(.send, try region.sge(0..<7), id: 1) }
                var seen: [UInt64] = []
                while seen.count < 8 {
                    let completion = try completions.poll(timeout: .seconds(300))
                    #expect(completion.isSuccess)
                    seen.append(completion.id)
                }
                #expect(seen.sorted() == [1, 1, 1, 1, 2, 3, 4, 5])
                #expect(try region.copyBytes(1024..<1031) == Array("threads".utf8))
            }
        }

        @Test("a verb that rxe does not support fails with the verb's name and leaves no kernel objects")
        func refusals() async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                for provider in NativeDevice.Provider.ofRxe {
                    let context = try device.open(provider)
                    let domain = try context.makeProtectionDomain()
                    let completions = try context.makeCompletionQueue(capacity: 8)
                    let region = try domain.makeMemoryRegion(byteCount: 4096)
                    let calls: [(Verb, () throws(VerbsError) -> Void)] = [
                        (.allocDM, { () throws(VerbsError) in _ = try context.makeDeviceMemory(byteCount: 64) }),
                        (.allocNullMR, { () throws(VerbsError) in _ = try domain.makeNullMemoryRegion() }),
                        (.adviseMR, { () throws(VerbsError) in try domain.advise(.prefetch, [try region.sge()]) }),
                        (
                            .modifyCQ,
                            { () throws(VerbsError) in try completions.moderate(count: 2, period: .microseconds(2)) }
                        ),
                        (.openXRCD, { () throws(VerbsError) in _ = try context.openXRCDomain() }),
                        (
                            .createWQ,
                            { () throws(VerbsError) in _ = try domain.makeWorkQueue(completions: completions) }
                        ),
                        (.createCounters, { () throws(VerbsError) in _ = try context.makeCounters() }),
                        (.queryRealTimeValues, { () throws(VerbsError) in _ = try context.rawClock() }),
                        (
                            .createQP,
                            { () throws(VerbsError) in
                                _ = try domain.makeQueuePair(.rawPacket, completions: completions)
                            }
                        ),
                    ]
                    let before = try await Bench.resources()
                    for (verb, call) in calls {
                        let error = #expect(throws: VerbsError.self, "\(provider): \(verb)") { try call() }
                        #expect(error?.verb == verb && error?.hint?.isEmpty == false, "\(String(describing: error))")
                        let isLeftOut = context.unsupportedVerbs.contains(verb)
                        #expect(!isLeftOut || error?.errno == .notSupported, "\(String(describing: error))")
                    }
                    // Checked while the context is open, because closing it would destroy leaked objects.
                    #expect(try await Bench.resources() == before)
                }
            }
        }
    }
}
