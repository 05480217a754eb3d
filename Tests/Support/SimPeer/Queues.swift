import CIBVerbs
import CProviderABI
import Glibc
import PeerSupport

/// A queue pair of a bench.
final class Queue {
    let bench: Bench
    let pair: UnsafeMutablePointer<ibv_qp>
    let type: ibv_qp_type
    let inlineLimit: Int

    /// Q_Key of all UD queue pairs.
    static let qkey: UInt32 = 0x1111_1111

    init(
        _ bench: Bench, _ type: ibv_qp_type, requests: UInt32 = 64, shared: UnsafeMutablePointer<ibv_srq>? = nil,
        inline: UInt32 = 0, signalsAll: Bool = false, ignored: UInt32? = nil,
        receives: UnsafeMutablePointer<ibv_cq>? = nil
    ) {
        self.bench = bench
        self.type = type
        var attributes = ibv_qp_init_attr()
        attributes.send_cq = bench.sends
        attributes.recv_cq = receives ?? bench.receives
        attributes.srq = shared
        attributes.cap = ibv_qp_cap(
            max_send_wr: requests, max_recv_wr: requests, max_send_sge: 4, max_recv_sge: 4, max_inline_data: inline)
        if let ignored { (attributes.cap.max_recv_wr, attributes.cap.max_recv_sge) = (ignored, ignored) }
        attributes.qp_type = type
        attributes.sq_sig_all = signalsAll ? 1 : 0
        pair = have(library.createPair(bench.domain, &attributes), "a queue pair")
        inlineLimit = Int(attributes.cap.max_inline_data)
        // Linux' cxgb4 returns UInt32.max.
        guard shared != nil, !bench.isIWARP else { return }
        equal(
            [attributes.cap.max_recv_wr, attributes.cap.max_recv_sge], [0, 0], "a receive queue beside a shared one")
    }

    /// An RC queue pair that the caller has created.
    init(_ bench: Bench, adopting pair: UnsafeMutablePointer<ibv_qp>) {
        self.bench = bench
        self.pair = pair
        type = IBV_QPT_RC
        inlineLimit = 0
    }

    var number: UInt32 { pair.pointee.qp_num }
    /// LID of the peer's port; nil: this port.
    var peerPort: UInt16?

    func destroy(file: StaticString = #fileID, line: UInt = #line) {
        equal(library.destroyPair(pair), 0, "destroying a queue pair", file: file, line: line)
    }

    /// Two queue pairs in RTS that are connected to each other.
    static func connected(
        _ bench: Bench, _ type: ibv_qp_type, requests: UInt32 = 64, shared: UnsafeMutablePointer<ibv_srq>? = nil,
        inline: UInt32 = 0, signalsAll: Bool = false, rnrRetry: UInt8 = 7
    ) -> (Queue, Queue) {
        let first = Queue(bench, type, requests: requests, shared: shared, inline: inline, signalsAll: signalsAll)
        let second = Queue(bench, type, requests: requests, shared: shared, inline: inline, signalsAll: signalsAll)
        first.connect(to: second.number, rnrRetry: rnrRetry)
        second.connect(to: first.number, rnrRetry: rnrRetry)
        return (first, second)
    }

    // MARK: - States

    func modify(_ attributes: inout ibv_qp_attr, _ mask: [ibv_qp_attr_mask]) -> Int32 {
        library.modifyPair(pair, &attributes, Int32(mask.reduce(0) { $0 | $1.rawValue }))
    }

    func initialize() -> Int32 {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_INIT
        attributes.port_num = 1
        attributes.qkey = Queue.qkey
        attributes.qp_access_flags =
            IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        let last = type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS
        if bench.isIWARP { return modify(&attributes, [IBV_QP_STATE, IBV_QP_ACCESS_FLAGS]) }
        return modify(&attributes, [IBV_QP_STATE, IBV_QP_PKEY_INDEX, IBV_QP_PORT, last])
    }

