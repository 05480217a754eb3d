import CIBVerbs
import CKernelABI
import CProviderABI
import CProviderCore
import Glibc
import KernelOps
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@Suite("rdma_kernel_ops: the commands of the verbs, by ioctl and by write(2)")
struct ObjectTests {
    /// Kernels with the ioctl and without it.
    static let probes = [ENOSPC, ENOTTY]

    /// The command, whichever way it was sent, and its common request.
    private func last(_ node: Node) -> (command: UInt64?, request: [UInt8]) {
        if let command = node.kernel.writes.last {
            let number = command.load(0, as: UInt32.self)
            return (UInt64(number), Array(command[(number & 0x8000_0000 == 0 ? 8 : 24)...]))
        }
        return (node.kernel.calls.last?.command, node.kernel.inputs[UInt16(UVERBS_ATTR_CORE_IN.rawValue)] ?? [])
    }

    @Test("protection domains: the handle, the driver's data, and dealloc_pd", arguments: probes)
    func domains(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        node.kernel.answer([77], driver: 0x55)
        let pd = node.object(ibv_pd.self)
        let made = withUdata(9) { node.ops.alloc_pd(node.handle, pd, node.context, $0) }
        #expect(made.error == 0 && made.output == 0x55 && pd.pointee.handle == 77)
        #expect(pd.pointee.context == node.context && last(node).command == 3)
        node.kernel.onCall = { _ in EBUSY }
        node.kernel.onWrite = { _, _ in EBUSY }
        #expect(node.ops.dealloc_pd(node.handle, pd) == EBUSY)
        // A device that is gone has no objects.
        node.kernel.onCall = { _ in EIO }
        node.kernel.onWrite = { _, _ in EIO }
        #expect(node.ops.dealloc_pd(node.handle, pd) == 0)
        if probe == ENOSPC {
            #expect(node.kernel.calls.last?.object == UVERBS_OBJECT_PD.rawValue)
            #expect(node.kernel.calls.last?.attributes.first?.data == 77)
        } else {
            #expect(last(node).command == 4 && node.kernel.writes.last?.load(8, as: UInt32.self) == 77)
        }
    }

    @Test("memory regions: registered, changed and deregistered; every member of ibv_mr is set", arguments: probes)
    func regions(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        node.kernel.answer([1, 2, 3])
        let (pd, other, mr) = (node.domain(5), node.domain(6), node.object(ibv_mr.self))
        let address = UnsafeMutableRawPointer(bitPattern: 0x1000)
        let optional = IB_UVERBS_ACCESS_OPTIONAL_RANGE.rawValue & (0 &- IB_UVERBS_ACCESS_OPTIONAL_RANGE.rawValue)
        #expect(node.ops.reg_mr(node.handle, mr, pd, address, 0x200, 0x3000, 7 | optional, nil) == 0)
        #expect(mr.pointee.handle == 1 && mr.pointee.lkey == 2 && mr.pointee.rkey == 3 && mr.pointee.pd == pd)
        #expect(mr.pointee.addr == address && mr.pointee.length == 0x200 && mr.pointee.context == node.context)
        let (command, request) = last(node)
        #expect(command == 9 && request.load(8, as: UInt64.self) == 0x1000)
        #expect(request.load(16, as: UInt64.self) == 0x200)
        #expect(request.load(24, as: UInt64.self) == 0x3000 && request.load(32, as: UInt32.self) == 5)
        // The kernel that is called by write(2) does not know IBV_ACCESS_OPTIONAL_RANGE.
        #expect(request.load(36, as: UInt32.self) == (probe == ENOSPC ? 7 | optional : 7))

        node.kernel.answer([20, 30])
        let change = Int32(IBV_REREG_MR_CHANGE_PD.rawValue)
        #expect(node.ops.rereg_mr(node.handle, mr, change, other, nil, 0, 0, 1, nil) == 0)
        #expect(mr.pointee.lkey == 20 && mr.pointee.rkey == 30 && mr.pointee.pd == other && mr.pointee.handle == 1)
        #expect(mr.pointee.addr == address && mr.pointee.length == 0x200)
        #expect(node.ops.rereg_mr(node.handle, mr, change, nil, nil, 0, 0, 1, nil) == EINVAL)
        let move = Int32(IBV_REREG_MR_CHANGE_TRANSLATION.rawValue)
        let next = UnsafeMutableRawPointer(bitPattern: 0x9000)
        #expect(node.ops.rereg_mr(node.handle, mr, move, nil, next, 64, 0x9000, 0, nil) == 0)
        #expect(mr.pointee.addr == next && mr.pointee.length == 64 && mr.pointee.pd == other)
        #expect(node.ops.dereg_mr(node.handle, mr) == 0)
    }

