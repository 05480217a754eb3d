import RoCETransport
import RoCEWire
import Testing

@Suite("FLUSH")
struct FlushTests {
    private static let access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .flushGlobal]

    private func receive(
        _ probe: Probe, _ offset: Int = 0, at address: UInt64? = nil, key: UInt32, length: UInt32 = 64,
        placement: UInt8 = 1, selectivity: UInt8 = 0
    ) {
        probe.receive(.rcFlush, offset) { headers in
            headers.feth = FETH(placement: placement, selectivity: selectivity)
            headers.reth = RETH(virtualAddress: address ?? probe.address, rkey: key, dmaLength: length)
        }
    }

    private func register(_ probe: Probe, _ access: AccessFlags = access) throws -> UInt32 {
        try probe.host.engine.registerMemory(
            probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
            access: access)
    }

    private func makeProbe(_ access: AccessFlags = access, maxDestinationReadAtomic: UInt8? = nil) throws -> Probe {
        var connection = Connection()
        connection.access = access
        if let maxDestinationReadAtomic { connection.maxDestinationReadAtomic = maxDestinationReadAtomic }
        return try Probe(.rc, connection)
    }

    @Test("The responder returns an empty READ response, for a range and for the region, and again to a duplicate")
    func responder() throws {
        let probe = try makeProbe()
        let key = try register(probe)
        receive(probe, at: probe.address + 16, key: key, length: 48)
        // Of the whole region, address and length mean nothing.
        receive(probe, 1, at: 5, key: key, length: 1 << 20, selectivity: 1)
        receive(probe, 2, key: key, length: 0)
        receive(probe, 1, at: 5, key: key, length: 1 << 20, selectivity: 1)
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == Array(repeating: .rcReadResponseOnly, count: answers.count))
        #expect(answers.allSatisfy { $0.payload.isEmpty && $0.syndrome == 0x1F })
        // The duplicate came before the last response was sent: the response to it and those after it are sent from there.
        #expect(answers.map { $0.headers.aeth.msn } == [1, 2, 3])
    }

    @Test("A FLUSH beyond max_dest_rd_atomic, as rxe sends it, is asked for again and does not end the connection")
    func beyondResources() throws {
        let probe = try makeProbe(maxDestinationReadAtomic: 2)
        let key = try register(probe)
        for offset in 0..<4 { receive(probe, offset, key: key) }
        var answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseOnly, .rcReadResponseOnly, .rcAcknowledge])
        #expect(answers.last?.syndrome == 0x60 && answers.last?.headers.aeth.msn == 2)
        for offset in 2..<4 { receive(probe, offset, key: key) }
        answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseOnly, .rcReadResponseOnly])
        #expect(answers.map { $0.headers.aeth.msn } == [3, 4])
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var isAccessError: Bool
        var queuePair = FlushTests.access
        var region = FlushTests.access
        var length: UInt32 = 64
        var placement: UInt8 = 1
        var selectivity: UInt8 = 0
        var keyChange: UInt32 = 0
        var resources: UInt8?
    }

    @Test(
        "The responder refuses what the queue pair, the region or the format does not allow",
        arguments: [
            Refusal(testDescription: "queue pair", isAccessError: false, queuePair: [.remoteWrite, .remoteRead]),
            Refusal(testDescription: "queue pair, persistence", isAccessError: false, placement: 2),
            Refusal(
                testDescription: "region, persistence", isAccessError: true,
                queuePair: access.union(.flushPersistent), placement: 3),
            Refusal(testDescription: "region", isAccessError: true, region: [.localWrite, .remoteWrite]),
            Refusal(
                testDescription: "region as a whole", isAccessError: true, region: [.localWrite, .remoteWrite],
                selectivity: 1),
            Refusal(testDescription: "range", isAccessError: true, length: 65),
            Refusal(testDescription: "key", isAccessError: true, keyChange: 1),
            Refusal(testDescription: "key, of no bytes", isAccessError: true, length: 0, keyChange: 1),
            Refusal(testDescription: "no placement type", isAccessError: false, placement: 0),
            Refusal(testDescription: "reserved placement type", isAccessError: false, placement: 5),
            Refusal(testDescription: "reserved selectivity level", isAccessError: false, selectivity: 2),
            Refusal(testDescription: "no responder resource", isAccessError: false, resources: 0),
        ])
    func refusals(_ refusal: Refusal) throws {
        let probe = try makeProbe(refusal.queuePair, maxDestinationReadAtomic: refusal.resources)
        let key = try register(probe, refusal.region)
        receive(
            probe, key: key ^ refusal.keyChange, length: refusal.length, placement: refusal.placement,
            selectivity: refusal.selectivity)
        #expect(probe.sent().map(\.syndrome) == [refusal.isAccessError ? 0x62 : 0x61])
        #expect(probe.host.queuePairEvents() == [refusal.isAccessError ? .accessError : .requestError])
    }

    @Test("The requester sends FETH and RETH without data, and completes with the READ response")
    func requester() throws {
        let probe = try Probe()
        #expect(
            probe.post(.flush, id: 1, bytes: 0) {
                $0.remoteAddress = 0x8000
                $0.flush(length: 1 << 20, placement: 3, selectivity: 1)
            } == .success)
        #expect(
            probe.post(.flush, id: 2, bytes: 0) { $0.flush(length: 0, placement: 1, selectivity: 0) } == .success)
        let sent = probe.sent()
        #expect(sent.map(\.opcode) == [.rcFlush, .rcFlush] && sent.allSatisfy { $0.payload.isEmpty })
        #expect(sent[0].headers.feth == FETH(placement: 3, selectivity: 1))
        #expect(sent[0].headers.reth == RETH(virtualAddress: 0x8000, rkey: 0x4242, dmaLength: 1 << 20))
        #expect(sent[0].headers.bth.acknowledgeRequest)
        // An acknowledgement of the second does not complete the first, whose response is missing.
        probe.acknowledge(1)
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.impliedNAKs == 1)
        for offset in 0..<2 {
            probe.receive(.rcReadResponseOnly, offset) { $0.aeth = AETH(syndrome: .ack, msn: UInt32(offset) + 1) }
        }
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1, 2] && completions.allSatisfy { $0.opcode == .flush })
        #expect(completions.allSatisfy { $0.status == .success && $0.byteCount == 0 })
    }

    @Test(
        "Data, unknown placement types and selectivity levels, more than 2^31 bytes and inline are refused with EINVAL",
        arguments: [(8, 1, 0, 0), (0, 0, 0, 0), (0, 4, 0, 0), (0, 1, 2, 0), (0, 1, 0, 1 << 31 + 1)])
    func posts(bytes: Int, placement: UInt8, selectivity: UInt8, length: UInt64) throws {
        let probe = try Probe()
        let error = probe.post(.flush, bytes: bytes) {
            $0.flush(length: length, placement: placement, selectivity: selectivity)
        }
        #expect(error == .invalid)
        #expect(
            probe.post(.flush, bytes: 0, flags: .inline) { $0.flush(length: 1, placement: 1, selectivity: 0) }
                == .invalid)
    }

    @Test("A response with data ends the connection, and a FLUSH counts in max_rd_atomic")
    func limits() throws {
        let probe = try Probe(.rc, Connection(maxReadAtomic: 1))
        for id in [1, 2] as [UInt64] {
            probe.post(.flush, id: id, bytes: 0) { $0.flush(length: 1, placement: 1, selectivity: 0) }
        }
        #expect(probe.sentOffsets() == [0])
        probe.receive(.rcReadResponseOnly) { $0.aeth = AETH(syndrome: .ack, msn: 1) }
        #expect(probe.sentOffsets() == [1])
        probe.receive(.rcReadResponseOnly, 1, payload: pattern(8)) { $0.aeth = AETH(syndrome: .ack, msn: 2) }
        #expect(probe.host.poll().map(\.status) == [.success, .badResponseError])
    }

    @Test("A neighbor's range is flushed without a packet; the whole region, persistence and errors are packets")
    func direct() throws {
        var connection = Connection()
        connection.access = Self.access
        let test = try NeighborPair(connection)
        let target = test.right.take(64)
        let key = try test.right.engine.registerMemory(
            test.right.domain, address: target.baseAddress, length: 64,
            virtualAddress: UInt64(UInt(bitPattern: target.baseAddress)), access: Self.access)
        func flush(length: UInt64 = 64, placement: UInt8 = 1, selectivity: UInt8 = 0) -> Int {
            var request = test.request(.flush, at: target, key: key)
            request.flush(length: length, placement: placement, selectivity: selectivity)
            test.left.post(test.leftPair, request, [])
            return test.packets()
        }
        #expect(flush() == 0 && flush(length: 0) == 0)
        #expect(test.left.poll().map(\.status) == [.success, .success])
        #expect(test.left.engine.counters.directRequests == 2)
        #expect(test.hazard.pointee.load(ordering: .relaxed) == 0)
        #expect(flush(selectivity: 1) > 0)
        #expect(flush(placement: 2) > 0)
    }
}
