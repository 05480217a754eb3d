import CSimulator

// The messages of other connection managers (`cma_ib_req_handler`, `cma_ib_handler`, `cma_sidr_rep_handler` of the
// kernel, and the state machine of cm.c).

extension ConnectionManager {
    /// A message from the wire, in the device's `message`.
    func receive(_ header: sim_wire_message, _ payload: Message, _ device: Device) throws(Refusal) {
        let size = MemoryLayout<sim_cm_message>.size
        try demand(
            payload.count == size, EPROTO, "a message of the connection manager of another length, in bytes",
            has: payload.count, wants: size)
        let bytes = UnsafeRawBufferPointer(start: payload.bytes, count: size)
        try receive(Arrival(device: device, message: bytes.load(0, as: sim_cm_message.self), source: header.source))
    }

    func receive(_ arrival: Arrival) throws(Refusal) {
        let message = arrival.message
        try check(message)
        let kind = sim_cm_kind(rawValue: UInt32(message.kind))
        if kind == SIM_CM_REQ || kind == SIM_CM_SIDR_REQ { return receive(request: arrival) }
        guard let identifier = receiver(of: arrival), identifier.device === arrival.device,
            identifier.remoteID == 0 || identifier.remoteID == message.sender
        else {
            // The identifier is gone.
            if kind == SIM_CM_DREQ { answer(arrival, SIM_CM_DREP, 0) }
            return
        }
        try demand(
            identifier.remoteLID == arrival.source, EPROTO, "a message from another port than the peer's",
            has: Int(arrival.source), wants: Int(identifier.remoteLID))
        if arrival.device.isIWARP { return try receiveIWARP(identifier, arrival.device, message) }
        switch kind {
        case SIM_CM_REP: receiveReply(identifier, message)
        case SIM_CM_RTU: receiveReadyToUse(identifier)
        case SIM_CM_REJ: receiveReject(identifier, message)
        case SIM_CM_DREQ: receiveDisconnect(identifier)
        case SIM_CM_DREP: receiveDisconnectReply(identifier)
        case SIM_CM_SIDR_REP: receiveLookUpReply(identifier, message)
        default: throw Refusal(EPROTO, "a message of another transport", has: Int(message.kind))
        }
    }

    /// The identifier to which a message is sent. A peer that withdraws its request does not know it.
    private func receiver(of arrival: Arrival) -> Identifier? {
        if arrival.message.receiver != 0 { return identifier(communicationID: arrival.message.receiver) }
        for identifier in identifiers {
            guard let identifier, identifier.device === arrival.device, identifier.remoteLID == arrival.source else {
                continue
            }
            if identifier.remoteID == arrival.message.sender { return identifier }
        }
        return nil
    }

    private func check(_ message: sim_cm_message) throws(Refusal) {
        try demand(
            message.kind >= SIM_CM_REQ.rawValue && message.kind <= SIM_CM_CLOSE.rawValue, EPROTO,
            "there is no such message of the connection manager", has: Int(message.kind))
        try demand(message.sender != 0, EPROTO, "a message without a communication ID")
        let room = MemoryLayout.size(ofValue: message.private_data)
        try demand(
            Int(message.private_data_length) < room, EPROTO, "more private data than a message has room for",
            has: Int(message.private_data_length), wants: room - 1)
        try demand(
            message.source.isValid && message.destination.isValid, EPROTO, "an address of an unknown family",
            has: Int(message.source.family))
        try demand(
            message.queue_pair < 1 << 24 && message.starting_psn < 1 << 24, EPROTO,
            "a QPN or PSN of more than 24 bits")
        try demand(message.path_mtu <= 5, EPROTO, "there is no such path MTU", has: Int(message.path_mtu))
    }

    /// Answers a message for which there is no identifier.
    private func answer(_ arrival: Arrival, _ kind: sim_cm_kind, _ status: UInt32) {
        var answer = sim_cm_message()
        answer.kind = UInt8(kind.rawValue)
        answer.receiver = arrival.message.sender
        // The kernel's answer has the ID that the peer used; a request has none.
        answer.sender = max(1, arrival.message.receiver)
        answer.status = status
        send(answer, from: arrival.device, to: arrival.source)
    }

    // MARK: - Requests

