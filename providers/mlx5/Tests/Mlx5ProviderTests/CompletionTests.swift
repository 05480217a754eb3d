import CIBVerbs
import CMlx5DV
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: CQEs, written as struct mlx5_cqe64 of mlx5dv.h")
struct CompletionTests {
    /// Decodes a CQE that is the second half of 128 bytes.
    private func decode<Result>(_ cqe: mlx5_cqe64, _ body: (Completion) -> Result) -> Result {
        var memory = [UInt8](repeating: 0xEE, count: 128)
        return memory.withUnsafeMutableBytes {
            ($0.baseAddress! + 64).storeBytes(of: cqe, as: mlx5_cqe64.self)
            return body(Completion($0.baseAddress! + 64))
        }
    }

    private func opOwn(_ opcode: Int, format: UInt8 = 0, owner: UInt8 = 0) -> UInt8 {
        UInt8(opcode) << 4 | format << 2 | owner
    }

    @Test("Each field of the CQE of a receive is decoded, for random values", arguments: 0..<4)
    func received(seed: UInt64) {
        var random = SplitMix(seed: seed)
        for _ in 0..<300 {
            var cqe = mlx5_cqe64()
            let opcode = random.within(1...4)
            let grh = UInt32(random.below(4))
            let (level, source, pair) = (
                UInt32(random.below(16)), random.any(UInt32.self) & 0xFFFFFF, random.any(UInt32.self)
            )
            cqe.ml_path = random.any()
            cqe.slid = random.any()
            cqe.flags_rqpn = (random.any(UInt32.self) & 0xC000_0000 | grh << 28 | level << 24 | source).bigEndian
            cqe.srqn_uidx = random.any()
            cqe.imm_inval_pkey = random.any()
            cqe.byte_cnt = random.any()
            cqe.timestamp = random.any()
            cqe.sop_drop_qpn = pair.bigEndian
            cqe.wqe_counter = random.any()
            cqe.op_own = opOwn(opcode, owner: random.any() & 1)
            var wc = ibv_wc()
            decode(cqe) { completion in
                completion.writeReceived(&wc)
                #expect(completion.index == UInt32(UInt16(bigEndian: cqe.wqe_counter)))
                #expect(completion.userIndex == UInt32(bigEndian: cqe.srqn_uidx) & 0xFFFFFF)
                #expect(completion.timestamp == UInt64(bigEndian: cqe.timestamp))
                #expect(CQE.owner.get(completion.cqe) == mlx5dv_get_cqe_owner(&cqe))
                #expect(completion.opcode.rawValue == mlx5dv_get_cqe_opcode(&cqe) && !completion.isError)
                #expect(completion.inlineData == nil)
            }
            #expect(wc.opcode == (opcode == 1 ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV))
            #expect(wc.byte_len == UInt32(bigEndian: cqe.byte_cnt) && wc.qp_num == pair & 0xFFFFFF)
            #expect(wc.src_qp == source && UInt32(wc.sl) == level && wc.slid == UInt16(bigEndian: cqe.slid))
            #expect(wc.dlid_path_bits == cqe.ml_path & 0x7F)
            #expect(wc.pkey_index == UInt16(truncatingIfNeeded: UInt32(bigEndian: cqe.imm_inval_pkey)))
            let flags = [0, IBV_WC_WITH_IMM.rawValue, 0, IBV_WC_WITH_IMM.rawValue, IBV_WC_WITH_INV.rawValue][opcode]
            #expect(wc.wc_flags == flags | (grh != 0 ? IBV_WC_GRH.rawValue : 0))
            switch opcode {
            case 1, 3: #expect(wc.imm_data == cqe.imm_inval_pkey)
            case 4: #expect(wc.invalidated_rkey == UInt32(bigEndian: cqe.imm_inval_pkey))
            default: break
            }
        }
    }

