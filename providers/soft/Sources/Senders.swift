import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

/// The devices of this host that send to this one: their connections to the socket of its slot, and the rings
/// (`PacketRing`) whose descriptors they have sent.
struct Senders: ~Copyable {
    /// Ready when a sender connects, sends a message or ends. It also contains this device's connections to other
    /// slots.
    let readyList: Int32
    private let listener: Int32
    /// The connections and rings, without gaps: `connections[n]` belongs to `rings[n]` and `readers[n]`.
    private let connections: UnsafeMutablePointer<Int32>
    private let rings: UnsafeMutablePointer<UnsafeMutableRawPointer?>
    private let readers: UnsafeMutablePointer<PacketRingReader>
    private(set) var count = 0
    /// The number of senders that have ended and whose rings may still hold packets.
    private var endedCount = 0
    /// The buffer for a received message.
    private let room: UnsafeMutableRawPointer
    /// The errno value that was last logged.
    private var warned: Int32 = 0
    /// Whether a ring was mapped since the last `takeNewRing`.
    private var hasNewRing = false
    /// The descriptors of the memory that every sender gets, by the numbers of the messages; negative: none.
    private let shared: UnsafeMutablePointer<Int32>
    /// Whether connections are not accepted for now, because accept(2) failed.
    private(set) var isAcceptPaused = false

    /// Whether a sender has sent its ring since the last call: then it is to get the access table.
    mutating func takeNewRing() -> Bool {
        defer { hasNewRing = false }
        return hasNewRing
    }

    /// The connection on which counters were asked for, or -1.
    private var counterRequest: Int32 = -1

    /// The most connections: more than the slots of this host can make.
    static let capacity = 2 * Slot.count
    /// The value in place of a connection whose sender has ended.
    private static let ended: Int32 = -1
    /// The value in place of a connection for this device's own ring.
    private static let own: Int32 = -2
    /// Connections that are accepted in a row, and messages that are received in a row on one connection.
    private static let burst = 64

    /// Returns nil, and sets errno, when a descriptor cannot be created.
    init?(_ slot: borrowing Slot) {
        let list = linux_ready_list()
        guard list >= 0 else {
            linux_set_errno(-list)
            return nil
        }
        if slot.listener >= 0 {
            let error = linux_ready_add(list, slot.listener, LocalTag.listener)
            guard error == 0 else {
                linux_close(list)
                linux_set_errno(error)
                return nil
            }
        }
        readyList = list
        listener = slot.listener
        connections = .allocate(capacity: Self.capacity)
        rings = .allocate(capacity: Self.capacity)
        readers = .allocate(capacity: Self.capacity)
        room = .allocate(byteCount: LocalMessage.maximumByteCount, alignment: 64)
        shared = .allocate(capacity: Neighbor.mappingCount)
        shared.initialize(repeating: -1, count: Neighbor.mappingCount)
    }

    deinit {
        for index in 0..<count {
            if let ring = rings[index] {
                PacketRing.closed(ring).pointee.store(1, ordering: .releasing)
                linux_unmap(ring, PacketRing.strideByteCount)
            }
            if connections[index] >= 0 { linux_close(connections[index]) }
        }
        linux_close(readyList)
        connections.deallocate()
        rings.deallocate()
        readers.deallocate()
        room.deallocate()
        shared.deallocate()
    }

    // MARK: Rings

    /// The reader of sender `index`, 0 to `count` - 1, in place; nil while it has no ring.
    @inline(__always)
    func reader(_ index: Int) -> UnsafeMutablePointer<PacketRingReader>? {
        rings[index] == nil ? nil : readers + index
    }

    /// Adds the ring of this device to itself, and takes ownership. Returns false when the list is full.
    mutating func addOwn(_ ring: UnsafeMutableRawPointer) -> Bool {
        guard let index = add(Self.own) else { return false }
        take(ring, at: index)
        return true
    }

    /// Stores in all rings whether this device sleeps, so that the writers must send a wake-up.
    func setSleeping(_ sleeps: Bool) {
        for index in 0..<count {
            guard let ring = rings[index] else { continue }
            PacketRing.sleeping(ring).pointee.store(sleeps ? 1 : 0, ordering: .sequentiallyConsistent)
        }
    }

