import Glibc
import RoCETransport
import RoCEWire
import Synchronization
import TestSupport
import Testing

@Suite("SENDs whose data the responder copies from the memory of the requester", .serialized)
struct ReferenceTests {
    /// Two engines that access each other's memory, with a message that the left one sends, and the packets of both.
    private final class Exchange {
        let pair: NeighborPair
        var left: Host { pair.left }
        var right: Host { pair.right }
        let source: UnsafeMutableRawBufferPointer
        let target: UnsafeMutableRawBufferPointer
        /// The packets of the left engine: whether each is a reference.
        var references: [Bool] = []
        /// Which packets are lost, by their position.
        var lost: (Int) -> Bool = { _ in false }

        init(
            _ size: Int, room: Int? = nil, connection: Connection = Connection(), reach: Neighbor.Reach = .here,
            isMutual: Bool = true
        ) throws {
            pair = try NeighborPair(connection, memory: 2 * max(size, room ?? 0) + (1 << 16))
            if isMutual { pair.acquaint(reach) }
            source = pair.left.take(size)
            target = pair.right.take(room ?? size)
            for index in 0..<size { source[index] = UInt8(truncatingIfNeeded: index &* 7 &+ index >> 8 &+ 1) }
            pair.network.inspect = { [unowned self] packet, outgoing in
                guard !packet.headers.bth.opcode.isResponse else { return true }
                references.append(outgoing.isReference)
                return !lost(references.count - 1)
            }
        }

        func postReceive(id: UInt64 = 9) { right.postReceive(pair.rightPair, id: id, [right.sge(target)]) }

        func send(_ opcode: WorkRequestOpcode = .send, id: UInt64 = 1, immediate: UInt32 = 0) {
            var request = SendWQE(id: id, opcode: opcode, flags: .solicited)
            request.immediate = immediate
            left.post(pair.leftPair, request, [left.sge(source)])
        }

        /// Sends the message, and runs the network. Returns the statuses of both completion queues.
        func run() -> (left: [CompletionStatus], right: [WorkCompletion]) {
            pair.network.run()
            return (left.poll().map(\.status), right.poll())
        }

        var arrived: Bool { memcmp(source.baseAddress!, target.baseAddress!, source.count) == 0 }
        var direct: UInt64 { right.engine.counters.directRequests }
    }

    // MARK: - What is done

