import Glibc
import SystemPackage

/// A non-blocking stream socket. Its descriptor is closed with this object.
final class RendezvousSocket: Sendable {
    private let descriptor: CInt

    init(_ descriptor: CInt) { self.descriptor = descriptor }

    var fileDescriptor: FileDescriptor { FileDescriptor(rawValue: descriptor) }

    deinit { _ = Glibc.close(descriptor) }

    private static func open(family: CInt) throws(RendezvousError.Reason) -> RendezvousSocket {
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = Glibc.socket(family, CInt(bitPattern: kind), 0)
        guard descriptor >= 0 else { throw .system(.current) }
        return RendezvousSocket(descriptor)
    }

    /// Begins to connect. `isConnected` is true if the socket is connected at once. Otherwise it becomes writable when
    /// the connection succeeds or fails, which `connectionFailure` reports.
    static func beginConnecting(
        to address: SocketAddress
    ) throws(RendezvousError.Reason) -> (socket: RendezvousSocket, isConnected: Bool) {
        let socket = try open(family: address.family)
        guard address.withSockaddr({ Glibc.connect(socket.descriptor, $0, $1) }) != 0 else { return (socket, true) }
        let error = Errno.current
        guard error == .nowInProgress || error == .interrupted else { throw reason(error) }
        return (socket, false)
    }

    /// The error of a failed connection (SO_ERROR); nil if the socket is connected.
    var connectionFailure: RendezvousError.Reason? {
        do throws(RendezvousError.Reason) {
            let outcome = Errno(rawValue: try option(SOL_SOCKET, SO_ERROR))
            return outcome.rawValue == 0 ? nil : Self.reason(outcome)
        } catch {
            return error
        }
    }

    static func listen(at address: SocketAddress) throws(RendezvousError.Reason) -> RendezvousSocket {
        let socket = try open(family: address.family)
        // The port can be used again directly after an earlier listener was closed.
        socket.setOption(SOL_SOCKET, SO_REUSEADDR, 1)
        if address.family == AF_INET6, address.isUnspecified { socket.setOption(CInt(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        guard address.withSockaddr({ Glibc.bind(socket.descriptor, $0, $1) }) == 0,
            Glibc.listen(socket.descriptor, 128) == 0
        else { throw reason(.current) }
        return socket
    }

    private static func reason(_ error: Errno) -> RendezvousError.Reason {
        switch error {
        case .connectionRefused: .refused
        case .addressInUse: .portInUse
        case .timedOut: .timedOut
        default: .system(error)
        }
    }

    /// Accepts the next connection; nil when none is pending.
    func accept() throws(RendezvousError.Reason) -> (RendezvousSocket, SocketAddress)? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let accepted = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.accept(descriptor, $0, &length) }
        }
        guard accepted >= 0 else {
            switch Errno.current {
            // A peer that disconnected before accept is not an error of the listener (accept(2)).
            case .wouldBlock, .interrupted, .connectionAbort, .notPermitted, .protocolError, .protocolNotAvailable,
                .networkDown, .networkUnreachable, .hostIsDown, .noRouteToHost, .notSupported:
                return nil
            case let error: throw .system(error)
            }
        }
        _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
        return (RendezvousSocket(accepted), SocketAddress(storage))
    }

    func localPort() throws(RendezvousError.Reason) -> UInt16 {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else { throw .system(.current) }
        return SocketAddress(storage).port
    }

    func isStream() throws(RendezvousError.Reason) -> Bool {
        try option(SOL_SOCKET, SO_TYPE) == CInt(bitPattern: SOCK_STREAM.rawValue)
    }

