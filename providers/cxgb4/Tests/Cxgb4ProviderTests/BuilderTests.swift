import CIBVerbs
import Glibc
import TestSupport
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: the wr_ functions")
struct BuilderTests {
    private static var all: UInt64 { sendOperations(IBV_QPT_RC) }

    private func bench() throws -> (FakeDevice, FakeCompletions, FakePair) {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        return (device, completions, try FakePair(device, completions, requests: 31, operations: Self.all))
    }

    private func end(_ device: FakeDevice, _ completions: FakeCompletions, _ pair: FakePair) {
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test("They write the same work requests as post_send")
    func equal() throws {
        let (device, completions, posted) = try bench()
        device.nextQueuePair = 0x420
        let built = try FakePair(device, completions, requests: 31, operations: Self.all)
        let three = sges(3)
        let inline = payload(100)
        var invert = three.send(IBV_WR_SEND_WITH_INV)
        invert.invalidate_rkey = 0x55
        var immediate = three.send(IBV_WR_RDMA_WRITE_WITH_IMM)
        immediate.imm_data = 0x0102_0304
        var local = SGEList([]).send(IBV_WR_LOCAL_INV)
        local.invalidate_rkey = 0x66
        var inlined = inline.send(IBV_WR_RDMA_WRITE)
        inlined.send_flags |= IBV_SEND_INLINE.rawValue
        #expect(
            posted.post([
                three.send(IBV_WR_SEND), SGEList([]).send(IBV_WR_SEND), invert, three.send(IBV_WR_RDMA_WRITE),
                immediate,
                oneSGE.send(IBV_WR_RDMA_READ), SGEList([]).send(IBV_WR_RDMA_READ), local, inlined,
            ]).error == 0)
        let qp = built.extended
        let (key, address): (UInt32, UInt64) = (0xAABB_CCDD, 0x1122_3344_5566_7788)
        ibv_wr_start(qp)
        qp.pointee.wr_id = 1
        qp.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
        ibv_wr_send(qp)
        ibv_wr_set_sge_list(qp, 3, three.sges.baseAddress)
        ibv_wr_send(qp)
        ibv_wr_send_inv(qp, 0x55)
        ibv_wr_set_sge_list(qp, 3, three.sges.baseAddress)
        ibv_wr_rdma_write(qp, key, address)
        ibv_wr_set_sge_list(qp, 3, three.sges.baseAddress)
        ibv_wr_rdma_write_imm(qp, key, address, 0x0102_0304)
        ibv_wr_set_sge_list(qp, 3, three.sges.baseAddress)
        ibv_wr_rdma_read(qp, key, address)
        ibv_wr_set_sge(qp, 0x101, 0x1000, 8)
        ibv_wr_rdma_read(qp, key, address)
        ibv_wr_local_inv(qp, 0x66)
        ibv_wr_rdma_write(qp, key, address)
        let data = UnsafeMutableRawPointer(bitPattern: UInt(inline.sges[0].addr))!
        var buffers = [ibv_data_buf(addr: data, length: 60), ibv_data_buf(addr: data + 60, length: 40)]
        ibv_wr_set_inline_data_list(qp, 2, &buffers)
        #expect(ibv_wr_complete(qp) == 0)
        #expect(built.sends(0, 64 * 20) == posted.sends(0, 64 * 20))
        #expect(
            built.sendStatus.load(fromByteOffset: 16, as: UInt16.self)
                == posted.sendStatus.load(fromByteOffset: 16, as: UInt16.self))
        built.destroy()
        end(device, completions, posted)
    }

    @Test("After an error nothing is posted, and the queue is as before; likewise after wr_abort")
    func errors() throws {
        let (device, completions, pair) = try bench()
        let qp = pair.extended
        let tooMuch = payload(281)
        let data = UnsafeMutableRawPointer(bitPattern: UInt(tooMuch.sges[0].addr))!
        for fault in [
            { ibv_wr_set_inline_data(qp, data, 281) }, { ibv_wr_set_sge_list(qp, 18, oneSGE.sges.baseAddress) },
            {
                ibv_wr_rdma_read(qp, 1, 2)
                ibv_wr_set_inline_data(qp, data, 8)
            },
            {
                ibv_wr_rdma_read(qp, 1, 2)
                ibv_wr_set_sge_list(qp, 2, sges(2).sges.baseAddress)
            },
            {
                ibv_wr_local_inv(qp, 1)
                ibv_wr_set_sge(qp, 1, 2, 3)
            },
        ] as [() -> Void] {
            ibv_wr_start(qp)
            ibv_wr_send(qp)
            fault()
            #expect(ibv_wr_complete(qp) == EINVAL)
        }
        ibv_wr_start(qp)
        for _ in 0..<32 { ibv_wr_send(qp) }
        #expect(ibv_wr_complete(qp) == ENOMEM)
        ibv_wr_start(qp)
        ibv_wr_send(qp)
        ibv_wr_abort(qp)
        ibv_wr_start(qp)
        #expect(ibv_wr_complete(qp) == 0 && pair.takeDoorbell(8) == 0)
        pair.send([7])
        #expect(pair.sends(0, 4) == [0x15, 1, 0, 0])
        completions.send(0)
        #expect(completions.poll().map(\.wr_id) == [7])
        end(device, completions, pair)
    }

    @Test("Only the functions of the requested operations are set")
    func functions() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions, operations: UInt64(IBV_QP_EX_WITH_SEND.rawValue))
        #expect(pair.extended.pointee.wr_send != nil && pair.extended.pointee.wr_rdma_read == nil)
        #expect(pair.extended.pointee.wr_send_imm == nil && pair.extended.pointee.wr_set_ud_addr == nil)
        end(device, completions, pair)
    }
}
