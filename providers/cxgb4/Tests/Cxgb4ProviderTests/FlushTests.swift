import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: the software flush, and shared receive queues")
struct FlushTests {
    @Test(
        "A flush completes each work request once and in order, after the CQEs that are there",
        arguments: [false, true])
    func flush(separate: Bool) throws {
        let device = try FakeDevice()
        let sends = try FakeCompletions(device)
        let receives = separate ? try FakeCompletions(device) : sends
        let pair = try FakePair(device, sends, receives)
        pair.send([1, 2])
        pair.send([3], flags: 0)
        pair.send([4])
        pair.receive([10, 11, 12])
        sends.send(0)
        receives.receive(1)
        pair.fail()
        sends.requestFlush()
        if separate { receives.requestFlush() }
        // What the adapter still writes is dropped.
        var done = sends.poll(1)
        sends.send(1)
        receives.receive(2)
        done += sends.poll(2) + sends.poll()
        if separate { done += receives.poll() }
        #expect(done.filter { $0.wr_id < 10 }.map(\.wr_id) == [1, 2, 3, 4])
        #expect(done.filter { $0.wr_id >= 10 }.map(\.wr_id) == [10, 11, 12])
        let good = done.filter { $0.status == IBV_WC_SUCCESS }.map(\.wr_id)
        // The side of each completion queue is flushed when that is polled.
        #expect(good.sorted() == (separate ? [1, 10, 11] : [1, 10]))
        #expect(done.filter { $0.status == IBV_WC_WR_FLUSH_ERR }.count == 7 - good.count)
        #expect(done.allSatisfy { $0.qp_num == 0x410 })
        #expect(!sends.isFlushRequested && sends.poll().isEmpty)
        pair.destroy()
        if separate { receives.destroy() }
        sends.destroy()
        device.close()
    }

