import CLinux
import CMProtocol
import Glibc
import Locking
import ProviderLoader
import Synchronization
import SystemPackage

/// The connection manager of this process for software devices: its ports, listeners and connections, and one thread that
/// receives messages and lets timers expire.
package final class SoftwareService: Sendable {
    /// `RDMA_UDP_QKEY` of the kernel: the Q_Key of datagrams between identifiers of `PortSpace.udp`.
    package static let datagramQKey: UInt32 = 0x0123_4567
    /// The most pending requests of a listener, and those of one with the backlog 0 (`max_backlog` of the kernel's rdma_ucm).
    static let mostBacklog = 1024

    package struct State {
        package var endpoint = CMEndpoint(random: { linux_random64() })
        /// The open devices by network interface.
        package var ports: [UInt32: SoftwarePort] = [:]
        /// The ports by addresses that messages were sent to: reading a GID table costs system calls.
        var portsByAddress: [PortGID: SoftwarePort] = [:]
        var identifiers: [CMIdentifier: Member] = [:]
        var listeners: [CMIdentifier: Member] = [:]
        /// The processes of connected peers: the descriptors by connection.
        var watches: [CMIdentifier: Int32] = [:]
        /// The mailboxes of bound identifiers, listening or not.
        var bound: [Int32: Member] = [:]
        /// Messages whose receiver had no room: `mostWaiting` at most. They are sent again at `retry`, in nanoseconds, and
        /// then after `retryDelay`, in milliseconds.
        var waiting: [CMTransmission] = []
        var retry: UInt64 = 0
        var retryDelay: UInt64 = 1
        /// The descriptor that wakes the thread; -1 while there is none.
        var wakeup: Int32 = -1
        /// Set when the program has closed a descriptor that the thread needs: the thread has ended.
        var hasEnded = false
        /// The mailboxes for which the thread waits (epoll(7)). poll(2) would keep a mailbox open, and its name in use, that
        /// is closed during the wait.
        var mailboxes: Int32 = -1
        /// The errno value of the device that could not be opened last.
        var failure: Int32 = 0

        /// The open device with that number (`CMPath.device`).
        func port(_ number: UInt8) -> SoftwarePort? { ports.values.first { $0.number == number } }
    }

    struct Member {
        weak var identifier: SoftwareIdentifier?
    }

    /// The most messages that wait for room; more are lost, as they may be in any network.
    private static let mostWaiting = 256

    package let state = Locked(State())
    let devices: SoftwareDevices
    /// The process that has the thread; 0 before there is one. A child of fork(2) reads it before it takes a lock, which the
    /// parent may have held during the fork.
    private let process = Atomic<pid_t>(0)
    /// The states that `SoftwareIdentifier.deinit` leaves: it may run while the lock is held.
    private let forgotten = Locked(Forgotten())

    private struct Forgotten {
        var identifiers: [SoftwareIdentifier.State] = []
        /// The descriptor that wakes the thread; -1 while there is none.
        var wakeup: Int32 = -1
    }

    /// The service of the process: it has at most one, since a device has one mailbox.
    package init(_ devices: SoftwareDevices) { self.devices = devices }

    /// Whether this is a child of fork(2), which has neither the thread nor the connections.
    package var isInChild: Bool {
        // The numbers of processes are those of a namespace. A child of vfork(2) has another number only.
        let process = process.load(ordering: .relaxed)
        return process != 0 && (OwnDescriptors.isInChild || process != getpid())
    }

    package static var now: UInt64 { linux_monotonic_ns() }

    /// Starts the thread, once. Returns 0, or an errno value: `EPERM` in a child of fork(2), which has no copy of the
    /// thread, and `EBADF` when the program has closed a descriptor that the thread needs.
    package func start() -> Int32 {
        if isInChild { return EPERM }
        return state.withLock { state in
            // poll(2) does not notice that a descriptor is closed while it waits.
            if state.wakeup >= 0 && fcntl(state.wakeup, F_GETFD) < 0 { end(&state) }
            if state.hasEnded { return EBADF }
            if state.wakeup >= 0 { return 0 }
            let (wakeup, mailboxes) = (OwnDescriptors.keep(linux_wakeup()), OwnDescriptors.keep(linux_ready_list()))
            let code = wakeup < 0 ? -wakeup : mailboxes < 0 ? -mailboxes : startThread()
            guard code == 0 else {
                for descriptor in [wakeup, mailboxes] { OwnDescriptors.close(descriptor) }
                return code
            }
            state.mailboxes = mailboxes
            state.wakeup = wakeup
            forgotten.withLock { $0.wakeup = wakeup }
            process.store(getpid(), ordering: .relaxed)
            Self.running.withLock { $0.append(self) }
            atexit { SoftwareService.leaveAll() }
            return 0
        }
    }

    /// The services that have a thread; they live as long as the process.
    private static let running = Locked<[SoftwareService]>([])

    private static func leaveAll() {
        for service in running.withLock({ $0 }) { service.leave() }
    }

    private func startThread() -> Int32 {
        linux_start_detached_thread(
            { service in
                let service = Unmanaged<SoftwareService>.fromOpaque(service!).takeUnretainedValue()
                while service.round() {}
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    /// Calls `body` with the state, under the lock; then sends the messages and delivers the events that follow from it, and
    /// wakes the thread, whose timers and descriptors may have changed. In a child of fork(2) it does nothing: to the peers,
    /// its messages would be those of the parent.
    package func perform<Outcome: Sendable>(inChild nothing: Outcome, _ body: (inout State) -> Outcome) -> Outcome {
        if isInChild { return nothing }
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

    /// As `perform(inChild:_:)`, for a call that returns an errno value: `EPERM` in a child of fork(2), `EBADF` when the
    /// thread has ended.
    package func perform(_ body: (inout State) -> Int32) -> Int32 {
        perform(inChild: EPERM) { state in state.hasEnded ? EBADF : body(&state) }
    }

    /// Releases the connection and mailbox of an identifier that does not exist any more, on the thread.
    func forget(_ identifier: SoftwareIdentifier.State) {
        if isInChild || identifier.isDestroyed || identifier.connection == nil && identifier.mailbox < 0 { return }
        forgotten.withLock { forgotten in
            forgotten.identifiers.append(identifier)
            if forgotten.wakeup >= 0 { linux_eventfd_raise(forgotten.wakeup) }
        }
    }

    /// Ends all connections when the process exits, as the kernel does for its own: peers on other hosts would not notice.
    package func leave() {
        perform(inChild: ()) { state in
            for connection in state.identifiers.keys { Self.leave(connection, &state) }
        }
    }

    private static func leave(_ connection: CMIdentifier, _ state: inout State) {
        do throws(CMCallError) { return try state.endpoint.disconnect(connection, now: now) } catch {}
        do throws(CMCallError) { return try state.endpoint.reject(connection, now: now) } catch {}
        state.endpoint.release(connection, now: now)
    }

    // MARK: The thread

    /// Waits for messages, timers and changes, and handles them. Returns false when the program has closed a descriptor that
    /// this needs, with a system call that the drop-in library does not see: poll(2) would return at once for ever.
    private func round() -> Bool {
        var descriptors: [pollfd] = []
        let limit: Int32 = state.withLock { state in
            descriptors.append(pollfd(fd: state.wakeup, events: Int16(POLLIN), revents: 0))
            descriptors.append(pollfd(fd: state.mailboxes, events: Int16(POLLIN), revents: 0))
            for watch in state.watches.values {
                descriptors.append(pollfd(fd: watch, events: Int16(POLLIN), revents: 0))
            }
            return timeout(state)
        }
        _ = poll(&descriptors, UInt(descriptors.count), limit)
        let isLost = descriptors[..<2].contains { $0.revents & Int16(POLLNVAL) != 0 }
        let hasEnded = state.withLock { state in
            if isLost { end(&state) }
            return state.hasEnded
        }
        if hasEnded { return false }
        if descriptors[0].revents & Int16(POLLIN) != 0 { linux_drain(descriptors[0].fd) }
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
        return true
    }

    /// Uses no descriptor any more whose number another file may have.
    private func end(_ state: inout State) {
        forgotten.withLock { $0.wakeup = -1 }
        for descriptor in [state.wakeup, state.mailboxes] { OwnDescriptors.forget(descriptor) }
        (state.wakeup, state.mailboxes, state.hasEnded) = (-1, -1, true)
    }

    /// The time until the next timer, in milliseconds, rounded up; -1 when none runs.
    private func timeout(_ state: State) -> Int32 {
        var deadline = state.endpoint.nextDeadline
        // A mailbox has room again soon, and does not say when.
        if !state.waiting.isEmpty { deadline = min(deadline ?? .max, state.retry) }
        guard let deadline else { return -1 }
        let now = Self.now
        return deadline <= now ? 0 : Int32(clamping: (deadline - now) / 1_000_000 + 1)
    }

    private func receive(_ state: inout State, _ kept: inout [SoftwareIdentifier]) {
        for port in state.ports.values {
            // The communication IDs in its own mailbox are those of the port.
            port.receive(from: port.mailbox) { message, source, destination in
                receive(message, at: port, source, destination, &state)
            }
        }
        for (mailbox, member) in state.bound {
            guard let owner = member.identifier else { continue }
            kept.append(owner)
            // The functions of every port receive from every mailbox. The endpoint refuses requests while no identifier
            // listens.
            state.ports.values.first?.receive(from: mailbox) { message, source, destination in
                guard let port = self.port(having: destination, &state) else { return }
                receive(message, at: port, source, destination, &state)
            }
        }
        for (identifier, watch) in state.watches {
            var entry = pollfd(fd: watch, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, 0) == 1 else { continue }
            // Closed by the program: without a watch, the peer's end is noticed when messages are not answered.
            let isLost = entry.revents & Int16(POLLNVAL) != 0
            if isLost { OwnDescriptors.forget(watch) } else { OwnDescriptors.close(watch) }
            state.watches[identifier] = nil
            if !isLost { state.endpoint.notePeerEnd(identifier, now: Self.now) }
        }
    }

    private func receive(
        _ message: CMMessage, at port: SoftwarePort, _ source: PortGID, _ destination: PortGID, _ state: inout State
    ) {
        let path = CMPath(local: destination, remote: source, device: port.number)
        state.endpoint.receive(message, on: path, now: Self.now)
    }

    // MARK: Ports

    /// The port of the device on the interface that has that address; opens the device if needed.
    func port(having address: PortGID, _ state: inout State) -> SoftwarePort? {
        if let port = state.portsByAddress[address] { return port }
        let port = port(ofInterface: AddressRoute.interface(having: address), &state)
        if let port { state.portsByAddress[address] = port }
        return port
    }

    func port(ofInterface index: UInt32, _ state: inout State) -> SoftwarePort? {
        if let port = state.ports[index] { return port }
        state.failure = ENODEV
        guard index != 0 else { return nil }
        let (listed, onRequest) = devices.list()
        guard let device = (listed + onRequest).first(where: { $0.interfaceIndex == index }) else { return nil }
        do throws(Errno) {
            let port = try SoftwarePort(devices.open(device.name))
            let code = linux_ready_add(state.mailboxes, port.mailbox, 0)
            guard code == 0 else { throw Errno(rawValue: code) }
            state.ports[index] = port
            return port
        } catch {
            state.failure = error.rawValue
            return nil
        }
    }

    /// Opens the devices at which a listener without an address listens: those that are listed.
    func openListed(_ state: inout State) {
        for device in devices.list().listed where device.interfaceIndex != 0 {
            _ = port(ofInterface: device.interfaceIndex, &state)
        }
    }

    // MARK: Messages and events of the endpoint

    private func settle(_ state: inout State, _ kept: inout [SoftwareIdentifier]) {
        sendAgain(&state)
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
            OwnDescriptors.close(watch)
            state.watches[identifier] = nil
        }
    }

    /// Sends the messages that wait for room, when it is time for that.
    private func sendAgain(_ state: inout State) {
        let now = Self.now
        guard !state.waiting.isEmpty, now >= state.retry else { return }
        let (waiting, delay) = (state.waiting, state.retryDelay)
        state.waiting = []
        for transmission in waiting where !isOver(transmission, state) { send(transmission, &state) }
        state.retryDelay = state.waiting.count < waiting.count ? 1 : min(delay * 2, 20)
        state.retry = now &+ state.retryDelay * 1_000_000
    }

    /// Whether a message is of no use any more, since its connection has ended. One that ends a connection of the peer stays.
    private func isOver(_ transmission: CMTransmission, _ state: State) -> Bool {
        let identifier: UInt32
        switch transmission.message.body {
        case .connectRequest(let body): identifier = body.localID
        case .connectReply(let body): identifier = body.localID
        case .readyToUse(let body): identifier = body.localID
        case .messageReceiptAcknowledgment(let body): identifier = body.localID
        case .disconnectRequest(let body): identifier = body.localID
        case .serviceRequest(let body): identifier = body.requestID
        default: return false
        }
        return !state.endpoint.contains(CMIdentifier(rawValue: identifier))
    }

    /// Keeps a message until its receiver has room.
    private func wait(_ transmission: CMTransmission, _ state: inout State) {
        guard state.waiting.count < Self.mostWaiting, !state.waiting.contains(transmission) else { return }
        if state.waiting.isEmpty {
            state.retryDelay = 1
            state.retry = Self.now &+ 1_000_000
        }
        state.waiting.append(transmission)
    }

    private func send(_ transmission: CMTransmission, _ state: inout State) {
        let number = transmission.path.device
        guard let port = state.port(number) else { return }
        switch port.send(transmission) {
        case EAGAIN: wait(transmission, &state)
        case ECONNREFUSED: refuse(transmission, &state)
        // The interface has lost the address.
        case EADDRNOTAVAIL: state.portsByAddress[transmission.path.local] = nil
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
            let port = state.port(path.device)
        else { return }
        let watch = OwnDescriptors.keep(port.watch(path.remote, peer))
        if watch >= 0 {
            state.watches[identifier] = watch
        } else if watch == -ECONNREFUSED {
            state.endpoint.notePeerEnd(identifier, now: now)
        }
    }
}

/// The software devices of a process.
package struct SoftwareDevices: Sendable {
    /// The software devices that are listed, and those that are opened on request only.
    let list: @Sendable () -> (listed: [DeviceDescription], onRequest: [DeviceDescription])
    /// Opens a device by its name.
    let open: @Sendable (String) throws(Errno) -> OpenedDevice

    package init(
        list: @escaping @Sendable () -> (listed: [DeviceDescription], onRequest: [DeviceDescription]),
        open: @escaping @Sendable (String) throws(Errno) -> OpenedDevice
    ) {
        self.list = list
        self.open = open
    }
}
