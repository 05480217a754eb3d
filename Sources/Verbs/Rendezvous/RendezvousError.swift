import SystemPackage

/// Why two programs could not meet, or lost each other, over a ``Rendezvous``.
public struct RendezvousError: Error, Sendable, Equatable {
    /// What went wrong.
    public enum Reason: Sendable, Equatable {
        /// The host name or address has no meaning here; the text is the resolver's.
        case unresolvable(String)
        /// Nobody listens on that port.
        case refused
        /// The port to listen on is taken by another program.
        case portInUse
        /// The time that the caller gave ran out.
        case timedOut
        /// The peer ended the conversation in good order.
        case closed
        /// The connection broke without a word: the peer crashed, was killed, or gave up.
        case disconnected
        /// What arrived does not begin like a frame of this protocol: another program is at that port.
        case notRendezvous
        /// The peer speaks this version of the protocol, which this program does not.
        case wrongVersion(UInt8)
        /// A message of that many bytes is above ``Rendezvous/maximumMessageSize``.
        case tooLarge(Int)
        /// A whole message arrived (or was to be sent) that is not of the expected type; the text says where.
        case unexpectedMessage(String)
        /// A system call failed.
        case system(Errno)
    }

    /// What went wrong.
    public var reason: Reason
    /// What was being done and with whom, such as `connect to node7 port 18515`.
    public var operation: String

    /// An error of that reason, which stopped that operation.
    public init(_ reason: Reason, operation: String) {
        self.reason = reason
        self.operation = operation
    }

    /// What a person can try.
    public var hint: String {
        switch reason {
        case .unresolvable: "Check the spelling of the host, or give its IP address."
        case .refused: "Start the listening side first, and check host and port."
        case .portInUse: "Choose another port, or end the program that listens there (`ss -ltnp` names it)."
        case .timedOut: "Check that the other side runs and that no firewall drops TCP to that port."
        case .closed: "The other side ended first: its own output says why."
        case .disconnected: "The other side crashed, was killed or lost its network: look at its own output."
        case .notRendezvous: "Another program answers at that port: check host and port."
        case .wrongVersion: "Run the same version of the software on both sides."
        case .tooLarge: "Exchange connection values only; move data over RDMA."
        case .unexpectedMessage: "Run the same program, of the same version, on both sides."
        case .system(.permissionDenied), .system(.notPermitted):
            "Use a port above 1023, or ask for the right to use this one."
        case .system(.addressNotAvailable): "Give an address that one of this machine's interfaces has (`ip address`)."
        case .system: "Check the network between the two sides."
        }
    }
}

extension RendezvousError: CustomStringConvertible {
    /// One line that says what could not be done and why, without the hint.
    public var description: String { "cannot \(operation): \(explanation)" }

    private var explanation: String {
        switch reason {
        case .unresolvable(let text): text
        case .refused: "connection refused"
        case .portInUse: "the port is in use"
        case .timedOut: "timed out"
        case .closed: "the peer has ended the conversation"
        case .disconnected: "the connection broke"
        case .notRendezvous: "what answers is not a rendezvous"
        case .wrongVersion(let version):
            "the peer speaks version \(version) of the protocol, this program \(RendezvousFrame.version)"
        case .tooLarge(let size): "a message of \(size) bytes, at most \(Rendezvous.maximumMessageSize) are allowed"
        case .unexpectedMessage(let text): "unexpected message: \(text)"
        case .system(let error): error.description
        }
    }
}
