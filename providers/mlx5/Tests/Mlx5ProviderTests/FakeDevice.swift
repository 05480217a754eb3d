import CIBVerbs
import CKernelABI
import CMlx5DV
import CProviderABI
import Glibc
import KernelTestSupport
import KernelVerbs
import ProviderKit
import TestSupport
import Testing

@testable import Mlx5Provider

/// A fake kernel with the mlx5 driver, and a fake device: the test writes CQEs to the rings whose addresses the
/// commands contain. UAR pages are pages of the node, each at its own offset.
final class FakeDevice {
    let kernel = FakeKernel(mapping: 1 << 20)
    let context: UnsafeMutablePointer<ibv_context>
    private let device = TestDevice("mlx5_0")
    let isDynamic: Bool
    let version: UInt8

    /// The last command of each kind.
    var cq = mlx5_ib_create_cq()
    var cqEntries: UInt32 = 0
    var qp = mlx5_ib_create_qp()
    var qpLimits = ibv_qp_cap()
    var srq = mlx5_ib_create_srq()
    var resize = mlx5_ib_resize_cq()
    var resizeEntries: UInt32 = 0
    /// The handles of destroyed objects, in order.
    var destroyed: [UInt32] = []
    var uarCount = 0
    /// Called during RESIZE_CQ.
    var onResize: () -> Void = {}
    var linkLayer = UInt8(IBV_LINK_LAYER_INFINIBAND)

    init(isDynamic: Bool = true, version: UInt8 = 1, change: (inout mlx5_ib_alloc_ucontext_resp) -> Void = { _ in })
        throws
    {
        self.isDynamic = isDynamic
        self.version = version
        var response = mlx5_ib_alloc_ucontext_resp()
        response.bf_reg_size = 512
        response.tot_bfregs = isDynamic ? 0 : 16
        response.max_sq_desc_sz = 1024
        response.max_rq_desc_sz = 512
        response.max_send_wqebb = 32768
        response.max_recv_wr = 32768
        response.max_srq_recv_wr = 32767
        response.num_ports = 1
        response.cqe_version = version
        response.cmds_supp_uhw = UInt8(MLX5_USER_CMDS_SUPP_UHW_CREATE_AH.rawValue)
        response.num_uars_per_page = 1
        change(&response)
        let open = kernel.open(driver: RDMA_DRIVER_MLX5)
        let opened: Mlx5ContextPointer
        var uars = 0
        kernel.onCall = { call in
            if call.method == UVERBS_METHOD_GET_CONTEXT.rawValue, call.object == UVERBS_OBJECT_DEVICE.rawValue {
                call.attribute(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS.rawValue)!.respond(4 as UInt32)
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(response)
            } else if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                call.attributes[0].set(0x5000_0001)
            } else if call.command == UInt64(WriteCommand.queryDeviceExtended.rawValue) {
                var attributes = ib_uverbs_ex_query_device_resp()
                attributes.base.atomic_cap = IBV_ATOMIC_HCA.rawValue
                attributes.timestamp_mask = .max
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(attributes)
            } else if call.object == MLX5_IB_OBJECT_UAR.rawValue {
                Self.respondToUARAlloc(call, uars)
                uars += 1
            }
            return 0
        }
        opened = try Mlx5ContextPointer.make(open, why: nil)
        uarCount = uars
        let native = UnsafeMutableRawPointer(opened).assumingMemoryBound(to: NativeContext.self)
        context = native.initialize(device.pointer.pointee.device)
        fillDataPath(&context.pointee.ops)
        kernel.onCall = { [unowned self] in self.execute($0) }
    }

    private static func respondToUARAlloc(_ call: FakeKernel.Call, _ number: Int) {
        call.attribute(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE.rawValue)!.set(UInt64(100 + number))
        call.attribute(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET.rawValue)!.respond(UInt64(4096 * number))
        call.attribute(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH.rawValue)!.respond(4096 as UInt32)
        call.attribute(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID.rawValue)!.respond(UInt32(7 + number))
    }

    private func execute(_ call: FakeKernel.Call) -> Int32 {
        func input<Value: BitwiseCopyable>(_ type: Value.Type) -> Value {
            call.attribute(UVERBS_ATTR_UHW_IN)!.bytes.load(0, as: type)
        }
        if call.object == MLX5_IB_OBJECT_UAR.rawValue {
            Self.respondToUARAlloc(call, uarCount)
            uarCount += 1
            return 0
        }
        switch (call.object, call.method) {
        case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_CREATE.rawValue):
            cq = input(mlx5_ib_create_cq.self)
            cqEntries = UInt32(call.attribute(UVERBS_ATTR_CREATE_CQ_CQE.rawValue)!.data)
            call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(21)
            call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(cqEntries)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(mlx5_ib_create_cq_resp(cqn: 0x402, reserved: 0))
        case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_CREATE.rawValue):
            qp = call.attribute(UVERBS_ATTR_UHW_IN)!.bytes.withUnsafeBytes {
                $0.loadUnaligned(as: mlx5_ib_create_qp.self)
            }
            qpLimits = call.attribute(UVERBS_ATTR_CREATE_QP_CAP.rawValue)!.bytes.load(0, as: ibv_qp_cap.self)
            call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(31)
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(0x101 as UInt32)
            call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(qpLimits)
            var response = mlx5_ib_create_qp_resp()
            response.bfreg_index = isDynamic ? 0 : 5
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(response)
        case (UVERBS_OBJECT_SRQ.rawValue, UVERBS_METHOD_SRQ_CREATE.rawValue):
            srq = input(mlx5_ib_create_srq.self)
            call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)!.set(41)
            call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(mlx5_ib_create_srq_resp(srqn: 0x77, reserved: 0))
        case (UVERBS_OBJECT_DEVICE.rawValue, UVERBS_METHOD_QUERY_PORT.rawValue):
            var port = ib_uverbs_query_port_resp_ex()
            port.legacy_resp.link_layer = linkLayer
            call.attribute(UVERBS_ATTR_QUERY_PORT_RESP.rawValue)!.respond(port)
        case (UVERBS_OBJECT_DEVICE.rawValue, UVERBS_METHOD_QUERY_GID_ENTRY.rawValue):
            var entry = ib_uverbs_gid_entry()
            entry.gid_type = IBV_GID_TYPE_ROCE_V2.rawValue
            call.attribute(UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY.rawValue)!.respond(entry)
        default:
            switch call.command {
            case UInt64(IB_USER_VERBS_CMD_CREATE_AH.rawValue):
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(51 as UInt32)
                var response = mlx5_ib_create_ah_resp()
                response.dmac = (2, 3, 4, 5, 6, 7)
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(response)
            case UInt64(IB_USER_VERBS_CMD_RESIZE_CQ.rawValue):
                resize = input(mlx5_ib_resize_cq.self)
                resizeEntries = call.attribute(UVERBS_ATTR_CORE_IN.rawValue)!.bytes.load(12, as: UInt32.self)
                onResize()
            case nil:
                if call.attributes.first?.length == 0, call.attributes.count <= 2 {
                    destroyed.append(UInt32(call.attributes[0].data))
                }
            default: break
            }
        }
        return 0
    }

    /// A 64-bit word of a UAR page.
    func uarWord(_ page: Int, _ offset: Int) -> UInt64 {
        var value: UInt64 = 0
        _ = pread(kernel.descriptor, &value, 8, off_t(4096 * page + offset))
        return UInt64(bigEndian: value)
    }

    func close() { #expect(closeContext(context: context) == 0) }

    // MARK: - CQEs

    /// Writes a CQE to the completion queue that was created last.
    /// - Parameters:
    ///   - number: The number of the CQE, counted from 0.
    ///   - ring: The memory and the number of CQEs of another ring.
    func complete(
        _ number: UInt32, _ opcode: Int, in ring: (UnsafeMutableRawPointer, UInt32)? = nil,
        _ change: (inout mlx5_cqe64) -> Void = { _ in }
    ) {
        let (memory, entries) =
            ring ?? (UnsafeMutableRawPointer(bitPattern: UInt(cq.buf_addr))!, cqEntries + 1)
        var cqe = mlx5_cqe64()
        cqe.sop_drop_qpn = UInt32(MLX5_OPCODE_SEND << 24 | 0x101).bigEndian
        cqe.srqn_uidx = version == 1 ? qp.uidx.bigEndian : 0
        change(&cqe)
        let owner: UInt8 = number & entries != 0 ? 1 : 0
        cqe.op_own = UInt8(opcode) << 4 | cqe.op_own & 0x0E | owner
        (memory + 64 * Int(number & (entries - 1))).storeBytes(of: cqe, as: mlx5_cqe64.self)
    }

    /// The consumer index in the completion queue's doorbell record.
    var consumerIndex: UInt32 {
        UInt32(bigEndian: UnsafeMutableRawPointer(bitPattern: UInt(cq.db_addr))!.load(as: UInt32.self))
    }
}

