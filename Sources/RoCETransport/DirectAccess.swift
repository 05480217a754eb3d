import RoCEWire
import Synchronization

// One-sided requests to a neighbor, which the requester executes itself: READ, WRITE, atomics, ATOMIC WRITE and FLUSH (in
// Flush.swift). Only a request that no other one of its queue pair is outstanding before is executed so, which keeps the order of a
// connection; all others, and those that may not or cannot access the memory directly, are sent as packets, whose
// responder finds the error if there is one.

extension Core {
    /// The bytes that one call of `transmit` copies at most; then others have their turn.
    static var copyShare: Int { 512 << 10 }
    /// What a request counts for in that share, besides its bytes.
    private static var requestShare: Int { 64 }

    enum DirectResult {
        /// The request is complete.
        case done
        /// The share of this call is used up.
        case unfinished
        /// It is sent as packets.
        case refused
    }

    /// Executes the requests at the head of the send queue directly, as far as that is possible.
    /// - Parameter share: The bytes that may still be copied in this call.
    /// - Returns: Whether the share is used up and there is more to do.
    @inline(__always)
    mutating func executeDirectly(_ pair: Pair, share: inout Int) -> Bool {
        guard pair.pointee.type == .rc, pair.pointee.attributes.path.tag == Path.sameHost, faults == nil else {
            return false
        }
        let prefix = Int(pair.pointee.attributes.destinationQPN >> (24 &- configuration.qpnPrefixBits))
        guard neighbors.entries[prefix] != nil else { return false }
        return executeAllDirectly(pair, prefix, share: &share)
    }

    @inline(never)
    private mutating func executeAllDirectly(_ pair: Pair, _ prefix: Int, share: inout Int) -> Bool {
        // The hazard is stored once for consecutive requests with one key, since that waits for all stores before. Each
        // request reads the table again, so it finds out that the owner waits.
        let neighbor = neighbors.entries[prefix]!
        var entered: UInt32?
        defer { if entered != nil { neighbor.leave() } }
        while pair.pointee.isSending, nothingIsOutstanding(pair), passLocal(pair) {
            let current = pair.pointee.requester.current
            guard pair.pointee.send.has(current), current == pair.pointee.send.oldest else { return false }
            let entry = pair.pointee.sendWQE(current)
            guard entry.pointee.isOneSided, entry.pointee.length != 0 || entry.pointee.isFlush else { return false }
            // Of a short WRITE, the L_Key is checked once.
            let source = entry.pointee.opcode == .write ? shortSource(entry, pair) : nil
            guard source != nil || entry.pointee.flags.contains(.inline) || hasPlainMemory(entry, pair) else {
                return false
            }
            guard share > 0 else { return true }
            if current == pair.pointee.requester.started {
                guard pair.pointee.state == .readyToSend else { return false }
                if source != nil {
                    assignPSNs(entry, pair, packets: 1)
                } else if begin(entry, pair) != .success {
                    return false
                }
            } else if pair.pointee.requester.next != entry.pointee.firstPSN {
                // Its first packets were sent and acknowledged: the responder expects the others.
                return false
            }
            share &-= Self.requestShare
            let key = entry.pointee.rkey
            if entered != key {
                neighbor.enter(queuePair: pair.pointee.attributes.destinationQPN, key: key)
                entered = key
            }
            if let source, let target = shortTarget(entry, pair, neighbor) {
                let byteCount = Int(entry.pointee.length)
                writeEnd(from: source, byteCount: byteCount, to: target)
                share &-= byteCount
                counters.directBytes &+= UInt64(byteCount)
                complete(pair)
                continue
            }
            switch access(entry, pair, prefix, neighbor, share: &share) {
            case .done: complete(pair)
            case .unfinished: return true
            case .refused:
                pair.pointee.requester.directOffset = 0
                return false
            }
        }
        return false
    }

    /// The request at `current` was executed.
    @inline(__always)
    private mutating func complete(_ pair: Pair) {
        counters.directRequests &+= 1
        pair.pointee.requester.directOffset = 0
        pair.pointee.requester.current = pair.pointee.requester.current &+ 1
        completeOldestSend(pair, status: .success)
        if pair.pointee.state == .sendQueueDrained { reportDrained(pair) }
    }

    /// The mapped memory for a WRITE; nil where it is not mapped, or may not be written.
    @inline(__always)
    private mutating func shortTarget(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, _ neighbor: Neighbor
    ) -> UnsafeMutableRawPointer? {
        let memory = neighbor.memory(
            pair, key: entry.pointee.rkey, address: entry.pointee.remoteAddress, length: UInt64(entry.pointee.length),
            access: .remoteWrite)
        guard case .mapped(let target) = memory else { return nil }
        return target
    }

