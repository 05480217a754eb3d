import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import RxeProvider

/// A completion queue of memory.
final class FakeQueue {
    let ring: FakeRing
    let queue: CompletionQueuePointer

    init(depth: Int = 8, single: Bool = false) {
        ring = FakeRing(entrySize: 64, entries: depth)
        queue = CompletionQueuePointer.allocate(isSingleThreaded: single)
        queue.attach(ring.ring)
        fillExtendedPolling(extended)
    }

    deinit { queue.freeObject() }

    var extended: UnsafeMutablePointer<ibv_cq_ex> {
        UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq_ex.self)
    }

    func poll(_ count: Int) -> [ibv_wc] {
        var entries = [ibv_wc](repeating: ibv_wc(), count: count + 1)
        entries[count].wr_id = 0xC0DE
        let taken = pollCompletions(cq: queue.verbs, count: Int32(count), wc: &entries)
        #expect(entries[count].wr_id == 0xC0DE)
        return Array(entries.prefix(Int(taken)))
    }
}

/// A completion whose every field differs.
private func completion(_ number: UInt32) -> ib_uverbs_wc {
    var entry = ib_uverbs_wc()
    entry.wr_id = 0x1_0000_0000 * UInt64(number) + 1
    entry.status = number
    entry.opcode = number + 2
    entry.vendor_err = number + 3
    entry.byte_len = number + 4
    entry.ex.imm_data = number + 5
    entry.qp_num = number + 6
    entry.src_qp = number + 7
    entry.wc_flags = number + 8
    entry.pkey_index = UInt16(truncatingIfNeeded: number + 9)
    entry.slid = UInt16(truncatingIfNeeded: number + 10)
    entry.sl = UInt8(truncatingIfNeeded: number + 11)
    entry.dlid_path_bits = UInt8(truncatingIfNeeded: number + 12)
    return entry
}

/// The kernel's flags as verbs.h has them: its bit 2 is verbs.h's IBV_WC_WITH_INV.
private func flags(_ number: UInt32) -> UInt32 {
    let other = number & ~UInt32(IBV_WC_IP_CSUM_OK.rawValue)
    return number & 1 << 2 == 0 ? other : other | UInt32(IBV_WC_WITH_INV.rawValue)
}

@Suite("rxe: polling")
struct PollingTests {
    @Test("Every field of a completion, whatever its status, opcode and flags")
    func fields() throws {
        let fake = FakeQueue()
        for number: UInt32 in Array(0..<160) + [0xFFFF_0000] {
            fake.ring.complete(completion(number))
            let entry = try #require(fake.poll(2).first)
            #expect(entry.wr_id == 0x1_0000_0000 * UInt64(number) + 1)
            #expect(entry.status.rawValue == number)
            #expect(entry.opcode.rawValue == number + 2)
            #expect(entry.vendor_err == number + 3)
            #expect(entry.byte_len == number + 4)
            #expect(entry.imm_data == number + 5)
            #expect(entry.qp_num == number + 6)
            #expect(entry.src_qp == number + 7)
            #expect(entry.wc_flags == flags(number + 8))
            #expect(entry.pkey_index == UInt16(truncatingIfNeeded: number + 9))
            #expect(entry.slid == UInt16(truncatingIfNeeded: number + 10))
            #expect(entry.sl == UInt8(truncatingIfNeeded: number + 11))
            #expect(entry.dlid_path_bits == UInt8(truncatingIfNeeded: number + 12))
            #expect(fake.ring.head.pointee.consumer_index == fake.ring.head.pointee.producer_index)
        }
    }

    @Test("As many as there are and were asked for, in order, around the end of the ring")
    func batches() {
        let fake = FakeQueue(depth: 8)
        var made: UInt32 = 0
        var seen: UInt32 = 0
        for round in 0..<40 {
            while made - seen < UInt32(round % 8) {
                fake.ring.complete(completion(made))
                made += 1
            }
            for entry in fake.poll(1 + round % 5) {
                #expect(entry.status.rawValue == seen)
                seen += 1
            }
        }
        #expect(seen > 40)
        let empty = FakeQueue()
        #expect(empty.poll(4).isEmpty)
        #expect(pollCompletions(cq: empty.queue.verbs, count: 0, wc: nil) == 0)
        #expect(pollCompletions(cq: empty.queue.verbs, count: -1, wc: nil) == -EINVAL)
    }

