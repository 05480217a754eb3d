import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createQueuePair(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_qp_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_qp>? {
    if let attr, attr.pointee.qp_type == IBV_QPT_UC || attr.pointee.qp_type == IBV_QPT_UD {
        return failure(EOPNOTSUPP, "qp_type: iWARP has queue pairs of type RC only")
    }
    return createNativeQueuePair(
        context, attr, operations: sendOperations, allocate: QueuePairPointer.allocate,
        make: { pair, attr throws(KernelError) in try pair.make(&attr) },
        fillBuilders: fillBuilders)
}

/// The resources of a queue pair: its mapped memory and the state of its work requests.
struct QueuePairResources {
    let sendPage: Mapping
    let sendMemory: Mapping
    /// Nil with a shared receive queue.
    let receivePage: Mapping?
    let receiveMemory: Mapping?
    /// The words that poster and poller share, in cache lines of their own; then the `PostedSend` of each send, and the
    /// `wr_id` of each receive.
    let state: UnsafeMutableRawPointer
    let sendEntries: UInt32

    fileprivate static var lineSize: Int { 64 }
    fileprivate static var lineCount: Int { 4 }

    /// One of the shared words.
    func word(_ number: Int) -> SharedIndex { SharedIndex(at: state + number * Self.lineSize) }

    var sends: UnsafeMutablePointer<PostedSend> {
        (state + Self.lineCount * Self.lineSize).assumingMemoryBound(to: PostedSend.self)
    }

    var ids: UnsafeMutablePointer<UInt64> {
        UnsafeMutableRawPointer(sends + Int(sendEntries)).assumingMemoryBound(to: UInt64.self)
    }

    static func allocateState(sends: UInt32, receives: UInt32) -> UnsafeMutableRawPointer {
        let count = lineCount * lineSize + Int(sends) * MemoryLayout<PostedSend>.stride + Int(receives) * 8
        let state = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: lineSize)
        state.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        return state
    }

    func release() {
        receiveMemory?.unmap()
        receivePage?.unmap()
        sendMemory.unmap()
        sendPage.unmap()
        state.deallocate()
    }
}

// MARK: - Creation

