import RoCEWire

extension Engine {
    /// Changes attributes and the state of a queue pair (ibv_modify_qp(3)). Nothing is changed when the call throws.
    ///
    /// Going to RESET empties the queues and removes the queue pair's entries from its completion queues: no thread may
    /// post or poll meanwhile.
    /// - Throws: EINVAL when the state does not allow the change, the mask lacks an attribute that it needs or has one
    ///   that it does not allow, or a value is out of range.
    public borrowing func modify(
        _ queuePair: QueuePair, _ attributes: QueuePairAttributes, _ mask: AttributeMask
    ) throws(Errno) {
        try core.pointee.modify(queuePair.storage, attributes, mask)
    }

    /// The attribute whose value is out of range, when `modify` refuses for that reason alone; otherwise empty
    /// (`enum ibv_qp_attr_mask`).
    public borrowing func attributeOutOfRange(
        _ queuePair: QueuePair, _ attributes: QueuePairAttributes, _ mask: AttributeMask
    ) -> AttributeMask {
        guard core.pointee.allows(attributes, mask, queuePair.storage) else { return [] }
        return core.pointee.attributeOutOfRange(attributes, mask)
    }
}

extension Core {
    mutating func modify(_ pair: Pair, _ wanted: QueuePairAttributes, _ mask: AttributeMask) throws(Errno) {
        guard allows(wanted, mask, pair) else { throw .invalid }
        guard attributeOutOfRange(wanted, mask).isEmpty else { throw .invalid }
        if mask.contains(.pathMigration), wanted.migration == .rearm, !mask.contains(.alternatePath),
            pair.pointee.attributes.alternatePath == nil
        {
            throw .invalid
        }
        let from = pair.pointee.state
        let to = mask.contains(.state) ? wanted.state : from
        if to == .reset { return reset(pair) }
        if to == .error { return enterError(pair) }
        pair.pointee.attributes.take(mask, from: wanted)
        if mask.contains(.path) { pair.pointee.isSourceLost = false }
        if from == .readyToSend && to == .sendQueueDrained && !mask.contains(.sqdAsyncNotify) {
            pair.pointee.attributes.sqdAsyncNotify = false
        }
        if mask.contains(.maxDestinationReadAtomic) {
            pair.pointee.responder.reserveResources(UInt32(pair.pointee.attributes.maxDestinationReadAtomic))
        }
        if mask.contains(.pathMigration) { migrate(pair, to: wanted.migration) }
        if to == .readyToSend || to == .sendQueueDrained { joinPathWindow(pair) }
        if mask.contains(.rateLimit) { pace(pair, Pacing(rate: wanted.rateLimit, burst: 0)) }
        enter(to, from: from, pair)
    }

    /// Whether the state allows this change with this mask.
    fileprivate func allows(_ wanted: QueuePairAttributes, _ mask: AttributeMask, _ pair: Pair) -> Bool {
        let from = pair.pointee.state
        if mask.contains(.currentState), wanted.currentState != from { return false }
        let to = mask.contains(.state) ? wanted.state : from
        // Without `state`, attributes can change only where a state leads to itself.
        guard let transition = Transition.between(from, to, pair.pointee.type),
            mask.contains(.state) || to == .initialized || to == .readyToSend || to == .sendQueueDrained
        else { return false }
        return transition.allows(mask)
    }

    /// The first attribute of the mask whose value is out of range; empty when all are in range.
    fileprivate func attributeOutOfRange(_ wanted: QueuePairAttributes, _ mask: AttributeMask) -> AttributeMask {
        func fails(_ attribute: AttributeMask, unless condition: Bool) -> Bool {
            mask.contains(attribute) && !condition
        }
        let mtu = wanted.pathMTU
        let mtuRange = Limits.minPathMTU...configuration.activeMTU
        if fails(.pathMTU, unless: mtuRange.contains(mtu) && mtu & (mtu - 1) == 0) { return .pathMTU }
        if fails(.pkeyIndex, unless: wanted.pkeyIndex == Limits.pkeyIndex) { return .pkeyIndex }
        if fails(.port, unless: wanted.port == Limits.portNumber) { return .port }
        if fails(.timeout, unless: wanted.timeout <= Limits.maxTimeout) { return .timeout }
        if fails(.retryCount, unless: wanted.retryCount <= Limits.maxRetryCount) { return .retryCount }
        if fails(.rnrRetry, unless: wanted.rnrRetry <= Limits.infiniteRNRRetry) { return .rnrRetry }
        if fails(.minRNRTimer, unless: wanted.minRNRTimer <= Limits.maxRNRTimer) { return .minRNRTimer }
        let depth = Limits.maxReadAtomic
        if fails(.maxReadAtomic, unless: UInt32(wanted.maxReadAtomic) <= depth) { return .maxReadAtomic }
        if fails(.maxDestinationReadAtomic, unless: UInt32(wanted.maxDestinationReadAtomic) <= depth) {
            return .maxDestinationReadAtomic
        }
        if mask.contains(.alternatePath) {
            guard wanted.alternatePort == Limits.portNumber, wanted.alternatePKeyIndex == Limits.pkeyIndex,
                wanted.alternateTimeout <= Limits.maxTimeout
            else { return .alternatePath }
        }
        if fails(.pathMigration, unless: wanted.migration != .armed) { return .pathMigration }
        if fails(.rateLimit, unless: wanted.rateLimit <= Limits.maxRateLimit) { return .rateLimit }
        return fails(.destinationQPN, unless: wanted.destinationQPN <= mask24) ? .destinationQPN : []
    }

