import CSimulator

extension Device {
    /// Carries out a send request. False when it must wait for its peer.
    func carryOut(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
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
        case IBV_QPT_UD.rawValue:
            sendDatagram(request, queuePair)
            return true
        case IBV_QPT_UC.rawValue:
            sendUnreliably(request, queuePair)
            return true
        default: return sendReliably(request, queuePair)
        }
    }

    // MARK: - UD

    private func sendDatagram(_ request: SendRequest, _ queuePair: QueuePair) {
        guard request.operation == .send, !request.invalidates else {
            return finish(request, queuePair, IBV_WC_LOC_QP_OP_ERR)
        }
        guard gather(request, queuePair) else { return finish(request, queuePair, IBV_WC_LOC_PROT_ERR) }
        guard message.count <= mtu else { return finish(request, queuePair, IBV_WC_LOC_LEN_ERR) }
        // IBTA 10.2.5: a Q_Key with its highest bit set means the queue pair's own.
        let qkey =
            request.destination.qkey & 0x8000_0000 != 0 ? queuePair.attributes.qkey : request.destination.qkey
        if request.destination.queuePair == 0xFF_FFFF {
            for target in queuePairs {
                guard let target, target !== queuePair,
                    target.groups.contains(where: { isMember($0, request.destination) })
                else { continue }
                deliverDatagram(request, from: queuePair, to: target, qkey: qkey)
            }
        } else if isHere(request.destination), let target = self.queuePair(number: request.destination.queuePair) {
            deliverDatagram(request, from: queuePair, to: target, qkey: qkey)
        }
        finish(request, queuePair, IBV_WC_SUCCESS, length: message.count)
    }

    private func isMember(_ group: MulticastGroup, _ destination: Destination) -> Bool {
        group.high == destination.gid.0 && group.low == destination.gid.1
    }

    private func isHere(_ destination: Destination) -> Bool {
        options.isEthernet ? ownsGID(destination.gid.0, destination.gid.1) : destination.lid == lid
    }

    // MARK: - UC

    private func sendUnreliably(_ request: SendRequest, _ queuePair: QueuePair) {
        guard request.operation == .send || request.operation == .write, !request.invalidates else {
            return finish(request, queuePair, IBV_WC_LOC_QP_OP_ERR)
        }
        guard gather(request, queuePair) else { return finish(request, queuePair, IBV_WC_LOC_PROT_ERR) }
        if let peer = peer(of: queuePair) { _ = deliver(request, from: queuePair, to: peer) }
        finish(request, queuePair, IBV_WC_SUCCESS, length: message.count)
    }

    // MARK: - RC

    private func sendReliably(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        guard let peer = peer(of: queuePair), peer.expectedPSN == queuePair.sendPSN else {
            // Nobody answers, or what is said to be lost for ever.
            finish(request, queuePair, IBV_WC_RETRY_EXC_ERR)
            return true
        }
        let isOutbound = request.operation == .send || request.operation == .write
        if isOutbound && !gather(request, queuePair) {
            finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
            return true
        }
        let answer = isOutbound ? deliver(request, from: queuePair, to: peer) : fetch(request, queuePair, peer)
        if answer == .notReady {
            // Each run of the device is one more try; 7 means without end.
            if queuePair.attributes.notReadyRetries == 7 { return false }
            queuePair.notReady += 1
            if queuePair.notReady <= Int(queuePair.attributes.notReadyRetries) { return false }
        }
        switch answer {
        case .done:
            let packets = max(1, (message.count + pathMTU(queuePair) - 1) / pathMTU(queuePair))
            queuePair.sendPSN = (queuePair.sendPSN + UInt32(packets)) & 0xFF_FFFF
            peer.expectedPSN = queuePair.sendPSN
            finish(request, queuePair, IBV_WC_SUCCESS, length: message.count)
        case .notReady: finish(request, queuePair, IBV_WC_RNR_RETRY_EXC_ERR)
        case .invalid: finish(request, queuePair, IBV_WC_REM_INV_REQ_ERR)
        case .forbidden: finish(request, queuePair, IBV_WC_REM_ACCESS_ERR)
        case .failed: finish(request, queuePair, IBV_WC_REM_OP_ERR)
        case .badList: finish(request, queuePair, IBV_WC_LOC_PROT_ERR)
        }
        return true
    }

    /// The queue pair at the other end, if it listens to this one.
    private func peer(of queuePair: QueuePair) -> QueuePair? {
        let attributes = queuePair.attributes
        guard let peer = self.queuePair(number: attributes.destination), peer.type == queuePair.type,
            peer.isReceiving, peer.attributes.destination == queuePair.number
        else { return nil }
        let gid = gidHalves(attributes.address.dgid)
        let isHere =
            options.isEthernet ? ownsGID(gid.0, gid.1) : attributes.address.dlid == lid
        return isHere ? peer : nil
    }

    private func pathMTU(_ queuePair: QueuePair) -> Int { 128 << Int(queuePair.attributes.pathMTU) }

    // MARK: - Windows

    private func bind(_ request: SendRequest, _ queuePair: QueuePair) -> ibv_wc_status {
        let wanted = request.window
        guard let object = object(key: wanted.key), object.kind == .window else { return IBV_WC_MW_BIND_ERR }
        let window = unsafeDowncast(object, to: MemoryWindow.self)
        guard window.domain === queuePair.domain else { return IBV_WC_MW_BIND_ERR }
        // A window of type 2 that is open must be invalidated first.
        if window.type == 2 && window.region != nil { return IBV_WC_MW_BIND_ERR }
        window.key = wanted.key
        guard wanted.length > 0 else {
            close(window)
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
        close(window)
        region.users += 1
        window.region = region
        window.address = wanted.address
        window.length = wanted.length
        window.access = wanted.access
        window.queuePair = queuePair.number
        return IBV_WC_SUCCESS
    }

    private func invalidate(_ request: SendRequest, _ queuePair: QueuePair) -> ibv_wc_status {
        closes(key: request.window.key, queuePair) ? IBV_WC_SUCCESS : IBV_WC_MW_BIND_ERR
    }

    /// Closes a window by its key; false when there is none that may be closed so.
    func closes(key: UInt32, _ queuePair: QueuePair) -> Bool {
        guard let object = object(key: key), object.kind == .window else { return false }
        let window = unsafeDowncast(object, to: MemoryWindow.self)
        guard window.type == 2, window.key == key, window.domain === queuePair.domain, window.region != nil else {
            return false
        }
        close(window)
        return true
    }

    /// A window opens nothing any more.
    func close(_ window: MemoryWindow) {
        window.region?.users -= 1
        window.region = nil
    }
}

extension QueuePair {
    /// It takes what arrives.
    var isReceiving: Bool {
        state == IBV_QPS_RTR.rawValue || state == IBV_QPS_RTS.rawValue || state == IBV_QPS_SQD.rawValue
            || state == IBV_QPS_SQE.rawValue
    }
}
