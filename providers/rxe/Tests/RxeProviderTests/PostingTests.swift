import CIBVerbs
import CKernelABI
import Glibc
import Testing

@testable import RxeProvider

@Suite("rxe: posting to the send queue")
struct PostingTests {
    /// What every entry with three pieces must say, whatever the operation.
    private func expectCommon(_ entry: rxe_send_wqe, _ request: ibv_send_wr, ssn: UInt32, length: UInt32) {
        #expect(entry.wr.wr_id == request.wr_id)
        #expect(entry.wr.opcode == request.opcode.rawValue)
        #expect(entry.wr.send_flags == request.send_flags)
        #expect(entry.status == 0)
        #expect(entry.state == 0)
        #expect(entry.ssn == ssn)
        #expect(entry.has_rd_atomic == 0)
        #expect(entry.dma.length == length)
        #expect(entry.dma.resid == length)
        #expect(entry.dma.cur_sge == 0)
        #expect(entry.dma.num_sge == UInt32(request.num_sge))
        #expect(entry.dma.sge_offset == 0)
    }

    @Test("Sends, writes, reads: every field of the entry, and one doorbell", arguments: [IBV_QPT_RC, IBV_QPT_UC])
    func connected(type: ibv_qp_type) {
        let list = threePieces()
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
            let answer = fake.post([request])
            #expect(answer.error == 0 && answer.bad == nil)
            let entry = fake.sends.send(index)
            expectCommon(entry, request, ssn: UInt32(index), length: 60)
            #expect(entry.wr.ex.imm_data == request.imm_data)
            #expect(entry.wr.wr.rdma.remote_addr == 0x7FFF_0000_1000)
            #expect(entry.wr.wr.rdma.rkey == 0x8765_4321)
            #expect(entry.iova == 0x7FFF_0000_1000)
            let elements = fake.sends.elements(index, behind: 208, 3)
            #expect(elements.map(\.addr) == [0x1000, 0x2000, 0x3000])
            #expect(elements.map(\.length) == [10, 20, 30])
            #expect(elements.map(\.lkey) == [0x101, 0x102, 0x103])
            #expect(fake.producer == UInt32(index + 1))
            #expect(fake.rung().count == 1)
        }
    }

    @Test("The doorbell is an empty POST_SEND command")
    func doorbell() throws {
        let fake = FakePair()
        #expect(fake.post([threePieces().send(IBV_WR_SEND)]).error == 0)
        let (head, command) = try #require(fake.rung().first)
        #expect(head.command == UInt32(IB_USER_VERBS_CMD_POST_SEND.rawValue))
        #expect(head.in_words == 8 && head.out_words == 1)
        #expect(command.qp_handle == 77)
        #expect(command.wr_count == 0 && command.sge_count == 0)
        #expect(command.wqe_size == 128)
        // The kernel writes its answer there: it must be memory that stays ours.
        let answer = try #require(UnsafeMutableRawPointer(bitPattern: UInt(command.response)))
        let queue = UnsafeMutableRawPointer(fake.pair.sends)
        #expect(answer >= queue && answer < queue + MemoryLayout<SendQueue>.size)
    }

    @Test("Atomics name address, operands and key, and need 8 aligned bytes")
    func atomics() {
        let list = List([ibv_sge(addr: 0x1000, length: 8, lkey: 5)])
        let fake = FakePair()
        for (index, opcode) in [IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD].enumerated() {
            var request = list.send(opcode, id: 9)
            request.wr.atomic.remote_addr = 0x2008
            request.wr.atomic.compare_add = 0x1111_2222_3333_4444
            request.wr.atomic.swap = 0x5555_6666_7777_8888
            request.wr.atomic.rkey = 0x99
            #expect(fake.post([request]).error == 0)
            let entry = fake.sends.send(index)
            expectCommon(entry, request, ssn: UInt32(index), length: 8)
            #expect(entry.wr.wr.atomic.remote_addr == 0x2008)
            #expect(entry.wr.wr.atomic.compare_add == 0x1111_2222_3333_4444)
            #expect(entry.wr.wr.atomic.swap == 0x5555_6666_7777_8888)
            #expect(entry.wr.wr.atomic.rkey == 0x99)
            #expect(entry.iova == 0x2008)
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
        #expect(fake.rung().count == 2)
    }

    @Test("Datagrams name the address handle by its number; without one they are refused")
    func datagrams() {
        let fake = FakePair(IBV_QPT_UD)
        var handle = RxeAddressHandle()
        handle.number = 0x1234
        withUnsafeMutablePointer(to: &handle) { handle in
            var request = threePieces().send(IBV_WR_SEND_WITH_IMM)
            request.imm_data = 0x0102_0304
            request.wr.ud.ah = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
            request.wr.ud.remote_qpn = 0x11
            request.wr.ud.remote_qkey = 0x8001_0000
            let list = threePieces()
            request.sg_list = list.sges.baseAddress
            #expect(fake.post([request]).error == 0)
            let entry = fake.sends.send(0)
            expectCommon(entry, request, ssn: 0, length: 60)
            #expect(entry.wr.wr.ud.ah_num == 0x1234)
            #expect(entry.wr.wr.ud.remote_qpn == 0x11)
            #expect(entry.wr.wr.ud.remote_qkey == 0x8001_0000)
            #expect(entry.wr.wr.ud.pkey_index == 0)
            #expect(entry.wr.ex.imm_data == 0x0102_0304)
            request.wr.ud.ah = nil
            let refused = fake.post([request])
            #expect(refused.error == EINVAL && refused.bad == 0)
        }
    }

    @Test("Local invalidation, and binding of memory windows of both types")
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
                var entry = fake.sends.send(1).wr
                #expect(entry.wr.mw.addr == 0x9000 && entry.wr.mw.length == 64)
                #expect(entry.wr.mw.mr_lkey == 0x31 && entry.wr.mw.mw_rkey == 0x1FF)
                #expect(entry.wr.mw.rkey == 0x77 && entry.wr.mw.access == 2)
                bind.bind_mw.mw = nil
                #expect(fake.post([bind]).error == EINVAL)
                bind.bind_mw.mw = window
                bind.bind_mw.bind_info.mr = nil
                #expect(fake.post([bind]).error == EINVAL)

                // Type 1: the provider makes the next key, of the low 8 bits alone.
                var binding = ibv_mw_bind(
                    wr_id: 5, send_flags: IBV_SEND_SIGNALED.rawValue,
                    bind_info: ibv_mw_bind_info(mr: region, addr: 0x9000, length: 64, mw_access_flags: 2))
                #expect(bindWindow(qp: fake.pair.verbs, mw: window, binding: &binding) == 0)
                entry = fake.sends.send(2).wr
                #expect(entry.wr_id == 5 && entry.send_flags == IBV_SEND_SIGNALED.rawValue)
                #expect(entry.wr.mw.mw_rkey == 0x1FF && entry.wr.mw.rkey == 0x100)
                #expect(window.pointee.rkey == 0x100)
                binding.bind_info.mw_access_flags = IBV_ACCESS_ZERO_BASED.rawValue
                #expect(bindWindow(qp: fake.pair.verbs, mw: window, binding: &binding) == EINVAL)
                #expect(window.pointee.rkey == 0x100)
            }
        }
    }

    @Test("Inline data is copied from all pieces, up to the limit and not a byte more")
    func inline() {
        let fake = FakePair()
        var bytes = (0..<101).map { UInt8($0) }
        bytes.withUnsafeMutableBytes { memory in
            let base = UInt64(UInt(bitPattern: memory.baseAddress!))
            let list = List([
                ibv_sge(addr: base + 50, length: 50, lkey: 0), ibv_sge(addr: 0, length: 0, lkey: 0),
                ibv_sge(addr: base, length: 50, lkey: 0),
            ])
            let flags = IBV_SEND_INLINE.rawValue | IBV_SEND_SIGNALED.rawValue
            #expect(fake.post([list.send(IBV_WR_SEND, flags: flags)]).error == 0)
            let entry = fake.sends.send(0)
            #expect(entry.wr.send_flags == flags)
            #expect(entry.dma.length == 100 && entry.dma.resid == 100)
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
        "What cannot be posted is refused, and nothing rings",
        arguments: [IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD])
    func refusals(type: ibv_qp_type) {
        let fake = FakePair(type)
        let list = threePieces()
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
        let huge = List([ibv_sge(addr: 0, length: .max, lkey: 0), ibv_sge(addr: 0, length: 1, lkey: 0)])
        #expect(fake.post([huge.send(IBV_WR_SEND)]).error == EINVAL)
        #expect(fake.producer == 0)
        #expect(fake.rung().isEmpty)
    }

    @Test("The allowed opcodes are those of the service type (IBTA volume 1, table 38, and rxe's)")
    func opcodes() {
        func names(_ type: ibv_qp_type) -> [UInt32] { (0..<32).filter { allowedOpcodes(type) & (1 << $0) != 0 } }
        #expect(names(IBV_QPT_RC) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        #expect(names(IBV_QPT_UC) == [0, 1, 2, 3, 7, 8])
        #expect(names(IBV_QPT_UD) == [2, 3])
        #expect(names(IBV_QPT_RAW_PACKET) == [])
    }

    @Test("Sends wait for RTS; error states take them, to flush them")
    func states() {
        let fake = FakePair()
        let list = threePieces()
        for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_UNKNOWN] {
            fake.pair.pointee.base.qp_base.state = state
            let answer = fake.post([list.send(IBV_WR_SEND)])
            #expect(answer.error == EINVAL && answer.bad == 0)
        }
        #expect(fake.producer == 0)
        for state in [IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPS_SQE, IBV_QPS_ERR] {
            fake.pair.pointee.base.qp_base.state = state
            #expect(fake.post([list.send(IBV_WR_SEND)]).error == 0)
        }
    }

    @Test("A full queue takes what fits; what went before is rung, and bad_wr is the first that was not taken")
    func full() {
        let fake = FakePair(depth: 8)
        let list = threePieces()
        let answer = fake.post((0..<10).map { list.send(IBV_WR_SEND, id: UInt64($0)) })
        #expect(answer.error == ENOMEM && answer.bad == 7)
        #expect(fake.producer == 7)
        #expect(fake.rung().count == 1)
        #expect(fake.post([list.send(IBV_WR_SEND)]).bad == 0)
        #expect(fake.rung().isEmpty)
        // Many times around.
        for round in 0..<50 {
            fake.sends.consume(3)
            let start = Int(fake.producer)
            #expect(fake.post((0..<3).map { list.send(IBV_WR_SEND, id: UInt64(1000 * round + $0)) }).error == 0)
            for index in 0..<3 { #expect(fake.sends.send(start + index).wr.wr_id == UInt64(1000 * round + index)) }
            #expect(fake.post([list.send(IBV_WR_SEND)]).error == ENOMEM)
            _ = fake.rung()
        }
    }

    @Test("A failure in the middle of a chain: those before it are posted and rung, in one write")
    func middle() {
        let fake = FakePair(depth: 16)
        let list = threePieces()
        var chain = (0..<6).map { list.send(IBV_WR_SEND, id: UInt64($0)) }
        chain[4].num_sge = 9
        let answer = fake.post(chain)
        #expect(answer.error == EINVAL && answer.bad == 4)
        #expect(fake.producer == 4)
        #expect((0..<4).map { fake.sends.send($0).wr.wr_id } == [0, 1, 2, 3])
        #expect(fake.rung().count == 1)
        #expect(fake.post([]).error == 0)
        #expect(fake.rung().isEmpty)
    }

    @Test("A doorbell that the kernel refuses: its error, and nothing was taken")
    func refusedDoorbell() {
        let fake = FakePair()
        let list = threePieces()
        #expect(fake.post([list.send(IBV_WR_SEND)]).error == 0)
        fake.pair.sends.pointee.descriptor = -1
        let answer = fake.post([list.send(IBV_WR_SEND), list.send(IBV_WR_SEND)])
        #expect(answer.error == EBADF && answer.bad == 0)
        #expect(fake.producer == 1)
    }
}
