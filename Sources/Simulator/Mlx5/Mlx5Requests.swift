import CSimulator

/// A send WQE: a control segment, then the segments of its opcode, in octowords (16 bytes). It wraps at the queue's
/// end.
///
/// | segment  | bytes | opcodes |
/// |----------|-------|---------|
/// | control  | 16 | all |
/// | address vector | 48 | datagrams |
/// | remote address | 16 | WRITE, READ, atomics |
/// | atomic   | 16 | atomics |
/// | UMR: control, MKey context, KLM list | 48, 64, 64 | windows |
/// | data or inline data | 16 each | all with a payload |
private struct Mlx5Request {
    let queues: Mlx5Queues
    let octowords: Int
    private let first: Int
    private let total: Int
    /// Index of the next octoword to read.
    var octoword = 1

    init(_ queues: Mlx5Queues, octowords: Int) {
        self.queues = queues
        self.octowords = octowords
        total = Int(queues.sendWQEBBs) * Mlx5Queues.wqebb
        first = Int(queues.next) % Int(queues.sendWQEBBs) * Mlx5Queues.wqebb
    }

    var isAtEnd: Bool { octoword >= octowords }

    private func place(_ offset: Int) -> UnsafeMutableRawPointer { queues.sends + (first + offset) % total }

    /// The byte at an offset in the WQE.
    func byte(_ offset: Int) -> UInt8 { place(offset).load(as: UInt8.self) }

    /// The next segment, which may wrap at the queue's end; nil at the end of the WQE.
    mutating func read<Value>(_ empty: Value) -> Value? {
        let count = MemoryLayout<Value>.size
        guard octoword * 16 + count <= octowords * 16 else { return nil }
        var value = empty
        withUnsafeMutableBytes(of: &value) { target in
            for index in 0..<count { target[index] = byte(octoword * 16 + index) }
        }
        octoword += count / 16
        return value
    }
}

extension Mlx5Codec {
    func decodeSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool {
        let queues = rings(queuePair)
        guard queues.sendWQEBBs > 0, !queues.isBroken else { return false }
        let posted = UInt16(truncatingIfNeeded: queues.record.second)
        guard posted != queues.next else { return false }
        do throws(Refusal) {
            try demand(
                UInt32(posted &- queues.next) <= queues.sendWQEBBs, EINVAL,
                "the doorbell record is further ahead than the send queue has WQEBBs", has: Int(posted &- queues.next),
                wants: Int(queues.sendWQEBBs))
            try decode(queuePair, queues, request, posted: posted)
            return true
        } catch {
            fault(queuePair, error)
            return false
        }
    }

    private func decode(
        _ queuePair: QueuePair, _ queues: Mlx5Queues, _ request: SendRequest, posted: UInt16
    ) throws(Refusal) {
        let start = Int(queues.next) % Int(queues.sendWQEBBs) * Mlx5Queues.wqebb
        let control = (queues.sends + start).load(as: mlx5_wqe_ctrl_seg.self)
        let word = UInt32(bigEndian: control.opmod_idx_opcode)
        let octowords = Int(UInt32(bigEndian: control.qpn_ds) & 0x3F)
        try demand(
            UInt32(bigEndian: control.qpn_ds) >> 8 == queuePair.number, EINVAL, "a WQE of another queue pair",
            has: Int(UInt32(bigEndian: control.qpn_ds) >> 8), wants: Int(queuePair.number))
        try demand(
            UInt16(truncatingIfNeeded: word >> 8) == queues.next, EINVAL, "a WQE of another index",
            has: Int(UInt16(truncatingIfNeeded: word >> 8)), wants: Int(queues.next))
        try demand(octowords >= 1 && word >> 24 == 0, EINVAL, "a WQE without length, or with an opmod")
        queues.wqebbs = UInt16((octowords + 3) / 4)
        queues.opcode = UInt8(truncatingIfNeeded: word)
        try demand(
            queues.wqebbs <= posted &- queues.next, EINVAL,
            "the doorbell record is in the middle of a WQE; posted WQEBBs",
            has: Int(posted &- queues.next),
            wants: Int(queues.wqebbs))
        try demand(control.signature == 0, EINVAL, "a signature, which this device does not check")
        // CQ_UPDATE (also 0x04, on errors alone), SOLICITED, FENCE in its two kinds.
        try demand(
            control.fm_ce_se & 0x11 == 0, EINVAL, "unknown bits of fm_ce_se", has: Int(control.fm_ce_se))

        request.clear()
        request.tag = UInt64(queues.next)
        request.isSignaled = control.fm_ce_se & UInt8(MLX5_WQE_CTRL_CQ_UPDATE) != 0
        request.isSolicited = control.fm_ce_se & UInt8(MLX5_WQE_CTRL_SOLICITED) != 0
        var reader = Mlx5Request(queues, octowords: octowords)
        try setOperation(request, queues.opcode, control.imm)
        if queuePair.type == IBV_QPT_UD.rawValue { try readAddress(&reader, request) }
        try readOperation(&reader, request, control.imm)
        try readData(&reader, request)
    }

