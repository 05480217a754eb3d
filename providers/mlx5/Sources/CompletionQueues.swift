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

/// Entries of 128 bytes have room for more data; MLX5_CQE_SIZE asks for them, as with libmlx5.
private func entryShift() -> UInt32 {
    guard let text = linux_getenv("MLX5_CQE_SIZE") else { return 6 }
    return text[0] == 49 && text[1] == 50 && text[2] == 56 && text[3] == 0 ? 7 : 6
}

extension DeviceMemory {
    /// Memory for a ring, all of whose entries are the device's.
    fileprivate static func ring(_ entries: UInt32, shift: UInt32) throws(KernelError) -> DeviceMemory {
        guard let memory = DeviceMemory(byteCount: Int(entries) << Int(shift)) else {
            throw KernelError(rawValue: ENOMEM)
        }
        CompletionRing.prepare(memory, entries: entries, shift: shift)
        return memory
    }
}

extension CompletionQueuePointer {
    /// Makes the queue's memory, and the queue in the kernel.
    fileprivate func make(_ attr: ibv_cq_init_attr_ex) throws(KernelError) {
        let entries = try completionEntries(attr.cqe)
        let shift = entryShift()
        let memory = try DeviceMemory.ring(entries, shift: shift)
        guard let record = context.pointee.records.take() else {
            memory.free()
            throw KernelError(rawValue: ENOMEM)
        }
        let sequence = UnsafeMutableRawPointer.allocate(byteCount: 4, alignment: 4)
        sequence.storeBytes(of: 0, as: UInt32.self)
        let completions = context.pointee.registers.completions
        ring.initialize(
            to: CompletionRing(
                memory: memory, mask: entries - 1, shift: shift, record: record, armSequence: sequence,
                register: completions.memory, context: context))
        do throws(KernelError) {
            try create(attr, entries, page: completions.page)
        } catch {
            releaseMemory()
            throw error
        }
    }

    private func create(_ attr: ibv_cq_init_attr_ex, _ entries: UInt32, page: UInt32?) throws(KernelError) {
        var command = mlx5_ib_create_cq()
        command.buf_addr = UInt64(UInt(bitPattern: ring.pointee.memory.start))
        command.db_addr = UInt64(UInt(bitPattern: ring.pointee.record))
        command.cqe_size = 1 << ring.pointee.shift
        if let page {
            command.flags = UInt16(MLX5_IB_CREATE_CQ_FLAGS_UAR_PAGE_INDEX.rawValue)
            command.uar_page_index = UInt16(truncatingIfNeeded: page)
        }
        var answer = mlx5_ib_create_cq_resp()
        let made = try DriverData.exchange(command, &answer) { driver throws(KernelError) in
            try context.pointee.native.kernel.createCompletionQueue(
                request(entries: entries - 1, vector: attr.comp_vector), driver: driver)
        }
        ring.pointee.number = answer.cqn
        pointee.base.handle = made.handle
        pointee.base.cqe = Int32(bitPattern: entries - 1)
    }

    fileprivate func releaseMemory() {
        context.pointee.records.giveBack(ring.pointee.record)
        ring.pointee.memory.free()
        ring.pointee.armSequence.deallocate()
    }

    /// Under the lock.
    fileprivate func resize(_ asked: UInt32) throws(KernelError) {
        let entries = try completionEntries(asked)
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
        ring.move(to: memory, entries: entries)
        // The mark is taken: its place is free.
        ring.pointee.release()
        pointee.base.cqe = Int32(bitPattern: entries - 1)
    }
}

extension UnsafeMutablePointer<CompletionRing> {
    /// Goes on in another ring, into which the device writes from now on: it has marked the end of the old one by an entry
    /// of its own.
    func move(to memory: DeviceMemory, entries: UInt32) {
        let old = pointee
        pointee = CompletionRing(
            memory: memory, mask: entries - 1, shift: old.shift, consumer: old.consumer, record: old.record,
            armSequence: old.armSequence, number: old.number, register: old.register, context: old.context)
        var number = old.consumer
        while number &- old.consumer <= old.mask {
            let entry = old.entry(number)
            guard old.isThere(entry, number) else { break }
            linux_barrier_from_device()
            if Completion(entry).kind == .resize {
                // Its place is taken by none: the first that is kept is the one behind.
                pointee.consumer &+= 1
                break
            }
            // Kept under the number that follows, because the mark is not.
            pointee.keep(entry - ((1 << Int(old.shift)) - CompletionEntry.byteCount), as: number &+ 1)
            number &+= 1
        }
        old.memory.free()
    }
}

extension CompletionRing {
    /// Copies an entry, from where it begins, to the place of a number.
    func keep(_ whole: UnsafeRawPointer, as number: UInt32) {
        let size = 1 << Int(shift)
        let target = entry(number) - (size - CompletionEntry.byteCount)
        target.copyMemory(from: whole, byteCount: size)
        setOwner(of: entry(number), isTurned: number & (mask &+ 1) != 0)
    }

    func setOwner(of entry: UnsafeMutableRawPointer, isTurned: Bool) {
        let byte =
            CompletionEntry.opcode.bits(CompletionEntry.opcode.get(entry))
            | CompletionEntry.inlineData.bits(CompletionEntry.inlineData.get(entry))
            | entry.load(fromByteOffset: CompletionEntry.owner.offset, as: UInt8.self) & 2
        entry.put(byte | CompletionEntry.owner.bits(isTurned ? 1 : 0), at: CompletionEntry.owner.offset)
    }

    /// Takes the completions of a queue pair that goes away out of the ring, and moves the others up. The device writes no
    /// more of them.
    /// - Parameters:
    ///   - number: by which completions name it.
    ///   - shared: where its receives came from, and go back to.
    mutating func clean(_ number: UInt32, hasUserIndex: Bool, shared: SharedReceiveQueuePointer?) {
        var end = consumer
        while end &- consumer <= mask, isThere(entry(end), end) { end &+= 1 }
        linux_barrier_from_device()
        var removed: UInt32 = 0
        while end != consumer {
            end &-= 1
            let source = entry(end)
            let completion = Completion(source)
            if (hasUserIndex ? completion.userIndex : completion.queuePair) == number, completion.kind != .resize {
                if let shared, completion.isReceive, shared.queue.pointee.entry(completion.index) != nil {
                    shared.free(completion.index)
                }
                removed &+= 1
            } else if removed != 0 {
                let target = entry(end &+ removed)
                let isTurned = CompletionEntry.owner.get(target) != 0
                let size = 1 << Int(shift)
                (target - (size - CompletionEntry.byteCount)).copyMemory(
                    from: source - (size - CompletionEntry.byteCount), byteCount: size)
                setOwner(of: target, isTurned: isTurned)
            }
        }
        guard removed != 0 else { return }
        consumer &+= removed
        linux_barrier_to_device()
        release()
    }
}

extension Completion {
    /// Whether it is about a receive.
    var isReceive: Bool {
        switch kind {
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
