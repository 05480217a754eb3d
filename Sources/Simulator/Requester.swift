import CSimulator

extension Device {
    /// Executes a send WQE. False when it must wait for its responder.
    func execute(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        if request.defect != IBV_WC_SUCCESS.rawValue {
            finish(request, queuePair, ibv_wc_status(rawValue: request.defect))
            return true
        }
        switch request.operation {
        case .none:
            finish(request, queuePair, IBV_WC_SUCCESS)
            return true
        case .bind, .invalidate:
            finish(
                request, queuePair,
                request.operation == .bind ? bind(request, queuePair) : invalidate(request, queuePair))
            return true
        default: break
        }
        switch queuePair.type {
        case IBV_QPT_UD.rawValue: return sendDatagram(request, queuePair)
        case IBV_QPT_UC.rawValue: return sendUnreliably(request, queuePair)
        default: return sendReliably(request, queuePair)
        }
    }

    // MARK: - UD

    private func sendDatagram(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        guard request.operation == .send, !request.invalidates else {
            finish(request, queuePair, IBV_WC_LOC_QP_OP_ERR)
            return true
        }
        guard gather(request, queuePair) else {
            finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
            return true
        }
        guard message.count <= mtu else {
            finish(request, queuePair, IBV_WC_LOC_LEN_ERR)
            return true
        }
        if let wire, request.destination.isMulticast {
            // A port whose socket is full loses the datagram.
            wire.forEachPort { _ = transmit(request, queuePair, SIM_WIRE_DATAGRAM, to: $0) }
        } else if wire != nil {
            let sending = transmit(request, queuePair, SIM_WIRE_DATAGRAM, to: port(of: request.destination))
            if case .full = sending { return false }
        } else if request.destination.isMulticast || port(of: request.destination) == lid {
            deliverDatagram(request, from: Origin(queuePair, self), qkey: key(of: request, queuePair))
        }
        finish(request, queuePair, IBV_WC_SUCCESS, length: message.count)
        return true
    }

    /// IBTA 10.2.5: a Q_Key with its highest bit set means the queue pair's own.
    func key(of request: SendRequest, _ queuePair: QueuePair) -> UInt32 {
        request.destination.qkey & 0x8000_0000 != 0 ? queuePair.attributes.qkey : request.destination.qkey
    }

    // MARK: - UC

    private func sendUnreliably(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        guard hasPayload(request), !request.invalidates else {
            finish(request, queuePair, IBV_WC_LOC_QP_OP_ERR)
            return true
        }
        guard gather(request, queuePair) else {
            finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
            return true
        }
        let origin = Origin(queuePair, self)
        if wire != nil {
            let lid = port(of: queuePair.attributes.address)
            if case .full = transmit(request, queuePair, SIM_WIRE_UNRELIABLE, to: lid) { return false }
        } else if let peer = responder(queuePair.attributes.destination, IBV_QPT_UC, origin) {
            _ = deliver(request, from: origin, to: peer)
        }
        finish(request, queuePair, IBV_WC_SUCCESS, length: message.count)
        return true
    }

    // MARK: - RC

    private func sendReliably(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        if hasPayload(request) && !gather(request, queuePair) {
            finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
            return true
        }
        guard wire != nil else {
            let acknowledgement = respond(to: request, Origin(queuePair, self), at: queuePair.attributes.destination)
            return complete(request, queuePair, acknowledgement)
        }
        lastSerial += 1
        queuePair.outstanding = lastSerial
        switch transmit(request, queuePair, SIM_WIRE_REQUEST, to: port(of: queuePair.attributes.address)) {
        case .sent: return false
        case .full:
            queuePair.outstanding = 0
            return false
        case .unreachable:
            queuePair.outstanding = 0
            return complete(request, queuePair, .noResponse)
        }
    }

    /// Completes a request according to its acknowledgement; `message` holds the response's payload. False when the
    /// request must be retried.
    func complete(_ request: SendRequest, _ queuePair: QueuePair, _ acknowledgement: Acknowledgement) -> Bool {
        if options.isIWARP && acknowledgement != .ack { return failConnection(queuePair, acknowledgement) }
        switch acknowledgement {
        case .ack:
            if !hasPayload(request) {
                guard scatter(gathered, into: request.sges, request.sgeCount, domain: queuePair.domain) else {
                    finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
                    return true
                }
            }
            let length = hasPayload(request) ? request.length : message.count
            queuePair.sendPSN = Origin(queuePair, self).nextPSN(after: length)
            finish(request, queuePair, IBV_WC_SUCCESS, length: length)
        case .rnrNAK:
            // Each run of the device is one retry; rnr_retry 7 means no limit.
            if queuePair.attributes.rnrRetry == 7 { return false }
            queuePair.rnrNAKs += 1
            if queuePair.rnrNAKs <= Int(queuePair.attributes.rnrRetry) { return false }
            finish(request, queuePair, IBV_WC_RNR_RETRY_EXC_ERR)
        // There is no responder, or requests and responses are lost.
        case .noResponse: finish(request, queuePair, IBV_WC_RETRY_EXC_ERR)
        case .invalidRequest: finish(request, queuePair, IBV_WC_REM_INV_REQ_ERR)
        case .remoteAccessError: finish(request, queuePair, IBV_WC_REM_ACCESS_ERR)
        case .remoteOperationalError: finish(request, queuePair, IBV_WC_REM_OP_ERR)
        }
        return true
    }

