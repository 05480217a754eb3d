import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

/// Another open device of this host that this one sends to: a connection to the socket of its slot, and a ring that it
/// reads. Without a ring, packets are sent over the connection.
struct Peer: ~Copyable {
    /// -1: the peer is this device itself.
    private let connection: Int32
    /// Nil when shared memory is not available. `Senders` owns the ring of a device to itself.
    private var ring: UnsafeMutableRawPointer?
    var writer: PacketRingWriter?
    /// Refers to the process of the peer (pidfd_open(2)), and is ready when it has ended; negative where there is none.
    private var process: Int32 = -1
    /// The ready list that contains the connection and `process`, and the slot of the peer.
    private var readyList: Int32 = -1
    private var slot = 0
    /// The access table of the peer; nil before it has sent it.
    private var accessTable: PeerAccessTable?
    /// The arenas of the peer that are mapped here (`SharedMemory`); nil without any.
    private var mappings: UnsafeMutablePointer<SharedMapping>?
    /// Whether a packet was written to it since the last check whether the receiver sleeps.
    var isTouched = false
    /// Since when it has no room for another packet, in nanoseconds; 0 while it has.
    var fullSince: UInt64 = 0
    /// Whether it has had none for so long that datagrams to it are dropped.
    var isLate = false
    /// A packet that waits until the ring is empty, since the table of address pairs has no room for its own; nil without one.
    private var held: HeldPacket?

    /// Connects to a slot, and sends it a ring. Returns nil when the slot cannot be reached, with the errno value in
    /// `error`. `ringError` is the errno value where there is no ring, or 0.
    init?(_ slot: Int, error: inout Int32, ringError: inout Int32) {
        let connection = Slot.connect(slot)
        guard connection >= 0 else {
            error = -connection
            return nil
        }
        self.connection = connection
        ring = Self.makeRing(for: connection, &ringError)
        if let ring { writer = PacketRingWriter(ring) }
    }

    /// This device as its own peer, through a ring of `Senders`.
    init(own ring: UnsafeMutableRawPointer) {
        connection = -1
        self.ring = ring
        writer = PacketRingWriter(ring)
    }

    deinit {
        held?.bytes.deallocate()
        guard connection >= 0 else { return }
        if let mappings {
            for index in 0..<Neighbor.mappingCount {
                if let memory = mappings[index].address { linux_unmap(memory, Int(mappings[index].byteCount)) }
            }
            mappings.deallocate()
        }
        if let ring { linux_unmap(ring, PacketRing.strideByteCount) }
        if process >= 0 { linux_close(process) }
        linux_close(connection)
    }

    private static func makeRing(for connection: Int32, _ error: inout Int32) -> UnsafeMutableRawPointer? {
        var descriptor: Int32 = -1
        var memory: UnsafeMutableRawPointer?
        error = linux_make_shared_memory(
            ("swift-rdma soft" as StaticString).cString, PacketRing.strideByteCount, &descriptor, &memory)
        guard error == 0, let memory else { return nil }
        error = LocalMessage.send(.ring, on: connection, descriptor: descriptor)
        linux_close(descriptor)
        if error == 0 { return memory }
        linux_unmap(memory, PacketRing.strideByteCount)
        return nil
    }

    /// Adds the connection to the ready list, which reports when the receiver refuses the ring or ends. Returns false
    /// when that fails.
    mutating func register(in readyList: Int32, slot: Int) -> Bool {
        self.readyList = readyList
        self.slot = slot
        return linux_ready_add(readyList, connection, LocalTag.peer(slot)) == 0
    }

    /// Whether the receiver has closed the ring.
    @inline(__always)
    var isClosed: Bool {
        guard let ring else { return false }
        return PacketRing.closed(ring).pointee.load(ordering: .relaxed) != 0
    }

    /// Whether the next packet can be written to the ring, or sent over the connection.
    @inline(__always)
    mutating func hasRoom() -> Bool {
        guard ring != nil else { return linux_local_has_room(connection) }
        return writer!.hasRoom()
    }

