import CIBVerbs
import CKernelABI
import CProviderABI
import Glibc
import ProviderKit
import TestSupport
import Testing

@testable import RxeProvider

@Suite("rxe: the functions of ibv_qp_ex")
struct BuilderTests {
    private func begin(_ fake: FakePair, id: UInt64 = 1, flags: UInt32 = IBV_SEND_SIGNALED.rawValue)
        -> UnsafeMutablePointer<ibv_qp_ex>
    {
        let qp = fake.extended
        ibv_wr_start(qp)
        qp.pointee.wr_id = id
        qp.pointee.wr_flags = flags
        return qp
    }

    @Test("The wr_ functions write the same WQEs as post_send")
    func sameWQEs() {
        let built = FakePair(depth: 32)
        let posted = FakePair(depth: 32)
        let list = threeSGEs()
        let eight = SGEList([ibv_sge(addr: 0x1000, length: 8, lkey: 5)])
        var region = ibv_mr()
        var window = ibv_mw()
        region.lkey = 0x31
        window.rkey = 0x155
        withUnsafeMutablePointer(to: &region) { region in
            withUnsafeMutablePointer(to: &window) { window in
                let info = ibv_mw_bind_info(mr: region, addr: 0x9000, length: 64, mw_access_flags: 2)
                let qp = begin(built)
                var requests: [ibv_send_wr] = []
                func add(_ request: ibv_send_wr, _ change: (inout ibv_send_wr) -> Void) {
                    var request = request
                    // The builders set the fields of the operation and leave all others at 0.
                    change(&request)
                    request.wr_id = UInt64(requests.count)
                    requests.append(request)
                    qp.pointee.wr_id = request.wr_id + 1
                }
                qp.pointee.wr_id = 0
                func three() { ibv_wr_set_sge_list(qp, 3, list.sges.baseAddress) }
                ibv_wr_send(qp); three()
                add(list.send(IBV_WR_SEND)) { _ in }
                ibv_wr_send_imm(qp, 0xAABB); three()
                add(list.send(IBV_WR_SEND_WITH_IMM)) { $0.imm_data = 0xAABB }
                ibv_wr_send_inv(qp, 0x77); three()
                add(list.send(IBV_WR_SEND_WITH_INV)) { $0.invalidate_rkey = 0x77 }
                ibv_wr_rdma_write(qp, 0x55, 0x7777_0000); three()
                add(list.send(IBV_WR_RDMA_WRITE)) { ($0.wr.rdma.remote_addr, $0.wr.rdma.rkey) = (0x7777_0000, 0x55) }
                ibv_wr_rdma_write_imm(qp, 0x55, 0x7777_0000, 0xCC); three()
                add(list.send(IBV_WR_RDMA_WRITE_WITH_IMM)) {
                    ($0.wr.rdma.remote_addr, $0.wr.rdma.rkey, $0.imm_data) = (0x7777_0000, 0x55, 0xCC)
                }
                ibv_wr_rdma_read(qp, 0x55, 0x7777_0000); three()
                add(list.send(IBV_WR_RDMA_READ)) { ($0.wr.rdma.remote_addr, $0.wr.rdma.rkey) = (0x7777_0000, 0x55) }
                ibv_wr_atomic_cmp_swp(qp, 0x56, 0x8888_0000, 3, 4); ibv_wr_set_sge(qp, 5, 0x1000, 8)
                add(eight.send(IBV_WR_ATOMIC_CMP_AND_SWP)) {
                    ($0.wr.atomic.remote_addr, $0.wr.atomic.rkey) = (0x8888_0000, 0x56)
                    ($0.wr.atomic.compare_add, $0.wr.atomic.swap) = (3, 4)
                }
                ibv_wr_atomic_fetch_add(qp, 0x56, 0x8888_0000, 3); ibv_wr_set_sge(qp, 5, 0x1000, 8)
                add(eight.send(IBV_WR_ATOMIC_FETCH_AND_ADD)) {
                    ($0.wr.atomic.remote_addr, $0.wr.atomic.rkey) = (0x8888_0000, 0x56)
                    ($0.wr.atomic.compare_add, $0.wr.atomic.swap) = (3, 0)
                }
                ibv_wr_local_inv(qp, 0x4242)
                add(SGEList([]).send(IBV_WR_LOCAL_INV)) { $0.invalidate_rkey = 0x4242 }
                var infoCopy = info
                ibv_wr_bind_mw(qp, window, 0x156, &infoCopy)
                add(SGEList([]).send(IBV_WR_BIND_MW)) {
                    ($0.bind_mw.mw, $0.bind_mw.rkey, $0.bind_mw.bind_info) = (window, 0x156, info)
                }
                #expect(ibv_wr_complete(qp) == 0)
                #expect(built.doorbells().count == 1)
                #expect(posted.post(requests).error == 0)
                #expect(built.producer == UInt32(requests.count) && posted.producer == built.producer)
                for (index, request) in requests.enumerated() {
                    #expect(same(built.sends, posted.sends, index, request), "\(request.opcode)")
                }
            }
        }
    }

