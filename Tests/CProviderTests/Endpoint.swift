import CIBVerbs
import CProviderABI
import Foundation
import TestSupport
import Testing

/// Opens the C provider's device.
func openDevice(_ name: String = "ctest0") throws -> OpenedContext {
    try OpenedContext(library: try CTestProvider.library(), device: name)
}

/// A queue pair with its protection domain, completion queue and memory, created through the control table.
final class Endpoint {
    static let everyAccess =
        IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
        | IBV_ACCESS_REMOTE_ATOMIC.rawValue
    static let length = 4096

    let opened: OpenedContext
    let channel: UnsafeMutablePointer<ibv_comp_channel>
    let cq: UnsafeMutablePointer<ibv_cq>
    let pd: UnsafeMutablePointer<ibv_pd>
    let qp: UnsafeMutablePointer<ibv_qp>
    let srq: UnsafeMutablePointer<ibv_srq>?
    let bytes: UnsafeMutableRawPointer
    let mr: UnsafeMutablePointer<ibv_mr>

    var ops: rdma_context_ops { opened.ops.pointee }
    var address: UInt64 { UInt64(UInt(bitPattern: bytes)) }

    init(
        _ opened: OpenedContext, type: ibv_qp_type = IBV_QPT_RC, cqe: Int32 = 64, sharedReceives: Bool = false,
        sendOps: UInt64? = nil
    ) throws {
        self.opened = opened
        let ops = opened.ops.pointee
        channel = try #require(ops.create_comp_channel(opened.context))
        cq = try #require(ops.create_cq(opened.context, cqe, nil, channel, 0))
        pd = try #require(ops.alloc_pd(opened.context))
        bytes = .allocate(byteCount: Endpoint.length, alignment: 64)
        memset(bytes, 0, Endpoint.length)
        let start = UInt64(UInt(bitPattern: bytes))
        mr = try #require(ops.reg_mr(pd, bytes, Endpoint.length, start, Endpoint.everyAccess))
        if sharedReceives {
            var attr = ibv_srq_init_attr_ex()
            attr.attr.max_wr = 16
            attr.attr.max_sge = 2
            attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            attr.pd = pd
            let shared: UnsafeMutablePointer<ibv_srq> = try #require(ops.create_srq_ex(opened.context, &attr))
            srq = shared
        } else {
            srq = nil
        }
        var attr = ibv_qp_init_attr_ex()
        attr.send_cq = cq
        attr.recv_cq = cq
        attr.srq = srq
        attr.cap = ibv_qp_cap(
            max_send_wr: 16, max_recv_wr: srq == nil ? 16 : .max, max_send_sge: 2,
            max_recv_sge: srq == nil ? 2 : .max, max_inline_data: 64)
        attr.qp_type = type
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = pd
        if let sendOps {
            attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attr.send_ops_flags = sendOps
        }
        qp = try #require(ops.create_qp_ex(opened.context, &attr))
    }

