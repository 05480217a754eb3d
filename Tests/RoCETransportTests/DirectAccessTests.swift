import Glibc
import RoCETransport
import RoCEWire
import Synchronization
import TestSupport
import Testing

@Suite("Direct access to the memory of a neighbor")
struct DirectAccessTests {
    @Test("Of a queue pair whose GID is lost, no later modify allows the direct access again; a new path does")
    func lostGID() throws {
        let test = try NeighborPair()
        let (source, target) = (test.left.take(8), test.right.take(8))
        func directRequests() -> UInt64 {
            test.left.post(test.leftPair, test.request(.write, at: target), [test.left.sge(source)])
            test.network.run()
            #expect(test.left.poll().map(\.status) == [.success])
            return test.left.engine.counters.directRequests
        }
        #expect(directRequests() == 1)
        test.right.engine.republishQueuePairs { _ in false }
        #expect(directRequests() == 1)
        var attributes = QueuePairAttributes()
        attributes.minRNRTimer = 3
        try test.right.engine.modify(test.rightPair, attributes, .minRNRTimer)
        #expect(directRequests() == 1)
        test.right.engine.republishQueuePairs { _ in true }
        #expect(directRequests() == 2)
        test.right.engine.republishQueuePairs { _ in false }
        try test.right.move(test.rightPair, to: .reset)
        try test.left.move(test.leftPair, to: .reset)
        var connection = Connection()
        connection.tag = Path.sameHost
        try test.left.connect(test.leftPair, to: test.right.gid, number: test.rightPair.number, connection)
        try test.right.connect(test.rightPair, to: test.left.gid, number: test.leftPair.number, connection.reversed)
        #expect(directRequests() == 3)
    }

    // MARK: - What is done

