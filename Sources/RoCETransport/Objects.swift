/// A protection domain (`struct ibv_pd`), to which memory regions, queue pairs and shared receive queues belong.
@frozen
public struct ProtectionDomain: RawRepresentable, Hashable, Sendable {
    /// The number of the protection domain in the engine (`ibv_pd.handle`).
    public let rawValue: UInt32

    /// Creates a handle of any number. Functions of the engine refuse one that is not the number of a `struct ibv_pd`.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// What a registration of memory does with an earlier one. Before one is replaced, `withdraw(key:)` ends the access of
/// requesters of this host to it, and the caller waits for those that are inside one (`Hazard`).
@frozen
public enum Registration: Sendable {
    /// Nothing: it is a memory region of its own (`ibv_reg_mr`).
    case new
    /// It takes the place of the registration with this key, which stays valid (`ibv_rereg_mr`): each later work request
    /// and packet with the key is checked against the new registration.
    case keeping(UInt32)
    /// It takes the place of the registration with this key, and has another key.
    case replacing(UInt32)
}

// MARK: - Protection domains and memory

extension Engine {
    /// Allocates a protection domain (`ibv_alloc_pd`).
    /// - Throws: ENOMEM when there are 65,536.
    public borrowing func allocateProtectionDomain() throws(Errno) -> ProtectionDomain {
        ProtectionDomain(rawValue: try core.pointee.allocateDomain())
    }

    /// Deallocates a protection domain (`ibv_dealloc_pd`).
    /// - Throws: EBUSY while memory regions, memory windows, queue pairs or shared receive queues belong to it; EINVAL
    ///   for an unknown domain.
    public borrowing func deallocate(_ domain: ProtectionDomain) throws(Errno) {
        try core.pointee.deallocateDomain(domain.rawValue)
    }

    /// Registers memory (`ibv_reg_mr_iova`), which must stay valid until `deregisterMemory`.
    /// - Parameters:
    ///   - domain: The protection domain of the memory region.
    ///   - address: The address of the first byte (`addr`). It may be null when `length` is 0.
    ///   - length: The length in bytes.
    ///   - virtualAddress: The address of the first byte in work requests and packets (`iova`).
    ///   - access: The accesses that the region allows (`ibv_access_flags`).
    ///   - shared: The number of the shared memory that contains the region, under which neighbors have mapped it
    ///     (`SharedMapping.number`), and the offset of the first byte in it; 0 for memory of this process alone.
    ///   - registration: Whether it replaces another registration.
    /// - Returns: The key, which is both L_Key and R_Key, and not 0.
    /// - Throws: EINVAL for an unknown domain, remote write or atomic access without local write access
    ///   (ibv_reg_mr(3)), a range that runs over the end of the address space, or a registration to replace that does
    ///   not exist; ENOMEM when there are `Limits.maxMR`; EBUSY while windows are bound to the region of the registration
    ///   to replace.
    public borrowing func registerMemory(
        _ domain: ProtectionDomain, address: UnsafeMutableRawPointer?, length: UInt64, virtualAddress: UInt64,
        access: AccessFlags, shared: (number: UInt32, offset: UInt64) = (0, 0), _ registration: Registration = .new
    ) throws(Errno) -> UInt32 {
        let base = UInt(bitPattern: address)
        guard core.pointee.domainExists(domain.rawValue), address != nil || length == 0,
            !virtualAddress.addingReportingOverflow(length).overflow,
            !UInt64(base).addingReportingOverflow(length).overflow,
            access.isDisjoint(with: [.remoteWrite, .remoteAtomic]) || access.contains(.localWrite)
        else { throw .invalid }
        let region = MemoryRegion(
            protectionDomain: domain.rawValue, access: access.intersection(.kept).union(.local),
            virtualAddress: virtualAddress, length: length, base: base, sharedMemory: shared.number,
            sharedOffset: shared.offset)
        return try core.pointee.register(region, registration)
    }

