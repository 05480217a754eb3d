import CIBVerbs
import CMlx5DV
import CSimulatorABI
import Glibc
import PeerSupport

// Completions as a device writes them: everything that means something is chosen, all else is random.

extension Stream {
    /// Completes one of the sends of a queue pair, and with it those before it.
    func completeSends(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let waiting = pair.outstanding.count - pair.completedSends
        guard waiting > 0 else { return }
        let place = pair.completedSends + (random.chance(60) ? 0 : random.below(waiting))
        try completeSend(pair, place, mayFail: true)
    }

    /// - Parameter place: in the list of outstanding sends.
    func completeSend(_ pair: PairModel, _ place: Int, mayFail: Bool) throws(Difference) {
        let send = pair.outstanding[place]
        operation = "a completion of \(pair.name)"
        let opcodes = [
            MLX5_OPCODE_SEND, MLX5_OPCODE_SEND_IMM, MLX5_OPCODE_SEND_INVAL, MLX5_OPCODE_RDMA_WRITE,
            MLX5_OPCODE_RDMA_WRITE_IMM, MLX5_OPCODE_RDMA_READ, MLX5_OPCODE_ATOMIC_CS, MLX5_OPCODE_ATOMIC_FA,
            MLX5_OPCODE_UMR, MLX5_OPCODE_UMR, MLX5_OPCODE_NOP,
        ]
        var entry = Entry(&random)
        entry.setIndex(send.block)
        var payload: [UInt8]?
        var ours: Entry?
        if mayFail && random.chance(15) {
            entry.fail(isReceive: false, &random)
        } else {
            entry.setKind(MLX5_CQE_REQ, &random)
            entry.setOpcode(random.pick(opcodes))
            if let landing = send.landing, pair.plan.type == IBV_QPT_RC, random.chance(60) {
                let isAtomic = send.opcode != IBV_WR_RDMA_READ
                entry.setOpcode(isAtomic ? MLX5_OPCODE_ATOMIC_FA : MLX5_OPCODE_RDMA_READ)
                let length = isAtomic ? 8 : length(landing)
                if hasLargeEntries {
                    // libmlx5 44 takes it from the beginning of the 128 bytes, or from one byte in front of them: it is
                    // told of no data, and ours is compared with what was written.
                    ours = entry
                    payload = ours!.carry(length, isLarge: length > 32 || random.chance(50))
                    entry.setLength(length)
                } else {
                    entry.carry(length, isLarge: false)
                }
            }
        }
        let queue = queues[pair.plan.sends]
        guard try write(entry, ours: ours, pair, isReceive: false) else { return }
        pair.completedSends = place + 1
        queue.pending.append(.send(pair: pair.index, number: pair.firstSend + place, payload: payload))
    }

    private var hasLargeEntries: Bool { kind.contains(" 128") }

    /// So much that it fits, and that an entry has room for it.
    private func length(_ landing: [Landing], most: Int? = nil) -> Int {
        let room = landing.reduce(0) { $0 + $1.length }
        return random.below(min(room, most ?? (hasLargeEntries ? 64 : 32)) + 1)
    }

