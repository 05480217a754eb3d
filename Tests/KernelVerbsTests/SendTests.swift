import CAllocationCounter
import CIBVerbs
import CKernelABI
import CLinux
import KernelTestSupport
import KernelVerbs
import Testing

@Suite("KernelVerbs: POST_SEND to a send queue in the kernel")
struct SendTests {
    /// A list of linked work requests, each with its own SGEs.
    private final class Chain {
        let requests: UnsafeMutableBufferPointer<ibv_send_wr>
        let sges: UnsafeMutableBufferPointer<ibv_sge>

        init(_ count: Int, opcode: ibv_wr_opcode = IBV_WR_SEND, sgesEach: Int = 1) {
            requests = .allocate(capacity: count)
            sges = .allocate(capacity: max(1, count * sgesEach))
            for index in sges.indices {
                sges.initializeElement(
                    at: index, to: ibv_sge(addr: 0x1_0000 + UInt64(index), length: 8, lkey: UInt32(index)))
            }
            for index in requests.indices {
                var request = ibv_send_wr()
                request.wr_id = UInt64(index)
                request.opcode = opcode
                request.send_flags = IBV_SEND_SIGNALED.rawValue
                request.num_sge = Int32(sgesEach)
                request.sg_list = sges.baseAddress! + index * sgesEach
                request.next = index + 1 < count ? requests.baseAddress! + index + 1 : nil
                requests.initializeElement(at: index, to: request)
            }
        }

        deinit {
            requests.deallocate()
            sges.deallocate()
        }

        /// Posts the list. Returns 0 or an errno value, and the index of `bad_wr`.
        func post(_ command: SendCommand, _ device: borrowing KernelDevice) -> (error: Int32, bad: Int?) {
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            let error = command.post(requests.baseAddress, to: device, bad: &bad)
            return (error, bad.map { $0 - requests.baseAddress! })
        }
    }

