import CKernelABI
import ProviderKit
import Testing

@testable import RxeProvider

@Suite("rxe: the mapped queue")
struct RingTests {
    @Test("A queue is refused when its header does not match the mapping")
    func refusesBadHeads() {
        let fake = FakeRing(entrySize: 256, entries: 16)
        func make(_ bytes: Int, _ size: Int = 208) -> Ring? {
            Ring(mapping: fake.mapping, byteCount: bytes, entrySize: size)
        }
        #expect(make(fake.byteCount)?.entrySize == 256)
        #expect(make(fake.byteCount + 4096) != nil)
        #expect(make(fake.byteCount - 1) == nil)
        #expect(make(383) == nil)
        #expect(make(0) == nil)
        #expect(make(fake.byteCount, 257) == nil)
        for mask: UInt32 in [14, 16, 31, .max, .max >> 1, 1 << 31] {
            fake.head.pointee.index_mask = mask
            #expect(make(fake.byteCount) == nil, "mask \(mask)")
        }
        fake.head.pointee.index_mask = 15
        for shift: UInt32 in [0, 7, 9, 31, 32, 63, .max] {
            fake.head.pointee.log2_elem_size = shift
            #expect(make(fake.byteCount) == nil, "shift \(shift)")
        }
    }

    @Test("A mapped queue with one entry is always empty and always full, but is not absent")
    func oneEntry() throws {
        let fake = FakeRing(entrySize: 256, entries: 1)
        let ring = try #require(Ring(mapping: fake.mapping, byteCount: fake.byteCount, entrySize: 208))
        #expect(!ring.isAbsent && Ring.absent.isAbsent)
        #expect(ring.next(0) == ring.consumer.loadAcquiring() && ring.mapping == fake.mapping)
    }

    @Test("The entries and indices are at the offsets of struct rxe_queue_buf, and the last index wraps to 0")
    func layout() {
        let fake = FakeRing(entrySize: 64, entries: 4)
        let ring = fake.ring
        for index in 0..<4 { #expect(ring.entry(UInt32(index)) == fake.entry(index)) }
        #expect(ring.next(2) == 3)
        #expect(ring.next(3) == 0)
        #expect(ring.next(.max) == 0)
        ring.producer.storeReleasing(3)
        ring.consumer.storeReleasing(2)
        #expect(fake.head.pointee.producer_index == 3)
        #expect(fake.head.pointee.consumer_index == 2)
        fake.head.pointee.producer_index = 1
        #expect(ring.producer.loadAcquiring() == 1)
    }

    @Test("Limits for which the WQEs are too small are refused")
    func limits() {
        let fake = FakeRing(entrySize: 256, entries: 4)
        var limits = ibv_qp_cap()
        func attach(_ limits: ibv_qp_cap) -> Bool {
            let pair = QueuePairPointer.allocate(isSingleThreaded: false)
            defer { pair.freeObject() }
            return pair.attach(send: fake.ring, receive: fake.ring, limits: limits, descriptor: -1)
        }
        (limits.max_send_sge, limits.max_inline_data, limits.max_recv_sge) = (3, 48, 13)
        #expect(attach(limits))
        limits.max_send_sge = 4
        #expect(!attach(limits))
        (limits.max_send_sge, limits.max_inline_data) = (3, 49)
        #expect(!attach(limits))
        (limits.max_inline_data, limits.max_recv_sge) = (48, 14)
        #expect(!attach(limits))
        limits.max_recv_sge = .max
        #expect(!attach(limits))
    }
}