extension QueuePairPointer {
    /// Creates the queue pair in the kernel, and maps its memory. Writes the actual limits to `attr.cap`.
    fileprivate func make(_ attr: inout ibv_qp_init_attr_ex) throws(KernelError) {
        let hasReceives = attr.srq == nil
        guard attr.cap.max_send_sge <= Limits.sendSGE, attr.cap.max_inline_data <= Limits.inlineData,
            !hasReceives || attr.cap.max_recv_sge <= Limits.receiveSGE
        else { throw .invalidArgument }
        var response = c4iw_create_qp_resp()
        let made = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createQueuePair(
                request(attr.cap, signalsAll: attr.sq_sig_all != 0), driver: driver)
        }
        pointee.base.qp_base.handle = made.handle
        pointee.base.qp_base.qp_num = made.number
        do throws(KernelError) {
            try check(attr, response)
            let resources = try map(response, hasReceives: hasReceives)
            attach(resources, response, signalsAll: attr.sq_sig_all != 0)
            do throws(KernelError) {
                try enter()
            } catch {
                releaseQueues()
                throw error
            }
        } catch {
            _ = try? context.pointee.native.kernel.destroyQueuePair(made.handle)
            throw error
        }
        attr.cap.max_send_wr = response.sq_size - 1
        attr.cap.max_send_sge = Limits.sendSGE
        attr.cap.max_inline_data = Limits.inlineData
        attr.cap.max_recv_wr = hasReceives ? response.rq_size - 1 : 0
        attr.cap.max_recv_sge = hasReceives ? Limits.receiveSGE : 0
    }

    /// Checks the kernel's response, and whether the device has the requested operations.
    private func check(_ attr: ibv_qp_init_attr_ex, _ response: c4iw_create_qp_resp) throws(KernelError) {
        let sizes: ClosedRange<UInt32> = 2...0xFFFF
        guard sizes.contains(response.sq_size), attr.srq != nil || sizes.contains(response.rq_size),
            response.sqid >> 20 == 0, response.sqid == pointee.base.qp_base.qp_num
        else { throw KernelError.unknownLayout() }
        guard
            attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue == 0
                || attr.send_ops_flags & UInt64(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM.rawValue) == 0
                || response.flags & UInt32(C4IW_QPF_WRITE_W_IMM) != 0
        else {
            throw KernelError(
                rawValue: refusal(
                    EOPNOTSUPP, "send_ops_flags: this device's firmware has no RDMA WRITE with immediate data"))
        }
    }

    /// Maps the doorbell pages and the queues.
    private func map(
        _ response: c4iw_create_qp_resp, hasReceives: Bool
    ) throws(KernelError) -> QueuePairResources {
        let requestSizes = (
            send: Int(Limits.sendSlots) * Limits.slotSize, receive: Int(Limits.receiveSlots) * Limits.slotSize
        )
        var mapped: InlineArray<4, Mapping?> = [nil, nil, nil, nil]
        do throws(KernelError) {
            mapped[0] = try Mapping(registersAt: response.sq_db_gts_key, context.pointee.native.kernel)
            mapped[1] = try Mapping(
                queueAt: response.sq_key, byteCount: response.sq_memsize,
                least: Int(response.sq_size) * requestSizes.send + Limits.slotSize, context.pointee.native.kernel)
            if hasReceives {
                mapped[2] = try Mapping(registersAt: response.rq_db_gts_key, context.pointee.native.kernel)
                mapped[3] = try Mapping(
                    queueAt: response.rq_key, byteCount: response.rq_memsize,
                    least: Int(response.rq_size) * requestSizes.receive + Limits.slotSize,
                    context.pointee.native.kernel)
            }
        } catch {
            for index in 0..<4 { mapped[index]?.unmap() }
            throw error
        }
        return QueuePairResources(
            sendPage: mapped[0]!, sendMemory: mapped[1]!, receivePage: mapped[2], receiveMemory: mapped[3],
            state: QueuePairResources.allocateState(
                sends: response.sq_size, receives: hasReceives ? response.rq_size : 0),
            sendEntries: response.sq_size)
    }

    /// Initialises the queues.
    func attach(_ resources: QueuePairResources, _ response: c4iw_create_qp_resp, signalsAll: Bool) {
        self.resources.initialize(to: resources)
        let isOnChip = response.flags & UInt32(C4IW_QPF_ONCHIP) != 0
        let sendRing = WorkRing(
            start: resources.sendMemory.start, requests: response.sq_size, slotsPerRequest: Limits.sendSlots,
            isOnChip: isOnChip)
        let receiveRing = resources.receiveMemory.map {
            WorkRing(start: $0.start, requests: response.rq_size, slotsPerRequest: Limits.receiveSlots)
        }
        let flags = QueuePairFlags(
            error: (receiveRing ?? sendRing).statusPage + StatusPage.error.offset,
            doorbellsOff: context.pointee.statusPage.start + DeviceStatusPage.doorbellsOff.offset)
        let flushSize = sendRing.statusPage - sendRing.start + StatusPage.flushed.offset + 16 * 8
        sends.initialize(
            to: SendQueue(
                ring: sendRing, entries: response.sq_size, posted: resources.sends, retired: resources.word(0),
                published: resources.word(1), signalsAll: signalsAll,
                allowed: allowedOpcodes(hasImmediate: response.flags & UInt32(C4IW_QPF_WRITE_W_IMM) != 0),
                pairsWriteAndSend: context.pairsWriteAndSend,
                doorbell: doorbell(resources.sendPage, response.sqid, response), flags: flags,
                flushesByMany: context.pointee.flushesByMany && flushSize <= resources.sendMemory.byteCount))
        if let receiveRing, let page = resources.receivePage {
            receives.initialize(
                to: ReceiveQueue(
                    ring: receiveRing, entries: response.rq_size, ids: resources.ids, retired: resources.word(2),
                    published: resources.word(3), doorbell: doorbell(page, response.rqid, response), flags: flags))
        }
        attachSides(response, flags)
    }

    private func doorbell(_ page: Mapping, _ queue: UInt32, _ response: c4iw_create_qp_resp) -> Doorbell {
        Doorbell(
            page: page.start, queue: queue, mask: response.qid_mask, isT4: context.pointee.isT4,
            combines: context.pointee.combinesWrites)
    }

    private func attachSides(_ response: c4iw_create_qp_resp, _ flags: QueuePairFlags) {
        let base = pointee.base.qp_base
        let resources = resources.pointee
        func side(isSend: Bool) -> CompletionSide {
            CompletionSide(
                pair: self, isSend: isSend, queuePair: response.sqid,
                ring: (isSend ? base.send_cq : base.recv_cq).native.ring, flags: flags,
                entries: isSend ? response.sq_size : response.rq_size, retired: resources.word(isSend ? 0 : 2),
                published: resources.word(isSend ? 1 : 3), sends: resources.sends, ids: resources.ids,
                shared: isSend ? nil : base.srq?.native, sharedStatus: sends.pointee.ring.statusPage)
        }
        sendSide.initialize(to: side(isSend: true))
        receiveSide.initialize(to: side(isSend: false))
    }

    /// Makes the queue pair known to its completion queues.
    private func enter() throws(KernelError) {
        let isKnown = withCompletionQueues { pair in
            guard pair.context.pointee.queuePairs.insert(pair, as: pair.pointee.base.qp_base.qp_num) else {
                return false
            }
            pair.receiveSide.pointee.ring.add(pair.receiveSide)
            pair.sendSide.pointee.ring.add(pair.sendSide)
            return true
        }
        guard isKnown else { throw KernelError.unknownLayout() }
    }

    /// Runs `body` while no other thread polls the queue pair's completion queues.
    private func withCompletionQueues<Result>(
        taking takeOthers: () -> Bool = { true }, _ body: (QueuePairPointer) -> Result
    ) -> Result {
        let base = pointee.base.qp_base
        return whileNotPolled(base.send_cq.native.pointee.lock, base.recv_cq.native.pointee.lock, taking: takeOthers) {
            body(self)
        }
    }

    private func releaseQueues() {
        sends.pointee.ring.free()
        if resources.pointee.receiveMemory != nil { receives.pointee.ring.free() }
        resources.pointee.release()
    }
}

