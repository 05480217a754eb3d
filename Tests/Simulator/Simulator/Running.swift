import CSimulator

extension Device {
    /// Runs until there is nothing left to do. How many requests were carried out.
    @discardableResult
    func run() -> Int {
        let before = carriedOut
        guard !isDead else { return 0 }
        repeat {
            hasProgressed = false
            for queuePair in queuePairs { if let queuePair, !isHeld { run(queuePair) } }
        } while hasProgressed
        for queue in completionQueues where codec.looksAtNotification(queue) { notify(queue) }
        return carriedOut - before
    }

    /// Carries out what a queue pair has posted, as far as its state lets it.
    func run(_ queuePair: QueuePair) {
        guard !isDead else { return }
        switch queuePair.state {
        case IBV_QPS_RTS.rawValue:
            while queuePair.state == IBV_QPS_RTS.rawValue && !mustWait(queuePair) && codec.fetchSend(queuePair, send) {
                guard carryOut(send, queuePair) else { break }
                carriedOut += 1
                hasProgressed = true
            }
        case IBV_QPS_SQE.rawValue: flushSends(queuePair)
        case IBV_QPS_ERR.rawValue: flush(queuePair)
        default: break
        }
        // A request of this run may have brought it there.
        if queuePair.state == IBV_QPS_ERR.rawValue { flush(queuePair) }
        if queuePair.state == IBV_QPS_SQE.rawValue { flushSends(queuePair) }
    }

    /// The request at the head of its queue is on its way, or was told in this step that its peer is not ready.
    private func mustWait(_ queuePair: QueuePair) -> Bool {
        queuePair.awaited != 0 || queuePair.resumes > steps
    }

    /// Completes a send that was carried out or has failed, and takes it from its queue.
    func finish(_ request: SendRequest, _ queuePair: QueuePair, _ status: ibv_wc_status, length: Int = 0) {
        queuePair.notReady = 0
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
        // IBTA 10.3.1.6: an unreliable queue pair goes on receiving.
        fail(
            queuePair,
            to: queuePair.type == IBV_QPT_RC.rawValue || status == IBV_WC_WR_FLUSH_ERR ? IBV_QPS_ERR : IBV_QPS_SQE)
    }

    /// Writes a completion, and makes the event that was asked for.
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

    /// Writes an entry as it is; false when there is no room for it.
    func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, isReceive: Bool) -> Bool {
        let queue = isReceive ? queuePair.receiveCompletions : queuePair.sendCompletions
        guard let isSolicited = codec.write(entry, of: queuePair, to: queue) else { return false }
        announce(queue, isSolicited: isSolicited)
        return true
    }

    private func announce(_ queue: CompletionQueue, isSolicited: Bool) {
        if codec.looksAtNotification(queue) { return notify(queue) }
        switch queue.notification {
        case .none: break
        case .next: notify(queue)
        case .solicited: if isSolicited { notify(queue) }
        }
    }

    private func notify(_ queue: CompletionQueue) {
        queue.notification = .none
        queue.channel?.add(queue)
    }

    // MARK: - Errors

    /// Brings a queue pair into an error state; what it still has is flushed.
    func fail(_ queuePair: QueuePair, to state: ibv_qp_state) {
        if queuePair.state == IBV_QPS_ERR.rawValue { return }
        queuePair.state = state.rawValue
        queuePair.awaited = 0
        hasProgressed = true
    }

    private func flush(_ queuePair: QueuePair) {
        flushSends(queuePair)
        while queuePair.sharedReceives == nil && codec.fetchReceive(queuePair, receive) {
            hasProgressed = true
            let completion = Completion(
                queuePair: queuePair, isReceive: true, tag: receive.tag, status: IBV_WC_WR_FLUSH_ERR.rawValue)
            complete(completion, on: queuePair.receiveCompletions)
        }
        if queuePair.sharedReceives != nil && !queuePair.saidLast {
            queuePair.saidLast = true
            raise(IBV_EVENT_QP_LAST_WQE_REACHED, queuePair)
        }
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
