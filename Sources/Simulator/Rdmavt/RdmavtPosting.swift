import CSimulator

/// POST_SEND: the struct, work requests of `wqe_size` bytes each (`struct ib_uverbs_send_wr`), then the SGEs of all of
/// them (`struct ib_uverbs_sge`, 16 bytes each).
extension RdmavtCodec {
    func postSends(
        _ context: Context, _ bytes: UnsafeRawBufferPointer, _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) {
        let head = MemoryLayout<ib_uverbs_post_send>.size
        let request = bytes.load(0, as: ib_uverbs_post_send.self)
        let size = MemoryLayout<ib_uverbs_send_wr>.size
        try demand(
            request.wqe_size >= size, EINVAL, "wqe_size is shorter than a work request, in bytes",
            has: Int(request.wqe_size),
            wants: size)
        let lists = head + Int(request.wqe_size) * Int(request.wr_count)
        let wanted = lists + 16 * Int(request.sge_count)
        try demand(
            bytes.count >= wanted, ENOSPC, "shorter than its work requests and SGEs, in bytes", has: bytes.count,
            wants: wanted)
        let queuePair = try context.queuePair(request.qp_handle)
        var sges = lists
        var posts: [SendRequest] = []
        for index in 0..<Int(request.wr_count) {
            let entry = bytes.load(head + index * Int(request.wqe_size), as: ib_uverbs_send_wr.self)
            try demand(
                sges + 16 * Int(entry.num_sge) <= wanted, EINVAL, "the work requests have more SGEs than sge_count",
                has: Int(entry.num_sge), wants: (wanted - sges) / 16)
            posts.append(try decode(entry, queuePair, context, bytes, sges))
            sges += 16 * Int(entry.num_sge)
        }
        try append(posts, queuePair, response)
    }

    private func decode(
        _ entry: ib_uverbs_send_wr, _ queuePair: QueuePair, _ context: Context, _ bytes: UnsafeRawBufferPointer,
        _ sges: Int
    ) throws(Refusal) -> SendRequest {
        let request = SendRequest()
        request.tag = entry.wr_id
        request.isSignaled = queuePair.signalsAll || entry.send_flags & IBV_SEND_SIGNALED.rawValue != 0
        request.isSolicited = entry.send_flags & IBV_SEND_SOLICITED.rawValue != 0
        request.flags = entry.send_flags
        try setOperation(request, entry)
        if queuePair.type == IBV_QPT_UD.rawValue {
            try demand(
                request.operation == .send && !request.invalidates, EINVAL, "UD supports sends only",
                has: Int(entry.opcode))
            let handle = try context.addressHandle(entry.wr.ud.ah)
            try demand(
                handle.domain === queuePair.domain, EINVAL, "the address handle is of another protection domain")
            request.destination = Destination(handle.attributes)
            request.destination.queuePair = entry.wr.ud.remote_qpn & 0xFF_FFFF
            request.destination.qkey = entry.wr.ud.remote_qkey
        }
        for index in 0..<Int(entry.num_sge) {
            let sge = bytes.load(sges + 16 * index, as: rvt_wqe_sge.self)
            if !request.append(SGE(address: sge.addr, length: sge.length, key: sge.lkey)) { break }
        }
        return request
    }

