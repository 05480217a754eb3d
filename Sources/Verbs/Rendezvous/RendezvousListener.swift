import Glibc

/// A TCP port at which peers are awaited, one ``Rendezvous`` for each.
public final class RendezvousListener: Sendable {
    /// The port that it listens on; the one the system chose if 0 was asked for.
    public let port: UInt16
    private let socket: RendezvousSocket

    /// Begins to listen.
    ///
    /// - Parameters:
    ///   - host: the local name or address to listen at; nil: every address, IPv4 and IPv6.
    ///   - port: the TCP port; 0 lets the system choose.
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
                // IPv6 is compiled in, but switched off by sysctl.
                return try .listen(at: .any4(port: port))
            }
        }
        return try .listen(at: try SocketAddress.resolve(host: host, port: port)[0])
    }

    /// Waits for the next peer.
    ///
    /// - Parameter timeout: how long to wait; nil: for ever.
    public func accept(timeout: Duration? = nil) throws(RendezvousError) -> Rendezvous {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        do throws(RendezvousError.Reason) {
            while true {
                if let (socket, address) = try socket.accept() {
                    return Rendezvous(socket: socket, peerName: address.description)
                }
                guard try socket.wait(for: POLLIN, until: deadline) else { throw .timedOut }
            }
        } catch {
            throw RendezvousError(error, operation: "wait for a peer at port \(port)")
        }
    }
}
