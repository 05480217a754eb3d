import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

/// Providers with one fault each: the simulated kernel refuses the call with the errno value of Linux and a reason.
@Suite("Simulator: faulty providers are refused, independent of the vendor")
struct WrongDriverTests {
    /// The `user_handle` of every object.
    private static var handle: UnsafeRawPointer { UnsafeRawPointer(bitPattern: 0x1000)! }

    @Test("a command before GET_CONTEXT and a second GET_CONTEXT are refused", arguments: ["hfi1", "hfi1 write"])
    func order(device: String) throws {
        let driver = try Driver(device)
        driver.expectRefusal(EINVAL, "must be GET_CONTEXT") { _ = try driver.kernel.allocateDomain() }
        let context = try driver.kernel.getContext()
        #expect(context.completionVectors == 2)
        driver.expectRefusal(EINVAL, "has a context already") { _ = try driver.kernel.getContext() }
    }

    @Test("handles of no object, a destroyed object or another type are refused", arguments: ["hfi1", "hfi1 write"])
    func handles(device: String) throws {
        let driver = try Driver(device)
        let kernel = driver
        _ = try kernel.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        let error = device.contains("write") ? EINVAL : ENOENT
        driver.expectRefusal(error, "no object of this handle") { try driver.kernel.deallocateDomain(domain + 100) }
        driver.expectRefusal(error, "another kind") { try driver.kernel.deregisterMemory(domain) }
        try driver.kernel.deallocateDomain(domain)
        driver.expectRefusal(error, "no object of this handle") { try driver.kernel.deallocateDomain(domain) }
        driver.expectRefusal(EINVAL, "no object of this handle") {
            _ = try driver.kernel.registerMemory(
                domain: domain, address: nil, length: 0, virtualAddress: 0, access: 0)
        }
    }

    @Test(
        "REG_MR refuses memory that is not mapped or read-only, another offset in its page, inconsistent access flags")
    func memory() throws {
        let driver = try Driver("hfi1")
        _ = try driver.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        let page = try #require(mmap(nil, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        mprotect(page, 4096, PROT_READ)
        defer { munmap(page, 8192) }
        func register(_ length: Int, _ access: ibv_access_flags?, at offset: UInt64 = 0) throws {
            let region = try driver.kernel.registerMemory(
                domain: domain, address: page, length: length, virtualAddress: UInt64(UInt(bitPattern: page)) + offset,
                access: access?.rawValue ?? 0)
            try driver.kernel.deregisterMemory(region.handle)
        }
        try register(4096, nil)
        driver.expectRefusal(EFAULT, "not mapped") { try register(4097, nil) }
        driver.expectRefusal(EFAULT, "may not be written") { try register(4096, IBV_ACCESS_LOCAL_WRITE) }
        driver.expectRefusal(EINVAL, "another offset in its page") { try register(4096, nil, at: 8) }
        driver.expectRefusal(EINVAL, "without local write") { try register(4096, IBV_ACCESS_REMOTE_WRITE) }
        driver.expectRefusal(EOPNOTSUPP, "does not know") { try register(1, ibv_access_flags(rawValue: 1 << 15)) }
    }

    @Test("destroying an object that others use fails with EBUSY", arguments: ["hfi1", "hfi1 write"])
    func use(device: String) throws {
        let driver = try Driver(device)
        let context = try driver.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        let queue = try completionQueue(driver, context)
        let pair = try queuePair(driver, context, domain, queue)
        driver.expectRefusal(EBUSY, "still use this one") { try driver.kernel.deallocateDomain(domain) }
        driver.expectRefusal(EBUSY, "still use this one") { _ = try driver.kernel.destroyCompletionQueue(queue) }
        #expect(try driver.kernel.destroyQueuePair(pair.handle) == 0)
        _ = try driver.kernel.destroyCompletionQueue(queue)
        try driver.kernel.deallocateDomain(domain)
    }

    private func completionQueue(
        _ driver: Driver, _ context: KernelContext, entries: UInt32 = 4, vector: UInt32 = 0, channel: Int32? = nil
    ) throws -> UInt32 {
        var request = CompletionQueueRequest(
            userHandle: Self.handle, entries: entries, asyncDescriptor: context.asyncDescriptor)
        request.vector = vector
        request.channel = channel
        var offset: UInt64 = 0
        return try DriverData.response(&offset) { data throws(KernelError) in
            try driver.kernel.createCompletionQueue(request, driver: data)
        }.handle
    }

