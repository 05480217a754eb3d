import RoCETransport
import RoCEWire
import Testing

@Suite("UC and UD")
struct UnreliableTests {
    @Test("A UC send completes when its last packet is sent; nothing asks for an acknowledgement")
    func send() throws {
        let probe = try Probe(.uc, Connection(mtu: 256))
        probe.post(.send, id: 1, bytes: 600)
        #expect(probe.sent(limit: 2).allSatisfy { !$0.headers.bth.acknowledgeRequest })
        #expect(probe.host.poll().isEmpty)
        #expect(probe.sent().map(\.opcode) == [.ucSendLast])
        #expect(probe.host.poll().map(\.id) == [1] && probe.host.engine.nextDeadline == nil)
    }

    @Test("A gap costs the message that it falls into, and its receive serves the next one")
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

    @Test("UC without a receive, or without permission, drops the message and goes on")
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
        #expect(probe.host.poll().map(\.opcode) == [.receiveWriteImmediate] && probe.memory[1] == 6)
    }

    @Test("A UC SEND that does not fit its receive: local length error, ERR, and no answer")
    func tooLong() throws {
        let probe = try Probe(.uc)
        probe.postReceive(bytes: 4)
        probe.receive(.ucSendOnly, payload: pattern(5))
        #expect(probe.host.poll().map(\.status) == [.localLengthError])
        #expect(probe.pair.state == .error && probe.sent().isEmpty)
    }

    // MARK: - UD

    private func datagram(_ probe: Probe, _ payload: [UInt8], key: UInt32 = 0x1234, header: [UInt8]) {
        let bytes = probe.packet(.udSendOnlyWithImmediate, payload: payload) { headers in
            headers.deth = DETH(queueKey: key, sourceQP: 0xABCDE)
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

    @Test("The GRH area: an IPv6 header as it is; an IPv4 header behind 20 zero bytes", arguments: [40, 20])
    func header(size: Int) throws {
        let probe = try Probe(.ud)
        for index in 0..<100 { probe.memory[index] = 0xEE }
        probe.postReceive(id: 1, bytes: 100)
        datagram(probe, pattern(7), header: pattern(size, seed: 100))
        let completions = probe.host.poll()
        #expect(completions.map(\.byteCount) == [47])
        #expect(completions[0].flags == [.grh, .withImmediate] && completions[0].sourceQueuePair == 0xABCDE)
        #expect(completions[0].immediate == UInt32(0x0102_0304).bigEndian)
        let zeros = [UInt8](repeating: 0, count: 40 - size)
        #expect(Array(probe.memory[..<47]) == zeros + pattern(size, seed: 100) + pattern(7))
        #expect(probe.memory[47] == 0xEE)
    }

    @Test("Another Q_Key is dropped and counted, and takes no receive")
    func queueKey() throws {
        let probe = try Probe(.ud)
        probe.postReceive(bytes: 100)
        datagram(probe, [1], key: 0x1235, header: [])
        #expect(probe.host.poll().isEmpty && probe.host.engine.counters.droppedQueueKey == 1)
        datagram(probe, [1], header: [])
        #expect(probe.host.poll().count == 1)
    }

    @Test("A receive without room for the GRH area or the payload: local length error", arguments: [0, 39, 46])
    func shortReceive(size: Int) throws {
        let probe = try Probe(.ud)
        probe.postReceive(id: 1, bytes: size)
        datagram(probe, pattern(7), header: pattern(40))
        #expect(probe.host.poll().map(\.status) == [.localLengthError])
        #expect(probe.pair.state == .error)
    }

    @Test("No receive: dropped and counted")
    func noReceive() throws {
        let probe = try Probe(.ud)
        datagram(probe, [1], header: [])
        #expect(probe.host.engine.counters.droppedNoReceive == 1 && probe.pair.state == .readyToSend)
    }

    @Test("A datagram goes to the address of its own; a Q_Key with the top bit set means the queue pair's own")
    func datagramSent() throws {
        let probe = try Probe(.ud)
        for (index, byte) in pattern(10).enumerated() { probe.memory[index] = byte }
        var path = Path(source: probe.host.gid, destination: GID(ipv4: 0x0A00_0042), tag: 5)
        withUnsafePointer(to: &path) { path in
            probe.post(.sendWithImmediate, bytes: 10, flags: .solicited) {
                $0.path = path
                $0.remoteQueuePair = 0x99
                $0.remoteQueueKey = 0x8000_0000
                $0.immediate = UInt32(7).bigEndian
            }
            probe.post(.send, bytes: 0) {
                $0.path = path
                $0.remoteQueueKey = 0x5555
            }
        }
        // The path was copied.
        path.destination = GID()
        let packets = probe.sent()
        #expect(packets.map(\.opcode) == [.udSendOnlyWithImmediate, .udSendOnly])
        #expect(packets[0].headers.deth == DETH(queueKey: 0x1234, sourceQP: probe.pair.number))
        #expect(packets[1].headers.deth.queueKey == 0x5555)
        #expect(packets[0].headers.bth.destinationQP == 0x99 && packets[0].headers.bth.solicited)
        #expect(packets[0].headers.immDt.value == 7 && packets[0].payload == pattern(10))
        #expect(packets[0].path.destination == GID(ipv4: 0x0A00_0042) && packets[0].path.tag == 5)
        #expect(packets[1].psn == packets[0].psn + 1)
        #expect(probe.host.poll().map(\.status) == [.success, .success])
    }

    @Test("A datagram longer than the MTU is a local length error and not sent")
    func tooLongDatagram() throws {
        let probe = try Probe(.ud) { $0.activeMTU = 1024 }
        var path = Path(source: probe.host.gid, destination: probe.peer)
        withUnsafePointer(to: &path) { path in
            #expect(probe.post(.send, bytes: 1025) { $0.path = path } == .success)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.localLengthError])
    }
}
