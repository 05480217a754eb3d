import SystemPackage
import Testing
import Verbs

@Suite("Posting and polling")
struct DataPathTests {
    @Test("a send arrives with id, length and data", arguments: Bench.devices)
    func send(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(try pair.right.region.slice(), id: 5)
        try pair.left.region.copyBytes(from: Array("hello".utf8).span.bytes)
        try pair.left.queuePair.post(.send, try pair.left.region.slice(0..<5), id: 3)
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

    @Test("immediate data arrives in host byte order, empty messages arrive", arguments: Bench.devices)
    func immediate(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(id: 1)
        try pair.right.queuePair.postReceive(slices: [try pair.right.region.slice()].span, id: 2)
        try pair.left.queuePair.post(.send(immediate: 0x0102_0304), id: 1)
        try pair.left.queuePair.post(
            .write(to: pair.right.region.remote, immediate: 7), try pair.left.region.slice(0..<8))
        let (first, second) = (try pair.right.next(), try pair.right.next())
        #expect(first.id == 1 && first.immediate == 0x0102_0304 && first.byteCount == 0)
        #expect(second.id == 2 && second.immediate == 7 && second.opcode == .receiveWriteWithImmediate)
    }

    @Test("writes, reads and atomics reach the peer's memory", arguments: Bench.devices)
    func remoteMemory(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let (here, there) = (pair.left.region, pair.right.region)
        try here.copyBytes(from: [1, 2, 3, 4].span.bytes)
        try pair.left.queuePair.post(.write(to: there.remote.dropFirst(64)), try here.slice(0..<32), id: 1)
        #expect(try pair.left.next().opcode == .write)
        #expect(there.bytes.unsafeLoad(fromByteOffset: 72, as: Int.self) == 2)
        try pair.left.queuePair.post(.read(from: there.remote.dropFirst(64)), try here.slice(512..<544), id: 2)
        let read = try pair.left.next()
        #expect(read.opcode == .read && read.byteCount == 32 && read.id == 2)
        #expect(here.bytes.unsafeLoad(fromByteOffset: 536, as: Int.self) == 4)

        try there.storeReleasing(40, at: 128)
        let word = there.remote.dropFirst(128)
        try pair.left.queuePair.post(.fetchAndAdd(at: word, adding: 2), try here.slice(0..<8), id: 3)
        #expect(try pair.left.next().opcode == .fetchAndAdd)
        try pair.left.queuePair.post(.compareAndSwap(at: word, expected: 42, desired: 7), try here.slice(8..<16), id: 4)
        #expect(try pair.left.next().opcode == .compareAndSwap)
        #expect(try here.loadAcquiring(at: 0) == 40 && here.loadAcquiring(at: 8) == 42)
        #expect(try there.loadAcquiring(at: 128) == 7)
    }

    @Test("inline data and several slices are gathered in order", arguments: Bench.devices)
    func gather(device: String) throws {
        let room = QueuePair.Capabilities(sendSlices: 3, receiveSlices: 2, inlineBytes: 64)
        var pair = try Pair(Bench.open(device), .reliableConnection, room)
        let (here, there) = (pair.left.region, pair.right.region)
        try here.copyBytes(from: Array("abcdefgh".utf8).span.bytes)
        try pair.right.queuePair.postReceive(slices: [try there.slice(0..<2), try there.slice(16..<32)].span)
        let pieces = [try here.slice(0..<1), try here.slice(4..<6), try here.slice(7..<8)]
        try pair.left.queuePair.post(.send, slices: pieces.span)
        try pair.left.next().check()
        #expect(try pair.right.next().byteCount == 4)
        #expect(try there.copyBytes(0..<2) + there.copyBytes(16..<18) == Array("aefh".utf8))

        var message = Array("inline".utf8)
        try pair.right.queuePair.postReceive(try there.slice())
        try pair.left.queuePair.post(.send, inline: message.span.bytes)
        message[0] = 0
        try pair.left.next().check()
        try pair.right.next().check()
        #expect(try there.copyBytes(0..<6) == Array("inline".utf8))
    }

    @Test("an unsignaled request gives no completion, the signaled one after it does", arguments: Bench.devices)
    func unsignaled(device: String) throws {
        var pair = try Pair(Bench.open(device))
        for id in 0..<3 as Range<UInt64> {
            try pair.left.queuePair.post(
                .write(to: pair.right.region.remote), try pair.left.region.slice(0..<8), id: id,
                flags: id == 2 ? [.signaled, .fence] : [])
        }
        #expect(try pair.left.next().id == 2)
        #expect(try pair.left.completions.poll() == nil)
    }

    @Test("lists post in order, again and again, and polling fills buffers and spans", arguments: Bench.devices)
    func lists(device: String) throws {
        let room = QueuePair.Capabilities(inlineBytes: 16)
        var pair = try Pair(Bench.open(device), .reliableConnection, room)
        var receives = ReceiveRequestList(capacity: 16)
        var sends = SendRequestList(capacity: 16, inlineBytes: 16)
        for id in 0..<16 as Range<UInt64> {
            try receives.append(try pair.right.region.slice(Int(id) * 16..<Int(id) * 16 + 16), id: id)
            try sends.append(.send, inline: [UInt8(id)].span.bytes, id: id + 100)
        }
        #expect(receives.isFull && sends.isFull && sends.count == 16)
        let full = failure { () throws(VerbsError) in try sends.append(.send, inline: [1 as UInt8].span.bytes) }
        #expect(full?.errno == .noMemory && full?.hint?.contains("room for 16") == true)
        var buffer = WorkCompletionBuffer(capacity: 5)
        var room16 = [WorkCompletion](repeating: WorkCompletion(), count: 16)
        for round in 0..<3 {
            try pair.right.queuePair.postReceive(receives)
            try pair.left.queuePair.post(sends)
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
        try pair.left.queuePair.post(sends)
        #expect(sends.count == 0)
        try sends.append(.write(to: pair.right.region.remote), try pair.left.region.slice(0..<8), id: 1)
        try pair.left.queuePair.post(sends)
        #expect(try pair.left.next().id == 1)
    }

    @Test("datagrams arrive behind 40 bytes, from a named sender, singly and in lists", arguments: Bench.devices)
    func datagrams(device: String) throws {
        let room = QueuePair.Capabilities(inlineBytes: 16)
        var pair = try Pair(Bench.open(device), .unreliableDatagram, room)
        let there = pair.right.region
        let destination = try there.protectionDomain.makeDestination(try pair.right.queuePair.endpoint())
        let here = try pair.left.region.protectionDomain.makeDestination(try pair.right.queuePair.endpoint())
        #expect(destination.queuePairNumber == here.queuePairNumber)
        for id in 0..<3 as Range<UInt64> {
            try pair.right.queuePair.postReceive(try there.slice(Int(id) * 64..<Int(id) * 64 + 64), id: id)
        }
        try pair.left.region.copyBytes(from: Array("xyz".utf8).span.bytes)
        try pair.left.queuePair.post(.send(immediate: 9), try pair.left.region.slice(0..<3), to: here)
        try pair.left.queuePair.post(.send, inline: Array("uvw".utf8).span.bytes, to: here)
        var list = SendRequestList(capacity: 2)
        try list.append(.send, try pair.left.region.slice(1..<3), to: here)
        try pair.left.queuePair.post(list)
        for _ in 0..<3 { try pair.left.next().check() }
        let received = try (pair.right.next(), pair.right.next(), pair.right.next())
        #expect(received.0.byteCount == 43 && received.0.immediate == 9)
        #expect(received.0.sourceQueuePairNumber == pair.left.queuePair.number)
        #expect(try there.copyBytes(40..<43) == Array("xyz".utf8))
        #expect(try there.copyBytes(64 + 40..<64 + 43) == Array("uvw".utf8))
        #expect(received.2.byteCount == 42)
    }

    @Test("a shared receive queue feeds queue pairs and tells when it runs low", arguments: Bench.devices)
    func sharedReceives(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096)
        var completions = try context.makeCompletionQueue(capacity: 64)
        var shared = try domain.makeSharedReceiveQueue(.init(requests: 16))
        let id = shared.id
        var left = try domain.makeQueuePair(.reliableConnection, completions: completions)
        var right = try domain.makeQueuePair(
            .reliableConnection, sendCompletions: completions, receiveCompletions: completions,
            sharedReceiveQueue: shared)
        try left.connect(to: try connectedEndpoint(&right, to: try left.endpoint()))
        var list = ReceiveRequestList(capacity: 4)
        for id in 10..<14 as Range<UInt64> { try list.append(try region.slice(0..<64), id: id) }
        try shared.postReceive(list)
        try shared.postReceive(try region.slice(64..<128), id: 14)
        try shared.setLimit(4)
        #expect(try shared.query().limit == 4)
        for _ in 0..<2 { try left.post(.send, try region.slice(128..<136)) }
        var seen: Set<UInt64> = []
        for _ in 0..<4 { seen.insert(try completions.poll(timeout: .seconds(10)).id) }
        #expect(seen == [0, 10, 11])
        let event = try context.nextEvent(timeout: .seconds(10))
        #expect(event == AsynchronousEvent(kind: .sharedReceiveQueueLimitReached, subject: .sharedReceiveQueue(id)))
        let own = failure { () throws(VerbsError) in try right.postReceive(try region.slice()) }
        #expect(own?.hint?.contains("post there") == true)
    }

    private func connectedEndpoint(_ pair: inout QueuePair, to peer: Endpoint) throws -> Endpoint {
        let endpoint = try pair.endpoint()
        try pair.connect(to: peer)
        return endpoint
    }

    @Test("the extended interfaces post and poll", arguments: Bench.devices)
    func extended(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        var completions = try context.makeCompletionQueue(capacity: 64, fields: .standard)
        var options = QueuePair.CreationOptions()
        options.extendedOperations = [.send, .sendWithImmediate, .write]
        let room = QueuePair.Capabilities(inlineBytes: 32)
        var left = try domain.makeQueuePair(
            .reliableConnection, completions: completions, capabilities: room, options: options)
        var right = try domain.makeQueuePair(.reliableConnection, completions: completions)
        try left.connect(to: try connectedEndpoint(&right, to: try left.endpoint()))
        for id in 0..<2 as Range<UInt64> { try right.postReceive(try region.slice(1024..<2048), id: id) }
        try left.postExtended { (requests) throws(VerbsError) in
            try requests.append(
                .write(to: region.remote.dropFirst(64)), inline: Array("ab".utf8).span.bytes, id: 5, flags: [])
            try requests.append(.send(immediate: 3), try region.slice(0..<8), id: 6)
            try requests.append(.send, slices: [try region.slice(0..<4)].span, id: 7)
        }
        var seen: [UInt64: (Int?, UInt32?)] = [:]
        while seen.count < 4 {
            try completions.pollExtended(limit: 2) { completion in
                #expect(completion.status == .success)
                // The ids of both sides are told apart by who they belong to.
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
                try requests.append(.send, try region.slice(0..<8))
                try requests.append(.read(from: region.remote), try region.slice(0..<8))
            }
        }
        #expect(missing?.errno == .notSupported && missing?.hint?.contains("RDMA_READ") == true)
        #expect(try completions.poll() == nil)
        let plain = failure { () throws(VerbsError) in try right.postExtended { _ throws(VerbsError) in } }
        #expect(plain?.verb == .extendedQP && plain?.errno == .notSupported)
    }
}
