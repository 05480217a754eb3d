import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

@Suite("Simulator: malformed work requests and doorbells of cxgb4 are refused", .enabled(if: VendorTests.canTrap))
struct Cxgb4RequestTests {
    /// A valid WR, the change that makes it malformed, and the reason of the refusal.
    struct Malformed: Sendable {
        let wr: [UInt8]
        let change: @Sendable (inout [UInt8]) -> Void
        let why: String

        init(_ wr: [UInt8], _ why: String, _ change: @escaping @Sendable (inout [UInt8]) -> Void) {
            (self.wr, self.why, self.change) = (wr, why, change)
        }
    }

    /// An SGE of 16 bytes; keys and addresses are not looked at before the WR is accepted.
    private static let list = Cxgb4WR.list([(0x1234, 16, 0)]) + [UInt8](repeating: 0, count: 8)
    private static let send = Cxgb4WR.send(list, length: 16)
    private static let inline = Cxgb4WR.send(Cxgb4WR.inline([1, 2, 3]), length: 3)
    private static let write = Cxgb4WR.write(list, length: 16, key: 5, address: 0)
    private static let read = Cxgb4WR.read(to: 7, 0, from: 8, 0, length: 4)
    private static let bind = Cxgb4WR.bind(1, to: 2, 0, length: 4, access: 1)
    private static let invalidate = Cxgb4WR.invalidate(9)
    /// WRITE_CMPL: a WRITE of 16 bytes, and a SEND of 16 bytes inline.
    private static let pair: [UInt8] =
        Cxgb4WR.header(0x21, len16: 6) + [0, 1, 1, 0] + [0, 0, 0, 0] + UInt32(16).bigEndianBytes
        + UInt32(5).bigEndianBytes + UInt64(0).bigEndianBytes + [0x81, 0, 0, 0, 0, 0, 0, 16]
        + [UInt8](repeating: 0xA5, count: 16) + [UInt8](repeating: 0, count: 8) + list