    private func setOperation(_ request: SendRequest, _ entry: ib_uverbs_send_wr) throws(Refusal) {
        switch ibv_wr_opcode(rawValue: entry.opcode) {
        case IBV_WR_SEND: request.operation = .send
        case IBV_WR_SEND_WITH_IMM: (request.operation, request.hasImmediate) = (.send, true)
        case IBV_WR_SEND_WITH_INV: (request.operation, request.invalidates) = (.send, true)
        case IBV_WR_RDMA_WRITE: request.operation = .write
        case IBV_WR_RDMA_WRITE_WITH_IMM: (request.operation, request.hasImmediate) = (.write, true)
        case IBV_WR_RDMA_READ: request.operation = .read
        case IBV_WR_ATOMIC_CMP_AND_SWP: request.operation = .compareAndSwap
        case IBV_WR_ATOMIC_FETCH_AND_ADD: request.operation = .fetchAndAdd
        default: throw Refusal(EINVAL, "there is no such opcode", has: Int(entry.opcode))
        }
        request.immediate = entry.ex.imm_data
        request.invalidKey = entry.ex.invalidate_rkey
        switch request.operation {
        case .write, .read:
            request.remoteAddress = entry.wr.rdma.remote_addr
            request.remoteKey = entry.wr.rdma.rkey
        case .compareAndSwap, .fetchAndAdd:
            request.remoteAddress = entry.wr.atomic.remote_addr
            request.remoteKey = entry.wr.atomic.rkey
            request.compare = entry.wr.atomic.compare_add
            request.swapOrAdd = request.operation == .fetchAndAdd ? entry.wr.atomic.compare_add : entry.wr.atomic.swap
        default: break
        }
    }

    /// Checks and queues each request, as rdmavt does. The response (`bad_wr`) is the number, from 1, of the refused
    /// request; 0: none.
    private func append(
        _ posts: [SendRequest], _ queuePair: QueuePair, _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) {
        defer { device.run() }
        for (index, request) in posts.enumerated() {
            do throws(Refusal) {
                try check(request, queuePair)
            } catch {
                response.storeBytes(of: UInt32(index + 1), as: UInt32.self)
                throw error
            }
            queues(queuePair).sends.append(request)
        }
        response.storeBytes(of: 0, as: UInt32.self)
    }

    private func check(_ request: SendRequest, _ queuePair: QueuePair) throws(Refusal) {
        let states = [IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPS_SQE, IBV_QPS_ERR]
        try demand(
            states.contains { $0.rawValue == queuePair.state }, EINVAL, "nothing can be sent in this state",
            has: Int(queuePair.state))
        try demand(
            request.sgeCount <= Int(queuePair.limits.max_send_sge), EINVAL, "more SGEs than max_send_sge",
            has: request.sgeCount, wants: Int(queuePair.limits.max_send_sge))
        if queuePair.type == IBV_QPT_UC.rawValue {
            try demand(
                (request.operation == .send || request.operation == .write) && !request.invalidates, EINVAL,
                "UC supports sends and RDMA writes only")
        }
        if request.operation == .read || request.operation == .compareAndSwap || request.operation == .fetchAndAdd {
            try demand(queuePair.attributes.maxReadAtomic > 0, EINVAL, "an RDMA read or atomic, and max_rd_atomic is 0")
        }
        if request.operation == .compareAndSwap || request.operation == .fetchAndAdd {
            var length: UInt32 = 0
            for index in 0..<request.sgeCount { length &+= request.sges[index].length }
            try demand(length == 8, EINVAL, "an atomic operation returns 8 bytes", has: Int(length), wants: 8)
        }
        try demand(
            queues(queuePair).sends.count < Int(queuePair.limits.max_send_wr), ENOMEM, "the send queue is full",
            has: Int(queuePair.limits.max_send_wr))
        try checkKeys(request, queuePair)
    }

    /// rdmavt checks lkeys when a request is posted, not when it is executed.
    private func checkKeys(_ request: SendRequest, _ queuePair: QueuePair) throws(Refusal) {
        let isSource = request.operation == .send || request.operation == .write
        for index in 0..<request.sgeCount where request.sges[index].length > 0 {
            let sge = request.sges[index]
            let place = device.resolve(
                key: sge.key, address: sge.address, length: UInt64(sge.length),
                access: isSource ? 0 : IBV_ACCESS_LOCAL_WRITE.rawValue, domain: queuePair.domain)
            try demand(place != nil, EINVAL, "an lkey does not grant access to the SGE", has: Int(sge.key))
        }
    }
}

extension Destination {
    /// The destination of an address handle.
    init(_ attributes: ib_uverbs_ah_attr) {
        self.init()
        lid = attributes.dlid
        serviceLevel = attributes.sl
        isGlobal = attributes.is_global != 0
        gid = gidHalves(attributes.grh.dgid)
    }
}
