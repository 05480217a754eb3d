import RoCETransport
import RoCEWire
import Testing

@Suite("Rate limits")
struct PacingTests {
    /// The bytes that leave in `steps` steps of 10 us each, by steps.
    private func bytes(_ probe: Probe, steps: Int) -> Int {
        var count = 0
        for _ in 0..<steps {
            for packet in probe.sent() { count += packet.payload.count }
            probe.advance(10_000)
        }
        return count
    }

    @Test("A send queue stays below its rate limit, and reaches it", arguments: [QueuePairType.rc, .uc])
    func rate(type: QueuePairType) throws {
        let probe = try Probe(type, Connection(timeout: 31))
        // 1 Gbit/s, 125 bytes per microsecond; 4 KiB at once.
        try probe.host.engine.limitRate(of: probe.pair, to: 1_000_000, burst: 4096)
        probe.now += 1_000_000_000
        for _ in 0..<20 { probe.post(.write, bytes: 16384) }
        // 1 ms: 125,000 bytes with headers, and the burst.
        let sent = bytes(probe, steps: 100)
        let window = 32 * 1024
        if type == .uc {
            #expect((115_000...129_000).contains(sent))
        } else {
            // Nothing is acknowledged, so the window ends it.
            #expect(sent == window)
        }
    }

    @Test("Without a limit all packets leave at once; a limit that is removed lets the waiting ones leave")
    func removal() throws {
        let probe = try Probe(.uc)
        try probe.host.engine.limitRate(of: probe.pair, to: 8)
        probe.post(.write, bytes: 16384)
        #expect(probe.sent().count == 1)
        #expect(probe.host.engine.nextDeadline != nil)
        try probe.host.engine.limitRate(of: probe.pair, to: 0)
        #expect(probe.sent().count == 15)
    }

    @Test("A waiting queue pair holds back no other one, and can be reset and destroyed")
    func others() throws {
        let host = try Host()
        let memory = host.take(4096)
        let pairs = try (0..<3).map { _ in try host.makeQueuePair(.uc, sqSigAll: true) }
        for pair in pairs { try host.connect(pair, to: GID(ipv4: 9), number: 1) }
        for pair in pairs[..<2] {
            var attributes = QueuePairAttributes()
            attributes.rateLimit = 8
            try host.engine.modify(pair, attributes, .rateLimit)
            #expect(host.engine.attributes(of: pair).rateLimit == 8)
        }
        for pair in pairs { host.post(pair, SendWQE(id: 0, opcode: .write), [host.sge(memory)]) }
        var count = 0
        while host.engine.transmit(into: host.packet, now: 5) != nil { count += 1 }
        #expect(count == 1 + 1 + 4)
        host.destroy(pairs[0])
        try host.move(pairs[1], to: .reset)
        #expect(host.engine.nextDeadline == nil)
        host.engine.advance(to: 1 << 50)
    }

    @Test("A rate above the limit of the device, and a limit before RTS, are EINVAL")
    func refusals() throws {
        let probe = try Probe(upTo: .readyToReceive)
        #expect(throws: Errno.invalid) { try probe.host.engine.limitRate(of: probe.pair, to: 1000) }
        let ready = try Probe()
        #expect(throws: Errno.invalid) {
            try ready.host.engine.limitRate(of: ready.pair, to: Limits.maxRateLimit + 1)
        }
        var attributes = QueuePairAttributes()
        attributes.rateLimit = Limits.maxRateLimit + 1
        #expect(throws: Errno.invalid) { try ready.host.engine.modify(ready.pair, attributes, .rateLimit) }
    }
}