    @Test(
        "WRITE and READ of any length and alignment are complete after the post, without a packet",
        arguments: [1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 23, 64, 1000, 5001], [0, 1, 2, 4, 5])
    func copies(size: Int, offset: Int) throws {
        let test = try NeighborPair()
        let source = test.left.take(size)
        for index in 0..<size { source[index] = UInt8(truncatingIfNeeded: index &* 7 &+ 1) }
        let target = test.right.take(size + 16)
        test.left.post(test.leftPair, test.request(.write, id: 5, at: target, offset: offset), [test.left.sge(source)])
        let back = test.left.take(size)
        test.left.post(test.leftPair, test.request(.read, id: 6, at: target, offset: offset), [test.left.sge(back)])
        #expect(test.packets() == 0)
        #expect(Array(target[offset..<offset + size]) == Array(source))
        #expect(target[..<offset].allSatisfy { $0 == 0 } && target[(offset + size)...].allSatisfy { $0 == 0 })
        #expect(Array(back) == Array(source))
        let completions = test.left.poll()
        #expect(completions.map(\.id) == [5, 6] && completions.allSatisfy { $0.status == .success })
        #expect(completions[0].opcode == .write && completions[1].opcode == .read)
        #expect(completions[1].byteCount == UInt32(size))
        #expect(
            test.left.engine.counters.directRequests == 2 && test.left.engine.counters.directBytes == 2 * UInt64(size))
        #expect(test.hazard.pointee.load(ordering: .relaxed) == 0)
    }

    @Test("Several SGEs are gathered and scattered; inline data is written")
    func lists() throws {
        let test = try NeighborPair()
        let source = test.left.take(100)
        for index in 0..<100 { source[index] = UInt8(index) }
        let target = test.right.take(200)
        let parts = [source[0..<3], source[3..<50], source[50..<50], source[50..<100]].map {
            test.left.sge(UnsafeMutableRawBufferPointer(rebasing: $0))
        }
        test.left.post(test.leftPair, test.request(.write, at: target), parts)
        let back = test.left.take(100)
        let places = [back[0..<50], back[50..<51], back[51..<100]].map {
            test.left.sge(UnsafeMutableRawBufferPointer(rebasing: $0))
        }
        test.left.post(test.leftPair, test.request(.read, at: target), places)
        var inline = test.left.sge(UnsafeMutableRawBufferPointer(rebasing: source[10..<20]))
        inline.lkey = 0
        test.left.post(test.leftPair, test.request(.write, at: target, offset: 101, flags: .inline), [inline])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success, .success, .success])
        #expect(Array(target[..<100]) == Array(source) && Array(back) == Array(source))
        #expect(Array(target[101..<111]) == Array(source[10..<20]))
    }

    @Test("Atomics return the old value, and change the memory; ATOMIC WRITE replaces it")
    func atomics() throws {
        let test = try NeighborPair()
        let target = test.right.take(8)
        target.storeBytes(of: 40, as: UInt64.self)
        let result = test.left.take(8)
        func run(_ opcode: WorkRequestOpcode, _ compareAdd: UInt64, _ swap: UInt64) -> UInt64 {
            var request = test.request(opcode, at: target)
            request.compareAdd = compareAdd
            request.swap = swap
            test.left.post(test.leftPair, request, [test.left.sge(result)])
            #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success])
            return result.load(as: UInt64.self)
        }
        #expect(run(.fetchAndAdd, 2, 0) == 40 && target.load(as: UInt64.self) == 42)
        #expect(run(.compareAndSwap, 41, 7) == 42 && target.load(as: UInt64.self) == 42)
        #expect(run(.compareAndSwap, 42, 7) == 42 && target.load(as: UInt64.self) == 7)
        result.storeBytes(of: 99, as: UInt64.self)
        #expect(run(.atomicWrite, 0, 0) == 99 && target.load(as: UInt64.self) == 99)
        #expect(test.left.engine.counters.directRequests == 4)
    }

    @Test("A long request takes several turns, between which other queue pairs send")
    func long() throws {
        let size = 3 << 20
        let test = try NeighborPair(memory: 8 << 20)
        let (source, target) = (test.left.take(size), test.right.take(size))
        for index in stride(from: 0, to: size, by: 8) {
            source.storeBytes(of: UInt64(index), toByteOffset: index, as: UInt64.self)
        }
        let other = try test.left.makeQueuePair(sqSigAll: true)
        try test.left.connect(other, to: GID(ipv4: 9), number: 0x050001)
        test.left.post(test.leftPair, test.request(.write, at: target), [test.left.sge(source)])
        #expect(test.left.engine.transmit(into: test.left.packet, now: 1) == nil && test.left.engine.hasDirectWork)
        #expect(test.left.poll().isEmpty)
        test.left.post(other, SendWQE(id: 2, opcode: .send))
        var turns = 0
        var sent = 0
        while true {
            if test.left.engine.transmit(into: test.left.packet, now: 1) != nil {
                sent += 1
            } else if !test.left.engine.hasDirectWork {
                break
            }
            turns += 1
            if turns == 2 { #expect(sent == 1 && test.left.poll().isEmpty) }
        }
        #expect(sent == 1 && test.left.poll().map(\.status) == [.success])
        #expect(memcmp(source.baseAddress!, target.baseAddress!, size) == 0)
    }

    @Test("A request that has begun completes in SQD, and draining ends after it")
    func drains() throws {
        let size = 2 << 20
        let test = try NeighborPair(memory: 8 << 20)
        test.left.post(
            test.leftPair, test.request(.write, at: test.right.take(size)), [test.left.sge(test.left.take(size))])
        test.left.post(
            test.leftPair, test.request(.write, id: 2, at: test.right.take(8)), [test.left.sge(test.left.take(8))])
        #expect(test.left.engine.transmit(into: test.left.packet, now: 1) == nil)
        var attributes = QueuePairAttributes()
        attributes.state = .sendQueueDrained
        attributes.sqdAsyncNotify = true
        try test.left.engine.modify(test.leftPair, attributes, [.state, .sqdAsyncNotify])
        #expect(test.left.engine.attributes(of: test.leftPair).sqDraining && test.left.queuePairEvents().isEmpty)
        #expect(test.packets() == 0 && test.left.poll().map(\.id) == [1])
        #expect(test.left.queuePairEvents() == [.sendQueueDrained])
        try test.left.move(test.leftPair, to: .readyToSend)
        #expect(test.packets() == 0 && test.left.poll().map(\.id) == [2])
    }

    @Test("After ERR in the middle of a request, it is flushed, and after RESET nothing of it is left")
    func flushed() throws {
        let size = 2 << 20
        let test = try NeighborPair(memory: 8 << 20)
        test.left.post(
            test.leftPair, test.request(.write, at: test.right.take(size)), [test.left.sge(test.left.take(size))])
        #expect(test.left.engine.transmit(into: test.left.packet, now: 1) == nil)
        try test.left.move(test.leftPair, to: .error)
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.flushed])
        try test.left.move(test.leftPair, to: .reset)
        var connection = Connection()
        connection.tag = Path.sameHost
        try test.left.connect(test.leftPair, to: test.right.gid, number: test.rightPair.number, connection)
        let target = test.right.take(8)
        let source = test.left.take(8)
        source[7] = 9
        test.left.post(test.leftPair, test.request(.write, at: target), [test.left.sge(source)])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success] && target[7] == 9)
    }

    // MARK: - What is sent as packets

    @Test("Behind a SEND that is not acknowledged, requests are packets, and after it they are direct again")
    func order() throws {
        let test = try NeighborPair()
        let target = test.right.take(64)
        let source = test.left.take(64)
        source[0] = 1
        test.left.post(test.leftPair, SendWQE(id: 1, opcode: .send))
        test.left.post(test.leftPair, test.request(.write, id: 2, at: target), [test.left.sge(source)])
        // No receive is posted: the SEND waits, and the WRITE behind it.
        #expect(test.packets() == 2 && target[0] == 0)
        test.right.postReceive(test.rightPair, id: 9)
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success, .success])
        let direct = test.left.engine.counters.directRequests
        test.left.post(test.leftPair, test.request(.write, id: 3, at: target), [test.left.sge(source)])
        #expect(test.packets() == 0 && test.left.engine.counters.directRequests == direct + 1)
    }

    @Test("A long request that packets complete leaves nothing behind for the next one")
    func completedByPackets() throws {
        let size = 3 << 20
        let test = try NeighborPair(memory: 16 << 20)
        let (source, target) = (test.left.take(size), test.right.take(size))
        for index in 0..<size { source[index] = UInt8(truncatingIfNeeded: index &* 7 &+ 1) }
        test.left.post(test.leftPair, test.request(.write, at: target), [test.left.sge(source)])
        #expect(
            test.left.engine.transmit(into: test.left.packet, now: test.network.now) == nil
                && test.left.engine.hasDirectWork)
        let neighbor = test.left.engine.neighbors[2]
        test.left.engine.neighbors[2] = nil
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success] && test.left.engine.counters.directRequests == 0)
        test.left.engine.neighbors[2] = neighbor
        let second = test.right.take(1 << 20)
        let part = UnsafeMutableRawBufferPointer(rebasing: source[..<(1 << 20)])
        test.left.post(test.leftPair, test.request(.write, id: 2, at: second), [test.left.sge(part)])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success])
        #expect(memcmp(second.baseAddress!, source.baseAddress!, 1 << 20) == 0)
        #expect(memcmp(target.baseAddress!, source.baseAddress!, size) == 0)
    }

    @Test("A request whose first packets were acknowledged stays a request of packets", arguments: [false, true])
    func begun(reads: Bool) throws {
        let test = try NeighborPair(memory: 1 << 20)
        let neighbor = test.left.engine.neighbors[2]
        test.left.engine.neighbors[2] = nil
        let size = 500_000
        let (source, target) = (test.left.take(size), test.right.take(size))
        for index in 0..<size {
            source[index] = UInt8(truncatingIfNeeded: index &* 3)
            if reads { target[index] = UInt8(truncatingIfNeeded: index &* 5) }
        }
        test.left.post(test.leftPair, test.request(reads ? .read : .write, at: target), [test.left.sge(source)])
        var packets = 0
        test.network.inspect = { [unowned test] _, _ in
            packets += 1
            // From now on it could be executed directly.
            if packets == 40 { test.left.engine.neighbors[2] = neighbor }
            return true
        }
        test.network.run()
        #expect(test.left.poll().map(\.status) == [.success] && test.left.engine.counters.directRequests == 0)
        #expect(packets > 200 && Array(source) == Array(target))
    }

    @Test(
        "What the peer may not access directly is a packet",
        arguments: [
            "key", "bounds", "access", "queue pair access", "domain", "window", "null", "withdrawn",
            "deregistered", "peer in ERR", "no neighbor", "not established", "other peer", "zero length",
            "with immediate", "paced",
        ])
    func refused(reason: String) throws {
        var connection = Connection()
        if reason == "queue pair access" { connection.access = [.localWrite, .remoteRead] }
        let test = try NeighborPair(connection, upTo: reason == "not established" ? .readyToReceive : .readyToSend)
        let target = test.right.take(64)
        var source = test.left.sge(test.left.take(8))
        var request = test.request(.write, at: target)
        let address = UInt64(UInt(bitPattern: target.baseAddress))
        func key(_ domain: ProtectionDomain, _ access: AccessFlags) throws -> UInt32 {
            try test.right.engine.registerMemory(
                domain, address: target.baseAddress, length: 64, virtualAddress: address, access: access)
        }
        switch reason {
        case "key": request.rkey ^= 1
        case "bounds": request.remoteAddress = UInt64(UInt(bitPattern: test.right.memory.baseAddress)) &- 1
        case "access": request.rkey = try key(test.right.domain, [.localWrite, .remoteRead])
        case "domain": request.rkey = try key(test.right.engine.allocateProtectionDomain(), Host.everything)
        case "window": request.rkey = try test.right.bindWindow(on: test.rightPair, to: target)
        case "null":
            let null = try test.left.engine.registerNullRegion(test.left.domain)
            source = SGE(address: 0, length: 64, lkey: null)
        case "withdrawn": test.right.engine.withdraw(key: test.right.key)
        case "deregistered": try test.right.engine.deregisterMemory(test.right.key)
        case "peer in ERR": try test.right.move(test.rightPair, to: .error)
        case "no neighbor": test.left.engine.neighbors[2] = nil
        case "other peer":
            try test.right.move(test.rightPair, to: .reset)
            var other = Connection().reversed
            other.tag = Path.sameHost
            try test.right.connect(test.rightPair, to: test.left.gid, number: 0x010055, other)
        case "zero length": source.length = 0
        case "with immediate": request = test.request(.writeWithImmediate, at: target)
        case "paced":
            try test.left.engine.limitRate(of: test.leftPair, to: 1_000_000, burst: 0)
        default: break
        }
        test.left.post(test.leftPair, request, [source])
        #expect(test.packets() == 1, "\(reason)")
        #expect(test.left.engine.counters.directRequests == 0 && target.allSatisfy { $0 == 0 })
        #expect(test.hazard.pointee.load(ordering: .relaxed) == 0)
    }

    @Test("Access that was withdrawn and restored is direct again, and so is that of a queue pair that connects again")
    func restored() throws {
        let test = try NeighborPair()
        let target = test.right.take(64)
        let source = test.left.sge(test.left.take(8))
        test.right.engine.withdraw(key: test.right.key)
        test.right.engine.restore(key: test.right.key)
        test.left.post(test.leftPair, test.request(.write, at: target), [source])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success])
        try test.right.move(test.rightPair, to: .error)
        try test.right.move(test.rightPair, to: .reset)
        var connection = Connection().reversed
        connection.tag = Path.sameHost
        try test.right.connect(test.rightPair, to: test.left.gid, number: test.leftPair.number, connection)
        test.left.post(test.leftPair, test.request(.write, at: target), [source])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success])
    }

    @Test("A registration in the place of another one, with its key, decides about direct requests and packets")
    func reregistered() throws {
        let test = try NeighborPair()
        let target = test.right.take(64)
        let address = UInt64(UInt(bitPattern: target.baseAddress))
        var registration = Registration.new
        func register(
            _ domain: ProtectionDomain? = nil, _ access: AccessFlags = Host.everything
        ) throws -> UInt32 {
            try test.right.engine.registerMemory(
                domain ?? test.right.domain, address: target.baseAddress, length: 64, virtualAddress: address,
                access: access, registration)
        }
        func write(_ key: UInt32) throws -> CompletionStatus? {
            let source = test.left.sge(test.left.take(8))
            test.left.post(test.leftPair, test.request(.write, at: target, key: key), [source])
            test.network.run()
            let status = test.left.poll().first?.status
            if status != .success {
                for (host, pair) in [(test.left, test.leftPair), (test.right, test.rightPair)] {
                    try host.move(pair, to: .reset)
                }
                var connection = Connection()
                connection.tag = Path.sameHost
                try test.left.connect(test.leftPair, to: test.right.gid, number: test.rightPair.number, connection)
                try test.right.connect(
                    test.rightPair, to: test.left.gid, number: test.leftPair.number, connection.reversed)
            }
            return status
        }
        func directRequests() -> UInt64 { test.left.engine.counters.directRequests }

        let key = try register()
        #expect(try write(key) == .success && directRequests() == 1)
        registration = .keeping(key)
        for access in [AccessFlags.localWrite, [], [.localWrite, .remoteRead]] {
            #expect(try register(nil, access) == key)
            #expect(try write(key) == .remoteAccessError && directRequests() == 1)
        }
        let other = try test.right.engine.allocateProtectionDomain()
        #expect(try register(other) == key)
        #expect(try write(key) == .remoteAccessError && directRequests() == 1)
        #expect(try register() == key)
        #expect(try write(key) == .success && directRequests() == 2)
        // The entry that was withdrawn for it is there again.
        test.right.engine.withdraw(key: key)
        #expect(try register() == key)
        #expect(try write(key) == .success && directRequests() == 3)
        registration = .replacing(key)
        let new = try register()
        #expect(try write(key) == .remoteAccessError && directRequests() == 3)
        #expect(try write(new) == .success && directRequests() == 4)
        // A window is bound to it.
        let window = try test.right.engine.allocateMemoryWindow(test.right.domain, .two)
        var bind = SendWQE(id: 1, opcode: .bindMemoryWindow, flags: .signaled)
        bind.bind(key: window &+ 1, lkey: new, address: address, length: 8, access: .remoteWrite)
        test.right.post(test.rightPair, bind, [])
        test.network.run()
        #expect(test.right.poll().map(\.status) == [.success])
        registration = .keeping(new)
        #expect(throws: Errno.busy) { try register() }
        #expect(try write(new) == .success)
    }

    // MARK: - Memory of another process

    /// What a copy between processes saw.
    private static let seen = Mutex<[(hazard: UInt64, writes: Bool, address: UInt64, bytes: Int)]>([])
    private nonisolated(unsafe) static var watched: UnsafeMutablePointer<Atomic<UInt64>>?

    @Test("Memory of another process is copied by the kernel, while the word tells the key and the queue pair")
    func foreign() throws {
        let test = try NeighborPair(
            reach: .process(
                77,
                { process, parts, count, address, writes in
                    var copied = 0
                    let parts = parts.assumingMemoryBound(to: MemoryPart.self)
                    for index in 0..<Int(count) {
                        let there = UnsafeMutableRawPointer(bitPattern: UInt(address) + UInt(copied))!
                        let here = parts[index].address!
                        if writes {
                            memcpy(there, here, parts[index].byteCount)
                        } else {
                            memcpy(here, there, parts[index].byteCount)
                        }
                        copied += parts[index].byteCount
                    }
                    let hazard = Self.watched!.pointee.load(ordering: .relaxed)
                    Self.seen.withLock { $0.append((hazard, writes, address, copied)) }
                    return process == 77
                }))
        Self.watched = test.hazard
        let target = test.right.take(64)
        let source = test.left.take(24)
        for index in 0..<24 { source[index] = UInt8(index + 1) }
        let parts = [source[0..<4], source[4..<24]].map { test.left.sge(UnsafeMutableRawBufferPointer(rebasing: $0)) }
        test.left.post(test.leftPair, test.request(.write, at: target, offset: 3), parts)
        let back = test.left.take(24)
        test.left.post(test.leftPair, test.request(.read, at: target, offset: 3), [test.left.sge(back)])
        #expect(test.packets() == 0 && test.left.poll().map(\.status) == [.success, .success])
        #expect(Array(target[3..<27]) == Array(source) && Array(back) == Array(source))
        let calls = Self.seen.withLock { $0 }
        #expect(calls.map(\.writes) == [true, false] && calls.allSatisfy { $0.bytes == 24 })
        for call in calls {
            #expect(Hazard.concerns(call.hazard, key: test.right.key))
            #expect(Hazard.concerns(call.hazard, queuePair: test.rightPair.number))
            #expect(!Hazard.concerns(call.hazard, key: test.right.key ^ 1))
            #expect(!Hazard.concerns(call.hazard, queuePair: test.rightPair.number ^ 1))
        }
        // An atomic needs the processor of the owner.
        test.left.post(test.leftPair, test.request(.fetchAndAdd, at: target), [test.left.sge(test.left.take(8))])
        #expect(test.packets() == 1)
    }

    @Test("Where the kernel copies nothing, the request is a packet")
    func foreignFails() throws {
        let test = try NeighborPair(reach: .process(1, { _, _, _, _, _ in false }))
        let target = test.right.take(8)
        test.left.post(test.leftPair, test.request(.write, at: target), [test.left.sge(test.left.take(8))])
        #expect(test.packets() == 1 && test.left.engine.counters.directRequests == 0)
        test.network.run()
    }

    // MARK: - Shared memory

    @Test("Memory of an arena that is mapped is accessed in place; beyond the mapping, requests are packets")
    func mapped() throws {
        let test = try NeighborPair(reach: .none)
        let arena = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 64)
        defer { arena.deallocate() }
        arena.initializeMemory(as: UInt8.self, repeating: 0)
        test.mappings[3].number = 3
        test.mappings[3].address = arena.baseAddress
        test.mappings[3].byteCount = 256
        let address = UInt64(UInt(bitPattern: test.right.memory.baseAddress))
        let key = try test.right.engine.registerMemory(
            test.right.domain, address: test.right.memory.baseAddress, length: 300, virtualAddress: address,
            access: Host.everything, shared: (3, 16))
        let source = test.left.take(8)
        source[0] = 7
        test.left.post(
            test.leftPair, test.request(.write, at: test.right.memory, offset: 8, key: key), [test.left.sge(source)])
        #expect(test.packets() == 0 && arena[24] == 7)
        var add = test.request(.fetchAndAdd, at: test.right.memory, offset: 8, key: key)
        add.compareAdd = 1
        test.left.post(test.leftPair, add, [test.left.sge(source)])
        #expect(test.packets() == 0 && arena[24] == 8)
        // Bytes 236 to 243 of the region are at the end of the mapping, 240 to 247 beyond it.
        test.left.post(
            test.leftPair, test.request(.write, at: test.right.memory, offset: 232, key: key), [test.left.sge(source)])
        #expect(test.packets() == 0)
        test.left.post(
            test.leftPair, test.request(.write, at: test.right.memory, offset: 233, key: key), [test.left.sge(source)])
        #expect(test.packets() == 1)
    }

    // MARK: - A table that is nonsense

    @Test("A table of random bytes never leads outside the mappings", arguments: 0..<8)
    func nonsense(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let test = try NeighborPair(reach: .none)
        let arena = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 64)
        defer { arena.deallocate() }
        for index in 0..<Neighbor.mappingCount {
            test.mappings[index].number = UInt32(index)
            test.mappings[index].address = arena.baseAddress
            test.mappings[index].byteCount = 4096
        }
        let source = test.left.take(64)
        let tableWords = NeighborPair.tableByteCount / 8
        for _ in 0..<2000 {
            // Mostly the fields of the two entries that are read, sometimes anything.
            let number = Int(test.rightPair.number & 127)
            let region = 4096 + 128 * 32 + Int(test.right.key >> 16) * 64
            let place =
                random.next() % 4 == 0
                ? Int(random.next() % UInt64(tableWords)) * 8
                : random.next() % 2 == 0
                    ? 4096 + number * 32 + Int(random.next() % 4) * 8 : region + Int(random.next() % 6) * 8
            guard place >= 16 else { continue }
            let small = random.next() % 2 == 0
            let value = small ? random.next() % 8192 : random.next()
            test.table.storeBytes(of: value, toByteOffset: place, as: UInt64.self)
            if random.next() % 3 == 0 { test.right.engine.republishQueuePairs { _ in true } }
            if random.next() % 3 == 0 { test.right.engine.restore(key: test.right.key) }
            var request = test.request(.write, at: test.right.memory, offset: Int(random.next() % 65_000))
            if random.next() % 4 == 0 { request.remoteAddress = random.next() }
            let length = UInt32(random.next() % 64) + 1
            var sge = test.left.sge(source)
            sge.length = length
            test.left.post(test.leftPair, request, [sge])
            if test.packets() != 0 {
                // The responder refused it, or not: the connection begins again.
                try test.left.move(test.leftPair, to: .error)
                _ = test.left.poll()
                try test.left.move(test.leftPair, to: .reset)
                var connection = Connection()
                connection.tag = Path.sameHost
                try test.left.connect(test.leftPair, to: test.right.gid, number: test.rightPair.number, connection)
            } else {
                #expect(test.left.poll().map(\.status) == [.success])
            }
            #expect(test.hazard.pointee.load(ordering: .relaxed) == 0)
        }
    }

    @Test("A table of another layout, or too small for its queue pairs, is refused")
    func layout() throws {
        let table = calloc(NeighborPair.tableByteCount, 1)!
        defer { free(table) }
        func neighbor(_ count: Int = NeighborPair.tableByteCount) -> Bool {
            Neighbor(table: table, byteCount: count, hazard: nil, reach: .none, mappings: nil) != nil
        }
        #expect(!neighbor())
        _ = AccessTable(table, maximumQueuePairs: 64, descriptor: -1, note: (1, 2), reserve: { _, _, _ in true })
        #expect(neighbor() && !neighbor(4095) && !neighbor(NeighborPair.tableByteCount - 1))
        for bits: UInt64 in [0, 6, 8, 17, 63, .max] {
            table.storeBytes(of: bits, toByteOffset: 8, as: UInt64.self)
            #expect(!neighbor(), "\(bits)")
        }
    }
}
