import RoCETransport
import RoCEWire
import Testing

@Suite("RC requester: requests and responses")
struct RequesterTests {
    @Test("A SEND of several packets is first, middle, last; the last packet has BTH.A")
    func segmentation() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        for (index, byte) in pattern(600).enumerated() { probe.memory[index] = byte }
        probe.post(.sendWithImmediate, bytes: 600, flags: .solicited) { $0.immediate = UInt32(0xDEAD_BEEF).bigEndian }
        let packets = probe.sent()
        #expect(packets.map(\.opcode) == [.rcSendFirst, .rcSendMiddle, .rcSendLastWithImmediate])
        #expect(packets.map(\.headers.bth.acknowledgeRequest) == [false, false, true])
        #expect(packets.map(\.headers.bth.solicited) == [false, false, true])
        #expect(packets[2].headers.immDt.value == 0xDEAD_BEEF)
        #expect(packets.flatMap(\.payload) == pattern(600))
        #expect(packets.allSatisfy { $0.path.destination == probe.peer && $0.path.source == probe.host.gid })
    }

    @Test("RETH.DMALen of the first packet is the length of the whole WRITE, and PSNs wrap")
    func write() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, psn: 0xFF_FFFF))
        probe.post(.writeWithImmediate, bytes: 300)
        let packets = probe.sent()
        #expect(packets.map(\.opcode) == [.rcWriteFirst, .rcWriteLastWithImmediate])
        #expect(packets.map(\.psn) == [0xFF_FFFF, 0])
        #expect(packets[0].headers.reth == RETH(virtualAddress: 0x10000, rkey: 0x4242, dmaLength: 300))
        probe.acknowledge(1)
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    @Test("An acknowledgement of a message also completes the earlier ones, signaled or not")
    func cumulative() throws {
        let probe = try Probe(sqSigAll: false)
        probe.post(.send, id: 1, flags: .signaled)
        probe.post(.send, id: 2)
        probe.post(.send, id: 3, flags: .signaled)
        #expect(probe.sent().count == 3)
        probe.acknowledge(2)
        #expect(probe.host.poll().map(\.id) == [1, 3])
    }

    @Test("Responses with PSNs that are not outstanding are ignored", arguments: [-1, 1, 1 << 22, -(1 << 22)])
    func stray(offset: Int) throws {
        let probe = try Probe()
        probe.post(.send)
        #expect(probe.sent().count == 1)
        probe.acknowledge(offset)
        probe.acknowledge(offset, .nak(.remoteAccessError))
        probe.acknowledge(offset, .rnrNAK(RNRTimer(rawValue: 1)))
        #expect(probe.host.poll().isEmpty && probe.pair.state == .readyToSend)
        #expect(probe.host.engine.counters.strayResponses == 3)
        probe.acknowledge(0)
        #expect(probe.host.poll().count == 1)
    }

    @Test("Without a response: retry_cnt retries, each after 4.096 us * 2^timeout, then RETRY_EXC_ERR and a flush")
    func timeout() throws {
        // Shorter than the initial retransmission timeout.
        let probe = try Probe(.rc, Connection(timeout: 10, retryCount: 3))
        probe.post(.send, id: 1)
        probe.post(.send, id: 2)
        probe.postReceive(id: 3, bytes: 8)
        #expect(probe.sentOffsets() == [0, 1])
        for _ in 0..<3 {
            probe.advance(4096 << 10 - 1)
            #expect(probe.sentOffsets() == [])
            probe.advance(1)
            #expect(probe.sentOffsets() == [0, 1])
        }
        probe.advance(4096 << 10)
        #expect(probe.sent().isEmpty)
        let completions = probe.host.poll()
        #expect(completions.map(\.id) == [1, 2, 3])
        #expect(completions.map(\.status) == [.retryExceeded, .flushed, .flushed])
        #expect(probe.pair.state == .error && probe.host.engine.nextDeadline == nil)
    }

    @Test("With timeout 0, no local ACK timeout runs")
    func noTimeout() throws {
        let probe = try Probe(.rc, Connection(timeout: 0))
        probe.post(.send)
        _ = probe.sent()
        #expect(probe.host.engine.nextDeadline == nil)
    }

    @Test("Progress restarts the local ACK timeout and the retry counter")
    func progress() throws {
        let probe = try Probe(.rc, Connection(timeout: 10, retryCount: 1))
        probe.post(.send)
        probe.post(.send)
        _ = probe.sent()
        probe.advance(4096 << 10)
        #expect(probe.sentOffsets() == [0, 1])
        probe.acknowledge(0)
        probe.advance(4096 << 10 - 1)
        #expect(probe.sent().isEmpty)
        probe.advance(1)
        #expect(probe.sentOffsets() == [1])
        #expect(probe.pair.state == .readyToSend)
    }

    @Test("A NAK for a PSN sequence error acknowledges the requests before it and causes one go-back")
    func sequenceNAK() throws {
        let probe = try Probe()
        for id in 0..<4 { probe.post(.send, id: UInt64(id)) }
        #expect(probe.sentOffsets() == [0, 1, 2, 3])
        probe.acknowledge(2, .nak(.psnSequenceError))
        #expect(probe.host.poll().map(\.id) == [0, 1])
        #expect(probe.sentOffsets() == [2, 3])
        probe.acknowledge(2, .nak(.psnSequenceError))
        #expect(probe.sent().isEmpty)
    }

    @Test("Packets are expendable when sent for the first time; an acknowledged retransmission is a repair")
    func expendable() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, timeout: 10, retryCount: 1))
        probe.post(.send, bytes: 600)
        #expect(probe.sent().map(\.isExpendable) == [true, true, true])
        probe.acknowledge(1, .nak(.psnSequenceError))
        probe.post(.write, bytes: 8)
        #expect(probe.sent().map(\.isExpendable) == [false, false, true])
        #expect(probe.host.engine.repairCount == 0)
        probe.acknowledge(3)
        #expect(probe.host.engine.repairCount == 1)
        for offset in [4, 5] {
            probe.post(.send)
            #expect(probe.sent().map(\.isExpendable) == [true])
            probe.advance(4096 << 10)
            #expect(probe.sent().map(\.isExpendable) == [false])
            probe.acknowledge(offset)
        }
        #expect(probe.host.engine.counters.repairs == 3)
        // For a READ, the response seems lost, which the responder counts.
        probe.post(.read, bytes: 8)
        #expect(probe.sent().map(\.isExpendable) == [true])
        probe.advance(4096 << 10)
        #expect(probe.sent().map(\.isExpendable) == [false])
        probe.receive(.rcReadResponseOnly, 6, payload: pattern(8))
        #expect(probe.host.poll().last?.status == .success)
        #expect(probe.host.engine.repairCount == 3)
    }

    @Test("Retries without a response are no repairs; without retries, no packet is expendable")
    func notExpendable() throws {
        let dead = try Probe(.rc, Connection(timeout: 10, retryCount: 2))
        dead.post(.send)
        #expect(dead.sent().map(\.isExpendable) == [true])
        for _ in 0..<3 {
            dead.advance(4096 << 10)
            #expect(dead.sent().allSatisfy { !$0.isExpendable })
        }
        #expect(dead.pair.state == .error && dead.host.engine.repairCount == 0)
        for (type, connection) in [
            (.rc, Connection(timeout: 0, retryCount: 7)), (.rc, Connection(timeout: 14, retryCount: 0)),
            (.uc, Connection(timeout: 14, retryCount: 7)),
        ] as [(QueuePairType, Connection)] {
            let probe = try Probe(type, connection)
            probe.post(.send)
            #expect(probe.sent().map(\.isExpendable) == [false])
        }
    }

    @Test("After an RNR NAK, no request is sent before its timer expires", arguments: [1, 20, 0] as [UInt8])
    func rnr(code: UInt8) throws {
        let probe = try Probe()
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(1, .rnrNAK(RNRTimer(rawValue: code)))
        #expect(probe.host.poll().map(\.id) == [0])
        probe.post(.send, id: 3)
        let wait = RNRTimer(rawValue: code).nanoseconds
        probe.advance(wait - 1)
        #expect(probe.sent().isEmpty)
        probe.advance(1)
        #expect(probe.sentOffsets() == [1, 2, 3])
    }

    @Test(
        "A NAK does not change a running RNR timer, with or without a local ACK timeout", arguments: [0, 10] as [UInt8])
    func nakDuringRNRWait(timeout: UInt8) throws {
        let probe = try Probe(.rc, Connection(timeout: timeout))
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        let timer = RNRTimer(rawValue: 1)
        probe.acknowledge(0, .rnrNAK(timer))
        probe.acknowledge(0, .nak(.psnSequenceError))
        probe.advance(timer.nanoseconds - 1)
        #expect(probe.sent().isEmpty)
        probe.advance(1)
        #expect(probe.sentOffsets() == [0, 1, 2])
    }

    @Test("rnr_retry retries, then RNR_RETRY_EXC_ERR; 7 is infinite", arguments: [0, 2, 7] as [UInt8])
    func rnrRetry(count: UInt8) throws {
        let probe = try Probe(.rc, Connection(rnrRetry: count))
        probe.post(.send)
        for _ in 0..<Int(count) {
            #expect(probe.sentOffsets() == [0])
            probe.acknowledge(0, .rnrNAK(RNRTimer(rawValue: 1)))
            probe.advance(10_000)
        }
        for _ in 0..<(count == 7 ? 50 : 0) {
            #expect(probe.sentOffsets() == [0])
            probe.acknowledge(0, .rnrNAK(RNRTimer(rawValue: 1)))
            probe.advance(10_000)
        }
        #expect(probe.sentOffsets() == [0])
        probe.acknowledge(0, .rnrNAK(RNRTimer(rawValue: 1)))
        #expect(probe.host.poll().map(\.status) == (count == 7 ? [] : [.rnrRetryExceeded]))
    }

    @Test(
        "A NAK completes the work request of its PSN with the status of its code",
        arguments: [
            (AETHSyndrome.NAKCode.invalidRequest, CompletionStatus.remoteInvalidRequestError),
            (.remoteAccessError, .remoteAccessError), (.remoteOperationalError, .remoteOperationError),
        ])
    func nak(code: AETHSyndrome.NAKCode, status: CompletionStatus) throws {
        let probe = try Probe()
        for id in 0..<3 { probe.post(.send, id: UInt64(id)) }
        _ = probe.sent()
        probe.acknowledge(1, .nak(code))
        let completions = probe.host.poll()
        #expect(completions.map(\.status) == [.success, status, .flushed])
        #expect(completions[1].vendorError == UInt32(AETHSyndrome.nak(code).rawValue))
        #expect(probe.pair.state == .error)
    }

    @Test("A READ completes with its last response, and each response is placed at its offset")
    func read() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.post(.read, bytes: 600)
        let requests = probe.sent()
        #expect(requests.map(\.opcode) == [.rcReadRequest])
        #expect(requests[0].headers.reth == RETH(virtualAddress: 0x10000, rkey: 0x4242, dmaLength: 600))
        probe.receive(.rcReadResponseFirst, 0, payload: pattern(256))
        probe.receive(.rcReadResponseMiddle, 1, payload: pattern(256, seed: 256))
        #expect(probe.host.poll().isEmpty)
        probe.receive(.rcReadResponseLast, 2, payload: pattern(88, seed: 512))
        let completions = probe.host.poll()
        #expect(completions.map(\.opcode) == [.read] && completions[0].byteCount == 600)
        #expect(Array(probe.memory[..<600]) == pattern(600))
    }

    @Test("After a missing READ response, the request is sent again with address and length of the rest")
    func missingResponse() throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.post(.read, bytes: 600)
        _ = probe.sent()
        probe.receive(.rcReadResponseFirst, 0, payload: pattern(256))
        probe.receive(.rcReadResponseLast, 2, payload: pattern(88, seed: 512))
        let requests = probe.sent()
        #expect(requests.map(\.psn) == [probe.connection.psn + 1])
        #expect(requests[0].headers.reth == RETH(virtualAddress: 0x10100, rkey: 0x4242, dmaLength: 344))
        probe.receive(.rcReadResponseFirst, 1, payload: pattern(256, seed: 256))
        probe.receive(.rcReadResponseLast, 2, payload: pattern(88, seed: 512))
        #expect(probe.host.poll().map(\.status) == [.success])
        #expect(Array(probe.memory[..<600]) == pattern(600))
    }

    @Test("An acknowledgement of a request after a READ is an implied NAK for the READ")
    func impliedNak() throws {
        let probe = try Probe()
        probe.post(.send, id: 0)
        probe.post(.read, id: 1)
        probe.post(.send, id: 2)
        #expect(probe.sentOffsets() == [0, 1, 2])
        probe.acknowledge(2)
        #expect(probe.host.poll().map(\.id) == [0])
        #expect(probe.sentOffsets() == [1, 2])
        #expect(probe.host.engine.counters.impliedNAKs == 1)
    }

    @Test("A long READ is sent as several requests, whose ends are the same when sent again")
    func readSegments() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, maxReadAtomic: 2)) { $0.readSegment = 2 }
        probe.post(.read, bytes: 5 * 256)
        var requests = probe.sent()
        #expect(requests.map(\.headers.reth.dmaLength) == [512, 512])
        probe.receive(.rcReadResponseFirst, 0, payload: pattern(256))
        probe.receive(.rcReadResponseLast, 1, payload: pattern(256))
        requests = probe.sent()
        #expect(requests.map(\.headers.reth.virtualAddress) == [0x10400] && requests[0].headers.reth.dmaLength == 256)
        probe.receive(.rcReadResponseFirst, 2, payload: pattern(256))
        probe.advance(4096 << 10)
        requests = probe.sent()
        #expect(requests.map(\.headers.reth.virtualAddress) == [0x10300, 0x10400])
        #expect(requests.map(\.headers.reth.dmaLength) == [256, 256])
    }

    @Test("READ requests are no longer than half of the window of the destination, and shorter after a loss")
    func readSegmentsFollowWindow() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, maxReadAtomic: 16)) { $0.initialPathWindow = 8 }
        probe.post(.read, bytes: 16 * 256)
        var requests = probe.sent()
        #expect(requests.map(\.headers.reth.virtualAddress) == [0x10000, 0x10400])
        #expect(requests.map(\.headers.reth.dmaLength) == [1024, 1024])
        // The response at 1 is lost. The window is 9 after the first response, 4 after the loss.
        probe.receive(.rcReadResponseFirst, 0, payload: pattern(256))
        #expect(probe.sent().map(\.headers.reth.dmaLength) == [1024])
        probe.receive(.rcReadResponseFirst, 4, payload: pattern(256))
        // Parts of requests that were sent before follow each other: the responder may remember the last one only.
        requests = probe.sent()
        #expect(requests.map(\.headers.reth.virtualAddress) == [0x10100])
        #expect(requests.map(\.headers.reth.dmaLength) == [256])
        // The responses to the first request may still arrive, which ends elsewhere.
        probe.receive(.rcReadResponseMiddle, 1, payload: pattern(256))
        requests = probe.sent()
        #expect(requests.map(\.headers.reth.virtualAddress) == [0x10200])
        #expect(requests.map(\.headers.reth.dmaLength) == [512])
        probe.receive(.rcReadResponseMiddle, 2, payload: pattern(256))
        probe.receive(.rcReadResponseLast, 3, payload: pattern(256))
        for position in 4..<16 {
            _ = probe.sent()
            let first = position % 2 == 0
            probe.receive(first ? .rcReadResponseFirst : .rcReadResponseLast, position, payload: pattern(256))
        }
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    /// Answers all READ requests until none is sent any more. Returns their lengths in packets of 256 bytes. `answered`
    /// is the number of packets before the READ.
    private func answerReads(_ probe: Probe, after answered: Int = 0) -> [Int] {
        var lengths: [Int] = []
        var requests = probe.sent()
        while !requests.isEmpty {
            var next: [Probe.Sent] = []
            for request in requests {
                let first = answered + Int(request.headers.reth.virtualAddress - 0x10000) / 256
                let count = Int(request.headers.reth.dmaLength) / 256
                lengths.append(count)
                for index in 0..<count {
                    let opcode: Opcode =
                        count == 1
                        ? .rcReadResponseOnly
                        : index == 0
                            ? .rcReadResponseFirst
                            : index + 1 == count ? .rcReadResponseLast : .rcReadResponseMiddle
                    probe.receive(opcode, first + index, payload: pattern(256))
                    next += probe.sent()
                }
            }
            requests = next
        }
        return lengths
    }

    @Test("The requests of a READ that a loss made shorter become longer again")
    func readSegmentsGrowAgain() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, timeout: 10, maxReadAtomic: 1)) {
            $0.initialPathWindow = 64
            $0.readSegment = 16
        }
        probe.post(.read, bytes: 64 * 256)
        #expect(probe.sent().map(\.headers.reth.dmaLength) == [16 * 256])
        probe.advance(4096 << 10)
        let lengths = answerReads(probe)
        #expect(lengths.reduce(0, +) == 64 && lengths.count < 16 && lengths.max() == 16)
        #expect(probe.host.poll().map(\.status) == [.success])
    }

    @Test("Short SENDs do not increase a window that made READs shorter")
    func sendsAfterReads() throws {
        let probe = try Probe(.rc, Connection(mtu: 256, maxReadAtomic: 1)) { $0.initialPathWindow = 4 }
        probe.post(.read, bytes: 4 * 256)
        #expect(answerReads(probe).first == 2)
        probe.post(.read, bytes: 8 * 256)
        let before = answerReads(probe, after: 4)
        for index in 0..<100 {
            probe.post(.send)
            #expect(probe.sent().count == 1)
            probe.acknowledge(12 + index)
        }
        probe.post(.read, bytes: 64 * 256)
        let after = probe.sent().map(\.headers.reth.dmaLength)
        #expect(before.last! <= 8 && after == [8 * 256])
        #expect(probe.host.poll().count == 102)
    }

    struct BadResponse: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let send: @Sendable (Probe) -> Void
    }

    static let badResponses: [BadResponse] = [
        BadResponse(testDescription: "last too early") { $0.receive(.rcReadResponseLast, 0, payload: pattern(88)) },
        BadResponse(testDescription: "only") { $0.receive(.rcReadResponseOnly, 0, payload: pattern(256)) },
        BadResponse(testDescription: "middle at the start") {
            $0.receive(.rcReadResponseMiddle, payload: pattern(256))
        },
        BadResponse(testDescription: "too short") { $0.receive(.rcReadResponseFirst, payload: pattern(252)) },
        BadResponse(testDescription: "too long") { $0.receive(.rcReadResponseFirst, payload: pattern(260)) },
        BadResponse(testDescription: "of an atomic") { $0.receive(.rcAtomicAcknowledge) },
    ]

    @Test("An invalid response completes the READ with BAD_RESP_ERR", arguments: badResponses)
    func badResponseError(_ response: BadResponse) throws {
        let probe = try Probe(.rc, Connection(mtu: 256))
        probe.post(.read, bytes: 600)
        _ = probe.sent()
        response.send(probe)
        #expect(probe.host.poll().map(\.status) == [.badResponseError])
    }

    @Test("A READ response to a SEND completes it with BAD_RESP_ERR")
    func responseToSend() throws {
        let probe = try Probe()
        probe.post(.send)
        _ = probe.sent()
        probe.receive(.rcReadResponseOnly, payload: pattern(8))
        #expect(probe.host.poll().map(\.status) == [.badResponseError])
    }

    @Test("Atomics send operands in AtomicETH and store the original value in host byte order")
    func atomics() throws {
        let probe = try Probe()
        probe.post(.compareAndSwap) {
            $0.compareAdd = 11
            $0.swap = 22
        }
        probe.post(.fetchAndAdd) { $0.compareAdd = 33 }
        let requests = probe.sent()
        #expect(requests.map(\.opcode) == [.rcCompareAndSwap, .rcFetchAndAdd])
        #expect(requests[0].headers.atomicETH.compare == 11 && requests[0].headers.atomicETH.swapOrAdd == 22)
        #expect(requests[1].headers.atomicETH.compare == 0 && requests[1].headers.atomicETH.swapOrAdd == 33)
        probe.receive(.rcAtomicAcknowledge, 0) { $0.atomicAckETH = AtomicAckETH(original: 0x0102_0304_0506_0708) }
        #expect(probe.memory.load(as: UInt64.self) == 0x0102_0304_0506_0708)
        let completions = probe.host.poll()
        #expect(completions.map(\.opcode) == [.compareAndSwap] && completions[0].byteCount == 8)
    }

    @Test("At most max_rd_atomic READs and atomics are outstanding")
    func readLimit() throws {
        let probe = try Probe(.rc, Connection(maxReadAtomic: 2))
        for _ in 0..<4 { probe.post(.read) }
        probe.post(.send)
        #expect(probe.sentOffsets() == [0, 1])
        probe.receive(.rcReadResponseOnly, 0, payload: pattern(8))
        #expect(probe.sentOffsets() == [2])
    }

    @Test("A fenced work request starts when the READs before it are complete")
    func fence() throws {
        let probe = try Probe()
        probe.post(.read)
        probe.post(.send)
        probe.post(.send, flags: .fence)
        #expect(probe.sentOffsets() == [0, 1])
        probe.receive(.rcReadResponseOnly, 0, payload: pattern(8))
        #expect(probe.sentOffsets() == [2])
    }

    @Test("With max_rd_atomic 0, a READ completes with LOC_QP_OP_ERR")
    func noReads() throws {
        let probe = try Probe(.rc, Connection(maxReadAtomic: 0))
        probe.post(.read)
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.localQPOperationError])
    }

    @Test("The window limits the unacknowledged packets, and its last packet has BTH.A")
    func window() throws {
        let probe = try Probe(.rc, Connection(mtu: 256)) { configuration in
            configuration.maximumWindow = 4
            configuration.initialWindow = 4
        }
        probe.post(.send, bytes: 10 * 256)
        let packets = probe.sent()
        #expect(packets.count == 4 && packets[3].headers.bth.acknowledgeRequest)
        probe.acknowledge(1)
        #expect(probe.sentOffsets() == [4, 5])
    }

    @Test("A work request with a wrong L_Key fails after those before it, and no packet of it is sent")
    func badKey() throws {
        let probe = try Probe()
        probe.post(.send, id: 0)
        var sge = probe.sge(8)
        sge.lkey ^= 1
        probe.host.post(probe.pair, SendWQE(id: 1, opcode: .send), [probe.sge(8), sge])
        probe.post(.send, id: 2)
        #expect(probe.sentOffsets() == [0])
        #expect(probe.host.poll().isEmpty && probe.pair.state == .readyToSend)
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.status) == [.success, .localProtectionError, .flushed])
    }

    @Test("READs and atomics need SGEs with local write access; a SEND does not")
    func localWrite() throws {
        let probe = try Probe()
        let key = try probe.host.engine.registerMemory(
            probe.host.domain, address: probe.memory.baseAddress, length: 64, virtualAddress: 0, access: [])
        let sge = SGE(address: 0, length: 8, lkey: key)
        probe.host.post(probe.pair, SendWQE(id: 0, opcode: .send), [sge])
        probe.host.post(probe.pair, SendWQE(id: 1, opcode: .read), [sge])
        #expect(probe.sentOffsets() == [0])
        probe.acknowledge(0)
        #expect(probe.host.poll().map(\.status) == [.success, .localProtectionError])
    }

    @Test(
        "A message longer than 2^31 bytes, and an atomic with less than 8, is LOC_LEN_ERR", arguments: [0, 1])
    func lengths(kind: Int) throws {
        let probe = try Probe()
        if kind == 0 {
            let sge = SGE(address: probe.address, length: .max, lkey: probe.host.key)
            probe.host.post(probe.pair, SendWQE(id: 0, opcode: .send), [sge, sge])
        } else {
            probe.post(.fetchAndAdd, bytes: 7)
        }
        #expect(probe.sent().isEmpty)
        #expect(probe.host.poll().map(\.status) == [.localLengthError])
    }
}
