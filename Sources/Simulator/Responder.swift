import CSimulator

/// A responder's acknowledgement of a request (IBTA 9.7.5.1: AETH syndromes).
enum Acknowledgement: UInt8 {
    case ack
    /// The request is dropped: no queue pair with that QPN is connected to the requester, or the PSN is not the
    /// expected one.
    case noResponse
    /// No receive WQE is posted.
    case rnrNAK
    /// NAK, invalid request: too long, misaligned, or an operation for which the responder has no resources.
    case invalidRequest
    /// NAK, remote access error.
    case remoteAccessError
    /// NAK, remote operational error: the responder's receive WQE is malformed.
    case remoteOperationalError
}

extension Device {
    /// Executes a request of an RC queue pair at the responder. Afterwards `message` holds the response's payload.
    func respond(to request: SendRequest, _ origin: Origin, at number: UInt32) -> Acknowledgement {
        guard let peer = responder(number, IBV_QPT_RC, origin), peer.expectedPSN == origin.psn else {
            // A requester on iWARP waits for a peer that is not connected yet.
            return options.isIWARP && queuePair(number: number)?.wasConnected == false ? .rnrNAK : .noResponse
        }
        let acknowledgement = hasPayload(request) ? deliver(request, from: origin, to: peer) : fetch(request, peer)
        if acknowledgement == .ack { peer.expectedPSN = origin.nextPSN(after: message.count) }
        return acknowledgement
    }

    /// The queue pair with that QPN, if it is connected to the message's sender and can receive.
    func responder(_ number: UInt32, _ type: ibv_qp_type, _ origin: Origin) -> QueuePair? {
        guard let peer = queuePair(number: number), peer.type == type.rawValue, peer.isReceiving,
            peer.attributes.destination == origin.queuePair, port(of: peer.attributes.address) == origin.lid
        else { return nil }
        return peer
    }

    /// Executes a SEND or WRITE of an RC or UC queue pair at the responder.
    func deliver(_ request: SendRequest, from origin: Origin, to peer: QueuePair) -> Acknowledgement {
        if request.operation == .write {
            let acknowledgement = place(request, peer)
            guard acknowledgement == .ack, request.hasImmediate else { return acknowledgement }
        }
        guard fetchReceive(peer) else {
            // iWARP: the peer sends only what the program has posted WQEs for.
            if options.isIWARP { terminate(peer, IBV_EVENT_QP_FATAL) }
            return options.isIWARP ? .remoteOperationalError : .rnrNAK
        }
        if receive.isDefect {
            refuse(peer, IBV_WC_LOC_QP_OP_ERR)
            return .remoteOperationalError
        }
        if request.operation == .send {
            guard UInt64(message.count) <= receive.length else {
                if peer.type == IBV_QPT_RC.rawValue { refuse(peer, IBV_WC_LOC_LEN_ERR) } else { retainReceive(peer) }
                return .invalidRequest
            }
            guard scatter(gathered, into: receive.sges, receive.sgeCount, domain: domainOfReceives(peer)) else {
                refuse(peer, IBV_WC_LOC_PROT_ERR)
                return .remoteOperationalError
            }
            if request.invalidates && !invalidate(key: request.invalidKey, peer) {
                refuse(peer, IBV_WC_LOC_ACCESS_ERR)
                return .remoteAccessError
            }
        }
        establish(peer)
        var completion = received(request, origin, peer)
        completion.operation = request.operation
        if request.operation == .send { completion.payload = gathered }
        complete(completion, on: peer.receiveCompletions)
        return .ack
    }

    /// Executes a READ or atomic: writes the response's payload to `message`.
    private func fetch(_ request: SendRequest, _ peer: QueuePair) -> Acknowledgement {
        guard peer.attributes.maxDestReadAtomic > 0 else {
            reject(peer, options.isIWARP ? IBV_EVENT_QP_FATAL : IBV_EVENT_QP_REQ_ERR)
            return .invalidRequest
        }
        return request.operation == .read ? read(request, peer) : change(request, peer)
    }

    private func read(_ request: SendRequest, _ peer: QueuePair) -> Acknowledgement {
        message.reserve(0)
        if request.length > 0 {
            guard let source = remote(request, peer, length: UInt64(request.length), IBV_ACCESS_REMOTE_READ) else {
                return .remoteAccessError
            }
            message.reserve(request.length)
            message.append(source, request.length)
        }
        establish(peer)
        return .ack
    }