    /// Keeps a packet until `writeHeld`, before which no other one is written.
    fileprivate mutating func hold(_ packet: UnsafeRawPointer, byteCount: Int, _ envelope: PacketEnvelope) {
        assert(held == nil, "no packet is written while one is kept")
        // The writer may read more bytes than the packet has.
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: Engine.packetRoom, alignment: 64)
        bytes.copyMemory(from: packet, byteCount: byteCount)
        held = HeldPacket(bytes: bytes, byteCount: byteCount, envelope: envelope)
    }

    /// Whether a packet is kept. Others must not overtake it.
    @inline(__always)
    var holds: Bool { held != nil }

    /// Writes the packet that is kept. Returns false when it still has to wait.
    mutating func writeHeld() -> Bool {
        guard let packet = held else { return true }
        if ring != nil {
            guard writer!.isEmpty,
                writer!.write(packet.bytes, byteCount: packet.byteCount, packet.envelope) == .written
            else { return false }
        } else if !packet.envelope.isReference {
            // The receiver could not map the ring. A reference is lost, as in a network, and then sent again as packets.
            if send(packet.bytes, byteCount: packet.byteCount, packet.envelope) == EAGAIN { return false }
        }
        packet.bytes.deallocate()
        held = nil
        return true
    }

    /// Whether the receiver has written an invalid position to the ring.
    var isBroken: Bool { writer?.hasInvalidPosition ?? false }

    /// Whether the receiver is another device.
    var isOther: Bool { connection >= 0 }

    /// Whether the receiver's process has ended.
    var hasEnded: Bool {
        connection >= 0 && (linux_local_has_ended(connection) || process >= 0 && linux_process_has_ended(process))
    }

    /// Whether the receiver sleeps and is to be woken. True for one caller only, since it clears the word.
    @inline(__always)
    mutating func takeSleeper() -> Bool {
        isTouched = false
        guard let ring else { return false }
        // The packet must be visible before the check whether its reader sleeps.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if PacketRing.sleeping(ring).pointee.load(ordering: .relaxed) == 0 { return false }
        return PacketRing.sleeping(ring).pointee.exchange(0, ordering: .acquiringAndReleasing) != 0
    }

    /// Sends a wake-up to the receiver. Returns false when the receiver has ended.
    func wake() -> Bool {
        let error = LocalMessage.send(.wake, on: connection)
        // EAGAIN: messages are queued, so the receiver is awake or about to be.
        return error == 0 || error == EAGAIN
    }

    /// Sends a packet over the connection. Returns 0, or a positive errno value: EAGAIN when the receiver's queue is
    /// full.
    func send(_ packet: UnsafeRawPointer, byteCount: Int, _ envelope: PacketEnvelope) -> Int32 {
        LocalMessage.send(packet, byteCount: byteCount, envelope, on: connection)
    }

    /// Receives the messages of the receiver. Returns 0; EPIPE when it has ended; EPROTO when it violates the protocol.
    mutating func receive() -> Int32 {
        if process >= 0 && linux_process_has_ended(process) { return EPIPE }
        var message = (UInt64(0), UInt64(0))
        for _ in 0..<Self.burst {
            var descriptor: Int32 = -1
            let received = linux_local_receive(connection, &message, LocalMessage.shareByteCount, &descriptor)
            if received == -EAGAIN { return 0 }
            defer { if descriptor >= 0 { linux_close(descriptor) } }
            if received <= 0 && received != -EMSGSIZE { return EPIPE }
            let kind = withUnsafeBytes(of: &message) {
                LocalMessage.kind(of: UnsafeRawBufferPointer(rebasing: $0[..<max(Int(received), 0)]))
            }
            switch kind {
            case .noRing:
                guard descriptor == -1, ring != nil else { return EPROTO }
                closeRing()
            case .share:
                // -2: no descriptor was left for it.
                guard descriptor != -1 else { return EPROTO }
                if descriptor >= 0 && !map(message.1, descriptor) { return EPROTO }
            default: return EPROTO
            }
        }
        // The ready list reports the connection again.
        return 0
    }

    /// Messages that are received in a row.
    private static let burst = 64

    /// Maps the access table, number 0, or an arena. Returns false when the descriptor is not that of such memory.
    private mutating func map(_ number: UInt64, _ descriptor: Int32) -> Bool {
        guard number != 0 else {
            guard accessTable == nil else { return false }
            // The end of the connection does not tell that the process has ended: a child of fork(2) can have it open.
            process = linux_open_process(connection)
            if process >= 0, linux_ready_add(readyList, process, LocalTag.peer(slot)) != 0 { return true }
            var error: Int32 = 0
            accessTable = PeerAccessTable(descriptor: descriptor, connection: connection, error: &error)
            // Where there is no room for it, requests are packets.
            return error != EINVAL
        }
        guard number < Neighbor.mappingCount else { return false }
        if mappings == nil {
            let places = UnsafeMutablePointer<SharedMapping>.allocate(capacity: Neighbor.mappingCount)
            places.initialize(repeating: SharedMapping(), count: Neighbor.mappingCount)
            mappings = places
        }
        guard mappings![Int(number)].address == nil else { return false }
        var memory: UnsafeMutableRawPointer?
        var byteCount = 0
        let error = linux_map_arena(descriptor, &byteCount, &memory)
        guard error != EINVAL else { return false }
        // Where there is no room for it, the kernel copies.
        guard error == 0, let memory else { return true }
        mappings![Int(number)].number = UInt32(number)
        mappings![Int(number)].address = memory
        mappings![Int(number)].byteCount = UInt64(byteCount)
        return true
    }

    /// The receiver as a neighbor; nil when its memory cannot be accessed directly.
    var neighbor: Neighbor? {
        guard let ring, accessTable != nil else { return nil }
        return accessTable!.neighbor(ring: ring, mappings)
    }

    /// The receiver cannot map the ring.
    private mutating func closeRing() {
        if let ring {
            sendUnread(ring)
            linux_unmap(ring, PacketRing.strideByteCount)
        }
        ring = nil
        writer = nil
    }

    /// Sends the packets that were written to a ring before the receiver refused it.
    private func sendUnread(_ ring: UnsafeMutableRawPointer) {
        var reader = PacketRingReader(ring)
        var envelope = PacketEnvelope(source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
        // The receiver can write to the ring as well: no more than it can hold.
        for _ in 0..<PacketRing.byteCount / PacketRing.line {
            guard let packet = reader.next(&envelope) else { return }
            // A reference is lost, as in a network, and then sent again as packets.
            if !envelope.isReference, send(packet.baseAddress!, byteCount: packet.count, envelope) != 0 { return }
            reader.release(byteCount: packet.count)
        }
    }
}

