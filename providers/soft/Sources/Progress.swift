import CIBVerbs
import CLinux
import ProviderKit
import RoCETransport
import RoCEWire
import Synchronization

/// The state of the engine's inputs and outputs that is kept between rounds; under the context's lock.
struct LinkState {
    /// Whether packets to this host use shared memory. False when they are sent over UDP, so that they can be captured.
    var usesSharedMemory = true
    /// Whether the previous packet went to the sockets: then the next one is written to their buffer directly.
    var lastWasDatagram = true
    /// Where the engine writes packets to this host, before they are copied to a ring: see `PacketRing`.
    let packetBytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 64)
    /// The number of packets sent and received. Wraps.
    var packetCount: UInt64 = 0
    /// The IP header for the GRH area of a received datagram.
    let networkHeader = UnsafeMutableRawBufferPointer.allocate(byteCount: IPv6Header.byteCount, alignment: 8)
    /// The last GID that was found in the table.
    var knownAddress = GID()
    /// Whether the previous poll has received or sent a packet, and no post followed.
    var receivedInPoll = false
    /// The rounds in a row that found no message. Wraps.
    var roundsWithoutMessage: UInt32 = 0
    /// When a datagram was last sent or received, in nanoseconds.
    var lastDatagram: UInt64 = 0
    /// The address to which a FLUSH was last sent with both ICRCs: it may be of the kernel's rxe (`sendFlushTwice`).
    var rxe = GID()
    /// When the sockets were last looked at, in nanoseconds.
    var lastReceive: UInt64 = 0
    var held = HeldAcknowledgement()
    /// See `ContextPointer.currentTime()`.
    var clock = linux_clock()
    /// When messages on the connections to other processes were last looked for, in nanoseconds.
    var lastMessages: UInt64 = 0

    init() { linux_clock_init(&clock) }

    func deallocate() {
        packetBytes.deallocate()
        networkHeader.deallocate()
    }
}

/// The most consecutive packets of one ring, or of the engine, in one round.
private let burst = 64
/// The most packets of a round after which an acknowledgement is held: the message, an acknowledgement, and one more.
let fewPackets = 3
/// The time after which a receiver without room is late. A reader, or its progress thread, needs some microseconds to make
/// room, and on a busy processor some time slices. One that has made none for longer is stopped, or about to end: datagrams
/// to it (UD) are dropped from then on, until it makes room, so that a queue pair that sends to many does not wait for one.
/// Connections wait as long as it takes; the retries of RC end them. Nanoseconds.
private let patience: UInt64 = 20_000_000
/// The time after which a thread that posts looks at the sockets, if no other call has done so meanwhile. Nanoseconds.
private let receiveInterval: UInt64 = 20_000
/// The time after a datagram during which polling threads also receive from the sockets, which costs a system call.
/// Nanoseconds.
private let datagramMemory: UInt64 = 5_000_000
/// The time after which polling threads look for messages on the connections to other processes, which also tell that
/// one has ended: memory of an ended process that is mapped here can still be accessed. Nanoseconds.
private let messageInterval: UInt64 = 100_000

extension Guarded {
    /// Whether no datagram was sent or received for a while.
    @inline(__always)
    func datagramsAreQuiet(at now: UInt64) -> Bool { now &- link.lastDatagram >= datagramMemory }
}

/// The values of `Path.tag`: how packets of a path are sent.
enum Route {
    static let datagrams: UInt64 = 0
    static let sharedMemory = Path.sameHost
}

extension ContextPointer {
    /// The time for the engine and all that is under the lock, in nanoseconds of CLOCK_MONOTONIC: at most half a microsecond ago,
    /// and never before a time that it returned earlier. Under the lock.
    @inline(__always)
    func currentTime() -> UInt64 { linux_clock_ns(&guarded.pointee.link.clock) }