    @Test("Many queue pairs on one completion queue are flushed, each of them once, with more work requests than CQEs")
    func many() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        var pairs: [FakePair] = []
        for number in 0..<20 {
            device.nextQueuePair = UInt32(0x400 + 2 * number)
            let pair = try FakePair(device, completions)
            pair.send(
                (0..<15).map { UInt64(1000 * number + $0) }, flags: number % 2 == 0 ? IBV_SEND_SIGNALED.rawValue : 0)
            pair.receive((0..<15).map { UInt64(1000 * number + 100 + $0) })
            pairs.append(pair)
        }
        for pair in pairs[..<10] { pair.fail() }
        completions.requestFlush()
        var done = completions.poll(33)
        for pair in pairs[10...] { pair.fail() }
        completions.requestFlush()
        while true {
            let more = completions.poll(7)
            if more.isEmpty { break }
            done += more
        }
        #expect(done.count == 600 && done.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
        for (number, pair) in pairs.enumerated() {
            let own = done.filter { $0.qp_num == pair.number }.map { Int($0.wr_id) - 1000 * number }
            #expect(own.filter { $0 < 100 } == Array(0..<15) && own.filter { $0 >= 100 } == Array(100..<115))
        }
        for pair in pairs { pair.destroy() }
        completions.destroy()
        device.close()
    }

    @Test("Sends that completed before an earlier one are flushed too, unless the earlier one completed")
    func stored() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions)
        pair.send([1], IBV_WR_RDMA_READ)
        pair.send([2])
        pair.send([3], IBV_WR_RDMA_READ)
        pair.send([4], flags: 0)
        pair.send([5, 6])
        completions.send(1)
        completions.send(4)
        completions.readResponse()
        pair.fail()
        completions.requestFlush()
        let done = completions.poll()
        // Send 4, which is not signaled, is not lost between the flushed send 3 and the stored completion of send 5.
        #expect(done.map(\.wr_id) == [1, 2, 3, 4, 5, 6])
        let flushed = IBV_WC_WR_FLUSH_ERR
        #expect(done.map(\.status) == [IBV_WC_SUCCESS, IBV_WC_SUCCESS, flushed, flushed, flushed, flushed])
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("A queue pair without the kernel's mark is not flushed, nor one between wr_start and wr_complete")
    func notFlushed() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions, operations: UInt64(IBV_QP_EX_WITH_SEND.rawValue))
        pair.send([1])
        completions.requestFlush()
        #expect(completions.poll().isEmpty && !completions.isFlushRequested)
        ibv_wr_start(pair.extended)
        pair.fail()
        completions.requestFlush()
        #expect(completions.poll().isEmpty && completions.isFlushRequested)
        pair.extended.pointee.wr_id = 2
        ibv_wr_send(pair.extended)
        #expect(ibv_wr_complete(pair.extended) == 0)
        #expect(completions.poll().map(\.wr_id) == [1, 2])
        ibv_wr_start(pair.extended)
        #expect(ibv_wr_complete(pair.extended) == EINVAL)
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("modify_qp, query_qp and events request the flush of a queue pair in error")
    func triggers() throws {
        for trigger in 0..<3 {
            let device = try FakeDevice()
            let completions = try FakeCompletions(device)
            let pair = try FakePair(device, completions)
            pair.receive([1])
            var attr = ibv_qp_attr()
            var initial = ibv_qp_init_attr()
            device.queriedState = IBV_QPS_ERR
            #expect(controlTable.pointee.query_qp(pair.pair, &attr, Int32(IBV_QP_STATE.rawValue), &initial) == 0)
            #expect(!completions.isFlushRequested)
            pair.fail()
            switch trigger {
            case 0:
                attr.qp_state = IBV_QPS_ERR
                #expect(controlTable.pointee.modify_qp(pair.pair, &attr, Int32(IBV_QP_STATE.rawValue)) == 0)
            case 1:
                #expect(controlTable.pointee.query_qp(pair.pair, &attr, Int32(IBV_QP_STATE.rawValue), &initial) == 0)
            default:
                var event = ibv_async_event()
                event.event_type = IBV_EVENT_QP_FATAL
                event.element.qp = pair.pair
                controlTable.pointee.async_event(device.context, &event)
            }
            #expect(completions.poll().map(\.wr_id) == [1])
            pair.destroy()
            completions.destroy()
            device.close()
        }
    }

    @Test("A reset queue pair is empty and works again; its old CQEs are dropped")
    func reset() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions)
        pair.send([1, 2, 3])
        pair.receive([4])
        completions.send(0)
        pair.fail()
        completions.requestFlush()
        #expect(completions.poll(2).map(\.wr_id) == [1, 4])
        completions.receive(1)
        var attr = ibv_qp_attr()
        attr.qp_state = IBV_QPS_RESET
        #expect(controlTable.pointee.modify_qp(pair.pair, &attr, Int32(IBV_QP_STATE.rawValue)) == 0)
        #expect(!pair.isInError && completions.poll().isEmpty)
        pair.send([5])
        pair.receive([6])
        completions.send(0)
        completions.receive(1)
        #expect(completions.poll().map(\.wr_id) == [5, 6])
        pair.destroy()
        completions.destroy()
        device.close()
    }

    // MARK: - Shared receive queues

    private func shared(_ device: FakeDevice) throws -> (UnsafeMutablePointer<ibv_srq>, UnsafeMutablePointer<ibv_pd>) {
        let domain = try #require(controlTable.pointee.alloc_pd(device.context))
        var attr = ibv_srq_init_attr_ex()
        attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        attr.pd = domain
        attr.attr = ibv_srq_attr(max_wr: 15, max_sge: 2, srq_limit: 0)
        let queue = try #require(controlTable.pointee.create_srq_ex(device.context, &attr))
        #expect(attr.attr.max_wr == 15 && attr.attr.max_sge == 4)
        return (queue, domain)
    }

    private func post(_ queue: UnsafeMutablePointer<ibv_srq>, _ ids: [UInt64]) -> Int32 {
        var error: Int32 = 0
        for id in ids {
            var request = oneSGE.receive(id: id)
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            error = ibv_post_srq_recv(queue, &request, &bad)
            if error != 0 { return error }
        }
        return error
    }

    @Test("Shared receives complete in any order; those posted meanwhile wait until the order is restored")
    func sharedReceives() throws {
        let device = try FakeDevice(chip: 6)
        let completions = try FakeCompletions(device)
        let (queue, domain) = try shared(device)
        let pair = try FakePair(device, completions, shared: queue)
        #expect(pair.limits.max_recv_wr == 0 && pair.postReceives([oneSGE.receive()]).error == EINVAL)
        func waiting() -> UInt32 { queue.native.queue.pointee.waitingCount }
        #expect(post(queue, (0..<15).map { $0 }) == 0 && post(queue, [99]) == ENOMEM)
        completions.receive(1, shared: 0x1002)
        completions.receive(2, shared: 0x1001)
        #expect(completions.poll().map(\.wr_id) == [2, 1])
        // Indices 1 and 2 are complete, 0 is not.
        #expect(post(queue, [20, 21]) == 0 && waiting() == 2 && post(queue, [99]) == ENOMEM)
        let doorbell = device.at(device.shared.srq_db_gts_key) + 8 * 128 + 64
        #expect((0..<4).map { doorbell.load(fromByteOffset: $0, as: UInt8.self) } == [0x17, 0, 14, 0])
        completions.receive(3, shared: 0x1000)
        #expect(completions.poll().map(\.wr_id) == [0])
        #expect(waiting() == 0 && queue.native.queue.pointee.overtakingCount == 0)
        // Both were posted behind index 14: indices 15 and 0, in two slots of one doorbell.
        let place = device.at(device.shared.srq_key)
        #expect((place + 15 * 64).load(fromByteOffset: 2, as: UInt16.self) == 15)
        #expect((place + 16 * 64).load(fromByteOffset: 2, as: UInt16.self) == 0)
        #expect((device.at(device.shared.srq_db_gts_key) + 8 * 128 + 8).load(as: UInt32.self) == 2)
        var sequence: UInt32 = 4
        for index in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0] as [UInt32] {
            completions.receive(sequence, shared: 0x1000 + index)
            sequence += 1
        }
        #expect(completions.poll().map(\.wr_id) == Array(3...14) + [20, 21])
        // An index that is not posted, and one beyond the queue.
        var wc = ibv_wc()
        completions.receive(sequence, shared: 0x1003)
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EIO)
        completions.receive(sequence, shared: 0xFFF)
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EIO)
        pair.destroy()
        #expect(controlTable.pointee.destroy_srq(queue) == 0 && controlTable.pointee.dealloc_pd(domain) == 0)
        completions.destroy()
        device.close()
    }

    @Test("A flush with a shared receive queue returns the sends and the receive that was begun; none is lost")
    func sharedFlush() throws {
        let device = try FakeDevice(chip: 6)
        let completions = try FakeCompletions(device)
        let (queue, domain) = try shared(device)
        let pair = try FakePair(device, completions, shared: queue)
        device.nextQueuePair = 0x414
        let other = try FakePair(device, completions, shared: queue)
        #expect(post(queue, [0, 1, 2, 3, 4]) == 0)
        pair.send([100, 101])
        completions.receive(1, shared: 0x1000)
        completions.receive(1, pair: 0x414, shared: 0x1002)
        // Index 1 was begun by the failing connection.
        pair.sendStatus.storeBytes(of: 0x1001, toByteOffset: 24, as: UInt32.self)
        pair.fail()
        completions.requestFlush()
        var done = completions.poll(1)
        // A receive that completes too late has consumed its work request.
        completions.receive(2, shared: 0x1003)
        done += completions.poll()
        #expect(done.map(\.wr_id) == [0, 2, 1, 100, 101, 3])
        let flushed = IBV_WC_WR_FLUSH_ERR
        #expect(done.map(\.status) == [IBV_WC_SUCCESS, IBV_WC_SUCCESS, flushed, flushed, flushed, flushed])
        #expect(queue.native.queue.pointee.overtakingCount == 0 && queue.native.queue.pointee.incomplete == 1)
        pair.destroy()
        // CQEs of a queue pair that is destroyed free their work requests.
        completions.receive(2, pair: 0x414, shared: 0x1004)
        other.destroy()
        #expect(completions.poll().isEmpty && queue.native.queue.pointee.incomplete == 0)
        #expect(controlTable.pointee.destroy_srq(queue) == 0 && controlTable.pointee.dealloc_pd(domain) == 0)
        completions.destroy()
        device.close()
    }

    @Test("The limit event is raised once, through MODIFY_SRQ without attributes")
    func limit() throws {
        let device = try FakeDevice(chip: 6)
        let completions = try FakeCompletions(device)
        let (queue, domain) = try shared(device)
        let pair = try FakePair(device, completions, shared: queue)
        #expect(post(queue, [0, 1, 2, 3, 4]) == 0)
        var attr = ibv_srq_attr(max_wr: 0, max_sge: 0, srq_limit: 4)
        #expect(controlTable.pointee.modify_srq(queue, &attr, Int32(IBV_SRQ_LIMIT.rawValue)) == 0)
        #expect(controlTable.pointee.modify_srq(queue, &attr, Int32(IBV_SRQ_MAX_WR.rawValue)) == EOPNOTSUPP)
        for index in 0..<5 as Range<UInt32> { completions.receive(index + 1, shared: 0x1000 + index) }
        #expect(completions.poll(1).count == 1 && device.sharedModifications == [IBV_SRQ_LIMIT.rawValue])
        #expect(completions.poll().count == 4 && device.sharedModifications == [IBV_SRQ_LIMIT.rawValue, 0])
        pair.destroy()
        #expect(controlTable.pointee.destroy_srq(queue) == 0 && controlTable.pointee.dealloc_pd(domain) == 0)
        completions.destroy()
        device.close()
    }
}