    @inline(__always)
    private mutating func nothingIsOutstanding(_ pair: Pair) -> Bool {
        let high = pair.pointee.requester.high
        return pair.pointee.requester.una == high && pair.pointee.requester.next == high
            && pair.pointee.requester.outstandingReads == 0 && pair.pointee.requester.failure == .success
            && pair.pointee.timer == .none && pair.pointee.pacing.rate == 0
    }

    /// Whether the SGEs are in memory regions that are mapped as a whole. The null region and on-demand memory are made
    /// for packets.
    @inline(__always)
    private mutating func hasPlainMemory(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> Bool {
        let sgList = sgList(of: entry, pair)
        for index in 0..<Int(entry.pointee.sgeCount) where sgList[index].length != 0 {
            if !keys.isPlain(sgList[index].lkey) { return false }
        }
        return true
    }

    /// Executes a request, or the next part of a long one, inside an access (`Neighbor.enter`).
    @inline(__always)
    private mutating func access(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, _ prefix: Int, _ neighbor: Neighbor, share: inout Int
    ) -> DirectResult {
        let key = entry.pointee.rkey
        if entry.pointee.isFlush { return flush(entry, pair, prefix) }
        let isAtomic = entry.pointee.isAtomic
        let access: AccessFlags = entry.pointee.isRead ? .remoteRead : isAtomic ? .remoteAtomic : .remoteWrite
        guard
            let memory = neighbor.memory(
                pair, key: key, address: entry.pointee.remoteAddress,
                length: isAtomic ? UInt64(atomicByteCount) : UInt64(entry.pointee.length), access: access)
        else { return .refused }
        if isAtomic || entry.pointee.isAtomicWrite {
            guard case .mapped(let place) = memory else { return .refused }
            return executeAtomic(entry, pair, at: place)
        }
        let offset = pair.pointee.requester.directOffset
        let count = min(Int(entry.pointee.length &- offset), Self.copyShare)
        let isLast = offset &+ UInt32(count) == entry.pointee.length
        share &-= count
        let isCopied =
            switch memory {
            case .mapped(let start):
                entry.pointee.isRead
                    ? read(entry, pair, offset: offset, byteCount: count, from: start + Int(offset))
                    : write(entry, pair, offset: offset, byteCount: count, to: start + Int(offset), endsMessage: isLast)
            case .foreign(let process, let copy, let address):
                self.copy(
                    entry, pair, offset: offset, byteCount: count, process, copy, address &+ UInt64(offset))
            }
        guard isCopied else { return .refused }
        pair.pointee.requester.directOffset = offset &+ UInt32(count)
        counters.directBytes &+= UInt64(count)
        return isLast ? .done : .unfinished
    }

    // MARK: - Mapped memory

    private mutating func read(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, offset: UInt32, byteCount: Int,
        from source: UnsafeRawPointer
    ) -> Bool {
        scatter(
            sgList(of: entry, pair), count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
            offset: offset, byteCount: byteCount, from: source)
    }

    /// Writes to mapped memory. The last word of a message is written after the others, and at once, since a target may
    /// wait for it.
    private mutating func write(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, offset: UInt32, byteCount: Int,
        to target: UnsafeMutableRawPointer, endsMessage: Bool
    ) -> Bool {
        guard endsMessage else { return copyPayload(entry, pair, offset: offset, byteCount: byteCount, to: target) }
        let before = bytesBeforeLastWord(byteCount, at: target)
        if before != 0 {
            guard copyPayload(entry, pair, offset: offset, byteCount: before, to: target) else { return false }
        }
        var word: UInt64 = 0
        let count = byteCount &- before
        let isCopied = withUnsafeMutableBytes(of: &word) {
            copyPayload(entry, pair, offset: offset &+ UInt32(before), byteCount: count, to: $0.baseAddress!)
        }
        guard isCopied else { return false }
        store(word, byteCount: count, at: target + before)
        return true
    }

    /// The same for bytes that are in one place, and end a message.
    @inline(__always)
    private mutating func writeEnd(from source: UnsafeRawPointer, byteCount: Int, to target: UnsafeMutableRawPointer) {
        let before = bytesBeforeLastWord(byteCount, at: target)
        if before != 0 { target.copyMemory(from: source, byteCount: before) }
        let count = byteCount &- before
        var word: UInt64 = 0
        if count == 8 {
            word = (source + before).loadUnaligned(as: UInt64.self)
        } else {
            withUnsafeMutableBytes(of: &word) { $0.baseAddress!.copyMemory(from: source + before, byteCount: count) }
        }
        store(word, byteCount: count, at: target + before)
    }

    /// The bytes of a message before its last word, which ends with it and begins at an address that is a multiple of 8, or
    /// where the message begins.
    @inline(__always)
    private mutating func bytesBeforeLastWord(_ byteCount: Int, at target: UnsafeMutableRawPointer) -> Int {
        let last = (UInt(bitPattern: target) &+ UInt(byteCount) &- 1) & ~7
        return last <= UInt(bitPattern: target) ? 0 : Int(last &- UInt(bitPattern: target))
    }

    /// Stores the first `byteCount` bytes, 1 to 8, of a word, which do not cross an address that is a multiple of 8. A
    /// thread that reads them with acquire ordering also reads what was written before.
    @inline(__always)
    private mutating func store(_ word: UInt64, byteCount: Int, at target: UnsafeMutableRawPointer) {
        let place = UInt(bitPattern: target)
        if byteCount == 8 {
            target.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(word, ordering: .releasing)
        } else if byteCount == 4 && place & 3 == 0 {
            target.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(
                UInt32(truncatingIfNeeded: word), ordering: .releasing)
        } else if byteCount == 2 && place & 1 == 0 {
            target.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(
                UInt16(truncatingIfNeeded: word), ordering: .releasing)
        } else {
            for index in 0..<byteCount {
                let byte = UInt8(truncatingIfNeeded: word >> UInt64(8 * index))
                (target + index).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(byte, ordering: .releasing)
            }
        }
    }

    private mutating func executeAtomic(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, at place: UnsafeMutableRawPointer
    ) -> DirectResult {
        guard (entry.pointee.remoteAddress | UInt64(UInt(bitPattern: place))) % UInt64(atomicByteCount) == 0 else {
            return .refused
        }
        let word = place.assumingMemoryBound(to: Atomic<UInt64>.self)
        if entry.pointee.isAtomicWrite {
            var value = entry.pointee.swap
            if !entry.pointee.flags.contains(.inline) {
                let isCopied = withUnsafeMutableBytes(of: &value) {
                    copyPayload(entry, pair, offset: 0, byteCount: Int(atomicByteCount), to: $0.baseAddress!)
                }
                guard isCopied else { return .refused }
            }
            word.pointee.store(value, ordering: .sequentiallyConsistent)
            return .done
        }
        // The result must have a place, since the operation cannot be undone. `begin` has checked that, maybe in an earlier
        // turn.
        guard
            areValid(
                sgList(of: entry, pair), count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
                access: .localWrite)
        else { return .refused }
        let isSwap = entry.pointee.opcode == .compareAndSwap
        var original =
            isSwap
            ? word.pointee.compareExchange(
                expected: entry.pointee.compareAdd, desired: entry.pointee.swap, ordering: .sequentiallyConsistent
            ).original
            : word.pointee.wrappingAdd(entry.pointee.compareAdd, ordering: .sequentiallyConsistent).oldValue
        let isPlaced = withUnsafeBytes(of: &original) {
            scatter(
                sgList(of: entry, pair), count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
                offset: 0, byteCount: Int(atomicByteCount), from: $0.baseAddress!)
        }
        assert(isPlaced, "the SGEs were valid")
        return .done
    }

    // MARK: - Memory of another process

    private mutating func copy(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, offset: UInt32, byteCount: Int, _ process: Int32,
        _ copy: ForeignCopy, _ address: UInt64
    ) -> Bool {
        let writes = !entry.pointee.isRead
        if entry.pointee.flags.contains(.inline) {
            let data = UnsafeMutableRawPointer(entry) + pair.pointee.sgListOffset + Int(offset)
            var part = MemoryPart(address: data, byteCount: byteCount)
            return copy(process, &part, 1, address, writes)
        }
        var parts = InlineArray<32, MemoryPart>(repeating: MemoryPart(address: nil, byteCount: 0))
        var used = 0
        let areValid = forEachSGE(
            sgList(of: entry, pair), count: Int(entry.pointee.sgeCount), domain: pair.pointee.protectionDomain,
            offset: offset, byteCount: byteCount, access: writes ? .local : .localWrite
        ) { memory, _, length in
            parts[used] = MemoryPart(address: memory, byteCount: length)
            used &+= 1
        }
        guard areValid else { return false }
        return withUnsafeBytes(of: &parts) { copy(process, $0.baseAddress!, Int32(used), address, writes) }
    }
}
