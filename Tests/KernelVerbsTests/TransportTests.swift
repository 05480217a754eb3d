import CAllocationCounter
import CIBVerbs
import CKernelABI
import Glibc
import CLinux
import KernelTestSupport
import KernelVerbs
import Testing

@Suite("KernelVerbs: how commands reach the kernel")
struct TransportTests {
    @Test("the probe decides: ioctl for all, write(2) for all, or methods by ioctl and structs by write(2)")
    func probe() throws {
        for (answer, byWrite) in [
            (ENOSPC, (create: false, register: false)), (ENOTTY, (create: true, register: true)),
            (EPROTONOSUPPORT, (create: false, register: true)), (EINVAL, (create: false, register: false)),
        ] {
            let kernel = FakeKernel()
            let device = kernel.open(answering: answer)
            #expect(device.isWritten(.createCompletionQueue) == byWrite.create)
            #expect(device.isWritten(.destroyQueuePair) == byWrite.create)
            #expect(device.isWritten(.registerMemory) == byWrite.register)
            #expect(device.isWritten(.queryDeviceExtended) == byWrite.register)
        }
    }

    @Test("the probe asks for a command without room for its answer, which every kernel refuses")
    func probeBytes() throws {
        let kernel = FakeKernel()
        _ = kernel.open()
        let probe = try #require(kernel.probe)
        #expect(probe.command == 1 && probe.attributes.map(\.id) == [2] && probe.attributes.map(\.length) == [8])
    }

