import CSimulator
import CSimulatorABI

/// cxgb4, Chelsio T4, T5 and T6 (iWARP): queues are in memory of the kernel, which the program maps
/// (<rdma/cxgb4-abi.h>). A store to a doorbell page tells the adapter how many slots of 64 bytes were filled. The formats
/// of WRs and CQEs are in no published header; they are written down where the simulator reads or writes them.
final class Cxgb4Codec: Codec {
    /// Pages that are doorbell pages, by number.
    var pages: [Cxgb4Page?] = []
    /// Send and receive queues by QID, completion queues by CQID, from `firstQID` on.
    private var egress: [Cxgb4Queue?] = []
    private var ingress: [CompletionQueue?] = []
    private var nextChunk = Cxgb4Codec.firstQID
    /// Index, in the adapter's table of receive requests, of the next shared receive queue.
    var nextRequestIndex: UInt32 = 0x40
    private var lastDomain: UInt32 = 0x20
    /// Timestamp of the last CQE.
    var clock: UInt64 = 0x1000
    /// The kernel has stopped the doorbells (`db_off`).
    private(set) var hasStoppedDoorbells = false

    /// First number of queue pairs, and of completion queues: two tables with the same range.
    static let firstQID: UInt32 = 1024
    static let qidCount: UInt32 = 1 << 16
    static let longestQueue: UInt32 = 8190

    init(_ device: Device) {
        let numbers: [(pci: UInt32, board: StaticString)] = [
            (0x4401, "T420-CR"), (0x5401, "T520-CR"), (0x6401, "T6225-CR"),
        ]
        let number = numbers[device.options.chip - 4]
        super.init(
            device,
            Identity(
                driver: RDMA_DRIVER_CXGB4.rawValue, name: "cxgb4", abi: 3, firmware: (0x011B_0100, "1.27.1.0"),
                pciVendor: 0x1425, pciDevice: number.pci, company: 0x1425, board: number.board,
                maximumQueuePairs: Cxgb4Codec.qidCount / 2, maximumRequests: Cxgb4Codec.longestQueue, maximumSGEs: 4,
                maximumReadSGEs: 1, maximumCompletions: 65_518, maximumSharedRequests: Cxgb4Codec.longestQueue,
                maximumSharedSGEs: 4, maximumInline: 280, maxReadAtomic: 32,
                capabilities: IBV_DEVICE_MEM_WINDOW.rawValue | IBV_DEVICE_MEM_MGT_EXTENSIONS.rawValue))
    }

    var isT4: Bool { device.options.chip == 4 }
    var hasWriteImmediate: Bool { device.options.chip == 6 && !device.options.hasShortCQEs }
    var hasWriteComplete: Bool { !isT4 && !device.options.hasShortCQEs }
    var hasShared: Bool { !isT4 && !device.options.hasShortCQEs }

    func mappings(_ context: Context) -> Cxgb4Mappings { unsafeDowncast(context.vendor, to: Cxgb4Mappings.self) }
    func ring(_ queue: CompletionQueue) -> Cxgb4Completions { unsafeDowncast(queue.vendor, to: Cxgb4Completions.self) }
    func ring(_ queue: SharedReceiveQueue) -> Cxgb4Shared { unsafeDowncast(queue.vendor, to: Cxgb4Shared.self) }
    func queues(_ queuePair: QueuePair) -> Cxgb4Queues { unsafeDowncast(queuePair.vendor, to: Cxgb4Queues.self) }

    // MARK: - Numbers

    override var firstNumber: UInt32 { Cxgb4Codec.firstQID }

    override func allocateNumber(_ queuePair: QueuePair) throws(Refusal) -> UInt32 {
        try allocateEgress(queuePair.context)
    }

    func allocateEgress(_ context: Context) throws(Refusal) -> UInt32 {
        if mappings(context).egress.isEmpty { try allocateChunk(context) }
        return mappings(context).egress.removeFirst()
    }

    func allocateIngress(_ context: Context) throws(Refusal) -> UInt32 {
        if mappings(context).ingress.isEmpty { try allocateChunk(context) }
        return mappings(context).ingress.removeFirst()
    }

    /// The queues of one doorbell page belong to one context.
    private func allocateChunk(_ context: Context) throws(Refusal) {
        let size = qidMask + 1
        try demand(
            nextChunk + size <= Cxgb4Codec.firstQID + Cxgb4Codec.qidCount, ENOMEM, "no number is left for a queue")
        // The last half of a dense page has no write-combining doorbells.
        let first = device.options.isDense ? size / 2 : 0
        for index in first..<size {
            mappings(context).egress.append(nextChunk + index)
            mappings(context).ingress.append(nextChunk + index)
        }
        nextChunk += size
    }

    /// `qid_mask`: queues of a doorbell page, less 1. A page has room for the doorbells of 32.
    var qidMask: UInt32 { device.options.isDense ? 63 : 31 }

    func add(_ queue: Cxgb4Queue) {
        let index = Int(queue.qid - Cxgb4Codec.firstQID)
        while egress.count <= index { egress.append(nil) }
        egress[index] = queue
    }

