import CSimulator

/// What a responder says to a request.
enum Answer: UInt8 {
    case done
    /// No such queue pair listens to the one that asks, or not at this place of their connection.
    case nobody
    /// No receive request is posted.
    case notReady
    /// The request cannot be: too long, misaligned, an operation that was not agreed upon.
    case invalid
    /// A key does not open what was asked for.
    case forbidden
    /// The responder's own receive request is wrong.
    case failed
}

extension Device {
    /// A request of a reliable connection arrives. What goes back is in `message` afterwards.
    func respond(to request: SendRequest, _ origin: Origin, at number: UInt32) -> Answer {
        guard let peer = listener(number, IBV_QPT_RC, origin), peer.expectedPSN == origin.psn else { return .nobody }
        let answer = carries(request) ? deliver(request, from: origin, to: peer) : fetch(request, peer)
        if answer == .done { peer.expectedPSN = origin.nextPSN(after: message.count) }
        return answer
    }

    /// The queue pair of that number, if it is connected to where a message comes from.
    func listener(_ number: UInt32, _ type: ibv_qp_type, _ origin: Origin) -> QueuePair? {
        guard let peer = queuePair(number: number), peer.type == type.rawValue, peer.isReceiving,
            peer.attributes.destination == origin.queuePair, port(of: peer.attributes.address) == origin.lid
        else { return nil }
        return peer
    }

    /// A message of a connected queue pair arrives at its peer: SEND and WRITE, with what goes with them.
    func deliver(_ request: SendRequest, from origin: Origin, to peer: QueuePair) -> Answer {
        if request.operation == .write {
            let answer = place(request, peer)
            guard answer == .done, request.hasImmediate else { return answer }
        }
        guard fetchReceive(peer) else { return .notReady }
        if receive.isDefect {
            refuse(peer, IBV_WC_LOC_QP_OP_ERR)
            return .failed
        }
        if request.operation == .send {
            guard UInt64(message.count) <= receive.length else {
                refuse(peer, IBV_WC_LOC_LEN_ERR)
                return .invalid
            }
            guard scatter(gathered, into: receive.segments, receive.segmentCount, domain: domainOfReceives(peer)) else {
                refuse(peer, IBV_WC_LOC_PROT_ERR)
                return .failed
            }
            if request.invalidates && !closes(key: request.invalidKey, peer) {
                refuse(peer, IBV_WC_LOC_ACCESS_ERR)
                return .forbidden
            }
        }
        establish(peer)
        var completion = received(request, origin, peer)
        completion.operation = request.operation
        if request.operation == .send { completion.payload = gathered }
        complete(completion, on: peer.receiveCompletions)
        return .done
    }

    /// READ and atomics: what the peer has goes into `message`.
    private func fetch(_ request: SendRequest, _ peer: QueuePair) -> Answer {
        guard peer.attributes.maximumPeerReads > 0 else {
            fail(peer, to: IBV_QPS_ERR)
            raise(IBV_EVENT_QP_REQ_ERR, peer)
            return .invalid
        }
        return request.operation == .read ? read(request, peer) : change(request, peer)
    }

    private func read(_ request: SendRequest, _ peer: QueuePair) -> Answer {
        message.reserve(0)
        if request.length > 0 {
            guard let source = remote(request, peer, length: UInt64(request.length), IBV_ACCESS_REMOTE_READ) else {
                return .forbidden
            }
            message.reserve(request.length)
            message.append(source, request.length)
        }
        establish(peer)
        return .done
    }

