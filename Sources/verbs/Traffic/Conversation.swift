import Verbs

/// The control connection during a run: what the peer says, whether it is still there, whether somebody has pressed
/// Ctrl-C.
final class Conversation {
    enum Role { case client, server }

    /// Why a job ends before its count or time is reached.
    enum Ending: Equatable {
        /// This process got a signal.
        case interrupted
        /// The peer got one.
        case stoppedByPeer
    }

    /// Looking costs a system call: it is done that often, in nanoseconds.
    private static let interval: UInt64 = 5_000_000
    /// How long the client may take to end a job that the server asks it to end.
    private static let stoppingTime: Duration = .seconds(5)

    let role: Role
    /// Set once: it stays for the rest of the run.
    private var ending: Ending?
    private let peer: Rendezvous
    /// Whether the peer has said anything yet.
    private var hasMet = false
    private var nextLook: UInt64 = 0
    private var stopDeadline: ContinuousClock.Instant?
    /// What came while something else was looked for.
    private var pending: ControlMessage?

    init(_ peer: Rendezvous, as role: Role) {
        self.peer = peer
        self.role = role
    }

    var peerName: String { peer.peerName }

    func send(_ message: ControlMessage) throws(ToolError) {
        do throws(RendezvousError) {
            try peer.send(message)
        } catch {
            throw ToolError(error)
        }
    }

    /// The peer's next message. Signals are noticed meanwhile.
    ///
    /// - Parameter timeout: nil waits for ever.
    func next(timeout: Duration? = Rendezvous.defaultTimeout) throws(ToolError) -> ControlMessage {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            try noticeSignal()
            if let message = pending {
                pending = nil
                return message
            }
            do throws(RendezvousError) {
                take(try peer.receive(ControlMessage.self, timeout: .milliseconds(20)))
            } catch {
                guard case .timedOut = error.reason else { throw ToolError(error) }
                if let deadline, ContinuousClock.now >= deadline { throw silence(error) }
            }
            try throwFailure()
        }
    }

    /// Looks at signals and at the peer, if the last look is a while ago. Throws if the peer is gone or has failed.
    ///
    /// - Returns: whether to go on: no signal here or there, and no message that waits for `next`.
    func look(now: UInt64) throws(ToolError) -> Bool {
        guard now >= nextLook else { return true }
        nextLook = now &+ Self.interval
        try noticeSignal()
        do throws(RendezvousError) {
            while pending == nil, let message = try peer.receiveIfAvailable(ControlMessage.self) { take(message) }
        } catch {
            throw ToolError(error)
        }
        try throwFailure()
        // A server that was interrupted serves on until the client has ended the job.
        return pending == nil && (ending == nil || role == .server)
    }

    /// Whether the run is to end early.
    var isEnding: Bool { ending != nil }

    /// Why it has ended early. A Ctrl-C that reached both sides at once was meant for this one as well.
    var reasonForEnding: Ending? { ending != nil && Interrupt.isRequested ? .interrupted : ending }

    /// Tells the peer about a failure of this side, if it is still there.
    func fail(_ error: ToolError) {
        try? peer.send(ControlMessage.failed(error: error), timeout: .seconds(1))
        peer.close()
    }

    func close() { peer.close() }

    /// The better explanation of an error: a queue pair whose peer has failed fails as well, and the peer may know
    /// more.
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

    /// The peer says nothing: a stranger perhaps, or one that hangs.
    private func silence(_ error: RendezvousError) -> ToolError {
        guard hasMet else { return ToolError(error) }
        return ToolError(
            .peerLost, "\(peerName) does not answer any more", hint: "look whether it hangs, or its machine is gone")
    }

    private func take(_ message: ControlMessage) {
        hasMet = true
        if case .stop = message {
            ending = ending ?? .stoppedByPeer
        } else {
            pending = message
        }
    }

    private func throwFailure() throws(ToolError) {
        guard case .failed(let error) = pending else { return }
        throw ToolError(.peerLost, "the other side failed: \(error.message)", hint: error.hint)
    }

    /// On the first signal the job is to end; a server asks the client to end it.
    private func noticeSignal() throws(ToolError) {
        if let stopDeadline, ContinuousClock.now >= stopDeadline {
            throw ToolError(.peerLost, "the client does not end the job", hint: "end it there as well")
        }
        guard Interrupt.isRequested, ending == nil else { return }
        ending = .interrupted
        guard role == .server else { return }
        stopDeadline = .now + Self.stoppingTime
        try send(.stop)
    }
}
