import CSimulator

extension Mlx5Codec {
    /// Writes a CQE; its last byte, with the owner bit, is written last.
    func writeCompletion(_ completion: Completion, _ ring: Mlx5Completions) -> Bool {
        if ring.isFull && !ring.ignoresOverrun { return false }
        var cqe = mlx5_cqe64()
        fill(&cqe, completion)
        var format: UInt8 = 0
        let place = cqePlace(ring)
        if completion.status == IBV_WC_SUCCESS.rawValue, let payload = completion.payload {
            format = scatter(payload, completion, ring, place, &cqe)
        }
        let opcode = self.opcode(completion)
        put(cqe, place, ring, opcode << 4 | format | (completion.isReceive && completion.isSolicited ? 2 : 0))
        ring.producer &+= 1
        return true
    }

    /// Writes a CQE of 128 bytes, or the last 64 of them, with the queue pair's numbers and the owner bit set. Returns
    /// whether it raises an event on a queue that is armed for solicited completions only; nil when the queue is full.
    func writeCQE(_ bytes: UnsafeRawPointer, of queuePair: QueuePair, _ ring: Mlx5Completions) -> Bool? {
        if ring.isFull { return nil }
        var cqe = (bytes + 64).loadUnaligned(as: mlx5_cqe64.self)
        let opcode = Int(cqe.op_own >> 4)
        let isReceive = opcode != MLX5_CQE_REQ && opcode != MLX5_CQE_REQ_ERR
        let others = UInt32(0xFF00_0000)
        cqe.srqn_uidx =
            (UInt32(bigEndian: cqe.srqn_uidx) & others | index(of: queuePair, isReceive: isReceive)).bigEndian
        cqe.sop_drop_qpn = (UInt32(bigEndian: cqe.sop_drop_qpn) & others | queuePair.number).bigEndian
        let place = cqePlace(ring)
        if ring.stride == 128 { (place - 64).copyMemory(from: bytes, byteCount: 64) }
        put(cqe, place, ring, cqe.op_own & 0xFE)
        ring.producer &+= 1
        return cqe.op_own & 2 != 0 || opcode == MLX5_CQE_REQ_ERR || opcode == MLX5_CQE_RESP_ERR
    }

    /// `srqn_uidx` of a CQE: with cqe_version 1 the user index, else the number of the shared receive queue.
    private func index(of queuePair: QueuePair, isReceive: Bool) -> UInt32 {
        if pages(queuePair.context).cqeVersion > 0 { return rings(queuePair).userIndex }
        return isReceive ? queuePair.sharedReceives?.number ?? 0 : 0
    }

    /// Writes MLX5_CQE_RESIZE_CQ, the last CQE in the old memory.
    func writeResize(_ ring: Mlx5Completions) {
        put(mlx5_cqe64(), cqePlace(ring), ring, UInt8(MLX5_CQE_RESIZE_CQ) << 4)
        ring.producer &+= 1
    }

    /// The place of the next `struct mlx5_cqe64`: the last 64 bytes of a CQE of 128.
    private func cqePlace(_ ring: Mlx5Completions) -> UnsafeMutableRawPointer {
        ring.bytes + Int(ring.producer & (ring.count - 1)) * ring.stride + (ring.stride - 64)
    }

    private func put(_ cqe: mlx5_cqe64, _ place: UnsafeMutableRawPointer, _ ring: Mlx5Completions, _ last: UInt8) {
        let owner = UInt8(truncatingIfNeeded: ring.producer / ring.count & 1)
        withUnsafeBytes(of: cqe) { bytes in
            place.copyMemory(from: bytes.baseAddress!, byteCount: 60)
        }
        let word = UInt32(cqe.wqe_counter) | UInt32(cqe.signature) << 16 | UInt32(last | owner) << 24
        sim_store((place + 60).assumingMemoryBound(to: UInt32.self), word)
    }

    private func fill(_ cqe: inout mlx5_cqe64, _ completion: Completion) {
        let queuePair = completion.queuePair
        cqe.srqn_uidx = index(of: queuePair, isReceive: completion.isReceive).bigEndian
        // A requester's CQE has the WQE's opcode, also in an error CQE.
        let opcode = completion.isReceive ? 0 : UInt32(sendOpcode(completion, rings(queuePair)))
        cqe.sop_drop_qpn = (opcode << 24 | queuePair.number).bigEndian
        cqe.wqe_counter = UInt16(truncatingIfNeeded: completion.tag).bigEndian
        guard completion.status == IBV_WC_SUCCESS.rawValue else {
            // `struct mlx5_err_cqe` has its two syndromes in the last bytes of the timestamp.
            withUnsafeMutableBytes(of: &cqe) {
                $0[Int(SIM_MLX5_ERROR_VENDOR)] = UInt8(completion.vendorError & 0xFF)
                $0[Int(SIM_MLX5_ERROR_SYNDROME)] = syndrome(completion.status)
            }
            return
        }
        clock &+= 0x100
        cqe.timestamp = clock.bigEndian
        cqe.byte_cnt = completion.byteLength.bigEndian
        guard completion.isReceive else { return }
        cqe.ml_path = completion.pathBits & 0x7F
        cqe.slid = completion.lid.bigEndian
        // 1: a GRH; 3, on Ethernet: RoCE v2 over IPv4.
        let header: UInt32 = completion.isGlobal ? (device.options.isEthernet ? 3 : 1) : 0
        cqe.flags_rqpn =
            (completion.source & 0xFF_FFFF | UInt32(completion.serviceLevel & 15) << 24 | header << 28).bigEndian
        if completion.hasImmediate {
            cqe.imm_inval_pkey = completion.immediate
        } else if completion.invalidated {
            cqe.imm_inval_pkey = completion.immediate.bigEndian
        } else {
            cqe.imm_inval_pkey = UInt32(completion.pkeyIndex).bigEndian
        }
    }