    /// Runs the engine until it is idle, or for 8 rounds, after which the lock is to be released. Under the lock.
    /// - Parameters:
    ///   - receivesDatagrams: Whether to look at every source of packets. Otherwise those that were empty for a while are
    ///     left out in most rounds.
    ///   - afterPost: Whether a thread has posted, and polls later: sockets that were read lately are left to that.
    ///   - mayHold: Whether an acknowledgement may wait for the next call (`HeldAcknowledgement`).
    /// - Returns: Whether there may be more work.
    @inline(never)
    func pump(now: UInt64, receivesDatagrams: Bool, afterPost: Bool = false, mayHold: Bool = false) -> Bool {
        if guarded.pointee.link.held.since != 0,
            afterPost || receivesDatagrams || !guarded.pointee.sockets.holdsOne
                || guarded.pointee.link.held.isLate(at: now)
        {
            guarded.pointee.link.held.end(at: now)
            if !afterPost { guarded.pointee.sockets.flush() }
        }
        if let deadline = pointee.engine.nextDeadline, now >= deadline { pointee.engine.advance(to: now) }
        if guarded.pointee.faults != nil { beginFaultRound(now: now) }
        var rounds = 0
        let firstPacket = guarded.pointee.link.packetCount
        var isBusy = true
        let areQuiet = guarded.pointee.datagramsAreQuiet(at: now)
        if !areQuiet { guarded.pointee.sockets.segmentation.evaluate(repairs: pointee.engine.repairCount, now: now) }
        var mayHaveDatagrams =
            receivesDatagrams
            || !areQuiet && !(afterPost && now &- guarded.pointee.link.lastReceive < receiveInterval)
        if !mayHaveDatagrams && now &- guarded.pointee.link.lastMessages > messageInterval {
            _ = receiveMessages(now: now)
        }
        var order: AcknowledgementOrder = afterPost ? .last : .first
        while isBusy && rounds < 8 {
            isBusy = transmit(now: now, &order)
            if mayHold && mayHoldAcknowledgement(since: firstPacket) { break }
            // The peer works on what is sent while this thread receives.
            if !isBusy { flushUnlessHeld() }
            if receiveShared(now: now) {
                isBusy = true
                if mayHold {
                    let areFew = guarded.pointee.link.packetCount &- firstPacket <= UInt64(fewPackets)
                    order = areFew && mayHoldShared(now: now) ? .held : .first
                }
            }
            if mayHaveDatagrams {
                guarded.pointee.link.lastReceive = now
                if takesMessages(receivesDatagrams, now: now), receiveMessages(now: now) {
                    guarded.pointee.link.roundsWithoutMessage = 0
                    isBusy = true
                }
                let (count, hasMore) = receiveDatagrams(all: receivesDatagrams, now: now)
                if count > 0 { isBusy = true }
                // Each receive costs a system call, and sockets that were empty in the previous round are usually still
                // empty.
                mayHaveDatagrams = hasMore
            }
            rounds += 1
        }
        if !(mayHold && mayHoldAcknowledgement(since: firstPacket) && holdAcknowledgement(now: now)) {
            flushUnlessHeld()
        }
        if pointee.engine.hasAcknowledgement { guarded.pointee.link.held.keep(at: now) }
        if guarded.pointee.peers.wakeTouched(own: pointee.slot.number) { pointee.progressThread.wake() }
        if guarded.pointee.faults != nil { causeFaultEvents() }
        dispatchEvents()
        return isBusy
    }

    /// Whether this round looks for messages. A polling thread leaves them out in most rounds when there were none for a
    /// while, as it does with sockets (`Sockets.receive`).
    @inline(__always)
    private func takesMessages(_ all: Bool, now: UInt64) -> Bool {
        guarded.pointee.link.roundsWithoutMessage &+= 1
        return all || guarded.pointee.link.roundsWithoutMessage <= 32
            || now &- guarded.pointee.link.lastMessages >= messageInterval
    }

    // MARK: Single messages

    // The latency of a message to a device of this host is the time of two calls: the post and the poll. What `pump` does
    // besides, it does after the message has left, or in a later poll.

    /// Sends the first run of a post before anything else is looked at, if nothing comes before it.
    @inline(__always)
    func sendFirstRun(now: UInt64) {
        guard guarded.pointee.faults == nil, guarded.pointee.peers.fullCount == 0,
            pointee.engine.mayTransmit(now: now)
        else { return }
        _ = transmitRun(now: now, .last)
    }