    private func setOperation(_ request: SendRequest, _ opcode: UInt8, _ immediate: UInt32) throws(Refusal) {
        request.immediate = immediate
        switch Int(opcode) {
        case MLX5_OPCODE_NOP: request.operation = .none
        case MLX5_OPCODE_SEND: request.operation = .send
        case MLX5_OPCODE_SEND_IMM: (request.operation, request.hasImmediate) = (.send, true)
        case MLX5_OPCODE_SEND_INVAL:
            (request.operation, request.invalidates) = (.send, true)
            request.invalidKey = UInt32(bigEndian: immediate)
        case MLX5_OPCODE_RDMA_WRITE: request.operation = .write
        case MLX5_OPCODE_RDMA_WRITE_IMM: (request.operation, request.hasImmediate) = (.write, true)
        case MLX5_OPCODE_RDMA_READ: request.operation = .read
        case MLX5_OPCODE_ATOMIC_CS: request.operation = .compareAndSwap
        case MLX5_OPCODE_ATOMIC_FA: request.operation = .fetchAndAdd
        case MLX5_OPCODE_UMR: request.operation = .bind
        default: throw Refusal(EINVAL, "there is no such opcode", has: Int(opcode))
        }
        let usesImmediate = request.hasImmediate || request.invalidates || request.operation == .bind
        try demand(usesImmediate || immediate == 0, EINVAL, "immediate data with an opcode that has none")
    }

    private func readAddress(_ reader: inout Mlx5Request, _ request: SendRequest) throws(Refusal) {
        guard let vector = reader.read(mlx5_wqe_av()) else {
            throw Refusal(EINVAL, "a UD WQE without address vector")
        }
        let destination = UInt32(bigEndian: vector.dqp_dct)
        try demand(
            destination & 0x8000_0000 != 0, EINVAL, "the address vector is not marked as an extended one")
        try demand(vector.key.qkey.reserved == 0, EINVAL, "a reserved field is not zero")
        request.destination.queuePair = destination & 0xFF_FFFF
        request.destination.qkey = UInt32(bigEndian: vector.key.qkey.qkey)
        request.destination.lid = UInt16(bigEndian: vector.rlid)
        request.destination.gid = gidHalves(vector.rgid)
        let isGlobal = UInt32(bigEndian: vector.grh_gid_fl) & 1 << 30 != 0
        if device.options.isEthernet {
            request.destination.isGlobal = true
            request.destination.serviceLevel = vector.stat_rate_sl >> 1 & 7
            let address = macAddress(of: device.port(ofGID: request.destination.gid))
            try demand(
                request.destination.isMulticast || vector.rmac == address, EINVAL,
                "the address vector has another MAC address, which ends with",
                has: Int(vector.rmac.5), wants: Int(address.5))
        } else {
            request.destination.isGlobal = isGlobal
            request.destination.serviceLevel = vector.stat_rate_sl & 15
        }
    }

    private func readOperation(
        _ reader: inout Mlx5Request, _ request: SendRequest, _ immediate: UInt32
    ) throws(Refusal) {
        switch request.operation {
        case .write, .read, .compareAndSwap, .fetchAndAdd:
            guard let remote = reader.read(mlx5_wqe_raddr_seg()) else {
                throw Refusal(EINVAL, "a WQE without remote address segment")
            }
            try demand(remote.reserved == 0, EINVAL, "a reserved field is not zero")
            request.remoteAddress = UInt64(bigEndian: remote.raddr)
            request.remoteKey = UInt32(bigEndian: remote.rkey)
        case .bind: try readBinding(&reader, request, immediate)
        default: break
        }
        if request.operation == .compareAndSwap || request.operation == .fetchAndAdd {
            guard let atomic = reader.read(mlx5_wqe_atomic_seg()) else {
                throw Refusal(EINVAL, "an atomic WQE without atomic segment")
            }
            request.swapOrAdd = UInt64(bigEndian: atomic.swap_add)
            request.compare = UInt64(bigEndian: atomic.compare)
        }
    }

