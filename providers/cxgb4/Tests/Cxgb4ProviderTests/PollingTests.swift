import CIBVerbs
import Glibc
import TestSupport
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: CQEs become completions")
struct PollingTests {
    private func bench(
        chip: UInt32 = 5, large: Bool = true, requests: UInt32 = 15, isExtended: Bool = false
    ) throws -> (FakeDevice, FakeCompletions, FakePair) {
        let device = try FakeDevice(chip: chip)
        device.hasLargeCQEs = large
        let completions = try FakeCompletions(device, isExtended: isExtended)
        return (device, completions, try FakePair(device, completions, requests: requests))
    }

    private func end(_ device: FakeDevice, _ completions: FakeCompletions, _ pairs: FakePair...) {
        for pair in pairs { pair.destroy() }
        completions.destroy()
        device.close()
    }

    @Test("Each operation of a send has its opcode", arguments: [true, false])
    func sends(large: Bool) throws {
        let (device, completions, pair) = try bench(large: large)
        let cases: [(ibv_wr_opcode, UInt32, ibv_wc_opcode, UInt32)] = [
            (IBV_WR_SEND, 3, IBV_WC_SEND, 0), (IBV_WR_SEND_WITH_INV, 4, IBV_WC_SEND, 0),
            (IBV_WR_RDMA_WRITE, 0, IBV_WC_RDMA_WRITE, 0), (IBV_WR_RDMA_WRITE_WITH_IMM, 8, IBV_WC_RDMA_WRITE, 0),
            (IBV_WR_LOCAL_INV, 11, IBV_WC_LOCAL_INV, 0),
        ]
        for (index, (opcode, operation, expected, flags)) in cases.enumerated() {
            let list = opcode == IBV_WR_LOCAL_INV ? SGEList([]) : oneSGE
            #expect(pair.post([list.send(opcode, id: UInt64(index + 10))]).error == 0)
            completions.send(UInt16(index), operation: operation)
            let done = completions.poll()
            try #require(done.count == 1)
            #expect(done[0].wr_id == UInt64(index + 10) && done[0].opcode == expected && done[0].wc_flags == flags)
            #expect(done[0].status == IBV_WC_SUCCESS && done[0].qp_num == 0x410 && done[0].vendor_err == 0)
        }
        end(device, completions, pair)
    }

    @Test(
        "Each operation of a receive has its opcode, length, invalidated key or immediate data",
        arguments: [true, false])
    func receives(large: Bool) throws {
        let (device, completions, pair) = try bench(large: large)
        pair.receive([1, 2, 3, 4, 5])
        for (index, operation) in ([3, 4, 5, 6, 8] as [UInt32]).enumerated() {
            completions.receive(UInt32(index + 1), operation: operation, length: 100)
        }
        let done = completions.poll()
        #expect(done.map(\.wr_id) == [1, 2, 3, 4, 5] && done.allSatisfy { $0.byte_len == 100 })
        #expect(done.map(\.opcode) == [IBV_WC_RECV, IBV_WC_RECV, IBV_WC_RECV, IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM])
        let inverted = IBV_WC_WITH_INV.rawValue
        #expect(done.map(\.wc_flags) == [0, inverted, 0, inverted, IBV_WC_WITH_IMM.rawValue])
        #expect(done[1].invalidated_rkey == 0x77 && done[3].invalidated_rkey == 0x77)
        #expect(done[4].imm_data == UInt32(0x0102_0304).bigEndian)
        end(device, completions, pair)
    }