    func add(_ queue: CompletionQueue, _ number: UInt32) {
        let index = Int(number - Cxgb4Codec.firstQID)
        while ingress.count <= index { ingress.append(nil) }
        ingress[index] = queue
    }

    func egressQueue(_ qid: UInt32) -> Cxgb4Queue? {
        let index = Int(qid) - Int(Cxgb4Codec.firstQID)
        return egress.indices.contains(index) ? egress[index] : nil
    }

    func ingressQueue(_ qid: UInt32) -> CompletionQueue? {
        let index = Int(qid) - Int(Cxgb4Codec.firstQID)
        return ingress.indices.contains(index) ? ingress[index] : nil
    }

    // MARK: - Contexts, domains, regions

    override func open(_ context: Context, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        let mappings = Cxgb4Mappings(context.descriptor)
        context.vendor = mappings
        // A library from before the status page has no room for its key.
        guard driver.output.count >= 12 else { return }
        let page = try mappings.allocate(Cxgb4Mappings.pageSize)
        page.bytes.storeBytes(of: hasWriteComplete ? 1 : 0, toByteOffset: 1, as: UInt8.self)
        let ranges = (UInt64(Cxgb4Codec.firstQID), UInt64(Cxgb4Codec.qidCount))
        for (offset, value) in [(8, ranges.0), (16, ranges.1), (24, ranges.0), (32, ranges.1)] {
            page.bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
        }
        mappings.statusPage = page
        page.bytes.storeBytes(of: hasStoppedDoorbells ? 1 : 0, as: UInt8.self)
        let key = UInt64(mappings.offer(page))
        driver.output.storeBytes(of: key, as: UInt64.self)
        driver.output.storeBytes(of: UInt32(Cxgb4Mappings.pageSize), toByteOffset: 8, as: UInt32.self)
    }

    override func close(_ context: Context) { mappings(context).endAll() }

    override func queryDevice(_ driver: DriverData) throws(Refusal) {
        try demand(
            driver.input.count == 0 && driver.output.count == 0, EINVAL, "driver data, or room for them, in bytes",
            has: driver.input.count + driver.output.count)
    }

    override func create(_ domain: ProtectionDomain, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        lastDomain += 1
        try driver.respond(c4iw_alloc_pd_resp(pdid: lastDomain), minimum: 4)
    }

