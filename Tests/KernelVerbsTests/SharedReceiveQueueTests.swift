import CIBVerbs
import CKernelABI
import CProviderABI
import CProviderCore
import Glibc
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@testable import RxeProvider

/// A fake kernel with rdma_rxe's commands of a shared receive queue.
private final class FakeDriver {
    static let shared: UInt64 = 0x1_0000
    static let resized: UInt64 = 0x2_0000

    let kernel = FakeKernel(mapping: 0x4_0000)
    let context: UnsafeMutablePointer<ibv_context>
    private let device = TestDevice("rxe0")
    /// The `mminfo` of the new queue, which MODIFY_SRQ returns.
    var mmapInfo = mminfo(offset: FakeDriver.resized, size: 0x1000, pad: 0)
    /// Errno values with which commands fail.
    var failures: [UInt64: Int32] = [:]
    var destroyFailure: Int32 = 0
    var destroyed = 0

    init() {
        let opened = KernelContext(asyncDescriptor: 0x5000_0002, completionVectors: 2, takesOptionalAccess: true)
        let native = NativeContextPointer.allocate(capacity: 1)
        native.initialize(to: NativeContext(kernel: kernel.open(), opened: opened))
        context = native.initialize(device.pointer.pointee.device)
        fillDataPath(&context.pointee.ops)
        for offset in [Self.shared, Self.resized] {
            var head = rxe_queue_buf()
            head.log2_elem_size = 7
            head.index_mask = 7
            _ = withUnsafeBytes(of: &head) { pwrite(kernel.descriptor, $0.baseAddress, $0.count, off_t(offset)) }
        }
        kernel.onCall = { [unowned self] in respond($0) }
    }

    private func respond(_ call: FakeKernel.Call) -> Int32 {
        if let command = call.command {
            if let failure = failures[command] { return failure }
            guard command == UInt64(IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue) else { return 0 }
            let address = call.attribute(UVERBS_ATTR_UHW_IN)!.bytes.load(0, as: UInt64.self)
            UnsafeMutableRawPointer(bitPattern: UInt(address))!.storeBytes(of: mmapInfo, as: mminfo.self)
            return 0
        }
        guard call.object == UVERBS_OBJECT_SRQ.rawValue else { return 0 }
        if call.method == UVERBS_METHOD_SRQ_DESTROY.rawValue {
            destroyed += 1
            return destroyFailure
        }
        call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)!.set(41)
        call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR.rawValue)!.respond(7 as UInt32)
        call.attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE.rawValue)!.respond(2 as UInt32)
        let mmapInfo = mminfo(offset: Self.shared, size: 0x1000, pad: 0)
        UnsafeMutableRawPointer(bitPattern: UInt(call.attribute(UVERBS_ATTR_UHW_OUT)!.data))!
            .storeBytes(of: mmapInfo, as: mminfo.self)
        return 0
    }

    func close() { #expect(closeNativeContext(context: context) == 0) }
}

private func explanation(_ error: Int32) -> String { rdma_explanation(error).map { String(cString: $0) } ?? "" }

@Suite("Shared receive queues on a fake kernel")
struct SharedReceiveQueueTests {
    private func makeQueue(_ driver: FakeDriver) throws -> UnsafeMutablePointer<ibv_srq> {
        let table = controlTable.pointee
        var limits = ibv_srq_init_attr_ex()
        limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        limits.pd = table.alloc_pd(driver.context)
        return try #require(table.create_srq_ex(driver.context, &limits))
    }

    @Test("Each verb returns the errno value of its command")
    func errnoValues() throws {
        let driver = FakeDriver()
        let table = controlTable.pointee
        let queue = try makeQueue(driver)
        let domain = queue.pointee.pd!
        var attributes = ibv_srq_attr(max_wr: 60, max_sge: 0, srq_limit: 3)
        driver.failures[UInt64(IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue)] = EOWNERDEAD
        #expect(table.modify_srq(queue, &attributes, Int32(IBV_SRQ_MAX_WR.rawValue)) == EOWNERDEAD)
        #expect(table.modify_srq(queue, &attributes, Int32(IBV_SRQ_LIMIT.rawValue)) == EOWNERDEAD)
        driver.failures[UInt64(IB_USER_VERBS_CMD_QUERY_SRQ.rawValue)] = ENOTRECOVERABLE
        #expect(table.query_srq(queue, &attributes) == ENOTRECOVERABLE)
        // The queue is unchanged.
        var request = ibv_recv_wr()
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        #expect(ibv_post_srq_recv(queue, &request, &bad) == 0)
        driver.destroyFailure = EBUSY
        #expect(table.destroy_srq(queue) == EBUSY)
        driver.destroyFailure = 0
        #expect(table.destroy_srq(queue) == 0 && table.dealloc_pd(domain) == 0)
        driver.close()
    }

    @Test("If the queue cannot be mapped, the errno value has an explanation with the state of the queue")
    func unmapped() throws {
        _ = providerEntry(core: OpenedContext.core, why: nil)
        let table = controlTable.pointee
        let message = "accepts no more receives"
        // An offset that is not a multiple of the page size; no size; memory without a queue header.
        for (offset, size, error) in [(0x2_0001, 0x1000, EINVAL), (0x2_0000, 0, EPROTO), (0x3_0000, 0x1000, EPROTO)] {
            let driver = FakeDriver()
            let queue = try makeQueue(driver)
            let domain = queue.pointee.pd!
            driver.mmapInfo = mminfo(offset: UInt64(offset), size: UInt32(size), pad: 0)
            var larger = ibv_srq_attr(max_wr: 60, max_sge: 0, srq_limit: 0)
            rdma_drop_explanation()
            #expect(table.modify_srq(queue, &larger, Int32(IBV_SRQ_MAX_WR.rawValue)) == error)
            #expect(explanation(error).contains(message), "\(error): \(explanation(error))")
            var request = ibv_recv_wr()
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(ibv_post_srq_recv(queue, &request, &bad) == EINVAL)
            #expect(table.destroy_srq(queue) == 0)

            // A failing DESTROY of a new queue does not replace the error.
            driver.kernel.onCall = { call in
                if call.method == UVERBS_METHOD_SRQ_DESTROY.rawValue { return EBUSY }
                call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)?.set(42)
                return 0
            }
            var limits = ibv_srq_init_attr_ex()
            limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            limits.pd = domain
            rdma_drop_explanation()
            errno = 0
            #expect(table.create_srq_ex(driver.context, &limits) == nil && errno == EPROTO)
            #expect(explanation(EPROTO).contains("RDMA_PROVIDER=libibverbs"), "\(explanation(EPROTO))")
            driver.kernel.onCall = { _ in 0 }
            #expect(table.dealloc_pd(domain) == 0)
            driver.close()
        }
    }
}
