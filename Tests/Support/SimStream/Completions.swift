import CIBVerbs
import CMlx5DV
import CSimulatorABI
import Glibc
import PeerSupport

// CQEs as a device writes them: the defined fields have chosen values, all other bytes are random.

extension Stream {
    /// Writes the CQE of an outstanding send, which also completes the sends before it.
    func completeSends(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let waiting = pair.outstanding.count - pair.completedSends
        guard waiting > 0 else { return }
        let place = pair.completedSends + (random.chance(60) ? 0 : random.below(waiting))
        try completeSend(pair, place, mayFail: true)
    }

    /// - Parameter place: Index in the list of outstanding sends.
    func completeSend(_ pair: PairModel, _ place: Int, mayFail: Bool) throws(Difference) {
        let send = pair.outstanding[place]
        operation = "a completion of \(pair.name)"
        let opcodes = [
            MLX5_OPCODE_SEND, MLX5_OPCODE_SEND_IMM, MLX5_OPCODE_SEND_INVAL, MLX5_OPCODE_RDMA_WRITE,
            MLX5_OPCODE_RDMA_WRITE_IMM, MLX5_OPCODE_RDMA_READ, MLX5_OPCODE_ATOMIC_CS, MLX5_OPCODE_ATOMIC_FA,
            MLX5_OPCODE_UMR, MLX5_OPCODE_UMR, MLX5_OPCODE_NOP,
        ]
        var cqe = RawCQE(&random)
        cqe.setIndex(send.wqebb)
        var payload: [UInt8]?
        var ours: RawCQE?
        if mayFail && random.chance(15) {
            cqe.fail(isReceive: false, &random)
        } else {
            cqe.setKind(MLX5_CQE_REQ, &random)
            cqe.setOpcode(random.pick(opcodes))
            if let landing = send.landing, pair.plan.type == IBV_QPT_RC, random.chance(60) {
                let isAtomic = send.opcode != IBV_WR_RDMA_READ
                cqe.setOpcode(isAtomic ? MLX5_OPCODE_ATOMIC_FA : MLX5_OPCODE_RDMA_READ)
                let length = isAtomic ? 8 : length(landing)
                if hasLargeEntries {
                    // libmlx5 44 copies the data from the beginning of the 128 bytes, or from one byte before them: its
                    // CQE has no data, and the data that ours copies are compared with the written bytes.
                    ours = cqe
                    payload = ours!.carry(length, isLarge: length > 32 || random.chance(50))
                    cqe.setLength(length)
                } else {
                    cqe.carry(length, isLarge: false)
                }
            }
        }
        let queue = queues[pair.plan.sends]
        guard try write(cqe, ours: ours, pair, isReceive: false) else { return }
        pair.completedSends = place + 1
        queue.pending.append(.send(pair: pair.index, number: pair.firstSend + place, payload: payload))
    }

    private var hasLargeEntries: Bool { kind.contains(" 128") }

    /// A length for which both the SGEs and the CQE have room.
    private func length(_ landing: [Landing], most: Int? = nil) -> Int {
        let room = landing.reduce(0) { $0 + $1.length }
        return random.below(min(room, most ?? (hasLargeEntries ? 64 : 32)) + 1)
    }

    /// Writes the CQE of an outstanding receive, successful or with an error.
    func completeReceive(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        operation = "an arrival at \(pair.name)"
        if let queue = pair.plan.shared.map({ shared[$0] }) {
            guard !queue.outstanding.isEmpty else { return }
            // In any order, because the queue pairs of a shared receive queue complete independently.
            let place = random.below(min(queue.outstanding.count, 6))
            if try arrive(pair, queue.outstanding[place]) {
                queue.outstanding.remove(at: place)
                queues[pair.plan.receives].pending.append(.sharedReceive(pair: index))
            }
        } else if pair.outstandingReceives.count > pair.completedReceives {
            if try arrive(pair, pair.outstandingReceives[pair.completedReceives]) {
                pair.completedReceives += 1
                queues[pair.plan.receives].pending.append(.receive(pair: index))
            }
        }
    }

