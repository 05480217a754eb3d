import Glibc
import SystemPackage

/// A stream socket that never blocks; its descriptor is closed with it.
final class RendezvousSocket: Sendable {
    private let descriptor: CInt

    init(_ descriptor: CInt) { self.descriptor = descriptor }

    deinit { _ = Glibc.close(descriptor) }

    private static func open(family: CInt) throws(RendezvousError.Reason) -> RendezvousSocket {
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = Glibc.socket(family, CInt(bitPattern: kind), 0)
        guard descriptor >= 0 else { throw .system(.current) }
        return RendezvousSocket(descriptor)
    }

    static func connect(
        to address: SocketAddress, deadline: ContinuousClock.Instant
    ) throws(RendezvousError.Reason) -> RendezvousSocket {
        let socket = try open(family: address.family)
        if address.withSockaddr({ Glibc.connect(socket.descriptor, $0, $1) }) != 0 {
            let error = Errno.current
            guard error == .nowInProgress || error == .interrupted else { throw reason(error) }
            guard try socket.wait(for: POLLOUT, until: deadline) else { throw .timedOut }
            let outcome = Errno(rawValue: socket.option(SOL_SOCKET, SO_ERROR))
            guard outcome.rawValue == 0 else { throw reason(outcome) }
        }
        return socket
    }

    static func listen(at address: SocketAddress) throws(RendezvousError.Reason) -> RendezvousSocket {
        let socket = try open(family: address.family)
        // A listener that was just closed must not keep the port from the next one.
        socket.setOption(SOL_SOCKET, SO_REUSEADDR, 1)
        if address.family == AF_INET6, address.isUnspecified { socket.setOption(CInt(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        guard address.withSockaddr({ Glibc.bind(socket.descriptor, $0, $1) }) == 0,
            Glibc.listen(socket.descriptor, 16) == 0
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

    /// The next connection, or nil if none waits.
    func accept() throws(RendezvousError.Reason) -> (RendezvousSocket, SocketAddress)? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let accepted = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.accept(descriptor, $0, &length) }
        }
        guard accepted >= 0 else {
            switch Errno.current {
            // A peer that was gone before it could be accepted is not this side's failure.
            case .wouldBlock, .interrupted, .connectionAbort: return nil
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

    var isStream: Bool { option(SOL_SOCKET, SO_TYPE) == CInt(bitPattern: SOCK_STREAM.rawValue) }

    /// Small messages go out at once; a peer whose machine lost power is noticed within about ten seconds.
    func prepareForMessages() {
        let flags = fcntl(descriptor, F_GETFL)
        _ = fcntl(descriptor, F_SETFL, flags | O_NONBLOCK)
        setOption(SOL_SOCKET, SO_SNDBUF, CInt(2 * Rendezvous.maximumMessageSize))
        setOption(SOL_SOCKET, SO_KEEPALIVE, 1)
        setOption(CInt(IPPROTO_TCP), TCP_NODELAY, 1)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPIDLE, 5)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPINTVL, 1)
        setOption(CInt(IPPROTO_TCP), TCP_KEEPCNT, 5)
        setOption(CInt(IPPROTO_TCP), TCP_USER_TIMEOUT, 10_000)
    }

    func endOutput() { _ = shutdown(descriptor, CInt(SHUT_WR)) }

    func write(_ bytes: [UInt8], deadline: ContinuousClock.Instant) throws(RendezvousError.Reason) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { bytes in
                Glibc.send(descriptor, bytes.baseAddress! + sent, bytes.count - sent, CInt(MSG_NOSIGNAL))
            }
            if count >= 0 {
                sent += count
                continue
            }
            switch Errno.current {
            case .interrupted: continue
            case .wouldBlock:
                guard try wait(for: POLLOUT, until: deadline) else { throw .timedOut }
            case .brokenPipe, .connectionReset, .timedOut: throw .disconnected
            case let error: throw .system(error)
            }
        }
    }

    /// Appends what has arrived; false if nothing has. Throws at the end of the stream.
    func read(into buffer: inout [UInt8]) throws(RendezvousError.Reason) -> Bool {
        let result = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { chunk in
            let count = Glibc.recv(descriptor, chunk.baseAddress, chunk.count, 0)
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

    /// Waits until the socket is ready; false when the deadline has passed first.
    func wait(for events: CInt, until deadline: ContinuousClock.Instant?) throws(RendezvousError.Reason) -> Bool {
        var request = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        while true {
            let result = poll(&request, 1, Self.milliseconds(until: deadline))
            if result > 0 { return true }
            if result < 0, Errno.current != .interrupted { throw .system(.current) }
            if let deadline, ContinuousClock.now >= deadline { return false }
        }
    }

    /// What poll(2) takes: rounded up, so that it never spins; -1 waits for ever.
    private static func milliseconds(until deadline: ContinuousClock.Instant?) -> CInt {
        guard let deadline else { return -1 }
        let left = max(deadline - .now, .zero)
        let (seconds, attoseconds) = left.components
        guard seconds < 1_000_000 else { return 1_000_000_000 }
        return CInt(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    private func setOption(_ level: CInt, _ name: CInt, _ value: CInt) {
        var value = value
        // These tune; a socket of another family than TCP does without.
        _ = setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<CInt>.size))
    }

    private func option(_ level: CInt, _ name: CInt) -> CInt {
        var value: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        return getsockopt(descriptor, level, name, &value, &length) == 0 ? value : -1
    }
}

extension Errno {
    /// What the system call that just failed has left in errno.
    fileprivate static var current: Errno { Errno(rawValue: Glibc.errno) }
}
