import CAllocationCounter
import CIBVerbs
import CKernelABI
import CProviderABI
import CProviderCore
import Glibc
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@testable import Hfi1Provider

/// A fake kernel with the commands of rdmavt's queues. Each queue has its own mmap offset, as in rdmavt.
private final class FakeDriver {
    static let completions: UInt64 = 0x1_0000
    static let receives: UInt64 = 0x2_0000
    static let shared: UInt64 = 0x3_0000
    static let resized: UInt64 = 0x4_0000

    let kernel = FakeKernel(mapping: 0x10_0000)
    let context: UnsafeMutablePointer<ibv_context>
    private let device = TestDevice("hfi1_0")
    var destroyed: [UInt32] = []

    init() {
        let opened = KernelContext(asyncDescriptor: 0x5000_0001, completionVectors: 2, takesOptionalAccess: true)
        let native = NativeContextPointer.allocate(capacity: 1)
        native.initialize(to: NativeContext(kernel: kernel.open(driver: RDMA_DRIVER_HFI1), opened: opened))
        context = native.initialize(device.pointer.pointee.device)
        fillDataPath(&context.pointee.ops)
        kernel.onCall = { [unowned self] in respond($0) }
    }

    private func respond(_ call: FakeKernel.Call) -> Int32 {
        if let command = call.command {
            switch command {
            case UInt64(IB_USER_VERBS_CMD_RESIZE_CQ.rawValue):
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(Self.resized)
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(200 as UInt32)
            case UInt64(IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue):
                let address = call.attribute(UVERBS_ATTR_UHW_IN)!.bytes.load(0, as: UInt64.self)
                UnsafeMutableRawPointer(bitPattern: UInt(address))!.storeBytes(of: Self.resized, as: UInt64.self)
            default: break
            }
            return 0
        }
        switch (call.object, call.method) {
        case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_CREATE.rawValue):
            call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(21)
            call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(100 as UInt32)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(Self.completions)
        case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_CREATE.rawValue):
            call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(31)
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(0x42 as UInt32)
            let limits = ibv_qp_cap(
                max_send_wr: 10, max_recv_wr: 16, max_send_sge: 2, max_recv_sge: 4, max_inline_data: 0)
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(limits)
            let hasShared = call.attribute(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE.rawValue) != nil
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(hasShared ? 0 as UInt64 : Self.receives)
        case (UVERBS_OBJECT_SRQ.rawValue, UVERBS_METHOD_SRQ_CREATE.rawValue):
            call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)!.set(41)
            call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR.rawValue)!.respond(8 as UInt32)
            call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE.rawValue)!.respond(2 as UInt32)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(Self.shared)
        default:
            if call.method == 1, let handle = call.attributes.first { destroyed.append(UInt32(handle.data)) }
        }
        return 0
    }

    /// Reads a word of the mapped memory.
    func word(_ offset: UInt64) -> UInt32 {
        var value: UInt32 = 0
        _ = pread(kernel.descriptor, &value, 4, off_t(offset))
        return value
    }

    func set(_ offset: UInt64, _ value: UInt32) {
        var value = value
        _ = pwrite(kernel.descriptor, &value, 4, off_t(offset))
    }

    func close() { #expect(closeNativeContext(context: context) == 0) }
}