    /// Enters a state, and sets the initial values of that state.
    private mutating func enter(_ to: QueuePairState, from: QueuePairState, _ pair: Pair) {
        setState(to, of: pair)
        switch (from, to) {
        case (.initialized, .readyToReceive):
            pair.pointee.responder.expected = PSN(pair.pointee.attributes.rqPSN)
        case (.readyToReceive, .readyToSend):
            startRequester(pair)
        case (.readyToSend, .sendQueueDrained):
            pair.pointee.requester.drain = .draining
            reportDrained(pair)
        case (.sendQueueDrained, .readyToSend), (.sendQueueError, .readyToSend):
            requests.add(pair.pointee.links + QueuePairStorage.requests)
        default: break
        }
    }

    private mutating func startRequester(_ pair: Pair) {
        let psn = PSN(pair.pointee.attributes.sqPSN)
        pair.pointee.requester.una = psn
        pair.pointee.requester.next = psn
        pair.pointee.requester.high = psn
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
        pair.pointee.requester.rnrRetriesLeft = pair.pointee.attributes.rnrRetry
        pair.pointee.requester.window = configuration.initialWindow
        pair.pointee.requester.slowStartEnd = configuration.maximumWindow
    }

    /// SQD: reports once that all work requests that were begun are complete (`IBV_EVENT_SQ_DRAINED`).
    mutating func reportDrained(_ pair: Pair) {
        guard pair.pointee.requester.drain == .draining, pair.pointee.requester.started == pair.pointee.send.oldest
        else {
            return
        }
        assert(pair.pointee.state == .sendQueueDrained, "a send queue drains in SQD only")
        pair.pointee.requester.drain = .drained
        if pair.pointee.attributes.sqdAsyncNotify { events.post(pair.pointee.event, .sendQueueDrained) }
    }
}

extension QueuePairAttributes {
    /// Copies the attributes of `mask`.
    mutating func take(_ mask: AttributeMask, from other: QueuePairAttributes) {
        if mask.contains(.pathMTU) { pathMTU = other.pathMTU }
        if mask.contains(.qkey) { qkey = other.qkey }
        if mask.contains(.rqPSN) { rqPSN = other.rqPSN & mask24 }
        if mask.contains(.sqPSN) { sqPSN = other.sqPSN & mask24 }
        if mask.contains(.destinationQPN) { destinationQPN = other.destinationQPN }
        if mask.contains(.access) { access = other.access }
        if mask.contains(.path) { path = other.path }
        if mask.contains(.sqdAsyncNotify) { sqdAsyncNotify = other.sqdAsyncNotify }
        if mask.contains(.maxReadAtomic) { maxReadAtomic = other.maxReadAtomic }
        if mask.contains(.maxDestinationReadAtomic) { maxDestinationReadAtomic = other.maxDestinationReadAtomic }
        if mask.contains(.minRNRTimer) { minRNRTimer = other.minRNRTimer }
        if mask.contains(.port) { port = other.port }
        if mask.contains(.timeout) { timeout = other.timeout }
        if mask.contains(.retryCount) { retryCount = other.retryCount }
        if mask.contains(.rnrRetry) { rnrRetry = other.rnrRetry }
        if mask.contains(.pkeyIndex) { pkeyIndex = other.pkeyIndex }
        if mask.contains(.rateLimit) { rateLimit = other.rateLimit }
        if mask.contains(.alternatePath) {
            alternatePath = other.alternatePath
            alternatePKeyIndex = other.alternatePKeyIndex
            alternatePort = other.alternatePort
            alternateTimeout = other.alternateTimeout
        }
    }
}
