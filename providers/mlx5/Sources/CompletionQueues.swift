import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

func createCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, cqe: Int32, cqContext: UnsafeMutableRawPointer?,
    channel: UnsafeMutablePointer<ibv_comp_channel>?, vector: Int32
) -> UnsafeMutablePointer<ibv_cq>? {
    let attr = completionQueueAttributes(entries: cqe, context: cqContext, channel: channel, vector: vector)
    return createNativeCompletionQueue(
        context, attr, allocate: CompletionQueuePointer.allocate,
        make: { queue, attr throws(KernelError) in try queue.make(attr) })
}

func createExtendedCompletionQueue(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_cq_init_attr_ex>?
) -> UnsafeMutablePointer<ibv_cq_ex>? {
    createNativeExtendedCompletionQueue(
        context, attr, fields: context.map { supportedCompletionFlags($0.mlx5.pointee.hasTimestamps) } ?? 0,
        allocate: CompletionQueuePointer.allocate,
        make: { queue, attr throws(KernelError) in try queue.make(attr) }, fillPolling: fillExtendedPolling)
}

/// The logarithm of the CQE size: 128 bytes if the environment variable MLX5_CQE_SIZE is 128, as in libmlx5; otherwise
/// 64.
private func cqeShift() -> UInt32 {
    guard let text = linux_getenv("MLX5_CQE_SIZE") else { return 6 }
    return text[0] == 49 && text[1] == 50 && text[2] == 56 && text[3] == 0 ? 7 : 6
}

extension DeviceMemory {
    /// Allocates a completion ring whose CQEs are all owned by the device.
    fileprivate static func ring(_ entries: UInt32, shift: UInt32) throws(KernelError) -> DeviceMemory {
        guard let memory = DeviceMemory(byteCount: Int(entries) << Int(shift)) else {
            throw KernelError(rawValue: linux_errno())
        }
        CompletionRing.prepare(memory, entries: entries, shift: shift)
        return memory
    }
}

extension CompletionQueuePointer {
    /// Allocates the ring and creates the completion queue in the kernel.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        let entries = try cqeCount(attr.cqe)
        let shift = cqeShift()
        let memory = try DeviceMemory.ring(entries, shift: shift)
        guard let doorbellRecord = context.pointee.doorbellRecords.allocate() else {
            let error = linux_errno()
            memory.free()
            throw KernelError(rawValue: error)
        }
        let sequence = UnsafeMutableRawPointer.allocate(byteCount: 4, alignment: 4)
        sequence.storeBytes(of: 0, as: UInt32.self)
        let uarPage = context.pointee.uarPages.completionQueuePage
        ring.initialize(
            to: CompletionRing(
                memory: memory, mask: entries - 1, shift: shift, doorbellRecord: doorbellRecord, armSequence: sequence,
                uarPage: uarPage.memory, context: context))
        do throws(KernelError) {
            try create(attr, entries, uarIndex: uarPage.index)
        } catch {
            releaseMemory()
            throw error
        }
    }

    private func create(_ attr: ibv_cq_init_attr_ex, _ entries: UInt32, uarIndex: UInt32?) throws(KernelError) {
        var command = mlx5_ib_create_cq()
        command.buf_addr = UInt64(UInt(bitPattern: ring.pointee.memory.start))
        command.db_addr = UInt64(UInt(bitPattern: ring.pointee.doorbellRecord))
        command.cqe_size = 1 << ring.pointee.shift
        if let uarIndex {
            command.flags = UInt16(MLX5_IB_CREATE_CQ_FLAGS_UAR_PAGE_INDEX.rawValue)
            command.uar_page_index = UInt16(truncatingIfNeeded: uarIndex)
        }
        var response = mlx5_ib_create_cq_resp()
        let made = try DriverData.exchange(command, &response) { driver throws(KernelError) in
            try context.pointee.native.kernel.createCompletionQueue(
                request(entries: entries - 1, vector: attr.comp_vector), driver: driver)
        }
        ring.pointee.number = response.cqn
        pointee.base.handle = made.handle
        pointee.base.cqe = Int32(bitPattern: entries - 1)
    }

    fileprivate func releaseMemory() {
        context.pointee.doorbellRecords.free(ring.pointee.doorbellRecord)
        ring.pointee.memory.free()
        ring.pointee.armSequence.deallocate()
    }

    /// Resizes the completion queue. The caller holds the lock; a batch may be open.
    fileprivate func resize(_ requested: UInt32) throws(KernelError) {
        let entries = try cqeCount(requested)
        guard entries != ring.pointee.mask + 1 else { return }
        let memory = try DeviceMemory.ring(entries, shift: ring.pointee.shift)
        var command = mlx5_ib_resize_cq()
        command.buf_addr = UInt64(UInt(bitPattern: memory.start))
        command.cqe_size = UInt16(1 << ring.pointee.shift)
        do throws(KernelError) {
            try withUnsafePointer(to: &command) { command throws(KernelError) in
                let bytes = UnsafeRawBufferPointer(start: command, count: MemoryLayout<mlx5_ib_resize_cq>.size)
                _ = try context.pointee.native.kernel.resizeCompletionQueue(
                    pointee.base.handle, entries: entries - 1, driver: DriverData(input: bytes))
            }
        } catch {
            memory.free()
            throw error
        }
        let isInBatch = pointee.lock.hasBatch()
        ring.move(to: memory, entries: entries, isInBatch: isInBatch)
        // The slot of the resize CQE can be returned to the device, unless the current completion uses it until
        // end_poll.
        if !isInBatch { ring.pointee.release() }
        pointee.base.cqe = Int32(bitPattern: entries - 1)
    }
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Moves the unpolled CQEs to the new ring of a resize. The device has ended the old ring with a resize CQE
    /// (`MLX5_CQE_RESIZE_CQ`) and writes to the new one.
    /// - Parameter isInBatch: Whether a batch is open: the current completion then gets the slot of the resize CQE.
    func move(to memory: DeviceMemory, entries: UInt32, isInBatch: Bool) {
        let old = pointee
        pointee = CompletionRing(
            memory: memory, mask: entries - 1, shift: old.shift, consumer: old.consumer,
            doorbellRecord: old.doorbellRecord,
            armSequence: old.armSequence, number: old.number, uarPage: old.uarPage, context: old.context)
        var number = old.consumer
        while number &- old.consumer <= old.mask {
            let cqe = old.cqe(number)
            guard old.isWritten(cqe, number) else { break }
            linux_barrier_from_device()
            if Completion(cqe).opcode == .resize {
                // The resize CQE leaves its slot unused: the first kept CQE is in the following slot.
                pointee.consumer &+= 1
                break
            }
            // Kept at the next index, because the resize CQE is not kept.
            pointee.keep(cqe, as: number &+ 1)
            number &+= 1
        }
        if isInBatch {
            let place = pointee.consumer &- 1
            pointee.keep(old.current.cqe, as: place)
            pointee.current = Completion(pointee.cqe(place), isLarge: old.current.isLarge)
            pointee.currentOpcode = old.currentOpcode
        }
        old.memory.free()
    }
}

