import RoCEWire

// Memory windows (IBTA volume 1, 10.6.7; rxe_mw.c of the kernel). A window of type 2 is of type 2B: its R_Key is valid
// only for the queue pair that it was bound on.

/// The type of a memory window: `enum ibv_mw_type` of verbs.h.
@frozen
public enum MemoryWindowType: UInt32, Hashable, Sendable {
    /// `IBV_MW_TYPE_1`: bound by `ibv_bind_mw`, and valid for all queue pairs of the protection domain.
    case one = 1
    /// `IBV_MW_TYPE_2`: bound by `IBV_WR_BIND_MW`, and valid for the queue pair of that work request.
    case two = 2
}

/// The bits of a window's key that change when it is bound (`ibv_inc_rkey`).
@inline(__always) var windowKeyMask: UInt32 { 0xFF }

extension Engine {
    /// Allocates a memory window (`ibv_alloc_mw`), which allows no access until it is bound.
    /// - Returns: The key, whose low 8 bits change when the window is bound.
    /// - Throws: EINVAL for an unknown domain; ENOMEM when there are `Limits.maxMR` memory regions and windows.
    public borrowing func allocateMemoryWindow(
        _ domain: ProtectionDomain, _ type: MemoryWindowType
    ) throws(Errno) -> UInt32 {
        guard core.pointee.domainExists(domain.rawValue) else { throw .invalid }
        var window = MemoryRegion(protectionDomain: domain.rawValue)
        window.kind = type == .one ? .windowOfType1 : .windowOfType2
        let key = try core.pointee.insertKey(window)
        core.pointee.changeUsers(ofDomain: domain.rawValue, by: 1)
        return key
    }

    /// Deallocates a memory window, bound or not (`ibv_dealloc_mw`). Packets with its key fail from now on.
    /// - Parameter key: Its key; the low 8 bits are ignored.
    /// - Throws: EINVAL when no window has this key.
    public borrowing func deallocateMemoryWindow(_ key: UInt32) throws(Errno) {
        guard let window = core.pointee.keys.window(key) else { throw .invalid }
        core.pointee.unbind(window)
        core.pointee.changeUsers(ofDomain: window.pointee.protectionDomain, by: -1)
        _ = core.pointee.keys.remove(window.pointee.key)
    }
}

// MARK: - Work requests without a packet

extension Core {
    /// Executes the work requests at `current` that need no packet, up to one that does. They are executed once, in the
    /// order of the send queue, and complete when those before them are complete. After a go-back they are passed over.
    ///
    /// Invariant: the oldest work request is none that was executed, since `completeLocal` completes it at once.
    /// - Returns: Whether the work request at `current`, if there is one, needs a packet: false when one without a
    ///   packet waits, or failed.
    @inline(__always)
    mutating func passLocal(_ pair: Pair) -> Bool {
        let current = pair.pointee.requester.current
        guard pair.pointee.send.has(current), pair.pointee.sendWQE(current).pointee.isLocal else { return true }
        return passAllLocal(pair)
    }

    @inline(never)
    private mutating func passAllLocal(_ pair: Pair) -> Bool {
        while pair.pointee.isSending {
            let current = pair.pointee.requester.current
            guard pair.pointee.send.has(current) else { return true }
            let entry = pair.pointee.sendWQE(current)
            guard entry.pointee.isLocal else { return true }
            if current == pair.pointee.requester.started {
                let waits = entry.pointee.flags.contains(.fence) && pair.pointee.requester.outstandingReads != 0
                guard pair.pointee.state == .readyToSend, !waits else { return false }
                let status = executeLocal(entry, pair)
                guard status == .success else {
                    failCurrent(pair, status)
                    return false
                }
                entry.pointee.firstPSN = pair.pointee.requester.next
                entry.pointee.packets = 0
                pair.pointee.requester.started = current &+ 1
            }
            pair.pointee.requester.current = current &+ 1
            completeLocal(pair)
        }
        return false
    }

    /// Completes the work requests without a packet that were executed and have become the oldest ones.
    @inline(__always)
    mutating func completeLocal(_ pair: Pair) {
        while pair.pointee.isSending, pair.pointee.send.oldest != pair.pointee.requester.started,
            pair.pointee.sendWQE(pair.pointee.send.oldest).pointee.isLocal
        {
            // After a go-back, the packets before it were acknowledged before `passLocal` came to it again.
            if pair.pointee.requester.current == pair.pointee.send.oldest { pair.pointee.requester.current &+= 1 }
            completeOldestSend(pair, status: .success)
        }
    }

