import RoCEWire
import Synchronization

/// What a queue pair is created with: `struct ibv_qp_init_attr` of verbs.h.
public struct QueuePairSpecification {
    /// RC, UC or UD.
    public var type: QueuePairType
    /// Its protection domain.
    public var domain: ProtectionDomain
    /// Where its sends complete.
    public var sendCompletions: CompletionQueue
    /// Where its receives complete.
    public var receiveCompletions: CompletionQueue
    /// Where it takes receives from, when it has no receive queue of its own.
    public var sharedReceiveQueue: SharedReceiveQueue?
    /// How large its queues are.
    public var capabilities: QueuePairCapabilities
    /// `sq_sig_all`: every send completes with an entry.
    public var signalAll = false
    /// Comes back from `QueuePair.userData`.
    public var userData: UnsafeMutableRawPointer?

    /// A queue pair with one completion queue for both directions.
    public init(
        type: QueuePairType, domain: ProtectionDomain, completions: CompletionQueue,
        capabilities: QueuePairCapabilities
    ) {
        self.type = type
        self.domain = domain
        sendCompletions = completions
        receiveCompletions = completions
        self.capabilities = capabilities
    }
}

extension Engine {
    /// A new queue pair, in RESET.
    /// - Throws: EINVAL for an unknown domain or a size above `Limits`; EOPNOTSUPP for a service type other than RC,
    ///   UC and UD; ENOMEM when there are as many as the configuration allows (less the three numbers that are
    ///   reserved).
    public borrowing func createQueuePair(_ specification: QueuePairSpecification) throws(Errno) -> QueuePair {
        guard [.rc, .uc, .ud].contains(specification.type) else { throw .notSupported }
        guard specification.capabilities.isWithinLimits, core.pointee.domainExists(specification.domain.rawValue) else {
            throw .invalid
        }
        let (number, index) = try core.pointee.takeNumber()
        let storage = UnsafeMutablePointer<QueuePairStorage>.allocate(capacity: 1)
        storage.initialize(to: makeStorage(specification, number: number, index: index, owner: storage))
        storage.pointee.event.pointee.object = UnsafeMutableRawPointer(storage)
        core.pointee.queuePairs[Int(index)] = storage
        core.pointee.changeUsers(ofDomain: specification.domain.rawValue, by: 1)
        specification.sendCompletions.storage.pointee.users += 1
        specification.receiveCompletions.storage.pointee.users += 1
        specification.sharedReceiveQueue?.storage.pointee.users += 1
        return QueuePair(storage)
    }

    private func makeStorage(
        _ specification: QueuePairSpecification, number: UInt32, index: UInt32,
        owner: UnsafeMutablePointer<QueuePairStorage>
    ) -> QueuePairStorage {
        let sizes = specification.capabilities
        let shared = specification.sharedReceiveQueue?.storage
        let receiveElements = shared.map { $0.pointee.elements } ?? sizes.receiveElements
        let links = UnsafeMutablePointer<ReadyLink>.allocate(capacity: 3)
        links.initialize(repeating: ReadyLink(owner: owner), count: 3)
        let event = UnsafeMutablePointer<EventNode>.allocate(capacity: 1)
        event.initialize(to: EventNode(owner: .queuePair))
        let elements = UnsafeMutablePointer<ScatterGatherElement>.allocate(capacity: Int(max(receiveElements, 1)))
        let resources = UnsafeMutablePointer<ReadResource>.allocate(capacity: Int(Limits.readAtomics))
        resources.initialize(repeating: ReadResource(), count: Int(Limits.readAtomics))
        let data = max(
            Int(sizes.sendElements) * MemoryLayout<ScatterGatherElement>.stride, (Int(sizes.inlineData) + 7) & ~7)
        let path = specification.type == .ud ? MemoryLayout<Path>.stride : 0
        return QueuePairStorage(
            number: number, type: specification.type, capabilities: sizes, signalAll: specification.signalAll,
            send: Ring(limit: sizes.sendWorkRequests, stride: SendEntry.size + path + data),
            receive: Ring(
                limit: shared == nil ? sizes.receiveWorkRequests : 0, stride: receiveStride(elements: receiveElements)),
            sharedReceiveQueue: shared, doorbells: core.pointee.doorbells, index: index,
            protectionDomain: specification.domain.rawValue,
            sendCompletions: specification.sendCompletions.storage,
            receiveCompletions: specification.receiveCompletions.storage,
            links: links, event: event, userData: specification.userData,
            responder: Responder(elements: elements, resources: resources))
    }

    /// Ends a queue pair: its packets stop, its events and completions are forgotten. No thread may post to it or poll
    /// its completion queues meanwhile.
    public borrowing func destroy(_ queuePair: QueuePair) {
        let pair = queuePair.storage
        core.pointee.stop(pair)
        core.pointee.removeCompletions(of: pair.pointee.number, from: pair.pointee.sendCompletions)
        core.pointee.removeCompletions(of: pair.pointee.number, from: pair.pointee.receiveCompletions)
        core.pointee.queuePairs[Int(pair.pointee.index)] = nil
        core.pointee.giveBack(index: pair.pointee.index)
        core.pointee.changeUsers(ofDomain: pair.pointee.protectionDomain, by: -1)
        pair.pointee.sendCompletions.pointee.users -= 1
        pair.pointee.receiveCompletions.pointee.users -= 1
        pair.pointee.sharedReceiveQueue?.pointee.users -= 1
        pair.pointee.send.deallocate()
        pair.pointee.receive.deallocate()
        pair.pointee.links.deallocate()
        pair.pointee.event.deallocate()
        pair.pointee.responder.elements.deallocate()
        pair.pointee.responder.resources.deallocate()
        pair.deinitialize(count: 1)
        pair.deallocate()
    }