    /// Whether two WQEs have the same fields, except those that the opcode does not use.
    private func same(_ one: FakeRing, _ other: FakeRing, _ index: Int, _ request: ibv_send_wr) -> Bool {
        let operands: Int
        switch request.opcode {
        case IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, IBV_WR_LOCAL_INV: operands = 0
        case IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ: operands = 12
        case IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD: operands = 28
        default: operands = 32
        }
        let hasAddress = operands > 0 && operands < 32
        let ranges = [
            0..<8, 12..<24 + operands, 144..<152, hasAddress ? 152..<160 : 0..<0, 176..<204,
            208..<208 + 16 * Int(request.num_sge),
        ]
        return ranges.allSatisfy { range in
            memcmp(one.entry(index) + range.lowerBound, other.entry(index) + range.lowerBound, range.count) == 0
        }
    }

    /// The bytes of `struct rxe_send_wr.wr` from `offset` on, of which the installed header may not declare `flush`.
    private func operand<Word>(_ fake: FakePair, _ index: Int, _ offset: Int, as type: Word.Type) -> Word {
        fake.sends.entry(index).loadUnaligned(fromByteOffset: 24 + offset, as: type)
    }

    @Test("ATOMIC WRITE has its 8 bytes in the WQE, FLUSH its range in iova and dma.length")
    func placements() {
        let fake = FakePair()
        let qp = begin(fake, id: 7)
        var value: UInt64 = 0x1122_3344_5566_7788
        ibv_wr_atomic_write(qp, 0x55, 0x7777_0008, &value)
        qp.pointee.wr_id = 8
        let flush = rdma_wr_flush_place(qp).pointee!
        flush(qp, 0x56, 0x8888_0001, 4097, 1, 0)
        // Of a whole memory region, the length has no meaning.
        flush(qp, 0x57, 0, 1 << 40, 3, 1)
        #expect(ibv_wr_complete(qp) == 0)
        #expect(fake.producer == 3 && fake.doorbells().count == 1)

        let write = fake.sends.send(0)
        #expect(write.wr.wr_id == 7 && write.wr.opcode == 15 && write.wr.send_flags == IBV_SEND_SIGNALED.rawValue)
        #expect(write.wr.wr.rdma.remote_addr == 0x7777_0008 && write.wr.wr.rdma.rkey == 0x55)
        #expect(write.iova == 0x7777_0008 && write.ssn == 0)
        #expect(write.dma.length == 8 && write.dma.resid == 8 && write.dma.num_sge == 0)
        #expect(fake.sends.data(0, 9) == withUnsafeBytes(of: value) { Array($0) } + [0xA5])

        let expected: [(id: UInt64, key: UInt32, address: UInt64, length: UInt32, placement: UInt8, level: UInt8)] = [
            (8, 0x56, 0x8888_0001, 4097, 1, 0), (8, 0x57, 0, 0, 3, 1),
        ]
        for (index, request) in expected.enumerated() {
            let wqe = fake.sends.send(1 + index)
            #expect(wqe.wr.wr_id == request.id && wqe.wr.opcode == 14 && wqe.ssn == UInt32(1 + index))
            #expect(wqe.iova == request.address && operand(fake, 1 + index, 0, as: UInt64.self) == request.address)
            #expect(operand(fake, 1 + index, 8, as: UInt32.self) == request.length)
            #expect(operand(fake, 1 + index, 12, as: UInt32.self) == request.key)
            #expect(operand(fake, 1 + index, 16, as: UInt8.self) == request.placement)
            #expect(operand(fake, 1 + index, 17, as: UInt8.self) == request.level)
            #expect(wqe.dma.length == request.length && wqe.dma.resid == request.length && wqe.dma.num_sge == 0)
        }
    }

