import RoCEWire

extension Engine {
    /// Changes attributes and the state of a queue pair, as ibv_modify_qp(3) says. Nothing is changed when the call
    /// throws.
    ///
    /// Going to RESET empties the queues and removes the queue pair's entries from its completion queues: no thread may
    /// post or poll meanwhile.
    /// - Throws: EINVAL when the state does not allow the change, the mask lacks an attribute that it needs or has one
    ///   that it does not allow, or a value is out of range; EOPNOTSUPP for an alternate path.
    public borrowing func modify(
        _ queuePair: QueuePair, _ attributes: QueuePairAttributes, _ mask: AttributeMask
    ) throws(Errno) {
        try core.pointee.modify(queuePair.storage, attributes, mask)
    }
}

extension Core {
    mutating func modify(_ pair: Pair, _ wanted: QueuePairAttributes, _ mask: AttributeMask) throws(Errno) {
        let from = pair.pointee.attributes.state
        if mask.contains(.currentState), wanted.currentState != from { throw .invalid }
        let to = mask.contains(.state) ? wanted.state : from
        // Without `state`, attributes can change only where a state leads to itself.
        guard let transition = Transition.between(from, to, pair.pointee.type),
            mask.contains(.state) || to == .initialized || to == .readyToSend || to == .sendQueueDrained,
            transition.allows(mask)
        else { throw .invalid }
        if !mask.isDisjoint(with: [.alternatePath, .pathMigration]) { throw .notSupported }
        guard isInRange(wanted, mask, pair) else { throw .invalid }
        if to == .reset { return reset(pair) }
        if to == .error { return enterError(pair) }
        pair.pointee.attributes.take(mask, from: wanted)
        enter(to, from: from, pair)
    }

    private mutating func isInRange(_ wanted: QueuePairAttributes, _ mask: AttributeMask, _ pair: Pair) -> Bool {
        func fits(_ attribute: AttributeMask, _ condition: Bool) -> Bool { !mask.contains(attribute) || condition }
        let mtu = wanted.pathMTU
        return fits(.pathMTU, mtu >= 256 && mtu <= configuration.activeMTU && mtu & (mtu - 1) == 0)
            && fits(.partitionKeyIndex, wanted.partitionKeyIndex == 0)
            && fits(.port, wanted.port == 1)
            && fits(.timeout, wanted.timeout < 32)
            && fits(.retryCount, wanted.retryCount < 8)
            && fits(.rnrRetry, wanted.rnrRetry < 8)
            && fits(.minRNRTimer, wanted.minRNRTimer < 32)
            && fits(.maxReadAtomic, UInt32(wanted.maxReadAtomic) <= Limits.readAtomics)
            && fits(.maxDestinationReadAtomic, UInt32(wanted.maxDestinationReadAtomic) <= Limits.readAtomics)
            && fits(.destinationQueuePair, wanted.destinationQueuePair < 1 << 24)
    }

    /// What the new state starts with.
    private mutating func enter(_ to: QueuePairState, from: QueuePairState, _ pair: Pair) {
        setState(to, of: pair)
        switch (from, to) {
        case (.initialized, .readyToReceive):
            pair.pointee.responder.expected = PSN(pair.pointee.attributes.receivePSN)
        case (.readyToReceive, .readyToSend):
            startRequester(pair)
        case (.readyToSend, .sendQueueDrained):
            pair.pointee.requester.drainPending = true
            reportDrained(pair)
        case (.sendQueueDrained, .readyToSend), (.sendQueueError, .readyToSend):
            pair.pointee.requester.drainPending = false
            requests.add(pair.pointee.links + QueuePairStorage.requests)
        default: break
        }
    }

    private mutating func startRequester(_ pair: Pair) {
        let psn = PSN(pair.pointee.attributes.sendPSN)
        pair.pointee.requester.una = psn
        pair.pointee.requester.next = psn
        pair.pointee.requester.high = psn
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
        pair.pointee.requester.rnrRetriesLeft = pair.pointee.attributes.rnrRetry
        pair.pointee.requester.window = configuration.initialWindow
        pair.pointee.requester.slowStartEnd = configuration.maximumWindow
    }

    /// SQD: reports once that everything begun is complete.
    mutating func reportDrained(_ pair: Pair) {
        guard pair.pointee.attributes.state == .sendQueueDrained, pair.pointee.requester.drainPending,
            pair.pointee.requester.started == pair.pointee.send.oldest
        else { return }
        pair.pointee.requester.drainPending = false
        if pair.pointee.attributes.drainedNotification { events.post(pair.pointee.event, .sendQueueDrained) }
    }
}

extension QueuePairAttributes {
    /// Takes over what `mask` names.
    mutating func take(_ mask: AttributeMask, from other: QueuePairAttributes) {
        if mask.contains(.pathMTU) { pathMTU = other.pathMTU }
        if mask.contains(.queueKey) { queueKey = other.queueKey }
        if mask.contains(.receivePSN) { receivePSN = other.receivePSN & 0xFF_FFFF }
        if mask.contains(.sendPSN) { sendPSN = other.sendPSN & 0xFF_FFFF }
        if mask.contains(.destinationQueuePair) { destinationQueuePair = other.destinationQueuePair }
        if mask.contains(.access) { access = other.access }
        if mask.contains(.path) { path = other.path }
        if mask.contains(.drainedNotification) { drainedNotification = other.drainedNotification }
        if mask.contains(.maxReadAtomic) { maxReadAtomic = other.maxReadAtomic }
        if mask.contains(.maxDestinationReadAtomic) { maxDestinationReadAtomic = other.maxDestinationReadAtomic }
        if mask.contains(.minRNRTimer) { minRNRTimer = other.minRNRTimer }
        if mask.contains(.port) { port = other.port }
        if mask.contains(.timeout) { timeout = other.timeout }
        if mask.contains(.retryCount) { retryCount = other.retryCount }
        if mask.contains(.rnrRetry) { rnrRetry = other.rnrRetry }
        if mask.contains(.partitionKeyIndex) { partitionKeyIndex = other.partitionKeyIndex }
    }
}