    private func queuePair(
        _ driver: Driver, _ context: KernelContext, _ domain: UInt32, _ queue: UInt32, sges: UInt32 = 1,
        type: ibv_qp_type = IBV_QPT_RC
    ) throws -> KernelQueuePair {
        let request = QueuePairRequest(
            userHandle: Self.handle, type: type, domain: domain, sendCompletions: queue, receiveCompletions: queue,
            limits: ibv_qp_cap(
                max_send_wr: 4, max_recv_wr: 4, max_send_sge: sges, max_recv_sge: 1, max_inline_data: 0),
            signalsAll: false, asyncDescriptor: context.asyncDescriptor)
        var offset: UInt64 = 0
        return try DriverData.response(&offset) { data throws(KernelError) in
            try driver.kernel.createQueuePair(request, driver: data)
        }
    }

    @Test("queues larger than the device supports, unknown completion vectors and invalid descriptors are refused")
    func limits() throws {
        let driver = try Driver("hfi1")
        let context = try driver.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        driver.expectRefusal(EINVAL, "number of CQEs (0, not") {
            _ = try completionQueue(driver, context, entries: 0)
        }
        driver.expectRefusal(EINVAL, "the device does not support this number of CQEs") {
            _ = try completionQueue(driver, context, entries: 0x30_0000)
        }
        driver.expectRefusal(EINVAL, "completion vector") { _ = try completionQueue(driver, context, vector: 2) }
        driver.expectRefusal(EBADF, "none of this context's events") {
            _ = try completionQueue(driver, context, channel: 0)
        }
        driver.expectRefusal(EINVAL, "other type of events") {
            _ = try completionQueue(driver, context, channel: context.asyncDescriptor)
        }
        let queue = try completionQueue(driver, context)
        driver.expectRefusal(EINVAL, "max_sge") {
            _ = try queuePair(driver, context, domain, queue, sges: 17)
        }
        driver.expectRefusal(EOPNOTSUPP, "no such queue pairs") {
            _ = try queuePair(driver, context, domain, queue, type: IBV_QPT_RAW_PACKET)
        }
    }

    @Test("MODIFY_QP refuses invalid transitions of an RC queue pair, and valid ones without a required attribute")
    func transitions() throws {
        let driver = try Driver("hfi1")
        let context = try driver.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        let queue = try completionQueue(driver, context)
        let pair = try queuePair(driver, context, domain, queue)
        var attributes = ibv_qp_attr()
        attributes.port_num = 1
        attributes.path_mtu = IBV_MTU_1024
        attributes.ah_attr.port_num = 1
        attributes.ah_attr.dlid = 1
        func modify(_ state: ibv_qp_state, _ mask: UInt32) throws {
            attributes.qp_state = state
            try driver.kernel.modifyQueuePair(pair.handle, attributes, mask: mask | IBV_QP_STATE.rawValue)
        }
        // The required attributes of RC for INIT, RTR and RTS (IBTA 11.2.5.2).
        let ways: [(ibv_qp_state, [ibv_qp_attr_mask])] = [
            (IBV_QPS_INIT, [IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS]),
            (
                IBV_QPS_RTR,
                [
                    IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC,
                    IBV_QP_MIN_RNR_TIMER,
                ]
            ),
            (
                IBV_QPS_RTS,
                [
                    IBV_QP_SQ_PSN, IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC,
                ]
            ),
        ]
        for (position, (state, bits)) in ways.enumerated() {
            let mask = bits.reduce(0) { $0 | $1.rawValue }
            for later in ways[(position + 1)...].map(\.0) + [IBV_QPS_SQD, IBV_QPS_SQE] {
                driver.expectRefusal(EINVAL, "no such transition") { try modify(later, mask) }
            }
            for bit in bits {
                driver.expectRefusal(EINVAL, "required attributes are missing") {
                    try modify(state, mask & ~bit.rawValue)
                }
            }
            driver.expectRefusal(EINVAL, "does not allow") { try modify(state, mask | IBV_QP_QKEY.rawValue) }
            driver.expectRefusal(EOPNOTSUPP, "plain MODIFY_QP") { try modify(state, mask | 1 << 21) }
            try modify(state, mask)
        }
        attributes.port_num = 2
        try modify(IBV_QPS_RESET, 0)
        driver.expectRefusal(EINVAL, "no such port (2)") {
            try modify(IBV_QPS_INIT, ways[0].1.reduce(0) { $0 | $1.rawValue })
        }
    }

