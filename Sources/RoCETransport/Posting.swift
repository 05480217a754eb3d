import Synchronization

extension QueuePair {
    /// The next free slot of the send queue, which the caller fills and passes to `stageSend(at:)` (`ibv_post_send`);
    /// nil when the queue is full (ENOMEM). The slot holds an old WQE; the caller sets `id`, `opcode`, `flags` and the
    /// fields that the opcode uses.
    @inline(__always)
    public func reserveSend() -> UnsafeMutablePointer<SendWQE>? {
        storage.pointee.send.reserve()?.assumingMemoryBound(to: SendWQE.self)
    }

    /// Stages the WQE in the slot that `reserveSend` returned (`ibv_post_send`, or `ibv_wr_start` and the functions
    /// after it). The engine does not read it before `commitSends` or `publishSends`.
    ///
    /// - Parameters:
    ///   - wqe: The slot.
    ///   - path: UD: the path to the peer (`ibv_send_wr.wr.ud.ah`), which is copied. UD without a path fails with
    ///     EINVAL.
    ///   - sgList: The `count` SGEs. The list, and with `.inline` the data too, is copied.
    ///   - count: The number of SGEs, 0 to `capabilities.maxSendSGE`.
    /// - Returns: `.success`; EINVAL for a state before RTS, an opcode or flag that the service type does not support,
    ///   too many SGEs, too much inline data, or a datagram without a path.
    public func stageSend(
        at wqe: UnsafeMutablePointer<SendWQE>, path: UnsafePointer<Path>? = nil, sgList: UnsafePointer<SGE>?, count: Int
    ) -> Errno {
        let pair = storage
        assert(UnsafeMutableRawPointer(wqe) == pair.pointee.send.reserve(), "the slot that reserveSend returned")
        let state = pair.pointee.published.load(ordering: .acquiring)
        guard state >= QueuePairState.readyToSend.rawValue, isPostable(wqe, path),
            count >= 0, count <= Int(pair.pointee.capabilities.maxSendSGE), count == 0 || sgList != nil
        else { return .invalid }
        var length: UInt64 = 0
        for index in 0..<count { length &+= UInt64(sgList![index].length) }
        let inline = wqe.pointee.flags.contains(.inline)
        if wqe.pointee.isAtomicWrite && length != UInt64(atomicByteCount) { return .invalid }
        let isInlineAtomic = inline && wqe.pointee.isAtomicWrite
        if inline && !isInlineAtomic && length > UInt64(pair.pointee.capabilities.maxInlineData) { return .invalid }
        if wqe.pointee.isFlush && !wqe.pointee.isValidFlush(byteCount: length) { return .invalid }
        wqe.pointee.length = UInt32(clamping: length)
        wqe.pointee.sgeCount = UInt8(truncatingIfNeeded: count)
        var place = UnsafeMutableRawPointer(wqe) + SendWQE.size
        if pair.pointee.type == .ud {
            guard let path else { return .invalid }
            place.storeBytes(of: path.pointee, as: Path.self)
            place += MemoryLayout<Path>.stride
        }
        if isInlineAtomic {
            // The bytes are in the WQE itself: `ibv_wr_atomic_write` needs no `max_inline_data`.
            return stageInlineAtomic(wqe, sgList!, count: count)
        }
        if inline {
            for index in 0..<count where sgList![index].length != 0 {
                guard let data = UnsafeRawPointer(bitPattern: UInt(sgList![index].address)) else { return .invalid }
                place.copyMemory(from: data, byteCount: Int(sgList![index].length))
                place += Int(sgList![index].length)
            }
        } else {
            copy(sgList, count: count, to: place)
        }
        pair.pointee.send.stage()
        return .success
    }

    /// Stages an ATOMIC WRITE whose 8 bytes are copied from the SGEs to `SendWQE.swap`.
    private func stageInlineAtomic(
        _ wqe: UnsafeMutablePointer<SendWQE>, _ sgList: UnsafePointer<SGE>, count: Int
    ) -> Errno {
        var value: UInt64 = 0
        let isRead = withUnsafeMutableBytes(of: &value) { bytes in
            var offset = 0
            for index in 0..<count where sgList[index].length != 0 {
                guard let data = UnsafeRawPointer(bitPattern: UInt(sgList[index].address)) else { return false }
                (bytes.baseAddress! + offset).copyMemory(from: data, byteCount: Int(sgList[index].length))
                offset += Int(sgList[index].length)
            }
            return true
        }
        guard isRead else { return .invalid }
        wqe.pointee.swap = value
        storage.pointee.send.stage()
        return .success
    }

    /// Stages a copy of a WQE, as `stageSend(at:path:sgList:count:)` (`ibv_post_send`).
    /// - Returns: The result of that function; ENOMEM when the queue is full.
    public func stageSend(
        _ wqe: SendWQE, path: UnsafePointer<Path>? = nil, sgList: UnsafePointer<SGE>?, count: Int
    ) -> Errno {
        guard let slot = reserveSend() else { return .noMemory }
        slot.pointee = wqe
        return stageSend(at: slot, path: path, sgList: sgList, count: count)
    }

    /// Publishes the staged WQEs to the engine and rings the doorbell of the queue pair (`ibv_post_send`,
    /// `ibv_wr_complete`).
    /// - Returns: True when WQEs were staged; the caller then runs the engine (`Engine.transmit`).
    @discardableResult
    public func commitSends() -> Bool {
        guard publishSends() else { return false }
        ringDoorbell()
        return true
    }