    @Test("A misaligned ATOMIC WRITE, one without data and a FLUSH of 4 GiB fail with EINVAL, and nothing is posted")
    func refusedPlacements() {
        let fake = FakePair()
        var value: UInt64 = 0
        let calls: [(UnsafeMutablePointer<ibv_qp_ex>) -> Void] = [
            { ibv_wr_atomic_write($0, 1, 0x1004, &value) }, { ibv_wr_atomic_write($0, 1, 0x1000, nil) },
            { rdma_wr_flush_place($0).pointee!($0, 1, 0, 1 << 32, 1, 0) },
        ]
        for call in calls {
            let qp = begin(fake)
            call(qp)
            #expect(ibv_wr_complete(qp) == EINVAL)
        }
        #expect(fake.producer == 0 && fake.doorbells().isEmpty)
    }

    @Test("The operations follow from what the kernel's rxe reports: none before Linux 6.2, FLUSH from 6.3 on")
    func placementsOfKernels() {
        #expect(placementOperations(0x1_FFFF_FFFF) == 0)
        #expect(placementOperations(1 << 40) == UInt64(IBV_QP_EX_WITH_ATOMIC_WRITE.rawValue))
        #expect(placementOperations(1 << 38 | 1 << 39 | 1 << 40) == PlacementOperations.all)
    }

    @Test("Inline data of a buffer and of a list sets the length of all data and IBV_SEND_INLINE")
    func inline() {
        let fake = FakePair()
        var bytes = (0..<101).map { UInt8($0) }
        bytes.withUnsafeMutableBytes { memory in
            let base = memory.baseAddress!
            let qp = begin(fake)
            ibv_wr_send(qp)
            ibv_wr_set_inline_data(qp, base, 100)
            ibv_wr_rdma_write(qp, 1, 0x10)
            var buffers = [
                ibv_data_buf(addr: base + 60, length: 40), ibv_data_buf(addr: nil, length: 0),
                ibv_data_buf(addr: base, length: 60),
            ]
            ibv_wr_set_inline_data_list(qp, buffers.count, &buffers)
            // The setter decides whether the data is inline, not IBV_SEND_INLINE in wr_flags.
            qp.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue | IBV_SEND_INLINE.rawValue
            ibv_wr_send(qp)
            ibv_wr_set_sge(qp, 5, 0x1000, 8)
            #expect(ibv_wr_complete(qp) == 0)
            let inlineFlags = IBV_SEND_SIGNALED.rawValue | IBV_SEND_INLINE.rawValue
            for index in 0..<2 {
                #expect(fake.sends.send(index).wr.send_flags == inlineFlags)
                #expect(fake.sends.send(index).dma.length == 100 && fake.sends.send(index).dma.resid == 100)
                #expect(fake.sends.send(index).dma.num_sge == 0)
            }
            #expect(fake.sends.data(0, 101) == (0..<100).map { UInt8($0) } + [0xA5])
            #expect(fake.sends.data(1, 101) == (60..<100).map { UInt8($0) } + (0..<60).map { UInt8($0) } + [0xA5])
            #expect(fake.sends.send(2).wr.send_flags == IBV_SEND_SIGNALED.rawValue)
            #expect(fake.sends.send(2).dma.length == 8 && fake.sends.send(2).dma.num_sge == 1)
        }
    }

    @Test("wr_set_sge_list sets the sum of the lengths of all SGEs")
    func sgeList() {
        let fake = FakePair()
        let list = threeSGEs()
        let qp = begin(fake)
        ibv_wr_send(qp)
        ibv_wr_set_sge_list(qp, 3, list.sges.baseAddress)
        #expect(ibv_wr_complete(qp) == 0)
        #expect(fake.sends.send(0).dma.length == 60 && fake.sends.send(0).dma.resid == 60)
        #expect(fake.sends.send(0).dma.num_sge == 3)
        #expect(fake.sends.sges(0, offset: 208, 3).map(\.lkey) == [0x101, 0x102, 0x103])
    }

