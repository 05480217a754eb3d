import CLinux
import CRDMACM
import Glibc
import Locking

/// An event of a software identifier, as librdmacm would report it in `struct rdma_cm_event`.
struct SoftwareEvent: Sendable {
    /// The identifier; of a connect request the new one, which the event holds.
    let identifier: SoftwareIdentifier
    /// Of a connect request: the listener.
    var listener: SoftwareIdentifier?
    let type: ConnectionEventType
    var status: Int32 = 0
    var privateData: [UInt8] = []
    var connection: ConnectionParameters?
    var datagram: DatagramParameters?

    init(_ identifier: SoftwareIdentifier, _ type: ConnectionEventType, status: Int32 = 0) {
        self.identifier = identifier
        self.type = type
        self.status = status
    }
}

/// The events of software identifiers that wait for a reader, with a descriptor that is readable while there are any.
final class SoftwareChannel: Sendable {
    /// The descriptor (eventfd(2)), non-blocking.
    let descriptor: Int32
    private let events = Locked<[SoftwareEvent]>([])

    /// Returns nil and sets errno when there is no descriptor left.
    init?() {
        descriptor = linux_wakeup()
        if descriptor < 0 {
            errno = -descriptor
            return nil
        }
    }

    deinit { close(descriptor) }

    func push(_ event: SoftwareEvent) {
        events.withLock { $0.append(event) }
        linux_eventfd_raise(descriptor)
    }

    /// Takes the next event; nil when there is none.
    func pop() -> SoftwareEvent? {
        events.withLock { events in
            // Read first: an event that is added afterwards makes it readable again.
            linux_drain(descriptor)
            guard !events.isEmpty else { return nil }
            let event = events.removeFirst()
            if !events.isEmpty { linux_eventfd_raise(descriptor) }
            return event
        }
    }

    /// Drops all events: a connect request holds its identifier, which holds the channel.
    func drain() {
        let dropped = events.withLock { events in
            defer { events = [] }
            return events
        }
        withExtendedLifetime(dropped) {}
    }

    /// Takes the events of an identifier out, to move or drop them.
    func remove(_ identifier: SoftwareIdentifier) -> [SoftwareEvent] {
        events.withLock { events in
            let removed = events.filter { $0.identifier === identifier }
            events.removeAll { $0.identifier === identifier }
            return removed
        }
    }
}