    @Test("The CQE of each send operation is decoded to opcode, byte_len and wc_flags")
    func sent() {
        let operations: [(Int, ibv_wc_opcode, UInt32, UInt32)] = [
            (MLX5_OPCODE_SEND, IBV_WC_SEND, 0, 0), (MLX5_OPCODE_SEND_IMM, IBV_WC_SEND, 0, IBV_WC_WITH_IMM.rawValue),
            (MLX5_OPCODE_SEND_INVAL, IBV_WC_SEND, 0, 0), (MLX5_OPCODE_RDMA_WRITE, IBV_WC_RDMA_WRITE, 0, 0),
            (MLX5_OPCODE_RDMA_WRITE_IMM, IBV_WC_RDMA_WRITE, 0, IBV_WC_WITH_IMM.rawValue),
            (MLX5_OPCODE_RDMA_READ, IBV_WC_RDMA_READ, 0x12345, 0), (MLX5_OPCODE_ATOMIC_CS, IBV_WC_COMP_SWAP, 8, 0),
            (MLX5_OPCODE_ATOMIC_FA, IBV_WC_FETCH_ADD, 8, 0), (MLX5_OPCODE_UMR, IBV_WC_LOCAL_INV, 0, 0),
            (MLX5_OPCODE_NOP, IBV_WC_LOCAL_INV, 0, 0),
        ]
        for (operation, opcode, length, flags) in operations {
            var cqe = mlx5_cqe64()
            cqe.sop_drop_qpn = (UInt32(operation) << 24 | 0xABCDEF).bigEndian
            cqe.byte_cnt = UInt32(0x12345).bigEndian
            var wc = ibv_wc()
            decode(cqe) { $0.writeSent(&wc, postedOpcode: IBV_WC_LOCAL_INV.rawValue) }
            #expect(wc.opcode == opcode && wc.byte_len == length && wc.wc_flags == flags && wc.qp_num == 0xABCDEF)
        }
    }

    @Test("Each syndrome is decoded to its status, an unknown one to IBV_WC_GENERAL_ERR, with the vendor syndrome")
    func errors() {
        let known: [Int: ibv_wc_status] = [
            MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR: IBV_WC_LOC_LEN_ERR,
            MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR: IBV_WC_LOC_QP_OP_ERR,
            MLX5_CQE_SYNDROME_LOCAL_PROT_ERR: IBV_WC_LOC_PROT_ERR,
            MLX5_CQE_SYNDROME_WR_FLUSH_ERR: IBV_WC_WR_FLUSH_ERR,
            MLX5_CQE_SYNDROME_MW_BIND_ERR: IBV_WC_MW_BIND_ERR,
            MLX5_CQE_SYNDROME_BAD_RESP_ERR: IBV_WC_BAD_RESP_ERR,
            MLX5_CQE_SYNDROME_LOCAL_ACCESS_ERR: IBV_WC_LOC_ACCESS_ERR,
            MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR: IBV_WC_REM_INV_REQ_ERR,
            MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR: IBV_WC_REM_ACCESS_ERR,
            MLX5_CQE_SYNDROME_REMOTE_OP_ERR: IBV_WC_REM_OP_ERR,
            MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR: IBV_WC_RETRY_EXC_ERR,
            MLX5_CQE_SYNDROME_RNR_RETRY_EXC_ERR: IBV_WC_RNR_RETRY_EXC_ERR,
            MLX5_CQE_SYNDROME_REMOTE_ABORTED_ERR: IBV_WC_REM_ABORT_ERR,
        ]
        for syndrome in 0..<256 {
            var error = mlx5_err_cqe()
            error.syndrome = UInt8(syndrome)
            error.vendor_err_synd = UInt8(255 - syndrome)
            error.s_wqe_opcode_qpn = UInt32(0x0A00_0042).bigEndian
            error.op_own = opOwn(syndrome & 1 == 0 ? MLX5_CQE_REQ_ERR : MLX5_CQE_RESP_ERR)
            var wc = ibv_wc()
            decode(unsafeBitCast(error, to: mlx5_cqe64.self)) {
                #expect($0.isError)
                $0.writeError(&wc)
            }
            #expect(wc.status == known[syndrome] ?? IBV_WC_GENERAL_ERR)
            #expect(wc.vendor_err == UInt32(255 - syndrome) && wc.qp_num == 0x42)
        }
    }