    @Test("Extended polling: every reader, each completion once, the kernel's room given back")
    func extended() {
        let fake = FakeQueue(depth: 4)
        let cq = fake.extended
        var attr = ibv_poll_cq_attr()
        #expect(ibv_start_poll(cq, &attr) == ENOENT)
        var number: UInt32 = 0
        for _ in 0..<10 {
            let first = number
            for each in first..<first + 3 { fake.ring.complete(completion(each)) }
            #expect(ibv_start_poll(cq, &attr) == 0)
            while true {
                #expect(cq.pointee.wr_id == 0x1_0000_0000 * UInt64(number) + 1)
                #expect(cq.pointee.status.rawValue == number)
                #expect(ibv_wc_read_opcode(cq).rawValue == number + 2)
                #expect(ibv_wc_read_vendor_err(cq) == number + 3)
                #expect(ibv_wc_read_byte_len(cq) == number + 4)
                #expect(ibv_wc_read_imm_data(cq) == number + 5)
                #expect(ibv_wc_read_qp_num(cq) == number + 6)
                #expect(ibv_wc_read_src_qp(cq) == number + 7)
                #expect(ibv_wc_read_wc_flags(cq) == flags(number + 8))
                #expect(ibv_wc_read_slid(cq) == number + 10)
                #expect(ibv_wc_read_sl(cq) == UInt8(number + 11))
                #expect(ibv_wc_read_dlid_path_bits(cq) == UInt8(number + 12))
                number += 1
                // The last is given back by end_poll.
                if number == first + 2 && first % 2 == 0 { break }
                if ibv_next_poll(cq) != 0 { break }
            }
            // One that comes after ENOENT is found by asking again.
            if first % 2 == 1 {
                fake.ring.complete(completion(number))
                #expect(ibv_next_poll(cq) == 0)
                #expect(cq.pointee.status.rawValue == number)
                number += 1
            }
            ibv_end_poll(cq)
            if first % 2 == 0 {
                #expect(fake.poll(4).map(\.status.rawValue) == [number])
                number += 1
            }
            #expect(fake.ring.head.pointee.consumer_index == fake.ring.head.pointee.producer_index)
        }
        attr.comp_mask = 1
        #expect(ibv_start_poll(cq, &attr) == EINVAL)
        // The lock is free.
        #expect(fake.poll(1).isEmpty)
    }

    @Test("A queue without a ring is empty")
    func noRing() {
        let queue = CompletionQueuePointer.allocate(isSingleThreaded: false)
        defer { queue.freeObject() }
        var entry = ibv_wc()
        #expect(pollCompletions(cq: queue.verbs, count: 1, wc: &entry) == 0)
    }

    @Test("Whatever the kernel's words say, a poll answers entries of the ring and ends", arguments: 0..<8)
    func anyMemory(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let depth = 1 << random.within(1...6)
        let fake = FakeQueue(depth: depth)
        let head = fake.ring.head
        random.fill(
            UnsafeMutableRawBufferPointer(start: fake.ring.entry(0), count: depth * fake.ring.entrySize))
        for index in 0..<depth { fake.ring.entry(index).storeBytes(of: UInt64(index), as: UInt64.self) }
        var attr = ibv_poll_cq_attr()
        for _ in 0..<2000 {
            if random.chance(60) { head.pointee.producer_index = random.any() }
            if random.chance(20) { head.pointee.consumer_index = random.any() }
            // What the head says of the entries was read once, and is never read again.
            if random.chance(20) { head.pointee.index_mask = random.any() }
            if random.chance(20) { head.pointee.log2_elem_size = random.any() }
            let from = Int(head.pointee.consumer_index) & (depth - 1)
            let to = Int(head.pointee.producer_index) & (depth - 1)
            let there = (to - from) & (depth - 1)
            if random.chance(50) {
                let wanted = random.within(1...80)
                let ids = fake.poll(wanted).map { Int($0.wr_id) }
                #expect(ids == (0..<min(there, wanted)).map { (from + $0) & (depth - 1) })
            } else if ibv_start_poll(fake.extended, &attr) == 0 {
                var ids = [Int(fake.extended.pointee.wr_id)]
                while ibv_next_poll(fake.extended) == 0 { ids.append(Int(fake.extended.pointee.wr_id)) }
                ibv_end_poll(fake.extended)
                #expect(ids == (0..<there).map { (from + $0) & (depth - 1) })
            } else {
                #expect(there == 0)
            }
        }
    }
}