    @Test("wr_set_ud_addr writes the AH number; a nil address handle is EINVAL, and without the call ah_num is 0")
    func datagrams() {
        let fake = FakePair(IBV_QPT_UD)
        var handle = RxeAddressHandle()
        handle.number = 0x1234
        withUnsafeMutablePointer(to: &handle) { handle in
            let ah = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
            var qp = begin(fake)
            ibv_wr_send(qp)
            ibv_wr_set_ud_addr(qp, ah, 0x11, 0x8001_0000)
            ibv_wr_set_sge(qp, 5, 0x1000, 8)
            ibv_wr_send_imm(qp, 0xAA)
            ibv_wr_set_sge(qp, 5, 0x1000, 8)
            #expect(ibv_wr_complete(qp) == 0)
            let wr = fake.sends.send(0).wr.wr.ud
            #expect(wr.ah_num == 0x1234 && wr.remote_qpn == 0x11 && wr.remote_qkey == 0x8001_0000)
            #expect(wr.pkey_index == 0)
            #expect(fake.sends.send(1).wr.wr.ud.ah_num == 0)
            qp = begin(fake)
            ibv_wr_send(qp)
            ibv_wr_set_ud_addr(qp, nil, 0x11, 0x8001_0000)
            #expect(ibv_wr_complete(qp) == EINVAL)
            #expect(fake.producer == 2)
        }
        #expect(fake.extended.pointee.wr_rdma_write == nil)
    }

    @Test("After an error, wr_complete posts nothing and rings no doorbell; the next wr_start clears the error")
    func errors() {
        let fake = FakePair(depth: 4)
        let list = threeSGEs()
        var data = [UInt8](repeating: 1, count: 101)
        let mistakes: [(Int32, (UnsafeMutablePointer<ibv_qp_ex>) -> Void)] = [
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_inline_data($0, &data, 101)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_inline_data($0, &data, -1)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_inline_data($0, nil, 1)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_rdma_read($0, 1, 1); ibv_wr_set_inline_data($0, &data, 1)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_sge_list($0, 5, list.sges.baseAddress)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_sge_list($0, -1, list.sges.baseAddress)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_sge_list($0, 1, nil)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0); ibv_wr_set_inline_data_list($0, 1, nil)
                }
            ),
            (EINVAL, { ibv_wr_set_sge($0, 1, 1, 1) }),
            (EINVAL, { ibv_wr_atomic_cmp_swp($0, 1, 4, 1, 1) }),
            (EINVAL, { ibv_wr_atomic_fetch_add($0, 1, 9, 1) }),
            (EINVAL, { ibv_wr_bind_mw($0, nil, 1, nil) }),
            (ENOMEM, { for _ in 0..<4 { ibv_wr_send($0) } }),
        ]
        for (index, (error, mistake)) in mistakes.enumerated() {
            let qp = begin(fake)
            ibv_wr_send(qp)
            // The work request before is not posted either. The queue has room for 3 WQEs.
            if index == mistakes.count - 1 { ibv_wr_abort(qp) }
            if index == mistakes.count - 1 { ibv_wr_start(qp) }
            if index == 8 {
                ibv_wr_abort(qp)
                ibv_wr_start(qp)
            }
            mistake(qp)
            ibv_wr_set_sge(qp, 1, 1, 1)
            #expect(ibv_wr_complete(qp) == error, "mistake \(index)")
            #expect(fake.producer == 0)
        }
        #expect(fake.doorbells().isEmpty)
        var qp = begin(fake)
        ibv_wr_send(qp)
        ibv_wr_abort(qp)
        qp = begin(fake)
        #expect(ibv_wr_complete(qp) == 0)
        #expect(fake.producer == 0 && fake.doorbells().isEmpty)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RTR
        qp = begin(fake)
        ibv_wr_send(qp)
        #expect(ibv_wr_complete(qp) == EINVAL)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RTS
        qp = begin(fake)
        ibv_wr_send(qp)
        fake.pair.sends.pointee.descriptor = -1
        #expect(ibv_wr_complete(qp) == EBADF)
        #expect(fake.producer == 0)
    }
}
