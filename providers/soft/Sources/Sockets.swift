import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import RoCEWire

/// Counts of packets sent, received, forwarded and dropped between the engine and its sockets and rings. Counts wrap.
struct LinkCounters {
    /// Packets sent and received over UDP.
    var sentDatagrams: UInt64 = 0
    var receivedDatagrams: UInt64 = 0
    /// GRO batches of more than one packet that were received.
    var receivedBatches: UInt64 = 0
    /// Packets sent and received over connections of AF_UNIX.
    var sentMessages: UInt64 = 0
    var receivedMessages: UInt64 = 0
    /// Received packets that were forwarded to the process that holds the destination slot.
    var forwarded: UInt64 = 0
    /// Received packets that are shorter or longer than a RoCEv2 packet can be.
    var badLength: UInt64 = 0
    /// Received packets with a wrong ICRC.
    var badICRC: UInt64 = 0
    /// Packets that were not sent: no process holds the destination slot, or the source address has no socket.
    var unreachable: UInt64 = 0
    /// Packets that were not sent: the receiver's ring was full for too long.
    var ringFull: UInt64 = 0
    /// Packets received from this host whose destination GID is not in this device's GID table.
    var badAddress: UInt64 = 0
    /// Packets received for queue pair 1 that are no MAD of communication management, or that no process takes.
    var badManagement: UInt64 = 0
}

/// The UDP sockets of a device: one for each of its addresses, on port 4791. Other processes of this user may bind
/// sockets to the same address and port (SO_REUSEPORT); a process that receives a packet for another one forwards it.
struct Sockets: ~Copyable {
    private struct Entry {
        var gid = GID()
        var descriptor: Int32 = -1
        /// The receives in a row that found nothing.
        var idleRounds: UInt32 = 0
        /// The datagrams and batches of the last receive that found some.
        var lastCount = 0
        /// Whether the first of them was a large batch.
        var areLarge = false
        /// Whether the socket is set to send UDP checksums, as GSO batches need.
        var sendsChecksums = false

        /// Whether a polling thread leaves out this socket for once: it has been empty for a while, and each receive
        /// costs a system call.
        var isLeftOut: Bool { idleRounds > 32 && idleRounds & 7 != 0 }
    }

    /// The scope of link-local addresses.
    private var ifindex: UInt32 = 0
    private let port: UInt16
    private let entries: UnsafeMutablePointer<Entry>
    private let outgoing: UnsafeMutablePointer<linux_datagram>
    private let incoming: UnsafeMutablePointer<linux_datagram>
    /// The packets to send, without gaps, so that the packets of a GSO batch are contiguous.
    private let outgoingRoom: UnsafeMutableRawPointer
    private let incomingRoom: UnsafeMutableRawPointer
    /// Datagrams and batches in `outgoing`, and their bytes.
    private var queued = 0
    private var queuedByteCount = 0
    /// The index of the socket and source address of the queued datagrams.
    private var queuedOn = 0
    /// Whether the datagram that was queued first is sent last.
    private var firstIsLast = false
    /// That datagram as the beginning of a batch, if it may be in one.
    private var heldBatch = OpenBatch()
    /// The batch at the end of the queue, while packets can join it.
    private var openBatch = OpenBatch()
    var segmentation = UDPSegmentation()
    private let maxSegments: Int
    private var hasWarned = false
    /// The errno values that were logged for datagrams that could not be sent, since the interface last changed: bit N
    /// stands for errno N.
    private var loggedLosses: (UInt64, UInt64) = (0, 0)
    private var groups = GroupSockets()
    private let recovery = IPv4IdentificationRecovery(maximumPacketByteCount: Engine.packetRoom)

    private static let batch = Int(LINUX_DATAGRAM_BATCH)
    /// Room for a full batch, and for one packet that does not fit in it.
    private static let outgoingByteCount = UDPSegmentation.maxBytes + Engine.packetRoom
    /// The largest datagram or batch. The start of each buffer is accessed most; buffers at multiples of 65536 would
    /// map to the same few cache sets, hence the odd stride.
    private static let incomingByteCount = 65_536
    private static let incomingStride = incomingByteCount + 17 * 64

