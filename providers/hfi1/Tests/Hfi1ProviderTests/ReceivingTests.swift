import CIBVerbs
import CKernelABI
import Glibc
import Testing

@testable import Hfi1Provider

@Suite("hfi1: receive queues")
struct ReceivingTests {
    /// Eight SGEs, which are never freed.
    nonisolated(unsafe) private static let sges: UnsafeMutablePointer<ibv_sge> = {
        let sges = UnsafeMutablePointer<ibv_sge>.allocate(capacity: 8)
        for index in 0..<8 {
            sges[index] = ibv_sge(
                addr: 0x1000 * UInt64(index + 1), length: UInt32(10 * (index + 1)), lkey: UInt32(0x101 + index))
        }
        return sges
    }()

    private func receive(_ id: UInt64, _ count: Int32 = 3) -> ibv_recv_wr {
        ibv_recv_wr(wr_id: id, next: nil, sg_list: Self.sges, num_sge: count)
    }

    @Test("A receive WQE has the layout of struct rvt_rwqe, and its padding is not written")
    func layout() {
        let fake = FakeReceives(4)
        #expect(fake.post([receive(0x1122), receive(7, 1), receive(8, 0)]).error == 0)
        #expect(fake.ring.indices.pointee.head.val == 3 && fake.ring.indices.pointee.tail.val == 0)
        #expect(fake.ring.receive(0).wr_id == 0x1122 && fake.ring.receive(0).num_sge == 3)
        #expect(fake.ring.receive(0).padding.0 == 0xA5)
        #expect(fake.ring.sges(0, 3).map(\.addr) == [0x1000, 0x2000, 0x3000])
        #expect(fake.ring.sges(0, 3).map(\.length) == [10, 20, 30])
        #expect(fake.ring.sges(0, 3).map(\.lkey) == [0x101, 0x102, 0x103])
        #expect(fake.ring.receive(1).num_sge == 1 && fake.ring.sges(1, 2)[1].lkey == 0xA5A5_A5A5)
        #expect(fake.ring.receive(2).num_sge == 0 && fake.ring.receive(2).wr_id == 8)
    }

    @Test("A queue holds max_wr work requests, across its end; the first that does not fit is bad_wr, with ENOMEM")
    func full() {
        let fake = FakeReceives(4)
        #expect(fake.post((0..<6).map { receive($0) }) == (ENOMEM, 4))
        for round in 0..<30 {
            fake.ring.consume(2)
            #expect(fake.post([receive(UInt64(round)), receive(100), receive(101)]) == (ENOMEM, 2))
        }
        #expect(fake.ring.indices.pointee.head.val == (4 + 60) % 5)
    }

    @Test("num_sge too large or negative and a nil sg_list are EINVAL; the work requests before are posted")
    func badLists() {
        let fake = FakeReceives(8)
        var nilList = receive(1)
        nilList.sg_list = nil
        for bad in [receive(1, 4), receive(1, -1), receive(1, Int32.max), nilList] {
            let head = fake.ring.indices.pointee.head.val
            #expect(fake.post([receive(1), bad, receive(2)]) == (EINVAL, 1))
            #expect(fake.ring.indices.pointee.head.val == (head + 1) % 9)
            fake.ring.consume(1)
        }
    }

    @Test("post_recv without a queue is EINVAL, to a queue with max_wr 0 ENOMEM")
    func absent() {
        var request = receive(1)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(ReceiveQueue().post(&request, &bad) == EINVAL && bad != nil)
        #expect(FakeReceives(0).post([receive(1)]) == (ENOMEM, 0))
    }

    @Test("With indices out of range, no WQE outside the queue is written")
    func wildIndices() {
        let fake = FakeReceives(4)
        for value in [5, 6, 100, UInt32.max] {
            fake.ring.indices.pointee.head.val = value
            fake.ring.indices.pointee.tail.val = value
            _ = fake.post((0..<20).map { receive($0) })
            #expect(fake.ring.indices.pointee.head.val < 5)
        }
    }

    @Test("post_recv is EINVAL in RESET, and on a queue pair with a shared receive queue")
    func states() {
        let pair = QueuePairPointer.allocate(isSingleThreaded: false)
        pair.attach(receive: FakeReceives(1).queue, maxSendSGE: 1)
        pair.receives.pointee = ReceiveQueue()
        var request = receive(1)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        pair.pointee.base.qp_base.state = IBV_QPS_RESET
        #expect(postReceive(qp: pair.verbs, first: &request, bad: &bad) == EINVAL && bad != nil)
        pair.pointee.base.qp_base.state = IBV_QPS_INIT
        bad = nil
        #expect(postReceive(qp: pair.verbs, first: &request, bad: &bad) == EINVAL && bad != nil)
        pair.sends.pointee.free()
        pair.freeObject()
    }
}
