import CIBVerbs
import Foundation
import Testing
import ToolSupport
import Verbs

extension Guest {
    /// The native provider, loaded as the shipped shared library, on the kernel's rdmavt, with libhfi1verbs as peer.
    ///
    /// Debian's rdmavt logs one warning for the first request that is longer than a SEND: it copies every request as a
    /// whole into a field that is declared with the size of a SEND.
    @Suite("The native provider hfi1")
    struct Hfi1Tests {
        private static let roles: [(NativeDevice.Provider, NativeDevice.Provider)] = [
            (.native, .native), (.native, .libibverbs), (.libibverbs, .native),
        ]

        @Test("RC, UC and UD transfer data between native queue pairs, and to and from those of libhfi1verbs")
        func operations() async throws {
            try await Bench.runLoopback {
                let device = try NativeDevice(.hfi1)
                for (left, right) in Self.roles {
                    let (here, there) = (try device.open(left), try device.open(right))
                    var reliable = try Link(here, there)
                    try reliable.exchange()
                    try reliable.write()
                    try reliable.readAndCount()
                    try invalidate(&reliable, isNative: right == .native)
                    var unreliable = try Link(here, there, .unreliableConnection)
                    try unreliable.exchange()
                    try unreliable.write()
                    var datagram = try Link(here, there, .unreliableDatagram)
                    try datagram.datagrams()
                    try multicast(&datagram)
                    try many(here, there)
                }
                let (native, other) = (try device.open(), try device.open(.libibverbs))
                #expect(try "\(native.attributes())" == "\(other.attributes())")
                #expect(try "\(native.port(1))" == "\(other.port(1))")
                #expect(try "\(native.gidTable())" == "\(other.gidTable())")
                let mine = try Link(native, native)
                let theirs = try Link(other, other)
                #expect(mine.left.queuePair.capabilities == theirs.left.queuePair.capabilities)
                let (one, two) = (try mine.left.queuePair.query(), try theirs.left.queuePair.query())
                #expect(one.state == .readyToSend && one.state == two.state && one.pathMTU == two.pathMTU)
            }
        }