    /// Deregisters memory (`ibv_dereg_mr`). Work requests and packets with this key fail from now on, and do not access
    /// the memory any more.
    /// - Throws: EINVAL when no region has this key; EBUSY while windows are bound to it.
    public borrowing func deregisterMemory(_ key: UInt32) throws(Errno) {
        guard let region = core.pointee.keys.region(key) else { throw .invalid }
        guard region.pointee.windows == 0 else { throw .busy }
        core.pointee.changeUsers(ofDomain: region.pointee.protectionDomain, by: -1)
        core.pointee.accessTable?.withdraw(key: key)
        _ = core.pointee.keys.remove(key)
    }

    /// The number of windows that are bound to the region with this key (`ibv_bind_mw`).
    public borrowing func boundWindows(of key: UInt32) -> Int {
        Int(core.pointee.keys.region(key)?.pointee.windows ?? 0)
    }
}

// MARK: - Completion queues

extension Engine {
    /// Creates a completion queue (`ibv_create_cq`).
    /// - Parameters:
    ///   - capacity: The number of CQEs, 1 to `Limits.maxCQE`. It is not rounded up.
    ///   - userData: Returned by `CompletionQueue.userData`.
    ///   - clock: The clock of the completion timestamps (`IBV_WC_EX_WITH_COMPLETION_TIMESTAMP`); nil for a queue
    ///     without them.
    ///   - ignoresOverrun: With true, a CQE for which there is no room is dropped, and nothing else happens
    ///     (`IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN`). With false, it is an overrun (`IBV_EVENT_CQ_ERR`).
    ///   - hasEvents: Whether it has a completion channel. `CompletionQueue.arm` has no effect on a queue without one,
    ///     whose CQEs cost less.
    /// - Throws: EINVAL for a capacity out of range.
    public borrowing func createCompletionQueue(
        capacity: UInt32, userData: UnsafeMutableRawPointer? = nil, clock: Clock? = nil, ignoresOverrun: Bool = false,
        hasEvents: Bool = true
    ) throws(Errno) -> CompletionQueue {
        guard capacity >= 1, capacity <= Limits.maxCQE else { throw .invalid }
        let storage = UnsafeMutablePointer<CompletionQueueStorage>.allocate(capacity: 1)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .completionQueue))
        event.pointee.object = UnsafeMutableRawPointer(storage)
        storage.initialize(
            to: CompletionQueueStorage(
                ring: Ring(
                    limit: capacity, stride: CompletionQueueStorage.stride(hasTimestamps: clock != nil)),
                ignoresOverrun: ignoresOverrun, hasEvents: hasEvents, clock: clock, core: core, event: event,
                userData: userData))
        return CompletionQueue(storage)
    }

    /// Moderates the completion events of a completion queue (`ibv_modify_cq`): an armed queue raises its event when
    /// `count` CQEs were written, or `period` after the first of them.
    /// - Parameters:
    ///   - count: The number of CQEs (`cq_count`). 0 and 1 end the moderation.
    ///   - period: The time in nanoseconds (`cq_period`). 0 ends the moderation.
    public borrowing func moderate(_ queue: CompletionQueue, count: UInt16, period: UInt64) {
        core.pointee.moderate(queue.storage, count: count, period: period)
    }

    /// Changes the capacity of a completion queue, which keeps its CQEs (`ibv_resize_cq`). No thread may poll
    /// meanwhile.
    /// - Throws: EINVAL for a capacity out of range or less than the number of CQEs in the queue.
    public borrowing func resize(_ queue: CompletionQueue, capacity: UInt32) throws(Errno) {
        guard capacity >= 1, capacity <= Limits.maxCQE else { throw .invalid }
        try core.pointee.resize(queue.storage, capacity: capacity)
    }

    /// Destroys a completion queue and removes its events (`ibv_destroy_cq`).
    /// - Throws: EBUSY while a queue pair or a shared receive queue for XRC uses it.
    public borrowing func destroy(_ queue: CompletionQueue) throws(Errno) {
        let storage = queue.storage
        guard storage.pointee.users == 0 else { throw .busy }
        core.pointee.stopModerating(storage)
        core.pointee.events.remove(storage.pointee.event)
        storage.pointee.event.deallocate()
        storage.pointee.ring.deallocate()
        storage.deinitialize(count: 1)
        storage.deallocate()
    }
}

// MARK: - Shared receive queues