    @Test("dma-buf and advice are ioctl methods: their attributes; EOPNOTSUPP where the kernel has no ioctl")
    func methods() throws {
        let node = try Node()
        let (pd, mr) = (node.domain(5), node.object(ibv_mr.self))
        node.kernel.onCall = { call in
            call.attribute(UVERBS_ATTR_REG_DMABUF_MR_HANDLE.rawValue)?.set(8)
            call.attribute(UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY.rawValue)?.respond(21 as UInt32)
            call.attribute(UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY.rawValue)?.respond(22 as UInt32)
            return 0
        }
        #expect(node.ops.reg_dmabuf_mr(node.handle, mr, pd, 64, 4096, 0x7000, 9, 1, nil) == 0)
        #expect(mr.pointee.handle == 8 && mr.pointee.lkey == 21 && mr.pointee.rkey == 22)
        #expect(UInt(bitPattern: mr.pointee.addr) == 64 && mr.pointee.length == 4096)
        let call = try #require(node.kernel.calls.last)
        #expect(call.object == UVERBS_OBJECT_MR.rawValue && call.method == UVERBS_METHOD_REG_DMABUF_MR.rawValue)
        #expect(call.attributes.map(\.length) == [0, 0, 8, 8, 8, 4, 4, 4, 4])
        #expect(call.attributes[1...6].map(\.data) == [5, 64, 4096, 0x7000, 9, 1])

        node.kernel.onCall = { _ in 0 }
        var list = [ibv_sge](repeating: ibv_sge(addr: 1, length: 2, lkey: 3), count: 2)
        #expect(node.ops.advise_mr(node.handle, pd, IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH, 1, &list, 2) == 0)
        let advice = try #require(node.kernel.calls.last)
        #expect(advice.method == UVERBS_METHOD_ADVISE_MR.rawValue && advice.attributes.map(\.length) == [0, 8, 4, 32])
        #expect(node.ops.advise_mr(node.handle, pd, IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH, 0, nil, 2) == EINVAL)
        var long = [ibv_sge](repeating: ibv_sge(), count: 4096)
        #expect(node.ops.advise_mr(node.handle, pd, IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH, 0, &long, 4096) == EINVAL)

        let old = try Node(probe: ENOTTY)
        old.kernel.onCall = { _ in ENOTTY }
        let region = old.object(ibv_mr.self)
        #expect(old.ops.reg_dmabuf_mr(old.handle, region, old.domain(), 0, 1, 0, 9, 1, nil) == EOPNOTSUPP)
    }