    deinit {
        #expect(ops.destroy_qp(qp) == 0)
        if let srq { #expect(ops.destroy_srq(srq) == 0) }
        #expect(ops.dereg_mr(mr) == 0)
        #expect(ops.dealloc_pd(pd) == 0)
        #expect(ops.destroy_cq(cq) == 0)
        #expect(ops.destroy_comp_channel(channel) == 0)
        bytes.deallocate()
    }

    func modify(_ state: ibv_qp_state, _ mask: Int, _ set: (inout ibv_qp_attr) -> Void = { _ in }) -> Int32 {
        var attr = ibv_qp_attr()
        attr.qp_state = state
        set(&attr)
        return ops.modify_qp(qp, &attr, Int32(mask) | Int32(IBV_QP_STATE.rawValue))
    }

    func initialize() -> Int32 {
        let isDatagram = qp.pointee.qp_type == IBV_QPT_UD
        let last = isDatagram ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS
        return modify(IBV_QPS_INIT, mask(IBV_QP_PKEY_INDEX, IBV_QP_PORT, last)) {
            $0.port_num = 1
            $0.qkey = 0x11
            $0.qp_access_flags = Endpoint.everyAccess
        }
    }

    func toReceive(from peer: UInt32, gid: ibv_gid) -> Int32 {
        modify(
            IBV_QPS_RTR,
            mask(
                IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC,
                IBV_QP_MIN_RNR_TIMER)
        ) {
            $0.path_mtu = IBV_MTU_1024
            $0.dest_qp_num = peer
            $0.max_dest_rd_atomic = 1
            $0.min_rnr_timer = 12
            $0.ah_attr = Endpoint.address(gid)
        }
    }

    func toSend(rnrRetry: UInt8 = 7) -> Int32 {
        modify(
            IBV_QPS_RTS,
            mask(IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_SQ_PSN, IBV_QP_MAX_QP_RD_ATOMIC)
        ) {
            $0.timeout = 14
            $0.retry_cnt = 7
            $0.rnr_retry = rnrRetry
            $0.max_rd_atomic = 1
        }
    }

    /// The address vector for a GID, with GID index 2 (IPv4, RoCE v2) as the source.
    static func address(_ gid: ibv_gid) -> ibv_ah_attr {
        var attr = ibv_ah_attr()
        attr.is_global = 1
        attr.port_num = 1
        attr.grh.dgid = gid
        attr.grh.sgid_index = 2
        attr.grh.hop_limit = 64
        return attr
    }

    func gid(_ index: UInt32 = 2) throws -> ibv_gid {
        var entry = ibv_gid_entry()
        try #require(ops.query_gid_ex(opened.context, 1, index, &entry, 0, MemoryLayout<ibv_gid_entry>.size) == 0)
        return entry.gid
    }

    /// Two connected endpoints of one context.
    static func connectedPair(
        _ opened: OpenedContext, rnrRetry: UInt8 = 7, sharedReceives: Bool = false, sendOps: UInt64? = nil
    ) throws -> (Endpoint, Endpoint) {
        let a = try Endpoint(opened, sendOps: sendOps)
        let b = try Endpoint(opened, sharedReceives: sharedReceives)
        for (from, to) in [(a, b), (b, a)] {
            try #require(from.initialize() == 0)
            try #require(from.toReceive(from: to.qp.pointee.qp_num, gid: to.gid()) == 0)
            try #require(from.toSend(rnrRetry: rnrRetry) == 0)
        }
        return (a, b)
    }

    func post(
        _ opcode: ibv_wr_opcode, id: UInt64 = 1, length: Int = 64, flags: ibv_send_flags = IBV_SEND_SIGNALED,
        key: UInt32? = nil, _ set: (inout ibv_send_wr) -> Void = { _ in }
    ) -> Int32 {
        var sge = ibv_sge(addr: address, length: UInt32(length), lkey: key ?? mr.pointee.lkey)
        return withUnsafeMutablePointer(to: &sge) { list in
            var request = ibv_send_wr()
            request.wr_id = id
            request.opcode = opcode
            request.send_flags = flags.rawValue
            request.sg_list = list
            request.num_sge = 1
            set(&request)
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            return opened.context.pointee.ops.post_send(qp, &request, &bad)
        }
    }

    func receive(id: UInt64 = 2, length: Int = Endpoint.length) -> Int32 {
        var sge = ibv_sge(addr: address, length: UInt32(length), lkey: mr.pointee.lkey)
        return withUnsafeMutablePointer(to: &sge) { list in
            var request = ibv_recv_wr(wr_id: id, next: nil, sg_list: list, num_sge: 1)
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            if let srq { return opened.context.pointee.ops.post_srq_recv(srq, &request, &bad) }
            return opened.context.pointee.ops.post_recv(qp, &request, &bad)
        }
    }

    /// Polls all completions.
    func poll() -> [ibv_wc] {
        var completions = [ibv_wc](repeating: ibv_wc(), count: 64)
        let count = opened.context.pointee.ops.poll_cq(cq, 64, &completions)
        return Array(completions.prefix(Int(max(count, 0))))
    }

    func execute(_ command: CTestProvider.Command) -> Int32 {
        var gid = ibv_gid()
        withUnsafeMutableBytes(of: &gid) { $0.copyBytes(from: command.gid) }
        return ops.attach_mcast(qp, &gid, 0)
    }
}

func mask(_ bits: ibv_qp_attr_mask...) -> Int {
    bits.reduce(0) { $0 | Int($1.rawValue) }
}
