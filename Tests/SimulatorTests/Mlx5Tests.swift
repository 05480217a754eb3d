import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

@Suite("Simulator: faulty mlx5 providers are refused")
struct Mlx5Tests {
    @Test("GET_CONTEXT refuses a wrong length, unknown flags, reserved fields, inconsistent numbers of bfregs")
    func contexts() throws {
        let bench = try Mlx5Bench(opens: false)
        func refuse(
            _ error: Int32, _ why: String, length: Int? = nil, room: Int = 256,
            at location: SourceLocation = #_sourceLocation,
            _ change: (inout mlx5_ib_alloc_ucontext_req_v2) -> Void = { _ in }
        ) {
            var request = Mlx5Bench.goodContext
            change(&request)
            bench.driver.expectRefusal(error, why, sourceLocation: location) {
                try bench.open(request, length: length, room: room)
            }
        }
        refuse(EINVAL, "the driver data is too short, in bytes (4, not 8)", length: 4)
        refuse(EOPNOTSUPP, "bytes that this kernel does not know", length: 40)
        refuse(EINVAL, "no room for the driver's response, in bytes (40, not 44)", room: 40)
        refuse(EINVAL, "flags that this kernel does not support (2)") { $0.flags = 2 }
        refuse(EOPNOTSUPP, "reserved field") { $0.reserved1 = 1 }
        refuse(EINVAL, "total_num_bfregs is 0") { $0.total_num_bfregs = 0 }
        refuse(EINVAL, "more low-latency bfregs than bfregs (16, not 15)") { $0.num_low_latency_bfregs = 16 }
        try bench.open(Mlx5Bench.goodContext)
    }

    @Test("UAR objects: a wrong type, size or offset is refused, and so is a mapping after destruction")
    func pages() throws {
        let bench = try Mlx5Bench()
        let driver = bench.driver
        #expect(driver.map(bench.page.offset, 4096) == 0)
        // An existing UAR object can be mapped again.
        #expect(driver.map(bench.page.offset, 4096) == 0)
        #expect(driver.map(bench.page.offset, 8192) == EINVAL)
        #expect(driver.refusal.contains("of one whole UAR page, in bytes (8192, not 4096)"))
        #expect(driver.map(bench.page.offset + 4096, 4096) == EINVAL)
        #expect(driver.map(0, 4096) == EINVAL)
        #expect(driver.refusal.contains("no UAR object has this offset"))
        #expect(driver.map(UInt64(MLX5_IB_MMAP_CORE_CLOCK.rawValue) << 20, 4096) == EPERM)
        driver.expectRefusal(EOPNOTSUPP, "no such type of page (2)") { _ = try bench.allocatePage(type: 2) }
        var method = Method(MLX5_IB_OBJECT_UAR, MLX5_IB_METHOD_UAR_OBJ_DESTROY)
        method.handle(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE, bench.page.handle)
        try driver.kernel.call(&method)
        #expect(driver.map(bench.page.offset, 4096) == EINVAL)
        driver.expectRefusal(ENOENT, "no object of this handle") {
            var method = Method(MLX5_IB_OBJECT_UAR, MLX5_IB_METHOD_UAR_OBJ_DESTROY)
            method.handle(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE, bench.page.handle)
            try driver.kernel.call(&method)
        }
    }

    @Test("a kernel without UAR objects: static pages are mapped by index, a dynamic page is allocated once")
    func staticPages() throws {
        let bench = try Mlx5Bench("mlx5 static", opens: false)
        try bench.open(Mlx5Bench.goodContext)
        let driver = bench.driver
        driver.expectRefusal(EOPNOTSUPP, "no such object") { _ = try bench.allocatePage() }
        #expect(driver.map(7 << 12, 4096) == 0)
        #expect(driver.map(8 << 12, 4096) == EINVAL)
        #expect(driver.refusal.contains("there is no page of this index (8, not 8)"))
        let dynamic = UInt64(MLX5_IB_MMAP_ALLOC_WC.rawValue) << 20
        #expect(driver.map(dynamic, 4096) == 0)
        #expect(driver.map(dynamic, 4096) == EINVAL)
        #expect(driver.refusal.contains("allocated already"))
        #expect(driver.map(9 << 20, 4096) == EINVAL)
        #expect(driver.refusal.contains("by this command (9)"))
    }

