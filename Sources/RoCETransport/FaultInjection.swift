import RoCEWire

// The engine's part of fault injection: completions with an error, and RNR NAKs. Without a plan, the data path tests one
// pointer for each work request and each message.

extension Engine {
    /// Sets the plan by which faults are injected, which must stay valid as long as the engine is used; nil for none.
    public borrowing func setFaults(_ plan: UnsafeMutablePointer<FaultPlan>?) { core.pointee.faults = plan }

    /// Moves a queue pair to ERR with `IBV_EVENT_QP_FATAL`, as a failure of the device does; with the number 0, every
    /// queue pair that can send or receive.
    public borrowing func failQueuePair(_ number: UInt32) {
        if number != 0 {
            guard let pair = core.pointee.queuePair(number), pair.pointee.state.isConnected else { return }
            core.pointee.fatal(pair)
            return
        }
        for index in 0..<1 << Int(core.pointee.indexBits) {
            guard let pair = core.pointee.queuePairs[index], pair.pointee.state.isConnected else { continue }
            core.pointee.fatal(pair)
        }
    }

    /// Moves every queue pair to ERR, so that all work requests are flushed: the device has failed.
    public borrowing func failDevice() {
        for index in 0..<1 << Int(core.pointee.indexBits) {
            guard let pair = core.pointee.queuePairs[index] else { continue }
            core.pointee.enterError(pair)
        }
    }
}

extension QueuePairState {
    /// RTR, RTS, SQD or SQE.
    fileprivate var isConnected: Bool { self != .reset && self != .initialized && self != .error }
}

extension Core {
    /// The status that a rule gives to a send work request that begins, or success. A status that the peer reports on
    /// hardware is reported by the peer here as well, because it is sent a request that it refuses.
    @inline(never)
    mutating func injectedStatus(_ entry: UnsafeMutablePointer<SendWQE>, _ pair: Pair) -> CompletionStatus {
        let current = pair.pointee.requester.current
        // A work request that failed is begun again after a go-back, and its decision stands.
        if pair.pointee.requester.fault != .success, pair.pointee.requester.faultAt == current {
            return pair.pointee.requester.fault
        }
        guard let faults,
            let status = faults.pointee.sendStatus(
                pair.pointee.type, entry.pointee.faultOperation, length: entry.pointee.length)
        else { return .success }
        switch status {
        case .remoteAccessError:
            // No memory region has the R_Key 0.
            entry.pointee.rkey = 0
            return .success
        case .remoteInvalidRequestError:
            faults.pointee.spoil(pair.pointee.number, psn: pair.pointee.requester.next.rawValue)
            return .success
        default:
            pair.pointee.requester.fault = status
            pair.pointee.requester.faultAt = current
            return status
        }
    }

    /// Answers the first packet of an RC request that consumes a receive work request as a rule says: with an RNR NAK, or
    /// with a NAK after the receive has completed with an error. Returns false when no rule applies.
    @inline(never)
    mutating func refusesByFault(_ pair: Pair, _ opcode: Opcode) -> Bool {
        guard let faults else { return false }
        if faults.pointee.answersRNR() {
            refuseForNow(pair)
            return true
        }
        guard receiveRoom(pair) != nil,
            let status = faults.pointee.receiveStatus(pair.pointee.type, opcode.faultOperation), takeReceive(pair)
        else { return false }
        refuse(
            pair, status == .localLengthError ? .invalidRequest : .remoteOperationalError, status: status)
        return true
    }

    /// Completes the receive work request of a UC or UD message with the error that a rule gives it, and moves the queue
    /// pair to ERR. Returns false when no rule applies.
    @inline(never)
    mutating func failsByFault(_ pair: Pair, _ opcode: Opcode) -> Bool {
        guard let faults, receiveRoom(pair) != nil,
            let status = faults.pointee.receiveStatus(pair.pointee.type, opcode.faultOperation), takeReceive(pair)
        else { return false }
        failReceive(pair, status: status)
        enterError(pair)
        return true
    }
}

extension SendWQE {
    /// The operation, for `operation=`.
    fileprivate var faultOperation: FaultOperation {
        if isSend { return .send }
        if isRead { return .read }
        return isReadOrAtomic && !isFlush ? .atomic : .write
    }
}
