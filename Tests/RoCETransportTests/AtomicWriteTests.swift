import RoCETransport
import RoCEWire
import Testing

@Suite("ATOMIC WRITE")
struct AtomicWriteTests {
    private func receive(
        _ probe: Probe, _ offset: Int = 0, at address: UInt64? = nil, key: UInt32? = nil, length: UInt32 = 8,
        payload: [UInt8] = pattern(8, seed: 1)
    ) {
        probe.receive(.rcAtomicWrite, offset, payload: payload) { headers in
            headers.reth = RETH(
                virtualAddress: address ?? probe.address, rkey: key ?? probe.host.key, dmaLength: length)
        }
    }

    @Test(
        "The responder writes the 8 bytes and returns an empty READ response, also to a duplicate, which writes nothing"
    )
    func responder() throws {
        let probe = try Probe()
        receive(probe, at: probe.address + 16)
        var answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseOnly])
        #expect(answers[0].payload.isEmpty && answers[0].syndrome == 0x1F && answers[0].headers.aeth.msn == 1)
        #expect(answers[0].psn == probe.connection.peerPSN)
        #expect(Array(probe.memory[16..<24]) == pattern(8, seed: 1))
        probe.memory[16] = 99
        receive(probe, at: probe.address + 16)
        answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseOnly] && answers[0].psn == probe.connection.peerPSN)
        #expect(probe.memory[16] == 99)
    }

    @Test("A responder refuses a wrong length, address, key or access", arguments: 0..<7)
    func refusals(scenario: Int) throws {
        var connection = Connection()
        if scenario == 5 { connection.access = [.localWrite, .remoteRead, .remoteAtomic] }
        if scenario == 6 { connection.maxDestinationReadAtomic = 0 }
        let probe = try Probe(.rc, connection)
        var isAccessError = false
        switch scenario {
        case 0: receive(probe, at: probe.address + 4)
        case 1: receive(probe, length: 16)
        case 2: receive(probe, payload: pattern(4, seed: 1))
        case 3:
            receive(probe, key: probe.host.key ^ 1)
            isAccessError = true
        case 4:
            let key = try probe.host.engine.registerMemory(
                probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
                access: [.localWrite, .remoteAtomic, .remoteRead])
            receive(probe, key: key)
            isAccessError = true
        default: receive(probe)
        }
        #expect(probe.sent().map(\.syndrome) == [isAccessError ? 0x62 : 0x61])
        #expect(probe.host.queuePairEvents() == [isAccessError ? .accessError : .requestError])
        #expect(probe.memory.allSatisfy { $0 == 0 })
    }

    @Test("The requester sends RETH and 8 bytes, from an SGE or inline, and completes with the READ response")
    func requester() throws {
        let probe = try Probe()
        for index in 0..<8 { probe.memory[index] = UInt8(index + 1) }
        probe.post(.atomicWrite, id: 1) { $0.remoteAddress = 0x8000 }
        probe.post(.atomicWrite, id: 2, flags: .inline)
        // Inline bytes were copied.
        let sent = probe.sent()
        #expect(sent.map(\.opcode) == [.rcAtomicWrite, .rcAtomicWrite])
        #expect(sent.map(\.payload) == [pattern(8, seed: 1), pattern(8, seed: 1)])
        #expect(sent[0].headers.reth == RETH(virtualAddress: 0x8000, rkey: 0x4242, dmaLength: 8))
        #expect(sent[0].headers.bth.acknowledgeRequest)
        // An acknowledgement of the second does not complete the first, whose response is missing.
        probe.acknowledge(1)
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.impliedNAKs == 1)
        for offset in 0..<2 {
            probe.receive(.rcReadResponseOnly, offset) { $0.aeth = AETH(syndrome: .ack, msn: UInt32(offset) + 1) }
        }
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1, 2] && completions.map(\.opcode) == [.atomicWrite, .atomicWrite])
        #expect(completions.map(\.status) == [.success, .success])
    }

    @Test("Inline data is copied when posted, into a queue pair without room for inline data too")
    func inline() throws {
        let host = try Host(1)
        let pair = try host.makeQueuePair(maxInlineData: 0)
        try host.connect(pair, to: GID(ipv4: 9), number: 7)
        let bytes = host.take(8)
        bytes[0] = 5
        let sge = host.sge(bytes)
        #expect(host.post(pair, SendWQE(id: 1, opcode: .atomicWrite, flags: .inline), [sge]) == .success)
        bytes[0] = 6
        let transmitted = host.engine.transmit(into: host.packet, now: 1)
        let packet = try #require(transmitted)
        let parsed = try TransportPacket(parsing: UnsafeRawBufferPointer(rebasing: host.packet[..<packet.byteCount]))
        #expect(host.packet[parsed.payload].first == 5)
    }

    @Test("Another number of bytes than 8 is refused with EINVAL, and a response with data ends the connection")
    func lengths() throws {
        let probe = try Probe()
        for length in [0, 7, 9, 16] {
            #expect(probe.post(.atomicWrite, bytes: length) == .invalid)
            #expect(probe.post(.atomicWrite, bytes: length, flags: .inline) == .invalid)
        }
        probe.post(.atomicWrite, id: 3)
        _ = probe.sent()
        probe.receive(.rcReadResponseOnly, payload: pattern(8)) { $0.aeth = AETH(syndrome: .ack, msn: 1) }
        #expect(probe.host.poll().map(\.status) == [.badResponseError])
    }

    @Test("An ATOMIC WRITE counts in max_rd_atomic")
    func limit() throws {
        let probe = try Probe(.rc, Connection(maxReadAtomic: 1))
        probe.post(.atomicWrite, id: 1)
        probe.post(.atomicWrite, id: 2)
        #expect(probe.sentOffsets() == [0])
        probe.receive(.rcReadResponseOnly) { $0.aeth = AETH(syndrome: .ack, msn: 1) }
        #expect(probe.sentOffsets() == [1])
    }
}
