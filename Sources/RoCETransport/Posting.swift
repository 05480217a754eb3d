import Synchronization

extension QueuePair {
    /// Puts a work request into the send queue; the engine does not see it before `commitSends`.
    ///
    /// - Parameters:
    ///   - request: what to do.
    ///   - elements: the pieces of memory, `count` of them. The list (and with `.inline` the data too) is copied.
    ///   - count: how many pieces: 0 to `capabilities.sendElements`.
    /// - Returns: `.success`; ENOMEM when the queue is full; EINVAL for a state before RTS, an opcode or flag that the
    ///   service type lacks, too many pieces, too much inline data, or a datagram without a path.
    public func stageSend(
        _ request: SendWorkRequest, elements: UnsafePointer<ScatterGatherElement>?, count: Int
    ) -> Errno {
        let pair = storage
        let state = pair.pointee.published.load(ordering: .acquiring)
        guard state >= QueuePairState.readyToSend.rawValue, isPostable(request),
            count >= 0, count <= Int(pair.pointee.capabilities.sendElements), count == 0 || elements != nil
        else { return .invalid }
        var length: UInt64 = 0
        for index in 0..<count { length &+= UInt64(elements![index].length) }
        let inline = request.flags.contains(.inline)
        if inline && length > UInt64(pair.pointee.capabilities.inlineData) { return .invalid }
        guard let slot = pair.pointee.send.reserve() else { return .noMemory }
        writeEntry(request, length: length, count: count, to: slot.assumingMemoryBound(to: SendEntry.self))
        var place = slot + SendEntry.size
        if pair.pointee.type == .ud {
            guard let path = request.path else { return .invalid }
            place.storeBytes(of: path.pointee, as: Path.self)
            place += MemoryLayout<Path>.stride
        }
        if inline {
            for index in 0..<count where elements![index].length != 0 {
                guard let data = UnsafeRawPointer(bitPattern: UInt(elements![index].address)) else { return .invalid }
                place.copyMemory(from: data, byteCount: Int(elements![index].length))
                place += Int(elements![index].length)
            }
        } else if count != 0 {
            place.copyMemory(from: elements!, byteCount: count &* MemoryLayout<ScatterGatherElement>.stride)
        }
        pair.pointee.send.stage()
        return .success
    }

    /// Shows the engine what was staged, and marks the queue pair as one with work.
    /// - Returns: true when there was something; the engine then wants to be run (`Engine.transmit`).
    @discardableResult
    public func commitSends() -> Bool {
        guard storage.pointee.send.publish() else { return false }
        storage.pointee.doorbells.ring(storage.pointee.index)
        return true
    }

    /// Forgets what was staged and not committed (`ibv_wr_abort`).
    public func discardSends() { storage.pointee.send.discard() }

    /// Puts a work request into the receive queue; the engine does not see it before `commitReceives`.
    ///
    /// - Parameters:
    ///   - id: `wr_id`, comes back in the completion.
    ///   - elements: the pieces of memory, `count` of them; the list is copied.
    ///   - count: how many pieces: 0 to `capabilities.receiveElements`.
    /// - Returns: `.success`; ENOMEM when the queue is full; EINVAL in RESET, for too many pieces, or when the queue
    ///   pair has a shared receive queue.
    public func stageReceive(id: UInt64, elements: UnsafePointer<ScatterGatherElement>?, count: Int) -> Errno {
        let pair = storage
        guard pair.pointee.published.load(ordering: .acquiring) != QueuePairState.reset.rawValue,
            pair.pointee.sharedReceiveQueue == nil
        else { return .invalid }
        return pair.pointee.receive.stageReceive(
            id: id, elements: elements, count: count, most: Int(pair.pointee.capabilities.receiveElements))
    }

    /// Shows the engine what was staged.
    /// - Returns: true when the engine wants to be run: the queue pair is in error, and the receives are to be flushed.
    @discardableResult
    public func commitReceives() -> Bool {
        guard storage.pointee.receive.publish() else { return false }
        // Either we see the state that the engine wrote before it flushed, or its flush sees what was published.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        guard storage.pointee.published.load(ordering: .relaxed) == QueuePairState.error.rawValue else { return false }
        storage.pointee.doorbells.ring(storage.pointee.index)
        return true
    }

    private func writeEntry(
        _ request: SendWorkRequest, length: UInt64, count: Int, to entry: UnsafeMutablePointer<SendEntry>
    ) {
        entry.pointee.id = request.id
        entry.pointee.remoteAddress = request.remoteAddress
        entry.pointee.compareAdd = request.compareAdd
        entry.pointee.swap = request.swap
        entry.pointee.remoteKey = request.remoteKey
        entry.pointee.immediate = request.immediate
        entry.pointee.length = UInt32(clamping: length)
        entry.pointee.remoteQueuePair = request.remoteQueuePair
        entry.pointee.remoteQueueKey = request.remoteQueueKey
        entry.pointee.opcode = UInt8(truncatingIfNeeded: request.opcode.rawValue)
        entry.pointee.flags = UInt8(truncatingIfNeeded: request.flags.rawValue)
        entry.pointee.elementCount = UInt8(truncatingIfNeeded: count)
    }

    /// Whether the service type has the opcode, and the opcode the flags (IBTA volume 1, 10.8.1, table 91).
    @inline(__always)
    private func isPostable(_ request: SendWorkRequest) -> Bool {
        let highest: UInt32
        switch type {
        case .rc: highest = WorkRequestOpcode.fetchAdd.rawValue
        case .uc: highest = WorkRequestOpcode.sendWithImmediate.rawValue
        default:
            highest = WorkRequestOpcode.sendWithImmediate.rawValue
            if request.opcode.rawValue < WorkRequestOpcode.send.rawValue || request.path == nil { return false }
        }
        if request.opcode.rawValue > highest || request.flags.rawValue > 15 { return false }
        return !request.flags.contains(.inline)
            || request.opcode.rawValue <= WorkRequestOpcode.sendWithImmediate.rawValue
    }
}

extension Ring {
    /// The post of receive queues and shared receive queues.
    @inline(__always)
    func stageReceive(id: UInt64, elements: UnsafePointer<ScatterGatherElement>?, count: Int, most: Int) -> Errno {
        guard count >= 0, count <= most, count == 0 || elements != nil else { return .invalid }
        guard let slot = reserve() else { return .noMemory }
        var length: UInt64 = 0
        for index in 0..<count { length &+= UInt64(elements![index].length) }
        let entry = slot.assumingMemoryBound(to: ReceiveEntry.self)
        entry.pointee.id = id
        entry.pointee.elementCount = UInt32(truncatingIfNeeded: count)
        entry.pointee.length = UInt32(clamping: length)
        if count != 0 {
            (slot + ReceiveEntry.size).copyMemory(
                from: elements!, byteCount: count &* MemoryLayout<ScatterGatherElement>.stride)
        }
        stage()
        return .success
    }
}
