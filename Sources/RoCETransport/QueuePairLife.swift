import RoCEWire
import Synchronization

/// The attributes with which a queue pair is created: `struct ibv_qp_init_attr` of verbs.h.
public struct QueuePairInitAttributes {
    /// The service type: RC, UC, UD or XRC_SEND (`qp_type`).
    public var type: QueuePairType
    /// The protection domain (`ibv_create_qp`'s `pd`).
    public var domain: ProtectionDomain
    /// The completion queue of the send queue (`send_cq`).
    public var sendCQ: CompletionQueue
    /// The completion queue of the receive queue (`recv_cq`).
    public var receiveCQ: CompletionQueue
    /// The shared receive queue (`srq`); nil for a queue pair with a receive queue of its own.
    public var sharedReceiveQueue: SharedReceiveQueue?
    /// The XRC domain of an XRC_RECV queue pair (`xrcd`).
    public private(set) var xrcDomain: XRCDomain?
    /// The sizes of its queues (`cap`). With a shared receive queue, the sizes of the receive queue are ignored
    /// (ibv_create_qp(3)), and become 0.
    public var capabilities: QueuePairCapabilities
    /// `sq_sig_all`: all send work requests are signaled.
    public var sqSigAll = false
    /// Returned by `QueuePair.userData` (`qp_context`).
    public var userData: UnsafeMutableRawPointer?

    /// Creates a `struct ibv_qp_init_attr` with one completion queue for both queues.
    public init(
        type: QueuePairType, domain: ProtectionDomain, completions: CompletionQueue,
        capabilities: QueuePairCapabilities
    ) {
        self.type = type
        self.domain = domain
        sendCQ = completions
        receiveCQ = completions
        self.capabilities = capabilities
    }

    /// Creates the attributes of an XRC_RECV queue pair (`IBV_QPT_XRC_RECV`), which has no queues.
    public init(xrcDomain: XRCDomain) {
        self.init(
            type: .xrcReceive, domain: ProtectionDomain(rawValue: Core.noDomain),
            completions: xrcDomain.storage.pointee.completions,
            capabilities: QueuePairCapabilities(maxSendWR: 0, maxReceiveWR: 0, maxSendSGE: 0, maxReceiveSGE: 0))
        self.xrcDomain = xrcDomain
    }
}

extension Engine {
    /// Creates a queue pair, in RESET (`ibv_create_qp`).
    /// - Throws: EINVAL for an unknown domain or a size above `Limits`; EOPNOTSUPP for a service type other than RC, UC,
    ///   UD and XRC; ENOMEM when the engine has as many queue pairs as the configuration allows, less the three reserved
    ///   QPNs.
    public borrowing func createQueuePair(_ specification: QueuePairInitAttributes) throws(Errno) -> QueuePair {
        switch specification.type {
        case .rc, .uc, .ud, .xrcSend, .xrcReceive: break
        default: throw .notSupported
        }
        var specification = specification
        // An XRC_SEND queue pair receives nothing.
        if specification.type == .xrcSend { specification.sharedReceiveQueue = nil }
        if specification.sharedReceiveQueue != nil || specification.type == .xrcSend {
            specification.capabilities.maxReceiveWR = 0
            specification.capabilities.maxReceiveSGE = 0
        }
        let isReceiver = specification.type == .xrcReceive
        guard specification.capabilities.isWithinLimits, isReceiver == (specification.xrcDomain != nil),
            isReceiver || core.pointee.domainExists(specification.domain.rawValue)
        else { throw .invalid }
        // Inline data is stored in the place of the SGEs, so that there is room for as many bytes without asking for any.
        let room = specification.capabilities.maxSendSGE * UInt32(MemoryLayout<SGE>.stride)
        specification.capabilities.maxInlineData = max(specification.capabilities.maxInlineData, room)
        let (number, index) = try core.pointee.takeNumber()
        let storage = UnsafeMutablePointer<QueuePairStorage>.allocate(capacity: 1)
        storage.initialize(to: makeStorage(specification, number: number, index: index, owner: storage))
        storage.pointee.event.pointee.object = UnsafeMutableRawPointer(storage)
        core.pointee.queuePairs[Int(index)] = storage
        if !isReceiver { core.pointee.changeUsers(ofDomain: specification.domain.rawValue, by: 1) }
        specification.xrcDomain?.storage.pointee.users += 1
        specification.sendCQ.storage.pointee.users += 1
        specification.receiveCQ.storage.pointee.users += 1
        specification.sharedReceiveQueue?.storage.pointee.users += 1
        return QueuePair(storage)
    }