/// A packet that waits for its receiver.
private struct HeldPacket {
    let bytes: UnsafeMutableRawPointer
    let byteCount: Int
    let envelope: PacketEnvelope
}

/// The devices of this host that this one sends to, by slot.
struct Peers: ~Copyable {
    private let peers: UnsafeMutablePointer<UnsafeMutablePointer<Peer>?>
    /// When the next attempt to connect to a slot is allowed, after one that failed.
    private let retryAt: UnsafeMutablePointer<UInt64>
    /// Slots that were written to since `wakeTouched`.
    private let touched: UnsafeMutablePointer<Int>
    /// The engine's list of those whose memory is accessed directly.
    private let neighbors: NeighborTable
    private var touchedCount = 0
    /// The slots whose devices had no room for another packet, which the engine has suspended.
    private let full: UnsafeMutablePointer<Int>
    private(set) var fullCount = 0
    /// The errno values that were last logged.
    private var warnedConnection: Int32 = 0
    private var warnedRing: Int32 = 0

    /// The time during which no connection to an empty slot is attempted, since each attempt costs system calls.
    private static let retryNanoseconds: UInt64 = 20_000_000

    init(neighbors: NeighborTable) {
        self.neighbors = neighbors
        peers = .allocate(capacity: Slot.count)
        peers.initialize(repeating: nil, count: Slot.count)
        retryAt = .allocate(capacity: Slot.count)
        retryAt.initialize(repeating: 0, count: Slot.count)
        touched = .allocate(capacity: Slot.count)
        full = .allocate(capacity: Slot.count)
    }

    deinit {
        for slot in 0..<Slot.count { Self.free(peers[slot]) }
        peers.deallocate()
        retryAt.deallocate()
        touched.deallocate()
        full.deallocate()
    }

    private static func free(_ peer: UnsafeMutablePointer<Peer>?) {
        guard let peer else { return }
        peer.deinitialize(count: 1)
        peer.deallocate()
    }

    /// The device at a slot; nil when it cannot be reached. `own` is the slot of this device.
    @inline(__always)
    mutating func peer(
        _ slot: Int, own: Int, _ senders: inout Senders, now: UInt64
    ) -> UnsafeMutablePointer<Peer>? {
        openPeer(slot) ?? open(slot, own: own, &senders, now: now)
    }

    /// The device at a slot, if there is a connection to it.
    @inline(__always)
    func openPeer(_ slot: Int) -> UnsafeMutablePointer<Peer>? {
        guard let peer = peers[slot], !peer.pointee.isClosed else { return nil }
        return peer
    }