    @Test("Each status has its ibv_wc_status, and marks the queue pair as being in error")
    func statuses() throws {
        for (status, expected) in [
            (0x01, IBV_WC_LOC_ACCESS_ERR), (0x02, IBV_WC_LOC_PROT_ERR), (0x03, IBV_WC_LOC_ACCESS_ERR),
            (0x04, IBV_WC_LOC_ACCESS_ERR), (0x05, IBV_WC_GENERAL_ERR), (0x06, IBV_WC_LOC_LEN_ERR),
            (0x07, IBV_WC_MW_BIND_ERR), (0x08, IBV_WC_MW_BIND_ERR), (0x0C, IBV_WC_WR_FLUSH_ERR),
            (0x10, IBV_WC_FATAL_ERR), (0x18, IBV_WC_FATAL_ERR), (0x1F, IBV_WC_FATAL_ERR), (0x0F, IBV_WC_FATAL_ERR),
        ] as [(UInt32, ibv_wc_status)] {
            let (device, completions, pair) = try bench()
            pair.send([1])
            pair.receive([2])
            completions.send(0, status: status)
            completions.receive(1, status: status)
            let done = completions.poll()
            #expect(done.map(\.status) == [expected, expected] && done.map(\.wr_id) == [1, 2], "\(status)")
            #expect(done.allSatisfy { $0.vendor_err == status && $0.byte_len == 0 })
            #expect(pair.isInError)
            end(device, completions, pair)
        }
    }

    @Test("An unsignaled send is retired with the next signaled one")
    func unsignaled() throws {
        let (device, completions, pair) = try bench()
        for round in 0..<30 {
            pair.send([1, 2, 3, 4], flags: 0)
            pair.send([UInt64(100 + round)])
            completions.send(UInt16((round * 5 + 4) % 16))
            #expect(completions.poll().map(\.wr_id) == [UInt64(100 + round)])
        }
        end(device, completions, pair)
    }

    @Test("Completions out of order are returned in order")
    func outOfOrder() throws {
        let (device, completions, pair) = try bench()
        pair.send([1])
        pair.send([2], IBV_WR_RDMA_READ)
        pair.send([3])
        pair.send([4], flags: 0)
        pair.send([5])
        completions.send(2)
        completions.send(4)
        #expect(completions.poll().isEmpty)
        completions.send(0)
        #expect(completions.poll().map(\.wr_id) == [1])
        completions.readResponse()
        let done = completions.poll(1) + completions.poll()
        #expect(done.map(\.wr_id) == [2, 3, 5] && done.map(\.opcode) == [IBV_WC_RDMA_READ, IBV_WC_SEND, IBV_WC_SEND])
        #expect(done[0].byte_len == 8)
        // All slots are free again.
        pair.send((10..<25).map { $0 })
        end(device, completions, pair)
    }