    static let malformed: [Malformed] = [
        Malformed(send, "no such opcode of a WR in a send queue (23)") { $0[0] = 0x17 },
        Malformed(send, "a reserved byte of a WR is not zero, at (5)") { $0[5] = 1 },
        Malformed(send, "a WR of another index (1, not 0)") { $0[2] = 1 },
        Malformed(send, "a WR without length") { $0[7] = 0 },
        Malformed(send, "a WR without length, or longer than an entry, in units of 16 bytes (21)") { $0[7] = 21 },
        Malformed(send, "a WR of another length, in units of 16 bytes (3, not 4)") { $0[7] = 3 },
        Malformed(send, "flags that this WR does not have (3, not 13)") { $0[1] = 3 },
        Malformed(send, "no such type of SEND (2)") { $0[11] = 2 },
        Malformed(send, "the type of a SEND and its flag for solicited events differ (5)") { $0[11] = 5 },
        Malformed(send, "the type of a SEND and its flag for solicited events differ (3)") { $0[1] = 5 },
        Malformed(send, "an STag to invalidate, of a SEND without one (9)") { $0[15] = 9 },
        Malformed(send, "reserved byte of a WR is not zero, at (23)") { $0[23] = 1 },
        Malformed(send, "reserved byte of a WR is not zero, at (31)") { $0[31] = 1 },
        Malformed(send, "the SGEs have another length than the WR, in bytes (16, not 17)") { $0[19] = 17 },
        Malformed(send, "there is no such type of payload (130)") { $0[32] = 0x82 },
        Malformed(send, "reserved byte of a WR is not zero, at (33)") { $0[33] = 1 },
        Malformed(send, "reserved byte of a WR is not zero, at (39)") { $0[39] = 1 },
        Malformed(send, "more SGEs than the WR has room for (18, not 17)") { $0[35] = 18 },
        Malformed(send, "reserved byte of a WR is not zero, at (63)") { $0[63] = 1 },
        Malformed(inline, "inline data of another length than the WR's (3, not 4)") { $0[19] = 4 },
        Malformed(inline, "reserved byte of a WR is not zero, at (35)") { $0[35] = 1 },
        Malformed(inline, "reserved byte of a WR is not zero, at (43)") { $0[43] = 1 },
        Malformed(inline, "inline data longer than 280 bytes (281)") { ($0[38], $0[39]) = (1, 25) },
        Malformed(write, "immediate data of a WRITE that has none (1)") { $0[8] = 1 },
        Malformed(write, "flags that this WR does not have (65, not 5)") { $0[1] = 0x41 },
        Malformed(write, "flags that this WR does not have (9, not 5)") { $0[1] = 9 },
        Malformed(read, "flags that this WR does not have (1, not 0)") { $0[1] = 1 },
        Malformed(read, "reserved byte of a WR is not zero, at (15)") { $0[15] = 1 },
        Malformed(read, "reserved byte of a WR is not zero, at (44)") { $0[44] = 1 },
        Malformed(read, "another length, in units of 16 bytes (4, not 3)") { $0[7] = 4 },
        Malformed(read, "STag 0 or 1, which are the kernel driver's (1)") { $0[19] = 1 },
        Malformed(bind, "unknown bits of qpbinde (192)") { $0[8] = 0xC0 },
        Malformed(bind, "addresses that are not virtual (0)") { $0[10] = 0 },
        Malformed(bind, "unknown bits of mem_perms (16)") { $0[11] = 16 },
        Malformed(bind, "reserved byte of a WR is not zero, at (20)") { $0[20] = 1 },
        Malformed(bind, "reserved byte of a WR is not zero, at (47)") { $0[47] = 1 },
        Malformed(invalidate, "reserved byte of a WR is not zero, at (11)") { $0[11] = 1 },
        Malformed(invalidate, "another length, in units of 16 bytes (2, not 1)") { $0[7] = 2 },
        Malformed(pair, "flags that this WR does not have (5, not 1)") { $0[1] = 5 },
        Malformed(pair, "reserved byte of a WR is not zero, at (8)") { $0[8] = 1 },
        Malformed(pair, "reserved byte of a WR is not zero, at (60)") { $0[60] = 1 },
        Malformed(pair, "a WRITE_CMPL writes an SGL (129)") { $0[64] = 0x81 },
        Malformed(pair, "the SGEs have another length than the WR, in bytes (16, not 15)") { $0[19] = 15 },
        Malformed(pair, "another length, in units of 16 bytes (7, not 6)") { $0[7] = 7 },
    ]

    @Test("a malformed send WR raises IBV_EVENT_QP_FATAL and ends the connection", arguments: malformed.indices)
    func sends(index: Int) throws {
        let malformed = Self.malformed[index]
        let bench = try Cxgb4Bench()
        // The WR without the change is accepted: no refusal, whatever becomes of its keys.
        bench.post(malformed.wr)
        #expect(!bench.driver.refusal.hasPrefix("a work request"), "\(bench.driver.refusal)")
        try expectRefusal(try Cxgb4Bench(), malformed.why) { bench in
            var bytes = malformed.wr
            malformed.change(&bytes)
            bench.put(bytes)
            bench.doorbell(UInt32(max(1, (Int(bytes[7]) + 3) / 4)))
        }
    }

