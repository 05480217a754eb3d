import CAllocationCounter
import CIBVerbs
import CKernelABI
import Glibc
import CLinux
import KernelTestSupport
import KernelVerbs
import Testing

@Suite("KernelVerbs: commands by ioctl and by write(2)")
struct TransportTests {
    @Test("the probe selects ioctl or write(2) for all commands, or ioctl for methods and write(2) for structs")
    func probe() throws {
        for (probeResult, byWrite) in [
            (ENOSPC, (create: false, register: false)), (ENOTTY, (create: true, register: true)),
            (EPROTONOSUPPORT, (create: false, register: true)), (EINVAL, (create: false, register: false)),
        ] {
            let kernel = FakeKernel()
            let device = kernel.open(returning: probeResult)
            #expect(device.isWritten(.createCompletionQueue) == byWrite.create)
            #expect(device.isWritten(.destroyQueuePair) == byWrite.create)
            #expect(device.isWritten(.registerMemory) == byWrite.register)
            #expect(device.isWritten(.queryDeviceExtended) == byWrite.register)
        }
    }

    @Test("the probe is an INVOKE_WRITE of QUERY_DEVICE without a response buffer, which every kernel refuses")
    func probeBytes() throws {
        let kernel = FakeKernel()
        _ = kernel.open()
        let probe = try #require(kernel.probe)
        #expect(probe.command == 1 && probe.attributes.map(\.id) == [2] && probe.attributes.map(\.length) == [8])
    }