    private func makeStorage(
        _ specification: QueuePairInitAttributes, number: UInt32, index: UInt32,
        owner: UnsafeMutablePointer<QueuePairStorage>
    ) -> QueuePairStorage {
        let sizes = specification.capabilities
        let shared = specification.sharedReceiveQueue?.storage
        let ownMaxSGE = specification.type == .xrcReceive ? Limits.maxSGE : sizes.maxReceiveSGE
        let maxReceiveSGE = shared.map { $0.pointee.maxSGE } ?? ownMaxSGE
        let links = UnsafeMutablePointer<ReadyLink>.allocate(capacity: QueuePairStorage.linkCount)
        links.initialize(repeating: ReadyLink(owner: owner), count: QueuePairStorage.linkCount)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .queuePair))
        let sgList = UnsafeMutablePointer<SGE>.allocate(capacity: Int(max(maxReceiveSGE, 1)))
        let data = max(
            Int(sizes.maxSendSGE) * MemoryLayout<SGE>.stride, (Int(sizes.maxInlineData) + 7) & ~7)
        let path = specification.type == .ud ? MemoryLayout<Path>.stride : 0
        return QueuePairStorage(
            number: number, type: specification.type, transport: specification.type.transport,
            capabilities: sizes, sqSigAll: specification.sqSigAll,
            send: Ring(limit: sizes.maxSendWR, stride: SendWQE.size + path + data),
            receive: Ring(
                limit: shared == nil ? sizes.maxReceiveWR : 0, stride: receiveStride(maxSGE: maxReceiveSGE)),
            sharedReceiveQueue: shared, doorbells: core.pointee.doorbells, index: index,
            protectionDomain: specification.domain.rawValue,
            sendCQ: specification.sendCQ.storage,
            receiveCQ: specification.receiveCQ.storage, xrcDomain: specification.xrcDomain?.storage,
            links: links, event: event, userData: specification.userData,
            responder: Responder(sgList: sgList, resources: ReadResourceRing()))
    }

    /// Destroys a queue pair (`ibv_destroy_qp`). Its events and its CQEs are removed, except a CQE that
    /// `CompletionQueue.show` returned, and those of an XRC_RECV queue pair, which belong to the shared receive queue. The
    /// bindings of the windows of type 2 that are bound on it end. No thread may post to it or be inside a poll of its completion queues
    /// meanwhile.
    public borrowing func destroy(_ queuePair: QueuePair) {
        let pair = queuePair.storage
        core.pointee.stop(pair)
        core.pointee.accessTable?.write(queuePair: pair.pointee.number, nil)
        core.pointee.deselect(pair)
        core.pointee.leavePathWindow(pair)
        core.pointee.unbindWindows(of: pair)
        core.pointee.multicast.remove(pair)
        core.pointee.removeCompletions(of: pair.pointee.number, from: pair.pointee.sendCQ)
        core.pointee.removeCompletions(of: pair.pointee.number, from: pair.pointee.receiveCQ)
        core.pointee.queuePairs[Int(pair.pointee.index)] = nil
        core.pointee.giveBack(index: pair.pointee.index)
        if let domain = pair.pointee.xrcDomain {
            domain.pointee.users -= 1
        } else {
            core.pointee.changeUsers(ofDomain: pair.pointee.protectionDomain, by: -1)
        }
        pair.pointee.sendCQ.pointee.users -= 1
        pair.pointee.receiveCQ.pointee.users -= 1
        pair.pointee.sharedReceiveQueue?.pointee.users -= 1
        pair.pointee.send.deallocate()
        pair.pointee.receive.deallocate()
        pair.pointee.links.deallocate()
        pair.pointee.event.deallocate()
        pair.pointee.responder.sgList.deallocate()
        pair.pointee.responder.resources.memory?.deallocate()
        pair.deinitialize(count: 1)
        pair.deallocate()
    }

    /// The current attributes, with the state (`ibv_query_qp`).
    public borrowing func attributes(of queuePair: QueuePair) -> QueuePairAttributes {
        var result = queuePair.storage.pointee.attributes
        result.currentState = queuePair.storage.pointee.state
        result.rqPSN = queuePair.storage.pointee.responder.expected.rawValue
        result.sqPSN = queuePair.storage.pointee.requester.next.rawValue
        result.sqDraining = queuePair.storage.pointee.requester.drain == .draining
        return result
    }
}

