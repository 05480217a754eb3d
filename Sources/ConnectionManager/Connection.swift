import Verbs

/// A connection that stands. The queue pair stays its owner's: data goes through it as through any other.
///
/// When the peer ends the connection, the queue pair goes to ERR, and what is posted completes as flushed. When the
/// last reference goes, the connection ends.
public final class Connection: Sendable {
    /// What the peer sent along with its answer, filled up with zeroes; of an accepted connection empty: that came with
    /// the request.
    public let privateData: [UInt8]
    private let conversation: Conversation

    init(_ conversation: Conversation, _ event: ConnectionEvent) {
        self.conversation = conversation
        privateData = event.privateData
    }

    /// The identifier, for what this class does not do.
    public var identifier: ConnectionIdentifier { conversation.identifier }
    /// The peer's address.
    public var peerAddress: ConnectionAddress? { identifier.peerAddress }
    /// The own address.
    public var localAddress: ConnectionAddress? { identifier.localAddress }
    /// Whether it stands, as far as is known here.
    public var isConnected: Bool { conversation.phase == .connected }

    /// What happens to the connection: `disconnected`, `timeWaitExit`, `deviceRemoval`, `addressChange`. Each event
    /// goes to one reader.
    ///
    /// - Parameter timeout: how long to wait; nil waits for ever.
    /// - Returns: nil when the time is over.
    public func nextEvent(timeout: Duration? = nil) async throws(ConnectionError) -> ConnectionEvent? {
        try await conversation.next(until: timeout.map { .now + $0 }, "wait for events of \(identifier)")
    }

    /// Waits until the connection has ended: by either side, or because the device goes. The queue pair is in ERR then.
    ///
    /// - Throws: `timedOut`, `cancelled`.
    public func waitUntilDisconnected(timeout: Duration? = nil) async throws(ConnectionError) {
        try await wait(for: .disconnected, timeout, "wait for the end of \(identifier)")
    }

    /// Ends the connection: the queue pair goes to ERR, the peer is told, and answers.
    ///
    /// - Parameter timeout: how long to wait for the peer's answer.
    /// - Throws: `timedOut`, `cancelled`; the connection is over all the same.
    public func disconnect(timeout: Duration = Connector.defaultTimeout) async throws(ConnectionError) {
        if conversation.phase < .disconnecting {
            conversation.advance(to: .disconnecting)
            conversation.fail(conversation.queuePair)
            // The peer may just have done the same: then there is nothing left to say, and the event comes.
            try? identifier.disconnect()
        }
        try await wait(for: .disconnected, timeout, "disconnect \(identifier)")
    }

    /// Ends the connection and waits until no late packet of it can come (TIMEWAIT_EXIT), so that the queue pair may
    /// carry another one; then moves the queue pair to RESET. Take what completed before: it is lost.
    ///
    /// - Parameter timeout: how long: the kernel waits for as long as a packet may live in the network, which is
    ///   usually below a second.
    /// - Throws: `timedOut`, `cancelled`, `verbs`.
    public func recycleQueuePair(timeout: Duration = Connector.defaultTimeout) async throws(ConnectionError) {
        try await disconnect(timeout: timeout)
        try await wait(for: .over, timeout, "wait for late packets of \(identifier)")
        var attributes = QueuePair.Attributes()
        attributes.state = .reset
        do throws(VerbsError) { try conversation.queuePair?.modify(attributes) } catch {
            throw ConnectionError(.verbs(error), operation: "reset the queue pair of \(identifier)")
        }
    }

    private func wait(
        for phase: Conversation.Phase, _ timeout: Duration?, _ operation: String
    ) async throws(ConnectionError) {
        let reached: Bool? = try await conversation.wait(until: timeout.map { .now + $0 }, operation) {
            $0.phase >= phase ? true : nil
        }
        if reached == nil { throw ConnectionError(.timedOut(timeout ?? .zero), operation: operation) }
    }
}
