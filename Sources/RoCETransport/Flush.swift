import RoCEWire
import Synchronization

// FLUSH (IBTA volume 1 release 1.5, annex A19): its response says that everything that the connection wrote before to a
// range, or to a whole memory region, is visible to every processor and device of the responder's host, or persistent.
//
// The memory of an engine is that of the processor. So writes are visible when they were executed, and a FLUSH for global
// visibility has only its checks and a fence. No memory region can be made persistent.

/// Placement types (FETH.PLT): `enum ibv_placement_type` of verbs.h.
private var globalVisibility: UInt8 { 1 }
private var persistence: UInt8 { 2 }
/// Selectivity levels (FETH.SEL): `enum ibv_selectivity_level` of verbs.h.
private var flushRange: UInt8 { 0 }
private var flushRegion: UInt8 { 1 }

extension SendWQE {
    /// Whether a FLUSH with SGEs of `byteCount` bytes may be posted: it has no data.
    func isValidFlush(byteCount: UInt64) -> Bool {
        byteCount == 0 && flushLength <= Limits.maxMessageSize
            && isFlushKnown(placement: flushPlacement, selectivity: flushSelectivity)
    }
}

/// Whether both are values that the annex defines.
private func isFlushKnown(placement: UInt8, selectivity: UInt8) -> Bool {
    placement != 0 && placement & ~(globalVisibility | persistence) == 0 && selectivity <= flushRegion
}

/// The accesses that memory and queue pair must allow for these placement types.
private func flushAccess(_ placement: UInt8) -> AccessFlags {
    var access: AccessFlags = []
    if placement & globalVisibility != 0 { access.insert(.flushGlobal) }
    if placement & persistence != 0 { access.insert(.flushPersistent) }
    return access
}

extension Core {
    // MARK: - The requester

    /// Writes a FLUSH request (`IB_OPCODE_RC_FLUSH` of the kernel's rxe).
    mutating func emitFlush(
        _ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, to target: UnsafeMutableRawPointer
    ) -> Int {
        let psn = pair.pointee.requester.next
        let next = target + BTH.byteCount
        FETH(placement: entry.pointee.flushPlacement, selectivity: entry.pointee.flushSelectivity).emit(at: next)
        RETH(
            virtualAddress: entry.pointee.remoteAddress, rkey: entry.pointee.rkey,
            dmaLength: UInt32(truncatingIfNeeded: entry.pointee.flushLength)
        ).emit(at: next + FETH.byteCount)
        pair.pointee.requester.next = psn.next
        pair.pointee.requester.outstandingReads &+= 1
        return sealRequest(.rcFlush, pair, psn: psn, at: target)
    }

    /// Executes a FLUSH of a range of a neighbor's memory, to which this engine has written before as any processor does.
    /// Between `Neighbor.enter` and `leave`.
    mutating func flush(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair, _ prefix: Int) -> DirectResult {
        guard entry.pointee.flushPlacement == globalVisibility, entry.pointee.flushSelectivity == flushRange,
            neighbors.entries[prefix]!.memory(
                pair, key: entry.pointee.rkey, address: entry.pointee.remoteAddress, length: entry.pointee.flushLength,
                access: .flushGlobal) != nil
        else { return .refused }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return .done
    }

    // MARK: - The responder

    /// Executes a FLUSH (`process_flush` of the kernel's rxe). A queue pair that does not allow it refuses the request,
    /// a memory region ends in a remote access error.
    mutating func executeFlush(_ pair: Pair, _ packet: TransportPacket) {
        let (feth, reth) = (packet.headers.feth, packet.headers.reth)
        let access = flushAccess(feth.placement)
        guard isFlushKnown(placement: feth.placement, selectivity: feth.selectivity),
            pair.pointee.attributes.access.isSuperset(of: access), reth.dmaLength <= Limits.maxMessageSize
        else { return refuse(pair, .invalidRequest, event: .requestError) }
        guard isFlushable(pair, feth, reth, access) else {
            return refuse(pair, .remoteAccessError, event: .accessError)
        }
        guard let resource = newResource(pair, packet.headers.bth.psn) else {
            guard pair.pointee.attributes.maxDestinationReadAtomic != 0 else {
                return refuse(pair, .invalidRequest, event: .requestError)
            }
            // The kernel's rxe does not count a FLUSH in max_rd_atomic. It sends this one again, after the responses to
            // those before; that of Linux 6.12 with address 0, which only a FLUSH of a whole region ignores.
            return reportGap(pair)
        }
        resource.pointee.operation = .flush
        resource.pointee.packets = 1
        resource.pointee.end = 1
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        finishResource(pair, resource)
    }

    /// Whether the range, or the whole region, allows the access. Unlike a READ of no bytes, a FLUSH of an empty range needs
    /// a valid R_Key.
    private mutating func isFlushable(_ pair: Pair, _ feth: FETH, _ reth: RETH, _ access: AccessFlags) -> Bool {
        if feth.selectivity == flushRegion {
            return keys.allows(
                key: reth.rkey, protectionDomain: pair.pointee.protectionDomain, queuePair: pair.pointee.number,
                access: access)
        }
        return keys.covers(
            key: reth.rkey, protectionDomain: pair.pointee.protectionDomain, queuePair: pair.pointee.number,
            address: reth.virtualAddress, length: UInt64(reth.dmaLength), access: access)
    }
}

extension MemoryKeyTable {
    /// Whether the region or window with this key allows an access, of whatever range.
    fileprivate func allows(
        key: UInt32, protectionDomain: UInt32, queuePair: UInt32, access: AccessFlags
    ) -> Bool {
        guard let region = entry(key), region.pointee.protectionDomain == protectionDomain,
            region.pointee.queuePair == 0 || region.pointee.queuePair == queuePair
        else { return false }
        return region.pointee.access.union(region.pointee.checkedAccess).isSuperset(of: access)
    }

    /// Whether, besides, the range is inside it. The memory is not accessed, so memory with on-demand paging need not be
    /// mapped.
    fileprivate func covers(
        key: UInt32, protectionDomain: UInt32, queuePair: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> Bool {
        guard allows(key: key, protectionDomain: protectionDomain, queuePair: queuePair, access: access),
            let region = entry(key)
        else { return false }
        // Subtractions that may wrap, compared so that a wrapped one never passes, as in `translate`.
        let offset = address &- region.pointee.virtualAddress
        return offset <= region.pointee.length && length <= region.pointee.length &- offset
    }
}