    @Test("Data in a CQE, up to 32 bytes, or 64 in a 128-byte CQE, is copied to the SGEs of the receive")
    func inlineData() throws {
        for (format, place, capacity) in [(1, 64, 32), (2, 0, 64)] {
            for length in [1, capacity / 2, capacity, capacity + 1, Int(UInt32.max)] {
                let fake = FakeQueuePair()
                let target = GuardedMemory(100)
                let base = UInt64(UInt(bitPattern: target.memory))
                let list = SGEList([
                    ibv_sge(addr: base, length: 10, lkey: 1), ibv_sge(addr: base + 20, length: 80, lkey: 1),
                ])
                #expect(fake.postReceives([list.receive(), list.receive()]).error == 0)
                var memory = (0..<128).map { UInt8($0) }
                memory.withUnsafeMutableBytes {
                    var cqe = ($0.baseAddress! + 64).loadUnaligned(as: mlx5_cqe64.self)
                    cqe.byte_cnt = UInt32(truncatingIfNeeded: length).bigEndian
                    cqe.op_own = opOwn(MLX5_CQE_RESP_SEND, format: UInt8(format))
                    ($0.baseAddress! + 64).storeBytes(of: cqe, as: mlx5_cqe64.self)
                    let status = fake.pair.receives.pointee.ring!.scatter(
                        Completion($0.baseAddress! + 64, isLarge: true), to: 1)
                    #expect(status == (length <= capacity ? IBV_WC_SUCCESS : IBV_WC_LOC_LEN_ERR))
                    guard length <= capacity else { return }
                    let got = target.bytes(0..<min(10, length)) + target.bytes(20..<20 + max(0, length - 10))
                    #expect(got == Array($0[place..<place + length]))
                }
            }
        }
    }

    @Test("Data in the CQE of a READ is copied to its SGEs, also if the WQE wraps")
    func inlineRead() {
        for start in 0..<4 as Range<UInt32> {
            let fake = FakeQueuePair(wqebbs: 2)
            fake.wqebb = start
            let target = GuardedMemory(64)
            let base = UInt64(UInt(bitPattern: target.memory))
            let list = SGEList((0..<4).map { ibv_sge(addr: base + 16 * UInt64($0), length: 8, lkey: 1) })
            #expect(fake.post([list.send(IBV_WR_RDMA_READ)]).error == 0)
            var memory = (0..<64).map { UInt8($0) }
            memory.withUnsafeMutableBytes {
                var cqe = $0.baseAddress!.loadUnaligned(as: mlx5_cqe64.self)
                cqe.byte_cnt = UInt32(30).bigEndian
                cqe.sop_drop_qpn = UInt32(MLX5_OPCODE_RDMA_READ << 24).bigEndian
                cqe.op_own = opOwn(MLX5_CQE_REQ, format: 1)
                $0.baseAddress!.storeBytes(of: cqe, as: mlx5_cqe64.self)
                #expect(fake.pair.sends.pointee.ring.scatter(Completion($0.baseAddress!), to: start) == IBV_WC_SUCCESS)
            }
            for sge in 0..<4 {
                let count = sge < 3 ? 8 : 6
                // The data is in the first 32 bytes of the CQE, whose fields are invalid then.
                #expect(
                    target.bytes(16 * sge..<16 * sge + count).elementsEqual(
                        (8 * sge..<8 * sge + count).map { memory[$0] }))
                #expect(target.bytes(16 * sge + count..<16 * sge + 16).allSatisfy { $0 == 0xA5 })
            }
        }
    }
}
