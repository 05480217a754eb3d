import SystemPackage
import Testing
import Verbs

@Suite("Errors of posting, and completions with an error status")
struct DataPathErrorTests {
    @Test("posting too long a list reports ENOMEM and the number of posted requests", arguments: Bench.devices)
    func sendQueueFull(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(maxSendWR: 8, maxReceiveWR: 8))
        let depth = Int(pair.left.queuePair.capabilities.maxSendWR)
        var list = SendRequestList(capacity: depth + 5)
        for id in 0..<UInt64(depth + 5) {
            try list.append(.write(to: pair.right.region.remote), try pair.left.region.sge(0..<8), id: id)
        }
        let error = try #require(failure { () throws(VerbsError) in try pair.left.queuePair.postSend(list) })
        #expect(error.verb == .postSend && error.errno == .noMemory && error.postedCount == depth)
        #expect(error.hint?.contains("holds \(depth) work requests and is full") == true)
        for id in 0..<UInt64(depth) { #expect(try pair.left.next().id == id) }
        #expect(try pair.left.completions.poll() == nil)
        try pair.left.queuePair.postSend(.write(to: pair.right.region.remote), try pair.left.region.sge(0..<8))
        try pair.left.next().check()
    }

    @Test("posting to a full receive queue reports ENOMEM", arguments: Bench.devices)
    func receiveQueueFull(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(maxSendWR: 8, maxReceiveWR: 8))
        let depth = Int(pair.right.queuePair.capabilities.maxReceiveWR)
        var list = ReceiveRequestList(capacity: depth + 1)
        for _ in 0...depth { try list.append(try pair.right.region.sge()) }
        let error = failure { () throws(VerbsError) in try pair.right.queuePair.postReceive(list) }
        #expect(error?.verb == .postReceive && error?.errno == .noMemory && error?.postedCount == depth)
    }

    @Test("a list has room for at least one request with one SGE")
    func smallestLists() throws {
        let sge = ScatterGatherElement(unsafeAddress: 0x1000, byteCount: 8, lkey: 1)
        var sends = SendRequestList(capacity: 0, maxSGE: 0, maxInlineData: -1)
        try sends.append(.send, sge)
        #expect(sends.count == 1 && sends.isFull)
        sends.removeAll()
        try sends.append(.send, inline: RawSpan())
        var receives = ReceiveRequestList(capacity: -1, maxSGE: -1)
        try receives.append(sge)
        #expect(receives.count == 1 && receives.isFull)
    }

    @Test("too many SGEs and too much inline data are refused", arguments: Bench.devices)
    func tooMuch(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let limits = pair.left.queuePair.capabilities
        let sgList = [ScatterGatherElement](
            repeating: try pair.left.region.sge(0..<1), count: Int(limits.maxSendSGE) + 1)
        let send = failure { () throws(VerbsError) in try pair.left.queuePair.postSend(.send, sgList: sgList.span) }
        #expect(send?.hint?.contains("but the queue was made for \(limits.maxSendSGE)") == true)
        let many = [ScatterGatherElement](
            repeating: try pair.left.region.sge(0..<1), count: Int(limits.maxReceiveSGE) + 1)
        let receive = failure { () throws(VerbsError) in try pair.left.queuePair.postReceive(sgList: many.span) }
        #expect(receive?.verb == .postReceive && receive?.hint?.contains("made for") == true)
        let bytes = [UInt8](repeating: 0, count: Int(limits.maxInlineData) + 1)
        let inline = failure { () throws(VerbsError) in
            try pair.left.queuePair.postSend(.send, inline: bytes.span.bytes)
        }
        #expect(inline?.hint?.contains("\(bytes.count) bytes inline") == true)
    }

    @Test("posting a send before RTS or a receive in RESET reports the state", arguments: Bench.devices)
    func wrongState(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64)
        let queue = try context.makeCompletionQueue(capacity: 8)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
        let receive = failure { () throws(VerbsError) in try pair.postReceive(try region.sge()) }
        #expect(receive?.errno == .invalidArgument && receive?.hint?.contains("state RESET") == true)
        try pair.initialize()
        try pair.postReceive(try region.sge())
        let send = failure { () throws(VerbsError) in try pair.postSend(.send, try region.sge()) }
        #expect(send?.errno == .invalidArgument && send?.hint == "the queue pair is in state INIT: sending needs RTS")
    }

    @Test("an operation that the transport does not support is refused", arguments: Bench.devices)
    func wrongOperation(device: String) throws {
        var pair = try Pair(Bench.open(device), .unreliableDatagram)
        let error = failure { () throws(VerbsError) in
            try pair.left.queuePair.postSend(.read(from: pair.right.region.remote), try pair.left.region.sge(0..<8))
        }
        #expect(error?.errno == .invalidArgument || error?.errno == .notSupported)
        #expect(error?.hint == "a queue pair of type UD cannot do RDMA_READ")
    }

    @Test("a bad lkey completes with a local protection error, the rest is flushed", arguments: Bench.devices)
    func badLocalKey(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let good = try pair.left.region.sge(0..<8)
        let bad = ScatterGatherElement(unsafeAddress: good.address, byteCount: 8, lkey: good.lkey ^ 0xdead_0000)
        try pair.left.queuePair.postSend(.write(to: pair.right.region.remote), bad, id: 1)
        let failed = try pair.left.next()
        #expect(failed.id == 1 && failed.status == .localProtectionError)
        let error = failure { () throws(VerbsError) in try failed.check() }
        #expect(error?.completionStatus == .localProtectionError && error?.verb == .pollCQ)
        #expect(error?.description.contains("completion status LOC_PROT_ERR") == true)
        try pair.left.queuePair.postSend(.write(to: pair.right.region.remote), good, id: 2, flags: [])
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
            try pair.left.queuePair.postSend(.write(to: remote(pair.right.region)), try pair.left.region.sge(0..<8))
            #expect(try pair.left.next().status == .remoteAccessError)
        }
    }

    @Test(
        "a receive into a deregistered region completes with a local protection error",
        arguments: Bench.devices)
    func deregistered(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let sge = try pair.right.region.protectionDomain.makeMemoryRegion(byteCount: 4096).sge()
        // The region is already deregistered.
        try pair.right.queuePair.postReceive(sge, id: 1)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8), id: 2)
        let received = try pair.right.next()
        #expect(received.status == .localProtectionError, "\(received)")
        #expect(try !pair.left.next().isSuccess)
    }

    @Test("a message longer than the receive fails on both sides", arguments: Bench.devices)
    func tooLong(device: String) throws {
        var pair = try Pair(Bench.open(device))
        try pair.right.queuePair.postReceive(try pair.right.region.sge(0..<4))
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<8))
        #expect(try pair.left.next().status == .remoteInvalidRequestError)
        #expect(try pair.right.next().status == .localLengthError)
    }

    @Test("a request to a queue pair that does not exist completes with RETRY_EXC_ERR")
    func retryExceeded() throws {
        let context = try Bench.open("soft0")
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64)
        var queue = try context.makeCompletionQueue(capacity: 8)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
        var peer = try pair.endpoint()
        peer.queuePairNumber ^= 0x5555
        var options = ConnectionOptions()
        (options.timeout, options.retryCount) = (LocalACKTimeout(rawValue: 8), 1)
        try pair.connect(to: peer, options: options)
        try pair.postSend(.send, try region.sge())
        let completion = try queue.poll(timeout: .seconds(300))
        #expect(completion.status == .retryExceeded)
        let error = failure { () throws(VerbsError) in try completion.check() }
        #expect(error?.hint?.contains("the peer is gone or not in RTR") == true)
    }

    @Test("a completion status that verbs.h does not define is preserved")
    func unknownStatus() throws {
        var pair = try Pair(Bench.open("ctest0"))
        try sendCommand([2, 99], to: pair.left)
        try pair.left.queuePair.postSend(.write(to: pair.right.region.remote), try pair.left.region.sge(0..<8))
        let completion = try pair.left.next()
        #expect(completion.status == WorkCompletion.Status(rawValue: 99) && !completion.isSuccess)
        #expect(failure { () throws(VerbsError) in try completion.check() }?.hint == nil)
    }

    @Test("polling with a timeout reports ETIMEDOUT if there is no completion", arguments: Bench.devices)
    func timeout(device: String) throws {
        var pair = try Pair(Bench.open(device))
        let error = failure { () throws(VerbsError) in _ = try pair.left.completions.poll(timeout: .milliseconds(1)) }
        #expect(error?.errno == .timedOut && error?.verb == .pollCQ)
    }
}
