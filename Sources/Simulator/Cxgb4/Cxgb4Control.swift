import CSimulator

extension Cxgb4Codec {
    /// Queues have one status page, an entry of 64 bytes (`t4_eq_status_entries` of Linux).
    private static let statusEntries: UInt32 = 1

    private func allocatePage(_ context: Context, _ qid: UInt32) throws(Refusal) -> Cxgb4Page {
        let memory = try mappings(context).allocate(Cxgb4Mappings.pageSize)
        let page = Cxgb4Page(context, number: UInt32(pages.count), memory: memory, firstQID: qid & ~qidMask)
        pages.append(page)
        return page
    }

    private func key(_ context: Context, _ memory: QueueMemory) -> UInt64 {
        UInt64(mappings(context).offer(memory))
    }

    private func key(_ page: Cxgb4Page) -> UInt64 {
        UInt64(mappings(page.context).offer(page.memory, page: page.number))
    }

    // MARK: - Completion queues

    func createCompletions(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try demand(flags == 0, EOPNOTSUPP, "this driver knows no flags of completion queues", has: Int(flags))
        let context = queue.context
        // A library that sends no driver data knows CQEs of 32 bytes alone, in all queues of its context.
        if driver.input.count < MemoryLayout<c4iw_create_cq>.size { mappings(context).hasShortCQEs = true }
        let isShort = device.options.hasShortCQEs || mappings(context).hasShortCQEs
        // One entry for the status page, and one that is always free; in multiples of 16, and twice as many for the
        // hardware.
        let entries = (queue.entries + 2 + 15) & ~15
        let hardwareEntries = max(64, min(2 * entries, 65520))
        let stride = isShort ? 32 : 64
        let size = Int(hardwareEntries) * stride
        let room = isShort ? 36 : 40
        try demand(
            driver.output.count >= room, EINVAL, "no room for the driver's response, in bytes",
            has: driver.output.count, wants: room)
        let number = try allocateIngress(context)
        let ring = Cxgb4Completions(
            memory: try mappings(context).allocate(size), count: hardwareEntries - 1, stride: stride, number: number,
            page: try allocatePage(context, number), countsDoorbells: device.options.isTrapped)
        var response = c4iw_create_cq_resp()
        response.key = key(context, ring.memory)
        response.gts_key = key(ring.page)
        response.memsize = UInt64(ring.memory.size)
        response.cqid = number
        response.size = ring.count
        response.qid_mask = qidMask
        response.flags = UInt32(C4IW_64B_CQE)
        withUnsafeBytes(of: response) {
            driver.output.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<room]))
        }
        queue.vendor = ring
        queue.entries = entries - 2
        add(queue, number)
    }

    // MARK: - Shared receive queues

    func createShared(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        let context = queue.context
        let count = roundedUp(max(queue.maximumRequests + 1, 16))
        let size = Int(count + Cxgb4Codec.statusEntries) * Cxgb4Queue.slot * 2
        let qid = try allocateEgress(context)
        let ring = Cxgb4Queue(
            memory: try mappings(context).allocate(size), qid: qid, entries: count, slotsPerEntry: 2,
            page: try allocatePage(context, qid), owner: queue)
        let shared = Cxgb4Shared(ring, firstIndex: nextRequestIndex)
        nextRequestIndex += count
        var response = c4iw_create_srq_resp()
        response.srqid = qid
        response.srq_size = count
        response.rqt_abs_idx = shared.firstIndex
        response.qid_mask = qidMask
        response.srq_memsize = UInt64(ring.memory.size)
        response.srq_key = key(context, ring.memory)
        response.srq_db_gts_key = key(ring.page)
        try driver.respond(response, minimum: MemoryLayout<c4iw_create_srq_resp>.size)
        queue.vendor = shared
        queue.maximumRequests = count - 1
        // The library finds out when the limit is reached.
        queue.limit = 0
        add(ring)
    }

    // MARK: - Queue pairs

    /// The kernel's driver checks the sizes of the queues, and ignores the numbers of SGEs.
    func checkLimits(_ limits: ibv_qp_cap) throws(Refusal) {
        try demand(
            limits.max_inline_data <= identity.maximumInline, EINVAL, "more inline data than the device has room for",
            has: Int(limits.max_inline_data), wants: Int(identity.maximumInline))
        try demand(
            limits.max_recv_wr <= Cxgb4Codec.longestQueue, E2BIG, "the device does not support this max_recv_wr",
            has: Int(limits.max_recv_wr), wants: Int(Cxgb4Codec.longestQueue))
        try demand(
            limits.max_send_wr <= 65_518, E2BIG, "the device does not support this max_send_wr",
            has: Int(limits.max_send_wr), wants: 65_518)
    }

    func createQueues(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        try demand(
            flags == 0 && queuePair.type == IBV_QPT_RC.rawValue, EOPNOTSUPP, "iWARP has RC queue pairs, without flags",
            has: Int(queuePair.type))
        let context = queuePair.context
        try demand(
            driver.output.count >= MemoryLayout<c4iw_create_qp_resp>.size, EINVAL,
            "no room for the driver's response, in bytes", has: driver.output.count,
            wants: MemoryLayout<c4iw_create_qp_resp>.size)
        let sends = try makeSends(queuePair, context)
        let receives = try makeReceives(queuePair, context)
        var response = c4iw_create_qp_resp()
        if device.options.isOnChip {
            response.flags |= UInt32(C4IW_QPF_ONCHIP)
            // The register page, of which the program may store to PCIE_MA_SYNC.
            response.ma_sync_key = key(context, try mappings(context).allocate(Cxgb4Mappings.pageSize))
        }
        if hasWriteImmediate { response.flags |= UInt32(C4IW_QPF_WRITE_W_IMM) }
        response.qid_mask = qidMask
        response.sqid = sends.qid
        response.sq_size = sends.entries
        response.sq_memsize = UInt64(sends.memory.size)
        response.sq_key = key(context, sends.memory)
        if let receives {
            response.rqid = receives.qid
            response.rq_size = receives.entries
            response.rq_memsize = UInt64(receives.memory.size)
            response.rq_key = key(context, receives.memory)
        }
        response.sq_db_gts_key = key(sends.page)
        if let receives { response.rq_db_gts_key = key(receives.page) }
        try driver.respond(response, minimum: MemoryLayout<c4iw_create_qp_resp>.size)

        queuePair.vendor = Cxgb4Queues(sends: sends, receives: receives)
        queuePair.limits.max_send_wr = sends.entries - 1
        // Linux 6.1 returns UInt32.max in place of 0 for a queue pair with a shared receive queue.
        queuePair.limits.max_recv_wr = (receives?.entries ?? 0) &- 1
        queuePair.limits.max_inline_data = identity.maximumInline
        queuePair.state = IBV_QPS_INIT.rawValue
        add(sends)
        if let receives { add(receives) }
    }

    private func makeSends(_ queuePair: QueuePair, _ context: Context) throws(Refusal) -> Cxgb4Queue {
        let count = max(queuePair.limits.max_send_wr + 1, 8)
        // Behind the status page is room for the stores of a workaround for T4.
        let size = Int(count + Cxgb4Codec.statusEntries) * Cxgb4Queue.slot * 5 + 128
        return Cxgb4Queue(
            memory: try mappings(context).allocate(size), qid: queuePair.number, entries: count, slotsPerEntry: 5,
            page: try allocatePage(context, queuePair.number), owner: queuePair)
    }

    private func makeReceives(_ queuePair: QueuePair, _ context: Context) throws(Refusal) -> Cxgb4Queue? {
        guard queuePair.sharedReceives == nil else { return nil }
        let count = max(queuePair.limits.max_recv_wr + 1, 8)
        let size = Int(count + Cxgb4Codec.statusEntries) * Cxgb4Queue.slot * 2
        let qid = try allocateEgress(context)
        return Cxgb4Queue(
            memory: try mappings(context).allocate(size), qid: qid, entries: count, slotsPerEntry: 2,
            page: try allocatePage(context, qid), owner: queuePair)
    }
}