    /// A REQ or SIDR_REQ, or an MPA request.
    func receive(request arrival: Arrival) {
        let (device, message) = (arrival.device, arrival.message)
        let isLookUp = message.kind == SIM_CM_SIDR_REQ.rawValue
        let type = isLookUp ? IBV_QPT_UD.rawValue : UInt32(message.queue_pair_type)
        var isRegistered = false
        let listener = listener(for: message, device, isRegistered: &isRegistered)
        guard let listener, listener.type == type else {
            let status =
                isLookUp
                ? (isRegistered ? LookUpStatus.reject : LookUpStatus.unsupported)
                : (isRegistered ? RejectReason.consumerDefined : RejectReason.invalidServiceID)
            return answer(arrival, isLookUp ? SIM_CM_SIDR_REP : SIM_CM_REJ, status)
        }
        // The driver allows 256 bytes, 4 of which are MPA's own.
        if device.isIWARP && message.private_data_length > 252 {
            return answer(arrival, SIM_CM_REJ, UInt32(ECONNRESET))
        }
        // The peer sends the request again until there is room.
        if listener.backlog == 0 { return deferred.append(arrival) }
        listener.backlog -= 1
        let request = makeIdentifier(listener.file, userID: 0, space: listener.space, type: type)
        request.device = device
        request.state = .connect
        request.communication = isLookUp ? .lookUpReceived : .requestReceived
        request.remoteLID = arrival.source
        request.remoteID = message.sender
        request.source = message.destination
        request.destination = message.source
        setParameters(request, message)
        raise(request: request, listener, contents(ofRequest: message, request, listener, isLookUp: isLookUp))
    }

    private func setParameters(_ request: Identifier, _ message: sim_cm_message) {
        request.remoteQueuePair = message.queue_pair
        request.sendPSN = message.starting_psn
        request.responderResources = message.initiator_depth
        request.initiatorDepth = message.responder_resources
        request.retryCount = message.retry_count
        request.rnrRetryCount = message.rnr_retry_count
        request.pathMTU = message.path_mtu
        request.ackTimeout = message.timeout
        guard !request.device!.isIWARP else { return }
        var path = Path()
        path.source = message.destination_gid
        path.destination = message.source_gid
        path.sourceLID = request.device!.lid
        path.destinationLID = request.remoteLID
        path.mtu = message.path_mtu
        path.lifetime = message.timeout > 0 ? message.timeout - 1 : 0
        path.flowLabel = message.flow_label & 0xF_FFFF
        path.trafficClass = message.traffic_class
        path.serviceLevel = message.service_level & 15
        if request.device!.options.isRoCE { path.hopLimit = 64 }
        request.path = path
    }

    private func contents(
        ofRequest message: sim_cm_message, _ request: Identifier, _ listener: Identifier, isLookUp: Bool
    ) -> EventContents {
        var contents = EventContents()
        if request.device!.isIWARP {
            contents.parameters.responder_resources = request.responderResources
            contents.parameters.initiator_depth = request.initiatorDepth
            contents.setPrivateData(message, size: Int(message.private_data_length))
            return contents
        }
        setParameters(&contents, message)
        contents.parameters.retry_count = message.retry_count
        let header = listener.source.family == Family.ib ? 0 : PrivateData.header
        contents.setPrivateData(message, size: (isLookUp ? PrivateData.lookUp : PrivateData.request) - header)
        return contents
    }

    /// The parameters of an event, from the point of view of this side.
    private func setParameters(_ contents: inout EventContents, _ message: sim_cm_message) {
        contents.parameters.responder_resources = message.initiator_depth
        contents.parameters.initiator_depth = message.responder_resources
        contents.parameters.flow_control = message.flow_control
        contents.parameters.rnr_retry_count = message.rnr_retry_count
        contents.parameters.srq = message.srq
        contents.parameters.qp_num = message.queue_pair
        contents.ece.vendor_id = message.ece_vendor
        contents.ece.attr_mod = message.ece_attributes
    }

    // MARK: - Connections

