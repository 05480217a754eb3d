import RoCETransport
import RoCEWire
import Testing

@Suite("RC responder: READs and atomics")
struct ResponderReadTests {
    /// A probe whose memory holds a pattern.
    private func filled(_ connection: Connection = Connection(mtu: 256)) throws -> Probe {
        let probe = try Probe(.rc, connection)
        for (index, byte) in pattern(4096).enumerated() { probe.memory[index] = byte }
        return probe
    }

    @Test(
        "A READ returns first, middle and last; the MSN counts the READ; the next PSN follows those of the responses")
    func read() throws {
        let probe = try filled()
        probe.receiveRead(0, length: 700)
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseFirst, .rcReadResponseMiddle, .rcReadResponseLast])
        #expect(answers.map(\.psn) == (0..<3).map { probe.connection.peerPSN + $0 })
        #expect(answers.flatMap(\.payload) == pattern(700))
        #expect(answers[0].headers.aeth.msn == 1 && answers[2].headers.aeth.msn == 1)
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly, 3, payload: [1])
        #expect(probe.sent().map(\.psn) == [probe.connection.peerPSN + 3])
    }

    @Test("An acknowledgement is sent after the responses of the READ before it")
    func order() throws {
        let probe = try filled()
        probe.postReceive(bytes: 8)
        probe.receiveRead(0, length: 700)
        probe.receive(.rcSendOnly, 3, payload: [1])
        #expect(
            probe.sent().map(\.opcode) == [
                .rcReadResponseFirst, .rcReadResponseMiddle, .rcReadResponseLast, .rcAcknowledge,
            ])
    }

    @Test("A NAK is sent after the responses of the READ before it, although the queue pair is in ERR")
    func nakAfterRead() throws {
        let probe = try filled()
        probe.receiveRead(0, length: 300)
        probe.receiveWrite(.rcWriteOnly, 2, key: 1, length: 1, payload: [1])
        #expect(probe.pair.state == .error)
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseFirst, .rcReadResponseLast, .rcAcknowledge])
        #expect(answers[2].syndrome == 0x62 && answers[2].psn == probe.connection.peerPSN + 2)
    }

    @Test("A duplicate READ returns the responses from its first packet on")
    func repeatedRead() throws {
        let probe = try filled()
        probe.receiveRead(0, length: 700)
        #expect(probe.sent().map(\.isExpendable) == [true, true, true])
        probe.receiveRead(1, at: probe.address + 256, length: 444)
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseFirst, .rcReadResponseLast])
        #expect(answers.map(\.psn) == [probe.connection.peerPSN + 1, probe.connection.peerPSN + 2])
        #expect(answers.flatMap(\.payload) == Array(pattern(700)[256...]))
        #expect(answers.map(\.isExpendable) == [false, false])
        #expect(probe.host.engine.counters.duplicateRequests == 1)
        #expect(probe.host.engine.repairCount == 1)
    }

    @Test("A duplicate READ with another R_Key or address, or more bytes, is dropped", arguments: [0, 1, 2])
    func wrongDuplicate(kind: Int) throws {
        let probe = try filled()
        probe.receiveRead(0, length: 300)
        _ = probe.sent()
        switch kind {
        case 0: probe.receiveRead(0, key: probe.host.key ^ 1, length: 300)
        case 1: probe.receiveRead(0, at: probe.address + 8, length: 200)
        default: probe.receiveRead(0, length: 301)
        }
        #expect(probe.sent().isEmpty && probe.pair.state == .readyToSend)
    }

    @Test("The responder keeps max_dest_rd_atomic READs")
    func forgotten() throws {
        var connection = Connection(mtu: 256)
        connection.maxDestinationReadAtomic = 2
        let probe = try filled(connection)
        for offset in 0..<3 {
            probe.receiveRead(offset, length: 10)
            #expect(probe.sent().count == 1)
        }
        probe.receiveRead(0, length: 10)
        #expect(probe.sent().isEmpty)
        probe.receiveRead(1, length: 10)
        #expect(probe.sent().count == 1)
    }

    @Test("More outstanding READs than max_dest_rd_atomic are an invalid request")
    func tooMany() throws {
        var connection = Connection(mtu: 256)
        connection.maxDestinationReadAtomic = 2
        let probe = try filled(connection)
        for offset in 0..<3 { probe.receiveRead(offset, length: 10) }
        #expect(probe.sent().map(\.opcode) == [.rcReadResponseOnly, .rcReadResponseOnly, .rcAcknowledge])
        #expect(probe.host.queuePairEvents() == [.requestError])
    }

    @Test("With max_dest_rd_atomic 0, a READ is an invalid request")
    func none() throws {
        var connection = Connection()
        connection.maxDestinationReadAtomic = 0
        let probe = try filled(connection)
        probe.receiveRead(0, length: 10)
        #expect(probe.sent().map(\.syndrome) == [0x61])
    }

    @Test("Fetch and add returns the original value; a duplicate returns the same and adds nothing")
    func fetchAndAdd() throws {
        let probe = try filled()
        let word = probe.memory.baseAddress!.assumingMemoryBound(to: UInt64.self)
        word.pointee = 100
        probe.receiveFetchAdd(0, add: 5)
        var answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcAtomicAcknowledge])
        #expect(answers[0].headers.atomicAckETH.original == 100 && answers[0].headers.aeth.msn == 1)
        #expect(word.pointee == 105)
        word.pointee = 7
        probe.receiveFetchAdd(0, add: 5)
        answers = probe.sent()
        #expect(answers.map(\.headers.atomicAckETH.original) == [100] && word.pointee == 7)
    }

    @Test("Compare and swap stores the new value only when the comparison is equal", arguments: [true, false])
    func compareAndSwap(isEqual: Bool) throws {
        let probe = try filled()
        let word = probe.memory.baseAddress!.assumingMemoryBound(to: UInt64.self)
        word.pointee = 0x1122_3344_5566_7788
        probe.receive(.rcCompareAndSwap) {
            $0.atomicETH = AtomicETH(
                virtualAddress: probe.address, rkey: probe.host.key, swapOrAdd: 9,
                compare: isEqual ? 0x1122_3344_5566_7788 : 1)
        }
        #expect(probe.sent().map(\.headers.atomicAckETH.original) == [0x1122_3344_5566_7788])
        #expect(word.pointee == (isEqual ? 9 : 0x1122_3344_5566_7788))
    }

    @Test("A region that is deregistered during a READ ends the connection with a remote access error")
    func deregistered() throws {
        let probe = try filled()
        let key = try probe.host.engine.registerMemory(
            probe.host.domain, address: probe.memory.baseAddress, length: 4096, virtualAddress: 0, access: .remoteRead)
        probe.receiveRead(0, at: 0, key: key, length: 700)
        #expect(probe.sent(limit: 1).map(\.opcode) == [.rcReadResponseFirst])
        try probe.host.engine.deregisterMemory(key)
        let answers = probe.sent()
        #expect(answers.map(\.syndrome) == [0x62] && answers.map(\.psn) == [probe.connection.peerPSN + 1])
        #expect(probe.pair.state == .error && probe.host.queuePairEvents() == [.accessError])
    }

    @Test("A duplicate SEND before a READ is acknowledged up to the READ only")
    func duplicateBeforeRead() throws {
        let probe = try filled()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly, 0, payload: [1])
        probe.receiveRead(1, length: 300)
        _ = probe.sent()
        probe.receive(.rcSendOnly, 0, payload: [1])
        #expect(probe.sent().map(\.psn) == [probe.connection.peerPSN])
    }
}
