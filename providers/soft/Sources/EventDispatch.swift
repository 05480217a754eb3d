import CIBVerbs
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
}