extension Engine {
    /// Creates a shared receive queue (`ibv_create_srq`).
    /// - Parameters:
    ///   - domain: The protection domain, to which the memory regions of its SGEs must belong.
    ///   - maxWR: The number of receive work requests (`max_wr`), 1 to `Limits.maxWR`. It is not rounded up.
    ///   - maxSGE: The number of SGEs per receive work request (`max_sge`), 0 to `Limits.maxSGE`.
    ///   - userData: Returned by `SharedReceiveQueue.userData`.
    /// - Throws: EINVAL for an unknown domain or a number out of range.
    public borrowing func createSharedReceiveQueue(
        _ domain: ProtectionDomain, maxWR: UInt32, maxSGE: UInt32 = 1,
        userData: UnsafeMutableRawPointer? = nil
    ) throws(Errno) -> SharedReceiveQueue {
        guard core.pointee.domainExists(domain.rawValue), maxWR >= 1, maxWR <= Limits.maxWR,
            maxSGE <= Limits.maxSGE
        else { throw .invalid }
        let storage = UnsafeMutablePointer<SharedReceiveQueueStorage>.allocate(capacity: 1)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .sharedReceiveQueue))
        event.pointee.object = UnsafeMutableRawPointer(storage)
        let ring = Ring(limit: maxWR, stride: receiveStride(maxSGE: maxSGE))
        storage.initialize(
            to: SharedReceiveQueueStorage(
                ring: ring, maxSGE: maxSGE, protectionDomain: domain.rawValue, core: core, event: event,
                userData: userData, limit: 0))
        core.pointee.changeUsers(ofDomain: domain.rawValue, by: 1)
        return SharedReceiveQueue(storage)
    }

    /// Changes the number of receive work requests of a shared receive queue, which keeps those that are posted
    /// (`ibv_modify_srq`, `IBV_SRQ_MAX_WR`). No thread may post meanwhile.
    /// - Parameter maxWR: 1 to `Limits.maxWR`. It is not rounded up.
    /// - Throws: EINVAL for a number out of range, less than the posted work requests, or less than the limit.
    public borrowing func resize(_ queue: SharedReceiveQueue, maxWR: UInt32) throws(Errno) {
        let old = queue.storage.pointee.ring
        let count = old.count
        guard maxWR >= 1, maxWR <= Limits.maxWR, maxWR >= count, maxWR >= queue.storage.pointee.limit else {
            throw .invalid
        }
        let new = Ring(limit: maxWR, stride: old.stride)
        for index in 0..<count {
            new.slot(index).copyMemory(from: old.slot(old.oldest &+ index), byteCount: old.stride)
        }
        new.producer.pointee.position = count
        _ = new.publish()
        queue.storage.pointee.ring = new
        old.deallocate()
    }

    /// Sets the limit (`srq_limit`, `ibv_modify_srq`): one event is reported when fewer receive work requests than this
    /// are left; 0 disarms.
    /// - Throws: EINVAL when it is more than `max_wr` of the queue.
    public borrowing func setLimit(of queue: SharedReceiveQueue, to limit: UInt32) throws(Errno) {
        guard limit <= queue.storage.pointee.ring.limit else { throw .invalid }
        queue.storage.pointee.limit = limit
    }

    /// The current limit (`srq_limit`, `ibv_query_srq`): 0 after its event.
    public borrowing func limit(of queue: SharedReceiveQueue) -> UInt32 { queue.storage.pointee.limit }

    /// Destroys a shared receive queue and the receive work requests in it (`ibv_destroy_srq`).
    /// - Throws: EBUSY while a queue pair uses it.
    public borrowing func destroy(_ queue: SharedReceiveQueue) throws(Errno) {
        let storage = queue.storage
        guard storage.pointee.users == 0 else { throw .busy }
        core.pointee.leave(storage)
        core.pointee.events.remove(storage.pointee.event)
        core.pointee.changeUsers(ofDomain: storage.pointee.protectionDomain, by: -1)
        storage.pointee.event.deallocate()
        storage.pointee.ring.deallocate()
        storage.deinitialize(count: 1)
        storage.deallocate()
    }
}

/// The bytes of a slot of a receive queue.
func receiveStride(maxSGE: UInt32) -> Int {
    ReceiveWQE.size + Int(maxSGE) * MemoryLayout<SGE>.stride
}