    /// Configures the socket to send small messages without delay, and to detect an unreachable peer within about ten
    /// seconds.
    func prepareForMessages() {
        let flags = fcntl(descriptor, F_GETFL)
        _ = fcntl(descriptor, F_SETFL, flags | O_NONBLOCK)
        setOption(SOL_SOCKET, SO_SNDBUF, CInt(2 * Rendezvous.maximumMessageSize))
        setOption(SOL_SOCKET, SO_KEEPALIVE, 1)
        setOption(CInt(IPPROTO_TCP), TCP_NODELAY, 1)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPIDLE, 5)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPINTVL, 1)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPCNT, 5)
        setTolerance(.seconds(10))
    }

    /// Sets the time after which the connection fails if the peer acknowledges neither data nor keepalive probes
    /// (TCP_USER_TIMEOUT, tcp(7)).
    func setTolerance(_ time: Duration) {
        setOption(CInt(IPPROTO_TCP), TCP_USER_TIMEOUT, Self.milliseconds(in: time))
    }

    func endOutput() { _ = shutdown(descriptor, CInt(SHUT_WR)) }

    /// Sends the bytes. Returns the number of bytes sent, which is smaller if the deadline has passed.
    func write(_ bytes: [UInt8], deadline: ContinuousClock.Instant) throws(RendezvousError.Reason) -> Int {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { bytes in
                // MSG_DONTWAIT is needed besides O_NONBLOCK: a sandbox may forbid fcntl(2).
                Glibc.send(
                    descriptor, bytes.baseAddress! + sent, bytes.count - sent,
                    CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
            }
            if count >= 0 {
                sent += count
                continue
            }
            switch Errno.current {
            case .interrupted: continue
            case .wouldBlock:
                guard try wait(for: POLLOUT, until: deadline) else { return sent }
            case .brokenPipe, .connectionReset, .timedOut: throw .disconnected
            case let error: throw .system(error)
            }
        }
        return sent
    }

    /// Appends the received bytes to `buffer`. Returns false if there are none. Throws at the end of the stream.
    func read(into buffer: inout [UInt8]) throws(RendezvousError.Reason) -> Bool {
        let result = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { chunk in
            let count = Glibc.recv(descriptor, chunk.baseAddress, chunk.count, CInt(MSG_DONTWAIT))
            buffer += chunk.prefix(max(count, 0))
            return count
        }
        guard result >= 0 else {
            switch Errno.current {
            case .wouldBlock, .interrupted: return false
            case .connectionReset, .timedOut, .brokenPipe: throw .disconnected
            case let error: throw .system(error)
            }
        }
        guard result > 0 else { throw .disconnected }
        return true
    }

    /// Waits until the socket is ready. Returns false after the deadline.
    func wait(for events: CInt, until deadline: ContinuousClock.Instant?) throws(RendezvousError.Reason) -> Bool {
        try !Self.wait(for: events, of: [self], until: deadline).isEmpty
    }

    /// Waits until a socket is ready. Returns the indexes of the ready sockets; empty if the deadline has passed.
    static func wait(
        for events: CInt, of sockets: [RendezvousSocket], until deadline: ContinuousClock.Instant?
    ) throws(RendezvousError.Reason) -> [Int] {
        var requests = sockets.map { pollfd(fd: $0.descriptor, events: Int16(events), revents: 0) }
        while true {
            let result = poll(&requests, nfds_t(requests.count), milliseconds(until: deadline))
            if result > 0 { return requests.indices.filter { requests[$0].revents != 0 } }
            if result < 0, Errno.current != .interrupted { throw .system(.current) }
            if let deadline, ContinuousClock.now >= deadline { return [] }
        }
    }

    /// The timeout for poll(2) in milliseconds; -1: no limit.
    private static func milliseconds(until deadline: ContinuousClock.Instant?) -> CInt {
        deadline.map { milliseconds(in: max($0 - .now, .zero)) } ?? -1
    }

    /// The time in milliseconds, rounded up so that a wait does not spin; at most 11 days.
    private static func milliseconds(in time: Duration) -> CInt {
        let (seconds, attoseconds) = time.components
        guard seconds < 1_000_000 else { return 1_000_000_000 }
        return CInt(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    private func option(_ level: CInt, _ name: CInt) throws(RendezvousError.Reason) -> CInt {
        var value: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        guard getsockopt(descriptor, level, name, &value, &length) == 0 else { throw .system(.current) }
        return value
    }

    private func setOption(_ level: CInt, _ name: CInt, _ value: CInt) {
        var value = value
        // Errors are ignored: a socket of another family than TCP does not support these options.
        _ = setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<CInt>.size))
    }
}

extension Errno {
    /// The errno value of the last failed system call.
    fileprivate static var current: Errno { Errno(rawValue: Glibc.errno) }
}
