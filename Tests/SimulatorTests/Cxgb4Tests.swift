import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

#if arch(x86_64)
    private let canTrap = true
#else
    private let canTrap = false
#endif

@Suite("Simulator: faulty cxgb4 providers are refused", .enabled(if: canTrap))
struct Cxgb4Tests {
    // MARK: - Commands

    @Test("a key is mapped once, with exactly the length of its memory; keys are one page apart")
    func mappings() throws {
        let bench = try Cxgb4Bench(connects: false)
        try bench.createCompletions()
        let response = bench.completionsResponse
        // 20 CQEs: rounded up to 32 and doubled, 64 CQEs of 64 bytes.
        #expect(response.memsize == 4096 && response.size == 63 && response.flags == 1)
        #expect(response.gts_key == response.key + 4096)
        func refuse(_ why: String, _ key: UInt64, _ length: Int, at location: SourceLocation = #_sourceLocation) {
            bench.driver.expectRefusal(EINVAL, why, sourceLocation: location) { _ = try bench.map(key, length) }
        }
        refuse("a mapping of another length than the key's, in bytes (8192, not 4096)", response.key, 8192)
        refuse("nothing can be mapped with this key", response.gts_key + 4096, 4096)
        _ = try bench.map(response.key, 4096)
        refuse("no command returned it, or it is mapped already", response.key, 4096)
        try bench.createPair(sends: 30)
        let pair = bench.response
        // 31 entries of 320 bytes and the status page.
        #expect(pair.sq_size == 31 && pair.sq_memsize == 12288 && pair.rq_size == 8 && pair.rq_memsize == 4096)
        refuse("another length than the key's, in bytes (4096, not 12288)", pair.sq_key, 4096)
        _ = try bench.map(pair.sq_key, 12288 - 4000)
        let keys = [pair.sq_key, pair.rq_key, pair.sq_db_gts_key, pair.rq_db_gts_key]
        #expect(keys == (0..<4).map { pair.sq_key + 4096 * UInt64($0) } && pair.ma_sync_key == 0)
    }

    @Test("T4 with queues on the adapter returns a key for PCIE_MA_SYNC; numbers share doorbell pages")
    func numbers() throws {
        let bench = try Cxgb4Bench("cxgb4 t4 onchip", connects: false)
        try bench.createCompletions()
        try bench.createPair()
        #expect(bench.response.flags == 1 && bench.response.sq_key == bench.response.ma_sync_key + 4096)
        _ = try bench.map(bench.response.ma_sync_key, 4096)
        #expect(bench.response.sqid == 1024 && bench.response.rqid == 1025 && bench.response.qid_mask == 31)
        #expect(bench.pair.number == 1024 && bench.completionsResponse.cqid == 1024)
        let dense = try Cxgb4Bench("cxgb4 t6 dense", connects: false)
        try dense.createCompletions()
        try dense.createPair()
        #expect(dense.response.sqid == 1056 && dense.response.qid_mask == 63 && dense.response.flags == 2)
    }

    @Test("the kernel's limits and the verbs that it lacks have the errno values of Linux")
    func commands() throws {
        let bench = try Cxgb4Bench("cxgb4 t4", connects: false)
        let kernel = bench.driver
        func refuse(
            _ error: Int32, _ why: String, at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
        ) { kernel.expectRefusal(error, why, sourceLocation: location, body) }
        refuse(EINVAL, "this number of CQEs (65519, not 65518)") { try bench.createCompletions(entries: 65_519) }
        try bench.createCompletions()
        refuse(EOPNOTSUPP, "RC queue pairs") { try bench.createPair(type: IBV_QPT_UD) }
        refuse(EINVAL, "more inline data than the device has room for (281, not 280)") {
            try bench.createPair(inline: 281)
        }
        refuse(E2BIG, "this max_recv_wr (8191, not 8190)") { try bench.createPair(receives: 8191) }
        refuse(E2BIG, "this max_send_wr (65519, not 65518)") { try bench.createPair(sends: 65_519) }
        refuse(EINVAL, "no shared receive queues") { try createShared(bench) }
        refuse(EOPNOTSUPP, "no memory windows") {
            _ = try kernel.kernel.allocateWindow(domain: bench.domain, type: IBV_MW_TYPE_1)
        }
        refuse(EOPNOTSUPP, "no address handles") {
            var attributes = ibv_ah_attr()
            (attributes.port_num, attributes.dlid) = (1, 1)
            _ = try kernel.kernel.createAddressHandle(domain: bench.domain, attributes)
        }
        var region: KernelMemoryRegion = bench.region
        refuse(EOPNOTSUPP, "no REREG_MR") {
            try kernel.kernel.reregisterMemory(
                &region, flags: 4, domain: bench.domain, address: nil, length: 0, virtualAddress: 0, access: 0)
        }
        refuse(EINVAL, "driver data, which this driver does not have") {
            try [UInt8](repeating: 1, count: 8).withUnsafeBytes {
                _ = try kernel.kernel.allocateDomain(driver: DriverData(input: $0))
            }
        }
    }

