import RoCETransport
import RoCEWire
import Testing

@Suite("UC and UD")
struct UnreliableTests {
    @Test("A UC send completes when its last packet is sent; no packet has BTH.A")
    func send() throws {
        let probe = try Probe(.uc, Connection(mtu: 256))
        probe.post(.send, id: 1, bytes: 600)
        #expect(probe.sent(limit: 2).allSatisfy { !$0.headers.bth.acknowledgeRequest })
        #expect(probe.host.poll().isEmpty)
        #expect(probe.sent().map(\.opcode) == [.ucSendLast])
        #expect(probe.host.poll().map(\.id) == [1] && probe.host.engine.nextDeadline == nil)
    }

    @Test("A gap drops its message, and the next message uses its receive work request")
    func gap() throws {
        let probe = try Probe(.uc, Connection(mtu: 256))
        probe.postReceive(id: 1, bytes: 1000)
        probe.receive(.ucSendFirst, 0, payload: pattern(256))
        probe.receive(.ucSendLast, 2, payload: pattern(10))
        #expect(probe.host.poll().isEmpty)
        probe.receive(.ucSendMiddle, 3, payload: pattern(256))
        probe.receive(.ucSendFirst, 10, payload: pattern(256, seed: 1))
        probe.receive(.ucSendLast, 11, payload: pattern(4, seed: 257))
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1] && completions[0].byteCount == 260)
        #expect(Array(probe.memory[..<260]) == pattern(260, seed: 1))
        #expect(probe.host.engine.counters.droppedInvalid == 2 && probe.sent().isEmpty)
    }

    @Test("UC messages without a receive work request or access are dropped, and later ones are received")
    func dropped() throws {
        let probe = try Probe(.uc, Connection(mtu: 256))
        probe.receive(.ucSendOnly, 0, payload: [1])
        probe.receiveWrite(.ucWriteFirst, 1, key: 7, length: 300, payload: pattern(256, seed: 1))
        probe.receive(.ucWriteLast, 2, payload: pattern(44))
        #expect(probe.host.engine.counters.droppedNoReceive == 1 && probe.host.engine.counters.droppedAccess == 1)
        #expect(probe.memory[0] == 0 && probe.pair.state == .readyToSend)
        probe.receiveWrite(.ucWriteOnlyWithImmediate, 3, length: 2, payload: [5, 6])
        #expect(probe.host.engine.counters.droppedNoReceive == 2 && probe.memory[0] == 0)
        probe.host.postReceive(probe.pair, id: 3)
        probe.receiveWrite(.ucWriteOnlyWithImmediate, 4, length: 2, payload: [5, 6])
        #expect(probe.host.poll().map(\.opcode) == [.receiveWriteWithImmediate] && probe.memory[1] == 6)
    }

    @Test("A UC SEND longer than its receive is dropped, and the next one uses the receive", arguments: [false, true])
    func tooLong(shared: Bool) throws {
        let probe = try Probe(.uc, Connection(mtu: 256), shared: shared)
        post(probe, id: 1, probe.sge(300))
        post(probe, id: 2, probe.sge(300))
        probe.receive(.ucSendOnly, 0, payload: pattern(256))
        #expect(probe.host.poll().map(\.id) == [1])
        // One message exceeds the receive in its last packet, the other already in its second one.
        probe.receive(.ucSendFirst, 1, payload: pattern(256))
        probe.receive(.ucSendLast, 2, payload: pattern(45))
        probe.receive(.ucSendFirst, 3, payload: pattern(256))
        for offset in 4..<8 { probe.receive(.ucSendMiddle, offset, payload: pattern(256)) }
        probe.receive(.ucSendLast, 8, payload: pattern(1))
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.droppedTooLong == 2)
        #expect(probe.pair.state == .readyToSend && probe.sent().isEmpty && probe.host.queuePairEvents().isEmpty)
        probe.receive(.ucSendFirst, 9, payload: pattern(256, seed: 9))
        probe.receive(.ucSendLast, 10, payload: pattern(44, seed: 9 + 256))
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [2] && completions[0].status == .success && completions[0].byteCount == 300)
        #expect(Array(probe.memory[..<300]) == pattern(300, seed: 9))
    }

    @Test("A receive work request that is held after a UC message that was too long is flushed in ERR")
    func tooLongFlushed() throws {
        let probe = try Probe(.uc)
        probe.postReceive(id: 1, bytes: 4)
        probe.postReceive(id: 2, bytes: 4)
        probe.receive(.ucSendOnly, payload: pattern(5))
        try probe.host.move(probe.pair, to: .error)
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1, 2] && completions.allSatisfy { $0.status == .flushed })
    }

    @Test("A receive work request that is held after a UC message that was too long receives immediate data")
    func tooLongThenImmediate() throws {
        let probe = try Probe(.uc)
        probe.postReceive(id: 1, bytes: 4)
        probe.receive(.ucSendOnly, 0, payload: pattern(5))
        probe.receiveWrite(.ucWriteOnlyWithImmediate, 1, length: 9, payload: pattern(9))
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1] && completions[0].opcode == .receiveWriteWithImmediate)
        #expect(completions[0].byteCount == 9)
    }

    @Test("A receive work request with a wrong L_Key completes with LOC_PROT_ERR, and the queue pair goes to ERR")
    func badReceive() throws {
        for type in [QueuePairType.uc, .ud] {
            let probe = try Probe(type)
            var sge = probe.sge(100)
            sge.lkey ^= 1
            post(probe, id: 1, sge)
            if type == .uc { probe.receive(.ucSendOnly, payload: [1]) } else { datagram(probe, [1], header: []) }
            #expect(probe.host.poll().map(\.status) == [.localProtectionError])
            #expect(probe.pair.state == .error && probe.sent().isEmpty)
        }
    }

    private func post(_ probe: Probe, id: UInt64, _ sge: SGE) {
        if let shared = probe.shared {
            withUnsafePointer(to: sge) { _ = shared.stageReceive(id: id, sgList: $0, count: 1) }
            shared.commitReceives()
        } else {
            probe.host.postReceive(probe.pair, id: id, [sge])
        }
    }

    // MARK: - UD

    private func datagram(_ probe: Probe, _ payload: [UInt8], key: UInt32 = 0x1234, header: [UInt8]) {
        let bytes = probe.packet(.udSendOnlyWithImmediate, payload: payload) { headers in
            headers.deth = DETH(qkey: key, sourceQPN: 0xABCDE)
            headers.immDt = ImmDt(value: 0x0102_0304)
            headers.bth.solicited = true
        }
        bytes.withUnsafeBytes { bytes in
            header.withUnsafeBytes { header in
                probe.host.engine.receive(
                    bytes, from: PacketSource(source: probe.peer, destination: probe.host.gid, header: header), now: 0)
            }
        }
    }

    @Test("The GRH area holds the IPv6 header, or 20 zero bytes and the IPv4 header", arguments: [40, 20])
    func header(size: Int) throws {
        let probe = try Probe(.ud)
        for index in 0..<100 { probe.memory[index] = 0xEE }
        probe.postReceive(id: 1, bytes: 100)
        datagram(probe, pattern(7), header: pattern(size, seed: 100))
        let completions = probe.host.poll()
        #expect(completions.map(\.byteCount) == [47])
        #expect(completions[0].flags == [.grh, .withImmediate] && completions[0].sourceQueuePairNumber == 0xABCDE)
        // mlx5's types of a RoCE v2 packet.
        #expect(completions[0].serviceLevel == (size == 20 ? 0xA : 0x9))
        #expect(completions[0].immediate == UInt32(0x0102_0304).bigEndian)
        let zeros = [UInt8](repeating: 0, count: 40 - size)
        #expect(Array(probe.memory[..<47]) == zeros + pattern(size, seed: 100) + pattern(7))
        #expect(probe.memory[47] == 0xEE)
    }

    @Test("A datagram with another Q_Key is dropped and counted, and consumes no receive work request")
    func qkey() throws {
        let probe = try Probe(.ud)
        probe.postReceive(bytes: 100)
        datagram(probe, [1], key: 0x1235, header: [])
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.droppedQKey == 1)
        datagram(probe, [1], header: [])
        #expect(probe.host.poll().count == 1)
    }

    @Test(
        "A datagram longer than the next receive is dropped, and the next one uses the receive", arguments: [40, 46],
        [false, true])
    func shortReceive(size: Int, shared: Bool) throws {
        let probe = try Probe(.ud, shared: shared)
        probe.memory[0] = 0xEE
        post(probe, id: 1, probe.sge(size))
        post(probe, id: 2, probe.sge(100))
        for _ in 0..<3 { datagram(probe, pattern(7), header: pattern(40)) }
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.droppedTooLong == 3)
        #expect(probe.pair.state == .readyToSend && probe.host.events().isEmpty && probe.memory[0] == 0xEE)
        datagram(probe, pattern(size - 40), header: pattern(40))
        datagram(probe, pattern(60), header: pattern(40))
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1, 2] && completions.map(\.byteCount) == [UInt32(size), 100])
        #expect(completions.allSatisfy { $0.status == .success })
    }

    @Test("A receive shorter than the GRH area receives no datagram, not even an empty one", arguments: [0, 39])
    func noHeaderRoom(size: Int) throws {
        let probe = try Probe(.ud)
        probe.postReceive(id: 1, bytes: size)
        datagram(probe, [], header: pattern(40))
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.droppedTooLong == 1)
        #expect(probe.pair.state == .readyToSend)
    }

    @Test("Datagrams that are too long consume no receive work request of a shared receive queue")
    func sharedStays() throws {
        let probe = try Probe(.ud, shared: true)
        let other = try probe.host.makeQueuePair(.rc, shared: probe.shared)
        try probe.host.connect(other, to: probe.peer, number: probe.peerNumber)
        post(probe, id: 1, probe.sge(45))
        datagram(probe, pattern(7), header: [])
        var headers = PacketHeaders(BTH(opcode: .rcSendOnly, destinationQPN: other.number, psn: PSN(0x200)))
        headers.bth.acknowledgeRequest = true
        var bytes = [UInt8](repeating: 0, count: headers.packetByteCount(payloadByteCount: 4))
        _ = try bytes.withUnsafeMutableBytes { try headers.emit(into: $0, payloadByteCount: 4) }
        probe.receive(bytes)
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1] && completions[0].queuePairNumber == other.number)
    }

    @Test("A datagram without a posted receive is dropped and counted")
    func noReceive() throws {
        let probe = try Probe(.ud)
        datagram(probe, [1], header: [])
        #expect(probe.host.engine.counters.droppedNoReceive == 1 && probe.pair.state == .readyToSend)
    }

    @Test("A datagram uses the path of its work request; with the top bit of remote_qkey, the Q_Key of its queue pair")
    func datagramSent() throws {
        let probe = try Probe(.ud)
        for (index, byte) in pattern(10).enumerated() { probe.memory[index] = byte }
        var path = Path(source: probe.host.gid, destination: GID(ipv4: 0x0A00_0042), tag: 5)
        withUnsafePointer(to: &path) { path in
            probe.post(.sendWithImmediate, bytes: 10, flags: .solicited, path: path) {
                $0.remoteQPN = 0x99
                $0.remoteQKey = 0x8000_0000
                $0.immediate = UInt32(7).bigEndian
            }
            probe.post(.send, bytes: 0, path: path) { $0.remoteQKey = 0x5555 }
        }
        // The path was copied.
        path.destination = GID()
        let packets = probe.sent()
        #expect(packets.map(\.opcode) == [.udSendOnlyWithImmediate, .udSendOnly])
        #expect(packets[0].headers.deth == DETH(qkey: 0x1234, sourceQPN: probe.pair.number))
        #expect(packets[1].headers.deth.qkey == 0x5555)
        #expect(packets[0].headers.bth.destinationQPN == 0x99 && packets[0].headers.bth.solicited)
        #expect(packets[0].headers.immDt.value == 7 && packets[0].payload == pattern(10))
        #expect(packets[0].path.destination == GID(ipv4: 0x0A00_0042) && packets[0].path.tag == 5)
        #expect(packets[1].psn == packets[0].psn + 1)
        #expect(probe.host.poll().map(\.status) == [.success, .success])
    }

    @Test("A datagram longer than the active MTU completes with LOC_LEN_ERR and is not sent")
    func tooLongDatagram() throws {
        let probe = try Probe(.ud) { $0.activeMTU = 1024 }
        var path = Path(source: probe.host.gid, destination: probe.peer)
        withUnsafePointer(to: &path) { path in
            #expect(probe.post(.send, bytes: 1025, path: path) == .success)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.localLengthError])
    }
}