extension QueuePairCapabilities {
    var isWithinLimits: Bool {
        maxSendWR <= Limits.maxWR && maxReceiveWR <= Limits.maxWR
            && maxSendSGE <= Limits.maxSGE && maxReceiveSGE <= Limits.maxSGE
            && maxInlineData <= Limits.maxInlineData
    }
}

// MARK: - States

extension Core {
    typealias Pair = UnsafeMutablePointer<QueuePairStorage>

    /// Sets the state, and its copy for posting threads. A thread that reads the new state also reads the writes before
    /// it.
    mutating func setState(_ state: QueuePairState, of pair: Pair) {
        // Leaving SQD ends draining, also when an error causes it.
        if state != .sendQueueDrained { pair.pointee.requester.drain = .notRequested }
        pair.pointee.attributes.state = state
        pair.pointee.published.store(state.rawValue, ordering: .releasing)
        publish(pair)
    }

    /// Removes a queue pair from all ready lists, stops its timer and removes its events.
    mutating func stop(_ pair: Pair) {
        releasePathWindow(pair)
        acknowledgements.remove(pair.pointee.links + QueuePairStorage.acknowledgements)
        readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
        requests.remove(pair.pointee.links + QueuePairStorage.requests)
        timers.remove(pair)
        pair.pointee.timer = .none
        stopWaiting(pair)
        dropHeld(pair)
        events.remove(pair.pointee.event)
    }

    /// RESET: the state after creation. Work requests and CQEs are removed. No thread may post or poll meanwhile.
    mutating func reset(_ pair: Pair) {
        stop(pair)
        deselect(pair)
        setState(.reset, of: pair)
        leavePathWindow(pair)
        pair.pointee.attributes = QueuePairAttributes()
        pair.pointee.requester = Requester()
        pair.pointee.pacing = Pacing()
        pair.pointee.responder = Responder(
            sgList: pair.pointee.responder.sgList, resources: pair.pointee.responder.resources)
        pair.pointee.send.reset()
        pair.pointee.receive.reset()
        removeCompletions(of: pair.pointee.number, from: pair.pointee.sendCQ)
        removeCompletions(of: pair.pointee.number, from: pair.pointee.receiveCQ)
    }

    /// ERR: posted work requests are flushed, and no packet is sent any more except, with `sendsNAK`, a NAK and the
    /// responses before it (IBTA volume 1, 10.3.1).
    mutating func enterError(_ pair: Pair, sendsNAK: Bool = false) {
        guard pair.pointee.state != .error else { return }
        setState(.error, of: pair)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        timers.remove(pair)
        pair.pointee.timer = .none
        stopWaiting(pair)
        dropHeld(pair)
        requests.remove(pair.pointee.links + QueuePairStorage.requests)
        releasePathWindow(pair)
        if !sendsNAK {
            acknowledgements.remove(pair.pointee.links + QueuePairStorage.acknowledgements)
            readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
        }
        flush(pair)
        // The receive work requests of XRC belong to no queue pair (annex A14).
        if pair.pointee.sharedReceiveQueue != nil && pair.pointee.xrcDomain == nil {
            events.post(pair.pointee.event, .lastWQEReached)
        }
    }