    /// Publishes the staged WQEs to the engine without the doorbell, whose atomic instructions a caller saves that holds the
    /// engine's lock next: it then calls `Engine.serve` under the lock, and `ringDoorbell` where the lock is taken.
    /// - Returns: True when WQEs were staged.
    public func publishSends() -> Bool { storage.pointee.send.publish() }

    /// Rings the doorbell of the queue pair, after `publishSends`.
    public func ringDoorbell() { storage.pointee.doorbells.ring(storage.pointee.index) }

    /// Removes the WQEs that were staged and not committed (`ibv_wr_abort`).
    public func discardSends() { storage.pointee.send.discard() }

    /// Stages a receive work request (`ibv_post_recv`). The engine does not read it before `commitReceives`.
    ///
    /// - Parameters:
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - sgList: The `count` SGEs; the list is copied.
    ///   - count: The number of SGEs, 0 to `capabilities.maxReceiveSGE`.
    /// - Returns: `.success`; ENOMEM when the queue is full; EINVAL in RESET, for too many SGEs, or when the queue
    ///   pair has a shared receive queue or is of a service type XRC.
    public func stageReceive(id: UInt64, sgList: UnsafePointer<SGE>?, count: Int) -> Errno {
        let pair = storage
        // The engine changes the shared receive queue of an XRC_RECV queue pair.
        guard pair.pointee.published.load(ordering: .acquiring) != QueuePairState.reset.rawValue,
            !pair.pointee.type.isExtended, pair.pointee.sharedReceiveQueue == nil
        else { return .invalid }
        return pair.pointee.receive.stageReceive(
            id: id, sgList: sgList, count: count, most: Int(pair.pointee.capabilities.maxReceiveSGE))
    }

    /// Publishes the staged receive work requests to the engine (`ibv_post_recv`).
    /// - Returns: True when the queue pair is in ERR: the caller then runs the engine, which flushes them.
    @discardableResult
    public func commitReceives() -> Bool {
        // Either this thread reads the state ERR that the engine stored before its flush, or the flush reads the
        // published index.
        guard storage.pointee.receive.publishInOrder() else { return false }
        guard storage.pointee.published.load(ordering: .sequentiallyConsistent) == QueuePairState.error.rawValue else {
            return false
        }
        storage.pointee.doorbells.ring(storage.pointee.index)
        return true
    }

    /// Whether the service type supports the opcode, and the opcode the flags (IBTA volume 1, POST SEND REQUEST, table
    /// "Operation Type Matrix").
    @inline(__always)
    private func isPostable(_ wqe: UnsafeMutablePointer<SendWQE>, _ path: UnsafePointer<Path>?) -> Bool {
        switch type {
        case .xrcSend:
            if wqe.pointee.opcode.rawValue > WorkRequestOpcode.sendWithInvalidate.rawValue { return false }
        case .xrcReceive: return false
        case .rc:
            if wqe.pointee.opcode.rawValue > WorkRequestOpcode.sendWithInvalidate.rawValue
                && !wqe.pointee.isAtomicWrite && !wqe.pointee.isFlush
            {
                return false
            }
        case .uc:
            if wqe.pointee.opcode.rawValue > WorkRequestOpcode.sendWithImmediate.rawValue && !wqe.pointee.isLocal {
                return false
            }
        default:
            if wqe.pointee.opcode.rawValue > WorkRequestOpcode.sendWithImmediate.rawValue { return false }
            if wqe.pointee.opcode.rawValue < WorkRequestOpcode.send.rawValue || path == nil { return false }
        }
        if wqe.pointee.flags.rawValue & ~SendFlags.supported.rawValue != 0 { return false }
        return !wqe.pointee.flags.contains(.inline)
            || wqe.pointee.opcode.rawValue <= WorkRequestOpcode.sendWithImmediate.rawValue
            || wqe.pointee.hasInvalidate || wqe.pointee.isAtomicWrite
    }
}

extension Ring {
    /// Stages a receive work request in a receive queue or a shared receive queue (`ibv_post_recv`,
    /// `ibv_post_srq_recv`).
    @inline(__always)
    func stageReceive(id: UInt64, sgList: UnsafePointer<SGE>?, count: Int, most: Int) -> Errno {
        guard count >= 0, count <= most, count == 0 || sgList != nil else { return .invalid }
        guard let slot = reserve() else { return .noMemory }
        var length: UInt64 = 0
        for index in 0..<count { length &+= UInt64(sgList![index].length) }
        let entry = slot.assumingMemoryBound(to: ReceiveWQE.self)
        entry.pointee.id = id
        entry.pointee.sgeCount = UInt32(truncatingIfNeeded: count)
        entry.pointee.length = UInt32(clamping: length)
        copy(sgList, count: count, to: slot + ReceiveWQE.size)
        stage()
        return .success
    }
}

/// Copies the SGEs of a work request: a single one without a call.
@inline(__always)
private func copy(_ sgList: UnsafePointer<SGE>?, count: Int, to place: UnsafeMutableRawPointer) {
    guard count != 0, let sgList else { return }
    if count == 1 {
        place.storeBytes(of: sgList.pointee, as: SGE.self)
    } else {
        place.copyMemory(from: sgList, byteCount: count &* MemoryLayout<SGE>.stride)
    }
}