    @Test("a method by ioctl: the header and the attributes in order, with inline values and pointers, and their flags")
    func createByIoctl() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(bitPattern: 0x1234_5678)!, entries: 100, asyncDescriptor: 7)
        request.channel = 9
        request.vector = 3
        kernel.onCall = { call in
            call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(55)
            call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(127 as UInt32)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(0xABCD as UInt64)
            return 0
        }
        var response: UInt64 = 0
        let created = try DriverData.response(&response) { driver throws(KernelError) in
            try device.createCompletionQueue(request, driver: driver)
        }
        #expect(created.handle == 55 && created.entries == 127 && response == 0xABCD)
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

    @Test("QP_CREATE: values above 8 bytes are sent by pointer; handle, qp_num and limits are returned")
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
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(0x11 as UInt32)
            var more = limits
            more.max_send_wr = 64
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(more)
            return 0
        }
        let created = try device.createQueuePair(request)
        #expect(created.handle == 8 && created.number == 0x11 && created.limits.max_send_wr == 64)
        let call = try #require(kernel.calls.last)
        #expect(call.attributes.map(\.id) == [0, 2, 4, 5, 7, 8, 9, 10, 12, 13, 14])
        #expect(call.attributes.map(\.length) == [0, 0, 0, 0, 8, 20, 8, 4, 0, 20, 4])
        #expect(kernel.inputs[8] == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0])
        // IB_UVERBS_QP_CREATE_SQ_SIG_ALL; the QP type has 8 bytes.
        #expect(kernel.inputs[10] == [0, 0x10, 0, 0] && kernel.inputs[9] == [2, 0, 0, 0, 0, 0, 0, 0])
        #expect(call.header.driver_id == 1)
    }

    @Test("with a shared receive queue, max_recv_wr and max_recv_sge are sent as 0, by ioctl and by write(2)")
    func sharedReceives() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        var request = QueuePairRequest(
            userHandle: UnsafeRawPointer(bitPattern: 64)!, type: IBV_QPT_RC, domain: 2, sendCompletions: 3,
            receiveCompletions: 4,
            limits: ibv_qp_cap(
                max_send_wr: 1, max_recv_wr: .max, max_send_sge: 3, max_recv_sge: .max, max_inline_data: 5),
            signalsAll: false, asyncDescriptor: 7)
        request.sharedReceiveQueue = 9
        kernel.onCall = { _ in 0 }
        _ = try device.createQueuePair(request)
        let limits = [1, 0, 0, 0] + [0, 0, 0, 0] + [3, 0, 0, 0] + [0, 0, 0, 0] + [5, 0, 0, 0]
        #expect(kernel.inputs.values.contains { Array($0) == limits.map { UInt8($0) } })

        let old = FakeKernel()
        let oldDevice = old.open(returning: ENOTTY)
        old.onWrite = { _, _ in 0 }
        _ = try oldDevice.createQueuePair(request)
        let command = try #require(old.writes.last)
        let start = 8 + MemoryLayout<ib_uverbs_create_qp>.offset(of: \.max_send_wr)!
        #expect(Array(command[start..<start + 20]) == limits.map { UInt8($0) })
    }

    @Test("a struct by ioctl (INVOKE_WRITE): command number, request, response buffer")
    func structByIoctl() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { call in
            var response = ib_uverbs_reg_mr_resp()
            (response.mr_handle, response.lkey, response.rkey) = (1, 2, 3)
            let buffer = UnsafeMutableRawPointer(bitPattern: UInt(call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.data))!
            withUnsafeBytes(of: response) { buffer.copyMemory(from: $0.baseAddress!, byteCount: 12) }
            return 0
        }
        let region = try device.registerMemory(
            domain: 6, address: UnsafeMutableRawPointer(bitPattern: 0x1000), length: 0x200, virtualAddress: 0x3000,
            access: 7)
        #expect(region.handle == 1 && region.lkey == 2 && region.rkey == 3)
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
        // Up to 8 bytes are inline in the attribute.
        #expect(notification.attributes[1].data == 0x1_0000_0021)
    }

    @Test("a struct by write(2): sizes in 4-byte words, the response address first, then the request and driver data")
    func structByWrite() throws {
        let kernel = FakeKernel()
        let device = kernel.open(returning: ENOTTY)
        kernel.onWrite = { _, response in
            response!.storeBytes(of: 77, as: UInt32.self)
            // Not a multiple of 8: the common response has 4 bytes.
            response!.storeBytes(of: 99, toByteOffset: 4, as: UInt32.self)
            return 0
        }
        var response = rxe_create_ah_resp()
        var attributes = ibv_ah_attr()
        attributes.port_num = 1
        let handle = try DriverData.response(&response) { driver throws(KernelError) in
            try device.createAddressHandle(domain: 5, attributes, driver: driver)
        }
        #expect(handle == 77 && response.ah_num == 99)
        let command = try #require(kernel.writes.last)
        // 8 bytes of header and 56 of request; 4 bytes of response and 8 of driver data.
        #expect(command.count == 64 && command.load(0, as: UInt32.self) == 5)
        #expect(command.load(4, as: UInt16.self) == 16 && command.load(6, as: UInt16.self) == 3)
        #expect(command.load(24, as: UInt32.self) == 5 && command[62] == 1)
        #expect(kernel.calls.isEmpty)

        // Without a response there is no address, and the driver data follows the request.
        kernel.onWrite = { _, _ in 0 }
        var input = rxe_modify_srq_cmd(mmap_info_addr: 0xFEED)
        try withUnsafeBytes(of: &input) { bytes throws(KernelError) in
            try device.modifySharedReceiveQueue(
                3, ibv_srq_attr(max_wr: 9, max_sge: 0, srq_limit: 0), mask: 1, driver: DriverData(input: bytes))
        }
        let second = try #require(kernel.writes.last)
        #expect(second.count == 32 && second.load(0, as: UInt32.self) == 33)
        #expect(second.load(4, as: UInt16.self) == 8 && second.load(6, as: UInt16.self) == 0)
        #expect(second.load(8, as: UInt32.self) == 3 && second.load(24, as: UInt64.self) == 0xFEED)
    }

    @Test("an extended command by write(2): sizes in 8-byte words; fields beyond a short response are 0")
    func extendedByWrite() throws {
        let kernel = FakeKernel()
        let device = kernel.open(returning: ENOTTY)
        kernel.onWrite = { _, response in
            var attributes = ib_uverbs_query_device_resp()
            attributes.fw_ver = 5
            attributes.max_qp = 1000
            // An older kernel: a response of 184 bytes.
            response!.storeBytes(of: attributes, as: ib_uverbs_query_device_resp.self)
            response!.storeBytes(of: 184, toByteOffset: 180, as: UInt32.self)
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

    @Test("a command without an ioctl method is sent by write(2) from then on, other commands still by ioctl")
    func fallBackPerCommand() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { $0.object == UVERBS_OBJECT_CQ.rawValue ? EPROTONOSUPPORT : 0 }
        kernel.onWrite = { _, response in
            let events = ib_uverbs_destroy_cq_resp(comp_events_reported: 3, async_events_reported: 4)
            response!.storeBytes(of: events, as: ib_uverbs_destroy_cq_resp.self)
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
        // When ioctl fails with ENOTTY, such as through a container's filter, all commands are sent by write(2).
        kernel.onCall = { _ in ENOTTY }
        kernel.onWrite = { _, _ in 0 }
        try device.deallocateDomain(1)
        try device.destroyAddressHandle(1)
        #expect(kernel.calls.count == 3 && kernel.writes.count == 4)
    }

    @Test("destroying an object in use is an error; on a removed device (EIO) it succeeds without reported events")
    func destroying() throws {
        for probeResult in [ENOSPC, ENOTTY] {
            let kernel = FakeKernel()
            let device = kernel.open(returning: probeResult)
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

    @Test("by ioctl, a context needs GET_CONTEXT and ASYNC_EVENT_ALLOC; by write(2), GET_CONTEXT returns async_fd")
    func contexts() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        kernel.onCall = { call in
            if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                call.attributes[0].set(31)
            } else {
                call.attributes[0].respond(8 as UInt32)
                call.attributes[1].respond(1 as UInt64)
            }
            return 0
        }
        let context = try device.getContext()
        #expect(context.asyncDescriptor == 31 && context.completionVectors == 8 && context.takesOptionalAccess)
        #expect(kernel.calls.map(\.object) == [0, 16] && kernel.calls.map(\.method) == [3, 0])
        #expect(kernel.calls[0].attributes.map(\.flags) == [1, 0])

        let old = FakeKernel()
        let oldDevice = old.open(returning: ENOTTY)
        old.onWrite = { _, response in
            response!.storeBytes(of: ib_uverbs_get_context_resp.response(32, 4), as: ib_uverbs_get_context_resp.self)
            return 0
        }
        let oldContext = try oldDevice.getContext()
        #expect(oldContext.asyncDescriptor == 32 && oldContext.completionVectors == 4)
        #expect(!oldContext.takesOptionalAccess)
    }

    @Test(
        "REQ_NOTIFY_CQ allocates no memory, by ioctl and by write(2)",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
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
    fileprivate static func response(_ descriptor: UInt32, _ vectors: UInt32) -> Self {
        var response = Self()
        response.async_fd = descriptor
        response.num_comp_vectors = vectors
        return response
    }
}
