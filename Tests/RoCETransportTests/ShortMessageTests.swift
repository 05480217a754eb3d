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

        init(seed: UInt64, usesShortPath: Bool) throws {
            let scenario = try ReliableScenario(
                seed: seed, acknowledgements: seed % 2 == 0 ? .first : .last, usesShortPath: usesShortPath,
                keepsTrace: true)
            try scenario.run()
            trace = scenario.trace
            counters = scenario.counters.map { "\($0)" }
            for host in scenario.hosts { short += host.engine.core.pointee.shortMessages }
        }
    }

    @Test("A random history has the same packets, completions and counters with and without it")
    func histories() throws {
        var short: UInt64 = 0
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
        }
        #expect(short > 0)
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