extension CompletionRing {
    /// Copies a whole CQE (64 or 128 bytes) to the slot of an index.
    func keep(_ source: UnsafeRawPointer, as number: UInt32) {
        let size = 1 << Int(shift)
        let front = size - CQE.byteCount
        (cqe(number) - front).copyMemory(from: source - front, byteCount: size)
        setOwnerBit(of: cqe(number), isSet: number & (mask &+ 1) != 0)
    }

    func setOwnerBit(of cqe: UnsafeMutableRawPointer, isSet: Bool) {
        let byte =
            CQE.opcode.bits(CQE.opcode.get(cqe))
            | CQE.inlineData.bits(CQE.inlineData.get(cqe))
            | cqe.load(fromByteOffset: CQE.owner.offset, as: UInt8.self) & 2
        cqe.put(byte | CQE.owner.bits(isSet ? 1 : 0), at: CQE.owner.offset)
    }

    /// Removes the CQEs of a queue pair that is reset or destroyed, and moves the others up. The device writes no more
    /// CQEs of the queue pair. The current completion was consumed before and is unchanged.
    /// - Parameters:
    ///   - number: The user index or QPN of the queue pair's CQEs.
    ///   - shared: The queue pair's shared receive queue, whose WQEs are freed.
    ///   - isInBatch: Whether a batch is open: the consumer index is then not published before end_poll.
    mutating func clean(
        _ number: UInt32, hasUserIndex: Bool, shared: SharedReceiveQueuePointer?, isInBatch: Bool
    ) {
        var end = consumer
        while end &- consumer <= mask, isWritten(cqe(end), end) { end &+= 1 }
        linux_barrier_from_device()
        var removed: UInt32 = 0
        while end != consumer {
            end &-= 1
            let source = cqe(end)
            let completion = Completion(source)
            if (hasUserIndex ? completion.userIndex : completion.queuePair) == number, completion.opcode != .resize {
                if let shared, completion.isReceive, shared.queue.pointee.wqe(completion.index) != nil {
                    shared.free(completion.index)
                }
                removed &+= 1
            } else if removed != 0 {
                let target = cqe(end &+ removed)
                let isSet = CQE.owner.get(target) != 0
                let size = 1 << Int(shift)
                (target - (size - CQE.byteCount)).copyMemory(
                    from: source - (size - CQE.byteCount), byteCount: size)
                setOwnerBit(of: target, isSet: isSet)
            }
        }
        guard removed != 0 else { return }
        consumer &+= removed
        guard !isInBatch else { return }
        linux_barrier_to_device()
        release()
    }
}

extension Completion {
    /// Whether this is the completion of a receive.
    var isReceive: Bool {
        switch opcode {
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate, .responseError: true
        default: false
        }
    }
}

func resizeCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?, cqe: Int32) -> Int32 {
    resizeNativeCompletionQueue(cq, cqe) { queue, entries throws(KernelError) in try queue.resize(entries) }
}

func destroyCompletionQueue(cq: UnsafeMutablePointer<ibv_cq>?) -> Int32 {
    destroyNativeCompletionQueue(cq) { $0.releaseMemory() }
}
