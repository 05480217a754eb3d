import CAllocationCounter
import CIBVerbs
import CKernelABI
import Foundation
import TestSupport
import Testing

@testable import RxeProvider

@Suite("rxe: the data path")
struct DataPathTests {
    @Test("post_send, post_recv, the wr_ functions and polling allocate no memory")
    func allocatesNothing() {
        let fake = FakePair(depth: 16)
        let queue = FakeQueue()
        let list = threeSGEs()
        let inline = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
        defer { inline.deallocate() }
        var request = list.send(IBV_WR_SEND)
        var receive = list.receive()
        var badSend: UnsafeMutablePointer<ibv_send_wr>?
        var badReceive: UnsafeMutablePointer<ibv_recv_wr>?
        var wc = ibv_wc()
        var attr = ibv_poll_cq_attr()
        let drained = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
        defer { drained.deallocate() }
        var before: UInt64 = 0
        var failures = 0
        for round in 0..<200 {
            if round == 100 { before = allocation_count() }
            failures += Int(postSend(qp: fake.pair.verbs, first: &request, bad: &badSend))
            failures += Int(postReceive(qp: fake.pair.verbs, first: &receive, bad: &badReceive))
            let qp = fake.extended
            ibv_wr_start(qp)
            ibv_wr_send(qp)
            ibv_wr_set_inline_data(qp, inline, 64)
            ibv_wr_rdma_write(qp, 1, 2)
            ibv_wr_set_sge_list(qp, 3, list.sges.baseAddress)
            failures += Int(ibv_wr_complete(qp))
            fake.sends.consume(3)
            fake.receives.consume(1)
            for _ in 0..<2 { _ = read(fake.pipe.read, drained, 32) }
            queue.ring.complete(ib_uverbs_wc())
            queue.ring.complete(ib_uverbs_wc())
            failures += pollCompletions(cq: queue.queue.verbs, count: 1, wc: &wc) == 1 ? 0 : 1
            failures += Int(ibv_start_poll(queue.extended, &attr))
            failures += ibv_next_poll(queue.extended) == ENOENT ? 0 : 1
            ibv_end_poll(queue.extended)
        }
        let counted = allocation_count() - before
        #expect(failures == 0)
        #expect(counted == 0 || allocation_count_is_blind())
    }

    @Test("A random work request is posted or fails with EINVAL, and writes nothing beyond its WQE", arguments: 0..<8)
    func anyRequest(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let fake = FakePair(random.pick([IBV_QPT_RC, IBV_QPT_UC]), depth: 8)
        let data = UnsafeMutableRawPointer.allocate(byteCount: 256, alignment: 8)
        defer { data.deallocate() }
        let base = UInt64(UInt(bitPattern: data))
        for _ in 0..<2000 {
            let list = SGEList(
                (0..<5).map { _ in
                    ibv_sge(
                        addr: base, length: random.chance(90) ? random.any() % 60 : random.any(), lkey: random.any())
                })
            var request = list.send(
                ibv_wr_opcode(UInt32(random.below(12))), flags: UInt32(random.below(16)) | (random.any() & 8))
            request.num_sge = Int32(random.within(-1...6))
            request.wr.rdma.remote_addr = random.any()
            let start = Int(fake.producer)
            let nextWQE = fake.sends.entry(start + 1)
            nextWQE.storeBytes(of: 0xFEED, as: UInt64.self)
            let result = fake.post([request])
            #expect(result.error == 0 || result.error == EINVAL && result.bad == 0)
            if request.num_sge > 4 || request.num_sge < 0 { #expect(result.error == EINVAL) }
            #expect(nextWQE.load(as: UInt64.self) == 0xFEED)
            if result.error == 0 { fake.sends.consume(1) }
            _ = fake.doorbells()
        }
    }

    @Test("Threads post to one queue pair: every work request is in the queue once, and each call rings a doorbell")
    func manyThreads() {
        let fake = Shared(FakePair(depth: 4096))
        let threads = (0..<4).map { number in
            Thread {
                let list = threeSGEs()
                for index in 0..<500 {
                    _ = fake.value.post([list.send(IBV_WR_SEND, id: UInt64(number * 1000 + index))])
                }
                fake.done.signal()
            }
        }
        for thread in threads { thread.start() }
        // The pipe has room for 2048 doorbells.
        for _ in threads { fake.done.wait() }
        let ids = (0..<Int(fake.value.producer)).map { fake.value.sends.send($0).wr.wr_id }
        #expect(ids.count == 2000 && Set(ids).count == 2000)
        #expect(fake.value.doorbells().count == 2000)
    }
}

/// A queue pair that several threads use.
private final class Shared: @unchecked Sendable {
    // Unchecked: the queue pair's locks are what is tested.
    let value: FakePair
    let done = DispatchSemaphore(value: 0)
    init(_ value: FakePair) { self.value = value }
}
