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

/// The resources of a queue pair: its queues, doorbell record and doorbell.
struct QueuePairResources {
    let size: QueuePairSize
    let memory: DeviceMemory
    let doorbellRecord: UnsafeMutableRawPointer
    /// The numbers of retired send and receive WQEs, two words; then the `PostedSend` of each send WQEBB, and the
    /// `wr_id` of each receive WQE.
    let postedState: UnsafeMutableRawPointer
    /// The user index in CQEs (`uidx`); `noUserIndex` if CQEs have the QPN.
    let index: UInt32
    /// The BlueFlame register and the index of its UAR page; nil if the kernel chooses the register (`bfreg_index` of
    /// its response).
    let bfreg: (blueFlame: BlueFlamePointer, uarIndex: UInt32)?

    private static var retiredByteCount: Int { 64 }

    static func allocatePostedState(_ size: QueuePairSize) -> UnsafeMutableRawPointer {
        let count =
            retiredByteCount + Int(max(size.sendWQEBBs, 1)) * MemoryLayout<PostedSend>.stride
            + Int(max(size.receives, 1)) * 8
        let postedState = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64)
        postedState.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        return postedState
    }

    var sendRing: SendRing {
        SendRing(
            memory: memory.start + size.receiveByteCount, wqebbs: max(size.sendWQEBBs, 1),
            posted: (postedState + Self.retiredByteCount).assumingMemoryBound(to: PostedSend.self),
            retired: postedState)
    }

    var receiveRing: ReceiveRing? {
        guard size.receives > 0 else { return nil }
        let ids = postedState + Self.retiredByteCount + Int(max(size.sendWQEBBs, 1)) * MemoryLayout<PostedSend>.stride
        return ReceiveRing(
            memory: memory.start, count: size.receives, shift: size.receiveShift,
            posted: ids.assumingMemoryBound(to: UInt64.self), retired: postedState + 4)
    }
}

/// The `uidx` of a queue pair whose CQEs have the QPN.
private let noUserIndex: UInt32 = 0xFFFFFF

extension QueuePairPointer {
    /// Allocates the resources and creates the queue pair in the kernel. Writes the granted limits to `attr.cap`.
    fileprivate func make(_ attr: inout ibv_qp_init_attr_ex) throws(KernelError) {
        let hasOperations = attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue != 0
        let size = try QueuePairSize(
            attr.cap, type: attr.qp_type, operations: hasOperations ? attr.send_ops_flags : nil,
            hasReceives: attr.srq == nil, device: context.pointee.limits)
        let resources = try allocateResources(size, isSingleThreaded: attr.pd.domain.pointee.isSingleThreaded)
        do throws(KernelError) {
            try create(resources, signalsAll: attr.sq_sig_all != 0)
        } catch {
            release(resources)
            throw error
        }
        attr.cap = size.limits
    }

    private func allocateResources(
        _ size: QueuePairSize, isSingleThreaded: Bool
    ) throws(KernelError) -> QueuePairResources {
        let context = context
        guard let memory = DeviceMemory(byteCount: size.byteCount) else {
            throw KernelError(rawValue: linux_errno())
        }
        guard let doorbellRecord = context.pointee.doorbellRecords.allocate() else {
            let error = linux_errno()
            memory.free()
            throw KernelError(rawValue: error)
        }
        let index = context.pointee.hasUserIndex ? context.pointee.queuePairs.insert(self) : noUserIndex
        do throws(KernelError) {
            guard let index else { throw KernelError(rawValue: ENOMEM) }
            let bfreg =
                context.pointee.uarPages.areStatic
                ? nil
                : try context.pointee.uarPages.allocateBFReg(
                    context.pointee.native.kernel, isDedicated: isSingleThreaded)
            return QueuePairResources(
                size: size, memory: memory, doorbellRecord: doorbellRecord,
                postedState: QueuePairResources.allocatePostedState(size), index: index, bfreg: bfreg)
        } catch {
            if let index, context.pointee.hasUserIndex { context.pointee.queuePairs.remove(index) }
            context.pointee.doorbellRecords.free(doorbellRecord)
            memory.free()
            throw error
        }
    }

    /// Releases all resources.
    private func release(_ resources: QueuePairResources) {
        if let bfreg = resources.bfreg { context.pointee.uarPages.releaseBFReg(bfreg.blueFlame) }
        if context.pointee.hasUserIndex { context.pointee.queuePairs.remove(resources.index) }
        context.pointee.doorbellRecords.free(resources.doorbellRecord)
        resources.postedState.deallocate()
        resources.memory.free()
    }

