import Glibc
import SystemPackage
import TestSupport
import Testing
import Verbs

/// The receiving side of an extended reliable connection on soft, with a shared receive queue.
private struct Receiver: ~Copyable {
    let xrcDomain: XRCDomain
    let region: MemoryRegion
    var completions: CompletionQueue
    var queue: SharedReceiveQueue
    let queuePair: QueuePair
    let number: UInt32

    init(_ context: Context) throws(VerbsError) {
        let domain = try context.makeProtectionDomain()
        let xrcDomain = try context.openXRCDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite, .remoteRead])
        let completions = try context.makeCompletionQueue(
            capacity: 64, channel: try context.makeCompletionChannel())
        let queue = try domain.makeSharedReceiveQueue(xrcDomain: xrcDomain, completions: completions)
        let queuePair = try xrcDomain.makeReceiveQueuePair()
        number = try queue.number()
        self.xrcDomain = xrcDomain
        self.region = region
        self.completions = completions
        self.queue = queue
        self.queuePair = queuePair
    }

    mutating func next() throws(VerbsError) -> WorkCompletion { try completions.poll(timeout: .seconds(300)) }
}

/// A connected sender and receiver of one device.
private struct Connected: ~Copyable {
    var sender: Pair.Side
    var receiver: Receiver

    init(_ operations: QueuePair.ExtendedOperations = []) throws(VerbsError) {
        let context = try Bench.open("soft0")
        var sender = try Pair.Side(context, .xrcSend, .init())
        if !operations.isEmpty {
            var options = QueuePair.CreationOptions()
            options.extendedOperations = operations
            sender.queuePair = try sender.region.protectionDomain.makeQueuePair(
                .xrcSend, completions: sender.completions, options: options)
        }
        let receiver = try Receiver(context)
        let (here, there) = (try sender.queuePair.endpoint(), try receiver.queuePair.endpoint())
        try sender.queuePair.connect(to: there)
        try receiver.queuePair.connect(to: here)
        self.sender = sender
        self.receiver = receiver
    }
}

@Suite("XRC on soft, through the Swift API")
struct SoftXRCTests {
    @Test("SEND, WRITE and READ name the shared receive queue of the peer")
    func operations() throws {
        var pair = try Connected()
        try pair.receiver.queue.postReceive(try pair.receiver.region.sge(0..<64), id: 7)
        try pair.sender.region.copyBytes(from: [0x0102_0304].span.bytes)
        try pair.sender.queuePair.postSend(
            .send(immediate: 5).to(sharedReceiveQueue: pair.receiver.number), try pair.sender.region.sge(0..<16), id: 1)
        #expect(try pair.sender.next().isSuccess)
        let received = try pair.receiver.next()
        #expect(received.id == 7 && received.byteCount == 16 && received.immediate == 5)
        #expect(received.queuePairNumber == pair.receiver.queuePair.number)
        try pair.sender.queuePair.postSend(
            .write(to: pair.receiver.region.remote.subrange(128...)).to(sharedReceiveQueue: pair.receiver.number),
            try pair.sender.region.sge(0..<8))
        try pair.sender.queuePair.postSend(
            .read(from: pair.receiver.region.remote.subrange(128...)).to(sharedReceiveQueue: pair.receiver.number),
            try pair.sender.region.sge(256..<264))
        #expect(try pair.sender.next().isSuccess)
        #expect(try pair.sender.next().isSuccess)
        #expect(pair.sender.region.bytes.unsafeLoad(fromByteOffset: 256, as: Int.self) == 0x0102_0304)
    }

    @Test("A list of work requests and the wr_ functions name it, too")
    func listsAndBuilders() throws {
        var pair = try Connected()
        for id in 0..<2 { try pair.receiver.queue.postReceive(try pair.receiver.region.sge(0..<64), id: UInt64(id)) }
        var list = SendRequestList(capacity: 2)
        let send = SendOperation.send.to(sharedReceiveQueue: pair.receiver.number)
        try list.append(send, try pair.sender.region.sge(0..<8), flags: [])
        try list.append(send, try pair.sender.region.sge(0..<4), flags: .signaled)
        try pair.sender.queuePair.postSend(list)
        #expect(try pair.sender.next().isSuccess)
        #expect(try pair.receiver.next().byteCount == 8)
        #expect(try pair.receiver.next().byteCount == 4)

        pair = try Connected([.send])
        try pair.receiver.queue.postReceive(try pair.receiver.region.sge(0..<64), id: 3)
        let sge = try pair.sender.region.sge(0..<12)
        let number = pair.receiver.number
        try pair.sender.queuePair.postExtended { (requests) throws(VerbsError) in
            try requests.append(.send.to(sharedReceiveQueue: number), sge, id: 4)
        }
        #expect(try pair.sender.next().id == 4)
        #expect(try pair.receiver.next().byteCount == 12)
    }

    @Test(
        "A number of no queue completes with a remote access error; a second object for the queue pair has its events")
    func wrongNumber() throws {
        var pair = try Connected()
        let opened = try pair.receiver.xrcDomain.openReceiveQueuePair(number: pair.receiver.queuePair.number)
        #expect(opened.number == pair.receiver.queuePair.number && opened.type == .xrcReceive)
        try pair.sender.queuePair.postSend(.send.to(sharedReceiveQueue: pair.receiver.number ^ 0x10000))
        #expect(try pair.sender.next().status == .remoteAccessError)
        #expect(try opened.query().state == .error)
        let unknown = failure { () throws(VerbsError) in
            _ = try pair.receiver.xrcDomain.openReceiveQueuePair(number: 0)
        }
        #expect(unknown?.errno == .invalidArgument)
    }

    @Test("A domain with a file is opened, and an ATOMIC WRITE on XRC refused")
    func refusals() throws {
        var pair = try Connected()
        let context = pair.sender.queuePair.context
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(
            directory.path + "/domain", .readOnly, options: .create, permissions: .ownerReadWrite)
        defer { try? file.close() }
        let domain = try context.openXRCDomain(file: file, exclusive: true)
        let taken = failure { () throws(VerbsError) in _ = try context.openXRCDomain(file: file, exclusive: true) }
        #expect(taken?.errno == .invalidArgument && taken?.hint?.contains("O_EXCL") == true)
        _ = try context.openXRCDomain(file: file, create: false)
        withExtendedLifetime(domain) {}
        let posted = failure { () throws(VerbsError) in
            try pair.sender.queuePair.postSend(
                .atomicWrite(to: pair.receiver.region.remote).to(sharedReceiveQueue: pair.receiver.number),
                try pair.sender.region.sge(0..<8))
        }
        #expect(posted?.errno == .invalidArgument)
        #expect(try pair.sender.queuePair.context.attributes().capabilities.contains(.xrc))
    }
}