    /// - Parameter maxSegments: The most datagrams in one batch; tests pass more than the kernel accepts.
    init(port: UInt16 = UDPHeader.rocePort, maxSegments: Int = UDPSegmentation.maxSegments) {
        self.port = port
        self.maxSegments = maxSegments
        entries = .allocate(capacity: DeviceLimits.gids)
        entries.initialize(repeating: Entry(), count: DeviceLimits.gids)
        outgoing = .allocate(capacity: Self.batch)
        incoming = .allocate(capacity: Self.batch)
        outgoing.initialize(repeating: linux_datagram(), count: Self.batch)
        incoming.initialize(repeating: linux_datagram(), count: Self.batch)
        outgoingRoom = .allocate(byteCount: Self.outgoingByteCount, alignment: 64)
        incomingRoom = .allocate(byteCount: Self.batch * Self.incomingStride, alignment: 64)
        for index in 0..<Self.batch { incoming[index].bytes = incomingRoom + index * Self.incomingStride }
    }

    deinit {
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            linux_close(entries[index].descriptor)
        }
        entries.deallocate()
        outgoing.deallocate()
        incoming.deallocate()
        outgoingRoom.deallocate()
        incomingRoom.deallocate()
    }

    /// Opens and closes sockets so that each entry of the GID table has one, where the port can be bound. Retries the
    /// sockets that could not be opened before. An address to which no socket can be bound is removed from the table.
    /// - Returns: Whether a socket was opened or closed.
    mutating func follow(_ table: borrowing GIDTable, ifindex: UInt32) -> Bool {
        let isOther = ifindex != self.ifindex
        self.ifindex = ifindex
        groups.follow(port: port, ifindex: ifindex, isOther: isOther)
        var isChanged = false
        for index in 0..<DeviceLimits.gids {
            let gid = table.gid(at: index) ?? GID()
            let entry = entries[index]
            if entry.gid == gid && !isOther && (gid == GID() || entry.descriptor >= 0) { continue }
            if entry.descriptor >= 0 { linux_close(entry.descriptor) }
            let opened = gid == GID() ? -1 : open(gid)
            if opened == -EADDRNOTAVAIL { table.hide(at: index) }
            if opened >= 0 || entry.descriptor >= 0 { isChanged = true }
            entries[index] = Entry(gid: table.gid(at: index) ?? GID(), descriptor: max(opened, -1))
        }
        return isChanged
    }

    /// Receives the datagrams of a multicast group for one more queue pair. Returns 0, or a positive errno value.
    mutating func join(_ group: GID) -> Int32 { groups.join(group, port: port, ifindex: ifindex) }

    /// Ends `join` for one queue pair.
    mutating func leave(_ group: GID) { groups.leave(group) }

    /// Enables the log messages about losses again. Called when the interface or its MTU has changed.
    mutating func resetLoggedLosses() { loggedLosses = (0, 0) }

    /// Whether a GID of the table, or a multicast group while there is an interface, has no socket.
    var lacksSocket: Bool {
        if ifindex != 0 && groups.lacksSocket { return true }
        for index in 0..<DeviceLimits.gids where entries[index].gid != GID() && entries[index].descriptor < 0 {
            return true
        }
        return false
    }

    /// Takes the sockets out of their SO_REUSEPORT groups: packets that arrive later are received by other processes.
    /// Packets that are already queued can still be received here, to be forwarded. Leaves all multicast groups.
    mutating func retire() {
        groups.close()
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            entries[index].gid.withNetworkBytes { linux_retire_socket(entries[index].descriptor, $0, ifindex) }
        }
    }

    private mutating func open(_ gid: GID) -> Int32 {
        let descriptor = gid.withNetworkBytes { linux_roce_socket($0, port, ifindex) }
        if descriptor < 0 && descriptor != -EADDRNOTAVAIL && !hasWarned {
            hasWarned = true
            var warning = MessageText("UDP port 4791 cannot be bound, so only processes of this host can be reached: ")
            warning.append(error: -descriptor)
            if -descriptor == EADDRINUSE {
                warning.append("; is the kernel's rdma_rxe loaded, or does another user run soft?")
            }
            warning.log(RDMA_LOG_WARNING)
        }
        if descriptor >= 0 && !linux_supports_gso(descriptor) { segmentation.disable() }
        return descriptor
    }

    /// The largest number of descriptors to wait on: the sockets, and the ready list of the multicast groups.
    static let maxDescriptors = DeviceLimits.gids + 1

    /// Writes the descriptors to wait on to `list`, which has room for `maxDescriptors`, and returns their number.
    func descriptors(into list: UnsafeMutablePointer<Int32>) -> Int {
        var count = 0
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            list[count] = entries[index].descriptor
            count += 1
        }
        if groups.count > 0 {
            list[count] = groups.readyList
            count += 1
        }
        return count
    }

    /// The datagrams that the kernel has dropped because the buffer of a socket was full.
    var drops: UInt64 {
        var sum: UInt64 = 0
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            sum &+= UInt64(linux_socket_drops(entries[index].descriptor))
        }
        return sum
    }

    /// The index of the socket that is bound to the address; -1 for none.
    @inline(__always)
    private func index(of gid: GID) -> Int {
        for index in 0..<DeviceLimits.gids where entries[index].gid == gid {
            return entries[index].descriptor >= 0 ? index : -1
        }
        return -1
    }
}

