import Glibc
import Locking
import SystemPackage

/// A TCP connection over which two programs exchange the values that they need to connect their queue pairs: QPNs,
/// GIDs, rkeys.
///
/// One program listens, the other connects, and each exchanges its values in one call:
///
/// ```swift
/// let peer = try Rendezvous.listen()                   // in one program
/// let peer = try Rendezvous.connect(to: "node7")       // in the other
/// let remote = try peer.exchange(local)                // in both
/// ```
///
/// Keep it open while RDMA is in use: the connection ends with the peer's process, so
/// ``receiveBytesIfAvailable()`` distinguishes a peer that has ended from a slow one.
///
/// Every call has a time limit, except listening, where it is optional. Messages have a size limit, and received bytes
/// are checked. There is no encryption and no authentication: use it only in trusted networks, like RDMA itself. Any
/// thread may call any function; messages of different threads are not mixed.
public final class Rendezvous: Sendable {
    /// The default TCP port: 18515, that of the ibv_*_pingpong programs.
    public static let defaultPort: UInt16 = 18515
    /// The largest message in bytes: 65,536. Both programs can send one at the same time without waiting for each
    /// other.
    public static let maximumMessageSize = 65_536
    /// The default time limit of a call: ten seconds.
    public static let defaultTimeout: Duration = .seconds(10)

    /// The peer, as `HOST port N`, for messages to the user.
    public let peerName: String
    /// The connected socket, for poll(2), getpeername(2) and setsockopt(2). It is closed with this object. Do not read
    /// from it or write to it: that breaks the protocol.
    public var fileDescriptor: FileDescriptor { socket.fileDescriptor }
    let socket: RendezvousSocket
    private let input = Locked(Input())
    private let output = Locked(Output())

    init(socket: consuming RendezvousSocket, peerName: String) {
        self.socket = socket
        self.peerName = peerName
        self.socket.prepareForMessages()
    }

    private struct Input {
        /// Received bytes that were not consumed yet: at most one message and part of the next.
        var buffer: [UInt8] = []
        /// Whether a frame was consumed. Only the first frame may be a greeting.
        var hasBegun = false
    }

    private struct Output {
        var hasEnded = false
        /// The rest of a frame that was sent partially before its time limit. It is sent before the next frame.
        var rest: [UInt8] = []
    }

    /// Takes ownership of a connected stream socket that the program has obtained in another way, such as inherited
    /// from its parent process.
    public convenience init(adopting descriptor: FileDescriptor, peerName: String) throws(RendezvousError) {
        let socket = RendezvousSocket(descriptor.rawValue)
        do throws(RendezvousError.Reason) {
            guard try socket.isStream() else { throw .system(.protocolNotSupported) }
        } catch {
            throw RendezvousError(error, operation: "talk to \(peerName)")
        }
        self.init(socket: socket, peerName: peerName)
    }

    /// Waits for one peer on `port` and returns the connection with it. Use ``RendezvousListener`` to serve several.
    ///
    /// A peer is a program that has called ``connect(to:port:timeout:)``. Other connections are closed, as
    /// ``RendezvousListener/accept(timeout:refused:)`` describes.
    ///
    /// - Parameters:
    ///   - host: The local name or address to listen at; nil: every address, IPv4 and IPv6.
    ///   - port: The TCP port; 0: chosen by the system. Use 0 with ``RendezvousListener``, which reports the port.
    ///   - timeout: The time limit; nil: no limit.
    public static func listen(
        host: String? = nil, port: UInt16 = defaultPort, timeout: Duration? = nil
    ) throws(RendezvousError) -> Rendezvous {
        try RendezvousListener(host: host, port: port).accept(timeout: timeout)
    }

