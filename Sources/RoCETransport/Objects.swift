/// A protection domain: a number that regions, queue pairs and shared receive queues must agree in.
@frozen
public struct ProtectionDomain: RawRepresentable, Hashable, Sendable {
    /// The engine's number of it.
    public let rawValue: UInt32

    /// Any number; one that the engine did not give out is refused where it is used.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

// MARK: - Protection domains and memory

extension Engine {
    /// A new protection domain.
    /// - Throws: ENOMEM when there are 65,536.
    public borrowing func allocateProtectionDomain() throws(Errno) -> ProtectionDomain {
        ProtectionDomain(rawValue: try core.pointee.allocateDomain())
    }

    /// Ends a protection domain.
    /// - Throws: EBUSY while something belongs to it; EINVAL when there is no such domain.
    public borrowing func deallocate(_ domain: ProtectionDomain) throws(Errno) {
        try core.pointee.deallocateDomain(domain.rawValue)
    }

    /// Registers memory, which must stay valid until `deregisterMemory`.
    /// - Parameters:
    ///   - domain: the protection domain that may use it.
    ///   - address: its first byte. May be null when `length` is 0.
    ///   - length: its bytes.
    ///   - virtualAddress: what work requests and peers call the first byte (`iova`).
    ///   - access: who may do what.
    /// - Returns: the key, L_Key and R_Key at once, never 0.
    /// - Throws: EINVAL for an unknown domain, remote write or atomic access without local write access
    ///   (ibv_reg_mr(3)), or a range that runs over the end of the address space; ENOMEM when there are
    ///   `Limits.memoryRegions`.
    public borrowing func registerMemory(
        _ domain: ProtectionDomain, address: UnsafeMutableRawPointer?, length: UInt64, virtualAddress: UInt64,
        access: AccessFlags
    ) throws(Errno) -> UInt32 {
        let base = UInt(bitPattern: address)
        guard core.pointee.domainExists(domain.rawValue), address != nil || length == 0,
            !virtualAddress.addingReportingOverflow(length).overflow,
            !UInt64(base).addingReportingOverflow(length).overflow,
            access.isDisjoint(with: [.remoteWrite, .remoteAtomic]) || access.contains(.localWrite)
        else { throw .invalid }
        let region = MemoryRegion(
            protectionDomain: domain.rawValue, access: access, virtualAddress: virtualAddress, length: length,
            base: base)
        let key = try core.pointee.insertKey(region)
        core.pointee.changeUsers(ofDomain: domain.rawValue, by: 1)
        return key
    }

    /// Ends a registration. What is posted or under way with this key fails from now on, and touches the memory no
    /// more.
    /// - Throws: EINVAL when no region has this key.
    public borrowing func deregisterMemory(_ key: UInt32) throws(Errno) {
        guard let domain = core.pointee.keys.domain(of: key), core.pointee.keys.remove(key) else { throw .invalid }
        core.pointee.changeUsers(ofDomain: domain, by: -1)
    }
}

// MARK: - Completion queues

extension Engine {
    /// A new completion queue.
    /// - Parameters:
    ///   - capacity: entries, 1 to `Limits.completions`; it gets exactly so many.
    ///   - userData: comes back from `CompletionQueue.userData`.
    /// - Throws: EINVAL for a capacity out of range.
    public borrowing func createCompletionQueue(
        capacity: UInt32, userData: UnsafeMutableRawPointer? = nil
    ) throws(Errno) -> CompletionQueue {
        guard capacity >= 1, capacity <= Limits.completions else { throw .invalid }
        let storage = UnsafeMutablePointer<CompletionQueueStorage>.allocate(capacity: 1)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .completionQueue))
        event.pointee.object = UnsafeMutableRawPointer(storage)
        storage.initialize(
            to: CompletionQueueStorage(
                ring: Ring(limit: capacity, stride: MemoryLayout<WorkCompletion>.stride), core: core, event: event,
                userData: userData))
        return CompletionQueue(storage)
    }

    /// Changes a completion queue's capacity and keeps what it holds. No thread may poll meanwhile.
    /// - Throws: EINVAL for a capacity out of range or less than the queue holds.
    public borrowing func resize(_ queue: CompletionQueue, capacity: UInt32) throws(Errno) {
        guard capacity >= 1, capacity <= Limits.completions else { throw .invalid }
        try core.pointee.resize(queue.storage, capacity: capacity)
    }

    /// Ends a completion queue and its events.
    /// - Throws: EBUSY while a queue pair completes there.
    public borrowing func destroy(_ queue: CompletionQueue) throws(Errno) {
        let storage = queue.storage
        guard storage.pointee.users == 0 else { throw .busy }
        core.pointee.events.remove(storage.pointee.event)
        storage.pointee.event.deallocate()
        storage.pointee.ring.deallocate()
        storage.deinitialize(count: 1)
        storage.deallocate()
    }
}

