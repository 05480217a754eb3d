import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

/// A posted send until its completion. The poster writes it, then the thread that polls.
struct PostedSend {
    /// `wr_id`.
    var id: UInt64
    /// The length of a READ, which its CQE does not have.
    var length: UInt32
    /// The operation (`Operation`), and flags.
    var state: State

    struct State {
        private var bits: UInt32

        @inline(__always)
        init(_ operation: UInt32, isSignaled: Bool) {
            bits = operation | (isSignaled ? 0x100 : 0) | (operation == Operation.read ? 0x400 : 0)
        }

        @inline(__always)
        var operation: UInt32 { bits & 0xFF }
        @inline(__always)
        var isSignaled: Bool { bits & 0x100 != 0 }
        /// Whether it completed before an earlier signaled one, which must be returned first.
        @inline(__always)
        var isComplete: Bool { bits & 0x200 != 0 }
        /// Whether it is a READ without a response.
        @inline(__always)
        var isAwaited: Bool { bits & 0x400 != 0 }
        /// Whether later sends must wait for it: its completion must be returned, or it is a READ without a response.
        @inline(__always)
        var holdsUp: Bool { bits & 0x700 != 0 }
        /// The status of a complete one (`T4_ERR_…`).
        @inline(__always)
        var status: UInt32 { bits >> 16 }

        @inline(__always)
        mutating func complete(_ status: UInt32) { bits = bits & ~0x400 | 0x200 | status << 16 }

        /// The response to a READ has arrived.
        @inline(__always)
        mutating func answer() { bits &= ~0x400 }
    }
}

/// The send queue of a queue pair, and the conversion of send work requests to those of the adapter.
struct SendQueue {
    var ring: WorkRing
    /// The number of posted work requests, modulo 2^32; and the index of the next one.
    var number: UInt32 = 0
    var index: UInt32 = 0
    /// The number of indices. One fewer work requests can be outstanding.
    let entries: UInt32
    let posted: UnsafeMutablePointer<PostedSend>
    /// The number of retired work requests, which the thread that polls writes; and a copy of `number` for it.
    let retired: SharedIndex
    let published: SharedIndex

    /// Whether all sends are signaled (`sq_sig_all`).
    let signalsAll: Bool
    /// A bit mask of the opcodes that may be posted: bit n is the value n of `enum ibv_wr_opcode`.
    let allowed: UInt32
    /// Whether a WRITE and a SEND can be posted as one (`WriteSendRequest`).
    let pairsWriteAndSend: Bool

    let doorbell: Doorbell
    let flags: QueuePairFlags
    /// Whether the workaround of CXGB4_MA_WR is on.
    let flushesByMany: Bool

    var builder = SendBuilder()
}

/// The bytes by which the kernel stops a queue pair.
struct QueuePairFlags {
    /// Not 0 when the queue pair is in error (`qp_err`).
    let error: UnsafeMutableRawPointer
    /// Not 0 while doorbells must be rung through the kernel (`db_off`).
    let doorbellsOff: UnsafeRawPointer

    @inline(__always)
    var isInError: Bool { linux_load_byte(error) != 0 }

    @inline(__always)
    var areDoorbellsOff: Bool { linux_load_byte(doorbellsOff) != 0 }

    /// Marks the queue pair: nothing can be posted any more.
    func setError() { error.storeBytes(of: 1, as: UInt8.self) }
}

private func bits(_ opcodes: ibv_wr_opcode...) -> UInt32 {
    var all: UInt32 = 0
    for opcode in opcodes { all |= 1 << opcode.rawValue }
    return all
}

/// The supported opcodes: iWARP has no SEND with immediate data and no atomic operations.
/// - Parameter hasImmediate: Whether the device has RDMA WRITE with immediate data.
func allowedOpcodes(hasImmediate: Bool) -> UInt32 {
    bits(
        IBV_WR_SEND, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_LOCAL_INV, IBV_WR_BIND_MW)
        | (hasImmediate ? bits(IBV_WR_RDMA_WRITE_WITH_IMM) : 0)
}

/// The opcodes that may have inline data (ibv_post_send(3), `IBV_SEND_INLINE`).
let inlineOpcodes = bits(IBV_WR_SEND, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM)

private let knownFlags =
    IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue | IBV_SEND_INLINE.rawValue

extension UInt32 {
    /// Whether these `send_flags` have a flag.
    @inline(__always)
    func has(_ flag: ibv_send_flags) -> Bool { self & flag.rawValue != 0 }
}

extension UnsafeMutablePointer<SendQueue> {
    /// The number of work requests that can be posted.
    @inline(__always)
    var room: UInt32 { pointee.entries &- 1 &- (pointee.number &- pointee.retired.loadAcquiring()) }

    // MARK: - One work request

    /// Writes a work request. Returns its number of slots, or -EINVAL or -EOPNOTSUPP, in which case nothing is posted.
    @inline(__always)
    func write(_ request: UnsafeMutablePointer<ibv_send_wr>) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        guard opcode < 32, pointee.allowed & (1 &<< opcode) != 0 else { return -EOPNOTSUPP }
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= Limits.sendSGE else { return -EINVAL }
        let flags = request.pointee.send_flags
        guard flags & ~knownFlags == 0 else { return -EOPNOTSUPP }