    /// Executes a work request that needs no packet: a bind or a local invalidate.
    mutating func executeLocal(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> CompletionStatus {
        assert(entry.pointee.isLocal)
        if entry.pointee.opcode == .bindMemoryWindow {
            return bind(entry, pair) ? .success : .memoryWindowBindError
        }
        return invalidate(entry.pointee.immediate, pair) ? .success : .localQPOperationError
    }

    /// Binds a window (IBTA volume 1, 10.6.7.2; C10-72 to C10-75). Returns false when that is not allowed, and the
    /// window is as before.
    private mutating func bind(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> Bool {
        let access = AccessFlags(rawValue: UInt32(truncatingIfNeeded: entry.pointee.swap))
        let address = entry.pointee.remoteAddress
        let length = entry.pointee.compareAdd
        guard let window = keys.window(entry.pointee.rkey),
            window.pointee.protectionDomain == pair.pointee.protectionDomain,
            // Local writes need no window: the flag is accepted and has no effect, as on the kernel's rxe.
            access.isSubset(of: .remote.union([.zeroBased, .localWrite]))
        else { return false }
        if window.pointee.kind == .windowOfType1 {
            if access.contains(.zeroBased) { return false }
        } else {
            // A bound window of type 2 has to be invalidated first, and length 0 does not do it.
            if window.pointee.region != 0 || length == 0 { return false }
        }
        guard length != 0 else {
            unbind(window)
            window.pointee.key = entry.pointee.rkey
            return true
        }
        guard let region = keys.region(entry.pointee.immediate),
            region.pointee.protectionDomain == pair.pointee.protectionDomain,
            region.pointee.access.contains(.memoryWindowBind), !region.pointee.access.contains(.zeroBased),
            access.isDisjoint(with: [.remoteWrite, .remoteAtomic]) || region.pointee.access.contains(.localWrite)
        else { return false }
        // As in `translate`: subtractions that may wrap, of which a wrapped one never passes.
        let offset = address &- region.pointee.virtualAddress
        guard offset <= region.pointee.length, length <= region.pointee.length &- offset else { return false }
        unbind(window)
        window.pointee.key = entry.pointee.rkey
        window.pointee.access = access.intersection(.remote)
        window.pointee.virtualAddress = access.contains(.zeroBased) ? 0 : address
        window.pointee.length = length
        window.pointee.base = region.pointee.base &+ UInt(offset)
        window.pointee.region = region.pointee.key
        region.pointee.windows += 1
        if window.pointee.kind == .windowOfType2 {
            window.pointee.queuePair = pair.pointee.number
            pair.pointee.windows += 1
        }
        return true
    }

    /// Ends the binding of the window of type 2 with this R_Key, for a local invalidate or for a SEND with invalidate
    /// of the peer (IBTA volume 1, 10.6.7.2.6). Returns false when no such window is bound on the queue pair. Memory
    /// regions cannot be invalidated, since `ibv_reg_mr` registered them.
    mutating func invalidate(_ key: UInt32, _ pair: Pair) -> Bool {
        guard let window = keys.window(key), window.pointee.key == key, window.pointee.kind == .windowOfType2,
            window.pointee.queuePair == pair.pointee.number
        else { return false }
        unbind(window)
        return true
    }

    /// Ends the binding of a window, which then allows no access. Without effect on one that is not bound.
    mutating func unbind(_ window: UnsafeMutablePointer<MemoryRegion>) {
        guard let region = keys.region(window.pointee.region) else {
            assert(window.pointee.region == 0, "a region was deregistered while a window was bound to it")
            return
        }
        assert(region.pointee.windows > 0, "more windows left the region than were bound to it")
        region.pointee.windows -= 1
        if let pair = queuePair(window.pointee.queuePair) { pair.pointee.windows -= 1 }
        window.pointee.region = 0
        window.pointee.queuePair = 0
        window.pointee.access = []
        window.pointee.virtualAddress = 0
        window.pointee.length = 0
        window.pointee.base = 0
    }

    /// Ends the bindings of the windows of type 2 that are bound on a queue pair, which is destroyed.
    mutating func unbindWindows(of pair: Pair) {
        guard pair.pointee.windows != 0 else { return }
        var index: UInt32 = 0
        while let window = keys.nextWindow(from: &index) {
            if window.pointee.queuePair == pair.pointee.number { unbind(window) }
        }
        assert(pair.pointee.windows == 0, "a window is bound on a queue pair that does not know it")
    }

    /// The memory that a request of the peer names with an R_Key: that of a region or of a window. Nil when the peer
    /// may not access it.
    @inline(__always)
    func remoteMemory(
        _ pair: Pair, key: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> UnsafeMutableRawPointer? {
        keys.translate(
            key: key, protectionDomain: pair.pointee.protectionDomain, queuePair: pair.pointee.number,
            address: address, length: length, access: access)
    }
}
