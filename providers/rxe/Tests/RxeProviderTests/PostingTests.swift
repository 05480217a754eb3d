import CIBVerbs
import CKernelABI
import Glibc
import TestSupport
import Testing

@testable import RxeProvider

@Suite("rxe: posting to the send queue")
struct PostingTests {
    /// Checks the fields of a WQE that are the same for all operations.
    private func expectCommon(_ wqe: rxe_send_wqe, _ request: ibv_send_wr, ssn: UInt32, length: UInt32) {
        #expect(wqe.wr.wr_id == request.wr_id)
        #expect(wqe.wr.opcode == request.opcode.rawValue)
        #expect(wqe.wr.send_flags == request.send_flags)
        #expect(wqe.status == 0)
        #expect(wqe.state == 0)
        #expect(wqe.ssn == ssn)
        #expect(wqe.has_rd_atomic == 0)
        #expect(wqe.dma.length == length)
        #expect(wqe.dma.resid == length)
        #expect(wqe.dma.cur_sge == 0)
        #expect(wqe.dma.num_sge == UInt32(request.num_sge))
        #expect(wqe.dma.sge_offset == 0)
    }

    @Test("SEND, RDMA WRITE and READ: every field of the WQE, and one doorbell", arguments: [IBV_QPT_RC, IBV_QPT_UC])
    func connected(type: ibv_qp_type) {
        let list = threeSGEs()
        let opcodes =
            [IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM]
            + (type == IBV_QPT_RC ? [IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_READ] : [])
        let fake = FakePair(type)
        let flags = IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue | IBV_SEND_FENCE.rawValue
        for (index, opcode) in opcodes.enumerated() {
            var request = list.send(opcode, id: 0x1122_3344_5566_7788 + UInt64(index), flags: flags)
            request.imm_data = 0xDEAD_0000 + UInt32(index)
            request.wr.rdma.remote_addr = 0x7FFF_0000_1000
            request.wr.rdma.rkey = 0x8765_4321
            let result = fake.post([request])
            #expect(result.error == 0 && result.bad == nil)
            let wqe = fake.sends.send(index)
            expectCommon(wqe, request, ssn: UInt32(index), length: 60)
            #expect(wqe.wr.ex.imm_data == request.imm_data)
            #expect(wqe.wr.wr.rdma.remote_addr == 0x7FFF_0000_1000)
            #expect(wqe.wr.wr.rdma.rkey == 0x8765_4321)
            #expect(wqe.iova == 0x7FFF_0000_1000)
            let sges = fake.sends.sges(index, offset: 208, 3)
            #expect(sges.map(\.addr) == [0x1000, 0x2000, 0x3000])
            #expect(sges.map(\.length) == [10, 20, 30])
            #expect(sges.map(\.lkey) == [0x101, 0x102, 0x103])
            #expect(fake.producer == UInt32(index + 1))
            #expect(fake.doorbells().count == 1)
        }
    }

    @Test("The doorbell is an empty POST_SEND command")
    func doorbell() throws {
        let fake = FakePair()
        #expect(fake.post([threeSGEs().send(IBV_WR_SEND)]).error == 0)
        let (head, command) = try #require(fake.doorbells().first)
        #expect(head.command == UInt32(IB_USER_VERBS_CMD_POST_SEND.rawValue))
        #expect(head.in_words == 8 && head.out_words == 1)
        #expect(command.qp_handle == 77)
        #expect(command.wr_count == 0 && command.sge_count == 0)
        #expect(command.wqe_size == 128)
        // The kernel writes its response there, so it must be memory of the send queue.
        let result = try #require(UnsafeMutableRawPointer(bitPattern: UInt(command.response)))
        let queue = UnsafeMutableRawPointer(fake.pair.sends)
        #expect(result >= queue && result < queue + MemoryLayout<SendQueue>.size)
    }