    @Test("a list is one command, by ioctl and by write(2): the work requests, then all SGEs, in order")
    func oneCommand() throws {
        for probeResult in [ENOSPC, ENOTTY] {
            let kernel = FakeKernel()
            let device = kernel.open(returning: probeResult)
            let command = SendCommand(queuePair: 77, type: IBV_QPT_RC, maxSGE: 4)
            defer { command.free() }
            let chain = Chain(3, sgesEach: 2)
            chain.requests[0].opcode = IBV_WR_RDMA_WRITE_WITH_IMM
            chain.requests[0].imm_data = 0xAABB
            chain.requests[0].wr.rdma.remote_addr = 0x7777_0000
            chain.requests[0].wr.rdma.rkey = 0x55
            chain.requests[1].opcode = IBV_WR_ATOMIC_CMP_AND_SWP
            chain.requests[1].wr.atomic.remote_addr = 0x8888_0000
            chain.requests[1].wr.atomic.compare_add = 3
            chain.requests[1].wr.atomic.swap = 4
            chain.requests[1].wr.atomic.rkey = 0x56
            chain.requests[2].opcode = IBV_WR_SEND_WITH_INV
            chain.requests[2].invalidate_rkey = 0x4242
            chain.requests[2].send_flags = IBV_SEND_FENCE.rawValue | IBV_SEND_SOLICITED.rawValue
            chain.requests[2].num_sge = 1
            var all: [SentRequests] = []
            kernel.executeSends { all.append($0) }
            #expect(chain.post(command, device).error == 0)
            #expect(all.count == 1)
            let sent = try #require(all.first)
            #expect(sent.queuePair == 77 && sent.requests.map(\.wr_id) == [0, 1, 2])
            #expect(sent.requests.map(\.opcode) == [1, 5, 9] && sent.requests.map(\.num_sge) == [2, 2, 1])
            #expect(sent.requests.map(\.send_flags) == [2, 2, 5])
            #expect(sent.requests[0].ex.imm_data == 0xAABB && sent.requests[2].ex.invalidate_rkey == 0x4242)
            let write = sent.requests[0].wr.rdma
            #expect(write.remote_addr == 0x7777_0000 && write.rkey == 0x55)
            let swap = sent.requests[1].wr.atomic
            #expect(swap.remote_addr == 0x8888_0000 && swap.compare_add == 3 && swap.swap == 4 && swap.rkey == 0x56)
            #expect(sent.sges.map(\.lkey) == [0, 1, 2, 3, 4])
            #expect(
                sent.sges.map(\.addr) == (0..<5).map { 0x1_0000 + $0 }
                    && sent.sges.allSatisfy { $0.length == 8 })
        }
    }

    @Test("a UD work request contains the uverbs handle of its address handle")
    func datagrams() throws {
        let kernel = FakeKernel()
        let device = kernel.open()
        let command = SendCommand(queuePair: 1, type: IBV_QPT_UD, maxSGE: 1)
        defer { command.free() }
        var handle = ibv_ah(context: nil, pd: nil, handle: 0x1234)
        var all: [SentRequests] = []
        kernel.executeSends { all.append($0) }
        withUnsafeMutablePointer(to: &handle) { handle in
            let chain = Chain(2)
            for index in 0..<2 {
                chain.requests[index].wr.ud.ah = handle
                chain.requests[index].wr.ud.remote_qpn = 0x11
                chain.requests[index].wr.ud.remote_qkey = 0x8001_0000
            }
            #expect(chain.post(command, device).error == 0)
            let sent = all[0].requests[1].wr.ud
            #expect(sent.ah == 0x1234 && sent.remote_qpn == 0x11 && sent.remote_qkey == 0x8001_0000)
            chain.requests[1].wr.ud.ah = nil
            #expect(chain.post(command, device) == (EINVAL, 1))
            #expect(all.count == 2 && all[1].requests.count == 1)
            chain.requests[0].opcode = IBV_WR_RDMA_WRITE
            #expect(chain.post(command, device) == (EINVAL, 0) && all.count == 2)
        }
    }

    @Test("a list that is longer than the command's memory is sent in several full commands, in order")
    func longLists() {
        let kernel = FakeKernel()
        let device = kernel.open()
        let command = SendCommand(queuePair: 1, type: IBV_QPT_RC, maxSGE: 3)
        defer { command.free() }
        var all: [SentRequests] = []
        kernel.executeSends { all.append($0) }
        let chain = Chain(1000, sgesEach: 3)
        #expect(chain.post(command, device).error == 0)
        #expect(all.flatMap { $0.requests.map(\.wr_id) } == (0..<1000).map { $0 })
        #expect(all.flatMap { $0.sges.map(\.lkey) } == (0..<3000).map { $0 })
        #expect(all.count == (1000 + 77) / 78)
        // A work request without SGEs, between two with max_send_sge.
        all = []
        let most = SendCommand(queuePair: 1, type: IBV_QPT_RC, maxSGE: 1000)
        defer { most.free() }
        let wide = Chain(3, sgesEach: 1000)
        wide.requests[1].num_sge = 0
        #expect(wide.post(most, device).error == 0 && all.map(\.requests.count) == [1, 1, 1])
        let none = SendCommand(queuePair: 1, type: IBV_QPT_RC, maxSGE: 1)
        defer { none.free() }
        #expect(none.check(nil, device) == 0)
    }

    @Test("an invalid work request is bad_wr, and those before it are sent")
    func badRequests() {
        let kernel = FakeKernel()
        let device = kernel.open()
        let command = SendCommand(queuePair: 1, type: IBV_QPT_UC, maxSGE: 2)
        defer { command.free() }
        var sent = 0
        kernel.executeSends { sent += $0.requests.count }
        let mistakes: [(Int32, (inout ibv_send_wr) -> Void)] = [
            (EINVAL, { $0.opcode = IBV_WR_RDMA_READ }), (EINVAL, { $0.opcode = IBV_WR_LOCAL_INV }),
            (EINVAL, { $0.opcode = ibv_wr_opcode(32) }), (EINVAL, { $0.opcode = ibv_wr_opcode(UInt32.max) }),
            (EINVAL, { $0.num_sge = 3 }), (EINVAL, { $0.num_sge = -1 }), (EINVAL, { $0.sg_list = nil }),
            (EINVAL, { $0.send_flags |= IBV_SEND_INLINE.rawValue }),
            (EOPNOTSUPP, { $0.send_flags |= IBV_SEND_IP_CSUM.rawValue }), (EOPNOTSUPP, { $0.send_flags |= 1 << 20 }),
        ]
        for (number, (error, mistake)) in mistakes.enumerated() {
            for index in [0, 2, 4] {
                let chain = Chain(5)
                mistake(&chain.requests[index])
                sent = 0
                #expect(chain.post(command, device) == (error, index), "mistake \(number)")
                #expect(sent == index)
            }
        }
    }

    @Test("a work request that the kernel refuses is bad_wr, also in a later command of the list")
    func refusals() {
        for probeResult in [ENOSPC, ENOTTY] {
            let kernel = FakeKernel()
            let device = kernel.open(returning: probeResult)
            let command = SendCommand(queuePair: 1, type: IBV_QPT_RC, maxSGE: 1)
            defer { command.free() }
            for index in [0, 1, 5, 113, 114, 299] {
                kernel.executeSends(into: { _ in }, refuse: { $0 == UInt64(index) ? ENOMEM : 0 })
                #expect(Chain(300).post(command, device) == (ENOMEM, index))
            }
            // Without a bad_wr from the kernel, or with one out of range, bad_wr is the first work request.
            kernel.onCall = { _ in EFAULT }
            kernel.onWrite = { _, _ in EFAULT }
            #expect(Chain(3).post(command, device) == (EFAULT, 0))
            kernel.onCall = { call in
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(4 as UInt32)
                return EINVAL
            }
            kernel.onWrite = { _, response in
                response!.storeBytes(of: 4, as: UInt32.self)
                return EINVAL
            }
            #expect(Chain(3).post(command, device) == (EINVAL, 0))
        }
    }

    @Test(
        "posting allocates no memory, by ioctl and by write(2)",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
    func allocations() {
        for probe in [{ _, _ in 0 }, { _, _ in ENOTTY }]
            as [@convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32]
        {
            let device = KernelDevice(
                descriptor: 0x5000_0000, driver: RDMA_DRIVER_HFI1,
                calls: SystemCalls(ioctl: probe, write: { _, _, _ in 0 }))
            let command = SendCommand(queuePair: 1, type: IBV_QPT_RC, maxSGE: 2)
            defer { command.free() }
            let chain = Chain(200, sgesEach: 2)
            #expect(command.check(chain.requests.baseAddress, device) == 0)
            let before = allocation_count()
            var failures: Int32 = 0
            for _ in 0..<100 { failures += command.check(chain.requests.baseAddress, device) }
            #expect(allocation_count() == before && failures == 0)
        }
    }
}

extension SendCommand {
    fileprivate func check(_ first: UnsafeMutablePointer<ibv_send_wr>?, _ device: borrowing KernelDevice) -> Int32 {
        post(first, to: device, bad: nil)
    }
}
