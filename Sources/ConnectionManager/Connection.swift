import Verbs

/// An established connection (`RDMA_CM_EVENT_ESTABLISHED`). The queue pair belongs to the caller, which posts to it.
///
/// When the peer ends the connection, the queue pair moves to ERR, and posted work requests complete with the status
/// `WR_FLUSH_ERR`. The connection ends when its last reference is released.
public final class Connection: Sendable {
    /// Private data of the peer's REP (`rdma_conn_param.private_data`), padded with zeroes, on iWARP without padding.
    /// Empty for an accepted
    /// connection, whose private data came with the request.
    public let privateData: [UInt8]
    private let managed: ManagedConnection

    init(_ managed: ManagedConnection, _ event: ConnectionEvent) {
        self.managed = managed
        privateData = event.privateData
    }

    /// The identifier (`rdma_cm_id`), for calls that this class does not offer.
    public var identifier: ConnectionIdentifier { managed.identifier }
    /// The peer's address: rdma_get_peer_addr(3).
    public var peerAddress: ConnectionAddress? { identifier.peerAddress }
    /// The local address: rdma_get_local_addr(3).
    public var localAddress: ConnectionAddress? { identifier.localAddress }
    /// Whether the connection is established, as far as this side knows.
    public var isConnected: Bool { managed.phase == .connected }

    /// Waits for the next event of the connection: `RDMA_CM_EVENT_DISCONNECTED`, `RDMA_CM_EVENT_TIMEWAIT_EXIT`,
    /// `RDMA_CM_EVENT_DEVICE_REMOVAL`, `RDMA_CM_EVENT_ADDR_CHANGE`. Each event goes to one reader.
    ///
    /// - Parameter timeout: How long to wait; nil waits without a limit.
    /// - Returns: The event; nil when the time is over.
    public func nextEvent(timeout: Duration? = nil) async throws(ConnectionError) -> ConnectionEvent? {
        try await managed.next(until: timeout.map { .now + $0 }, "wait for events of \(identifier)")
    }

    /// Waits until the connection has ended, by either side or because the device was removed. The queue pair is in ERR
    /// afterwards.
    ///
    /// - Throws: `timedOut`, `cancelled`; `verbs` when the queue pair could not be moved to ERR.
    public func waitUntilDisconnected(timeout: Duration? = nil) async throws(ConnectionError) {
        let operation = "wait for the end of \(identifier)"
        try await wait(for: .disconnected, timeout, operation)
        try requireFlushed(operation)
    }

    /// Ends the connection: rdma_disconnect(3). Moves the queue pair to ERR, sends the disconnect request (DREQ), and
    /// waits for the peer's reply (DREP). On iWARP it closes the TCP connection, and does not wait for the peer.
    ///
    /// - Parameter timeout: The longest time to wait for the peer's reply.
    /// - Throws: `timedOut`, `cancelled`, `system`, or `verbs` when the queue pair could not be moved to ERR; the
    ///   connection has ended in each case.
    public func disconnect(timeout: Duration = Connector.defaultTimeout) async throws(ConnectionError) {
        let operation = "disconnect \(identifier)"
        var refusal: ConnectionError?
        if managed.phase < .disconnecting {
            managed.advance(to: .disconnecting)
            // iWARP: the kernel moves the queue pair and closes the TCP connection; in ERR it would abort it.
            if !identifier.isIWARP { managed.fail(managed.queuePair) }
            do throws(ConnectionError) { try identifier.disconnect() } catch {
                // The peer may have disconnected at the same time: then the event follows.
                guard case .system(_, .invalidArgument) = error.reason else { throw error }
                refusal = error
            }
        }
        do throws(ConnectionError) { try await wait(for: .disconnected, timeout, operation) } catch {
            // No event followed, so the call did not fail because the peer had disconnected.
            if case .timedOut = error.reason, let refusal { throw refusal }
            throw error
        }
        try requireFlushed(operation)
    }

    /// Throws when the queue pair could not be moved to ERR, so that posted work requests do not complete.
    private func requireFlushed(_ operation: String) throws(ConnectionError) {
        guard let failure = managed.queuePairFailure else { return }
        throw ConnectionError(.verbs(failure), operation: operation)
    }

    /// Ends the connection, waits until no late packet of it can arrive (`RDMA_CM_EVENT_TIMEWAIT_EXIT`), and moves the
    /// queue pair to RESET, so that it can carry another connection. Poll its completions first: the reset drops them.
    /// - Parameter timeout: The longest time to wait for each event. The kernel waits for the lifetime of a packet in
    ///   the network, usually less than a second.
    /// - Throws: `timedOut`, `cancelled`, `verbs`; on iWARP, where a queue pair carries one connection, `invalid`, and
    ///   the connection goes on.
    public func recycleQueuePair(timeout: Duration = Connector.defaultTimeout) async throws(ConnectionError) {
        if identifier.isIWARP {
            throw ConnectionError(
                .invalid("an iWARP queue pair carries one connection"),
                operation: "reset the queue pair of \(identifier)", hint: "make a new queue pair")
        }
        try await disconnect(timeout: timeout)
        try await wait(for: .over, timeout, "wait for late packets of \(identifier)")
        var attributes = QueuePair.Attributes()
        attributes.state = .reset
        do throws(VerbsError) { try managed.queuePair?.modify(attributes) } catch {
            throw ConnectionError(.verbs(error), operation: "reset the queue pair of \(identifier)")
        }
    }

    private func wait(
        for phase: ManagedConnection.Phase, _ timeout: Duration?, _ operation: String
    ) async throws(ConnectionError) {
        let reached: Bool? = try await managed.wait(until: timeout.map { .now + $0 }, operation) {
            $0.phase >= phase ? true : nil
        }
        if reached == nil { throw ConnectionError(.timedOut(timeout ?? .zero), operation: operation) }
    }
}
