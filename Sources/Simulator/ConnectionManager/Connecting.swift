import CSimulator

// What the program does to a connection: CONNECT, ACCEPT, REJECT, DISCONNECT, NOTIFY, DESTROY_ID (`rdma_connect` etc.
// of the kernel, over ib_cm).

/// The largest private data of each message, in bytes (IBTA 12.6, 12.11), and the header of IBTA annex A11 in it.
enum PrivateData {
    static let request = 92
    static let reply = 196
    static let reject = 148
    static let lookUp = 216
    static let lookUpReply = 136
    static let header = 36
}

/// `enum ib_cm_rej_reason`.
enum RejectReason {
    static let timeout: UInt32 = 4
    static let invalidServiceID: UInt32 = 8
    static let consumerDefined: UInt32 = 28
    static let vendorOptionNotSupported: UInt8 = 35
}

/// `enum ib_cm_sidr_status`.
enum LookUpStatus {
    static let success: UInt32 = 0
    static let unsupported: UInt32 = 1
    static let reject: UInt32 = 2
}

extension ConnectionManager {
    // MARK: - CONNECT

    func connect(
        _ identifier: Identifier, _ parameters: rdma_ucm_conn_param, _ ece: rdma_ucm_ece
    ) throws(Refusal) {
        try demand(identifier.state == .routeResolved, EINVAL, "the route is not resolved")
        let device = identifier.device!
        identifier.ece = ece
        identifier.queuePair = parameters.qp_num & 0xFF_FFFF
        identifier.hasSharedReceives = parameters.srq != 0
        if device.isIWARP { return try connectIWARP(identifier, device, parameters) }
        let header = identifier.source.family == Family.ib ? 0 : PrivateData.header
        let length = header + Int(parameters.private_data_len)
        let room = identifier.isDatagram ? PrivateData.lookUp : PrivateData.request
        try demand(length <= room, EINVAL, "more private data than a request has room for", has: length, wants: room)
        try demand(
            identifier.isDatagram || identifier.type == IBV_QPT_RC.rawValue || identifier.type == IBV_QPT_UC.rawValue,
            EINVAL, "this type of queue pair cannot be connected", has: Int(identifier.type))
        var message = request(identifier, device, parameters)
        message.kind = UInt8((identifier.isDatagram ? SIM_CM_SIDR_REQ : SIM_CM_REQ).rawValue)
        identifier.responderResources = parameters.responder_resources
        identifier.initiatorDepth = parameters.initiator_depth
        identifier.retryCount = min(7, parameters.retry_count)
        identifier.state = .connect
        identifier.communication = identifier.isDatagram ? .lookUpSent : .requestSent
        guard send(message, from: device, to: identifier.remoteLID) else {
            // Every retry of the request fails.
            identifier.communication = .idle
            return raise(.unreachable, identifier, EventContents(status: -ETIMEDOUT))
        }
    }

    /// A message of an identifier, without kind and parameters.
    func message(_ identifier: Identifier, _ kind: sim_cm_kind) -> sim_cm_message {
        var message = sim_cm_message()
        message.kind = UInt8(kind.rawValue)
        message.sender = identifier.communicationID
        message.receiver = identifier.remoteID
        return message
    }

    /// A request: addresses, path and parameters.
    func request(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param
    ) -> sim_cm_message {
        var message = message(identifier, SIM_CM_REQ)
        message.queue_pair_type = UInt8(truncatingIfNeeded: identifier.type)
        message.service =
            identifier.destination.family == Family.ib
            ? identifier.destination.service : UInt64(identifier.space) << 16 | UInt64(identifier.destination.port)
        message.source = identifier.source
        message.destination = identifier.destination
        if let path = identifier.path {
            message.source_gid = path.source
            message.destination_gid = path.destination
            message.path_mtu = path.mtu
            message.timeout = path.ackTimeout
            message.flow_label = path.flowLabel
            message.traffic_class = path.trafficClass
            message.service_level = path.serviceLevel
            identifier.pathMTU = path.mtu
            identifier.ackTimeout = path.ackTimeout
        }
        set(&message, identifier, parameters)
        return message
    }