    /// Compare-and-swap and fetch-and-add (IBTA 9.4.5): 8 bytes, aligned, in the byte order of this machine.
    private func change(_ request: SendRequest, _ peer: QueuePair) -> Acknowledgement {
        guard request.remoteAddress & 7 == 0 else {
            reject(peer, IBV_EVENT_QP_REQ_ERR)
            return .invalidRequest
        }
        guard let place = remote(request, peer, length: 8, IBV_ACCESS_REMOTE_ATOMIC) else { return .remoteAccessError }
        let before = place.load(as: UInt64.self)
        if request.operation == .fetchAndAdd {
            place.storeBytes(of: before &+ request.swapOrAdd, as: UInt64.self)
        } else if before == request.compare {
            place.storeBytes(of: request.swapOrAdd, as: UInt64.self)
        }
        message.reserve(8)
        withUnsafeBytes(of: before) { message.append($0.baseAddress!, 8) }
        establish(peer)
        return .ack
    }

    /// Writes a WRITE's payload to the responder's memory.
    private func place(_ request: SendRequest, _ peer: QueuePair) -> Acknowledgement {
        guard message.count > 0 else { return .ack }
        guard let place = remote(request, peer, length: UInt64(message.count), IBV_ACCESS_REMOTE_WRITE) else {
            return .remoteAccessError
        }
        place.copyMemory(from: message.bytes, byteCount: message.count)
        establish(peer)
        return .ack
    }

    /// The responder's memory at a request's remote address. Returns nil and moves the responder to ERR when access is
    /// not granted.
    private func remote(
        _ request: SendRequest, _ peer: QueuePair, length: UInt64, _ access: ibv_access_flags
    ) -> UnsafeMutableRawPointer? {
        if peer.attributes.access & access.rawValue != 0,
            let place = resolve(
                key: request.remoteKey, address: request.remoteAddress, length: length, access: access.rawValue,
                domain: peer.domain, queuePair: peer.number)
        {
            return place
        }
        // Linux' cxgb4 reports a bad WRITE as an invalid request.
        let isWrite = options.isIWARP && request.operation == .write
        reject(peer, isWrite ? IBV_EVENT_QP_REQ_ERR : IBV_EVENT_QP_ACCESS_ERR)
        return nil
    }

    /// Moves a responder that refuses a request to ERR.
    private func reject(_ peer: QueuePair, _ event: ibv_event_type) {
        if options.isIWARP { return terminate(peer, event) }
        fail(peer, to: IBV_QPS_ERR)
        raise(event, peer)
    }

    // MARK: - Datagrams

    /// Delivers a datagram to a queue pair of this port, or to the members of a multicast group.
    func deliverDatagram(_ request: SendRequest, from origin: Origin, qkey: UInt32) {
        let destination = request.destination
        guard destination.isMulticast else {
            if let target = queuePair(number: destination.queuePair) {
                deliver(request, from: origin, to: target, qkey)
            }
            return
        }
        for target in queuePairs {
            guard let target, target.number != origin.queuePair || origin.lid != lid,
                target.groups.contains(where: { ($0.high, $0.low) == destination.gid })
            else { continue }
            deliver(request, from: origin, to: target, qkey)
        }
    }

    /// Drops the datagram when no receive WQE has room for it, or when its Q_Key is not the queue pair's.
    private func deliver(_ request: SendRequest, from origin: Origin, to target: QueuePair, _ qkey: UInt32) {
        guard target.type == IBV_QPT_UD.rawValue, target.isReceiving, target.attributes.qkey == qkey,
            fetchReceive(target)
        else { return }
        // The first 40 bytes are reserved for the GRH, also when the datagram has none.
        let headerSize = 40
        guard UInt64(message.count + headerSize) <= receive.length else { return retainReceive(target) }
        if receive.isDefect { return refuse(target, IBV_WC_LOC_QP_OP_ERR) }
        let hasHeader = request.destination.isGlobal
        let arrival = UnsafeMutableRawPointer.allocate(byteCount: message.count + headerSize, alignment: 8)
        defer { arrival.deallocate() }
        arrival.initializeMemory(as: UInt8.self, repeating: 0, count: headerSize)
        if hasHeader { writeHeader(arrival, origin, request.destination, length: message.count) }
        (arrival + headerSize).copyMemory(from: message.bytes, byteCount: message.count)
        let bytes = UnsafeRawBufferPointer(start: arrival, count: message.count + headerSize)
        guard scatter(bytes, into: receive.sges, receive.sgeCount, domain: domainOfReceives(target)) else {
            refuse(target, IBV_WC_LOC_PROT_ERR)
            return
        }
        var completion = received(request, origin, target)
        completion.byteLength = UInt32(bytes.count)
        completion.isGlobal = hasHeader
        complete(completion, on: target.receiveCompletions)
    }

