import RoCEWire

/// The queue pairs that are attached to multicast groups (`struct rxe_mcg` and `struct rxe_mca` of the kernel's rxe): a
/// flat list, which packets to the multicast QPN search.
struct MulticastTable {
    struct Entry {
        var group: GID
        var pair: UnsafeMutablePointer<QueuePairStorage>
    }

    private var entries: UnsafeMutablePointer<Entry>?
    private var capacity = 0
    private(set) var count = 0

    func deallocate() { entries?.deallocate() }

    @inline(__always)
    subscript(index: Int) -> Entry { entries![index] }

    func contains(_ pair: UnsafeMutablePointer<QueuePairStorage>, _ group: GID) -> Bool {
        for index in 0..<count where self[index].pair == pair && self[index].group == group { return true }
        return false
    }

    /// Whether a queue pair is attached to any group.
    func contains(_ pair: UnsafeMutablePointer<QueuePairStorage>) -> Bool {
        for index in 0..<count where self[index].pair == pair { return true }
        return false
    }

    mutating func insert(_ entry: Entry) {
        if count == capacity {
            let larger = UnsafeMutablePointer<Entry>.allocate(capacity: max(2 * capacity, 16))
            for index in 0..<count { (larger + index).initialize(to: self[index]) }
            entries?.deallocate()
            entries = larger
            capacity = max(2 * capacity, 16)
        }
        (entries! + count).initialize(to: entry)
        count += 1
    }

    /// Removes the entries of a queue pair: that of one group, or for nil all. Returns their number.
    @discardableResult
    mutating func remove(_ pair: UnsafeMutablePointer<QueuePairStorage>, _ group: GID? = nil) -> Int {
        var kept = 0
        let before = count
        for index in 0..<before {
            let entry = self[index]
            if entry.pair == pair && (group == nil || entry.group == group) { continue }
            entries![kept] = entry
            kept += 1
        }
        count = kept
        return before - kept
    }
}

/// The QPN of packets to a multicast group, `IB_MULTICAST_QPN` of the kernel.
private let multicastQPN = mask24

extension Engine {
    /// Attaches a UD queue pair to a multicast group (`ibv_attach_mcast`): it receives the packets to that GID and the
    /// multicast QPN. The caller receives the packets of the group from the network.
    /// - Returns: False when it was attached already.
    /// - Throws: EINVAL for another service type; ENOMEM when there are `Limits.maxMulticastAttachments`.
    public borrowing func attach(_ queuePair: QueuePair, to group: GID) throws(Errno) -> Bool {
        guard queuePair.type == .ud else { throw .invalid }
        if core.pointee.multicast.contains(queuePair.storage, group) { return false }
        guard core.pointee.multicast.count < Limits.maxMulticastAttachments else { throw .noMemory }
        core.pointee.multicast.insert(MulticastTable.Entry(group: group, pair: queuePair.storage))
        return true
    }

    /// Detaches a queue pair from a multicast group (`ibv_detach_mcast`).
    /// - Throws: EINVAL when it is not attached.
    public borrowing func detach(_ queuePair: QueuePair, from group: GID) throws(Errno) {
        guard core.pointee.multicast.remove(queuePair.storage, group) != 0 else { throw .invalid }
    }

    /// Whether a queue pair is attached to a multicast group, and so must not be destroyed (ibv_destroy_qp(3)).
    public borrowing func isAttached(_ queuePair: QueuePair) -> Bool {
        core.pointee.multicast.contains(queuePair.storage)
    }
}

extension Core {
    /// Whether the packet is for the queue pairs that are attached to a group.
    @inline(__always)
    func isMulticast(_ bth: BTH) -> Bool { bth.destinationQPN == multicastQPN }

    /// Receives a datagram to a multicast group: once for every queue pair that is attached.
    @inline(never)
    mutating func receiveMulticast(_ packet: TransportPacket, payload: UnsafeRawPointer, from source: PacketSource) {
        guard packet.headers.bth.opcode.transport == .unreliableDatagram else {
            counters.droppedServiceType &+= 1
            return
        }
        guard matchesPartition(packet.headers.bth.pkey) else {
            counters.droppedPKey &+= 1
            return
        }
        var isKnown = false
        for index in 0..<multicast.count where multicast[index].group == source.destination {
            isKnown = true
            let pair = multicast[index].pair
            if pair.pointee.isReceiving {
                receiveDatagram(pair, packet, payload: payload, from: source)
            } else {
                counters.droppedState &+= 1
            }
        }
        if !isKnown { counters.droppedNoQueuePair &+= 1 }
    }
}