    @Test("CREATE_CQ refuses wrong sizes, flags, reserved fields, memory, doorbell records, UAR pages")
    func completions() throws {
        let bench = try Mlx5Bench()
        func refuse(
            _ error: Int32, _ why: String, length: Int? = nil, room: Int = 256, entries: UInt32 = 15,
            at location: SourceLocation = #_sourceLocation, _ change: (inout mlx5_ib_create_cq) -> Void = { _ in }
        ) {
            var request = bench.goodCompletions
            change(&request)
            bench.driver.expectRefusal(error, why, sourceLocation: location) {
                _ = try bench.createCompletions(request, length: length, room: room, entries: entries)
            }
        }
        refuse(EINVAL, "too short, in bytes (16, not 22)", length: 16)
        refuse(EOPNOTSUPP, "does not know", length: 48)
        refuse(EINVAL, "no room for the driver's response", room: 0)
        refuse(EINVAL, "64 or 128 bytes (96)") { $0.cqe_size = 96 }
        refuse(EINVAL, "bits that this driver does not support") { $0.flags |= 8 }
        refuse(EINVAL, "reserved field") { $0.reserved1 = 1 }
        refuse(EOPNOTSUPP, "does not compress") { $0.cqe_comp_en = 1 }
        refuse(EINVAL, "no UAR page of this number") { $0.uar_page_index += 1 }
        refuse(EINVAL, "without a UAR page") { $0.flags = 0 }
        refuse(EINVAL, "aligned to 8 bytes (4)") { $0.db_addr += 4 }
        refuse(EFAULT, "the doorbell record is not mapped") { $0.db_addr = 0x1000 }
        refuse(EFAULT, "not mapped in its whole length, in bytes (2097152)", entries: 32_767)
        refuse(EINVAL, "not aligned") { $0.buf_addr += 8 }
        _ = try bench.createCompletions(bench.goodCompletions)
    }

    @Test("CREATE_QP refuses wrong sizes, flags, memory, UAR pages, and user indexes in both cqe_versions")
    func queuePairs() throws {
        let bench = try Mlx5Bench()
        let completions = try bench.createCompletions(bench.goodCompletions)
        func refuse(
            _ error: Int32, _ why: String, length: Int? = nil, at location: SourceLocation = #_sourceLocation,
            _ change: (inout mlx5_ib_create_qp) -> Void = { _ in }
        ) {
            var request = bench.goodQueues
            change(&request)
            bench.driver.expectRefusal(error, why, sourceLocation: location) {
                _ = try bench.createQueues(request, completions, length: length)
            }
        }
        refuse(EINVAL, "too short", length: 40)
        refuse(EOPNOTSUPP, "does not know", length: 64)
        refuse(EINVAL, "bits that this driver does not support") { $0.flags |= 1 << 15 }
        refuse(EINVAL, "power of 2 (12)") { $0.rq_wqe_count = 12 }
        refuse(EINVAL, "power of 2 (24)") { $0.sq_wqe_count = 24 }
        refuse(EINVAL, "larger queue than the device supports") { $0.sq_wqe_count = 1 << 16 }
        refuse(EINVAL, "16 to 512 bytes, 2^ (10)") { $0.rq_wqe_shift = 10 }
        refuse(EINVAL, "user index") { $0.uidx = 1 << 24 }
        refuse(EINVAL, "no UAR page of this number") { $0.bfreg_index += 7 }
        refuse(EINVAL, "a queue pair without a UAR page") { $0.flags = 0 }
        refuse(EFAULT, "not mapped in its whole") { $0.buf_addr = bench.address(Mlx5Bench.memorySize - 1024) }
        refuse(EINVAL, "enhanced connection") { $0.ece_options = 1 }
        _ = try bench.createQueues(bench.goodQueues, completions)

        let old = try Mlx5Bench("mlx5 cqe0")
        let others = try old.createCompletions(old.goodCompletions)
        old.driver.expectRefusal(EINVAL, "a user index that this cqe_version has not (42)") {
            _ = try old.createQueues(old.goodQueues, others)
        }
    }

