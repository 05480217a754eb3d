import CLinux
import ProviderKit
import RoCETransport
import RoCEWire
import Synchronization

/// What the links between engine and world remember from one round to the next; under the context's lock.
struct LinkState {
    /// Packets go over UDP even to this host: for tests that look at packets.
    var usesSharedMemory = true
    /// The slot that the packet before went to, or -1: it went over UDP. The next one is written there at once.
    var lastSlot = -1
    /// A packet whose receiver's ring is full waits here, and all others with it.
    let held = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 64)
    var heldPacket: OutgoingPacket?
    /// Packets that came or went.
    var packetCount: UInt64 = 0
    /// The IP header that a datagram's receiver finds before its data.
    let networkHeader = UnsafeMutableRawBufferPointer.allocate(byteCount: IPv6Header.byteCount, alignment: 8)
    /// An address that is ours: the last one that was looked up.
    var knownAddress = GID()
    /// When a datagram last came or went.
    var lastDatagram: UInt64 = 0
    /// When the rings of dead senders were last looked for.
    var lastReclaim: UInt64 = 0

    func deallocate() {
        held.deallocate()
        networkHeader.deallocate()
    }
}

/// Packets in a row that one ring or one engine may have before the others get their turn.
private let burst = 64
/// How long a full ring may hold up everybody. Its reader has some microseconds of work; longer means that it sleeps
/// or is dead, and then packets to it are lost, as in a network.
private let patience: UInt64 = 2_000_000
/// How long after a datagram those who poll also look at the sockets, which costs a system call.
private let datagramMemory: UInt64 = 5_000_000

extension Guarded {
    /// Whether no datagram came or went for a while.
    @inline(__always)
    func datagramsAreQuiet(at now: UInt64) -> Bool { now &- link.lastDatagram >= datagramMemory }
}

/// How a path is served: `Path.tag`.
enum Route {
    static let datagrams: UInt64 = 0
    static let sharedMemory: UInt64 = 1
}

extension ContextPointer {
    /// Runs the engine until there is nothing to do right now, or others should have the lock. Under the lock.
    /// - Returns: whether there may be more to do.
    @inline(never)
    func pump(now: UInt64, receivesDatagrams: Bool) -> Bool {
        if let deadline = pointee.engine.nextDeadline, now >= deadline { pointee.engine.advance(to: now) }
        var rounds = 0
        var isBusy = true
        let areQuiet = guarded.pointee.datagramsAreQuiet(at: now)
        if !areQuiet { guarded.pointee.sockets.trains.judge(repairs: pointee.engine.repairCount, now: now) }
        var mayHaveDatagrams = receivesDatagrams || !areQuiet
        while isBusy && rounds < 8 {
            isBusy = transmit(now: now)
            if receiveShared(now: now) { isBusy = true }
            if mayHaveDatagrams {
                let (count, hasMore) = receiveDatagrams(now: now)
                if count > 0 { isBusy = true }
                // Each look costs a system call, and sockets that gave all they had are mostly empty still.
                mayHaveDatagrams = hasMore
            }
            rounds += 1
        }
        guarded.pointee.sockets.flush()
        if guarded.pointee.peers.wakeTouched(own: pointee.registry.slot, with: pointee.bell) { pointee.watch.wake() }
        dispatchEvents()
        return isBusy
    }

    // MARK: Sending

    @inline(__always)
    private func transmit(now: UInt64) -> Bool {
        if guarded.pointee.link.heldPacket != nil && !releaseHeld(now: now) { return false }
        for _ in 0..<burst where !transmitOne(now: now) { return false }
        return true
    }

    /// Lets the engine write a packet where the one before went: mostly it goes there too.
    @inline(__always)
    private func transmitOne(now: UInt64) -> Bool {
        let slot = guarded.pointee.link.lastSlot
        var target: UnsafeMutableRawPointer
        var isInRing = false
        if slot < 0 {
            target = guarded.pointee.sockets.reserve()
        } else if let peer = peer(slot, now: now), let place = peer.pointee.writer.reserve() {
            target = place
            isInRing = true
        } else {
            target = guarded.pointee.link.held.baseAddress!
        }
        let room = UnsafeMutableRawBufferPointer(start: target, count: Engine.packetRoom)
        guard let packet = pointee.engine.transmit(into: room, now: now) else { return false }
        guarded.pointee.link.packetCount &+= 1
        if packet.path.tag == Route.sharedMemory {
            return sendShared(packet, at: target, writtenFor: isInRing ? slot : -1, now: now)
        }
        sendDatagram(packet, at: target, isInPlace: slot < 0, now: now)
        return true
    }

