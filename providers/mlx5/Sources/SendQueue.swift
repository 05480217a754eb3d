import CIBVerbs
import CLinux
import ProviderKit

/// The send queue of a queue pair, and how a work request becomes segments in it.
struct SendQueue {
    var ring: SendRing
    /// Number of the next block, and of the next request.
    var block: UInt32 = 0
    var number: UInt32 = 0
    /// What the next request waits for: the change of a memory key before it, or nothing.
    var fence: UInt32 = 0

    /// So many requests may be under way; so many elements in a list; so many bytes inline.
    let maximumPosts: UInt32
    let maximumElements: UInt32
    let maximumInline: UInt32
    /// Bit n: the opcode n of enum ibv_wr_opcode may be posted.
    let allowed: UInt32
    let isDatagram: Bool
    let queuePair: UInt32
    /// `Control.signaled` where every request makes a completion.
    let alwaysSignaled: UInt32

    /// Where the doorbell rings: the record in memory, and the register.
    let record: UnsafeMutableRawPointer
    let register: BlueFlamePointer

    var builder = SendBuilder()

    /// - Parameters:
    ///   - limits: as they were granted.
    ///   - signalsAll: every request makes a completion.
    init(
        ring: SendRing, type: ibv_qp_type, queuePair: UInt32, limits: ibv_qp_cap, signalsAll: Bool, hasAtomics: Bool,
        record: UnsafeMutableRawPointer, register: BlueFlamePointer
    ) {
        self.ring = ring
        maximumPosts = limits.max_send_wr
        maximumElements = limits.max_send_sge
        maximumInline = limits.max_inline_data
        allowed = allowedOpcodes(type) & (hasAtomics ? .max : ~atomicOpcodes)
        isDatagram = type == IBV_QPT_UD
        self.queuePair = queuePair
        alwaysSignaled = signalsAll ? Control.signaled : 0
        self.record = record
        self.register = register
    }

    /// As after a reset.
    mutating func rewind() {
        block = 0
        number = 0
        fence = 0
        ring.retired.storeReleasing(0)
    }
}

private func bits(_ opcodes: ibv_wr_opcode...) -> UInt32 {
    var all: UInt32 = 0
    for opcode in opcodes { all |= 1 << opcode.rawValue }
    return all
}

/// The opcodes that mlx5 takes for a service type, as `SendQueue.allowed`.
func allowedOpcodes(_ type: ibv_qp_type) -> UInt32 {
    let sends = bits(IBV_WR_SEND, IBV_WR_SEND_WITH_IMM)
    let connected =
        sends | bits(IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_LOCAL_INV, IBV_WR_BIND_MW)
    switch type {
    case IBV_QPT_RC: return connected | bits(IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_READ) | atomicOpcodes
    case IBV_QPT_UC: return connected
    case IBV_QPT_UD: return sends
    default: return 0
    }
}

let atomicOpcodes: UInt32 = 1 << IBV_WR_ATOMIC_CMP_AND_SWP.rawValue | 1 << IBV_WR_ATOMIC_FETCH_AND_ADD.rawValue

/// The opcodes whose data may stand in the request itself (ibv_post_send(3), IBV_SEND_INLINE).
let inlineOpcodes: UInt32 =
    1 << IBV_WR_SEND.rawValue | 1 << IBV_WR_SEND_WITH_IMM.rawValue | 1 << IBV_WR_SEND_WITH_INV.rawValue
    | 1 << IBV_WR_RDMA_WRITE.rawValue | 1 << IBV_WR_RDMA_WRITE_WITH_IMM.rawValue

/// The flags that say nothing about where the data is.
private let plainFlags = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue

extension UnsafeMutablePointer<SendQueue> {
    // MARK: - One request

    /// Whether there is no room for a request behind `count` others that are not counted yet.
    @inline(__always)
    func isFull(behind count: UInt32) -> Bool {
        pointee.number &+ count &- pointee.ring.retired.loadAcquiring() >= pointee.maximumPosts
    }