    @Test(
        "A SEND of any length is one reference for each 512 KiB, and arrives as a whole",
        arguments: [4096, 4097, 100_000, 512 << 10, (512 << 10) + 1, (3 << 20) + 5], [256, 1024, 4096] as [UInt32])
    func lengths(size: Int, mtu: UInt32) throws {
        let test = try Exchange(size, connection: Connection(mtu: mtu))
        test.postReceive()
        test.send()
        let (left, right) = test.run()
        let parts = (size - 1) / (512 << 10) + 1
        #expect(left == [.success] && right.map(\.status) == [.success] && test.arrived)
        #expect(right[0].byteCount == UInt32(size) && right[0].id == 9 && right[0].opcode == .receive)
        #expect(test.references == Array(repeating: true, count: parts) && test.direct == UInt64(parts))
        #expect(test.right.engine.counters.directBytes == UInt64(size))
        #expect(test.left.hazard.pointee.load(ordering: .relaxed) == 0)
        // Packets go on where the reference ended.
        #expect(
            test.left.engine.attributes(of: test.pair.leftPair).sqPSN
                == (0x100 + UInt32(size - 1) / mtu + 1) & 0xFF_FFFF)
        test.right.postReceive(test.pair.rightPair, id: 10)
        test.left.post(test.pair.leftPair, SendWQE(id: 2, opcode: .send))
        #expect(test.run().left == [.success])
    }

    @Test("Memory that is mapped is read from 512 bytes on, other memory from 4096; inline data is in packets")
    func thresholds() throws {
        for (size, isShared, isReference) in [
            (511, true, false), (512, true, true), (4095, false, false), (4096, false, true),
        ] {
            let test = try Exchange(size)
            var sge = test.left.sge(test.source)
            if isShared {
                sge.lkey = try test.left.engine.registerMemory(
                    test.left.domain, address: test.source.baseAddress, length: UInt64(size),
                    virtualAddress: sge.address, access: [], shared: (5, 0))
            }
            test.postReceive()
            test.left.post(test.pair.leftPair, SendWQE(id: 1, opcode: .send), [sge])
            #expect(test.run().left == [.success] && test.arrived)
            #expect(test.references.contains(true) == isReference, "\(size)")
        }
        let test = try Exchange(600)
        let pair = try test.left.makeQueuePair(maxInlineData: 600, sqSigAll: true)
        var connection = Connection()
        connection.tag = Path.sameHost
        try test.left.connect(pair, to: test.right.gid, number: test.pair.rightPair.number, connection)
        test.left.post(pair, SendWQE(id: 1, opcode: .send, flags: .inline), [test.left.sge(test.source)])
        test.pair.network.flushAll()
        #expect(test.references == [false])
    }

    @Test("SGEs of both sides are of any length; immediate data and the key to invalidate arrive")
    func lists() throws {
        let size = 700_000
        let test = try Exchange(size)
        func parts(_ bytes: UnsafeMutableRawBufferPointer, _ ends: [Int], _ host: Host) -> [SGE] {
            zip([0] + ends, ends + [bytes.count]).map {
                host.sge(UnsafeMutableRawBufferPointer(rebasing: bytes[$0..<$1]))
            }
        }
        test.right.postReceive(test.pair.rightPair, id: 9, parts(test.target, [1, 300_000, 300_000], test.right))
        var request = SendWQE(id: 1, opcode: .sendWithImmediate)
        request.immediate = 0x0102_0304
        test.left.post(test.pair.leftPair, request, parts(test.source, [0, 77, 600_000], test.left))
        let (left, right) = test.run()
        #expect(left == [.success] && test.arrived && test.references == [true, true])
        #expect(right[0].immediate == 0x0102_0304 && right[0].flags == .withImmediate)

        let window = try test.right.bindWindow(on: test.pair.rightPair, to: test.target)
        test.postReceive()
        test.send(.sendWithInvalidate, immediate: window)
        let second = test.run()
        #expect(second.left == [.success] && second.right[0].flags == .withInvalidate)
        #expect(second.right[0].immediate == window && test.right.engine.boundWindows(of: test.right.key) == 0)
        // It is invalid now.
        test.postReceive()
        test.send(.sendWithInvalidate, immediate: window)
        let third = test.run()
        #expect(third.right.map(\.status) == [.remoteInvalidRequestError])
        #expect(test.references == [true, true, true, true, true, true])
    }

    @Test("SENDs, with and without references, and one-sided requests are executed in order")
    func order() throws {
        let test = try Exchange(100_000)
        for id in UInt64(1)...6 { test.right.postReceive(test.pair.rightPair, id: id, [test.right.sge(test.target)]) }
        let place = test.right.take(8)
        let small = test.left.take(8)
        for id in UInt64(1)...6 {
            let bytes = id % 2 == 0 ? small : test.source
            test.left.post(test.pair.leftPair, SendWQE(id: 2 * id, opcode: .send), [test.left.sge(bytes)])
            var add = test.pair.request(.fetchAndAdd, id: 2 * id + 1, at: place)
            add.compareAdd = 1
            test.left.post(test.pair.leftPair, add, [test.left.sge(test.left.take(8))])
        }
        test.pair.network.run()
        let completions = test.left.poll()
        #expect(completions.map(\.id) == Array(2...13) && completions.allSatisfy { $0.status == .success })
        let received = test.right.poll()
        #expect(
            received.map(\.id) == Array(1...6) && received.map(\.byteCount) == [100_000, 8, 100_000, 8, 100_000, 8])
        #expect(place.load(as: UInt64.self) == 6 && test.direct == 3)
    }

    // MARK: - What fails

    @Test("Without a receive work request, the responder returns an RNR NAK, and the reference is sent again")
    func receiverNotReady() throws {
        var connection = Connection()
        connection.rnrRetry = 7
        let test = try Exchange(600_000, connection: connection)
        test.send()
        test.pair.network.run(for: 100_000)
        #expect(test.left.engine.counters.rnrNAKsReceived > 0 && test.right.poll().isEmpty)
        test.postReceive()
        let (left, right) = test.run()
        #expect(left == [.success] && right.map(\.status) == [.success] && test.arrived)
        #expect(test.references.allSatisfy { $0 } && test.direct == 2)
    }

    @Test("A message longer than the receive work request fails on both sides, also in its second part")
    func tooLong() throws {
        for (size, room) in [(5000, 4999), (600_000, 599_999), (600_000, 100)] {
            let test = try Exchange(size, room: room)
            test.postReceive()
            test.send()
            let (left, right) = test.run()
            #expect(left == [.remoteInvalidRequestError] && right.map(\.status) == [.localLengthError])
            #expect(test.pair.leftPair.state == .error && test.pair.rightPair.state == .error)
        }
    }

    @Test("Keys that are not valid: an error here at the requester, and on both sides at the responder")
    func keys() throws {
        let test = try Exchange(5000)
        var sge = test.right.sge(test.target)
        sge.lkey ^= 1
        test.right.postReceive(test.pair.rightPair, id: 9, [sge])
        test.send()
        let (left, right) = test.run()
        #expect(left == [.remoteOperationError] && right.map(\.status) == [.localProtectionError])

        let other = try Exchange(600_000)
        other.postReceive()
        other.send()
        #expect(other.left.engine.transmit(into: other.left.packet, now: other.pair.network.now)?.isReference == true)
        // The second part is not read any more.
        try other.left.engine.deregisterMemory(other.left.key)
        #expect(other.run().left == [.localProtectionError] && other.pair.rightPair.state == .readyToSend)
    }

    // MARK: - What is sent as packets

    @Test(
        "What the responder cannot copy arrives in packets",
        arguments: ["no neighbor", "withdrawn", "null region", "kernel"])
    func refused(reason: String) throws {
        let test = try Exchange(
            5000, reach: reason == "kernel" ? .process(7, { _, _, _, _, _ in false }) : .here,
            isMutual: reason != "no neighbor")
        if reason == "no neighbor" { test.left.publish() }
        if reason == "withdrawn" { test.left.engine.withdraw(key: test.left.key) }
        if reason == "null region" {
            let null = try test.right.engine.registerNullRegion(test.right.domain)
            test.right.postReceive(test.pair.rightPair, id: 9, [SGE(address: 0, length: 5000, lkey: null)])
        } else {
            test.postReceive()
        }
        test.send()
        let (left, right) = test.run()
        #expect(left == [.success] && right.map(\.status) == [.success] && right[0].byteCount == 5000)
        #expect(test.references == [true, false, false, false, false, false] && test.direct == 0)
        #expect(reason == "null region" || test.arrived)
        #expect(test.left.hazard.pointee.load(ordering: .relaxed) == 0)
        #expect(test.left.engine.counters.timeouts == 0 && test.left.engine.counters.probes == 0)
        // The next SEND is packets at once. After that a reference is tried again, and after its refusal later.
        func tries() -> Bool {
            test.references = []
            test.postReceive()
            test.send()
            #expect(test.run().left == [.success])
            return test.references[0]
        }
        guard reason != "null region" else { return }
        let found = (0..<12).map { _ in tries() }
        #expect(found.count { $0 } < 6 && found.contains(true))
        // When the reason is gone, references work again.
        test.right.engine.neighbors[1] = test.left.neighbor(.here)
        test.left.engine.restore(key: test.left.key)
        var count = 0
        while !tries() { count += 1 }
        #expect(count < 16 && test.direct == 1 && test.arrived)
    }

    @Test("A reference that is lost is sent again as packets, and one that arrives twice is executed once")
    func losses() throws {
        for lost in 0..<3 {
            let test = try Exchange(3 * (512 << 10))
            test.lost = { $0 == lost }
            test.postReceive()
            test.send()
            let (left, right) = test.run()
            #expect(left == [.success] && right.map(\.status) == [.success] && test.arrived)
            #expect(test.references.contains(false) && test.direct >= UInt64(lost))
        }
        let test = try Exchange(5000)
        test.pair.network.profile.duplication = 100
        test.postReceive()
        test.send()
        let (left, right) = test.run()
        #expect(left == [.success] && right.count == 1 && test.arrived && test.direct == 1)
    }

    @Test("A reference from before RESET is not executed in the next connection")
    func stale() throws {
        let test = try Exchange(5000)
        test.send()
        let now = test.pair.network.now
        let first = test.left.engine.transmit(into: test.left.packet, now: now)
        let packet = try #require(first)
        #expect(packet.isReference)
        let bytes = Array(test.left.packet[..<packet.byteCount])
        try test.left.move(test.pair.leftPair, to: .error)
        #expect(test.left.poll().map(\.status) == [.flushed])
        test.source.initializeMemory(as: UInt8.self, repeating: 0xEE)
        try test.left.move(test.pair.leftPair, to: .reset)
        var connection = Connection()
        connection.tag = Path.sameHost
        try test.left.connect(
            test.pair.leftPair, to: test.right.gid, number: test.pair.rightPair.number, connection)
        test.postReceive()
        bytes.withUnsafeBytes { bytes in
            test.right.engine.receiveReference(
                bytes,
                from: PacketSource(
                    source: test.left.gid, destination: test.right.gid,
                    header: UnsafeRawBufferPointer(start: nil, count: 0)),
                now: now)
        }
        #expect(test.right.poll().isEmpty && test.direct == 0)
        // It took no receive work request, and was not answered.
        #expect(test.right.engine.counters.naksSent == 0)
        test.send(id: 5)
        let (left, right) = test.run()
        #expect(left == [.success] && right.map(\.id) == [9] && test.direct == 1)
    }

    @Test("A reference to a queue pair whose peer is on another host is dropped, without an answer")
    func elsewhere() throws {
        let test = try Exchange(5000)
        test.postReceive()
        test.send()
        let now = test.pair.network.now
        let sent = test.left.engine.transmit(into: test.left.packet, now: now)
        let packet = try #require(sent)
        try #require(packet.isReference)
        try test.right.move(test.pair.rightPair, to: .reset)
        test.postReceive()
        try test.right.connect(
            test.pair.rightPair, to: test.left.gid, number: test.pair.leftPair.number, Connection().reversed)
        test.right.engine.receiveReference(
            UnsafeRawBufferPointer(rebasing: test.left.packet[..<packet.byteCount]),
            from: PacketSource(
                source: test.left.gid, destination: test.right.gid,
                header: UnsafeRawBufferPointer(start: nil, count: 0)),
            now: now)
        #expect(test.right.engine.counters.droppedServiceType == 1 && test.right.engine.counters.naksSent == 0)
        #expect(test.right.engine.transmit(into: test.right.packet, now: now) == nil && test.right.poll().isEmpty)
    }

    @Test("Many SENDs at once to a responder that refuses all references are packets, after a few refusals")
    func pipeline() throws {
        let test = try Exchange(5000, reach: .process(7, { _, _, _, _, _ in false }))
        var batches = 0
        for _ in 0..<20 {
            test.references = []
            for id in UInt64(1)...16 {
                test.right.postReceive(test.pair.rightPair, id: id, [test.right.sge(test.target)])
                test.send(id: id)
            }
            let (left, right) = test.run()
            #expect(left.count == 16 && right.count == 16 && left.allSatisfy { $0 == .success })
            if test.references.contains(true) { batches += 1 }
        }
        #expect((2...8).contains(batches) && test.direct == 0)
        #expect(test.right.engine.counters.naksSent > 0)
    }

    // MARK: - What happens in the middle of a copy

    /// Called after each copy between processes.
    private nonisolated(unsafe) static var afterCopy: () -> Void = {}

    private static let copy: ForeignCopy = { _, parts, count, address, _ in
        let parts = parts.assumingMemoryBound(to: MemoryPart.self)
        var copied = 0
        for index in 0..<Int(count) {
            memcpy(
                parts[index].address!, UnsafeRawPointer(bitPattern: UInt(address) + UInt(copied))!,
                parts[index].byteCount)
            copied += parts[index].byteCount
        }
        afterCopy()
        return true
    }

    @Test(
        "A SEND that completes in error while its data is copied is not received",
        arguments: ["ERR", "RESET", "destroyed", "timeout", "reconnected"])
    func ended(how: String) throws {
        let test = try Exchange(5000, reach: .process(7, Self.copy))
        var seen: [CompletionStatus] = []
        Self.afterCopy = {
            #expect(Hazard.concerns(test.left.hazard.pointee.load(ordering: .relaxed), key: test.left.key))
            #expect(
                Hazard.concerns(
                    test.left.hazard.pointee.load(ordering: .relaxed), queuePair: test.pair.leftPair.number))
            var connection = Connection()
            connection.tag = Path.sameHost
            switch how {
            case "ERR": try? test.left.move(test.pair.leftPair, to: .error)
            case "RESET": try? test.left.move(test.pair.leftPair, to: .reset)
            case "destroyed": test.left.destroy(test.pair.leftPair)
            case "reconnected":
                try? test.left.move(test.pair.leftPair, to: .reset)
                try? test.left.connect(
                    test.pair.leftPair, to: test.right.gid, number: test.pair.rightPair.number, connection)
            default:
                var now = test.pair.network.now
                while test.pair.leftPair.state != .error {
                    now += 10_000_000
                    test.left.engine.advance(to: now)
                    while test.left.engine.transmit(into: test.left.packet, now: now) != nil {}
                }
            }
            seen += test.left.poll().map(\.status)
            test.source.initializeMemory(as: UInt8.self, repeating: 0xEE)
        }
        defer { Self.afterCopy = {} }
        test.postReceive()
        test.send()
        test.pair.network.run(for: 1_000_000)
        #expect(test.right.poll().isEmpty && test.direct == 0)
        switch how {
        case "ERR": #expect(seen == [.flushed])
        case "timeout": #expect(seen == [.retryExceeded])
        default: #expect(seen.isEmpty)
        }
        // The receive work request is still there.
        try test.right.move(test.pair.rightPair, to: .error)
        #expect(test.right.poll().map(\.status) == [.flushed])
    }

    @Test("When the connection ends, its grant has ended before the application sees a completion")
    func grantEnds() throws {
        let test = try Exchange(5000)
        test.lost = { _ in true }
        test.send()
        // Nothing is posted at the peer: the retries end.
        test.pair.network.run()
        #expect(test.left.poll().map(\.status) == [.retryExceeded])
        #expect(test.pair.leftPair.state == .error)
    }

    // MARK: - Nonsense

    @Test(
        "References of random bytes, with random tables, read and write no other memory",
        arguments: 0..<8 as Range<UInt64>)
    func nonsense(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let test = try NeighborPair()
        let table = UnsafeMutableRawPointer(calloc(NeighborPair.tableByteCount, 1)!)
        defer { free(table) }
        let arena = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 64)
        defer { arena.deallocate() }
        let mappings = UnsafeMutablePointer<SharedMapping>.allocate(capacity: Neighbor.mappingCount)
        defer { mappings.deallocate() }
        mappings.initialize(repeating: SharedMapping(), count: Neighbor.mappingCount)
        for index in 0..<Neighbor.mappingCount {
            mappings[index].number = UInt32(index)
            mappings[index].address = arena.baseAddress
            mappings[index].byteCount = 4096
        }
        _ = AccessTable(table, maximumQueuePairs: 64, descriptor: -1, note: (1, 2), reserve: { _, _, _ in true })
        test.right.engine.neighbors[1] = Neighbor(
            table: table, byteCount: NeighborPair.tableByteCount, hazard: test.left.hazard, reach: .none,
            mappings: mappings)
        let target = test.right.take(4096)
        let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 8)
        defer { packet.deallocate() }
        let key: UInt32 = 0x0003_0001
        var received = 0
        for round in 0..<3000 {
            // Mostly entries that fit, with one word that is anything.
            let pair = table + 4096 + Int(test.leftPair.number & 127) * 32
            let region = table + 4096 + 128 * 32 + Int(key >> 16) * 64
            table.storeBytes(of: .max, toByteOffset: 64, as: UInt64.self)
            pair.storeBytes(of: test.leftPair.number, as: UInt32.self)
            pair.storeBytes(of: test.rightPair.number, toByteOffset: 4, as: UInt32.self)
            pair.storeBytes(of: 5 << 16, toByteOffset: 8, as: UInt32.self)
            pair.storeBytes(of: test.right.gid, toByteOffset: 16, as: GID.self)
            region.storeBytes(of: key, as: UInt32.self)
            region.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
            region.storeBytes(of: 1 + UInt32(random.next() % 63), toByteOffset: 12, as: UInt32.self)
            region.storeBytes(of: 0x1000, toByteOffset: 16, as: UInt64.self)
            region.storeBytes(of: 4096, toByteOffset: 24, as: UInt64.self)
            region.storeBytes(of: 0, toByteOffset: 40, as: UInt64.self)
            if random.next() % 2 == 0 {
                let place = random.next() % 2 == 0 ? pair : region
                place.storeBytes(
                    of: random.next() % 3 == 0 ? random.next() : random.next() % 8192,
                    toByteOffset: Int(random.next() % 4) * 8, as: UInt64.self)
            }
            test.right.postReceive(test.rightPair, id: UInt64(round), [test.right.sge(target)])
            let count = [1, 1, 2, 32, 33, 0][Int(random.next() % 6)]
            var headers = PacketHeaders(
                BTH(
                    opcode: [.rcSendOnly, .rcSendFirst, .rcSendLast, .rcSendMiddle][Int(random.next() % 8 / 2) % 4],
                    destinationQPN: test.rightPair.number,
                    psn: PSN(test.right.engine.attributes(of: test.rightPair).rqPSN), acknowledgeRequest: true))
            if random.next() % 16 == 0 { headers.bth.psn = headers.bth.psn &+ UInt32(random.next() % 3) }
            let payload = 8 + 16 * count
            let length = headers.packetByteCount(payloadByteCount: payload)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: packet[..<length])
            _ = try headers.emit(into: bytes, payloadByteCount: payload)
            let start = bytes.baseAddress! + (length - payload - ICRC.byteCount)
            start.storeBytes(of: random.next() % 4 == 0 ? random.next() : 5, as: UInt64.self)
            for index in 0..<count {
                var sge = SGE(
                    address: 0x1000 &+ random.next() % 4096, length: UInt32(random.next() % 2048) & ~1023, lkey: key)
                if random.next() % 8 == 0 { sge.address = random.next() }
                if random.next() % 8 == 0 { sge.length = UInt32(truncatingIfNeeded: random.next()) }
                if random.next() % 8 == 0 { sge.lkey = UInt32(truncatingIfNeeded: random.next()) }
                start.storeBytes(of: sge, toByteOffset: 8 + 16 * index, as: SGE.self)
            }
            test.right.engine.receiveReference(
                UnsafeRawBufferPointer(bytes),
                from: PacketSource(
                    source: test.left.gid, destination: test.right.gid,
                    header: UnsafeRawBufferPointer(start: nil, count: 0)),
                now: 1)
            while test.right.engine.transmit(into: test.right.packet, now: 1) != nil {}
            received += test.right.poll().count { $0.status == .success }
            #expect(test.left.hazard.pointee.load(ordering: .relaxed) == 0)
            guard test.rightPair.state == .error || round % 32 == 31 else { continue }
            try test.right.move(test.rightPair, to: .reset)
            var connection = Connection().reversed
            connection.tag = Path.sameHost
            try test.right.connect(test.rightPair, to: test.left.gid, number: test.leftPair.number, connection)
        }
        #expect(received > 0)
    }
}
