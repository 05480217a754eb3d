import CIBVerbs
import CProviderABI
import Foundation
import TestSupport
import Testing

@Suite("A provider in C: the control path")
struct ControlTests {
    let opened: OpenedContext

    init() throws { opened = try openDevice() }

    var ops: rdma_context_ops { opened.ops.pointee }

    @Test("The library exports only its entry point")
    func exports() throws {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["nm", "-D", "--defined-only", try CTestProvider.library()]
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let symbols = text.split(separator: "\n").compactMap { $0.split(separator: " ").last }
        #expect(symbols == ["rdma_provider_entry"])
    }

    @Test("The provider refuses a device of another name and a core of another major version, with a reason")
    func refusals() throws {
        let refusal = #expect(throws: OpenedContext.Refusal.self) { try openDevice("mlx5_0") }
        #expect(refusal?.code == ENODEV)
        #expect(refusal?.reason.contains("ctest") == true)
        var core = OpenedContext.core.pointee
        core.abi_major += 1
        var why = OpenedContext.emptyReason
        let handle = try #require(dlopen(try CTestProvider.library(), RTLD_NOW))
        let symbol = try #require(dlsym(handle, RDMA_PROVIDER_ENTRY_SYMBOL))
        #expect(unsafeBitCast(symbol, to: OpenedContext.EntryPoint.self)(&core, &why) == nil)
        #expect(OpenedContext.text(of: why).contains("provider ABI"))
    }

    @Test("The core fills the slots that the provider left null, so that the inline functions of verbs.h are safe")
    func adoption() throws {
        let pd = try #require(ops.alloc_pd(opened.context))
        errno = 0
        #expect(ibv_alloc_mw(pd, IBV_MW_TYPE_1) == nil)
        #expect(errno == EOPNOTSUPP)
        #expect(ibv_alloc_null_mr(pd) == nil)
        #expect(ops.dealloc_pd(pd) == 0)
        var attr = ibv_device_attr_ex()
        #expect(ibv_query_device_ex(opened.context, nil, &attr) == 0)
        #expect(attr.orig_attr.phys_port_cnt == 1)
    }

    @Test("Queries of device, port, GIDs and P_Key; one that does not exist is EINVAL, an empty GID ENODATA")
    func queries() throws {
        var port = ibv_port_attr()
        #expect(ops.query_port(opened.context, 1, &port, MemoryLayout<ibv_port_attr>.size) == 0)
        #expect(port.state == IBV_PORT_ACTIVE && port.gid_tbl_len == 8)
        #expect(ops.query_port(opened.context, 2, &port, MemoryLayout<ibv_port_attr>.size) == EINVAL)
        var key: UInt16 = 0
        #expect(ops.query_pkey(opened.context, 1, 0, &key) == 0)
        #expect(key == 0xffff)
        #expect(ops.query_pkey(opened.context, 1, 1, &key) == EINVAL)
        var entry = ibv_gid_entry()
        let size = MemoryLayout<ibv_gid_entry>.size
        #expect(ops.query_gid_ex(opened.context, 1, 3, &entry, 0, size) == ENODATA)
        #expect(ops.query_gid_ex(opened.context, 1, 8, &entry, 0, size) == EINVAL)
        var table = [ibv_gid_entry](repeating: entry, count: 8)
        #expect(ops.query_gid_table(opened.context, &table, 8, 0, size) == 3)
        #expect(table[0].gid_type == IBV_GID_TYPE_ROCE_V1.rawValue)
        #expect(table[2].gid_type == IBV_GID_TYPE_ROCE_V2.rawValue)
        #expect(ops.query_gid_table(opened.context, &table, 2, 0, size) == -Int(EINVAL))
    }

    @Test("A query with a shorter struct writes only the fields that fit")
    func sizes() {
        var port = ibv_port_attr()
        port.link_layer = 0xee
        #expect(ops.query_port(opened.context, 1, &port, 12) == 0)
        #expect(port.active_mtu == IBV_MTU_1024)
        #expect(port.gid_tbl_len == 0)
        #expect(port.link_layer == 0xee)
    }

    @Test("Destroying an object that is in use is EBUSY, and leaves it unchanged")
    func busy() throws {
        let endpoint = try Endpoint(opened, sharedReceives: true)
        #expect(ops.dealloc_pd(endpoint.pd) == EBUSY)
        #expect(ops.destroy_cq(endpoint.cq) == EBUSY)
        #expect(ops.destroy_srq(endpoint.srq) == EBUSY)
        #expect(ops.destroy_comp_channel(endpoint.channel) == EBUSY)
        #expect(endpoint.initialize() == 0)
    }