    /// A message arrives at a queue pair, or what was posted for one fails.
    func completeReceive(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        operation = "an arrival at \(pair.name)"
        if let queue = pair.plan.shared.map({ shared[$0] }) {
            guard !queue.outstanding.isEmpty else { return }
            // In any order: the queue pairs that take from it complete on their own.
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
        var entry = Entry(&random)
        entry.setIndex(receive.index)
        if random.chance(20) {
            entry.fail(isReceive: true, &random)
        } else {
            entry.setKind(
                random.pick([
                    MLX5_CQE_RESP_SEND, MLX5_CQE_RESP_SEND_IMM, MLX5_CQE_RESP_SEND_INV, MLX5_CQE_RESP_WR_IMM,
                ]), &random)
            if let landing = receive.landing, random.chance(60) {
                let length = length(landing)
                entry.carry(length, isLarge: length > 32 || (hasLargeEntries && random.chance(50)))
            } else if pair.plan.shared == nil, let landing = receive.landing,
                landing.count == Int(pair.limits.max_recv_sge), random.chance(30)
            {
                // More than the request takes. libmlx5 goes on behind the end of a shorter list, with what lay there.
                let room = landing.reduce(0) { $0 + $1.length }
                if room < 32 { entry.carry(room + 1 + random.below(32 - room), isLarge: false) }
            }
        }
        return try write(entry, ours: nil, pair, isReceive: true)
    }

    /// False when the queue is full: of the size that was granted; the entry beyond it is for the mark of another size.
    private func write(_ entry: Entry, ours: Entry?, _ pair: PairModel, isReceive: Bool) throws(Difference) -> Bool {
        let index = isReceive ? pair.plan.receives : pair.plan.sends
        guard queues[index].pending.count < Int(sides.ours.completions[index].pointee.cqe) else { return false }
        let answers = try both { (side) throws(Difference) -> Int32 in
            let entry = side == 1 ? ours ?? entry : entry
            return entry.withBytes { bytes in
                sim!.pointee.write(sides[side].device, pair.number, isReceive ? 1 : 0, bytes)
            }
        }
        try expectEqual(answers, "\(operation): whether there is room for it")
        return answers.ours == 0
    }
}

/// 128 bytes, of which the last 64 are the entry (infiniband/mlx5dv.h).
struct Entry {
    private var front: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)
    private var entry = mlx5_cqe64()

    init(_ random: inout Random) {
        func some() -> UInt64 { random.next() }
        front = (some(), some(), some(), some(), some(), some(), some(), some())
        withUnsafeMutableBytes(of: &entry) { bytes in
            for offset in stride(from: 0, to: 64, by: 8) {
                bytes.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
            }
        }
        // Tag matching, which nobody asked for, would give other bytes a meaning.
        entry.app = 0
    }

    mutating func setIndex(_ index: UInt16) { entry.wqe_counter = index.bigEndian }

    mutating func setKind(_ kind: Int, _ random: inout Random) {
        entry.op_own = UInt8(kind << 4) | (random.chance(30) ? 2 : 0)
    }

    mutating func setLength(_ length: Int) { entry.byte_cnt = UInt32(length).bigEndian }

    mutating func setOpcode(_ opcode: Int) {
        entry.sop_drop_qpn = (UInt32(opcode) << 24 | UInt32(bigEndian: entry.sop_drop_qpn) & 0xFF_FFFF).bigEndian
        // An atomic operation answers 8 bytes.
        if opcode == MLX5_OPCODE_ATOMIC_CS || opcode == MLX5_OPCODE_ATOMIC_FA { setLength(8) }
    }

    /// An error of any syndrome, one in two of those that have a name.
    mutating func fail(isReceive: Bool, _ random: inout Random) {
        setKind(isReceive ? MLX5_CQE_RESP_ERR : MLX5_CQE_REQ_ERR, &random)
        let known: [UInt8] = [1, 2, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x22]
        let syndrome = random.chance(50) ? random.pick(known) : random.any()
        withUnsafeMutableBytes(of: &entry) {
            $0[55] = syndrome
            // 0x93 is a page fault, after which libmlx5 posts the request anew.
            if $0[54] == 0x93 { $0[54] = 0 }
        }
    }

    /// Says that the data stands here: what that is.
    @discardableResult
    mutating func carry(_ length: Int, isLarge: Bool) -> [UInt8] {
        setLength(length)
        entry.op_own |= isLarge ? 8 : 4
        return isLarge
            ? withUnsafeBytes(of: front) { Array($0[..<length]) } : withUnsafeBytes(of: entry) { Array($0[..<length]) }
    }

    func withBytes<Result>(_ body: (UnsafeRawPointer) -> Result) -> Result {
        withUnsafeBytes(of: self) { body($0.baseAddress!) }
    }
}
