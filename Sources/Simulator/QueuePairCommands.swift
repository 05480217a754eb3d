import CSimulator

extension Context {
    func performQueuePair(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.createQP: try createQueuePair(call)
        case Command.modifyQP:
            let request = call.load(ib_uverbs_modify_qp.self)
            try device.modify(try queuePair(request.qp_handle), request, call.driver)
        case Command.queryQP: call.respond(try queuePair(call.load(ib_uverbs_query_qp.self).qp_handle).response)
        case Command.destroyQP:
            let queuePair = try queuePair(call.load(ib_uverbs_destroy_qp.self).qp_handle)
            try destroy(queuePair)
            call.respond(ib_uverbs_destroy_qp_resp(events_reported: queuePair.reported))
        case Command.postSend: try device.codec.post(self, call.request, call.response)
        default: try group(call)
        }
    }

    private func createQueuePair(_ call: CommandCall) throws(Refusal) {
        let request = call.load(ib_uverbs_create_qp.self)
        let queuePair = QueuePair(
            domain: try domain(request.pd_handle), userHandle: request.user_handle, type: UInt32(request.qp_type),
            sendCompletions: try completionQueue(request.send_cq_handle),
            receiveCompletions: try completionQueue(request.recv_cq_handle),
            sharedReceives: request.is_srq != 0 ? try sharedReceiveQueue(request.srq_handle) : nil,
            limits: ibv_qp_cap(
                max_send_wr: request.max_send_wr, max_recv_wr: request.max_recv_wr, max_send_sge: request.max_send_sge,
                max_recv_sge: request.max_recv_sge, max_inline_data: request.max_inline_data),
            signalsAll: request.sq_sig_all != 0)
        try createQueuePair(queuePair, flags: 0, call.driver)
        var response = ib_uverbs_create_qp_resp()
        response.qp_handle = queuePair.handle
        response.qpn = queuePair.number
        response.max_send_wr = queuePair.limits.max_send_wr
        response.max_recv_wr = queuePair.limits.max_recv_wr
        response.max_send_sge = queuePair.limits.max_send_sge
        response.max_recv_sge = queuePair.limits.max_recv_sge
        response.max_inline_data = queuePair.limits.max_inline_data
        call.respond(response)
    }

    private func group(_ call: CommandCall) throws(Refusal) {
        let request = call.load(ib_uverbs_attach_mcast.self)
        let queuePair = try queuePair(request.qp_handle)
        try demand(queuePair.type == IBV_QPT_UD.rawValue, EINVAL, "only UD queue pairs have multicast groups")
        let gid = gidHalves(request.gid)
        // 224.0.0.0/4 as an IPv4-mapped address is the group of RoCE v2.
        let isIP4 = gid.0 == 0 && UInt64(bigEndian: gid.1) >> 28 == 0xFFFFE
        try demand(request.gid.0 == 0xFF || isIP4, EINVAL, "the GID of no multicast group", has: Int(request.gid.0))
        let wanted = MulticastGroup(high: gid.0, low: gid.1, lid: request.mlid)
        let index = queuePair.groups.firstIndex(of: wanted)
        if call.number == Command.attach {
            // The kernel counts a second attachment as the first.
            if index == nil { queuePair.groups.append(wanted) }
        } else if let index {
            queuePair.groups.remove(at: index)
        } else {
            throw Refusal(EINVAL, "the queue pair is not attached to this group")
        }
    }
}

extension QueuePair {
    /// QUERY_QP.
    fileprivate var response: ib_uverbs_query_qp_resp {
        var response = ib_uverbs_query_qp_resp()
        // An iWARP driver returns the state and the limits.
        if !context.device.options.isIWARP { fillAttributes(&response) }
        response.max_send_wr = limits.max_send_wr
        response.max_recv_wr = limits.max_recv_wr
        response.max_send_sge = limits.max_send_sge
        response.max_recv_sge = limits.max_recv_sge
        response.max_inline_data = limits.max_inline_data
        response.qp_state = UInt8(attributes.state)
        response.cur_qp_state = UInt8(attributes.state)
        response.sq_sig_all = signalsAll ? 1 : 0
        return response
    }

    private func fillAttributes(_ response: inout ib_uverbs_query_qp_resp) {
        response.dest = attributes.address
        response.alt_dest = attributes.alternateAddress
        response.qkey = attributes.qkey
        response.rq_psn = expectedPSN
        response.sq_psn = sendPSN
        response.dest_qp_num = attributes.destination
        response.qp_access_flags = attributes.access
        response.pkey_index = attributes.pkeyIndex
        response.alt_pkey_index = attributes.alternatePkeyIndex
        response.path_mtu = attributes.pathMTU
        response.path_mig_state = attributes.migration
        response.max_rd_atomic = attributes.maxReadAtomic
        response.max_dest_rd_atomic = attributes.maxDestReadAtomic
        response.min_rnr_timer = attributes.minRNRTimer
        response.port_num = attributes.port
        response.timeout = attributes.timeout
        response.retry_cnt = attributes.retries
        response.rnr_retry = attributes.rnrRetry
        response.alt_port_num = attributes.alternatePort
        response.alt_timeout = attributes.alternateTimeout
    }
}