// MARK: - Sending

/// The GSO batch at the end of the queue, to which packets of the same length, destination, traffic class and hop limit
/// are added.
private struct OpenBatch {
    /// Bytes of each packet; 0: no batch is open.
    var byteCount = 0
    /// The number of packets in it.
    var packets = 0
    var destination = GID()
    var trafficClass: UInt8 = 0
    var hopLimit: UInt8 = 0

    /// No batch is open.
    init() {}

    /// A batch that begins with this packet.
    init(_ byteCount: Int, _ path: Path) {
        self.byteCount = byteCount
        packets = 1
        destination = path.destination
        trafficClass = path.trafficClass
        hopLimit = path.hopLimit
    }

    /// Whether the only packet of another batch can join this one.
    @inline(__always)
    func accepts(_ other: OpenBatch, limit: Int) -> Bool {
        other.packets == 1 && other.byteCount <= byteCount && hasRoom(other.byteCount, limit: limit)
            && other.destination == destination && other.trafficClass == trafficClass && other.hopLimit == hopLimit
    }

    @inline(__always)
    func hasRoom(_ count: Int, limit: Int) -> Bool {
        packets < limit && packets &* byteCount &+ count <= UDPSegmentation.maxBytes
    }
}

extension Sockets {
    /// The address at which the next datagram is to be written, with room for `Engine.packetRoom` bytes.
    mutating func reserve() -> UnsafeMutableRawPointer {
        if queued == Self.batch || queuedByteCount > Self.outgoingByteCount - Engine.packetRoom { flush() }
        return outgoingRoom + queuedByteCount
    }

    /// Queues the packet that was written at the address that `reserve` returned.
    /// - Returns: False when the source address has no socket.
    mutating func commit(byteCount: Int, _ path: Path, isExpendable: Bool) -> Bool {
        assert(byteCount > ICRC.byteCount && byteCount <= Engine.packetRoom, "reserve gave room for one packet")
        assert(queued < Self.batch && queuedByteCount + byteCount <= Self.outgoingByteCount, "commit follows reserve")
        let index = index(of: path.source)
        guard index >= 0 else {
            noteLoss(EADDRNOTAVAIL)
            return false
        }
        if queued > 0 && queuedOn != index { moveToFront(byteCount: byteCount) }
        queuedOn = index
        let packet = UnsafeMutableRawBufferPointer(start: outgoingRoom + queuedByteCount, count: byteCount)
        queuedByteCount += byteCount
        let own = OpenBatch(byteCount, path)
        if isExpendable && openBatch.accepts(own, limit: maxSegments) {
            join(packet, path.source, path.destination)
            if openBatch.packets > 0 && !openBatch.hasRoom(openBatch.byteCount, limit: maxSegments) { flush() }
        } else {
            append(packet, path)
            openBatch = isExpendable && segmentation.isOn ? own : OpenBatch()
        }
        return true
    }

