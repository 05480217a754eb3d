import CSimulator

// INIT_QP_ATTR: the attributes with which the program moves its queue pair (`rdma_init_qp_attr`, `ib_cm_init_qp_attr`,
// `iw_cm_init_qp_attr` of the kernel).

extension ConnectionManager {
    func attributes(_ identifier: Identifier, state: UInt32) throws(Refusal) -> ib_uverbs_qp_attr {
        try demand(state <= IBV_QPS_ERR.rawValue, EINVAL, "there is no such state", has: Int(state))
        guard let device = identifier.device else { throw Refusal(EINVAL, "the identifier has no device") }
        var attributes = ib_uverbs_qp_attr()
        attributes.qp_state = state
        if device.isIWARP {
            try setIWARP(&attributes, identifier)
        } else if identifier.communication == .none || identifier.isDatagram {
            setFirst(&attributes, identifier)
        } else {
            switch ibv_qp_state(rawValue: state) {
            case IBV_QPS_INIT: try setInit(&attributes, identifier)
            case IBV_QPS_RTR: try setReadyToReceive(&attributes, identifier, device)
            case IBV_QPS_RTS: try setReadyToSend(&attributes, identifier)
            default: throw Refusal(EINVAL, "rdma_cm has no attributes of this state", has: Int(state))
            }
        }
        if !device.isIWARP && state == IBV_QPS_RTR.rawValue { attributes.rq_psn = identifier.receivePSN }
        if attributes.qp_attr_mask & Mask.timeout != 0, let timeout = identifier.timeout {
            attributes.timeout = timeout
        }
        return attributes
    }

    /// Before there is a connection.
    private func setFirst(_ attributes: inout ib_uverbs_qp_attr, _ identifier: Identifier) {
        attributes.port_num = 1
        attributes.qp_attr_mask = Mask.state | Mask.pkeyIndex | Mask.port
        if identifier.isDatagram {
            if identifier.space != PortSpace.ipoib { identifier.qkey = Self.defaultQKey }
            attributes.qkey = identifier.qkey
            attributes.qp_attr_mask |= Mask.qkey
        } else {
            attributes.qp_attr_mask |= Mask.access
        }
    }

    private func setInit(_ attributes: inout ib_uverbs_qp_attr, _ identifier: Identifier) throws(Refusal) {
        switch identifier.communication {
        case .requestSent, .requestReceived, .replySent, .replyReceived, .established: break
        default: throw Refusal(EINVAL, "there is no connection whose queue pair could be initialized")
        }
        attributes.qp_attr_mask = Mask.state | Mask.access | Mask.pkeyIndex | Mask.port
        attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE.rawValue
        if identifier.responderResources > 0 {
            attributes.qp_access_flags |= IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        }
        attributes.port_num = 1
    }

    /// Whether the parameters of the peer are known.
    private func demandPeer(_ identifier: Identifier) throws(Refusal) {
        switch identifier.communication {
        case .requestReceived, .replySent, .replyReceived, .established: break
        default: throw Refusal(EINVAL, "there is no peer to which the queue pair could be connected")
        }
    }

    private func setReadyToReceive(
        _ attributes: inout ib_uverbs_qp_attr, _ identifier: Identifier, _ device: Device
    ) throws(Refusal) {
        try demandPeer(identifier)
        attributes.qp_attr_mask =
            Mask.state | Mask.address | Mask.pathMTU | Mask.destination | Mask.receivePSN
        if let path = identifier.path { attributes.ah_attr = path.addressAttributes(device) }
        attributes.path_mtu = UInt32(identifier.pathMTU)
        attributes.dest_qp_num = identifier.remoteQueuePair
        guard identifier.type == IBV_QPT_RC.rawValue else { return }
        attributes.qp_attr_mask |= Mask.maxDestReadAtomic | Mask.minRNRTimer
        attributes.max_dest_rd_atomic = identifier.responderResources
    }

    private func setReadyToSend(
        _ attributes: inout ib_uverbs_qp_attr, _ identifier: Identifier
    ) throws(Refusal) {
        try demandPeer(identifier)
        attributes.qp_attr_mask = Mask.state | Mask.sendPSN
        attributes.sq_psn = identifier.sendPSN
        guard identifier.type == IBV_QPT_RC.rawValue else { return }
        attributes.qp_attr_mask |= Mask.retries | Mask.rnrRetry | Mask.maxReadAtomic | Mask.timeout
        attributes.retry_cnt = identifier.retryCount
        attributes.rnr_retry = identifier.rnrRetryCount
        attributes.max_rd_atomic = identifier.initiatorDepth
        attributes.timeout = identifier.ackTimeout
    }

    private func setIWARP(_ attributes: inout ib_uverbs_qp_attr, _ identifier: Identifier) throws(Refusal) {
        attributes.port_num = 1
        attributes.qp_attr_mask = Mask.state | Mask.access | Mask.port
        if identifier.communication == .none { return }
        switch identifier.communication {
        case .idle, .requestSent, .requestReceived, .established: break
        default: throw Refusal(EINVAL, "the connection is closing")
        }
        switch ibv_qp_state(rawValue: attributes.qp_state) {
        case IBV_QPS_INIT, IBV_QPS_RTR:
            attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
        case IBV_QPS_RTS: attributes.qp_attr_mask = Mask.port
        default: throw Refusal(EINVAL, "rdma_cm has no attributes of this state", has: Int(attributes.qp_state))
        }
    }
}
