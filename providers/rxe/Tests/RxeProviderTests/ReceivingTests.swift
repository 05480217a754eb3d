import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import RxeProvider

@Suite("rxe: posting receives")
struct ReceivingTests {
    private func expect(_ fake: FakeRing, _ index: Int, id: UInt64, count: UInt32, length: UInt32) {
        let wqe = fake.receive(index)
        #expect(wqe.wr_id == id)
        #expect(wqe.dma.length == length && wqe.dma.resid == length)
        #expect(wqe.dma.num_sge == count)
        #expect(wqe.dma.cur_sge == 0 && wqe.dma.sge_offset == 0)
    }

    @Test("Every field of a receive WQE; post_recv succeeds from INIT on, without a doorbell")
    func wqes() {
        let fake = FakePair(state: IBV_QPS_INIT)
        let list = threeSGEs()
        #expect(fake.postReceives([list.receive(id: 7), SGEList([]).receive(id: 8)]).error == 0)
        expect(fake.receives, 0, id: 7, count: 3, length: 60)
        expect(fake.receives, 1, id: 8, count: 0, length: 0)
        let sges = fake.receives.sges(0, offset: 40, 3)
        #expect(sges.map(\.addr) == [0x1000, 0x2000, 0x3000])
        #expect(sges.map(\.length) == [10, 20, 30])
        #expect(sges.map(\.lkey) == [0x101, 0x102, 0x103])
        #expect(fake.receives.head.pointee.producer_index == 2)
        #expect(fake.doorbells().isEmpty)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RESET
        let refused = fake.postReceives([list.receive()])
        #expect(refused.error == EINVAL && refused.bad == 0)
    }

    @Test("A full queue is ENOMEM, too many SGEs are EINVAL; bad_wr is the first work request that was not posted")
    func limits() {
        let fake = FakePair(depth: 4)
        let list = threeSGEs()
        let result = fake.postReceives((0..<5).map { list.receive(id: UInt64($0)) })
        #expect(result.error == ENOMEM && result.bad == 3)
        for round in 0..<20 {
            fake.receives.consume(2)
            let start = Int(fake.receives.head.pointee.producer_index)
            #expect(fake.postReceives([list.receive(id: UInt64(round)), list.receive(id: 99)]).error == 0)
            expect(fake.receives, start, id: UInt64(round), count: 3, length: 60)
            expect(fake.receives, start + 1, id: 99, count: 3, length: 60)
        }
        fake.receives.consume(3)
        var bad = list.receive()
        for count: Int32 in [5, -1, .max] {
            bad.num_sge = count
            let refused = fake.postReceives([list.receive(), bad])
            #expect(refused.error == EINVAL && refused.bad == 1)
            fake.receives.consume(1)
        }
    }

    @Test("post_recv on a queue pair with a shared receive queue is EINVAL")
    func shared() {
        let sends = FakeRing(entrySize: 512, entries: 4)
        let pair = QueuePairPointer.allocate(isSingleThreaded: false)
        defer { pair.freeObject() }
        pair.pointee.base.qp_base.state = IBV_QPS_RTS
        #expect(pair.attach(send: sends.ring, receive: nil, limits: ibv_qp_cap(), descriptor: -1))
        var request = ibv_recv_wr()
        withUnsafeMutablePointer(to: &request) { request in
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(postReceive(qp: pair.verbs, first: request, bad: &bad) == EINVAL)
            #expect(bad == request)
        }
    }

    @Test("A shared receive queue has the same WQEs, also in the larger ring after a resize")
    func sharedQueue() {
        let small = FakeRing(entrySize: 128, entries: 2)
        let large = FakeRing(entrySize: 128, entries: 8)
        let list = threeSGEs()
        let queue = SharedReceiveQueuePointer.allocate(isSingleThreaded: false)
        defer { queue.freeObject() }
        var request = list.receive(id: 3)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == EINVAL)
        #expect(!queue.attach(small.ring, maxSGE: 6))
        #expect(queue.attach(small.ring, maxSGE: 3))
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == 0)
        expect(small, 0, id: 3, count: 3, length: 60)
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == ENOMEM)
        large.head.pointee.producer_index = 1
        #expect(queue.attach(large.ring, maxSGE: 2))
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == EINVAL)
        request.num_sge = 2
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == 0)
        expect(large, 1, id: 3, count: 2, length: 30)
    }
}
