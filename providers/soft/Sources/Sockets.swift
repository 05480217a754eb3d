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
    private let room: UnsafeMutableRawPointer
    private var queued = 0
    private var queuedOn: Int32 = -1
    private var hasWarned = false
    private let recovery = IPv4IdentificationRecovery(maximumPacketByteCount: Engine.packetRoom)

    private static let batch = Int(LINUX_DATAGRAM_BATCH)
    /// One byte more than a packet can have, so that a longer one shows.
    private static let stride = (Engine.packetRoom + 1 + 63) & ~63

    init(ifindex: UInt32, port: UInt16 = UDPHeader.rocePort) {
        self.ifindex = ifindex
        self.port = port
        entries = .allocate(capacity: DeviceLimits.gids)
        entries.initialize(repeating: Entry(), count: DeviceLimits.gids)
        outgoing = .allocate(capacity: Self.batch)
        incoming = .allocate(capacity: Self.batch)
        room = .allocate(byteCount: 2 * Self.batch * Self.stride, alignment: 64)
        for index in 0..<Self.batch {
            outgoing[index] = linux_datagram()
            outgoing[index].bytes = room + index * Self.stride
            incoming[index] = linux_datagram()
            incoming[index].bytes = room + (Self.batch + index) * Self.stride
        }
    }

    deinit {
        for index in 0..<DeviceLimits.gids where entries[index].descriptor >= 0 {
            linux_close(entries[index].descriptor)
        }
        entries.deallocate()
        outgoing.deallocate()
        incoming.deallocate()
        room.deallocate()
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

extension Sockets {
    /// Where the next datagram is to be written: room for `Engine.packetRoom` bytes.
    mutating func reserve() -> UnsafeMutableRawPointer {
        if queued == Self.batch { flush() }
        return outgoing[queued].bytes
    }

    /// Queues the packet that was written where `reserve` said. False when there is no socket for its address.
    mutating func commit(byteCount: Int, _ path: borrowing Path) -> Bool {
        let descriptor = descriptor(of: path.source)
        guard descriptor >= 0 else { return false }
        if queued > 0 && queuedOn != descriptor { moveToFront() }
        queuedOn = descriptor
        let entry = outgoing + queued
        seal(UnsafeMutableRawBufferPointer(start: entry.pointee.bytes, count: byteCount), path)
        entry.pointee.count = UInt32(byteCount)
        entry.pointee.port = port
        entry.pointee.traffic_class = path.trafficClass
        entry.pointee.hop_limit = path.hopLimit
        path.destination.withNetworkBytes { bytes in
            withUnsafeMutableBytes(of: &entry.pointee.gid) { target in
                target.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: 16))
            }
        }
        queued += 1
        return true
    }

    /// Sends what is queued. What the kernel does not take is lost.
    mutating func flush() {
        if queued == 0 { return }
        _ = linux_send_datagrams(queuedOn, ifindex, outgoing, Int32(queued))
        queued = 0
    }

    /// Sends what is queued before a packet that is already written behind it, and moves that one to the front.
    private mutating func moveToFront() {
        let written = queued
        flush()
        let bytes = outgoing[0].bytes
        outgoing[0].bytes = outgoing[written].bytes
        outgoing[written].bytes = bytes
    }

    /// Fills in the ICRC.
    private func seal(_ packet: UnsafeMutableRawBufferPointer, _ path: borrowing Path) {
        let udp = UDPHeader(sourcePort: port, destinationPort: port, packetByteCount: packet.count)
        let bytes = UnsafeRawBufferPointer(packet)
        let icrc = Self.icrc(path.source, path.destination, udp, bytes)
        icrc.store(at: packet.baseAddress! + (packet.count - ICRC.byteCount))
    }

    /// The ICRC of a packet as our sockets send it: identification 0, DF set.
    private static func icrc(
        _ source: GID, _ destination: GID, _ udp: UDPHeader, _ packet: UnsafeRawBufferPointer
    ) -> ICRC {
        let covered = ICRC.covered(of: packet)
        if source.isIPv4 {
            let ip = IPv4Header(
                source: source.ipv4, destination: destination.ipv4, packetByteCount: packet.count)
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
            for place in 0..<Self.batch { incoming[place].count = UInt32(Self.stride) }
            let count = Int(linux_receive_datagrams(entries[index].descriptor, incoming, Int32(Self.batch)))
            total += count
            if count == Self.batch { hasMore = true }
            for place in 0..<count { take(incoming + place, to: entries[index].gid, counters, body) }
        }
        return (total, hasMore)
    }

    private func take(
        _ datagram: UnsafeMutablePointer<linux_datagram>, to destination: GID,
        _ counters: UnsafeMutablePointer<LinkCounters>,
        _ body: (UnsafeRawBufferPointer, borrowing PacketEnvelope) -> Void
    ) {
        counters.pointee.receivedDatagrams &+= 1
        let count = Int(datagram.pointee.count)
        guard count >= BTH.byteCount + ICRC.byteCount, count <= Engine.packetRoom else {
            counters.pointee.badLength &+= 1
            return
        }
        let packet = UnsafeRawBufferPointer(start: datagram.pointee.bytes, count: count)
        let source = withUnsafeBytes(of: &datagram.pointee.gid) { GID(at: $0.baseAddress!) }
        let udp = UDPHeader(
            sourcePort: datagram.pointee.port, destinationPort: port, packetByteCount: count)
        let computed = Self.icrc(source, destination, udp, packet)
        let received = ICRC.trailer(of: packet)
        let isGood =
            destination.isIPv4
            ? recovery.fields(computed: computed, received: received, packetByteCount: count) != nil
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
