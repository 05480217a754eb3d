import CLinux
import CMProtocol
import Glibc
import Locking
import ProviderLoader
import SystemPackage
import Verbs

/// The connection manager of this process for software devices: its ports, listeners and connections, and one thread that
/// receives messages and lets timers expire.
final class SoftwareService: Sendable {
    /// The service of this process.
    static let shared = SoftwareService()
    /// `RDMA_UDP_QKEY` of the kernel: the Q_Key of datagrams between identifiers of `PortSpace.udp`.
    static let datagramQKey: UInt32 = 0x0123_4567
    /// The pending requests of a listener with the backlog 0.
    static let defaultBacklog = 1024

    struct State {
        var endpoint = CMEndpoint(seed: linux_random64())
        /// The open devices by network interface.
        var ports: [UInt32: SoftwarePort] = [:]
        /// The ports by addresses that messages were sent to: reading a GID table costs system calls.
        var portsByAddress: [GID: SoftwarePort] = [:]
        var identifiers: [CMIdentifier: Member] = [:]
        var listeners: [CMIdentifier: Member] = [:]
        /// The processes of connected peers: the descriptors by connection.
        var watches: [CMIdentifier: Int32] = [:]
        /// Messages whose receiver had no room.
        var waiting: [CMTransmission] = []
        /// The descriptor that wakes the thread; -1 while there is none.
        var wakeup: Int32 = -1
        /// The mailboxes for which the thread waits (epoll(7)). poll(2) would keep a mailbox open, and its name in use, that
        /// is closed during the wait.
        var mailboxes: Int32 = -1
        /// The process that has the thread.
        var process: pid_t = 0
        /// The error of the device that could not be opened last.
        var failure: VerbsError?
    }

    struct Member {
        weak var identifier: SoftwareIdentifier?
    }

    let state = Locked(State())
    /// What `SoftwareIdentifier.deinit` leaves: it may run while the lock is held.
    private let forgotten = Locked(Forgotten())

    private struct Forgotten {
        var identifiers: [SoftwareIdentifier.State] = []
        /// The descriptor that wakes the thread; -1 while there is none.
        var wakeup: Int32 = -1
    }

    private init() {}

    static var now: UInt64 { linux_monotonic_ns() }

    /// Starts the thread, once. Returns 0, or an errno value: `EPERM` in a child of fork(2), which has no copy of the
    /// thread.
    func start() -> Int32 {
        state.withLock { state in
            if state.wakeup >= 0 { return state.process == getpid() ? 0 : EPERM }
            let (wakeup, mailboxes) = (linux_wakeup(), linux_ready_list())
            let code = wakeup < 0 ? -wakeup : mailboxes < 0 ? -mailboxes : Self.startThread()
            guard code == 0 else {
                for descriptor in [wakeup, mailboxes] where descriptor >= 0 { close(descriptor) }
                return code
            }
            state.mailboxes = mailboxes
            state.wakeup = wakeup
            forgotten.withLock { $0.wakeup = wakeup }
            state.process = getpid()
            atexit { SoftwareService.shared.leave() }
            return 0
        }
    }

    private static func startThread() -> Int32 {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        // The thread inherits this mask, so no signal handler of the application runs on it.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var thread = pthread_t()
        return pthread_create(
            &thread, &attributes,
            { _ in
                while true { SoftwareService.shared.round() }
            }, nil)
    }

    /// Calls `body` with the state, under the lock; then sends and delivers what it has caused, and wakes the thread, whose
    /// timers and descriptors may have changed.
    func perform<Outcome: Sendable>(_ body: (inout State) -> Outcome) -> Outcome {
        // Objects whose last reference is dropped under the lock are kept until it is released.
        var kept: [SoftwareIdentifier] = []
        let (outcome, wakeup): (Outcome, Int32) = state.withLock { state in
            let outcome = body(&state)
            settle(&state, &kept)
            return (outcome, state.wakeup)
        }
        if wakeup >= 0 { linux_eventfd_raise(wakeup) }
        withExtendedLifetime(kept) {}
        return outcome
    }