    @inline(never)
    private mutating func open(
        _ slot: Int, own: Int, _ senders: inout Senders, now: UInt64
    ) -> UnsafeMutablePointer<Peer>? {
        close(slot)
        guard now >= retryAt[slot] else { return nil }
        let peer = UnsafeMutablePointer<Peer>.allocate(capacity: 1)
        if slot == own, let opened = Self.openOwn(&senders) {
            peer.initialize(to: opened)
        } else if let opened = connect(slot, senders.readyList) {
            peer.initialize(to: opened)
        } else {
            peer.deallocate()
            retryAt[slot] = now &+ Self.retryNanoseconds
            return nil
        }
        peers[slot] = peer
        return peer
    }

    private static func openOwn(_ senders: inout Senders) -> Peer? {
        guard let ring = linux_map_memory(PacketRing.strideByteCount) else { return nil }
        if senders.addOwn(ring) { return Peer(own: ring) }
        linux_unmap(ring, PacketRing.strideByteCount)
        return nil
    }

    private mutating func connect(_ slot: Int, _ readyList: Int32) -> Peer? {
        var error: Int32 = 0
        var ringError: Int32 = 0
        guard var peer = Peer(slot, error: &error, ringError: &ringError) else {
            warnOfConnection(slot, error)
            return nil
        }
        guard peer.register(in: readyList, slot: slot) else { return nil }
        if ringError != 0 { warnOfRing(ringError) }
        return peer
    }

    private mutating func warnOfConnection(_ slot: Int, _ error: Int32) {
        // ECONNREFUSED: no process holds the slot. EAGAIN: its backlog is full.
        guard error != ECONNREFUSED, error != EAGAIN, error != warnedConnection else { return }
        warnedConnection = error
        var warning = MessageText("no connection to slot ")
        warning.append(slot)
        warning.append(" of this host can be made, so packets to it are sent over UDP: ")
        if error == EPERM {
            warning.append(
                "another user holds it, or a sandbox forbids the call (EPERM); run both processes as one user")
        } else {
            warning.append(error: error)
        }
        warning.log(RDMA_LOG_WARNING)
    }

    private static let invalidMessage: StaticString =
        " of this host is closed, since its message is invalid or of another version of soft; run both with the same version: "
    private static let invalidPosition: StaticString =
        " of this host is closed, since its process has written an invalid position to a packet ring: "

    private mutating func warn(_ slot: Int, _ text: StaticString, _ error: Int32) {
        guard warnedConnection != error else { return }
        warnedConnection = error
        var warning = MessageText("the connection to slot ")
        warning.append(slot)
        warning.append(text)
        warning.append(error: error)
        warning.log(RDMA_LOG_WARNING)
    }

    private mutating func warnOfRing(_ error: Int32) {
        guard error != warnedRing else { return }
        warnedRing = error
        var warning = MessageText(
            "no shared memory for packets to another process of this host, so they are sent over a slower socket: ")
        warning.append(error: error)
        if error == EFBIG { warning.append(": RLIMIT_FSIZE is less than 516 KiB; raise `ulimit -f`") }
        if error == ENOMEM { warning.append(": see `ulimit -v`, and memory.max of the control group") }
        warning.log(RDMA_LOG_WARNING)
    }

    /// Closes the connection to a slot.
    mutating func close(_ slot: Int) {
        guard let peer = peers[slot] else { return }
        if peer.pointee.isTouched {
            var index = 0
            while touched[index] != slot { index += 1 }
            touchedCount -= 1
            touched[index] = touched[touchedCount]
        }
        if peer.pointee.isOther { neighbors[slot] = nil }
        Self.free(peer)
        peers[slot] = nil
    }

    /// Receives the messages of the device at a slot, and closes the connection when it has ended.
    /// - Parameter allowsDirect: Whether its memory may be accessed directly.
    mutating func receive(_ slot: Int, allowsDirect: Bool) {
        guard let peer = peers[slot] else { return }
        let error = peer.pointee.receive()
        if error == EPROTO { warn(slot, Self.invalidMessage, EPROTO) }
        guard error == 0 else { return close(slot) }
        neighbors[slot] = allowsDirect ? peer.pointee.neighbor : nil
    }

    // MARK: Receivers without room

