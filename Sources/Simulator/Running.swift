import CSimulator

extension Device {
    /// Executes WQEs until no queue pair can make progress. Returns the number of executed WQEs.
    @discardableResult
    func run() -> Int {
        let before = executed
        guard !isDead else { return 0 }
        repeat {
            hasProgressed = false
            for queuePair in queuePairs { if let queuePair, !isHeld { run(queuePair) } }
        } while hasProgressed
        for queue in completionQueues where codec.pollArmDoorbell(queue) { notify(queue) }
        return executed - before
    }

    /// Executes the WQEs of a queue pair, as far as its state allows.
    func run(_ queuePair: QueuePair) {
        guard !isDead else { return }
        switch queuePair.state {
        case IBV_QPS_RTS.rawValue:
            while queuePair.state == IBV_QPS_RTS.rawValue && !mustWait(queuePair) && codec.fetchSend(queuePair, send) {
                guard execute(send, queuePair) else { break }
                executed += 1
                hasProgressed = true
            }
        case IBV_QPS_SQE.rawValue where !options.isIWARP: flushSends(queuePair)
        case IBV_QPS_ERR.rawValue where !options.isIWARP: flush(queuePair)
        default: break
        }
        // The library flushes the queues of an iWARP queue pair.
        if options.isIWARP { return codec.finishRun(queuePair) }
        // A request of this run may have moved the queue pair to an error state.
        if queuePair.state == IBV_QPS_ERR.rawValue { flush(queuePair) }
        if queuePair.state == IBV_QPS_SQE.rawValue { flushSends(queuePair) }
    }

    /// Whether the request at the head of the send queue is outstanding, or got an RNR NAK in this step.
    private func mustWait(_ queuePair: QueuePair) -> Bool {
        queuePair.outstanding != 0 || queuePair.retryStep > steps
    }

    /// Completes a send WQE, successful or not, and removes it from its queue.
    func finish(_ request: SendRequest, _ queuePair: QueuePair, _ status: ibv_wc_status, length: Int = 0) {
        queuePair.rnrNAKs = 0
        // An iWARP adapter reports an error as an asynchronous event: the library flushes the request.
        if options.isIWARP && status != IBV_WC_SUCCESS { return terminate(queuePair, IBV_EVENT_QP_ACCESS_ERR) }
        codec.retireSend(queuePair)
        if status == IBV_WC_SUCCESS && !request.isSignaled { return }
        var completion = Completion(queuePair: queuePair, isReceive: false, tag: request.tag, status: status.rawValue)
        completion.operation = request.operation
        completion.byteLength = UInt32(truncatingIfNeeded: length)
        completion.hasImmediate = request.hasImmediate
        completion.invalidated = request.invalidates
        if request.operation == .read || request.operation == .fetchAndAdd || request.operation == .compareAndSwap {
            completion.payload = status == IBV_WC_SUCCESS ? gathered : nil
        }
        complete(completion, on: queuePair.sendCompletions)
        guard status != IBV_WC_SUCCESS else { return }
        // IBTA 10.3.1.6: an unreliable queue pair continues to receive.
        fail(
            queuePair,
            to: queuePair.type == IBV_QPT_RC.rawValue || status == IBV_WC_WR_FLUSH_ERR ? IBV_QPS_ERR : IBV_QPS_SQE)
    }

    /// Writes a CQE, and raises a completion event if the queue is armed.
    func complete(_ completion: Completion, on queue: CompletionQueue) {
        guard !queue.isBroken else { return }
        completed += 1
        guard codec.write(completion, to: queue) else {
            queue.isBroken = true
            raise(IBV_EVENT_CQ_ERR, queue)
            return
        }
        announce(queue, isSolicited: completion.isSolicited || completion.status != IBV_WC_SUCCESS.rawValue)
    }

    /// Writes the bytes of a CQE unchanged; false when the queue is full.
    func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, isReceive: Bool) -> Bool {
        let queue = isReceive ? queuePair.receiveCompletions : queuePair.sendCompletions
        guard let isSolicited = codec.write(entry, of: queuePair, to: queue) else { return false }
        announce(queue, isSolicited: isSolicited)
        return true
    }

    private func announce(_ queue: CompletionQueue, isSolicited: Bool) {
        if codec.pollArmDoorbell(queue) { return notify(queue) }
        switch queue.notification {
        case .none: break
        case .next: notify(queue)
        case .solicited: if isSolicited { notify(queue) }
        }
    }

    func notify(_ queue: CompletionQueue) {
        queue.notification = .none
        queue.channel?.add(queue)
    }

    // MARK: - Errors

    /// Moves a queue pair to an error state; the next run flushes its WQEs.
    func fail(_ queuePair: QueuePair, to state: ibv_qp_state) {
        if queuePair.state == IBV_QPS_ERR.rawValue { return }
        queuePair.state = state.rawValue
        queuePair.outstanding = 0
        hasProgressed = true
    }

    private func flush(_ queuePair: QueuePair) {
        flushSends(queuePair)
        if let kept = queuePair.retainedReceive {
            queuePair.retainedReceive = nil
            flush(kept, of: queuePair)
        }
        while queuePair.sharedReceives == nil && codec.fetchReceive(queuePair, receive) {
            flush(receive, of: queuePair)
        }
        if queuePair.sharedReceives != nil && !queuePair.raisedLastWQE {
            queuePair.raisedLastWQE = true
            raise(IBV_EVENT_QP_LAST_WQE_REACHED, queuePair)
        }
    }

    private func flush(_ receive: ReceiveRequest, of queuePair: QueuePair) {
        hasProgressed = true
        let completion = Completion(
            queuePair: queuePair, isReceive: true, tag: receive.tag, status: IBV_WC_WR_FLUSH_ERR.rawValue)
        complete(completion, on: queuePair.receiveCompletions)
    }

    private func flushSends(_ queuePair: QueuePair) {
        while codec.fetchSend(queuePair, send) {
            hasProgressed = true
            codec.retireSend(queuePair)
            var completion = Completion(
                queuePair: queuePair, isReceive: false, tag: send.tag, status: IBV_WC_WR_FLUSH_ERR.rawValue)
            completion.operation = send.operation
            complete(completion, on: queuePair.sendCompletions)
        }
    }
}