    /// The parameters of a REQ or a REP.
    func set(_ message: inout sim_cm_message, _ identifier: Identifier, _ parameters: rdma_ucm_conn_param) {
        message.responder_resources = parameters.responder_resources
        message.initiator_depth = parameters.initiator_depth
        message.flow_control = parameters.flow_control & 1
        message.retry_count = min(7, parameters.retry_count)
        message.rnr_retry_count = min(7, parameters.rnr_retry_count)
        message.srq = identifier.hasSharedReceives ? 1 : 0
        message.queue_pair = identifier.queuePair
        message.starting_psn = identifier.receivePSN
        message.ece_vendor = identifier.ece.vendor_id
        message.ece_attributes = identifier.ece.attr_mod
        withUnsafeBytes(of: parameters.private_data) {
            setPrivateData(&message, UnsafeRawBufferPointer(rebasing: $0[..<Int(parameters.private_data_len)]))
        }
    }

    func setPrivateData(_ message: inout sim_cm_message, _ bytes: UnsafeRawBufferPointer) {
        message.private_data_length = UInt16(bytes.count)
        withUnsafeMutableBytes(of: &message.private_data) { $0.copyMemory(from: bytes) }
    }

    // MARK: - ACCEPT

    /// - Parameter parameters: Nil: the program has moved its queue pair after RDMA_CM_EVENT_CONNECT_RESPONSE.
    func accept(
        _ identifier: Identifier, _ parameters: rdma_ucm_conn_param?, _ ece: rdma_ucm_ece
    ) throws(Refusal) {
        try demand(identifier.state == .connect, EINVAL, "there is no request to accept")
        let device = identifier.device!
        identifier.ece = ece
        if let parameters {
            identifier.queuePair = parameters.qp_num & 0xFF_FFFF
            identifier.hasSharedReceives = parameters.srq != 0
        }
        do throws(Refusal) {
            if device.isIWARP {
                try acceptIWARP(identifier, device, parameters)
            } else if identifier.isDatagram {
                try acceptLookUp(identifier, device, parameters)
            } else if let parameters {
                try acceptRequest(identifier, device, parameters)
            } else {
                try demand(
                    identifier.communication == .replyReceived, EINVAL, "there is no reply to acknowledge by an RTU")
                send(message(identifier, SIM_CM_RTU), from: device, to: identifier.remoteLID)
                identifier.communication = .established
            }
        } catch {
            let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
            try? reject(identifier, nothing, reason: RejectReason.consumerDefined)
            throw error
        }
    }

    private func acceptRequest(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param
    ) throws(Refusal) {
        let length = Int(parameters.private_data_len)
        try demand(
            length <= PrivateData.reply, EINVAL, "more private data than a REP has room for", has: length,
            wants: PrivateData.reply)
        try demand(
            identifier.communication == .requestReceived, EINVAL, "there is no request, or the peer has withdrawn it")
        identifier.responderResources = parameters.responder_resources
        identifier.initiatorDepth = parameters.initiator_depth
        var reply = message(identifier, SIM_CM_REP)
        set(&reply, identifier, parameters)
        identifier.communication = .replySent
        send(reply, from: device, to: identifier.remoteLID)
    }

    private func acceptLookUp(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param?
    ) throws(Refusal) {
        let qkey = parameters?.qkey ?? 0
        try demand(
            qkey == 0 || identifier.qkey == 0 || identifier.qkey == qkey, EINVAL, "the identifier has another Q_Key",
            has: Int(qkey), wants: Int(identifier.qkey))
        identifier.qkey = qkey == 0 ? Self.defaultQKey : qkey
        var reply = message(identifier, SIM_CM_SIDR_REP)
        if let parameters { set(&reply, identifier, parameters) }
        try sendLookUpReply(identifier, device, &reply, LookUpStatus.success)
    }

    /// RDMA_UDP_QKEY.
    static let defaultQKey: UInt32 = 0x0123_4567

    private func sendLookUpReply(
        _ identifier: Identifier, _ device: Device, _ reply: inout sim_cm_message, _ status: UInt32
    ) throws(Refusal) {
        let length = Int(reply.private_data_length)
        try demand(
            length <= PrivateData.lookUpReply, EINVAL, "more private data than a SIDR_REP has room for", has: length,
            wants: PrivateData.lookUpReply)
        try demand(identifier.communication == .lookUpReceived, EINVAL, "there is no look-up to answer")
        reply.status = status
        reply.qkey = identifier.qkey
        identifier.communication = .idle
        send(reply, from: device, to: identifier.remoteLID)
    }