@Suite("hfi1: objects on a fake kernel")
struct ControlTests {
    @Test("Queue pair, completion queue and shared receive queue: create, use, resize, destroy, at the mmap offsets")
    func lifecycle() throws {
        let driver = FakeDriver()
        let table = controlTable.pointee
        let domain = try #require(table.alloc_pd(driver.context))
        let completions = try #require(table.create_cq(driver.context, 50, nil, nil, 1))
        #expect(completions.pointee.cqe == 100 && completions.pointee.handle == 21)
        var attr = ibv_qp_init_attr_ex()
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = domain
        attr.send_cq = completions
        attr.recv_cq = completions
        attr.qp_type = IBV_QPT_RC
        let pair = try #require(table.create_qp_ex(driver.context, &attr))
        #expect(pair.pointee.qp_num == 0x42 && attr.cap.max_recv_wr == 16 && attr.cap.max_inline_data == 0)
        #expect(table.dealloc_pd(domain) == EBUSY)

        // Receive WQEs are written to the queue pair's mapping.
        pair.pointee.state = IBV_QPS_RTS
        var sge = ibv_sge(addr: 1, length: 2, lkey: 3)
        withUnsafeMutablePointer(to: &sge) { sge in
            var request = ibv_recv_wr(wr_id: 9, next: nil, sg_list: sge, num_sge: 1)
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(ibv_post_recv(pair, &request, &bad) == 0)
            #expect(driver.word(FakeDriver.receives) == 1 && driver.word(FakeDriver.receives + 8) == 9)

            // A shared receive queue, before and after a resize.
            var limits = ibv_srq_init_attr_ex()
            limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            limits.pd = domain
            let shared = table.create_srq_ex(driver.context, &limits)!
            #expect(limits.attr.max_wr == 8 && limits.attr.max_sge == 2)
            #expect(ibv_post_srq_recv(shared, &request, &bad) == 0)
            #expect(driver.word(FakeDriver.shared) == 1)
            var larger = ibv_srq_attr(max_wr: 60, max_sge: 0, srq_limit: 0)
            #expect(table.modify_srq(shared, &larger, Int32(IBV_SRQ_MAX_WR.rawValue)) == 0)
            #expect(ibv_post_srq_recv(shared, &request, &bad) == 0)
            #expect(driver.word(FakeDriver.resized) == 1 && driver.word(FakeDriver.shared) == 1)
            #expect(table.destroy_srq(shared) == 0)
        }

        // CQEs are read from the completion queue's mapping; after a resize, from the new one.
        var wc = ibv_wc()
        #expect(ibv_poll_cq(completions, 1, &wc) == 0)
        driver.set(FakeDriver.completions + 8, 77)
        driver.set(FakeDriver.completions, 1)
        #expect(ibv_poll_cq(completions, 1, &wc) == 1 && wc.wr_id == 77)
        #expect(driver.word(FakeDriver.completions + 4) == 1)
        driver.set(FakeDriver.resized + 8, 78)
        driver.set(FakeDriver.resized, 1)
        #expect(table.resize_cq(completions, 200) == 0 && completions.pointee.cqe == 200)
        driver.set(FakeDriver.resized + 4, 0)
        #expect(ibv_poll_cq(completions, 1, &wc) == 1 && driver.word(FakeDriver.resized + 4) == 1)

        #expect(table.destroy_qp(pair) == 0 && table.destroy_cq(completions) == 0)
        #expect(table.dealloc_pd(domain) == 0)
        #expect(driver.destroyed == [41, 31, 21])
        driver.close()
    }

    @Test("Unsupported attributes are EOPNOTSUPP, missing objects and values out of range EINVAL")
    func refusals() throws {
        let driver = FakeDriver()
        let table = controlTable.pointee
        let domain = try #require(table.alloc_pd(driver.context))
        let completions = try #require(table.create_cq(driver.context, 50, nil, nil, 1))
        func refusal(_ change: (inout ibv_qp_init_attr_ex) -> Void) -> Int32 {
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = domain
            attr.send_cq = completions
            attr.recv_cq = completions
            attr.qp_type = IBV_QPT_UC
            change(&attr)
            errno = 0
            if let pair = table.create_qp_ex(driver.context, &attr) { _ = table.destroy_qp(pair) }
            return errno
        }
        #expect(refusal { _ in } == 0)
        #expect(refusal { $0.qp_type = IBV_QPT_RAW_PACKET } == EOPNOTSUPP)
        #expect(refusal { $0.qp_type = IBV_QPT_XRC_SEND } == EOPNOTSUPP)
        #expect(refusal { $0.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER.rawValue } == EOPNOTSUPP)
        #expect(refusal { $0.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue } == EOPNOTSUPP)
        #expect(refusal { $0.comp_mask = 0 } == EINVAL)
        #expect(refusal { $0.send_cq = nil } == EINVAL)
        #expect(refusal { $0.recv_cq = nil } == EINVAL)
        errno = 0
        #expect(table.create_cq(driver.context, 50, nil, nil, 2) == nil && errno == EINVAL)
        #expect(table.create_cq(driver.context, 0, nil, nil, 0) == nil && errno == EINVAL)
        #expect(table.create_cq_ex == nil && table.rereg_mr == nil && driver.context.pointee.ops.alloc_mw == nil)

        // Without an mmap offset in the response, the object is destroyed again.
        driver.destroyed = []
        driver.kernel.onCall = { call in
            if call.method == UVERBS_METHOD_CQ_CREATE.rawValue { call.attributes[0].set(22) }
            if call.method == 1 { driver.destroyed.append(UInt32(call.attributes[0].data)) }
            return 0
        }
        #expect(table.create_cq(driver.context, 50, nil, nil, 1) == nil && errno == EPROTO)
        #expect(driver.destroyed == [22])
        driver.kernel.onCall = { _ in 0 }
        #expect(table.destroy_cq(completions) == 0 && table.dealloc_pd(domain) == 0)
        driver.close()
    }