    private func expectRefusal(
        _ bench: Cxgb4Bench, _ why: String, at location: SourceLocation = #_sourceLocation,
        _ body: (Cxgb4Bench) throws -> Void
    ) throws {
        try body(bench)
        #expect(bench.driver.refusal.hasPrefix("a work request: "), sourceLocation: location)
        #expect(bench.driver.refusal.contains(why), "\(bench.driver.refusal)", sourceLocation: location)
        #expect(try bench.state == IBV_QPS_ERR, sourceLocation: location)
        var event = ib_uverbs_async_event_desc()
        #expect(sim_read(bench.context.asyncDescriptor, &event, 16) == 16, sourceLocation: location)
        #expect(
            event.event_type == IBV_EVENT_QP_FATAL.rawValue && event.element == 0x1000, sourceLocation: location)
    }

    @Test("the SEND of a WRITE_CMPL is checked after its WRITE; an adapter without WRITE_CMPL refuses it")
    func pairs() throws {
        let changes: [(String, (inout [UInt8]) -> Void)] = [
            ("the SEND of a WRITE_CMPL has another index (2, not 1)", { $0[10] = 2 }),
            ("flags that this SEND does not have (4)", { $0[9] = 4 }),
            ("the SEND of a WRITE_CMPL has 16 bytes (15)", { $0[39] = 15 }),
            ("reserved byte of a WR is not zero, at (35)", { $0[35] = 1 }),
            ("the SEND of a WRITE_CMPL has one SGE", { $0[32] = 0x84 }),
        ]
        func valid(_ bench: Cxgb4Bench) -> [UInt8] {
            var bytes = Self.pair
            bytes.replaceSubrange(20..<24, with: bench.key.bigEndianBytes)
            bytes.replaceSubrange(24..<32, with: bench.address(4096).bigEndianBytes)
            bytes.replaceSubrange(72..<76, with: bench.key.bigEndianBytes)
            bytes.replaceSubrange(80..<88, with: bench.address(0).bigEndianBytes)
            return bytes
        }
        for (why, change) in changes {
            try expectRefusal(try Cxgb4Bench(), why) { bench in
                var bytes = valid(bench)
                change(&bytes)
                bench.post(bytes)
            }
        }
        try expectRefusal(try Cxgb4Bench("cxgb4 t4"), "this adapter has no WRITE_CMPL") { $0.post(valid($0)) }
        let bench = try Cxgb4Bench()
        bench.put(Cxgb4WR.receive([(bench.key, 100, bench.address(200))]), UVERBS_SIM_RECEIVES)
        bench.doorbell(1, isReceive: true)
        bench.post(valid(bench))
        #expect(bench.driver.refusal.isEmpty, "\(bench.driver.refusal)")
        // WRITE; the receive of the SEND, whose requester's CQE follows.
        #expect((0..<3).map(bench.cqe) == [0x10, 0x03, 0x13] && bench.cqeCount == 3)
        #expect(bench.memory.load(fromByteOffset: 215, as: UInt8.self) == 0xA5)
    }

    @Test("a malformed receive WR is refused when a message consumes it")
    func receives() throws {
        let changes: [(String, (inout [UInt8]) -> Void)] = [
            ("no such opcode of a WR in a receive queue (21)", { $0[0] = 0x15 }),
            ("reserved byte of a WR is not zero, at (1)", { $0[1] = 1 }),
            ("a WR of another index (3, not 0)", { $0[2] = 3 }),
            ("reserved byte of a WR is not zero, at (6)", { $0[6] = 1 }),
            ("another length, in units of 16 bytes (3, not 2)", { $0[7] = 3 }),
            ("a receive WR has an SGL (129)", { $0[8] = 0x81 }),
            ("more SGEs than the WR has room for (5, not 4)", { $0[11] = 5 }),
            ("reserved byte of a WR is not zero, at (12)", { $0[12] = 1 }),
        ]
        for (why, change) in changes {
            let bench = try Cxgb4Bench()
            var bytes = Cxgb4WR.receive([(bench.key, 100, bench.address(200))])
            change(&bytes)
            bench.put(bytes, UVERBS_SIM_RECEIVES)
            bench.doorbell(1, isReceive: true)
            try expectRefusal(bench, why) { $0.post(Cxgb4WR.send(Cxgb4WR.inline([1]), length: 1)) }
        }
    }

    @Test("doorbells of a wrong size, offset, QID or number of slots are refused", arguments: ["t4", "t5", "t6 dense"])
    func doorbells(chip: String) throws {
        let bench = try Cxgb4Bench("cxgb4 \(chip)")
        let device = bench.driver.device
        func refuse(_ why: String, at location: SourceLocation = #_sourceLocation, _ body: () -> Void) {
            uverbs_sim_forgive(device)
            body()
            #expect(bench.driver.refusal.contains(why), "\(bench.driver.refusal)", sourceLocation: location)
        }
        let isT4 = chip == "t4"
        let page = bench.sendPage
        let register = isT4 ? 0 : 8
        refuse("another size than a doorbell's, in bytes (8, not 4)") {
            bench.store([1, 0, 0, 0, 0, 0, 0, 0], at: register, page: page)
        }
        refuse("there is no doorbell at this offset of a page (32)") { bench.store([1, 0, 0, 0], at: 32, page: page) }
        refuse("there is no queue of this QID") {
            bench.store((UInt32(9) << 15 | 1).littleEndianBytes, at: register, page: page)
        }
        refuse("a QID beyond the page") {
            bench.store((UInt32(64) << 15 | 1).littleEndianBytes, at: register, page: page)
        }
        refuse("the type or the priority of a doorbell") {
            bench.store((UInt32(1) << 14 | 1).littleEndianBytes, at: register, page: page)
        }
        refuse("a doorbell page of destroyed queues") { bench.store([1, 0, 0, 0], at: register, page: 77) }
        refuse("no completion queue of this CQID") {
            bench.store((UInt32(9) << 16).littleEndianBytes, at: isT4 ? 4 : 20, page: page)
        }
        refuse("a GTS doorbell with another timer (5)") { bench.gts(0, timer: 5) }
        refuse("for solicited events that does not arm") { bench.gts(0, timer: 7, solicited: 1) }
        refuse("more returned CQEs than were written (1, not 0)") { bench.gts(1, timer: 7) }
        // No slots: a library rings so after a refused request.
        uverbs_sim_forgive(device)
        bench.doorbell(0)
        #expect(uverbs_sim_refusals(device) == 0, "\(bench.driver.refusal)")
        refuse("the doorbell announces more slots than the queue has (41, not 40)") { bench.doorbell(41) }
    }

    @Test("a doorbell in the middle of a WR is refused")
    func slots() throws {
        let bytes = Cxgb4WR.send(Cxgb4WR.inline([UInt8](repeating: 1, count: 100)), length: 100)
        try expectRefusal(try Cxgb4Bench(), "the doorbell is in the middle of a WR; announced slots (1, not 3)") {
            $0.put(bytes)
            $0.doorbell(1)
        }
    }

    @Test("a write-combining doorbell: 64 bytes in any order, equal to the queue's WR")
    func combining() throws {
        let bench = try Cxgb4Bench()
        let wr = Cxgb4WR.send(Cxgb4WR.inline([1, 2, 3]), length: 3)
        let copy = wr + [UInt8](repeating: 0x77, count: 64 - wr.count)
        let base = bench.segment(bench.response.sqid) + 64
        bench.put(Cxgb4WR.receive([(bench.key, 100, bench.address(0))]), UVERBS_SIM_RECEIVES)
        bench.doorbell(1, isReceive: true)
        bench.put(wr)
        func combine(_ bytes: [UInt8]) {
            for part in [3, 1, 2, 0] {
                bench.store(Array(bytes[part * 16..<part * 16 + 16]), at: base + part * 16, page: bench.sendPage)
            }
        }
        combine(copy)
        #expect(bench.driver.refusal.isEmpty && bench.cqeCount == 2, "\(bench.driver.refusal)")
        #expect(bench.memory.load(fromByteOffset: 2, as: UInt8.self) == 3)
        bench.store([1, 2, 3, 4], at: base, page: bench.sendPage)
        #expect(bench.driver.refusal.contains("of another size, in bytes (4)"), "\(bench.driver.refusal)")
        bench.store(Array(copy[..<16]), at: base, page: bench.sendPage)
        bench.doorbell(0)
        #expect(bench.driver.refusal.contains("has not filled its write-combining"), "\(bench.driver.refusal)")

        let other = try Cxgb4Bench()
        other.put(wr)
        var wrong = copy
        wrong[40] = 9
        for part in 0..<4 {
            other.store(Array(wrong[part * 16..<part * 16 + 16]), at: base + part * 16, page: other.sendPage)
        }
        #expect(other.driver.refusal.contains("hold different WRs, from byte (40)"), "\(other.driver.refusal)")
    }

    @Test("while db_off is set, T4's doorbells are refused, and MODIFY_QP's are collected")
    func stopped() throws {
        let bench = try Cxgb4Bench("cxgb4 t4")
        #expect(uverbs_sim_stop_doorbells(bench.driver.device, 1) == 0)
        bench.put(Cxgb4WR.receive([(bench.key, 100, bench.address(0))]), UVERBS_SIM_RECEIVES)
        bench.post(Cxgb4WR.send(Cxgb4WR.inline([1]), length: 1))
        #expect(bench.driver.refusal.contains("a doorbell while db_off is set"))
        try bench.modify({ $0.rq_psn = 1 }, [IBV_QP_RQ_PSN])
        try bench.modify({ $0.sq_psn = 1 }, [IBV_QP_SQ_PSN])
        #expect(bench.cqeCount == 0)
        #expect(uverbs_sim_stop_doorbells(bench.driver.device, 0) == 0)
        #expect(bench.cqeCount == 2)
        #expect(uverbs_sim_stop_doorbells(try Cxgb4Bench().driver.device, 1) == EOPNOTSUPP)
    }

    /// Every send WR of the table of malformed ones, as seeds.
    @Test(
        "random WRs and doorbells are executed or refused, and the device continues to work",
        arguments: 1...8 as ClosedRange<UInt64>)
    func fuzz(seed: UInt64) throws {
        var generator = Generator(state: seed)
        func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }
        var accepted = 0
        var reasons = Set<String>()
        let chips = ["t4", "t5", "t6", "t6 windows", "t5 dense", "t5 reorder", "t4 onchip", "t6 notrap"]
        for round in 0..<150 {
            let bench = try Cxgb4Bench("cxgb4 \(chips[round % chips.count])")
            let device = bench.driver.device
            for step in 0..<6 {
                var bytes = Self.malformed[random(Self.malformed.count)].wr
                // The bench's own keys and addresses, sometimes.
                for offset in stride(from: 12, to: bytes.count - 4, by: 4) where random(4) == 0 {
                    bytes.replaceSubrange(offset..<offset + 4, with: bench.key.bigEndianBytes)
                }
                if random(3) > 0 { bytes[2] = UInt8(step) }
                for _ in 0..<random(4) { bytes[random(bytes.count)] = UInt8(random(256)) }
                let isReceive = random(3) == 0
                bench.put(bytes, slot: random(3), isReceive ? UVERBS_SIM_RECEIVES : UVERBS_SIM_SENDS)
                uverbs_sim_forgive(device)
                if random(8) == 0 {
                    let size = [1, 2, 4, 8, 16, 32, 64][random(7)]
                    let junk = (0..<size).map { _ in UInt8(random(256)) }
                    bench.store(junk, at: random(4096 / size) * size, page: UInt32(random(4)))
                } else {
                    bench.doorbell(UInt32(random(6)), isReceive: isReceive)
                }
                _ = uverbs_sim_step(device)
                if uverbs_sim_refusals(device) == 0 { accepted += 1 } else { reasons.insert(bench.driver.refusal) }
            }
            #expect([IBV_QPS_RTS, IBV_QPS_ERR].contains(try bench.state), "round \(round) of seed \(seed)")
            try bench.allocateDomain()
        }
        #expect(accepted > 50 && reasons.count > 20, "\(accepted) accepted, reasons: \(reasons)")
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }
}
