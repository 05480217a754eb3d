import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    createNativeQueuePair(
        context, attr, operations: sendOperations, allocate: QueuePairPointer.allocate,
        make: { pair, attr throws(KernelError) in try pair.make(&attr) },
        fillBuilders: fillBuilders)
}

/// What a queue pair stands on, besides the object itself.
struct QueuePairParts {
    let size: QueuePairSize
    let memory: DeviceMemory
    let record: UnsafeMutableRawPointer
    /// Two words: how many sends and receives have completed; then what is kept of sends, and of receives.
    let notes: UnsafeMutableRawPointer
    /// Number by which completions name it.
    let index: UInt32
    /// Where its doorbell rings, and the page of that; nil where the kernel says so with its answer.
    let register: (register: BlueFlamePointer, page: UInt32)?

    private static var notesInFront: Int { 64 }

    static func allocateNotes(_ size: QueuePairSize) -> UnsafeMutableRawPointer {
        let count =
            notesInFront + Int(max(size.sendBlocks, 1)) * MemoryLayout<PostedSend>.stride
            + Int(max(size.receives, 1)) * 8
        let notes = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64)
        notes.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        return notes
    }

    var sendRing: SendRing {
        SendRing(
            memory: memory.start + size.receiveByteCount, blocks: max(size.sendBlocks, 1),
            posted: (notes + Self.notesInFront).assumingMemoryBound(to: PostedSend.self), retired: notes)
    }

    var receiveRing: ReceiveRing? {
        guard size.receives > 0 else { return nil }
        let ids = notes + Self.notesInFront + Int(max(size.sendBlocks, 1)) * MemoryLayout<PostedSend>.stride
        return ReceiveRing(
            memory: memory.start, count: size.receives, shift: size.receiveShift,
            posted: ids.assumingMemoryBound(to: UInt64.self), retired: notes + 4)
    }
}

/// Completions that name no number of ours.
private let noUserIndex: UInt32 = 0xFFFFFF

extension QueuePairPointer {
    /// Makes the queue pair's memory, and the queue pair in the kernel. The true limits are written back.
    fileprivate func make(_ attr: inout ibv_qp_init_attr_ex) throws(KernelError) {
        let hasOperations = attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0
        let size = try QueuePairSize(
            attr.cap, type: attr.qp_type, operations: hasOperations ? attr.send_ops_flags : nil,
            hasReceives: attr.srq == nil, device: context.pointee.limits)
        let parts = try gather(size, isSingleThreaded: attr.pd.domain.pointee.isSingleThreaded)
        do throws(KernelError) {
            try create(parts, signalsAll: attr.sq_sig_all != 0)
        } catch {
            scatter(parts)
            throw error
        }
        attr.cap = size.limits
    }

    private func gather(_ size: QueuePairSize, isSingleThreaded: Bool) throws(KernelError) -> QueuePairParts {
        let context = context
        guard let memory = DeviceMemory(byteCount: size.byteCount) else { throw KernelError(rawValue: ENOMEM) }
        guard let record = context.pointee.records.take() else {
            memory.free()
            throw KernelError(rawValue: ENOMEM)
        }
        let index = context.pointee.hasUserIndex ? context.pointee.queuePairs.insert(self) : noUserIndex
        do throws(KernelError) {
            guard let index else { throw KernelError(rawValue: ENOMEM) }
            let register =
                context.pointee.registers.areFixed
                ? nil
                : try context.pointee.registers.take(of: context.pointee.native.kernel, isAlone: isSingleThreaded)
            return QueuePairParts(
                size: size, memory: memory, record: record, notes: QueuePairParts.allocateNotes(size), index: index,
                register: register)
        } catch {
            if let index, context.pointee.hasUserIndex { context.pointee.queuePairs.remove(index) }
            context.pointee.records.giveBack(record)
            memory.free()
            throw error
        }
    }

    /// Gives all of it back.
    private func scatter(_ parts: QueuePairParts) {
        if let register = parts.register { context.pointee.registers.giveBack(register.register) }
        if context.pointee.hasUserIndex { context.pointee.queuePairs.remove(parts.index) }
        context.pointee.records.giveBack(parts.record)
        parts.notes.deallocate()
        parts.memory.free()
    }

