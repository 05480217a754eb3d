import CIBVerbs
import CKernelABI
import CMlx5DV
import CProviderCore
import Glibc
import KernelVerbs
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: objects, on a fake kernel")
struct ControlTests {
    @Test("Queues are sized as libmlx5 sizes them, and CREATE_CQ and CREATE_QP contain the sizes")
    func sizes() throws {
        let device = try FakeDevice()
        let queues = try TestQueues(device)
        // libmlx5 grants the same for these limits.
        #expect(device.qp.sq_wqe_count == 256 && device.qp.rq_wqe_count == 32 && device.qp.rq_wqe_shift == 6)
        #expect(queues.limits.max_send_wr == 51 && queues.limits.max_inline_data == 124)
        #expect(queues.limits.max_recv_wr == 32 && queues.limits.max_recv_sge == 4)
        #expect(device.qp.flags == 0x402 && device.qp.bfreg_index == 8 && device.qp.uidx == 0)
        #expect(device.qp.buf_addr % 4096 == 0 && device.qp.db_addr % 64 == 0 && device.qp.db_addr != device.cq.db_addr)
        #expect(
            device.cqEntries == 15 && device.cq.cqe_size == 64 && device.cq.flags == 2 && device.cq.uar_page_index == 7)
        #expect(queues.completions.pointee.cqe == 15)
        queues.destroy()
        #expect(Array(device.destroyed.prefix(2)) == [31, 21])
        device.close()
    }

    @Test("Limits above those of the device are EINVAL")
    func limits() throws {
        let device = DeviceLimits(
            sendDescriptor: 1024, receiveDescriptor: 512, sendWQEBBs: 32768, receives: 32768, sharedReceives: 32767)
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
        // Fewer send_ops_flags leave more bytes for inline data.
        let sendOnly = size(cap(4, 1, 0), operations: UInt64(IBV_QP_EX_WITH_SEND.rawValue))
        #expect(sendOnly?.limits.max_inline_data == 44 && sendOnly?.sendWQEBBs == 4)
        let datagrams = size(cap(4, 1, 0), IBV_QPT_UD)
        #expect(datagrams?.sendWQEBBs == 8 && datagrams?.limits.max_inline_data == 60)
        // 192 bytes before the SGEs of RC, 64 of UD: whole WQEBBs, with no byte for inline data.
        #expect(size(cap(1, 0, 0))?.limits.max_inline_data == 0)
        #expect(size(cap(1, 0, 0), IBV_QPT_UD)?.limits.max_inline_data == 0)
        let none = size(cap(0, 9, 9))
        #expect(none?.sendWQEBBs == 0 && none?.byteCount == 0 && none?.limits.max_inline_data == 0)
        #expect((try? cqeCount(0)) == nil && (try? cqeCount(1)) == 2)
        #expect((try? cqeCount(1 << 24 - 1)) == 1 << 24 && (try? cqeCount(1 << 24)) == nil)
        func shared(_ requests: UInt32, _ maxSGE: UInt32) -> SharedReceiveSize? {
            try? SharedReceiveSize(
                ibv_srq_attr(max_wr: requests, max_sge: maxSGE, srq_limit: 0), device: device)
        }
        #expect(shared(15, 1).map { [$0.entries, $0.shift, $0.maxSGE] } == [16, 5, 1])
        #expect(shared(16, 2).map { [$0.entries, $0.shift, $0.maxSGE] } == [32, 6, 3])
        #expect(shared(32768, 1) == nil && shared(1, 32) == nil && shared(1, .max) == nil)
    }

    @Test("Four queue pairs have a bfreg each, the others share twelve; a released bfreg is allocated again")
    func bfregs() throws {
        let device = try FakeDevice()
        let context = { device.context.mlx5 }
        var allocated: [(blueFlame: BlueFlamePointer, uarIndex: UInt32)] = []
        for _ in 0..<20 {
            allocated.append(
                try context().pointee.uarPages.allocateBFReg(context().pointee.native.kernel, isDedicated: false))
        }
        #expect(Set(allocated.prefix(16).map { UInt(bitPattern: $0.blueFlame) }).count == 16)
        #expect(Set(allocated.map { UInt(bitPattern: $0.blueFlame) }).count == 16)
        #expect(allocated.prefix(4).map(\.uarIndex) == [8, 8, 9, 9] && device.uarCount == 9)
        context().pointee.uarPages.releaseBFReg(allocated[2].blueFlame)
        let reallocated = try context().pointee.uarPages.allocateBFReg(
            context().pointee.native.kernel, isDedicated: false)
        #expect(reallocated.blueFlame == allocated[2].blueFlame)
        // Another dedicated bfreg, although all four are in use.
        let dedicated = try context().pointee.uarPages.allocateBFReg(context().pointee.native.kernel, isDedicated: true)
        #expect(dedicated.uarIndex == 16)
        device.close()
    }

    @Test("Static UAR pages are mapped with the context, and a queue pair has the bfreg of the kernel's bfreg_index")
    func staticPages() throws {
        let device = try FakeDevice(isDynamic: false, version: 0)
        let queues = try TestQueues(device)
        #expect(device.uarCount == 0 && device.qp.flags == 2 && device.qp.uidx == 0xFFFFFF && device.cq.flags == 0)
        queues.send([1])
        // bfreg_index 5 is the second bfreg of the second UAR page.
        #expect(device.uarWord(1, 0x800 + 512) >> 32 == 0x0A && device.uarWord(1, 0x800) == 0)
        #expect(ibv_req_notify_cq(queues.completions, 1) == 0)
        #expect(device.uarWord(0, 0x20) == 0x0100_0000_0000_0402)
        queues.destroy()
        device.close()
    }

    @Test("A mlx5_ib_alloc_ucontext_resp with unsupported values is an error", arguments: 0..<6)
    func unsupportedResponses(change: Int) throws {
        #expect(throws: KernelError.self) {
            _ = try FakeDevice(isDynamic: change < 4) { response in
                switch change {
                case 0: response.cqe_version = 2
                case 1: response.bf_reg_size = 500
                case 2: response.bf_reg_size = 4096
                case 3: response.max_sq_desc_sz = 0
                case 4: response.num_uars_per_page = 4
                default: response.tot_bfregs = 1
                }
            }
        }
    }

    @Test("An address handle is local on InfiniBand, and has the MAC address of the kernel's response on RoCE")
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

    @Test("On-demand paging, unknown wc_flags and resizing of shared receive queues are EOPNOTSUPP")
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
        _ = providerEntry(core: OpenedContext.core, why: nil)
        rdma_drop_explanation()
        #expect(table.modify_srq(shared, &limits.attr, Int32(IBV_SRQ_MAX_WR.rawValue)) == EOPNOTSUPP)
        #expect(rdma_explanation(EOPNOTSUPP).map { String(cString: $0).contains("make another one") } == true)
        #expect(table.destroy_srq(shared) == 0 && table.dealloc_pd(domain) == 0)
        device.close()
    }
}

@Suite("mlx5: probing")
struct ProbeTests {
    @Test("Devices of mlx5_ib with ABI 1 are accepted, all others are ENODEV")
    func served() {
        for (driver, version, error) in [
            (RDMA_DRIVER_MLX5.rawValue, 1, 0), (UInt32.max, 1, 0), (RDMA_DRIVER_RXE.rawValue, 1, ENODEV),
            (RDMA_DRIVER_MLX5.rawValue, 2, ENODEV), (RDMA_DRIVER_MLX5.rawValue, 0, ENODEV),
        ] as [(UInt32, UInt32, Int32)] {
            let test = TestDevice("mlx5_0")
            var device = test.pointer.pointee
            device.driver_id = driver
            device.kernel_abi = version
            #expect(probeDevice(device: &device, why: nil) == error)
            withExtendedLifetime(test) {}
        }
    }
}
