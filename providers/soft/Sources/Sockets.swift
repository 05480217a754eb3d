import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import RoCEWire

/// Why packets were dropped before the engine saw them, and how many came and went. Counts wrap.
struct LinkCounters {
    /// Packets sent and received over UDP.
    var sentDatagrams: UInt64 = 0
    var receivedDatagrams: UInt64 = 0
    /// Trains that such packets were received in.
    var receivedTrains: UInt64 = 0
    /// Received and passed on to the process that they are for.
    var forwarded: UInt64 = 0
    /// Received: too short or too long to be a packet.
    var badLength: UInt64 = 0
    /// Received: the ICRC does not fit.
    var badICRC: UInt64 = 0
    /// To be sent: nobody holds the slot, or the address has no socket.
    var unreachable: UInt64 = 0
    /// To be sent: the receiver's ring was full for too long.
    var ringFull: UInt64 = 0
    /// Received through shared memory for an address that is not ours.
    var badAddress: UInt64 = 0
}

/// The UDP sockets of a device: one for each of its addresses, on port 4791. Other processes of this user may have
/// theirs beside them; whoever receives a packet passes it on to the one it is for.
struct Sockets: ~Copyable {
    private struct Entry {
        var gid = GID()
        var descriptor: Int32 = -1
    }

    private let ifindex: UInt32
    private let port: UInt16
    private let entries: UnsafeMutablePointer<Entry>
    private let outgoing: UnsafeMutablePointer<linux_datagram>
    private let incoming: UnsafeMutablePointer<linux_datagram>
    /// What goes out lies here without gaps, so that a train is one piece of memory.
    private let outgoingRoom: UnsafeMutableRawPointer
    private let incomingRoom: UnsafeMutableRawPointer
    /// Datagrams and trains in `outgoing`, and their bytes.
    private var queued = 0
    private var queuedByteCount = 0
    /// Which socket and address they go out from.
    private var queuedOn: Int32 = -1
    private var queuedFrom = GID()
    /// What may join the last one of them.
    private var opening = Opening()
    var trains = Trains()
    private let trainLimit: Int
    private var hasWarned = false
    private let recovery = IPv4IdentificationRecovery(maximumPacketByteCount: Engine.packetRoom)

    private static let batch = Int(LINUX_DATAGRAM_BATCH)
    /// A full train, and a packet that does not fit in it any more.
    private static let outgoingByteCount = Trains.byteLimit + Engine.packetRoom
    /// What a datagram or a train can have. The packets at the start of each place are touched most, and would share
    /// the few lines of a cache that places at multiples of 65536 have.
    private static let incomingByteCount = 65_536
    private static let incomingStride = incomingByteCount + 17 * 64

    /// - Parameter trainLimit: datagrams in a train, for tests that look at what the kernel refuses.
    init(ifindex: UInt32, port: UInt16 = UDPHeader.rocePort, trainLimit: Int = Trains.datagramLimit) {
        self.ifindex = ifindex
        self.port = port
        self.trainLimit = trainLimit
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

    /// Opens and closes sockets so that there is one for each entry of the table.
    mutating func follow(_ table: borrowing GIDTable) {
        for index in 0..<DeviceLimits.gids {
            let gid = table.gid(at: index) ?? GID()
            if entries[index].gid == gid { continue }
            if entries[index].descriptor >= 0 { linux_close(entries[index].descriptor) }
            entries[index] = Entry(gid: gid, descriptor: gid == GID() ? -1 : open(gid))
        }
    }

    /// Has others receive what comes from now on. What has come can still be received, and belongs to them too.
    func retire() {
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            entries[index].gid.withNetworkBytes { linux_retire_socket(entries[index].descriptor, $0, ifindex) }
        }
    }

    private mutating func open(_ gid: GID) -> Int32 {
        let descriptor = gid.withNetworkBytes { linux_roce_socket($0, port, ifindex) }
        if descriptor < 0 && !hasWarned {
            hasWarned = true
            var warning = Sentence("UDP port 4791 cannot be had (errno ")
            warning.append(Int(-descriptor))
            warning.append("): only processes of this host can be reached; is the kernel's rdma_rxe loaded,")
            warning.append(" or does another user run soft?")
            warning.log(RDMA_LOG_WARNING)
        }
        if descriptor >= 0 && !linux_sends_trains(descriptor) { trains.switchOff() }
        return descriptor
    }

    /// Writes the descriptors to wait on, and says how many.
    func descriptors(into list: UnsafeMutablePointer<Int32>) -> Int {
        var count = 0
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            list[count] = entries[index].descriptor
            count += 1
        }
        return count
    }

    private func descriptor(of gid: GID) -> Int32 {
        for index in 0..<DeviceLimits.gids where entries[index].gid == gid { return entries[index].descriptor }
        return -1
    }
}

// MARK: - Sending

/// What a packet must have to join the train at the end of the queue.
private struct Opening {
    /// Bytes of the train's packets; 0: nothing can join.
    var byteCount = 0
    /// Packets that it has.
    var packets = 0
    var destination = GID()
    var trafficClass: UInt8 = 0
    var hopLimit: UInt8 = 0

    /// Nothing can join.
    init() {}

    /// The train that begins with this packet.
    init(_ byteCount: Int, _ path: Path) {
        self.byteCount = byteCount
        packets = 1
        destination = path.destination
        trafficClass = path.trafficClass
        hopLimit = path.hopLimit
    }

    @inline(__always)
    func takes(_ count: Int, _ path: Path, limit: Int) -> Bool {
        count <= byteCount && hasRoom(count, limit: limit) && path.destination == destination
            && path.trafficClass == trafficClass && path.hopLimit == hopLimit
    }

