import CSimulator

/// The commands, independent of their protocol: ioctl method or command struct.
extension Context {
    /// GET_CONTEXT.
    func open(_ driver: DriverData) throws(Refusal) {
        try demand(!isReady, EINVAL, "this descriptor has a context already")
        try device.codec.open(self, driver)
        try device.wire?.open()
        isReady = true
        device.contexts.append(self)
        device.startRunning()
    }

    func makeEvents() throws(Refusal) -> EventFile {
        try demand(events == nil, EINVAL, "this context has its asynchronous events already")
        let file = try EventFile(self, isAsynchronous: true)
        events = file
        simulation.add(.events(file), descriptor: file.descriptor)
        return file
    }

    func makeChannel() throws(Refusal) -> EventFile {
        let file = try EventFile(self, isAsynchronous: false)
        simulation.add(.events(file), descriptor: file.descriptor)
        return file
    }

    /// A completion channel or event file of this context.
    func eventFile(_ descriptor: Int32, isAsynchronous: Bool, errno: Int32) throws(Refusal) -> EventFile {
        guard case .events(let file) = simulation.entry(descriptor), file.context === self else {
            throw Refusal(errno, "the descriptor is none of this context's events", has: Int(descriptor))
        }
        try demand(
            file.isAsynchronous == isAsynchronous, EINVAL,
            "the descriptor is of the other type of events", has: Int(descriptor))
        return file
    }

    func createDomain(_ driver: DriverData) throws(Refusal) -> ProtectionDomain {
        let domain = ProtectionDomain(self)
        try device.codec.create(domain, driver)
        add(domain)
        return domain
    }

    // MARK: - Memory

    func register(_ request: ib_uverbs_reg_mr, _ driver: DriverData) throws(Refusal) -> MemoryRegion {
        let domain = try domain(request.pd_handle)
        try driver.expectNoInput()
        try check(request.start, request.length, request.hca_va, access: request.access_flags)
        try device.codec.checkRegion(length: request.length)
        let region = MemoryRegion(
            domain, start: request.start, length: request.length, virtualAddress: request.hca_va,
            access: request.access_flags)
        domain.users += 1
        region.key = device.addKey(region)
        add(region)
        return region
    }

    private func check(_ start: UInt64, _ length: UInt64, _ address: UInt64, access: UInt32) throws(Refusal) {
        try demand(
            start & 0xFFF == address & 0xFFF, EINVAL,
            "the virtual address has another offset in its page than the memory",
            has: Int(truncatingIfNeeded: address & 0xFFF), wants: Int(truncatingIfNeeded: start & 0xFFF))
        let writesFromAfar = IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        try demand(
            access & writesFromAfar == 0 || access & IBV_ACCESS_LOCAL_WRITE.rawValue != 0, EINVAL,
            "remote write or atomic access without local write access", has: Int(access))
        // The flags of rdma-core 44 and Linux 6.1; the optional ones are bits 20 to 29.
        let known: UInt32 = 0x1FF | 0x3FF0_0000
        try demand(access & ~known == 0, EOPNOTSUPP, "access flags that this kernel does not know", has: Int(access))
        try demand(start &+ length >= start, EINVAL, "the memory ends beyond the last address")
        try demand(
            sim_is_mapped(start, length, access & (IBV_ACCESS_LOCAL_WRITE.rawValue | writesFromAfar) != 0), EFAULT,
            "the memory is not mapped, or may not be written to")
    }

    func reregister(_ request: ib_uverbs_rereg_mr, _ driver: DriverData) throws(Refusal) -> MemoryRegion {
        try device.codec.checkReregistration()
        let region = try region(request.mr_handle)
        try driver.expectNoInput()
        let flags = request.flags
        try demand(
            flags != 0 && flags & ~7 == 0, EINVAL, "nothing to change, or unknown flags", has: Int(flags))
        try demand(region.users == 0, EBUSY, "a window is bound to this region")
        let isMoved = flags & IBV_REREG_MR_CHANGE_TRANSLATION.rawValue != 0
        let start = isMoved ? request.start : region.start
        let length = isMoved ? request.length : region.length
        let address = isMoved ? request.hca_va : region.virtualAddress
        let access = flags & IBV_REREG_MR_CHANGE_ACCESS.rawValue != 0 ? request.access_flags : region.access
        try check(start, length, address, access: access)
        if flags & IBV_REREG_MR_CHANGE_PD.rawValue != 0 {
            let domain = try domain(request.pd_handle)
            region.domain.users -= 1
            domain.users += 1
            region.domain = domain
        }
        (region.start, region.length, region.virtualAddress, region.access) = (start, length, address, access)
        return region
    }

    func createWindow(_ request: ib_uverbs_alloc_mw, _ driver: DriverData) throws(Refusal) -> MemoryWindow {
        let domain = try domain(request.pd_handle)
        try device.codec.checkWindow(type: request.mw_type)
        let window = MemoryWindow(domain, type: request.mw_type)
        domain.users += 1
        window.key = device.addKey(window)
        add(window)
        return window
    }

    func createAddressHandle(_ request: ib_uverbs_create_ah, _ driver: DriverData) throws(Refusal) -> AddressHandle {
        let domain = try domain(request.pd_handle)
        let attributes = request.attr
        try device.checkAddress(
            port: attributes.port_num, isGlobal: attributes.is_global != 0, gidIndex: attributes.grh.sgid_index,
            lid: attributes.dlid)
        let handle = AddressHandle(domain, attributes)
        try device.codec.create(handle, driver)
        domain.users += 1
        add(handle)
        return handle
    }

    // MARK: - Queues

