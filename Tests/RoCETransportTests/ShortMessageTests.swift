import RoCEWire
import TestSupport
import Testing

@testable import RoCETransport

@Suite("The short path of SENDs of one packet")
struct ShortMessageTests {
    /// A history with or without the short path.
    private struct History {
        var trace: [UInt64]
        var counters: [String]
        /// The messages of all engines that took the short path, sent and received.
        var short: UInt64 = 0
        var inRuns: (sent: Int, received: Int)

        init(seed: UInt64, usesShortPath: Bool) throws {
            let scenario = try ReliableScenario(
                seed: seed, acknowledgements: seed % 2 == 0 ? .first : .last, usesShortPath: usesShortPath,
                keepsTrace: true)
            try scenario.run()
            trace = scenario.trace
            counters = scenario.counters.map { "\($0)" }
            inRuns = scenario.inRuns
            for host in scenario.hosts { short += host.engine.core.pointee.shortMessages }
        }
    }

    @Test("A random history has the same packets, completions and counters with and without it")
    func histories() throws {
        var short: UInt64 = 0
        var inRuns = (sent: 0, received: 0)
        for seed in simulationSeeds(300) {
            let with = try History(seed: seed, usesShortPath: true)
            let without = try History(seed: seed, usesShortPath: false)
            let first = zip(with.trace, without.trace).enumerated().first { $1.0 != $1.1 }?.offset
            #expect(
                first == nil, "SIM_SEED=\(seed): the packet or completion with this number is the first that differs")
            #expect(with.trace.count == without.trace.count, "SIM_SEED=\(seed)")
            #expect(with.counters == without.counters, "SIM_SEED=\(seed)")
            #expect(without.short == 0)
            short += with.short
            inRuns.sent += with.inRuns.sent
            inRuns.received += with.inRuns.received
        }
        #expect(short > 0 && inRuns.sent > 0)
    }

    /// Two engines of one host that send each other bursts of messages, most of them short.
    private struct Bursts {
        var trace: [UInt64]
        var counters: [String]
        /// The events in each round.
        var events: [Int]
        var hasEvents: Bool
        var inRuns: (sent: Int, received: Int)

        init(seed: UInt64, usesShortPath: Bool) throws {
            var random = SplitMix(seed: seed)
            var connection = Connection()
            connection.psn = random.pick([0x100, 0xFF_FFF0])
            connection.rnrRetry = 7
            connection.retryCount = 7
            connection.timeout = UInt8(random.pick([0, 8, 10]))
            let (window, interval, burst) = (
                random.pick([1, 5, 32]), random.pick([1, 4, 32]), random.pick([1, 3, 8])
            )
            hasEvents = random.chance(50)
            let pair = try NeighborPair(
                connection, sqSigAll: random.chance(20), memory: 1 << 18, hasEvents: hasEvents
            ) {
                $0.initialWindow = UInt32(window)
                $0.acknowledgeInterval = UInt32(interval)
                $0.burst = UInt32(burst)
                $0.usesShortPath = usesShortPath
            }
            pair.network.trace = []
            pair.network.usesRuns = usesShortPath
            pair.network.acknowledgements = random.pick([.first, .last])
            if connection.timeout != 0, random.chance(40) {
                pair.network.profile.loss = random.pick([1, 5])
                pair.network.profile.duplication = random.pick([0, 5])
            }
            let sides = [(pair.left, pair.leftPair), (pair.right, pair.rightPair)]
            let targets = sides.map { $0.0.take(64) }
            let sources = sides.map { $0.0.take(64) }
            func post(_ side: Int, receives: Int) {
                let (host, queuePair) = sides[side]
                for _ in 0..<receives { host.postReceive(queuePair, id: random.next(), [host.sge(targets[side])]) }
            }
            var seen: [Int] = []
            func poll() {
                for (host, _) in sides {
                    seen.append(host.events().count)
                    for completion in host.poll() { pair.network.note(completion) }
                    host.completions.arm(solicitedOnly: random.chance(50))
                }
            }
            for _ in 0..<40 {
                let side = random.below(2)
                let (host, queuePair) = sides[side]
                for _ in 0..<random.within(1...12) {
                    let opcode = random.pick(
                        [WorkRequestOpcode](repeating: .send, count: 12) + [.sendWithImmediate, .write])
                    var request = SendWQE(
                        id: random.next(), opcode: opcode, flags: random.pick([[], [], .signaled, .inline, .solicited]))
                    request.remoteAddress = UInt64(UInt(bitPattern: sides[1 - side].0.memory.baseAddress! + 4096))
                    request.rkey = sides[1 - side].0.key
                    let source = UnsafeMutableRawBufferPointer(
                        rebasing: sources[side][..<random.pick([1, 8, 8, 31, 33])])
                    random.fill(source)
                    let sge = host.sge(source)
                    _ = queuePair.stageSend(request, sgList: [sge], count: random.chance(5) ? 0 : 1)
                }
                queuePair.commitSends()
                post(1 - side, receives: random.pick([0, 4, 16]))
                if random.chance(70) { pair.network.run(for: UInt64(random.within(1_000...20_000))) }
                if random.chance(50) { poll() }
            }
            for _ in 0..<20 {
                for side in 0..<2 { post(side, receives: 40) }
                pair.network.run(for: 100_000_000)
                poll()
            }
            events = seen
            trace = pair.network.trace!
            counters = sides.map { "\($0.0.engine.counters)" }
            inRuns = pair.network.inRuns
        }
    }

    @Test("Bursts of messages have the same packets, completions, events and counters with and without it")
    func bursts() throws {
        var sent = 0
        /// The packets that were received in runs, with and without completion events.
        var received: [Bool: Int] = [:]
        var events = 0
        for seed in simulationSeeds(100) {
            let with = try Bursts(seed: seed, usesShortPath: true)
            let without = try Bursts(seed: seed, usesShortPath: false)
            let first = zip(with.trace, without.trace).enumerated().first { $1.0 != $1.1 }?.offset
            #expect(
                first == nil, "SIM_SEED=\(seed): the packet or completion with this number is the first that differs")
            #expect(with.trace.count == without.trace.count, "SIM_SEED=\(seed)")
            #expect(with.counters == without.counters && with.events == without.events, "SIM_SEED=\(seed)")
            #expect(without.inRuns == (0, 0))
            sent += with.inRuns.sent
            received[with.hasEvents, default: 0] += with.inRuns.received
            if with.hasEvents { events += with.events.reduce(0, +) }
        }
        #expect(sent > 1000 && received.values.allSatisfy { $0 > 1000 } && received.count == 2 && events > 0)
    }

    /// Posts messages of these lengths to the right engine at once, and checks what it receives.
    private func send(_ lengths: [Int], _ pair: NeighborPair, opcode: (Int) -> WorkRequestOpcode = { _ in .send }) {
        var targets: [UnsafeMutableRawBufferPointer] = []
        var sources: [UnsafeMutableRawBufferPointer] = []
        for (id, length) in lengths.enumerated() {
            targets.append(pair.right.take(40))
            pair.right.postReceive(pair.rightPair, id: UInt64(id), [pair.right.sge(targets[id])])
            sources.append(pair.left.take(length))
            for index in 0..<length { sources[id][index] = UInt8(truncatingIfNeeded: 1 + 7 * id + index) }
            let request = SendWQE(id: UInt64(id), opcode: opcode(id), flags: id % 3 == 1 ? .inline : [])
            _ = pair.leftPair.stageSend(request, sgList: [pair.left.sge(sources[id])], count: 1)
        }
        pair.leftPair.commitSends()
        pair.network.run()
        let received = pair.right.poll()
        #expect(received.map(\.id) == lengths.indices.map { UInt64($0) })
        #expect(received.map(\.byteCount) == lengths.map { UInt32($0) })
        #expect(received.allSatisfy { $0.status == .success })
        for (id, length) in lengths.enumerated() {
            #expect(targets[id][..<length].elementsEqual(sources[id]) && targets[id][length...].allSatisfy { $0 == 0 })
        }
        #expect(pair.left.poll().map(\.status) == lengths.map { _ in .success })
    }

    @Test("SENDs of every length that fits in a record leave and arrive in runs")
    func runs() throws {
        let pair = try NeighborPair(hasEvents: false)
        pair.network.usesRuns = true
        let lengths = Array(1...RunRecord.longestMessage)
        // The doorbell is read, and the first packet is written, by `transmit`. It establishes the connection.
        send(lengths, pair)
        #expect(pair.network.inRuns == (lengths.count - 1, lengths.count - 1))
        send(lengths.reversed(), pair)
        #expect(pair.network.inRuns == (2 * lengths.count - 2, 2 * lengths.count - 1))
    }

    @Test("A message of another kind ends a run, and the next one begins another")
    func interrupted() throws {
        let pair = try NeighborPair()
        pair.network.usesRuns = true
        send([8, 8, 33, 8, 8, 8, 8], pair) { $0 == 4 ? .sendWithImmediate : .send }
        #expect(pair.network.inRuns == (4, 2))
    }

    @Test("A run causes one completion event, as single packets do")
    func events() throws {
        let pair = try NeighborPair()
        pair.network.usesRuns = true
        send([8], pair)
        pair.right.completions.arm(solicitedOnly: false)
        send([8, 8, 8], pair)
        #expect(pair.network.inRuns.received == 3)
        #expect(pair.right.events().filter { if case .completion = $0 { true } else { false } }.count == 1)
    }

    @Test("A run ends before the message for which no receive work request is posted")
    func withoutRoom() throws {
        let pair = try NeighborPair()
        pair.network.usesRuns = true
        send([8], pair)
        let target = pair.right.take(8)
        for id in 0..<2 { pair.right.postReceive(pair.rightPair, id: UInt64(id), [pair.right.sge(target)]) }
        let source = pair.left.sge(pair.left.take(8))
        for id in 0..<4 {
            _ = pair.leftPair.stageSend(SendWQE(id: UInt64(id), opcode: .send), sgList: [source], count: 1)
        }
        pair.leftPair.commitSends()
        pair.network.run(for: 5_000)
        #expect(pair.right.poll().map(\.id) == [0, 1] && pair.right.engine.counters.rnrNAKsSent == 1)
        for id in 2..<4 { pair.right.postReceive(pair.rightPair, id: UInt64(id), [pair.right.sge(target)]) }
        pair.network.run()
        #expect(pair.right.poll().map(\.id) == [2, 3] && pair.left.poll().map(\.id) == [0, 1, 2, 3])
    }

    /// What eight messages to a completion queue with room for four have as a result.
    private struct Overrun: Equatable {
        var received: [UInt64]
        var events: [String]
        var counters: [String]
        var sent: [CompletionStatus]

        init(usesRuns: Bool, hasEvents: Bool) throws {
            let pair = try NeighborPair(sqSigAll: false, rightCompletions: 4, hasEvents: hasEvents)
            pair.network.usesRuns = usesRuns
            let (source, target) = (pair.left.sge(pair.left.take(8)), pair.right.sge(pair.right.take(8)))
            func send(_ ids: ClosedRange<UInt64>) {
                for id in ids {
                    pair.right.postReceive(pair.rightPair, id: id, [target])
                    _ = pair.leftPair.stageSend(SendWQE(id: id, opcode: .send), sgList: [source], count: 1)
                }
                pair.leftPair.commitSends()
                pair.network.run()
            }
            // Establishes the connection.
            send(0...0)
            #expect(pair.right.poll().map(\.id) == [0])
            _ = pair.right.events()
            send(1...8)
            #expect(pair.network.inRuns.received == (usesRuns ? 4 : 0))
            #expect(pair.rightPair.state == .error && pair.right.completions.hasOverrun)
            #expect(pair.right.engine.counters.completionQueueOverruns == 1)
            received = pair.right.poll().map(\.id)
            events = pair.right.events().map {
                switch $0 {
                case .completion: "completion"
                case .completionQueue(_, let type), .queuePair(_, let type), .sharedReceiveQueue(_, let type):
                    "\(type)"
                }
            }
            counters = [pair.left, pair.right].map { "\($0.engine.counters)" }
            sent = pair.left.poll().map(\.status)
        }
    }

    @Test("A run ends at a full completion queue, whose overrun is that of single packets", arguments: [true, false])
    func overrun(hasEvents: Bool) throws {
        let result = try Overrun(usesRuns: true, hasEvents: hasEvents)
        #expect(result.received == [1, 2, 3, 4])
        #expect(result.events.contains("\(AsyncEventType.completionQueueError)"))
        #expect(result == (try Overrun(usesRuns: false, hasEvents: hasEvents)))
        #expect(result == (try Overrun(usesRuns: true, hasEvents: !hasEvents)))
    }

    /// A record that is not the next one of a run.
    struct BadRecord: CustomTestStringConvertible {
        var name: String
        var header: UInt64 = 0
        var count: UInt64 = 24
        var pad: UInt8 = 0
        var queuePair: UInt32 = 0
        var psn: UInt32 = 1
        var pkey: UInt16 = 0xFFFF
        var isZero = false

        var testDescription: String { name }

        static let all: [BadRecord] =
            [0, 4, 12, 15, 16, 17, 23, 52, 64, 0xFFFC, 0xFFFF].map { BadRecord(name: "\($0) bytes", count: $0) } + [
                BadRecord(name: "pad without payload", count: 16, pad: 3),
                BadRecord(name: "another QPN", queuePair: 1),
                BadRecord(name: "a later PSN", psn: 2),
                BadRecord(name: "the PSN of the record before", psn: 0),
                BadRecord(name: "another P_Key", pkey: 0x7FFF),
                BadRecord(name: "another header", header: 1 << 32),
                BadRecord(name: "an acknowledgement", header: 1 << 28),
                BadRecord(name: "no record", isZero: true),
            ]
    }

    @Test("A record that is not the next one of a run ends it, and nothing of it is stored", arguments: BadRecord.all)
    func badRecord(_ bad: BadRecord) throws {
        for hasEvents in [true, false] {
            let pair = try NeighborPair(hasEvents: hasEvents)
            pair.network.usesRuns = true
            send([8], pair)
            let memory = pair.right.take(2048)
            memory.initializeMemory(as: UInt8.self, repeating: 0xEE)
            for id in 0..<2 {
                let target = UnsafeMutableRawBufferPointer(rebasing: memory[id * 1024..<(id + 1) * 1024])
                pair.right.postReceive(pair.rightPair, id: UInt64(id), [pair.right.sge(target)])
            }
            let expected = PSN(pair.right.engine.attributes(of: pair.rightPair).rqPSN)
            let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 * RunRecord.byteCount, alignment: 64)
            defer { records.deallocate() }
            records.initializeMemory(as: UInt8.self, repeating: 0)
            func write(_ number: Int, _ record: BadRecord) throws {
                let bytes = UnsafeMutableRawBufferPointer(
                    rebasing: records[number * RunRecord.byteCount..<(number + 1) * RunRecord.byteCount])
                var bth = BTH(
                    opcode: .rcSendOnly, destinationQPN: pair.rightPair.number + record.queuePair,
                    psn: PSN(expected.rawValue + record.psn), pkey: record.pkey, migrated: true)
                bth.padCount = record.pad
                bth.emit(at: bytes.baseAddress! + RunRecord.packetOffset)
                for index in 28..<36 { bytes[index] = UInt8(index) }
                bytes.storeBytes(of: (1 << 31 | record.count) ^ record.header, as: UInt64.self)
            }
            try write(0, BadRecord(name: "good", psn: 0))
            if !bad.isZero { try write(1, bad) }
            let count = pair.right.engine.receiveRun(
                records.baseAddress!, first: records.load(as: UInt64.self), header: 1 << 31, limit: bad.isZero ? 8 : 2,
                from: PacketSource(
                    source: pair.left.gid, destination: pair.right.gid,
                    header: UnsafeRawBufferPointer(start: nil, count: 0)),
                now: pair.network.now)
            #expect(count == 1)
            #expect(pair.right.poll().map(\.id) == [0])
            let next = pair.right.engine.attributes(of: pair.rightPair).rqPSN
            #expect(next == expected.next.rawValue)
            #expect(memory[..<8].elementsEqual(28..<36) && memory[8...].allSatisfy { $0 == 0xEE })
        }
    }

    @Test("A SEND to an engine of the host takes it at both ends, with data in an SGE or inline")
    func both() throws {
        let pair = try NeighborPair()
        for (id, flags) in [[], .inline, .solicited, .fence].enumerated() as EnumeratedSequence<[SendFlags]> {
            let target = pair.right.take(300)
            pair.right.postReceive(pair.rightPair, id: UInt64(id), [pair.right.sge(target)])
            let source = pair.left.take(1 + 21 * id)
            for index in source.indices { source[index] = UInt8(truncatingIfNeeded: index + id) }
            pair.left.post(pair.leftPair, SendWQE(id: UInt64(id), opcode: .send, flags: flags), [pair.left.sge(source)])
            pair.network.run()
            #expect(target[..<source.count].elementsEqual(source) && target[source.count] == 0)
            let received = pair.right.poll()
            #expect(received.map(\.id) == [UInt64(id)] && received.map(\.byteCount) == [UInt32(source.count)])
            #expect(pair.left.poll().map(\.status) == [.success])
        }
        // The first packet establishes the connection.
        #expect(pair.left.engine.core.pointee.shortMessages == 4 && pair.right.engine.core.pointee.shortMessages == 3)
    }

    @Test("Everything else takes the general path")
    func general() throws {
        let pair = try NeighborPair()
        let source = pair.left.take(600)
        let target = pair.right.take(1024)
        func run(_ request: SendWQE, _ list: [SGE], _ receive: [SGE]) {
            pair.right.postReceive(pair.rightPair, id: 1, receive)
            pair.left.post(pair.leftPair, request, list)
            pair.network.run()
            #expect(pair.left.poll().map(\.status) == [.success] && pair.right.poll().map(\.status) == [.success])
        }
        let (whole, part) = (
            pair.left.sge(source), pair.left.sge(UnsafeMutableRawBufferPointer(rebasing: source[..<4]))
        )
        let receive = pair.right.sge(target)
        run(SendWQE(id: 1, opcode: .send), [whole], [receive])
        run(SendWQE(id: 1, opcode: .send), [], [receive])
        run(SendWQE(id: 1, opcode: .send), [part, part], [receive])
        run(SendWQE(id: 1, opcode: .sendWithImmediate), [part], [receive])
        #expect(pair.left.engine.core.pointee.shortMessages == 0)
        // The third is received by it: one packet with data, for one SGE. So would the first, if it were not the one that
        // establishes the connection.
        #expect(pair.right.engine.core.pointee.shortMessages == 1)
    }
}