    /// iWARP: a request was not executed. False when it must be retried, because the peer is not connected yet.
    private func failConnection(_ queuePair: QueuePair, _ acknowledgement: Acknowledgement) -> Bool {
        if acknowledgement == .rnrNAK { return false }
        // A peer that has refused the request has ended the connection.
        endConnection(queuePair, .abort)
        return true
    }

    // MARK: - Windows

    private func bind(_ request: SendRequest, _ queuePair: QueuePair) -> ibv_wc_status {
        let wanted = request.window
        guard let object = object(key: wanted.key), object.kind == .window else { return IBV_WC_MW_BIND_ERR }
        let window = unsafeDowncast(object, to: MemoryWindow.self)
        guard window.domain === queuePair.domain else { return IBV_WC_MW_BIND_ERR }
        // A bound window of type 2 must be invalidated first.
        if window.type == 2 && window.region != nil { return IBV_WC_MW_BIND_ERR }
        window.key = wanted.key
        guard wanted.length > 0 else {
            unbind(window)
            return IBV_WC_SUCCESS
        }
        guard let target = self.object(key: wanted.regionKey), target.kind == .region else { return IBV_WC_MW_BIND_ERR }
        let region = unsafeDowncast(target, to: MemoryRegion.self)
        let needsWrite = wanted.access & (IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue) != 0
        guard region.key == wanted.regionKey, region.domain === queuePair.domain,
            region.access & IBV_ACCESS_MW_BIND.rawValue != 0,
            !needsWrite || region.access & IBV_ACCESS_LOCAL_WRITE.rawValue != 0,
            wanted.address >= region.virtualAddress, wanted.length <= region.length,
            wanted.address - region.virtualAddress <= region.length - wanted.length
        else { return IBV_WC_MW_BIND_ERR }
        unbind(window)
        region.users += 1
        window.region = region
        window.address = wanted.address
        window.length = wanted.length
        window.access = wanted.access
        window.queuePair = queuePair.number
        return IBV_WC_SUCCESS
    }

    private func invalidate(_ request: SendRequest, _ queuePair: QueuePair) -> ibv_wc_status {
        invalidate(key: request.window.key, queuePair) ? IBV_WC_SUCCESS : IBV_WC_MW_BIND_ERR
    }

    /// Invalidates a window by its rkey, or on iWARP a region to which no window is bound; false when there is none.
    func invalidate(key: UInt32, _ queuePair: QueuePair) -> Bool {
        guard let object = object(key: key) else { return false }
        if object.kind == .region {
            return invalidateRegion(unsafeDowncast(object, to: MemoryRegion.self), key, queuePair)
        }
        let window = unsafeDowncast(object, to: MemoryWindow.self)
        guard window.type == 2 || options.isIWARP, window.key == key, window.domain === queuePair.domain,
            window.region != nil
        else { return false }
        unbind(window)
        return true
    }

    private func invalidateRegion(_ region: MemoryRegion, _ key: UInt32, _ queuePair: QueuePair) -> Bool {
        guard options.isIWARP, region.key == key, !region.isInvalid, region.domain === queuePair.domain,
            region.users == 0
        else { return false }
        region.isInvalid = true
        return true
    }

    /// Unbinds a window.
    func unbind(_ window: MemoryWindow) {
        window.region?.users -= 1
        window.region = nil
    }
}

extension QueuePair {
    /// Whether the receive queue works: RTR, RTS, SQD or SQE; of an iWARP queue pair, RTS.
    var isReceiving: Bool {
        if context.device.options.isIWARP { return state == IBV_QPS_RTS.rawValue }
        return state == IBV_QPS_RTR.rawValue || state == IBV_QPS_RTS.rawValue || state == IBV_QPS_SQD.rawValue
            || state == IBV_QPS_SQE.rawValue
    }
}
