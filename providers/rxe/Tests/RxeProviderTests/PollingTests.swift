import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import RxeProvider

/// A completion queue in anonymous memory.
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
        var wcs = [ibv_wc](repeating: ibv_wc(), count: count + 1)
        wcs[count].wr_id = 0xC0DE
        let polled = pollCompletions(cq: queue.verbs, count: Int32(count), wc: &wcs)
        #expect(wcs[count].wr_id == 0xC0DE)
        return Array(wcs.prefix(Int(polled)))
    }
}

/// A CQE whose fields all differ.
private func completion(_ number: UInt32) -> ib_uverbs_wc {
    var cqe = ib_uverbs_wc()
    cqe.wr_id = 0x1_0000_0000 * UInt64(number) + 1
    cqe.status = number
    cqe.opcode = number + 2
    cqe.vendor_err = number + 3
    cqe.byte_len = number + 4
    cqe.ex.imm_data = number + 5
    cqe.qp_num = number + 6
    cqe.src_qp = number + 7
    cqe.wc_flags = number + 8
    cqe.pkey_index = UInt16(truncatingIfNeeded: number + 9)
    cqe.slid = UInt16(truncatingIfNeeded: number + 10)
    cqe.sl = UInt8(truncatingIfNeeded: number + 11)
    cqe.dlid_path_bits = UInt8(truncatingIfNeeded: number + 12)
    return cqe
}

/// The `wc_flags` of verbs.h for the kernel's flags, whose bit 2 (IB_WC_WITH_INVALIDATE) is IBV_WC_WITH_INV.
private func flags(_ number: UInt32) -> UInt32 {
    let other = number & ~UInt32(IBV_WC_IP_CSUM_OK.rawValue)
    return number & 1 << 2 == 0 ? other : other | UInt32(IBV_WC_WITH_INV.rawValue)
}

@Suite("rxe: polling")
struct PollingTests {
    @Test("ibv_poll_cq returns every field of a CQE, for any status, opcode and flags")
    func fields() throws {
        let fake = FakeQueue()
        for number: UInt32 in Array(0..<160) + [0xFFFF_0000] {
            fake.ring.complete(completion(number))
            let wc = try #require(fake.poll(2).first)
            #expect(wc.wr_id == 0x1_0000_0000 * UInt64(number) + 1)
            #expect(wc.status.rawValue == number)
            #expect(wc.opcode.rawValue == number + 2)
            #expect(wc.vendor_err == number + 3)
            #expect(wc.byte_len == number + 4)
            #expect(wc.imm_data == number + 5)
            #expect(wc.qp_num == number + 6)
            #expect(wc.src_qp == number + 7)
            #expect(wc.wc_flags == flags(number + 8))
            #expect(wc.pkey_index == UInt16(truncatingIfNeeded: number + 9))
            #expect(wc.slid == UInt16(truncatingIfNeeded: number + 10))
            #expect(wc.sl == UInt8(truncatingIfNeeded: number + 11))
            #expect(wc.dlid_path_bits == UInt8(truncatingIfNeeded: number + 12))
            #expect(fake.ring.head.pointee.consumer_index == fake.ring.head.pointee.producer_index)
        }
    }

    @Test("ibv_poll_cq returns CQEs in order, at most num_entries, across the end of the ring")
    func batches() {
        let fake = FakeQueue(depth: 8)
        var made: UInt32 = 0
        var seen: UInt32 = 0
        for round in 0..<40 {
            while made - seen < UInt32(round % 8) {
                fake.ring.complete(completion(made))
                made += 1
            }
            for wc in fake.poll(1 + round % 5) {
                #expect(wc.status.rawValue == seen)
                seen += 1
            }
        }
        #expect(seen > 40)
        let empty = FakeQueue()
        #expect(empty.poll(4).isEmpty)
        #expect(pollCompletions(cq: empty.queue.verbs, count: 0, wc: nil) == 0)
        #expect(pollCompletions(cq: empty.queue.verbs, count: -1, wc: nil) == -EINVAL)
    }