    /// - Returns: false when the packet has to wait.
    @inline(__always)
    private func sendShared(
        _ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, writtenFor slot: Int, now: UInt64
    ) -> Bool {
        let destination = Int(packet.destinationQueuePair >> 16)
        guard let peer = peer(destination, now: now) else {
            pointee.counters.pointee.unreachable &+= 1
            return true
        }
        guarded.pointee.link.lastSlot = destination
        if destination != slot {
            guard let place = peer.pointee.writer.reserve() else {
                return hold(packet, at: bytes, for: peer, now: now)
            }
            place.copyMemory(from: bytes, byteCount: packet.byteCount)
        }
        let envelope = PacketEnvelope(
            source: packet.path.source, destination: packet.path.destination,
            trafficClass: packet.path.trafficClass, hopLimit: packet.path.hopLimit, flowLabel: packet.path.flowLabel)
        peer.pointee.fullSince = 0
        if peer.pointee.writer.commit(byteCount: packet.byteCount, envelope) {
            guarded.pointee.peers.touch(destination, peer)
        } else {
            pointee.counters.pointee.ringFull &+= 1
        }
        return true
    }

    @inline(__always)
    private func peer(_ slot: Int, now: UInt64) -> UnsafeMutablePointer<Peer>? {
        guarded.pointee.peers.peer(slot, pointee.registry, own: guarded.pointee.mailbox.descriptor, now: now)
    }

    /// Keeps a packet for which there is no room, unless its receiver has been without room for too long.
    @inline(never)
    private func hold(
        _ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, for peer: UnsafeMutablePointer<Peer>, now: UInt64
    ) -> Bool {
        if peer.pointee.fullSince == 0 { peer.pointee.fullSince = now }
        guard now &- peer.pointee.fullSince < patience else {
            pointee.counters.pointee.ringFull &+= 1
            let slot = Int(packet.destinationQueuePair >> 16)
            if slot != pointee.registry.slot && !pointee.registry.isAlive(slot) { guarded.pointee.peers.close(slot) }
            return true
        }
        if bytes != guarded.pointee.link.held.baseAddress! {
            guarded.pointee.link.held.baseAddress!.copyMemory(from: bytes, byteCount: packet.byteCount)
        }
        guarded.pointee.link.heldPacket = packet
        return false
    }

    /// Tries again to send the packet that waits. False when it still does.
    @inline(never)
    private func releaseHeld(now: UInt64) -> Bool {
        guard let packet = guarded.pointee.link.heldPacket else { return true }
        guarded.pointee.link.heldPacket = nil
        return sendShared(packet, at: guarded.pointee.link.held.baseAddress!, writtenFor: -1, now: now)
    }

    @inline(never)
    private func sendDatagram(_ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, isInPlace: Bool, now: UInt64)
    {
        guarded.pointee.link.lastSlot = -1
        guarded.pointee.link.lastDatagram = now
        if !isInPlace { guarded.pointee.sockets.reserve().copyMemory(from: bytes, byteCount: packet.byteCount) }
        let isExpendable = packet.isExpendable
        if guarded.pointee.sockets.commit(byteCount: packet.byteCount, packet.path, isExpendable: isExpendable) {
            pointee.counters.pointee.sentDatagrams &+= 1
        } else {
            pointee.counters.pointee.unreachable &+= 1
        }
    }

    // MARK: Receiving