    /// Receives a run of each ring, if the engine has nothing to send, and the previous poll found none: a program that finds a
    /// message in each poll has many, which `pump` receives at once.
    /// - Returns: Whether that was all: there was no packet, and nothing is due, or there were few, and all that is to be sent
    ///   is an acknowledgement, which is held. Packets that follow are as if they came after this poll.
    @inline(__always)
    func receiveFirstRuns(now: UInt64) -> Bool {
        let isFirst = !guarded.pointee.link.receivedInPoll
        guard isFirst, guarded.pointee.faults == nil, guarded.pointee.link.held.since == 0,
            guarded.pointee.peers.fullCount == 0, !pointee.engine.mayTransmit(now: now)
        else { return false }
        var received = 0
        var envelope = PacketEnvelope(
            source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
        for index in 0..<guarded.pointee.senders.count {
            guard let reader = guarded.pointee.senders.reader(index), reader.pointee.hasPacket else { continue }
            let count = receiveRun(reader, &envelope, limit: fewPackets + 1, now: now)
            // Another packet.
            if count == 0 { return false }
            received += count
            reader.pointee.publish()
        }
        if received == 0 {
            return guarded.pointee.datagramsAreQuiet(at: now)
                && now &- guarded.pointee.link.lastMessages <= messageInterval && !pointee.engine.isDue(at: now)
        }
        guard received <= fewPackets, pointee.engine.hasOnlyAcknowledgement, mayHoldShared(now: now) else {
            return false
        }
        dispatchEvents()
        return true
    }

    /// Receives the run that a ring begins with.
    /// - Returns: The number of its packets; 0 when the next packet is none of a run.
    @inline(__always)
    private func receiveRun(
        _ reader: UnsafeMutablePointer<PacketRingReader>, _ envelope: inout PacketEnvelope, limit: Int, now: UInt64
    ) -> Int {
        guard let run = reader.pointee.run(&envelope), isOurs(envelope.destination) else { return 0 }
        let count = pointee.engine.receiveRun(
            run.records, first: run.first, header: run.header, limit: min(limit, run.lines), from: envelope.addresses,
            acknowledged: envelope.acknowledged, now: now)
        guarded.pointee.link.packetCount &+= UInt64(count)
        reader.pointee.releaseRun(count)
        return count
    }

    // MARK: Sending

    /// Sends up to `burst` packets, and the rest of a run that begins with the last of them: up to 7 more. Only the
    /// first packet comes before the acknowledgements: it may be the answer to a message, and the others do not delay the
    /// acknowledgements of other connections.
    /// - Returns: Whether there may be more.
    @inline(__always)
    private func transmit(now: UInt64, _ order: inout AcknowledgementOrder) -> Bool {
        if guarded.pointee.peers.fullCount != 0 { resumeReceivers(now: now) }
        if guarded.pointee.faults != nil { return transmitWithFaults(now: now, burst: burst) }
        var left = burst
        while left > 0 {
            guard pointee.engine.mayTransmit(now: now) else { return false }
            let count = transmitRun(now: now, order)
            if count == 0 {
                guard transmitOne(now: now, order) else { return pointee.engine.hasDirectWork }
            }
            left -= max(count, 1)
            if order == .last { order = .first }
        }
        return true
    }

    /// Sends packets to a device of this host that the engine writes to the ring of its receiver itself.
    /// - Returns: Their number; 0 when the engine is to write the next packet elsewhere, or has none.
    @inline(__always)
    private func transmitRun(now: UInt64, _ order: AcknowledgementOrder) -> Int {
        guard let target = pointee.engine.beginRun(acknowledgements: order) else { return 0 }
        let destination = Int(target.queuePair >> 16)
        guard let peer = guarded.pointee.peers.openPeer(destination), peer.pointee.writer != nil else { return 0 }
        guard let (records, first, header) = peer.pointee.writer!.beginRun(target) else { return 0 }
        let count = pointee.engine.writeRun(
            to: records, first: first, header: header, limit: PacketRingWriter.longestRun, now: now)
        guard count != 0 else { return 0 }
        peer.pointee.writer!.endRun(count)
        guarded.pointee.link.packetCount &+= UInt64(count)
        guarded.pointee.link.lastWasDatagram = false
        guarded.pointee.peers.touch(destination, peer)
        if !peer.pointee.hasRoom() { suspend(destination, peer, now: now) }
        return count
    }

    /// Sends the acknowledgements that the engine keeps, and no other packet, as far as there is room for them.
    func sendAcknowledgements(now: UInt64) {
        if guarded.pointee.peers.fullCount != 0 { resumeReceivers(now: now) }
        if guarded.pointee.faults != nil {
            if pointee.engine.hasAcknowledgement { _ = transmitWithFaults(now: now, burst: burst) }
        } else {
            while pointee.engine.hasAcknowledgement, transmitOne(now: now, .only) {}
        }
        // Also of a receiver for which there was room again.
        if guarded.pointee.peers.wakeTouched(own: pointee.slot.number) { pointee.progressThread.wake() }
    }

    /// Sends one packet.
    /// - Returns: False when there is none.
    @inline(__always)
    private func transmitOne(now: UInt64, _ order: AcknowledgementOrder) -> Bool {
        let target =
            guarded.pointee.link.lastWasDatagram
            ? guarded.pointee.sockets.reserve() : guarded.pointee.link.packetBytes.baseAddress!
        let room = UnsafeMutableRawBufferPointer(start: target, count: Engine.packetRoom)
        guard let packet = pointee.engine.write(into: room, acknowledgements: order, now: now) else { return false }
        guarded.pointee.link.packetCount &+= 1
        send(packet, at: target, now: now)
        return true
    }

    /// Sends a packet that the engine wrote.
    @inline(__always)
    func send(_ packet: UnsafePointer<OutgoingPacket>, at bytes: UnsafeMutableRawPointer, now: UInt64) {
        if packet.pointee.path.tag == Route.sharedMemory { return sendShared(packet, at: bytes, now: now) }
        sendDatagram(packet.pointee, at: bytes, now: now)
    }

    /// Sends a packet to a device of this host. It has room for it: if there is none left for another, the engine writes no
    /// more packets to it until there is.
    @inline(__always)
    private func sendShared(_ packet: UnsafePointer<OutgoingPacket>, at bytes: UnsafeMutableRawPointer, now: UInt64) {
        let destination = Int(packet.pointee.destinationQPN >> 16)
        guard let peer = peer(destination, now: now) else {
            var packet = packet.pointee
            pointee.engine.separateAcknowledgement(of: &packet)
            if !packet.staysOnHost(bytes) { sendDatagram(packet, at: bytes, now: now) }
            return
        }
        guarded.pointee.link.lastWasDatagram = false
        // A datagram to a receiver that is late.
        if peer.pointee.holds { return drop(packet.pointee) }
        let envelope = PacketEnvelope(of: packet)
        guard let outcome = peer.pointee.writer?.write(bytes, byteCount: packet.pointee.byteCount, envelope) else {
            return sendMessage(packet.pointee, at: bytes, envelope, to: peer, now: now)
        }
        guard outcome == .written else {
            suspend(destination, peer, now: now)
            if outcome == .full { return drop(packet.pointee) }
            return guarded.pointee.peers.hold(
                destination, peer, bytes, byteCount: packet.pointee.byteCount, envelope)
        }
        guarded.pointee.peers.touch(destination, peer)
        if !peer.pointee.hasRoom() { suspend(destination, peer, now: now) }
    }

    /// Drops a packet for which there is no room: a datagram to a receiver that is late, or one that a fault rule has
    /// delayed. The acknowledgement that it carries becomes a packet of its own, which may find room.
    @inline(never)
    private func drop(_ packet: OutgoingPacket) {
        var packet = packet
        pointee.engine.separateAcknowledgement(of: &packet)
        pointee.counters.pointee.ringFull &+= 1
    }

    /// Makes the engine write no more packets to a receiver that has no room for another one.
    @inline(never)
    private func suspend(_ slot: Int, _ peer: UnsafeMutablePointer<Peer>, now: UInt64) {
        // It is suspended: a datagram was sent to one that is late, or one from the network is forwarded.
        if peer.pointee.fullSince != 0 { return }
        guarded.pointee.peers.noteFull(slot, peer, now: now)
        pointee.engine.suspend(receiver: UInt32(truncatingIfNeeded: slot))
    }

    /// Lets the engine write packets again to those receivers that have room, and datagrams to those that are late.
    @inline(never)
    private func resumeReceivers(now: UInt64) {
        var index = 0
        while index < guarded.pointee.peers.fullCount {
            let (slot, room) = guarded.pointee.peers.takeRoom(index, now: now, patience: patience)
            switch room {
            case .full: index += 1
            case .late:
                pointee.engine.resumeDatagrams(receiver: UInt32(truncatingIfNeeded: slot))
                index += 1
            case .free: pointee.engine.resume(receiver: UInt32(truncatingIfNeeded: slot))
            }
        }
    }

    /// Sends a packet over the connection to a peer without a ring.
    @inline(never)
    private func sendMessage(
        _ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, _ envelope: PacketEnvelope,
        to peer: UnsafeMutablePointer<Peer>, now: UInt64
    ) {
        guarded.pointee.link.lastDatagram = now
        // A reference that was held while the peer was replaced is lost, and then sent again as packets.
        if packet.isReference {
            var packet = packet
            pointee.engine.separateAcknowledgement(of: &packet)
            return
        }
        let slot = Int(packet.destinationQPN >> 16)
        switch peer.pointee.send(bytes, byteCount: packet.byteCount, envelope) {
        case 0:
            pointee.counters.pointee.sentMessages &+= 1
            if !peer.pointee.hasRoom() { suspend(slot, peer, now: now) }
        case EAGAIN:
            suspend(slot, peer, now: now)
            drop(packet)
        default:
            pointee.counters.pointee.unreachable &+= 1
            guarded.pointee.peers.close(slot)
        }
    }

    @inline(__always)
    private func peer(_ slot: Int, now: UInt64) -> UnsafeMutablePointer<Peer>? {
        guarded.pointee.peers.peer(slot, own: pointee.slot.number, &guarded.pointee.senders, now: now)
    }

    @inline(never)
    private func sendDatagram(_ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, now: UInt64) {
        if bytes.load(as: UInt8.self) == Opcode.rcFlush.rawValue,
            !packet.isExpendable || packet.path.destination == guarded.pointee.link.rxe
        {
            return sendFlushTwice(packet, at: bytes, now: now)
        }
        sendOneDatagram(packet, at: bytes, isExpendable: packet.isExpendable, now: now)
    }

    /// Sends a packet over UDP, in a batch only if it is expendable.
    /// - Returns: Whether it was queued: there is a socket for it.
    @inline(__always) @discardableResult
    func sendOneDatagram(
        _ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, isExpendable: Bool, now: UInt64
    ) -> Bool {
        assert(packet.acknowledged == nil, "a datagram carries no acknowledgement")
        guarded.pointee.link.lastWasDatagram = true
        guarded.pointee.link.lastDatagram = now
        let place = guarded.pointee.sockets.reserve()
        if place != bytes { place.copyMemory(from: bytes, byteCount: packet.byteCount) }
        guard guarded.pointee.sockets.commit(byteCount: packet.byteCount, packet.path, isExpendable: isExpendable)
        else {
            pointee.counters.pointee.unreachable &+= 1
            return false
        }
        pointee.counters.pointee.sentDatagrams &+= 1
        return true
    }

    /// Sends a FLUSH with the ICRC that the kernel's rxe expects, and with the right one. rxe drops the second, another peer the
    /// first; soft executes the first, and answers the second as a duplicate. A FLUSH that is expendable, and so may be sent
    /// again, has the right one alone until one is sent again to its destination, which may have dropped it for that.
    @inline(never)
    private func sendFlushTwice(_ packet: OutgoingPacket, at bytes: UnsafeMutableRawPointer, now: UInt64) {
        assert(packet.byteCount == FETH.flushByteCount, "a FLUSH has no payload")
        guarded.pointee.link.rxe = packet.path.destination
        // The first one may take the place in which the packet is.
        let kept = guarded.pointee.link.packetBytes.baseAddress!
        if kept != bytes { kept.copyMemory(from: bytes, byteCount: packet.byteCount) }
        guard sendOneDatagram(packet, at: kept, isExpendable: false, now: now) else { return }
        guarded.pointee.sockets.sealLastForRxe()
        sendOneDatagram(packet, at: kept, isExpendable: false, now: now)
    }

    // MARK: Receiving

    @inline(__always)
    private func receiveShared(now: UInt64) -> Bool {
        var isBusy = false
        var envelope = PacketEnvelope(
            source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
        for index in 0..<guarded.pointee.senders.count {
            guard let reader = guarded.pointee.senders.reader(index) else { continue }
            var left = burst
            while left > 0 {
                if guarded.pointee.faults == nil {
                    let count = receiveRun(reader, &envelope, limit: left, now: now)
                    left -= count
                    if count != 0 { continue }
                }
                guard let packet = reader.pointee.next(&envelope) else { break }
                if isOurs(envelope.destination) {
                    receive(packet, envelope, now: now)
                } else {
                    pointee.counters.pointee.badAddress &+= 1
                }
                reader.pointee.release(byteCount: packet.count)
                // A reference copies as much as a round may: then others have their turn.
                left = envelope.isReference ? 0 : left - 1
            }
            if left < burst {
                reader.pointee.publish()
                isBusy = true
            }
            if reader.pointee.isBroken { guarded.pointee.senders.endBroken(index) }
        }
        if !isBusy { guarded.pointee.senders.dropEnded() }
        return isBusy
    }

    /// Receives messages on the connections to other processes of this host.
    /// - Returns: Whether there were any.
    @inline(never)
    private func receiveMessages(now: UInt64) -> Bool {
        guarded.pointee.link.lastMessages = now
        var tags = InlineArray<16, UInt64>(repeating: 0)
        let list = guarded.pointee.senders.readyList
        let count = withUnsafeMutableBytes(of: &tags) { tags in
            Int(linux_ready(list, tags.baseAddress!.assumingMemoryBound(to: UInt64.self), 16))
        }
        guard count > 0 else { return false }
        let isForeground = pointee.progressThread.isForeground.load(ordering: .relaxed)
        for index in 0..<count {
            let tag = tags[index]
            switch LocalTag.kind(tag) {
            case LocalTag.listener: guarded.pointee.senders.accept()
            case LocalTag.peer:
                guarded.pointee.peers.receive(LocalTag.slot(tag), allowsDirect: sharesMemory)
            default: receiveMessages(on: LocalTag.descriptor(tag), isAwake: isForeground, now: now)
            }
        }
        // The wake-up is consumed: request the next one before the rings are checked again.
        if !isForeground { requestWakeups() }
        return true
    }

    private func receiveMessages(on connection: Int32, isAwake: Bool, now: UInt64) {
        guarded.pointee.senders.receive(connection, isAwake: isAwake) { packet, envelope in
            guarded.pointee.link.lastDatagram = now
            pointee.counters.pointee.receivedMessages &+= 1
            if isOurs(envelope.destination) {
                receive(packet, envelope, now: now)
            } else {
                pointee.counters.pointee.badAddress &+= 1
            }
        }
        if guarded.pointee.senders.takeNewRing() { makeAccessTable() }
        let counterRequest = guarded.pointee.senders.takeCounterRequest()
        if counterRequest >= 0 { sendCounters(on: counterRequest) }
    }

    /// Makes writers send a wake-up from now on. Packets that were written before are visible afterwards.
    func requestWakeups() {
        guarded.pointee.senders.setSleeping(true)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    @inline(__always)
    private func isOurs(_ address: GID) -> Bool {
        if address == guarded.pointee.link.knownAddress { return true }
        guard guarded.pointee.gids.contains(address) else { return false }
        guarded.pointee.link.knownAddress = address
        return true
    }

    /// Passes a received packet to the engine.
    @inline(__always)
    private func receive(_ packet: UnsafeRawBufferPointer, _ envelope: borrowing PacketEnvelope, now: UInt64) {
        guarded.pointee.link.packetCount &+= 1
        let isReference = envelope.isReference
        if guarded.pointee.faults != nil && !isReference { return receiveWithFaults(packet, copy envelope, now: now) }
        deliver(packet, envelope, now: now)
    }

    /// Passes a received packet to the engine, without faults.
    @inline(__always)
    func deliver(_ packet: UnsafeRawBufferPointer, _ envelope: borrowing PacketEnvelope, now: UInt64) {
        if envelope.isReference {
            return pointee.engine.receiveReference(
                packet, from: envelope.addresses, acknowledged: envelope.acknowledged, now: now)
        }
        // Only UD delivers the IP header. The top three bits of the opcode are the service type.
        let isDatagram = packet[0] >> 5 == 3
        let header =
            isDatagram
            ? envelope.writeHeader(to: guarded.pointee.link.networkHeader, packetByteCount: packet.count)
            : UnsafeRawBufferPointer(start: nil, count: 0)
        pointee.engine.receive(
            packet,
            from: PacketSource(source: envelope.source, destination: envelope.destination, header: header),
            acknowledged: envelope.acknowledged, now: now)
    }

    @inline(never)
    private func receiveDatagrams(all: Bool, now: UInt64) -> (count: Int, hasMore: Bool) {
        let slot = pointee.slot.number
        let received = guarded.pointee.sockets.receive(all: all, pointee.counters) { packet, envelope in
            // Bytes 5 to 7 of the BTH are the destination QP; its top byte is the slot.
            let destination = Int(packet[5])
            if envelope.destination.isMulticast {
                receiveMulticast(packet, envelope, now: now)
            } else if destination == 0 && ManagementPort.isDestination(of: packet) {
                receiveManagement(packet, copy envelope)
            } else if destination == slot {
                receive(packet, envelope, now: now)
            } else {
                forward(packet, copy envelope, to: destination, now: now)
            }
        }
        if received.count > 0 { guarded.pointee.link.lastDatagram = now }
        sendManagementReplies()
        return received
    }

    /// Passes a datagram of a multicast group to the engine, if its destination is the multicast QPN. Every process with
    /// attached queue pairs receives a copy of its own.
    private func receiveMulticast(
        _ packet: UnsafeRawBufferPointer, _ envelope: borrowing PacketEnvelope, now: UInt64
    ) {
        guard packet[5] == 0xFF, packet[6] == 0xFF, packet[7] == 0xFF else {
            pointee.counters.pointee.badAddress &+= 1
            return
        }
        receive(packet, envelope, now: now)
    }

    /// Stops receiving from the network, and forwards the packets for other processes that were already queued. Under
    /// the lock, after the progress thread has ended.
    func leaveNetwork() {
        guarded.pointee.sockets.retire()
        let now = currentTime()
        while receiveDatagrams(all: true, now: now).count > 0 {}
        _ = guarded.pointee.peers.wakeTouched(own: pointee.slot.number)
    }

    /// Forwards a packet from the network to the process of this host that holds its destination slot.
    private func forward(
        _ packet: UnsafeRawBufferPointer, _ envelope: PacketEnvelope, to slot: Int, now: UInt64
    ) {
        guard let peer = peer(slot, now: now) else {
            pointee.counters.pointee.unreachable &+= 1
            return
        }
        if peer.pointee.holds {
            pointee.counters.pointee.ringFull &+= 1
            return
        }
        if peer.pointee.writer == nil {
            guard peer.pointee.send(packet.baseAddress!, byteCount: packet.count, envelope) == 0 else {
                pointee.counters.pointee.unreachable &+= 1
                return
            }
            pointee.counters.pointee.forwarded &+= 1
            if !peer.pointee.hasRoom() { suspend(slot, peer, now: now) }
            return
        }
        // `PacketRingWriter.write` may read more bytes than the packet has.
        guarded.pointee.link.packetBytes.baseAddress!.copyMemory(from: packet.baseAddress!, byteCount: packet.count)
        let bytes = UnsafeRawPointer(guarded.pointee.link.packetBytes.baseAddress!)
        switch peer.pointee.writer!.write(bytes, byteCount: packet.count, envelope) {
        case .written: break
        case .noPair:
            pointee.counters.pointee.forwarded &+= 1
            suspend(slot, peer, now: now)
            return guarded.pointee.peers.hold(slot, peer, bytes, byteCount: packet.count, envelope)
        case .full:
            pointee.counters.pointee.ringFull &+= 1
            suspend(slot, peer, now: now)
            return
        }
        pointee.counters.pointee.forwarded &+= 1
        guarded.pointee.peers.touch(slot, peer)
        if !peer.pointee.hasRoom() { suspend(slot, peer, now: now) }
    }
}

extension PacketEnvelope {
    /// Writes the IP header of a received packet, as its sender's kernel made it, except for fields that routers
    /// change.
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