    func createCompletionQueue(
        userHandle: UInt64, entries: UInt32, channel: EventFile?, vector: UInt32, flags: UInt32, _ driver: DriverData
    ) throws(Refusal) -> CompletionQueue {
        try demand(vector < Simulation.vectorCount, EINVAL, "there is no such completion vector", has: Int(vector))
        let most = device.codec.identity.maximumCompletions
        try demand(
            entries >= 1 && entries <= most, EINVAL, "the device does not support this number of CQEs",
            has: Int(entries), wants: Int(most))
        let queue = CompletionQueue(self, userHandle: userHandle, entries: entries, channel: channel)
        add(queue)
        do {
            try device.codec.create(queue, flags: flags, driver)
        } catch {
            remove(queue)
            throw error
        }
        device.add(queue)
        return queue
    }

    func resizeCompletionQueue(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        let most = device.codec.identity.maximumCompletions
        try demand(
            entries >= 1 && entries <= most, EINVAL, "the device does not support this number of CQEs",
            has: Int(entries), wants: Int(most))
        try device.codec.resize(queue, entries: entries, driver)
    }

    func createSharedReceiveQueue(
        _ domain: ProtectionDomain, userHandle: UInt64, requests: UInt32, sges: UInt32, limit: UInt32,
        _ driver: DriverData
    ) throws(Refusal) -> SharedReceiveQueue {
        try device.codec.checkShared(requests: requests, sges: sges)
        let queue = SharedReceiveQueue(
            domain, userHandle: userHandle, maximumRequests: requests, maximumSGEs: sges, limit: limit)
        try device.codec.create(queue, driver)
        domain.users += 1
        device.add(queue)
        add(queue)
        return queue
    }

    func modify(_ queue: SharedReceiveQueue, _ request: ib_uverbs_modify_srq, _ driver: DriverData) throws(Refusal) {
        try demand(request.attr_mask & ~3 == 0, EINVAL, "unknown attributes", has: Int(request.attr_mask))
        if device.codec.hasSoftwareLimit && request.attr_mask == 0 {
            return device.raise(IBV_EVENT_SRQ_LIMIT_REACHED, queue)
        }
        if request.attr_mask & IBV_SRQ_MAX_WR.rawValue != 0 {
            try device.codec.resize(queue, requests: request.max_wr, driver)
        }
        if request.attr_mask & IBV_SRQ_LIMIT.rawValue != 0 && !device.codec.hasSoftwareLimit {
            try demand(
                request.srq_limit <= queue.maximumRequests, EINVAL, "a limit above the size of the queue",
                has: Int(request.srq_limit), wants: Int(queue.maximumRequests))
            queue.limit = request.srq_limit
        }
    }

    func createQueuePair(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        // With a shared receive queue, ib_create_qp ignores max_recv_wr and max_recv_sge; mlx5_ib checks max_recv_wr.
        if queuePair.sharedReceives != nil {
            try device.codec.checkIgnored(queuePair.limits)
            queuePair.limits.max_recv_wr = 0
            queuePair.limits.max_recv_sge = 0
        }
        try device.codec.check(queuePair.limits)
        switch ibv_qp_type(rawValue: queuePair.type) {
        case IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD: break
        default: throw Refusal(EOPNOTSUPP, "this device has no such queue pairs", has: Int(queuePair.type))
        }
        try device.add(queuePair)
        do {
            try device.codec.create(queuePair, flags: flags, driver)
        } catch {
            device.remove(queuePair)
            throw error
        }
        queuePair.domain.users += 1
        queuePair.sendCompletions.users += 1
        queuePair.receiveCompletions.users += 1
        queuePair.sharedReceives?.users += 1
        add(queuePair)
    }

    // MARK: - Destruction

    /// Destroys an object that no other object uses.
    func destroy(_ object: Object) throws(Refusal) {
        try demand(object.users == 0, EBUSY, "objects still use this one; their number", has: object.users)
        if object.kind == .queuePair {
            let queuePair = unsafeDowncast(object, to: QueuePair.self)
            try demand(
                queuePair.groups.isEmpty, EBUSY, "the queue pair is attached to multicast groups; their number",
                has: queuePair.groups.count)
        }
        device.codec.destroy(object)
        release(object)
        remove(object)
    }

    private func release(_ object: Object) {
        switch object.kind {
        case .domain, .uar: break
        case .region:
            let region = unsafeDowncast(object, to: MemoryRegion.self)
            region.domain.users -= 1
            device.removeKey(region.key)
        case .window:
            let window = unsafeDowncast(object, to: MemoryWindow.self)
            device.unbind(window)
            window.domain.users -= 1
            device.removeKey(window.key)
        case .addressHandle: unsafeDowncast(object, to: AddressHandle.self).domain.users -= 1
        case .completionQueue:
            let queue = unsafeDowncast(object, to: CompletionQueue.self)
            queue.channel?.forget(queue)
            events?.forget(queue)
            device.remove(queue)
        case .sharedReceiveQueue:
            let queue = unsafeDowncast(object, to: SharedReceiveQueue.self)
            events?.forget(queue)
            queue.domain.users -= 1
            device.remove(queue)
        case .queuePair:
            let queuePair = unsafeDowncast(object, to: QueuePair.self)
            events?.forget(queuePair)
            queuePair.domain.users -= 1
            queuePair.sendCompletions.users -= 1
            queuePair.receiveCompletions.users -= 1
            queuePair.sharedReceives?.users -= 1
            device.remove(queuePair)
        }
    }

    /// close(2): destroys all remaining objects.
    func close() {
        for object in remaining {
            if object.kind == .queuePair { unsafeDowncast(object, to: QueuePair.self).groups = [] }
            device.codec.destroy(object)
            release(object)
            remove(object)
        }
        device.codec.close(self)
        device.contexts.removeAll { $0 === self }
        device.closeIfUnused()
    }
}