    /// Sends the descriptor of memory to all senders, and to those that connect later. The memory stays shared as long as
    /// the device is open.
    func share(_ number: Int, _ descriptor: Int32) {
        shared[number] = descriptor
        for index in 0..<count where connections[index] >= 0 && rings[index] != nil { send(number, to: index) }
    }

    /// A sender that does not get the memory sends packets, or lets the kernel copy.
    private func send(_ number: Int, to index: Int) {
        _ = LocalMessage.share(number, descriptor: shared[number], on: connections[index])
    }

    /// Whether a sender is inside an access to the memory of this device that `concerns` is true for.
    func areInside(_ concerns: (UInt64) -> Bool) -> Bool {
        for index in 0..<count {
            guard connections[index] >= 0, let ring = rings[index],
                concerns(PacketRing.hazard(ring).pointee.load(ordering: .sequentiallyConsistent))
            else { continue }
            guard linux_local_has_ended(connections[index]) || Self.processHasEnded(connections[index]) else {
                return true
            }
            // Nobody leaves the access any more.
            PacketRing.hazard(ring).pointee.store(0, ordering: .relaxed)
        }
        return false
    }

    /// Whether the process that made a connection has ended: a child of fork(2) can keep the connection open, and accesses
    /// nothing itself. False where that cannot be known.
    private static func processHasEnded(_ connection: Int32) -> Bool {
        let process = linux_open_process(connection)
        // Before Linux 6.16, a process that was waited for has no pidfd.
        guard process >= 0 else { return process == -ESRCH }
        defer { linux_close(process) }
        return linux_process_has_ended(process)
    }

    /// Removes the senders that have ended and whose rings are empty.
    @inline(__always)
    mutating func dropEnded() {
        if endedCount > 0 { dropEndedNow() }
    }

    @inline(never)
    private mutating func dropEndedNow() {
        var index = 0
        while index < count {
            if connections[index] != Self.ended || rings[index] != nil && readers[index].hasPacket {
                index += 1
            } else {
                forget(index)
                endedCount -= 1
            }
        }
    }

    private mutating func add(_ connection: Int32) -> Int? {
        guard count < Self.capacity else { return nil }
        connections[count] = connection
        rings[count] = nil
        count += 1
        return count - 1
    }

    private func take(_ ring: UnsafeMutableRawPointer, at index: Int) {
        rings[index] = ring
        readers[index] = PacketRingReader(ring)
    }

    /// Removes a sender without a connection, and unmaps its ring.
    private mutating func forget(_ index: Int) {
        assert(index < count && connections[index] == Self.ended, "only a sender that has ended is removed")
        if let ring = rings[index] { linux_unmap(ring, PacketRing.strideByteCount) }
        count -= 1
        connections[index] = connections[count]
        rings[index] = rings[count]
        readers[index] = readers[count]
    }

    // MARK: Connections

    /// Accepts pending connections. At most `burst` of them, so that a process that connects repeatedly cannot keep the
    /// device here.
    mutating func accept() {
        for _ in 0..<Self.burst {
            let connection = linux_local_accept(listener)
            if connection == -EPERM {
                warn(
                    EPERM,
                    "a process of another user connected to the slot of this device, and was refused; run both as one user: "
                )
                continue
            }
            guard connection >= 0 else {
                if connection != -EAGAIN { refuse(-connection) }
                return
            }
            guard linux_ready_add(readyList, connection, LocalTag.sender(connection)) == 0, add(connection) != nil
            else {
                linux_close(connection)
                continue
            }
        }
    }

    /// Logs that a connection cannot be accepted, and removes the listener from the ready list for a while, since the
    /// pending connection would keep it ready.
    private mutating func refuse(_ error: Int32) {
        warn(error, "a process of this host cannot be given a connection to send packets on: ")
        isAcceptPaused = true
        linux_ready_remove(readyList, listener)
    }

    /// Puts the listener back into the ready list after connections could not be accepted.
    mutating func listenAgain() {
        if isAcceptPaused { isAcceptPaused = linux_ready_add(readyList, listener, LocalTag.listener) != 0 }
    }

