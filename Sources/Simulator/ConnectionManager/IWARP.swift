import CSimulator

// Connections of iWARP devices (iwcm.c of Linux, and cm.c of its driver): the kernel negotiates MPA over TCP and moves
// the queue pair itself. SIM_CM_REQ is the MPA request, SIM_CM_REP and SIM_CM_REJ are the MPA reply; the end of the TCP
// connection is the end of the queue pair's connection (Connections.swift).

extension ConnectionManager {
    /// The queue pair of a CONNECT or ACCEPT, and its limits.
    private func queuePair(
        _ device: Device, _ parameters: rdma_ucm_conn_param
    ) throws(Refusal) -> QueuePair {
        let number = parameters.qp_num & 0xFF_FFFF
        guard let queuePair = device.queuePair(number: number) else {
            throw Refusal(EINVAL, "the device has no queue pair of this number", has: Int(number))
        }
        let most = codecLimit(device)
        try demand(
            parameters.initiator_depth <= most && parameters.responder_resources <= most, EINVAL,
            "more READs than the device has", has: Int(max(parameters.initiator_depth, parameters.responder_resources)),
            wants: Int(most))
        return queuePair
    }

    private func codecLimit(_ device: Device) -> UInt8 { UInt8(min(255, device.codec.identity.maxReadAtomic)) }

    // MARK: - The program's calls

    func connectIWARP(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param
    ) throws(Refusal) {
        _ = try queuePair(device, parameters)
        identifier.responderResources = parameters.responder_resources
        identifier.initiatorDepth = parameters.initiator_depth
        identifier.state = .connect
        identifier.communication = .requestSent
        let message = request(identifier, device, parameters)
        if !send(message, from: device, to: identifier.remoteLID) {
            identifier.communication = .idle
            raise(.unreachable, identifier, EventContents(status: -ETIMEDOUT))
        }
    }

    /// Moves the queue pair to RTS, and sends the MPA reply.
    func acceptIWARP(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param?
    ) throws(Refusal) {
        guard let parameters else {
            throw Refusal(EINVAL, "an iWARP connection has no reply to acknowledge: it is established already")
        }
        try demand(
            identifier.communication == .requestReceived, EINVAL, "there is no request, or the peer has withdrawn it")
        _ = try queuePair(device, parameters)
        // The peer's depths of the request are the limits of this side's.
        let initiatorDepth = min(parameters.initiator_depth, identifier.initiatorDepth)
        let responderResources = min(
            codecLimit(device), max(parameters.responder_resources, identifier.responderResources))
        do throws(Refusal) {
            try start(identifier, device, isInitiator: false, initiatorDepth, responderResources)
        } catch {
            // The driver resets the TCP connection.
            identifier.communication = .idle
            var reset = message(identifier, SIM_CM_REJ)
            reset.status = UInt32(ECONNRESET)
            send(reset, from: device, to: identifier.remoteLID)
            throw error
        }
        var reply = message(identifier, SIM_CM_REP)
        set(&reply, identifier, parameters)
        (reply.initiator_depth, reply.responder_resources) = (initiatorDepth, responderResources)
        send(reply, from: device, to: identifier.remoteLID)
        raise(.established, identifier, depths(identifier))
    }

    private func start(
        _ identifier: Identifier, _ device: Device, isInitiator: Bool, _ initiatorDepth: UInt8,
        _ responderResources: UInt8
    ) throws(Refusal) {
        try device.connect(
            identifier.queuePair, to: identifier.remoteQueuePair, at: identifier.remoteLID, isInitiator: isInitiator,
            initiatorDepth: initiatorDepth, responderResources: responderResources)
        identifier.communication = .established
        (identifier.initiatorDepth, identifier.responderResources) = (initiatorDepth, responderResources)
    }

    private func depths(_ identifier: Identifier) -> EventContents {
        var contents = EventContents()
        contents.parameters.initiator_depth = identifier.initiatorDepth
        contents.parameters.responder_resources = identifier.responderResources
        return contents
    }

    func rejectIWARP(
        _ identifier: Identifier, _ device: Device, _ data: UnsafeRawBufferPointer
    ) throws(Refusal) {
        try demand(identifier.communication == .requestReceived, EINVAL, "there is no request to reject")
        identifier.communication = .idle
        var reply = message(identifier, SIM_CM_REJ)
        setPrivateData(&reply, data)
        reply.status = UInt32(ECONNREFUSED)
        send(reply, from: device, to: identifier.remoteLID)
    }