    /// Whether the queue holds one packet, and that is an acknowledgement of RC that is no NAK.
    var holdsAcknowledgement: Bool {
        guard queued == 1, outgoing.pointee.segment == 0 else { return false }
        let bytes = outgoing.pointee.bytes.assumingMemoryBound(to: UInt8.self)
        // The top three bits of the syndrome are 0 in an ACK.
        return bytes[0] == Opcode.rcAcknowledge.rawValue && bytes[BTH.byteCount] >> 5 == 0
    }

    /// Keeps the only queued datagram until the next `flush`, which sends it after those that are queued meanwhile.
    mutating func holdFirst() {
        assert(queued == 1, "one datagram is held")
        firstIsLast = true
        // Later packets would be sent with it, and so after those that follow them.
        heldBatch = openBatch
        openBatch = OpenBatch()
    }

    /// Whether the queue holds only the datagram of `holdFirst`.
    var holdsOne: Bool { firstIsLast && queued == 1 }

    /// Moves the datagram that was queued first to the end of the queue, and into the batch there if it can join it.
    private mutating func moveFirst() {
        firstIsLast = false
        guard queued > 1 else { return }
        let first = outgoing.pointee
        outgoing.update(from: outgoing + 1, count: queued - 1)
        guard openBatch.accepts(heldBatch, limit: maxSegments),
            queuedByteCount + heldBatch.byteCount <= Self.outgoingByteCount
        else {
            outgoing[queued - 1] = first
            return
        }
        queued -= 1
        let packet = UnsafeMutableRawBufferPointer(start: outgoingRoom + queuedByteCount, count: heldBatch.byteCount)
        packet.copyMemory(from: UnsafeRawBufferPointer(start: first.bytes, count: packet.count))
        queuedByteCount += packet.count
        join(packet, entries[queuedOn].gid, heldBatch.destination)
    }

    /// Inverts a bit of the ICRC of the datagram that was queued last, which is in no batch.
    mutating func spoilLast() {
        guard queuedByteCount > 0 else { return }
        let last = outgoingRoom.assumingMemoryBound(to: UInt8.self) + (queuedByteCount - 1)
        last.pointee ^= 1
    }

    /// Gives the FLUSH that was queued last, which is in no batch, the ICRC of the kernel's rxe.
    mutating func sealLastForRxe() {
        assert(queued > 0 && outgoing[queued - 1].segment == 0, "the packet was committed, and not as expendable")
        let last = outgoing[queued - 1]
        let packet = UnsafeMutableRawBufferPointer(start: last.bytes, count: Int(last.count))
        let destination = withUnsafeBytes(of: last.gid) { GID(at: $0.baseAddress!) }
        let udp = UDPHeader(sourcePort: port, destinationPort: port, packetByteCount: packet.count)
        let bytes = UnsafeRawBufferPointer(packet)
        var icrc = Self.icrc(entries[queuedOn].gid, destination, udp, bytes, identification: 0)
        icrc.coverFlushOfRxe(bytes)
        icrc.store(at: packet.baseAddress! + (packet.count - ICRC.byteCount))
    }

