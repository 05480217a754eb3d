import CIBVerbs
import CLinux
import ProviderKit

/// The send queue of a queue pair, and the conversion of work requests to WQEs.
struct SendQueue {
    var ring: SendRing
    /// The number of the next WQEBB, and of the next WQE.
    var wqebb: UInt32 = 0
    var number: UInt32 = 0
    /// The fence of the next WQE: `Control.smallFence` after a UMR, otherwise 0.
    var fence: UInt32 = 0

    /// The maximum numbers of outstanding WQEs, of SGEs of a WQE, and of bytes of inline data.
    let maximumPosts: UInt32
    let maxSGE: UInt32
    let maximumInline: UInt32
    /// A bit mask of the opcodes that may be posted: bit n is the value n of `enum ibv_wr_opcode`.
    let allowed: UInt32
    let isDatagram: Bool
    let queuePair: UInt32
    /// `Control.signaled` if all WQEs are signaled (`sq_sig_all`), otherwise 0.
    let alwaysSignaled: UInt32

    /// The doorbell record, and the BlueFlame register.
    let doorbellRecord: UnsafeMutableRawPointer
    let blueFlame: BlueFlamePointer

    var builder = SendBuilder()

    /// - Parameters:
    ///   - limits: The granted limits.
    ///   - signalsAll: Whether all WQEs are signaled (`sq_sig_all`).
    init(
        ring: SendRing, type: ibv_qp_type, queuePair: UInt32, limits: ibv_qp_cap, signalsAll: Bool, hasAtomics: Bool,
        doorbellRecord: UnsafeMutableRawPointer, blueFlame: BlueFlamePointer
    ) {
        self.ring = ring
        maximumPosts = limits.max_send_wr
        maxSGE = limits.max_send_sge
        maximumInline = limits.max_inline_data
        allowed = allowedOpcodes(type) & (hasAtomics ? .max : ~atomicOpcodes)
        isDatagram = type == IBV_QPT_UD
        self.queuePair = queuePair
        alwaysSignaled = signalsAll ? Control.signaled : 0
        self.doorbellRecord = doorbellRecord
        self.blueFlame = blueFlame
    }

    /// Resets the queue after a transition to RESET.
    mutating func reset() {
        wqebb = 0
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

/// The opcodes that a queue pair type supports, as in `SendQueue.allowed`.
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

/// The opcodes that may have inline data (ibv_post_send(3), `IBV_SEND_INLINE`).
let inlineOpcodes: UInt32 =
    1 << IBV_WR_SEND.rawValue | 1 << IBV_WR_SEND_WITH_IMM.rawValue | 1 << IBV_WR_SEND_WITH_INV.rawValue
    | 1 << IBV_WR_RDMA_WRITE.rawValue | 1 << IBV_WR_RDMA_WRITE_WITH_IMM.rawValue

/// The supported flags other than `IBV_SEND_INLINE`.
private let plainFlags = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue

extension UnsafeMutablePointer<SendQueue> {
    // MARK: - One WQE

    /// Whether the queue is full after `count` WQEs that `number` does not include yet.
    @inline(__always)
    func isFull(behind count: UInt32) -> Bool {
        pointee.number &+ count &- pointee.ring.retired.loadAcquiring() >= pointee.maximumPosts
    }

    /// Writes the WQE of a work request. Returns its size in units of 16 bytes, or -EINVAL or -EOPNOTSUPP, in which
    /// case nothing is posted.
    /// - Parameter number: The number of the WQE.
    @inline(__always)
    func write(_ request: UnsafeMutablePointer<ibv_send_wr>, number: UInt32) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        guard opcode < 32, pointee.allowed & (1 &<< opcode) != 0 else { return -EINVAL }
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= pointee.maxSGE else { return -EINVAL }
        let flags = request.pointee.send_flags
        let place = flags & ~plainFlags
        guard place == 0 || place == IBV_SEND_INLINE.rawValue else { return -EOPNOTSUPP }

        let ring = pointee.ring
        let wqe = ring.wqebb(pointee.wqebb)
        var segment = wqe + ControlSegment.byteCount
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
        default: return writeUMR(request, number: number)
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
            data = ring.putSGEs(request.pointee.sg_list, count, at: segment, isAtomic: isAtomic)
        } else {
            guard inlineOpcodes & (1 &<< opcode) != 0 else { return -EINVAL }
            data = ring.putInline(request.pointee.sg_list, count, at: segment, room: pointee.maximumInline)
        }
        guard data >= 0 else { return data }
        segments &+= UInt32(bitPattern: data)
        finish(wqe, operation, flags: flags, immediate: immediate, segments: segments)
        storePosted(request.pointee.wr_id, number: number, opcode: 0)
        return Int32(bitPattern: segments)
    }