    /// The attributes as they stand, `state` included.
    public borrowing func attributes(of queuePair: QueuePair) -> QueuePairAttributes {
        var result = queuePair.storage.pointee.attributes
        result.currentState = result.state
        result.receivePSN = queuePair.storage.pointee.responder.expected.rawValue
        result.sendPSN = queuePair.storage.pointee.requester.next.rawValue
        return result
    }
}

extension QueuePairCapabilities {
    var isWithinLimits: Bool {
        sendWorkRequests <= Limits.workRequests && receiveWorkRequests <= Limits.workRequests
            && sendElements <= Limits.scatterGatherElements && receiveElements <= Limits.scatterGatherElements
            && inlineData <= Limits.inlineData
    }
}

// MARK: - States

extension Core {
    typealias Pair = UnsafeMutablePointer<QueuePairStorage>

    /// Sets the state, for posting threads too.
    mutating func setState(_ state: QueuePairState, of pair: Pair) {
        pair.pointee.attributes.state = state
        pair.pointee.published.store(state.rawValue, ordering: .releasing)
    }

    /// Takes a queue pair off all lists and timers, and forgets its events.
    mutating func stop(_ pair: Pair) {
        acknowledgements.remove(pair.pointee.links + QueuePairStorage.acknowledgements)
        readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
        requests.remove(pair.pointee.links + QueuePairStorage.requests)
        timers.remove(pair)
        pair.pointee.deadline = nil
        events.remove(pair.pointee.event)
    }

    /// RESET: as created. Nothing posted or completed is left. Threads that post or poll must not be at work.
    mutating func reset(_ pair: Pair) {
        stop(pair)
        setState(.reset, of: pair)
        pair.pointee.attributes = QueuePairAttributes()
        pair.pointee.requester = Requester()
        pair.pointee.responder = Responder(
            elements: pair.pointee.responder.elements, resources: pair.pointee.responder.resources)
        pair.pointee.send.reset()
        pair.pointee.receive.reset()
        removeCompletions(of: pair.pointee.number, from: pair.pointee.sendCompletions)
        removeCompletions(of: pair.pointee.number, from: pair.pointee.receiveCompletions)
    }

    /// ERR: what is posted is flushed, and nothing is sent any more but, with `answering`, a NAK and the responses
    /// before it. IBTA volume 1, 10.3.1.7.
    mutating func enterError(_ pair: Pair, answering: Bool = false) {
        guard pair.pointee.attributes.state != .error else { return }
        setState(.error, of: pair)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        timers.remove(pair)
        pair.pointee.deadline = nil
        requests.remove(pair.pointee.links + QueuePairStorage.requests)
        if !answering {
            acknowledgements.remove(pair.pointee.links + QueuePairStorage.acknowledgements)
            readResponses.remove(pair.pointee.links + QueuePairStorage.readResponses)
        }
        flush(pair)
        if pair.pointee.sharedReceiveQueue != nil { events.post(pair.pointee.event, .lastWorkRequestReached) }
    }

    /// Completes everything posted with WR_FLUSH_ERR, in order.
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
    }

    /// A UD or UC send failed: the request at the front completes with `status`, those behind it are flushed, and
    /// receives go on (IBTA volume 1, 10.3.1.6). RC goes to ERR.
    mutating func failOldestSend(_ pair: Pair, status: CompletionStatus, vendorError: UInt32 = 0) {
        if pair.pointee.type != .rc {
            setState(.sendQueueError, of: pair)
            requests.remove(pair.pointee.links + QueuePairStorage.requests)
        }
        completeOldestSend(pair, status: status, vendorError: vendorError)
        if pair.pointee.type == .rc { enterError(pair) } else { flushSends(pair) }
    }

    /// Completes the oldest send: with an entry when it failed, or asked for one.
    mutating func completeOldestSend(_ pair: Pair, status: CompletionStatus, vendorError: UInt32 = 0) {
        let ring = pair.pointee.send
        let entry = pair.pointee.sendEntry(ring.oldest)
        var completion = WorkCompletion()
        let wanted = status != .success || pair.pointee.signalAll || entry.pointee.sendFlags.contains(.signaled)
        completion.id = entry.pointee.id
        completion.status = status
        completion.opcode = entry.pointee.completionOpcode
        completion.vendorError = vendorError
        if entry.pointee.isReadOrAtomic { completion.byteCount = entry.pointee.isRead ? entry.pointee.length : 8 }
        ring.release()
        guard wanted else { return }
        completion.queuePair = pair.pointee.number
        if !push(completion, solicited: false, to: pair.pointee.sendCompletions) { fatal(pair) }
    }

    /// Completes a receive that failed or was flushed.
    mutating func completeReceive(_ pair: Pair, id: UInt64, status: CompletionStatus) {
        var completion = WorkCompletion()
        completion.id = id
        completion.status = status
        completion.opcode = .receive
        completion.queuePair = pair.pointee.number
        if !push(completion, solicited: false, to: pair.pointee.receiveCompletions) { fatal(pair) }
    }

    /// A completion could not be reported: the queue pair cannot go on. IBTA volume 1, 10.2.3 and 11.6.3.
    mutating func fatal(_ pair: Pair) {
        guard pair.pointee.attributes.state != .error else { return }
        events.post(pair.pointee.event, .queuePairFatal)
        enterError(pair)
    }
}