    /// Writes a work request into the queue: how many segments it has, at least one; or a negative errno value, EINVAL or
    /// EOPNOTSUPP, and then it does not count.
    /// - Parameter number: the request's number.
    @inline(__always)
    func write(_ request: UnsafeMutablePointer<ibv_send_wr>, number: UInt32) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        guard opcode < 32, pointee.allowed & (1 &<< opcode) != 0 else { return -EINVAL }
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= pointee.maximumElements else { return -EINVAL }
        let flags = request.pointee.send_flags
        let place = flags & ~plainFlags
        guard place == 0 || place == IBV_SEND_INLINE.rawValue else { return -EOPNOTSUPP }

        let ring = pointee.ring
        let entry = ring.block(pointee.block)
        var segment = entry + ControlSegment.byteCount
        var segments: UInt32 = 1
        var immediate: UInt32 = 0
        let operation: UInt32
        switch opcode {
        case IBV_WR_SEND.rawValue: operation = Opcode.send
        case IBV_WR_SEND_WITH_IMM.rawValue:
            operation = Opcode.sendImmediate
            immediate = UInt32(bigEndian: request.pointee.imm_data)
        case IBV_WR_SEND_WITH_INV.rawValue:
            operation = Opcode.sendInvalidate
            immediate = request.pointee.invalidate_rkey
        case IBV_WR_RDMA_WRITE.rawValue, IBV_WR_RDMA_READ.rawValue, IBV_WR_RDMA_WRITE_WITH_IMM.rawValue:
            operation =
                opcode == IBV_WR_RDMA_WRITE.rawValue
                ? Opcode.write : opcode == IBV_WR_RDMA_READ.rawValue ? Opcode.read : Opcode.writeImmediate
            if opcode == IBV_WR_RDMA_WRITE_WITH_IMM.rawValue { immediate = UInt32(bigEndian: request.pointee.imm_data) }
            segment.putRemote(request.pointee.wr.rdma.remote_addr, request.pointee.wr.rdma.rkey)
            segment += RemoteAddressSegment.byteCount
            segments = 2
        case IBV_WR_ATOMIC_CMP_AND_SWP.rawValue, IBV_WR_ATOMIC_FETCH_AND_ADD.rawValue:
            operation = opcode == IBV_WR_ATOMIC_CMP_AND_SWP.rawValue ? Opcode.compareSwap : Opcode.fetchAdd
            segment.putRemote(request.pointee.wr.atomic.remote_addr, request.pointee.wr.atomic.rkey)
            segment += RemoteAddressSegment.byteCount
            segment.putAtomic(
                operation, compareAdd: request.pointee.wr.atomic.compare_add, swap: request.pointee.wr.atomic.swap)
            segment += AtomicSegment.byteCount
            segments = 4 - 1
        default: return writeKeyChange(request, number: number)
        }
        if pointee.isDatagram {
            guard let ah = request.pointee.wr.ud.ah else { return -EINVAL }
            segment.putAddress(
                ah, queuePair: request.pointee.wr.ud.remote_qpn, key: request.pointee.wr.ud.remote_qkey)
            segment = ring.wrapped(segment + AddressVector.byteCount)
            segments &+= 3
        }
        let data: Int32
        if _fastPath(place == 0) {
            let isAtomic = opcode &- IBV_WR_ATOMIC_CMP_AND_SWP.rawValue <= 1
            data = ring.putPieces(request.pointee.sg_list, count, at: segment, isAtomic: isAtomic)
        } else {
            guard inlineOpcodes & (1 &<< opcode) != 0 else { return -EINVAL }
            data = ring.putInline(request.pointee.sg_list, count, at: segment, room: pointee.maximumInline)
        }
        guard data >= 0 else { return data }
        segments &+= UInt32(bitPattern: data)
        finish(entry, operation, flags: flags, immediate: immediate, segments: segments)
        note(request.pointee.wr_id, number: number, opcode: 0)
        return Int32(bitPattern: segments)
    }

    /// Writes the first segment, in front of all others, and takes the blocks.
    @inline(__always)
    func finish(
        _ entry: UnsafeMutableRawPointer, _ operation: UInt32, flags: UInt32, immediate: UInt32, segments: UInt32
    ) {
        entry.put(Filled(ControlSegment.index, pointee.block), Filled(ControlSegment.opcode, operation))
        entry.put(
            Filled(ControlSegment.queuePair, pointee.queuePair), Filled(ControlSegment.segments, segments))
        let signaled =
            pointee.alwaysSignaled | (flags & IBV_SEND_SIGNALED.rawValue != 0 ? Control.signaled : 0)
        entry.put(
            Filled(ControlSegment.fence, flags & IBV_SEND_FENCE.rawValue != 0 ? Control.fence : pointee.fence),
            Filled(ControlSegment.completion, signaled),
            Filled(ControlSegment.solicited, flags & IBV_SEND_SOLICITED.rawValue != 0 ? 1 : 0))
        ControlSegment.immediate.put(immediate, in: entry)
        pointee.fence = 0
    }

    /// Keeps what its completion will be asked, and takes its blocks.
    @inline(__always)
    func note(_ id: UInt64, number: UInt32, opcode: UInt32) {
        let posted = pointee.ring.posted + Int(pointee.block & pointee.ring.mask)
        posted.pointee.id = id
        posted.pointee.number = number
        posted.pointee.opcode = opcode
    }

    // MARK: - Changes of memory keys

    /// Binds a memory window, or takes its binding back.
    @inline(never)
    private func writeKeyChange(_ request: UnsafeMutablePointer<ibv_send_wr>, number: UInt32) -> Int32 {
        guard request.pointee.num_sge == 0, request.pointee.send_flags & IBV_SEND_INLINE.rawValue == 0 else {
            return -EINVAL
        }
        guard request.pointee.opcode == IBV_WR_BIND_MW else {
            return writeKeyChange(
                .invalidation(of: request.pointee.invalidate_rkey), id: request.pointee.wr_id,
                flags: request.pointee.send_flags, number: number)
        }
        let binding = request.pointee.bind_mw
        guard let window = binding.mw, let change = KeyChange(binding: window, key: binding.rkey, binding.bind_info)
        else { return -EINVAL }
        return writeKeyChange(change, id: request.pointee.wr_id, flags: request.pointee.send_flags, number: number)
    }

    /// As `write`.
    func writeKeyChange(_ change: KeyChange, id: UInt64, flags: UInt32, number: UInt32) -> Int32 {
        guard change.length <= KeyChange.maximumLength else { return -EOPNOTSUPP }
        let ring = pointee.ring
        let entry = ring.block(pointee.block)
        var segment = entry + ControlSegment.byteCount
        change.putControl(at: segment)
        segment = ring.wrapped(segment + KeyControlSegment.byteCount)
        change.putContext(at: segment, queuePair: pointee.queuePair)
        var segments: UInt32 = 8
        if change.length != 0 {
            segment = ring.wrapped(segment + KeyContextSegment.byteCount)
            change.putTranslation(at: segment)
            segments = 12
        }
        finish(entry, Opcode.changeKey, flags: flags, immediate: change.window, segments: segments)
        note(id, number: number, opcode: change.completion.rawValue)
        pointee.fence = Control.keyFence
        return Int32(bitPattern: segments)
    }

    // MARK: - The doorbell

    /// Tells the device of everything up to the next block.
    /// - Parameters:
    ///   - last: the last work request.
    ///   - segments: its size, where it is to go whole to the device; else 0.
    @inline(__always)
    func ringDoorbell(_ last: UnsafeMutableRawPointer, segments: UInt32) {
        linux_barrier_to_device()
        QueuePairRecord.sends.put(pointee.block, in: pointee.record)
        pointee.register.ring(last, segments: segments, of: pointee.ring)
    }
}
