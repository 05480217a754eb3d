import CLinux
import CRDMACM
import Glibc
import Locking

/// An event of a software identifier, as librdmacm would report it in `struct rdma_cm_event`.
package struct SoftwareEvent: @unchecked Sendable {
    // Unchecked: the pointers to private data in the C structs are null.

    /// The identifier; of a connect request the new one, which the event holds.
    package let identifier: SoftwareIdentifier
    /// Of a connect request: the listener.
    package internal(set) var listener: SoftwareIdentifier?
    /// Of a join: the group.
    package internal(set) var group: SocketAddress?
    package let type: rdma_cm_event_type
    package internal(set) var status: Int32 = 0
    package internal(set) var privateData: [UInt8] = []
    /// `rdma_cm_event.param.conn`, or zeros.
    package internal(set) var connection = rdma_conn_param()
    /// `rdma_cm_event.param.ud`, or zeros.
    package internal(set) var datagram = rdma_ud_param()

    init(_ identifier: SoftwareIdentifier, _ type: rdma_cm_event_type, status: Int32 = 0) {
        self.identifier = identifier
        self.type = type
        self.status = status
    }
}

/// The events of software identifiers that wait for a reader, with a descriptor that is readable while there are any.
package final class SoftwareChannel: Sendable {
    /// The descriptor, a counter of the events that wait: read(2) of 8 bytes takes one.
    package let descriptor: Int32
    /// Whether events of a connection that is not yet accepted are dropped, as the kernel drops those of an ID without a
    /// `uid`.
    let dropsEventsBeforeAcceptance: Bool
    private let isKept: Bool
    private let events = Locked<[SoftwareEvent]>([])

    /// Returns nil and sets errno when there is no descriptor left.
    /// - Parameter nonblocking: Whether the descriptor has `O_NONBLOCK`.
    /// - Parameter isKept: Whether the program does not know the descriptor (`OwnDescriptors`).
    package init?(nonblocking: Bool = true, dropsEventsBeforeAcceptance: Bool = false, isKept: Bool = false) {
        self.dropsEventsBeforeAcceptance = dropsEventsBeforeAcceptance
        self.isKept = isKept
        let counter = linux_counter(nonblocking)
        descriptor = isKept ? OwnDescriptors.keep(counter) : counter
        if descriptor < 0 {
            errno = -descriptor
            return nil
        }
    }

    deinit {
        if descriptor < 0 { return }
        if isKept { OwnDescriptors.close(descriptor) } else { close(descriptor) }
    }

    func push(_ event: SoftwareEvent) {
        events.withLock { events in
            events.append(event)
            linux_eventfd_raise(descriptor)
        }
    }

    /// Takes the next event; nil when there is none.
    /// - Parameter isCounted: Whether the caller has read the descriptor.
    package func pop(isCounted: Bool = false) -> SoftwareEvent? {
        events.withLock { events in
            guard !events.isEmpty else { return nil }
            if !isCounted { _ = linux_count_down(descriptor) }
            return events.removeFirst()
        }
    }

    /// Adds the count of an event that the caller has read and not taken.
    package func countAgain() { linux_eventfd_raise(descriptor) }

    /// Drops all events: a connect request holds its identifier, which holds the channel.
    package func drain() {
        let dropped = events.withLock { events in
            defer { events = [] }
            return events
        }
        withExtendedLifetime(dropped) {}
    }

    /// Takes the events of an identifier out, to move or drop them.
    func remove(_ identifier: SoftwareIdentifier) -> [SoftwareEvent] {
        events.withLock { events in
            let removed = events.filter { $0.identifier === identifier || $0.listener === identifier }
            events.removeAll { $0.identifier === identifier || $0.listener === identifier }
            for _ in removed { _ = linux_count_down(descriptor) }
            return removed
        }
    }
}