    @Test("CREATE_SRQ refuses a wrong length, flags, reserved fields, memory, sizes")
    func shared() throws {
        let bench = try Mlx5Bench()
        func create(_ request: mlx5_ib_create_srq, _ length: Int?, _ requests: UInt32) throws {
            let limits = ibv_srq_attr(max_wr: requests, max_sge: 2, srq_limit: 0)
            let queue = try bench.with(request, length: length) {
                try bench.driver.kernel.createSharedReceiveQueue(
                    domain: bench.domain, userHandle: UnsafeRawPointer(bitPattern: 0x1000)!, limits: limits,
                    asyncDescriptor: bench.context.asyncDescriptor, driver: $0)
            }
            #expect(queue.maxWR == 31)
        }
        func refuse(
            _ error: Int32, _ why: String, length: Int? = nil, requests: UInt32 = 31,
            at location: SourceLocation = #_sourceLocation, _ change: (inout mlx5_ib_create_srq) -> Void = { _ in }
        ) {
            var request = mlx5_ib_create_srq()
            request.buf_addr = bench.address(0x30000)
            request.db_addr = bench.address(0x10080)
            change(&request)
            bench.driver.expectRefusal(error, why, sourceLocation: location) { try create(request, length, requests) }
        }
        refuse(EINVAL, "too short, in bytes (16, not 20)", length: 16)
        refuse(EINVAL, "bits that this driver does not support (2)") { $0.flags = 2 }
        refuse(EOPNOTSUPP, "checks no signatures") { $0.flags = 1 }
        refuse(EINVAL, "reserved field") { $0.reserved0 = 1 }
        refuse(EINVAL, "aligned to 8 bytes") { $0.db_addr += 1 }
        refuse(EFAULT, "not mapped in its whole length") { $0.buf_addr = bench.address(Mlx5Bench.memorySize - 64) }
        refuse(EINVAL, "this max_wr (0, not 32767)", requests: 0)
        refuse(EINVAL, "the device does not support this max_wr", requests: 1 << 15)
        var request = mlx5_ib_create_srq()
        request.buf_addr = bench.address(0x30000)
        request.db_addr = bench.address(0x10080)
        try create(request, nil, 31)
    }

    @Test("RoCE: an address without GRH, and a datagram to another MAC address than CREATE_AH's, are refused")
    func ethernet() throws {
        let bench = try Mlx5Bench("mlx5 roce")
        _ = try? bench.readyQueues()
        #expect(bench.driver.refusal.contains("on Ethernet an address needs a GRH"))
        let other = try Mlx5Bench("mlx5 roce")
        _ = try other.readyQueues(IBV_QPT_UD)
        other.put([0x0A, 0x101_04, 8, 0, 0, 0, 0x8000_0101])
        other.setRecord(1)
        _ = uverbs_sim_step(other.driver.device)
        #expect(other.driver.refusal.contains("the address vector has another MAC address"), "\(other.driver.refusal)")
    }

    /// Malformed WQEs: their words, the doorbell record, and the reason of the refusal. The first three words of the
    /// control segment are `opmod_idx_opcode`, `qpn_ds` and, with its signature, `fm_ce_se`.
    private static let requests: [(words: [UInt32], record: UInt32, why: String)] = [
        (
            [0x0A, 0x101_01, 8, 0], 17,
            "the doorbell record is further ahead than the send queue has WQEBBs (17, not 16)"
        ),
        ([0x0A, 0x102_01, 8, 0], 1, "a WQE of another queue pair (258, not 257)"),
        ([0x10A, 0x101_01, 8, 0], 1, "a WQE of another index (1, not 0)"),
        ([0x0A, 0x101_00, 8, 0], 1, "a WQE without length"),
        ([0x100_000A, 0x101_01, 8, 0], 1, "with an opmod"),
        ([0x0A, 0x101_05, 8, 0], 1, "in the middle of a WQE; posted WQEBBs (1, not 2)"),
        ([0x0A, 0x101_01, 0x0100_0008, 0], 1, "a signature"),
        ([0x0A, 0x101_01, 0x18, 0], 1, "bits of fm_ce_se"),
        ([0x07, 0x101_01, 8, 0], 1, "there is no such opcode (7)"),
        ([0x0A, 0x101_01, 8, 5], 1, "immediate data with an opcode that has none"),
        ([0x08, 0x101_01, 8, 0], 1, "without remote address segment"),
        ([0x08, 0x101_02, 8, 0, 0, 0, 0, 9], 1, "a reserved field"),
        ([0x12, 0x101_02, 8, 0, 0, 0, 0, 0], 1, "without atomic segment"),
        (
            [0x12, 0x101_04, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0], 1,
            "an atomic operation returns 8 bytes (16, not 8)"
        ),
        ([0x0A, 0x101_02, 8, 0, 0, 0, 0, 0], 1, "a segment of length 0"),
        ([0x0A, 0x101_02, 8, 0, 0x8000_000D, 0, 0, 0], 1, "inline data longer than its WQE (13)"),
        ([0x25, 0x101_04, 8, 0], 1, "without MKey context"),
    ]

