import Foundation
import Testing
import Verbs

extension Guest {
    /// `ibv_qp_ex` and `ibv_cq_ex` of either provider, with a queue pair of the other provider as peer.
    @Suite("rxe with every provider: extended posting and polling")
    struct RxeExtendedTests {
        @Test(
            "work requests of the wr_ functions arrive unchanged; extended polling returns their completions",
            arguments: NativeDevice.Provider.ofRxe)
        func connected(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let (own, other) = (try device.open(provider), try device.open(provider.other))
                let domain = try own.makeProtectionDomain()
                let here = try domain.makeMemoryRegion(byteCount: 8192)
                var completions = try own.makeCompletionQueue(capacity: 64, fields: .standard)
                var options = QueuePair.CreationOptions()
                options.extendedOperations = [
                    .send, .sendWithImmediate, .write, .writeWithImmediate, .read, .compareAndSwap, .fetchAndAdd,
                ]
                var left = try domain.makeQueuePair(
                    .reliableConnection, completions: completions,
                    capabilities: .init(maxSendSGE: 3, maxReceiveSGE: 2, maxInlineData: 64), options: options)
                var right = try Link.End(other, .reliableConnection)
                let (mine, its) = (try left.endpoint(), try right.queuePair.endpoint())
                try left.connect(to: its)
                try right.queuePair.connect(to: mine)

                let there = right.region
                let text = Array("pieces of a message".utf8)
                try here.copyBytes(from: text.span.bytes)
                try there.storeReleasing(40, at: 512)
                for id in 1...4 as ClosedRange<UInt64> {
                    try right.queuePair.postReceive(try there.sge(Int(id) * 1024..<Int(id) * 1024 + 512), id: id)
                }
                let remote = there.remote
                // rdma-core's rxe counts the first SGE's length for each (rdma-core commit 406cd2ad0), so it gets one.
                let sgList =
                    provider == .libibverbs
                    ? [try here.sge(0..<text.count)]
                    : [try here.sge(0..<7), try here.sge(7..<10), try here.sge(10..<text.count)]
                let word = try remote.subrange(512...)
                try left.postExtended { (requests) throws(VerbsError) in
                    try requests.append(.send, sgList: sgList.span, id: 1)
                    try requests.append(.send(immediate: 77), inline: Array("inline".utf8).span.bytes, id: 2)
                    try requests.append(.write(to: remote.subrange(8192...)), sgList: sgList.span, id: 3, flags: [])
                    try requests.append(.write(to: remote.subrange(8300...), immediate: 78), try here.sge(0..<7), id: 4)
                    try requests.append(.fetchAndAdd(at: word, adding: 2), try here.sge(1024..<1032), id: 5)
                    try requests.append(
                        .compareAndSwap(at: word, expected: 42, desired: 7), try here.sge(1032..<1040), id: 6)
                    try requests.append(
                        .read(from: remote.subrange(8192...)), try here.sge(2048..<2048 + text.count), id: 7,
                        flags: [.signaled, .fence])
                }
                var seen: [UInt64] = []
                var opcodes: [WorkCompletion.Opcode] = []
                while seen.count < 6 {
                    try completions.pollExtended(limit: provider.pollLimit) { completion in
                        #expect(completion.status == .success && completion.queuePairNumber == left.number)
                        seen.append(completion.id)
                        opcodes.append(completion.opcode)
                    }
                }
                #expect(seen == [1, 2, 4, 5, 6, 7])
                #expect(opcodes == [.send, .send, .write, .fetchAndAdd, .compareAndSwap, .read])
                #expect(try here.copyBytes(2048..<2048 + text.count) == text)
                #expect(try here.loadAcquiring(at: 1024) == 40 && here.loadAcquiring(at: 1032) == 42)
                #expect(try there.loadAcquiring(at: 512) == 7)

                let (first, second, third) = (try right.next(), try right.next(), try right.next())
                #expect(first.byteCount == text.count && second.byteCount == 6 && second.immediate == 77)
                #expect(third.opcode == .receiveWriteWithImmediate && third.immediate == 78)
                #expect(try there.copyBytes(1024..<1024 + text.count) == text)
                #expect(try there.copyBytes(2048..<2054) == Array("inline".utf8))
                #expect(try there.copyBytes(8192..<8192 + text.count) == text)
                #expect(try there.copyBytes(8300..<8307) == Array(text.prefix(7)))

                // From right to left, with enough messages to wrap the queues.
                var received: [(UInt64, Int?, UInt32?)] = []
                for round in 0..<30 as Range<UInt64> {
                    for id in 0..<3 as Range<UInt64> {
                        try left.postReceive(try here.sge(4096..<4200), id: 3 * round + id)
                        try right.queuePair.postSend(
                            .send(immediate: UInt32(3 * round + id)), try there.sge(0..<Int(8 + id)), id: 1)
                    }
                    for _ in 0..<3 { try right.next().check() }
                    while received.count < 3 * Int(round + 1) {
                        try completions.pollExtended(limit: min(2, provider.pollLimit)) { completion in
                            #expect(completion.status == .success && completion.opcode == .receive)
                            received.append((completion.id, completion.byteCount, completion.immediate))
                        }
                    }
                }
                #expect(received.map(\.0) == Array(0..<90))
                #expect(received.map(\.1) == (0..<90).map { 8 + $0 % 3 })
                #expect(received.map(\.2) == (0..<90).map { UInt32($0) })
            }
        }

        @Test("datagrams of the wr_ functions arrive at the peer unchanged", arguments: NativeDevice.Provider.ofRxe)
        func datagrams(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let (own, other) = (try device.open(provider), try device.open(provider.other))
                let domain = try own.makeProtectionDomain()
                let here = try domain.makeMemoryRegion(byteCount: 4096)
                var completions = try own.makeCompletionQueue(capacity: 64)
                var options = QueuePair.CreationOptions()
                options.extendedOperations = [.send, .sendWithImmediate]
                var left = try domain.makeQueuePair(.unreliableDatagram, completions: completions, options: options)
                var right = try Link.End(other, .unreliableDatagram)
                try left.activate()
                try right.queuePair.activate()
                let destination = try domain.makeDestination(try right.queuePair.endpoint())
                try here.copyBytes(from: Array("datagram".utf8).span.bytes)
                for id in 0..<2 as Range<UInt64> {
                    try right.queuePair.postReceive(try right.region.sge(Int(id) * 256..<Int(id) * 256 + 256), id: id)
                }
                try left.postExtended { (requests) throws(VerbsError) in
                    try requests.append(.send, try here.sge(0..<8), to: destination, id: 1)
                    try requests.append(.send(immediate: 5), try here.sge(0..<4), to: destination, id: 2)
                }
                #expect(try completions.poll(timeout: .seconds(300)).id == 1)
                #expect(try completions.poll(timeout: .seconds(300)).id == 2)
                let (first, second) = (try right.next(), try right.next())
                #expect(first.byteCount == 48 && second.byteCount == 44 && second.immediate == 5)
                #expect(first.sourceQueuePairNumber == left.number)
                #expect(try right.region.copyBytes(40..<48) == Array("datagram".utf8))
            }
        }
    }
}