    @Test("a method by ioctl: header, attributes in order, values inside and beside, what may be left out")
    func createByIoctl() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1234_5678)!, entries: 100, asyncDescriptor: 7)
        request.channel = 9
        request.vector = 3
        kernel.onCall = { call in
            call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(55)
            call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.answer(127 as UInt32)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.answer(0xABCD as UInt64)
            return 0
        }
        var answer: UInt64 = 0
        let made = try DriverData.answer(&answer) { driver throws(KernelError) in
            try device.createCompletionQueue(request, driver: driver)
        }
        #expect(made.handle == 55 && made.entries == 127 && answer == 0xABCD)
        let call = try #require(kernel.calls.last)
        #expect(call.header.length == 24 + 16 * 8 && call.header.num_attrs == 8)
        #expect(call.object == 3 && call.method == 0 && call.header.driver_id == 14)
        #expect(call.attributes.map(\.id) == [0, 1, 2, 3, 4, 6, 7, 0x1001])
        #expect(call.attributes.map(\.length) == [0, 4, 8, 0, 4, 4, 0, 8])
        #expect(call.attributes.map(\.flags) == [1, 1, 1, 1, 1, 1, 0, 1])
        #expect(kernel.inputs[1] == [100, 0, 0, 0] && kernel.inputs[4] == [3, 0, 0, 0])
        #expect(call.attributes[2].data == 0x1234_5678 && call.attributes[3].data == 9)
        #expect(call.attributes[6].data == 7)
        #expect(kernel.writes.isEmpty)
    }

    @Test("a longer value lies beside its attribute; limits and number come back")
    func queuePair() throws {
        let kernel = FakeKernel()
        let device = kernel.open(driver: RDMA_DRIVER_MLX5)
        let limits = ibv_qp_cap(
            max_send_wr: 1, max_recv_wr: 2, max_send_sge: 3, max_recv_sge: 4, max_inline_data: 5)
        let request = QueuePairRequest(
            userHandle: UnsafeRawPointer(bitPattern: 64)!, type: IBV_QPT_RC, domain: 2, sendCompletions: 3,
            receiveCompletions: 4, limits: limits, signalsAll: true, asyncDescriptor: 7)
        kernel.onCall = { call in
            call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(8)
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.answer(0x11 as UInt32)
            var more = limits
            more.max_send_wr = 64
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.answer(more)
            return 0
        }
        let made = try device.createQueuePair(request)
        #expect(made.handle == 8 && made.number == 0x11 && made.limits.max_send_wr == 64)
        let call = try #require(kernel.calls.last)
        #expect(call.attributes.map(\.id) == [0, 2, 4, 5, 7, 8, 9, 10, 12, 13, 14])
        #expect(call.attributes.map(\.length) == [0, 0, 0, 0, 8, 20, 8, 4, 0, 20, 4])
        #expect(kernel.inputs[8] == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0])
        // IB_UVERBS_QP_CREATE_SQ_SIG_ALL; the type is sent with 8 bytes.
        #expect(kernel.inputs[10] == [0, 0x10, 0, 0] && kernel.inputs[9] == [2, 0, 0, 0, 0, 0, 0, 0])
        #expect(call.header.driver_id == 1)
    }

    @Test("a struct by ioctl: number, request, room for the answer, the driver's bytes")
    func structByIoctl() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { call in
            var answer = ib_uverbs_reg_mr_resp()
            (answer.mr_handle, answer.lkey, answer.rkey) = (1, 2, 3)
            let place = UnsafeMutableRawPointer(bitPattern: UInt(call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.data))!
            withUnsafeBytes(of: answer) { place.copyMemory(from: $0.baseAddress!, byteCount: 12) }
            return 0
        }
        let region = try device.registerMemory(
            domain: 6, address: UnsafeMutableRawPointer(bitPattern: 0x1000), length: 0x200, virtualAddress: 0x3000,
            access: 7)
        #expect(region.handle == 1 && region.localKey == 2 && region.remoteKey == 3)
        let call = try #require(kernel.calls.last)
        #expect(call.command == 9 && call.attributes.map(\.id) == [2, 0, 1] && call.attributes[2].length == 12)
        let request = try #require(kernel.inputs[0])
        #expect(request.count == 40 && request.load(8, as: UInt64.self) == 0x1000)
        #expect(request.load(16, as: UInt64.self) == 0x200 && request.load(24, as: UInt64.self) == 0x3000)
        #expect(request.load(32, as: UInt32.self) == 6 && request.load(36, as: UInt32.self) == 7)

        kernel.onCall = { _ in 0 }
        #expect(device.requestNotification(0x21, solicitedOnly: true) == 0)
        let notification = try #require(kernel.calls.last)
        #expect(notification.command == 23 && notification.attributes.map(\.id) == [2, 0])
        // Up to 8 bytes stand in the attribute itself.
        #expect(notification.attributes[1].data == 0x1_0000_0021)
    }

    @Test("a struct by write(2): words of 4 bytes, the answer's address first, the driver's bytes right behind")
    func structByWrite() throws {
        let kernel = FakeKernel()
        let device = kernel.open(answering: ENOTTY)
        kernel.onWrite = { _, answer in
            answer!.storeBytes(of: 77, as: UInt32.self)
            // Not on a boundary of 8: the common part has 4 bytes.
            answer!.storeBytes(of: 99, toByteOffset: 4, as: UInt32.self)
            return 0
        }
        var answer = rxe_create_ah_resp()
        var attributes = ibv_ah_attr()
        attributes.port_num = 1
        let handle = try DriverData.answer(&answer) { driver throws(KernelError) in
            try device.createAddressHandle(domain: 5, attributes, driver: driver)
        }
        #expect(handle == 77 && answer.ah_num == 99)
        let command = try #require(kernel.writes.last)
        // 8 of header and 56 of request; 4 and 8 of answer.
        #expect(command.count == 64 && command.load(0, as: UInt32.self) == 5)
        #expect(command.load(4, as: UInt16.self) == 16 && command.load(6, as: UInt16.self) == 3)
        #expect(command.load(24, as: UInt32.self) == 5 && command[62] == 1)
        #expect(kernel.calls.isEmpty)

        // No answer: no address, and the driver's bytes follow the request.
        kernel.onWrite = { _, _ in 0 }
        var place = rxe_modify_srq_cmd(mmap_info_addr: 0xFEED)
        try withUnsafeBytes(of: &place) { bytes throws(KernelError) in
            try device.modifySharedReceiveQueue(
                3, ibv_srq_attr(max_wr: 9, max_sge: 0, srq_limit: 0), mask: 1, driver: DriverData(input: bytes))
        }
        let second = try #require(kernel.writes.last)
        #expect(second.count == 32 && second.load(0, as: UInt32.self) == 33)
        #expect(second.load(4, as: UInt16.self) == 8 && second.load(6, as: UInt16.self) == 0)
        #expect(second.load(8, as: UInt32.self) == 3 && second.load(24, as: UInt64.self) == 0xFEED)
    }

    @Test("an extended command by write(2): words of 8 bytes, its parts counted apart; a short answer leaves zeros")
    func extendedByWrite() throws {
        let kernel = FakeKernel()
        let device = kernel.open(answering: ENOTTY)
        kernel.onWrite = { _, answer in
            var attributes = ib_uverbs_query_device_resp()
            attributes.fw_ver = 5
            attributes.max_qp = 1000
            // An older kernel: 184 bytes and no more.
            answer!.storeBytes(of: attributes, as: ib_uverbs_query_device_resp.self)
            answer!.storeBytes(of: 184, toByteOffset: 180, as: UInt32.self)
            return 0
        }
        var attributes = ibv_device_attr_ex()
        #expect(try device.queryDevice(&attributes) == 5)
        #expect(attributes.orig_attr.max_qp == 1000 && attributes.completion_timestamp_mask == 0)
        #expect(attributes.max_dm_size == 0 && attributes.tm_caps.max_num_tags == 0)
        let command = try #require(kernel.writes.last)
        #expect(command.count == 32 && command.load(0, as: UInt32.self) == 0x8000_0001)
        #expect(command.load(4, as: UInt16.self) == 1 && command.load(6, as: UInt16.self) == 304 / 8)
        #expect(command.load(16, as: UInt16.self) == 0 && command.load(18, as: UInt16.self) == 0)
    }

    @Test("a command that this kernel has not as a method is written, is not asked again, and others still go by ioctl")
    func fallBackPerCommand() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { $0.object == UVERBS_OBJECT_CQ.rawValue ? EPROTONOSUPPORT : 0 }
        kernel.onWrite = { _, answer in
            let events = ib_uverbs_destroy_cq_resp(comp_events_reported: 3, async_events_reported: 4)
            answer!.storeBytes(of: events, as: ib_uverbs_destroy_cq_resp.self)
            return 0
        }
        for round in 1...2 {
            let events = try device.destroyCompletionQueue(6)
            #expect(events?.completions == 3 && events?.asynchronous == 4)
            #expect(kernel.calls.count == 1 && kernel.writes.count == round)
        }
        #expect(try #require(kernel.writes.last).load(0, as: UInt32.self) == 20)
        try device.deallocateDomain(1)
        #expect(kernel.calls.count == 2 && kernel.writes.count == 2)
        // A kernel whose ioctl has gone altogether (a container's filter, say) gets everything by write(2).
        kernel.onCall = { _ in ENOTTY }
        kernel.onWrite = { _, _ in 0 }
        try device.deallocateDomain(1)
        try device.destroyAddressHandle(1)
        #expect(kernel.calls.count == 3 && kernel.writes.count == 4)
    }

    @Test("destroying: what uses the object is an error, a device that is gone is none and has no events to wait for")
    func destroying() throws {
        for answer in [ENOSPC, ENOTTY] {
            let kernel = FakeKernel()
            let device = kernel.open(answering: answer)
            kernel.onCall = { _ in EBUSY }
            kernel.onWrite = { _, _ in EBUSY }
            #expect(throws: KernelError(rawValue: EBUSY)) { _ = try device.destroyQueuePair(1) }
            #expect(throws: KernelError(rawValue: EBUSY)) { try device.deallocateDomain(1) }
            kernel.onCall = { _ in EIO }
            kernel.onWrite = { _, _ in EIO }
            #expect(try device.destroyQueuePair(1) == nil && device.destroySharedReceiveQueue(1) == nil)
            #expect(try device.destroyCompletionQueue(1) == nil)
        }
    }

    @Test("a context by ioctl has its events from a call of their own; by write(2) both come at once")
    func contexts() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { call in
            if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                call.attributes[0].set(31)
            } else {
                call.attributes[0].answer(8 as UInt32)
                call.attributes[1].answer(1 as UInt64)
            }
            return 0
        }
        let context = try device.getContext()
        #expect(context.asyncDescriptor == 31 && context.completionVectors == 8 && context.takesOptionalAccess)
        #expect(kernel.calls.map(\.object) == [0, 16] && kernel.calls.map(\.method) == [3, 0])
        #expect(kernel.calls[0].attributes.map(\.flags) == [1, 0])

        let old = FakeKernel()
        let oldDevice = old.open(answering: ENOTTY)
        old.onWrite = { _, answer in
            answer!.storeBytes(of: ib_uverbs_get_context_resp.made(32, 4), as: ib_uverbs_get_context_resp.self)
            return 0
        }
        let oldContext = try oldDevice.getContext()
        #expect(oldContext.asyncDescriptor == 32 && oldContext.completionVectors == 4)
        #expect(!oldContext.takesOptionalAccess)
    }

    @Test(
        "asking for a notification allocates nothing, by either way",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer stands in front of malloc"))
    func allocations() {
        for probe in [{ _, _ in 0 }, { _, _ in ENOTTY }]
            as [@convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32]
        {
            let device = KernelDevice(
                descriptor: 0x5000_0000, driver: RDMA_DRIVER_RXE,
                calls: SystemCalls(ioctl: probe, write: { _, _, _ in 0 }))
            _ = device.requestNotification(1, solicitedOnly: false)
            let before = allocation_count()
            for _ in 0..<100 { _ = device.requestNotification(1, solicitedOnly: false) }
            #expect(allocation_count() == before)
        }
    }
}

extension ib_uverbs_get_context_resp {
    fileprivate static func made(_ descriptor: UInt32, _ vectors: UInt32) -> Self {
        var answer = Self()
        answer.async_fd = descriptor
        answer.num_comp_vectors = vectors
        return answer
    }
}