    // MARK: - REJECT, DISCONNECT, NOTIFY

    func reject(_ identifier: Identifier, _ data: UnsafeRawBufferPointer, reason: UInt32) throws(Refusal) {
        try demand(identifier.communication != .none, EINVAL, "there is no connection to reject")
        let device = identifier.device!
        if device.isIWARP { return try rejectIWARP(identifier, device, data) }
        var reply = message(identifier, identifier.isDatagram ? SIM_CM_SIDR_REP : SIM_CM_REJ)
        let room = identifier.isDatagram ? PrivateData.lookUpReply : PrivateData.reject
        try demand(
            data.count <= room, EINVAL, "more private data than a rejection has room for", has: data.count, wants: room)
        setPrivateData(&reply, data)
        if identifier.isDatagram { return try sendLookUpReply(identifier, device, &reply, LookUpStatus.reject) }
        try sendReject(identifier, device, &reply, reason)
    }

    private func sendReject(
        _ identifier: Identifier, _ device: Device, _ reply: inout sim_cm_message, _ reason: UInt32
    ) throws(Refusal) {
        switch identifier.communication {
        case .requestSent, .requestReceived, .replyReceived: identifier.communication = .idle
        case .replySent: enterTimeWait(identifier)
        default: throw Refusal(EINVAL, "there is no request or reply to reject")
        }
        reply.status = reason
        send(reply, from: device, to: identifier.remoteLID)
    }

    func enterTimeWait(_ identifier: Identifier) {
        identifier.communication = .timeWait
        timeWaits.append(identifier)
    }

    func disconnect(_ identifier: Identifier) throws(Refusal) {
        try demand(identifier.communication != .none, EINVAL, "there is no connection")
        let device = identifier.device!
        if device.isIWARP { return try disconnectIWARP(identifier, device) }
        switch identifier.communication {
        case .established:
            identifier.communication = .disconnectSent
            if !send(message(identifier, SIM_CM_DREQ), from: device, to: identifier.remoteLID) { lostPeer(identifier) }
        case .disconnectReceived:
            send(message(identifier, SIM_CM_DREP), from: device, to: identifier.remoteLID)
            enterTimeWait(identifier)
        default:
            // The kernel returns no error.
            break
        }
    }

    /// NOTIFY: `enum ib_event_type` has the values of `enum ibv_event_type`.
    func notify(_ identifier: Identifier, event: UInt32) throws(Refusal) {
        try demand(
            identifier.device != nil && identifier.communication != .none, EINVAL, "there is no connection")
        if identifier.device!.isIWARP { return }
        try demand(
            event == IBV_EVENT_COMM_EST.rawValue, EINVAL, "rdma_cm has no use for this event", has: Int(event))
        try demand(identifier.communication != .established, EISCONN, "the connection is established already")
        try demand(identifier.communication == .replySent, EINVAL, "no REP was sent")
        identifier.communication = .established
        if identifier.state == .connect { raise(.established, identifier) }
    }

    // MARK: - DESTROY_ID

    /// Tells the peer that the identifier ends (`ib_destroy_cm_id`, `iw_destroy_cm_id`).
    func endCommunication(_ identifier: Identifier) {
        let communication = identifier.communication
        identifier.communication = .none
        guard let device = identifier.device, communication != .none else { return }
        if device.isIWARP { return endIWARP(identifier, device, communication) }
        let kind: sim_cm_kind
        var status = RejectReason.consumerDefined
        switch communication {
        case .requestSent: (kind, status) = (SIM_CM_REJ, RejectReason.timeout)
        case .requestReceived, .replyReceived, .replySent: kind = SIM_CM_REJ
        case .established: kind = SIM_CM_DREQ
        case .disconnectReceived: kind = SIM_CM_DREP
        case .lookUpReceived: (kind, status) = (SIM_CM_SIDR_REP, LookUpStatus.reject)
        default: return
        }
        var message = message(identifier, kind)
        message.status = status
        send(message, from: device, to: identifier.remoteLID)
    }
}
