import Glibc
import ProviderLoader
import SystemPackage

/// An ordinary TCP connection through which two programs tell each other what they need before RDMA works:
/// queue pair numbers, GIDs, keys.
///
/// One side listens, the other connects, and each hands over its values in one call:
///
/// ```swift
/// let peer = try Rendezvous.listen()                   // on the one side
/// let peer = try Rendezvous.connect(to: "node7")       // on the other
/// let remote = try peer.exchange(local)                // on both
/// ```
///
/// It stays useful while RDMA runs: the connection ends with the peer's process, so
/// ``receiveBytesIfAvailable()`` tells a dead peer from a slow one.
///
/// Everything has a time limit, messages have a size limit, and nothing that a peer sends is believed
/// unchecked. There is no encryption and no authentication: use it in networks that you trust, as you do
/// with RDMA itself. Calls may come from several threads; each message arrives whole.
public final class Rendezvous: Sendable {
    /// The TCP port used when none is given: 18515, that of the ibv_*_pingpong programs.
    public static let defaultPort: UInt16 = 18515
    /// The largest message in bytes: 65,536. Both sides can send one at once without waiting for each other.
    public static let maximumMessageSize = 65_536
    /// How long calls wait when no time is given: ten seconds.
    public static let defaultTimeout: Duration = .seconds(10)

    /// The peer, as `host port N`, for messages to people.
    public let peerName: String
    private let socket: RendezvousSocket
    /// What has arrived and was not taken yet: never more than one message and a bit.
    private let input = Locked<[UInt8]>([])
    private let output = Locked<Bool>(false)

    init(socket: consuming RendezvousSocket, peerName: String) {
        self.socket = socket
        self.peerName = peerName
        self.socket.prepareForMessages()
    }

    /// Uses a connected stream socket that the program has got in some other way, such as inherited from the
    /// program that started it. Owns the descriptor from now on.
    public convenience init(adopting descriptor: FileDescriptor, peerName: String) throws(RendezvousError) {
        let socket = RendezvousSocket(descriptor.rawValue)
        guard socket.isStream else {
            throw RendezvousError(.system(.socketNotConnected), operation: "talk to \(peerName)")
        }
        self.init(socket: socket, peerName: peerName)
    }

    /// Waits for one peer on `port` and returns the connection with it. Use ``RendezvousListener`` to serve several.
    ///
    /// - Parameters:
    ///   - host: the local name or address to listen at; nil: every address, IPv4 and IPv6.
    ///   - port: the TCP port; 0 lets the system choose, which makes sense with ``RendezvousListener`` only.
    ///   - timeout: how long to wait; nil: for ever.
    public static func listen(
        host: String? = nil, port: UInt16 = defaultPort, timeout: Duration? = nil
    ) throws(RendezvousError) -> Rendezvous {
        try RendezvousListener(host: host, port: port).accept(timeout: timeout)
    }

    /// Connects to the side that listens.
    ///
    /// All addresses of the host are tried in the order in which the system gives them. The time limit does
    /// not cover the look-up of the name, which has limits of its own (resolv.conf(5)).
    public static func connect(
        to host: String, port: UInt16 = defaultPort, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Rendezvous {
        let name = "\(host) port \(port)"
        let deadline = ContinuousClock.now + timeout
        do throws(RendezvousError.Reason) {
            let addresses = try SocketAddress.resolve(host: host, port: port)
            var last = RendezvousError.Reason.refused
            for address in addresses {
                do throws(RendezvousError.Reason) {
                    return Rendezvous(socket: try .connect(to: address, deadline: deadline), peerName: name)
                } catch { last = error }
            }
            throw last
        } catch {
            throw RendezvousError(error, operation: "connect to \(name)")
        }
    }

    /// Sends one message.
    public func send(
        bytes message: [UInt8], timeout: Duration = defaultTimeout
    ) throws(RendezvousError) {
        guard message.count <= Self.maximumMessageSize else {
            throw RendezvousError(.tooLarge(message.count), operation: "send to \(peerName)")
        }
        try transmit(.message(message), deadline: .now + timeout)
    }

    /// Waits for the peer's next message.
    ///
    /// After ``RendezvousError/Reason/timedOut`` the call can be repeated: a message that has arrived in
    /// part is kept.
    public func receiveBytes(timeout: Duration = defaultTimeout) throws(RendezvousError) -> [UInt8] {
        guard let message = try take(deadline: .now + timeout) else {
            throw RendezvousError(.timedOut, operation: "receive from \(peerName)")
        }
        return message
    }

    /// The peer's next message if all of it has arrived, else nil. Throws if the peer has gone. Costs one
    /// system call.
    public func receiveBytesIfAvailable() throws(RendezvousError) -> [UInt8]? {
        try take(deadline: nil)
    }

    /// Tells the peer that the conversation has ended in good order, so that it gets
    /// ``RendezvousError/Reason/closed`` and not ``RendezvousError/Reason/disconnected``. Later calls of
    /// `send` fail; what the peer still sends can be received.
    public func close() {
        // The peer may be gone already: then there is nobody to tell.
        try? transmit(.end, deadline: .now + .seconds(1))
        socket.endOutput()
    }

    private func transmit(_ frame: RendezvousFrame, deadline: ContinuousClock.Instant) throws(RendezvousError) {
        do throws(RendezvousError.Reason) {
            try output.withLock { (ended: inout Bool) throws(RendezvousError.Reason) in
                guard !ended else { throw .closed }
                if frame == .end { ended = true }
                try socket.write(frame.encoded, deadline: deadline)
            }
        } catch {
            throw RendezvousError(error, operation: "send to \(peerName)")
        }
    }

    /// Takes one message; nil if the deadline has passed, or if there is none yet and no deadline.
    private func take(deadline: ContinuousClock.Instant?) throws(RendezvousError) -> [UInt8]? {
        do throws(RendezvousError.Reason) {
            return try input.withLock { (buffer: inout [UInt8]) throws(RendezvousError.Reason) in
                while true {
                    switch try RendezvousFrame.take(from: &buffer) {
                    case .message(let message): return message
                    case .end: throw .closed
                    case nil: break
                    }
                    if try socket.read(into: &buffer) { continue }
                    guard let deadline, try socket.wait(for: POLLIN, until: deadline) else { return nil }
                }
            }
        } catch {
            throw RendezvousError(error, operation: "receive from \(peerName)")
        }
    }
}
