import Glibc

/// Connects to a host with several addresses by the first address that accepts (RFC 8305, "Happy Eyeballs").
///
/// An unreachable address may not respond, so the next address is tried in parallel after a delay. After a failed
/// connection attempt the next address is tried at once.
struct ConnectionRace {
    /// The "Connection Attempt Delay" of RFC 8305, section 8.
    static let stagger: Duration = .milliseconds(250)

    private var waiting: ArraySlice<SocketAddress>
    private var running: [(address: SocketAddress, socket: RendezvousSocket)] = []
    private var failures: [RendezvousError.Attempt] = []
    private let deadline: ContinuousClock.Instant
    /// The delay between two attempts, short enough that every address is tried before the deadline.
    private let stagger: Duration
    private var nextStart = ContinuousClock.now

    static func run(
        _ addresses: [SocketAddress], timeout: Duration
    ) throws(RendezvousError.Reason) -> RendezvousSocket {
        var race = ConnectionRace(addresses, timeout: timeout)
        return try race.run()
    }

    private init(_ addresses: [SocketAddress], timeout: Duration) {
        waiting = Self.interleaved(addresses)[...]
        deadline = .now + timeout
        stagger = min(Self.stagger, timeout / (addresses.count + 1))
    }

    /// The addresses with alternating families, beginning with that of the first address; the order within a family is
    /// kept.
    static func interleaved(_ addresses: [SocketAddress]) -> [SocketAddress] {
        guard let first = addresses.first?.family else { return [] }
        let (own, others) = (addresses.filter { $0.family == first }, addresses.filter { $0.family != first })
        return (0..<max(own.count, others.count)).flatMap { index in
            [own, others].compactMap { index < $0.count ? $0[index] : nil }
        }
    }

    private mutating func run() throws(RendezvousError.Reason) -> RendezvousSocket {
        while true {
            if running.isEmpty || ContinuousClock.now >= nextStart, let address = waiting.popFirst() {
                if let socket = start(address) { return socket }
                continue
            }
            guard !running.isEmpty else { throw failure }
            let until = waiting.isEmpty ? deadline : min(deadline, nextStart)
            let ready = try RendezvousSocket.wait(for: POLLOUT, of: running.map(\.socket), until: until)
            for place in ready {
                guard let reason = running[place].socket.connectionFailure else { return running[place].socket }
                failures.append(RendezvousError.Attempt(running[place].address, reason))
            }
            for place in ready.reversed() { running.remove(at: place) }
            if ready.isEmpty, ContinuousClock.now >= deadline {
                failures += running.map { RendezvousError.Attempt($0.address, .timedOut) }
                throw failure
            }
        }
    }

    /// Begins to connect to an address. Returns the socket if it is connected at once.
    private mutating func start(_ address: SocketAddress) -> RendezvousSocket? {
        nextStart = .now + stagger
        do throws(RendezvousError.Reason) {
            let (socket, isConnected) = try RendezvousSocket.beginConnecting(to: address)
            if isConnected { return socket }
            running.append((address, socket))
        } catch {
            failures.append(RendezvousError.Attempt(address, error))
        }
        return nil
    }

    private var failure: RendezvousError.Reason {
        failures.count == 1 ? failures[0].reason : .allFailed(failures)
    }
}

extension RendezvousError.Attempt {
    init(_ address: SocketAddress, _ reason: RendezvousError.Reason) {
        self.init(address: address.host, reason: reason)
    }
}