    @Test("If the memory of a shared receive queue cannot be mapped, the explanation describes the state of the queue")
    func unmapped() throws {
        let driver = FakeDriver()
        let table = controlTable.pointee
        _ = providerEntry(core: OpenedContext.core, why: nil)
        var limits = ibv_srq_init_attr_ex()
        limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        limits.pd = table.alloc_pd(driver.context)
        let shared = try #require(table.create_srq_ex(driver.context, &limits))
        driver.kernel.onCall = { call in
            guard call.command == UInt64(IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue) else { return 0 }
            let address = call.attribute(UVERBS_ATTR_UHW_IN)!.bytes.load(0, as: UInt64.self)
            // The offset is not a multiple of the page size.
            UnsafeMutableRawPointer(bitPattern: UInt(address))!.storeBytes(of: 0x4_0001, as: UInt64.self)
            return 0
        }
        rdma_drop_explanation()
        var larger = ibv_srq_attr(max_wr: 60, max_sge: 0, srq_limit: 0)
        #expect(table.modify_srq(shared, &larger, Int32(IBV_SRQ_MAX_WR.rawValue)) == EINVAL)
        #expect(rdma_explanation(EINVAL).map { String(cString: $0).contains("accepts no more receives") } == true)
        var request = ibv_recv_wr()
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(ibv_post_srq_recv(shared, &request, &bad) == EINVAL)
        #expect(table.destroy_srq(shared) == 0)

        rdma_drop_explanation()
        errno = 0
        #expect(table.create_srq_ex(driver.context, &limits) == nil && errno == EPROTO)
        #expect(rdma_explanation(EPROTO).map { String(cString: $0).contains("RDMA_PROVIDER=libibverbs") } == true)
        #expect(table.dealloc_pd(limits.pd) == 0)
        driver.close()
    }

    @Test(
        "post_recv and poll_cq allocate no memory",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
    func allocations() throws {
        let receives = FakeReceives(4)
        let ring = FakeRing(entrySize: MemoryLayout<ib_uverbs_wc>.size, entryCount: 4)
        let queue = CompletionQueuePointer.allocate(isSingleThreaded: false)
        queue.completions.pointee = CompletionRing(mapping: ring.mapping, entries: 3)
        let pair = QueuePairPointer.allocate(isSingleThreaded: false)
        pair.attach(receive: receives.queue, maxSendSGE: 1)
        pair.pointee.base.qp_base.state = IBV_QPS_RTS
        var request = ibv_recv_wr()
        var wc = ibv_wc()
        var before: UInt64 = 0
        var failures: Int32 = 0
        for round in 0..<200 {
            if round == 100 { before = allocation_count() }
            failures += postReceive(qp: pair.verbs, first: &request, bad: nil)
            receives.ring.consume(1)
            ring.complete(ib_uverbs_wc())
            failures += pollCompletions(cq: queue.verbs, count: 1, wc: &wc) == 1 ? 0 : 1
            failures += pollCompletions(cq: queue.verbs, count: 1, wc: &wc)
        }
        #expect(allocation_count() == before && failures == 0)
        pair.sends.pointee.free()
        pair.freeObject()
        queue.freeObject()
    }
}

@Suite("hfi1: probing")
struct ProbeTests {
    private func probe(driver: UInt32, version: UInt32 = 2) -> Int32 {
        let test = TestDevice("hfi1_0")
        var device = test.pointer.pointee
        device.driver_id = driver
        device.kernel_abi = version
        defer { withExtendedLifetime(test) {} }
        return probeDevice(device: &device, why: nil)
    }

    @Test("The provider serves devices of the kernel driver hfi1 with ABI 2, and refuses others")
    func served() {
        #expect(probe(driver: RDMA_DRIVER_HFI1.rawValue) == 0)
        // Without a driver ID from the kernel: the driver file has matched the PCI IDs.
        #expect(probe(driver: UInt32.max) == 0)
        #expect(probe(driver: RDMA_DRIVER_RXE.rawValue) == ENODEV)
        #expect(probe(driver: RDMA_DRIVER_HFI1.rawValue, version: 1) == ENODEV)
        #expect(probe(driver: RDMA_DRIVER_HFI1.rawValue, version: 3) == ENODEV)
    }
}