    @Test("The response to a READ completes the oldest one; unsignaled ones and the kernel's own READ complete nothing")
    func reads() throws {
        let (device, completions, pair) = try bench()
        completions.readResponse(key: 1)
        pair.send([1], IBV_WR_RDMA_READ, flags: 0)
        pair.send([2], IBV_WR_RDMA_READ)
        pair.send([3], IBV_WR_SEND)
        pair.send([4], IBV_WR_RDMA_READ)
        completions.readResponse()
        #expect(completions.poll().isEmpty)
        completions.readResponse()
        completions.readResponse(status: 6)
        completions.send(2)
        let done = completions.poll()
        #expect(done.map(\.wr_id) == [2, 3, 4])
        #expect(done.map(\.status) == [IBV_WC_SUCCESS, IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR] && pair.isInError)
        // No READ is outstanding.
        completions.readResponse()
        var wc = ibv_wc()
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EIO)
        end(device, completions, pair)
    }

    @Test("A send that overtakes an unsignaled READ is returned after its response")
    func overtakenRead() throws {
        let (device, completions, pair) = try bench()
        pair.send([1], IBV_WR_RDMA_READ, flags: 0)
        pair.send([2])
        pair.send([3], IBV_WR_RDMA_READ)
        completions.send(1)
        #expect(completions.poll().isEmpty)
        completions.readResponse()
        #expect(completions.poll().map(\.wr_id) == [2])
        completions.readResponse()
        #expect(completions.poll().map(\.wr_id) == [3])
        end(device, completions, pair)
    }

    @Test("A failed READ is returned although it is not signaled")
    func failedRead() throws {
        let (device, completions, pair) = try bench()
        pair.send([1], IBV_WR_RDMA_READ, flags: 0)
        completions.readResponse(status: 4)
        #expect(completions.poll().map(\.status) == [IBV_WC_LOC_ACCESS_ERR])
        end(device, completions, pair)
    }

    @Test("A failed send is returned after the signaled sends before it")
    func failedSend() throws {
        let (device, completions, pair) = try bench()
        pair.send([1], IBV_WR_RDMA_READ)
        pair.send([2, 3])
        completions.send(1, status: 4)
        #expect(completions.poll().isEmpty && pair.isInError)
        completions.requestFlush()
        let done = completions.poll()
        #expect(done.map(\.wr_id) == [1, 2, 3])
        #expect(done.map(\.status) == [IBV_WC_WR_FLUSH_ERR, IBV_WC_LOC_ACCESS_ERR, IBV_WC_WR_FLUSH_ERR])
        end(device, completions, pair)
    }

    @Test("A wrong sequence number is a completion with IBV_WC_FATAL_ERR")
    func sequence() throws {
        let (device, completions, pair) = try bench()
        pair.receive([1, 2])
        completions.receive(1)
        completions.receive(3)
        let done = completions.poll()
        #expect(
            done.map(\.status) == [IBV_WC_SUCCESS, IBV_WC_FATAL_ERR] && done[1].vendor_err == 0x18 && pair.isInError)
        end(device, completions, pair)
    }

    @Test("A CQE with an index or operation that cannot be is -EIO, after the completions before it")
    func invalid() throws {
        for (number, change)
            in ([
                { $0.send(1) }, { $0.send(16) }, { $0.send(0xFFFF) }, { $0.send(0, operation: 15) },
                { $0.send(0, operation: 10) }, { $0.receive(1, operation: 9) }, { $0.receive(1, operation: 12) },
            ] as [(FakeCompletions) -> Void]).enumerated()
        {
            let (device, completions, pair) = try bench()
            pair.send([1])
            pair.receive([2, 3])
            completions.receive(1)
            change(completions)
            completions.send(0)
            #expect(completions.poll().map(\.wr_id) == [2], "\(number)")
            var wc = ibv_wc()
            #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EIO, "\(number)")
            #expect(completions.poll().map(\.wr_id) == [1], "\(number)")
            end(device, completions, pair)
        }
    }

    @Test("CQEs that complete nothing are consumed: terminate messages, errors of the peer's requests, unknown QPNs")
    func others() throws {
        let (device, completions, pair) = try bench()
        completions.receive(0, operation: 7)
        completions.receive(0, pair: 0x999)
        #expect(completions.poll().isEmpty && !pair.isInError)
        completions.receive(0, status: 4, operation: 0)
        #expect(completions.poll().isEmpty && pair.isInError)
        // A receive without a posted work request.
        completions.receive(1)
        #expect(completions.poll().isEmpty)
        end(device, completions, pair)
    }

    @Test(
        "Consumed CQEs are returned in sixteenths of the queue, and when the queue is armed",
        arguments: [4, 5] as [UInt32])
    func register(chip: UInt32) throws {
        let (device, completions, pair) = try bench(chip: chip, large: false)
        func register() -> UInt32 { chip == 4 ? completions.register4 : completions.register }
        for round in 0..<100 {
            pair.send([1])
            completions.send(UInt16(round % 16))
            #expect(completions.poll().count == 1)
            // 63 entries: 3 at a time, timer 7; CQ 2 of its page.
            #expect(register() == (round < 2 ? 0 : 2 << 16 | 7 << 13 | 3))
        }
        #expect(ibv_req_notify_cq(completions.queue, 0) == 0)
        #expect(register() == 2 << 16 | 6 << 13 | 1)
        #expect(ibv_req_notify_cq(completions.queue, 1) == 0)
        #expect(register() == 2 << 16 | 6 << 13 | 1 << 12)
        end(device, completions, pair)
    }

    @Test("An overflow is -EOVERFLOW for ever, after the flushed work requests")
    func overflow() throws {
        let (device, completions, pair) = try bench()
        pair.send([1, 2])
        pair.receive([3])
        completions.send(0)
        #expect(completions.poll().map(\.wr_id) == [1])
        // The whole ring and the last consumed CQE are overwritten.
        for _ in 0..<64 { completions.send(1) }
        var wc = ibv_wc()
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EOVERFLOW)
        pair.fail()
        completions.requestFlush()
        let done = completions.poll()
        #expect(done.map(\.wr_id) == [3, 2] && done.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EOVERFLOW)
        end(device, completions, pair)
    }

    @Test("CQEs of a destroyed queue pair are not attributed to a new one with the same QPN")
    func reuse() throws {
        let (device, completions, pair) = try bench()
        pair.send([1])
        completions.send(0)
        pair.destroy()
        let next = try FakePair(device, completions)
        next.send([2])
        #expect(completions.poll().isEmpty)
        completions.send(0)
        #expect(completions.poll().map(\.wr_id) == [2])
        end(device, completions, next)
    }

    @Test("A CQE on a completion queue that its queue pair does not use is invalid")
    func stranger() throws {
        let (device, completions, pair) = try bench()
        let other = try FakeCompletions(device)
        pair.send([1])
        other.send(0)
        var wc = ibv_wc()
        #expect(ibv_poll_cq(other.queue, 1, &wc) == -EIO)
        other.receive(1)
        #expect(ibv_poll_cq(other.queue, 1, &wc) == -EIO)
        completions.send(0)
        #expect(completions.poll().map(\.wr_id) == [1])
        pair.destroy()
        other.destroy()
        completions.destroy()
        device.close()
    }

    @Test("Extended polling returns the same completions; inside a batch the other functions work")
    func extended() throws {
        let (device, completions, pair) = try bench(isExtended: true)
        pair.send([1], IBV_WR_RDMA_READ)
        pair.receive([2])
        completions.readResponse()
        completions.receive(1, operation: 8, length: 44)
        var attr = ibv_poll_cq_attr()
        let cq = completions.extended
        #expect(ibv_start_poll(cq, &attr) == 0)
        #expect(
            cq.pointee.wr_id == 1 && cq.pointee.status == IBV_WC_SUCCESS && ibv_wc_read_opcode(cq) == IBV_WC_RDMA_READ)
        #expect(ibv_wc_read_byte_len(cq) == 8 && ibv_wc_read_qp_num(cq) == 0x410 && ibv_wc_read_wc_flags(cq) == 0)
        var wc = ibv_wc()
        #expect(ibv_poll_cq(completions.queue, 1, &wc) == -EBUSY && ibv_start_poll(cq, &attr) == EBUSY)
        #expect(controlTable.pointee.destroy_cq(completions.queue) == EBUSY)
        #expect(ibv_req_notify_cq(completions.queue, 0) == 0)
        #expect(ibv_next_poll(cq) == 0)
        #expect(cq.pointee.wr_id == 2 && ibv_wc_read_opcode(cq) == IBV_WC_RECV_RDMA_WITH_IMM)
        #expect(ibv_wc_read_byte_len(cq) == 44 && ibv_wc_read_imm_data(cq) == UInt32(0x0102_0304).bigEndian)
        #expect(ibv_wc_read_vendor_err(cq) == 0 && ibv_wc_read_src_qp(cq) == 0 && ibv_wc_read_slid(cq) == 0)
        // A queue pair that is made and destroyed inside the batch.
        device.nextQueuePair = 0x420
        let other = try FakePair(device, completions)
        other.destroy()
        #expect(ibv_next_poll(cq) == ENOENT)
        ibv_end_poll(cq)
        ibv_end_poll(cq)
        #expect(ibv_start_poll(cq, &attr) == ENOENT && ibv_next_poll(cq) == EINVAL)
        completions.receive(9, operation: 15)
        #expect(ibv_start_poll(cq, &attr) == EIO && ibv_start_poll(cq, &attr) == ENOENT)
        end(device, completions, pair)
    }
}
