import Rendezvous
import Verbs

/// The control connection of a run: messages from the peer, detection of a lost or silent peer, and the end of the run
/// by a signal.
final class ControlConnection {
    enum Role { case client, server }

    /// Why a job ends before its count or time is reached.
    enum Ending: Equatable {
        /// This process received a signal.
        case interrupted
        /// The peer received a signal.
        case stoppedByPeer
    }

    /// The time between two checks of the connection, each of which needs a system call; in nanoseconds.
    private static let interval: UInt64 = 5_000_000
    /// The time limit for the client to end a job after the server's `stop`.
    private static let stoppingTime: Duration = .seconds(5)
    /// The interval of the client's `alive` messages, in nanoseconds. The TCP connection of a stopped program stays
    /// open.
    private static let aliveInterval: UInt64 = 200_000_000

    let role: Role
    /// Whether an error that the peer reports is thrown as it is: the peer is a process that this one has started.
    var passesFailures = false
    /// The longest silence of the peer while this process waits for it, in nanoseconds.
    private(set) var timeout = Rendezvous.defaultTimeout.nanoseconds
    private var silence = WaitTimer(since: Clock.now())
    private var nextAlive: UInt64 = 0
    /// Set once, for the rest of the run.
    private var ending: Ending?
    private let peer: Rendezvous
    /// Whether the peer received this process's error.
    private(set) var hasReportedToPeer = false
    /// Whether the peer has sent a message.
    private var hasHeardFromPeer: Bool
    private var nextCheck: UInt64 = 0
    private var stopDeadline: ContinuousClock.Instant?
    /// A message that `next` has not yet returned.
    private var pending: ControlMessage?

    /// - Parameter hasHeardFromPeer: Whether the peer has sent a message over this connection before.
    init(_ peer: Rendezvous, as role: Role, hasHeardFromPeer: Bool = false) {
        self.peer = peer
        self.role = role
        self.hasHeardFromPeer = hasHeardFromPeer
        route = try? Route(of: peer.fileDescriptor)
    }

    /// The same connection, with this process in the role of the client. The peer has sent nothing that `next` has not
    /// returned.
    var turned: ControlConnection { ControlConnection(peer, as: .client, hasHeardFromPeer: true) }

    var peerName: String { peer.peerName }
    /// The route to the peer; nil: the peer is a local server.
    let route: Route?

    /// The peer's IP address, for rdma_cm; 127.0.0.1 of a local server.
    var peerHost: String {
        guard let route else { return "127.0.0.1" }
        return route.remote.hostAddress ?? "127.0.0.1"
    }

    /// Sets how long to wait for a silent peer, and for a network that does not deliver.
    func setTimeout(_ time: Duration) {
        timeout = time.nanoseconds
        peer.setTolerance(time)
    }

    func send(_ message: ControlMessage) throws(ToolError) {
        do throws(RendezvousError) {
            try peer.send(message)
        } catch {
            throw ToolError(error)
        }
    }

    /// Waits for the peer's next message, and checks for signals meanwhile. The server measures the client's silence
    /// from its last message; the client measures the server's from this call on.
    func next() throws(ToolError) -> ControlMessage {
        if role == .client { silence = WaitTimer(since: Clock.now()) }
        while true {
            try checkSignal()
            if let message = pending {
                pending = nil
                return message
            }
            do throws(RendezvousError) {
                take(try peer.receive(ControlMessage.self, timeout: .milliseconds(20)))
            } catch {
                guard case .timedOut = error.reason else { throw ToolError(error) }
                try checkSilence(now: Clock.now(), for: error)
            }
            try throwFailure()
        }
    }

    /// Checks for signals and messages of the peer, if the last check is `interval` ago. Throws if the connection is
    /// lost, if the peer reported an error, or if a server's client has been silent for too long.
    ///
    /// - Returns: Whether to continue: neither peer received a signal, and no message is pending for `next`.
    func checkPeer(now: UInt64) throws(ToolError) -> Bool {
        guard now >= nextCheck else { return true }
        nextCheck = now &+ Self.interval
        try checkSignal()
        do throws(RendezvousError) {
            while pending == nil, let message = try peer.receiveIfAvailable(ControlMessage.self) { take(message) }
        } catch {
            throw ToolError(error)
        }
        try throwFailure()
        // A client waits for RDMA completions with the timeout of the job.
        if role == .client { sendKeepalive(now: now) } else { try checkSilence(now: now, for: nil) }
        // A server that was interrupted continues until the client has ended the job.
        return pending == nil && (ending == nil || role == .server)
    }

    /// The message for which `checkPeer` has returned false, if it has received one.
    func takePending() -> ControlMessage? {
        defer { pending = nil }
        return pending
    }

    /// Throws if the peer has been silent for too long.
    private func checkSilence(now: UInt64, for error: RendezvousError?) throws(ToolError) {
        sendKeepalive(now: now)
        guard silence.elapsed(at: now) > timeout else { return }
        guard !hasHeardFromPeer, let error else { throw ToolError.peerSilent(peerName, timeout) }
        throw ToolError(error)
    }

    /// Sends `alive` to the server.
    private func sendKeepalive(now: UInt64) {
        guard role == .client, hasHeardFromPeer, now >= nextAlive else { return }
        nextAlive = now &+ Self.aliveInterval
        // The next check detects a lost connection.
        try? peer.send(ControlMessage.alive, timeout: .zero)
    }

    /// Whether the run must end early.
    var isEnding: Bool { ending != nil }

    /// Why the run ended early. If the peer stopped the run and this process received a signal too, as with Ctrl-C in a
    /// terminal, the reason is the signal.
    var reasonForEnding: Ending? { ending != nil && Interrupt.isRequested ? .interrupted : ending }

    /// Sends this process's error to the peer, if possible, and closes the connection.
    func fail(_ error: ToolError) {
        hasReportedToPeer = (try? peer.send(ControlMessage.failed(error: error), timeout: .seconds(1))) != nil
        peer.close()
    }

    func close() { peer.close() }

    /// The cause of an error. A work completion with an error may be the consequence of an error of the peer, so this
    /// waits up to 200 ms for the peer's report.
    func explain(_ error: VerbsError) -> ToolError {
        guard error.completionStatus != nil else { return ToolError(error) }
        do throws(ToolError) {
            for _ in 0..<10 {
                do throws(RendezvousError) {
                    take(try peer.receive(ControlMessage.self, timeout: .milliseconds(20)))
                } catch {
                    guard case .timedOut = error.reason else { throw ToolError(error) }
                }
                try throwFailure()
            }
        } catch {
            return error
        }
        return ToolError(error)
    }

    private func take(_ message: ControlMessage) {
        hasHeardFromPeer = true
        silence = WaitTimer(since: Clock.now())
        switch message {
        case .alive: break
        case .stop: ending = ending ?? .stoppedByPeer
        default: pending = message
        }
    }

    private func throwFailure() throws(ToolError) {
        guard case .failed(let error) = pending else { return }
        if passesFailures { throw error }
        throw ToolError(.peerLost, "the peer failed: \(error.message)", hint: error.hint)
    }

    /// Ends the job on the first signal; a server asks the client to end it.
    /// Throws if the client does not do so in time.
    private func checkSignal() throws(ToolError) {
        if let stopDeadline, ContinuousClock.now >= stopDeadline {
            throw ToolError(.peerLost, "the client did not end the job", hint: "stop the client too")
        }
        guard Interrupt.isRequested, ending == nil else { return }
        ending = .interrupted
        guard role == .server else { return }
        stopDeadline = .now + Self.stoppingTime
        try send(.stop)
    }
}