    /// Releases the connection and mailbox of an identifier that does not exist any more, on the thread.
    func forget(_ identifier: SoftwareIdentifier.State) {
        if identifier.isDestroyed || identifier.connection == nil && identifier.mailbox < 0 { return }
        forgotten.withLock { forgotten in
            forgotten.identifiers.append(identifier)
            linux_eventfd_raise(forgotten.wakeup)
        }
    }

    /// Ends all connections when the process exits, as the kernel does for its own: peers on other hosts would not notice.
    func leave() {
        guard state.withLock({ $0.process == getpid() }) else { return }
        perform { state in
            for connection in state.identifiers.keys {
                do throws(CMCallError) { try state.endpoint.disconnect(connection, now: Self.now) } catch {
                    try? state.endpoint.reject(connection, now: Self.now)
                }
            }
        }
    }

    // MARK: The thread

    /// Waits for messages, timers and changes, and handles them.
    private func round() {
        var descriptors: [pollfd] = []
        let limit: Int32 = state.withLock { state in
            descriptors.append(pollfd(fd: state.wakeup, events: Int16(POLLIN), revents: 0))
            descriptors.append(pollfd(fd: state.mailboxes, events: Int16(POLLIN), revents: 0))
            for watch in state.watches.values { descriptors.append(pollfd(fd: watch, events: 0, revents: 0)) }
            return timeout(state)
        }
        _ = poll(&descriptors, UInt(descriptors.count), limit)
        linux_drain(descriptors[0].fd)
        let ended = forgotten.withLock { forgotten in
            defer { forgotten.identifiers = [] }
            return forgotten.identifiers
        }
        var kept: [SoftwareIdentifier] = []
        state.withLock { state in
            for identifier in ended { Self.end(identifier, &state) }
            receive(&state, &kept)
            state.endpoint.advance(to: Self.now)
            settle(&state, &kept)
        }
        withExtendedLifetime(kept) {}
    }

    /// The time until the next timer, in milliseconds, rounded up; -1 when none runs.
    private func timeout(_ state: State) -> Int32 {
        // A mailbox has room again soon, and does not say when.
        if !state.waiting.isEmpty { return 1 }
        guard let deadline = state.endpoint.nextDeadline else { return -1 }
        let now = Self.now
        return deadline <= now ? 0 : Int32(clamping: (deadline - now) / 1_000_000 + 1)
    }

    private func receive(_ state: inout State, _ kept: inout [SoftwareIdentifier]) {
        for port in state.ports.values {
            // The communication IDs in its own mailbox are those of the port.
            while let (message, source, destination) = port.receive(from: port.mailbox) {
                receive(message, at: port, source, destination, &state)
            }
        }
        for member in state.listeners.values {
            guard let listener = member.identifier else { continue }
            kept.append(listener)
            // The functions of every port receive from every mailbox.
            guard let port = state.ports.values.first else { continue }
            while let (message, source, destination) = port.receive(from: listener.state.mailbox) {
                guard let port = Self.port(having: destination, &state) else { continue }
                receive(message, at: port, source, destination, &state)
            }
        }
        for (identifier, watch) in state.watches {
            var entry = pollfd(fd: watch, events: 0, revents: 0)
            guard poll(&entry, 1, 0) == 1 else { continue }
            close(watch)
            state.watches[identifier] = nil
            state.endpoint.notePeerEnd(identifier, now: Self.now)
        }
    }

    private func receive(
        _ message: CMMessage, at port: SoftwarePort, _ source: GID, _ destination: GID, _ state: inout State
    ) {
        let path = CMPath(local: PortGID(destination), remote: PortGID(source), device: port.number)
        state.endpoint.receive(message, on: path, now: Self.now)
    }

    // MARK: Ports

    /// The port of the device on the interface that has that address; opens the device if needed.
    static func port(having address: GID, _ state: inout State) -> SoftwarePort? {
        if let port = state.portsByAddress[address] { return port }
        let port = port(ofInterface: Route.interface(having: address), &state)
        if let port { state.portsByAddress[address] = port }
        return port
    }

