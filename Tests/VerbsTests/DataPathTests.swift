import CIBVerbs
import Glibc
import SystemPackage
import Testing
import Verbs

@Suite("Posting and polling")
struct DataPathTests {
    @Test("a send arrives with id, length and data", arguments: Bench.devices)
    func send(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(try pair.right.region.sge(), id: 5)
        try pair.left.region.copyBytes(from: Array("hello".utf8).span.bytes)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<5), id: 3)
        let sent = try pair.left.next()
        #expect(sent.id == 3 && sent.status == .success && sent.opcode == .send)
        #expect(sent.queuePairNumber == pair.left.queuePair.number)
        try sent.check()
        let received = try pair.right.next()
        #expect(received.id == 5 && received.isSuccess && received.opcode == .receive && received.byteCount == 5)
        #expect(received.immediate == nil && received.invalidatedKey == nil)
        #expect(try pair.right.region.copyBytes(0..<5) == Array("hello".utf8))
        #expect(try pair.left.completions.poll() == nil)
    }

    @Test("immediate data arrives in host byte order, also with an empty message", arguments: Bench.devices)
    func immediate(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(id: 1)
        try pair.right.queuePair.postReceive(sgList: [try pair.right.region.sge()].span, id: 2)
        try pair.left.queuePair.postSend(.send(immediate: 0x0102_0304), id: 1)
        try pair.left.queuePair.postSend(
            .write(to: pair.right.region.remote, immediate: 7), try pair.left.region.sge(0..<8))
        let (first, second) = (try pair.right.next(), try pair.right.next())
        #expect(first.id == 1 && first.immediate == 0x0102_0304 && first.byteCount == 0)
        #expect(second.id == 2 && second.immediate == 7 && second.opcode == .receiveWriteWithImmediate)
    }

    @Test("writes, reads and atomics reach the peer's memory", arguments: Bench.devices)
    func remoteMemory(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let (here, there) = (pair.left.region, pair.right.region)
        try here.copyBytes(from: [1, 2, 3, 4].span.bytes)
        try pair.left.queuePair.postSend(.write(to: there.remote.subrange(64...)), try here.sge(0..<32), id: 1)
        #expect(try pair.left.next().opcode == .write)
        #expect(there.bytes.unsafeLoad(fromByteOffset: 72, as: Int.self) == 2)
        try pair.left.queuePair.postSend(.read(from: there.remote.subrange(64...)), try here.sge(512..<544), id: 2)
        let read = try pair.left.next()
        #expect(read.opcode == .read && read.byteCount == 32 && read.id == 2)
        #expect(here.bytes.unsafeLoad(fromByteOffset: 536, as: Int.self) == 4)

        try there.storeReleasing(40, at: 128)
        let word = try there.remote.subrange(128...)
        try pair.left.queuePair.postSend(.fetchAndAdd(at: word, adding: 2), try here.sge(0..<8), id: 3)
        #expect(try pair.left.next().opcode == .fetchAndAdd)
        try pair.left.queuePair.postSend(
            .compareAndSwap(at: word, expected: 42, desired: 7), try here.sge(8..<16), id: 4)
        #expect(try pair.left.next().opcode == .compareAndSwap)
        #expect(try here.loadAcquiring(at: 0) == 40 && here.loadAcquiring(at: 8) == 42)
        #expect(try there.loadAcquiring(at: 128) == 7)
    }

    @Test("inline data and several SGEs are gathered in order", arguments: Bench.devices)
    func gather(device: String) throws {
        let room = QueuePair.Capabilities(maxSendSGE: 3, maxReceiveSGE: 2, maxInlineData: 64)
        var pair = try Pair(Bench.open(device), .reliableConnection, room)
        let (here, there) = (pair.left.region, pair.right.region)
        try here.copyBytes(from: Array("abcdefgh".utf8).span.bytes)
        try pair.right.queuePair.postReceive(sgList: [try there.sge(0..<2), try there.sge(16..<32)].span)
        let sgList = [try here.sge(0..<1), try here.sge(4..<6), try here.sge(7..<8)]
        try pair.left.queuePair.postSend(.send, sgList: sgList.span)
        try pair.left.next().check()
        #expect(try pair.right.next().byteCount == 4)
        #expect(try there.copyBytes(0..<2) + there.copyBytes(16..<18) == Array("aefh".utf8))

        var message = Array("inline".utf8)
        try pair.right.queuePair.postReceive(try there.sge())
        try pair.left.queuePair.postSend(.send, inline: message.span.bytes)
        message[0] = 0
        try pair.left.next().check()
        try pair.right.next().check()
        #expect(try there.copyBytes(0..<6) == Array("inline".utf8))
    }

    @Test("an unsignaled request produces no completion, a later signaled one does", arguments: Bench.devices)
    func unsignaled(device: String) throws {
        var pair = try Pair(Bench.open(device))
        for id in 0..<3 as Range<UInt64> {
            try pair.left.queuePair.postSend(
                .write(to: pair.right.region.remote), try pair.left.region.sge(0..<8), id: id,
                flags: id == 2 ? [.signaled, .fence] : [])
        }
        #expect(try pair.left.next().id == 2)
        #expect(try pair.left.completions.poll() == nil)
    }

    @Test("lists post in order and can be posted repeatedly; polling fills buffers and spans", arguments: Bench.devices)
    func lists(device: String) throws {
        let room = QueuePair.Capabilities(maxInlineData: 16)
        var pair = try Pair(Bench.open(device), .reliableConnection, room)
        var receives = ReceiveRequestList(capacity: 16)
        var sends = SendRequestList(capacity: 16, maxInlineData: 16)
        for id in 0..<16 as Range<UInt64> {
            try receives.append(try pair.right.region.sge(Int(id) * 16..<Int(id) * 16 + 16), id: id)
            try sends.append(.send, inline: [UInt8(id)].span.bytes, id: id + 100)
        }
        #expect(receives.isFull && sends.isFull && sends.count == 16)
        let full = failure { () throws(VerbsError) in try sends.append(.send, inline: [1 as UInt8].span.bytes) }
        #expect(full?.errno == .noMemory && full?.hint?.contains("room for 16") == true)
        var buffer = WorkCompletionBuffer(capacity: 5)
        var room16 = [WorkCompletion](repeating: WorkCompletion(), count: 16)
        for round in 0..<3 {
            try pair.right.queuePair.postReceive(receives)
            try pair.left.queuePair.postSend(sends)
            var ids: [UInt64] = []
            while ids.count < 16 {
                try pair.left.completions.poll(into: &buffer)
                for index in 0..<buffer.count { ids.append(buffer[index].id) }
                #expect(buffer.span.count == buffer.count)
            }
            #expect(ids == Array(100..<116), "round \(round)")
            ids = []
            while ids.count < 16 {
                var span = room16.mutableSpan
                let count = try pair.right.completions.poll(into: &span)
                ids += room16[0..<count].map(\.id)
            }
            #expect(ids == Array(0..<16))
            #expect(try pair.right.region.copyBytes(240..<241) == [15])
        }
        sends.removeAll()
        try pair.left.queuePair.postSend(sends)
        #expect(sends.count == 0)
        try sends.append(.write(to: pair.right.region.remote), try pair.left.region.sge(0..<8), id: 1)
        try pair.left.queuePair.postSend(sends)
        #expect(try pair.left.next().id == 1)
    }

    @Test("datagrams arrive behind a 40-byte GRH, with source QP, singly and in lists", arguments: Bench.devices)
    func datagrams(device: String) throws {
        let room = QueuePair.Capabilities(maxInlineData: 16)
        var pair = try Pair(Bench.open(device), .unreliableDatagram, room)
        let there = pair.right.region
        let destination = try there.protectionDomain.makeDestination(try pair.right.queuePair.endpoint())
        let here = try pair.left.region.protectionDomain.makeDestination(try pair.right.queuePair.endpoint())
        #expect(destination.queuePairNumber == here.queuePairNumber)
        for id in 0..<3 as Range<UInt64> {
            try pair.right.queuePair.postReceive(try there.sge(Int(id) * 64..<Int(id) * 64 + 64), id: id)
        }
        try pair.left.region.copyBytes(from: Array("xyz".utf8).span.bytes)
        try pair.left.queuePair.postSend(.send(immediate: 9), try pair.left.region.sge(0..<3), to: here)
        try pair.left.queuePair.postSend(.send, inline: Array("uvw".utf8).span.bytes, to: here)
        var list = SendRequestList(capacity: 2)
        try list.append(.send, try pair.left.region.sge(1..<3), to: here)
        try pair.left.queuePair.postSend(list)
        for _ in 0..<3 { try pair.left.next().check() }
        let received = try (pair.right.next(), pair.right.next(), pair.right.next())
        #expect(received.0.byteCount == 43 && received.0.immediate == 9)
        #expect(received.0.sourceQueuePairNumber == pair.left.queuePair.number)
        #expect(try there.copyBytes(40..<43) == Array("xyz".utf8))
        #expect(try there.copyBytes(64 + 40..<64 + 43) == Array("uvw".utf8))
        #expect(received.2.byteCount == 42)
    }

    @Test("queue pairs consume receives of an SRQ, which reports its limit event", arguments: Bench.devices)
    func sharedReceives(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096)
        var completions = try context.makeCompletionQueue(capacity: 64)
        var shared = try domain.makeSharedReceiveQueue(.init(maxWR: 16))
        let id = shared.id
        var left = try domain.makeQueuePair(.reliableConnection, completions: completions)
        // With an SRQ, the queue pair's own receive limits are ignored: ibv_create_qp(3).
        var right = try domain.makeQueuePair(
            .reliableConnection, sendCompletions: completions, receiveCompletions: completions,
            sharedReceiveQueue: shared, capabilities: .init(maxReceiveWR: .max, maxReceiveSGE: .max))
        #expect(right.capabilities.maxReceiveWR == 0 && right.capabilities.maxReceiveSGE == 0)
        try left.connect(to: try connectedEndpoint(&right, to: try left.endpoint()))
        var list = ReceiveRequestList(capacity: 4)
        for id in 10..<14 as Range<UInt64> { try list.append(try region.sge(0..<64), id: id) }
        try shared.postReceive(list)
        try shared.postReceive(try region.sge(64..<128), id: 14)
        try shared.setLimit(4)
        #expect(try shared.query().limit == 4)
        for _ in 0..<2 { try left.postSend(.send, try region.sge(128..<136)) }
        var seen: Set<UInt64> = []
        for _ in 0..<4 { seen.insert(try completions.poll(timeout: .seconds(300)).id) }
        #expect(seen == [0, 10, 11])
        let event = try context.nextEvent(timeout: .seconds(300))
        #expect(event == AsynchronousEvent(type: .sharedReceiveQueueLimitReached, subject: .sharedReceiveQueue(id)))
        let own = failure { () throws(VerbsError) in try right.postReceive(try region.sge()) }
        #expect(own?.hint?.contains("post receives there") == true)
    }

    private func connectedEndpoint(_ pair: inout QueuePair, to peer: Endpoint) throws -> Endpoint {
        let endpoint = try pair.endpoint()
        try pair.connect(to: peer)
        return endpoint
    }

    @Test("work requests are posted through ibv_qp_ex and polled through ibv_cq_ex", arguments: Bench.devices)
    func extended(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        var completions = try context.makeCompletionQueue(capacity: 64, fields: .standard)
        var options = QueuePair.CreationOptions()
        options.extendedOperations = [.send, .sendWithImmediate, .write]
        let room = QueuePair.Capabilities(maxInlineData: 32)
        var left = try domain.makeQueuePair(
            .reliableConnection, completions: completions, capabilities: room, options: options)
        var right = try domain.makeQueuePair(.reliableConnection, completions: completions)
        try left.connect(to: try connectedEndpoint(&right, to: try left.endpoint()))
        for id in 0..<2 as Range<UInt64> { try right.postReceive(try region.sge(1024..<2048), id: id) }
        try left.postExtended { (requests) throws(VerbsError) in
            try requests.append(
                .write(to: region.remote.subrange(64...)), inline: Array("ab".utf8).span.bytes, id: 5, flags: [])
            try requests.append(.send(immediate: 3), try region.sge(0..<8), id: 6)
            try requests.append(.send, sgList: [try region.sge(0..<4)].span, id: 7)
        }
        var seen: [UInt64: (Int?, UInt32?)] = [:]
        while seen.count < 4 {
            try completions.pollExtended(limit: 2) { completion in
                #expect(completion.status == .success)
                // Adds 100 to the right queue pair's ids, so that they differ from the left's.
                let id = completion.queuePairNumber == left.number ? completion.id : completion.id + 100
                seen[id] = (completion.byteCount, completion.immediate)
                #expect(completion.timestamp == nil)
            }
        }
        #expect(Set(seen.keys) == [6, 7, 100, 101])
        #expect(seen[100]?.1 == 3 && seen[100]?.0 == 8 && seen[101]?.0 == 4)
        #expect(try region.copyBytes(64..<66) == Array("ab".utf8))

        let missing = failure { () throws(VerbsError) in
            try left.postExtended { (requests) throws(VerbsError) in
                try requests.append(.send, try region.sge(0..<8))
                try requests.append(.read(from: region.remote), try region.sge(0..<8))
            }
        }
        #expect(missing?.errno == .notSupported && missing?.hint?.contains("RDMA_READ") == true)
        #expect(try completions.poll() == nil)
        let plain = failure { () throws(VerbsError) in try right.postExtended { _ throws(VerbsError) in } }
        #expect(plain?.verb == .extendedQP && plain?.errno == .notSupported)
    }

    /// A queue pair that a closure can destroy or reset.
    private final class EndableQueuePair {
        var queuePair: QueuePair?
        let number: UInt32

        init(_ queuePair: consuming QueuePair) {
            number = queuePair.number
            self.queuePair = .some(queuePair)
        }

        func end(byReset: Bool) throws {
            guard byReset else { return queuePair = nil }
            var attributes = QueuePair.Attributes()
            attributes.state = .reset
            try queuePair?.modify(attributes)
        }
    }

    @Test(
        "a queue pair can be destroyed or reset within an extended polling batch; later completions follow",
        arguments: Bench.devices, [[], .singleThreaded] as [CompletionQueue.CreationFlags])
    func endInBatch(device: String, flags: CompletionQueue.CreationFlags) throws {
        for (isReset, position) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)] {
            let context = try Bench.open(device)
            let domain = try context.makeProtectionDomain()
            var queue = try context.makeCompletionQueue(capacity: 16, fields: .standard, flags: flags)
            let doomed = EndableQueuePair(try domain.makeQueuePair(.reliableConnection, completions: queue))
            let other = EndableQueuePair(try domain.makeQueuePair(.reliableConnection, completions: queue))
            try doomed.queuePair!.initialize()
            try other.queuePair!.initialize()
            var attributes = QueuePair.Attributes()
            attributes.state = .error
            // In ERR a receive is flushed at once: the queue has 0, 1, 2 of `doomed`, then 3 and 4 of `other`.
            for id in 0..<3 as Range<UInt64> { try doomed.queuePair!.postReceive(id: id) }
            for id in 3..<5 as Range<UInt64> { try other.queuePair!.postReceive(id: id) }
            try doomed.queuePair!.modify(attributes)
            try other.queuePair!.modify(attributes)
            var ids: [UInt64] = []
            var isSame = true
            let raw = UnsafeMutableRawPointer(queue.unsafeRaw).assumingMemoryBound(to: ibv_cq_ex.self)
            let count = try queue.pollExtended { completion in
                // ibv_start_poll within a batch returns EBUSY and does not affect the batch.
                var attributes = ibv_poll_cq_attr()
                isSame = isSame && ibv_start_poll(raw, &attributes) == EBUSY
                ids.append(completion.id)
                if completion.id == position { try! doomed.end(byReset: isReset) }
                isSame =
                    isSame && completion.id == ids.last && completion.status == .flushed
                    && completion.queuePairNumber == (completion.id < 3 ? doomed : other).number
            }
            // ctest leaves the completions of a destroyed queue pair in the queue, as verbs.h allows.
            let first = device == "soft0" ? position : 2
            #expect(ids == Array(0...UInt64(first)) + [3, 4] && count == ids.count && isSame)
            #expect(try queue.pollExtended { _ in } == 0)
            #expect(try queue.poll() == nil)
        }
    }
}
