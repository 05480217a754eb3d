import Glibc
import RoCETransport
import RoCEWire
import Testing

/// A responder whose PSNs advance in large steps: a READ has as many PSNs as responses, and after a duplicate READ for
/// its last response, the responder sends only that one and counts all responses as sent.
private final class LeapingProbe {
    let probe: Probe
    /// 2 GiB of zeros for READs, without physical memory.
    private let large: UnsafeMutableRawPointer
    private let largeKey: UInt32
    /// The offset of the next PSN.
    private(set) var next = 0

    static let largest = 1 << 23

    init() throws {
        var connection = Connection(mtu: 256, peerPSN: 0xFF_FFF0)
        connection.maxDestinationReadAtomic = 16
        probe = try Probe(.rc, connection)
        for (index, byte) in pattern(4096, seed: 3).enumerated() { probe.memory[index] = byte }
        large = mmap(nil, 1 << 31, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        try #require(large != MAP_FAILED)
        largeKey = try probe.host.engine.registerMemory(
            probe.host.domain, address: large, length: 1 << 31, virtualAddress: 0, access: .remoteRead)
    }

    deinit { munmap(large, 1 << 31) }

    /// A READ of `packets` PSNs, of which only the last response is sent.
    func leap(_ packets: Int) {
        var left = packets
        while left > 0 {
            let part = min(left, Self.largest)
            probe.receiveRead(next, at: 0, key: largeKey, length: part * 256)
            repeatLarge(next + part - 1, at: part - 1)
            let answers = probe.sent(limit: 2)
            #expect(answers.map(\.opcode) == [.rcReadResponseOnly] && answers[0].psn == psn(next + part - 1))
            next += part
            left -= part
        }
    }

    /// Sends a duplicate READ for the response at `position` of a READ of `leap`.
    func repeatLarge(_ offset: Int, at position: Int) {
        probe.receiveRead(offset, at: UInt64(position * 256), key: largeKey, length: 256)
    }

    func psn(_ offset: Int) -> UInt32 { (probe.connection.peerPSN &+ UInt32(truncatingIfNeeded: offset)) & 0xFF_FFFF }

    /// The SGE of all 2 GiB.
    var largeSGE: SGE { SGE(address: 0, length: 1 << 31, lkey: largeKey) }

    var word: UnsafeMutablePointer<UInt64> { probe.memory.baseAddress!.assumingMemoryBound(to: UInt64.self) }

    /// The original value that a fetch and add of 1 at this offset returns, or nil without a response.
    func add(_ offset: Int) -> UInt64? {
        probe.receiveFetchAdd(offset, add: 1)
        let answers = probe.sent(limit: 2)
        guard answers.map(\.opcode) == [.rcAtomicAcknowledge], answers[0].psn == psn(offset) else { return nil }
        return answers[0].headers.atomicAckETH.original
    }

    func write(_ offset: Int) {
        probe.receiveWrite(.rcWriteOnly, offset, at: probe.address + 1024, length: 1, payload: [1])
    }

    func advance(_ count: Int) { next += count }
}

@Suite("PSNs that wrap")
struct SequenceNumberTests {
    /// The distance in PSNs from a remembered READ or atomic to the duplicate request: around a quarter, a half and all
    /// of the PSNs.
    static let distances = [
        2, 1 << 22, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, 3 << 23, 1 << 25,
    ]

    @Test("A duplicate atomic returns its own result, not that of an older one", arguments: distances)
    func atomic(distance: Int) throws {
        let test = try LeapingProbe()
        test.word.pointee = 100
        #expect(test.add(0) == 100)
        test.advance(1)
        test.leap(distance - 1)
        #expect(test.add(distance) == 101 && test.word.pointee == 102)
        // The response was lost.
        #expect(test.add(distance) == 101 && test.word.pointee == 102)
        #expect(test.probe.pair.state == .readyToSend)
    }

    @Test("A duplicate WRITE is acknowledged with its own PSN, not up to an older READ", arguments: distances)
    func write(distance: Int) throws {
        let test = try LeapingProbe()
        test.probe.receiveRead(0, length: 8)
        #expect(test.probe.sent().count == 1)
        test.advance(1)
        test.leap(distance - 1)
        for _ in 0..<2 {
            test.write(distance)
            let answers = test.probe.sent(limit: 2)
            #expect(answers.map(\.opcode) == [.rcAcknowledge] && answers[0].psn == test.psn(distance))
            #expect(answers[0].syndrome == 0x1F)
        }
    }

    @Test("A duplicate READ returns its own bytes, and is not dropped because of an older one", arguments: distances)
    func read(distance: Int) throws {
        let test = try LeapingProbe()
        test.probe.receiveRead(0, length: 700)
        #expect(test.probe.sent().count == 3)
        test.advance(3)
        test.leap(max(distance, 3) - 3)
        let start = max(distance, 3)
        let address = test.probe.address + 512
        let bytes = pattern(700, seed: 3 + 512)
        test.probe.receiveRead(start, at: address, length: 700)
        #expect(test.probe.sent(limit: 4).flatMap(\.payload) == bytes)
        // The first, the second or the last response was lost.
        for position in 0..<3 {
            let offset = 256 * position
            test.probe.receiveRead(start + position, at: address + UInt64(offset), length: 700 - offset)
            let answers = test.probe.sent(limit: 4)
            #expect(answers.map(\.psn) == (position..<3).map { test.psn(start + $0) })
            #expect(answers.flatMap(\.payload) == Array(bytes[offset...]))
        }
    }