    /// Moves the queue pair through INIT and RTR to RTS.
    func connect(to peer: UInt32 = 0, rnrRetry: UInt8 = 7) {
        equal(initialize(), 0, "to INIT")
        if bench.isIWARP {
            let sim = have(sim, "the simulated connection manager")
            // The queue pair with the lower number is the initiator.
            let initiates: Int32 = number < peer ? 1 : 0
            equal(sim.pointee.connect(0, number, peerPort ?? 0, peer, initiates), 0, "connecting")
            // The CQE of the initiator's first READ: libcxgb4 44, when it flushes a queue pair, takes all CQEs for the
            // first one in the queue (corrected in later versions).
            if !(library is NativeLibrary) { bench.skipInitiation(pair.pointee.send_cq) }
            return
        }
        equal(receive(from: peer), 0, "to RTR")
        equal(send(rnrRetry: rnrRetry), 0, "to RTS")
    }

    func receive(from peer: UInt32) -> Int32 {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_RTR
        if type == IBV_QPT_UD { return modify(&attributes, [IBV_QP_STATE]) }
        attributes.path_mtu = IBV_MTU_1024
        attributes.dest_qp_num = peer
        attributes.rq_psn = 0xFF_FFF0
        attributes.ah_attr = address
        attributes.max_dest_rd_atomic = 8
        attributes.min_rnr_timer = 12
        let common = [IBV_QP_STATE, IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN]
        return modify(
            &attributes,
            type == IBV_QPT_RC ? common + [IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER] : common)
    }

    func send(rnrRetry: UInt8 = 7) -> Int32 {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_RTS
        attributes.sq_psn = 0xFF_FFF0
        attributes.timeout = 14
        attributes.retry_cnt = 7
        attributes.rnr_retry = rnrRetry
        attributes.max_rd_atomic = 8
        let reliable = [IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC]
        return modify(&attributes, [IBV_QP_STATE, IBV_QP_SQ_PSN] + (type == IBV_QPT_RC ? reliable : []))
    }

    func enter(_ state: ibv_qp_state) -> Int32 {
        var attributes = ibv_qp_attr()
        attributes.qp_state = state
        return modify(&attributes, [IBV_QP_STATE])
    }

    var state: ibv_qp_state {
        var attributes = ibv_qp_attr()
        var initial = ibv_qp_init_attr()
        equal(library.queryPair(pair, &attributes, Int32(IBV_QP_STATE.rawValue), &initial), 0, "querying a queue pair")
        return attributes.qp_state
    }

    /// The address of `peerPort`.
    var address: ibv_ah_attr {
        var address = ibv_ah_attr()
        address.port_num = 1
        address.dlid = peerPort ?? bench.lid
        if bench.isEthernet {
            address.is_global = 1
            address.grh.dgid = bench.gid
            address.grh.sgid_index = 3
            address.grh.hop_limit = 64
        }
        return address
    }

    // MARK: - Posting

    /// Posts a send request. Returns the errno value.
    func post(
        _ opcode: ibv_wr_opcode, _ sges: [ibv_sge], id: UInt64 = 1, flags: [ibv_send_flags] = [IBV_SEND_SIGNALED],
        _ more: (inout ibv_send_wr) -> Void = { _ in }
    ) -> Int32 {
        var sges = sges
        return sges.withUnsafeMutableBufferPointer { list in
            var request = ibv_send_wr()
            request.wr_id = id
            request.opcode = opcode
            request.send_flags = flags.reduce(0) { $0 | $1.rawValue }
            request.sg_list = list.baseAddress
            request.num_sge = Int32(list.count)
            more(&request)
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            return ibv_post_send(pair, &request, &bad)
        }
    }

    /// Posts a receive request. Returns the errno value.
    func postReceive(_ sges: [ibv_sge], id: UInt64 = 2) -> Int32 {
        withReceiveRequest(sges, id: id) { ibv_post_recv(pair, $0, $1) }
    }
}

/// Posts a receive request to a shared receive queue. Returns the errno value.
func postReceive(_ queue: UnsafeMutablePointer<ibv_srq>, _ sges: [ibv_sge], id: UInt64) -> Int32 {
    withReceiveRequest(sges, id: id) { ibv_post_srq_recv(queue, $0, $1) }
}

/// Calls `body` with a receive request and the place for `bad_wr`.
private func withReceiveRequest(
    _ sges: [ibv_sge], id: UInt64,
    _ body: (UnsafeMutablePointer<ibv_recv_wr>, UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>) -> Int32
) -> Int32 {
    var sges = sges
    return sges.withUnsafeMutableBufferPointer { list in
        var request = ibv_recv_wr()
        request.wr_id = id
        request.sg_list = list.baseAddress
        request.num_sge = Int32(list.count)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        return body(&request, &bad)
    }
}