    func disconnectIWARP(_ identifier: Identifier, _ device: Device) throws(Refusal) {
        try demand(identifier.communication != .listen, EINVAL, "the identifier listens")
        guard identifier.communication == .established else { return }
        identifier.communication = .disconnectSent
        // The program or the peer may have ended the connection of the queue pair already.
        try? device.disconnect(identifier.queuePair, .close)
    }

    /// The end of an identifier, whose communication was in this state.
    func endIWARP(_ identifier: Identifier, _ device: Device, _ communication: Identifier.Communication) {
        switch communication {
        case .established: try? device.disconnect(identifier.queuePair, .abort)
        case .requestSent, .requestReceived:
            var reply = message(identifier, SIM_CM_REJ)
            reply.status = UInt32(communication == .requestSent ? ECONNRESET : ECONNREFUSED)
            send(reply, from: device, to: identifier.remoteLID)
        default: break
        }
    }

    // MARK: - The peer's messages

    func receiveIWARP(_ identifier: Identifier, _ device: Device, _ message: sim_cm_message) throws(Refusal) {
        switch sim_cm_kind(rawValue: UInt32(message.kind)) {
        case SIM_CM_REP: receiveReplyIWARP(identifier, device, message)
        case SIM_CM_REJ: receiveRejectIWARP(identifier, message)
        case SIM_CM_CLOSE:
            // The peer could not move its queue pair.
            if identifier.communication == .established { try? device.disconnect(identifier.queuePair, .abort) }
        default: throw Refusal(EPROTO, "a message of another transport", has: Int(message.kind))
        }
    }

    private func receiveReplyIWARP(_ identifier: Identifier, _ device: Device, _ message: sim_cm_message) {
        guard identifier.communication == .requestSent else { return }
        identifier.remoteID = message.sender
        identifier.remoteQueuePair = message.queue_pair
        let initiatorDepth = min(identifier.initiatorDepth, message.responder_resources)
        let responderResources = min(codecLimit(device), max(identifier.responderResources, message.initiator_depth))
        do throws(Refusal) {
            try start(identifier, device, isInitiator: true, initiatorDepth, responderResources)
        } catch {
            _ = device.record(error, of: "rdma_cm")
            identifier.communication = .idle
            send(self.message(identifier, SIM_CM_CLOSE), from: device, to: identifier.remoteLID)
            if identifier.state == .connect {
                raise(.connectError, identifier, EventContents(status: -error.errno))
            }
            return
        }
        guard identifier.state == .connect else { return }
        var contents = depths(identifier)
        contents.setPrivateData(message, size: Int(message.private_data_length))
        raise(.established, identifier, contents)
    }

    private func receiveRejectIWARP(_ identifier: Identifier, _ message: sim_cm_message) {
        switch identifier.communication {
        case .requestReceived: identifier.communication = .idle
        case .requestSent:
            identifier.communication = .idle
            guard identifier.state == .connect else { return }
            let isReset = message.status == UInt32(ECONNRESET)
            var contents = EventContents(status: isReset ? -ECONNRESET : -ECONNREFUSED)
            contents.setPrivateData(message, size: Int(message.private_data_length))
            raise(.rejected, identifier, contents)
        default: break
        }
    }

    // MARK: - The end of a connection

    /// The peer's process has ended: its host resets the TCP connection.
    func closedIWARP(_ identifier: Identifier) {
        var reset = sim_cm_message()
        reset.status = UInt32(ECONNRESET)
        switch identifier.communication {
        case .requestSent, .requestReceived: receiveRejectIWARP(identifier, reset)
        case .established, .disconnectSent:
            try? identifier.device?.disconnect(identifier.queuePair, .abort)
            // Without a queue pair nothing else reports the end.
            closed(identifier, status: -ECONNRESET)
        default: break
        }
    }

    /// IW_CM_EVENT_CLOSE.
    func closed(_ identifier: Identifier, status: Int32) {
        guard identifier.communication == .established || identifier.communication == .disconnectSent else { return }
        identifier.communication = .idle
        if identifier.state == .connect { raise(.disconnected, identifier, EventContents(status: status)) }
    }
}
