import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

/// An mlx5 provider in which a test can alter every step: the driver data of its commands are structs, and its queues
/// are in `memory`.
final class Mlx5Bench {
    let driver: Driver
    private(set) var context: KernelContext! = nil
    private(set) var domain: UInt32 = 0
    /// The completion queue's handle, after `readyQueues`.
    private(set) var completions: UInt32 = 0
    private(set) var page = Page(handle: 0, offset: 0, number: 0)
    /// CQEs at 0, doorbell records at 0x10000, the WQEs of the queue pair at 0x20000.
    let memory: UnsafeMutableRawPointer
    static let memorySize = 1 << 20

    struct Page {
        var handle: UInt32
        var offset: UInt64
        var number: UInt32
    }

    /// - Parameter opens: Whether to open a context and allocate a protection domain and a UAR page.
    init(_ description: String = "mlx5", opens: Bool = true) throws {
        driver = try Driver(description)
        // The memory behind it stays inaccessible, also when other tests map memory.
        memory = try #require(
            mmap(nil, 2 * Mlx5Bench.memorySize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        mprotect(memory, Mlx5Bench.memorySize, PROT_READ | PROT_WRITE)
        guard opens else { return }
        context = try open(Mlx5Bench.goodContext)
        domain = try driver.kernel.allocateDomain(driver: DriverData(input: .init(start: nil, count: 0), output: room))
        page = try allocatePage()
    }

    deinit {
        munmap(memory, 2 * Mlx5Bench.memorySize)
        room.deallocate()
    }

    /// Buffer for the driver's responses, which no test reads.
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 8)

    // MARK: - Control

    static var goodContext: mlx5_ib_alloc_ucontext_req_v2 {
        var request = mlx5_ib_alloc_ucontext_req_v2()
        request.total_num_bfregs = 16
        request.num_low_latency_bfregs = 4
        request.max_cqe_version = 1
        request.lib_caps = UInt64(MLX5_LIB_CAP_4K_UAR.rawValue | MLX5_LIB_CAP_DYN_UAR.rawValue)
        return request
    }

    /// Calls `body` with driver data: the first `length` bytes of the struct, and a buffer of `room` bytes.
    func with<Request, Result>(
        _ request: Request, length: Int? = nil, room: Int = 256, _ body: (DriverData) throws -> Result
    ) throws -> Result {
        try withUnsafeBytes(of: request) { bytes in
            var all = [UInt8](bytes)
            let wanted = length ?? all.count
            // Bytes beyond the struct, which are not zero.
            if wanted > all.count { all += [UInt8](repeating: 1, count: wanted - all.count) }
            return try all.withUnsafeBytes {
                try body(
                    DriverData(
                        input: UnsafeRawBufferPointer(rebasing: $0[..<wanted]),
                        output: UnsafeMutableRawBufferPointer(rebasing: self.room[..<room])))
            }
        }
    }

    @discardableResult
    func open(
        _ request: mlx5_ib_alloc_ucontext_req_v2, length: Int? = nil, room: Int = 256
    ) throws -> KernelContext {
        try with(request, length: length, room: room) { try driver.kernel.getContext(driver: $0) }
    }