    private func create(_ resources: QueuePairResources, signalsAll: Bool) throws(KernelError) {
        var response = mlx5_ib_create_qp_resp()
        let made = try DriverData.exchange(command(resources), &response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createQueuePair(
                request(resources.size.limits, signalsAll: signalsAll), driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do throws(KernelError) {
            guard
                let blueFlame = resources.bfreg?.blueFlame ?? context.pointee.uarPages.staticBFReg(response.bfreg_index)
            else {
                throw KernelError.unknownLayout()
            }
            let send = SendQueue(
                ring: resources.sendRing, type: pointee.base.qp_base.qp_type, queuePair: made.number,
                limits: resources.size.limits, signalsAll: signalsAll, hasAtomics: context.pointee.hasAtomics,
                doorbellRecord: resources.doorbellRecord, blueFlame: blueFlame)
            attach(send, ReceiveQueue(ring: resources.receiveRing, doorbellRecord: resources.doorbellRecord))
            self.resources.initialize(to: resources)
            if !context.pointee.hasUserIndex && !context.pointee.queuePairs.insert(self, as: made.number) {
                throw KernelError.unknownLayout()
            }
        } catch {
            _ = try? context.pointee.native.kernel.destroyQueuePair(made.handle)
            throw error
        }
    }

    private func command(_ resources: QueuePairResources) -> mlx5_ib_create_qp {
        var command = mlx5_ib_create_qp()
        command.buf_addr = UInt64(UInt(bitPattern: resources.memory.start))
        command.db_addr = UInt64(UInt(bitPattern: resources.doorbellRecord))
        command.sq_wqe_count = resources.size.sendWQEBBs
        command.rq_wqe_count = resources.size.receives
        command.rq_wqe_shift = resources.size.receiveShift
        command.uidx = resources.index
        if context.pointee.scattersToCompletions { command.flags |= UInt32(MLX5_QP_FLAG_SCATTER_CQE) }
        if let bfreg = resources.bfreg {
            command.flags |= UInt32(MLX5_QP_FLAG_UAR_PAGE_INDEX)
            command.bfreg_index = bfreg.uarIndex
        }
        return command
    }

    /// Runs `body` while no other thread polls the queue pair's completion queues.
    fileprivate func withCompletionQueues(
        taking takeOthers: () -> Bool = { true }, _ body: (QueuePairPointer) -> Void
    ) {
        let base = pointee.base.qp_base
        whileNotPolled(base.send_cq.native.pointee.lock, base.recv_cq.native.pointee.lock, taking: takeOthers) {
            body(self)
        }
    }

    /// Locks both posting locks, or neither. Returns false if another thread holds one.
    fileprivate func tryLockPosting() -> Bool {
        guard pointee.sendLock.tryLock() else { return false }
        if pointee.receiveLock.tryLock() { return true }
        pointee.sendLock.unlock()
        return false
    }

    /// The user index or QPN in the queue pair's CQEs.
    private var completionNumber: UInt32 {
        context.pointee.hasUserIndex ? resources.pointee.index : pointee.base.qp_base.qp_num
    }

    /// Removes the queue pair's CQEs from its completion queues, which no other thread polls.
    fileprivate func cleanCompletions() {
        let base = pointee.base.qp_base
        clean(base.recv_cq.native, shared: base.srq?.native)
        if base.send_cq != base.recv_cq { clean(base.send_cq.native, shared: nil) }
    }

    private func clean(_ queue: CompletionQueuePointer, shared: SharedReceiveQueuePointer?) {
        queue.ring.pointee.clean(
            completionNumber, hasUserIndex: context.pointee.hasUserIndex, shared: shared,
            isInBatch: queue.pointee.lock.hasBatch())
    }

    fileprivate func finish() {
        context.pointee.queuePairs.remove(completionNumber)
        let resources = resources.pointee
        if let bfreg = resources.bfreg { context.pointee.uarPages.releaseBFReg(bfreg.blueFlame) }
        context.pointee.doorbellRecords.free(resources.doorbellRecord)
        resources.postedState.deallocate()
        resources.memory.free()
    }
}

/// `modify_qp`. The kernel checks the transition. After a transition to RESET, the queues are empty and their CQEs are
/// removed.
func modifyQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32
) -> Int32 {
    let refusal = modifyNativeQueuePair(qp: qp, attr: attr, mask: mask)
    guard refusal == 0, let pair = qp?.native, let attr, UInt32(bitPattern: mask) & IBV_QP_STATE.rawValue != 0,
        attr.pointee.qp_state == IBV_QPS_RESET
    else { return refusal }
    pair.withCompletionQueues(taking: pair.tryLockPosting) { pair in
        pair.cleanCompletions()
        pair.sends.pointee.reset()
        pair.receives.pointee.reset()
        QueuePairDoorbellRecord.receives.put(0, in: pair.resources.pointee.doorbellRecord)
        QueuePairDoorbellRecord.sends.put(0, in: pair.resources.pointee.doorbellRecord)
        pair.pointee.receiveLock.unlock()
        pair.pointee.sendLock.unlock()
    }
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
