import SystemPackage

/// The error of a ``Rendezvous``: no connection, or a failed one.
public struct RendezvousError: Error, Sendable, Equatable {
    /// The cause of the error.
    public enum Reason: Sendable, Equatable {
        /// The host name or address cannot be resolved; the text is that of gai_strerror(3).
        case unresolvable(String)
        /// No program listens on that port.
        case refused
        /// Another program uses the port to listen on (EADDRINUSE).
        case portInUse
        /// The call's time limit has passed.
        case timedOut
        /// The connection was ended with ``Rendezvous/close()``, by the peer or by this program.
        case closed
        /// The connection ended without an end frame: the peer crashed or was killed, or the network failed.
        case disconnected
        /// The received bytes are not a frame of this protocol: another program uses that port.
        case notRendezvous
        /// The peer uses this version of the protocol, which this program does not support.
        case wrongVersion(UInt8)
        /// A message of this size in bytes exceeds ``Rendezvous/maximumMessageSize``.
        case tooLarge(Int)
        /// A received message, or a message to be sent, is not of the expected type; the text has the details.
        case unexpectedMessage(String)
        /// The listener closed the connection, which had sent no frame, to accept newer ones
        /// (``RendezvousListener/maximumWaiting``).
        case displaced
        /// A host has several addresses, and connecting to each of them, or listening at each, has failed.
        case allFailed([Attempt])
        /// A system call failed.
        case system(Errno)
    }

    /// The result of one address of a host.
    public struct Attempt: Sendable, Equatable {
        /// The address, without the port.
        public var address: String
        /// The cause of the failure.
        public var reason: Reason

        /// A failed attempt with this address.
        public init(address: String, reason: Reason) {
            self.address = address
            self.reason = reason
        }
    }

    /// The cause of the error.
    public var reason: Reason
    /// The operation and its peer, such as `connect to node7 port 18515`.
    public var operation: String

    /// An error of this operation with this cause.
    public init(_ reason: Reason, operation: String) {
        self.reason = reason
        self.operation = operation
    }

    /// An action that can resolve the error.
    public var hint: String { hint(for: reason) }

    private func hint(for reason: Reason) -> String {
        switch reason {
        case .unresolvable: "Check the spelling of the host, or give its IP address."
        case .refused: "Start the listening side first, and check host and port."
        case .portInUse: "Choose another port, or end the program that listens there (`ss -ltnp` names it)."
        case .timedOut: "Check that the peer runs and that no firewall drops TCP to that port."
        case .closed: "The peer ended first: look at the output of the program at the peer."
        case .disconnected: "The peer crashed, was killed or lost its network: look at the output of the program there."
        case .notRendezvous: "Another program listens on that port: check host and port."
        case .wrongVersion: "Run the same version of the software on both sides."
        case .tooLarge: "Exchange connection values only; move data over RDMA."
        case .unexpectedMessage: "Run the same program, of the same version, on both sides."
        case .system(.permissionDenied), .system(.notPermitted):
            "Use a port above 1023, or ask for the right to use this one."
        case .system(.addressNotAvailable): "Give an address that one of this machine's interfaces has (`ip address`)."
        case .displaced: "Keep other programs away from that port, or choose another."
        case .allFailed(let attempts):
            // An address that refuses the connection belongs to a reachable host.
            hint(for: (attempts.first { $0.reason == .refused } ?? attempts.last)?.reason ?? .timedOut)
        case .system: "Check the network between the two sides."
        }
    }
}

extension RendezvousError: CustomStringConvertible {
    /// The operation and the cause in one line, without the hint.
    public var description: String { "cannot \(operation): \(Self.explanation(of: reason))" }

    private static func explanation(of reason: Reason) -> String {
        switch reason {
        case .unresolvable(let text): text
        case .refused: "connection refused"
        case .portInUse: "the port is in use"
        case .timedOut: "timed out"
        case .closed: "the peer has ended the connection"
        case .disconnected: "the connection broke"
        case .notRendezvous: "the program at that port is not a rendezvous"
        case .wrongVersion(let version):
            "the peer speaks version \(version) of the protocol, this program \(RendezvousFrame.version)"
        case .tooLarge(let size): "a message of \(size) bytes, at most \(Rendezvous.maximumMessageSize) are allowed"
        case .unexpectedMessage(let text): "unexpected message: \(text)"
        case .displaced: "\(RendezvousListener.maximumWaiting) connections came after it"
        case .allFailed(let attempts):
            attempts.map { "\($0.address): \(explanation(of: $0.reason))" }.joined(separator: "; ")
        case .system(let error): error.description
        }
    }
}
