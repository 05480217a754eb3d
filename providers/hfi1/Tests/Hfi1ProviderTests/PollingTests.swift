import CIBVerbs
import CKernelABI
import Glibc
import Testing

@testable import Hfi1Provider

@Suite("hfi1: completion queues")
struct PollingTests {
    private final class Fake {
        let ring: FakeRing
        let queue: CompletionQueuePointer

        init(_ entries: Int) {
            ring = FakeRing(entrySize: MemoryLayout<ib_uverbs_wc>.size, entryCount: entries + 1)
            queue = CompletionQueuePointer.allocate(isSingleThreaded: false)
            queue.completions.pointee = CompletionRing(mapping: ring.mapping, entries: UInt32(entries))
        }

        deinit { queue.freeObject() }

        func poll(_ count: Int32) -> [ibv_wc] {
            var found = [ibv_wc](repeating: ibv_wc(), count: Int(max(count, 1)) + 1)
            found[Int(max(count, 1))].wr_id = 0xFEED
            let polled = pollCompletions(cq: queue.verbs, count: count, wc: &found)
            #expect(found[Int(max(count, 1))].wr_id == 0xFEED)
            return Array(found.prefix(Int(polled)))
        }
    }

    @Test("ibv_poll_cq returns the fields of the CQE unchanged, except for IB_WC_WITH_INVALIDATE")
    func bytes() throws {
        let fake = Fake(4)
        for bit in [0, IBV_WC_WITH_IMM.rawValue, IBV_WC_WITH_INV.rawValue] {
            var completion = ib_uverbs_wc()
            // IB_WC_WITH_INVALIDATE of the kernel's <rdma/ib_verbs.h>: bit 2.
            completion.wc_flags = 0x100 | (bit == IBV_WC_WITH_INV.rawValue ? 1 << 2 : bit)
            fake.ring.complete(completion)
            #expect(fake.poll(1).first?.wc_flags == 0x100 | bit)
        }
        var completion = ib_uverbs_wc()
        withUnsafeMutableBytes(of: &completion) { for index in $0.indices { $0[index] = UInt8(index + 1) } }
        completion.wc_flags &= ~(1 << 2)
        fake.ring.complete(completion)
        let found = try #require(fake.poll(1).first)
        #expect(found.wr_id == completion.wr_id && found.status.rawValue == completion.status)
        #expect(found.opcode.rawValue == completion.opcode && found.vendor_err == completion.vendor_err)
        #expect(found.byte_len == completion.byte_len && found.imm_data == completion.ex.imm_data)
        #expect(found.qp_num == completion.qp_num && found.src_qp == completion.src_qp)
        #expect(found.wc_flags == completion.wc_flags && found.pkey_index == completion.pkey_index)
        #expect(found.slid == completion.slid && found.sl == completion.sl)
        #expect(found.dlid_path_bits == completion.dlid_path_bits)
        #expect(fake.poll(1).isEmpty)
    }

    @Test("ibv_poll_cq returns every CQE once and in order, across the end of the ring")
    func wraps() {
        let fake = Fake(5)
        var next: UInt64 = 0
        var seen: UInt64 = 0
        for round in 0..<100 {
            for _ in 0..<(round % 5 + 1) {
                var completion = ib_uverbs_wc()
                completion.wr_id = next
                next += 1
                fake.ring.complete(completion)
            }
            for found in fake.poll(Int32(round % 3 + 1)) + fake.poll(16) {
                #expect(found.wr_id == seen)
                seen += 1
            }
        }
        #expect(seen == next && fake.ring.indices.pointee.tail.val == fake.ring.indices.pointee.head.val)
    }

    @Test("ibv_poll_cq with num_entries 0 returns 0, with a negative value -EINVAL")
    func counts() {
        let fake = Fake(2)
        fake.ring.complete(ib_uverbs_wc())
        var wc = ibv_wc()
        #expect(pollCompletions(cq: fake.queue.verbs, count: 0, wc: &wc) == 0)
        #expect(pollCompletions(cq: fake.queue.verbs, count: -1, wc: &wc) == -EINVAL)
        #expect(fake.poll(1).count == 1)
    }

    @Test("With indices out of range, no CQE outside the ring is read, and polling terminates")
    func wildIndices() {
        let fake = Fake(3)
        for head in [0, 3, 4, 5, 1000, UInt32.max] {
            for tail in [0, 2, 3, 4, 77, UInt32.max] {
                fake.ring.indices.pointee.head.val = head
                fake.ring.indices.pointee.tail.val = tail
                #expect(fake.poll(1000).count <= 4)
            }
        }
    }
}