    static func port(ofInterface index: UInt32, _ state: inout State) -> SoftwarePort? {
        if let port = state.ports[index] { return port }
        guard index != 0 else { return nil }
        do throws(VerbsError) {
            let list = try Device.list()
            let devices = (list.filter(\.isSoftware) + list.onRequest).filter { $0.details.interfaceIndex == index }
            guard let device = devices.first else { return nil }
            let port = try SoftwarePort(device)
            let code = linux_ready_add(state.mailboxes, port.mailbox, 0)
            guard code == 0 else {
                throw VerbsError(
                    .openDevice, errno: Errno(rawValue: code), object: VerbsObject("device", device: device.name))
            }
            state.ports[index] = port
            return port
        } catch {
            state.failure = error
            return nil
        }
    }

    /// Opens the devices at which a listener without an address listens: those that are listed.
    static func openListed(_ state: inout State) {
        guard let list = try? Device.list() else { return }
        for device in list where device.isSoftware && device.details.interfaceIndex != 0 {
            _ = port(ofInterface: device.details.interfaceIndex, &state)
        }
    }

    // MARK: What the endpoint has to send and to say

    private func settle(_ state: inout State, _ kept: inout [SoftwareIdentifier]) {
        let waiting = state.waiting
        state.waiting = []
        for transmission in waiting { send(transmission, &state) }
        while true {
            if let transmission = state.endpoint.nextTransmission() {
                send(transmission, &state)
            } else if let event = state.endpoint.nextEvent() {
                deliver(event, &state, &kept)
            } else {
                break
            }
        }
        for (identifier, watch) in state.watches where !state.endpoint.contains(identifier) {
            close(watch)
            state.watches[identifier] = nil
        }
    }

    private func send(_ transmission: CMTransmission, _ state: inout State) {
        let number = transmission.path.device
        guard let port = state.ports.values.first(where: { $0.number == number }) else { return }
        switch port.send(transmission) {
        case EAGAIN: state.waiting.append(transmission)
        case ECONNREFUSED: refuse(transmission, &state)
        // The interface has lost the address.
        case EADDRNOTAVAIL: state.portsByAddress[GID(transmission.path.local)] = nil
        // The message is lost, and sent again.
        default: break
        }
    }

    /// No process of this host takes a message: answers in its place.
    private func refuse(_ transmission: CMTransmission, _ state: inout State) {
        let message = transmission.message
        var reply: CMMessage.Body?
        switch message.body {
        case .connectRequest(let request):
            var reject = ConnectReject()
            (reject.remoteID, reject.reason) = (request.localID, .invalidServiceID)
            reply = .connectReject(reject)
        case .serviceRequest(let request):
            var body = ServiceReply()
            (body.requestID, body.serviceID) = (request.requestID, request.serviceID)
            body.status = .unsupportedServiceID
            reply = .serviceReply(body)
        case .disconnectRequest(let request):
            var confirmation = CMConfirmation()
            (confirmation.localID, confirmation.remoteID) = (request.remoteID, request.localID)
            reply = .disconnectReply(confirmation)
        case .connectReply(let body):
            state.endpoint.notePeerEnd(CMIdentifier(rawValue: body.localID), now: Self.now)
        case .readyToUse(let body):
            state.endpoint.notePeerEnd(CMIdentifier(rawValue: body.localID), now: Self.now)
        default: break
        }
        guard let reply else { return }
        state.endpoint.receive(
            CMMessage(transactionID: message.transactionID, reply), on: transmission.path, now: Self.now)
    }

    /// Watches the process of the peer of a connection on this host.
    static func watch(_ identifier: CMIdentifier, _ path: CMPath, peer: UInt32, _ state: inout State) {
        guard state.watches[identifier] == nil,
            let port = state.ports.values.first(where: { $0.number == path.device })
        else { return }
        let watch = port.watch(GID(path.remote), peer)
        if watch >= 0 {
            state.watches[identifier] = watch
        } else if watch == -ECONNREFUSED {
            state.endpoint.notePeerEnd(identifier, now: now)
        }
    }
}