    func allocatePage(type: UInt64 = 0) throws -> Page {
        var method = Method(MLX5_IB_OBJECT_UAR, MLX5_IB_METHOD_UAR_OBJ_ALLOC)
        let handle = method.newHandle(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE)
        method.constant(MLX5_IB_ATTR_UAR_OBJ_ALLOC_TYPE, type)
        let offset = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, UInt64.self)
        let length = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, UInt32.self)
        let number = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, UInt32.self)
        try driver.kernel.call(&method)
        #expect(method[length] == 4096)
        return Page(handle: method[handle], offset: method[offset], number: method[number])
    }

    /// The address of an offset in `memory`.
    func address(_ offset: Int) -> UInt64 { UInt64(UInt(bitPattern: memory + offset)) }

    /// For a completion queue of 16 CQEs.
    var goodCompletions: mlx5_ib_create_cq {
        var request = mlx5_ib_create_cq()
        request.buf_addr = address(0)
        request.db_addr = address(0x10000)
        request.cqe_size = 64
        request.flags = UInt16(MLX5_IB_CREATE_CQ_FLAGS_UAR_PAGE_INDEX.rawValue)
        request.uar_page_index = UInt16(page.number)
        return request
    }

    func createCompletions(
        _ request: mlx5_ib_create_cq, length: Int? = nil, room: Int = 256, entries: UInt32 = 15
    ) throws -> UInt32 {
        let wanted = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, entries: entries,
            asyncDescriptor: context.asyncDescriptor
        )
        return try with(request, length: length, room: room) {
            try driver.kernel.createCompletionQueue(wanted, driver: $0)
        }.handle
    }

    /// For 16 receive WQEs of 64 bytes, and 16 send WQEBBs behind them.
    var goodQueues: mlx5_ib_create_qp {
        var request = mlx5_ib_create_qp()
        request.buf_addr = address(0x20000)
        request.db_addr = address(0x10040)
        request.sq_wqe_count = 16
        request.rq_wqe_count = 16
        request.rq_wqe_shift = 6
        request.flags = UInt32(MLX5_QP_FLAG_UAR_PAGE_INDEX)
        request.uidx = 0x2A
        request.bfreg_index = page.number
        return request
    }

    func createQueues(
        _ request: mlx5_ib_create_qp, _ completions: UInt32, length: Int? = nil, type: ibv_qp_type = IBV_QPT_RC
    ) throws -> KernelQueuePair {
        let wanted = QueuePairRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, type: type, domain: domain, sendCompletions: completions,
            receiveCompletions: completions,
            limits: ibv_qp_cap(max_send_wr: 8, max_recv_wr: 8, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0),
            signalsAll: false, asyncDescriptor: context.asyncDescriptor)
        return try with(request, length: length) { try driver.kernel.createQueuePair(wanted, driver: $0) }
    }

    /// A queue pair in RTS that is connected to itself.
    func readyQueues(_ type: ibv_qp_type = IBV_QPT_RC) throws -> KernelQueuePair {
        completions = try createCompletions(goodCompletions)
        // Like libmlx5, marks every CQE as invalid.
        for entry in 0..<16 { memory.storeBytes(of: 0xF0, toByteOffset: 64 * entry + 63, as: UInt8.self) }
        let pair = try createQueues(goodQueues, completions, type: type)
        var attributes = ibv_qp_attr()
        attributes.port_num = 1
        attributes.path_mtu = IBV_MTU_1024
        attributes.ah_attr.port_num = 1
        attributes.ah_attr.dlid = 1
        attributes.dest_qp_num = pair.number
        attributes.max_dest_rd_atomic = 1
        attributes.max_rd_atomic = 1
        let isRC = type == IBV_QPT_RC
        let ways: [(ibv_qp_state, [ibv_qp_attr_mask])] = [
            (IBV_QPS_INIT, [IBV_QP_PKEY_INDEX, IBV_QP_PORT, isRC ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY]),
            (
                IBV_QPS_RTR,
                isRC
                    ? [
                        IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC,
                        IBV_QP_MIN_RNR_TIMER,
                    ] : []
            ),
            (
                IBV_QPS_RTS,
                [IBV_QP_SQ_PSN]
                    + (isRC ? [IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC] : [])
            ),
        ]
        for (state, bits) in ways {
            attributes.qp_state = state
            try driver.kernel.modifyQueuePair(
                pair.handle, attributes, mask: bits.reduce(IBV_QP_STATE.rawValue) { $0 | $1.rawValue })
        }
        return pair
    }

    // MARK: - Queues in memory

    /// Writes words, big endian, to the send queue at a WQEBB.
    func put(_ words: [UInt32], wqebb: Int = 0) {
        for (index, word) in words.enumerated() {
            memory.storeBytes(
                of: word.bigEndian, toByteOffset: 0x20000 + 16 * 64 + 64 * wqebb + 4 * index, as: UInt32.self)
        }
    }

    /// Sets the send queue's word of the doorbell record (MLX5_SND_DBR).
    func setRecord(_ value: UInt32) {
        memory.storeBytes(of: value.bigEndian, toByteOffset: 0x10044, as: UInt32.self)
    }

    /// Reports a store to a UAR page, as the signal handler does.
    func store(_ value: UInt64, at offset: UInt32, size: UInt32 = 8, page number: UInt32? = nil) {
        let bytes = withUnsafeBytes(of: value.bigEndian) { [UInt8]($0) }
        sim_stored(driver.device, number ?? page.number, offset, size, bytes)
    }
}