    @Test("Atomics: address, operands and rkey of the WQE; an unaligned address or fewer than 8 bytes are EINVAL")
    func atomics() {
        let list = SGEList([ibv_sge(addr: 0x1000, length: 8, lkey: 5)])
        let fake = FakePair()
        for (index, opcode) in [IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD].enumerated() {
            var request = list.send(opcode, id: 9)
            request.wr.atomic.remote_addr = 0x2008
            request.wr.atomic.compare_add = 0x1111_2222_3333_4444
            request.wr.atomic.swap = 0x5555_6666_7777_8888
            request.wr.atomic.rkey = 0x99
            #expect(fake.post([request]).error == 0)
            let wqe = fake.sends.send(index)
            expectCommon(wqe, request, ssn: UInt32(index), length: 8)
            #expect(wqe.wr.wr.atomic.remote_addr == 0x2008)
            #expect(wqe.wr.wr.atomic.compare_add == 0x1111_2222_3333_4444)
            #expect(wqe.wr.wr.atomic.swap == 0x5555_6666_7777_8888)
            #expect(wqe.wr.wr.atomic.rkey == 0x99)
            #expect(wqe.iova == 0x2008)
            request.wr.atomic.remote_addr = 0x2004
            #expect(fake.post([request]).error == EINVAL)
            request.wr.atomic.remote_addr = 0x2008
            request.num_sge = 0
            #expect(fake.post([request]).error == EINVAL)
            request.num_sge = 1
            list.sges[0].length = 7
            #expect(fake.post([request]).error == EINVAL)
            list.sges[0].length = 8
        }
        #expect(fake.doorbells().count == 2)
    }

    @Test("A UD WQE has the AH number; without an address handle post_send fails with EINVAL")
    func datagrams() {
        let fake = FakePair(IBV_QPT_UD)
        var handle = RxeAddressHandle()
        handle.number = 0x1234
        withUnsafeMutablePointer(to: &handle) { handle in
            var request = threeSGEs().send(IBV_WR_SEND_WITH_IMM)
            request.imm_data = 0x0102_0304
            request.wr.ud.ah = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
            request.wr.ud.remote_qpn = 0x11
            request.wr.ud.remote_qkey = 0x8001_0000
            let list = threeSGEs()
            request.sg_list = list.sges.baseAddress
            #expect(fake.post([request]).error == 0)
            let wqe = fake.sends.send(0)
            expectCommon(wqe, request, ssn: 0, length: 60)
            #expect(wqe.wr.wr.ud.ah_num == 0x1234)
            #expect(wqe.wr.wr.ud.remote_qpn == 0x11)
            #expect(wqe.wr.wr.ud.remote_qkey == 0x8001_0000)
            #expect(wqe.wr.wr.ud.pkey_index == 0)
            #expect(wqe.wr.ex.imm_data == 0x0102_0304)
            request.wr.ud.ah = nil
            let refused = fake.post([request])
            #expect(refused.error == EINVAL && refused.bad == 0)
        }
    }