        let target = pointee.ring.target
        switch opcode {
        case IBV_WR_SEND.rawValue, IBV_WR_SEND_WITH_INV.rawValue:
            let invalidates = opcode == IBV_WR_SEND_WITH_INV.rawValue
            guard let payload = putPayload(request, count, flags, at: target + SendRequest.byteCount) else {
                return -EINVAL
            }
            target.putSend(
                invalidates ? Operation.sendInvalidate : Operation.send, flags,
                invalidated: invalidates ? request.pointee.invalidate_rkey : 0, length: payload.length)
            return finish(
                target, WorkRequestOpcode.send, headerFlags(flags, fence: WorkRequestFlags.readFence),
                size: UInt32(SendRequest.byteCount) &+ payload.size,
                PostedSend(
                    id: request.pointee.wr_id, length: 0,
                    state: .init(
                        invalidates ? Operation.sendInvalidate : Operation.send, isSignaled: isSignaled(flags))))
        case IBV_WR_RDMA_WRITE.rawValue, IBV_WR_RDMA_WRITE_WITH_IMM.rawValue:
            let hasImmediate = opcode == IBV_WR_RDMA_WRITE_WITH_IMM.rawValue
            guard let payload = putPayload(request, count, flags, at: target + WriteRequest.byteCount) else {
                return -EINVAL
            }
            target.putWrite(
                key: request.pointee.wr.rdma.rkey, address: request.pointee.wr.rdma.remote_addr,
                immediate: hasImmediate ? UInt32(bigEndian: request.pointee.imm_data) : 0, length: payload.length)
            return finish(
                target, WorkRequestOpcode.write,
                headerFlags(flags, fence: 0) | (hasImmediate ? WorkRequestFlags.immediate : 0),
                size: UInt32(WriteRequest.byteCount) &+ payload.size,
                PostedSend(
                    id: request.pointee.wr_id, length: 0,
                    state: .init(Operation.write, isSignaled: isSignaled(flags))))
        case IBV_WR_RDMA_READ.rawValue:
            guard count <= 1, !flags.has(IBV_SEND_INLINE), count == 0 || request.pointee.sg_list != nil else {
                return -EINVAL
            }
            return writeRead(
                target, sink: count == 0 ? nil : request.pointee.sg_list.pointee, key: request.pointee.wr.rdma.rkey,
                address: request.pointee.wr.rdma.remote_addr, id: request.pointee.wr_id, flags)
        default: return writeControl(request, count, flags, target)
        }
    }

    @inline(__always)
    private func putPayload(
        _ request: UnsafeMutablePointer<ibv_send_wr>, _ count: UInt32, _ flags: UInt32,
        at target: UnsafeMutableRawPointer
    ) -> Payload? {
        if _fastPath(count != 0 && !flags.has(IBV_SEND_INLINE)) {
            guard let list = request.pointee.sg_list else { return nil }
            return putSGEs(list, count, at: target)
        }
        return putInline(request.pointee.sg_list, count, at: target)
    }

    @inline(__always)
    func isSignaled(_ flags: UInt32) -> Bool { flags.has(IBV_SEND_SIGNALED) || pointee.signalsAll }

    /// - Parameter fence: The flag for `IBV_SEND_FENCE`.
    @inline(__always)
    func headerFlags(_ flags: UInt32, fence: UInt64) -> UInt64 {
        (isSignaled(flags) ? WorkRequestFlags.signaled : 0)
            | (flags.has(IBV_SEND_SOLICITED) ? WorkRequestFlags.solicited : 0)
            | (flags.has(IBV_SEND_FENCE) ? fence : 0)
    }

    /// Writes a READ. The adapter completes every READ with a CQE, so its header has no flags. Returns as `write` does.
    @inline(__always)
    func writeRead(
        _ target: UnsafeMutableRawPointer, sink: ibv_sge?, key: UInt32, address: UInt64, id: UInt64, _ flags: UInt32
    ) -> Int32 {
        target.putRead(sink: sink, key: key, address: address)
        return finish(
            target, WorkRequestOpcode.read, 0, size: UInt32(ReadRequest.byteCount),
            PostedSend(
                id: id, length: sink?.length ?? 0, state: .init(Operation.read, isSignaled: isSignaled(flags))))
    }

    /// Writes the header, and adds the work request to the ring. Returns its number of slots.
    @inline(__always)
    func finish(
        _ target: UnsafeMutableRawPointer, _ opcode: UInt64, _ flags: UInt64, size: UInt32, _ send: PostedSend
    ) -> Int32 {
        let length = (size &+ 15) / 16
        target.putHeader(opcode, flags: flags, index: pointee.index, length: length)
        record(send)
        return Int32(bitPattern: pointee.ring.commit(length))
    }

    /// Stores the state of a work request, and advances to the next.
    @inline(__always)
    func record(_ send: PostedSend) {
        let entry = pointee.posted + Int(pointee.index)
        entry.pointee.id = send.id
        entry.pointee.length = send.length
        entry.pointee.state = send.state
        pointee.number &+= 1
        let next = pointee.index &+ 1
        pointee.index = next == pointee.entries ? 0 : next
    }

    // MARK: - Keys

    /// Writes an `IBV_WR_LOCAL_INV` or `IBV_WR_BIND_MW` request. Returns as `write` does.
    @inline(never)
    private func writeControl(
        _ request: UnsafeMutablePointer<ibv_send_wr>, _ count: UInt32, _ flags: UInt32,
        _ target: UnsafeMutableRawPointer
    ) -> Int32 {
        guard count == 0, !flags.has(IBV_SEND_INLINE) else { return -EINVAL }
        guard request.pointee.opcode == IBV_WR_BIND_MW else {
            return writeInvalidation(target, request.pointee.invalidate_rkey, id: request.pointee.wr_id, flags)
        }
        let binding = request.pointee.bind_mw
        guard let window = binding.mw else { return -EINVAL }
        return writeBinding(
            target, key: binding.rkey, isType2: window.pointee.type == IBV_MW_TYPE_2, binding.bind_info,
            id: request.pointee.wr_id, flags)
    }

    /// Writes a local invalidation. Returns as `write` does.
    func writeInvalidation(_ target: UnsafeMutableRawPointer, _ key: UInt32, id: UInt64, _ flags: UInt32) -> Int32 {
        InvalidateRequest.key.put(UInt64(key), in: target)
        return finish(
            target, WorkRequestOpcode.invalidate, headerFlags(flags, fence: WorkRequestFlags.localFence),
            size: UInt32(InvalidateRequest.byteCount),
            PostedSend(
                id: id, length: 0, state: .init(Operation.localInvalidate, isSignaled: isSignaled(flags))))
    }

    /// Writes a bind of a memory window. Returns as `write` does.
    /// - Parameter key: The new rkey of the window.
    func writeBinding(
        _ target: UnsafeMutableRawPointer, key: UInt32, isType2: Bool, _ info: ibv_mw_bind_info, id: UInt64,
        _ flags: UInt32
    ) -> Int32 {
        guard info.length == 0 || info.mr != nil else { return -EINVAL }
        let region = info.length == 0 ? 0 : info.mr.pointee.lkey
        target.putBinding(key: key, isType2: isType2, region: region, info)
        return finish(
            target, WorkRequestOpcode.bind, headerFlags(flags, fence: WorkRequestFlags.localFence),
            size: UInt32(BindRequest.byteCount),
            PostedSend(id: id, length: 0, state: .init(Operation.bind, isSignaled: isSignaled(flags))))
    }

    // MARK: - The doorbell

    /// Publishes the posted work requests to the thread that polls, and rings the doorbell.
    /// - Parameters:
    ///   - slots: The number of slots since the last doorbell.
    ///   - taken: The number of slots of the last work request.
    @inline(__always)
    func ringDoorbell(_ slots: UInt32, last taken: UInt32, of pair: QueuePairPointer) {
        pointee.published.storeReleasing(pointee.number)
        if _slowPath(pointee.ring.isOnChip) { flushToChip() }
        pointee.ring.storeNext(pointee.index)
        if _slowPath(pointee.flags.areDoorbellsOff) {
            pair.ringThroughKernel(sends: slots, receives: 0, or: pointee.doorbell, last: pointee.ring.last(taken))
        } else {
            pointee.doorbell.ring(slots, last: pointee.ring.last(taken))
        }
    }

    /// Writes words behind an on-chip queue, so that the work requests have reached the adapter's memory before the
    /// doorbell: 1, or 16 with CXGB4_MA_WR=1.
    @inline(never)
    private func flushToChip() {
        let first = pointee.ring.statusPage
        linux_flush_to_device()
        if pointee.flushesByMany {
            for number in 0..<16 { StatusPage.flushed.put(UInt32(number), in: first + 8 * number) }
        } else {
            StatusPage.flushed.put(15, in: first)
        }
        linux_flush_to_device()
    }
}

extension QueuePairPointer {
    /// Rings the doorbell through the kernel (MODIFY_QP with the numbers of slots as PSNs), which has stopped the
    /// doorbells of a T4 that lost some. If the kernel does not take it, the doorbell itself is rung: a posted work
    /// request must not remain without one.
    @inline(never)
    func ringThroughKernel(sends: UInt32, receives: UInt32, or doorbell: Doorbell, last: UnsafeRawPointer) {
        var attributes = ibv_qp_attr()
        attributes.sq_psn = sends
        attributes.rq_psn = receives
        let mask = sends != 0 ? IBV_QP_SQ_PSN.rawValue : IBV_QP_RQ_PSN.rawValue
        let base = pointee.base.qp_base
        linux_barrier_to_device()
        let refusal = errno { () throws(KernelError) in
            try base.context.native.pointee.kernel.modifyQueuePair(base.handle, attributes, mask: mask)
        }
        if refusal != 0 { doorbell.ring(max(sends, receives), last: last) }
    }
}
