import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation
import Testing
import Verbs

extension Guest {
    /// The kernel's rxe0, served by the native provider (the shipped shared library) and by libibverbs.
    @Suite("rxe with every provider")
    struct RxeTests {
        @Test("RC, UC and UD transfer data between queue pairs of one provider, and to and from those of another")
        func operations() async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let roles: [(NativeDevice.Provider, NativeDevice.Provider)] = [
                    (.native, .native), (.native, .libibverbs), (.libibverbs, .native), (.crxe, .crxe),
                    (.crxe, .libibverbs), (.libibverbs, .crxe), (.crxe, .native), (.native, .crxe),
                ]
                for (left, right) in roles {
                    let (here, there) = (try device.open(left), try device.open(right))
                    var reliable = try Link(here, there)
                    try reliable.exchange()
                    try reliable.write()
                    try reliable.readAndCount()
                    var unreliable = try Link(here, there, .unreliableConnection)
                    try unreliable.exchange()
                    try unreliable.write()
                    var datagram = try Link(here, there, .unreliableDatagram)
                    try datagram.datagrams()
                }
            }
        }

        @Test(
            "attributes of device, port, GIDs and queue pair are equal to those of libibverbs",
            arguments: [NativeDevice.Provider.native, .crxe])
        func queries(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let (native, other) = (try device.open(provider), try device.open(.libibverbs))
                #expect(try "\(native.attributes())" == "\(other.attributes())")
                #expect(try "\(native.port(1))" == "\(other.port(1))")
                #expect(try "\(native.gidTable())" == "\(other.gidTable())")
                #expect(try native.pkey(port: 1, index: 0) == 0xffff)
                #expect(throws: VerbsError.self) { try native.pkey(port: 1, index: 77) }
                #expect(throws: VerbsError.self) { try native.port(2) }

                let mine = try Link(native, native)
                let theirs = try Link(other, other)
                let (one, two) = (try mine.left.queuePair.query(), try theirs.left.queuePair.query())
                #expect(one.state == .readyToSend && one.state == two.state && one.pathMTU == two.pathMTU)
                #expect(one.timeout == two.timeout && one.retryCount == two.retryCount)
                #expect(mine.left.queuePair.capabilities == theirs.left.queuePair.capabilities)
            }
        }

        @Test(
            "shared receive queues: limit event and resize; completion queues are resized with completions in them",
            arguments: NativeDevice.Provider.ofRxe)
        func queues(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 4096)
                var completions = try context.makeCompletionQueue(capacity: 16)
                var shared = try domain.makeSharedReceiveQueue(.init(maxWR: 8))
                let id = shared.id
                var left = try domain.makeQueuePair(.reliableConnection, completions: completions)
                let right = try domain.makeQueuePair(
                    .reliableConnection, sendCompletions: completions, receiveCompletions: completions,
                    sharedReceiveQueue: shared)
                let (here, there) = (try left.endpoint(), try right.endpoint())
                try left.connect(to: there)
                try right.connect(to: here)
                for id in 10..<14 as Range<UInt64> { try shared.postReceive(try region.sge(0..<64), id: id) }
                try shared.resize(maxWR: 40)
                for id in 14..<40 as Range<UInt64> { try shared.postReceive(try region.sge(0..<64), id: id) }
                try shared.setLimit(30)
                #expect(try shared.query().limit == 30 && shared.query().maxWR >= 40)

                for _ in 0..<2 { try left.postSend(.send, try region.sge(128..<136)) }
                let event = try context.nextEvent(timeout: .seconds(300))
                #expect(event?.type == .sharedReceiveQueueLimitReached && event?.subject == .sharedReceiveQueue(id))
                var seen: [UInt64] = [try completions.poll(timeout: .seconds(300)).id]
                try completions.resize(capacity: 200)
                #expect(completions.capacity >= 200)
                while seen.count < 4 { seen.append(try completions.poll(timeout: .seconds(300)).id) }
                for _ in 0..<12 { try left.postSend(.send, try region.sge(128..<136)) }
                for _ in 0..<20 { seen.append(try completions.poll(timeout: .seconds(300)).id) }
                try completions.resize(capacity: 8)
                for _ in 0..<4 { seen.append(try completions.poll(timeout: .seconds(300)).id) }
                #expect(seen.filter { $0 >= 10 } == Array(10..<24) && seen.count == 28)
            }
        }

        @Test(
            "a queue pair with maxReceiveWR 0 sends, and one with maxSendWR 0 receives",
            arguments: NativeDevice.Provider.ofRxe)
        func oneWay(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 4096)
                var completions = try context.makeCompletionQueue(capacity: 16)
                var sender = try domain.makeQueuePair(
                    .reliableConnection, completions: completions, capabilities: .init(maxReceiveWR: 0))
                var receiver = try domain.makeQueuePair(
                    .reliableConnection, completions: completions, capabilities: .init(maxSendWR: 0))
                let (here, there) = (try sender.endpoint(), try receiver.endpoint())
                try sender.connect(to: there)
                try receiver.connect(to: here)
                let sge = try region.sge(0..<8)
                try receiver.postReceive(try region.sge(1024..<1088), id: 2)
                try sender.postSend(.send, sge, id: 1)
                let seen = [try completions.poll(timeout: .seconds(300)), try completions.poll(timeout: .seconds(300))]
                #expect(Set(seen.map(\.id)) == [1, 2] && seen.allSatisfy(\.isSuccess))
                #expect(throws: VerbsError.self) { try sender.postReceive(sge) }
                #expect(throws: VerbsError.self) { try receiver.postSend(.send, sge) }
            }
        }

        @Test(
            "memory windows of both types permit the access that they were bound for, and no other",
            arguments: NativeDevice.Provider.ofRxe)
        func windows(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                for kind in [MemoryWindowType.one, .two] {
                    var link = try Link(context, context)
                    let window = try link.right.region.protectionDomain.makeMemoryWindow(kind)
                    let remote = try link.right.queuePair.bind(
                        window, to: link.right.region, 1024..<2048, access: .remoteWrite)
                    #expect(try link.right.next().opcode == .bindMemoryWindow)
                    try link.left.region.copyBytes(from: Array("window".utf8).span.bytes)
                    try link.left.queuePair.postSend(
                        .write(to: remote.subrange(16...)), try link.left.region.sge(0..<6))
                    try link.left.next().check()
                    #expect(try link.right.region.copyBytes(1040..<1046) == Array("window".utf8))
                    try link.left.queuePair.postSend(.read(from: remote), try link.left.region.sge(0..<6))
                    #expect(try link.left.next().status == .remoteAccessError)
                    // The kernel has moved the queue pair to the error state: later work requests are flushed.
                    try link.left.queuePair.postSend(.write(to: remote), try link.left.region.sge(0..<6))
                    #expect(try link.left.next().status == .flushed)
                    #expect(try link.left.queuePair.query().state == .error)
                }
            }
        }

        @Test(
            "work requests are posted through ibv_qp_ex and polled through ibv_cq_ex",
            arguments: NativeDevice.Provider.ofRxe)
        func extended(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
                var completions = try context.makeCompletionQueue(capacity: 64, fields: .standard)
                var options = QueuePair.CreationOptions()
                options.extendedOperations = [.send, .sendWithImmediate, .write]
                var left = try domain.makeQueuePair(
                    .reliableConnection, completions: completions, capabilities: .init(maxInlineData: 32),
                    options: options)
                var right = try domain.makeQueuePair(.reliableConnection, completions: completions)
                let (here, there) = (try left.endpoint(), try right.endpoint())
                try left.connect(to: there)
                try right.connect(to: here)
                for id in 0..<2 as Range<UInt64> { try right.postReceive(try region.sge(1024..<2048), id: id) }
                try left.postExtended { (requests) throws(VerbsError) in
                    try requests.append(
                        .write(to: region.remote.subrange(64...)), inline: Array("ab".utf8).span.bytes, id: 5,
                        flags: [])
                    try requests.append(.send(immediate: 3), try region.sge(0..<8), id: 6)
                    try requests.append(.send, sgList: [try region.sge(0..<4)].span, id: 7)
                }
                var seen: [UInt64: (Int?, UInt32?)] = [:]
                while seen.count < 4 {
                    try completions.pollExtended(limit: min(2, provider.pollLimit)) { completion in
                        #expect(completion.status == .success)
                        // Adds 100 to the right queue pair's ids, so that they differ from the left's.
                        let id = completion.queuePairNumber == left.number ? completion.id : completion.id + 100
                        seen[id] = (completion.byteCount, completion.immediate)
                    }
                }
                #expect(Set(seen.keys) == [6, 7, 100, 101])
                #expect(seen[100]?.1 == 3 && seen[100]?.0 == 8 && seen[101]?.0 == 4)
                #expect(try region.copyBytes(64..<66) == Array("ab".utf8))
                #expect(throws: VerbsError.self) { _ = try domain.makeQueuePair(.rawPacket, completions: completions) }
                #expect(throws: VerbsError.self) {
                    _ = try context.makeCompletionQueue(capacity: 8, fields: .timestamp)
                }
            }
        }

        @Test(
            "completions wake the channel; asynchronous events of queue pair, completion queue and port arrive",
            arguments: NativeDevice.Provider.ofRxe)
        func events(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run(alone: true) { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                var link = try Link(context, context)
                let channel = link.right.completions.channel!
                try link.right.completions.arm(solicitedOnly: true)
                for id in 1...2 as ClosedRange<UInt64> {
                    try link.right.queuePair.postReceive(try link.right.region.sge(0..<64), id: id)
                }
                try link.left.queuePair.postSend(.send, try link.left.region.sge(0..<8))
                try link.right.next().check()
                #expect(try channel.wait(timeout: .zero) == nil)
                try link.left.queuePair.postSend(
                    .send, try link.left.region.sge(0..<8), flags: [.signaled, .solicited])
                #expect(try channel.wait(timeout: .seconds(300)) == link.right.completions.id)

                var drain = QueuePair.Attributes()
                drain.state = .sendQueueDrained
                try link.left.queuePair.modify(drain)
                let number = link.left.queuePair.number
                #expect(
                    try context.nextEvent(timeout: .seconds(300))
                        == AsynchronousEvent(type: .sendQueueDrained, subject: .queuePair(number: number)))

                // Overflow of a completion queue that is not polled: IBV_EVENT_CQ_ERR.
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 64)
                let short = try context.makeCompletionQueue(capacity: 2)
                var pair = try domain.makeQueuePair(.unreliableDatagram, completions: short)
                try pair.activate()
                let destination = try domain.makeDestination(try pair.endpoint())
                for _ in 0...short.capacity { try pair.postSend(.send, try region.sge(0..<8), to: destination) }
                #expect(
                    try context.nextEvent(timeout: .seconds(300))
                        == AsynchronousEvent(type: .completionQueueError, subject: .completionQueue(short.id)))

                try await Bench.shell("ip link set veth0 down")
                try context.awaitPortEvent(.portError)
                #expect(try context.port(1).state != .active)
                try await Bench.shell("ip link set veth0 up")
                try context.awaitPortEvent(.portActive)
            }
        }

        @Test(
            "destroying a queue discards unread events, and waits until read ones are acknowledged",
            arguments: [NativeDevice.Provider.native, .crxe])
        func unacknowledged(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                for reads in [false, true] {
                    var link = try Link(context, context)
                    try link.left.completions.arm()
                    let target = link.right.region.remote
                    try link.left.queuePair.postSend(.write(to: target), try link.left.region.sge(0..<8))
                    try link.left.next().check()
                    var drain = QueuePair.Attributes()
                    drain.state = .sendQueueDrained
                    try link.left.queuePair.modify(drain)
                    let (queue, channel) = (link.left.completions.unsafeRaw, link.left.completions.channel!)
                    let destroyer = Destroyer(link)
                    if reads {
                        // An application thread has read both events and has not yet acknowledged them.
                        var record = [UInt64](repeating: 0, count: 2)
                        #expect(read(channel.fileDescriptor.rawValue, &record, 8) == 8)
                        #expect(record[0] == UInt64(UInt(bitPattern: queue)))
                        #expect(read(context.eventDescriptor.rawValue, &record, 16) == 16)
                        destroyer.start()
                        usleep(50_000)
                        #expect(!destroyer.hasEnded)
                        var event = ibv_async_event()
                        event.event_type = ibv_event_type(rawValue: UInt32(truncatingIfNeeded: record[1]))
                        event.element.qp = UnsafeMutablePointer(bitPattern: UInt(record[0]))
                        #expect(EventType(rawValue: event.event_type.rawValue) == .sendQueueDrained)
                        rdma_ack_async_event(&event)
                        rdma_ack_cq_events(queue, 1)
                    } else {
                        destroyer.start()
                    }
                    #expect(destroyer.end())
                }
                #expect(try context.nextEvent(timeout: .zero) == nil)
            }
        }

        @Test(
            "without permission for the device node, open reports EACCES with a hint",
            arguments: NativeDevice.Provider.ofRxe)
        func permission(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run(alone: true) { _ in
                let device = try NativeDevice(.rxe)
                let found = try Device.named("rxe0", from: device.loader(provider, alone: provider != .libibverbs))
                try await Bench.shell("chmod 600 /dev/infiniband/uverbs*")
                #expect(seteuid(65534) == 0)
                defer { #expect(seteuid(0) == 0) }
                let error = #expect(throws: VerbsError.self) { _ = try found.open() }
                #expect(error?.errno == .permissionDenied)
                let text = "\(String(describing: error)) \(error?.hint ?? "")"
                let wanted = provider != .libibverbs ? ": permission denied; give" : "no permission for /dev/infiniband"
                #expect(text.contains(wanted) && text.contains("/dev/infiniband/uverbs"), "\(text)")
            }
        }
    }
}

/// Destroys a link on a separate thread.
private final class Destroyer: @unchecked Sendable {
    // Unchecked: after start() only the thread accesses the link; the semaphore orders later accesses.
    private var link: Link?
    private let ended = DispatchSemaphore(value: 0)

    init(_ link: consuming Link) { self.link = consume link }

    func start() {
        Thread.detachNewThread {
            self.link = nil
            self.ended.signal()
        }
    }

    var hasEnded: Bool {
        guard ended.wait(timeout: .now()) == .success else { return false }
        ended.signal()
        return true
    }

    /// Waits 30 seconds at most. Returns whether the link was destroyed.
    func end() -> Bool { ended.wait(timeout: .now() + 30) == .success }
}