/// A queue pair and a completion queue on a fake device.
struct TestQueues {
    let domain: UnsafeMutablePointer<ibv_pd>
    private let ownsDomain: Bool
    let completions: UnsafeMutablePointer<ibv_cq>
    let pair: UnsafeMutablePointer<ibv_qp>
    let limits: ibv_qp_cap

    init(
        _ device: FakeDevice, type: ibv_qp_type = IBV_QPT_RC, entries: Int32 = 15,
        srq: UnsafeMutablePointer<ibv_srq>? = nil, domain given: UnsafeMutablePointer<ibv_pd>? = nil
    ) throws {
        let table = controlTable.pointee
        domain = try given ?? #require(table.alloc_pd(device.context))
        ownsDomain = given == nil
        completions = try #require(table.create_cq(device.context, entries, nil, nil, 0))
        var attr = ibv_qp_init_attr_ex()
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = domain
        attr.send_cq = completions
        attr.recv_cq = completions
        attr.srq = srq
        attr.qp_type = type
        attr.cap = ibv_qp_cap(
            max_send_wr: 32, max_recv_wr: 32, max_send_sge: 4, max_recv_sge: 4, max_inline_data: 64)
        pair = try #require(table.create_qp_ex(device.context, &attr))
        limits = attr.cap
        pair.pointee.state = IBV_QPS_RTS
    }

    /// Posts signaled sends with these `wr_id`s.
    func send(_ ids: [UInt64]) {
        for id in ids {
            var request = SGEList([ibv_sge(addr: 1, length: 8, lkey: 1)]).send(IBV_WR_SEND, id: id)
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            #expect(ibv_post_send(pair, &request, &bad) == 0)
        }
    }

    func receive(_ ids: [UInt64]) {
        for id in ids {
            var request = threeSGEs().receive(id: id)
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(ibv_post_recv(pair, &request, &bad) == 0)
        }
    }

    func poll(_ count: Int32 = 16) -> [ibv_wc] {
        var found = [ibv_wc](repeating: ibv_wc(), count: Int(count))
        let taken = ibv_poll_cq(completions, count, &found)
        #expect(taken >= 0)
        return Array(found.prefix(Int(max(0, taken))))
    }

    func destroy() {
        let table = controlTable.pointee
        #expect(table.destroy_qp(pair) == 0 && table.destroy_cq(completions) == 0)
        if ownsDomain { #expect(table.dealloc_pd(domain) == 0) }
    }
}
