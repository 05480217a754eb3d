import CRDMACM
import Glibc
import Locking
import SystemPackage
import Verbs

/// A channel that receives the events of identifiers (`struct rdma_event_channel`; rdma_create_event_channel(3)).
///
/// Each event goes to one reader, and is acknowledged as soon as it is read, so that destroying an identifier never
/// waits for one.
public final class EventChannel: @unchecked Sendable {
    // Unchecked: the pointer never changes, and librdmacm allows calls from any thread.
    let raw: UnsafeMutablePointer<rdma_event_channel>
    /// The live identifiers whose events this channel receives, by the address of the C struct.
    private let identifiers = Locked<[UInt: Member]>([:])

    private struct Member {
        weak var identifier: ConnectionIdentifier?
    }

    /// Opens a channel: rdma_create_event_channel(3).
    ///
    /// - Throws: `system` with `ENODEV` when the kernel has no RDMA device, or the distribution no provider for any,
    ///   with which librdmacm opens them; `ENOENT` when its module rdma_ucm is not loaded, `EACCES` when
    ///   /dev/infiniband/rdma_cm may not be opened; the hint says which.
    public init() throws(ConnectionError) {
        errno = 0
        guard let raw = rdma_create_event_channel() else {
            var code = errno
            // librdmacm then searches for the node elsewhere, and errno is that of the search.
            if code == ENOENT, faccessat(AT_FDCWD, "/dev/infiniband/rdma_cm", R_OK | W_OK, AT_EACCESS) != 0 {
                code = errno
            }
            throw ConnectionError("rdma_create_event_channel", code: code, operation: "use rdma_cm")
        }
        self.raw = raw
        guard setNonBlocking(raw.pointee.fd) else {
            let code = errno
            throw ConnectionError("fcntl", code: code, operation: "use rdma_cm")
        }
    }

    deinit { rdma_destroy_event_channel(raw) }

    /// The file descriptor, which is readable when an event is pending (`rdma_event_channel.fd`). An event loop calls
    /// `nextEvent(timeout: .zero)` until it returns nil.
    public var fileDescriptor: FileDescriptor { FileDescriptor(rawValue: raw.pointee.fd) }

    /// The events as an asynchronous sequence.
    public var events: ConnectionEvents { ConnectionEvents(channel: self) }

    func add(_ identifier: ConnectionIdentifier) {
        let key = UInt(bitPattern: identifier.raw)
        identifiers.withLock { $0[key] = Member(identifier: identifier) }
    }

    func remove(_ raw: UnsafeMutablePointer<rdma_cm_id>) {
        let key = UInt(bitPattern: raw)
        identifiers.withLock { $0[key] = nil }
    }

    private func identifier(_ raw: UnsafeMutablePointer<rdma_cm_id>?) -> ConnectionIdentifier? {
        let key = UInt(bitPattern: raw)
        return identifiers.withLock { $0[key]?.identifier }
    }
}

// MARK: - Reading

extension EventChannel {
    /// Waits for an event: rdma_get_cm_event(3), rdma_ack_cm_event(3). Blocks the thread; tasks use `events`.
    ///
    /// - Parameter timeout: How long to wait; nil waits without a limit, zero does not wait.
    /// - Returns: The event; nil when the time is over.
    public func nextEvent(timeout: Duration? = nil) throws(ConnectionError) -> ConnectionEvent? {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            if let event = try readEvent() { return event }
            guard waitUntilReadable(raw.pointee.fd, until: deadline) else { return nil }
        }
    }

    /// Waits for an event without blocking a thread; nil when the task is cancelled.
    func nextEventForTask() async throws(ConnectionError) -> ConnectionEvent? {
        while !Task.isCancelled {
            if let event = try readEvent() { return event }
            do throws(VerbsError) {
                let object = VerbsObject("event channel", device: "")
                guard try await waitUntilReadable(raw.pointee.fd, for: "rdma_get_cm_event", object) else { return nil }
            } catch {
                throw ConnectionError(.verbs(error), operation: "wait for events")
            }
        }
        return nil
    }

    /// Reads one event and acknowledges it; nil when no event is pending.
    func readEvent() throws(ConnectionError) -> ConnectionEvent? {
        while true {
            var raw: UnsafeMutablePointer<rdma_cm_event>?
            errno = 0
            let answer = rdma_get_cm_event(self.raw, &raw)
            let code = errno
            guard answer == 0, let raw else {
                if code == EAGAIN { return nil }
                if code == EINTR { continue }
                throw ConnectionError("rdma_get_cm_event", code: code, operation: "read an event")
            }
            let owners = owners(of: raw.pointee)
            // When librdmacm cannot use the device, it reports the status -1, and the cause in errno.
            let status = raw.pointee.status == -1 && code != 0 ? -code : raw.pointee.status
            let event = owners.identifier.map {
                ConnectionEvent(raw.pointee, status: status, identifier: $0, owners.listener)
            }
            // Before any reference is released: rdma_destroy_id(3) waits for the acknowledgement.
            withExtendedLifetime((owners, event)) { _ = rdma_ack_cm_event(raw) }
            // Events of a destroyed identifier are dropped.
            if let event { return event }
        }
    }

    /// The identifiers of an event. A connect request has a new identifier, which this function takes ownership of.
    private func owners(
        of raw: rdma_cm_event
    ) -> (identifier: ConnectionIdentifier?, listener: ConnectionIdentifier?) {
        guard raw.event == RDMA_CM_EVENT_CONNECT_REQUEST, let new = raw.id else { return (identifier(raw.id), nil) }
        return (ConnectionIdentifier(adopting: new, channel: self), identifier(raw.listen_id))
    }
}

extension ConnectionEvent {
    /// Copies an event before it is acknowledged.
    init(
        _ raw: rdma_cm_event, status: Int32, identifier: ConnectionIdentifier, _ listener: ConnectionIdentifier?
    ) {
        self.identifier = identifier
        self.listener = listener
        type = ConnectionEventType(rawValue: raw.event.rawValue)
        self.status = status
        if identifier.portSpace.isDatagram {
            connection = nil
            datagram = DatagramParameters(raw.param.ud)
            // In multicast events librdmacm stores the caller's context in private_data.
            let isMulticast = type == .multicastJoin || type == .multicastError
            privateData = isMulticast ? [] : Self.bytes(raw.param.ud.private_data, raw.param.ud.private_data_len)
        } else {
            connection = ConnectionParameters(raw.param.conn)
            datagram = nil
            privateData = Self.bytes(raw.param.conn.private_data, raw.param.conn.private_data_len)
        }
    }

    private static func bytes(_ start: UnsafeRawPointer?, _ count: UInt8) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : Int(count)))
    }
}

/// The events of a channel as an asynchronous sequence. Each event goes to one reader.
///
/// It ends when its task is cancelled; no event is lost then.
public struct ConnectionEvents: AsyncSequence, Sendable {
    /// One event.
    public typealias Element = ConnectionEvent
    /// The error of reading.
    public typealias Failure = ConnectionError

    let channel: EventChannel

    /// A step through the sequence.
    public func makeAsyncIterator() -> Iterator { Iterator(channel: channel) }

    /// Steps through the sequence.
    public struct Iterator: AsyncIteratorProtocol {
        let channel: EventChannel

        /// The next event; nil when the task is cancelled.
        public mutating func next() async throws(ConnectionError) -> ConnectionEvent? {
            try await channel.nextEventForTask()
        }

        /// The next event; nil when the task is cancelled.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws(ConnectionError) -> ConnectionEvent? {
            try await channel.nextEventForTask()
        }
    }
}