// MARK: - Shared receive queues

extension Engine {
    /// A new shared receive queue.
    /// - Parameters:
    ///   - domain: its protection domain, to which the memory of its receives must belong.
    ///   - workRequests: receives that it holds, 1 to `Limits.workRequests`; it gets exactly so many.
    ///   - elements: pieces of memory per receive, 0 to `Limits.scatterGatherElements`.
    ///   - userData: comes back from `SharedReceiveQueue.userData`.
    /// - Throws: EINVAL for an unknown domain or a number out of range.
    public borrowing func createSharedReceiveQueue(
        _ domain: ProtectionDomain, workRequests: UInt32, elements: UInt32 = 1,
        userData: UnsafeMutableRawPointer? = nil
    ) throws(Errno) -> SharedReceiveQueue {
        guard core.pointee.domainExists(domain.rawValue), workRequests >= 1, workRequests <= Limits.workRequests,
            elements <= Limits.scatterGatherElements
        else { throw .invalid }
        let storage = UnsafeMutablePointer<SharedReceiveQueueStorage>.allocate(capacity: 1)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .sharedReceiveQueue))
        event.pointee.object = UnsafeMutableRawPointer(storage)
        let ring = Ring(limit: workRequests, stride: receiveStride(elements: elements))
        storage.initialize(
            to: SharedReceiveQueueStorage(
                ring: ring, elements: elements, protectionDomain: domain.rawValue, core: core, event: event,
                userData: userData, limit: 0))
        core.pointee.changeUsers(ofDomain: domain.rawValue, by: 1)
        return SharedReceiveQueue(storage)
    }

    /// Sets the limit (`srq_limit`): one event is reported when fewer receives than this are left; 0 disarms.
    /// - Throws: EINVAL when it is more than the queue holds.
    public borrowing func setLimit(of queue: SharedReceiveQueue, to limit: UInt32) throws(Errno) {
        guard limit <= queue.storage.pointee.ring.limit else { throw .invalid }
        queue.storage.pointee.limit = limit
    }

    /// The limit as it stands: 0 after its event.
    public borrowing func limit(of queue: SharedReceiveQueue) -> UInt32 { queue.storage.pointee.limit }

    /// Ends a shared receive queue. What is posted there is forgotten.
    /// - Throws: EBUSY while a queue pair receives from it.
    public borrowing func destroy(_ queue: SharedReceiveQueue) throws(Errno) {
        let storage = queue.storage
        guard storage.pointee.users == 0 else { throw .busy }
        core.pointee.events.remove(storage.pointee.event)
        core.pointee.changeUsers(ofDomain: storage.pointee.protectionDomain, by: -1)
        storage.pointee.event.deallocate()
        storage.pointee.ring.deallocate()
        storage.deinitialize(count: 1)
        storage.deallocate()
    }
}

/// Bytes of a slot in a receive queue.
func receiveStride(elements: UInt32) -> Int {
    ReceiveEntry.size + Int(elements) * MemoryLayout<ScatterGatherElement>.stride
}
