import CSimulator
import CSimulatorABI

/// hfi1: the kernel's rdmavt executes work requests. Receive queues and completion queues are in the kernel's memory,
/// which the program maps (<rdma/rvt-abi.h>); sends are posted by the command POST_SEND.
final class RdmavtCodec: Codec {
    init(_ device: Device) {
        super.init(
            device,
            Identity(
                driver: RDMA_DRIVER_HFI1.rawValue, name: "hfi1", abi: 2, pciVendor: 0x8086, pciDevice: 0x24F0,
                company: 0x1175,
                board: "Intel Omni-Path HFI Silicon 100 Series", maximumQueuePairs: 16384, maximumRequests: 16383,
                maximumSGEs: 16, maximumReadSGEs: 16, maximumCompletions: 0x2F_FFFF,
                maximumSharedRequests: 0x1_FFFF, maximumSharedSGEs: 255, maximumInline: 0, maxReadAtomic: 16,
                capabilities: 0))
    }

    override var runsInCommands: Bool { true }

    override func open(_ context: Context, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        context.vendor = RdmavtMappings(context.descriptor)
    }

    override func close(_ context: Context) { mappings(context).endAll() }

    func mappings(_ context: Context) -> RdmavtMappings { unsafeDowncast(context.vendor, to: RdmavtMappings.self) }

    /// Each offset that a command returned can be mapped once, whole or in part.
    override func map(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        try mappings(context).map(offset: offset, length: length)
        return sim_mapping(trapped: false, device: Int32(device.index), page: 0, offset: offset)
    }

    /// Returns the mmap(2) offset of a queue to the program.
    private func offer(_ memory: QueueMemory, _ context: Context, _ driver: DriverData) throws(Refusal) {
        try driver.respond(memory.offset, minimum: 8)
        mappings(context).offer(memory)
    }

    // MARK: - Completion queues

    override func create(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        try demand(flags == 0, EOPNOTSUPP, "this driver knows no flags of completion queues", has: Int(flags))
        let ring = try RdmavtCompletions(mappings(queue.context), entries: queue.entries)
        try offer(ring.memory, queue.context, driver)
        queue.vendor = ring
    }

    override func resize(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        let old = unsafeDowncast(queue.vendor, to: RdmavtCompletions.self)
        try demand(
            entries >= old.count, EINVAL, "more unpolled CQEs than the new size has room for", has: Int(entries),
            wants: Int(old.count))
        let ring = try RdmavtCompletions(mappings(queue.context), entries: entries)
        try offer(ring.memory, queue.context, driver)
        old.move(to: ring)
        mappings(queue.context).end(old.memory)
        queue.vendor = ring
        queue.entries = entries
    }

    override func notify(_ queue: CompletionQueue, solicitedOnly: Bool) throws(Refusal) {
        // Arming for solicited completions does not undo arming for any.
        if queue.notification != .next { queue.notification = solicitedOnly ? .solicited : .next }
    }

    override func write(_ completion: Completion, to queue: CompletionQueue) -> Bool {
        unsafeDowncast(queue.vendor, to: RdmavtCompletions.self).append(cqe(completion))
    }

    private func cqe(_ completion: Completion) -> ib_uverbs_wc {
        var entry = ib_uverbs_wc()
        entry.wr_id = completion.tag
        entry.status = completion.status
        entry.opcode = opcode(completion)
        entry.vendor_err = completion.vendorError
        entry.byte_len = completion.byteLength
        entry.ex.imm_data = completion.immediate
        entry.qp_num = completion.queuePair.number
        entry.src_qp = completion.source
        if completion.isReceive {
            if completion.hasImmediate { entry.wc_flags |= IBV_WC_WITH_IMM.rawValue }
            // The kernel's IB_WC_WITH_INVALIDATE, which has another value than IBV_WC_WITH_INV of verbs.h.
            if completion.invalidated { entry.wc_flags |= 1 << 2 }
            if completion.isGlobal { entry.wc_flags |= IBV_WC_GRH.rawValue }
            entry.port_num = 1
        }
        entry.pkey_index = completion.pkeyIndex
        entry.slid = completion.lid
        entry.sl = completion.serviceLevel
        entry.dlid_path_bits = completion.pathBits
        return entry
    }

    private func opcode(_ completion: Completion) -> UInt32 {
        if completion.isReceive {
            return (completion.operation == .write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV).rawValue
        }
        switch completion.operation {
        case .write: return IBV_WC_RDMA_WRITE.rawValue
        case .read: return IBV_WC_RDMA_READ.rawValue
        case .compareAndSwap: return IBV_WC_COMP_SWAP.rawValue
        case .fetchAndAdd: return IBV_WC_FETCH_ADD.rawValue
        default: return IBV_WC_SEND.rawValue
        }
    }

    // MARK: - Queue pairs and shared receive queues