    /// A UMR WQE binds or invalidates a window: the MKey context has the range and the access flags, the KLM list the
    /// region.
    private func readBinding(
        _ reader: inout Mlx5Request, _ request: SendRequest, _ immediate: UInt32
    ) throws(Refusal) {
        guard let control = reader.read(mlx5_wqe_umr_ctrl_seg()),
            let context = reader.read(mlx5_wqe_mkey_context_seg())
        else {
            throw Refusal(EINVAL, "a UMR WQE without MKey context")
        }
        let key = UInt32(bigEndian: immediate)
        let mask = UInt64(bigEndian: control.mkey_mask)
        let needed = UInt64(
            MLX5_WQE_UMR_CTRL_MKEY_MASK_MKEY | MLX5_WQE_UMR_CTRL_MKEY_MASK_FREE)
        try demand(mask & needed == needed, EINVAL, "a UMR WQE whose mkey_mask lacks bits")
        request.window.key = key & ~0xFF | UInt32(bigEndian: context.qpn_mkey) & 0xFF
        if context.free & UInt8(MLX5_WQE_MKEY_CONTEXT_FREE) != 0 {
            request.operation = .invalidate
            request.window.key = key
            return
        }
        guard let list = reader.read(mlx5_wqe_umr_klm_seg()) else {
            throw Refusal(EINVAL, "a UMR WQE without KLM list")
        }
        // The KLM list fills 64 bytes, of which one KLM is used.
        reader.octoword += 3
        request.window.regionKey = UInt32(bigEndian: list.mkey)
        request.window.address = UInt64(bigEndian: context.start_addr)
        request.window.length = UInt64(bigEndian: context.len)
        try demand(
            UInt64(UInt32(bigEndian: list.byte_count)) == request.window.length, EINVAL,
            "the MKey context and the KLM have different lengths", has: Int(UInt32(bigEndian: list.byte_count)),
            wants: Int(truncatingIfNeeded: request.window.length))
        let access: [(Int, UInt32)] = [
            (MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_ATOMIC, IBV_ACCESS_REMOTE_ATOMIC.rawValue),
            (MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_REMOTE_WRITE, IBV_ACCESS_REMOTE_WRITE.rawValue),
            (MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_REMOTE_READ, IBV_ACCESS_REMOTE_READ.rawValue),
        ]
        for (bit, flag) in access where Int(context.access_flags) & bit != 0 { request.window.access |= flag }
    }

    private func readData(_ reader: inout Mlx5Request, _ request: SendRequest) throws(Refusal) {
        while !reader.isAtEnd {
            let start = reader.octoword
            guard let segment = reader.read(mlx5_wqe_data_seg()) else { return }
            let word = UInt32(bigEndian: segment.byte_count)
            if word & 0x8000_0000 != 0 {
                try readInline(&reader, request, start, Int(word & 0x3FF))
                continue
            }
            try demand(word != 0, EINVAL, "a data segment of length 0, which means 2 GiB")
            let isAtomic = request.operation == .compareAndSwap || request.operation == .fetchAndAdd
            try demand(!isAtomic || word == 8, EINVAL, "an atomic operation returns 8 bytes", has: Int(word), wants: 8)
            let wanted = SGE(
                address: UInt64(bigEndian: segment.addr), length: word, key: UInt32(bigEndian: segment.lkey))
            try demand(!request.isInline && request.append(wanted), EINVAL, "more data segments than a device supports")
        }
    }

    /// Inline data: a word with its length, the bytes, and padding to an octoword.
    private func readInline(
        _ reader: inout Mlx5Request, _ request: SendRequest, _ start: Int, _ length: Int
    ) throws(Refusal) {
        let octowords = (4 + length + 15) / 16
        try demand(
            start + octowords <= reader.octowords && request.sgeCount == 0, EINVAL, "inline data longer than its WQE",
            has: length)
        if !request.isInline { request.inlineData.reserve(1024) }
        request.isInline = true
        for index in 0..<length {
            var byte = reader.byte(16 * start + 4 + index)
            request.inlineData.append(&byte, 1)
        }
        reader.octoword = start + octowords
    }

    /// Consumes the next WQE of a queue pair's own receive queue.
    func consume(_ ring: Mlx5Receives, _ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool {
        let queues = rings(queuePair)
        let posted = UInt16(truncatingIfNeeded: queues.record.first)
        guard posted != ring.next, !queues.isBroken else { return false }
        guard UInt32(posted &- ring.next) <= ring.count else {
            fault(
                queuePair,
                Refusal(
                    EINVAL, "the doorbell record is further ahead than the receive queue has WQEs",
                    has: Int(posted &- ring.next), wants: Int(ring.count)))
            return false
        }
        let place = ring.bytes + Int(ring.next) % Int(ring.count) * ring.stride
        request.tag = UInt64(ring.next)
        decodeSGEs(place, ring.stride / 16, request)
        ring.next &+= 1
        return true
    }
}
