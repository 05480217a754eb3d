import RoCETransport
import RoCEWire
import Testing

@Suite("RC responder: requests and their responses")
struct ResponderTests {
    @Test("A SEND is placed, completed and acknowledged with its PSN and the MSN")
    func send() throws {
        let probe = try Probe()
        probe.postReceive(id: 3, bytes: 100)
        probe.receive(.rcSendOnly, payload: pattern(50))
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcAcknowledge])
        #expect(answers[0].psn == probe.connection.peerPSN && answers[0].syndrome == 0x1F)
        #expect(answers[0].headers.aeth.msn == 1)
        #expect(answers[0].headers.bth.destinationQPN == probe.peerNumber)
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [3] && completions[0].byteCount == 50)
        #expect(Array(probe.memory[..<50]) == pattern(50))
    }

    @Test("One acknowledgement covers all requests that arrived before it was sent")
    func coalescing() throws {
        let probe = try Probe()
        for id in 0..<3 { probe.postReceive(id: UInt64(id), bytes: 8) }
        for offset in 0..<3 { probe.receive(.rcSendOnly, offset, payload: [1]) }
        let answers = probe.sent()
        #expect(answers.map(\.psn) == [probe.connection.peerPSN + 2])
        #expect(answers[0].headers.aeth.msn == 3)
    }

    @Test("A request without BTH.A is not acknowledged")
    func noAcknowledgeRequest() throws {
        let probe = try Probe()
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly, payload: [1], acknowledge: false)
        #expect(probe.sent().isEmpty && probe.host.poll().count == 1)
    }

    @Test("A gap causes one NAK with the expected PSN, and no further response until that PSN arrives")
    func oneNak() throws {
        let probe = try Probe()
        for id in 0..<4 { probe.postReceive(id: UInt64(id), bytes: 8) }
        probe.receive(.rcSendOnly, 1, payload: [1])
        probe.receive(.rcSendOnly, 2, payload: [1])
        let answers = probe.sent()
        #expect(answers.map(\.psn) == [probe.connection.peerPSN] && answers[0].syndrome == 0x60)
        probe.receive(.rcSendOnly, 3, payload: [1])
        #expect(probe.sent().isEmpty && probe.host.poll().isEmpty)
        probe.receive(.rcSendOnly, 0, payload: [1])
        #expect(probe.sent().map(\.syndrome) == [0x1F])
        probe.receive(.rcSendOnly, 2, payload: [1])
        #expect(probe.sent().map(\.psn) == [probe.connection.peerPSN + 1])
        #expect(probe.host.engine.counters.outOfSequence == 4)
    }

    @Test("Copies of a request are no sign of a lost ACK, unless an ACK that covers it was sent to another host before")
    func lateReceiver() throws {
        var connection = Connection(timeout: 10, retryCount: 1)
        let probe = try Probe(.rc, connection)
        for id in 0..<4 { probe.postReceive(id: UInt64(id), bytes: 8) }
        probe.advance(5_000_000)
        // The request and its copy waited in the socket of this host.
        probe.receive(.rcSendOnly, 0)
        probe.advance(5_000_000)
        probe.receive(.rcSendOnly, 0)
        #expect(probe.sent().count == 1 && probe.host.engine.repairCount == 0)
        probe.receive(.rcSendOnly, 1)
        #expect(probe.sent().map(\.isExpendable) == [true])
        // The ACK of the request before does not cover this one.
        probe.advance(5_000_000)
        probe.receive(.rcSendOnly, 2)
        probe.advance(5_000_000)
        probe.receive(.rcSendOnly, 2)
        #expect(probe.sent().count == 1 && probe.host.engine.repairCount == 0)
        // One ACK that is lost is one repair, although all requests that it covers are sent again.
        probe.receive(.rcSendOnly, 3)
        #expect(probe.sent().map(\.isExpendable) == [true])
        probe.advance(5_000_000)
        for offset in 0..<4 { probe.receive(.rcSendOnly, offset) }
        #expect(probe.host.engine.repairCount == 1)
        // Packets to this host are in no GSO batch.
        connection.tag = Path.sameHost
        let local = try Probe(.rc, connection)
        local.postReceive(bytes: 8)
        local.receive(.rcSendOnly, 0)
        #expect(local.sent().count == 1)
        local.advance(5_000_000)
        local.receive(.rcSendOnly, 0)
        #expect(local.sent().count == 1 && local.host.engine.repairCount == 0)
    }

    @Test("An ACK is expendable when sent for the first time; a duplicate request some time later is a repair")
    func expendable() throws {
        let probe = try Probe(.rc, Connection(timeout: 10, retryCount: 1))
        for id in 0..<2 { probe.postReceive(id: UInt64(id), bytes: 8) }
        probe.advance(5_000_000)
        probe.receive(.rcSendOnly, 0)
        #expect(probe.sent().map(\.isExpendable) == [true])
        // The request was sent again before the ACK arrived.
        probe.advance(500_000)
        probe.receive(.rcSendOnly, 0)
        #expect(probe.sent().map(\.isExpendable) == [false])
        #expect(probe.host.engine.repairCount == 0)
        probe.advance(2_000_000)
        probe.receive(.rcSendOnly, 0)
        #expect(probe.sent().map(\.isExpendable) == [false])
        #expect(probe.host.engine.repairCount == 1)
        // A NAK is sent alone.
        probe.receive(.rcSendOnly, 2)
        #expect(probe.sent().map(\.isExpendable) == [false])
        for connection in [Connection(timeout: 0, retryCount: 7), Connection(timeout: 14, retryCount: 0)] {
            let other = try Probe(.rc, connection)
            other.postReceive(bytes: 8)
            other.receive(.rcSendOnly, 0)
            #expect(other.sent().map(\.isExpendable) == [false])
        }
    }

    @Test("A duplicate SEND is acknowledged with the last PSN and not executed again")
    func duplicateSend() throws {
        let probe = try Probe()
        for id in 0..<4 { probe.postReceive(id: UInt64(id), bytes: 8) }
        probe.receive(.rcSendOnly, 0, payload: [1])
        probe.receive(.rcSendOnly, 1, payload: [2])
        _ = probe.sent()
        probe.receive(.rcSendOnly, 0, payload: [1])
        #expect(probe.sent().map(\.psn) == [probe.connection.peerPSN + 1])
        #expect(probe.host.poll().count == 2)
    }

    @Test("Without a posted receive, a SEND causes one RNR NAK with min_rnr_timer, and succeeds when sent again")
    func receiverNotReady() throws {
        let probe = try Probe(.rc, Connection(minRNRTimer: 20))
        probe.receive(.rcSendOnly, 0, payload: [1])
        probe.receive(.rcSendOnly, 1, payload: [1])
        let answers = probe.sent()
        #expect(answers.map(\.syndrome) == [0x34] && answers[0].psn == probe.connection.peerPSN)
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly, 0, payload: [1])
        #expect(probe.sent().map(\.syndrome) == [0x1F])
        #expect(probe.host.poll().count == 1)
    }

    @Test("An RDMA WRITE with immediate data without a posted receive causes an RNR NAK and writes nothing")
    func writeImmediateNotReady() throws {
        let probe = try Probe()
        probe.receiveWrite(.rcWriteOnlyWithImmediate, length: 4, payload: [1, 2, 3, 4])
        #expect(probe.sent().map(\.syndrome) == [0x21])
        #expect(Array(probe.memory[..<4]) == [0, 0, 0, 0])
        probe.host.postReceive(probe.pair, id: 8)
        probe.receiveWrite(.rcWriteOnlyWithImmediate, length: 4, payload: [1, 2, 3, 4])
        #expect(probe.sent().map(\.syndrome) == [0x1F])
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [8] && completions[0].opcode == .receiveWriteWithImmediate)
        #expect(completions[0].byteCount == 4 && completions[0].flags == .withImmediate)
    }

    @Test("An RDMA WRITE of several packets is placed at RETH.VA")
    func write() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.receiveWrite(.rcWriteFirst, 0, length: 600, payload: pattern(256))
        probe.receive(.rcWriteMiddle, 1, payload: pattern(256, seed: 256))
        #expect(probe.sent().count == 1)
        probe.receive(.rcWriteLast, 2, payload: pattern(88, seed: 512))
        #expect(probe.sent().map(\.headers.aeth.msn) == [1])
        #expect(Array(probe.memory[..<600]) == pattern(600))
        #expect(probe.host.poll().isEmpty)
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let syndrome: UInt8
        let event: AsyncEventType
        let send: @Sendable (Probe) -> Void
    }

    static let refusals: [Refusal] = [
        Refusal(testDescription: "WRITE with an unknown key", syndrome: 0x62, event: .accessError) {
            $0.receiveWrite(.rcWriteOnly, key: 0x1234_5678, length: 4, payload: pattern(4))
        },
        Refusal(testDescription: "WRITE beyond the region", syndrome: 0x62, event: .accessError) {
            $0.receiveWrite(
                .rcWriteOnly, at: UInt64(UInt(bitPattern: $0.host.memory.baseAddress! + $0.host.memory.count - 3)),
                length: 4, payload: pattern(4))
        },
        Refusal(testDescription: "WRITE whose last bytes lie beyond the region", syndrome: 0x62, event: .accessError) {
            $0.receiveWrite(.rcWriteFirst, length: $0.host.memory.count + 1, payload: pattern(1024, seed: 1))
        },
        Refusal(testDescription: "WRITE at an address that overflows", syndrome: 0x62, event: .accessError) {
            $0.receiveWrite(.rcWriteOnly, at: .max - 1, length: 4, payload: pattern(4))
        },
        Refusal(testDescription: "WRITE with less payload than RETH.DMALen", syndrome: 0x61, event: .requestError) {
            $0.receiveWrite(.rcWriteOnly, length: 8, payload: pattern(4))
        },
        Refusal(testDescription: "WRITE with more payload than RETH.DMALen", syndrome: 0x61, event: .requestError) {
            $0.receiveWrite(.rcWriteOnly, length: 3, payload: pattern(4))
        },
        Refusal(testDescription: "WRITE first that fits one packet", syndrome: 0x61, event: .requestError) {
            $0.receiveWrite(.rcWriteFirst, length: 1024, payload: pattern(1024))
        },
        Refusal(testDescription: "READ with an unknown key", syndrome: 0x62, event: .accessError) {
            $0.receiveRead(key: 0x1234_5678, length: 4)
        },
        Refusal(testDescription: "READ longer than a message", syndrome: 0x61, event: .requestError) {
            $0.receiveRead(length: 1 << 31 + 1)
        },
        Refusal(testDescription: "atomic that is not aligned", syndrome: 0x61, event: .requestError) {
            $0.receiveFetchAdd(at: $0.address + 4, add: 1)
        },
        Refusal(testDescription: "middle packet without a first", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcSendMiddle, payload: pattern(1024))
        },
        Refusal(testDescription: "last packet without a first", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcWriteLast, payload: pattern(4))
        },
        Refusal(testDescription: "first packet that is not full", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcSendFirst, payload: pattern(1000))
        },
        Refusal(testDescription: "only packet longer than the MTU", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcSendOnly, payload: pattern(1028))
        },
        Refusal(testDescription: "READ request with a payload", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcReadRequest, payload: pattern(4))
        },
        Refusal(testDescription: "FLUSH without a placement type", syndrome: 0x61, event: .requestError) {
            $0.receive(.rcFlush)
        },
        Refusal(testDescription: "an unknown BTH.OpCode", syndrome: 0x61, event: .requestError) { probe in
            var bytes = probe.packet(.rcSendOnly, payload: pattern(4))
            bytes[0] = 0x1F
            probe.receive(bytes)
        },
    ]

    @Test("An invalid request causes NAK, event, ERR and a flush, and writes nothing", arguments: refusals)
    func refusal(_ refusal: Refusal) throws {
        let probe = try Probe()
        probe.postReceive(id: 1, bytes: 2000)
        probe.host.postReceive(probe.pair, id: 2)
        refusal.send(probe)
        let answers = probe.sent()
        #expect(answers.map(\.syndrome) == [refusal.syndrome])
        #expect(answers.map(\.psn) == [probe.connection.peerPSN])
        #expect(probe.pair.state == .error)
        #expect(probe.host.queuePairEvents() == [refusal.event])
        #expect(probe.host.poll().map(\.status) == [.flushed, .flushed])
        #expect(probe.memory.allSatisfy { $0 == 0 })
        probe.receive(.rcSendOnly, payload: [1])
        #expect(probe.sent().isEmpty && probe.host.engine.counters.droppedState == 1)
    }

    @Test("WRITE, READ and atomics that qp_access_flags do not allow are invalid requests", arguments: [0, 1, 2])
    func noPermission(kind: Int) throws {
        let probe = try Probe(.rc, Connection(access: []))
        switch kind {
        case 0: probe.receiveWrite(.rcWriteOnly, length: 4, payload: pattern(4))
        case 1: probe.receiveRead(length: 4)
        default: probe.receiveFetchAdd(add: 1)
        }
        #expect(probe.sent().map(\.syndrome) == [0x61])
        #expect(probe.host.queuePairEvents() == [.requestError] && probe.memory[0] == 0)
    }

    @Test("Requests that the memory region does not allow are remote access errors", arguments: [0, 1, 2, 3])
    func noRegionPermission(kind: Int) throws {
        let probe = try Probe()
        let domain = kind == 3 ? try probe.host.engine.allocateProtectionDomain() : probe.host.domain
        let key = try probe.host.engine.registerMemory(
            domain, address: probe.memory.baseAddress, length: 64, virtualAddress: probe.address,
            access: kind == 3 ? Host.everything : .localWrite)
        switch kind {
        case 0: probe.receiveWrite(.rcWriteOnly, key: key, length: 4, payload: pattern(4, seed: 1))
        case 1: probe.receiveRead(key: key, length: 4)
        case 2:
            probe.receive(.rcFetchAndAdd) {
                $0.atomicETH = AtomicETH(virtualAddress: probe.address, rkey: key, swapOrAdd: 1)
            }
        default: probe.receiveWrite(.rcWriteOnly, key: key, length: 4, payload: pattern(4, seed: 1))
        }
        #expect(probe.sent().map(\.syndrome) == [0x62])
        #expect(probe.host.queuePairEvents() == [.accessError] && probe.memory[0] == 0)
    }

    @Test("A WRITE and a READ of length 0 need no valid R_Key")
    func zeroLength() throws {
        let probe = try Probe()
        probe.receiveWrite(.rcWriteOnly, 0, at: 5, key: 0, length: 0, payload: [])
        probe.receiveRead(1, at: 5, key: 0, length: 0)
        let answers = probe.sent()
        #expect(answers.map(\.opcode) == [.rcReadResponseOnly])
        #expect(answers[0].payload.isEmpty && answers[0].headers.aeth.msn == 2)
    }

    @Test("A SEND longer than the receive is a NAK \"Invalid Request\" and a local length error")
    func tooLong() throws {
        let probe = try Probe()
        probe.postReceive(id: 4, bytes: 10)
        probe.postReceive(id: 5, bytes: 10)
        probe.receive(.rcSendOnly, payload: pattern(11))
        #expect(probe.sent().map(\.syndrome) == [0x61])
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [4, 5])
        #expect(completions.map(\.status) == [.localLengthError, .flushed])
        #expect(probe.pair.state == .error)
    }

    @Test("A receive with a wrong L_Key is a NAK \"Remote Operational Error\" and a local protection error")
    func badReceive() throws {
        let probe = try Probe()
        var sge = probe.sge(10)
        sge.lkey ^= 1
        probe.host.postReceive(probe.pair, id: 4, [sge])
        probe.receive(.rcSendOnly, payload: pattern(10))
        #expect(probe.sent().map(\.syndrome) == [0x63])
        #expect(probe.host.poll().map(\.status) == [.localProtectionError])
    }

    @Test("The first packet in RTR reports COMM_EST once")
    func established() throws {
        let probe = try Probe(upTo: .readyToReceive)
        probe.postReceive(bytes: 8)
        probe.receive(.rcSendOnly, 0, payload: [1])
        probe.receive(.rcSendOnly, 1, payload: [1])
        #expect(probe.host.queuePairEvents() == [.communicationEstablished])
        #expect(probe.host.poll().count == 1)
    }

    @Test("A completion queue armed for solicited events raises an event for solicited SENDs only")
    func solicited() throws {
        let probe = try Probe()
        for _ in 0..<4 { probe.postReceive(bytes: 8) }
        probe.host.completions.arm(solicitedOnly: true)
        probe.receive(.rcSendOnly, 0, payload: [1])
        #expect(probe.host.events().isEmpty)
        probe.receive(.rcSendOnly, 1, payload: [1]) { $0.bth.solicited = true }
        #expect(probe.host.events().count == 1)
        probe.receive(.rcSendOnly, 2, payload: [1]) { $0.bth.solicited = true }
        #expect(probe.host.events().isEmpty)
        probe.host.completions.arm(solicitedOnly: false)
        probe.receive(.rcSendOnly, 3, payload: [1])
        #expect(probe.host.events().count == 1)
    }
}
