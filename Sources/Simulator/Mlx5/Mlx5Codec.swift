import CSimulator
import CSimulatorABI

/// mlx5, ConnectX-4 and later: queues are in the program's memory, and the device reads them after a store to a UAR
/// page (<rdma/mlx5-abi.h>, <infiniband/mlx5dv.h>).
final class Mlx5Codec: Codec {
    init(_ device: Device) {
        super.init(
            device,
            Identity(
                driver: RDMA_DRIVER_MLX5.rawValue, name: "mlx5", abi: 1, pciVendor: 0x15B3, pciDevice: 0x1017,
                company: 0x02C9,
                board: "MT_0000000012", maximumQueuePairs: 1 << 18, maximumRequests: 1 << 15, maximumSGEs: 30,
                maximumReadSGEs: 30, maximumCompletions: (1 << 22) - 1, maximumSharedRequests: (1 << 15) - 1,
                maximumSharedSGEs: 31, maximumInline: 828, maxReadAtomic: 16,
                capabilities: IBV_DEVICE_MEM_WINDOW.rawValue | IBV_DEVICE_MEM_WINDOW_TYPE_2B.rawValue))
    }

    /// Timestamp of the last CQE; it increases with each CQE.
    var clock: UInt64 = 0x1000
    private var lastUARIndex: UInt32 = 0x10

    /// UAR pages are numbered per device; `mlx5_ib_create_cq.uar_page_index` has 16 bits.
    func nextUARIndex() -> UInt32 {
        lastUARIndex += 1
        return lastUARIndex & 0xFFFF
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
        var response = mlx5_ib_query_device_resp()
        response.response_length = UInt32(min(driver.output.count, MemoryLayout<mlx5_ib_query_device_resp>.size))
        response.flags = MLX5_IB_QUERY_DEV_RESP_FLAGS_CQE_128B_PAD.rawValue
        // comp_mask and response_length
        try driver.respond(response, minimum: 8)
    }

    override func create(_ domain: ProtectionDomain, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        try driver.respond(mlx5_ib_alloc_pd_resp(pdn: 0x77), minimum: 4)
    }

    /// On Ethernet the kernel returns the destination's MAC address.
    override func create(_ handle: AddressHandle, _ driver: DriverData) throws(Refusal) {
        try driver.expectNoInput()
        guard device.options.isEthernet, driver.output.count > 0 else { return }
        var response = mlx5_ib_create_ah_resp()
        response.response_length = 10
        let gid = gidHalves(handle.attributes.grh.dgid)
        let lid = device.port(ofGID: gid)
        // The MAC address of a destination that is not on the wire is derived from its GID.
        response.dmac =
            lid != 0
            ? macAddress(of: lid) : withUnsafeBytes(of: gid.1) { ($0[0], $0[1], $0[2], $0[5], $0[6], $0[7]) }
        try driver.respond(response, minimum: 10)
    }

    /// The MAC address of a port; locally administered.
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

    override func checkWindow(type: UInt8) throws(Refusal) {
        try demand(type == 1 || type == 2, EINVAL, "there is no such type of window", has: Int(type))
    }

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
        guard object.kind == .uar else { return }
        pages(object.context).end(unsafeDowncast(object, to: UARPage.self))
    }

    // MARK: - The data path

    override func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool {
        decodeSend(queuePair, request)
    }

    override func retireSend(_ queuePair: QueuePair) { rings(queuePair).retireSend() }

    override func checkIgnored(_ limits: ibv_qp_cap) throws(Refusal) {
        try demand(
            limits.max_recv_wr <= identity.maximumRequests, EINVAL,
            "the device does not support this max_recv_wr, also with a shared receive queue",
            has: Int(limits.max_recv_wr), wants: Int(identity.maximumRequests))
    }

    override func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool {
        rings(queuePair).receives.map { consume($0, queuePair, request) } ?? false
    }

    override func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool {
        ring(queue).consume(request)
    }

    override func waiting(_ queue: SharedReceiveQueue) -> UInt32 { ring(queue).waiting }

    override func write(_ completion: Completion, to queue: CompletionQueue) -> Bool {
        writeCompletion(completion, ring(queue))
    }

    override func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, to queue: CompletionQueue) -> Bool? {
        writeCQE(entry, of: queuePair, ring(queue))
    }

    override func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? {
        let queues = rings(queuePair)
        switch area {
        case UVERBS_SIM_SENDS:
            return .init(start: queues.sends, count: Int(queues.sendWQEBBs) * Mlx5Queues.wqebb)
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

    override func pollArmDoorbell(_ queue: CompletionQueue) -> Bool { readArmDoorbell(queue) }

    override func stored(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {
        ring(page: page, offset: offset, size: size, bytes)
    }

    // MARK: - Faults

    /// Handles a malformed WQE or doorbell record: records the reason, raises IBV_EVENT_QP_FATAL, and moves the queue
    /// pair to ERR.
    func fault(_ queuePair: QueuePair, _ refusal: Refusal) {
        _ = device.record(refusal, of: "a work request")
        rings(queuePair).isBroken = true
        device.raise(IBV_EVENT_QP_FATAL, queuePair)
        device.fail(queuePair, to: IBV_QPS_ERR)
    }
}
