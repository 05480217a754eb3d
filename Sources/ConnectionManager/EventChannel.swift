import CLinux
import CRDMACM
import Glibc
import Locking
import SoftwareConnections
import SystemPackage
import Verbs

/// A channel that receives the events of identifiers (`struct rdma_event_channel`; rdma_create_event_channel(3)).
///
/// Each event goes to one reader, and is acknowledged as soon as it is read, so that destroying an identifier never
/// waits for one.
public final class EventChannel: @unchecked Sendable {
    // Unchecked: the pointer never changes, and librdmacm allows calls from any thread.
    /// The channel of librdmacm; nil where the kernel's rdma_cm cannot be used.
    let kernel: UnsafeMutablePointer<rdma_event_channel>?
    /// The channel for software devices; nil where the kernel's rdma_cm serves all addresses.
    let software: SoftwareChannel?
    /// The descriptor that is readable when either has an event (epoll(7)); -1 where there is only one.
    private let both: Int32
    /// The live identifiers whose events this channel receives, by the address of the C struct.
    private let identifiers = Locked<[UInt: Member]>([:])

    private struct Member {
        weak var identifier: ConnectionIdentifier?
    }

    /// Opens a channel: rdma_create_event_channel(3).
    ///
    /// Where the kernel has no RDMA device or no rdma_cm, software devices serve every identifier. Where the kernel's rdma_cm can be used, software devices serve addresses of the
    /// interfaces that `RDMA_SOFT_INTERFACES` names.
    ///
    /// - Throws: `system` with `EACCES` when /dev/infiniband/rdma_cm may not be opened, `ENODEV` when the distribution has no
    ///   provider for the kernel's devices, `EMFILE`; the hint says which.
    public init() throws(ConnectionError) {
        let kernel = try Self.openKernel()
        var software: SoftwareChannel?
        if kernel == nil || !SoftwareService.namedInterfaces.isEmpty {
            let code = SoftwareService.shared.start()
            guard code == 0 else {
                if let kernel { rdma_destroy_event_channel(kernel) }
                throw ConnectionError("pthread_create", code: code, operation: "use the connection manager")
            }
            software = SoftwareChannel()
            guard software != nil else {
                let code = errno
                if let kernel { rdma_destroy_event_channel(kernel) }
                throw ConnectionError("eventfd", code: code, operation: "use the connection manager")
            }
        }
        var both: Int32 = -1
        if let kernel, let software {
            both = linux_ready_list()
            let isWatched =
                both >= 0 && linux_ready_add(both, kernel.pointee.fd, 0) == 0
                && linux_ready_add(both, software.descriptor, 1) == 0
            guard isWatched else {
                let code = both < 0 ? -both : errno
                if both >= 0 { close(both) }
                rdma_destroy_event_channel(kernel)
                throw ConnectionError("epoll_create1", code: code, operation: "use the connection manager")
            }
        }
        (self.kernel, self.software, self.both) = (kernel, software, both)
    }

    /// Opens librdmacm's channel; nil where the kernel's rdma_cm is not there.
    private static func openKernel() throws(ConnectionError) -> UnsafeMutablePointer<rdma_event_channel>? {
        errno = 0
        guard let raw = rdma_create_event_channel() else {
            var code = errno
            // librdmacm then searches for the node elsewhere, and errno is that of the search.
            if code == ENOENT, faccessat(AT_FDCWD, "/dev/infiniband/rdma_cm", R_OK | W_OK, AT_EACCESS) != 0 {
                code = errno
            }
            // The kernel's devices have no provider of the distribution. Another device must not serve their addresses
            // unasked.
            let isProviderMissing =
                code == ENODEV && SoftwareService.namedInterfaces.isEmpty && ConnectionAdvice.kernelHasDevices
            if (code == ENODEV || code == ENOENT || code == ENXIO) && !isProviderMissing { return nil }
            throw ConnectionError("rdma_create_event_channel", code: code, operation: "use rdma_cm")
        }
        guard setNonBlocking(raw.pointee.fd) else {
            let code = errno
            rdma_destroy_event_channel(raw)
            throw ConnectionError("fcntl", code: code, operation: "use rdma_cm")
        }
        return raw
    }

    deinit {
        software?.drain()
        if both >= 0 { close(both) }
        if let kernel { rdma_destroy_event_channel(kernel) }
    }

    private var descriptor: Int32 { both >= 0 ? both : kernel?.pointee.fd ?? software!.descriptor }

    /// The file descriptor, which is readable when an event is pending (`rdma_event_channel.fd`). An event loop calls
    /// `nextEvent(timeout: .zero)` until it returns nil.
    public var fileDescriptor: FileDescriptor { FileDescriptor(rawValue: descriptor) }

    /// The events as an asynchronous sequence.
    public var events: ConnectionEvents { ConnectionEvents(channel: self) }

    func add(_ identifier: ConnectionIdentifier) {
        let member = Member(identifier: identifier)
        let keys = identifier.keys
        identifiers.withLock { identifiers in
            for key in keys { identifiers[key] = member }
        }
    }

    /// - Parameter keys: Those of the identifier: `ConnectionIdentifier.keys`.
    func remove(_ keys: [UInt]) {
        identifiers.withLock { identifiers in
            for key in keys { identifiers[key] = nil }
        }
    }

    fileprivate func identifier(_ raw: UnsafeMutablePointer<rdma_cm_id>?) -> ConnectionIdentifier? {
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
            guard waitUntilReadable(descriptor, until: deadline) else { return nil }
        }
    }

    /// Waits for an event without blocking a thread; nil when the task is cancelled.
    func nextEventForTask() async throws(ConnectionError) -> ConnectionEvent? {
        while !Task.isCancelled {
            if let event = try readEvent() { return event }
            do throws(VerbsError) {
                let object = VerbsObject("event channel", device: "")
                guard try await waitUntilReadable(descriptor, for: "rdma_get_cm_event", object) else { return nil }
            } catch {
                throw ConnectionError(.verbs(error), operation: "wait for events")
            }
        }
        return nil
    }

    /// Reads one event and acknowledges it; nil when no event is pending.
    func readEvent() throws(ConnectionError) -> ConnectionEvent? {
        if let kernel, let event = try readEvent(from: kernel) { return event }
        guard let software else { return nil }
        while let event = software.pop() {
            if let event = ConnectionEvent(event, of: self) { return event }
        }
        return nil
    }

    private func readEvent(
        from kernel: UnsafeMutablePointer<rdma_event_channel>
    ) throws(ConnectionError) -> ConnectionEvent? {
        while true {
            var raw: UnsafeMutablePointer<rdma_cm_event>?
            errno = 0
            let answer = rdma_get_cm_event(kernel, &raw)
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
    /// Takes an event of a software identifier; nil when the identifier is destroyed. A connect request has a new one.
    fileprivate init?(_ event: SoftwareEvent, of channel: EventChannel) {
        if event.type == RDMA_CM_EVENT_CONNECT_REQUEST {
            identifier = ConnectionIdentifier(adopting: event.identifier, channel: channel)
            listener = channel.identifier(event.listener?.raw)
        } else {
            guard let identifier = channel.identifier(event.identifier.raw) else { return nil }
            self.identifier = identifier
            listener = nil
        }
        type = ConnectionEventType(rawValue: event.type.rawValue)
        status = event.status
        privateData = event.privateData
        let isDatagram = identifier.portSpace.isDatagram
        connection = isDatagram ? nil : ConnectionParameters(event.connection)
        datagram = isDatagram ? DatagramParameters(event.datagram) : nil
    }

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
