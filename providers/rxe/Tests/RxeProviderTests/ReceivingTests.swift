import CIBVerbs
import CKernelABI
import Glibc
import Testing

@testable import RxeProvider

@Suite("rxe: posting receives")
struct ReceivingTests {
    private func expect(_ fake: FakeRing, _ index: Int, id: UInt64, count: UInt32, length: UInt32) {
        let entry = fake.receive(index)
        #expect(entry.wr_id == id)
        #expect(entry.dma.length == length && entry.dma.resid == length)
        #expect(entry.dma.num_sge == count)
        #expect(entry.dma.cur_sge == 0 && entry.dma.sge_offset == 0)
    }

    @Test("Every field of the entry; a queue pair takes receives from INIT on, and rings nothing")
    func entries() {
        let fake = FakePair(state: IBV_QPS_INIT)
        let list = threePieces()
        #expect(fake.postReceives([list.receive(id: 7), List([]).receive(id: 8)]).error == 0)
        expect(fake.receives, 0, id: 7, count: 3, length: 60)
        expect(fake.receives, 1, id: 8, count: 0, length: 0)
        let elements = fake.receives.elements(0, behind: 40, 3)
        #expect(elements.map(\.addr) == [0x1000, 0x2000, 0x3000])
        #expect(elements.map(\.length) == [10, 20, 30])
        #expect(elements.map(\.lkey) == [0x101, 0x102, 0x103])
        #expect(fake.receives.head.pointee.producer_index == 2)
        #expect(fake.rung().isEmpty)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RESET
        let refused = fake.postReceives([list.receive()])
        #expect(refused.error == EINVAL && refused.bad == 0)
    }

    @Test("Full, too many pieces, wrapping: bad_wr is the first that was not taken")
    func limits() {
        let fake = FakePair(depth: 4)
        let list = threePieces()
        let answer = fake.postReceives((0..<5).map { list.receive(id: UInt64($0)) })
        #expect(answer.error == ENOMEM && answer.bad == 3)
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

    @Test("A queue pair with a shared receive queue has none of its own")
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

    @Test("Shared receive queues: the same entries; and a larger ring after a resize")
    func sharedQueue() {
        let small = FakeRing(entrySize: 128, entries: 2)
        let large = FakeRing(entrySize: 128, entries: 8)
        let list = threePieces()
        let queue = SharedReceiveQueuePointer.allocate(isSingleThreaded: false)
        defer { queue.freeObject() }
        var request = list.receive(id: 3)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == EINVAL)
        #expect(!queue.attach(small.ring, maximumElements: 6))
        #expect(queue.attach(small.ring, maximumElements: 3))
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == 0)
        expect(small, 0, id: 3, count: 3, length: 60)
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == ENOMEM)
        large.head.pointee.producer_index = 1
        #expect(queue.attach(large.ring, maximumElements: 2))
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == EINVAL)
        request.num_sge = 2
        #expect(postSharedReceive(srq: queue.verbs, first: &request, bad: &bad) == 0)
        expect(large, 1, id: 3, count: 2, length: 30)
    }
}