    @Test("Extended polling: the read_ functions, each CQE once, and the consumer index afterwards")
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
                // end_poll consumes the last CQE.
                if number == first + 2 && first % 2 == 0 { break }
                if ibv_next_poll(cq) != 0 { break }
            }
            // After ENOENT, next_poll finds a CQE that the kernel adds later.
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

    @Test("Inside a batch, polling the queue is EBUSY; outside one, next_poll is EINVAL", arguments: [false, true])
    func refusals(isSingleThreaded: Bool) {
        let fake = FakeQueue(depth: 8, single: isSingleThreaded)
        let cq = fake.extended
        var attr = ibv_poll_cq_attr()
        var wc = ibv_wc()
        for number in 0..<4 as Range<UInt32> { fake.ring.complete(completion(number)) }
        ibv_end_poll(cq)
        #expect(ibv_next_poll(cq) == EINVAL)
        #expect(ibv_start_poll(cq, &attr) == 0 && ibv_next_poll(cq) == 0)
        #expect(ibv_start_poll(cq, &attr) == EBUSY)
        #expect(pollCompletions(cq: fake.queue.verbs, count: 1, wc: &wc) == -EBUSY)
        #expect(destroyCompletionQueue(cq: fake.queue.verbs) == EBUSY)
        #expect(cq.pointee.status.rawValue == 1 && ibv_wc_read_qp_num(cq) == 7)
        // CQEs that are known to follow stay in the queue when the batch ends.
        ibv_end_poll(cq)
        #expect(ibv_next_poll(cq) == EINVAL)
        ibv_end_poll(cq)
        #expect(fake.poll(8).map(\.status.rawValue) == [2, 3])
    }

    @Test("A resize inside a batch: the current CQE stays current, and the others follow")
    func moved() {
        for (rotation, current) in [(0, 0), (5, 0), (5, 1), (5, 2), (6, 3)] as [(UInt32, Int)] {
            let fake = FakeQueue(depth: 8)
            let cq = fake.extended
            var attr = ibv_poll_cq_attr()
            for _ in 0..<rotation { fake.ring.complete(completion(99)) }
            #expect(fake.poll(8).count == Int(rotation))
            for number in 0..<4 as Range<UInt32> { fake.ring.complete(completion(number)) }
            #expect(ibv_start_poll(cq, &attr) == 0)
            for _ in 0..<current { #expect(ibv_next_poll(cq) == 0) }
            // As in rdma_rxe: copied from the consumer index on, to the beginning of the new ring.
            fake.queue.completions.prepareToMove()
            let head = fake.ring.head.pointee
            let larger = FakeRing(entrySize: 64, entries: 16)
            var index = head.consumer_index
            while index != head.producer_index {
                larger.complete(fake.ring.entry(Int(index)).load(as: ib_uverbs_wc.self))
                index = (index + 1) & fake.ring.mask
            }
            fake.queue.completions.move(to: larger.ring, isInBatch: true)
            memset(fake.ring.entry(0), 0xA5, 8 * 64)
            #expect(ibv_wc_read_qp_num(cq) == UInt32(current) + 6 && ibv_wc_read_src_qp(cq) == UInt32(current) + 7)
            for number in (current + 1)..<4 {
                #expect(ibv_next_poll(cq) == 0 && cq.pointee.status.rawValue == UInt32(number))
            }
            larger.complete(completion(4))
            #expect(ibv_next_poll(cq) == 0 && cq.pointee.status.rawValue == 4 && ibv_next_poll(cq) == ENOENT)
            ibv_end_poll(cq)
            #expect(larger.head.pointee.consumer_index == larger.head.pointee.producer_index)
        }
    }

    @Test("A queue without a ring is empty")
    func noRing() {
        let queue = CompletionQueuePointer.allocate(isSingleThreaded: false)
        defer { queue.freeObject() }
        var wc = ibv_wc()
        #expect(pollCompletions(cq: queue.verbs, count: 1, wc: &wc) == 0)
    }

    @Test("With random indices in the shared memory, polling returns CQEs of the ring and terminates", arguments: 0..<8)
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
            // The header was read once, when the queue was mapped.
            if random.chance(20) { head.pointee.index_mask = random.any() }
            if random.chance(20) { head.pointee.log2_elem_size = random.any() }
            let from = Int(head.pointee.consumer_index) & (depth - 1)
            let to = Int(head.pointee.producer_index) & (depth - 1)
            let available = (to - from) & (depth - 1)
            if random.chance(50) {
                let limit = random.within(1...80)
                let ids = fake.poll(limit).map { Int($0.wr_id) }
                #expect(ids == (0..<min(available, limit)).map { (from + $0) & (depth - 1) })
            } else if ibv_start_poll(fake.extended, &attr) == 0 {
                var ids = [Int(fake.extended.pointee.wr_id)]
                while ibv_next_poll(fake.extended) == 0 { ids.append(Int(fake.extended.pointee.wr_id)) }
                ibv_end_poll(fake.extended)
                #expect(ids == (0..<available).map { (from + $0) & (depth - 1) })
            } else {
                #expect(available == 0)
            }
        }
    }
}