    private func arrive(_ pair: PairModel, _ receive: PostedReceive) throws(Difference) -> Bool {
        var cqe = RawCQE(&random)
        cqe.setIndex(receive.index)
        if random.chance(20) {
            cqe.fail(isReceive: true, &random)
        } else {
            cqe.setKind(
                random.pick([
                    MLX5_CQE_RESP_SEND, MLX5_CQE_RESP_SEND_IMM, MLX5_CQE_RESP_SEND_INV, MLX5_CQE_RESP_WR_IMM,
                ]), &random)
            if let landing = receive.landing, random.chance(60) {
                let length = length(landing)
                cqe.carry(length, isLarge: length > 32 || (hasLargeEntries && random.chance(50)))
            } else if pair.plan.shared == nil, let landing = receive.landing,
                landing.count == Int(pair.limits.max_recv_sge), random.chance(30)
            {
                // More data than the SGEs have room for; only for a full SGE list, because libmlx5 reads stale data
                // segments beyond the end of a shorter one.
                let room = landing.reduce(0) { $0 + $1.length }
                if room < 32 { cqe.carry(room + 1 + random.below(32 - room), isLarge: false) }
            }
        }
        return try write(cqe, ours: nil, pair, isReceive: true)
    }

    /// Writes a CQE. Returns false when the queue is full at its actual size; one more CQE is for MLX5_CQE_RESIZE_CQ.
    private func write(_ cqe: RawCQE, ours: RawCQE?, _ pair: PairModel, isReceive: Bool) throws(Difference) -> Bool {
        let index = isReceive ? pair.plan.receives : pair.plan.sends
        guard queues[index].pending.count < Int(sides.ours.completions[index].pointee.cqe) else { return false }
        let results = try both { (side) throws(Difference) -> Int32 in
            let cqe = side == 1 ? ours ?? cqe : cqe
            return cqe.withBytes { bytes in
                sim!.pointee.write(sides[side].device, pair.number, isReceive ? 1 : 0, bytes)
            }
        }
        try expectEqual(results, "\(operation): whether there is room for it")
        return results.ours == 0
    }
}

/// A CQE of 128 bytes, of which the last 64 are `struct mlx5_cqe64`.
struct RawCQE {
    private var front: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)
    private var cqe = mlx5_cqe64()

    init(_ random: inout Random) {
        func some() -> UInt64 { random.next() }
        front = (some(), some(), some(), some(), some(), some(), some(), some())
        withUnsafeMutableBytes(of: &cqe) { bytes in
            for offset in stride(from: 0, to: 64, by: 8) {
                bytes.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
            }
        }
        // 0: no tag matching, for which other bytes of the CQE would be defined.
        cqe.app = 0
    }

    mutating func setIndex(_ index: UInt16) { cqe.wqe_counter = index.bigEndian }

    mutating func setKind(_ kind: Int, _ random: inout Random) {
        cqe.op_own = UInt8(kind << 4) | (random.chance(30) ? 2 : 0)
    }

    mutating func setLength(_ length: Int) { cqe.byte_cnt = UInt32(length).bigEndian }

    mutating func setOpcode(_ opcode: Int) {
        cqe.sop_drop_qpn = (UInt32(opcode) << 24 | UInt32(bigEndian: cqe.sop_drop_qpn) & 0xFF_FFFF).bigEndian
        // An atomic operation returns 8 bytes.
        if opcode == MLX5_OPCODE_ATOMIC_CS || opcode == MLX5_OPCODE_ATOMIC_FA { setLength(8) }
    }

    /// Makes this an error CQE: every second one with a named syndrome (MLX5_CQE_SYNDROME_…), the others with any.
    mutating func fail(isReceive: Bool, _ random: inout Random) {
        setKind(isReceive ? MLX5_CQE_RESP_ERR : MLX5_CQE_REQ_ERR, &random)
        let known: [UInt8] = [1, 2, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x22]
        let syndrome = random.chance(50) ? random.pick(known) : random.any()
        withUnsafeMutableBytes(of: &cqe) {
            $0[55] = syndrome
            // Vendor syndrome 0x93 is a page fault, after which libmlx5 posts the request again.
            if $0[54] == 0x93 { $0[54] = 0 }
        }
    }

    /// Marks the CQE as one with scattered data (MLX5_INLINE_SCATTER_32 or _64). Returns the data.
    @discardableResult
    mutating func carry(_ length: Int, isLarge: Bool) -> [UInt8] {
        setLength(length)
        cqe.op_own |= isLarge ? 8 : 4
        return isLarge
            ? withUnsafeBytes(of: front) { Array($0[..<length]) } : withUnsafeBytes(of: cqe) { Array($0[..<length]) }
    }

    func withBytes<Result>(_ body: (UnsafeRawPointer) -> Result) -> Result {
        withUnsafeBytes(of: self) { body($0.baseAddress!) }
    }
}
