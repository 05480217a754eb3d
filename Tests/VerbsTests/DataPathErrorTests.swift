import SystemPackage
import Testing
import Verbs

@Suite("What posting refuses and how requests fail")
struct DataPathErrorTests {
    @Test("a full send queue, and how many of a list were taken", arguments: Bench.devices)
    func sendQueueFull(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(sendRequests: 8, receiveRequests: 8))
        let depth = Int(pair.left.queuePair.capabilities.sendRequests)
        var list = SendRequestList(capacity: depth + 5)
        for id in 0..<UInt64(depth + 5) {
            try list.append(.write(to: pair.right.region.remote), try pair.left.region.slice(0..<8), id: id)
        }
        let error = try #require(failure { () throws(VerbsError) in try pair.left.queuePair.post(list) })
        #expect(error.verb == .postSend && error.errno == .noMemory && error.postedCount == depth)
        #expect(error.hint?.contains("holds \(depth) work requests and is full") == true)
        for id in 0..<UInt64(depth) { #expect(try pair.left.next().id == id) }
        #expect(try pair.left.completions.poll() == nil)
        try pair.left.queuePair.post(.write(to: pair.right.region.remote), try pair.left.region.slice(0..<8))
        try pair.left.next().check()
    }

    @Test("a full receive queue", arguments: Bench.devices)
    func receiveQueueFull(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(sendRequests: 8, receiveRequests: 8))
        let depth = Int(pair.right.queuePair.capabilities.receiveRequests)
        var list = ReceiveRequestList(capacity: depth + 1)
        for _ in 0...depth { try list.append(try pair.right.region.slice()) }
        let error = failure { () throws(VerbsError) in try pair.right.queuePair.postReceive(list) }
        #expect(error?.verb == .postReceive && error?.errno == .noMemory && error?.postedCount == depth)
    }

    @Test("too many slices, too much inline data", arguments: Bench.devices)
    func tooMuch(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let limits = pair.left.queuePair.capabilities
        let slices = [MemoryRegion.Slice](
            repeating: try pair.left.region.slice(0..<1), count: Int(limits.sendSlices) + 1)
        let send = failure { () throws(VerbsError) in try pair.left.queuePair.post(.send, slices: slices.span) }
        #expect(send?.hint?.contains("but the queue was made for \(limits.sendSlices)") == true)
        let many = [MemoryRegion.Slice](
            repeating: try pair.left.region.slice(0..<1), count: Int(limits.receiveSlices) + 1)
        let receive = failure { () throws(VerbsError) in try pair.left.queuePair.postReceive(slices: many.span) }
        #expect(receive?.verb == .postReceive && receive?.hint?.contains("made for") == true)
        let bytes = [UInt8](repeating: 0, count: Int(limits.inlineBytes) + 1)
        let inline = failure { () throws(VerbsError) in try pair.left.queuePair.post(.send, inline: bytes.span.bytes) }
        #expect(inline?.hint?.contains("\(bytes.count) bytes inline") == true)
    }

    @Test("sending before RTS and receiving in RESET say which state it is in", arguments: Bench.devices)
    func wrongState(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64)
        let queue = try context.makeCompletionQueue(capacity: 8)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
        let receive = failure { () throws(VerbsError) in try pair.postReceive(try region.slice()) }
        #expect(receive?.errno == .invalidArgument && receive?.hint?.contains("state RESET") == true)
        try pair.initialize()
        try pair.postReceive(try region.slice())
        let send = failure { () throws(VerbsError) in try pair.post(.send, try region.slice()) }
        #expect(send?.errno == .invalidArgument && send?.hint == "the queue pair is in state INIT: sending needs RTS")
    }

    @Test("an operation that the transport lacks", arguments: Bench.devices)
    func wrongOperation(device: String) throws {
        var pair = try Pair(Bench.open(device), .unreliableDatagram)
        let error = failure { () throws(VerbsError) in
            try pair.left.queuePair.post(.read(from: pair.right.region.remote), try pair.left.region.slice(0..<8))
        }
        #expect(error?.errno == .invalidArgument || error?.errno == .notSupported)
        #expect(error?.hint == "a queue pair of type UD cannot do RDMA_READ")
    }

    @Test("a bad lkey completes with a local protection error, the rest is flushed", arguments: Bench.devices)
    func badLocalKey(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let good = try pair.left.region.slice(0..<8)
        let bad = MemoryRegion.Slice(unsafeAddress: good.address, byteCount: 8, lkey: good.lkey ^ 0xdead_0000)
        try pair.left.queuePair.post(.write(to: pair.right.region.remote), bad, id: 1)
        let failed = try pair.left.next()
        #expect(failed.id == 1 && failed.status == .localProtectionError)
        let error = failure { () throws(VerbsError) in try failed.check() }
        #expect(error?.completionStatus == .localProtectionError && error?.verb == .pollCQ)
        #expect(error?.description.contains("completion status LOC_PROT_ERR") == true)
        try pair.left.queuePair.post(.write(to: pair.right.region.remote), good, id: 2, flags: [])
        let flushed = try pair.left.next()
        #expect(flushed.id == 2 && flushed.status == .flushed)
        #expect(try pair.left.queuePair.query().state == .error)
    }

    @Test("a bad rkey, and a range beyond the region, complete with a remote access error", arguments: Bench.devices)
    func badRemoteKey(device: String) throws {
        for remote in [
            { (region: MemoryRegion) in
                RemoteMemory(address: region.address, rkey: region.rkey ^ 0xdead_0000, byteCount: 8)
            },
            { region in RemoteMemory(address: region.address + 4090, rkey: region.rkey, byteCount: 8) },
        ] {
            var pair = try Pair(Bench.open(device))
            try pair.left.queuePair.post(.write(to: remote(pair.right.region)), try pair.left.region.slice(0..<8))
            #expect(try pair.left.next().status == .remoteAccessError)
        }
    }

    @Test(
        "a region that went while its request was outstanding is a protection error, not a crash",
        arguments: Bench.devices)
    func deregistered(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let slice = try pair.right.region.protectionDomain.makeMemoryRegion(byteCount: 4096).slice()
        // Its region is gone here.
        try pair.right.queuePair.postReceive(slice, id: 1)
        try pair.left.queuePair.post(.send, try pair.left.region.slice(0..<8), id: 2)
        let received = try pair.right.next()
        #expect(received.status == .localProtectionError, "\(received)")
        #expect(try !pair.left.next().isSuccess)
    }

    @Test("a message longer than the receive fails on both sides", arguments: Bench.devices)
    func tooLong(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(try pair.right.region.slice(0..<4))
        try pair.left.queuePair.post(.send, try pair.left.region.slice(0..<8))
        #expect(try pair.left.next().status == .remoteInvalidRequestError)
        #expect(try pair.right.next().status == .localLengthError)
    }

    @Test("nobody answers a request to a queue pair that is not there: retry exceeded")
    func retryExceeded() throws {
        let context = try Bench.open("soft0")
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64)
        var queue = try context.makeCompletionQueue(capacity: 8)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
        var peer = try pair.endpoint()
        peer.queuePairNumber ^= 0x5555
        var options = ConnectionOptions()
        (options.timeout, options.retryCount) = (8, 1)
        try pair.connect(to: peer, options: options)
        try pair.post(.send, try region.slice())
        let completion = try queue.poll(timeout: .seconds(10))
        #expect(completion.status == .retryExceeded)
        let error = failure { () throws(VerbsError) in try completion.check() }
        #expect(error?.hint?.contains("the peer is gone or not in RTR") == true)
    }

    @Test("a completion status that verbs.h does not know is carried")
    func unknownStatus() throws {
        var pair = try Pair(Bench.open("ctest0"))
        try giveOrder([2, 99], to: pair.left)
        try pair.left.queuePair.post(.write(to: pair.right.region.remote), try pair.left.region.slice(0..<8))
        let completion = try pair.left.next()
        #expect(completion.status == WorkCompletion.Status(rawValue: 99) && !completion.isSuccess)
        #expect(failure { () throws(VerbsError) in try completion.check() }?.hint == nil)
    }

    @Test("polling with a limit of time says so when nothing comes", arguments: Bench.devices)
    func timeout(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let error = failure { () throws(VerbsError) in _ = try pair.left.completions.poll(timeout: .milliseconds(1)) }
        #expect(error?.errno == .timedOut && error?.verb == .pollCQ)
    }
}