    private func createShared(_ bench: Cxgb4Bench, requests: UInt32 = 15, sges: UInt32 = 2) throws {
        var response = c4iw_create_srq_resp()
        let queue = try DriverData.response(&response) { data throws(KernelError) in
            try bench.driver.kernel.createSharedReceiveQueue(
                domain: bench.domain, userHandle: Cxgb4Bench.handle,
                limits: ibv_srq_attr(max_wr: requests, max_sge: sges, srq_limit: 3),
                asyncDescriptor: bench.context.asyncDescriptor, driver: data)
        }
        #expect(response.srq_size == 16 && response.srq_memsize == 4096 && response.rqt_abs_idx > 0)
        #expect(response.flags == 0 && queue.maxWR == 15)
        let kernel = bench.driver
        func modify(_ mask: UInt32) throws {
            try kernel.kernel.modifySharedReceiveQueue(
                queue.handle, ibv_srq_attr(max_wr: 1, max_sge: 0, srq_limit: 20), mask: mask)
        }
        kernel.expectRefusal(EINVAL, "does not resize shared receive queues") { try modify(IBV_SRQ_MAX_WR.rawValue) }
        kernel.expectRefusal(EOPNOTSUPP, "no QUERY_SRQ") { _ = try kernel.kernel.querySharedReceiveQueue(queue.handle) }
        try modify(IBV_SRQ_LIMIT.rawValue)
        // Without attributes: the library has found that the limit is reached.
        try modify(0)
        var event = ib_uverbs_async_event_desc()
        #expect(sim_read(bench.context.asyncDescriptor, &event, 16) == 16)
        #expect(event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED.rawValue)
        // A queue pair with a shared receive queue has no receive queue.
        try bench.createCompletions()
        try bench.createPair(shared: queue.handle)
        #expect(bench.response.rqid == 0 && bench.response.rq_key == 0 && bench.pair.limits.max_recv_wr == .max)
    }

    @Test("CREATE_SRQ on T5 and T6: a power of 2, at least 16; the library reports the limit")
    func shared() throws {
        for chip in ["t5", "t6"] {
            let bench = try Cxgb4Bench("cxgb4 \(chip)", connects: false)
            try createShared(bench)
            bench.driver.expectRefusal(E2BIG, "max_wr (8191, not 8190)") { try createShared(bench, requests: 8191) }
            bench.driver.expectRefusal(E2BIG, "max_sge (5, not 4)") { try createShared(bench, sges: 5) }
        }
        let old = try Cxgb4Bench("cxgb4 t6 cqe32", connects: false)
        old.driver.expectRefusal(EOPNOTSUPP, "no shared receive queues") { try createShared(old) }
    }

    @Test("a library that sends no driver data with CREATE_CQ, and an old kernel, have CQEs of 32 bytes")
    func shortCQEs() throws {
        let bench = try Cxgb4Bench("cxgb4 t6", connects: false)
        var response = c4iw_create_cq_resp()
        response.flags = 0x55
        let request = CompletionQueueRequest(
            userHandle: Cxgb4Bench.handle, entries: 100, asyncDescriptor: bench.context.asyncDescriptor)
        _ = try DriverData.response(&response) { data throws(KernelError) in
            try bench.driver.kernel.createCompletionQueue(request, driver: data)
        }
        // 224 CQEs; `flags` is not written.
        #expect(response.size == 223 && response.memsize == 8192 && response.flags == 0x55)
        let old = try Cxgb4Bench("cxgb4 t6 cqe32", connects: false)
        try old.createCompletions(entries: 100)
        #expect(old.completionsResponse.memsize == 8192 && old.completionsResponse.flags == 0)
        bench.driver.expectRefusal(EINVAL, "no room for the driver's response, in bytes (0, not 36)") {
            _ = try bench.driver.kernel.createCompletionQueue(request)
        }
    }