    /// Compare-and-swap and fetch-and-add (IBTA 9.4.5): 8 bytes, aligned, in the byte order of this machine.
    private func change(_ request: SendRequest, _ peer: QueuePair) -> Answer {
        guard request.remoteAddress & 7 == 0 else {
            fail(peer, to: IBV_QPS_ERR)
            raise(IBV_EVENT_QP_REQ_ERR, peer)
            return .invalid
        }
        guard let place = remote(request, peer, length: 8, IBV_ACCESS_REMOTE_ATOMIC) else { return .forbidden }
        let before = place.load(as: UInt64.self)
        if request.operation == .fetchAndAdd {
            place.storeBytes(of: before &+ request.swapOrAdd, as: UInt64.self)
        } else if before == request.compare {
            place.storeBytes(of: request.swapOrAdd, as: UInt64.self)
        }
        message.reserve(8)
        withUnsafeBytes(of: before) { message.append($0.baseAddress!, 8) }
        establish(peer)
        return .done
    }

    /// A WRITE's data.
    private func place(_ request: SendRequest, _ peer: QueuePair) -> Answer {
        guard message.count > 0 else { return .done }
        guard let place = remote(request, peer, length: UInt64(message.count), IBV_ACCESS_REMOTE_WRITE) else {
            return .forbidden
        }
        place.copyMemory(from: message.bytes, byteCount: message.count)
        establish(peer)
        return .done
    }

    /// Memory of the peer's that a request names; when it may not, the peer fails.
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
        fail(peer, to: IBV_QPS_ERR)
        raise(IBV_EVENT_QP_ACCESS_ERR, peer)
        return nil
    }

    // MARK: - Datagrams

    /// A datagram arrives, for a queue pair of this port or for a group.
    func deliverDatagram(_ request: SendRequest, from origin: Origin, qkey: UInt32) {
        let destination = request.destination
        guard destination.isGroup else {
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

    /// Without a receive request that fits it, or with another Q_Key, it is dropped.
    private func deliver(_ request: SendRequest, from origin: Origin, to target: QueuePair, _ qkey: UInt32) {
        guard target.type == IBV_QPT_UD.rawValue, target.isReceiving, target.attributes.qkey == qkey,
            fetchReceive(target)
        else { return }
        // The first 40 bytes are the global route header's, whether there is one or not.
        let headerSize = 40
        guard UInt64(message.count + headerSize) <= receive.length else {
            refuse(target, IBV_WC_LOC_LEN_ERR)
            return
        }
        if receive.isDefect { return refuse(target, IBV_WC_LOC_QP_OP_ERR) }
        let hasHeader = request.destination.isGlobal
        let arrival = UnsafeMutableRawPointer.allocate(byteCount: message.count + headerSize, alignment: 8)
        defer { arrival.deallocate() }
        arrival.initializeMemory(as: UInt8.self, repeating: 0, count: headerSize)
        if hasHeader { writeHeader(arrival, origin, request.destination, length: message.count) }
        (arrival + headerSize).copyMemory(from: message.bytes, byteCount: message.count)
        let bytes = UnsafeRawBufferPointer(start: arrival, count: message.count + headerSize)
        guard scatter(bytes, into: receive.segments, receive.segmentCount, domain: domainOfReceives(target)) else {
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
        receive.segmentCount = 0
        receive.isDefect = false
        guard let shared = queuePair.sharedReceives else { return codec.fetchReceive(queuePair, receive) }
        guard codec.fetchReceive(shared, receive) else { return false }
        if shared.limit > 0 && codec.waiting(shared) < shared.limit {
            shared.limit = 0
            raise(IBV_EVENT_SRQ_LIMIT_REACHED, shared)
        }
        return true
    }

    private func domainOfReceives(_ queuePair: QueuePair) -> ProtectionDomain {
        queuePair.sharedReceives?.domain ?? queuePair.domain
    }

    /// A receive request that cannot take what arrives: it completes with the error, and the queue pair is finished.
    private func refuse(_ queuePair: QueuePair, _ status: ibv_wc_status) {
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

    /// The first thing to arrive at a queue pair that is ready to receive and not to send tells that the other side is.
    private func establish(_ queuePair: QueuePair) {
        guard !queuePair.isEstablished else { return }
        queuePair.isEstablished = true
        if queuePair.state == IBV_QPS_RTR.rawValue { raise(IBV_EVENT_COMM_EST, queuePair) }
    }
}