    /// Connects to the program that listens.
    ///
    /// The addresses of the host are tried according to RFC 8305: IPv6 and IPv4 addresses alternate, the next address
    /// is tried after at most 250 ms or when an attempt has failed, and the first connection is used. The time limit
    /// covers all attempts, but not the resolution of the name, which has its own limits (resolv.conf(5)).
    public static func connect(
        to host: String, port: UInt16 = defaultPort, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Rendezvous {
        let name = "\(host) port \(port)"
        do throws(RendezvousError.Reason) {
            let addresses = try SocketAddress.resolve(host: host, port: port)
            let socket = try ConnectionRace.run(addresses, timeout: timeout)
            let peer = Rendezvous(socket: socket, peerName: name)
            // The frame fits into the empty send buffer of a new socket.
            _ = try peer.socket.write(RendezvousFrame.greeting.encoded, deadline: .now)
            return peer
        } catch {
            throw RendezvousError(error, operation: "connect to \(name)")
        }
    }

    /// Sends one message.
    ///
    /// After ``RendezvousError/Reason/timedOut`` the peer receives the whole message or nothing: the next call sends
    /// the rest of a message that was sent partially.
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
    /// After ``RendezvousError/Reason/timedOut`` the call can be repeated: a partially received message is kept.
    public func receiveBytes(timeout: Duration = defaultTimeout) throws(RendezvousError) -> [UInt8] {
        guard let message = try take(deadline: .now + timeout) else {
            throw RendezvousError(.timedOut, operation: "receive from \(peerName)")
        }
        return message
    }

    /// The peer's next message, or nil if it has not arrived completely. Does not wait; one system call if nothing has
    /// arrived. Throws ``RendezvousError/Reason/closed`` or ``RendezvousError/Reason/disconnected`` if the connection
    /// has ended.
    public func receiveBytesIfAvailable() throws(RendezvousError) -> [UInt8]? {
        try take(deadline: nil)
    }

    /// Ends the connection with an end frame, so that the peer's calls throw ``RendezvousError/Reason/closed`` and not
    /// ``RendezvousError/Reason/disconnected``. Later calls of `send` fail; messages of the peer can still be received.
    public func close() {
        // An error is ignored: the peer may have closed the connection already.
        try? transmit(.end, deadline: .now + .seconds(1))
        socket.endOutput()
    }

    /// Sets the time after which the connection fails if the peer's kernel does not acknowledge sent data
    /// (`TCP_USER_TIMEOUT`); the default is ten seconds. The kernel acknowledges data for a stopped process too.
    public func setTolerance(_ time: Duration) { socket.setTolerance(time) }

    /// Whether the header of the first frame has arrived, which identifies the peer as a rendezvous. Throws for any
    /// other protocol.
    func hasBegun() throws(RendezvousError) -> Bool {
        do throws(RendezvousError.Reason) {
            return try input.withLock { (input: inout Input) throws(RendezvousError.Reason) in
                while try RendezvousFrame.length(of: input.buffer) == nil {
                    guard try socket.read(into: &input.buffer) else { return false }
                }
                return true
            }
        } catch {
            throw RendezvousError(error, operation: "receive from \(peerName)")
        }
    }

    private func transmit(_ frame: RendezvousFrame, deadline: ContinuousClock.Instant) throws(RendezvousError) {
        do throws(RendezvousError.Reason) {
            try output.withLock { (output: inout Output) throws(RendezvousError.Reason) in
                guard !output.hasEnded else { throw .closed }
                if frame == .end { output.hasEnded = true }
                let start = output.rest.count
                let bytes = output.rest + frame.encoded
                let sent = try socket.write(bytes, deadline: deadline)
                output.rest = Array(bytes[sent..<(sent > start ? bytes.count : start)])
                if sent < bytes.count { throw .timedOut }
            }
        } catch {
            throw RendezvousError(error, operation: "send to \(peerName)")
        }
    }

    /// Receives one message. Nil if the deadline has passed, or, without a deadline, if none has arrived.
    private func take(deadline: ContinuousClock.Instant?) throws(RendezvousError) -> [UInt8]? {
        do throws(RendezvousError.Reason) {
            return try input.withLock { (input: inout Input) throws(RendezvousError.Reason) in
                while true {
                    if let frame = try RendezvousFrame.take(from: &input.buffer) {
                        defer { input.hasBegun = true }
                        switch frame {
                        case .message(let message): return message
                        case .end: throw .closed
                        case .greeting where input.hasBegun: throw .unexpectedMessage("a second greeting")
                        case .greeting: continue
                        }
                    }
                    if try socket.read(into: &input.buffer) { continue }
                    guard let deadline, try socket.wait(for: POLLIN, until: deadline) else { return nil }
                }
            }
        } catch {
            throw RendezvousError(error, operation: "receive from \(peerName)")
        }
    }
}