    @Test("windows, address handles and multicast", arguments: probes)
    func others(_ probe: Int32) throws {
        let node = try Node(probe: probe)
        let pd = node.domain(5)
        node.kernel.answer([4, 9])
        let mw = node.object(ibv_mw.self)
        #expect(node.ops.alloc_mw(node.handle, mw, pd, IBV_MW_TYPE_2, nil) == 0)
        #expect(mw.pointee.handle == 4 && mw.pointee.rkey == 9 && mw.pointee.type == IBV_MW_TYPE_2)
        #expect(node.ops.dealloc_mw(node.handle, mw) == 0)

        node.kernel.answer([14], driver: 0x99)
        let ah = node.object(ibv_ah.self)
        var attr = ibv_ah_attr()
        attr.port_num = 1
        attr.dlid = 0x77
        let made = withUdata(0) { node.ops.create_ah(node.handle, ah, pd, &attr, $0) }
        #expect(made.error == 0 && made.output == 0x99 && ah.pointee.handle == 14 && ah.pointee.pd == pd)
        let (command, request) = last(node)
        #expect(command == 5 && request.load(16, as: UInt32.self) == 5 && request.contains(0x77))
        #expect(node.ops.destroy_ah(node.handle, ah) == 0)

        let qp = node.object(ibv_qp.self)
        qp.pointee.handle = 31
        var gid = ibv_gid()
        gid.raw.0 = 0xFF
        node.kernel.answer([])
        #expect(node.ops.attach_mcast(node.handle, qp, &gid, 3) == 0)
        #expect(last(node).command == 30 && last(node).request.first == 0xFF)
        #expect(last(node).request.load(16, as: UInt32.self) == 31)
        #expect(node.ops.detach_mcast(node.handle, qp, &gid, 3) == 0 && last(node).command == 31)
    }

    @Test("device, port and P_Key: structs of another size are filled as far as they go")
    func queries() throws {
        let node = try Node(probe: ENOTTY)
        node.kernel.onWrite = { command, response in
            if command.load(0, as: UInt32.self) == IB_USER_VERBS_CMD_QUERY_PORT.rawValue {
                var port = ib_uverbs_query_port_resp()
                port.lid = 0x1234
                response!.storeBytes(of: port, as: ib_uverbs_query_port_resp.self)
                return 0
            }
            var attributes = ib_uverbs_ex_query_device_resp()
            attributes.base.fw_ver = 3 << 32 | 20 << 16 | 500
            attributes.base.max_qp = 9
            response!.storeBytes(of: attributes, as: ib_uverbs_ex_query_device_resp.self)
            return 0
        }
        let size = MemoryLayout<ibv_device_attr_ex>.size
        let attr = zeroed(size + 16).assumingMemoryBound(to: ibv_device_attr_ex.self)
        let behind = UnsafeMutableRawPointer(attr) + size
        memset(behind, 0xAA, 16)
        var firmware: UInt64 = 0
        #expect(node.ops.query_device_ex(node.handle, nil, attr, size + 8, nil, &firmware) == 0)
        #expect(firmware == 3 << 32 | 20 << 16 | 500 && attr.pointee.orig_attr.max_qp == 9)
        #expect(withUnsafeBytes(of: attr.pointee.orig_attr.fw_ver) { $0.starts(with: Array("3.20.500\0".utf8)) })
        // Fields that this version does not know are zeroed, and nothing behind the caller's struct is written.
        #expect(behind.load(as: UInt64.self) == 0 && behind.load(fromByteOffset: 8, as: UInt8.self) == 0xAA)
        #expect(node.ops.query_device_ex(node.handle, nil, attr, 100, nil, nil) == EINVAL)
        var input = ibv_query_device_ex_input(comp_mask: 1)
        #expect(node.ops.query_device_ex(node.handle, &input, attr, size, nil, nil) == EOPNOTSUPP)

        var port = ibv_port_attr()
        #expect(node.ops.query_port(node.handle, 1, &port, MemoryLayout<ibv_port_attr>.size) == 0 && port.lid == 0x1234)
        #expect(node.ops.query_port(node.handle, 256, &port, MemoryLayout<ibv_port_attr>.size) == EINVAL)
        var key: UInt16 = 0
        // The device has no directory in sysfs.
        #expect(node.ops.query_pkey(node.handle, 1, 0, &key) == EINVAL)
        #expect(node.ops.query_pkey(node.handle, 300, 0, &key) == EINVAL)
    }