    @inline(__always)
    private func receiveShared(now: UInt64) -> Bool {
        guarded.pointee.mailbox.findSenders()
        var isBusy = false
        var envelope = PacketEnvelope(
            source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
        for index in 0..<guarded.pointee.mailbox.count {
            let reader = guarded.pointee.mailbox.reader(index)
            var left = burst
            while left > 0, let packet = reader.pointee.next(&envelope) {
                if isOurs(envelope.destination) {
                    receive(packet, envelope, now: now)
                } else {
                    pointee.counters.pointee.badAddress &+= 1
                }
                reader.pointee.release(byteCount: packet.count)
                left -= 1
            }
            if left < burst {
                reader.pointee.publish()
                isBusy = true
            }
        }
        return isBusy
    }

    @inline(__always)
    private func isOurs(_ address: GID) -> Bool {
        if address == guarded.pointee.link.knownAddress { return true }
        guard guarded.pointee.gids.contains(address) else { return false }
        guarded.pointee.link.knownAddress = address
        return true
    }

    /// Hands a packet to the engine.
    @inline(__always)
    private func receive(_ packet: UnsafeRawBufferPointer, _ envelope: borrowing PacketEnvelope, now: UInt64) {
        guarded.pointee.link.packetCount &+= 1
        // Only a datagram's receiver is shown the IP header: the top three bits of the opcode are the service type.
        let isDatagram = packet[0] >> 5 == 3
        let header =
            isDatagram
            ? envelope.writeHeader(to: guarded.pointee.link.networkHeader, packetByteCount: packet.count)
            : UnsafeRawBufferPointer(start: nil, count: 0)
        pointee.engine.receive(
            packet,
            from: PacketSource(source: envelope.source, destination: envelope.destination, header: header), now: now)
    }

    @inline(never)
    private func receiveDatagrams(now: UInt64) -> (count: Int, hasMore: Bool) {
        let slot = pointee.registry.slot
        let received = guarded.pointee.sockets.receive(pointee.counters) { packet, envelope in
            // Bytes 5 to 7 of the BTH are the destination QP; its top byte is the slot.
            let destination = Int(packet[5])
            if destination == slot {
                receive(packet, envelope, now: now)
            } else {
                forward(packet, envelope, to: destination, now: now)
            }
        }
        if received.count > 0 { guarded.pointee.link.lastDatagram = now }
        return received
    }

    /// Leaves the network: passes on what has come for others. Under the lock, when nothing else runs any more.
    func leaveNetwork() {
        guarded.pointee.sockets.retire()
        let now = linux_monotonic_ns()
        while receiveDatagrams(now: now).count > 0 {}
        _ = guarded.pointee.peers.wakeTouched(own: pointee.registry.slot, with: pointee.bell)
    }

    /// Passes on a packet that the network gave to us and that another process of this host is meant to have.
    private func forward(
        _ packet: UnsafeRawBufferPointer, _ envelope: borrowing PacketEnvelope, to slot: Int, now: UInt64
    ) {
        guard let peer = peer(slot, now: now) else {
            pointee.counters.pointee.unreachable &+= 1
            return
        }
        guard let place = peer.pointee.writer.reserve() else {
            pointee.counters.pointee.ringFull &+= 1
            return
        }
        place.copyMemory(from: packet.baseAddress!, byteCount: packet.count)
        guard peer.pointee.writer.commit(byteCount: packet.count, envelope) else { return }
        pointee.counters.pointee.forwarded &+= 1
        guarded.pointee.peers.touch(slot, peer)
    }
}

extension PacketEnvelope {
    /// Writes the IP header that the packet came with: IPv4 as its sender's kernel made it but for what routers
    /// change, IPv6 likewise.
    func writeHeader(to bytes: UnsafeMutableRawBufferPointer, packetByteCount: Int) -> UnsafeRawBufferPointer {
        if destination.isIPv4 {
            let header = IPv4Header(
                source: source.ipv4, destination: destination.ipv4, packetByteCount: packetByteCount,
                typeOfService: trafficClass, timeToLive: hopLimit)
            try? header.emit(into: bytes)
            return UnsafeRawBufferPointer(rebasing: bytes[..<IPv4Header.byteCount])
        }
        let header = IPv6Header(
            source: IPv6Address(high: source.high, low: source.low),
            destination: IPv6Address(high: destination.high, low: destination.low), packetByteCount: packetByteCount,
            trafficClass: trafficClass, flowLabel: flowLabel, hopLimit: hopLimit)
        try? header.emit(into: bytes)
        return UnsafeRawBufferPointer(bytes)
    }
}
