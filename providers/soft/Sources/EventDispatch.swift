import CIBVerbs
import CProviderABI
import ProviderKit
import RoCETransport

extension ContextPointer {
    /// Appends the engine's events to the event queues of the channels and of the context. Under the lock.
    @inline(__always)
    func dispatchEvents() {
        while let event = pointee.engine.nextEvent() { dispatch(event) }
    }

    @inline(never)
    private func dispatch(_ event: Event) {
        var record = ibv_async_event()
        switch event {
        case .completion(let queue):
            guard let queue = queue.soft, let channel = queue.pointee.channel else { return }
            record.element.cq = queue.verbs
            channel.pointee.events.append(record)
            return
        case .completionQueue(let queue, let type):
            guard let queue = queue.soft else { return }
            record.element.cq = queue.verbs
            record.event_type = ibv_event_type(type.rawValue)
        case .queuePair(let pair, let type):
            record.event_type = ibv_event_type(type.rawValue)
            if record.event_type == IBV_EVENT_QP_ACCESS_ERR { warnOfXRC(pair) }
            // Every handle of the queue pair has the event.
            var handle = pair.soft
            while let pair = handle {
                record.element.qp = pair.verbs
                pointee.asyncEvents.append(record)
                handle = pair.pointee.next.pointee
            }
            return
        case .sharedReceiveQueue(let queue, let type):
            guard let queue = queue.soft else { return }
            record.element.srq = queue.verbs
            record.event_type = ibv_event_type(type.rawValue)
        }
        pointee.asyncEvents.append(record)
    }

    /// Says why an XRC_RECV queue pair refused a request: programs whose processes share an XRC domain expect otherwise.
    private func warnOfXRC(_ pair: RoCETransport.QueuePair) {
        guard let handle = pair.soft, handle.verbs.pointee.qp_type == IBV_QPT_XRC_RECV else { return }
        var warning = MessageText("queue pair ")
        warning.append(Int(handle.verbs.pointee.qp_num))
        warning.append(
            " (XRC_RECV) refused a request: it named a key or a shared receive queue that its XRC domain does not have, or a range or an access that the key does not allow; an XRC domain of soft belongs to one open device, and reaches no shared receive queue of another process"
        )
        warning.log(RDMA_LOG_WARNING)
    }
}