    @Test("a malformed send WQE raises IBV_EVENT_QP_FATAL and moves the queue pair to ERR", arguments: requests.indices)
    func sends(index: Int) throws {
        let (words, record, why) = Self.requests[index]
        let bench = try Mlx5Bench()
        let pair = try bench.readyQueues()
        #expect(pair.number == 0x101)
        bench.put(words)
        bench.setRecord(record)
        #expect(uverbs_sim_step(bench.driver.device) == 0)
        #expect(bench.driver.refusal.hasPrefix("a work request: "))
        #expect(bench.driver.refusal.contains(why), "\(bench.driver.refusal)")
        #expect(try bench.driver.kernel.queryQueuePair(pair.handle, mask: 1).attributes.qp_state == IBV_QPS_ERR)
        var event = ib_uverbs_async_event_desc()
        #expect(sim_read(bench.context.asyncDescriptor, &event, 16) == 16)
        #expect(event.event_type == IBV_EVENT_QP_FATAL.rawValue && event.element == 0x1000)
    }

    @Test("a UD WQE is refused if its address vector is missing, lacks the extended bit, or has a reserved bit set")
    func datagrams() throws {
        for (words, why) in [
            ([0x0A, 0x101_04, 8, 0, 0, 0, 0x102], "not marked as an extended one"),
            ([0x0A, 0x101_03, 8, 0], "without address vector"),
            ([0x0A, 0x101_04, 8, 0, 0, 1, 0x8000_0102], "a reserved field"),
        ] as [([UInt32], String)] {
            let bench = try Mlx5Bench()
            _ = try bench.readyQueues(IBV_QPT_UD)
            bench.put(words)
            bench.setRecord(1)
            _ = uverbs_sim_step(bench.driver.device)
            #expect(bench.driver.refusal.contains(why), "\(bench.driver.refusal)")
        }
    }

    @Test(
        "a doorbell of wrong size, offset or queue, before its doorbell record, or in another context's UAR is refused")
    func doorbells() throws {
        let bench = try Mlx5Bench("mlx5 trap")
        _ = try bench.readyQueues()
        let device = bench.driver.device
        func refuse(_ why: String, at location: SourceLocation = #_sourceLocation, _ body: () -> Void) {
            uverbs_sim_forgive(device)
            body()
            #expect(bench.driver.refusal.contains(why), "\(bench.driver.refusal)", sourceLocation: location)
        }
        let ring: UInt64 = 0x0000_000A_0001_0101
        refuse("another size than a doorbell's, in bytes (4, not 8)") { bench.store(ring, at: 0x800, size: 4) }
        refuse("no doorbell at this offset of a page (64)") { bench.store(ring, at: 0x40) }
        refuse("a WQE that the doorbell record does not include yet (0, not 0)") { bench.store(ring, at: 0x800) }
        refuse("no queue pair of this number (512)") { bench.store(0x0000_000A_0002_0001, at: 0x800) }
        refuse("a UAR page of another context") { bench.store(ring, at: 0x800, page: 0xFFFF) }
        refuse("no completion queue of this number") { bench.store(0x0000_0000_0000_0001, at: 0x20) }
        refuse("differs from the doorbell record (16777216, not 0)") {
            bench.store(1 << 56 | UInt64(0x400 + bench.completions), at: 0x20)
        }

        // A valid doorbell executes the WQE at once, and the log contains the store.
        uverbs_sim_forgive(device)
        var stores = [uverbs_sim_store](repeating: uverbs_sim_store(), count: 16)
        #expect(uverbs_sim_stores(device, &stores, 16) == 7)
        bench.put([0x00, 0x101_01, 8, 0])
        bench.setRecord(1)
        bench.store(0x0000_0000_0001_0101, at: 0x800)
        #expect(uverbs_sim_refusals(device) == 0, "\(bench.driver.refusal)")
        // A NOP completes: opcode 0, owner 0.
        #expect(bench.memory.load(fromByteOffset: 63, as: UInt8.self) == 0)
        #expect(uverbs_sim_stores(device, &stores, 16) == 1)
        #expect(stores[0].offset == 0x800 && stores[0].size == 8 && stores[0].page == bench.page.number)
        #expect(stores[0].value.5 == 1 && stores[0].value.7 == 1)
    }
}