    @Test("An atomic is remembered for 2^23 PSNs; after that, its PSN is ahead of the expected one")
    func halfRing() throws {
        let test = try LeapingProbe()
        test.word.pointee = 100
        #expect(test.add(0) == 100)
        test.advance(1)
        test.leap((1 << 23) - 1)
        // The expected PSN is 2^23 ahead of it.
        #expect(test.add(0) == 100 && test.word.pointee == 101)
        test.write(test.next)
        #expect(test.probe.sent(limit: 2).map(\.opcode) == [.rcAcknowledge])
        test.probe.receiveFetchAdd(0, add: 1)
        let answers = test.probe.sent(limit: 2)
        #expect(answers.map(\.syndrome) == [0x60] && answers[0].psn == test.psn((1 << 23) + 1))
        #expect(test.word.pointee == 101)
    }

    @Test("Each response of a READ of 2 GiB in packets of 256 bytes can be sent again, also 2^23 PSNs later")
    func longRead() throws {
        let test = try LeapingProbe()
        test.write(0)
        #expect(test.probe.sent().count == 1)
        test.advance(1)
        test.leap(1 << 23)
        for position in [0, 1, 1 << 22, (1 << 23) - 2, (1 << 23) - 1] {
            test.repeatLarge(1 + position, at: position)
            #expect(test.probe.sent(limit: 2).map(\.psn) == [test.psn(1 + position)])
        }
        // After 2^23 - 1 more PSNs, a duplicate READ can refer to its last response only.
        test.leap((1 << 23) - 1)
        test.repeatLarge(1 << 23, at: (1 << 23) - 1)
        #expect(test.probe.sent(limit: 2).map(\.psn) == [test.psn(1 << 23)])
        let last = test.next
        test.write(last)
        #expect(test.probe.sent(limit: 2).map(\.psn) == [test.psn(last)])
        test.write(last)
        #expect(test.probe.sent(limit: 2).map(\.psn) == [test.psn(last)])
    }

    @Test("A duplicate WRITE 2^23 PSNs back is acknowledged up to the READ after it, with the MSN of that PSN")
    func writeBeforeLongRead() throws {
        let test = try LeapingProbe()
        test.write(0)
        #expect(test.probe.sent().map(\.headers.aeth.msn) == [1])
        test.advance(1)
        test.leap((1 << 23) - 1)
        test.write(0)
        let answers = test.probe.sent(limit: 2)
        #expect(answers.map(\.psn) == [test.psn(0)] && answers[0].headers.aeth.msn == 1)
    }

    @Test("A queued acknowledgement has the MSN of its own PSN")
    func waitingMSN() throws {
        let test = try LeapingProbe()
        test.write(0)
        test.probe.receive(.rcWriteOnly, 1, payload: [1], acknowledge: false) { headers in
            headers.reth = RETH(virtualAddress: test.probe.address, rkey: test.probe.host.key, dmaLength: 1)
        }
        let answers = test.probe.sent()
        #expect(answers.map(\.psn) == [test.psn(0)] && answers[0].headers.aeth.msn == 1)
    }

    @Test("RESET removes the responder resources: equal PSNs of the next connection are other requests")
    func reset() throws {
        let test = try LeapingProbe()
        let probe = test.probe
        test.word.pointee = 100
        #expect(test.add(0) == 100)
        try probe.host.move(probe.pair, to: .reset)
        var connection = probe.connection
        connection.peerPSN = (connection.peerPSN + 1) & 0xFF_FFFF
        try probe.host.connect(probe.pair, to: probe.peer, number: probe.peerNumber, connection)
        // A duplicate of the earlier connection: it has no responder resource.
        probe.receiveFetchAdd(0, add: 1)
        #expect(probe.sent().isEmpty && test.word.pointee == 101)
        #expect(test.add(1) == 101)
    }

    @Test("A WRITE of 2^23 packets, half of all PSNs, is acknowledged and sent again packet by packet")
    func longMessage() throws {
        let test = try LeapingProbe()
        let probe = test.probe
        var request = SendWQE(id: 1, opcode: .write)
        request.rkey = 7
        #expect(probe.host.post(probe.pair, request, [test.largeSGE]) == .success)
        #expect(probe.sentOffsets() == Array(0..<32))
        // One packet is acknowledged, and 2^23 - 1 are outstanding; then one more is acknowledged.
        for count in 1...2 {
            probe.acknowledge(count - 1)
            _ = probe.sent()
            probe.advance(5_000_000)
            #expect(probe.sentOffsets().first == count)
        }
        #expect(probe.host.poll().isEmpty && probe.pair.state == .readyToSend)
    }
}