    @Test("The arguments of a memory region are checked")
    func regions() throws {
        let endpoint = try Endpoint(opened)
        func refused(_ length: Int, _ access: UInt32) -> Int32 {
            errno = 0
            return ops.reg_mr(endpoint.pd, endpoint.bytes, length, 0, access) == nil ? errno : 0
        }
        #expect(refused(64, IBV_ACCESS_REMOTE_WRITE.rawValue) == EINVAL)
        #expect(refused(64, IBV_ACCESS_MW_BIND.rawValue) == EOPNOTSUPP)
        #expect(refused(Int(bitPattern: UInt.max), 0) == EINVAL)
        let relaxed = IBV_ACCESS_RELAXED_ORDERING.rawValue
        let region = try #require(ops.reg_mr(endpoint.pd, endpoint.bytes, 64, 0, relaxed))
        #expect(ops.dereg_mr(region) == 0)
    }

    @Test("A queue pair changes its state with exactly the attributes that each transition requires")
    func transitions() throws {
        let endpoint = try Endpoint(opened)
        let gid = try endpoint.gid()
        #expect(endpoint.toSend() == EINVAL)
        #expect(endpoint.modify(IBV_QPS_INIT, mask(IBV_QP_PORT)) { $0.port_num = 1 } == EINVAL)
        let superfluous = mask(IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS, IBV_QP_QKEY)
        #expect(endpoint.modify(IBV_QPS_INIT, superfluous) { $0.port_num = 1 } == EINVAL)
        #expect(endpoint.initialize() == 0)
        #expect(endpoint.qp.pointee.state == IBV_QPS_INIT)
        #expect(endpoint.toReceive(from: 0x4242, gid: gid) == 0)
        #expect(endpoint.modify(IBV_QPS_RTS, mask(IBV_QP_CUR_STATE)) { $0.cur_qp_state = IBV_QPS_INIT } == EINVAL)
        #expect(endpoint.toSend() == 0)

        var attr = ibv_qp_attr()
        var initial = ibv_qp_init_attr()
        #expect(ops.query_qp(endpoint.qp, &attr, Int32(IBV_QP_STATE.rawValue), &initial) == 0)
        #expect(attr.qp_state == IBV_QPS_RTS)
        #expect(attr.dest_qp_num == 0x4242)
        #expect(attr.timeout == 14)
        #expect(initial.cap.max_send_wr == 16)
        #expect(initial.send_cq == endpoint.cq)

        #expect(endpoint.modify(IBV_QPS_ERR, 0) == 0)
        #expect(endpoint.modify(IBV_QPS_RTS, 0) == EINVAL)
        #expect(endpoint.modify(IBV_QPS_RESET, 0) == 0)
        #expect(endpoint.initialize() == 0)
    }

    @Test("A request that the device does not support is EOPNOTSUPP, an object of another context EINVAL")
    func unknown() throws {
        let endpoint = try Endpoint(opened)
        let other = try openDevice("ctest1")
        let foreign = try #require(other.ops.pointee.create_cq(other.context, 4, nil, nil, 0))
        defer { #expect(other.ops.pointee.destroy_cq(foreign) == 0) }
        func refused(_ change: (inout ibv_qp_init_attr_ex) -> Void) -> Int32 {
            var attr = ibv_qp_init_attr_ex()
            attr.send_cq = endpoint.cq
            attr.recv_cq = endpoint.cq
            attr.qp_type = IBV_QPT_RC
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = endpoint.pd
            change(&attr)
            errno = 0
            return ops.create_qp_ex(opened.context, &attr) == nil ? errno : 0
        }
        #expect(refused { $0.qp_type = IBV_QPT_RAW_PACKET } == EOPNOTSUPP)
        #expect(refused { $0.comp_mask |= 1 << 30 } == EOPNOTSUPP)
        #expect(
            refused {
                $0.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
                $0.send_ops_flags = UInt64(IBV_QP_EX_WITH_TSO.rawValue)
            } == EOPNOTSUPP)
        #expect(refused { $0.cap.max_send_sge = 9 } == EINVAL)
        #expect(refused { $0.send_cq = foreign } == EINVAL)
    }
}