    private mutating func warn(_ error: Int32, _ text: StaticString) {
        guard warned != error else { return }
        warned = error
        var warning = MessageText(text)
        warning.append(error: error)
        warning.log(RDMA_LOG_WARNING)
    }

    /// Receives messages from a connection, and calls `body` with each packet among them.
    /// - Parameter isAwake: Whether the application polls, so that the sender need not send wake-ups.
    mutating func receive(
        _ connection: Int32, isAwake: Bool, _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) {
        guard let index = index(of: connection) else { return }
        for _ in 0..<Self.burst {
            var descriptor: Int32 = -1
            let received = linux_local_receive(connection, room, LocalMessage.maximumByteCount, &descriptor)
            if received == -EAGAIN { return }
            let message = UnsafeRawBufferPointer(start: room, count: max(Int(received), 0))
            var isKept = false
            if received > 0 && descriptor == -1 && LocalMessage.asksForCounters(message) {
                counterRequest = connection
                return
            }
            if received > 0, let kind = LocalMessage.kind(of: message) {
                isKept = handle(kind, message, descriptor, index, isAwake: isAwake, body)
            }
            if descriptor >= 0 { linux_close(descriptor) }
            guard isKept else {
                // A message longer than any valid one, or one that is not valid; otherwise the sender has ended.
                if received > 0 || received == -EMSGSIZE { warn(EPROTO, Self.invalidMessage) }
                return end(index)
            }
        }
    }

    /// The connection on which counters were asked for since the last call, or -1.
    mutating func takeCounterRequest() -> Int32 {
        defer { counterRequest = -1 }
        return counterRequest
    }

    private static let invalidMessage: StaticString =
        """
        the connection from another process of this host is closed, since its message is invalid or of another version of \
        soft; run both with the same version: 
        """

    /// Closes the connection of a sender whose ring holds an invalid record.
    @inline(never)
    mutating func endBroken(_ index: Int) {
        guard connections[index] >= 0 else { return }
        warn(
            EBADMSG,
            "the connection from another process of this host is closed, since its packet ring holds an invalid record: "
        )
        end(index)
    }

    /// - Returns: False when the sender violates the protocol: then the connection is closed.
    private mutating func handle(
        _ kind: LocalMessage.Kind, _ message: UnsafeRawBufferPointer, _ descriptor: Int32, _ index: Int, isAwake: Bool,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) -> Bool {
        switch kind {
        case .ring:
            guard descriptor != -1, rings[index] == nil else { return false }
            let error = map(descriptor, at: index, isAwake: isAwake)
            guard error != EINVAL else { return false }
            if error == 0 {
                hasNewRing = true
                for number in 0..<Neighbor.mappingCount where shared[number] >= 0 { send(number, to: index) }
                return true
            }
            warn(error, "the memory for packets from another process cannot be mapped, so a socket is used: ")
            return LocalMessage.send(.noRing, on: connections[index]) == 0
        case .packet:
            guard descriptor == -1 else { return false }
            let (packet, envelope) = LocalMessage.packet(in: message)
            body(packet, envelope)
            return true
        case .wake:
            return descriptor == -1
        case .noRing, .share:
            return false
        }
    }

    private func map(_ descriptor: Int32, at index: Int, isAwake: Bool) -> Int32 {
        if descriptor < 0 { return EMFILE }
        var memory: UnsafeMutableRawPointer?
        let error = linux_map_shared_memory(descriptor, PacketRing.strideByteCount, &memory)
        guard error == 0, let memory else { return error }
        take(memory, at: index)
        PacketRing.sleeping(memory).pointee.store(isAwake ? 0 : 1, ordering: .sequentiallyConsistent)
        return 0
    }

    private func index(of connection: Int32) -> Int? {
        for index in 0..<count where connections[index] == connection { return index }
        return nil
    }

    /// Closes the connection of a sender that has ended or is refused.
    private mutating func end(_ index: Int) {
        assert(connections[index] >= 0, "a sender ends once")
        linux_close(connections[index])
        connections[index] = Self.ended
        endedCount += 1
        listenAgain()
    }
}