    @inline(__always)
    func hasRoom(_ count: Int, limit: Int) -> Bool {
        packets < limit && packets &* byteCount &+ count <= Trains.byteLimit
    }
}

extension Sockets {
    /// Where the next datagram is to be written: room for `Engine.packetRoom` bytes.
    mutating func reserve() -> UnsafeMutableRawPointer {
        if queued == Self.batch || queuedByteCount > Self.outgoingByteCount - Engine.packetRoom { flush() }
        return outgoingRoom + queuedByteCount
    }

    /// Queues the packet that was written where `reserve` said. False when there is no socket for its address.
    mutating func commit(byteCount: Int, _ path: Path, isExpendable: Bool) -> Bool {
        let descriptor = descriptor(of: path.source)
        guard descriptor >= 0 else { return false }
        if queued > 0 && queuedOn != descriptor { moveToFront(byteCount: byteCount) }
        queuedOn = descriptor
        queuedFrom = path.source
        let packet = UnsafeMutableRawBufferPointer(start: outgoingRoom + queuedByteCount, count: byteCount)
        queuedByteCount += byteCount
        if isExpendable && opening.takes(byteCount, path, limit: trainLimit) {
            join(packet, path)
        } else {
            append(packet, path)
            opening = isExpendable && trains.areOn ? Opening(byteCount, path) : Opening()
        }
        return true
    }

    /// Makes the packet the next one of the train at the end of the queue.
    private mutating func join(_ packet: UnsafeMutableRawBufferPointer, _ path: Path) {
        seal(packet, path.source, path.destination, identification: UInt16(truncatingIfNeeded: opening.packets))
        let train = outgoing + (queued - 1)
        if train.pointee.segment == 0 { trains.noteSent() }
        train.pointee.segment = UInt32(opening.byteCount)
        train.pointee.count += UInt32(packet.count)
        opening.packets += 1
        // A shorter one is the last.
        if packet.count < opening.byteCount {
            opening = Opening()
        } else if !opening.hasRoom(opening.byteCount, limit: trainLimit) {
            flush()
        }
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

    /// Sends what is queued. What the kernel does not take is lost.
    mutating func flush() {
        if queued == 0 { return }
        var first = 0
        var isRefused = false
        repeat {
            first += Int(linux_send_datagrams(queuedOn, ifindex, outgoing + first, Int32(queued - first), &isRefused))
            if isRefused {
                trains.switchOff()
                sendAlone(outgoing + first)
                first += 1
            }
        } while isRefused && first < queued
        queued = 0
        queuedByteCount = 0
        opening = Opening()
    }

    /// Sends the packets of a train that the kernel refused, each as a datagram of its own.
    private func sendAlone(_ train: UnsafeMutablePointer<linux_datagram>) {
        let destination = withUnsafeBytes(of: &train.pointee.gid) { GID(at: $0.baseAddress!) }
        var single = train.pointee
        single.segment = 0
        var left = Int(train.pointee.count)
        while left > 0 {
            let packet = UnsafeMutableRawBufferPointer(
                start: single.bytes, count: min(left, Int(train.pointee.segment)))
            seal(packet, queuedFrom, destination, identification: 0)
            single.count = UInt32(packet.count)
            var isRefused = false
            _ = linux_send_datagrams(queuedOn, ifindex, &single, 1, &isRefused)
            single.bytes += packet.count
            left -= packet.count
        }
    }

    /// Sends what is queued before a packet that is already written behind it, and moves that one to the front.
    private mutating func moveToFront(byteCount: Int) {
        let written = outgoingRoom + queuedByteCount
        flush()
        outgoingRoom.copyMemory(from: written, byteCount: byteCount)
    }

    /// Fills in the ICRC.
    private func seal(
        _ packet: UnsafeMutableRawBufferPointer, _ source: GID, _ destination: GID, identification: UInt16
    ) {
        let udp = UDPHeader(sourcePort: port, destinationPort: port, packetByteCount: packet.count)
        let bytes = UnsafeRawBufferPointer(packet)
        let icrc = Self.icrc(source, destination, udp, bytes, identification: identification)
        icrc.store(at: packet.baseAddress! + (packet.count - ICRC.byteCount))
    }

    /// The ICRC of a packet as our sockets send it: DF set; identification 0, in a train the packet's place in it.
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
    /// Receives what waits on every socket, at most a batch on each, and hands over the packets whose ICRC is right.
    /// - Returns: how many came, and whether more may wait.
    func receive(
        _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) -> (count: Int, hasMore: Bool) {
        var total = 0
        var hasMore = false
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            for place in 0..<Self.batch { incoming[place].count = UInt32(Self.incomingByteCount) }
            let count = Int(linux_receive_datagrams(entries[index].descriptor, incoming, Int32(Self.batch)))
            total += count
            if count == Self.batch { hasMore = true }
            for place in 0..<count { take(incoming + place, to: entries[index].gid, counters, body) }
        }
        return (total, hasMore)
    }

    /// Takes a datagram, or the datagrams of a train one after the other.
    private func take(
        _ datagram: UnsafeMutablePointer<linux_datagram>, to destination: GID,
        _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) {
        let source = withUnsafeBytes(of: &datagram.pointee.gid) { GID(at: $0.baseAddress!) }
        let count = min(Int(datagram.pointee.count), Self.incomingByteCount)
        let segment = datagram.pointee.segment == 0 ? count : Int(datagram.pointee.segment)
        if segment < count { counters.pointee.receivedTrains &+= 1 }
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

    /// Takes a packet that was at this place of a train, or alone.
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
        guard isGood else {
            counters.pointee.badICRC &+= 1
            return
        }
        // The socket does not tell these; a router may change them.
        let envelope = PacketEnvelope(
            source: source, destination: destination, trafficClass: 0, hopLimit: 64, flowLabel: 0)
        body(packet, envelope)
    }
}