    private func receiveReply(_ identifier: Identifier, _ message: sim_cm_message) {
        guard identifier.communication == .requestSent else { return }
        identifier.communication = .replyReceived
        identifier.remoteID = message.sender
        identifier.remoteQueuePair = message.queue_pair
        identifier.sendPSN = message.starting_psn
        identifier.initiatorDepth = message.responder_resources
        identifier.responderResources = message.initiator_depth
        identifier.rnrRetryCount = message.rnr_retry_count
        guard identifier.state == .connect else { return }
        var contents = EventContents()
        setParameters(&contents, message)
        contents.setPrivateData(message, size: PrivateData.reply)
        raise(.connectResponse, identifier, contents)
    }

    private func receiveReadyToUse(_ identifier: Identifier) {
        guard identifier.communication == .replySent else { return }
        identifier.communication = .established
        if identifier.state == .connect { raise(.established, identifier) }
    }

    private func receiveReject(_ identifier: Identifier, _ message: sim_cm_message) {
        switch identifier.communication {
        case .requestSent, .replySent, .requestReceived: identifier.communication = .idle
        case .disconnectSent, .replyReceived, .established: enterTimeWait(identifier)
        default: return
        }
        guard identifier.state == .connect else { return }
        var contents = EventContents(status: Int32(bitPattern: message.status))
        contents.setPrivateData(message, size: PrivateData.reject)
        raise(.rejected, identifier, contents)
    }

    private func receiveDisconnect(_ identifier: Identifier) {
        switch identifier.communication {
        case .established, .replySent, .disconnectSent: identifier.communication = .disconnectReceived
        case .timeWait:
            if let device = identifier.device {
                send(message(identifier, SIM_CM_DREP), from: device, to: identifier.remoteLID)
            }
            return
        default: return
        }
        raiseDisconnected(identifier)
    }

    private func receiveDisconnectReply(_ identifier: Identifier) {
        guard identifier.communication == .disconnectSent || identifier.communication == .disconnectReceived else {
            return
        }
        enterTimeWait(identifier)
        raiseDisconnected(identifier)
    }

    func raiseDisconnected(_ identifier: Identifier) {
        guard identifier.state == .connect else { return }
        identifier.state = .disconnect
        raise(.disconnected, identifier)
    }

    private func receiveLookUpReply(_ identifier: Identifier, _ message: sim_cm_message) {
        guard identifier.communication == .lookUpSent, let device = identifier.device else { return }
        identifier.communication = .idle
        guard identifier.state == .connect else { return }
        var contents = EventContents()
        contents.setPrivateData(message, size: PrivateData.lookUpReply)
        guard message.status == LookUpStatus.success else {
            contents.status = Int32(bitPattern: message.status)
            return raise(.unreachable, identifier, contents)
        }
        guard message.qkey != 0, identifier.qkey == 0 || identifier.qkey == message.qkey else {
            contents.status = -EINVAL
            return raise(.addressError, identifier, contents)
        }
        identifier.qkey = message.qkey
        if let path = identifier.path { contents.datagram.ah_attr = path.addressAttributes(device) }
        contents.datagram.qp_num = message.queue_pair
        contents.datagram.qkey = message.qkey
        raise(.established, identifier, contents)
    }

    // MARK: - Peers that end

    /// Ends the connections to ports that are closed or whose processes have ended, as the kernel of such a process
    /// does. Messages that they sent before are received first.
    func endLostConnections(_ device: Device) {
        guard let wire = device.wire, wire.descriptor >= 0 else { return }
        for identifier in identifiers {
            guard let identifier, identifier.device === device, identifier.hasPeer,
                !wire.isOpen(identifier.remoteLID)
            else { continue }
            while device.receiveMessages() > 0 {}
            if identifier.hasPeer, identifier.device === device { lostPeer(identifier) }
        }
    }

    func lostPeer(_ identifier: Identifier) {
        if identifier.device?.isIWARP ?? false { return closedIWARP(identifier) }
        var reject = sim_cm_message()
        switch identifier.communication {
        case .requestSent, .replySent, .replyReceived:
            reject.status = RejectReason.consumerDefined
            receiveReject(identifier, reject)
        case .requestReceived:
            reject.status = RejectReason.timeout
            receiveReject(identifier, reject)
        case .established: receiveDisconnect(identifier)
        case .disconnectSent: receiveDisconnectReply(identifier)
        case .lookUpSent:
            identifier.communication = .idle
            if identifier.state == .connect {
                raise(.unreachable, identifier, EventContents(status: -ETIMEDOUT))
            }
        default: identifier.remoteLID = 0
        }
    }
}