    override func create(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        try demand(flags == 0, EINVAL, "this driver knows no flags of queue pairs", has: Int(flags))
        let limits = queuePair.limits
        if queuePair.sharedReceives == nil {
            try demand(
                limits.max_send_wr + limits.max_recv_wr > 0 && limits.max_send_sge + limits.max_recv_sge > 0, EINVAL,
                "a queue pair without work requests or SGEs")
        }
        // POST_SEND copies the work request: there is no inline data.
        queuePair.limits.max_inline_data = 0
        guard queuePair.sharedReceives == nil else {
            try driver.respond(0 as UInt64, minimum: 8)
            queuePair.vendor = RdmavtQueues(receives: nil)
            return
        }
        let ring = try RdmavtReceives(
            mappings(queuePair.context), requests: limits.max_recv_wr, sges: limits.max_recv_sge)
        try offer(ring.memory, queuePair.context, driver)
        queuePair.vendor = RdmavtQueues(receives: ring)
    }

    func queues(_ queuePair: QueuePair) -> RdmavtQueues { unsafeDowncast(queuePair.vendor, to: RdmavtQueues.self) }

    override func reset(_ queuePair: QueuePair) {
        queues(queuePair).sends.removeAll()
        queues(queuePair).receives?.clear()
    }

    override func create(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        let ring = try RdmavtReceives(
            mappings(queue.context), requests: queue.maximumRequests, sges: queue.maximumSGEs)
        try offer(ring.memory, queue.context, driver)
        queue.vendor = ring
    }

    /// Writes the new mmap(2) offset to the address in the driver data.
    override func resize(_ queue: SharedReceiveQueue, requests: UInt32, _ driver: DriverData) throws(Refusal) {
        try demand(
            driver.input.count == 8, EINVAL, "the driver data must be the address for the offset, in bytes",
            has: driver.input.count, wants: 8)
        guard let place = UnsafeMutableRawPointer(bitPattern: UInt(driver.input.load(0, as: UInt64.self))) else {
            throw Refusal(EFAULT, "the address for the offset is null")
        }
        let old = unsafeDowncast(queue.vendor, to: RdmavtReceives.self)
        try demand(
            requests >= 1 && requests <= identity.maximumSharedRequests && requests >= old.count, EINVAL,
            "more posted WQEs than the new size has room for", has: Int(requests), wants: Int(old.count))
        let ring = try RdmavtReceives(mappings(queue.context), requests: requests, sges: queue.maximumSGEs)
        old.move(to: ring)
        mappings(queue.context).offer(ring.memory)
        mappings(queue.context).end(old.memory)
        place.storeBytes(of: ring.memory.offset, as: UInt64.self)
        queue.vendor = ring
        queue.maximumRequests = requests
    }

    override func destroy(_ object: Object) {
        switch object.kind {
        case .completionQueue:
            let queue = unsafeDowncast(object, to: CompletionQueue.self)
            mappings(queue.context).end(unsafeDowncast(queue.vendor, to: RdmavtCompletions.self).memory)
        case .sharedReceiveQueue:
            let queue = unsafeDowncast(object, to: SharedReceiveQueue.self)
            mappings(queue.context).end(unsafeDowncast(queue.vendor, to: RdmavtReceives.self).memory)
        case .queuePair:
            let queuePair = unsafeDowncast(object, to: QueuePair.self)
            if let ring = queues(queuePair).receives { mappings(queuePair.context).end(ring.memory) }
        default: break
        }
    }

    // MARK: - The data path

    override func post(
        _ context: Context, _ request: UnsafeRawBufferPointer, _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) {
        try postSends(context, request, response)
    }

    override func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool {
        guard let first = queues(queuePair).sends.first else { return false }
        request.copy(first)
        return true
    }

    override func retireSend(_ queuePair: QueuePair) { queues(queuePair).sends.removeFirst() }

    override func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool {
        queues(queuePair).receives?.consume(request) ?? false
    }

    override func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool {
        unsafeDowncast(queue.vendor, to: RdmavtReceives.self).consume(request)
    }

    override func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        area == UVERBS_SIM_RECEIVES ? queues(queuePair).receives?.memory.all : nil
    }

    override func memory(_ queue: SharedReceiveQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        area == UVERBS_SIM_SHARED_RECEIVES ? unsafeDowncast(queue.vendor, to: RdmavtReceives.self).memory.all : nil
    }

    override func memory(_ queue: CompletionQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        area == UVERBS_SIM_COMPLETIONS ? unsafeDowncast(queue.vendor, to: RdmavtCompletions.self).memory.all : nil
    }

    override func waiting(_ queue: SharedReceiveQueue) -> UInt32 {
        unsafeDowncast(queue.vendor, to: RdmavtReceives.self).count
    }
}

/// The queues of a queue pair: the sends that POST_SEND has queued, and the receive queue.
final class RdmavtQueues: VendorState {
    var sends: [SendRequest] = []
    let receives: RdmavtReceives?

    init(receives: RdmavtReceives?) {
        self.receives = receives
        super.init()
    }
}
