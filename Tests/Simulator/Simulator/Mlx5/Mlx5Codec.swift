import CSimulator
import CSimulatorABI

/// mlx5, ConnectX-4 and later: queues lie in the program's own memory and are read there; a doorbell page says when
/// (<rdma/mlx5-abi.h>, <infiniband/mlx5dv.h>).
final class Mlx5Codec: Codec {
    init(_ device: Device) {
        super.init(
            device,
            Identity(
                driver: RDMA_DRIVER_MLX5.rawValue, name: "mlx5", abi: 1, pciVendor: 0x15B3, pciDevice: 0x1017,
                company: 0x02C9,
                board: "MT_0000000012", maximumQueuePairs: 1 << 18, maximumRequests: 1 << 15, maximumElements: 30,
                maximumReadElements: 30, maximumCompletions: (1 << 22) - 1, maximumSharedRequests: (1 << 15) - 1,
                maximumSharedElements: 31, maximumInline: 828, maximumReads: 16,
                capabilities: IBV_DEVICE_MEM_WINDOW.rawValue | IBV_DEVICE_MEM_WINDOW_TYPE_2B.rawValue))
    }

    /// The time of completions: they come one after the other.
    var clock: UInt64 = 0x1000
    private var nextPageNumber: UInt32 = 0x10

    /// Pages are numbered for all who have the device open; a completion queue has 16 bits for it.
    func takePageNumber() -> UInt32 {
        nextPageNumber += 1
        return nextPageNumber & 0xFFFF
    }

    func pages(_ context: Context) -> Mlx5Pages { unsafeDowncast(context.vendor, to: Mlx5Pages.self) }
    func ring(_ queue: CompletionQueue) -> Mlx5Completions { unsafeDowncast(queue.vendor, to: Mlx5Completions.self) }
    func ring(_ queue: SharedReceiveQueue) -> Mlx5Shared { unsafeDowncast(queue.vendor, to: Mlx5Shared.self) }
    func rings(_ queuePair: QueuePair) -> Mlx5Queues { unsafeDowncast(queuePair.vendor, to: Mlx5Queues.self) }

    // MARK: - Context, domains, addresses

    override func open(_ context: Context, _ driver: DriverData) throws(Refusal) { try openContext(context, driver) }
    override func close(_ context: Context) { pages(context).endAll() }

    override func queryDevice(_ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        if driver.output.count == 0 { return }
        var answer = mlx5_ib_query_device_resp()
        answer.response_length = UInt32(min(driver.output.count, MemoryLayout<mlx5_ib_query_device_resp>.size))
        answer.flags = MLX5_IB_QUERY_DEV_RESP_FLAGS_CQE_128B_PAD.rawValue
        // comp_mask and response_length
        try driver.answer(answer, minimum: 8)
    }

    override func create(_ domain: ProtectionDomain, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        try driver.answer(mlx5_ib_alloc_pd_resp(pdn: 0x77), minimum: 4)
    }

    /// On Ethernet the kernel answers where a packet goes, in hardware's terms.
    override func create(_ handle: AddressHandle, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        guard device.options.isEthernet, driver.output.count > 0 else { return }
        var answer = mlx5_ib_create_ah_resp()
        answer.response_length = 10
        let gid = gidHalves(handle.attributes.grh.dgid)
        let lid = device.port(ofGID: gid)
        // Of another peer it stands in its GID.
        answer.dmac =
            lid != 0
            ? macAddress(of: lid) : withUnsafeBytes(of: gid.1) { ($0[0], $0[1], $0[2], $0[5], $0[6], $0[7]) }
        try driver.answer(answer, minimum: 10)
    }

    /// Of a port; locally administered.
    func macAddress(of lid: UInt16) -> (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8) {
        (0x02, 0, 0, 0x15, UInt8(lid >> 8), UInt8(lid & 0xFF))
    }

    override func map(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        try mapPage(context, offset: offset, length: length, protection: protection)
    }

    override func call(_ context: Context, _ method: inout MethodCall) throws(Refusal) {
        try callMethod(context, method)
    }

    // MARK: - Queues

    override func create(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try createCompletions(queue, flags: flags, driver)
    }

    override func resize(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        try resizeCompletions(queue, entries: entries, driver)
    }

    override func create(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        try createShared(queue, driver)
    }

    override func create(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try createQueues(queuePair, flags: flags, driver)
    }

    override func reset(_ queuePair: QueuePair) { rings(queuePair).reset() }

    override func destroy(_ object: Object) {
        guard object.kind == .doorbellPage else { return }
        pages(object.context).end(unsafeDowncast(object, to: DoorbellPage.self))
    }

    // MARK: - The data path

    override func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool {
        decodeSend(queuePair, request)
    }

    override func retireSend(_ queuePair: QueuePair) { rings(queuePair).retireSend() }

    override func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool {
        rings(queuePair).receives.map { take($0, queuePair, request) } ?? false
    }

    override func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool {
        ring(queue).take(request)
    }

    override func waiting(_ queue: SharedReceiveQueue) -> UInt32 { ring(queue).waiting }

    override func write(_ completion: Completion, to queue: CompletionQueue) -> Bool {
        writeCompletion(completion, ring(queue))
    }

    override func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, to queue: CompletionQueue) -> Bool? {
        writeEntry(entry, of: queuePair, ring(queue))
    }

    override func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        let queues = rings(queuePair)
        switch area {
        case UVERBS_SIM_SENDS:
            return .init(start: queues.sends, count: Int(queues.sendBlocks) * Mlx5Queues.block)
        case UVERBS_SIM_RECEIVES:
            return queues.receives.map { .init(start: $0.bytes, count: Int($0.count) * $0.stride) }
        default: return queues.record.bytes
        }
    }

    override func memory(_ queue: SharedReceiveQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        let shared = ring(queue)
        if area == UVERBS_SIM_SHARED_RECORD { return shared.record.bytes }
        return .init(start: shared.bytes, count: Int(shared.count) * shared.stride)
    }

    override func memory(_ queue: CompletionQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        let completions = ring(queue)
        if area == UVERBS_SIM_COMPLETION_RECORD { return completions.record.bytes }
        return .init(start: completions.bytes, count: Int(completions.count) * completions.stride)
    }

    override func looksAtNotification(_ queue: CompletionQueue) -> Bool { looksAtDoorbell(queue) }

    override func stored(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {
        ring(page: page, offset: offset, size: size, bytes)
    }

    // MARK: - Faults

    /// What the program has put into a queue makes no sense: the reason is kept, and the queue pair is dead.
    func fault(_ queuePair: QueuePair, _ refusal: Refusal) {
        _ = device.keep(refusal, of: "a work request")
        rings(queuePair).isBroken = true
        device.raise(IBV_EVENT_QP_FATAL, queuePair)
        device.fail(queuePair, to: IBV_QPS_ERR)
    }
}
