import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import SystemPackage

/// An asynchronous event of a device, a port or an object (`struct ibv_async_event`, ibv_get_async_event(3)).
public struct AsynchronousEvent: Hashable, Sendable, CustomStringConvertible {
    /// The type of the event (`ibv_async_event.event_type`).
    public let type: EventType
    /// The object of the event (`ibv_async_event.element`).
    public let subject: Subject

    /// The object that an event is about (`ibv_async_event.element`).
    public enum Subject: Hashable, Sendable {
        /// The device.
        case device
        /// A port, from 1. Events of an unknown type have this subject.
        case port(Int)
        /// The queue pair of that number.
        case queuePair(number: UInt32)
        /// A completion queue.
        case completionQueue(CompletionQueue.ID)
        /// A shared receive queue.
        case sharedReceiveQueue(SharedReceiveQueue.ID)
        /// The work queue of that number.
        case workQueue(number: UInt32)
    }

    /// An event of that type.
    public init(type: EventType, subject: Subject) {
        self.type = type
        self.subject = subject
    }

    /// Reads the struct of verbs.h. The objects must not be destroyed meanwhile.
    init(_ raw: ibv_async_event) {
        type = EventType(rawValue: raw.event_type.rawValue)
        subject =
            switch type {
            case .completionQueueError: .completionQueue(CompletionQueue.ID(raw.element.cq))
            case .queuePairFatal, .queuePairRequestError, .queuePairAccessError, .communicationEstablished,
                .sendQueueDrained, .pathMigrated, .pathMigrationError, .lastWorkRequestReached:
                .queuePair(number: raw.element.qp.pointee.qp_num)
            case .sharedReceiveQueueError, .sharedReceiveQueueLimitReached:
                .sharedReceiveQueue(SharedReceiveQueue.ID(raw.element.srq))
            case .workQueueFatal: .workQueue(number: raw.element.wq.pointee.wq_num)
            case .deviceFatal: .device
            default: .port(Int(raw.element.port_num))
            }
    }

    /// Text such as `PORT_ERR: port 1`.
    public var description: String {
        switch subject {
        case .device: "\(type): device"
        case .port(let number): "\(type): port \(number)"
        case .queuePair(let number): "\(type): queue pair 0x\(String(number, radix: 16))"
        case .completionQueue: "\(type): completion queue"
        case .sharedReceiveQueue: "\(type): shared receive queue"
        case .workQueue(let number): "\(type): work queue 0x\(String(number, radix: 16))"
        }
    }
}

extension Context {
    /// The file descriptor for asynchronous events, which is readable when one is pending (`ibv_context.async_fd`). An
    /// event loop calls `nextEvent(timeout: .zero)` until it returns nil. -1 when the device has no events.
    public var eventDescriptor: FileDescriptor { FileDescriptor(rawValue: unsafeRaw.pointee.async_fd) }

    /// Waits for an asynchronous event: ibv_get_async_event(3), ibv_ack_async_event(3). Blocks the thread; tasks
    /// use `events`.
    ///
    /// Each event goes to one reader, and is acknowledged as soon as it is read, so that destroying an object
    /// never waits for one.
    ///
    /// - Parameter timeout: The longest time to wait; nil waits without limit, `.zero` does not wait.
    /// - Returns: The event; nil after the timeout.
    /// - Throws: `EIO` when the device is gone, `EOPNOTSUPP` when it has no events.
    public func nextEvent(timeout: Duration? = nil) throws(VerbsError) -> AsynchronousEvent? {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            if let event = try readEvent() { return event }
            guard waitUntilReadable(unsafeRaw.pointee.async_fd, until: deadline) else { return nil }
        }
    }

    /// Reads one event and acknowledges it. Returns nil when no event is pending.
    func readEvent() throws(VerbsError) -> AsynchronousEvent? {
        try Context.refuseInChild(.getAsyncEvent, object("context"))
        let descriptor = unsafeRaw.pointee.async_fd
        guard descriptor >= 0 else {
            throw VerbsError(.getAsyncEvent, errno: .notSupported, object: object("context"))
        }
        // Another process that shares the descriptor may have changed O_NONBLOCK, and a read must never block a task.
        guard setNonBlocking(descriptor) else {
            throw VerbsError(.getAsyncEvent, errno: Errno(rawValue: errno), object: object("context"))
        }
        while true {
            var raw = ibv_async_event()
            rdma_drop_explanation()
            let code = rdma_get_async_event(providerTable, unsafeRaw, &raw)
            if code == EAGAIN { return nil }
            if code == EINTR { continue }
            if code != 0 { throw failure(.getAsyncEvent, object("context"), code) }
            // The event is not yet acknowledged, so its object cannot be destroyed before the next lines.
            let event = AsynchronousEvent(raw)
            rdma_ack_async_event(&raw)
            return event
        }
    }
}