    /// Notes that a peer has no room for another packet.
    @inline(never)
    mutating func noteFull(_ slot: Int, _ peer: UnsafeMutablePointer<Peer>, now: UInt64) {
        peer.pointee.fullSince = max(now, 1)
        peer.pointee.isLate = false
        for index in 0..<fullCount where full[index] == slot { return }
        full[fullCount] = slot
        fullCount += 1
    }

    /// Makes a packet wait until the ring of its receiver is empty.
    @inline(never)
    mutating func hold(
        _ slot: Int, _ peer: UnsafeMutablePointer<Peer>, _ packet: UnsafeRawPointer, byteCount: Int,
        _ envelope: PacketEnvelope
    ) {
        peer.pointee.hold(packet, byteCount: byteCount, envelope)
        // The ring may have a wrap record alone, which a receiver that sleeps has to take.
        touch(slot, peer)
    }

    func isFull(_ slot: Int) -> Bool { (peers[slot]?.pointee.fullSince ?? 0) != 0 }

    /// Whether datagrams to this slot are dropped, since its device has had no room for too long.
    func isLate(_ slot: Int) -> Bool { peers[slot]?.pointee.isLate ?? false }

    /// What has become of a receiver without room.
    enum Room {
        case full
        /// It is late from now on.
        case late
        /// It has room, or its connection is closed.
        case free
    }

    /// Looks at receiver `index`, 0 to `fullCount` - 1, of those without room. One that has room leaves the list, where the
    /// last one takes its place.
    /// - Parameter patience: The time after which it is late, in nanoseconds.
    mutating func takeRoom(_ index: Int, now: UInt64, patience: UInt64) -> (slot: Int, room: Room) {
        let slot = full[index]
        if let peer = peers[slot], !peer.pointee.isClosed, !takesAnother(slot, peer) {
            if peer.pointee.isBroken {
                warn(slot, Self.invalidPosition, EBADMSG)
                close(slot)
            } else if peer.pointee.isLate || now < peer.pointee.fullSince &+ patience {
                return (slot, .full)
            } else if !peer.pointee.hasEnded {
                peer.pointee.isLate = true
                return (slot, .late)
            } else {
                close(slot)
            }
        } else {
            peers[slot]?.pointee.fullSince = 0
            peers[slot]?.pointee.isLate = false
        }
        fullCount -= 1
        full[index] = full[fullCount]
        return (slot, .free)
    }

    /// Whether the next packet can be written to a receiver, after the one that it waits for with `hold`.
    private mutating func takesAnother(_ slot: Int, _ peer: UnsafeMutablePointer<Peer>) -> Bool {
        if peer.pointee.holds {
            guard peer.pointee.writeHeld() else { return false }
            touch(slot, peer)
        }
        return peer.pointee.hasRoom()
    }

    /// The time after which a thread that sleeps is to look at the receivers without room again, in nanoseconds: a part of
    /// the time that the last one of them has waited, so that one that is stopped costs little.
    func retryDelay(now: UInt64) -> UInt64 {
        var youngest = UInt64.max
        for index in 0..<fullCount {
            guard let peer = peers[full[index]] else { return Self.shortestRetry }
            youngest = min(youngest, now > peer.pointee.fullSince ? now - peer.pointee.fullSince : 0)
        }
        return min(max(youngest / 8, Self.shortestRetry), Self.longestRetry)
    }

    private static let shortestRetry: UInt64 = 50_000
    private static let longestRetry: UInt64 = 10_000_000

    /// Notes that a packet was written to the peer, for `wakeTouched`.
    @inline(__always)
    mutating func touch(_ slot: Int, _ peer: UnsafeMutablePointer<Peer>) {
        if peer.pointee.isTouched { return }
        peer.pointee.isTouched = true
        assert(touchedCount < Slot.count, "each slot is in the list once")
        touched[touchedCount] = slot
        touchedCount += 1
    }

    /// Sends a wake-up to each peer that was written to and sleeps.
    /// - Returns: True when this device itself is one of them: the caller wakes the progress thread.
    @inline(__always)
    mutating func wakeTouched(own: Int) -> Bool {
        var wakesOwn = false
        while touchedCount > 0 {
            touchedCount -= 1
            let slot = touched[touchedCount]
            guard let peer = peers[slot], peer.pointee.takeSleeper() else { continue }
            if slot == own { wakesOwn = true } else if !peer.pointee.wake() { close(slot) }
        }
        return wakesOwn
    }
}