    private func create(_ parts: QueuePairParts, signalsAll: Bool) throws(KernelError) {
        var answer = mlx5_ib_create_qp_resp()
        let made = try DriverData.exchange(command(parts), &answer) { driver throws(KernelError) in
            try context.pointee.native.kernel.createQueuePair(
                request(parts.size.limits, signalsAll: signalsAll), driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do throws(KernelError) {
            guard let register = parts.register?.register ?? context.pointee.registers.fixed(answer.bfreg_index) else {
                throw KernelError(rawValue: EPROTO)
            }
            let send = SendQueue(
                ring: parts.sendRing, type: pointee.base.qp_base.qp_type, queuePair: made.number,
                limits: parts.size.limits, signalsAll: signalsAll, hasAtomics: context.pointee.hasAtomics,
                record: parts.record,
                register: register)
            attach(send, ReceiveQueue(ring: parts.receiveRing, record: parts.record))
            self.parts.initialize(to: parts)
            if !context.pointee.hasUserIndex && !context.pointee.queuePairs.insert(self, as: made.number) {
                throw KernelError(rawValue: EPROTO)
            }
        } catch {
            _ = try? context.pointee.native.kernel.destroyQueuePair(made.handle)
            throw error
        }
    }

    private func command(_ parts: QueuePairParts) -> mlx5_ib_create_qp {
        var command = mlx5_ib_create_qp()
        command.buf_addr = UInt64(UInt(bitPattern: parts.memory.start))
        command.db_addr = UInt64(UInt(bitPattern: parts.record))
        command.sq_wqe_count = parts.size.sendBlocks
        command.rq_wqe_count = parts.size.receives
        command.rq_wqe_shift = parts.size.receiveShift
        command.uidx = parts.index
        if context.pointee.scattersToCompletions { command.flags |= UInt32(MLX5_QP_FLAG_SCATTER_CQE) }
        if let register = parts.register {
            command.flags |= UInt32(MLX5_QP_FLAG_UAR_PAGE_INDEX)
            command.bfreg_index = register.page
        }
        return command
    }

    /// Runs `body` while nobody polls the queue pair's completion queues.
    fileprivate func withCompletionQueues(_ body: (QueuePairPointer) -> Void) {
        let base = pointee.base.qp_base
        let (one, other) = (base.send_cq.native, base.recv_cq.native)
        // Always in the same order.
        let (first, second) = UInt(bitPattern: one) < UInt(bitPattern: other) ? (one, other) : (other, one)
        first.pointee.lock.lock()
        if second != first { second.pointee.lock.lock() }
        body(self)
        if second != first { second.pointee.lock.unlock() }
        first.pointee.lock.unlock()
    }

    /// The number by which completions name it.
    private var completionNumber: UInt32 {
        context.pointee.hasUserIndex ? parts.pointee.index : pointee.base.qp_base.qp_num
    }

    /// Takes its completions out of its completion queues, which are locked.
    fileprivate func cleanCompletions() {
        let base = pointee.base.qp_base
        let hasUserIndex = context.pointee.hasUserIndex
        base.recv_cq.native.ring.pointee.clean(completionNumber, hasUserIndex: hasUserIndex, shared: base.srq?.native)
        if base.send_cq != base.recv_cq {
            base.send_cq.native.ring.pointee.clean(completionNumber, hasUserIndex: hasUserIndex, shared: nil)
        }
    }

    fileprivate func finish() {
        context.pointee.queuePairs.remove(completionNumber)
        let parts = parts.pointee
        if let register = parts.register { context.pointee.registers.giveBack(register.register) }
        context.pointee.records.giveBack(parts.record)
        parts.notes.deallocate()
        parts.memory.free()
    }
}

/// The kernel checks the transition. After a reset the queues are empty, and nothing of them is left to be polled.
func modifyQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32
) -> Int32 {
    let refusal = modifyNativeQueuePair(qp: qp, attr: attr, mask: mask)
    guard refusal == 0, let pair = qp?.native, let attr, UInt32(bitPattern: mask) & IBV_QP_STATE.rawValue != 0,
        attr.pointee.qp_state == IBV_QPS_RESET
    else { return refusal }
    pair.pointee.sendLock.lock()
    pair.pointee.receiveLock.lock()
    pair.withCompletionQueues { pair in
        pair.cleanCompletions()
        pair.sends.pointee.rewind()
        pair.receives.pointee.rewind()
    }
    QueuePairRecord.receives.put(0, in: pair.parts.pointee.record)
    QueuePairRecord.sends.put(0, in: pair.parts.pointee.record)
    pair.pointee.receiveLock.unlock()
    pair.pointee.sendLock.unlock()
    return 0
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    destroyNativeQueuePair(qp) { pair in
        pair.withCompletionQueues { pair in
            pair.cleanCompletions()
            pair.finish()
        }
    }
}