        /// The peer invalidates the rkey of a region with SEND with Invalidate.
        private func invalidate(_ link: inout Link, isNative: Bool) throws {
            let region = try link.right.region.protectionDomain.makeMemoryRegion(
                byteCount: 64, access: [.localWrite, .remoteWrite])
            let data = try link.left.region.sge(0..<8)
            try link.left.queuePair.postSend(.write(to: region.remote), data)
            try link.left.next().check()
            try link.right.queuePair.postReceive(try link.right.region.sge(0..<64), id: 4)
            try link.left.queuePair.postSend(.send(invalidating: region.remote.rkey), data)
            try link.left.next().check()
            let received = try link.right.next()
            #expect(received.isSuccess && received.id == 4 && received.byteCount == 8 && received.immediate == nil)
            // libhfi1verbs copies IB_WC_WITH_INVALIDATE, which is not the value of IBV_WC_WITH_INV.
            if isNative { #expect(received.invalidatedKey == region.remote.rkey) }
            try link.right.queuePair.postReceive(try link.right.region.sge(0..<64), id: 5)
            try link.left.queuePair.postSend(.write(to: region.remote), data)
            #expect(try link.left.next().status == .remoteAccessError)
            // The kernel has moved both queue pairs to the error state: posted and later work requests are flushed.
            #expect(try link.right.next().status == .flushed)
            try link.left.queuePair.postSend(.send, data)
            #expect(try link.left.next().status == .flushed)
            #expect(try link.left.queuePair.query().state == .error && link.right.queuePair.query().state == .error)
        }

        /// A multicast datagram arrives while the right queue pair is attached to the group, and not after the detach.
        private func multicast(_ link: inout Link) throws {
            let group = MulticastGroup(gid: try #require(GID("ff12:401b::77")), lid: 0xc007)
            let endpoint = Endpoint(
                queuePairNumber: 0xff_ffff, packetSequenceNumber: 0, gid: group.gid, lid: group.lid, mtu: .bytes1024,
                qkey: try link.right.queuePair.endpoint().qkey)
            let destination = try link.left.region.protectionDomain.makeDestination(endpoint)
            try link.right.queuePair.postReceive(try link.right.region.sge(1024..<1280), id: 9)
            for isMember in [true, false] {
                if isMember {
                    try link.right.queuePair.attach(to: group)
                } else {
                    try link.right.queuePair.detach(from: group)
                    try link.right.queuePair.postReceive(try link.right.region.sge(1024..<1280), id: 10)
                }
                try link.left.region.copyBytes(from: Array("all".utf8).span.bytes)
                try link.left.queuePair.postSend(.send, try link.left.region.sge(0..<3), to: destination)
                try link.left.next().check()
                // rdmavt_loopback delivers the datagram within the post, or not at all.
                let completion = try link.right.completions.poll()
                #expect(completion?.id == (isMember ? 9 : nil) && completion?.byteCount == (isMember ? 43 : nil))
            }
            #expect(try link.right.region.copyBytes(1024 + 40..<1024 + 43) == Array("all".utf8))
            #expect(throws: VerbsError.self) { try link.right.queuePair.detach(from: group) }
        }

        /// A message of 64 KiB; and request lists that need several post commands and wrap the queues.
        private func many(_ here: Context, _ there: Context) throws {
            let byteCount = 65536
            let (near, far) = (try here.makeProtectionDomain(), try there.makeProtectionDomain())
            let (source, target) = (
                try near.makeMemoryRegion(byteCount: byteCount), try far.makeMemoryRegion(byteCount: byteCount)
            )
            var sends = try here.makeCompletionQueue(capacity: 130)
            var receives = try there.makeCompletionQueue(capacity: 130)
            let capabilities = QueuePair.Capabilities(maxSendWR: 130, maxReceiveWR: 130)
            var left = try near.makeQueuePair(.reliableConnection, completions: sends, capabilities: capabilities)
            var right = try far.makeQueuePair(.reliableConnection, completions: receives, capabilities: capabilities)
            let (mine, its) = (try left.endpoint(), try right.endpoint())
            try left.connect(to: its)
            try right.connect(to: mine)
            let words = (0..<UInt32(byteCount / 4)).map { $0 &* 2_654_435_761 }
            try source.copyBytes(from: words.span.bytes)
            try right.postReceive(try target.sge(0..<byteCount))
            try left.postSend(.send, try source.sge(0..<byteCount))
            try sends.poll(timeout: .seconds(300)).check()
            #expect(try receives.poll(timeout: .seconds(300)).byteCount == byteCount)
            #expect(memcmp(source.unsafeBytes.baseAddress!, target.unsafeBytes.baseAddress!, byteCount) == 0)

            for round in 0..<2 as Range<UInt64> {
                var requests = SendRequestList(capacity: 120)
                for id in 0..<120 as Range<UInt64> {
                    try right.postReceive(try target.sge(0..<256), id: id)
                    try requests.append(
                        .send(immediate: UInt32(120 * round + id)), try source.sge(0..<1 + Int(id)), id: id,
                        flags: id == 119 ? [.signaled] : [])
                }
                try left.postSend(requests)
                #expect(try sends.poll(timeout: .seconds(300)).id == 119)
                for id in 0..<120 as Range<UInt64> {
                    let completion = try receives.poll(timeout: .seconds(300))
                    #expect(completion.id == id && completion.byteCount == 1 + Int(id))
                    #expect(completion.immediate == UInt32(120 * round + id) && completion.isSuccess)
                }
            }
        }

        @Test("shared receive queues: limit event, resize, RNR; completion queues: resize, notification, overflow")
        func queuesAndEvents() async throws {
            try await Bench.runLoopback {
                let device = try NativeDevice(.hfi1)
                for (left, right) in Self.roles {
                    let (here, there) = (try device.open(left), try device.open(right))
                    try shared(here, there)
                    try completions(here, there)
                }
            }
        }

        private func shared(_ here: Context, _ there: Context) throws {
            let (near, far) = (try here.makeProtectionDomain(), try there.makeProtectionDomain())
            let (source, target) = (try near.makeMemoryRegion(byteCount: 64), try far.makeMemoryRegion(byteCount: 64))
            var sends = try here.makeCompletionQueue(capacity: 64)
            var receives = try there.makeCompletionQueue(capacity: 4, channel: try there.makeCompletionChannel())
            var queue = try far.makeSharedReceiveQueue(.init(maxWR: 8))
            let id = queue.id
            var left = try near.makeQueuePair(.reliableConnection, completions: sends)
            let right = try far.makeQueuePair(
                .reliableConnection, sendCompletions: receives, receiveCompletions: receives,
                sharedReceiveQueue: queue)
            let (mine, its) = (try left.endpoint(), try right.endpoint())
            try left.connect(to: its)
            try right.connect(to: mine)

            // Resize while requests are outstanding, the first of which is not at index 0.
            for id in 0..<6 as Range<UInt64> { try queue.postReceive(try target.sge(0..<64), id: id) }
            for id in 0..<4 as Range<UInt64> {
                try left.postSend(.send, try source.sge(0..<8), id: id)
                #expect(try receives.poll(timeout: .seconds(300)).id == id)
            }
            for id in 6..<10 as Range<UInt64> { try queue.postReceive(try target.sge(0..<64), id: id) }
            try queue.resize(maxWR: 40)
            for id in 10..<40 as Range<UInt64> { try queue.postReceive(try target.sge(0..<64), id: id) }
            try queue.setLimit(30)
            #expect(try queue.query().limit == 30 && queue.query().maxWR == 40)

            // Resize the completion queue, larger and smaller, while it has completions. Four fill it at first.
            for id in 4..<8 as Range<UInt64> { try left.postSend(.send, try source.sge(0..<8), id: id) }
            try receives.resize(capacity: 50)
            for id in 8..<15 as Range<UInt64> { try left.postSend(.send, try source.sge(0..<8), id: id) }
            #expect(
                try there.nextEvent(timeout: .seconds(300))
                    == AsynchronousEvent(type: .sharedReceiveQueueLimitReached, subject: .sharedReceiveQueue(id)))
            #expect(try receives.poll(timeout: .seconds(300)).id == 4)
            for id in 0..<15 as Range<UInt64> { #expect(try sends.poll(timeout: .seconds(300)).id == id) }
            try receives.resize(capacity: 10)
            for id in 5..<15 as Range<UInt64> { #expect(try receives.poll(timeout: .seconds(300)).id == id) }

            // A message that arrives while no receive is posted is retried (RNR NAK) until there is one.
            for id in 15..<40 as Range<UInt64> {
                try left.postSend(.send, try source.sge(0..<8), id: id)
                #expect(try receives.poll(timeout: .seconds(300)).id == id)
                #expect(try sends.poll(timeout: .seconds(300)).id == id)
            }
            try left.postSend(.send, try source.sge(0..<8), id: 40)
            try queue.postReceive(try target.sge(0..<64), id: 41)
            #expect(try sends.poll(timeout: .seconds(300)).id == 40)
            #expect(try receives.poll(timeout: .seconds(300)).id == 41)

            // LAST_WQE_REACHED: the receives that remain in the shared queue do not belong to the queue pair.
            var error = QueuePair.Attributes()
            error.state = .error
            try right.modify(error)
            let number = right.number
            #expect(
                try there.nextEvent(timeout: .seconds(300))
                    == AsynchronousEvent(type: .lastWorkRequestReached, subject: .queuePair(number: number)))
        }

        private func completions(_ here: Context, _ there: Context) throws {
            var link = try Link(here, there)
            let channel = link.right.completions.channel!
            let data = try link.left.region.sge(0..<8)
            for id in 1...4 as ClosedRange<UInt64> {
                try link.right.queuePair.postReceive(try link.right.region.sge(0..<64), id: id)
            }
            try link.right.completions.arm(solicitedOnly: true)
            try link.left.queuePair.postSend(.send, data)
            try link.right.next().check()
            #expect(try channel.wait(timeout: .zero) == nil)
            try link.left.queuePair.postSend(.send, data, flags: [.signaled, .solicited])
            #expect(try channel.wait(timeout: .seconds(300)) == link.right.completions.id)
            try link.right.next().check()
            try link.right.completions.arm()
            try link.left.queuePair.postSend(.send, data)
            #expect(try channel.wait(timeout: .seconds(300)) == link.right.completions.id)
            for _ in 0..<3 { try link.left.next().check() }

            // Overflow of a completion queue that is not polled: IBV_EVENT_CQ_ERR.
            let domain = try there.makeProtectionDomain()
            let region = try domain.makeMemoryRegion(byteCount: 64)
            let short = try there.makeCompletionQueue(capacity: 2)
            var pair = try domain.makeQueuePair(.unreliableDatagram, completions: short)
            try pair.activate()
            let destination = try domain.makeDestination(try pair.endpoint())
            for _ in 0..<3 { try pair.postSend(.send, try region.sge(0..<8), to: destination) }
            #expect(
                try there.nextEvent(timeout: .seconds(300))
                    == AsynchronousEvent(type: .completionQueueError, subject: .completionQueue(short.id)))
        }

        @Test("verbs lists the device, and ping between two processes verifies every operation with either provider")
        func tool() async throws {
            try await Bench.runLoopback {
                let device = try NativeDevice(.hfi1)
                let providers = try await Tool.run("providers", "hfi1_0", environment: device.environment(.native))
                #expect(providers.output.contains(/chosen +hfi1/), "\(providers)")
                let sides: [(NativeDevice.Provider, NativeDevice.Provider)] = [
                    (.native, .libibverbs), (.libibverbs, .native),
                ]
                for (serving, calling) in sides {
                    let environment = device.environment(serving)
                    let server = try await Tool.run(
                        "ping", "--listen", "--port", "0", "--device", "hfi1_0", environment: environment
                    ) { server in
                        let outcome = try await Tool.run(
                            ["ping", "127.0.0.1", "--port", try await server.port(), "--device", "hfi1_0", "--all"]
                                + ["--size", "5001"] + Ping.verified(10),
                            environment: device.environment(calling))
                        #expect(outcome.status == 0, "\(outcome.errors)")
                        try Ping.check(outcome, sent: 10)
                        #expect(outcome.output.contains("\"provider\" : \"\(device.name(calling))\""))
                    }
                    #expect(server.status == 0, "\(server.errors)")
                }
            }
        }
    }
}