    @Test("write(2) refuses wrong lengths, too little room for the response, unknown commands")
    func lengths() throws {
        let driver = try Driver("hfi1 write")
        _ = try driver.kernel.getContext()
        var answer: UInt64 = 0
        withUnsafeMutableBytes(of: &answer) { room in
            var body: [UInt8] = []
            body.append(UInt64(UInt(bitPattern: room.baseAddress)))
            let allocate = IB_USER_VERBS_CMD_ALLOC_PD.rawValue
            #expect(driver.write(allocate, words: 3, body, answer: room) == EINVAL)
            #expect(driver.refusal.contains("another length, in bytes (12, not 16)"))
            #expect(driver.write(allocate, Array(body[..<4]), answer: room) == ENOSPC)
            #expect(driver.refusal == "ALLOC_PD: shorter than the command's struct, in bytes (4, not 8)")
            #expect(driver.write(allocate, body, answer: room, answerWords: 0) == ENOSPC)
            #expect(driver.refusal.contains("less room than the response needs"))
            #expect(driver.write(allocate, body + [1, 0, 0, 0], answer: room) == EINVAL)
            #expect(driver.refusal.contains("driver data, which this driver does not have"))
            #expect(driver.write(99, body, answer: room) == EOPNOTSUPP)
            #expect(driver.write(allocate | 0x4000_0000, body, answer: room) == EINVAL)
            #expect(driver.write(allocate, body, answer: room) == 0)
        }
        #expect(sim_write(driver.descriptor, [0, 0, 0, 0], 4) == EINVAL)
        #expect(sim_ioctl(driver.descriptor, 0xC018_1B01, &answer) == ENOTTY)
    }

    @Test("ioctl(2) refuses a wrong header, and attributes that are duplicate, unknown, missing or of wrong length")
    func attributes() throws {
        let driver = try Driver("hfi1")
        let context = try driver.kernel.getContext()
        /// Calls QUERY_PORT with attributes of id, length, flags, data. Returns the errno value.
        func call(
            _ attributes: [(UInt16, UInt16, UInt16, UInt64)], length: Int? = nil, driver number: UInt32 = 15
        ) -> Int32 {
            var bytes: [UInt8] = []
            bytes.append(UInt16(length ?? 24 + 16 * attributes.count))
            bytes.append(UInt16(0))
            bytes.append(UInt16(2))
            bytes.append(UInt16(attributes.count))
            bytes.append(UInt64(0))
            bytes.append(number)
            bytes.append(UInt32(0))
            for (id, length, flags, data) in attributes {
                bytes.append(id)
                bytes.append(length)
                bytes.append(flags)
                bytes.append(UInt16(0))
                bytes.append(data)
            }
            return bytes.withUnsafeMutableBytes {
                sim_ioctl(driver.descriptor, 0xC018_1B01, $0.baseAddress)
            }
        }
        let room = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
        defer { room.deallocate() }
        let place = UInt64(UInt(bitPattern: room))
        #expect(call([(0, 8, 1, 1), (1, 48, 1, place)]) == 0)
        #expect(call([(1, 48, 1, place), (0, 8, 1, 1)]) == 0)
        #expect(call([(0, 8, 1, 1), (1, 48, 1, place)], length: 40) == EINVAL)
        #expect(driver.refusal.contains("another length"))
        #expect(call([(0, 8, 1, 1), (1, 48, 1, place)], driver: 1) == EINVAL)
        #expect(driver.refusal.contains("another driver's device (1, not 15)"))
        #expect(call([(0, 8, 1, 1)]) == EINVAL)
        #expect(driver.refusal.contains("is missing"))
        #expect(call([(0, 8, 1, 1), (0, 8, 1, 1), (1, 48, 1, place)]) == EINVAL)
        #expect(driver.refusal.contains("twice"))
        #expect(call([(0, 4, 1, 1), (1, 48, 1, place)]) == EINVAL)
        #expect(driver.refusal.contains("an input of the wrong length"))
        #expect(call([(0, 8, 1, 1), (1, 39, 1, place)]) == EINVAL)
        #expect(driver.refusal.contains("less room"))
        #expect(call([(0, 8, 1, 1), (1, 48, 1, place), (7, 8, 1, 0)]) == EPROTONOSUPPORT)
        #expect(driver.refusal.contains("mandatory attribute that this method lacks (7)"))
        #expect(call([(0, 8, 1, 1), (1, 48, 1, place), (7, 8, 0, 0)]) == 0)
        #expect(call([(0, 8, 4, 1), (1, 48, 1, place)]) == EINVAL)
        #expect(call([(0, 8, 1, 2), (1, 48, 1, place)]) == EINVAL)
        #expect(driver.refusal.contains("no such port (2)"))
        _ = context
    }
}
