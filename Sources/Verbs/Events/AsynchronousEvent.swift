import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

/// Something that happened to a device, a port or an object, unasked (ibv_get_async_event(3)).
public struct AsynchronousEvent: Hashable, Sendable, CustomStringConvertible {
    /// What happened.
    public let kind: Kind
    /// To what.
    public let subject: Subject

    /// What an event is about.
    public enum Subject: Hashable, Sendable {
        /// The device.
        case device
        /// A port, from 1. Events that this package does not know are taken for events of a port.
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

    /// An event of that kind.
    public init(kind: Kind, subject: Subject) {
        self.kind = kind
        self.subject = subject
    }

    /// Reads what verbs.h says; the objects must not be destroyed meanwhile.
    init(_ raw: ibv_async_event) {
        kind = Kind(rawValue: raw.event_type.rawValue)
        subject =
            switch kind {
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

    /// Such as `PORT_ERR: port 1`.
    public var description: String {
        switch subject {
        case .device: "\(kind): device"
        case .port(let number): "\(kind): port \(number)"
        case .queuePair(let number): "\(kind): queue pair 0x\(String(number, radix: 16))"
        case .completionQueue: "\(kind): completion queue"
        case .sharedReceiveQueue: "\(kind): shared receive queue"
        case .workQueue(let number): "\(kind): work queue 0x\(String(number, radix: 16))"
        }
    }
}

extension Context {
    /// Its descriptor for asynchronous events: readable when one waits. For event loops of one's own: call
    /// `nextEvent(timeout: .zero)` until it answers nil. -1 where the device has none.
    public var eventDescriptor: FileDescriptor { FileDescriptor(rawValue: unsafeRaw.pointee.async_fd) }

    /// Waits for an asynchronous event: ibv_get_async_event(3), ibv_ack_async_event(3). Blocks the thread; tasks
    /// use `events`.
    ///
    /// Each event goes to one reader, and is acknowledged as soon as it is read, so that destroying an object
    /// never waits for one.
    ///
    /// - Parameter timeout: how long; nil waits for ever, zero not at all.
    /// - Returns: the event; nil when the time is over.
    /// - Throws: `EIO` when the device is gone, `EOPNOTSUPP` where it has no events.
    public func nextEvent(timeout: Duration? = nil) throws(VerbsError) -> AsynchronousEvent? {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            if let event = try readEvent() { return event }
            guard waitUntilReadable(unsafeRaw.pointee.async_fd, until: deadline) else { return nil }
        }
    }

    /// Reads one event and acknowledges it; nil when none waits.
    func readEvent() throws(VerbsError) -> AsynchronousEvent? {
        let descriptor = unsafeRaw.pointee.async_fd
        guard descriptor >= 0 else {
            throw VerbsError(.getAsyncEvent, errno: .notSupported, object: object("context"))
        }
        // Whoever shares the descriptor may have changed it: a read must never block a task.
        guard setNonBlocking(descriptor) else {
            throw VerbsError(.getAsyncEvent, errno: Errno(rawValue: errno), object: object("context"))
        }
        while true {
            var raw = ibv_async_event()
            let code = rdma_get_async_event(providerTable, unsafeRaw, &raw)
            if code == EAGAIN { return nil }
            if code == EINTR { continue }
            try check(.getAsyncEvent, object("context"), code)
            // Not yet acknowledged, so its object cannot be destroyed before the next lines.
            let event = AsynchronousEvent(raw)
            rdma_ack_async_event(&raw)
            return event
        }
    }
}
