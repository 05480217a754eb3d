import CAllocationCounter
import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: posting writes work requests and doorbells")
struct PostingTests {
    private let signaled = IBV_SEND_SIGNALED.rawValue

    /// A device with one queue pair. Its first segment of 128 bytes is at 0x410 & 0xF = 0 of the page.
    private func bench(
        chip: UInt32 = 5, requests: UInt32 = 15, pairsWriteAndSend: Bool = false,
        _ change: (FakeDevice) -> Void = { _ in }
    ) throws -> (FakeDevice, FakeCompletions, FakePair) {
        let device = try FakeDevice(chip: chip, pairsWriteAndSend: pairsWriteAndSend)
        change(device)
        let completions = try FakeCompletions(device)
        return (device, completions, try FakePair(device, completions, requests: requests))
    }

    @Test("A SEND of 16 inline bytes is one slot, byte for byte, and is written to the doorbell as a whole")
    func vector() throws {
        let (device, completions, pair) = try bench()
        #expect(pair.post([payload(16).send(IBV_WR_SEND, flags: signaled | IBV_SEND_INLINE.rawValue)]).error == 0)
        let bytes: [UInt8] =
            [0x15, 1, 0, 0, 0, 0, 0, 4] + [0, 0, 0, 3, 0, 0, 0, 0] + [0, 0, 0, 16] + [UInt8](repeating: 0, count: 12)
            + [0x81, 0, 0, 0, 0, 0, 0, 16] + (1...16).map { UInt8($0) } + [UInt8](repeating: 0, count: 8)
        #expect(pair.sends(0, 64) == bytes)
        #expect((0..<64).map { pair.doorbell.load(fromByteOffset: 64 + $0, as: UInt8.self) } == bytes)
        #expect(pair.takeDoorbell(8) == 0)
        // The number of the next slot, which the kernel needs, and the index of the next work request.
        #expect(pair.sendStatus.load(fromByteOffset: 16, as: UInt16.self) == 1)
        #expect(pair.sendStatus.load(fromByteOffset: 20, as: UInt16.self) == 1)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    /// The bytes of a work request after its header.
    private func body(_ opcode: ibv_wr_opcode, solicited: Bool) -> [UInt8] {
        let remote = big(UInt32(0xAABB_CCDD)) + big(UInt64(0x1122_3344_5566_7788))
        switch opcode {
        case IBV_WR_SEND, IBV_WR_SEND_WITH_INV:
            let inverts = opcode == IBV_WR_SEND_WITH_INV
            let operation: UInt32 = (inverts ? 4 : 3) + (solicited ? 2 : 0)
            return big(operation) + big(UInt32(inverts ? 0x5566 : 0)) + big(UInt32(6))
                + [UInt8](repeating: 0, count: 12) + listBytes(3)
        case IBV_WR_RDMA_WRITE: return big(UInt64(0)) + big(UInt32(6)) + remote + listBytes(3)
        case IBV_WR_RDMA_WRITE_WITH_IMM:
            return big(UInt32(0x0102_0304)) + big(UInt32(0)) + big(UInt32(6)) + remote + listBytes(3)
        case IBV_WR_RDMA_READ:
            return big(UInt64(0)) + big(UInt32(0x101)) + big(UInt64(0x1000)) + big(UInt32(1)) + remote + big(UInt32(0))
        default: return big(UInt32(0)) + big(UInt32(0x5566))
        }
    }

    @Test("Each operation has its opcode, flags and body", arguments: [false, true])
    func operations(solicited: Bool) throws {
        let (device, completions, pair) = try bench()
        let cases: [(ibv_wr_opcode, UInt8, UInt8)] = [
            (IBV_WR_SEND, 0x15, 9), (IBV_WR_SEND_WITH_INV, 0x15, 9), (IBV_WR_RDMA_WRITE, 0x14, 1),
            (IBV_WR_RDMA_WRITE_WITH_IMM, 0x14, 0x41), (IBV_WR_RDMA_READ, 0x16, 0), (IBV_WR_LOCAL_INV, 0x1A, 0x11),
        ]
        var slot = 0
        for (index, (opcode, code, flags)) in cases.enumerated() {
            let count = opcode == IBV_WR_RDMA_READ ? 1 : opcode == IBV_WR_LOCAL_INV ? 0 : 3
            var request = sges(count).send(
                opcode, flags: signaled | IBV_SEND_FENCE.rawValue | (solicited ? IBV_SEND_SOLICITED.rawValue : 0))
            request.imm_data = UInt32(0x0102_0304).bigEndian
            if opcode == IBV_WR_SEND_WITH_INV || opcode == IBV_WR_LOCAL_INV { request.invalidate_rkey = 0x5566 }
            #expect(pair.post([request]).error == 0)
            let expected = body(opcode, solicited: solicited)
            let units = (8 + expected.count + 15) / 16 - (count == 3 ? 0 : 0)
            let header = [code, flags | (solicited && flags != 0 ? 4 : 0), UInt8(index), 0, 0, 0, 0, UInt8(units)]
            #expect(pair.sends(slot, 8 + expected.count) == header + expected, "\(opcode.rawValue)")
            slot += (units + 3) / 4
        }
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("A bind of a memory window has the keys, range and remote access of the request")
    func binding() throws {
        let (device, completions, pair) = try bench()
        var region = ibv_mr()
        region.lkey = 0x4444
        var window = ibv_mw()
        window.rkey = 0x7701
        window.type = IBV_MW_TYPE_2
        withUnsafeMutablePointer(to: &region) { region in
            withUnsafeMutablePointer(to: &window) { window in
                var request = SGEList([]).send(IBV_WR_BIND_MW)
                request.bind_mw.mw = window
                request.bind_mw.rkey = 0x7702
                request.bind_mw.bind_info = ibv_mw_bind_info(
                    mr: region, addr: 0x1_0000_2000, length: 0x3000,
                    mw_access_flags: IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue)
                #expect(pair.post([request]).error == 0)
                request.bind_mw.mw = nil
                #expect(pair.post([request]).error == EINVAL)
            }
        }
        #expect(
            pair.sends(0, 48) == [0x18, 1, 0, 0, 0, 0, 0, 3] + [0x40, 0, 1, 3] + big(UInt32(0x4444))
                + big(UInt32(0x7702)) + big(UInt32(0)) + big(UInt64(0x3000)) + big(UInt64(0x1_0000_2000))
                + big(UInt64(0)))
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Without SGEs the payload is inline data of length 0, and a READ has the key 2 on both sides")
    func empty() throws {
        let (device, completions, pair) = try bench()
        let none = SGEList([])
        #expect(
            pair.post([none.send(IBV_WR_SEND), none.send(IBV_WR_RDMA_WRITE), none.send(IBV_WR_RDMA_READ)]).error == 0)
        #expect(pair.sends(0, 48).suffix(16) == [0x81] + [UInt8](repeating: 0, count: 15))
        #expect(pair.sends(1, 48).suffix(16) == [0x81] + [UInt8](repeating: 0, count: 15))
        let read = pair.sends(2, 48)
        #expect(Array(read[16..<20]) == [0, 0, 0, 2] && Array(read[32..<36]) == [0, 0, 0, 2])
        #expect(read[20..<32].allSatisfy { $0 == 0 } && read[36..<48].allSatisfy { $0 == 0 })
        // 3 slots in one doorbell.
        #expect(pair.takeDoorbell(8) == 3)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("A work request wraps from the last slot to the first, wherever it begins", arguments: 1...5)
    func wraps(slots: Int) throws {
        // SEND with this number of SGEs takes `slots` slots.
        let count = [1, 4, 8, 12, 16][slots - 1]
        let (device, completions, pair) = try bench(requests: 7)
        var slot = 0
        for number in 0..<100 {
            #expect(pair.post([sges(count).send(IBV_WR_SEND)]).error == 0)
            let bytes = pair.sends(slot, 40 + 16 * count)
            #expect(Array(bytes[0..<4]) == [0x15, 1, UInt8(number % 8), 0], "\(number)")
            #expect(Array(bytes[32...]) == listBytes(count).dropLast(8), "\(number)")
            slot = (slot + slots) % 40
            completions.send(UInt16(number % 8))
            #expect(completions.poll().count == 1)
        }
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Inline data up to 280 bytes is copied and padded with zeros, also where it wraps")
    func inlineData() throws {
        let (device, completions, pair) = try bench(requests: 7)
        var slot = 0
        for (number, count) in [0, 1, 7, 8, 9, 24, 25, 100, 279, 280, 280, 280, 280, 280, 280, 280, 280].enumerated() {
            #expect(
                pair.post([payload(count).send(IBV_WR_RDMA_WRITE, flags: signaled | IBV_SEND_INLINE.rawValue)]).error
                    == 0)
            let units = (40 + count + 15) / 16
            let bytes = pair.sends(slot, 16 * units)
            #expect(bytes[7] == UInt8(units) && Array(bytes[32..<40]) == [0x81, 0, 0, 0] + big(UInt32(count)))
            #expect(bytes[40..<40 + count].elementsEqual((0..<count).map { UInt8(truncatingIfNeeded: $0 + 1) }))
            #expect(bytes[(40 + count)...].allSatisfy { $0 == 0 })
            slot = (slot + (units + 3) / 4) % 40
            completions.send(UInt16(number % 8), operation: 0)
            #expect(completions.poll().count == 1)
        }
        #expect(pair.post([payload(281).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)]).error == EINVAL)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Doorbells of T4, T5 and T6 have the queue and the number of slots")
    func doorbells() throws {
        // (chip, queue pair, offset of the doorbell, its value for 3 slots)
        for (chip, number, offset, expected) in [
            (4, 0x413, 0, 3 << 15 | 3), (5, 0x413, 3 * 128 + 8, 3), (6, 0x41F, 15 * 128 + 8, 3),
        ] as [(UInt32, UInt32, Int, UInt32)] {
            let (device, completions, pair) = try bench(chip: chip) { $0.nextQueuePair = number }
            #expect(
                pair.post([sges(1).send(IBV_WR_SEND), sges(2).send(IBV_WR_SEND), sges(1).send(IBV_WR_SEND)]).error == 0)
            #expect(pair.takeDoorbell(offset) == expected + 1, "T\(chip)")
            #expect(pair.postReceives([sges(4).receive()]).error == 0)
            let receive = (number + 1) & 0xF
            #expect(
                pair.receiveDoorbell.load(fromByteOffset: chip == 4 ? 0 : Int(receive) * 128 + 8, as: UInt32.self)
                    == (chip == 4 ? receive << 15 | 2 : 2))
            pair.destroy()
            completions.destroy()
            device.close()
        }
    }

    @Test("A chain of more slots than the doorbell's 13 bits hold rings it several times")
    func manySlots() throws {
        let (device, completions, pair) = try bench { $0.sendEntries = 4000 }
        let list = sges(16)
        let requests = (0..<1700).map { _ in list.send(IBV_WR_SEND, flags: 0) }
        #expect(pair.post(requests).error == 0)
        // 8500 slots: 8190, then the rest. The fake adapter shows the last doorbell.
        #expect(pair.takeDoorbell(8) == 8500 - 8190)
        #expect(pair.sendStatus.load(fromByteOffset: 16, as: UInt16.self) == 8500)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("While the kernel has stopped the doorbells, it rings them; if it does not, the adapter's is rung")
    func stoppedDoorbells() throws {
        let (device, completions, pair) = try bench(chip: 4) { $0.nextQueuePair = 0x413 }
        device.areDoorbellsOff = true
        #expect(pair.post([sges(1).send(IBV_WR_SEND), sges(2).send(IBV_WR_SEND)]).error == 0)
        #expect(pair.postReceives([sges(1).receive()]).error == 0)
        #expect(device.rung.map(\.sends) == [3, 0] && device.rung.map(\.receives) == [0, 1])
        #expect(pair.takeDoorbell(0) == 0)
        device.doorbellResult = EINVAL
        #expect(pair.post([sges(1).send(IBV_WR_SEND)]).error == 0)
        #expect(device.rung.count == 3 && pair.takeDoorbell(0) == 3 << 15 | 1)
        device.areDoorbellsOff = false
        #expect(pair.post([sges(1).send(IBV_WR_SEND)]).error == 0)
        #expect(device.rung.count == 3 && pair.takeDoorbell(0) == 3 << 15 | 1)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("An on-chip send queue takes whole slots, and words behind it before the doorbell")
    func onChip() throws {
        let (device, completions, pair) = try bench(chip: 4) { $0.queuePairFlags = UInt32(C4IW_QPF_ONCHIP) }
        #expect(pair.post([sges(2).send(IBV_WR_SEND)]).error == 0)
        #expect(Array(pair.sends(0, 72)[32..<72]) == listBytes(2).dropLast(8))
        #expect(pair.sendStatus.load(fromByteOffset: 16, as: UInt16.self) == 2)
        #expect(pair.takeDoorbell(0) == 2)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("A WRITE and a SEND of 16 bytes are one work request with two completions", arguments: [false, true])
    func pairs(isInline: Bool) throws {
        let (device, completions, pair) = try bench(pairsWriteAndSend: true)
        var send = payload(16).send(
            IBV_WR_SEND_WITH_INV, id: 2, flags: signaled | (isInline ? IBV_SEND_INLINE.rawValue : 0))
        send.invalidate_rkey = 0x5566
        #expect(pair.post([sges(4).send(IBV_WR_RDMA_WRITE, id: 1, flags: 0), send]).error == 0)
        let bytes = pair.sends(0, 144)
        #expect(Array(bytes[0..<16]) == [0x21, 0, 0, 0, 0, 0, 0, 9, 0, 1, 1, 0] + big(UInt32(0x5566)))
        #expect(
            Array(bytes[16..<32]) == big(UInt32(10)) + big(UInt32(0xAABB_CCDD)) + big(UInt64(0x1122_3344_5566_7788)))
        if isInline {
            #expect(Array(bytes[32..<56]) == [0x81, 0, 0, 0, 0, 0, 0, 16] + (1...16).map { UInt8($0) })
        } else {
            #expect(Array(bytes[32..<48]) == [0x83, 0, 0, 1, 0, 0, 0, 0] + big(UInt32(7)) + big(UInt32(16)))
        }
        #expect(Array(bytes[56..<64]) == big(UInt64(0)) && Array(bytes[64...]) == listBytes(4))
        #expect(pair.takeDoorbell(8) == 3)
        completions.send(1, operation: 4)
        let done = completions.poll()
        #expect(done.map(\.wr_id) == [2] && done[0].opcode == IBV_WC_SEND)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Other lists of a WRITE and a SEND are two work requests")
    func noPairs() throws {
        let write = sges(4).send(IBV_WR_RDMA_WRITE)
        let send = payload(16).send(IBV_WR_SEND)
        var solicited = send
        solicited.send_flags |= IBV_SEND_SOLICITED.rawValue
        var fenced = send
        fenced.send_flags |= IBV_SEND_FENCE.rawValue
        var inline = payload(4).send(IBV_WR_RDMA_WRITE)
        inline.send_flags |= IBV_SEND_INLINE.rawValue
        for list in [
            [write, solicited], [write, fenced], [inline, send], [sges(5).send(IBV_WR_RDMA_WRITE), send],
            [write, payload(17).send(IBV_WR_SEND)], [write, sges(2).send(IBV_WR_SEND)], [write, send, send],
            [SGEList([]).send(IBV_WR_RDMA_WRITE), send], [write, SGEList([]).send(IBV_WR_SEND)], [send, write], [write],
        ] {
            let (device, completions, pair) = try bench(pairsWriteAndSend: true)
            #expect(pair.post(list).error == 0)
            #expect(pair.sends(0, 1) != [0x21])
            pair.destroy()
            completions.destroy()
            device.close()
        }
    }

    @Test("A full queue is ENOMEM, an invalid request EINVAL or EOPNOTSUPP; the requests before it are posted")
    func errors() throws {
        let (device, completions, pair) = try bench()
        let good = sges(1).send(IBV_WR_SEND)
        var flags = good
        flags.send_flags = 1 << 8
        var noList = good
        noList.sg_list = nil
        var negative = good
        negative.num_sge = -1
        var inlineRead = payload(8).send(IBV_WR_RDMA_READ)
        inlineRead.send_flags |= IBV_SEND_INLINE.rawValue
        let long = SGEList([
            ibv_sge(addr: 1, length: .max, lkey: 1), ibv_sge(addr: 1, length: 1, lkey: 1),
        ])
        for (request, error) in [
            (sges(18).send(IBV_WR_SEND), EINVAL), (negative, EINVAL), (noList, EINVAL), (flags, EOPNOTSUPP),
            (sges(2).send(IBV_WR_RDMA_READ), EINVAL), (inlineRead, EINVAL), (long.send(IBV_WR_SEND), EINVAL),
            (good.with(IBV_WR_SEND_WITH_IMM), EOPNOTSUPP), (good.with(IBV_WR_ATOMIC_FETCH_AND_ADD), EOPNOTSUPP),
            (good.with(IBV_WR_TSO), EOPNOTSUPP), (good.with(ibv_wr_opcode(rawValue: 77)), EOPNOTSUPP),
            (sges(1).send(IBV_WR_LOCAL_INV), EINVAL),
        ] {
            let outcome = pair.post([request])
            #expect(outcome.error == error && outcome.bad == 0)
        }
        let outcome = pair.post([good, good, sges(18).send(IBV_WR_SEND), good])
        #expect(outcome.error == EINVAL && outcome.bad == 2)
        #expect(pair.takeDoorbell(8) == 2)
        let rest = pair.post((0..<14).map { _ in good })
        #expect(rest.error == ENOMEM && rest.bad == 13)
        #expect(pair.postReceives([sges(5).receive()]).error == EINVAL)
        let receives = pair.postReceives((0..<16).map { _ in sges(1).receive() })
        #expect(receives.error == ENOMEM && receives.bad == 15)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Without the firmware's immediate data, a WRITE with it is EOPNOTSUPP")
    func noImmediate() throws {
        let (device, completions, pair) = try bench { $0.queuePairFlags = 0 }
        #expect(pair.post([sges(1).send(IBV_WR_RDMA_WRITE_WITH_IMM)]).error == EOPNOTSUPP)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("A post does not depend on the cached state, but on the kernel's mark")
    func states() throws {
        let (device, completions, pair) = try bench()
        for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_ERR] {
            pair.pair.pointee.state = state
            #expect(pair.post([sges(1).send(IBV_WR_SEND)]).error == 0)
            #expect(pair.postReceives([sges(1).receive()]).error == 0)
        }
        pair.fail()
        #expect(pair.post([sges(1).send(IBV_WR_SEND)]) == (EINVAL, 0))
        #expect(pair.postReceives([sges(1).receive()]) == (EINVAL, 0))
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Receives have an SGE list, and wrap where one of four SGEs begins at the last slot")
    func receives() throws {
        let (device, completions, pair) = try bench(requests: 7)
        var slot = 0
        for number in 0..<40 {
            let count = [4, 1, 3, 0, 2][number % 5]
            #expect(pair.postReceives([sges(count).receive(id: UInt64(number))]).error == 0)
            let expected = [0x17, 0, UInt8(number % 8), 0, 0, 0, 0, UInt8(1 + count)] + listBytes(count).dropLast(8)
            #expect(pair.receives(slot, expected.count) == expected)
            slot = (slot + (count == 4 ? 2 : 1)) % 16
            completions.receive(UInt32(number + 1))
            #expect(completions.poll().map(\.wr_id) == [UInt64(number)])
        }
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test(
        "Posting and polling allocate nothing",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
    func allocations() throws {
        let device = try FakeDevice(chip: 6)
        let completions = try FakeCompletions(device)
        let pair = try FakePair(
            device, completions,
            operations: UInt64(IBV_QP_EX_WITH_RDMA_WRITE.rawValue | IBV_QP_EX_WITH_SEND.rawValue))
        var request = sges(3).send(IBV_WR_RDMA_WRITE)
        var inline = payload(60).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
        var receive = sges(3).receive()
        let wc = UnsafeMutablePointer<ibv_wc>.allocate(capacity: 8)
        defer { wc.deallocate() }
        var allocated: UInt64 = 0
        var failures: Int32 = 0
        var index: UInt16 = 0
        for round in 0..<200 {
            let before = allocation_count()
            failures += postSend(qp: pair.pair, first: &request, bad: nil)
            failures += postSend(qp: pair.pair, first: &inline, bad: nil)
            failures += postReceive(qp: pair.pair, first: &receive, bad: nil)
            ibv_wr_start(pair.extended)
            pair.extended.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_rdma_write(pair.extended, 1, 2)
            ibv_wr_set_sge(pair.extended, 1, 2, 3)
            failures += ibv_wr_complete(pair.extended)
            if round >= 100 { allocated += allocation_count() - before }
            completions.send(index)
            completions.send((index + 2) % 16)
            completions.receive(UInt32(round + 1))
            let afterwards = allocation_count()
            failures += pollCompletions(cq: completions.queue, count: 8, wc: wc) == 3 ? 0 : 1
            if round >= 100 { allocated += allocation_count() - afterwards }
            index = (index + 3) % 16
        }
        #expect(allocated == 0 && failures == 0)
        pair.destroy()
        completions.destroy()
        device.close()
    }
}

extension ibv_send_wr {
    func with(_ opcode: ibv_wr_opcode) -> ibv_send_wr {
        var other = self
        other.opcode = opcode
        return other
    }
}