    override func create(_ handle: AddressHandle, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "iWARP has no address handles")
    }

    override func checkRegion(length: UInt64) throws(Refusal) {
        try demand(
            device.options.chip == 6 || length < 8 << 30, EINVAL, "a region of 8 GiB or more, in bytes",
            has: Int(truncatingIfNeeded: length))
    }

    override func checkReregistration() throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this driver has no REREG_MR")
    }

    override func checkWindow(type: UInt8) throws(Refusal) {
        try demand(device.options.hasWindows, EOPNOTSUPP, "this kernel's driver has no memory windows")
        try demand(type == 1, EINVAL, "only windows of type 1", has: Int(type))
    }

    override func map(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        // The kernel's key has 32 bits.
        let entry = try mappings(context).map(key: UInt32(truncatingIfNeeded: offset), length: length)
        return sim_mapping(
            trapped: entry.isDoorbell && device.options.isTrapped, device: Int32(device.index), page: entry.page,
            offset: entry.memory.offset)
    }

    // MARK: - Queues

    override func create(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try createCompletions(queue, flags: flags, driver)
    }

    override func create(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        try createShared(queue, driver)
    }

    override func create(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try createQueues(queuePair, flags: flags, driver)
    }

    override func check(_ limits: ibv_qp_cap) throws(Refusal) { try checkLimits(limits) }

    override func checkShared(requests: UInt32, sges: UInt32) throws(Refusal) {
        try demand(hasShared, device.options.hasShortCQEs ? EOPNOTSUPP : EINVAL, "no shared receive queues")
        try demand(
            requests <= identity.maximumSharedRequests, E2BIG, "the device does not support this max_wr",
            has: Int(requests), wants: Int(identity.maximumSharedRequests))
        try demand(
            sges <= identity.maximumSharedSGEs, E2BIG, "the device does not support this max_sge",
            has: Int(sges), wants: Int(identity.maximumSharedSGEs))
    }

    override func resize(_ queue: SharedReceiveQueue, requests: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EINVAL, "this device does not resize shared receive queues")
    }

    override var hasSoftwareLimit: Bool { true }

    override func query(_ queue: SharedReceiveQueue) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this driver has no QUERY_SRQ")
    }

    override func destroy(_ object: Object) {
        switch object.kind {
        case .completionQueue:
            let ring = ring(unsafeDowncast(object, to: CompletionQueue.self))
            ingress[Int(ring.number - Cxgb4Codec.firstQID)] = nil
            end(ring.page)
            mappings(object.context).end(ring.memory)
        case .sharedReceiveQueue: end(ring(unsafeDowncast(object, to: SharedReceiveQueue.self)).queue, object.context)
        case .queuePair:
            let queuePair = unsafeDowncast(object, to: QueuePair.self)
            device.endConnection(queuePair, .abort)
            end(queues(queuePair).sends, object.context)
            if let receives = queues(queuePair).receives { end(receives, object.context) }
        default: break
        }
    }

    private func end(_ queue: Cxgb4Queue, _ context: Context) {
        egress[Int(queue.qid - Cxgb4Codec.firstQID)] = nil
        queue.owner = nil
        end(queue.page)
        mappings(context).end(queue.memory)
    }

    private func end(_ page: Cxgb4Page) {
        pages[Int(page.number)] = nil
        mappings(page.context).end(page.memory)
    }

    // MARK: - Doorbells

    override func stored(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {
        handleStore(page, Int(offset), bytes)
    }

    override func pollArmDoorbell(_ queue: CompletionQueue) -> Bool { isDue(queue) }

    override func ringDoorbell(_ queuePair: QueuePair, isReceive: Bool, slots: UInt32) throws(Refusal) {
        try ringFromKernel(queuePair, isReceive: isReceive, slots: slots)
    }

    /// Stops the doorbells, as the kernel does when the adapter has dropped some; or resumes them, which rings those
    /// that MODIFY_QP has collected.
    override func stopDoorbells(_ isStopped: Bool) throws(Refusal) {
        try demand(isT4, EOPNOTSUPP, "only T4 drops doorbells")
        hasStoppedDoorbells = isStopped
        for context in device.contexts {
            mappings(context).statusPage?.bytes.storeBytes(of: isStopped ? 1 : 0, as: UInt8.self)
        }
        guard !isStopped else { return }
        for queue in egress { if let queue { release(queue) } }
        device.run()
    }

    // MARK: - The data path

    override func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool { decodeSend(queuePair, request) }
    override func retireSend(_ queuePair: QueuePair) { queues(queuePair).sends.retire() }
    override func finishRun(_ queuePair: QueuePair) { writeDelayed(queues(queuePair)) }

    override func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool {
        queues(queuePair).receives.map { consume($0, request) } ?? false
    }

    override func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool {
        guard consume(ring(queue).queue, request) else { return false }
        request.tag += UInt64(ring(queue).firstIndex)
        return true
    }

    override func write(_ completion: Completion, to queue: CompletionQueue) -> Bool {
        writeCompletion(completion, ring(queue))
        return true
    }

    override func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, to queue: CompletionQueue) -> Bool? {
        writeCQE(entry, of: queuePair, ring(queue))
    }

    override func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        switch area {
        case UVERBS_SIM_SENDS: return queues(queuePair).sends.all
        case UVERBS_SIM_RECEIVES: return queues(queuePair).receives?.all
        default: return nil
        }
    }

    override func memory(_ queue: SharedReceiveQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        area == UVERBS_SIM_SHARED_RECEIVES ? ring(queue).queue.all : nil
    }

    override func memory(_ queue: CompletionQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        area == UVERBS_SIM_COMPLETIONS ? ring(queue).all : nil
    }

    // MARK: - Connections and errors

    override func start(_ queuePair: QueuePair, isInitiator: Bool) {
        // The initiator's kernel driver sends a READ, the first message of a peer-to-peer connection.
        if isInitiator { writeConnectionRead(queuePair) }
    }

    override func markError(_ queuePair: QueuePair) { queues(queuePair).markError() }

    override func markFlush(_ queuePair: QueuePair) {
        queues(queuePair).markError()
        for queue in [queuePair.receiveCompletions, queuePair.sendCompletions] {
            ring(queue).markError()
            // Without regard to arming, as in the kernel.
            queue.channel?.add(queue)
            if queuePair.receiveCompletions === queuePair.sendCompletions { break }
        }
    }

    override func receiveTerminate(_ queuePair: QueuePair) { writeTerminate(queuePair) }

    override func abandonReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) {
        // The library completes this request of a shared receive queue.
        if queuePair.sharedReceives != nil {
            queues(queuePair).sends.markShared(UInt32(truncatingIfNeeded: request.tag))
        }
    }

    /// Handles a malformed WR or doorbell: records the reason, raises IBV_EVENT_QP_FATAL, and ends the connection.
    func fault(_ owner: EventSource?, _ refusal: Refusal) {
        _ = device.record(refusal, of: "a work request")
        guard let owner else { return }
        guard owner.kind == .queuePair else { return device.raise(IBV_EVENT_SRQ_ERR, owner) }
        let queuePair = unsafeDowncast(owner, to: QueuePair.self)
        queues(queuePair).isBroken = true
        if queuePair.state == IBV_QPS_RTS.rawValue {
            device.terminate(queuePair, IBV_EVENT_QP_FATAL)
        } else {
            device.raise(IBV_EVENT_QP_FATAL, queuePair)
            queuePair.state = IBV_QPS_ERR.rawValue
            markFlush(queuePair)
        }
    }
}
