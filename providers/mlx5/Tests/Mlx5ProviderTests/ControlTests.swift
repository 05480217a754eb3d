import CIBVerbs
import CKernelABI
import CMlx5DV
import Glibc
import KernelVerbs
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: objects on a kernel that a test plays")
struct ControlTests {
    @Test("A queue pair is sized by the rules of the device, and the kernel is told so")
    func sizes() throws {
        let device = try FakeDevice()
        let made = try Made(device)
        // Seen with libmlx5 and the same wishes.
        #expect(device.qp.sq_wqe_count == 256 && device.qp.rq_wqe_count == 32 && device.qp.rq_wqe_shift == 6)
        #expect(made.limits.max_send_wr == 51 && made.limits.max_inline_data == 124)
        #expect(made.limits.max_recv_wr == 32 && made.limits.max_recv_sge == 4)
        #expect(device.qp.flags == 0x402 && device.qp.bfreg_index == 8 && device.qp.uidx == 0)
        #expect(device.qp.buf_addr % 4096 == 0 && device.qp.db_addr % 64 == 0 && device.qp.db_addr != device.cq.db_addr)
        #expect(
            device.cqEntries == 15 && device.cq.cqe_size == 64 && device.cq.flags == 2 && device.cq.uar_page_index == 7)
        #expect(made.completions.pointee.cqe == 15)
        made.destroy()
        #expect(Array(device.destroyed.prefix(2)) == [31, 21])
        device.close()
    }

    @Test("More than the device allows is EINVAL")
    func limits() throws {
        let device = DeviceLimits(
            sendDescriptor: 1024, receiveDescriptor: 512, sendBlocks: 32768, receives: 32768, sharedReceives: 32767)
        func size(_ cap: ibv_qp_cap, _ type: ibv_qp_type = IBV_QPT_RC, operations: UInt64? = nil) -> QueuePairSize? {
            try? QueuePairSize(cap, type: type, operations: operations, hasReceives: true, device: device)
        }
        func cap(
            _ sends: UInt32, _ sendSGEs: UInt32, _ inline: UInt32, _ receives: UInt32 = 0, _ receiveSGEs: UInt32 = 0
        ) -> ibv_qp_cap {
            ibv_qp_cap(
                max_send_wr: sends, max_recv_wr: receives, max_send_sge: sendSGEs, max_recv_sge: receiveSGEs,
                max_inline_data: inline)
        }
        #expect(size(cap(1, 52, 0)) != nil && size(cap(1, 53, 0)) == nil)
        #expect(size(cap(1, 0, 828)) != nil && size(cap(1, 0, 829)) == nil)
        #expect(size(cap(8192, 4, 0)) != nil && size(cap(8193, 4, 0)) == nil && size(cap(.max, 1, 0)) == nil)
        #expect(size(cap(0, 0, 0, 32768, 1)) != nil && size(cap(0, 0, 0, 32769, 1)) == nil)
        #expect(size(cap(0, 0, 0, 1, 32)) != nil && size(cap(0, 0, 0, 1, 33)) == nil)
        #expect(size(cap(0, 0, 0, .max, .max)) == nil && size(cap(1, .max, .max)) == nil)
        // Fewer operations leave more room for data.
        let sendOnly = size(cap(4, 1, 0), operations: UInt64(IBV_QP_EX_WITH_SEND.rawValue))
        #expect(sendOnly?.limits.max_inline_data == 44 && sendOnly?.sendBlocks == 4)
        let datagrams = size(cap(4, 1, 0), IBV_QPT_UD)
        #expect(datagrams?.sendBlocks == 8 && datagrams?.limits.max_inline_data == 60)
        let none = size(cap(0, 9, 9))
        #expect(none?.sendBlocks == 0 && none?.byteCount == 0 && none?.limits.max_inline_data == 0)
        #expect((try? completionEntries(0)) == nil && (try? completionEntries(1)) == 2)
        #expect((try? completionEntries(1 << 24 - 1)) == 1 << 24 && (try? completionEntries(1 << 24)) == nil)
        func shared(_ requests: UInt32, _ elements: UInt32) -> SharedReceiveSize? {
            try? SharedReceiveSize(
                ibv_srq_attr(max_wr: requests, max_sge: elements, srq_limit: 0), device: device)
        }
        #expect(shared(15, 1).map { [$0.entries, $0.shift, $0.elements] } == [16, 5, 1])
        #expect(shared(16, 2).map { [$0.entries, $0.shift, $0.elements] } == [32, 6, 3])
        #expect(shared(32768, 1) == nil && shared(1, 32) == nil && shared(1, .max) == nil)
    }

    @Test("The registers: four queue pairs have one each, the next share twelve; what is given back is used again")
    func registers() throws {
        let device = try FakeDevice()
        let registers = { device.context.mlx5 }
        var taken: [(register: BlueFlamePointer, page: UInt32)] = []
        for _ in 0..<20 {
            taken.append(
                try registers().pointee.registers.take(of: registers().pointee.native.kernel, isAlone: false))
        }
        #expect(Set(taken.prefix(16).map { UInt(bitPattern: $0.register) }).count == 16)
        #expect(Set(taken.map { UInt(bitPattern: $0.register) }).count == 16)
        #expect(taken.prefix(4).map(\.page) == [8, 8, 9, 9] && device.registerPages == 9)
        registers().pointee.registers.giveBack(taken[2].register)
        let again = try registers().pointee.registers.take(of: registers().pointee.native.kernel, isAlone: false)
        #expect(again.register == taken[2].register)
        // One that nobody else uses, though all four are taken.
        let alone = try registers().pointee.registers.take(of: registers().pointee.native.kernel, isAlone: true)
        #expect(alone.page == 16)
        device.close()
    }

    @Test("An older kernel's registers come with the context; it says which is a queue pair's")
    func fixedRegisters() throws {
        let device = try FakeDevice(isDynamic: false, version: 0)
        let made = try Made(device)
        #expect(device.registerPages == 0 && device.qp.flags == 2 && device.qp.uidx == 0xFFFFFF && device.cq.flags == 0)
        made.send([1])
        // Index 5 is the second register of the second page.
        #expect(device.register(1, 0x800 + 512) >> 32 == 0x0A && device.register(1, 0x800) == 0)
        #expect(ibv_req_notify_cq(made.completions, 1) == 0)
        #expect(device.register(0, 0x20) == 0x0100_0000_0000_0402)
        made.destroy()
        device.close()
    }

    @Test("A kernel that describes no device of this kind is refused", arguments: 0..<6)
    func strangeKernels(change: Int) throws {
        #expect(throws: KernelError.self) {
            _ = try FakeDevice(isDynamic: change < 4) { answer in
                switch change {
                case 0: answer.cqe_version = 2
                case 1: answer.bf_reg_size = 500
                case 2: answer.bf_reg_size = 4096
                case 3: answer.max_sq_desc_sz = 0
                case 4: answer.num_uars_per_page = 4
                default: answer.tot_bfregs = 1
                }
            }
        }
    }

    @Test("Address handles: by LID alone on InfiniBand, with the kernel's MAC address on RoCE")
    func addresses() throws {
        let device = try FakeDevice()
        let table = controlTable.pointee
        let domain = try #require(table.alloc_pd(device.context))
        var attributes = ibv_ah_attr()
        attributes.port_num = 1
        attributes.dlid = 0x1234
        attributes.sl = 3
        let calls = device.kernel.calls.count
        let byLID = try #require(table.create_ah(domain, &attributes))
        #expect(
            device.kernel.calls.count == calls + 1
                && byLID.mlx5.vector.load(fromByteOffset: 12, as: UInt32.self) == UInt32(0x0300_1234).bigEndian)
        #expect(table.dealloc_pd(domain) == EBUSY)
        #expect(table.destroy_ah(byLID) == 0 && device.kernel.calls.count == calls + 1)

        device.linkLayer = UInt8(IBV_LINK_LAYER_ETHERNET)
        errno = 0
        #expect(table.create_ah(domain, &attributes) == nil && errno == EINVAL)
        attributes.is_global = 1
        attributes.grh.flow_label = 0x12345
        attributes.grh.sgid_index = 3
        let byMAC = try #require(table.create_ah(domain, &attributes))
        let bytes = (0..<48).map { byMAC.mlx5.vector.load(fromByteOffset: $0, as: UInt8.self) }
        #expect(Array(bytes[20..<26]) == [2, 3, 4, 5, 6, 7] && bytes[12] == 6)
        #expect(UInt16(bytes[14]) << 8 | UInt16(bytes[15]) == ibv_flow_label_to_udp_sport(0x12345))
        device.destroyed = []
        #expect(table.destroy_ah(byMAC) == 0 && device.destroyed == [51])
        #expect(table.dealloc_pd(domain) == 0)
        device.close()
    }

    @Test("What this provider does not do is EOPNOTSUPP")
    func refusals() throws {
        let device = try FakeDevice()
        let table = controlTable.pointee
        let domain = try #require(table.alloc_pd(device.context))
        errno = 0
        #expect(table.reg_mr(domain, nil, 0, 0, IBV_ACCESS_ON_DEMAND.rawValue) == nil && errno == EOPNOTSUPP)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 4
        attr.wc_flags = UInt64(IBV_WC_EX_WITH_TM_INFO.rawValue)
        #expect(table.create_cq_ex(device.context, &attr) == nil && errno == EOPNOTSUPP)
        attr.wc_flags = UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue)
        #expect(table.create_cq_ex(device.context, &attr) == nil && errno == EOPNOTSUPP)
        var limits = ibv_srq_init_attr_ex()
        limits.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        limits.pd = domain
        limits.attr = ibv_srq_attr(max_wr: 4, max_sge: 1, srq_limit: 0)
        let shared = try #require(table.create_srq_ex(device.context, &limits))
        #expect(table.modify_srq(shared, &limits.attr, Int32(IBV_SRQ_MAX_WR.rawValue)) == EOPNOTSUPP)
        #expect(table.destroy_srq(shared) == 0 && table.dealloc_pd(domain) == 0)
        device.close()
    }
}

@Suite("mlx5: which devices it serves")
struct ProbeTests {
    @Test("Devices of the kernel's mlx5_ib; others are refused")
    func served() {
        for (driver, version, answer) in [
            (RDMA_DRIVER_MLX5.rawValue, 1, 0), (UInt32.max, 1, 0), (RDMA_DRIVER_RXE.rawValue, 1, ENODEV),
            (RDMA_DRIVER_MLX5.rawValue, 2, ENODEV), (RDMA_DRIVER_MLX5.rawValue, 0, ENODEV),
        ] as [(UInt32, UInt32, Int32)] {
            let test = TestDevice("mlx5_0")
            var device = test.pointer.pointee
            device.driver_id = driver
            device.kernel_abi = version
            #expect(probeDevice(device: &device, why: nil) == answer)
            withExtendedLifetime(test) {}
        }
    }
}