    /// Writes the control segment of a WQE, after its other segments.
    @inline(__always)
    func finish(
        _ wqe: UnsafeMutableRawPointer, _ operation: UInt32, flags: UInt32, immediate: UInt32, segments: UInt32
    ) {
        wqe.put(Filled(ControlSegment.index, pointee.wqebb), Filled(ControlSegment.opcode, operation))
        wqe.put(
            Filled(ControlSegment.queuePair, pointee.queuePair), Filled(ControlSegment.segments, segments))
        let signaled =
            pointee.alwaysSignaled | (flags & IBV_SEND_SIGNALED.rawValue != 0 ? Control.signaled : 0)
        wqe.put(
            Filled(ControlSegment.fence, flags & IBV_SEND_FENCE.rawValue != 0 ? Control.fence : pointee.fence),
            Filled(ControlSegment.completion, signaled),
            Filled(ControlSegment.solicited, flags & IBV_SEND_SOLICITED.rawValue != 0 ? 1 : 0))
        ControlSegment.immediate.put(immediate, in: wqe)
        pointee.fence = 0
    }

    /// Stores the `PostedSend` of a WQE, which its completion needs.
    @inline(__always)
    func storePosted(_ id: UInt64, number: UInt32, opcode: UInt32) {
        let posted = pointee.ring.posted + Int(pointee.wqebb & pointee.ring.mask)
        posted.pointee.id = id
        posted.pointee.number = number
        posted.pointee.opcode = opcode
    }

    // MARK: - UMR

    /// Writes the UMR WQE of an `IBV_WR_BIND_MW` or `IBV_WR_LOCAL_INV` request. Returns as `write` does.
    @inline(never)
    private func writeUMR(_ request: UnsafeMutablePointer<ibv_send_wr>, number: UInt32) -> Int32 {
        guard request.pointee.num_sge == 0, request.pointee.send_flags & IBV_SEND_INLINE.rawValue == 0 else {
            return -EINVAL
        }
        guard request.pointee.opcode == IBV_WR_BIND_MW else {
            return writeUMR(
                .invalidation(of: request.pointee.invalidate_rkey), id: request.pointee.wr_id,
                flags: request.pointee.send_flags, number: number)
        }
        let binding = request.pointee.bind_mw
        guard let window = binding.mw, let umr = UMR(binding: window, key: binding.rkey, binding.bind_info)
        else { return -EINVAL }
        return writeUMR(umr, id: request.pointee.wr_id, flags: request.pointee.send_flags, number: number)
    }

    /// Writes a UMR WQE. Returns as `write` does.
    func writeUMR(_ umr: UMR, id: UInt64, flags: UInt32, number: UInt32) -> Int32 {
        guard umr.length <= UMR.maximumLength else { return -EOPNOTSUPP }
        let ring = pointee.ring
        let wqe = ring.wqebb(pointee.wqebb)
        var segment = wqe + ControlSegment.byteCount
        umr.putControl(at: segment)
        segment = ring.wrapped(segment + UMRControlSegment.byteCount)
        umr.putMKeyContext(at: segment, queuePair: pointee.queuePair)
        var segments: UInt32 = 8
        if umr.length != 0 {
            segment = ring.wrapped(segment + MKeyContextSegment.byteCount)
            umr.putKLM(at: segment)
            segments = 12
        }
        finish(wqe, Opcode.umr, flags: flags, immediate: umr.mkey, segments: segments)
        storePosted(id, number: number, opcode: umr.completionOpcode.rawValue)
        pointee.fence = Control.smallFence
        return Int32(bitPattern: segments)
    }

    // MARK: - The doorbell

    /// Writes the doorbell record and rings the doorbell for all WQEs before `wqebb`.
    /// - Parameters:
    ///   - last: The last WQE.
    ///   - segments: Its size in units of 16 bytes to write it by BlueFlame, or 0 to write its first 8 bytes.
    @inline(__always)
    func ringDoorbell(_ last: UnsafeMutableRawPointer, segments: UInt32) {
        linux_barrier_to_device()
        QueuePairDoorbellRecord.sends.put(pointee.wqebb, in: pointee.doorbellRecord)
        pointee.blueFlame.ring(last, segments: segments, of: pointee.ring)
    }
}
