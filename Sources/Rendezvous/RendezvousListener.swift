import Glibc
import Locking
import SystemPackage

/// A listening TCP port, which accepts a ``Rendezvous`` with each peer.
public final class RendezvousListener: Sendable {
    /// The TCP port; the one that the system has chosen if 0 was requested.
    public let port: UInt16
    private let socket: RendezvousSocket
    /// Connections that have not sent a complete frame, oldest first.
    private let waiting = Locked<[Waiting]>([])

    private struct Waiting: Sendable {
        let peer: Rendezvous
        /// The time at which the connection is closed unless it has sent a frame.
        let deadline: ContinuousClock.Instant
    }

    /// The time within which a connection must send its first frame: ten seconds.
    public static let introductionTime: Duration = .seconds(10)
    /// The largest number of connections that have not sent a frame: 64. For the next one, the oldest is closed.
    public static let maximumWaiting = 64

    /// Begins to listen.
    ///
    /// - Parameters:
    ///   - host: The local name or address to listen at; nil: every address, IPv4 and IPv6. Of a name with several
    ///     addresses, the first at which this host can listen.
    ///   - port: The TCP port; 0: chosen by the system.
    public init(host: String? = nil, port: UInt16 = Rendezvous.defaultPort) throws(RendezvousError) {
        do throws(RendezvousError.Reason) {
            socket = try Self.open(host: host, port: port)
            self.port = try socket.localPort()
        } catch {
            throw RendezvousError(error, operation: "listen at \(host ?? "*") port \(port)")
        }
    }

    private static func open(host: String?, port: UInt16) throws(RendezvousError.Reason) -> RendezvousSocket {
        guard let host else {
            do throws(RendezvousError.Reason) {
                return try .listen(at: .any6(port: port))
            } catch .system(.addressFamilyNotSupported) {
                return try .listen(at: .any4(port: port))
            } catch .system(.addressNotAvailable) {
                // The kernel supports IPv6, but sysctl has disabled it.
                return try .listen(at: .any4(port: port))
            }
        }
        var failures: [RendezvousError.Attempt] = []
        for address in try SocketAddress.resolve(host: host, port: port) {
            do throws(RendezvousError.Reason) {
                return try .listen(at: address)
            } catch {
                failures.append(RendezvousError.Attempt(address, error))
            }
        }
        throw failures.count == 1 ? failures[0].reason : .allFailed(failures)
    }

    /// Waits for the next peer: a program that connects with ``Rendezvous/connect(to:port:timeout:)``.
    ///
    /// Any program can connect to a TCP port and send nothing, or another protocol. Such a connection is closed at its
    /// first wrong byte, after ``introductionTime`` without a frame, or when ``maximumWaiting`` newer connections wait;
    /// it does not delay peers.
    ///
    /// - Parameters:
    ///   - timeout: The time limit; nil: no limit.
    ///   - refused: Called with the error of each connection that is closed.
    public func accept(
        timeout: Duration? = nil, refused: (RendezvousError) -> Void = { _ in }
    ) throws(RendezvousError) -> Rendezvous {
        try next(timeout, refused) { (peer: Rendezvous) throws(RendezvousError) in
            try peer.hasBegun() ? true : nil
        }.peer
    }

    /// Waits for the next peer's first message, as ``accept(timeout:refused:)`` does for the peer alone.
    public func acceptMessage(
        timeout: Duration? = nil, refused: (RendezvousError) -> Void = { _ in }
    ) throws(RendezvousError) -> (peer: Rendezvous, message: [UInt8]) {
        let (peer, message) = try next(timeout, refused) { (peer: Rendezvous) throws(RendezvousError) in
            try peer.receiveBytesIfAvailable()
        }
        return (peer, message)
    }

    /// Waits for the first connection for which `introduction` returns a value. Closes connections for which it throws.
    private func next<Introduction>(
        _ timeout: Duration?, _ refused: (RendezvousError) -> Void,
        _ introduction: (Rendezvous) throws(RendezvousError) -> Introduction?
    ) throws(RendezvousError) -> (peer: Rendezvous, introduction: Introduction) {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        do throws(RendezvousError.Reason) {
            while true {
                for error in try admit() { refused(error) }
                var (found, errors): ((Rendezvous, Introduction)?, [RendezvousError]) = (nil, [])
                let left = waiting.withLock { waiting in
                    (found, errors) = Self.look(at: &waiting, introduction)
                    return waiting
                }
                for error in errors { refused(error) }
                if let found { return found }
                let now = ContinuousClock.now
                if let deadline, now >= deadline { throw .timedOut }
                let until = (left.map(\.deadline) + [deadline].compactMap { $0 }).min()
                _ = try RendezvousSocket.wait(for: POLLIN, of: [socket] + left.map(\.peer.socket), until: until)
            }
        } catch {
            throw RendezvousError(error, operation: "wait for a peer at port \(port)")
        }
    }

    /// Accepts new connections. Returns the errors of older ones that were closed to make room.
    private func admit() throws(RendezvousError.Reason) -> [RendezvousError] {
        try waiting.withLock { (waiting: inout [Waiting]) throws(RendezvousError.Reason) in
            var displaced: [RendezvousError] = []
            while true {
                do throws(RendezvousError.Reason) {
                    guard let (socket, address) = try socket.accept() else { return displaced }
                    let peer = Rendezvous(socket: socket, peerName: address.description)
                    waiting.append(Waiting(peer: peer, deadline: .now + Self.introductionTime))
                    guard waiting.count > Self.maximumWaiting else { continue }
                } catch {
                    // When no descriptor is left, connections that have sent no frame are closed.
                    guard error == .system(.tooManyOpenFiles) || error == .system(.tooManyOpenFilesInSystem),
                        !waiting.isEmpty
                    else { throw error }
                }
                let oldest = waiting.removeFirst().peer
                displaced.append(RendezvousError(.displaced, operation: "receive from \(oldest.peerName)"))
            }
        }
    }

    /// Checks each connection once: removes the first for which `introduction` returns a value, and the failed ones.
    private static func look<Introduction>(
        at waiting: inout [Waiting], _ introduction: (Rendezvous) throws(RendezvousError) -> Introduction?
    ) -> (found: (Rendezvous, Introduction)?, errors: [RendezvousError]) {
        var errors: [RendezvousError] = []
        var index = 0
        while index < waiting.count {
            let peer = waiting[index].peer
            do throws(RendezvousError) {
                if let value = try introduction(peer) {
                    waiting.remove(at: index)
                    return ((peer, value), errors)
                }
                guard ContinuousClock.now >= waiting[index].deadline else {
                    index += 1
                    continue
                }
                errors.append(RendezvousError(.timedOut, operation: "receive from \(peer.peerName)"))
            } catch {
                errors.append(error)
                // The end frame has this program's version, which the peer reports.
                if case .wrongVersion = error.reason { peer.close() }
            }
            waiting.remove(at: index)
        }
        return (nil, errors)
    }
}