    @Test("WQEs of IBV_WR_LOCAL_INV, and of IBV_WR_BIND_MW for memory windows of both types")
    func windows() {
        let fake = FakePair()
        var invalidate = ibv_send_wr()
        invalidate.opcode = IBV_WR_LOCAL_INV
        invalidate.invalidate_rkey = 0x4242
        #expect(fake.post([invalidate]).error == 0)
        #expect(fake.sends.send(0).wr.opcode == IBV_WR_LOCAL_INV.rawValue)
        #expect(fake.sends.send(0).wr.ex.invalidate_rkey == 0x4242)

        var region = ibv_mr()
        var window = ibv_mw()
        region.lkey = 0x31
        window.rkey = 0x1FF
        withUnsafeMutablePointer(to: &region) { region in
            withUnsafeMutablePointer(to: &window) { window in
                var bind = ibv_send_wr()
                bind.opcode = IBV_WR_BIND_MW
                bind.bind_mw.mw = window
                bind.bind_mw.rkey = 0x77
                bind.bind_mw.bind_info = ibv_mw_bind_info(mr: region, addr: 0x9000, length: 64, mw_access_flags: 2)
                #expect(fake.post([bind]).error == 0)
                var wqe = fake.sends.send(1).wr
                #expect(wqe.wr.mw.addr == 0x9000 && wqe.wr.mw.length == 64)
                #expect(wqe.wr.mw.mr_lkey == 0x31 && wqe.wr.mw.mw_rkey == 0x1FF)
                #expect(wqe.wr.mw.rkey == 0x77 && wqe.wr.mw.access == 2)
                bind.bind_mw.mw = nil
                #expect(fake.post([bind]).error == EINVAL)
                bind.bind_mw.mw = window
                bind.bind_mw.bind_info.mr = nil
                #expect(fake.post([bind]).error == EINVAL)

                // Type 1: the provider increments the low 8 bits of the rkey.
                var binding = ibv_mw_bind(
                    wr_id: 5, send_flags: IBV_SEND_SIGNALED.rawValue,
                    bind_info: ibv_mw_bind_info(mr: region, addr: 0x9000, length: 64, mw_access_flags: 2))
                #expect(bindWindow(qp: fake.pair.verbs, mw: window, binding: &binding) == 0)
                wqe = fake.sends.send(2).wr
                #expect(wqe.wr_id == 5 && wqe.send_flags == IBV_SEND_SIGNALED.rawValue)
                #expect(wqe.wr.mw.mw_rkey == 0x1FF && wqe.wr.mw.rkey == 0x100)
                #expect(window.pointee.rkey == 0x100)
                binding.bind_info.mw_access_flags = IBV_ACCESS_ZERO_BASED.rawValue
                #expect(bindWindow(qp: fake.pair.verbs, mw: window, binding: &binding) == EINVAL)
                #expect(window.pointee.rkey == 0x100)
            }
        }
    }