    @Test("MODIFY_QP: the program cannot reach RTS; only T4's kernel rings doorbells")
    func states() throws {
        let bench = try Cxgb4Bench("cxgb4 t5")
        func refuse(_ error: Int32, _ why: String, _ state: ibv_qp_state?, _ bits: [ibv_qp_attr_mask] = []) {
            bench.driver.expectRefusal(error, why) {
                try bench.modify({ $0.qp_state = state ?? IBV_QPS_RESET }, (state == nil ? [] : [IBV_QP_STATE]) + bits)
            }
        }
        refuse(EINVAL, "only T4's driver rings doorbells", nil, [IBV_QP_SQ_PSN])
        refuse(EIO, "access flags of a queue pair that is not idle", nil, [IBV_QP_ACCESS_FLAGS])
        refuse(EINVAL, "no such transition", IBV_QPS_INIT)
        try bench.modify({ $0.qp_state = IBV_QPS_ERR }, [IBV_QP_STATE])
        #expect(try bench.state == IBV_QPS_ERR)
        // qp_err in the status pages of the receive queue and of the completion queue.
        #expect(bench.queue(UVERBS_SIM_RECEIVES)[8 * 128 + 12] == 1)
        #expect(bench.queue(UVERBS_SIM_COMPLETIONS, bench.completions)[63 * 64 + 12] == 1)
        refuse(EINVAL, "no such transition", IBV_QPS_RTS)
        try bench.modify({ $0.qp_state = IBV_QPS_RESET }, [IBV_QP_STATE])
        refuse(EINVAL, "only the kernel's connection manager", IBV_QPS_RTS)
    }

    // MARK: - Windows

    @Test("BIND and INV_LSTAG: a window of type 1 is opened, written through and closed")
    func windows() throws {
        let bench = try Cxgb4Bench("cxgb4 t6 windows")
        bench.driver.expectRefusal(EINVAL, "only windows of type 1 (2)") {
            _ = try bench.driver.kernel.allocateWindow(domain: bench.domain, type: IBV_MW_TYPE_2)
        }
        uverbs_sim_forgive(bench.driver.device)
        let window = try bench.driver.kernel.allocateWindow(domain: bench.domain, type: IBV_MW_TYPE_1)
        func write() -> [UInt8] {
            Cxgb4WR.write(
                Cxgb4WR.list([(bench.key, 4, bench.address(0))]) + [UInt8](repeating: 0, count: 8), length: 4,
                key: window.rkey, address: bench.address(4096))
        }
        bench.memory.storeBytes(of: 0x1122_3344, as: UInt32.self)
        var index: UInt8 = 0
        var slot = 0
        func post(_ bytes: [UInt8]) {
            var bytes = bytes
            bytes[2] = index
            index += 1
            bench.put(bytes, slot: slot)
            let slots = (Int(bytes[7]) + 3) / 4
            slot += slots
            bench.doorbell(UInt32(slots))
        }
        post(Cxgb4WR.bind(window.rkey, to: bench.key, bench.address(4096), length: 4, access: 1))
        post(write())
        post(Cxgb4WR.invalidate(window.rkey))
        #expect(bench.driver.refusal.isEmpty, "\(bench.driver.refusal)")
        #expect(bench.memory.load(fromByteOffset: 4096, as: UInt32.self) == 0x1122_3344)
        // Sends: type 1; opcodes BIND, WRITE, LOCAL_INV.
        #expect((0..<3).map(bench.cqe) == [0x19, 0x10, 0x1B] && bench.cqeCount == 3)
        #expect(try bench.state == IBV_QPS_RTS)
        post(write())
        #expect(try bench.state == IBV_QPS_ERR)
        var event = ib_uverbs_async_event_desc()
        #expect(sim_read(bench.context.asyncDescriptor, &event, 16) == 16)
        #expect(event.event_type == IBV_EVENT_QP_REQ_ERR.rawValue)
    }
}