    /// A global route header (IBTA 8.3): version 6, length, next header 0x1B, hop limit, and the two GIDs.
    private func writeHeader(
        _ place: UnsafeMutableRawPointer, _ origin: Origin, _ destination: Destination, length: Int
    ) {
        place.storeBytes(of: 0x60, as: UInt8.self)
        place.storeBytes(of: UInt16(length).bigEndian, toByteOffset: 4, as: UInt16.self)
        place.storeBytes(of: 0x1B, toByteOffset: 6, as: UInt8.self)
        place.storeBytes(of: 64, toByteOffset: 7, as: UInt8.self)
        place.storeBytes(of: origin.gid.0, toByteOffset: 8, as: UInt64.self)
        place.storeBytes(of: origin.gid.1, toByteOffset: 16, as: UInt64.self)
        place.storeBytes(of: destination.gid.0, toByteOffset: 24, as: UInt64.self)
        place.storeBytes(of: destination.gid.1, toByteOffset: 32, as: UInt64.self)
    }

    // MARK: - Receive requests

    private func fetchReceive(_ queuePair: QueuePair) -> Bool {
        receive.sgeCount = 0
        receive.isDefect = false
        if let kept = queuePair.retainedReceive {
            receive.copy(kept)
            queuePair.retainedReceive = nil
            return true
        }
        guard let shared = queuePair.sharedReceives else { return codec.fetchReceive(queuePair, receive) }
        guard codec.fetchReceive(shared, receive) else { return false }
        if shared.limit > 0 && codec.waiting(shared) < shared.limit {
            shared.limit = 0
            raise(IBV_EVENT_SRQ_LIMIT_REACHED, shared)
        }
        return true
    }

    /// UC and UD drop a message that is longer than its receive WQE, as rdmavt does; the next message is received into
    /// the WQE.
    private func retainReceive(_ queuePair: QueuePair) {
        let kept = ReceiveRequest()
        kept.copy(receive)
        queuePair.retainedReceive = kept
    }

    private func domainOfReceives(_ queuePair: QueuePair) -> ProtectionDomain {
        queuePair.sharedReceives?.domain ?? queuePair.domain
    }

    /// Completes the receive WQE with an error and moves the queue pair to ERR.
    private func refuse(_ queuePair: QueuePair, _ status: ibv_wc_status) {
        if options.isIWARP {
            codec.abandonReceive(queuePair, receive)
            return terminate(queuePair, IBV_EVENT_QP_ACCESS_ERR)
        }
        let completion = Completion(
            queuePair: queuePair, isReceive: true, tag: receive.tag, status: status.rawValue)
        complete(completion, on: queuePair.receiveCompletions)
        fail(queuePair, to: IBV_QPS_ERR)
    }

    private func received(_ request: SendRequest, _ origin: Origin, _ target: QueuePair) -> Completion {
        var completion = Completion(
            queuePair: target, isReceive: true, tag: receive.tag, status: IBV_WC_SUCCESS.rawValue)
        completion.byteLength = UInt32(truncatingIfNeeded: message.count)
        completion.hasImmediate = request.hasImmediate
        completion.immediate = request.hasImmediate ? request.immediate : request.invalidKey
        completion.invalidated = request.invalidates
        completion.isSolicited = request.isSolicited
        completion.source = origin.queuePair
        completion.lid = options.isEthernet ? 0 : origin.lid
        completion.serviceLevel =
            target.type == IBV_QPT_UD.rawValue ? request.destination.serviceLevel : origin.serviceLevel
        return completion
    }

    /// The first message that arrives in RTR raises IBV_EVENT_COMM_EST.
    private func establish(_ queuePair: QueuePair) {
        guard !queuePair.isEstablished else { return }
        queuePair.isEstablished = true
        if queuePair.state == IBV_QPS_RTR.rawValue { raise(IBV_EVENT_COMM_EST, queuePair) }
    }
}