    @Test("Inline data is copied from all SGEs, up to max_inline_data")
    func inline() {
        let fake = FakePair()
        var bytes = (0..<101).map { UInt8($0) }
        bytes.withUnsafeMutableBytes { memory in
            let base = UInt64(UInt(bitPattern: memory.baseAddress!))
            let list = SGEList([
                ibv_sge(addr: base + 50, length: 50, lkey: 0), ibv_sge(addr: 0, length: 0, lkey: 0),
                ibv_sge(addr: base, length: 50, lkey: 0),
            ])
            let flags = IBV_SEND_INLINE.rawValue | IBV_SEND_SIGNALED.rawValue
            #expect(fake.post([list.send(IBV_WR_SEND, flags: flags)]).error == 0)
            let wqe = fake.sends.send(0)
            #expect(wqe.wr.send_flags == flags)
            #expect(wqe.dma.length == 100 && wqe.dma.resid == 100)
            #expect(fake.sends.data(0, 101) == (50..<100).map { UInt8($0) } + (0..<50).map { UInt8($0) } + [0xA5])
            list.sges[2].length = 51
            #expect(fake.post([list.send(IBV_WR_SEND, flags: flags)]).error == EINVAL)
            list.sges[0].length = .max
            #expect(fake.post([list.send(IBV_WR_SEND, flags: flags)]).error == EINVAL)
            (list.sges[0].length, list.sges[2].length) = (4, 4)
            for opcode in [IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_LOCAL_INV] {
                #expect(fake.post([list.send(opcode, flags: flags)]).error == EINVAL)
            }
            for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND_WITH_IMM] {
                #expect(fake.post([list.send(opcode, flags: flags)]).error == 0)
            }
        }
    }

    @Test(
        "An invalid work request fails, and no doorbell rings",
        arguments: [IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD])
    func refusals(type: ibv_qp_type) {
        let fake = FakePair(type)
        let list = threeSGEs()
        for opcode: UInt32 in 0..<40 where type != IBV_QPT_UD || opcode != 2 && opcode != 3 {
            guard opcode >= 31 || allowedOpcodes(type) & (1 << opcode) == 0 else { continue }
            #expect(fake.post([list.send(ibv_wr_opcode(opcode))]).error == EINVAL, "opcode \(opcode)")
        }
        var request = list.send(IBV_WR_SEND)
        for count: Int32 in [5, -1, .min, .max] {
            request.num_sge = count
            #expect(fake.post([request]).error == EINVAL)
        }
        request.num_sge = 1
        request.sg_list = nil
        #expect(fake.post([request]).error == EINVAL)
        #expect(fake.post([list.send(IBV_WR_SEND, flags: IBV_SEND_IP_CSUM.rawValue)]).error == EOPNOTSUPP)
        // More than 32 bits of data.
        let huge = SGEList([ibv_sge(addr: 0, length: .max, lkey: 0), ibv_sge(addr: 0, length: 1, lkey: 0)])
        #expect(fake.post([huge.send(IBV_WR_SEND)]).error == EINVAL)
        #expect(fake.producer == 0)
        #expect(fake.doorbells().isEmpty)
    }

    @Test("The allowed opcodes of a QP type are those of IBTA volume 1, table 38, that rxe supports")
    func opcodes() {
        func names(_ type: ibv_qp_type) -> [UInt32] { (0..<32).filter { allowedOpcodes(type) & (1 << $0) != 0 } }
        #expect(names(IBV_QPT_RC) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        #expect(names(IBV_QPT_UC) == [0, 1, 2, 3, 7, 8])
        #expect(names(IBV_QPT_UD) == [2, 3])
        #expect(names(IBV_QPT_RAW_PACKET) == [])
    }

    @Test("post_send fails before RTS; in the error states the work requests are posted, to be flushed")
    func states() {
        let fake = FakePair()
        let list = threeSGEs()
        for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_UNKNOWN] {
            fake.pair.pointee.base.qp_base.state = state
            let result = fake.post([list.send(IBV_WR_SEND)])
            #expect(result.error == EINVAL && result.bad == 0)
        }
        #expect(fake.producer == 0)
        for state in [IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPS_SQE, IBV_QPS_ERR] {
            fake.pair.pointee.base.qp_base.state = state
            #expect(fake.post([list.send(IBV_WR_SEND)]).error == 0)
        }
    }

    @Test("A list that overfills the queue: the first work requests are posted with one doorbell, bad_wr is the next")
    func full() {
        let fake = FakePair(depth: 8)
        let list = threeSGEs()
        let result = fake.post((0..<10).map { list.send(IBV_WR_SEND, id: UInt64($0)) })
        #expect(result.error == ENOMEM && result.bad == 7)
        #expect(fake.producer == 7)
        #expect(fake.doorbells().count == 1)
        #expect(fake.post([list.send(IBV_WR_SEND)]).bad == 0)
        #expect(fake.doorbells().isEmpty)
        // Across the end of the ring many times.
        for round in 0..<50 {
            fake.sends.consume(3)
            let start = Int(fake.producer)
            #expect(fake.post((0..<3).map { list.send(IBV_WR_SEND, id: UInt64(1000 * round + $0)) }).error == 0)
            for index in 0..<3 { #expect(fake.sends.send(start + index).wr.wr_id == UInt64(1000 * round + index)) }
            #expect(fake.post([list.send(IBV_WR_SEND)]).error == ENOMEM)
            _ = fake.doorbells()
        }
    }

    @Test("An invalid work request in a list: those before it are posted, with one doorbell")
    func middle() {
        let fake = FakePair(depth: 16)
        let list = threeSGEs()
        var chain = (0..<6).map { list.send(IBV_WR_SEND, id: UInt64($0)) }
        chain[4].num_sge = 9
        let result = fake.post(chain)
        #expect(result.error == EINVAL && result.bad == 4)
        #expect(fake.producer == 4)
        #expect((0..<4).map { fake.sends.send($0).wr.wr_id } == [0, 1, 2, 3])
        #expect(fake.doorbells().count == 1)
        #expect(fake.post([]).error == 0)
        #expect(fake.doorbells().isEmpty)
    }

    @Test("If the kernel refuses the doorbell, post_send returns its errno and posts nothing")
    func refusedDoorbell() {
        let fake = FakePair()
        let list = threeSGEs()
        #expect(fake.post([list.send(IBV_WR_SEND)]).error == 0)
        fake.pair.sends.pointee.descriptor = -1
        let result = fake.post([list.send(IBV_WR_SEND), list.send(IBV_WR_SEND)])
        #expect(result.error == EBADF && result.bad == 0)
        #expect(fake.producer == 1)
    }
}
