import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

@Suite("Simulator: faulty hfi1 providers are refused")
struct RdmavtTests {
    private let driver: Driver
    private let context: KernelContext
    private let domain: UInt32
    private let queue: UInt32
    private let offset: UInt64

    init() throws {
        driver = try Driver("hfi1")
        context = try driver.kernel.getContext()
        domain = try driver.kernel.allocateDomain()
        var offset: UInt64 = 0
        let request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, entries: 100, asyncDescriptor: context.asyncDescriptor)
        let kernel = driver
        queue = try DriverData.response(&offset) { data throws(KernelError) in
            try kernel.kernel.createCompletionQueue(request, driver: data)
        }.handle
        self.offset = offset
    }

    @Test("a queue can be mapped once, with MAP_SHARED, at its own offset, up to its length")
    func mapping() {
        // A header of 8 bytes, and 101 elements of 48.
        #expect(driver.map(offset, 8 + 48 * 101, private: true) == EINVAL)
        #expect(driver.refusal.contains("private mapping"))
        #expect(driver.map(offset, 8193) == EINVAL)
        #expect(driver.refusal == "mmap: a mapping longer than the queue, in bytes (8193, not 8192)")
        #expect(driver.map(offset + 4096, 4096) == EINVAL)
        #expect(driver.map(offset, 8 + 48 * 101) == 0)
        #expect(driver.map(offset, 8 + 48 * 101) == EINVAL)
        #expect(driver.refusal.contains("no command returned it, or it is mapped already"))
    }

    @Test("creation of a queue without room for its mmap offset is refused")
    func room() throws {
        let request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, entries: 100, asyncDescriptor: context.asyncDescriptor)
        driver.expectRefusal(EINVAL, "no room for the driver's response, in bytes (0, not 8)") {
            _ = try driver.kernel.createCompletionQueue(request)
        }
        var short: UInt32 = 0
        driver.expectRefusal(EINVAL, "(4, not 8)") {
            _ = try DriverData.response(&short) { data throws(KernelError) in
                try driver.kernel.createCompletionQueue(request, driver: data)
            }
        }
    }

    @Test("MODIFY_SRQ with max_wr writes the new mmap offset to the given address")
    func resizing() throws {
        var offset: UInt64 = 0
        let limits = ibv_srq_attr(max_wr: 8, max_sge: 1, srq_limit: 0)
        let queue = try DriverData.response(&offset) { data throws(KernelError) in
            try driver.kernel.createSharedReceiveQueue(
                domain: domain, userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, limits: limits,
                asyncDescriptor: context.asyncDescriptor, driver: data)
        }
        func modify(_ requests: UInt32, _ bytes: [UInt8], mask: ibv_srq_attr_mask = IBV_SRQ_MAX_WR) throws {
            try bytes.withUnsafeBytes {
                try driver.kernel.modifySharedReceiveQueue(
                    queue.handle, ibv_srq_attr(max_wr: requests, max_sge: 0, srq_limit: requests),
                    mask: mask.rawValue, driver: DriverData(input: $0))
            }
        }
        driver.expectRefusal(EINVAL, "must be the address for the offset, in bytes (4, not 8)") {
            try modify(16, [0, 0, 0, 0])
        }
        driver.expectRefusal(EFAULT, "is null") { try modify(16, [UInt8](repeating: 0, count: 8)) }
        driver.expectRefusal(EINVAL, "a limit above the size of the queue (9, not 8)") {
            try modify(9, [], mask: IBV_SRQ_LIMIT)
        }
        var new: UInt64 = 0
        try withUnsafeMutablePointer(to: &new) { place in
            var bytes: [UInt8] = []
            bytes.append(UInt64(UInt(bitPattern: place)))
            driver.expectRefusal(EINVAL, "more posted WQEs than the new size has room for") {
                try modify(0, bytes)
            }
            try modify(16, bytes)
        }
        // The old offset is invalid, the new one can be mapped: a header of 8 bytes, and 17 elements of 32.
        #expect(new != offset && driver.map(offset, 4096) == EINVAL && driver.map(new, 8 + 17 * 32) == 0)
    }

    /// Posts with POST_SEND, byte by byte. Returns the errno value.
    private func post(
        _ pair: UInt32, requests: UInt32 = 1, sges: UInt32 = 0, size: UInt32 = 56, tail: Int = 56,
        opcode: ibv_wr_opcode = IBV_WR_SEND
    ) -> Int32 {
        var answer: UInt32 = 0
        return withUnsafeMutableBytes(of: &answer) { room in
            var body: [UInt8] = []
            body.append(UInt64(UInt(bitPattern: room.baseAddress)))
            for word in [pair, requests, sges, size] { body.append(word) }
            var request: [UInt8] = []
            request.append(UInt64(7))
            request.append(sges)
            request.append(opcode.rawValue)
            body += (request + [UInt8](repeating: 0, count: 512)).prefix(tail)
            return driver.write(IB_USER_VERBS_CMD_POST_SEND.rawValue, body, answer: room)
        }
    }

    @Test("POST_SEND refuses wrong lengths, counts, states, operations, address handles; reads with max_rd_atomic 0")
    func posting() throws {
        func pair(_ type: ibv_qp_type) throws -> UInt32 {
            let request = QueuePairRequest(
                userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, type: type, domain: domain, sendCompletions: queue,
                receiveCompletions: queue,
                limits: ibv_qp_cap(
                    max_send_wr: 4, max_recv_wr: 4, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0),
                signalsAll: false, asyncDescriptor: context.asyncDescriptor)
            var offset: UInt64 = 0
            return try DriverData.response(&offset) { data throws(KernelError) in
                try driver.kernel.createQueuePair(request, driver: data)
            }.handle
        }
        let connected = try pair(IBV_QPT_RC)
        let unreliable = try pair(IBV_QPT_UC)
        let datagram = try pair(IBV_QPT_UD)
        func expect(_ error: Int32, _ wanted: Int32, _ why: String) {
            #expect(error == wanted)
            #expect(driver.refusal.contains(why), "\(driver.refusal)")
        }
        expect(post(connected), EINVAL, "nothing can be sent in this state (0)")
        expect(post(connected, size: 48), EINVAL, "wqe_size is shorter than a work request, in bytes (48, not 56)")
        expect(post(connected, requests: 2), ENOSPC, "shorter than its work requests and SGEs, in bytes (80, not 136)")
        expect(post(datagram), EINVAL, "the handle is that of another kind of object (0)")
        expect(post(datagram, opcode: IBV_WR_RDMA_WRITE), EINVAL, "UD supports sends only")
        expect(post(connected, opcode: IBV_WR_TSO), EINVAL, "no such opcode")
        try bringUp(unreliable, IBV_QPT_UC)
        #expect(post(unreliable, opcode: IBV_WR_RDMA_READ) == EINVAL)
        #expect(driver.refusal.contains("UC supports sends and RDMA writes only"))
        #expect(post(unreliable, sges: 1, tail: 56 + 16) == 0)
        #expect(post(unreliable, sges: 2, tail: 56 + 32) == EINVAL)
        #expect(driver.refusal.contains("more SGEs than max_send_sge (2, not 1)"))
        try bringUp(connected, IBV_QPT_RC)
        #expect(post(connected, opcode: IBV_WR_RDMA_READ) == EINVAL)
        #expect(driver.refusal.contains("max_rd_atomic is 0"))
    }

    /// Moves a queue pair to RTS, with max_rd_atomic 0.
    private func bringUp(_ handle: UInt32, _ type: ibv_qp_type) throws {
        var attributes = ibv_qp_attr()
        attributes.port_num = 1
        attributes.path_mtu = IBV_MTU_1024
        attributes.ah_attr.port_num = 1
        attributes.ah_attr.dlid = 1
        attributes.dest_qp_num = 0x999
        let isRC = type == IBV_QPT_RC
        let ways: [(ibv_qp_state, [ibv_qp_attr_mask])] = [
            (IBV_QPS_INIT, [IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS]),
            (
                IBV_QPS_RTR,
                [IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN]
                    + (isRC ? [IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER] : [])
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
                handle, attributes, mask: bits.reduce(IBV_QP_STATE.rawValue) { $0 | $1.rawValue })
        }
    }
}