    /// Completes all posted work requests with IBV_WC_WR_FLUSH_ERR, in order.
    mutating func flush(_ pair: Pair) {
        flushSends(pair)
        if pair.pointee.responder.holdsReceive {
            pair.pointee.responder.holdsReceive = false
            completeReceive(pair, id: pair.pointee.responder.receiveID, status: .flushed)
        }
        let ring = pair.pointee.receive
        while ring.has(ring.oldest) {
            let id = ring.slot(ring.oldest).load(as: UInt64.self)
            ring.release()
            completeReceive(pair, id: id, status: .flushed)
        }
    }

    mutating func flushSends(_ pair: Pair) {
        let ring = pair.pointee.send
        while ring.has(ring.oldest) { completeOldestSend(pair, status: .flushed) }
        pair.pointee.requester.current = ring.oldest
        pair.pointee.requester.started = ring.oldest
        pair.pointee.requester.next = pair.pointee.requester.high
        pair.pointee.requester.una = pair.pointee.requester.high
        pair.pointee.requester.outstandingReads = 0
        pair.pointee.requester.failure = .success
        pair.pointee.requester.directOffset = 0
    }

    /// A send failed: the oldest work request completes with `status`, and the later ones are flushed. UD and UC go to
    /// SQE, where the receive queue continues (IBTA volume 1, 10.3.1); RC and XRC go to ERR.
    mutating func failOldestSend(_ pair: Pair, status: CompletionStatus, vendorError: UInt32 = 0) {
        if !pair.pointee.type.isReliable {
            setState(.sendQueueError, of: pair)
            requests.remove(pair.pointee.links + QueuePairStorage.requests)
        }
        if pair.pointee.grantNumber != 0 { endGrant(pair) }
        completeOldestSend(pair, status: status, vendorError: vendorError)
        if pair.pointee.type.isReliable { enterError(pair) } else { flushSends(pair) }
    }

    /// Completes the oldest send work request, with a CQE when it failed or is signaled.
    mutating func completeOldestSend(_ pair: Pair, status: CompletionStatus, vendorError: UInt32 = 0) {
        let ring = pair.pointee.send
        assert(ring.has(ring.oldest), "no work request is in the send queue")
        let entry = pair.pointee.sendWQE(ring.oldest)
        guard status != .success || pair.pointee.sqSigAll || entry.pointee.flags.contains(.signaled) else {
            return ring.release()
        }
        var completion = WorkCompletion()
        completion.id = entry.pointee.id
        completion.status = status
        completion.opcode = entry.pointee.completionOpcode
        completion.vendorError = vendorError
        if entry.pointee.isReadOrAtomic && !entry.pointee.isFlush {
            completion.byteCount = entry.pointee.isRead ? entry.pointee.length : 8
        }
        ring.release()
        completion.queuePairNumber = pair.pointee.number
        if !push(completion, solicited: false, to: pair.pointee.sendCQ) { fatal(pair) }
    }

    /// Completes a receive work request that failed or was flushed.
    mutating func completeReceive(_ pair: Pair, id: UInt64, status: CompletionStatus) {
        var completion = WorkCompletion()
        completion.id = id
        completion.status = status
        completion.opcode = .receive
        completion.queuePairNumber = pair.pointee.number
        if !push(completion, solicited: false, to: pair.pointee.receiveCQ) { fatal(pair) }
    }

    /// A CQE could not be written: the queue pair goes to ERR (IBTA volume 1, 9.9, C9-218, requester class F fault;
    /// 11.6.3.1; `IBV_EVENT_QP_FATAL`).
    mutating func fatal(_ pair: Pair) {
        guard pair.pointee.state != .error else { return }
        events.post(pair.pointee.event, .queuePairFatal)
        enterError(pair)
    }
}