    @Test("GIDs by ioctl: one entry, the table, flags that do not exist")
    func gids() throws {
        let node = try Node()
        node.kernel.onCall = { call in
            if call.method == UVERBS_METHOD_QUERY_GID_TABLE.rawValue {
                call.attribute(UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES.rawValue)!.respond(2 as UInt64)
                return 0
            }
            var entry = ib_uverbs_gid_entry()
            entry.gid_index = 3
            call.attribute(UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY.rawValue)!.respond(entry)
            return 0
        }
        let size = MemoryLayout<ibv_gid_entry>.size
        var entry = ibv_gid_entry()
        #expect(node.ops.query_gid_ex(node.handle, 1, 3, &entry, 0, size) == 0 && entry.gid_index == 3)
        #expect(node.ops.query_gid_ex(node.handle, 1, 3, &entry, 1, size) == EOPNOTSUPP)
        var entries = [ibv_gid_entry](repeating: ibv_gid_entry(), count: 4)
        #expect(node.ops.query_gid_table(node.handle, &entries, 4, 0, size) == 2)
        #expect(node.ops.query_gid_table(node.handle, &entries, 4, 1, size) == -Int(EOPNOTSUPP))
        #expect(node.ops.query_gid_table(node.handle, nil, 4, 0, size) == -Int(EINVAL))
        #expect(node.ops.query_gid_table(node.handle, &entries, 4, 0, 0) == -Int(EINVAL))
    }

    @Test("NULL in place of any object, and of the node, is EINVAL; the kernel is not called")
    func nothing() throws {
        let node = try Node()
        let (ops, handle) = (node.ops, node.handle)
        let (pd, mr, cq, qp) = (
            node.domain(), node.object(ibv_mr.self), node.object(ibv_cq.self), node.object(ibv_qp_ex.self)
        )
        var (cqAttr, qpAttr, srqAttr) = (ibv_cq_init_attr_ex(), ibv_qp_init_attr_ex(), ibv_srq_init_attr_ex())
        let results: [Int32] = [
            ops.alloc_pd(nil, pd, node.context, nil), ops.alloc_pd(handle, nil, node.context, nil),
            ops.alloc_pd(handle, pd, nil, nil), ops.dealloc_pd(handle, nil),
            ops.reg_mr(handle, nil, pd, nil, 0, 0, 0, nil), ops.reg_mr(handle, mr, nil, nil, 0, 0, 0, nil),
            ops.dereg_mr(handle, nil), ops.alloc_mw(handle, nil, pd, IBV_MW_TYPE_1, nil), ops.dealloc_mw(handle, nil),
            ops.create_comp_channel(handle, nil, node.context), ops.destroy_comp_channel(handle, nil),
            ops.create_cq(handle, nil, node.context, &cqAttr, nil), ops.create_cq(handle, cq, node.context, nil, nil),
            ops.resize_cq(handle, nil, 1, nil), ops.resize_cq(handle, cq, 0, nil), ops.req_notify_cq(handle, nil, 0),
            ops.destroy_cq(handle, nil), ops.create_srq_ex(handle, nil, node.context, &srqAttr, nil, nil),
            ops.modify_srq(handle, nil, nil, 0, nil), ops.query_srq(handle, nil, nil), ops.destroy_srq(handle, nil),
            ops.create_qp_ex(handle, nil, node.context, &qpAttr, nil),
            // Without a protection domain and completion queues.
            ops.create_qp_ex(handle, qp, node.context, &qpAttr, nil),
            ops.modify_qp(handle, nil, nil, 0, nil), ops.query_qp(handle, nil, nil, 0, nil),
            ops.destroy_qp(handle, nil),
            ops.create_ah(handle, nil, pd, nil, nil), ops.destroy_ah(handle, nil),
            ops.attach_mcast(handle, nil, nil, 0), ops.detach_mcast(handle, nil, nil, 0),
            ops.query_port(handle, 1, nil, 0), ops.query_gid_ex(handle, 1, 0, nil, 0, 0),
            ops.query_pkey(handle, 1, 0, nil), ops.query_device_ex(handle, nil, nil, 0, nil, nil),
        ]
        #expect(results.allSatisfy { $0 == EINVAL }, "\(results)")
        #expect(node.kernel.calls.isEmpty)
        ops.close_node(nil)
    }
}