    /// Adds the packet to the batch at the end of the queue.
    private mutating func join(_ packet: UnsafeMutableRawBufferPointer, _ source: GID, _ destination: GID) {
        assert(queued > 0 && openBatch.packets > 0, "a packet joins the batch that ends the queue")
        seal(packet, source, destination, identification: UInt16(truncatingIfNeeded: openBatch.packets))
        let batch = outgoing + (queued - 1)
        if batch.pointee.segment == 0 { segmentation.countBatch() }
        batch.pointee.segment = UInt32(openBatch.byteCount)
        batch.pointee.count += UInt32(packet.count)
        openBatch.packets += 1
        // A shorter packet ends the batch (UDP_SEGMENT).
        if packet.count < openBatch.byteCount { openBatch = OpenBatch() }
    }

    private mutating func append(_ packet: UnsafeMutableRawBufferPointer, _ path: Path) {
        seal(packet, path.source, path.destination, identification: 0)
        let entry = outgoing + queued
        entry.pointee.bytes = packet.baseAddress
        entry.pointee.count = UInt32(packet.count)
        entry.pointee.segment = 0
        entry.pointee.port = port
        entry.pointee.traffic_class = path.trafficClass
        entry.pointee.hop_limit = path.hopLimit
        path.destination.withNetworkBytes { bytes in
            withUnsafeMutableBytes(of: &entry.pointee.gid) { target in
                target.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: 16))
            }
        }
        queued += 1
    }

    /// Sends the queued datagrams. A datagram that the kernel does not accept is lost.
    mutating func flush() {
        if queued == 0 { return }
        if firstIsLast { moveFirst() }
        var first = 0
        var isRefused = false
        repeat {
            var lost: Int32 = 0
            first += send(outgoing + first, queued - first, &isRefused, &lost)
            if isRefused {
                lost = sendAlone(outgoing + first)
                // When single packets cannot be sent either, GSO is not the cause of the failure.
                if lost == 0 { segmentation.disable() }
                first += 1
            }
            if lost != 0 { noteLoss(lost) }
        } while isRefused && first < queued
        queued = 0
        queuedByteCount = 0
        openBatch = OpenBatch()
    }

    /// Sends datagrams on the socket of the queued ones (`linux_send_datagrams`).
    private func send(
        _ datagrams: UnsafePointer<linux_datagram>, _ count: Int, _ isRefused: inout Bool, _ lost: inout Int32
    ) -> Int {
        let entry = entries + queuedOn
        return Int(
            linux_send_datagrams(
                entry.pointee.descriptor, ifindex, datagrams, Int32(count), &entry.pointee.sendsChecksums, &isRefused,
                &lost))
    }

    /// Logs that packets cannot be sent to the network, once for each errno value.
    @inline(never)
    private mutating func noteLoss(_ error: Int32) {
        guard error > 0, error < 128 else { return }
        let bit: UInt64 = 1 << UInt64(error & 63)
        guard (error < 64 ? loggedLosses.0 : loggedLosses.1) & bit == 0 else { return }
        if error < 64 { loggedLosses.0 |= bit } else { loggedLosses.1 |= bit }
        var warning = MessageText("packets to the network are lost: ")
        warning.append(error: error)
        switch error {
        case EMSGSIZE:
            warning.append(
                "; the MTU of the interface, now or on the way, is too small for the path MTU of a queue pair:")
            warning.append(" raise it, or connect with a smaller path MTU")
        case EADDRNOTAVAIL:
            warning.append(
                "; the interface no longer has the address that a queue pair or address handle uses (sgid_index),")
            warning.append(" or no socket could be bound to it: see `ip address`")
        case ENETUNREACH, EHOSTUNREACH: warning.append("; there is no route to the peer: see `ip route get ADDRESS`")
        case ENETDOWN, ENODEV, ENXIO: warning.append("; the interface is down or gone: see `ip link`")
        case EPERM, EACCES: warning.append("; a firewall or a sandbox forbids them")
        default: break
        }
        warning.log(RDMA_LOG_WARNING)
    }

    /// Sends the packets of a batch that the kernel refused, each as a single datagram.
    /// - Returns: The errno value of the last packet that could not be sent, or 0.
    private func sendAlone(_ batch: UnsafeMutablePointer<linux_datagram>) -> Int32 {
        var error: Int32 = 0
        let destination = withUnsafeBytes(of: &batch.pointee.gid) { GID(at: $0.baseAddress!) }
        var single = batch.pointee
        single.segment = 0
        var left = Int(batch.pointee.count)
        while left > 0 {
            let packet = UnsafeMutableRawBufferPointer(
                start: single.bytes, count: min(left, Int(batch.pointee.segment)))
            seal(packet, entries[queuedOn].gid, destination, identification: 0)
            single.count = UInt32(packet.count)
            var isRefused = false
            var lost: Int32 = 0
            _ = send(&single, 1, &isRefused, &lost)
            if lost != 0 { error = lost }
            single.bytes += packet.count
            left -= packet.count
        }
        return error
    }

    /// Sends the queued datagrams, and moves the packet that is already written after them to the front.
    private mutating func moveToFront(byteCount: Int) {
        let written = outgoingRoom + queuedByteCount
        flush()
        outgoingRoom.copyMemory(from: written, byteCount: byteCount)
    }

    /// Writes the ICRC to the end of the packet.
    private func seal(
        _ packet: UnsafeMutableRawBufferPointer, _ source: GID, _ destination: GID, identification: UInt16
    ) {
        let udp = UDPHeader(sourcePort: port, destinationPort: port, packetByteCount: packet.count)
        let bytes = UnsafeRawBufferPointer(packet)
        let icrc = Self.icrc(source, destination, udp, bytes, identification: identification)
        icrc.store(at: packet.baseAddress! + (packet.count - ICRC.byteCount))
    }

    /// The ICRC of a packet as these sockets send it: DF set; identification 0, or in a GSO batch the packet's place.
    private static func icrc(
        _ source: GID, _ destination: GID, _ udp: UDPHeader, _ packet: UnsafeRawBufferPointer, identification: UInt16
    ) -> ICRC {
        let covered = ICRC.covered(of: packet)
        if source.isIPv4 {
            var ip = IPv4Header(
                source: source.ipv4, destination: destination.ipv4, packetByteCount: packet.count)
            ip.identification = identification
            return ICRC(ipv4: ip, udp: udp, packet: covered)
        }
        let ip = IPv6Header(
            source: IPv6Address(high: source.high, low: source.low),
            destination: IPv6Address(high: destination.high, low: destination.low), packetByteCount: packet.count)
        return ICRC(ipv6: ip, udp: udp, packet: covered)
    }
}