// MARK: - Transitions

extension QueuePairPointer {
    /// Has the completion queues flush the queue pair at the next poll, if the kernel has marked it.
    func requestFlushInError() {
        guard sends.pointee.flags.isInError else { return }
        receiveSide.pointee.ring.pointee.requestFlush()
        sendSide.pointee.ring.pointee.requestFlush()
    }

    /// Locks both posting locks, or neither. Returns false if another thread holds one.
    private func tryLockPosting() -> Bool {
        guard pointee.sendLock.tryLock() else { return false }
        if pointee.receiveLock.tryLock() { return true }
        pointee.sendLock.unlock()
        return false
    }

    /// Empties the queues after a transition to RESET.
    fileprivate func reset() {
        withCompletionQueues(taking: tryLockPosting) { pair in
            pair.receiveSide.reset()
            pair.sendSide.reset()
            pair.clearQueues()
            pair.pointee.receiveLock.unlock()
            pair.pointee.sendLock.unlock()
        }
    }

    private func clearQueues() {
        let resources = resources.pointee
        sends.pointee.number = 0
        sends.pointee.index = 0
        sends.pointee.ring.next = 0
        sends.pointee.published.storeReleasing(0)
        resources.sendMemory.start.initializeMemory(
            as: UInt8.self, repeating: 0, count: resources.sendMemory.byteCount)
        if let memory = resources.receiveMemory {
            receives.pointee.number = 0
            receives.pointee.index = 0
            receives.pointee.ring.next = 0
            receives.pointee.published.storeReleasing(0)
            memory.start.initializeMemory(as: UInt8.self, repeating: 0, count: memory.byteCount)
        }
        if sends.pointee.ring.isOnChip { linux_flush_to_device() }
    }
}

/// `modify_qp`. The kernel checks the transition, and moves a queue pair to RTS only as a part of connecting it.
func modifyQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32
) -> Int32 {
    let refusal = modifyNativeQueuePair(qp: qp, attr: attr, mask: mask)
    guard refusal == 0, let pair = qp?.native, let attr, UInt32(bitPattern: mask) & IBV_QP_STATE.rawValue != 0 else {
        return refusal
    }
    switch attr.pointee.qp_state {
    case IBV_QPS_RESET: pair.reset()
    case IBV_QPS_ERR: pair.requestFlushInError()
    default: break
    }
    return 0
}

/// `query_qp`. A queue pair that the kernel has moved to the error state is flushed at the next poll.
func queryQueuePair(
    qp: UnsafeMutablePointer<ibv_qp>?, attr: UnsafeMutablePointer<ibv_qp_attr>?, mask: Int32,
    initial: UnsafeMutablePointer<ibv_qp_init_attr>?
) -> Int32 {
    let refusal = queryNativeQueuePair(qp: qp, attr: attr, mask: mask, initial: initial)
    guard refusal == 0, let pair = qp?.native, let attr else { return refusal }
    if attr.pointee.qp_state == IBV_QPS_ERR { pair.requestFlushInError() }
    return 0
}

func destroyQueuePair(qp: UnsafeMutablePointer<ibv_qp>?) -> Int32 {
    destroyNativeQueuePair(qp) { pair in pair.leaveAndRelease() }
}

extension QueuePairPointer {
    /// Removes the queue pair from its completion queues, and releases its memory.
    fileprivate func leaveAndRelease() {
        withCompletionQueues { pair in
            pair.context.pointee.queuePairs.remove(pair.pointee.base.qp_base.qp_num)
            pair.receiveSide.pointee.ring.remove(pair.receiveSide)
            pair.sendSide.pointee.ring.remove(pair.sendSide)
        }
        releaseQueues()
    }
}