    /// Scatters a short payload to the CQE. Returns the format bits of `op_own` (MLX5_INLINE_SCATTER_32 or _64); 0: not
    /// scattered.
    private func scatter(
        _ payload: UnsafeRawBufferPointer, _ completion: Completion, _ ring: Mlx5Completions,
        _ place: UnsafeMutableRawPointer, _ cqe: inout mlx5_cqe64
    ) -> UInt8 {
        let queuePair = completion.queuePair
        // At a requester, the kernel configures this only for a queue pair whose sends are all signaled.
        guard rings(queuePair).scattersToCompletions, queuePair.type != IBV_QPT_UD.rawValue, payload.count > 0,
            completion.isReceive || queuePair.signalsAll
        else { return 0 }
        // Up to 64 bytes only into CQEs of 128 bytes, as libmlx5 expects.
        if payload.count <= 32 {
            withUnsafeMutableBytes(of: &cqe) { $0.copyMemory(from: payload) }
            return UInt8(MLX5_INLINE_SCATTER_32)
        }
        guard payload.count <= 64, ring.stride == 128 else { return 0 }
        (place - 64).copyMemory(from: payload.baseAddress!, byteCount: payload.count)
        return UInt8(MLX5_INLINE_SCATTER_64)
    }

    private func opcode(_ completion: Completion) -> UInt8 {
        let isError = completion.status != IBV_WC_SUCCESS.rawValue
        guard completion.isReceive else { return UInt8(isError ? MLX5_CQE_REQ_ERR : MLX5_CQE_REQ) }
        if isError { return UInt8(MLX5_CQE_RESP_ERR) }
        if completion.operation == .write { return UInt8(MLX5_CQE_RESP_WR_IMM) }
        if completion.invalidated { return UInt8(MLX5_CQE_RESP_SEND_INV) }
        return UInt8(completion.hasImmediate ? MLX5_CQE_RESP_SEND_IMM : MLX5_CQE_RESP_SEND)
    }

    private func sendOpcode(_ completion: Completion, _ queues: Mlx5Queues) -> UInt8 {
        switch completion.operation {
        case .send:
            if completion.invalidated { return UInt8(MLX5_OPCODE_SEND_INVAL) }
            return UInt8(completion.hasImmediate ? MLX5_OPCODE_SEND_IMM : MLX5_OPCODE_SEND)
        case .write:
            return UInt8(completion.hasImmediate ? MLX5_OPCODE_RDMA_WRITE_IMM : MLX5_OPCODE_RDMA_WRITE)
        case .read: return UInt8(MLX5_OPCODE_RDMA_READ)
        case .compareAndSwap: return UInt8(MLX5_OPCODE_ATOMIC_CS)
        case .fetchAndAdd: return UInt8(MLX5_OPCODE_ATOMIC_FA)
        case .bind, .invalidate: return UInt8(MLX5_OPCODE_UMR)
        case .none: return UInt8(MLX5_OPCODE_NOP)
        }
    }

    private func syndrome(_ status: UInt32) -> UInt8 {
        let table: [(ibv_wc_status, Int)] = [
            (IBV_WC_LOC_LEN_ERR, MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR),
            (IBV_WC_LOC_QP_OP_ERR, MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR),
            (IBV_WC_LOC_PROT_ERR, MLX5_CQE_SYNDROME_LOCAL_PROT_ERR),
            (IBV_WC_WR_FLUSH_ERR, MLX5_CQE_SYNDROME_WR_FLUSH_ERR),
            (IBV_WC_MW_BIND_ERR, MLX5_CQE_SYNDROME_MW_BIND_ERR),
            (IBV_WC_BAD_RESP_ERR, MLX5_CQE_SYNDROME_BAD_RESP_ERR),
            (IBV_WC_LOC_ACCESS_ERR, MLX5_CQE_SYNDROME_LOCAL_ACCESS_ERR),
            (IBV_WC_REM_INV_REQ_ERR, MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR),
            (IBV_WC_REM_ACCESS_ERR, MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR),
            (IBV_WC_REM_OP_ERR, MLX5_CQE_SYNDROME_REMOTE_OP_ERR),
            (IBV_WC_RETRY_EXC_ERR, MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR),
            (IBV_WC_RNR_RETRY_EXC_ERR, MLX5_CQE_SYNDROME_RNR_RETRY_EXC_ERR),
            (IBV_WC_REM_ABORT_ERR, MLX5_CQE_SYNDROME_REMOTE_ABORTED_ERR),
        ]
        for (known, syndrome) in table where known.rawValue == status { return UInt8(syndrome) }
        // An unknown syndrome, which libraries report as IBV_WC_GENERAL_ERR.
        return 0x7F
    }
}