// MARK: - Receiving

extension Sockets {
    /// Receives from every socket, at most LINUX_DATAGRAM_BATCH datagrams and GRO batches each, and calls `body` with
    /// each packet whose ICRC is correct.
    /// - Parameter all: Whether to receive from each socket. A polling thread asks sockets that have been empty for a
    ///   while in every eighth round only.
    /// - Returns: How many datagrams and batches were received, and whether more are likely to be waiting.
    func receive(
        all: Bool, _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) -> (count: Int, hasMore: Bool) {
        var total = 0
        var hasMore = false
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            let entry = entries + index
            entry.pointee.idleRounds &+= 1
            if !all && entry.pointee.isLeftOut { continue }
            // The first datagram after a round without one is most often alone, and to find that out takes the kernel a tenth of
            // a microsecond. Single datagrams come one at a time, and preparing a whole batch takes longer than receiving one.
            // Of large batches, no more are received at once than stay in the cache until they are processed.
            let isFirst = !all && entry.pointee.idleRounds > 1
            let most = isFirst ? 1 : entry.pointee.lastCount <= 1 ? 2 : entry.pointee.areLarge ? 4 : Self.batch
            let count = receive(on: entry.pointee.descriptor, to: entry.pointee.gid, most: most, counters, body)
            if count > 0 {
                entry.pointee.idleRounds = 0
                entry.pointee.lastCount = count
                entry.pointee.areLarge = incoming.pointee.count > 16384
            }
            total += count
            if count == most && !isFirst { hasMore = true }
        }
        groups.forEachReady { descriptor, group in
            let count = receive(on: descriptor, to: group, most: Self.batch, counters, body)
            total += count
            if count == Self.batch { hasMore = true }
        }
        return (total, hasMore)
    }

    /// Receives from one socket, which is bound to `destination`. Returns the number of datagrams and batches, at most
    /// `most`.
    @inline(__always)
    private func receive(
        on descriptor: Int32, to destination: GID, most: Int, _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) -> Int {
        for place in 0..<most { incoming[place].count = UInt32(Self.incomingByteCount) }
        let count = Int(linux_receive_datagrams(descriptor, incoming, Int32(most)))
        for place in 0..<count { take(incoming + place, to: destination, counters, body) }
        return count
    }

    /// Processes a datagram, or the datagrams of a GRO batch in order.
    private func take(
        _ datagram: UnsafeMutablePointer<linux_datagram>, to destination: GID,
        _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) {
        let source = withUnsafeBytes(of: &datagram.pointee.gid) { GID(at: $0.baseAddress!) }
        let count = min(Int(datagram.pointee.count), Self.incomingByteCount)
        let segment = datagram.pointee.segment == 0 ? count : Int(datagram.pointee.segment)
        if segment < count { counters.pointee.receivedBatches &+= 1 }
        var offset = 0
        var place: UInt16 = 0
        repeat {
            let packet = UnsafeRawBufferPointer(
                start: datagram.pointee.bytes + offset, count: min(segment, count - offset))
            take(packet, place: place, from: source, port: datagram.pointee.port, to: destination, counters, body)
            offset += segment
            place &+= 1
        } while offset < count
    }

    /// Processes a packet; `place` is its index in the GRO batch, or 0 for a single datagram.
    @inline(__always)
    private func take(
        _ packet: UnsafeRawBufferPointer, place: UInt16, from source: GID, port sourcePort: UInt16,
        to destination: GID, _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) {
        counters.pointee.receivedDatagrams &+= 1
        guard packet.count >= BTH.byteCount + ICRC.byteCount, packet.count <= Engine.packetRoom else {
            counters.pointee.badLength &+= 1
            return
        }
        let udp = UDPHeader(sourcePort: sourcePort, destinationPort: port, packetByteCount: packet.count)
        let computed = Self.icrc(source, destination, udp, packet, identification: place)
        let received = ICRC.trailer(of: packet)
        let isGood =
            destination.isIPv4
            ? recovery.fields(
                computed: computed, expected: place, received: received, packetByteCount: packet.count) != nil
            : computed.value == received
        guard isGood || isFlushOfRxe(packet, place: place, to: destination, computed) else {
            counters.pointee.badICRC &+= 1
            return
        }
        // The socket does not report the values of the sender, and a router may change them.
        let envelope = PacketEnvelope(
            source: source, destination: destination, trafficClass: 0, hopLimit: 64, flowLabel: 0)
        body(packet, envelope)
    }

    /// Whether the packet is a FLUSH with the ICRC of the kernel's rxe. `computed` is the right one, with the index in the
    /// batch as IPv4 identification.
    @inline(never)
    private func isFlushOfRxe(
        _ packet: UnsafeRawBufferPointer, place: UInt16, to destination: GID, _ computed: ICRC
    ) -> Bool {
        guard packet[0] == Opcode.rcFlush.rawValue, packet.count == FETH.flushByteCount else { return false }
        var icrc = computed
        icrc.coverFlushOfRxe(packet)
        let received = ICRC.trailer(of: packet)
        guard destination.isIPv4 else { return icrc.value == received }
        // As many bytes follow the identification as in a packet that is longer by what is covered twice.
        let byteCount = 2 * packet.count - ICRC.byteCount
        return recovery.fields(computed: icrc, expected: place, received: received, packetByteCount: byteCount) != nil
    }
}

extension FETH {
    /// Bytes of a FLUSH request.
    static var flushByteCount: Int { BTH.byteCount + byteCount + RETH.byteCount + ICRC.byteCount }
}
